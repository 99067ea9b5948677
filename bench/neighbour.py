"""What a busy process beside it costs: choosing k, a step of training, and the demo.

Each task runs in a process of its own, alone and beside one that is always busy, under the
waiting policy that ``import rbkit`` sets and under OpenMP's own, by which waiting threads spin.
Settings alternate, in another order in every repeat. `beside` is seconds beside the busy process
over seconds alone, `alone` seconds alone over those under OpenMP's own policy: all of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
# 300,000 turns is what libgomp takes where nothing is said.
POLICIES = {"rbkit": {}, "openmp": {"GOMP_SPINCOUNT": "300000"}}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def kmeans() -> float:
    """Fit k-means to 13,000 vectors of 384 numbers."""
    from rbkit.regroup.kmeans import KMeans

    return _best(KMeans(16).fit, _vectors(), times=5)


def choose() -> float:
    """Choose k for 13,000 vectors of 384 numbers."""
    from rbkit.regroup.choose import choose_k

    return _best(choose_k, _vectors(), [8, 12, 16, 24, 32], times=1)


def step() -> float:
    """Train the preset ``tiny`` on 16 x 128 tokens, with tracking: the median step."""
    import rbkit as rb  # before torch: it sets how threads wait
    from rbkit.train.models import build_model

    import torch  # isort: skip

    model = build_model("tiny").train()
    tracker = rb.GramTracker(model.get_output_embeddings(), 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, model.config.vocab_size, (16, 128)))
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        with tracker.batch(rng.integers(0, 8, 16), scale=ids.numel()):
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def demo() -> float:
    """Run the whole demo, in the smoke profile, as a user does."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = ["-m", "rbkit.cli", "demo", "--out", folder, "-p", "profile=smoke"]
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - began


TASKS = {task.__name__: task for task in (kmeans, choose, step, demo)}


def _vectors() -> Any:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(30, 384))
    rows = centers[rng.integers(0, 30, 13_000)] + rng.normal(size=(13_000, 384))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _best(work: Any, *args: Any, times: int) -> float:
    work(*args)
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work(*args)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def timed(task: str, policy: dict[str, str], beside: bool) -> float:
    """Run a task in a fresh process; return its seconds."""
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | policy
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", task], env=env, check=True, capture_output=True
        )
    finally:
        if loop is not None:
            loop.kill()
            loop.wait()
    return float(done.stdout.split()[-1])


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parse.add_argument("--repeats", type=int, default=3)
    parse.add_argument("--one", choices=TASKS, help=argparse.SUPPRESS)
    parse.add_argument("--policy", action="append", default=[], metavar="NAME=VALUE")
    a = parse.parse_args()
    if a.one:
        print(TASKS[a.one]())
        return
    policies = POLICIES | {given: dict([given.split("=")]) for given in a.policy}
    rng = np.random.default_rng(0)
    rows = []
    RESULTS.mkdir(exist_ok=True)
    for task in a.tasks:
        seconds: dict[tuple[str, bool], list[float]] = {
            (name, beside): [] for name in policies for beside in (False, True)
        }
        for _ in range(a.repeats):
            for at in rng.permutation(len(seconds)):
                name, beside = list(seconds)[at]
                seconds[name, beside].append(timed(task, policies[name], beside))
        median = {key: statistics.median(values) for key, values in seconds.items()}
        for name in policies:
            row = {
                "task": task,
                "policy": name,
                "seconds_alone": median[name, False],
                "seconds_beside": median[name, True],
                "beside": median[name, True] / median[name, False],
                "alone": median[name, False] / median["openmp", False],
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
        (RESULTS / "neighbour.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
