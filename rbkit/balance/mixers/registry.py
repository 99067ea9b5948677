"""Mixers by name, for the command line and for parameters of notebooks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.fixed import Proportional, Stratified, Target
from rbkit.balance.mixers.rnb import RnB
from rbkit.errors import InputError

MIXERS: dict[str, type[Mixer]] = {
    cls.__name__: cls for cls in (Stratified, Proportional, Target, RnB)
}


def mixer_by_name(name: str, options: Mapping[str, Any] | None = None) -> Mixer:
    """Build the mixer called `name`, with `options` as its parameters.

    Examples
    --------
    >>> mixer_by_name("RnB", {"lam": 2.0}).options()["lam"]
    2.0
    >>> mixer_by_name("RNB")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: mixer: 'RNB' is unknown; use one of ... (did you mean RnB?)
    """
    if name not in MIXERS:
        close = difflib.get_close_matches(name.lower(), [n.lower() for n in MIXERS], 1, 0.5)
        hint = next(
            (f" (did you mean {n}?)" for n in MIXERS if close and n.lower() == close[0]), ""
        )
        raise InputError(
            "mixer", f"{name!r} is unknown", f"use one of {', '.join(sorted(MIXERS))}{hint}"
        )
    try:
        return MIXERS[name](**dict(options or {}))
    except TypeError as error:
        raise InputError(f"mixer options of {name}", str(error), "see help(rbkit.RnB)") from error
