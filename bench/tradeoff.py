"""How close the proportions come for how little work: the choice of the tracker's defaults.

A model trains on a regrouped corpus with R&B. Many trackers watch the same head in the same
steps: one exact, sketches of several sizes, and sketches that look at a part of the steps or
of the tokens; each with several seeds. At the end of each round the rule is applied to each
Gram matrix. The error of a setting is the total variation distance (TV) between its p and that
of exact gradients of all steps. To judge it by: the distance between the exact proportions of
two half-rounds, pure sampling noise.

Work is counted for one shape, GPT-Neo-125M (``bench/pricing.py``). A sketch's error depends on
the numbers that it keeps, buckets x inputs, so a model of another width stands for GPT-Neo with
as many numbers. The model "wide" has GPT-Neo's width, 768, in one layer: there buckets are
the same.

The knee is, by rule, the cheapest setting whose mean TV plus its standard error is below 0.02;
the default is that of the model which needs more numbers.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from pricing import price
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

import rbkit as rb
from rbkit.balance.signals import GramEstimate
from rbkit.balance.sketch import default_buckets
from rbkit.files import write_json
from rbkit.train.models import PadCollator, build_model, tokenize, train_tokenizer

mpl.use("agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"
PROMISE, WIDTH = 0.02, 768


def model_of(name: str, vocab_size: int, context: int) -> Any:
    if name != "wide":
        return build_model(name, vocab_size=vocab_size, context=context)
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=1,
            num_attention_heads=12,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def half_round(tracker: rb.GramTracker, half: int) -> GramEstimate:
    """Gram matrix of one half of the round, from the exact accumulators."""
    total, n = tracker._watched[0].total, tracker._counts[half]
    assert total is not None
    a = total[half].flatten(1).double()
    n, nan = np.where(n > 0, n, np.nan), np.full(len(n), np.nan)
    return GramEstimate((a @ a.T).numpy() / np.outer(n, n), np.nan_to_num(n).astype(int), nan, nan)


def settings(buckets: list[int], fractions: list[float], default: int) -> dict[str, dict[str, Any]]:
    """Options of each family of trackers, by a name to show."""
    return (
        {f"{c} buckets": {"buckets": c} for c in buckets}
        | {f"1/{round(1 / f)} of steps": {"buckets": default, "fraction": f} for f in fractions}
        | {
            f"1/{round(1 / f)} of tokens": {"buckets": default, "token_fraction": f}
            for f in fractions
        }
    )


def run(a: argparse.Namespace) -> dict[str, Any]:
    """Train, with all trackers; return errors by setting and the noise of half-rounds."""
    corpus = rb.load_corpus(a.corpus, eval_size=600)
    domains = rb.regroup(corpus, embedder=a.embedder, k=a.domains)
    tokenizer = train_tokenizer(corpus["train"]["text"], a.vocabulary)
    data = tokenize(corpus["train"]["text"], tokenizer, 96)
    model = model_of(a.model, len(tokenizer), 96)
    head, m, q = model.get_output_embeddings(), domains.m, domains.q
    default = default_buckets(head.in_features)
    families = settings(sorted({*a.buckets, default}), a.fractions, default)
    exact = rb.GramTracker(head, m, estimator="exact")
    trackers = {
        (name, seed): rb.GramTracker(head, m, seed=seed, **options)
        for name, options in families.items()
        for seed in range(a.seeds)
    }
    mixer, rules, halves = rb.RnB(), {key: rb.RnB() for key in trackers}, (rb.RnB(), rb.RnB())
    sampler = rb.MixtureSampler(domains.train_labels, mixer.start(q, domains.sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.learning_rate)
    collate = PadCollator(0)

    def proportions(estimate: GramEstimate, rule: rb.RnB) -> np.ndarray:
        return rule.update(rb.Observation(0, sampler.p, q, domains.sizes, gram=estimate))

    tv: dict[str, list[float]] = defaultdict(list)
    error: dict[str, list[float]] = defaultdict(list)
    for step in tqdm(range(1, a.steps + 1), "training", mininterval=5):
        rows = sampler.take(16)
        batch = collate([data[int(i)] for i in rows])
        scale, labels = int((batch["labels"][:, 1:] != -100).sum()), domains.train_labels[rows]
        with ExitStack() as watching:
            watching.enter_context(exact.batch(labels, scale=scale))
            for (_, seed), tracker in trackers.items():  # seeds look at different steps
                watching.enter_context(tracker.batch(labels, scale=scale, step=step + seed))
            model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % a.round_steps:
            continue
        truth = exact.estimate()
        p = proportions(truth, mixer)
        known = np.isfinite(truth.gram)
        for (name, seed), tracker in trackers.items():
            found = tracker.estimate()
            tv[name].append(0.5 * float(np.abs(proportions(found, rules[name, seed]) - p).sum()))
            both = known & np.isfinite(found.gram)
            wrong = np.linalg.norm((found.gram - truth.gram)[both])
            error[name].append(float(wrong / np.linalg.norm(truth.gram[both])))
            tracker.reset()
        one, other = (proportions(half_round(exact, h), halves[h]) for h in (0, 1))
        tv["half-rounds"].append(0.5 * float(np.abs(one - other).sum()))
        exact.reset()
        sampler.set_proportions(p)
    found = {}
    for name, options in families.items():
        numbers = options["buckets"] * head.in_features
        shape = {**options, "buckets": max(1, round(numbers / WIDTH))}
        cost = price(**shape)
        found[name] = {
            **options,
            "numbers": numbers,
            "tv": describe(tv[name]),
            "relative_gram_error": float(np.mean(error[name])),
            "gpt_neo_buckets": shape["buckets"],
            "counted_percent": cost.counted,
            "with_additions_percent": cost.with_additions,
            "bytes_per_domain": cost.bytes_per_domain,
            "default": name == f"{default} buckets",
        }
    within = {n: r for n, r in found.items() if r["tv"]["mean"] + r["tv"]["error"] < PROMISE}
    knee = min(within, key=lambda name: within[name]["with_additions_percent"], default=None)
    return {
        "corpus": a.corpus,
        "embedder": a.embedder,
        "domains": m,
        "model": a.model,
        "vocabulary": len(tokenizer),
        "inputs": head.in_features,
        "steps": a.steps,
        "round_steps": a.round_steps,
        "seeds": a.seeds,
        "rule": f"cheapest, additions included, whose mean TV + standard error < {PROMISE}",
        "knee": knee,
        "half_rounds": describe(tv["half-rounds"]),
        "settings": found,
    }


def describe(values: list[float]) -> dict[str, float]:
    spread = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return {
        "mean": float(np.mean(values)),
        "max": float(np.max(values)),
        "error": float(spread),
        "n": len(values),
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw a panel for each model."""
    figure, panels = plt.subplots(
        1,
        len(results),
        figsize=(6.2 * len(results), 4.8),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, result in zip(panels[0], results.values(), strict=True):
        panel(axes, result)
    panels[0, 0].set_ylabel("TV of p to exact gradients of all steps (bar: largest)")
    figure.supxlabel("% of the FLOPs of training GPT-Neo-125M, additions included", fontsize=10)
    figure.savefig(path, dpi=150)


def panel(axes: Any, result: dict[str, Any]) -> None:
    marks = {"buckets": ("o", "C0"), "steps": ("s", "C1"), "tokens": ("^", "C2")}
    for kind, (mark, colour) in marks.items():
        rows = {n: r for n, r in result["settings"].items() if n.endswith(kind)}
        rows = dict(sorted(rows.items(), key=lambda item: item[1]["numbers"]))
        x = [r["with_additions_percent"] for r in rows.values()]
        mean, most = ([r["tv"][k] for r in rows.values()] for k in ("mean", "max"))
        label = "size of the sketch" if kind == "buckets" else f"default size, part of the {kind}"
        axes.plot(x, mean, mark + "-", color=colour, label=label)
        axes.plot(x, most, "_", color=colour)
        for name, row in rows.items():
            axes.annotate(
                name.split(" ")[0],
                (row["with_additions_percent"], row["tv"]["mean"]),
                textcoords="offset points",
                xytext=(4, 4),
                fontsize=8,
            )
    if result["knee"]:
        row = result["settings"][result["knee"]]
        axes.plot(
            row["with_additions_percent"],
            row["tv"]["mean"],
            "o",
            ms=15,
            mfc="none",
            mec="black",
            label=f"knee: {result['knee']}",
        )
    noise = result["half_rounds"]["mean"]
    axes.axhline(noise, color="grey", ls="--", lw=1, label="two half-rounds: sampling noise")
    axes.axhline(PROMISE, color="grey", ls=":", lw=1, label=f"{PROMISE}: what is promised")
    axes.axvline(0.01, color="grey", ls="-", lw=0.5)
    axes.set(xscale="log", yscale="log")
    ticks = [0.001, 0.002, 0.005, 0.01, 0.02]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title(f"{result['model']}: {result['inputs']} inputs, {result['domains']} domains")
    axes.legend(fontsize=8)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--corpus", default="wiki")
    parse.add_argument("--embedder", default="tfidf")
    parse.add_argument("--domains", type=int, default=20)
    parse.add_argument("--model", default="tiny", help="tiny, small or wide")
    parse.add_argument("--vocabulary", type=int, default=4096)
    parse.add_argument("--learning-rate", type=float, default=3e-3)
    parse.add_argument("--steps", type=int, default=300)
    parse.add_argument("--round-steps", type=int, default=50)
    parse.add_argument("--buckets", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parse.add_argument("--fractions", type=float, nargs="+", default=[1 / 2, 1 / 4, 1 / 8])
    parse.add_argument("--seeds", type=int, default=3)
    a = parse.parse_args()
    result = run(a)
    path = RESULTS / "tradeoff.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[a.model] = result  # of other models the last results stay
    write_json(path, results)
    draw(results, path.with_suffix(".png"))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
