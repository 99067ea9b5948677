"""Some batches of a run, tracked by one of several processes: not a test itself.

python parallel_tracker.py FOLDER RANK WORLD FIRST LAST: track this process's part of the
steps FIRST to LAST, after the state in FOLDER/state.pt if there is one. Every process writes
what it finds to FOLDER/found-RANK.npz; the first one saves the state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from rbkit.balance import GramTracker

STEPS, BATCH, M = 6, 12, 4


def data():
    """Examples, domains and halves of all steps; domain 3 comes once, in the last example."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(STEPS, BATCH, 3, 8))).float()
    domains = rng.integers(0, M - 1, (STEPS, BATCH))
    domains[-1, -1] = M - 1
    return x, domains, rng.integers(0, 2, (STEPS, BATCH))


def tracker_of(estimator):
    torch.manual_seed(0)
    layer = nn.Linear(8, 100)
    return layer, GramTracker(layer, M, estimator=estimator, buckets=4, decay=0.5, seed=1)


def watch(layer, tracker, first, last, rank=0, world=1):
    """Track this process's share of each step; of four processes the last never has any."""
    x, domains, halves = data()
    busy = min(world, 3)
    for step in range(first, last):
        mine = np.array_split(np.arange(BATCH), busy)[rank] if rank < busy else np.empty(0, int)
        if len(mine):
            with tracker.batch(domains[step, mine], halves=halves[step, mine], step=step):
                layer(x[step, mine]).square().sum().backward()
        if step == 1:
            tracker.reset()  # with decay: something of the first round stays


def found(tracker):
    estimate = tracker.estimate()
    names = ("gram", "counts", "diagonal_debiased", "noise_floor")
    return {name: getattr(estimate, name) for name in names}


def main(folder, rank, world, first, last):
    folder, rank, world = Path(folder), int(rank), int(world)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / f'meet-{world}'}", rank=rank, world_size=world
    )
    results = {}
    states = {}
    for estimator in ("sketch", "exact", "grouped"):
        layer, tracker = tracker_of(estimator)
        results |= {f"empty.{estimator}": tracker.estimate().counts}  # nobody has seen a batch
        if (folder / "state.pt").exists():
            saved = torch.load(folder / "state.pt", weights_only=True)
            tracker.load_state_dict(saved[estimator])
        watch(layer, tracker, int(first), int(last), rank, world)
        own = tracker._watched[0].total
        before = None if own is None else own.clone()
        results |= {f"{name}.{estimator}": value for name, value in found(tracker).items()}
        states[estimator] = tracker.state_dict()
        own = tracker._watched[0].total
        assert own is None if before is None else torch.equal(own, before)  # sums stay local
    np.savez(folder / f"found-{rank}.npz", **results)
    dist.barrier()  # all have read the old state
    if rank == 0:
        torch.save(states, folder / "state.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
