"""One watched layer: which rows of a batch belong to which domain, and their sums over a round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rbkit.balance.signals import FloatArray, IntArray
from rbkit.balance.sketch import CountSketch
from rbkit.errors import InputError

Ids = Tensor | Sequence[int] | IntArray
_RUN = 32  # rows, on average, that are multiplied where they are
_AT_ONCE = 1 << 20  # numbers of parts to add to the sums at a time

# ---------------------------------------------------------------- the domains of a batch


@dataclass(frozen=True)
class Groups:
    """The domain ids of a batch, sorted by (half-round, domain); ids of -1 are left out.

    >>> groups = Groups.of(np.array([4, 2, -1, 4]), np.array([0, 0, 0, 1]))
    >>> groups.keys.tolist(), groups.order.tolist(), groups.bounds.tolist()
    ([[0, 2], [0, 4], [1, 4]], [1, 0, 3], [0, 1, 2, 3])
    """

    shape: tuple[int, ...]  # of the ids: (B,) for examples, (B, T) for tokens
    order: IntArray  # (n,) positions of the ids, one group after the other
    keys: IntArray  # (g, 2) half and domain of each group
    bounds: IntArray  # (g + 1,) where the groups begin in `order`; at the end, n

    @classmethod
    def of(cls, ids: IntArray, halves: IntArray) -> Groups:
        flat = ids.ravel()
        span = int(flat.max(initial=0)) + 1
        inside = np.flatnonzero(flat >= 0)
        key = halves.ravel()[inside].astype(np.int64) * span + flat[inside]
        order = np.argsort(key, kind="stable")
        present, starts = np.unique(key[order], return_index=True)
        keys = np.stack(np.divmod(present, span), axis=1)
        return cls(ids.shape, inside[order], keys, np.append(starts, len(order)))

    @property
    def size(self) -> int:
        """Number of ids, including those left out."""
        return int(np.prod(self.shape))

    @property
    def lengths(self) -> IntArray:
        """Number of ids in each group, (g,)."""
        return np.diff(self.bounds)

    def rows(self, each: int, share: float = 1.0, start: float = 0.0) -> tuple[IntArray, IntArray]:
        """Return rows of a layer's input, sorted by group, and where the groups begin.

        Each id owns `each` rows: the length of an example, or 1. Every ``1 / share``-th of the
        sorted rows is taken, so each with this probability and from each group its part; a
        random `start` in [0, 1) makes the sample unbiased.
        """
        rows = (self.order[:, None] * each + np.arange(each)).ravel()
        bounds = self.bounds * each
        if share < 1:
            picked = np.floor((np.arange(len(rows) * share + 1) + start) / share).astype(np.int64)
            picked = picked[picked < len(rows)]
            rows, bounds = rows[picked], np.searchsorted(picked, bounds)
        return rows, bounds


def runs(groups: IntArray, step: int) -> list[list[tuple[int, slice | Tensor]]]:
    """Return where each group is in every `step` rows: runs as slices, many short ones as an index.

    >>> runs(np.array([5] * 40 + [-1] * 30 + [2] * 50), 100)
    [[(5, slice(0, 40, None)), (2, slice(70, 100, None))], [(2, slice(0, 20, None))]]
    >>> runs(np.array([5, 2, 5]), 100)
    [[(2, tensor([1])), (5, tensor([0, 2]))]]
    """
    pieces = [groups[start : start + step] for start in range(0, len(groups), step)]
    begins = np.diff(groups, prepend=-2, append=-2) != 0
    begins[::step] = True
    edges = np.flatnonzero(begins).tolist()
    if (len(edges) - len(pieces)) * _RUN > len(groups):
        return [
            [(int(g), torch.from_numpy(np.flatnonzero(piece == g))) for g in present]
            for piece in pieces
            for present in [np.unique(piece[piece >= 0])]
        ]
    found: list[list[tuple[int, slice | Tensor]]] = [[] for _ in pieces]
    for first, last in pairwise(edges):
        if groups[first] >= 0:
            at, start = divmod(first, step)
            found[at].append((int(groups[first]), slice(start, start + last - first)))
    return found


def check_ids(domains: Ids, n_domains: int) -> IntArray:
    """Return the ids of a batch as an integer array, (B,) or (B, T)."""
    ids = torch.as_tensor(domains).detach().cpu().numpy()
    if ids.ndim not in (1, 2) or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            "domains",
            f"shape {ids.shape}, dtype {ids.dtype}",
            "give one integer per example, or per token as (examples, tokens)",
        )
    if ids.size and not (ids.min() >= -1 and ids.max() < n_domains):
        raise InputError(
            "domains",
            f"ids from {ids.min()} to {ids.max()} for {n_domains} domains",
            "give 0 to m - 1, or -1 to leave an example or token out",
        )
    return ids.astype(np.int64)


def check_halves(halves: Ids, ids: IntArray) -> IntArray:
    """Return the given halves of a batch, which must have the shape of its ids."""
    given = torch.as_tensor(halves).detach().cpu().numpy()
    if given.shape != ids.shape or not np.isin(given[ids >= 0], (0, 1)).all():
        raise InputError(
            "halves",
            f"shape {given.shape} for domains of shape {ids.shape}, or not all 0 or 1",
            "give 0 or 1 for each domain id",
        )
    return given.astype(np.int64)


def alternate(ids: IntArray, turn: IntArray, first: int = 0) -> IntArray:
    """Send the examples of each domain alternately to half 0 and half 1; return the halves.

    Where ids are of tokens, documents alternate: runs of equal ids within a row, which are
    never divided. (Two adjacent documents of one domain count as one.) `turn`, (m,), is how
    many each domain has had so far and is updated in place; `first` is the half to begin with.

    >>> alternate(np.array([7, 7, 3, 7]), np.zeros(8, dtype=np.int64))
    array([0, 1, 0, 0])
    >>> alternate(np.array([[7, 7, 3, 7]]), np.zeros(8, dtype=np.int64))
    array([[0, 0, 0, 1]])
    """
    begins = np.ones(ids.shape, dtype=bool)
    if ids.ndim > 1:
        begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    domain = ids[begins]
    order = np.argsort(domain, kind="stable")
    in_order = domain[order]
    place = np.empty(len(domain), dtype=np.int64)  # of a document among those of its domain
    place[order] = np.arange(len(domain)) - np.searchsorted(in_order, in_order)
    half = (first + place + turn[domain]) % 2
    np.add.at(turn, domain[domain >= 0], 1)
    each: IntArray = half[np.cumsum(begins.ravel()) - 1].reshape(ids.shape)
    return each


def group_counts(groups: Groups, counts: ArrayLike | Tensor | None, m: int) -> FloatArray:
    """Return what each group adds to n, (g,): its ids, or its part of the given `counts`.

    Counts of shape (2, m) are those of the two halves. Counts of shape (m,) are shared
    between a domain's halves as its ids are.
    """
    if counts is None:
        return groups.lengths.astype(np.float64)
    given: Any = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else counts
    given = np.asarray(given, dtype=np.float64)
    if given.shape not in ((m,), (2, m)) or not (given >= 0).all():
        raise InputError(
            "counts",
            f"shape {given.shape} for {m} domains, or negative",
            "give the examples of each domain, (m,), or of each half and domain, (2, m)",
        )
    half, domain = groups.keys.T
    without = given.copy()
    if given.ndim > 1:
        part = given[half, domain]
        without[half, domain] = 0
    else:
        names, which = np.unique(domain, return_inverse=True)
        ids = np.bincount(which, groups.lengths, len(names))
        part = given[domain] * groups.lengths / ids[which]
        without[domain] = 0
    if without.any():
        raise InputError(
            "counts",
            f"examples of domain {int(np.flatnonzero(without)[0] % m)}, but no id of it",
            "count the examples that this batch has",
        )
    return np.asarray(part)


# ---------------------------------------------------------------------- the watched layer


@dataclass(frozen=True)
class Watch:
    """What a layer needs to know of a batch while its forward and backward pass run."""

    groups: Groups
    scale: float  # what the summed loss was divided by
    share: float  # of the tokens that are used
    start: float  # in [0, 1): which of them
    measure: Callable[[torch.device], AbstractContextManager[Any]] | None

    @contextmanager
    def own_work(self, device: torch.device) -> Iterator[None]:
        """Do work that is not training's: without gradients or autocast, measured if asked."""
        measured = nullcontext() if self.measure is None else self.measure(device)
        with torch.no_grad(), without_autocast(device), measured:
            yield


