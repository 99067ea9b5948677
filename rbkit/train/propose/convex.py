r"""MixMin (arXiv 2502.10510): one small model per domain, then a convex problem.

:math:`\min_{p \in \Delta} -\sum_x w_x \log \sum_i p_i P_i(x)` is the loss of an ensemble of
the domains' models, and in the limit of large models that of one model trained on the mixture.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from torch.utils.flop_counter import FlopCounterMode

from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError, as_count, as_number, as_seed
from rbkit.files import atomic_path, own, read_npz
from rbkit.regroup.domains import Domains
from rbkit.text import progress_bar
from rbkit.train.losses import length_batches, token_losses
from rbkit.train.models import PadCollator, build_model, load_tokenizer, tokenize
from rbkit.train.propose.runs import Proposal, check_options, cost_of, train_all
from rbkit.train.run import Run
from rbkit.train.training import without_library_bars


@dataclass(frozen=True, eq=False)
class Solution:
    """A minimum, and how sure it is.

    Attributes
    ----------
    p : ndarray of shape (m,), float64
    loss : float
        Objective at `p`.
    gap : float
        The objective can be lowered by this at most: it is convex.
    steps : int
        Steps made.
    """

    p: FloatArray
    loss: float
    gap: float
    steps: int


def mixture_loss(p: FloatArray, log_prob: FloatArray, weights: FloatArray) -> float:
    r"""Return :math:`-\sum_x w_x \log \sum_i p_i P_i(x)`.

    p (m,), `log_prob` (m, n) of each document (or token) under each source model, weights (n,).

    Examples
    --------
    >>> log_prob = np.log([[0.5, 0.1], [0.1, 0.5]])
    >>> mixture_loss(np.array([0.5, 0.5]), log_prob, np.array([0.5, 0.5])).__round__(3)
    1.204
    """
    with np.errstate(divide="ignore"):
        mixed = logsumexp(np.log(p)[:, None] + log_prob, axis=0)
    return float(-(weights @ mixed))


def gains(p: FloatArray, log_prob: FloatArray, weights: FloatArray) -> FloatArray:
    """Return minus the gradient of :func:`mixture_loss` in `p`, (m,)."""
    with np.errstate(divide="ignore"):
        mixed = logsumexp(np.log(p)[:, None] + log_prob, axis=0)
    gradient: FloatArray = np.exp(np.minimum(log_prob - mixed, 700.0)) @ weights
    return gradient


def minimise(
    log_prob: FloatArray,
    weights: FloatArray,
    *,
    lr: float = 1.0,
    steps: int = 100,
    tol: float = 1e-4,
) -> Solution:
    """Minimise :func:`mixture_loss` by exponentiated gradient from the uniform mixture.

    Published: lr 1, at most 100 steps, tol 1e-4. A step that would raise the loss is halved
    until it does not, since a rate of 1 has no guarantee. The end is where the loss can fall by
    at most `tol` more: the published code looks at the size of the gradient instead, which on
    the simplex is never small.

    Parameters
    ----------
    log_prob : ndarray of shape (m, n)
        Finite log-probabilities.
    weights : ndarray of shape (n,)
        Positive.

    Raises
    ------
    InputError
        For arrays that cannot be this.

    Examples
    --------
    Two sources, three documents: the first source is right about two of them.

    >>> log_prob = np.log([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]])
    >>> minimise(log_prob, np.full(3, 1 / 3), tol=1e-9).p.round(3)
    array([0.708, 0.292])
    """
    log_prob, weights = np.asarray(log_prob, np.float64), np.asarray(weights, np.float64)
    if log_prob.ndim != 2 or not log_prob.size or log_prob.shape[1:] != weights.shape:
        raise InputError(
            "log_prob",
            f"shape {log_prob.shape} with weights of shape {weights.shape}",
            "give (sources, documents) and (documents,)",
        )
    if not (np.isfinite(log_prob).all() and (weights > 0).all()):
        raise InputError("log_prob", "not all finite, or a weight is not positive", "check them")
    if not (lr > 0 and steps >= 0 and tol >= 0):
        raise InputError("lr, steps, tol", f"{lr}, {steps}, {tol} cannot work", "try 1, 100, 1e-4")
    shift = log_prob.max(axis=0)  # a constant per document changes no p
    log_prob = log_prob - shift
    p = np.full(len(log_prob), 1 / len(log_prob))
    loss, made = mixture_loss(p, log_prob, weights), 0
    while True:
        gain = gains(p, log_prob, weights)
        gap = float(gain.max() - weights.sum())  # the gains' mean under p is the weights' sum
        if gap <= tol or made == steps:
            break
        rate = lr
        while True:
            tried = softmax(np.log(np.maximum(p, 1e-300)) + rate * gain)
            if (lower := mixture_loss(tried, log_prob, weights)) <= loss or rate < 1e-12:
                break
            rate /= 2
        p, loss, made = tried, lower, made + 1
    return Solution(p, loss - float(weights @ shift), max(gap, 0.0), made)


_DEFAULTS = {"steps": 100, "eval_rounds": 10**9, "save_model": True}
_FILE = "log_probabilities.npz"
_BATCH = 64


def mixmin(
    corpus: Any,
    domains: Domains,
    folder: str | Path,
    *,
    per: Literal["document", "token"] = "document",
    lr: float = 1.0,
    max_steps: int = 100,
    tol: float = 1e-4,
    holdout: float = 0.2,
    seed: int = 0,
    progress: bool = True,
    **train_options: Any,
) -> Proposal:
    r"""Propose a mixture from source small run per domain (MixMin, arXiv 2502.10510).

    Each source model gives the eval set a probability. The proposal is the mixture of the models
    that gives it the highest, :math:`\min_p -\sum_x w_x \log \sum_i p_i P_i(x)`: a convex
    problem, solved by exponentiated gradient.

    Parameters
    ----------
    corpus : datasets.DatasetDict
    domains : Domains
    folder : path
        Holds a run folder per domain (``source-000`` and so on) and ``proposal.json``. A second
        call continues where the first was stopped.
    per : {"document", "token"}
        What :math:`P_i` is a probability of: a whole document, with :math:`w_x` source over
        its tokens, as in the authors' code for language models; or each token after those before
        it, where models may take turns inside a document.
    lr, max_steps, tol : float, int, float
        Of the exponentiated gradient; see :func:`~rbkit.train.propose.convex.minimise`.
    holdout : float
        Share of the eval examples that are not used, and show whether the mixture generalises
        (0.2 in the authors' code); 0 for none.
    seed : int
        Of runs, and of the split into used and held-out examples.
    progress : bool
        Show bars.
    **train_options
        Options of :func:`rbkit.train.training.train` for the small runs; 100 steps by default.

    Returns
    -------
    Proposal
        Diagnostics: losses of the mixture, of the uniform source and of the best single source, on
        the examples used and on those held out; ``gap``, by how much the objective could still
        fall; ``steps``.

    Raises
    ------
    InputError
        For options that cannot work, or a folder that holds runs of something else.
    KeyboardInterrupt
        If it was stopped; the same call continues.
    """
    if per not in ("document", "token"):
        raise InputError("per", f"{per!r} is unknown", "use document or token")
    seed, max_steps = as_seed(seed), as_count("max_steps", max_steps, least=1)
    if not 0 <= as_number("holdout", holdout, "try 0.2") < 1:
        raise InputError("holdout", f"{holdout} is not a share from 0 to 1", "try 0.2")
    options = check_options(train_options, _DEFAULTS | {"seed": seed})
    if not options["save_model"]:
        raise InputError("save_model", "the source models are needed afterwards", "leave it out")
    folder = Path(folder)
    there = np.flatnonzero(np.asarray(domains.sizes) > 0)
    names = [f"source-{i:03d}" for i in there]
    runs = train_all(
        corpus, domains, folder, np.eye(domains.m)[there], options, names=names, progress=progress
    )
    rows = np.flatnonzero(np.asarray(domains.eval_labels) >= 0)
    texts = corpus["eval"].select_columns(["text"])[rows]["text"]
    bar = progress_bar(runs, desc="source models", unit="model", disable=not progress)
    scored = [source_log_probabilities(run, texts) for run in bar]
    log_prob, starts = np.stack([source[0] for source in scored]), scored[0][1]
    used = _used(len(rows), holdout, seed)
    fit_on, weigh_fit = objective(log_prob, starts, used, per)
    solution = minimise(fit_on, weigh_fit, lr=lr, steps=max_steps, tol=tol)
    uniform = np.full(len(there), 1 / len(there))
    diagnostics: dict[str, Any] = {"gap": solution.gap, "steps": solution.steps}
    for name, chosen in {"used": used, "held_out": ~used}.items():
        if chosen.any():
            part, weigh = objective(log_prob, starts, chosen, per)
            diagnostics[name] = {
                "examples": int(chosen.sum()),
                "loss": mixture_loss(solution.p, part, weigh),
                "loss_uniform": mixture_loss(uniform, part, weigh),
                "loss_best_source": float(-(part @ weigh).max()),
            }
    p = np.zeros(domains.m)
    p[there] = solution.p
    cost = cost_of(runs)
    cost["flops"] += sum(source[2] for source in scored)
    cost["seconds"] += sum(source[3] for source in scored)
    proposal = Proposal(
        p / p.sum(),
        "MixMin",
        tuple(domains.names),
        diagnostics["held_out" if (~used).any() else "used"]["loss"],
        diagnostics=diagnostics,
        cost=cost,
        options={
            "per": per,
            "lr": lr,
            "max_steps": max_steps,
            "tol": tol,
            "holdout": holdout,
            "seed": seed,
            "train": {name: str(value) for name, value in options.items()},
        },
    )
    proposal.save(folder / "proposal.json")
    return proposal


def objective(
    log_prob: FloatArray, starts: np.ndarray[Any, Any], chosen: np.ndarray[Any, Any], per: str
) -> tuple[FloatArray, FloatArray]:
    """Return log-probabilities (m, n) and weights (n,) of the objective on `chosen` documents.

    `log_prob` (m, tokens) of all documents, one after the other; `starts` (documents + 1,),
    where each document's tokens begin. A chosen document without a predicted token is left out.

    Examples
    --------
    >>> log_prob, weights = objective(np.log([[.5, .5, .25]]), np.array([0, 2, 3]),
    ...                               np.array([True, True]), "document")
    >>> np.exp(log_prob), weights
    (array([[0.25, 0.25]]), array([0.25, 0.5 ]))
    """
    lengths = np.diff(starts)
    chosen = chosen & (lengths > 0)
    if not chosen.any():
        raise InputError("holdout", "no eval example is left to fit to", "hold out fewer")
    if per == "token":
        tokens = log_prob[:, np.repeat(chosen, lengths)]
        return tokens, np.full(tokens.shape[1], 1 / tokens.shape[1])
    sums = np.add.reduceat(np.pad(log_prob, ((0, 0), (0, 1))), starts[:-1], axis=1)
    return sums[:, chosen], 1 / (lengths[chosen] * chosen.sum())


def source_log_probabilities(
    run: Run, texts: Sequence[str]
) -> tuple[FloatArray, np.ndarray[Any, Any], float, float]:
    """Return a run's log-probability of every predicted token of `texts`, cached in its folder.

    Float32 of shape (tokens,); where each text's tokens begin, (len(texts) + 1,); and what the
    computation cost in FLOPs and seconds.
    """
    path, made_by = run.path / _FILE, str(run.info.get("ended"))
    if path.is_file():
        cached = read_npz(path, "delete it: it is made again")
        if str(cached["run_ended"]) == made_by:
            return (
                cached["log_prob"],
                cached["starts"],
                float(cached["flops"]),
                float(cached["seconds"]),
            )
    device = torch.device(str(run.info.get("device") or "cpu"))
    folder = str(own(run.path, "model"))
    with without_library_bars():
        model = build_model(folder).to(device).eval()
    tokenizer = load_tokenizer(folder)
    data = tokenize(texts, tokenizer, int(run.info["parameters"]["context"]))["input_ids"]
    lengths = np.array([len(ids) for ids in data])
    starts = np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))])
    log_prob = np.zeros(starts[-1], dtype=np.float32)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    collate, began = PadCollator(int(pad or 0)), time.perf_counter()
    flops, padded = 0.0, 0
    for number, chosen in enumerate(length_batches(lengths, _BATCH)):
        batch = collate([{"input_ids": data[int(i)]} for i in chosen])
        padded += batch["input_ids"].numel()
        counter: Any = FlopCounterMode(display=False) if number == 0 else nullcontext()
        with torch.no_grad(), counter:
            losses, valid = token_losses(model, {k: v.to(device) for k, v in batch.items()})
        if number == 0:  # the counter is slow: count once, and scale by padded tokens below
            flops = counter.get_total_flops() / padded
        for row, predicted, i in zip(losses.cpu(), valid.cpu(), chosen, strict=True):
            log_prob[starts[i] : starts[i + 1]] = -row[predicted].numpy()
    flops, seconds = flops * padded, time.perf_counter() - began
    with atomic_path(path) as tmp:
        np.savez(
            tmp, log_prob=log_prob, starts=starts, flops=flops, seconds=seconds, run_ended=made_by
        )
    return log_prob, starts, flops, seconds


def _used(n: int, holdout: float, seed: int) -> np.ndarray[Any, Any]:
    """Which eval examples the mixture is fitted to, (n,) bool."""
    used = np.ones(n, dtype=bool)
    used[np.random.default_rng([seed, 5]).permutation(n)[: int(holdout * n)]] = False
    return used
