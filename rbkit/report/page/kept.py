"""A run as the page sees it: looked at once, so that all parts of the page agree."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from rbkit.report.page.text import clean
from rbkit.show.facts import RunLike


class Kept:
    """What a run said when the page was begun; its evaluations are read once, not ten times.

    Parameters
    ----------
    run : RunLike
        A run, or a run of a sweep, which has a ``job`` besides.
    """

    def __init__(self, run: RunLike) -> None:
        self._run = run
        self.path: Path = Path(run.path)
        self.status: str = run.status  # before the numbers: they may only be newer
        self.info = _orderly(clean(dict(run.info or {})))
        self.job: dict[str, Any] | None = getattr(run, "job", None)

    @cached_property
    def _evaluated(self) -> list[dict[str, Any]]:
        return self._run.metrics("eval")

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Rows of one kind. Those of training are many, and asked for once: they are not kept."""
        return self._evaluated if kind == "eval" else self._run.metrics(kind)

    @property
    def history(self) -> dict[str, Any]:
        """Arrays by round."""
        return self._run.history

    @property
    def domains(self) -> Any:
        """The domains of the run, or None."""
        return self._run.domains

    def __repr__(self) -> str:
        return f"Kept({self._run!r})"


_MAPPINGS = ("parameters", "domains", "corpus", "ledger", "versions", "final", "model", "progress")


def _orderly(info: dict[str, Any]) -> dict[str, Any]:
    """Return ``run.json`` with mappings where mappings belong: it may be from a stranger."""
    for name in _MAPPINGS:
        if not isinstance(info.get(name), dict):
            info[name] = {}
    if isinstance(info["parameters"].get("mixer"), str):  # it names lines in every figure
        info["parameters"]["mixer"] = info["parameters"]["mixer"][:40]
    entries = info["ledger"].get("entries")
    entries = entries if isinstance(entries, list) else []
    kept = [{**e, "name": e["name"][:60]} for e in entries
            if isinstance(e, dict) and isinstance(e.get("name"), str)]  # fmt: skip
    info["ledger"] = {**info["ledger"], "entries": kept}
    if not isinstance(info["domains"].get("names"), list):
        info["domains"] = {**info["domains"], "names": []}
    return info
