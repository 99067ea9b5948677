"""The content of the page's tables, lists and notes."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rbkit.errors import InputError
from rbkit.report.compare.paired import Difference, Reach, final_loss
from rbkit.report.compare.variants import (
    Comparison,
    Variant,
    comparable,
    is_finished,
    paired_values,
    sort_key,
)
from rbkit.report.page.pictures import bar, names_of, side_by_side, sparkline, swatch, thumbnail
from rbkit.report.parameters import RunParameters
from rbkit.show.facts import (
    Array,
    Measure,
    domain_names,
    finite,
    loss_series,
    losses,
    measure_of,
    metric_names,
    mixer_of,
    overhead,
    parameter,
    spent,
)
from rbkit.show.figures.costs import cost_table
from rbkit.show.figures.domains import top_sources
from rbkit.show.gram_layout import common_scale, domain_order, extremes, short_ids, to_cosine
from rbkit.show.style import mixer_colour
from rbkit.text import UNKNOWN, amount, number, thousands, truncate, value_text, visible
from rbkit.train.run import Run

FAILED = ("failed", "killed", "timeout", "interrupted", "damaged")
WAITING = ("running", "queued")


# ------------------------------------------------------------------------- the table of runs


def run_rows(comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    """One dict per run, the best final eval loss or metric first, then those without one.

    ``gap`` is the difference to the run of the baseline with the same seed; a run that has not
    finished, or that a later one repeated, has none. ``token`` and ``worst`` are final losses;
    how far an unfinished run came is in ``so_far``. Links are relative to `folder`.
    """
    runs, measure = comparison.runs, comparison.measure
    metrics = metric_names(runs)
    names = run_names(comparison)
    repeated = {id(run) for run in comparison.repeated}
    gaps: dict[int, float] = {}
    for variant in comparison.variants:
        base = comparison.baseline_of(variant)
        if base is not None and base is not variant:
            for run, _, gap in paired_values(variant.runs, base.runs, measure.final):
                gaps[id(run)] = gap
    curves = _sparklines(runs, names)
    rows = []
    for run, name, curve, gram in zip(runs, names, curves, _thumbnails(runs, names), strict=True):
        final, price, paid = losses(run), overhead(run), spent(run, "seconds")
        finished, domains, mixer = is_finished(run, measure), domain_names(run), mixer_of(run)
        worst = final.worst if finished else None
        variant = comparison.variant_of(run)
        rows.append(
            {
                "name": name,
                "mixer": mixer,
                "swatch": swatch(mixer_colour(mixer)),
                "status": run.status,
                "status_class": run.status if run.status in ("ok", *WAITING, *FAILED) else "other",
                "values": [_cell(comparison.setting(run, p)) for p in columns(comparison)],
                "seed": _cell(parameter(run, "seed")),
                "token": final.token if finished else None,
                "so_far": "" if finished else _so_far(run),
                "metrics": [Measure(m).final(run) if finished else None for m in metrics],
                "rank": measure.cost(measure.final(run) if finished else None),
                "repeated": id(run) in repeated,
                "gap": gaps.get(id(run)),
                "is_baseline": finished
                and id(run) not in repeated
                and comparison.is_baseline(variant),
                "worst": None if worst is None else float(final.by_domain[worst]),
                "worst_name": domains[worst] if worst is not None and worst < len(domains) else "",
                "seconds": None if paid is None else paid.total,
                "overhead_flops": price.flops,
                "overhead_seconds": price.seconds,
                "spark": curve,
                "gram": gram,
                "links": links(run.path, folder),
            }
        )

    def best_first(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row["status"] != "ok", row["rank"], row["repeated"], row["name"])

    return sorted(rows, key=best_first)


def columns(comparison: Comparison) -> list[str]:
    """Return the parameters that get a column: what varied, less the mixer, which has its own."""
    return [name for name in comparison.varied if name != "mixer"]


def run_names(comparison: Comparison) -> list[str]:
    """Call each run by its variant, and by its seed or its folder only where that is needed."""
    runs = comparison.runs
    names = [comparison.variant_of(run).label for run in runs]
    seeds = [f"seed {value_text(parameter(run, 'seed'))}" for run in runs]
    for extras in (seeds, [run.path.name for run in runs]):
        count = Counter(names)
        names = [
            f"{name}, {extra}" if count[name] > 1 else name
            for name, extra in zip(names, extras, strict=True)
        ]
    return names


def links(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Return (text, address) of the report and the notebook of a run, where there are any.

    Addresses are relative and quoted, the colon too: a folder called "javascript:x" is still a
    folder.
    """
    made = []
    for name, text in (("run.html", "report"), ("run.ipynb", "notebook")):
        if (path / name).is_file():
            relative = Path(os.path.relpath((path / name).resolve(), folder)).as_posix()
            made.append((text, quote(os.fsencode(relative))))
    return made


