"""Files that are whole or absent: atomic writes, content hashes, safe paths, the cache.

A reader never sees half a file: everything is written aside, then renamed. A killed
process leaves at most a ``.tmp-*`` file, which nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import struct
import tempfile
import time
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from rbkit.errors import InputError, RbkitWarning

CACHE_REMEDY = "make room, or set RBKIT_CACHE to another place"


def cache_dir() -> Path:
    """Folder for everything that can be fetched or computed again.

    ``$RBKIT_CACHE`` if set, else ``$XDG_CACHE_HOME/rbkit``, else ``~/.cache/rbkit``.
    """
    if set_by_user := os.environ.get("RBKIT_CACHE"):
        return Path(set_by_user).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "rbkit"


@contextmanager
def atomic_path(path: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds.

    Without `flush` nothing waits for the disk, and a power cut may leave an empty file.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as tmp:
    ...     _ = tmp.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keep the suffix: numpy and pyarrow choose formats (or append ".npz") by it.
    handle, name = tempfile.mkstemp(
        prefix=f".tmp-{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    tmp = Path(name)
    try:
        yield tmp
        if flush:
            _flush_to_disk(tmp)
        # mkstemp makes private files; results are meant to be read by others too.
        umask = os.umask(0)
        os.umask(umask)
        tmp.chmod(0o666 & ~umask)
        _replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder next to `folder`; rename it to `folder` if the block succeeds.

    An older folder of that name is replaced. Processes that may make the same folder at once
    need a lock.
    """
    staging = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)  # of a predecessor that was killed
    staging.mkdir(parents=True)
    try:
        yield staging
        move_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_folder(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`; an older folder of that name is moved aside and removed."""
    if folder.exists():
        aside = folder.with_name(f".tmp-old-{folder.name}-{os.getpid()}-{time.time_ns()}")
        os.replace(folder, aside)
        os.replace(staging, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(staging, folder)


def _replace(tmp: Path, path: Path) -> None:
    # Windows refuses while somebody has the old file open: a view that just reads it.
    for pause in (0.01, 0.03, 0.1, 0.3):
        try:
            os.replace(tmp, path)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(tmp, path)


def _flush_to_disk(path: Path) -> None:
    # Without this a power cut can leave the new name pointing at an empty file.
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str, *, flush: bool = True) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic_path(path, flush=flush) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, flush: bool = True) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text, flush=flush)


def json_ready(value: Any) -> Any:
    """Turn numpy scalars, arrays, tuples, paths and NaN into what JSON has.

    Examples
    --------
    >>> import numpy as np
    >>> json_ready({"k": np.int64(3), "score": float("nan"), "grid": (1, np.float32(2))})
    {'k': 3, 'score': None, 'grid': [1, 2.0]}
    """
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays and numpy's scalars
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def regular(path: str | Path, *, or_folder: bool = False) -> Path:
    """Return `path` if it may be opened: a regular file (or a folder), or nothing yet.

    Reading a pipe waits for ever, and reading a device can do anything. A folder that comes from
    a stranger may hold either under any name.

    Raises
    ------
    InputError
        A pipe, device, socket or folder; or a path that the system cannot take.

    Examples
    --------
    >>> regular("/dev/null")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: /dev/null: is not a regular file; give a file
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:  # too long, a loop of links, a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            str(path)[:200], f"cannot be opened ({reason})", "check the path"
        ) from error
    if not (stat.S_ISREG(mode) or (or_folder and stat.S_ISDIR(mode))):
        what = "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
        raise InputError(str(path), what, "give a file")
    return path


DEEPEST = 100  # levels of JSON that are read: whatever walks through it has room for more


def parse_json(raw: str | bytes) -> Any:
    """Read JSON that may come from a stranger.

    Raises
    ------
    ValueError
        It is not JSON in UTF-8, or nested too deep.

    Examples
    --------
    >>> parse_json("[" * 200 + "]" * 200)
    Traceback (most recent call last):
        ...
    ValueError: nested more than 100 deep
    """
    try:
        value = json.loads(raw)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} deep") from None
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST + 1):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return value
    raise ValueError(f"nested more than {DEEPEST} deep")


def check_folder(where: str, path: str | Path) -> None:
    """Refuse a path that is no folder and cannot become one, or in which nothing can be written.

    Examples
    --------
    >>> check_folder("run_dir", "/dev/null/run")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: run_dir: /dev/null is not a folder; give another place
    """
    remedy, path = "give another place", Path(path)
    try:
        str(path).encode("utf-8")
        for part in (path, *path.absolute().parents):
            try:  # once: another process may make it in between
                folder = stat.S_ISDIR(part.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                folder = not part.is_symlink()
            if not folder:
                raise InputError(where, f"{part} is not a folder", remedy)
        there = next(part for part in (path, *path.absolute().parents) if part.exists())
        if not os.access(there, os.W_OK):
            raise InputError(where, f"{there} cannot be written to", remedy)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # too long, a NUL in it, not UTF-8
        why = getattr(error, "strerror", None) or error
        what = f"{str(path)[:200]} cannot be a folder ({why})"
        raise InputError(where, what, remedy) from error


@contextmanager
def saving(path: str | Path, remedy: str = "make room, or give another place") -> Iterator[None]:
    """Turn a full disk, and whatever else keeps a result from being saved, into one line."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise InputError(str(path), what, remedy) from error


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Warn where a cache cannot be written: work in memory is not lost to a full disk."""
    try:
        yield
    except OSError as error:
        message = f"{what} cannot be written ({error.strerror or error}): it is not kept"
        warnings.warn(message, RbkitWarning, stacklevel=4)


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a broken one gives an :class:`InputError` that names it."""
    path = regular(path)
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:  # also of an int with thousands of digits
        raise InputError(str(path), f"not valid JSON ({error})", "delete or repair it") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> OSError | InputError:
    """Return the error for a file that cannot be read; one that is not there stays what it is."""
    if isinstance(error, FileNotFoundError):
        return error
    return InputError(str(path), f"cannot be read ({error.strerror})", "check its permissions")


_SMALL = 1e9  # bytes that may be unpacked in any case


def check_memory(size: float) -> None:
    """Raise a ValueError where a file would unpack to more than there is memory."""
    if size > max(_SMALL, psutil.virtual_memory().available):
        raise ValueError(f"it would unpack to {size / 1e9:,.0f} GB")


# What numpy and zipfile raise for files that are none of theirs, or that lie about themselves.
_NO_ARRAYS: tuple[type[Exception], ...] = (ValueError, EOFError, LookupError, TypeError)
_NO_ARRAYS += (AttributeError, ArithmeticError)
_NO_ARRAYS += (MemoryError, RecursionError, SyntaxError, NotImplementedError, RuntimeError)
_NO_ARRAYS += (zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)


def read_npz(path: str | Path, remedy: str) -> dict[str, Any]:
    """Read the arrays of an ``.npz`` file; a broken one gives an :class:`InputError`.

    Parameters
    ----------
    remedy : str
        What to do about a broken file, for the message.
    """
    import numpy as np

    path = regular(path)
    try:
        # Opened here, since numpy leaves its own file open when the archive is broken.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            # A few kB may unpack to more than there is memory.
            check_memory(sum(each.file_size for each in file.zip.infolist()))
            return {name: file[name] for name in file.files}
    except _NO_ARRAYS as error:
        raise InputError(str(path), f"cannot be read ({error})", remedy) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def free_name(path: str | Path) -> Path:
    """Return `path`, or the first of ``path-2``, ``path-3``, ... where there is nothing yet.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> free_name(folder).name == folder.name + "-2", free_name(folder / "run").name
    (True, 'run')
    """
    path, number = Path(path), 1
    path = path if path.name else path.resolve()  # "." and ".." have no name of their own
    name = path.name
    while path.exists():
        number += 1
        path = path.with_name(f"{name}-{number}")
    return path


def sha256_of_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: str | bytes | Iterable[str]) -> str:
    """Short (16 hex digits) content hash of strings, bytes and iterables of strings.

    Lengths are hashed with the contents, so ``("ab", "c")`` differs from ``("a", "bc")``.

    Examples
    --------
    >>> fingerprint(["ab", "c"]) == fingerprint(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        items = [part] if isinstance(part, str | bytes) else part
        for item in items:
            raw = item.encode("utf-8", "surrogatepass") if isinstance(item, str) else item
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
        digest.update(b"\xff")
    return digest.hexdigest()[:16]


def is_within(path: Path, root: Path) -> bool:
    """Whether `path` is in the folder `root`, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def own(root: Path, name: str) -> Path:
    """``root / name`` as :func:`inside` allows it, but not resolved: to be opened or written.

    A folder from a stranger may hold links to files of its reader.
    """
    path = root / name
    if not is_within(path, root):
        what = f"is a link that leads out of {root.name or root}"
        raise InputError(str(path), what, "put the file itself there")
    return path


def inside(root: str | Path, relative: str | Path) -> Path:
    """``root / relative``, refused if it leaves `root` (``..``, absolute, or a link out).

    Examples
    --------
    >>> inside("/tmp", "../etc/passwd")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: ../etc/passwd: leaves the folder /tmp; use a path inside it
    """
    root = Path(root).resolve()
    path = Path(os.path.realpath(root / relative))
    if not is_within(path, root):
        raise InputError(str(relative), f"leaves the folder {root}", "use a path inside it")
    return path
