"""A Jupyter server of one's own on a free port, and notebooks opened in it by a browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import MethodType

import nbformat

TOKEN = "testtoken"
# Complaints of Jupyter itself that say nothing about the explorer, which asks no server: among
# them what Jupyter's REST interface answers when the machine is busy.
ITS_OWN = ("favicon", "/lsp/", "jupyterlab-lsp", "Slow network", "preload", "sourcemap", "/api/")


def notebook(path, *cells):
    """Write a notebook of code cells; return its path."""
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(book, path)
    return Path(path)


class Server:
    """JupyterLab and Notebook 7 on 127.0.0.1, with folders for settings that nobody else has."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        home = self.root / "jupyter-home"
        (home / "config" / "labconfig").mkdir(parents=True, exist_ok=True)
        # No news and no updates: both ask the network, and the toast covers the notebook.
        quiet = {
            "@jupyterlab/apputils-extension:notification": {
                "checkForUpdates": False,
                "fetchNews": "false",
            }
        }
        (home / "config" / "labconfig" / "default_setting_overrides.json").write_text(
            json.dumps(quiet), encoding="utf-8"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        env = os.environ | {name: str(home / folder) for name, folder in folders.items()}
        env |= {"HF_HUB_OFFLINE": "1", "RBKIT_DISPLAY": "live", "PYTHONWARNINGS": "ignore"}
        self.log = (home / "server.log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyter",
                "lab",
                "--no-browser",
                "--ip=127.0.0.1",
                f"--port={port}",
                "--ServerApp.port_retries=0",
                "--allow-root",
                f"--IdentityProvider.token={TOKEN}",
                f"--ServerApp.root_dir={self.root}",
                "--LabApp.expose_app_in_browser=True",
                "--JupyterNotebookApp.expose_app_in_browser=True",
            ],
            env=env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._wait(home)

    def _wait(self, home, seconds=90):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/api?token={TOKEN}", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.stop()
        raise RuntimeError("no Jupyter server: " + (home / "server.log").read_text("utf-8")[-2000:])

    def stop(self):
        """End the server and its kernels: they form a process group of their own."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(20)
        self.log.close()

    def open(self, context, path, app="lab"):
        """Open a notebook below the server's folder; wait until its kernel answers."""
        where = path.resolve().relative_to(self.root).as_posix()
        page = context.new_page()
        page.noise = []
        mine = (self.url, self.url.replace("http", "ws"), "data:", "blob:")

        def allow(route):
            if route.request.url.startswith(mine):
                route.continue_()
            else:
                page.noise.append(f"request: {route.request.url}")
                route.abort()

        def hear(message):
            text = f"{message.text} {message.location.get('url', '')}"
            if message.type == "error" and not any(word in text for word in ITS_OWN):
                page.noise.append(f"console: {text}")

        def fail(error):
            # Notebook 7 throws one of its own over an empty notebook; ours come from a blob.
            if "static/notebook/" not in str(error.stack) or "blob:" in str(error.stack):
                page.noise.append(f"error: {error} {error.stack}")

        context.route("**/*", allow)
        page.on("console", hear)
        page.on("pageerror", fail)
        folder = "doc/tree" if app == "lab" else "notebooks"
        page.goto(f"{self.url}/{folder}/{where}?token={TOKEN}&reset", timeout=60_000)
        ready = "() => window.jupyterapp?.shell.currentWidget?.context?.isReady"
        page.wait_for_function(ready, timeout=60_000)
        # The indicator says idle before the session is connected: ask the kernel itself.
        page.evaluate("""async () => {
          const session = jupyterapp.shell.currentWidget.sessionContext;
          await session.ready;
          await session.session.kernel.info;
        }""")
        page.run_all = MethodType(run_all, page)
        page.ask = MethodType(ask, page)
        page.explorer = MethodType(explorer, page)
        return page


def run_all(page, seconds=120):
    """Run all cells and wait until the kernel has nothing left to do."""
    page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        """() => {
          const book = jupyterapp.shell.currentWidget, kernel = book.sessionContext.session.kernel;
          const cells = book.content.widgets.filter((cell) => cell.model.type === "code");
          return kernel.status === "idle" && cells.every((cell) => cell.model.executionCount);
        }""",
        timeout=1000 * seconds,
    )


def ask(page, code):
    """Text of what an expression is in the kernel."""
    return page.evaluate(
        """async (code) => {
          const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          let text = null;
          const future = kernel.requestExecute({ code: `print(${code})` });
          future.onIOPub = ({ header, content }) => {
            if (header.msg_type === "stream") text = (text || "") + content.text;
          };
          await future.done;
          return text?.trim();
        }""",
        code,
    )


def explorer(page, seconds=60):
    """Wait for the widget with its points on the map; scroll to it and return its locator."""
    found = page.locator("[data-test=explorer]").first
    found.wait_for(timeout=1000 * seconds)
    page.wait_for_function(
        "() => document.querySelector('[data-test=explorer]')?.explorer?.store.n > 0",
        timeout=1000 * seconds,
    )
    found.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    return found