def _cell(value: Any) -> dict[str, Any]:
    """Return a value as text and as what it is sorted by."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = value_text(value)
    return {"text": text, "sort": value if is_number else text, "number": is_number}


def _so_far(run: Run) -> str:
    """Return where a run that has not finished was at its last evaluation."""
    steps, values = loss_series(run, "eval")
    return f"{number(values[-1])} at step {int(steps[-1]):,}" if len(steps) else ""


def _sparklines(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Draw the eval curve of each run, on common scales; empty where there is none."""
    curves = [loss_series(run, "eval") for run in runs]
    evaluated = [(steps, values) for steps, values in curves if len(steps)]
    if not evaluated:
        return [""] * len(runs)
    last = max(float(steps[-1]) for steps, _ in evaluated)
    low = min(float(values.min()) for _, values in evaluated)
    # The first loss, of an untrained model, would press all curves to the floor.
    high = float(np.median([values[min(1, len(values) - 1)] for _, values in evaluated]))
    high = max(high, float(np.median([values[-1] for _, values in evaluated])) + 1e-6)
    high += 0.15 * (high - low)
    drawn = []
    for run, name, (steps, values) in zip(runs, names, curves, strict=True):
        ends = (number(values[0], 2), number(values[-1])) if len(values) else ("", "")
        drawn.append(
            sparkline(
                steps.tolist(),
                values.tolist(),
                last_step=last,
                low=low,
                high=high,
                colour=mixer_colour(mixer_of(run)),
                title=f"eval loss of {name}: {ends[0]} to {ends[1]}",
            )
        )
    return drawn


def _thumbnails(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, str] | None]:
    """Draw the last Gram matrix of each run: one scale for all, one order for the same domains."""
    last: list[Array | None] = []
    for run in runs:
        grams = np.asarray(run.history.get("gram", []))
        last.append(to_cosine(grams[-1]) if grams.ndim == 3 and grams.size else None)
    scale = max((common_scale(G) for G in last if G is not None), default=1.0)
    orders: dict[tuple[Any, ...], Any] = {}
    drawn: list[dict[str, str] | None] = []
    for run, name, G in zip(runs, names, last, strict=True):
        if G is None:
            drawn.append(None)
            continue
        key = (*domain_names(run), len(G))
        if key not in orders:
            orders[key] = domain_order(run.history)
        image = thumbnail(G[np.ix_(orders[key], orders[key])], scale)
        alt = f"Last Gram matrix of {name}: {extremes(G, short_ids(names_of(run)))}"
        drawn.append({"src": image, "alt": alt})
    return drawn


# --------------------------------------------------------------------- the table of variants


def variant_rows(
    comparison: Comparison,
    gaps: Mapping[str, Difference | None],
    reaches: Mapping[str, Reach | None],
) -> list[dict[str, Any]]:
    """One dict per variant, the best mean final loss or metric first, those without a run last.

    Means are over the seeds that all variants have; variants on other corpora stand below.
    `gaps` and `reaches` are by the label of the variant.
    """
    means = comparable(comparison)
    by_metric = [
        comparable(replace(comparison, measure=measure_of(comparison.runs, name)))
        for name in metric_names(comparison.runs)
    ]
    by_loss = comparable(replace(comparison, measure=measure_of(comparison.runs)))
    left_out = {variant.label for variant in means.left_out}
    even = {variant.label: variant.runs for variant in means.variants}
    rows = []
    for variant in (*comparison.variants, *comparison.lost):
        gap, reach = gaps.get(variant.label), reaches.get(variant.label)
        # Where losses are means over the seeds that all have, so are all other means.
        runs = even.get(variant.label, variant.runs)
        prices = [overhead(run) for run in runs]
        paid = [spent(run, "seconds") for run in runs]
        known = gap is not None and gap.low is not None and gap.high is not None
        rows.append(
            {
                "name": variant.label,
                "swatch": swatch(mixer_colour(variant.mixer)),
                "seeds": len(variant.runs),
                "missing": len(variant.unfinished),
                "token": by_loss.value(variant) if variant.runs else None,
                "metrics": [of.value(variant) if variant.runs else None for of in by_metric],
                "rank": means.cost(variant) if variant.runs else math.inf,
                "is_baseline": bool(variant.runs) and comparison.is_baseline(variant),
                "gap": gap and gap.mean,
                "interval": f"{number(gap.low)} to {number(gap.high)}"
                if gap and known
                else UNKNOWN,
                "verdict": ("better" if gap.is_better else "worse")
                if gap and gap.told_apart
                else "",
                "worst": _mean(final_loss(run, "worst") for run in runs),
                "seconds": _mean(each and each.total for each in paid),
                "overhead_flops": _mean(price.flops for price in prices),
                "overhead_seconds": _mean(price.seconds for price in prices),
                **_steps(reach),
                "flops": reach and reach.flops and reach.flops.mean,
            }
        )
    return sorted(
        rows,
        key=lambda r: (math.isinf(r["rank"]), r["name"] in left_out, r["rank"], r["name"]),
    )


