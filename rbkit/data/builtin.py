"""The built-in corpora: ``wiki``, ``recipes``, ``code``, their mix ``demo``, and ``docstrings``.

Each reader returns texts, sources and credits. ``docstrings`` needs no download
(:mod:`rbkit.data.docstrings`).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rbkit.data import assets
from rbkit.data.docstrings import LIBRARIES, parse
from rbkit.errors import AssetError
from rbkit.files import inside


@dataclass
class Texts:
    """Texts with a source each, and whom to credit for them."""

    text: list[str]
    source: list[str]
    credits: list[dict[str, str]]


def wiki(*, uncategorized: bool = False, progress: bool = True) -> Texts:
    """English leads of Wikipedia's vital articles; source = the human topic.

    Parameters
    ----------
    uncategorized : bool
        Keep the 1,000 core articles that the data set gives no topic (source
        ``"Uncategorized"``) beside the 9,033 that have one of 11.
    progress : bool
        Show a bar while it is fetched.
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
    ingredients = "\n".join(f"- {plain(item)}" for item in row["ingredients"])
    steps = "\n".join(f"{i}. {plain(step)}" for i, step in enumerate(row["steps"], 1))
    return f"{plain(row['title'])}\n\nIngredients\n{ingredients}\n\nSteps\n{steps}"


_REF = re.compile(r"<ref\b[^>]*?/>|<ref\b[^>]*>.*?</ref\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z]+\b[^<>]*>", re.IGNORECASE)


def plain(text: str) -> str:
    """Remove leftover wiki markup: footnotes with their content, other tags without.

    Examples
    --------
    >>> plain('Fold in the flour.<ref name="b">A book</ref> <u>Stir</u> 2 tbs<nowiki/>p salt')
    'Fold in the flour. Stir 2 tbsp salt'
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
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError) as error:
        remedy = f"run `rbkit assets get {name} --force`"
        raise AssetError(str(path), f"damaged ({error})", remedy) from error


def _credit(name: str) -> dict[str, str]:
    return assets.asset(name).credit()


def docstrings(
    *, libraries: Sequence[str] = LIBRARIES, per_library: int = 600, progress: bool = True
) -> Texts:
    """Docstrings of installed libraries, parsed and not imported; source = the library.

    Parameters
    ----------
    libraries : sequence of str
        Import names. Those of the default that are not installed are left out; one that was
        asked for and is not installed is an error.
    per_library : int
        At most so many of each.
    progress : bool
        Show a bar while they are parsed.
    """
    return Texts(*parse(libraries, per_library, progress))


BUILTIN: dict[str, Callable[..., Texts]] = {
    "wiki": wiki,
    "recipes": recipes,
    "code": code,
    "demo": demo,
    "docstrings": docstrings,
}
