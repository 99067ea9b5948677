"""What is given on the command line, and how it is read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rbkit.report.parameters import Text

Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable."),
]


def read_parameters(given: list[str] | None) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; values stay text until types are known.

    Examples
    --------
    >>> read_parameters(["steps=300", "mixer_options={}"])
    {'steps': '300', 'mixer_options': '{}'}
    """
    pairs = [item.partition("=") for item in given or []]
    found: dict[str, Any] = {}
    for name, equals, value in pairs:
        if not equals:
            raise typer.BadParameter(f"{name!r} has no '='; write NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice; give it once")
        found[name] = Text(value)
    return found
