"""Lazy packages: a public name is imported when it is first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: str, where: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__, __dir__, __all__`` for a package with lazy public names.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    where : mapping of str to str
        Public name -> module that defines it, relative (``.gram``) or absolute.

    Examples
    --------
    >>> get, names, public = attach("rbkit", {"InputError": ".errors"})
    >>> get("InputError").__name__
    'InputError'
    """

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(where[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(where)

    return __getattr__, __dir__, sorted(where)