def _steps(reach: Reach | None) -> dict[str, Any]:
    """Return steps to the baseline's final loss as a ratio, its text, and a note on the pairs."""
    if reach is None:
        return {"steps": None, "steps_shown": UNKNOWN, "steps_note": ""}
    note = f"in {reach.reached} of {reach.pairs}" if reach.reached < reach.pairs else ""
    if reach.steps is None:
        return {"steps": None, "steps_shown": "never", "steps_note": note}
    low, high = reach.steps.low, reach.steps.high
    if not note and low is not None:
        note = f"{number(low, 2)} to {number(high, 2)}"
    mean = reach.steps.mean
    return {"steps": mean, "steps_shown": number(mean, 2), "steps_note": note}


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return float(np.mean(known)) if known else None


# ------------------------------------------------------------------- ledgers and domain cards

_RUNS = 6  # ledgers shown one by one
_LEDGER_NUMBERS = ("seconds", "flops_counted", "flops_modelled", "bytes", "calls")
_SHARE = 0.72  # of the room, so that a number fits behind the longest bar
_TEXT = 600  # characters of an example; the whole of it may be a book


def ledger_rows(comparison: Comparison) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of :func:`cost_table`, and whether they are means over variants."""
    few = len(comparison.runs) <= _RUNS
    if few or all(len(variant.runs) <= 1 for variant in comparison.variants):
        return cost_table(list(comparison.runs)), False
    rows: list[dict[str, Any]] = []
    for variant in comparison.variants:
        entries: dict[str, list[dict[str, Any]]] = {}
        for run in variant.runs:
            for row in cost_table([run]):
                entries.setdefault(row["name"], []).append(row)
        for same in entries.values():
            numbers = (*_LEDGER_NUMBERS, "seconds_share", "flops_share")
            mean = {column: _mean(row[column] for row in same) for column in numbers}
            calls = None if mean["calls"] is None else round(mean["calls"])
            rows.append(same[0] | mean | {"run": variant.label, "calls": calls})
    return rows, True


def card_rows(domains: Any) -> list[dict[str, Any]]:
    """One dict per card of `domains`, the most wanted by the eval set first."""
    if domains is None or not domains.cards:
        return []
    sizes = np.asarray(domains.sizes, dtype=np.float64)
    share, q = sizes / max(sizes.sum(), 1.0), np.asarray(domains.q, dtype=np.float64)
    top = max(float(share.max(initial=0)), float(q.max(initial=0)), 1e-9)

    # Of a stranger's file, nothing is certain but that it is JSON.
    def texts(given: Any) -> list[str]:
        return [str(text) for text in given] if isinstance(given, list | tuple) else []

    def shares(given: Any) -> dict[str, float]:
        return {
            str(name): float(share)
            for name, share in (given.items() if isinstance(given, dict) else ())
            if isinstance(share, int | float) and 0 <= share < 1e12
        }

    cards = [
        {
            "name": card.name,
            "size": int(sizes[i]),
            "terms": texts(card.terms)[:10],
            "nearest": [truncate(text, _TEXT) for text in texts(card.nearest)[:3]],
            "sources": top_sources(shares(card.sources)),
            "share": float(share[i]),
            "q": float(q[i]),
            "share_bar": bar(_SHARE * float(share[i]) / top, "share"),
            "q_bar": bar(_SHARE * float(q[i]) / top, "want"),
        }
        for i, card in enumerate(domains.cards)
    ]
    return sorted(cards, key=lambda card: -card["q"])


# ------------------------------------------------------------------------------- failures

_MOST_LINES, _LINE = 30, 400  # of an error, and characters of each

# For a run that could not record anything itself.
_UNEXPLAINED = {
    "killed": "the process ended without a word: killed from outside, or out of memory",
    "timeout": "a cell took longer than it was given",
    "interrupted": "stopped by hand; it can be resumed",
    "failed": "no error was recorded",
    "damaged": "its files cannot be read",
}


def failures(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """One dict per way in which runs ended badly, the most frequent first.

    Each has ``status, cell, headline`` and ``runs``: of each run that ended so its name on the
    page, ``progress``, ``attempts`` and ``tail`` (the last lines, empty if the run before had
    the same).
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run, name in zip(runs, names, strict=True):
        if run.status not in FAILED:
            continue
        error = str(run.job.get("error") or run.info.get("error") or "")
        lines = [line for line in visible(error).split("\n") if line.strip()]
        headline = truncate(lines[0] if lines else _UNEXPLAINED[run.status], _LINE)
        tail = [visible(str(line)) for line in run.job.get("tail") or []] or lines[1:]
        key = (run.status, visible(str(run.job.get("cell") or "")), headline)
        groups.setdefault(key, []).append(
            {
                "name": name,
                "progress": _progress(run),
                "attempts": run.job.get("attempts") or 1,
                "tail": "\n".join(truncate(line, _LINE) for line in tail[-_MOST_LINES:]),
            }
        )
    rows = []
    for (status, cell, headline), group in sorted(
        groups.items(), key=lambda item: (-len(item[1]), item[0])
    ):
        before = ""
        group.sort(key=lambda member: str(member["name"]))
        for member in group:
            same = member["tail"] == before
            before, member["tail"] = member["tail"], "" if same else member["tail"]
        rows.append({"status": status, "cell": cell, "headline": headline, "runs": group})
    return rows


