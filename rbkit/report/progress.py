"""One line of progress per notebook, on stderr."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any


def description(source: str) -> str | None:
    """Return the name a cell gives itself by ``# papermill_description=``, if any."""
    match = re.search(r"papermill_description=\s*(\S.*?)\s*$", source, re.M)
    return match.group(1).replace("_", " ") if match else None


class Line:
    """One line of progress for one notebook: its cells, and the bar inside the current one."""

    def __init__(self, node: Any, label: str, progress: bool) -> None:
        self._total, self._label, self._progress = len(node.cells), label, progress
        self._bar: Any = None
        self._doing, self._stop = "starting a kernel", threading.Event()

    def __enter__(self) -> Line:
        if self._progress:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total, bar_format=self._format(""), file=sys.stderr, mininterval=1
            )
            # A long cell says nothing: let the clock tick so that it is seen to be alive.
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._stop.set()
        if self._bar is None:
            return
        if kind is None:
            self._bar.n, self._doing = self._total, "done"
        else:
            self._doing = f"stopped in: {self._doing}"
        self._bar.bar_format = self._format("")
        self._bar.close()

    def update(self, index: int, cell: Any, text: str) -> None:
        """Take note of a cell that starts (no text), or of what it writes to stderr."""
        if self._bar is None:
            return
        inside, more = 0.0, ""
        if text:
            # The end will do: in a line of megabytes the search would take hours.
            bars = re.findall(r"([^\r\n|]*?)\s*(\d+)%\|", text[-1000:])
            if not bars:
                return
            name, percent = bars[-1][0].strip(" :")[:24], int(bars[-1][1])
            inside, more = percent / 100, f" · {name} {percent} %".replace("  ", " ")
        else:
            first_code = self._doing == "starting a kernel" and cell.cell_type == "code"
            self._doing = description(cell.source) or ("running" if first_code else self._doing)
        # Progress inside a cell, of several bars one after the other, must not run backwards.
        step = max(self._bar.n, index + inside) - self._bar.n
        self._bar.bar_format = self._format(more)
        self._bar.update(step)

    def _format(self, more: str) -> str:
        said = (self._doing + more).replace("{", "{{").replace("}", "}}")
        label = self._label.replace("{", "{{").replace("}", "}}")
        return f"{label:<14} |{{bar:24}}| {{elapsed}}  {said}"

    def _tick(self) -> None:
        # Without a terminal every refresh is a new line in a log.
        pause = 1.0 if sys.stderr.isatty() else 20.0
        while not self._stop.wait(pause):
            self._bar.refresh()
