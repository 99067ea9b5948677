"""Recipes: sets of run parameters, one readable TOML file each, with a card on the data.

rbkit's own are those of the paper's experiments, and a small twin of each that needs no hub. A
file has a table ``parameters``, and another, ``card``; one without them is all parameters.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rbkit
from rbkit.errors import InputError
from rbkit.files import regular
from rbkit.report.parameters import did_you_mean

FOLDER = Path(rbkit.__file__).parent / "recipes"
# Those of the paper, and each one's twin.
TWINS = {
    "dolly": "instruct",
    "ni": "tasks",
    "ni-ood": "tasks-ood",
    "s1": "reasoning",
    "clip": "emoji",
}


@dataclass(frozen=True)
class Recipe:
    """Parameters of a run, and what is known of its data.

    Attributes
    ----------
    name : str
        As runs' folders are called after it.
    path : Path
    parameters : dict
    card : dict of str to str
        ``what`` data, how many ``examples``, ``licence``, what it ``needs``, the ``time`` that it
        takes, what the ``paper`` did, and what ``differs``.
    """

    name: str
    path: Path
    parameters: dict[str, Any]
    card: dict[str, str]


def recipe(name: str | Path) -> Recipe:
    """Return one of rbkit's recipes by its name, or that of a file.

    Raises
    ------
    InputError
        There is none of that name, or the file is not TOML.

    Examples
    --------
    >>> recipe("dolly").parameters["round_steps"]
    200
    >>> recipe("doly")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: recipe: there is no 'doly'; did you mean dolly?
    """
    names = [name for pair in TWINS.items() for name in pair]
    path = FOLDER / f"{name}.toml" if str(name) in names else Path(name)
    if path.suffix != ".toml":
        raise InputError("recipe", f"there is no {str(name)!r}", did_you_mean(str(name), names))
    try:
        content = tomllib.loads(regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = f"check the path (from {Path.cwd()})"
        raise InputError("recipe", f"there is no file {path}", remedy) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"is not TOML ({error})", "repair it") from error
    card = content.pop("card", {})
    parameters = content.pop("parameters", None)
    if parameters is not None and content:
        what = f"{next(iter(content))} is outside of the table [parameters]"
        raise InputError(str(path), what, "move it there")
    return Recipe(path.stem, path, content if parameters is None else parameters, card)
