"""What all rules with options and a memory share: a dataclass that can be saved and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, cast

import numpy as np

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.signals import FloatArray, IntArray
from rbkit.errors import InputError


class Rule(Mixer):
    """A mixer written as a dataclass: public fields are options, ``_fields`` are its memory.

    The memory (fields with ``init=False`` and a plain default) is forgotten by :meth:`start`,
    saved and taken up under the fields' names without the underscore.

    Examples
    --------
    >>> from dataclasses import dataclass, field
    >>> @dataclass(eq=False)
    ... class Counting(Rule):
    ...     eta: float = 1.0
    ...     _rounds: int = field(default=0, init=False, repr=False)
    ...     def update(self, seen):
    ...         self._rounds += 1
    ...         return seen.p
    >>> rule = Counting()
    >>> rule._rounds = 3
    >>> rule.options(), rule.state_dict()
    ({'eta': 1.0}, {'rounds': 3})
    """

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run: forget any earlier one, and return uniform proportions."""
        self._forget()
        return super().start(q, sizes)

    def _forget(self) -> None:
        for each in self._fields(public=False):
            setattr(self, each.name, each.default)

    def _fields(self, *, public: bool) -> list[Field[Any]]:
        return [f for f in fields(cast(Any, self)) if f.name.startswith("_") is not public]

    def state_dict(self) -> dict[str, Any]:
        """Return the memory: arrays and JSON values, by name."""
        held = {f.name: getattr(self, f.name) for f in self._fields(public=False)}
        return {
            name.removeprefix("_"): value.copy() if isinstance(value, np.ndarray) else value
            for name, value in held.items()
            if value is not None
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a memory saved by :meth:`state_dict`."""
        known = {f.name.removeprefix("_") for f in self._fields(public=False)}
        if unknown := set(state) - known:
            raise ValueError(f"{self.name} has no state {sorted(unknown)}")
        self._forget()
        for name, value in state.items():
            held = value.copy() if isinstance(value, np.ndarray) else value
            setattr(self, f"_{name}", held)

    def options(self) -> dict[str, Any]:
        """Return the parameters of the rule."""
        return {f.name: getattr(self, f.name) for f in self._fields(public=True)}

    # ------------------------------------------------------------------ checking options

    def _check_number(
        self, name: str, *, least: float = -np.inf, most: float = np.inf, try_: str,
        positive: bool = False, below: float = np.inf, whole: bool = False, optional: bool = False,
    ) -> None:  # fmt: skip
        """Refuse an option that is no number in ``[least, most]``, nor below `below`."""
        value = getattr(self, name)
        if value is None and optional:
            return
        kinds = int | np.integer if whole else int | float | np.integer | np.floating
        where, remedy = f"{self.name}({name}=...)", f"try {name}={try_}"
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise InputError(where, f"{value!r} is not a {'whole ' * whole}number", remedy)
        if not (np.isfinite(value) and least <= value <= most and value < below):
            high = (
                f", {below})" if below < np.inf else f", {most}]" if most < np.inf else " or more"
            )
            span = f"{least}{high}" if high == " or more" else f"[{least}{high}"
            raise InputError(where, f"{value} is not {'in ' * (span[0] == '[')}{span}", remedy)
        if positive and value <= 0:
            raise InputError(where, f"{value} is not above 0", remedy)
        setattr(self, name, int(value) if isinstance(value, np.integer) else value)

    def _check_choice(self, name: str, *choices: str) -> None:
        """Refuse an option that is none of `choices`."""
        value = getattr(self, name)
        if value not in choices:
            listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"
            raise InputError(f"{self.name}({name}=...)", f"{value!r} is unknown", f"use {listed}")

    def _check_flag(self, name: str) -> None:
        """Refuse an option that is neither True nor False."""
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise InputError(
                f"{self.name}({name}=...)", f"{value!r} is no yes or no", "use True or False"
            )
