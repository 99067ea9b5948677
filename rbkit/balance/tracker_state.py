"""What a tracker knows in the middle of a round, saved and taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rbkit.balance.pooled import pooled, rank, summed
from rbkit.errors import InputError

if TYPE_CHECKING:
    from rbkit.balance.gram import GramTracker


def save(tracker: GramTracker) -> dict[str, Any]:
    """Return the state, summed over processes, which call this together."""
    layers = tracker._watched
    device = layers[0].device
    # One sum for all that is counted: rows are n of both halves, examples, and turns.
    counted = np.stack((*tracker._counts, tracker._examples, tracker._turn.astype(np.float64)))
    state: dict[str, Any] = {
        "settings": _settings(tracker),
        "round": tracker.round,
        "calls": tracker._calls,
        "operations": [tracker._price.products, tracker._price.additions],
        "counts": torch.tensor(pooled(counted, device)),
    }
    for place, layer in enumerate(layers):
        total = summed(layer.total, layer.device)
        if total is not None:
            state[f"total.{place}"] = total
    return state


def restore(tracker: GramTracker, state: Mapping[str, Any]) -> None:
    """Take up a state: the first process has the sums, the others begin with none."""
    for name, mine in _settings(tracker).items():
        if state["settings"].get(name) != mine:
            raise InputError(
                "tracker state", f"saved with {name} {state['settings'].get(name)}, not {mine}",
                f"resume with the {name} of the checkpoint",
            )  # fmt: skip
    first = rank() == 0
    tracker.round, tracker._calls = int(state["round"]), int(state["calls"])
    tracker._price.products, tracker._price.additions = map(int, state["operations"])
    counted = torch.as_tensor(state["counts"]).cpu().numpy() * float(first)
    tracker._counts, tracker._examples = counted[:2], counted[2]
    tracker._turn = counted[3].astype(np.int64)
    for place, layer in enumerate(tracker._watched):
        total = state.get(f"total.{place}") if first else None
        layer.sketch, layer.total = None, None  # signs are drawn again from the seed
        if total is not None:
            layer.total = torch.as_tensor(total).clone().to(layer.device)


def _settings(tracker: GramTracker) -> dict[str, Any]:
    return {
        "n_domains": tracker.n_domains,
        "estimator": tracker.estimator,
        "buckets": tracker.buckets,
        "seed": tracker.seed,
        "decay": tracker.decay,
        "layers": [list(layer.shape) for layer in tracker._watched],
    }
