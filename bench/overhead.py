"""What tracking costs on a GPT-Neo-125M-shaped model: counted FLOPs, memory, paired step times.

The default settings of the library: sketch of 128 buckets, m = 30 domains, K = 200 steps a
round. FLOPs of a round are counted for one step and scaled to K; the Gram matrix, the mixer
and the redrawn signs are counted once. Step times are paired: with and without tracking in
turn, in random order, on the same batch; the figure is the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rbkit.balance import GramTracker, Observation, RnB
from rbkit.files import write_json
from rbkit.train.models import build_model

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--model", default="gpt-neo-125m")
    parse.add_argument("--domains", type=int, default=30)
    parse.add_argument("--round-steps", type=int, default=200)
    parse.add_argument("--batch", type=int, default=4)
    parse.add_argument("--context", type=int, default=128)
    parse.add_argument("--pairs", type=int, default=12)
    a = parse.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(a.model).to(device).train()
    tracker = GramTracker(model.get_output_embeddings(), a.domains)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    rng = np.random.default_rng(0)
    vocabulary = model.config.vocab_size

    def batch() -> tuple[torch.Tensor, np.ndarray]:
        ids = torch.from_numpy(rng.integers(0, vocabulary, (a.batch, a.context))).to(device)
        return ids, rng.integers(0, a.domains, a.batch)

    def step(ids: torch.Tensor, domains: np.ndarray, tracked: bool) -> None:
        if tracked:
            with tracker.batch(domains, scale=ids.numel() - len(ids)):
                model(input_ids=ids, labels=ids).loss.backward()
        else:
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def seconds(*args: object) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        step(*args)  # type: ignore[arg-type]
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    # Counted FLOPs. Every domain is present in a round of K steps, so also here.
    ids, domains = batch()
    with FlopCounterMode(display=False) as plain:
        step(ids, domains, tracked=False)
    before = tracker.flops
    with FlopCounterMode(display=False) as with_tracking:
        step(ids, domains, tracked=True)
    track = with_tracking.get_total_flops() - plain.get_total_flops()
    adds = tracker.flops - before - track
    m, q = a.domains, np.full(a.domains, 1 / a.domains)
    began = time.perf_counter()
    with FlopCounterMode(display=False) as round_end:
        estimate = tracker.estimate()
    gram_seconds = time.perf_counter() - began
    began = time.perf_counter()
    RnB().update(Observation(0, q, q, np.full(m, 9), gram=estimate))
    mixer_seconds = time.perf_counter() - began
    mixer = 2 * m * m + 10 * m
    training = a.round_steps * plain.get_total_flops()
    # The Gram product does not depend on how many domains came up; tracking scales with K.
    extra = a.round_steps * track + round_end.get_total_flops() + mixer

    # Paired step times.
    for tracked in (False, True):
        step(*batch(), tracked)
    pairs = []
    for _ in range(a.pairs):
        work = batch()
        order = rng.permutation([False, True])
        took = {bool(tracked): seconds(*work, bool(tracked)) for tracked in order}
        pairs.append((took[False], took[True]))
    ratios = np.array([t / p for p, t in pairs])
    low, high = np.percentile(
        [np.median(rng.choice(ratios, len(ratios))) for _ in range(2000)], [2.5, 97.5]
    )
    result = {
        "model": a.model, "parameters": model.num_parameters(), "device": str(device),
        "threads": torch.get_num_threads(), "domains": m, "round_steps": a.round_steps,
        "batch": a.batch, "context": a.context, "buckets": tracker.buckets,
        "step_flops": plain.get_total_flops(),
        "overhead_counted_percent": 100 * extra / training,
        "overhead_with_additions_percent": 100 * (extra + a.round_steps * adds) / training,
        "gram_share_of_overhead_percent": 100 * round_end.get_total_flops() / extra,
        "bytes_per_domain": tracker.bytes / m,
        "gram_seconds_per_round": gram_seconds, "mixer_seconds_per_round": mixer_seconds,
        "median_step_seconds": float(np.median([p for p, _ in pairs])),
        "step_time_ratio_median": float(np.median(ratios)),
        "step_time_ratio_95": [float(low), float(high)], "pairs": a.pairs,
    }  # fmt: skip
    write_json(RESULTS / f"overhead-{device.type}.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
