"""Errors that say what is wrong, where, and what to do.

Every error that a user can cause is an :class:`InputError`: one line that names the
file or parameter, the problem and the remedy. The command line prints it without a
traceback; a notebook shows it as an ordinary exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rbkit.text import listed, nearest, visible


class RbkitError(Exception):
    r"""Anything that rbkit itself raises.

    What it quotes may come from a stranger's files, and every traceback ends in a terminal.

    Examples
    --------
    >>> str(RbkitError("\x1b[31mred"))
    'red'
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))


class InputError(RbkitError, ValueError):
    """Bad input: *where* it is, *what* is wrong and the *remedy*, in one line.

    Parameters
    ----------
    where : str
        The file, column or parameter at fault.
    what : str
        What is wrong with it.
    remedy : str
        What to do about it.

    Examples
    --------
    >>> str(InputError("k", "500 domains asked of 120 examples", "choose k <= 120"))
    'k: 500 domains asked of 120 examples; choose k <= 120'
    """

    def __init__(self, where: str, what: str, remedy: str) -> None:
        self.where, self.what, self.remedy = where, what, remedy
        line = " ".join(f"{where}: {what}; {remedy}".split())
        # A path that is not UTF-8 holds lone surrogates, which no terminal and no file can take.
        super().__init__(line.encode("utf-8", "backslashreplace").decode("utf-8"))

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        # Exceptions are rebuilt from `args`, which is the one line: worker processes need three.
        return type(self), (self.where, self.what, self.remedy)


class AssetError(InputError):
    """A model or corpus that is not in the cache, or not what its checksum says."""


class RbkitWarning(UserWarning):
    """Something that went on, but that the user should know of; as safe to show as an error."""

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(message))


def as_count(
    where: str, value: Any, *, least: int | None = 0, most: int | None = None, remedy: str = ""
) -> int:
    """Return a count, such as ``k``, ``steps`` or ``seed``, as an int: the one place that says so.

    A count is a whole number of any library and type, also 8.0 and an array of no dimension;
    not a boolean, not text, and not a number with a fraction.

    Parameters
    ----------
    where : str
        The parameter, for the message.
    value : object
    least, most : int or None
        Its range; None leaves that to the caller.
    remedy : str, optional
        What to do about another value; by default the range is given.

    Raises
    ------
    InputError
        It is not a count, or not in the range.

    Examples
    --------
    >>> as_count("k", 8.0)
    8
    >>> as_count("k", "8", least=1)
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: k: '8' is not a whole number; give an integer of 1 or more
    """
    span = f" from {least} to {most}" if most is not None else f" of {least} or more"
    remedy = remedy or f"give an integer{'' if least is None else span}"
    shown = repr(value)[:60]
    try:
        number = _python_number(value)
        whole = int(number)
        if not whole == number:
            raise ValueError("it has a fraction")
    except _NO_NUMBER as error:
        raise InputError(where, f"{shown} is not a whole number", remedy) from error
    if least is not None and whole < least:
        what = {0: "is negative", 1: "is not positive"}.get(least, "is too few")
        raise InputError(where, f"{shown} {what}", remedy)
    if most is not None and whole > most:
        raise InputError(where, f"{shown} is too large", remedy)
    return whole


def as_number(where: str, value: Any, remedy: str) -> float:
    """Return a number of any library as a float; whoever asks checks its range.

    Raises
    ------
    InputError
        A boolean, text, an array, nothing.

    Examples
    --------
    >>> as_number("eval_share", "0.1", "give a number between 0 and 1")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: eval_share: '0.1' is not a number; give a number between 0 and 1
    """
    try:
        return float(_python_number(value))
    except _NO_NUMBER as error:
        raise InputError(where, f"{repr(value)[:60]} is not a number", remedy) from error


_NO_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)  # what conversions raise


def _python_number(value: Any) -> Any:
    """Return the Python value of a scalar of numpy, torch, jax, ..., which say how to become one.

    An array is not a number, and numpy would make one of a date.
    """
    dates = getattr(getattr(value, "dtype", 0), "kind", "") in ("m", "M")
    number = value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else value
    if dates or getattr(number, "ndim", None) or isinstance(number, bool | str | bytes):
        raise TypeError("not a number")
    return number


def as_seed(value: Any, where: str = "seed") -> int:
    """Return a seed as an int that numpy, torch and scikit-learn all take: 0 to 2^32 - 1."""
    return as_count(where, value, most=2**32 - 1)


_LISTED = 12  # names in a message at most


def by_name(given: Any) -> dict[Any, Any] | None:
    """Return what is given by domain name, a mapping or a pandas Series, as a dict; else None.

    A Series whose index is only numbers is a vector.
    """
    items = getattr(given, "items", None)
    pairs = dict(items()) if callable(items) else {}
    named = isinstance(given, Mapping) or any(isinstance(name, str) for name in pairs)
    return pairs if named else None


def domain_numbers(
    where: str, given: Iterable[Any], names: Sequence[str], *, every: bool = False
) -> list[int]:
    """Return where the domains `given` by name are among all `names`.

    Parameters
    ----------
    where : str
        The parameter, for the message.
    given : iterable of str
    names : sequence of str
        Of all domains, in their order.
    every : bool
        Whether each domain has to be given.

    Raises
    ------
    InputError
        A name that no domain has, or a domain that is missing.

    Examples
    --------
    >>> domain_numbers("targets", ["code", "wiki"], ["wiki", "math", "code"])
    [2, 0]
    >>> domain_numbers("p", ["Code", "wiki"], ["wiki", "code"])
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: p: no domain is called 'Code' (did you mean 'code'?); the domains are
    'wiki', 'code'
    """
    at = {name: number for number, name in enumerate(names)}
    given = list(given)
    remedy = f"the domains are {listed(names, _LISTED)}"
    if unknown := [name for name in given if name not in at]:
        close = nearest(unknown[0], names)
        hint = f" (did you mean {close!r}?)" if close else ""
        also = f", nor {listed(unknown[1:], _LISTED)}" if unknown[1:] else ""
        raise InputError(where, f"no domain is called {unknown[0]!r}{hint}{also}", remedy)
    if every and (missing := [name for name in names if name not in given]):
        what = f"nothing for {listed(missing, _LISTED)}"
        raise InputError(where, what, f"name every domain, with 0 to leave it out; {remedy}")
    return [at[name] for name in given]