def _progress(run: Run) -> str:
    progress = run.info.get("progress") or {}
    step, steps = progress.get("step"), progress.get("steps")
    if not step:
        return ""
    return f"step {step} of {steps}" if steps else f"step {step}"


def unfinished(runs: Sequence[Run]) -> str:
    """State how many runs have not ended; empty if all have."""
    counts = {status: sum(run.status == status for run in runs) for status in WAITING}
    parts = [
        f"{count} {'is' if count == 1 else 'are'} {status}"
        for status, count in counts.items()
        if count
    ]
    if not parts:
        return ""
    return f"This page is not final: of {len(runs)} runs {' and '.join(parts)}."


# ----------------------------------------------------------------------- how to repeat it

# Arguments of rbkit.train that its record holds under the same name.
_OF_TRAIN = ["model", "steps", "round_steps", "accumulate", "context", "learning_rate"]
_OF_TRAIN += ["estimator", "fraction", "seed", "trainable_layers", "training_args"]
_OF_TRAIN += ["completion_only_loss"]


def command_of(run: Run) -> str:
    """Return what repeats a run: a command line, or Python if it was trained from Python.

    Of a run of a sweep it is the command that the launcher wrote down. A run that was made
    by hand is repeated from its recorded parameters, into a folder of its own.
    """
    return str(run.job.get("command") or _command_line(run) or _python(run))


def _command_line(run: Run) -> str | None:
    recorded = run.info.get("parameters") or {}
    if not {"corpus", "embedder", "mixer"} <= recorded.keys():
        return None
    default = RunParameters().to_dict()
    names = [
        f.name for f in fields(RunParameters) if f.name not in ("run_dir", "resume", "overwrite")
    ]
    given = {name: recorded[name] for name in names if name in recorded}
    if recorded.get("micro_batch_size"):
        given["batch_size"] = recorded["micro_batch_size"]
    try:
        RunParameters.from_mapping(given)
    except InputError:
        return None  # made by another version, or by somebody else
    parts = ["rbkit", "run", "--out", f"{run.path.name}-again"]
    for name, value in given.items():
        if value != default[name] or name in ("mixer", "seed"):
            parts += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(parts)


