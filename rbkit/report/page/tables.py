"""The table of runs: one row each, what varied as columns, numbers, a curve, a thumbnail."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rbkit.errors import InputError
from rbkit.report.compare.paired import Difference, Level, Reach, final_loss, level
from rbkit.report.compare.variants import Comparison, Variant, is_finished, order
from rbkit.report.compare.words import LOWEST, headline
from rbkit.report.html import seal
from rbkit.report.page.kept import Kept
from rbkit.report.page.pictures import bar, names_of, side_by_side, sparkline, swatch, thumbnail
from rbkit.show.facts import (
    domain_names,
    losses,
    mixer_of,
    overhead,
    pairs_by_seed,
    parameter,
    same_corpus,
    spent,
)
from rbkit.show.figures.costs import cost_table
from rbkit.show.figures.domains import top_sources
from rbkit.show.gram_layout import common_scale, domain_order, extremes, short_ids, to_cosine
from rbkit.show.style import mixer_colour
from rbkit.text import amount, number, thousands, value_text, visible

STATUSES = ("ok", "running", "queued", "failed", "killed", "timeout", "interrupted")


def run_rows(comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    """One dict per run, the lowest final eval loss first, then those without one.

    Parameters
    ----------
    comparison : Comparison
        Of runs that are :class:`~rbkit.report.page.kept.Kept`.
    folder : Path
        Where the page is: links are relative to it.

    Returns
    -------
    list of dict
        ``gap`` is the difference to the run of the baseline with the same seed; a run that
        has not finished, or that a later one repeated, has none. ``token`` and ``worst`` are
        final losses; how far an unfinished run came stands in ``so_far``.
    """
    runs: list[Any] = list(comparison.runs)
    names = run_names(comparison)
    variants: dict[int, Variant] = {
        id(run): variant
        for variant in (*comparison.variants, *comparison.lost)
        for run in (*variant.runs, *variant.unfinished, *variant.repeated)
    }
    repeated = {id(run) for run in comparison.repeated}
    gaps, scale, thumbnails = _gaps(comparison), _scale(runs), _Thumbnails(runs)
    rows = []
    for run, name in zip(runs, names, strict=True):
        variant = variants.get(id(run))
        final, price = losses(run), overhead(run)
        finished, paid = is_finished(run), spent(run, "seconds")
        worst = final.worst if finished else None
        domains = domain_names(run)
        mixer = mixer_of(run)
        rows.append(
            {
                "name": name,
                "mixer": mixer,
                "swatch": swatch(mixer_colour(mixer)),
                "status": run.status,
                "status_class": run.status if run.status in STATUSES else "other",
                "values": [cell(comparison.setting(run, p)) for p in columns(comparison)],
                "seed": cell(parameter(run, "seed")),
                "token": final.token if finished else None,
                "so_far": "" if finished else _so_far(run),
                "repeated": id(run) in repeated,
                "gap": gaps.get(id(run)),
                "is_baseline": finished
                and id(run) not in repeated
                and variant is not None
                and comparison.is_baseline(variant),
                "worst": None if worst is None else float(final.by_domain[worst]),
                "worst_name": domains[worst] if worst is not None and worst < len(domains) else "",
                "seconds": None if paid is None else paid.total,
                "overhead_flops": price.flops,
                "overhead_seconds": price.seconds,
                "spark": _spark(run, name, scale),
                "gram": thumbnails.of(run, name),
                "links": links(Path(run.path), folder),
            }
        )
    return sorted(
        rows,
        key=lambda r: (r["status"] != "ok", _or_infinite(r["token"]), r["repeated"], r["name"]),
    )


def columns(comparison: Comparison) -> list[str]:
    """Return the parameters that get a column: what varied, less the mixer, which has its own."""
    return [name for name in comparison.varied if name != "mixer"]


def run_names(comparison: Comparison) -> list[str]:
    """Call each run by its variant, and by its seed or its folder only where that is needed."""
    variants = {
        id(run): variant.label
        for variant in (*comparison.variants, *comparison.lost)
        for run in (*variant.runs, *variant.unfinished, *variant.repeated)
    }
    names = [variants.get(id(run), mixer_of(run)) for run in comparison.runs]
    for extra in (lambda r: f"seed {value_text(parameter(r, 'seed'))}", lambda r: r.path.name):
        count = {name: names.count(name) for name in set(names)}
        names = [
            f"{name}, {extra(run)}" if count[name] > 1 else name
            for name, run in zip(names, comparison.runs, strict=True)
        ]
    return names


def links(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Return (text, address) of the report and the notebook of a run, where there are any.

    Addresses are relative and quoted, so that a folder's name cannot be one of its own.
    """
    found = []
    for name, text in (("run.html", "report"), ("run.ipynb", "notebook")):
        if (path / name).is_file():
            relative = Path(os.path.relpath((path / name).resolve(), folder)).as_posix()
            # Quoted, the colon too: a folder called "javascript:x" is still a folder.
            found.append((text, quote(os.fsencode(relative))))
    return found


