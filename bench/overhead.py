"""What tracking costs: FLOPs on the shape of GPT-Neo-125M, memory, time, and many domains.

FLOPs are counted by torch for the paper's batch of 16 x 512 tokens (``bench/pricing.py``), for a
round of K steps: tracking scales with K; the Gram matrix and the mixer come once. Step times
are paired: with and without tracking by turns, in random order, on the same real batch; the
figure is the median of the ratios, of seconds by the clock and of seconds of the CPUs (which
other programs on the machine disturb less). `scaling` repeats tracking, Gram matrix and update
for more and more domains, on the head alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pricing import price
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rbkit.balance import GramTracker, Observation, RnB
from rbkit.files import write_json
from rbkit.train.models import build_model

RESULTS = Path(__file__).parent / "results"
SHAPES = {"gpt-neo-125m": 4, "small": 16, "tiny": 16}  # examples in a batch
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Clock:
    """Seconds spent in blocks, waiting for the GPU at both ends; and seconds of the CPUs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    @contextmanager
    def __call__(self, _device: Any = None) -> Iterator[None]:
        """Time the block."""
        began, cpu = now(), time.process_time()
        yield
        self.seconds.append(now() - began)
        self.cpu.append(time.process_time() - cpu)


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def update(estimate: Any) -> None:
    m = len(estimate.counts)
    q = np.full(m, 1 / m)
    RnB().update(Observation(0, q, q, np.full(m, 9), gram=estimate))


def step_times(name: str, a: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Time pairs of steps of the whole model, with and without tracking."""
    model = build_model(name).to(DEVICE).train()
    batch_size = SHAPES[name] if a.batch is None else a.batch
    tracker = GramTracker(model.get_output_embeddings(), a.domains, **options)
    own = Clock()
    tracker.watch_with = own
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    rng = np.random.default_rng(0)

    def step(ids: torch.Tensor, domains: np.ndarray, tracked: bool) -> tuple[float, float]:
        began, cpu = now(), time.process_time()
        if tracked:
            with tracker.batch(domains, scale=ids.numel() - len(ids)):
                model(input_ids=ids, labels=ids).loss.backward()
        else:
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return now() - began, time.process_time() - cpu

    def batch() -> tuple[torch.Tensor, np.ndarray]:
        ids = rng.integers(0, model.config.vocab_size, (batch_size, a.context))
        return torch.from_numpy(ids).to(DEVICE), rng.integers(0, a.domains, batch_size)

    for tracked in (False, True):
        step(*batch(), tracked)
    own.seconds.clear()
    own.cpu.clear()
    pairs = []
    for _ in range(a.pairs):
        work = batch()
        order = rng.permutation([False, True])
        took = {bool(tracked): step(*work, bool(tracked)) for tracked in order}
        pairs.append((took[False], took[True]))
    plain, with_ = np.array(pairs).swapaxes(0, 1)  # (pairs, 2) each: by the clock, of the CPUs
    ratios = with_ / plain
    picks = rng.integers(0, len(ratios), (5000, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5], axis=0)
    seconds = float(np.median(plain[:, 0]))
    return {
        "model": name,
        "parameters": model.num_parameters(),
        "device": str(DEVICE),
        "threads": torch.get_num_threads(),
        "batch": batch_size,
        "context": a.context,
        "pairs": a.pairs,
        "median_step_seconds": seconds,
        "step_time_ratio_median": float(np.median(ratios[:, 0])),
        "step_time_ratio_95": [float(low[0]), float(high[0])],
        "cpu_time_ratio_median": float(np.median(ratios[:, 1])),
        "cpu_time_ratio_95": [float(low[1]), float(high[1])],
        "tracking_seconds_per_step_median": float(np.median(own.seconds)),
        "tracking_share_of_step_percent": 100 * float(np.median(own.seconds)) / seconds,
        "tracking_share_of_cpu_time_percent": (
            100 * float(np.median(own.cpu) / np.median(plain[:, 1]))
        ),
        "bytes_per_domain": tracker.bytes / a.domains,
    }


def scaling(a: argparse.Namespace, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Track a head of the same shape with more and more domains."""
    rows = []
    for m in a.scaling:
        torch.manual_seed(0)
        head = nn.Linear(768, 50257, bias=False, device=DEVICE)
        tracker, own, rng = GramTracker(head, m, **options), Clock(), np.random.default_rng(0)
        tracker.watch_with = own
        x = torch.randn(4, a.context, 768, device=DEVICE)
        for _ in range(8):
            with tracker.batch(rng.integers(0, m, len(x))):
                head(x).square().sum().backward()
        flops = tracker.flops // 8
        for domain in range(m):  # so that G has no gaps
            tracker._counts[:, domain] += 1
        began = now()
        with FlopCounterMode(display=False) as counter:
            estimate = tracker.estimate()
        gram = now() - began
        began = now()
        update(estimate)
        mixer = now() - began
        began = now()
        tracker.reset()
        rows.append(
            {
                "domains": m,
                "tracking_flops_per_step": flops,
                "tracking_seconds_per_step": float(np.median(own.seconds)),
                "gram_flops": counter.get_total_flops(),
                "gram_seconds": gram,
                "mixer_seconds": mixer,
                "reset_seconds": now() - began,
                "bytes": tracker.bytes,
            }
        )
        tracker.remove()
    return rows


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parse.add_argument("--domains", type=int, default=30)
    parse.add_argument("--round-steps", type=int, default=200)
    parse.add_argument("--batch", type=int)
    parse.add_argument("--context", type=int, default=128)
    parse.add_argument("--pairs", type=int, default=20)
    parse.add_argument("--estimator", default="sketch")
    parse.add_argument("--buckets", type=int)
    parse.add_argument("--fraction", type=float, default=1.0)
    parse.add_argument("--token-fraction", type=float, default=1.0)
    parse.add_argument("--scaling", type=int, nargs="*", default=[30, 100, 300, 1000])
    a = parse.parse_args()
    options = {
        "estimator": a.estimator,
        "buckets": a.buckets,
        "fraction": a.fraction,
        "token_fraction": a.token_fraction,
    }
    flops = price(domains=a.domains, round_steps=a.round_steps, **options)
    result = {
        "options": options,
        "domains": a.domains,
        "round_steps": a.round_steps,
        "flops": {"batch": 16, "context": 512, **asdict(flops)},
        "overhead_counted_percent": flops.counted,
        "overhead_with_additions_percent": flops.with_additions,
        "steps": [step_times(name, a, options) for name in a.models],
        "scaling": scaling(a, options) if a.estimator == "sketch" else [],
    }
    name = "overhead" if a.estimator == "sketch" else f"overhead-{a.estimator}"
    write_json(RESULTS / f"{name}-{DEVICE.type}.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