def _python(run: Run) -> str:
    recorded = run.info.get("parameters") or {}
    corpus = run.info.get("corpus") or {}
    name = corpus.get("name")
    if "mixer" not in recorded or "steps" not in recorded:
        return "parameters = " + json.dumps(recorded, ensure_ascii=True, sort_keys=True)
    given = {name: recorded[name] for name in _OF_TRAIN if recorded.get(name) is not None}
    if batch_size := recorded.get("micro_batch_size") or recorded.get("batch_size"):
        given["batch_size"] = batch_size
    arguments = {name: ascii(value) for name, value in given.items()}
    options = recorded.get("mixer_options") or {}
    arguments["mixer"] = f"mixer_by_name({recorded['mixer']!a}, {options!a})"
    arguments["run_dir"] = ascii(f"{run.path.name}-again")
    kind = (run.info.get("model") or {}).get("class")
    as_object = kind is not None and str(recorded.get("model")).split("(")[0] == kind
    if as_object:
        arguments |= {"model": "model", "tokenizer": "tokenizer"}
    load = f"corpus = rb.load_corpus({name!a})"
    if corpus.get("in_memory") or name in (None, "unnamed"):
        load = f"# the data was in memory ({name!a}): there, corpus.save_to_disk('corpus')\n"
        load += "corpus = rb.load_corpus('corpus')"
    lines = [
        "import rbkit as rb",
        "from rbkit.balance.mixers import mixer_by_name",
        load,
        f"domains = rb.Domains.load({str(run.path / 'domains')!a})",
        *([f"model, tokenizer = ...  # objects: {recorded['model']!a}"] if as_object else []),
        f"rb.train(corpus, domains, {', '.join(f'{k}={v}' for k, v in arguments.items())})",
    ]
    return "\n".join(lines)


