"""Ids from content: the same run has the same id, however and wherever it was typed.

An id is made of the template's code, the parameters, the content of every file that a
parameter names, and rbkit's version. So a sweep typed again finds what is done, and a run
whose code or data have changed is another run.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rbkit
from rbkit.errors import InputError
from rbkit.files import sha256_of_file
from rbkit.report.sweep.declared import RUN_HINTS, Declared

_MOST = 20 * 2**30  # bytes of data that are read; of more, sizes and times have to do
_NAMING_FILES = ("corpus", "embedder", "edits", "domains", "model")  # of RunParameters
_LONGEST = 60  # characters of the words of an id: folders nest, and paths have a limit


def code_sha(node: Any) -> str:
    """Hash the code of a notebook; text, outputs and what papermill injected do not count."""
    sources = [
        cell["source"].rstrip()
        for cell in node.cells
        if cell["cell_type"] == "code" and "injected-parameters" not in _tags(cell)
    ]
    return _sha(sources)


def run_hash(template_sha: str, parameters: Mapping[str, Any], contents: Contents) -> str:
    """Return 8 hex digits for a run.

    Raises
    ------
    InputError
        A parameter names a file that cannot be read.
    """
    made_of = {name: contents.of(name, value) for name, value in parameters.items()}
    version = ".".join(rbkit.__version__.split(".")[:2])
    return _sha([template_sha, version, made_of])[:8]


def slug(varied: Mapping[str, Any], otherwise: str) -> str:
    """Return words for what varies that are safe in the name of a file.

    Examples
    --------
    >>> slug({"mixer": "RnB", "seed": 0, "k": [8, 12]}, "run")
    'mixer-RnB_seed-0_k-8-12'
    >>> slug({}, "90_run")
    '90_run'
    """
    words = "_".join(f"{name}-{_short(value)}" for name, value in varied.items())
    # A name that starts with a dot is hidden, one with a dash looks like an option.
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", words or otherwise).lstrip(".-")
    return safe[:_LONGEST].rstrip("._-") or "run"


class Contents:
    """What parameters stand for: values, and in place of the name of a file what is in it.

    Parameters
    ----------
    out : path
        Folder of the sweep: what it writes is none of its data.
    known : Declared
        The notebook's parameters.
    """

    def __init__(self, out: Path, known: Declared) -> None:
        self._out, self._known = out.resolve(), known
        self._seen: dict[str, Any] = {}

    def of(self, name: str, value: Any) -> Any:
        """Return the value of a parameter with the content of what it names, as JSON.

        Examples
        --------
        >>> Contents(Path("out"), Declared({})).of("seed", 3)
        3
        """
        return self._of(name, value) if self._may_name_files(name, value) else value

    def _may_name_files(self, name: str, value: Any) -> bool:
        if self._known.is_run and name in RUN_HINTS and name not in _NAMING_FILES:
            return False
        each = self._known.parameters.get(name)
        if name == "mixer" or each is None or typing.get_origin(each.hint) is typing.Literal:
            return False
        # A word that is the default ("demo", "tiny") means what the notebook calls so, even if
        # there happens to be a file of that name.
        return not (value == each.default and re.fullmatch(r"[\w-]+", str(value)))

    def _of(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(name, item) for item in value]
        if isinstance(value, dict):
            return {key: self._of(name, item) for key, item in value.items()}
        # "." and "/" are signs more often than folders, and folders too large to be meant.
        if not isinstance(value, str) or not re.search(r"\w", value):
            return value
        if value not in self._seen:
            try:
                self._seen[value] = self._read(value)
            except OSError as error:
                raise InputError(
                    name, f"{value} cannot be read ({error.strerror})", "check its permissions"
                ) from error
        return self._seen[value]

    def _read(self, value: str) -> Any:
        try:
            path = Path(value).expanduser()
            there = path.exists()
        except (OSError, ValueError, RuntimeError):  # too long, or with a zero in it: a text
            return value
        if there:
            return self._content(path)
        if glob.has_magic(value) and "\0" not in value:
            found = sorted(glob.glob(str(path), recursive=True))
            if found:
                return {"files": [self._content(Path(name)) for name in found]}
        return value

    def _content(self, path: Path) -> Any:
        # The name does not count, but its endings do: they say how a file is read.
        if path.is_file():
            return {"file": _digests([path])[0], "ending": "".join(path.suffixes[-2:])}
        if path.is_dir():
            names = list(self._walk(path))
            digests = _digests([path / name for name in names])
            return {"folder": [list(pair) for pair in zip(names, digests, strict=True)]}
        return str(path)  # a device, a pipe: nothing to be read

    def _walk(self, folder: Path) -> Iterator[str]:
        for where, folders, files in os.walk(folder, onerror=_raise):
            here = Path(where)
            folders[:] = sorted(
                name for name in folders
                if name not in ("__pycache__", ".ipynb_checkpoints", ".git")
                and (here / name).resolve() != self._out
            )  # fmt: skip
            for name in sorted(files):
                if (here / name).is_file():
                    yield (here / name).relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _digests(paths: list[Path]) -> list[str]:
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) > _MOST:
        return [
            f"{size} {path.stat().st_mtime_ns}" for path, size in zip(paths, sizes, strict=True)
        ]
    from tqdm import tqdm

    bar = tqdm(total=sum(sizes), desc="data", unit="B", unit_scale=True, delay=2, leave=False)
    found = []
    with bar:
        for path, size in zip(paths, sizes, strict=True):
            found.append(sha256_of_file(path))
            bar.update(size)
    return found


def _tags(cell: Any) -> Any:
    return cell.get("metadata", {}).get("tags", [])


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(f"{name}-{_short(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return "-".join(map(_short, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return Path(text).stem if "/" in text or os.sep in text else text


def _sha(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
