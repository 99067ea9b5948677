"""One watched layer: its sums over the round, and the hook that feeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from rbkit.balance.signals import FloatArray, IntArray
from rbkit.balance.sketch import CountSketch
from rbkit.errors import InputError

Ids = Tensor | Sequence[int] | IntArray
_HALVES = 2


@dataclass(frozen=True)
class Groups:
    """The ids of a batch, sorted by (half, domain).

    Attributes
    ----------
    size : int
        Number of ids in the batch, with those left out.
    shape : tuple of int
        Shape of the ids: (B,) for examples, (B, T) for tokens.
    order : ndarray of shape (n,), int64
        Places of the ids, one group after the other; ids of -1 are not among them.
    keys : ndarray of shape (g, 2), int64
        Half and domain of each group.
    bounds : ndarray of shape (g + 1,), int64
        Where the groups begin in `order`; at the end, n.

    Examples
    --------
    >>> groups = Groups.of(np.array([4, 2, -1, 4]), np.array([0, 0, 0, 1]))
    >>> groups.keys.tolist(), groups.order.tolist(), groups.bounds.tolist()
    ([[0, 2], [0, 4], [1, 4]], [1, 0, 3], [0, 1, 2, 3])
    """

    shape: tuple[int, ...]
    order: IntArray
    keys: IntArray
    bounds: IntArray

    @classmethod
    def of(cls, ids: IntArray, halves: IntArray) -> Groups:
        """Sort `ids`, with the half of each, into groups."""
        flat = ids.ravel()
        span = int(flat.max(initial=0)) + 1
        inside = np.flatnonzero(flat >= 0)
        key = halves.ravel()[inside].astype(np.int64) * span + flat[inside]
        order = np.argsort(key, kind="stable")
        found, starts = np.unique(key[order], return_index=True)
        keys = np.stack(np.divmod(found, span), axis=1)
        return cls(ids.shape, inside[order], keys, np.append(starts, len(order)))

    @property
    def size(self) -> int:
        """Number of ids, with those left out."""
        return int(np.prod(self.shape))

    @property
    def lengths(self) -> IntArray:
        """Number of ids in each group, (g,)."""
        return np.diff(self.bounds)

    def tokens(self, each: int, share: float = 1.0, start: float = 0.0) -> tuple[Tensor, IntArray]:
        """Return rows of tokens, sorted by group, and where the groups begin.

        Parameters
        ----------
        each : int
            Tokens per id: the length of an example, or 1.
        share : float
            Take every ``1 / share``-th of the sorted tokens, so each with this probability
            and from each group its part.
        start : float
            In [0, 1): where to begin; random, for an unbiased sample.
        """
        rows = (self.order[:, None] * each + np.arange(each)).ravel()
        bounds = self.bounds * each
        if share < 1:
            picked = np.floor((np.arange(len(rows) * share + 1) + start) / share).astype(np.int64)
            picked = picked[picked < len(rows)]
            rows, bounds = rows[picked], np.searchsorted(picked, bounds)
        return torch.from_numpy(rows), bounds


def check_ids(domains: Ids, n_domains: int) -> IntArray:
    """Return the ids of a batch as an integer array, (B,) or (B, T), or say what is wrong."""
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
    """Return the given halves of a batch, of the same shape as its ids."""
    given = torch.as_tensor(halves).detach().cpu().numpy()
    if given.shape != ids.shape or not np.isin(given[ids >= 0], (0, 1)).all():
        raise InputError(
            "halves",
            f"shape {given.shape} for domains of shape {ids.shape}, or not all 0 or 1",
            "give 0 or 1 for each domain id",
        )
    return given.astype(np.int64)


def alternate(ids: IntArray, turn: IntArray, first: int = 0) -> IntArray:
    """Send the examples of each domain by turns to half 0 and half 1; return the halves.

    Where ids are of tokens, documents take turns: runs of equal ids within a row, which are
    never divided. (Two documents of one domain that touch count as one.)

    Parameters
    ----------
    ids : ndarray of shape (B,) or (B, T), int64
    turn : ndarray of shape (m,), int64
        How many each domain has had so far; brought up to date here.
    first : int
        Half of the first one.

    Examples
    --------
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
    sorted_ = domain[order]
    place = np.empty(len(domain), dtype=np.int64)  # of a document among those of its domain
    place[order] = np.arange(len(domain)) - np.searchsorted(sorted_, sorted_)
    half = (first + place + turn[domain]) % _HALVES
    np.add.at(turn, domain[domain >= 0], 1)
    each: IntArray = half[np.cumsum(begins.ravel()) - 1].reshape(ids.shape)
    return each


def amounts(groups: Groups, counts: ArrayLike | Tensor | None, m: int) -> FloatArray:
    """Return what each group adds to n, (g,): its ids, or its part of the given `counts`.

    Counts of shape (2, m) are those of the two halves. Counts of shape (m,) are shared
    between a domain's halves as its ids are.
    """
    if counts is None:
        return groups.lengths.astype(np.float64)
    given: Any = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else counts
    given = np.asarray(given, dtype=np.float64)
    if given.shape not in ((m,), (_HALVES, m)) or not (given >= 0).all():
        raise InputError(
            "counts",
            f"shape {given.shape} for {m} domains, or negative",
            "give the examples of each domain, (m,), or of each half and domain, (2, m)",
        )
    half, domain = groups.keys.T
    if given.ndim > 1:
        part, without = given[half, domain], given.copy()
        without[half, domain] = 0
    else:
        names, which = np.unique(domain, return_inverse=True)
        ids = np.bincount(which, groups.lengths, len(names))
        part, without = given[domain] * groups.lengths / ids[which], given.copy()
        without[domain] = 0
    if without.any():
        raise InputError(
            "counts",
            f"examples of domain {int(np.flatnonzero(without)[0] % m)}, but no id of it",
            "count the examples that this batch has",
        )
    return np.asarray(part)


