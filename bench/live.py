"""What the live panel costs: its share of a real training's time, and a frame next to matplotlib's.

`rb.train` on the built-in docstrings, with and without the panel by turns, in random order, in
one process; the seconds of both arms are paired. The screen encodes each frame as a kernel
would send it, and throws it away. `in_a_kernel` is one more run with the panel in a real Jupyter
kernel. The share is what the run itself recorded (``run.json``: ``watch``); the figure at
the end comes after the training and is timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import rbkit as rb
from rbkit.files import write_json
from rbkit.show.live.final import final_figure
from rbkit.show.live.panel import LivePanel, Output, View
from rbkit.show.style import png
from rbkit.train import Run

RESULTS = Path(__file__).parent / "results"


class Sink:
    """Where frames go: encoded, counted, gone."""

    def __init__(self) -> None:
        self.frames, self.bytes = 0, 0

    def show(self, output: Output) -> None:
        """Encode an output."""
        self.frames += 1
        self.bytes += len(json.dumps(output.data).encode())


class TimedPanel(LivePanel):
    """The panel, with the seconds of its end apart."""

    def end(self) -> None:
        """End, and keep how long that took."""
        began = time.perf_counter()
        super().end()
        self.end_seconds = time.perf_counter() - began


def one_run(folder: Path, a: argparse.Namespace, setting: tuple[Any, Any], live: Any) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    corpus, domains = setting
    return rb.train(
        corpus,
        domains,
        run_dir=folder,
        steps=a.steps,
        round_steps=a.round_steps,
        batch_size=a.batch,
        context=a.context,
        checkpoint_rounds=10**6,
        overwrite=True,
        save_model=False,
        progress=False,
        live=live,
        device="cpu" if a.cpu else None,
    )


def in_a_kernel(folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    """Train once more, in a kernel of Jupyter, with the panel in the output of its cell."""
    from jupyter_client.manager import start_new_kernel

    shutil.rmtree(folder, ignore_errors=True)
    updates = []
    cell = f"""
import rbkit as rb
corpus = rb.load_corpus("docstrings")
domains = rb.regroup(corpus, k={a.domains}, embedder="tfidf", progress=False)
_ = rb.train(corpus, domains, run_dir={str(folder)!r}, steps={a.steps},
             round_steps={a.round_steps}, batch_size={a.batch}, context={a.context},
             checkpoint_rounds=10**6, save_model=False, live="live",
             device={"cpu" if a.cpu else None!r})
"""
    manager, client = start_new_kernel()
    try:
        client.execute_interactive(
            cell, timeout=3600, output_hook=lambda m: updates.append(m["msg_type"])
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return {**share(Run.open(folder)), "updates": updates.count("update_display_data")}


def share(run: Run) -> dict[str, float]:
    watched, whole = run.info["watch"]["seconds"], run.info["seconds"]
    return {"seconds": whole, "watch_seconds": watched, "watch_percent": 100 * watched / whole}


def frame_costs(path: Path, repeats: int) -> dict[str, Any]:
    """Time a frame, and the same picture by matplotlib, by turns."""
    view = View(path)
    view.run.refresh()
    view.frame(), png(final_figure(view.run), dpi=100)
    frame, figure = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        output = view.frame()
        middle = time.perf_counter()
        png(final_figure(view.run), dpi=100)
        frame.append(middle - began)
        figure.append(time.perf_counter() - middle)
    ratios = np.array(figure) / np.array(frame)
    return {
        "frame_ms_median": 1000 * float(np.median(frame)),
        "matplotlib_ms_median": 1000 * float(np.median(figure)),
        "times_cheaper_median": float(np.median(ratios)),
        "frame_kilobytes": len(json.dumps(output.data)) / 1000,
    }


def interval(ratios: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(ratios), (5000, len(ratios)))
    low, high = np.percentile(np.median(np.array(ratios)[picks], axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "95": [float(low), float(high)]}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--pairs", type=int, default=6)
    parse.add_argument("--steps", type=int, default=60)
    parse.add_argument("--round-steps", type=int, default=10)
    parse.add_argument("--batch", type=int, default=8)
    parse.add_argument("--context", type=int, default=64)
    parse.add_argument("--domains", type=int, default=14)
    parse.add_argument("--frames", type=int, default=30)
    parse.add_argument("--cpu", action="store_true")
    a = parse.parse_args()
    corpus = rb.load_corpus("docstrings")
    domains = rb.regroup(corpus, k=a.domains, embedder="tfidf", progress=False)
    rng, sink, pairs, shares, ends = np.random.default_rng(0), Sink(), [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        one_run(folder / "warm", a, (corpus, domains), False)
        for _ in range(a.pairs):
            took = {}
            for live in rng.permutation([False, True]):
                panel = TimedPanel("live", screen=sink) if live else False
                cpu = time.process_time()
                run = one_run(folder / str(live), a, (corpus, domains), panel)
                spent = time.process_time() - cpu
                if isinstance(panel, TimedPanel):
                    shares.append(share(run))
                    ends.append(panel.end_seconds)
                took[bool(live)] = (run.info["seconds"] / a.steps, spent)
            pairs.append(took)
            print(json.dumps({**shares[-1], "ratio": took[True][0] / took[False][0]}), flush=True)
        result = {
            "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0]},
            "options": vars(a),
            "m": domains.m,
            "watch_percent": [round(one["watch_percent"], 4) for one in shares],
            "watch_percent_largest": max(one["watch_percent"] for one in shares),
            "step_time_ratio": interval([t[True][0] / t[False][0] for t in pairs]),
            "frames_per_run": sink.frames / a.pairs,
            "kilobytes_per_frame": sink.bytes / sink.frames / 1000,
            "end_seconds_median": float(np.median(ends)),
            "frame": frame_costs(folder / "True", a.frames),
            "in_a_kernel": in_a_kernel(folder / "kernel", a),
        }
    write_json(RESULTS / "live.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
