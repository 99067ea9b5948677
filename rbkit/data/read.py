"""Open files, folders, hub ids and what is in memory as Arrow data sets, or say why not.

Files, globs, folders and hub ids all go through ``datasets.load_dataset``; no code that comes
with a data set is ever run.
"""

from __future__ import annotations

import errno
import glob
import inspect
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np

from rbkit.data.builtin import BUILTIN
from rbkit.data.files import (
    KNOWN,
    READERS,
    Opened,
    check_lines,
    checked_path,
    csv_options,
    diagnose,
    files_at,
    json_rows,
    load_files,
    looks_like_files,
    matches,
    quiet,
    reason,
    suffix,
)
from rbkit.data.images import CAPTION_FILES, IMAGE, IMAGE_FILES, caption_of, captioned_files
from rbkit.data.memory import Unread, from_stream, in_memory
from rbkit.data.shapes import read_task
from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.files import CACHE_REMEDY, cache_dir, inside, read_json, regular

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_data(
    where: Any,
    *,
    config: str | None = None,
    split: str | None = None,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Opened:
    """Open a built-in corpus, files, a folder, a hub id, or a data set that is already open.

    For the arguments see :func:`~rbkit.data.corpus.load_corpus`.
    """
    options = dict(options or {})
    if options.pop("streaming", False):
        what = "a corpus is counted and split, so it must be whole"
        raise InputError("streaming", what, "leave it out: texts stay on disk, memory-mapped")
    if options.pop("trust_remote_code", False):
        what = "no code that comes with data is run"
        raise InputError("trust_remote_code", what, "convert the data to Parquet")
    given = in_memory(where, progress)
    where = where if isinstance(given, Opened) else given
    path = checked_path(where) if isinstance(where, str | Path) else None
    built_in = isinstance(where, str) and where in BUILTIN
    if path and not (built_in or path.exists() or looks_like_files(str(where))):
        return _open_hub(str(where), config, split, progress, options)
    if config is not None:
        what = "only data sets of the hub have configurations"
        raise InputError("config", what, "leave it out, and name the files")
    if isinstance(given, Opened):
        opened = given
        if options:
            remedy = f"{opened.name} takes no options: leave it out"
            raise InputError(next(iter(options)), "is an option for reading files", remedy)
    else:
        opened = _open_local(where, path, progress, options)
    if split is None:
        return opened
    if split not in opened.splits:
        what = f"{opened.name} has no split {split!r}"
        raise InputError("split", what, f"it has {', '.join(opened.splits)}")
    return replace(opened, splits={"train": opened.splits[split]})


def _open_local(where: Any, path: Path | None, progress: bool, options: dict[str, Any]) -> Opened:
    if isinstance(where, str) and where in BUILTIN:
        return _open_builtin(where, progress, options)
    if given := [name for name in ("data_files", "data_dir") if name in options]:
        remedy = "give the files themselves, or a mapping of split name to files"
        raise InputError(given[0], "is an option of data sets of the hub", remedy)
    if path is not None and path.is_dir():
        return _open_folder(path, progress, options)
    if isinstance(where, Mapping):
        files = {str(name): files_at(value) for name, value in where.items()}
        return _open_files(files, _name(next(iter(where.values()), "")), progress, options)
    return _open_files({"train": files_at(where)}, _name(where), progress, options)


def _open_builtin(name: str, progress: bool, options: dict[str, Any]) -> Opened:
    reader = BUILTIN[name]
    accepted = [key for key in inspect.signature(reader).parameters if key != "progress"]
    if unknown := [key for key in options if key not in accepted]:
        remedy = f"it takes {', '.join(accepted)}" if accepted else "it takes no options"
        raise InputError(unknown[0], f"not an option of the corpus {name!r}", remedy)
    texts = reader(progress=progress, **options)
    columns: dict[str, Any] = {"text": texts.text, "source": texts.source, **texts.columns}
    columns |= {} if texts.images is None else {IMAGE: texts.images, "group": texts.group}
    group = None if texts.group is None else "group"
    whole = datasets.Dataset.from_dict(columns)
    held = np.array([source in texts.held_out for source in texts.source])
    splits = {"train": whole}
    if held.any():
        splits = {"train": whole.select(np.flatnonzero(~held))}
        splits["test"] = whole.select(np.flatnonzero(held))
    return Opened(splits, name, texts.credits, group=group)


def _name(where: Any) -> str:
    if isinstance(where, str | Path):
        return Path(where).name
    items = list(where)
    return f"{Path(items[0]).name} and {len(items) - 1} more" if items else "nothing"


def _open_files(
    files: Mapping[str, list[Path]], name: str, progress: bool, options: dict[str, Any]
) -> Opened:
    everything = [file for group in files.values() for file in group]
    if not everything:
        raise InputError("where", "no files", "give at least one file")
    kinds = {suffix(file) for file in everything}
    root = Path(os.path.commonpath([file.parent for file in everything]))
    if kinds <= set(IMAGE_FILES):
        return _open_images(files, root, name, progress, options)
    for file in everything:
        if suffix(file) not in READERS:
            known = ", ".join(READERS)
            raise InputError(str(file), "unknown kind of file", f"give one of {known}, or .gz")
        if checked_path(file).stat().st_size == 0:
            raise InputError(str(file), "is empty", "remove it or write it again")
    readers = {READERS[kind] for kind in kinds}
    if len(readers) > 1 or len(kinds & {".csv", ".tsv"}) > 1:
        raise InputError(name, f"mixes {' and '.join(sorted(kinds))}", "load one kind at a time")
    reader = readers.pop()
    by_default = "document" if ".md" in kinds else "line"
    if reader == "text" and options.get("sample_by", by_default) == "document":
        return _open_documents(files, root, name, progress, options)
    if reader not in ("parquet", "webdataset") and "encoding" not in options:
        for file in everything:
            check_lines(file, reader == "json")
    if kinds == {".json"} and _task_of(everything[0]) is not None:
        return _open_tasks(files, name, progress, options)
    try:
        if reader == "csv":
            options = csv_options(everything, options)
        loaded = load_files(reader, files, progress, options)
    except InputError:
        raise
    except Exception as error:  # anything at all: each reader brings its own libraries
        bad = diagnose(reader, everything, options)
        if bad is None and not options.get("download_mode"):
            # The files are good, so it may be their copy in the cache: make it again, once.
            again = {**options, "download_mode": "force_redownload"}
            return _open_files(files, name, progress, again)
        culprit, what = bad or (name, reason(error))
        remedy = "repair it or leave it out"
        if getattr(error, "errno", 0) in _FULL or "Not enough disk space" in str(error):
            culprit, what = cache_dir() / "datasets", "cannot be written (no space left)"
            remedy = CACHE_REMEDY
        if "zstandard" in what:
            what, remedy = "is compressed with zstd", "pip install zstandard"
        if reader == "json" and remedy != CACHE_REMEDY and not set(options) - {"download_mode"}:
            with suppress(Exception):  # a column of several types, perhaps, which may be idle
                return _open_rows(files, name, progress, bad)
        raise InputError(str(culprit), what, remedy) from error
    return Opened(dict(loaded), name, roots=(root,))


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


# -------------------------------------------------------------------- folders and the hub


def _task_of(file: Path) -> dict[str, Any] | None:
    """Return an original task file of Super-NaturalInstructions; None if it is another file."""
    try:
        with fsspec.open(str(file), "rb", compression="infer") as content:
            head = content.read(100_000)
            if head.lstrip()[:1] != b"{" or b'"Definition"' not in head:
                return None
            facts = json.loads(head + content.read())
    except Exception:  # damaged, or of one object per line
        return None
    return facts if isinstance(facts, dict) and {"Definition", "Instances"} <= set(facts) else None


def _open_tasks(
    files: Mapping[str, list[Path]], name: str, progress: bool, options: Mapping[str, Any]
) -> Opened:
    """Read task files of Super-NaturalInstructions, each instance as one example."""
    if unknown := [option for option in options if option != "positive_examples"]:
        raise InputError(unknown[0], "is not an option for tasks", "they take positive_examples")
    number = as_count("positive_examples", options.get("positive_examples", 0))

    def rows(group: list[Path]) -> Iterator[dict[str, Any]]:
        for file in group:
            if (facts := _task_of(file)) is None:
                raise InputError(str(file), "is not a task file, as others are", "leave it out")
            task = file.name.removesuffix("".join(file.suffixes))
            try:
                yield from read_task(task, facts, number)
            except (KeyError, TypeError) as error:
                what = f"an example lacks what it should have ({type(error).__name__}: {error})"
                raise InputError(str(file), what, "repair it or leave it out") from error

    unread: Unread = {}
    splits = {
        split: from_stream(rows(group), name, None, progress, unread)
        for split, group in files.items()
    }
    return Opened(splits, name, unread=unread)


def _open_rows(
    files: Mapping[str, list[Path]], name: str, progress: bool, bad: tuple[Path, str] | None
) -> Opened:
    """Read JSON row by row, into memory; columns of several types are left out."""
    unread: Unread = {}
    splits = {
        split: from_stream(json_rows(group), name, None, progress, unread)
        for split, group in files.items()
    }
    for column, error in unread.items():
        if bad is not None and f"in {column!r}" in bad[1]:  # that has the line
            unread[column] = InputError(str(bad[0]), bad[1], error.remedy)
    return Opened(splits, name, unread=unread)


def _open_folder(path: Path, progress: bool, options: dict[str, Any]) -> Opened:
    """Open the data files of a folder, and nothing that another file of it points to."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        _check_saved(path)
        try:
            saved = datasets.load_from_disk(str(path))
        except Exception as error:
            raise InputError(str(path), reason(error), "save the data set again") from error
        splits = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        return Opened(splits, path.name, roots=(path.resolve(),))
    root = path.resolve()
    # A snapshot in the hub's cache is made of links to the files of its own repository.
    home = root.parents[1] if root.parent.name == "snapshots" else root
    data: list[Path] = []
    images: list[Path] = []
    for match in sorted(matches(f"{glob.escape(str(root))}/**/*")):
        file = Path(match)
        about = file.name in _ABOUT_DATA or file == root / "README.md"
        if file.is_file() and suffix(file) in KNOWN and not about:
            inside(home, file.resolve())
            (images if suffix(file) in IMAGE_FILES else data).append(file)
    texts = [file for file in data if READERS[suffix(file)] == "text"]
    captions = [file for file in data if file.name in CAPTION_FILES]
    stems = {file.with_suffix("") for file in images}
    documents = [file for file in texts if file.with_suffix("") not in stems]
    if (captions or len(images) > len(documents)) and len(captions) + len(texts) == len(data):
        by_split = _document_splits(images, root)
        return _open_images(by_split, root, path.name, progress, options, captions, home)
    if len(texts) < len(data):  # then texts are licences and the like
        data = [file for file in data if file not in texts]
    elif _are_documents(texts, path, options):
        return _open_documents(_document_splits(texts, root), root, path.name, progress, options)
    if not data:
        raise InputError(str(path), "no data file in it", f"put in one of {', '.join(READERS)}")
    if {suffix(file) for file in data} == {".json"} and _task_of(data[0]) is not None:
        return _open_files(_document_splits(data, root), path.name, progress, options)
    groups: dict[str, list[Path]] = {}
    for file in data:
        groups.setdefault(_split_of(file.relative_to(root)), []).append(file)
    return _open_files(groups, path.name, progress, options)


def _are_documents(texts: Sequence[Path], folder: Path, options: Mapping[str, Any]) -> bool:
    """Whether each text file of a folder is one example; by default, if there are several."""
    if "sample_by" in options:
        return bool(texts) and options["sample_by"] == "document"
    words = [re.split(r"[^a-z]+", file.name.lower()) for file in texts]
    named = [{_SPLIT_OF[word] for word in name if word in _SPLIT_OF} for name in words]
    if len(texts) < 2 or (all(named) and {"train"} in named):  # lines: train.txt and valid.txt
        return False
    what = f"each of its {len(texts):,} text files is one example"
    warnings.warn(f"{folder}: {what} (sample_by='line' reads lines)", RbkitWarning, stacklevel=6)
    return True


def _document_splits(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Sort documents by the folder of their split; without a folder for train, all are train."""
    of = [_SPLIT_OF.get(file.relative_to(root).parts[0].lower(), "train") for file in files]
    own = any(_SPLIT_OF.get(file.relative_to(root).parts[0].lower()) == "train" for file in files)
    groups: dict[str, list[Path]] = {}
    for file, split in zip(files, of, strict=True):
        groups.setdefault(split if own else "train", []).append(file)
    return groups


def _open_documents(
    files: Mapping[str, list[Path]],
    root: Path,
    name: str,
    progress: bool,
    options: Mapping[str, Any],
) -> Opened:
    """Read each file as one example, whose source is the first folder below `root`."""
    known = ("sample_by", "encoding", "encoding_errors")
    if unknown := [option for option in options if option not in known]:
        remedy = f"they take {', '.join(known)}"
        raise InputError(unknown[0], "is not an option for documents", remedy)
    folder_of = _source_folders(files, root)

    def row(file: Path) -> dict[str, str | None]:
        text, inner = _document(file, options), str(file.relative_to(root))
        return {"text": text, "source": folder_of[file], "file": inner}

    splits = {
        split: from_stream(map(row, group), name, _DOCUMENTS, progress, {})
        for split, group in files.items()
    }
    return Opened(splits, name)


_DOCUMENTS = datasets.Features(dict.fromkeys(("text", "source", "file"), datasets.Value("string")))


def _source_folders(files: Mapping[str, list[Path]], root: Path) -> dict[Path, str | None]:
    """Return the first folder below `root` that each file is in, after that of its split."""
    inner = {file: file.relative_to(root).parts for group in files.values() for file in group}
    tops = {parts[0].lower() for parts in inner.values()}
    depth = len(files) > 1 or tops <= set(_SPLIT_OF)  # whether folders of splits come first
    folders = {
        file: parts[int(depth and parts[0].lower() in _SPLIT_OF) : -1]
        for file, parts in inner.items()
    }
    return {file: names[0] if names else None for file, names in folders.items()}


def _open_images(
    files: Mapping[str, list[Path]],
    root: Path,
    name: str,
    progress: bool,
    options: Mapping[str, Any],
    captions: Sequence[Path] = (),
    home: Path | None = None,
) -> Opened:
    """Read each image as one example, with the columns of `captions`, or its name, as caption.

    A text file beside it that is called as the image is its caption, too.
    """
    if options:
        raise InputError(next(iter(options)), "is not an option for images", "leave it out")
    folder_of = _source_folders(files, root)
    described = {}
    for file in captions:
        for image, columns in captioned_files(file, home or root):
            described[image] = columns
    named = 0

    def row(file: Path) -> dict[str, Any]:
        nonlocal named
        about = described.get(file.resolve())
        if about is None:
            beside = file.with_suffix(".txt")
            named += not (written := beside.is_file())
            about = {
                "text": _document(beside, {}) if written else caption_of(file, folder_of[file])
            }
        path = {"bytes": None, "path": str(file)}
        place = {"source": folder_of[file], "file": str(file.relative_to(root))}
        return {**place, **about, IMAGE: path}

    lost = 0
    splits = {}
    for split, group in files.items():
        if captions:
            lost += sum(file.resolve() not in described for file in group)
            group = [file for file in group if file.resolve() in described]
        if group:
            splits[split] = from_stream(map(row, group), name, None, progress, {})
    if not splits:
        raise InputError(str(captions[0]), "names no image", "give a line for each image")
    if lost or named:
        what = f"{named:,} of its images are captioned by their names, which"
        what += f" a {CAPTION_FILES[0]} with file_name and caption would replace"
        if lost:
            what = f"{lost:,} of its images are not in {captions[0].name}, and are left out"
        warnings.warn(f"{name}: {what}", RbkitWarning, stacklevel=6)
    return Opened(splits, name, roots=(home or root,))


def _document(file: Path, options: Mapping[str, Any]) -> str:
    if "encoding" not in options:
        check_lines(checked_path(file), False)
    encoding, errors = options.get("encoding", "utf-8"), options.get("encoding_errors")
    try:
        with fsspec.open(
            str(checked_path(file)), "rt", compression="infer", encoding=encoding, errors=errors
        ) as lines:
            return str(lines.read())
    except Exception as error:  # damaged or unknown compression, another encoding
        raise InputError(str(file), reason(error), "repair it or leave it out") from error


# What `datasets` writes about data, beside them.
_ABOUT_DATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
# Words of a file's or a folder's name that say which split it is, as `datasets` reads them.
_SPLIT_WORDS = {"train": "train training", "test": "test testing eval evaluation"}
_SPLIT_WORDS["validation"] = "validation valid dev val"
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words.split()}


