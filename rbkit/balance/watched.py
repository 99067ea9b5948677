"""One watched layer: its sums over the round, and the hook that feeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rbkit.balance.groups import Groups
from rbkit.balance.sketch import CountSketch
from rbkit.errors import InputError

_HALVES = 2


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
            shape = (_HALVES, self.n_domains, self.sketch.blocks, self.sketch.buckets)
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
            "layers", "the watched layer is called with its input by name",
            "watch one that is called as layer(x)",
        )  # fmt: skip
    hidden, shape = args[0], groups.shape
    rows = tuple(hidden.shape[:-1])
    by_example = len(shape) == 1 and rows[:1] == shape
    by_token = len(shape) == 2 and rows in (shape, (groups.size,))
    if not (by_example or by_token):
        raise InputError(
            "domains", f"{groups.size} ids of shape {shape} for a layer whose input has shape "
            f"{tuple(hidden.shape)}",
            "give one id for each example, the first dimension, or for each token of each example",
        )  # fmt: skip
    return hidden


def _spans(groups: Groups, bounds: Any) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Yield half, domain, begin and end of each group that has rows."""
    limits = bounds.tolist()
    for (half, domain), first, last in zip(
        groups.keys.tolist(), limits[:-1], limits[1:], strict=True
    ):
        if last > first:
            yield (half, domain), first, last
