"""Which mixers can be replayed on a run, with which options, and why others cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rbkit.balance.mixers.registry import MIXERS
from rbkit.show.facts import RunLike, mixer_of, parameter
from rbkit.train.replayed import why_not

# Depends on what was drawn, which a replay does not know.
_NOT_REPLAYED = ("max_epochs",)
_KINDS = {float: "number", int: "whole", bool: "flag"}


def menu(run: RunLike) -> list[dict[str, Any]]:
    """Entries of the menu: ``name``, ``reason`` (empty if it can be replayed), ``options``.

    The run's own mixer begins with the run's own options.
    """
    entries = []
    for name in MIXERS:
        mine = parameter(run, "mixer_options") if name == mixer_of(run) else None
        options = options_of(name, mine if isinstance(mine, Mapping) else {})
        given = {option["name"]: option["value"] for option in options}
        if name == "Fixed":
            reason = "it needs its shares: scrubber.replay('Fixed', p=[...])"
        else:
            reason = why_not(run, name, given)
        entries.append({"name": name, "reason": reason, "options": [] if reason else options})
    return sorted(entries, key=lambda entry: bool(entry["reason"]))


def options_of(name: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the options of a rule that a simple field can hold.

    Examples
    --------
    >>> options_of("RnB", {"lam": 2.0})[0]
    {'name': 'lam', 'kind': 'number', 'value': 2.0, 'optional': False, 'choices': []}
    """
    rule: Any = MIXERS[name]
    if not dataclasses.is_dataclass(rule):
        return []
    hints = get_type_hints(rule)
    found = []
    for field in dataclasses.fields(rule):
        if field.name.startswith("_") or not field.init or field.name in _NOT_REPLAYED:
            continue
        hint = hints[field.name]
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        optional = NoneType in get_args(hint)
        choices = [str(choice) for choice in get_args(hint)] if get_origin(hint) is Literal else []
        kind = "choice" if choices else _KINDS.get(kinds[0] if optional else hint)
        if kind is not None:
            value = given.get(field.name, field.default)
            found.append({"name": field.name, "kind": kind, "value": value, "optional": optional,
                          "choices": choices})  # fmt: skip
    return found


def asked(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what stands in the fields into options: empty ones are None, whole numbers whole.

    Examples
    --------
    >>> asked("RnB", {"lam": 1, "effective_domains": "", "prior": "target", "not": "mine"})
    {'lam': 1.0, 'prior': 'target', 'effective_domains': None}
    """
    made: dict[str, Any] = {}
    for option in options_of(name, {}) if name in MIXERS else []:
        if option["name"] not in fields:
            continue
        value, kind = fields[option["name"]], option["kind"]
        if value == "" or value is None:
            value = None if option["optional"] else value
        elif kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value)
        elif kind == "whole" and isinstance(value, float) and value.is_integer():
            value = int(value)
        made[option["name"]] = value
    return made
