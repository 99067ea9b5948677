"""The built-in corpora: ``wiki``, ``recipes``, ``code``, their mix ``demo``, and others.

Each reader returns texts, sources and credits. ``docstrings`` needs no download: source files of
installed libraries are parsed with :mod:`ast`, and no library is imported. The source of an
example is its library, so the label is provenance and not topic.
"""

from __future__ import annotations

import ast
import gc
import gzip
import importlib.metadata
import importlib.util
import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rbkit.data import assets
from rbkit.errors import AssetError, InputError, as_count
from rbkit.files import atomic_path, cache_dir, fingerprint, inside, regular
from rbkit.text import progress_bar


@dataclass
class Texts:
    """Texts with a source each, whom to credit for them, and perhaps an image each."""

    text: list[str]
    source: list[str]
    credits: list[dict[str, str]]
    images: list[bytes] | None = None
    group: list[str] | None = None  # those of one group stay on one side of the split


def wiki(*, uncategorized: bool = False, progress: bool = True) -> Texts:
    """English leads of Wikipedia's vital articles; source = the human topic.

    `uncategorized` keeps the 1,000 core articles without a topic (source ``"Uncategorized"``)
    in addition to the 9,033 that have one of 11.
    """
    rows = list(_load("wiki", "summaries_en-us.json", progress).values())
    if not uncategorized:
        rows = [row for row in rows if row["topic"] != "Uncategorized"]
    return Texts(
        [row["extract"] for row in rows], [row["topic"] for row in rows], [_credit("wiki")]
    )


def recipes(*, progress: bool = True) -> Texts:
    """Wikibooks recipes as plain text: title, ingredients, steps; one source."""
    rows = _load("recipes", "recipes_en-us.json", progress).values()
    texts = [_recipe(row) for row in rows]
    return Texts(texts, ["recipes"] * len(texts), [_credit("recipes")])


def _recipe(row: dict[str, Any]) -> str:
    ingredients = "\n".join(f"- {without_markup(item)}" for item in row["ingredients"])
    steps = "\n".join(f"{i}. {without_markup(step)}" for i, step in enumerate(row["steps"], 1))
    return f"{without_markup(row['title'])}\n\nIngredients\n{ingredients}\n\nSteps\n{steps}"


_REF = re.compile(r"<ref\b[^>]*?/>|<ref\b[^>]*>.*?</ref\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z]+\b[^<>]*>", re.IGNORECASE)


def without_markup(text: str) -> str:
    """Remove leftover wiki markup: footnotes with their content, other tags without.

    >>> without_markup('Fold in.<ref name="b">A book</ref> <u>Stir</u> 2 tbs<nowiki/>p salt')
    'Fold in. Stir 2 tbsp salt'
    """
    return " ".join(_TAG.sub("", _REF.sub("", text)).split())


def code(*, progress: bool = True) -> Texts:
    """Small problems in words, each followed by the Python program that solves it; one source."""
    rows = _load("code", "codeio-hq.json.gz", progress)
    texts = [f"{row['task_description'].strip()}\n\n{row['code_sample'].strip()}" for row in rows]
    return Texts(texts, ["code"] * len(texts), [_credit("code")])


def demo(*, uncategorized: bool = False, progress: bool = True) -> Texts:
    """``wiki``, ``recipes`` and ``code`` together: 13 sources in three registers."""
    parts = [
        wiki(uncategorized=uncategorized, progress=progress),
        recipes(progress=progress),
        code(progress=progress),
    ]
    return Texts(
        [text for part in parts for text in part.text],
        [source for part in parts for source in part.source],
        [credit for part in parts for credit in part.credits],
    )


def _load(name: str, file: str, progress: bool) -> Any:
    path = inside(assets.get(name, progress=progress), file)
    try:
        raw = regular(path).read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError) as error:
        remedy = f"run `rbkit assets get {name} --force`"
        raise AssetError(str(path), f"damaged ({error})", remedy) from error


def _credit(name: str) -> dict[str, str]:
    return assets.asset(name).credit()


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


