r"""The Gram matrix of domain gradients, from what training computes anyway.

For a linear layer ``y = x W^T`` with inputs ``H`` (T, d) and gradients at its outputs
``Delta`` (T, V), the gradient of W is ``Delta^T H``, a sum over rows; the part that
domain i contributed is the same sum over the rows of its examples,

.. math:: A_i = \Delta_i^T H_i ,

as in Appendix E.1 of R&B (arXiv 2505.00358). No second backward pass is needed. The
tracker adds these up over a round of K steps and then forms

.. math:: G_{ij} = \langle A_i, A_j \rangle / (n_i n_j)    \qquad \text{(Algorithm 1)}.

Three things are easy to get wrong here:

- G holds products *across* steps, so the A_i are accumulated, never per-step Grams.
- A mean-reduced loss hides each example's weight: `scale` undoes it.
- The head of a tied embedding shares its ``.grad`` with the input side; H and Delta do not.

Over processes, too, only what is linear in the gradient is summed: accumulators and counts. Each
process then forms G from the sums. All must call in the same order.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rbkit.balance.grouped import GroupedLayer
from rbkit.balance.signals import FloatArray, GramEstimate, IntArray
from rbkit.balance.sketch import CountSketch, default_buckets
from rbkit.balance.watched import (
    Groups,
    Ids,
    Watch,
    WatchedLayer,
    alternate,
    check_halves,
    check_ids,
    group_counts,
)
from rbkit.errors import InputError, as_count, as_number

Estimator = Literal["sketch", "exact", "grouped"]
_LEAST = 1e-6  # examples: a domain of which decay leaves less than this is forgotten


class GramTracker:
    """Accumulate domain gradients of linear layers over a round, and give their Gram matrix.

    Parameters
    ----------
    layers : nn.Linear or sequence of nn.Linear
        The layers to watch; gradients of several are concatenated, so G is the sum of theirs.
        Any module works that maps (..., d) to (..., V) by a matrix; biases are left
        out. ``grouped`` needs ``nn.Linear`` itself.
    n_domains : int
        m.
    estimator : {"sketch", "exact", "grouped"}
        ``sketch`` keeps ``buckets * d`` numbers per domain and half-round, whose inner
        products are right in expectation (:mod:`rbkit.balance.sketch`). ``exact`` keeps
        V x d, from a product of its own. ``grouped`` keeps as many, from the layer's own
        weight gradient, made domain by domain (:mod:`rbkit.balance.grouped`): no further
        products, but V x d additions for each domain in a batch.
    buckets : int, optional
        Size of the sketch; a layer with no more outputs is tracked exactly. The default gives
        at most 8,192 numbers (10 buckets for d = 768), on which the error depends.
    seed : int
        Seed of the signs, and of which tokens are used.
    fraction : float
        Share, in (0, 1], of the batches that are tracked, evenly spaced.
    token_fraction : float
        Share, in (0, 1], of the tokens of a batch that are used; the estimate of each
        A_i stays unbiased. Not with ``grouped``.
    decay : float
        Share, in [0, 1), of earlier rounds' sums and counts that :meth:`reset` keeps. With
        it signs stay the same from round to round.

    Attributes
    ----------
    round : int
        Rounds so far.
    watch_with : callable or None
        ``watch_with(device)`` gives a context manager that is put around each piece of the
        tracker's own work, to measure it.

    Notes
    -----
    Works with padding and ignored labels (their rows of Delta are 0), gradient
    accumulation, gradient checkpointing (outputs are hooked, not forward calls), autocast
    (products are taken in float32, except for ``grouped``), and tied embeddings. With
    activation checkpointing of the watched layer itself its input is kept alive.

    Several processes (``torch.distributed``): each tracks its own batches;
    :meth:`estimate` and :meth:`state_dict` are called by all together, and sum over them.

    Examples
    --------
    >>> model = nn.Linear(3, 5, bias=False)
    >>> tracker = GramTracker(model, n_domains=2)
    >>> x, domains = torch.eye(3), torch.tensor([0, 0, 1])
    >>> with tracker.batch(domains, scale=3):   # the loss below is a mean over 3 examples
    ...     (model(x).sum() / 3).backward()
    >>> tracker.estimate().gram   # g_0 = 1 (e_0 + e_1)/2, g_1 = 1 e_2, each of 5 rows
    array([[2.5, 0. ],
           [0. , 5. ]])
    """

    def __init__(
        self,
        layers: nn.Module | Sequence[nn.Module],
        n_domains: int,
        *,
        estimator: Estimator = "sketch",
        buckets: int | None = None,
        seed: int = 0,
        fraction: float = 1.0,
        token_fraction: float = 1.0,
        decay: float = 0.0,
    ) -> None:
        layers = [layers] if isinstance(layers, nn.Module) else list(layers)
        n_domains = as_count("n_domains", n_domains, least=1, remedy="give m >= 1")
        seed = as_count("seed", seed)
        if estimator not in get_args(Estimator):
            raise InputError(
                "estimator", f"{estimator!r} is unknown", "use 'sketch', 'exact' or 'grouped'"
            )
        if buckets is not None:
            buckets = as_count("buckets", buckets, least=1, remedy="leave it out")
        fraction = as_number("fraction", fraction, "give 1 to use all")
        token_fraction = as_number("token_fraction", token_fraction, "give 1 to use all")
        for name, share in (("fraction", fraction), ("token_fraction", token_fraction)):
            if not 0 < share <= 1:
                raise InputError(name, f"{share} is not in (0, 1]", "give 1 to use all")
        if token_fraction < 1 and estimator == "grouped":
            raise InputError(
                "token_fraction",
                "the layer's own gradient needs all tokens",
                "use estimator='sketch', or fraction",
            )
        if not 0 <= (decay := as_number("decay", decay, "give 0 to keep nothing")) < 1:
            raise InputError("decay", f"{decay} is not in [0, 1)", "give 0 to keep nothing")
        self.n_domains = n_domains
        self.estimator = estimator
        self.buckets = buckets
        self.seed = seed
        self.fraction = fraction
        self.token_fraction = token_fraction
        self.decay = decay
        self.round = 0
        self.watch_with: Callable[[torch.device], AbstractContextManager[Any]] | None = None
        kind = GroupedLayer if estimator == "grouped" else WatchedLayer
        self._watched = [
            kind(layer, n_domains, partial(self._make_sketch, place))
            for place, layer in enumerate(layers)
        ]
        self._counts: FloatArray = np.zeros((2, n_domains))  # n, of each half
        self._examples: FloatArray = np.zeros(n_domains)  # of this round alone
        self._turn: IntArray = np.zeros(n_domains, dtype=np.int64)
        self._calls = 0
        self._hooks = [watched.hook() for watched in self._watched]

    def _make_sketch(self, place: int, outputs: int, inputs: int) -> CountSketch:
        """Return the sketch of layer number `place` in the present round."""
        buckets = outputs
        if self.estimator == "sketch":
            buckets = default_buckets(inputs) if self.buckets is None else self.buckets
        entropy = [self.seed, 0 if self.decay else self.round, place]
        words = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return CountSketch(outputs, inputs, buckets, seed=int(words[0] >> np.uint64(1)))

    @contextmanager
    def batch(
        self,
        domains: Ids,
        scale: float | Tensor = 1.0,
        *,
        step: int | None = None,
        halves: Ids | None = None,
        counts: ArrayLike | Tensor | None = None,
    ) -> Iterator[None]:
        """Watch one batch: run its forward and backward pass inside.

        Parameters
        ----------
        domains : integer tensor of shape (B,) or (B, T)
            Domain of each example, in the order of the batch, or of each token, where
            examples are packed; -1 leaves an example or token out.
        scale : float
            What the summed loss was divided by before ``backward``: the number of valid
            tokens for a token mean, times the steps of gradient accumulation if the loss
            is divided by those too. A wrong constant cancels in R&B's normalised rule;
            one that varies from batch to batch weighs batches unequally.
        step : int, optional
            Number of the optimizer step, from 0: with `fraction` < 1 it decides whether the
            batch is tracked, so that all its micro-batches, in all processes, are or are
            not. Without it the tracker counts its calls.
        halves : integer tensor of the shape of `domains`, optional
            Half of the round, 0 or 1, that each example (or token) belongs to. By default
            the examples of a domain alternate; so do documents, runs of equal ids in a row.
        counts : array of shape (m,) or (2, m), optional
            Examples of each domain (and half) that the batch adds to n. By default the ids
            are counted: examples, or tokens.
        """
        call = self._calls
        self._calls += 1
        if not self._hooks or not is_tracked(call if step is None else step, self.fraction):
            yield
            return
        ids = check_ids(domains, self.n_domains)
        turn = self._turn.copy()
        if halves is None:
            half = alternate(ids, turn, first=rank() % 2)
        else:
            half = check_halves(halves, ids)
        groups = Groups.of(ids, half)
        added = group_counts(groups, counts, self.n_domains)
        start = float(np.random.default_rng([self.seed, rank(), call]).random())
        watch = Watch(groups, float(scale), self.token_fraction, start, self.watch_with)
        with ExitStack() as stack:
            for watched in self._watched:
                stack.enter_context(watched.watching(watch))
                stack.enter_context(watched.noticing_a_bypass())
            yield
        for watched in self._watched:
            watched.settle(groups.keys, added)
        self._turn = turn
        np.add.at(self._counts, tuple(groups.keys.T), added)
        np.add.at(self._examples, groups.keys[:, 1], added)

    @torch.no_grad()
    def estimate(self) -> GramEstimate:
        """Return the Gram matrix of the round so far; costs ``2 m^2`` per accumulated number."""
        device, m = self._watched[0].device, self.n_domains
        lost = np.stack([layer.lost_counts for layer in self._watched])
        watched_any = all_sum(self._counts, device).any()
        examples = all_sum(self._examples - lost.min(0).sum(0), device)
        counts = all_sum(np.maximum(self._counts - lost, 0), device)  # of each layer
        gram, squares = np.zeros((m, m)), np.zeros((3, m))
        for layer, (n1, n2) in zip(self._watched, counts, strict=True):
            layout = _layout(layer)
            if layout is None:
                if watched_any:
                    raise InputError(
                        "layers",
                        "a watched layer took no part in the backward pass",
                        "watch another, or use a loss that is not fused with it",
                    )
                continue  # no batch was watched yet
            whole, parts = np.zeros((m, m)), np.zeros((3, m))
            for first, second in _half_rounds(layer, layout[0]):
                both = first + second
                whole += (both @ both.T).cpu().numpy()
                pairs = ((first, second), (first, first), (second, second))
                parts += [torch.linalg.vecdot(a, b).cpu().numpy() for a, b in pairs]
            n = np.where(n1 + n2 > 0, n1 + n2, np.nan)
            gram += whole / np.outer(n, n)
            with np.errstate(divide="ignore", invalid="ignore"):
                squares += parts / np.array([n1 * n2, n1 * n1, n2 * n2])
        cross, one, two = squares
        seen = counts.sum(1) > 0
        split = np.where((counts > 0).all((0, 1)), 1.0, np.nan)
        return GramEstimate(
            gram=np.where(np.logical_and.outer(*2 * [seen.all(0)]), gram, np.nan),
            counts=np.rint(examples).astype(np.int64),
            diagonal_debiased=cross * split,
            noise_floor=(one + two - 2 * cross) / 4 * split,
        )

    def reset(self) -> None:
        """Start a new round: forget the gradients but for `decay`; without it, draw new signs."""
        self.round += 1
        lost = np.min([layer.lost_counts for layer in self._watched], axis=0)  # by all layers
        for watched in self._watched:
            if watched.lost is not None:
                watched.lost -= torch.from_numpy(lost).to(watched.lost)
        self._counts = np.maximum(self._counts - lost, 0) * self.decay
        self._counts[:, self._counts.sum(0) < _LEAST] = 0
        self._examples[:] = 0
        self._turn[:] = 0
        for watched in self._watched:
            watched.next_round(self.decay)
            if self.decay and watched.total is not None:
                watched.total[:, torch.from_numpy(self._counts.sum(0) == 0)] = 0

    @property
    def products(self) -> int:
        """Operations of products so far, as torch counts them."""
        return sum(watched.products for watched in self._watched)

    @property
    def flops(self) -> int:
        """Operations so far: products, as torch counts them, and additions."""
        return self.products + sum(watched.additions for watched in self._watched)

    @property
    def bytes(self) -> int:
        """Memory of the accumulators, in bytes (0 before the first batch)."""
        return sum(watched.total.nbytes for watched in self._watched if watched.total is not None)

    @property
    def estimate_flops(self) -> int:
        """Operations of one :meth:`estimate`, by formula: the product and the half-rounds' rows."""
        numbers = sum(w.total[0, 0].numel() for w in self._watched if w.total is not None)
        return (2 * self.n_domains + 8) * self.n_domains * numbers

    def remove(self) -> None:
        """Take the hooks off the layers."""
        for hook in self._hooks:
            if hook is not None:
                hook.remove()
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the middle of a round, summed over processes, as plain tensors.

        All processes call this together.
        """
        # One sum for all that is counted: rows are n of both halves, examples, and turns.
        counted = np.stack((*self._counts, self._examples, self._turn.astype(np.float64)))
        state: dict[str, Any] = {
            "settings": self._settings(),
            "round": self.round,
            "calls": self._calls,
            "operations": [[layer.products, layer.additions] for layer in self._watched],
            "counts": torch.tensor(all_sum(counted, self._watched[0].device)),
        }
        lost = np.stack([layer.lost_counts for layer in self._watched])
        state["lost"] = torch.tensor(all_sum(lost, self._watched[0].device))
        for place, layer in enumerate(self._watched):
            total = _summed(layer)
            if total is not None:
                state[f"total.{place}"] = total
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state saved by :meth:`state_dict`, with any number of processes.

        The first process gets the sums; the others begin with none.
        """
        for name, mine in self._settings().items():
            if state["settings"].get(name) != mine:
                raise InputError(
                    "tracker state",
                    f"saved with {name} {state['settings'].get(name)}, not {mine}",
                    f"resume with the {name} of the checkpoint",
                )
        first = rank() == 0
        booked = np.zeros((len(self._watched), 2), dtype=np.int64)
        operations = np.reshape(state["operations"], (-1, 2))  # of all layers together, once
        booked[: len(operations)] = operations
        self.round, self._calls = int(state["round"]), int(state["calls"])
        counted = torch.as_tensor(state["counts"]).cpu().numpy() * float(first)
        self._counts, self._examples = counted[:2], counted[2]
        self._turn = counted[3].astype(np.int64)
        for place, layer in enumerate(self._watched):
            total = state.get(f"total.{place}") if first else None
            layer.sketch, layer.total = None, None  # signs are drawn again from the seed
            layer.lost = None
            if first and "lost" in state:
                layer.lost = torch.as_tensor(state["lost"])[place].double().clone()
            layer.products, layer.additions = booked[place].tolist()
            if total is not None:
                layer.total = torch.as_tensor(total).clone().to(layer.device)

    def _settings(self) -> dict[str, Any]:
        names = ("n_domains", "estimator", "buckets", "seed", "decay")
        layers = [list(layer.shape) for layer in self._watched]
        return {**{name: getattr(self, name) for name in names}, "layers": layers}