def cell(what: Any) -> dict[str, Any]:
    """Return a value as text and as what it is sorted by."""
    number_ = isinstance(what, int | float) and not isinstance(what, bool)
    return {
        "text": value_text(what),
        "sort": what if number_ else value_text(what),
        "number": number_,
    }


def _gaps(comparison: Comparison) -> dict[int, float]:
    """Difference of each run from the baseline's run of its seed, by the id of the run."""
    found = {}
    for variant in comparison.variants:
        base = comparison.baseline_of(variant)
        if base is None or base is variant:
            continue
        for run, other in pairs_by_seed(variant.runs, base.runs):
            ours, theirs = losses(run).token, losses(other).token
            if same_corpus(run, other) and ours is not None and theirs is not None:
                found[id(run)] = ours - theirs
    return found


def _so_far(run: Any) -> str:
    """Say where a run that has not finished stood at its last evaluation."""
    curve = evaluated(run)
    return f"{number(curve[-1, 1])} at step {int(curve[-1, 0]):,}" if len(curve) else ""


def _scale(runs: Sequence[Any]) -> tuple[float, float, float]:
    """Return the last step, and the loss at the lower and upper edge of all curves."""
    curves = [curve for run in runs if len(curve := evaluated(run))]
    if not curves:
        return 1.0, 0.0, 1.0
    last = max(float(curve[-1, 0]) for curve in curves)
    low = min(float(curve[:, 1].min()) for curve in curves)
    # The first loss, of an untrained model, would press all curves to the floor.
    high = float(np.median([curve[min(1, len(curve) - 1), 1] for curve in curves]))
    high = max(high, float(np.median([curve[-1, 1] for curve in curves])) + 1e-6)
    return last, low, high + 0.15 * (high - low)


def evaluated(run: Any) -> np.ndarray[Any, Any]:
    """Return step and eval loss per token, shape (n, 2), without what is not finite."""
    points = [
        (r["step"], r["loss_token"]) for r in run.metrics("eval") if r.get("loss_token") is not None
    ]
    curve = np.array(points, dtype=np.float64).reshape(-1, 2)
    return curve[np.isfinite(curve).all(axis=1)]


def _spark(run: Kept, name: str, scale: tuple[float, float, float]) -> str:
    curve = evaluated(run)
    if not len(curve):
        return ""
    said = f"eval loss of {name}: {number(curve[0, 1], 2)} to {number(curve[-1, 1])}"
    return sparkline(
        curve[:, 0].tolist(),
        curve[:, 1].tolist(),
        last_step=scale[0],
        low=scale[1],
        high=scale[2],
        colour=mixer_colour(mixer_of(run)),
        title=said,
    )


class _Thumbnails:
    """Last Gram matrices of runs, small: one scale for all, one order for the same domains."""

    def __init__(self, runs: Sequence[Any]) -> None:
        self._orders: dict[tuple[str, ...], Any] = {}
        last = [matrix for run in runs if (matrix := _last_cosine(run)) is not None]
        self._scale = max((common_scale(matrix) for matrix in last), default=1.0)

    def of(self, run: Any, name: str) -> dict[str, str] | None:
        last = _last_cosine(run)
        if last is None:
            return None
        key = (*domain_names(run), str(len(last)))
        if key not in self._orders:
            self._orders[key] = domain_order(run.history)
        order = self._orders[key]
        said = extremes(last, short_ids(names_of(run)))
        return {
            "src": thumbnail(last[np.ix_(order, order)], self._scale),
            "alt": f"Last Gram matrix of {name}: {said}",
        }