def docstrings(
    *, libraries: Sequence[str] = LIBRARIES, per_library: int = 600, progress: bool = True
) -> Texts:
    """Parse unique docstrings of at least 25 words in installed libraries; source = the library.

    Libraries of the default that are not installed are left out; one that was asked for and is
    not installed is an error. The texts depend on nothing but the installed versions, and are
    cached by these.
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
    try:
        table = pq.read_table(cached)
    except (FileNotFoundError, pa.ArrowInvalid, OSError):  # absent or damaged: made again
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
    return Texts(
        table.column("text").to_pylist(),
        table.column("source").to_pylist(),
        [_library_credit(name) for name in sorted(roots)],
    )


_TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium"}
_TONES |= {"1F3FE": "medium dark", "1F3FF": "dark"}


def emoji(*, side: int = 64, progress: bool = True) -> Texts:
    """OpenMoji's drawings of 1,903 emoji and of their skin tones, with names; source = category.

    A caption is a name and a kind: ``ambulance (transport ground)``. All skin tones of an emoji are
    on one side of the split. Images are `side` pixels wide; drawing them takes half a minute, once.
    """
    side = as_count("side", side, least=8, most=1024)
    rows = _load("emoji-names", "emoji.json", progress)
    drawings = inside(assets.get("openmoji", progress=progress), "svg")
    versions = [assets.asset(name).version for name in ("emoji-names", "openmoji")]
    key = fingerprint(versions, [str(side), "emoji/1"])
    cached = cache_dir() / "emoji" / f"{key}.parquet"
    try:
        table = pq.read_table(regular(cached))
    except (FileNotFoundError, pa.ArrowInvalid, OSError):  # absent or damaged: made again
        table = _drawn([each for row in rows for each in _variants(row)], drawings, side, progress)
        with atomic_path(cached) as tmp:
            pq.write_table(table, tmp)
    columns = table.to_pydict()
    credits = [_credit("openmoji"), _credit("emoji-names")]
    return Texts(columns["text"], columns["source"], credits, columns["image"], columns["group"])


def _variants(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an emoji and its skin tones: codes, caption, category, and the code of the emoji."""
    name = f"{row['name'] or row['short_name']}".lower().replace("_", " ")
    kind = f"({row['subcategory'].replace('-', ' ')})"
    more = {"source": row["category"], "group": row["unified"]}
    yield {"codes": _codes(row), "text": f"{name} {kind}", **more}
    for tones, variant in row.get("skin_variations", {}).items():
        tone = " and ".join(dict.fromkeys(_TONES[each] for each in tones.split("-")))
        yield {"codes": _codes(variant), "text": f"{name}, {tone} skin tone {kind}", **more}


def _codes(row: dict[str, Any]) -> list[str]:
    """Return the names that the drawing of an emoji may have."""
    codes = [row["unified"], row["non_qualified"], row["unified"].replace("-FE0F", "")]
    return [code for code in codes if code]


def _drawn(rows: list[dict[str, Any]], folder: Path, side: int, progress: bool) -> pa.Table:
    try:
        import resvg_py
    except ImportError as error:
        what = "its images are drawn by resvg_py, which is not installed"
        raise InputError("emoji", what, 'pip install "rbkit[images]"') from error
    kept: dict[str, list[Any]] = {name: [] for name in ("text", "source", "group", "image")}
    for row in progress_bar(rows, desc="drawing emoji", mininterval=1, disable=not progress):
        files = [inside(folder, f"{code}.svg") for code in row["codes"]]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            continue
        image = resvg_py.svg_to_bytes(
            svg_string=regular(file).read_text(encoding="utf-8"),
            width=side,
            height=side,
            skip_system_fonts=True,  # drawings have no text, and fonts take long to load
        )
        for name, value in ({**row, "image": bytes(image)}).items():
            if name in kept:
                kept[name].append(value)
    return pa.table(kept)


BUILTIN: dict[str, Callable[..., Texts]] = {
    "wiki": wiki,
    "recipes": recipes,
    "code": code,
    "demo": demo,
    "docstrings": docstrings,
    "emoji": emoji,
}


def _collect(roots: dict[str, Path], per_library: int, progress: bool) -> pa.Table:
    texts: list[str] = []
    sources: list[str] = []
    seen: set[str] = set()
    with progress_bar(
        total=len(roots) * per_library, desc="docstrings", mininterval=1, disable=not progress
    ) as bar:
        for name in sorted(roots):
            count = 0
            for text in _docstrings_of(roots[name]):
                if text not in seen:
                    seen.add(text)
                    texts.append(text)
                    sources.append(name)
                    count += 1
                    bar.update()
                if count == per_library:
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
                tree = ast.parse(regular(path).read_bytes())
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