def is_tracked(step: int, fraction: float) -> bool:
    """Whether `step` is among the tracked ones: the first, and then evenly spaced."""
    share = Fraction(fraction).limit_denominator(10_000)
    return math.ceil((step + 1) * share) > math.ceil(step * share)


def find_layer(model: nn.Module, layer: str | None = None) -> nn.Module:
    """Return the layer called `layer`, or the model's last linear layer (an LM's head).

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    >>> find_layer(net)
    Linear(in_features=3, out_features=4, bias=True)
    >>> find_layer(net, "0").out_features
    3
    """
    if layer is not None:
        try:
            return model.get_submodule(layer)
        except AttributeError as error:
            linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
            close = difflib.get_close_matches(layer, linear, 3, 0.3) or linear[-3:]
            raise InputError(
                "layer", f"the model has no module {layer!r}", f"try {' or '.join(close)}"
            ) from error
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(head, nn.Module) and not list(head.parameters(recurse=False)):
        # An adapter around the head: the head itself, or the copy of it that is trained.
        inside = [m for m in head.modules() if isinstance(m, nn.Linear)]
        head = max(inside, key=lambda m: (m.weight.numel(), m.weight.requires_grad), default=head)
    if head is None:
        head = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    if head is None:
        raise InputError("layer", "the model has no linear layer", "name a module to watch")
    assert isinstance(head, nn.Module)
    return head