def _last_cosine(run: Any) -> Any:
    grams = np.asarray(run.history.get("gram", []))
    return to_cosine(grams[-1]) if grams.ndim == 3 and grams.size else None


def _or_infinite(number_: float | None) -> float:
    return math.inf if number_ is None else number_


def variant_rows(
    comparison: Comparison, gaps: Mapping[str, Difference | None], soon: Mapping[str, Reach | None]
) -> list[dict[str, Any]]:
    """One dict per variant, the lowest mean final loss first, those without a run last.

    Means are over the seeds that all variants have; variants on other corpora stand below.

    Parameters
    ----------
    comparison : Comparison
    gaps : mapping of str to Difference or None
        By the label of the variant.
    soon : mapping of str to Reach or None
        How soon each variant came to its baseline's final loss, by its label.
    """
    ground = level(comparison)
    out = {variant.label for variant in ground.left_out}
    rows = [
        _row(variant, ground, gaps.get(variant.label), soon.get(variant.label))
        for variant in (*comparison.variants, *comparison.lost)
    ]
    return sorted(
        rows, key=lambda r: (r["token"] is None, r["name"] in out, r["token"] or 0.0, r["name"])
    )


def _row(
    variant: Variant, ground: Level, gap: Difference | None, reach: Reach | None
) -> dict[str, Any]:
    # Where means are over the seeds that all have, so are those of the worst domain and of costs.
    runs = next(
        (each.runs for each in ground.variants if each.label == variant.label), variant.runs
    )
    prices = [overhead(run) for run in runs]
    return {
        "name": variant.label,
        "swatch": swatch(mixer_colour(variant.mixer)),
        "seeds": len(variant.runs),
        "missing": len(variant.unfinished),
        "token": ground.loss(variant) if variant.runs else None,
        "is_baseline": bool(variant.runs) and ground.comparison.is_baseline(variant),
        "gap": None if gap is None else gap.mean,
        "interval": _interval(gap),
        "verdict": _verdict(gap),
        "worst": _mean(final_loss(run, "worst") for run in runs),
        "seconds": _mean(_seconds(run) for run in runs),
        "overhead_flops": _mean(price.flops for price in prices),
        "overhead_seconds": _mean(price.seconds for price in prices),
        **_soon(reach),
    }


def _soon(reach: Reach | None) -> dict[str, Any]:
    """Return steps and FLOPs to the baseline's final loss, as ratios, and in how many pairs."""
    if reach is None:
        return {
            "steps": None,
            "steps_shown": "–",
            "steps_note": "",
            "flops": None,
            "flops_shown": "–",
        }
    some = f"in {reach.reached} of {reach.pairs}" if reach.reached < reach.pairs else ""
    if reach.steps is None:
        return {
            "steps": None,
            "steps_shown": "never",
            "steps_note": some,
            "flops": None,
            "flops_shown": "–",
        }
    low, high = reach.steps.low, reach.steps.high
    return {
        "steps": reach.steps.mean,
        "steps_shown": number(reach.steps.mean, 2),
        "steps_note": some
        or ("" if low is None or high is None else f"{number(low, 2)} to {number(high, 2)}"),
        "flops": reach.flops and reach.flops.mean,
        "flops_shown": number(reach.flops.mean, 2) if reach.flops else "–",
    }


def _interval(gap: Difference | None) -> str:
    if gap is None or gap.low is None or gap.high is None:
        return "–"
    return f"{number(gap.low)} to {number(gap.high)}"


def _verdict(gap: Difference | None) -> str:
    if gap is None or not gap.told_apart:
        return ""
    return "better" if gap.mean < 0 else "worse"


def _seconds(run: Any) -> float | None:
    paid = spent(run, "seconds")
    return None if paid is None else paid.total


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


_RUNS = 6  # ledgers shown one by one
_COLUMNS = (
    "seconds",
    "flops_counted",
    "flops_modelled",
    "bytes",
    "calls",
    "seconds_share",
    "flops_share",
)


