"""A corpus that needs no download: the docstrings of installed libraries.

Source files are parsed with :mod:`ast`; no library is imported. The source of an example is its
library, so the label is provenance and not topic.
"""

from __future__ import annotations

import ast
import gc
import importlib.metadata
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from rbkit.errors import InputError
from rbkit.files import atomic_path, cache_dir, fingerprint

LIBRARIES = (
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_MIN_WORDS = 25


def parse(
    libraries: Sequence[str], per_library: int, progress: bool
) -> tuple[list[str], list[str], list[dict[str, str]]]:
    """Return texts, their libraries and credits: unique docstrings of at least 25 words.

    Which ones depends on the versions installed and on nothing else; the result is cached by
    these versions. For the parameters see :func:`rbkit.data.builtin.docstrings`.
    """
    if isinstance(libraries, str):
        libraries = [part.strip() for part in libraries.split(",")]
    if per_library < 1:
        raise InputError("per_library", f"is {per_library}", "give at least 1")
    roots = {name: root for name in libraries if (root := _package_folder(name))}
    missing = [name for name in libraries if name not in roots]
    if not roots or (missing and tuple(libraries) != LIBRARIES):
        name = (missing or ["none"])[0]
        raise InputError("libraries", f"{name!r} is not installed", f"pip install {name}")
    versions = [f"{name}=={_version(name)}@{root}" for name, root in sorted(roots.items())]
    key = fingerprint(versions, [str(per_library), str(_MIN_WORDS), "docstrings/1"])
    cached = cache_dir() / "docstrings" / f"{key}.parquet"
    table = _read_cached(cached)
    if table is None:
        # Syntax trees are many objects and no cycles: collecting doubles the time for nothing.
        collecting = gc.isenabled()
        gc.disable()
        try:
            table = _collect(roots, per_library, progress)
        finally:
            if collecting:
                gc.enable()
        with atomic_path(cached) as tmp:
            pq.write_table(table, tmp)
    return (
        table.column("text").to_pylist(),
        table.column("source").to_pylist(),
        [_library_credit(name) for name in sorted(roots)],
    )


def _read_cached(path: Path) -> pa.Table | None:
    try:
        return pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid, OSError):
        return None  # absent or damaged: made again


def _collect(roots: dict[str, Path], per_library: int, progress: bool) -> pa.Table:
    texts: list[str] = []
    sources: list[str] = []
    seen: set[str] = set()
    with tqdm(
        total=len(roots) * per_library, desc="docstrings", mininterval=1, disable=not progress
    ) as bar:
        for name in sorted(roots):
            found = 0
            for text in _docstrings_of(roots[name]):
                if text not in seen:
                    seen.add(text)
                    texts.append(text)
                    sources.append(name)
                    found += 1
                    bar.update()
                if found == per_library:
                    break
    return pa.table({"text": texts, "source": sources})


def _docstrings_of(root: Path) -> Iterator[str]:
    files = [
        path
        for path in root.rglob("*.py")
        if not any(part.startswith("test") for part in path.relative_to(root).parts)
    ]
    # In the order of a hash of their names, so that the first few hundred docstrings come from
    # all over the library and not from the module whose name begins with "_a".
    files.sort(key=lambda path: fingerprint(path.relative_to(root).as_posix()))
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's files
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for node in _documented(tree):
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            if len(text.split()) >= _MIN_WORDS:
                yield text


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(tree: ast.Module) -> Iterator[_Documented]:
    # ast.walk visits every expression, which costs more than parsing does: module and class
    # level are where public docstrings are.
    stack: list[_Documented] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.Module | ast.ClassDef):
            stack += [n for n in reversed(node.body) if isinstance(n, _Documented)]


def _package_folder(name: str) -> Path | None:
    if not name.isidentifier():
        raise InputError("libraries", f"{name!r} is not an import name", "give top-level packages")
    try:
        spec = importlib.util.find_spec(name)  # of a top-level name: finds, does not import
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _library_credit(name: str) -> dict[str, str]:
    try:
        facts = importlib.metadata.metadata(_DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        licence, url = "see the library", ""
    else:
        classifiers = [
            line.rsplit(" :: ", 1)[-1]
            for line in facts.get_all("Classifier") or []
            if line.startswith("License ::")
        ]
        # The field "License" sometimes holds the whole licence: only its first line is a name.
        named = facts["License-Expression"] or "".join(classifiers[:1]) or facts["License"] or ""
        licence = named.strip().splitlines()[0][:80] if named.strip() else "see the library"
        url = facts["Home-page"] or next(
            (u.split(",")[-1].strip() for u in facts.get_all("Project-URL") or []), ""
        )
    return {
        "asset": f"docstrings of {name} {_version(name)}",
        "licence": licence,
        "attribution": f"the {name} developers",
        "url": url,
    }
