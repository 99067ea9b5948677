"""What a run paid to be trained: plain steps and what its rule added, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rbkit.show.facts import NOT_ADAPTING, RunLike, ledger

Unit = Literal["seconds", "flops"]

# Paid before the first step, so in full by a run that stops early.
_BEFORE = ("probe_runs", "reference_run")


@dataclass(frozen=True)
class Spent:
    """Cost of training in one unit: before the first step, and over all steps."""

    before: float
    during: float

    @property
    def total(self) -> float:
        """Cost of the whole run."""
        return self.before + self.during

    def at(self, share: float) -> float:
        """Cost up to a `share` of the steps: each step is taken to cost the same.

        Examples
        --------
        >>> Spent(before=10.0, during=100.0).at(0.5)
        60.0
        """
        return self.before + share * self.during


def spent(run: RunLike, unit: Unit) -> Spent | None:
    """Cost of a run with the overhead of its rule; None where it was not measured.

    FLOPs are those counted, or those modelled where nothing could count them. Evaluation for
    the curves, checks, writing files and Regroup are nobody's overhead, so they are left out.

    Parameters
    ----------
    run : Run
    unit : {"seconds", "flops"}
    """
    entries = {entry["name"]: entry for entry in ledger(run) if entry.get("calls") != 0}
    step = _price(entries.get("step", {}), unit)
    if not step:
        return None
    extra = {name: _price(entry, unit) for name, entry in entries.items()
             if name not in NOT_ADAPTING}  # fmt: skip
    # What was done and nobody counted is not free, but unknown. The rules themselves, some
    # thousand operations, are never counted; all that is timed has its seconds.
    if any(value is None for name, value in extra.items() if name != "mixer"):
        return None
    before = sum(extra.get(name) or 0.0 for name in _BEFORE)
    return Spent(before, step + sum(value or 0.0 for value in extra.values()) - before)


def _price(entry: dict[str, Any], unit: Unit) -> float | None:
    columns = ("seconds",) if unit == "seconds" else ("flops_counted", "flops_modelled")
    values = (entry.get(column) for column in columns)
    return next((float(v) for v in values if isinstance(v, int | float)), None)