def ledger_rows(comparison: Comparison) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of the table, and whether they are means over the runs of a variant.

    Returns
    -------
    list of dict
        As of :func:`rbkit.show.figures.costs.cost_table`.
    bool
    """
    few = len(comparison.runs) <= _RUNS
    if few or all(len(variant.runs) <= 1 for variant in comparison.variants):
        return cost_table(list(comparison.runs)), False
    rows: list[dict[str, Any]] = []
    for variant in comparison.variants:
        entries: dict[str, list[dict[str, Any]]] = {}
        for run in variant.runs:
            for row in cost_table([run]):
                entries.setdefault(row["name"], []).append(row)
        rows += [_mean_of(variant.label, found) for found in entries.values()]
    return rows, True


def _mean_of(label: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean = {column: _ledger_table_mean(row[column] for row in rows) for column in _COLUMNS}
    if mean["calls"] is not None:
        mean["calls"] = round(mean["calls"])
    return {"run": label, "name": rows[0]["name"], "meaning": rows[0]["meaning"], **mean}


def _ledger_table_mean(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return sum(known) / len(known) if known else None


_SHARE = 0.72  # of the room, so that a number fits behind the longest bar
_TEXT = 600  # characters of an example; the whole of it may be a book


def card_rows(domains: Any) -> list[dict[str, Any]]:
    """One dict per card of `domains`, the most wanted by the eval set first.

    Parameters
    ----------
    domains : Domains or None

    Returns
    -------
    list of dict
        ``name, size, terms, nearest, sources, share, q`` and the bars of the last two.
    """
    if domains is None or not domains.cards:
        return []
    sizes = np.asarray(domains.sizes, dtype=np.float64)
    share, q = sizes / max(sizes.sum(), 1.0), np.asarray(domains.q, dtype=np.float64)
    top = max(float(share.max(initial=0)), float(q.max(initial=0)), 1e-9)
    cards = [
        {
            "name": card.name,
            "size": int(sizes[i]),
            "terms": _texts(card.terms)[:10],
            "nearest": [_cut(text) for text in _texts(card.nearest)[:3]],
            "sources": top_sources(_shares(card.sources)),
            "share": float(share[i]),
            "q": float(q[i]),
            "share_bar": bar(_SHARE * float(share[i]) / top, "share"),
            "q_bar": bar(_SHARE * float(q[i]) / top, "want"),
        }
        for i, card in enumerate(domains.cards)
    ]
    return sorted(cards, key=lambda card: -card["q"])


def _texts(given: Any) -> list[str]:
    # Of a file of a stranger, nothing is sure but that it is JSON.
    return [str(text) for text in given] if isinstance(given, list | tuple) else []


def _shares(given: Any) -> dict[str, float]:
    found = given.items() if isinstance(given, dict) else ()
    return {
        str(name): float(share)
        for name, share in found
        if isinstance(share, int | float) and 0 <= share < 1e12
    }


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


FAILED = ("failed", "killed", "timeout", "interrupted")
WAITING = ("running", "queued")
_LINES, _WIDTH = 30, 400

# What to say of a run that could not say anything itself.
_SILENT = {
    "killed": "the process ended without a word: killed from outside, or out of memory",
    "timeout": "a cell took longer than it was given",
    "interrupted": "stopped by hand; it can be gone on with",
    "failed": "no error was recorded",
}


def failures(runs: Sequence[Kept], names: Sequence[str]) -> list[dict[str, Any]]:
    """One dict per way in which runs ended badly, the most frequent first.

    Parameters
    ----------
    runs : sequence of Kept
    names : sequence of str
        How each run is called on the page.

    Returns
    -------
    list of dict
        ``status, cell, headline``, and ``runs``: of each run that ended so ``name``,
        ``progress``, ``attempts`` and ``tail`` (text of up to 30 lines, empty if the one before
        had the same).
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run, name in zip(runs, names, strict=True):
        if run.status not in FAILED:
            continue
        job = run.job or {}
        said = [line for line in visible(_error(run)).split("\n") if line.strip()]
        headline = _failures_cut(said[0] if said else _SILENT[run.status])
        tail = [visible(str(line)) for line in job.get("tail") or []] or said[1:]
        key = (run.status, visible(str(job.get("cell") or "")), headline)
        groups.setdefault(key, []).append(
            {
                "name": name,
                "progress": _progress(run),
                "attempts": job.get("attempts") or 1,
                "tail": "\n".join(map(_failures_cut, tail[-_LINES:])),
            }
        )
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"status": status, "cell": cell, "headline": headline, "runs": _told_once(members)}
        for (status, cell, headline), members in ordered
    ]


