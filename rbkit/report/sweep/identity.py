"""Ids from content: the same run has the same id, however and wherever it was typed.

An id is made of the template's code, the parameters, rbkit's version, and the content of the
data that parameters name. So a sweep typed again finds what is done, and a run whose code or
data have changed is another run. What counts as data:

- a file, and files that a pattern such as ``texts/*.jsonl`` finds: always;
- a folder: in rbkit's own run notebook if ``corpus``, ``domains``, ``edits``, ``embedder`` or
  ``model`` names it; in any other notebook if the parameter's name or the comment behind it has
  the word *data* or *corpus* (``texts: str = "in"  # folder of data``). Any other folder may be
  where runs write, and then their ids would change under them: it counts by its name;
- never the root, the home or the temporary folder, what the sweep itself writes, or more than
  100,000 files; and what cannot be read counts by its name, which is told.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import rbkit
from rbkit.files import sha256_of_file
from rbkit.report.sweep.declared import RUN_HINTS, Declared

DIGITS = (12, 24, 64)  # of a hash, in an id: the first is enough but for one in millions of runs
_MOST = 20 * 2**30  # bytes of data that are read; of more, sizes and times have to do
_FILES = 100_000  # files of a folder or a pattern: of more, nobody means all
_NAMING_FILES = ("corpus", "embedder", "edits", "domains", "model")  # of RunParameters
_DATA = re.compile(r"(?<![^\W_])(data|corpus)(?![^\W_])", re.IGNORECASE)  # as a word of its own
_LONGEST = 60  # characters of the words of an id: folders nest, and paths have a limit


def code_sha(node: Any) -> str:
    """Hash the code of a notebook; text, outputs and what papermill injected do not count."""
    sources = [
        cell["source"].rstrip()
        for cell in node.cells
        if cell["cell_type"] == "code" and "injected-parameters" not in _tags(cell)
    ]
    return _sha(sources)


def content_of(
    template_sha: str, parameters: Mapping[str, Any], contents: Contents
) -> dict[str, Any]:
    """Return what a run is made of, in hashes.

    Returns
    -------
    dict
        ``sha`` of all of it, ``template_sha``, ``rbkit`` (major and minor version), and in
        ``data`` a hash for each parameter that names some.
    """
    made_of = {name: contents.of(name, value) for name, value in parameters.items()}
    version = ".".join(rbkit.__version__.split(".")[:2])
    data = {name: _sha(made)[:12] for name, made in made_of.items() if made != parameters[name]}
    return {
        "sha": _sha([template_sha, version, made_of]), "template_sha": template_sha,
        "rbkit": version, "data": data,
    }  # fmt: skip


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

    Attributes
    ----------
    notes : list of str
        What the user should know: folders and files that count by their names alone.
    """

    def __init__(self, out: Path, known: Declared) -> None:
        self._out, self._known = out.resolve(), known
        self._seen: dict[tuple[str, str], Any] = {}
        self._never = set(_too_large())
        self.notes: list[str] = []

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

    def _folders_are_data(self, name: str) -> bool:
        if self._known.is_run and name in RUN_HINTS:
            return True
        return bool(_DATA.search(f"{name} {self._known.parameters[name].help}"))

    def _of(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(name, item) for item in value]
        if isinstance(value, dict):
            return {key: self._of(name, item) for key, item in value.items()}
        # "." and "/" are signs more often than folders, and folders too large to be meant.
        if not isinstance(value, str) or not re.search(r"\w", value):
            return value
        if (name, value) not in self._seen:
            try:
                self._seen[name, value] = self._read(name, value)
            except OSError as error:
                self.notes.append(f"{name}: {value} cannot be read ({error.strerror}), and "
                                  "counts by its name")  # fmt: skip
                self._seen[name, value] = value
        return self._seen[name, value]

    def _read(self, name: str, value: str) -> Any:
        try:
            path = Path(value).expanduser()
            there = path.exists()
        except PermissionError:
            raise
        except (OSError, ValueError, RuntimeError):  # too long, or with a zero in it: a text
            return value
        if there:
            return self._content(name, path, value)
        if glob.has_magic(value) and "\0" not in value:
            found = sorted(islice(glob.iglob(str(path), recursive=True), _FILES + 1))
            if len(found) > _FILES:
                return self._by_name(name, value, f"finds more than {_FILES:,} files")
            made = [self._content(name, Path(each), None) for each in found]
            if files := [each for each in made if each is not None]:
                return {"files": files}
        return value

    def _content(self, name: str, path: Path, otherwise: str | None) -> Any:
        # The name does not count, but its endings do: they say how a file is read.
        if path.is_file():
            return {"file": _digests([path])[0], "ending": "".join(path.suffixes[-2:])}
        if not path.is_dir() or path.resolve() in self._never:
            return otherwise  # also a device, a pipe: nothing to be read
        if not self._folders_are_data(name):
            if otherwise is not None:
                said = f'if it is data, write "data" into the comment of {name}'
                self._by_name(name, otherwise, f"is a folder; {said}")
            return otherwise
        names = list(islice(self._walk(path), _FILES + 1))
        if len(names) > _FILES:
            return self._by_name(name, otherwise or str(path), f"holds more than {_FILES:,} files")
        digests = _digests([path / each for each in names])
        return {"folder": _sha([list(pair) for pair in zip(names, digests, strict=True)])}

    def _by_name(self, name: str, value: str, why: str) -> str:
        self.notes.append(f"{name}: {value} counts by its name: it {why}")
        return value

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


def _too_large() -> Iterator[Path]:
    """Folders that are named as places, never as data."""
    for place in ("/", "/tmp", "/var/tmp", tempfile.gettempdir()):
        yield Path(place).resolve()
    with suppress(RuntimeError):  # nobody's home
        yield Path.home().resolve()


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
