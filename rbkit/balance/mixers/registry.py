"""Mixers by name, for the command line and for parameters of notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbkit.balance.mixers.ado import ADO
from rbkit.balance.mixers.aioli import Aioli
from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.dga import DGA
from rbkit.balance.mixers.doge import DoGE
from rbkit.balance.mixers.dro import DoReMi, GroupDRO
from rbkit.balance.mixers.fixed import Fixed, Proportional, Stratified, Target, UniMax
from rbkit.balance.mixers.odm import ODM
from rbkit.balance.mixers.repeat_aware import RepeatAware
from rbkit.balance.mixers.rnb import RnB
from rbkit.balance.mixers.skill_it import SkillIt
from rbkit.balance.mixers.torchjd import MGDA, UPGrad
from rbkit.errors import InputError
from rbkit.text import nearest

MIXERS: dict[str, type[Mixer]] = {
    cls.__name__: cls
    for cls in (
        Stratified,
        Proportional,
        Target,
        Fixed,
        UniMax,
        RnB,
        RepeatAware,
        SkillIt,
        Aioli,
        DGA,
        DoGE,
        DoReMi,
        ADO,
        ODM,
        GroupDRO,
        MGDA,
        UPGrad,
    )
}


_CANONICAL = {name.lower(): name for name in MIXERS}


def canonical_mixer(name: str) -> str:
    """Spell a mixer's name as its class does; any other name is returned unchanged.

    Examples
    --------
    >>> canonical_mixer("rnb"), canonical_mixer("mine")
    ('RnB', 'mine')
    """
    return _CANONICAL.get(name.lower(), name)


def known_mixer(name: str) -> str:
    """Return a mixer's name as its class spells it; refuse one that is not a mixer's.

    Examples
    --------
    >>> known_mixer("rnb")
    'RnB'
    """
    name = canonical_mixer(name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in MIXERS:
        close = nearest(name, MIXERS, 0.5)
        hint = f" (did you mean {close}?)" if close else ""
        raise InputError("mixer", f"{name!r} is unknown", f"use one of {', '.join(MIXERS)}{hint}")
    return name


def mixer_by_name(name: str, options: Mapping[str, Any] | None = None) -> Mixer:
    """Build the mixer called `name`, in any case, with `options` as its parameters.

    Examples
    --------
    >>> mixer_by_name("rnb", {"lam": 2.0}).options()["lam"]
    2.0
    >>> mixer_by_name("RnBB")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: mixer: 'RnBB' is unknown; use one of ... (did you mean RnB?)
    """
    name = known_mixer(name)
    try:
        return MIXERS[name](**dict(options or {}))
    except TypeError as error:
        raise InputError(
            f"mixer options of {name}", str(error), f"see help(rbkit.{name})"
        ) from error
