"""What the page says first: the result, how sure it is, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping

from rbkit.report.compare.paired import Difference
from rbkit.report.compare.variants import Comparison
from rbkit.report.summary import LOWEST, headline

_EACH = 5  # differences said one by one; more are counted


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
    if len(known) > _EACH:
        return [first, *best, _counted(known, comparison.baseline_label)], cautions
    # What the headline is about needs no second sentence.
    told = (f"{first}\n", *best)
    rest = [
        gap for gap in known
        if not any(text.startswith((f"{gap.label} ended at ", f"{LOWEST} {gap.label}, "))
                   for text in told)
    ]  # fmt: skip
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
