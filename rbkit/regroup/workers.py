"""How a process that works for another keeps to its share, and goes when the other has gone."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

_prepared: int | None = None  # the process in which prepare_worker was done
_owner: int | None = None  # the process whose forks leave with it


def prepare_worker(threads: int) -> None:
    """Keep a worker to its threads, and let it go when the process that started it is gone."""
    global _prepared
    if _prepared == os.getpid():
        return
    # A forked process that wakes a second OpenMP thread hangs, and workers share the cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    _watch(os.getppid())
    _prepared = os.getpid()


@contextmanager
def forks_leave_with_us() -> Iterator[None]:
    """Have all that is forked in the block end when this process does, even if it is killed.

    A pool starts more than workers: the process that keeps their queue runs no code of ours,
    and would wait for its killed owner for ever.
    """
    global _owner
    before, _owner = _owner, os.getpid()
    try:
        yield
    finally:
        _owner = before


def _after_fork() -> None:
    if _owner is not None and _owner == os.getppid():
        _watch(_owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _watch(parent: int) -> None:
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
