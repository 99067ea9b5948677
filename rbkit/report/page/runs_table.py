"""The table of runs: one row each, what varied as columns, numbers, a curve, a thumbnail."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rbkit.report.compare.variants import Comparison, Variant, is_finished
from rbkit.report.page.frames import names_of
from rbkit.report.page.kept import Kept
from rbkit.report.page.text import value
from rbkit.report.page.tiny import sparkline, swatch, thumbnail
from rbkit.show.facts import (
    domain_names,
    losses,
    mixer_of,
    overhead,
    pairs_by_seed,
    parameter,
    same_corpus,
)
from rbkit.show.gram_figure import common_scale, domain_order, extremes, short_ids, to_cosine
from rbkit.show.spent import spent
from rbkit.show.style import mixer_colour, number

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
        id(run): variant for variant in (*comparison.variants, *comparison.lost)
        for run in (*variant.runs, *variant.unfinished, *variant.repeated)
    }  # fmt: skip
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
    variants = {id(run): variant.label for variant in (*comparison.variants, *comparison.lost)
                for run in (*variant.runs, *variant.unfinished, *variant.repeated)}  # fmt: skip
    names = [variants.get(id(run), mixer_of(run)) for run in comparison.runs]
    for extra in (lambda r: f"seed {value(parameter(r, 'seed'))}", lambda r: r.path.name):
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
    return {"text": value(what), "sort": what if number_ else value(what), "number": number_}


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
    points = [(r["step"], r["loss_token"]) for r in run.metrics("eval")
              if r.get("loss_token") is not None]  # fmt: skip
    curve = np.array(points, dtype=np.float64).reshape(-1, 2)
    return curve[np.isfinite(curve).all(axis=1)]


def _spark(run: Kept, name: str, scale: tuple[float, float, float]) -> str:
    curve = evaluated(run)
    if not len(curve):
        return ""
    said = f"eval loss of {name}: {number(curve[0, 1], 2)} to {number(curve[-1, 1])}"
    return sparkline(
        curve[:, 0].tolist(), curve[:, 1].tolist(), last_step=scale[0], low=scale[1],
        high=scale[2], colour=mixer_colour(mixer_of(run)), title=said,
    )  # fmt: skip


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
