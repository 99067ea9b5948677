"""Write docs/api.md: the public names of each room, with the first line of their docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import rbkit

ROOMS = (
    *("data", "regroup", "balance", "balance.mixers", "train", "train.propose", "show"),
    *("show.explorer", "show.scrub", "report", "report.compare", "report.sweep"),
)


def page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# What can be called",
        "",
        "The public names of each room, made by `python docs/api.py`. With `import rbkit as rb`,",
        "names in **bold** are also `rb.name`. In Jupyter, `?` after a name shows the rest.",
    ]
    shown: set[int] = set()
    for room in ROOMS:
        module = importlib.import_module(f"rbkit.{room}")
        rows = []
        for name in sorted(module.__all__, key=str.lower):
            thing = getattr(module, name)
            if inspect.ismodule(thing):  # a room and the function that it is called as
                thing = getattr(thing, name, thing)
            if id(thing) in shown:
                continue
            shown.add(id(thing))
            mark = "**" if name in rbkit.__all__ else ""
            rows.append(f"| {mark}`{name}`{mark} | {_first_line(thing)} |")
        about = (module.__doc__ or "").partition("\n")[0].partition(": ")[2].rstrip(".")
        title = f"## rbkit.{room}: {about}" if about else f"## rbkit.{room}"
        lines += ["", title, "", "| name | |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _first_line(thing: object) -> str:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f"a {type(thing).__name__}" if not inspect.ismodule(thing) else "see below"
    paragraph = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    plain = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", paragraph).replace("``", "`")
    return " ".join(plain.split()).replace("|", "\\|")


if __name__ == "__main__":
    (Path(__file__).parent / "api.md").write_text(page(), encoding="utf-8")