def _told_once(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    before = ""
    for member in sorted(members, key=lambda m: str(m["name"])):
        member["tail"], before = "" if member["tail"] == before else member["tail"], member["tail"]
    return sorted(members, key=lambda m: str(m["name"]))


def unfinished(runs: Sequence[Kept]) -> str:
    """Say how many runs have not ended; empty if all have.

    Examples
    --------
    >>> unfinished([])
    ''
    """
    counts = {status: sum(run.status == status for run in runs) for status in WAITING}
    parts = [
        f"{count} {'is' if count == 1 else 'are'} {status}"
        for status, count in counts.items()
        if count
    ]
    if not parts:
        return ""
    return f"This page is not final: of {len(runs)} runs {' and '.join(parts)}."


def _error(run: Kept) -> str:
    job = run.job or {}
    return str(job.get("error") or run.info.get("error") or "")


def _progress(run: Kept) -> str:
    progress = run.info.get("progress")
    if not isinstance(progress, dict) or not progress.get("step"):
        return ""
    step, steps = progress.get("step"), progress.get("steps")
    return f"step {step} of {steps}" if steps else f"step {step}"


def _failures_cut(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


# Arguments of rbkit.train that its record holds under the same name.
_TRAIN = (
    "model",
    "steps",
    "round_steps",
    "accumulate",
    "context",
    "learning_rate",
    "estimator",
    "fraction",
    "seed",
)


def command_of(run: Kept) -> str:
    """Return what repeats a run: a command line, or Python if it was trained from Python.

    Of a run of a sweep it is the command that the launcher wrote down. A run that was made
    by hand is repeated from its recorded parameters, into a folder of its own.
    """
    if run.job and run.job.get("command"):
        return str(run.job["command"])
    return _command_line(run) or _python(run)


def sweep_commands(sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands that made the sweeps, each once and in their order."""
    calls = [call for sweep in sweeps for call in (*(sweep.get("calls") or []), sweep)]
    said = [
        str(call["command"]) for call in calls if isinstance(call, dict) and call.get("command")
    ]
    return list(dict.fromkeys(said))


def environment_rows(runs: Sequence[Kept], sweeps: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return (name, value) of all that a result may depend on beside its parameters."""
    sweep: Mapping[str, Any] = sweeps[0] if sweeps else {}
    info = next((run.info for run in runs if run.info.get("versions")), {})
    versions = {**(sweep.get("versions") or {}), **(info.get("versions") or {})}
    if sweep.get("rbkit"):
        versions.setdefault("rbkit", sweep["rbkit"])
    machine = sweep.get("machine") if isinstance(sweep.get("machine"), dict) else {}
    git = sweep.get("git") or info.get("git")
    if isinstance(git, dict):
        git = f"{git.get('commit')}{', with changes' if git.get('changed') else ''}"
    found = list(versions.items())
    found += [(name.replace("_", " "), value_text(v)) for name, v in (machine or {}).items() if v]
    hosts = sorted({str(run.info["host"]) for run in runs if run.info.get("host")})
    devices = sorted({str(run.info["device"]) for run in runs if run.info.get("device")})
    started = sorted(str(run.info["started"]) for run in runs if run.info.get("started"))
    corpus = info.get("corpus") or {}
    model = info.get("model") if isinstance(info.get("model"), dict) else {}
    found += [
        ("git commit", value_text(git) if git else None),
        ("template", value_text(sweep["template"]) if sweep.get("template") else None),
        ("device" if len(devices) == 1 else "devices", ", ".join(devices)),
        ("machines", f"{len(hosts)}" if len(hosts) > 1 else None),
        ("model parameters", amount((model or {}).get("parameters"))),
        ("first run started", started[0][:19].replace("T", " ") if started else None),
        ("corpus fingerprint", corpus.get("fingerprint")),
        ("duplicates across train and eval", corpus.get("duplicates")),
    ]
    return [(name, v) for name, v in found if v not in (None, "", "–")]


def _command_line(run: Kept) -> str | None:
    from rbkit.report.parameters import RunParameters

    recorded = run.info.get("parameters") or {}
    if not {"corpus", "embedder", "mixer"} <= recorded.keys():
        return None
    default = RunParameters().to_dict()
    names = [f.name for f in fields(RunParameters) if f.name not in ("run_dir", "resume")]
    given = {name: recorded[name] for name in names if name in recorded}
    if recorded.get("micro_batch_size"):
        given["batch_size"] = recorded["micro_batch_size"]
    try:
        RunParameters.from_mapping(given)
    except InputError:
        return None  # made by another version, or by somebody else
    changed = {k: v for k, v in given.items() if v != default[k] or k in ("mixer", "seed")}
    parts = ["rbkit", "run", "--out", f"{run.path.name}-again"]
    for name, what in changed.items():
        parts += ["-p", f"{name}={what if isinstance(what, str) else json.dumps(what)}"]
    return shlex.join(parts)


def _python(run: Kept) -> str:
    recorded = run.info.get("parameters") or {}
    corpus = (run.info.get("corpus") or {}).get("name")
    if "mixer" not in recorded or "steps" not in recorded:
        return "parameters = " + json.dumps(recorded, ensure_ascii=True, sort_keys=True)
    given = {name: recorded[name] for name in _TRAIN if recorded.get(name) is not None}
    if recorded.get("micro_batch_size") or recorded.get("batch_size"):
        given["batch_size"] = recorded.get("micro_batch_size") or recorded["batch_size"]
    given["mixer"] = _Source(
        f"mixer_by_name({recorded['mixer']!a}, {recorded.get('mixer_options') or {}!a})"
    )
    given["run_dir"] = f"{run.path.name}-again"
    saved = str(run.path / "domains")
    lines = [
        "import rbkit as rb",
        "from rbkit.balance.mixers import mixer_by_name",
        f"corpus = rb.load_corpus({corpus!a})",
        f"domains = rb.Domains.load({saved!a})",
        f"rb.train(corpus, domains, {', '.join(f'{k}={v!a}' for k, v in given.items())})",
    ]
    return "\n".join(lines)


class _Source(str):
    """Python source among values: written as it is."""

    def __repr__(self) -> str:
        return str(self)


_EACH = 4  # values said of what makes no variants


def intro(html: str | None) -> str:
    """Return a paragraph of HTML of the user's, without what fetches, runs or styles."""
    if not html:
        return ""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(seal(visible(html)), "html.parser")
    for tag in soup.find_all("style"):
        tag.decompose()
    for tag in soup.find_all(style=True):  # the policy allows our own style sheet only
        del tag["style"]
    return str(soup)


def facts(comparison: Comparison, info: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of what the runs have in common, in a line under the title."""
    corpus, shared = info.get("corpus") or {}, comparison.shared
    m = len((info.get("domains") or {}).get("names") or [])
    every_seed = {
        value_text(s): s for run in comparison.runs if (s := parameter(run, "seed")) is not None
    }
    seeds = sorted(every_seed.values(), key=order)
    devices = sorted(
        {
            value_text(run.info["device"])
            for run in comparison.runs
            if run.info.get("device") is not None
        }
    )
    steps, every = shared.get("steps"), shared.get("round_steps")
    many = len(seeds) > 6 and all(isinstance(seed, int) for seed in seeds)
    found = [
        ("corpus", corpus.get("name")),
        ("train examples", thousands(corpus.get("n_train"))),
        ("eval examples", thousands(corpus.get("n_eval"))),
        ("domains", m or None),
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
    return [(name, value_text(what)) for name, what in found if what not in (None, "", "none", "–")]


def varied(comparison: Comparison) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each parameter that varies, with its values and the number of runs of each."""
    names = [*comparison.varied, *_seed(comparison.runs)]
    return [(name, _values(comparison, name)) for name in names]


def beside(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what else was not the same in all runs, each with its values in words."""
    found = []
    for name in comparison.beside:
        values = [text for text, _ in _values(comparison, name)]
        more = f" and {len(values) - _EACH} more" if len(values) > _EACH else ""
        found.append((name, "; ".join(values[:_EACH]) + more))
    return found


def _values(comparison: Comparison, name: str) -> list[tuple[str, int]]:
    """Values of a setting as text, in order, with the number of runs of each."""
    given = [comparison.setting(run, name) for run in comparison.runs]
    counts = Counter(map(value_text, given))
    first = {value_text(each): each for each in given}
    return sorted(counts.items(), key=lambda item: order(first[item[0]]))


def _seed(runs: Sequence[Any]) -> list[str]:
    return ["seed"] if len({value_text(parameter(run, "seed")) for run in runs}) > 1 else []


def by_domain_note(comparison: Comparison) -> str:
    """Say which variants, and how many of their seeds, the losses by domain are of."""
    shown = side_by_side(comparison, len(comparison.variants))
    if not shown:
        return ""
    held = [
        f"{name} {value_text(what)}"
        for name, what in shown[0].values.items()
        if name not in ("mixer", "mixer_options")
    ]
    n, of = len(shown[0].runs), max(len(variant.runs) for variant in comparison.variants)
    said = [] if of == 1 else [f"means over {n} seeds"]
    if n < of:
        which = f"means over {n} of {of} seeds, those that"
        if n == 1:
            which = f"seed {value_text(parameter(shown[0].runs[0], 'seed'))} alone, which"
        said = [f"{which} all have with the same domains"]
    said += [f"at {', '.join(held)}"] if held else []
    text = ", ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def left_out_note(comparison: Comparison) -> str:
    """Say which variants are not in figures of losses, and why."""
    names = [variant.label for variant in level(comparison).left_out]
    return f"Left out, as it is on another corpus: {', '.join(names)}." if names else ""


def licences(given: Any) -> list[dict[str, str]]:
    """Return the licences of a corpus, whatever was recorded as such."""
    items = [item for item in given or [] if isinstance(item, dict)]
    names = ("asset", "licence", "attribution", "url")
    found = [{name: str(item.get(name) or "") for name in names} for item in items]
    return [{**i, "url": i["url"].replace("https://", "").replace("http://", "")} for i in found]


_result_EACH = 5  # differences said one by one; more are counted


def sentences(
    comparison: Comparison, gaps: Mapping[str, Difference | None]
) -> tuple[list[str], list[str]]:
    """Return what was found, the headline first, and what limits it. Plain text, not escaped.

    Parameters
    ----------
    comparison : Comparison
    gaps : mapping of str to Difference or None
        Paired differences of the variants in final eval loss per token, by their labels.
    """
    first, *cautions = headline(comparison)
    # Which one was best is a finding, not a limit.
    best = [sentence for sentence in cautions if sentence.startswith(LOWEST)]
    cautions = [sentence for sentence in cautions if sentence not in best]
    known = [gap for gap in gaps.values() if gap is not None]
    if len(known) > _result_EACH:
        return [first, *best, _counted(known, comparison.baseline_label)], cautions
    # What the headline is about needs no second sentence.
    told = (f"{first}\n", *best)
    rest = [
        gap
        for gap in known
        if not any(
            text.startswith((f"{gap.label} ended at ", f"{LOWEST} {gap.label}, ")) for text in told
        )
    ]
    return [
        first,
        *best,
        *(gap.sentence() for gap in sorted(rest, key=lambda gap: gap.mean)),
    ], cautions


def _counted(gaps: list[Difference], baseline: str) -> str:
    below = sum(gap.told_apart is True and gap.mean < 0 for gap in gaps)
    above = sum(gap.told_apart is True and gap.mean > 0 for gap in gaps)
    return (
        f"Of {len(gaps)} variants, {below} ended below {baseline} with an interval that leaves "
        f"out 0, {above} above it, and {len(gaps) - below - above} are not told apart from it."
    )
