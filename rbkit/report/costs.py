"""What every rule costs: modelled, counted and measured, on one corpus, in one table.

Each rule of the registry trains the same small model for a few rounds, in a run folder of its
own, so that a killed call goes on where it was. Overheads are in percent of plain training:

- *modelled*: the published algorithm, by the cost model of :mod:`rbkit.train.cost_model` at the
  run's own N, D_t, D_e, m, T and delta;
- *modelled for rbkit*: what rbkit's trainer pays for the signals that the rule asks for;
- *counted*: FLOPs of the ledger, of everything that is there for the rule, over those of ``step``;
- *measured*: seconds likewise.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import MIXERS, canonical_mixer, mixer_by_name
from rbkit.errors import InputError
from rbkit.files import write_text
from rbkit.report.demo import SETTINGS
from rbkit.report.job import load_inputs, train_options
from rbkit.report.parameters import RunParameters
from rbkit.show.facts import NOT_ADAPTING
from rbkit.train.cost_model import Budget
from rbkit.train.cost_signals import modelled_overhead
from rbkit.train.models import PRESETS, pretrained_source
from rbkit.train.propose.small_runs import train_once
from rbkit.train.record import Run, list_runs
from rbkit.train.text import tokenize, train_tokenizer

_GRADIENTS = {"target_gradient", "domain_gradients"}
_STEPS = 100


@dataclass(frozen=True)
class Setup:
    """How long, and with which options, a rule is run."""

    mixer: str
    options: dict[str, Any]
    steps: int
    round_steps: int

    def rule(self) -> Mixer:
        """Make the mixer."""
        return mixer_by_name(self.mixer, self.options)


@dataclass(frozen=True)
class CostRow:
    """One line of the table; overheads in percent of plain training, None if unknown.

    Attributes
    ----------
    mixer, settings, signals : str
    modelled, modelled_rbkit, counted, measured : float or None
    peak_bytes : int
        Largest memory of one ledger entry of the rule.
    step_ms : float
        Milliseconds of a plain step: losses taken by example are part of it.
    steps, round_steps : int
    """

    mixer: str
    settings: str
    signals: str
    modelled: float | None
    modelled_rbkit: float | None
    counted: float | None
    measured: float | None
    peak_bytes: int
    step_ms: float
    steps: int
    round_steps: int


def costs(
    out: str | Path = "reports/costs", *, overrides: Mapping[str, Any] | None = None,
    mixers: Sequence[str] | None = None, progress: bool = True,
) -> list[CostRow]:  # fmt: skip
    """Run each mixer for a few rounds; write ``costs.csv`` and ``index.html`` to `out`.

    Parameters
    ----------
    out : path
        Folder; runs go to ``out/runs``. A run that ended well is not repeated.
    overrides : mapping, optional
        Parameters of the runs to change; the demo's, with 100 steps, by default.
    mixers : sequence of str, optional
        Names of the rules; all that can be made without options by default.
    progress : bool
        Say on stderr what is going on.

    Returns
    -------
    list of CostRow
        Cheapest first, by counted FLOPs.

    Raises
    ------
    InputError
        If a parameter, a name or the corpus is at fault, or `out` holds other runs.
    """
    from rbkit.report.costs_page import write_page

    out, given = Path(out), dict(overrides or {})
    base = {**SETTINGS, "steps": _STEPS}
    if given.get("corpus", base["corpus"]) != base["corpus"]:  # the demo's target is of its sources
        base |= {"eval_sources": None, "eval_size": None}
    params = RunParameters.from_mapping({**base, **given}).resolved()
    setups = [setup(canonical_mixer(name), params) for name in mixers or runnable()]
    corpus, domains = load_inputs(params, progress=progress)
    mine = ("run_dir", "mixer", "resume", "record")
    options = {k: v for k, v in train_options(params).items() if k not in mine}
    options |= {"eval_rounds": 10**9, "save_model": False}
    d_e = eval_tokens(corpus, params)
    rows = []
    for number, each in enumerate(setups, 1):
        if progress:
            print(f"{number} of {len(setups)}: {each.mixer}, {describe(each)}", file=sys.stderr)
        options |= {"steps": each.steps, "round_steps": each.round_steps}
        run = train_once(corpus, domains, out / "runs" / each.mixer, each.rule(), options)
        rows.append(cost_row(run, each, d_e))
    rows.sort(key=lambda row: (row.counted or 0.0, row.measured or 0.0))
    write_csv(rows, out / "costs.csv")
    write_page(rows, list_runs(out / "runs"), out / "index.html")
    return rows


def runnable() -> list[str]:
    """Names of the mixers that need no options, which leaves out ``Fixed``.

    Examples
    --------
    >>> "Fixed" in runnable(), "RnB" in runnable()
    (False, True)
    """
    found = []
    for name in MIXERS:
        try:
            mixer_by_name(name)
        except InputError:
            continue
        found.append(name)
    return found


def setup(name: str, params: RunParameters) -> Setup:
    """Say how a rule is run: what is published for thousands of steps is scaled to a short run.

    Rules that update after every step do so here, too; those among them that take fresh
    gradients each time run for a tenth of the steps, since a share does not need more.
    """
    rule, steps = mixer_by_name(name), params.steps
    round_steps = min(params.round_steps, steps)
    if rule.per_step:
        round_steps = 1
        steps = max(2, steps // 10) if rule.signals & _GRADIENTS else steps
    options: dict[str, Any] = {}
    if name == "SkillIt":  # 200 steps of probing per domain are for runs of thousands
        options = {"graph_steps": max(1, steps // 10)}
    elif name == "Aioli":  # its sweep over all domains must fit into a round
        options = {"lp_steps": 1}
        round_steps = steps
    elif name == "ADO":  # the published code waits for 1000 steps before the first fit
        half = max(1, steps // 2)
        options = {"start_steps": half // 2, "ignore_steps": half // 2, "refit_steps": half,
                   "every": max(1, steps // 50)}  # fmt: skip
    return Setup(name, options, steps, round_steps)


def describe(one: Setup) -> str:
    """Say the settings in a few words.

    Examples
    --------
    >>> describe(Setup("Aioli", {"lp_steps": 1}, 100, 25))
    '100 steps, K = 25, lp_steps = 1'
    """
    said = [f"{one.steps} steps", f"K = {one.round_steps}"]
    return ", ".join([*said, *(f"{name} = {value}" for name, value in one.options.items())])


def eval_tokens(corpus: Any, params: RunParameters) -> int:
    """Count the tokens of the eval set, D_e."""
    if params.model in PRESETS:
        tokenizer = train_tokenizer(
            list(corpus["train"]["text"]), params.vocab_size, progress=False
        )
    else:
        tokenizer = AutoTokenizer.from_pretrained(pretrained_source(params.model))
    rows = tokenize(corpus["eval"]["text"], tokenizer, params.context)["input_ids"]
    return sum(len(row) for row in rows)


def cost_row(run: Run, one: Setup, d_e: int) -> CostRow:
    """Return the prices of one finished run."""
    entries = {entry["name"]: dict(entry) for entry in run.info["ledger"]["entries"]}
    step = entries["step"]
    ours = [entry for name, entry in entries.items() if name not in NOT_ADAPTING]
    flops = sum(entry["flops_counted"] or 0 for entry in ours)
    seconds = sum(entry["seconds"] or 0 for entry in ours)
    held = [entry["bytes"] or 0 for entry in ours]
    spent, rule = budget(run, one, d_e, entries.get("track", {})), one.rule()
    # Where a rule divides its rounds, as Aioli does, the trainer has more of them to pay for.
    asked = replace(spent, rounds=len(run.history["step"]))
    return CostRow(
        one.mixer, describe(one), ", ".join(sorted(rule.signals)) or "none",
        100 * modelled_overhead(rule, spent), 100 * modelled_overhead(rule, asked, "rbkit"),
        _percent(flops, step["flops_counted"]), _percent(seconds, step["seconds"]),
        int(max(held, default=0)), 1000 * step["seconds"] / max(step["calls"], 1),
        one.steps, one.round_steps,
    )  # fmt: skip


def budget(run: Run, one: Setup, d_e: int, track: Mapping[str, Any]) -> Budget:
    """Return the quantities of the cost model, as this run had them."""
    sizes = np.asarray(run.info["domains"]["sizes"])
    m = int((sizes > 0).sum())
    probe = one.options.get("graph_steps", 1)  # else: one batch
    # Two half-rounds of float32 for each domain.
    numbers = (track.get("bytes") or 0) / (8 * len(sizes))
    return Budget(
        params=run.info["model"]["parameters"], train_tokens=run.metrics("train")[-1]["tokens"],
        domains=m, eval_tokens=d_e, rounds=-(-one.steps // one.round_steps),
        delta=probe / one.steps,
        tracked=numbers or None,
    )  # fmt: skip


def write_csv(rows: Sequence[CostRow], path: Path) -> None:
    """Write the table as CSV, overheads in percent."""
    out = io.StringIO()
    table = csv.DictWriter(out, [f.name for f in fields(CostRow)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    write_text(path, out.getvalue())


def print_table(rows: Sequence[CostRow]) -> None:
    """Print the table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    from rbkit.report.costs_page import share
    from rbkit.report.units import amount

    table = Table(box=None, pad_edge=False)
    table.add_column("mixer", no_wrap=True)
    for name in ("modelled", "for rbkit", "counted", "measured", "peak", "K", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = (row.modelled, row.modelled_rbkit, row.counted, row.measured)
        peak = amount(row.peak_bytes, "B") if row.peak_bytes else "–"
        table.add_row(row.mixer, *map(share, shares), peak, str(row.round_steps), str(row.steps))
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(
        "In percent of plain training. modelled: the published algorithm; for rbkit: the signals "
        "that its trainer pays for; counted: FLOPs; measured: seconds on this machine; K: steps "
        "between two updates.", soft_wrap=True,
    )  # fmt: skip


def _percent(part: float, whole: float | None) -> float | None:
    return 100 * part / whole if whole else None