@dataclass(eq=False)
class WatchedLayer:
    """A linear layer, and the sums of its domain gradients: (2, m, blocks, buckets, width)."""

    layer: nn.Module
    n_domains: int
    make_sketch: Callable[[int, int], CountSketch]  # of a layer of (outputs, inputs), this round
    products: int = 0  # operations so far that torch's counter sees
    additions: int = 0  # and those that it does not
    sketch: CountSketch | None = field(default=None, init=False)
    total: Tensor | None = field(default=None, init=False)
    watch: Watch | None = field(default=None, init=False)
    lost: Tensor | None = field(default=None, init=False)  # (2, m): examples that the sums lack
    _passes: int = field(default=0, init=False)  # backward passes of this process
    _settled: int = field(default=0, init=False)  # ... before the batch
    _bad: Tensor | None = field(default=None, init=False)  # (2 m,) of the batch: not finite

    def __post_init__(self) -> None:
        matrices = [n for n, p in self.layer.named_parameters(recurse=False) if p.ndim == 2]
        if len(matrices) != 1 or isinstance(self.layer, nn.Embedding):
            inside = [n for n, m in self.layer.named_modules() if isinstance(m, nn.Linear)]
            such = f", such as its {' or '.join(inside[:4])}" if inside else ""
            raise InputError(
                "layers",
                f"{type(self.layer).__name__} is not a linear layer",
                f"watch an nn.Linear{such}",
            )
        # By name: sharding puts other tensors in the place of parameters.
        self._name = matrices[0]
        self.shape = tuple(getattr(self.layer, self._name).shape)

    @property
    def device(self) -> torch.device:
        """Where the sums are, or will be."""
        device: torch.device = getattr(self.layer, self._name).device
        return device if self.total is None else self.total.device

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Watch the passes made inside."""
        self.watch = watch
        try:
            yield
        finally:
            self.watch = None

    def hook(self) -> Any:
        """Make the layer's outputs report their gradients; return the handle to stop it."""
        return self.layer.register_forward_hook(self._on_forward)

    def _on_forward(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        watch = self.watch
        if watch is None or not output.requires_grad:
            return
        hidden = check_input(args, watch.groups).detach()

        def on_gradient(delta: Tensor) -> None:
            # A hook on the tensor, not on the module: it fires once, also when gradient
            # checkpointing runs the forward pass twice.
            with watch.own_work(delta.device):
                self._add_batch(hidden, delta, watch)

        output.register_hook(on_gradient)

    def _add_batch(self, hidden: Tensor, delta: Tensor, watch: Watch) -> None:
        """Add a batch, from the layer's input (..., d) and the gradient of its output (..., V)."""
        hidden = hidden.reshape(-1, hidden.shape[-1])
        delta = delta.reshape(-1, delta.shape[-1])
        sketch = self.prepare(delta, hidden.shape[-1])
        assert self.total is not None
        each = len(delta) // max(1, watch.groups.size)
        rows, bounds = watch.groups.rows(each, watch.share, watch.start)
        sizes = np.diff(bounds)
        if watch.share < 1:  # rows that are left out are not even read
            used = torch.from_numpy(rows).to(delta.device)
            delta, hidden, rows = delta[used], hidden[used], np.arange(len(rows))
        group_of = np.full(len(delta), -1)
        group_of[rows] = np.repeat(np.arange(len(sizes)), sizes)
        right = sketch.split(hidden).to(self.total.dtype)
        gain = watch.scale * sketch.gain / watch.share
        blocks, buckets, width = self.total.shape[2:]
        step, together = sketch.rows_at_once(delta.device), len(watch.groups.keys)
        if sketch.exact:
            step, together = max(1, len(delta)), max(1, _AT_ONCE // (blocks * width * buckets))
        places = runs(group_of, step)
        for first in range(0, len(sizes), together):
            keys = watch.groups.keys[first : first + together]
            parts = self.total.new_zeros((len(keys), blocks, width, buckets))
            for start, present in zip(range(0, len(delta), step), places, strict=True):
                piece = slice(start, start + step)  # small enough to stay in cache
                left, right_piece = sketch.fold(delta[piece]), right[:, piece]
                for group, at in present:
                    if first <= group < first + together:
                        part = parts[group - first]
                        torch.baddbmm(part, right_piece[:, at].mT, left[:, at], out=part)
            self.add_parts(keys, parts.mT, gain)
        self.products += 2 * len(rows) * blocks * width * buckets
        self.additions += sketch.additions * len(delta)

    def add_parts(self, keys: IntArray, parts: Tensor, gain: float) -> None:
        """Add parts of the gradient, (g, blocks, buckets, width), of halves and domains (g, 2)."""
        assert self.total is not None
        where = self._places(keys, parts.device)
        # A batch that overflowed, as under fp16's loss scaling, must not spoil the round.
        parts = parts.to(self.total.dtype)
        bad = ~parts.sum((1, 2, 3)).isfinite()
        parts = parts.masked_fill(bad[:, None, None, None], 0.0)
        self.total.flatten(0, 1).index_add_(0, where, parts, alpha=gain)
        if self._bad is None:
            self._bad = torch.zeros(2 * self.n_domains, dtype=torch.bool, device=parts.device)
        self._bad[where] |= bad
        self.additions += 2 * parts.numel()  # and the factor

    def _places(self, keys: IntArray, device: torch.device) -> Tensor:
        """Return where halves and domains (g, 2) are in a tensor of shape (2 m, ...)."""
        return torch.from_numpy(keys[:, 0] * self.n_domains + keys[:, 1]).to(device)

    def prepare(self, like: Tensor, inputs: int) -> CountSketch:
        """Make sketch and sums at their first use, from a gradient (..., V) of the output."""
        self._passes += 1
        if self.sketch is None:
            self.sketch = self.make_sketch(like.shape[-1], inputs)
        shape = (2, self.n_domains, self.sketch.blocks, self.sketch.buckets, self.sketch.width)
        if self.total is None:
            dtype = torch.promote_types(like.dtype, torch.float32)
            self.total = torch.zeros(shape, dtype=dtype, device=like.device)
        elif self.total.shape != shape:
            raise InputError(
                "tracker state",
                f"its sums have shape {tuple(self.total.shape)}, a sketch has {shape}",
                "resume with the version of rbkit that saved it, or begin a run of its own",
            )
        return self.sketch

    @contextmanager
    def noticing_a_bypass(self) -> Iterator[None]:
        """Refuse a first batch whose loss uses the layer's weight, but does not call the layer.

        As fused and chunked losses do: the weight has a gradient, or, if it is frozen, is a factor
        of a product. Not where another tensor is in its place while the model runs.
        """
        weight = getattr(self.layer, self._name)
        touched: list[bool] = []
        called: list[bool] = []
        plain = type(weight) in (Tensor, nn.Parameter) and weight.is_leaf
        if self._passes or not ((weight.requires_grad and weight.is_leaf) or plain):
            yield
            return
        with ExitStack() as noticing:
            if weight.requires_grad:
                hook = weight.register_hook(lambda _: touched.append(True))
            else:
                hook = self.layer.register_forward_pre_hook(lambda *_: called.append(True))
                noticing.enter_context(_FactorOfProducts(weight, touched))
            noticing.callback(hook.remove)
            yield
        if touched and not (called or self._passes):
            raise InputError(
                "layers",
                f"the watched {type(self.layer).__name__} took no part in the backward pass",
                "watch another, or use a loss that calls it: not one that is fused or chunked",
            )

    def settle(self, keys: IntArray, counts: FloatArray) -> None:
        """Note which of a batch's `counts`, (g,), belong to parts that the sums lack.

        Those are parts that were not finite, and all of a batch that did not reach the layer.
        """
        took_part, self._settled = self._passes > self._settled, self._passes
        bad, self._bad = self._bad, None
        device = self.device if self.device.type != "mps" else torch.device("cpu")
        if self.lost is None or self.lost.device != device:  # after a resume it is on the CPU
            lost = torch.zeros(2, self.n_domains, dtype=torch.float64)
            self.lost = (lost if self.lost is None else self.lost).to(device)
        lost = torch.from_numpy(np.array(counts, dtype=np.float64)).to(device)
        where = self._places(keys, device)
        if took_part:
            lost = torch.zeros_like(lost) if bad is None else lost * bad.to(device)[where]
        self.lost.view(-1).index_add_(0, where, lost)

    @property
    def lost_counts(self) -> FloatArray:
        """Examples that the sums lack, by half and domain, (2, m)."""
        lost = np.zeros((2, self.n_domains)) if self.lost is None else self.lost.cpu().numpy()
        return np.asarray(lost)

    def next_round(self, decay: float) -> None:
        """Keep `decay` of the sums; new signs where nothing is kept."""
        if self.total is not None:
            self.total.mul_(decay) if decay else self.total.zero_()
        if self.lost is not None:
            self.lost.mul_(decay)
        if self.sketch is not None and not self.sketch.exact and not decay:
            self.sketch = None


class _FactorOfProducts(TorchFunctionMode):
    """Notes in `seen` where a weight, or a view of it, meets another matrix of numbers.

    Looking up rows of an embedding does not count: its other argument is whole numbers.
    """

    def __init__(self, weight: Tensor, seen: list[bool]) -> None:
        super().__init__()
        self._place, self._seen = weight.untyped_storage().data_ptr(), seen

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        values = (*args, *(kwargs or {}).values())
        matrices = [x for x in values if type(x) in (Tensor, nn.Parameter) and x.ndim > 1]
        places = [x.untyped_storage().data_ptr() for x in matrices if x.is_floating_point()]
        if len(places) > 1 and self._place in places:
            self._seen.append(True)
        return func(*args, **(kwargs or {}))


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which products have the precision of their factors."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device_type=device.type, enabled=False)


def check_input(args: tuple[Tensor, ...], groups: Groups) -> Tensor:
    """Return the input of a layer if its rows are those that the ids describe."""
    if not args:
        raise InputError(
            "layers",
            "the watched layer is called with its input by name",
            "watch one that is called as layer(x)",
        )
    hidden, shape = args[0], groups.shape
    rows = tuple(hidden.shape[:-1])
    by_example = len(shape) == 1 and rows[:1] == shape
    by_token = len(shape) == 2 and rows in (shape, (groups.size,))
    if not (by_example or by_token):
        raise InputError(
            "domains",
            f"{groups.size} ids of shape {shape} for a layer whose input has shape "
            f"{tuple(hidden.shape)}",
            "give one id for each example, the first dimension, or for each token of each example",
        )
    return hidden