def sweep_commands(sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands that made the sweeps, each once and in their order."""
    calls = [call for sweep in sweeps for call in (*(sweep.get("calls") or []), sweep)]
    commands = [call.get("command") for call in calls if isinstance(call, dict)]
    return list(dict.fromkeys(str(command) for command in commands if command))


def environment_rows(
    runs: Sequence[Run], sweeps: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Any]]:
    """Return (name, value) of all that a result may depend on apart from its parameters."""
    sweep: Mapping[str, Any] = sweeps[0] if sweeps else {}
    info = next((run.info for run in runs if run.info.get("versions")), {})
    versions = {**(sweep.get("versions") or {}), **(info.get("versions") or {})}
    if sweep.get("rbkit"):
        versions.setdefault("rbkit", sweep["rbkit"])
    machine = sweep.get("machine")
    git = sweep.get("git") or info.get("git")
    if isinstance(git, dict):
        git = f"{git.get('commit')}{', with changes' if git.get('changed') else ''}"
    hosts, devices, started = (
        sorted({str(run.info[name]) for run in runs if run.info.get(name)})
        for name in ("host", "device", "started")
    )
    corpus, model = info.get("corpus") or {}, info.get("model") or {}
    rows = [
        *versions.items(),
        *(
            (name.replace("_", " "), value_text(value))
            for name, value in (machine.items() if isinstance(machine, dict) else ())
            if value
        ),
        ("git commit", value_text(git) if git else None),
        ("template", value_text(sweep["template"]) if sweep.get("template") else None),
        ("device" if len(devices) == 1 else "devices", ", ".join(devices)),
        ("machines", f"{len(hosts)}" if len(hosts) > 1 else None),
        ("model parameters", amount(model.get("parameters"))),
        ("first run started", started[0][:19].replace("T", " ") if started else None),
        ("corpus fingerprint", corpus.get("fingerprint")),
        ("duplicates across train and eval", corpus.get("duplicates")),
    ]
    return [(name, value) for name, value in rows if value not in (None, "", UNKNOWN)]


# ----------------------------------------------------------------- facts and notes in words

_VALUES = 4  # shown of what makes no variants


def facts(comparison: Comparison, subject: Run) -> list[tuple[str, str]]:
    """Return (name, value) of what the runs have in common, in a line under the title."""
    corpus, shared = subject.info.get("corpus") or {}, comparison.shared
    recorded = (parameter(run, "seed") for run in comparison.runs)
    by_text = {value_text(seed): seed for seed in recorded if seed is not None}
    seeds = sorted(by_text.values(), key=sort_key)
    many = len(seeds) > 6 and all(isinstance(seed, int) for seed in seeds)
    recorded = (run.info.get("device") for run in comparison.runs)
    devices = sorted({value_text(device) for device in recorded if device is not None})
    steps, every = shared.get("steps"), shared.get("round_steps")
    rows = [
        ("corpus", corpus.get("name")),
        ("train examples", thousands(corpus.get("n_train"))),
        ("eval examples", thousands(corpus.get("n_eval"))),
        ("domains", len(domain_names(subject)) or None),
        ("model", shared.get("model")),
        ("steps", f"{steps:,} in rounds of {every}" if isinstance(steps, int) and every else steps),
        ("runs", len(comparison.runs)),
        ("variants", len(comparison.variants) if len(comparison.variants) > 1 else None),
        (
            "seed" if len(seeds) == 1 else "seeds",
            f"{len(seeds)}: {seeds[0]} to {seeds[-1]}"
            if many
            else ", ".join(map(value_text, seeds)),
        ),
        ("devices" if len(devices) > 1 else "device", ", ".join(devices)),
    ]
    absent = (None, "", "none", UNKNOWN)
    return [(name, value_text(value)) for name, value in rows if value not in absent]


def varied_values(comparison: Comparison) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each parameter that varies, with its values and the number of runs of each."""
    seeds = {value_text(parameter(run, "seed")) for run in comparison.runs}
    names = [*comparison.varied, *(["seed"] if len(seeds) > 1 else [])]
    return [(name, _values(comparison, name)) for name in names]


def incidental_values(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what else was not the same in all runs, each with its values in words."""
    rows = []
    for name in comparison.incidental:
        values = [text for text, _ in _values(comparison, name)]
        more = f" and {len(values) - _VALUES} more" if len(values) > _VALUES else ""
        rows.append((name, "; ".join(values[:_VALUES]) + more))
    return rows


def _values(comparison: Comparison, name: str) -> list[tuple[str, int]]:
    """Values of a setting as text, in order, with the number of runs of each."""
    values = [comparison.setting(run, name) for run in comparison.runs]
    counts = Counter(map(value_text, values))
    by_text = {value_text(value): value for value in values}
    return sorted(counts.items(), key=lambda item: sort_key(by_text[item[0]]))


def by_domain_note(comparison: Comparison) -> str:
    """State which variants, and how many of their seeds, the losses by domain are of."""
    shown: list[Variant] = side_by_side(comparison, len(comparison.variants))
    if not shown:
        return ""
    held = [
        f"{name} {value_text(value)}"
        for name, value in shown[0].values.items()
        if name not in ("mixer", "mixer_options")
    ]
    n, of = len(shown[0].runs), max(len(variant.runs) for variant in comparison.variants)
    if n == of:
        parts = [] if of == 1 else [f"means over {n} seeds"]
    elif n == 1:
        seed = value_text(parameter(shown[0].runs[0], "seed"))
        parts = [f"seed {seed} alone, which all have with the same domains"]
    else:
        parts = [f"means over {n} of {of} seeds, those that all have with the same domains"]
    parts += [f"at {', '.join(held)}"] if held else []
    text = ", ".join(parts)
    text = f"{text[0].upper()}{text[1:]}." if text else ""
    outside = [(v.label, [x for x in map(final_outside, v.runs) if x is not None]) for v in shown]
    means = [f"{name} {np.mean(each):.4f}" for name, each in outside if each]
    if means:  # in no domain, so in no row of the figure
        text += f" Outside all domains, in the overall loss alone: {', '.join(means)}."
    return text.strip()


def final_outside(run: Run) -> float | None:
    """Return the final loss per token of eval examples that count without a domain, if any."""
    return finite((run.info.get("final") or {}).get("outside_token"))


def left_out_note(comparison: Comparison) -> str:
    """State which variants are not in figures of losses, and why."""
    names = [variant.label for variant in comparable(comparison).left_out]
    return f"Left out, as it is on another corpus: {', '.join(names)}." if names else ""


def licences(given: Any) -> list[dict[str, str]]:
    """Return the licences of a corpus, whatever was recorded as such."""
    rows = []
    for item in given or []:
        if isinstance(item, dict):
            names = ("asset", "licence", "attribution", "url")
            row = {name: str(item.get(name) or "") for name in names}
            row["url"] = row["url"].replace("https://", "").replace("http://", "")
            rows.append(row)
    return rows
