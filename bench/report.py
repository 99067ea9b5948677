"""How long a report of many runs takes, and how large it becomes.

Writes a sweep of made-up runs (14 domains, 12 rounds, 20 variants by 10 seeds, some of
which failed or were killed), then its report, in a process of its own: seconds on the
clock, seconds of CPU (which a busy machine does not stretch), megabytes, peak memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import platform
import resource
import shlex
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "report.json"
MIXERS = ("Stratified", "Target", "RnB", "DGA", "DoGE")
KS = (8, 10, 14, 20)
BAD = ("failed", "killed", "timeout", "interrupted")
TAIL = [
    "Traceback (most recent call last):",
    *(f'  File "layer_{i}.py", line {i}, in forward' for i in range(20)),
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
]


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--seeds", type=int, default=10, help="runs of each of the 20 variants")
    parse.add_argument("--keep", type=Path, help="leave sweep and page in this folder")
    parse.add_argument("--results", type=Path, default=RESULTS)
    a = parse.parse_args()
    folder = a.keep or Path(tempfile.mkdtemp(prefix="rbkit-bench-"))
    try:
        made = write_sweep(folder, MIXERS, KS, a.seeds)
        # A process that has done nothing else: its peak memory is the report's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(measure, folder).result()
    finally:
        if a.keep is None:
            shutil.rmtree(folder)
    found = {
        "runs": made,
        "variants": len(MIXERS) * len(KS),
        **found,
        "python": sys.version[:7],
        "machine": platform.machine(),
    }
    a.results.parent.mkdir(exist_ok=True)
    a.results.write_text(json.dumps(found, indent=2) + "\n")
    print(
        f"{made} runs: {found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU), "
        f"page {found['page_mb']:.2f} MB, numbers {found['numbers_mb']:.2f} MB, "
        f"peak memory {found['peak_gb']:.2f} GB"
    )


def measure(folder: Path) -> dict[str, Any]:
    """Write the report of the sweep in `folder`; imports are part of it."""
    began, cpu = time.perf_counter(), time.process_time()
    from rbkit.report import write_report

    page = write_report(folder, folder / "index.html", progress=False)
    numbers = sum(path.stat().st_size for path in (folder / "numbers").iterdir())
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "page_mb": round(page.stat().st_size / 1e6, 3),
        "numbers_mb": round(numbers / 1e6, 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }


def write_sweep(
    folder: Path, mixers: tuple[str, ...], ks: tuple[int, ...], seeds: int, bad_every: int = 17
) -> int:
    """Write a sweep of made-up runs; each `bad_every`-th did not end well."""
    from rbkit.report.sweep.folder import new_job, write_job

    source = importlib.util.spec_from_file_location(
        "fake_runs", HERE.parent / "tests" / "show" / "fake_runs.py"
    )
    assert source is not None
    assert source.loader is not None
    fake = importlib.util.module_from_spec(source)
    source.loader.exec_module(fake)
    ids = []
    for i, (mixer, k, seed) in enumerate(itertools.product(mixers, ks, range(seeds))):
        varied = {"mixer": mixer, "k": k, "seed": seed}
        id = f"{mixer.lower()}-k-{k}-seed-{seed}-{i:08x}"
        status = BAD[i // bad_every % 4] if i % bad_every == bad_every - 1 else "ok"
        recorded = status if status in ("failed", "interrupted", "ok") else "killed"
        run = fake.write_run(folder / "runs" / id, mixer, seed, status=recorded)
        run.info["parameters"] |= varied
        if run.info["final"]:
            run.info["final"]["loss_token"] += 0.002 * (k - 10)
        (run.path / "run.json").write_text(json.dumps(run.info))
        for name in ("run.html", "run.ipynb"):
            (run.path / name).write_text("")
        pairs = [word for name, v in varied.items() for word in ("-p", f"{name}={v}")]
        command = shlex.join(["rbkit", "run", "90_run", "--out", f"runs/{id}", *pairs])
        job = new_job(id, "90_run.ipynb", run.info["parameters"], varied, command)
        job |= {"status": status, "attempts": 1, "seconds": 91.5}
        if status != "ok":
            job |= {
                "error": TAIL[-1] if status == "failed" else None,
                "cell": "train",
                "tail": TAIL if status == "failed" else [],
            }
        write_job(run.path, job)
        ids.append(id)
    grid = {"mixer": list(mixers), "k": list(ks), "seed": list(range(seeds))}
    info = {
        "format": "rbkit-sweep/1",
        "template": "notebooks/90_run.ipynb",
        "template_sha": "0" * 64,
        "grid": grid,
        "parameters": {},
        "calls": [],
        "jobs": ids,
        "superseded": [],
        "command": f'rbkit sweep 90_run --grid "mixer={",".join(mixers)} k={",".join(map(str, ks))}'
        f' seed=0..{seeds - 1}" --out {folder.name}',
        "launcher": None,
        "rbkit": "0.1.0",
        "versions": {},
        "git": {"commit": "1" * 40, "changed": False},
        "machine": {"cpus": 2, "memory_gb": 8.0, "platform": "Linux", "gpus": []},
        "created": "2026-03-01T10:00:00+00:00",
    }
    (folder / "sweep.json").write_text(json.dumps(info, indent=2))
    return len(ids)


if __name__ == "__main__":
    main()