def _split_of(file: Path) -> str:
    """Return the split that a file's path names, ``train`` if it names none.

    >>> _split_of(Path("data/test-00000-of-00001.parquet")), _split_of(Path("contest.csv"))
    ('test', 'train')
    """
    for part in [file.name, *reversed(file.parts[:-1])]:
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in _SPLIT_WORDS.items():
            if set(words) & set(names.split()):
                return split
    return "train"


def _check_saved(path: Path) -> None:
    """Refuse a saved data set that names files outside its folder, or that are not files."""
    folders = [path]
    if (path / "dataset_dict.json").is_file():
        facts = read_json(path / "dataset_dict.json")
        splits = facts.get("splits", []) if isinstance(facts, dict) else []
        folders = [inside(path, str(split)) for split in splits]
    for folder in folders:
        regular(folder / "dataset_info.json")
        if not (folder / "state.json").is_file():
            continue  # `datasets` says what is missing
        state = read_json(folder / "state.json")
        files = state.get("_data_files") if isinstance(state, dict) else None
        for entry in files if isinstance(files, list) else []:
            name = entry.get("filename") if isinstance(entry, dict) else None
            regular(inside(path, folder.resolve() / str(name)))


def _open_hub(
    hub_id: str, config: str | None, split: str | None, progress: bool, options: dict[str, Any]
) -> Opened:
    remedy = f"give a file, a folder, a hub id (owner/name) or one of {', '.join(BUILTIN)}"
    if not _HUB_ID.fullmatch(hub_id):
        raise InputError(hub_id, "no such file or built-in corpus, and not a hub id", remedy)
    try:
        splits, licence = _load(hub_id, config, split, progress, options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            hub_id, f"not a local file, and the hub: {reason(error)}", remedy
        ) from error
    url = f"https://huggingface.co/datasets/{hub_id}"
    credit = {
        "asset": hub_id,
        "licence": licence or "see its page",
        "attribution": f"the authors of {hub_id}",
        "url": url,
    }
    caches = (cache_dir().resolve(), Path(datasets.config.HF_CACHE_HOME).resolve())
    return Opened(splits, hub_id, [credit], roots=caches)


def _load(
    where: str, config: str | None, split: str | None, progress: bool, options: dict[str, Any]
) -> tuple[dict[str, datasets.Dataset], str]:
    with quiet(progress):
        loaded = datasets.load_dataset(
            where, config, split=split, cache_dir=str(cache_dir() / "datasets"), **options
        )
    if isinstance(loaded, datasets.Dataset):
        return {"train": loaded}, loaded.info.license
    return dict(loaded), next(iter(loaded.values())).info.license
