"""What somebody who looks at runs should know: what is missing, thinned, or not comparable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbkit.show.scrub.payload import sent_rounds
from rbkit.show.scrub.rounds import Rounds


def notices(runs: Sequence[Rounds], labels: Sequence[str], shared: int) -> list[str]:
    """Say what is to be known of one run, or two that share `shared` domains."""
    said = []
    for rounds, label in zip(runs, labels, strict=True):
        of = f"{label}: " if len(runs) > 1 else ""
        said += [of + note for note in rounds.notes]
        sent, n = len(sent_rounds(rounds)), len(rounds.at)
        if rounds.has_gram and sent < n:
            said.append(
                f"{of}{sent} of {n:,} Gram matrices are here (4 MB); the others come when the "
                "slider rests on them, while the kernel is free."
            )
    return said + (_differences(runs[0], runs[1], shared) if len(runs) > 1 else [])


def _differences(first: Rounds, second: Rounds, shared: int) -> list[str]:
    said = []
    if not len(first.keys) == len(second.keys) == shared:
        said.append(
            f"The runs share {shared} of {len(first.keys)} and {len(second.keys)} domains, by "
            "name; differences are of these."
        )
    if not np.array_equal(first.edges, second.edges):
        said.append(
            f"Rounds differ: {len(first.at)} up to step {first.edges[-1]:,.0f}, and "
            f"{len(second.at)} up to step {second.edges[-1]:,.0f}. The slider goes by step."
        )
    return said
