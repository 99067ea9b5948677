"""Scripts that train, in processes of their own that need not import torch again.

Importing what trains takes longer than a small run. A fork server does it once for all tests of a
worker; each script is then ``__main__`` of a process forked from it, which can be killed, and
has arguments, environment, working directory and output as if it had been started by hand.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import wait
from pathlib import Path

STREAMS = ("stdout", "stderr")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rbkit.train.trainer", "rbkit.train.training", "datasets"])


class Script:
    """A Python script in a process of its own; `args`, `env` and `cwd` as of ``Popen``."""

    def __init__(self, path, *args, env=None, cwd=None):
        self.path, self.args = str(path), [str(arg) for arg in args]
        self.env, self.cwd = {**os.environ, **(env or {})}, str(cwd or Path.cwd())
        self._folder = tempfile.TemporaryDirectory(prefix="rbkit-script-")
        become = {"SCRIPT": (self.path, self.args, self.env, self.cwd, self._folder.name)}
        self.process = CONTEXT.Process(
            target=runpy.run_path, args=(__file__, become, "rbkit_script")
        )
        self.process.start()

    def wait(self, timeout=300):
        """Wait for its end; the return code is minus the number of a signal that ended it."""
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, f"still running after {timeout} s: {self.path}"
        printed = [(Path(self._folder.name) / name).read_text() for name in STREAMS]
        self._folder.cleanup()
        return subprocess.CompletedProcess([self.path, *self.args], code, *printed)


def run(path, *args, timeout=300, **options):
    """Run a script to its end, as ``subprocess.run`` with all output captured."""
    return Script(path, *args, **options).wait(timeout)


def run_parallel(path, *args, world, timeout=400, env=None):
    """Run a script in `world` processes of one group, as torchrun does: one failure ends all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GROUP_RANK": 0,
        "TORCHELASTIC_RUN_ID": "none",
    }
    scripts = []
    for rank in range(world):
        mine = {**group, "RANK": rank, "LOCAL_RANK": rank}
        mine = {name: str(value) for name, value in mine.items()}
        scripts.append(Script(path, *args, env={**(env or {}), **mine}))
    until = time.monotonic() + timeout
    running = {script.process.sentinel: script.process for script in scripts}
    while running:
        ended = [running.pop(end) for end in wait(list(running), until - time.monotonic())]
        for process in ended:
            process.join()
        if not ended or any(process.exitcode for process in ended):
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.join(30)
                process.kill()
                process.join()
            break
    assert time.monotonic() < until, f"still running after {timeout} s: {path}"
    done = [script.wait() for script in scripts]
    code = next((one.returncode for one in done if one.returncode), 0)
    printed = ("".join(getattr(one, stream) for one in done) for stream in STREAMS)
    return subprocess.CompletedProcess(done[0].args, code, *printed)


def _become(path, args, env, cwd, printed):
    for number, stream in enumerate(STREAMS, start=1):
        os.dup2(os.open(Path(printed) / stream, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [path, *args]
    sys.path.insert(0, os.path.dirname(path))
    runpy.run_path(path, run_name="__main__")


if __name__ == "rbkit_script":
    _become(*SCRIPT)  # noqa: F821  (a global that its process is started with)
