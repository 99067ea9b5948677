"""``rbkit costs``: a short run of each rule, and an offline page of what each of them costs.

Each rule trains the same small model in its own run folder, so that a killed call continues where
it was. Overheads are in percent of plain training:

- *modelled*: the published algorithm, by the cost model of :mod:`rbkit.train.costs` at the run's
  own N, D_t, D_e, m, T and delta;
- *modelled for rbkit*: what rbkit's trainer pays for the signals that the rule needs;
- *counted*: FLOPs in the ledger of everything that is there for the rule, over those of ``step``;
- *measured*: seconds likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from rich.console import Console
from rich.table import Table

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import MIXERS, canonical_mixer, mixer_by_name
from rbkit.errors import InputError
from rbkit.files import check_folder, write_text
from rbkit.report.demo import SETTINGS
from rbkit.report.job import load_inputs, train_options
from rbkit.report.page.page import asset, environment
from rbkit.report.page.pictures import picture, swatch
from rbkit.report.parameters import RunParameters
from rbkit.show.facts import NOT_ADAPTING, overhead, parameter
from rbkit.show.style import (
    MUTED,
    legend_above,
    mixer_colour,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    tidy,
)
from rbkit.text import UNKNOWN, amount, percent, say, thousands
from rbkit.train.costs import Budget, modelled_overhead
from rbkit.train.models import PRESETS, load_tokenizer, tokenize, train_tokenizer
from rbkit.train.propose.runs import train_once
from rbkit.train.run import Run, list_runs

_GRADIENTS = {"target_gradient", "domain_gradients"}
_STEPS = 100


@dataclass(frozen=True)
class Setup:
    """How long, and with which options, a rule is run.

    >>> str(Setup("Aioli", {"lp_steps": 1}, 100, 25))
    '100 steps, K = 25, lp_steps = 1'
    """

    mixer: str
    options: dict[str, Any]
    steps: int
    round_steps: int

    def __str__(self) -> str:
        """Write the settings in a few words."""
        options = [f"{name} = {value}" for name, value in self.options.items()]
        return ", ".join([f"{self.steps} steps", f"K = {self.round_steps}", *options])

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
    out: str | Path = "reports/costs",
    *,
    overrides: Mapping[str, Any] | None = None,
    mixers: Sequence[str] | None = None,
    progress: bool = True,
) -> list[CostRow]:
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
        Report progress on stderr.

    Returns
    -------
    list of CostRow
        Cheapest first, by counted FLOPs.

    Raises
    ------
    InputError
        If a parameter, a name or the corpus is at fault, or `out` holds other runs.
    """
    out, given = Path(out), dict(overrides or {})
    check_folder("out", out)
    base = {**SETTINGS, "steps": _STEPS}
    if given.get("corpus", base["corpus"]) != base["corpus"]:  # the demo's target is of its sources
        base |= {"eval_sources": None, "eval_size": None}
    params = RunParameters.from_mapping({**base, **given}).resolved()
    setups = [setup(canonical_mixer(name), params) for name in mixers or runnable()]
    corpus, domains = load_inputs(params, progress=progress)
    mine = ("run_dir", "mixer", "resume", "overwrite", "record")
    options = {k: v for k, v in train_options(params).items() if k not in mine}
    options |= {"eval_rounds": 10**9, "save_model": False}
    d_e = eval_tokens(corpus, params)
    rows = []
    for number, each in enumerate(setups, 1):
        if progress:
            say(f"{number} of {len(setups)}: {each.mixer}, {each}")
        options |= {"steps": each.steps, "round_steps": each.round_steps}
        run = train_once(corpus, domains, out / "runs" / each.mixer, each.rule(), options)
        rows.append(cost_row(run, each, d_e))
    rows.sort(key=lambda row: (row.counted or 0.0, row.measured or 0.0))
    write_text(out / "costs.csv", pd.DataFrame(rows).to_csv(index=False))
    write_page(rows, list_runs(out / "runs"), out / "index.html")
    return rows


