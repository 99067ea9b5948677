"""Lazy packages: a public name is imported when it is first used (PEP 562)."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazy(
    package: str, where: Mapping[str, str], *, call: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__, __dir__, __all__`` for a package with lazy public names.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    where : mapping of str to str
        Public name -> module that defines it, relative (``.gram``). A name that *is* its
        module (``regroup`` in ``.regroup``) gives the module.
    call : str, optional
        Public name that the package itself stands for: ``rbkit.regroup(...)`` is
        ``rbkit.regroup.regroup(...)``. Python binds a subpackage's name to the package once
        anything in it is imported, so a function of that name would come and go.

    Examples
    --------
    >>> get, names, public = lazy("rbkit", {"InputError": ".errors"})
    >>> get("InputError").__name__
    'InputError'
    """

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(where[name], package)
        value = module if where[name] == f".{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(where)

    if call is not None:
        _make_callable(sys.modules[package], call)
    return __getattr__, __dir__, sorted(where)


def _make_callable(module: ModuleType, name: str) -> None:
    class CallablePackage(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(self, name)(*args, **kwargs)

        @property
        def __wrapped__(self) -> Any:
            """Function behind the call: it gives ``inspect.signature``."""
            return getattr(self, name)

        def getdoc(self) -> str | None:
            """Return the function's docstring: what Jupyter's ``?`` and Shift+Tab show."""
            return inspect.getdoc(getattr(self, name))

    module.__class__ = CallablePackage
