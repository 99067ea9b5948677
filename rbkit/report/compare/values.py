"""Values of parameters as keys and as words: what tells variants apart, and what they are called.

Values come from JSON and are made hashable, so that equal ones meet in one variant; names
of variants say only what varies, shortly, and no two variants have the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rbkit.show.style import shorten

Key = tuple[tuple[str, Hashable], ...]


def frozen(value: Any) -> Hashable:
    """Return a JSON value as a hashable one: lists as tuples, mappings as pairs by name.

    Examples
    --------
    >>> frozen({"lam": 2.0, "floor": [0, 1]})
    (('floor', (0, 1)), ('lam', 2.0))
    """
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), frozen(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"  # which is not equal to itself
    return value if isinstance(value, Hashable) else str(value)


def said(value: Any) -> str:
    """Write a value as a person would.

    Examples
    --------
    >>> said(frozen({"lam": 2.0})), said([8, 12]), said(0.001), said(None)
    ('lam 2', '8, 12', '0.001', 'none')
    """
    value = frozen(value)
    if isinstance(value, tuple):
        if value and all(_is_pair(item) for item in value):
            return ", ".join(f"{name} {said(item)}" for name, item in value)
        return ", ".join(said(item) for item in value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate is no text


def label(key: Key) -> str:
    """Name a variant by its values: its mixer first, then each other parameter with its name.

    Examples
    --------
    >>> label((("mixer", "RnB"), ("k", 10)))
    'RnB · k 10'
    >>> label((("mixer", "RnB"), ("mixer_options", (("lam", 2.0),))))
    'RnB · lam 2'
    """
    return " · ".join(_parts(key, short=True)) or "default"


def labels(keys: Sequence[Key], otherwise: str) -> list[str]:
    """Name variants, each differently; `otherwise` is the name where nothing varies."""
    if len(keys) == 1 and not keys[0]:
        return [otherwise]
    names = [label(key) for key in keys]
    twice = {name for name, count in Counter(names).items() if count > 1}
    names = [" · ".join(_parts(key, short=False)) if name in twice else name
             for name, key in zip(names, keys, strict=True)]  # fmt: skip
    # Last resort, for values that are written alike although they differ, such as 1 and "1".
    count: Counter[str] = Counter()
    unique = []
    for name in names:
        count[name] += 1
        unique.append(name if count[name] == 1 else f"{name} ({count[name]})")
    return unique


def order(value: Any) -> tuple[Any, ...]:
    """Sort key for mixed values: nothing, then numbers by size, then all else by its text."""
    value = frozen(value)
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if isinstance(value, tuple) and value and all(isinstance(v, int | float) for v in value):
        return (1, float(value[0]), said(value))
    return (2, 0.0, said(value))


def _parts(key: Key, short: bool) -> list[str]:
    values = dict(key)
    parts = [str(values.pop("mixer"))] if "mixer" in values else []
    for name, value in values.items():
        if name == "mixer_options":  # its pairs bring names of their own
            parts += [said(value)] if value else []
            continue
        text = said(value)
        if short and "/" in text:  # of a path, the end says most
            text = text.rstrip("/").rsplit("/", 1)[-1]
        parts.append(f"{name} {shorten(text, 28) if short else text}")
    return parts


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
