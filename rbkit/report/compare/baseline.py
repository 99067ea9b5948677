"""The baseline of a comparison: given by name and value, or the usual one that is there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rbkit.errors import InputError
from rbkit.report.compare.values import frozen, said

BASELINES = ("Stratified", "Target", "Proportional")


class _Grouped(Protocol):
    @property
    def mixer(self) -> str: ...
    @property
    def runs(self) -> Sequence[Any]: ...
    @property
    def values(self) -> dict[str, Any]: ...


def choose_baseline(
    given: str | Mapping[str, Any] | None,
    variants: Sequence[_Grouped],
    shared: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values that make a variant the baseline.

    Parameters
    ----------
    given : str, mapping or None
        What the user asked for: ``"mixer=Target k=10"``, the same as a mapping, or nothing.
    variants : sequence of Variant
        In their order, those that never finished included.
    shared : mapping
        Parameters that do not vary: they may be named, but tell nothing apart.

    Raises
    ------
    InputError
        If no variant has these values.
    """
    wanted = parse_baseline(given) if isinstance(given, str) else dict(given or {})
    found = {name: _match(name, value, variants, shared) for name, value in wanted.items()}
    found = {
        name: value for name, value in found.items() if variants and name in variants[0].values
    }
    if found:
        if not any(_has(variant, found) for variant in variants):
            asked = ", ".join(f"{name}={said(value)}" for name, value in found.items())
            raise InputError("baseline", f"no run has {asked} together",
                             "give values that one variant has")  # fmt: skip
        return found
    return _usual([v for v in variants if v.runs] or list(variants))


def parse_baseline(text: str) -> dict[str, Any]:
    """Read ``name=value`` pairs, with spaces or commas between them; values stay text.

    Examples
    --------
    >>> parse_baseline("mixer=Target, k=8,12")
    {'mixer': 'Target', 'k': '8,12'}
    """
    found = {}
    for part in re.split(r"[\s,]+(?=\w+\s*=)", text.strip()):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError("baseline", f"{text!r} is not of the form name=value",
                             'write for example "mixer=Target"')  # fmt: skip
        found[name.strip()] = value.strip().strip("\"'")
    return found


def _usual(variants: Sequence[_Grouped]) -> dict[str, Any]:
    if not variants:
        return {}
    if "mixer" in variants[0].values:
        mixers = [variant.mixer for variant in variants]
        usual = [name for name in BASELINES if name in mixers]
        return {"mixer": usual[0] if usual else mixers[0]}
    return dict(variants[0].values)


def _match(name: str, value: Any, variants: Sequence[_Grouped], shared: Mapping[str, Any]) -> Any:
    """Return the value of parameter `name` that `value` stands for."""
    if not variants:
        return frozen(value)
    if name in variants[0].values:
        known = list(dict.fromkeys(variant.values[name] for variant in variants))
    elif name in shared:
        known = [frozen(shared[name])]
    else:
        there = ", ".join(variants[0].values) or "nothing"
        raise InputError(f"baseline {name}", "no parameter that tells these runs apart",
                         f"what varies: {there}")  # fmt: skip
    for candidate in known:
        if _same(name, candidate, value):
            return candidate
    raise InputError(
        f"baseline {name}", f"{value!r} is in none of the runs",
        f"use one of {', '.join(said(candidate) for candidate in known)}",
    )  # fmt: skip


def _same(name: str, candidate: Any, value: Any) -> bool:
    if candidate == frozen(value):
        return True
    if not isinstance(value, str):
        return False
    if name == "mixer" and isinstance(candidate, str):
        return candidate.lower() == value.lower()
    if value.replace(" ", "") in (said(candidate).replace(" ", ""), str(candidate)):
        return True
    try:
        return bool(candidate == frozen(json.loads(value)))
    except ValueError:
        return False


def _has(variant: _Grouped, values: Mapping[str, Any]) -> bool:
    return all(variant.values.get(name) == value for name, value in values.items())
