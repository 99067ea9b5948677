"""Ray, quiet and private: connected for as long as a job lasts (extra ``rbkit[ray]``)."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from rbkit.errors import InputError

# What passes through Ray's object store is small; it takes 30 % of memory if left.
_STORE_BYTES = 100 * 2**20
_STARTS = 3  # Ray's own processes give up after 15 s, which they may need on a busy machine
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing to anybody
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # ours counts what the user knows
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@contextmanager
def connected_ray(address: str | None, cpus: float, gpus: float) -> Iterator[Any]:
    """Yield Ray, connected; what was started here is shut down.

    Parameters
    ----------
    address : str, optional
        A Ray cluster (``"auto"``: the one this machine belongs to). By default the Ray that this
        process is connected to, else a private one on 127.0.0.1 that ends with the block.
    cpus, gpus : float
        Of the private one.

    Raises
    ------
    InputError
        Ray is not installed, or there is no cluster at `address`.
    """
    set_here = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ |= set_here  # before the import, which reads some of them
    try:
        with warnings.catch_warnings():
            # It warns of the deprecated settings that it sets itself.
            warnings.filterwarnings("ignore", module=r"ray\b", category=DeprecationWarning)
            warnings.filterwarnings("ignore", module=r"ray\b", category=FutureWarning)
            try:
                import ray
            except ImportError as error:
                remedy = "pip install 'rbkit[ray]'"
                raise InputError("Ray", f"is not installed ({error})", remedy) from error
            ours, before = not ray.is_initialized(), _children()
            handler = signal.getsignal(signal.SIGTERM)
            try:
                for attempt in range(_STARTS if ours else 0):
                    try:
                        _start(ray, address, cpus, gpus)
                        break
                    except InputError as error:
                        if "timed out" not in error.what or attempt == _STARTS - 1:
                            raise
                        ray.shutdown()
                        _kill_processes_of(ray, _children() - before)
                yield ray
            finally:  # also if it did not start: what it left behind would outlive the call
                if ours:
                    started, running = _children() - before, ray.is_initialized()
                    ray.shutdown()
                    # It does not wait for its processes: here they are gone when it is.
                    psutil.wait_procs(started, timeout=20 if running else 0)
                    _kill_processes_of(ray, started)
                    _restore_sigterm(handler)
    finally:
        for name in set_here:
            del os.environ[name]


@contextmanager
def quiet_ray_data(ray: Any) -> Iterator[Any]:
    """Yield ``ray.data`` without its progress bars and its log."""
    import ray.data as data

    context = data.DataContext.get_current()
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield data
    finally:
        logger.setLevel(level)
        context.enable_progress_bars = bars


def _kill_processes_of(ray: Any, processes: Collection[psutil.Process]) -> None:
    folder, pids = str(Path(ray.__file__).parent), {process.pid for process in processes}
    for process in processes:
        with suppress(psutil.Error):
            if any(folder in part for part in process.cmdline()):
                process.kill()
                process.wait(5)
    # After a failed start Ray forgets its processes: each would warn that it is still running.
    for child in gc.get_objects() if pids else ():
        if issubclass(type(child), subprocess.Popen) and child.pid in pids:
            child.poll()


def _restore_sigterm(handler: Any) -> None:
    # Ray leaves its handler, with which a later SIGTERM ends this process by SystemExit.
    if threading.current_thread() is not threading.main_thread() or handler is None:
        return
    now = signal.getsignal(signal.SIGTERM)
    if getattr(now, "__module__", "").startswith("ray."):  # else another was set since
        signal.signal(signal.SIGTERM, handler)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _start(ray: Any, address: str | None, cpus: float, gpus: float) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                "Ray",
                f"no cluster at {address!r} ({why})",
                "start one, or use the one on this machine",
            ) from error
        return
    # Even with 127.0.0.1 Ray listens on all network cards, except where it supports no clusters,
    # as on macOS.
    constants = ray._private.ray_constants
    clusters = getattr(constants, "ENABLE_RAY_CLUSTER", True)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(
            address="local",
            num_cpus=math.ceil(cpus),
            num_gpus=math.ceil(gpus),
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            **quiet,
        )
    except Exception as error:  # a plain Exception where the machine is too busy
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            "Ray", f"did not start ({why})", "try again when less is running"
        ) from error
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters
