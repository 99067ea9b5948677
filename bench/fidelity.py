"""Sketch against exact on a real run: how far apart the proportions are.

A model trains on a regrouped corpus with R&B. Several trackers watch the same head in the
same steps, one exact and sketches of several sizes and seeds; at the end of each round the
rule is applied to each Gram matrix. The figure is the total variation distance between the
proportions from a sketch and those from the exact gradients, and, to judge it by, the
distance between the exact proportions of two half-rounds: pure sampling noise.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import rbkit as rb
from rbkit.balance.signals import GramEstimate
from rbkit.files import write_json
from rbkit.train.models import build_model
from rbkit.train.text import PadCollator, tokenize, train_tokenizer

RESULTS = Path(__file__).parent / "results"


def half_round(tracker: rb.GramTracker, half: int) -> GramEstimate:
    """Gram matrix of one half of the round, from the exact accumulators."""
    watched = tracker._watched[0]
    assert watched.total is not None
    a = watched.total[half].flatten(1).double()
    n = tracker._counts[half]
    scale = np.where(n > 0, 1.0 / np.maximum(n, 1), np.nan)
    nan = np.full(len(n), np.nan)
    return GramEstimate((a @ a.T).numpy() * np.outer(scale, scale), n.copy(), nan, nan)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--corpus", default="wiki")
    parse.add_argument("--embedder", default="tfidf")
    parse.add_argument("--domains", type=int, default=20)
    parse.add_argument("--model", default="tiny")
    parse.add_argument("--steps", type=int, default=300)
    parse.add_argument("--round-steps", type=int, default=50)
    parse.add_argument("--buckets", type=int, nargs="+", default=[32, 64, 128, 256])
    parse.add_argument("--seeds", type=int, default=3)
    a = parse.parse_args()
    corpus = rb.load_corpus(a.corpus, eval_size=600)
    domains = rb.regroup(corpus, embedder=a.embedder, k=a.domains)
    tokenizer = train_tokenizer(corpus["train"]["text"], 4096)
    data = tokenize(corpus["train"]["text"], tokenizer, 96)
    model = build_model(a.model, vocab_size=len(tokenizer), context=96)
    head, m, q = model.get_output_embeddings(), domains.m, domains.q
    exact = rb.GramTracker(head, m, estimator="exact")
    sketches = {
        (c, s): rb.GramTracker(head, m, buckets=c, seed=s)
        for c in a.buckets
        for s in range(a.seeds)
    }
    mixer = rb.RnB()
    sampler = rb.MixtureSampler(domains.train_labels, mixer.start(q, domains.sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    collate = PadCollator(0)

    def proportions(estimate: GramEstimate, rule: rb.RnB) -> np.ndarray:
        return rule.update(rb.Observation(0, sampler.p, q, domains.sizes, gram=estimate))

    rules = {key: rb.RnB() for key in sketches}
    halves = [rb.RnB(), rb.RnB()]
    distance: dict[str, list[float]] = {str(c): [] for c in a.buckets} | {"half-rounds": []}
    gram_error: dict[str, list[float]] = {str(c): [] for c in a.buckets}
    for step in tqdm(range(1, a.steps + 1), "training", mininterval=1):
        rows = sampler.take(16)
        batch = collate([data[int(i)] for i in rows])
        scale = int((batch["labels"][:, 1:] != -100).sum())
        with ExitStack() as watching:
            for tracker in (exact, *sketches.values()):
                watching.enter_context(tracker.batch(domains.train_labels[rows], scale=scale))
            model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % a.round_steps == 0:
            truth = exact.estimate()
            p = proportions(truth, mixer)
            for (c, s), tracker in sketches.items():
                found = tracker.estimate()
                tv = 0.5 * np.abs(proportions(found, rules[c, s]) - p).sum()
                distance[str(c)].append(float(tv))
                known = np.isfinite(truth.gram)
                error = np.linalg.norm((found.gram - truth.gram)[known])
                gram_error[str(c)].append(float(error / np.linalg.norm(truth.gram[known])))
                tracker.reset()
            pair = [proportions(half_round(exact, h), halves[h]) for h in (0, 1)]
            distance["half-rounds"].append(float(0.5 * np.abs(pair[0] - pair[1]).sum()))
            exact.reset()
            sampler.set_proportions(p)
    summary = {
        "corpus": a.corpus, "embedder": a.embedder, "domains": m, "model": a.model,
        "steps": a.steps, "round_steps": a.round_steps, "sketch_seeds": a.seeds,
        "tv_of_p": {
            key: {"mean": float(np.mean(v)), "max": float(np.max(v)), "n": len(v)}
            for key, v in distance.items()
        },
        "relative_gram_error": {key: float(np.mean(v)) for key, v in gram_error.items()},
    }  # fmt: skip
    write_json(RESULTS / "fidelity.json", summary)
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