def runnable() -> list[str]:
    """Return the names of the mixers that need no options, which leaves out ``Fixed``."""
    names = []
    for name in MIXERS:
        with suppress(InputError):
            mixer_by_name(name)
            names.append(name)
    return names


def setup(name: str, params: RunParameters) -> Setup:
    """Choose how a rule is run: what is published for thousands of steps, scaled to a short run.

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
        options = {
            "start_steps": half // 2,
            "ignore_steps": half // 2,
            "refit_steps": half,
            "every": max(1, steps // 50),
        }
    return Setup(name, options, steps, round_steps)


def eval_tokens(corpus: Any, params: RunParameters) -> int:
    """Count the tokens of the eval set, D_e."""
    if params.model in PRESETS:
        tokenizer = train_tokenizer(
            list(corpus["train"]["text"]), params.vocab_size, progress=False
        )
    else:
        tokenizer = load_tokenizer(params.model)
    rows = tokenize(corpus["eval"]["text"], tokenizer, params.context)["input_ids"]
    return sum(len(row) for row in rows)


def cost_row(run: Run, one: Setup, d_e: int) -> CostRow:
    """Return the prices of one finished run, with D_e tokens in its eval set."""
    entries = {entry["name"]: dict(entry) for entry in run.info["ledger"]["entries"]}
    step, rule, price = entries["step"], one.rule(), overhead(run)
    extra = [entry for name, entry in entries.items() if name not in NOT_ADAPTING]
    sizes = np.asarray(run.info["domains"]["sizes"])
    last = run.metrics("train")[-1]
    unit = "tokens" if "tokens" in last else "examples"
    if unit == "examples":
        d_e = sum(run.info["domains"]["eval_sizes"])
    # Two half-rounds of float32 for each domain.
    tracked = (entries.get("track", {}).get("bytes") or 0) / (8 * len(sizes))
    budget = Budget(
        params=run.info["model"]["parameters"],
        train_tokens=last[unit],
        domains=int((sizes > 0).sum()),
        eval_tokens=d_e,
        rounds=-(-one.steps // one.round_steps),
        delta=one.options.get("graph_steps", 1) / one.steps,  # a probe; else one batch
        tracked=tracked or None,
    )
    # Where a rule divides its rounds, as Aioli does, the trainer has more of them to pay for.
    in_rbkit = replace(budget, rounds=len(run.history["step"]))
    return CostRow(
        mixer=one.mixer,
        settings=str(one),
        signals=", ".join(sorted(rule.signals)) or "none",
        modelled=100 * modelled_overhead(rule, budget),
        modelled_rbkit=100 * modelled_overhead(rule, in_rbkit, "rbkit"),
        counted=price.flops,
        measured=price.seconds,
        peak_bytes=int(max((entry["bytes"] or 0 for entry in extra), default=0)),
        step_ms=1000 * step["seconds"] / max(step["calls"], 1),
        steps=one.steps,
        round_steps=one.round_steps,
    )


def print_table(rows: Sequence[CostRow]) -> None:
    """Print the table on the terminal."""
    table = Table(box=None, pad_edge=False)
    table.add_column("mixer", no_wrap=True)
    for name in ("modelled", "for rbkit", "counted", "measured", "peak", "K", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = (row.modelled, row.modelled_rbkit, row.counted, row.measured)
        peak = amount(row.peak_bytes, "B") if row.peak_bytes else UNKNOWN
        table.add_row(row.mixer, *map(share, shares), peak, str(row.round_steps), str(row.steps))
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(
        "In percent of plain training. modelled: the published algorithm; for rbkit: the signals "
        "that its trainer pays for; counted: FLOPs; measured: seconds on this machine; K: steps "
        "between two updates.",
        soft_wrap=True,
    )


# Bars in their order: name, and a colour and hatch that differ without colour, too.
_KINDS = {
    "modelled": ("modelled, published rule", "#c9d3dd", "///"),
    "counted": ("counted FLOPs", "#0072B2", ""),
    "measured": ("measured seconds", "#D55E00", ""),
}


def overhead_bars(rows: Sequence[CostRow], ax: Axes | None = None) -> Axes:
    """Draw modelled, counted and measured overhead of each mixer on a logarithmic axis."""
    with rbkit_style():
        ax = new_axes(ax, 8.2, 1.2 + 0.52 * max(len(rows), 3))
        values = {kind: np.array([getattr(row, kind) or 0.0 for row in rows]) for kind in _KINDS}
        positive = np.concatenate(list(values.values()))
        positive = positive[positive > 0]
        low = 10.0 ** np.floor(np.log10(0.6 * positive.min())) if positive.size else 0.1
        low = max(low, 1e-3)  # what costs less has a number and no bar
        for i, (kind, (label, colour, hatch)) in enumerate(_KINDS.items()):
            at = np.arange(len(rows)) + (i - 1) * 0.27
            shown = np.maximum(values[kind], low)
            ax.barh(
                at,
                shown - low,
                0.24,
                left=low,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                lw=0,
                label=label,
            )
            for y, end, row in zip(at, shown, rows, strict=True):
                ax.annotate(
                    share(getattr(row, kind)),
                    (end, y),
                    (3, 0),
                    va="center",
                    fontsize=7,
                    textcoords="offset points",
                    color=MUTED,
                )
        ax.set_xscale("log")
        ax.set_xlim(low, max(float(positive.max(initial=1.0)) * 6, low * 10))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} %"))
        ax.minorticks_off()
        tidy(ax, "x")
        plain_ticks(ax.yaxis, [row.mixer for row in rows])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlabel("overhead over plain training (logarithmic)")
        ax.set_title("What each rule costs")
        legend_above(ax)
        each = "; ".join(
            f"{row.mixer} {share(row.counted)} counted, {share(row.measured)} measured"
            for row in rows
        )
        set_alt(ax, f"Overhead of each rule over plain training: {each}.")
    return ax


def write_page(rows: Sequence[CostRow], runs: Sequence[Run], out: str | Path) -> Path:
    """Write the offline page of a table of costs; the first of `runs` gives the setting."""
    templates = environment()
    templates.filters["share"] = share
    page = templates.get_template("costs.html.j2").render(
        css=asset("page.css"),
        rows=[{**vars(row), "swatch": swatch(mixer_colour(row.mixer))} for row in rows],
        figure=picture(overhead_bars(rows)),
        facts=_facts(runs[0]) if runs else [],
        headline=headline(rows),
        note=(runs[0].info.get("ledger") or {}).get("note", "") if runs else "",
    )
    write_text(out, page)
    return Path(out)


def headline(rows: Sequence[CostRow]) -> str:
    """Write in a sentence what the rules cost."""
    paying = [row for row in rows if row.counted]
    if not paying:
        return "No rule of these needs a pass beyond training."
    first, last = paying[0], paying[-1]
    return (
        f"{len(rows) - len(paying)} of {len(rows)} rules need no pass beyond training. "
        f"Of the others, {first.mixer} adds least ({share(first.counted)} of the FLOPs) "
        f"and {last.mixer} most ({share(last.counted)})."
    )


def share(value: float | None) -> str:
    """Write a percentage with three digits at most; one that nobody would notice as such.

    >>> share(0.2241), share(800.0), share(1e-5), share(None)
    ('0.22 %', '800 %', '< 0.01 %', '–')
    """
    if value is not None and 0 < value < 0.01:
        return "< 0.01 %"
    return percent(value) if value is None or value < 100 else f"{value:,.0f} %"


def _facts(run: Run) -> list[tuple[str, str]]:
    corpus, model = run.info.get("corpus") or {}, run.info.get("model") or {}
    entries = {e["name"]: e for e in (run.info.get("ledger") or {}).get("entries", [])}
    regroup = sum(entries[name]["seconds"] for name in ("embed", "cluster") if name in entries)
    rows: list[tuple[str, Any]] = [
        ("corpus", corpus.get("name")),
        ("domains", len((run.info.get("domains") or {}).get("names") or [])),
        ("model", f"{model.get('name')}, {thousands(model.get('parameters'))} parameters"),
        ("examples per step", parameter(run, "batch_size")),
        ("device", run.info.get("device")),
        ("Regroup, once", f"{regroup:.1f} s"),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]