_watched_HALVES = 2


@dataclass
class Price:
    """Operations of tracking so far: those that torch's counter sees, and additions."""

    products: int = 0
    additions: int = 0


@dataclass(frozen=True)
class Watch:
    """What is to be known of a batch while its forward and backward pass run."""

    groups: Groups
    scale: float  # what the summed loss was divided by
    share: float  # of the tokens that are looked at
    start: float  # in [0, 1): which of them

    def each(self, rows: int) -> int:
        """Return how many rows of the layer's input belong to one id."""
        return rows // max(1, self.groups.size)


@dataclass(eq=False)
class WatchedLayer:
    """A linear layer, and the sums of its domain gradients: (2, m, blocks, buckets, width).

    Attributes
    ----------
    layer : module
    n_domains : int
    buckets : callable
        Buckets of the sketch for a layer of (outputs, inputs).
    signs : callable
        Seed of the round's signs.
    price : Price
        Where operations are counted.
    """

    layer: nn.Module
    n_domains: int
    buckets: Callable[[int, int], int]
    signs: Callable[[], int]
    price: Price
    sketch: CountSketch | None = field(default=None, init=False)
    total: Tensor | None = field(default=None, init=False)
    watch: Watch | None = field(default=None, init=False)
    watch_with: Callable[[torch.device], AbstractContextManager[Any]] | None = None

    def __post_init__(self) -> None:
        matrices = [n for n, p in self.layer.named_parameters(recurse=False) if p.ndim == 2]
        if len(matrices) != 1 or isinstance(self.layer, nn.Embedding):
            raise InputError(
                "layers", f"{type(self.layer).__name__} is not a linear layer", "watch an nn.Linear"
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
            with self.measured(delta.device):
                self.add_rows(hidden, delta, watch)

        output.register_hook(on_gradient)

    @contextmanager
    def measured(self, device: torch.device) -> Iterator[None]:
        """Do work that is not training's: without gradients, in full precision, timed if asked."""
        with torch.no_grad(), without_autocast(device):
            if self.watch_with is None:
                yield
            else:
                with self.watch_with(device):
                    yield

    def add_rows(self, hidden: Tensor, delta: Tensor, watch: Watch) -> None:
        """Add a batch, from the layer's input (..., d) and the gradient of its output (..., V)."""
        hidden = hidden.reshape(-1, hidden.shape[-1])
        delta = delta.reshape(-1, delta.shape[-1])
        sketch, _ = self.prepare(delta, hidden.shape[-1])
        rows, bounds = watch.groups.tokens(watch.each(len(delta)), watch.share, watch.start)
        at: Tensor | slice = rows.to(delta.device)
        if watch.share < 1:  # what is left out is not even read
            delta, hidden, at = delta[at], hidden[at], slice(None)
        left, right = sketch.fold(delta, at), sketch.split(hidden[at])
        right = right.to(left.dtype)
        self.price.additions += sketch.additions * len(delta)
        gain = watch.scale * sketch.gain / watch.share
        for (half, domain), first, last in _spans(watch.groups, bounds):
            part = torch.bmm(left[:, first:last].mT, right[:, first:last])
            self.price.products += 2 * (last - first) * part.numel()
            self.add_part(half, domain, part, gain)

    def add_part(self, half: int, domain: int, part: Tensor, gain: float) -> None:
        """Add a domain's part of the gradient, (blocks, buckets, width)."""
        assert self.total is not None
        # A batch that overflowed, as under fp16's loss scaling, must not spoil the round.
        part = torch.where(part.isfinite().all(), gain * part.to(self.total.dtype), 0.0)
        self.total[half, domain] += part
        self.price.additions += 2 * part.numel()  # and the factor

    def prepare(self, like: Tensor, inputs: int) -> tuple[CountSketch, Tensor]:
        """Make sketch and sums at their first use, from a gradient (..., V) of the output."""
        if self.sketch is None:
            outputs = like.shape[-1]
            buckets = self.buckets(outputs, inputs)
            self.sketch = CountSketch(outputs, inputs, buckets, self.signs())
        if self.total is None:
            shape = (_watched_HALVES, self.n_domains, self.sketch.blocks, self.sketch.buckets)
            dtype = torch.promote_types(like.dtype, torch.float32)
            self.total = torch.zeros(*shape, self.sketch.width, dtype=dtype, device=like.device)
        return self.sketch, self.total

    def next_round(self, decay: float) -> None:
        """Keep `decay` of the sums; new signs where nothing is kept."""
        if self.total is not None:
            self.total.mul_(decay) if decay else self.total.zero_()
        if self.sketch is not None and not self.sketch.exact and not decay:
            self.sketch = None


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which products have the precision of their factors."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device_type=device.type, enabled=False)


def check_input(args: tuple[Tensor, ...], groups: Groups) -> Tensor:
    """Return the input of a layer if its rows are those that the ids speak of."""
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


def _spans(groups: Groups, bounds: Any) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Yield half, domain, begin and end of each group that has rows."""
    limits = bounds.tolist()
    for (half, domain), first, last in zip(
        groups.keys.tolist(), limits[:-1], limits[1:], strict=True
    ):
        if last > first:
            yield (half, domain), first, last
