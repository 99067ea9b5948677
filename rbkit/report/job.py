"""The steps of a run notebook, as functions of its parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rbkit.balance.mixers.registry import mixer_by_name
from rbkit.data.corpus import about, corpus_of, load_corpus, part_of
from rbkit.files import free_name
from rbkit.regroup.domains import Domains
from rbkit.regroup.embedders import TransformerEmbedder, make_embedder
from rbkit.regroup.operations import EditLog
from rbkit.regroup.pipeline import regroup
from rbkit.report.parameters import SMOKE_SIZES, RunParameters
from rbkit.train.models import PRESETS


def load_inputs(params: RunParameters, *, progress: bool = True) -> tuple[Any, Domains]:
    """Return the corpus and its domains: saved ones if `params` names a folder, else new.

    Raises
    ------
    InputError
        As :func:`~rbkit.data.corpus.load_corpus` and :func:`~rbkit.regroup.pipeline.regroup`,
        and if saved domains belong to another corpus.
    """
    corpus = load_corpus(
        params.corpus,
        split=params.split,
        text=params.text_column,
        messages=params.messages,
        source=params.source_column,
        eval_size=params.eval_size,
        eval_sources=params.eval_sources,
        max_examples=params.max_examples,
        seed=params.seed,
        progress=progress,
    )
    smoke = params.profile == "smoke"
    if params.domains:
        domains = Domains.load(params.domains)
        domains.check_origin(corpus)
        return _part_of(corpus, domains, params.seed) if smoke else (corpus, domains)
    if smoke:
        corpus = corpus_of(corpus, part_of(corpus, SMOKE_SIZES, params.seed))
    embedder: Any = make_embedder(params.embedder)
    if isinstance(embedder, TransformerEmbedder):
        prefix = params.embedder_prefix
        embedder = TransformerEmbedder(params.embedder, prefix=prefix, max_tokens=params.max_tokens)
    grid: Any = params.k if isinstance(params.k, int) else list(params.k)
    if params.cluster == "hdbscan" and isinstance(grid, list):
        grid = None  # how many there are follows from the data
    if params.edits and EditLog.load(params.edits).embedder:
        embedder = EditLog.load(params.edits).embedder
    domains = regroup(
        corpus,
        embedder=embedder,
        embed=None if params.embed == "text" else params.embed,
        cluster=params.cluster,
        k=grid,
        min_cluster_size=params.min_cluster_size,
        noise=params.noise,
        max_noise=params.max_noise,
        far=params.far,
        unseen=params.unseen,
        edits=params.edits or None,
        seed=params.seed,
        progress=progress,
    )
    return corpus, domains


def _part_of(corpus: Any, domains: Domains, seed: int) -> tuple[Any, Domains]:
    """Return a part of a corpus for a smoke run, each domain in proportion, and its domains."""
    labels = {"train": domains.train_labels, "eval": domains.eval_labels}
    rows = part_of(corpus, SMOKE_SIZES, seed, labels)
    part = corpus_of(corpus, rows)
    both = np.concatenate([rows["train"], rows["eval"] + len(domains.train_labels)])
    return part, replace(
        domains,
        train_labels=domains.train_labels[rows["train"]],
        eval_labels=domains.eval_labels[rows["eval"]],
        method={**domains.method, "corpus": about(part)["fingerprint"], "edits": None},
        keys=None if domains.keys is None else domains.keys.take(both),
        cards=[],
    )


def train_options(params: RunParameters) -> dict[str, Any]:
    """Return the options of :func:`rbkit.train.training.train` that `params` stand for."""
    return {
        "run_dir": params.run_dir or _run_dir(params),
        "mixer": mixer_by_name(params.mixer, params.mixer_options),
        "model": params.model,
        "vocab_size": params.vocab_size if params.model in PRESETS else None,
        "trainable_layers": params.trainable_layers,
        "context": params.context,
        "completion_only_loss": params.completion_only_loss,
        "steps": params.steps,
        "round_steps": params.round_steps,
        "batch_size": params.batch_size,
        "learning_rate": params.learning_rate,
        "packing": params.packing,
        "training_args": params.training_args,
        "estimator": params.estimator,
        "fraction": params.fraction,
        "fidelity_rounds": params.fidelity_rounds,
        "layer": params.layer,
        "metrics": params.metrics or None,
        "metric_examples": params.metric_examples,
        "seed": params.seed,
        "resume": params.resume,
        "overwrite": params.overwrite,
        "record": {"parameters": params.to_dict()},
    }


def _run_dir(params: RunParameters) -> str:
    """Return a new folder under ``reports/``; to resume or overwrite, the first of that name."""
    folder = f"reports/{params.mixer}-{params.seed}"
    return folder if params.resume or params.overwrite else str(free_name(folder))
