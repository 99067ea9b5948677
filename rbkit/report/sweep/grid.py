r"""A grid in one line: ``mixer=stratified,target,rnb seed=0..4 k=10,30``.

Spaces separate parameters, commas separate values, ``a..b`` are all integers from a to b
(``a..b..step`` some of them). Quotes and JSON brackets protect commas and spaces::

    k=[8,12],[16]    mixer_options={"prior":"target"},{}    corpus="my texts.jsonl",b.jsonl

Values are text, or JSON lists and dicts: the types come from the notebook
(:mod:`rbkit.report.parameters`). Where a parameter may be a number or text, ``1`` is the
number and ``"1"`` is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from rbkit.errors import InputError
from rbkit.report.parameters import ShellText, as_text

GridLike = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]

MOST = 100_000  # values of a parameter, and runs of a sweep: more is a typing error
_NAME = re.compile(r"[^\W\d]\w*")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?", re.ASCII)
_BARE = re.compile(r"""[^\s,"'\[\]{}]+""")


def parse_grid(grid: GridLike) -> dict[str, list[Any]]:
    """Return the values of each parameter of a grid.

    Parameters
    ----------
    grid : str, mapping, or several of these
        As text; as ``{name: values}`` with any iterable of values, or one value; several
        multiply.

    Returns
    -------
    dict of str to list
        In the order of the grid. From text: str, list and dict.

    Raises
    ------
    InputError
        Saying where the text stops making sense; or a parameter is there twice.

    Examples
    --------
    >>> parse_grid("mixer=target,rnb seed=0..2")
    {'mixer': ['target', 'rnb'], 'seed': ['0', '1', '2']}
    >>> parse_grid({"seed": range(2), "k": [(8, 12), 10]})
    {'seed': [0, 1], 'k': [(8, 12), 10]}
    >>> parse_grid("mixer=target, rnb")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: grid: in 'mixer=target,': no value after ','; write NAME=VALUE,VALUE ...
    """  # noqa: E501
    parts = [grid] if isinstance(grid, str | Mapping) else list(grid)
    all_values: dict[str, list[Any]] = {}
    for part in parts:
        pairs = _mapping(part) if isinstance(part, Mapping) else _Reader(str(part)).pairs()
        for name, values in pairs:
            if name in all_values:
                raise InputError(name, "is in the grid twice", "give all its values in one place")
            if not values:
                raise InputError(name, "no values in the grid", "give some, or leave it out")
            all_values[name] = values
    return all_values


def format_grid(grid: Mapping[str, Iterable[Any]]) -> str:
    """Write a grid as text that :func:`parse_grid` reads.

    Examples
    --------
    >>> format_grid({"mixer": ["RnB"], "note": ["a, b"], "k": [[8, 12], 10], "seed": range(5)})
    'mixer=RnB note="a, b" k=[8,12],10 seed=0..4'
    """
    return " ".join(f"{name}={_written(list(values))}" for name, values in grid.items())


def _written(values: list[Any]) -> str:
    if len(values) > 2 and all(type(v) is int for v in values):
        first, last = values[0], values[-1]
        if values == list(range(first, last + 1)):
            return f"{first}..{last}"
    return ",".join(map(_token, values))


def _token(value: Any) -> str:
    text = as_text(value)
    if isinstance(value, str) and (not _BARE.fullmatch(text) or _means_another_type(text)):
        return json.dumps(text)  # ASCII: half a character survives, too
    return text


def _means_another_type(text: str) -> bool:
    if _RANGE.fullmatch(text) or text.lower() in ("true", "false", "null", "none"):
        return True
    with suppress(ValueError):
        float(text)
        return True
    return False


def _mapping(grid: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for name, values in grid.items():
        if isinstance(values, set | frozenset):
            raise InputError(str(name), "a set has no order", "give a list")
        one = isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable)
        yield str(name), [values] if one else list(values)


class _Reader:
    """Reads a grid from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def pairs(self) -> Iterator[tuple[str, list[Any]]]:
        while self._skip_spaces():
            start = self.at
            name = _NAME.match(self.text, self.at)
            if not name or self.text[name.end() : name.end() + 1] != "=":
                word = self.text[self.at :].split()[0]
                raise self._error(start, f"{word!r} has no '='", after=len(word))
            self.at = name.end() + 1
            yield name.group(), self._values(start)

    def _values(self, start: int) -> list[Any]:
        values: list[Any] = []
        while True:
            values += self._value(start)
            follows = self.text[self.at : self.at + 1]
            if not follows or follows.isspace():
                return values
            if follows != ",":
                raise self._error(start, f"{follows!r} follows a value", after=1)
            self.at += 1

    def _value(self, start: int) -> list[Any]:
        opening = self.text[self.at : self.at + 1]
        if opening and opening in "[{\"'":
            return [self._protected(opening, start)]
        bare = _BARE.match(self.text, self.at)
        if not bare:
            raise self._error(start, f"no value after {self.text[self.at - 1]!r}")
        self.at = bare.end()
        text = bare.group()
        bounds = _RANGE.fullmatch(text)
        if not bounds:
            return [ShellText(text)]
        first, last, step = int(bounds[1]), int(bounds[2]), int(bounds[3] or 1)
        if step < 1 or last < first or (last - first) // step >= MOST:
            raise self._error(start, f"{text} is not a range from small to large")
        return [ShellText(number) for number in range(first, last + 1, step)]

    def _protected(self, opening: str, start: int) -> Any:
        if opening == "'":  # as it is, up to the next one
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise self._error(start, "a quote is not closed", after=len(self.text))
            value: Any = self.text[self.at + 1 : end]
            self.at = end + 1
            return value
        try:
            value, self.at = json.JSONDecoder(parse_constant=_refuse).raw_decode(self.text, self.at)
        except (ValueError, RecursionError) as error:
            raise self._error(start, f"not JSON ({error})", after=len(self.text)) from error
        return value

    def _skip_spaces(self) -> bool:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.at < len(self.text)

    def _error(self, start: int, what: str, after: int = 0) -> InputError:
        quoted = self.text[start : self.at + after][:80]
        return InputError(
            "grid",
            f"in {quoted!r}: {what}",
            "write NAME=VALUE,VALUE NAME=0..4, no space "
            "after a comma, and quotes around values that hold spaces or commas",
        )


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON value")
