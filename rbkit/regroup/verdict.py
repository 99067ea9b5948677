"""May one choose k by this grid? Clear, or the criteria disagree, or the curve is too flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbkit.regroup.criteria import CRITERIA, Criterion, criterion

RULES = {"silhouette": "silhouette", "stability": "stability_ari", "loss": "loss"}
_FAR = 2.0  # two k are far apart from this ratio on: 8 and 12 tell the same story, 8 and 16 do not
_NOISES = 2.0  # a curve of pure noise over eight k, means of three seeds, spans 1.6 sd


@dataclass(frozen=True)
class Verdict:
    """What the grid says about the chosen k.

    Attributes
    ----------
    kind : {"clear", "disagree", "flat", "single"}
        "single": there was nothing to choose from.
    words : str
        The same as a sentence, with numbers.
    best : dict of str to int
        Best k of each criterion that is known, by its name.
    """

    kind: str
    words: str
    best: dict[str, int]

    def __str__(self) -> str:
        return self.words


def judge(grid: Sequence[Mapping[str, Any]], chosen: int, rule: str = "silhouette") -> Verdict:
    """Judge a choice of k.

    *Flat*: over the grid, the criterion that was maximised varies by less than twice its
    standard deviation over seeds, or by less than a small number of its own
    (:data:`rbkit.regroup.criteria.CRITERIA`). *Disagree*: a criterion that is not flat is
    best far from the chosen k, by a factor of 2 or more, and no k nearer by does as well
    within a standard deviation. Else *clear*. Missing values are left out.

    Parameters
    ----------
    grid : sequence of mapping
        Rows of :func:`choose_k` or :func:`rbkit.train.sweep_k`.
    chosen : int
    rule : {"silhouette", "stability", "loss"}
        What it was chosen by.

    Examples
    --------
    >>> rows = [{"k": 5, "silhouette": 0.2, "stability_ari": 0.9},
    ...         {"k": 20, "silhouette": 0.4, "stability_ari": 0.5}]
    >>> print(judge(rows, 20))
    criteria disagree: silhouette is best at k = 20, stability (ARI) at 5; k = 20 is the last tried
    """
    leading = criterion(RULES[rule])
    known = {c.name: k for c in CRITERIA if (k := c.best(grid)) is not None}
    ks = sorted(leading.values(grid))
    if len(ks) < 2:
        return Verdict("single", f"only k = {chosen} was tried", known)
    spread, noise = _spread(leading, grid), _noise(leading, grid)
    voters = [c for c in CRITERIA if c.votes and c.name in known and not _is_flat(c, grid)]
    if spread < max(_NOISES * noise, leading.flat):
        words = f"too flat to choose by: the {leading.name} varies by {spread:.3f} over"
        words += f" k = {ks[0]} to {ks[-1]}"
        words += f", and by {noise:.3f} from seed to seed" if noise > 0 else ""
        told = [f"{c.name} is best at k = {known[c.name]}" for c in voters]
        return Verdict("flat", "; ".join([words, *told]), known)
    if any(_is_far(c, grid, chosen) for c in voters):
        first, *others = sorted(voters, key=lambda c: c is not leading)
        words = f"criteria disagree: {first.name} is best at k = {known[first.name]}"
        words += "".join(f", {c.name} at {known[c.name]}" for c in others)
        return Verdict("disagree", words + _edge(chosen, ks), known)
    names = [c.name for c in voters]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    is_ = "is" if len(names) == 1 else "are"
    return Verdict(
        "clear", f"clear: {listed} {is_} best at or near k = {chosen}{_edge(chosen, ks)}", known
    )


def _is_flat(of: Criterion, grid: Sequence[Mapping[str, Any]]) -> bool:
    return _spread(of, grid) < max(_NOISES * _noise(of, grid), of.flat)


def _spread(of: Criterion, grid: Sequence[Mapping[str, Any]]) -> float:
    values = of.values(grid).values()
    return max(values) - min(values) if values else 0.0


def _noise(of: Criterion, grid: Sequence[Mapping[str, Any]]) -> float:
    """Return the standard deviation over seeds, the median over the grid; 0 if not known."""
    found = sorted(float(sd) for row in grid if (sd := row.get(of.key + "_sd")) is not None)
    return found[len(found) // 2] if found else 0.0


def _is_far(of: Criterion, grid: Sequence[Mapping[str, Any]], chosen: int) -> bool:
    values, noise = of.values(grid), _noise(of, grid)
    sign = 1 if of.higher_is_better else -1
    top = max(sign * value for value in values.values())
    as_good = [k for k, value in values.items() if sign * value >= top - noise]
    return all(max(k, chosen) >= _FAR * min(k, chosen) for k in as_good)


def _edge(chosen: int, ks: Sequence[int]) -> str:
    if chosen in (ks[0], ks[-1]) and len(ks) > 1:
        return f"; k = {chosen} is the {'first' if chosen == ks[0] else 'last'} tried"
    return ""
