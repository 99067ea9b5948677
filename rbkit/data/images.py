"""Images of a corpus: found, checked one by one, and stored in one column.

In Arrow an image is its bytes, or the path of its file; ``datasets`` opens it when its row is
read. Each is opened once before that, so that a broken one is reported by its row and not in the
middle of a training. Only formats that Pillow decodes by itself are taken: others start programs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from PIL import Image

from rbkit.errors import InputError
from rbkit.files import inside, is_within, regular
from rbkit.text import listed

IMAGE = "image"  # the column of a corpus
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
CAPTION_FILES = ("metadata.csv", "metadata.jsonl")  # beside images, as `datasets` names them
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_STORED = datasets.Image()
_REMEDY = "repair it, or leave the row out"


# ------------------------------------------------------------------------------ the column


def image_column(
    data: datasets.Dataset, image: str | None, where: str, root: Path | None
) -> str | None:
    """Return the column that holds images, if there is one.

    By default (``"image"``) that name is not required: the only column of images has any name,
    and strings called so are paths only if the first is that of a file.
    """
    features = data.features
    if image is None:
        return None
    if image not in features:
        typed = [name for name, each in features.items() if isinstance(each, datasets.Image)]
        if image != IMAGE:
            what = f"no column {image!r}; it has {listed(list(features))}"
            raise InputError(where, what, "name the column by image=...")
        return typed[0] if len(typed) == 1 else None
    feature = features[image]
    kind = str(getattr(feature, "dtype", type(feature).__name__))
    stored = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    if isinstance(feature, datasets.Image) or stored or "binary" in kind:
        return image
    if kind in ("string", "large_string") and image != IMAGE:
        return image
    if image != IMAGE:
        raise InputError(where, f"column {image!r} holds {kind}, not images", "give another image=")
    first = data.select_columns([image])[:1][image] if "string" in kind else []
    return image if first and _is_image_file(first[0], root) else None


def _is_image_file(value: Any, root: Path | None) -> bool:
    try:
        file = Path(root or "", str(value))
        return file.suffix.lower() in IMAGE_FILES and file.is_file()
    except (OSError, ValueError):  # too long, a NUL in it
        return False


def stored_images(
    data: datasets.Dataset, column: str, where: str, root: Path | None
) -> datasets.Dataset:
    """Return `data` with its images in the column ``image``, stored as ``datasets.Image``.

    Paths are below `root`, or any on this machine without one.
    """
    if not isinstance(data.features[column], datasets.Image):
        column_alone = data.select_columns([column]).with_format("arrow")
        values = (row for batch in column_alone.iter(1000) for row in batch.column(0).to_pylist())
        rows = [_located(value, root, where, at) for at, value in enumerate(values)]
        features = datasets.Features({IMAGE: _STORED})
        table = pa.table({IMAGE: pa.array(rows, _STORED.pa_type)})
        others = data.remove_columns(sorted({column, IMAGE} & {*data.features}))
        images = datasets.Dataset(table.cast(features.arrow_schema))
        parts = [others, images] if others.column_names else [images]
        return datasets.concatenate_datasets(parts, axis=1)
    if column != IMAGE and IMAGE in data.features:
        data = data.remove_columns([IMAGE])
    return data if column == IMAGE else data.rename_column(column, IMAGE)


def _located(value: Any, root: Path | None, where: str, at: int) -> dict[str, Any] | None:
    """Return how an image that is given as bytes or as a path is stored; None for none."""
    if isinstance(value, Mapping):
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if value is None or isinstance(value, bytes):
        return None if value is None else {"bytes": value, "path": None}
    if "::" in value or "://" in value:
        what = f"row {at}: {value[:80]!r} is an address"
        raise InputError(where, what, "download the images, and give their files")
    try:
        file = Path(value).expanduser().absolute() if root is None else inside(root, value)
        file = regular(file)
        if not file.exists():
            raise InputError(str(value)[:200], "no such file", "check the path")
    except (InputError, RuntimeError, ValueError) as error:
        raise InputError(where, f"row {at}: {error}", "check the column of images") from error
    return {"bytes": None, "path": str(file)}


def image_keys(
    rows: Sequence[Mapping[str, Any] | None],
    where: str,
    start: int = 0,
    roots: Sequence[Path] | None = None,
    *,
    check: bool = True,
) -> list[bytes]:
    """Return the content hashes of stored images, whose first row has the number `start`.

    Raises
    ------
    InputError
        By the row: there is none, it cannot be read, it is too large to be decoded, or its file
        is not below one of `roots`.

    Examples
    --------
    >>> file = io.BytesIO()
    >>> Image.new("L", (2, 2)).save(file, "PNG")
    >>> len(image_keys([{"bytes": file.getvalue(), "path": None}], "corpus")[0])
    16
    >>> image_keys([{"bytes": b"GIF89a", "path": None}], "corpus", start=7)
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: corpus: row 7: the image is not one that can be read (cannot identify \
image file); repair it, or leave the row out
    """
    keys = []
    for at, row in enumerate(rows, start):
        raw, path = (None, None) if row is None else (row["bytes"], row["path"])
        if raw is None and path is None:
            if not check:
                keys.append(b"")
                continue
            raise InputError(where, f"row {at} has no image", "give it one, or leave the row out")
        try:
            if raw is None:
                file = Path(str(path)).resolve()
                if roots is not None and not any(is_within(file, root) for root in roots):
                    raise InputError(str(path)[:200], "lies outside the data", "store its bytes")
                raw = regular(file).read_bytes()
            if check:
                _decode(raw)
        except Exception as error:  # damaged files raise anything
            name = f" {Path(str(path)).name[:80]}" if path else ""
            if isinstance(error, InputError):
                what = error.what
            elif isinstance(error, OSError) and error.strerror:
                what = f"cannot be opened ({error.strerror})"
            elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
                what = f"is too large to be decoded (over {Image.MAX_IMAGE_PIXELS:,} pixels)"
            else:
                reason = str(error).split(" <")[0] or type(error).__name__
                what = f"is not one that can be read ({reason[:200]})"
            raise InputError(where, f"row {at}: the image{name} {what}", _REMEDY) from error
        keys.append(hashlib.blake2b(raw, digest_size=16).digest())
    return keys


def _decode(raw: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as picture:
            picture.draft("RGB", (64, 64))  # a JPEG is read to its end, but little of it computed
            picture.load()


# ------------------------------------------------------------------------- folders of images


def caption_of(file: Path, folder: str | None) -> str:
    """Return the name of a file as a caption; of a name without a letter, that of its folder.

    >>> caption_of(Path("red_circle.png"), "shapes"), caption_of(Path("0001.png"), "circles")
    ('red circle', 'circles')
    """
    words = folder if folder and not any(map(str.isalpha, file.stem)) else file.stem
    return words.replace("_", " ").strip()


def captioned_files(file: Path, root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the images that ``metadata.csv`` or ``.jsonl`` names, with its other columns.

    Raises
    ------
    InputError
        By the line: it has no ``file_name``, or names no file below `root`.
    """
    for line, row in _lines(file):
        name = row.pop("file_name", None)
        if not isinstance(name, str) or not name:
            what = f"line {line} has no file_name"
            raise InputError(str(file), what, "name the image of each line, relative to its folder")
        try:
            image = regular(inside(root, file.parent / name))
        except InputError as error:
            raise InputError(str(file), f"line {line}: {error}", "check file_name") from error
        if not image.is_file():
            raise InputError(str(file), f"line {line}: no file {name[:200]!r}", "check file_name")
        yield image, row


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with regular(file).open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix == ".csv":
                reader = csv.DictReader(lines, restkey="")
                for row in reader:
                    yield reader.line_num, {k: v for k, v in row.items() if k}
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InputError(str(file), f"line {number} is not a JSON object", _REMEDY)
                    yield number, row
    except (csv.Error, ValueError, RecursionError) as error:  # not UTF-8, not JSON
        reason = str(error).splitlines()[0][:200]
        raise InputError(str(file), f"cannot be read ({reason})", "write it again") from error
