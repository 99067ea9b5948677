"""A page as PDF, printed by a Chromium or Chrome that is already there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rbkit.errors import InputError
from rbkit.files import atomic_path

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome",
          "microsoft-edge", "msedge")  # fmt: skip
# macOS puts no browser on PATH.
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# Nothing is asked of the network, and nothing is kept.
_QUIET = ("--headless", "--disable-gpu", "--no-first-run", "--no-default-browser-check",
          "--disable-extensions", "--disable-sync", "--disable-background-networking",
          "--disable-component-update", "--disable-quic", "--no-pdf-header-footer",
          "--host-resolver-rules=MAP * ~NOTFOUND")  # fmt: skip


def find_browser() -> str:
    """Return the path of a Chromium or Chrome.

    Raises
    ------
    InputError
        If there is none.
    """
    found = [place for name in _NAMES if (place := shutil.which(name))]
    found += [place for place in _PLACES if Path(place).is_file()]
    if not found:
        raise InputError(
            "pdf", "no Chromium or Chrome on PATH",
            "install one (such as: apt install chromium), or print the page from your browser",
        )  # fmt: skip
    return found[0]


def html_to_pdf(
    page: str | Path, out: str | Path | None = None, *, timeout: float = 120.0,
    browser: str | None = None,
) -> Path:  # fmt: skip
    """Print an HTML file to PDF.

    Parameters
    ----------
    page : path
    out : path, optional
        The PDF; beside the page if not given. Whole or not there.
    timeout : float
        Seconds that the browser may take.
    browser : path, optional
        The browser; as of :func:`find_browser` if not given.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        If the page or a browser is missing, or the browser fails.
    """
    page = Path(page).resolve()
    out = page.with_suffix(".pdf") if out is None else Path(out)
    if not page.is_file():
        raise InputError(str(page), "no such file", "write the page first")
    browser = browser or find_browser()
    with (
        tempfile.TemporaryDirectory(prefix="rbkit-pdf-", ignore_cleanup_errors=True) as profile,
        atomic_path(out) as printed,
    ):
        said = _print(browser, page, printed, profile, timeout)
        if printed.read_bytes()[:5] != b"%PDF-":
            raise InputError(
                str(out), f"{Path(browser).name} printed nothing: {said or 'no reason given'}",
                "print the page from your browser",
            )  # fmt: skip
    return out


def _print(browser: str, page: Path, out: Path, profile: str, timeout: float) -> str:
    """Run the browser; return the end of what it says."""
    command = [browser, *_QUIET, f"--user-data-dir={profile}", f"--print-to-pdf={out}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to run as root with it
    # Its helpers outlive a kill of the parent alone: they are a group, and end as one.
    group = {"start_new_session": True} if sys.platform != "win32" else {}
    process = subprocess.Popen(
        [*command, page.as_uri()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace", **group,  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise InputError(
            str(page), f"{Path(browser).name} took more than {timeout:g} s to print it",
            "give it more time, or print the page from your browser",
        ) from None  # fmt: skip
    finally:
        _end(process)
    return " ".join(said.split())[-300:]


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
