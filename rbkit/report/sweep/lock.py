"""One launcher at a time in a sweep's folder."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rbkit.errors import InputError
from rbkit.report.sweep.sweepfile import NAME, launcher_of, read_sweep

FOLDER = ".sweep"  # what belongs to the launcher alone


@contextmanager
def sweep_lock(out: Path) -> Iterator[None]:
    """Hold the lock of the folder `out`; it is released by the death of its holder, too.

    Raises
    ------
    InputError
        Another launcher has it, or the folder cannot be written.
    """
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / FOLDER / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        who = launcher_of(out, read_sweep(out)) if (out / NAME).exists() else None
        raise InputError(
            str(out), f"{who or 'another process'} works on this sweep",
            f"wait for it, or stop it; see rbkit status {out}",
        ) from None  # fmt: skip
    except (OSError, NotImplementedError) as error:
        raise cannot_write(out, error) from error
    try:
        yield
    finally:
        lock.release()


def stops_all(out: Path, error: OSError) -> bool:
    """Whether nothing more can be written in the folder `out`, not only where `error` arose."""
    if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return True
    try:
        with tempfile.TemporaryFile(dir=out / FOLDER) as file:
            file.write(b"?")
    except OSError:
        return True
    return False


def cannot_write(out: Path, error: BaseException) -> InputError:
    """Return the error that stops a sweep whose folder takes nothing any more."""
    why = getattr(error, "strerror", None) or str(error)
    return InputError(
        str(out), f"cannot be written ({why})",
        "make room, or give another --out, and run the same command again: what is done stays done",
    )  # fmt: skip
