"""Values checked against type hints: only what is unambiguous is converted.

YAML and the command line give strings where numbers were meant; papermill passes them on.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import types
import typing
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, Union

from rbkit.errors import InputError

_NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


class Text(str):
    """Text as it was typed in a shell: what it stands for is found out by a type hint.

    Where text is allowed beside other types, text from Python is text. From a shell it is the
    other type if it can be; ``"1"``, in double quotes of JSON, is text.

    Examples
    --------
    >>> check("k", Text("1"), int | str), check("k", Text('"1"'), int | str)
    (1, '1')
    >>> check("k", "1", int | str), check("k", Text("007"), int | str)
    ('1', '007')
    """


def hint_source(hint: Any) -> str:
    """Write a type hint as Python source, the way it is written in this file."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if hint is Ellipsis:
        return "..."
    if origin in (Union, types.UnionType):
        return " | ".join(map(hint_source, args))
    if origin is Literal:
        return f"Literal[{', '.join(map(source_of, args))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(hint_source, args))}]"
    return str(getattr(hint, "__name__", hint))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the remedy for an unknown name: close matches, or all names."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(known)}"


def check(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type that `hint` says, converting only what is unambiguous.

    ``"1e-3"`` is a float (YAML reads it as a string), ``3`` is a float too, ``[8, 12]`` is a
    tuple, ``"300"`` an int and a ``Path`` a str. ``"007"``, ``1.5`` and ``True`` are no ints.

    Raises
    ------
    InputError
        Naming the parameter, the value and what is allowed.
    """
    try:
        return _convert(value, hint)
    except (TypeError, ValueError):
        allowed = hint_source(hint)
        kind = "str" if isinstance(value, str) else type(value).__name__
        raise InputError(name, f"{value!r} ({kind}) is not allowed", f"give {allowed}") from None


def _convert(value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()  # from np.arange, np.logspace
    if isinstance(value, Text):
        if origin in (Union, types.UnionType):
            return _typed(value, args)
        value = str(value)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, args)
    if origin is Literal:
        return _choice(value, args)
    if hint is tuple or origin is tuple:
        return _tuple(value, args or (Any, ...))
    if hint is list or origin is list:
        return list(_tuple(value, (args[0] if args else Any, ...)))
    if hint is dict or origin is dict:
        value, (of_key, of_value) = _json(value, dict), args or (Any, Any)
        return {_convert(k, of_key): _convert(v, of_value) for k, v in value.items()}
    return _scalar(value, hint)


def _choice(value: Any, allowed: Sequence[Any]) -> Any:
    # `in` alone would take True for 1.
    if any(value == a and type(value) is type(a) for a in allowed):
        return value
    for choice in allowed:
        # The command line can only give text; choices that are text were compared above.
        if isinstance(value, str) and not isinstance(choice, str):
            with suppress(TypeError, ValueError):
                if _scalar(value, type(choice)) == choice:
                    return choice
    raise ValueError


def _first_that_fits(value: Any, hints: Sequence[Any]) -> Any:
    # A value that has one of the types already keeps it; only then is anything converted,
    # so that "None" stays a string where strings are allowed.
    for hint in hints:
        if value is None and hint is type(None):
            return None
        if type(value) is hint:
            return value
    for hint in hints:
        try:
            return _convert(value, hint)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _typed(value: Text, hints: Sequence[Any]) -> Any:
    text, words = str(value), str in hints
    if words and text[:1] == '"':
        with suppress(ValueError, RecursionError):
            said = json.loads(text)
            if isinstance(said, str):
                return said
    for hint in sorted(hints, key=_order):
        if words and (hint is type(None) or (hint is float and not _NUMBER.fullmatch(text))):
            continue  # "None", "007" and "1_000" are words where words are allowed
        try:
            return _convert(text, hint)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _order(hint: Any) -> int:
    first = (int, float, bool)
    return first.index(hint) if hint in first else 9 if hint in (str, Any) else 5


def _tuple(value: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    value = _json(value, list) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise TypeError
    hints = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
    if len(hints) != len(value):
        raise ValueError
    return tuple(_convert(v, h) for v, h in zip(value, hints, strict=True))


def _json(value: Any, kind: type) -> Any:
    # The command line can only give text.
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _scalar(value: Any, kind: type) -> Any:
    if kind is type(None):
        if value is None or value in ("None", "null"):
            return None
        raise TypeError
    if kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
    elif kind is int:
        # No leading zeros: "007" may well be a name.
        if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]*)", value, re.ASCII):
            return int(value)
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number):  # JSON has no NaN, and no parameter means one
            raise ValueError
        return number
    elif kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) is not kind:
        raise TypeError
    return value


def source_of(value: Any) -> str:
    """Write a value as Python source, strings with double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