# ------------------------------------------------------------------- sums over processes

_CHUNK = 1 << 20  # numbers that are summed at a time
_DIMENSIONS = 5  # of a layer's sums: halves, domains, blocks, buckets, width


def processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def all_sum(values: FloatArray, device: torch.device) -> FloatArray:
    """Return `values`, float64 of any shape, summed over processes.

    `device` is where the processes communicate: the GPU for NCCL, the CPU for gloo.

    >>> all_sum(np.array([1.0, 2.0]), torch.device("cpu"))
    array([1., 2.])
    """
    if processes() == 1:
        return values
    tensor = torch.from_numpy(np.array(values, dtype=np.float64)).to(device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def _layout(layer: WatchedLayer) -> tuple[list[int], torch.dtype] | None:
    """Return shape and dtype of a layer's sums in any process that has some, else None."""
    total = layer.total
    if processes() > 1:
        mine = torch.zeros(_DIMENSIONS + 1, dtype=torch.int64, device=layer.device)
        if total is not None:
            mine = torch.tensor([*total.shape, total.element_size()], device=layer.device)
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        *shape, size = mine.tolist()
        return (shape, torch.float64 if size == 8 else torch.float32) if size else None
    return (list(total.shape), total.dtype) if total is not None else None


def _half_rounds(layer: WatchedLayer, shape: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the half-rounds' sums over all processes, (m, some) each, chunk by chunk.

    Chunks are float64, since G is a small difference of large sums, and small, so that the
    copies are. Apple's GPUs have no float64.
    """
    device = layer.device
    widest = torch.float32 if device.type == "mps" else torch.float64
    m, numbers = shape[1], int(np.prod(shape[2:]))
    step = max(1, _CHUNK // m)
    flat = None if layer.total is None else layer.total.flatten(2)
    for start in range(0, numbers, step):
        some = min(step, numbers - start)
        if flat is None:
            chunk = torch.zeros(2, m, some, dtype=widest, device=device)
        else:
            chunk = flat[:, :, start : start + some].to(widest)
        if processes() > 1:  # in a copy: the sums themselves stay this process's own
            chunk = torch.clone(chunk, memory_format=torch.contiguous_format)
            dist.all_reduce(chunk)
        first, second = chunk
        yield first, second


def _summed(layer: WatchedLayer) -> Tensor | None:
    """Return a layer's sums over all processes; None if no process has any."""
    if processes() == 1:
        return layer.total
    layout = _layout(layer)
    if layout is None:
        return None
    shape, dtype = layout
    whole = torch.empty(shape, dtype=dtype, device=layer.device)
    flat, start = whole.flatten(2), 0
    for pair in _half_rounds(layer, shape):
        chunk = torch.stack(pair)
        flat[:, :, start : start + chunk.shape[2]] = chunk
        start += chunk.shape[2]
    return whole
