"""Does balancing pay? Paired seeds, with intervals, and Target in the table.

The demo's corpus, domains and model, once per seed and mixer; results are appended as they
come, and a second call continues where the first stopped. The figure is the final eval
loss per token minus that of Stratified with the same seed: mean over seeds and 95 %
t-interval.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

import rbkit as rb
from rbkit.balance.mixers import mixer_by_name
from rbkit.report.demo import SETTINGS
from rbkit.report.job import load_inputs
from rbkit.report.parameters import RunParameters

RESULTS = Path(__file__).parent / "results" / "learning.jsonl"
RULES = {
    "Stratified": ("Stratified", {}),
    "Proportional": ("Proportional", {}),
    "Target": ("Target", {}),
    "RnB": ("RnB", {}),
    "RnB, prior q": ("RnB", {"prior": "target"}),
}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--seeds", type=int, default=5)
    parse.add_argument("--steps", type=int, default=300)
    parse.add_argument("--round-steps", type=int, default=25)
    parse.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    a = parse.parse_args()
    corpus, domains = load_inputs(RunParameters.from_mapping(SETTINGS))
    setting = f"{domains.m} domains, {a.steps} steps, rounds of {a.round_steps}"
    RESULTS.parent.mkdir(exist_ok=True)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    rows = [row for row in map(json.loads, lines) if row["setting"] == setting]
    for seed in range(a.seeds):
        for rule in a.rules:
            if any((row["rule"], row["seed"]) == (rule, seed) for row in rows):
                continue
            name, options = RULES[rule]
            with tempfile.TemporaryDirectory() as folder:
                run = rb.train(
                    corpus,
                    domains,
                    mixer=mixer_by_name(name, options),
                    run_dir=folder,
                    seed=seed,
                    steps=a.steps,
                    round_steps=a.round_steps,
                    eval_rounds=a.steps,
                    checkpoint_rounds=a.steps,
                    save_model=False,
                    progress=False,
                )
            loss = run.info["final"]["loss_token"]
            rows.append({"setting": setting, "rule": rule, "seed": seed, "loss": loss})
            with RESULTS.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(f"seed {seed}  {rule:<14} {loss:.4f}", flush=True)
    print(setting)
    of = {rule: {r["seed"]: r["loss"] for r in rows if r["rule"] == rule} for rule in a.rules}
    for rule in a.rules:
        seeds = sorted(of[rule].keys() & of["Stratified"].keys())
        gaps = np.array([of[rule][s] - of["Stratified"][s] for s in seeds])
        half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
        print(
            f"{rule:<14} mean loss {np.mean(list(of[rule].values())):.4f}   minus Stratified "
            f"{gaps.mean():+.4f} (95 % {gaps.mean() - half:+.4f} to {gaps.mean() + half:+.4f}, "
            f"{len(gaps)} seeds)"
        )


if __name__ == "__main__":
    main()
