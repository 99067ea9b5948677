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
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rbkit.balance.signals import GramEstimate
from rbkit.balance.sketch import CountSketch
from rbkit.errors import InputError

_HALVES = 2


class GramTracker:
    """Accumulate domain gradients of linear layers over a round, and give their Gram matrix.

    Parameters
    ----------
    layers : nn.Linear or sequence of nn.Linear
        What to watch; gradients of several layers are concatenated. Any module works that
        maps (..., d) to (..., V) by a matrix, biases are left out.
    n_domains : int
        m.
    estimator : {"sketch", "exact"}
        ``exact`` keeps V x d numbers per domain. ``sketch`` folds the V outputs into
        `buckets` with random signs (see :mod:`rbkit.balance.sketch`): inner products are
        kept in expectation at ``2 * buckets * d * 4`` bytes per domain (0.79 MB for d = 768).
    buckets : int
        Size of the sketch; a layer with no more outputs is tracked exactly.
    seed : int
        Seed of the signs.

    Notes
    -----
    Works with padding and ignored labels (their rows of Delta are 0), gradient
    accumulation, gradient checkpointing (outputs are hooked, not forward calls), autocast
    (products are taken in float32), and tied embeddings.

    With activation checkpointing of the watched layer itself its input is kept alive.

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
        estimator: Literal["sketch", "exact"] = "sketch",
        buckets: int = 128,
        seed: int = 0,
    ) -> None:
        layers = [layers] if isinstance(layers, nn.Module) else list(layers)
        if n_domains < 1:
            raise InputError("n_domains", f"{n_domains} is not positive", "give m >= 1")
        if estimator not in ("sketch", "exact"):
            raise InputError("estimator", f"{estimator!r} is unknown", "use 'sketch' or 'exact'")
        if buckets < 1:
            raise InputError("buckets", f"{buckets} is not positive", "try 128")
        self.n_domains, self.estimator, self.buckets, self.seed = (
            n_domains,
            estimator,
            buckets,
            seed,
        )
        self.round = 0
        self.flops = 0  # of products, as torch counts them, and of the sketch's signs and additions
        # Wraps each piece of the tracker's work, for whoever measures it.
        self.watch_with: Callable[[torch.device], AbstractContextManager[Any]] | None = None
        self._watched = [_Watched(layer) for layer in layers]
        self._counts = np.zeros((_HALVES, n_domains), dtype=np.int64)
        self._batch: tuple[dict[tuple[int, int], Tensor], float, int] | None = None
        self._hooks = [
            watched.layer.register_forward_hook(self._on_forward(watched))
            for watched in self._watched
        ]

    # ------------------------------------------------------------------ watching

    @contextmanager
    def batch(self, domains: Tensor | Sequence[int], scale: float | Tensor = 1.0) -> Iterator[None]:
        """Watch one batch: run its forward and backward pass inside.

        Parameters
        ----------
        domains : integer tensor of shape (B,)
            Domain of each example, in the order of the batch; -1 leaves an example out.
        scale : float
            What the summed loss was divided by before ``backward``: the number of valid
            tokens for a token mean, times the steps of gradient accumulation if the loss
            is divided by those too. A wrong constant cancels in R&B's normalised rule;
            one that varies from batch to batch weighs batches unequally.
        """
        ids = torch.as_tensor(domains).detach().cpu().numpy()
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(
                "domains", f"shape {ids.shape}, dtype {ids.dtype}", "give one integer per example"
            )
        if len(ids) and not (ids.min() >= -1 and ids.max() < self.n_domains):
            raise InputError(
                "domains",
                f"ids from {ids.min()} to {ids.max()} for {self.n_domains} domains",
                "give 0 to m - 1, or -1 to leave an example out",
            )
        halves, counts = self._halve(ids)
        rows = {
            (int(half), int(domain)): torch.from_numpy(
                np.flatnonzero((halves == half) & (ids == domain))
            )
            for half, domain in {*zip(halves.tolist(), ids.tolist(), strict=True)}
            if domain >= 0
        }
        self._batch = (rows, float(scale), len(ids))
        try:
            yield
        finally:
            self._batch = None
        self._counts += counts

    def _halve(self, ids: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Any]:
        """Send the examples of each domain alternately to the two half-rounds."""
        halves = np.zeros(len(ids), dtype=np.int64)
        counts = np.zeros_like(self._counts)
        for row, domain in enumerate(ids):
            if domain >= 0:
                seen = self._counts[:, domain] + counts[:, domain]
                halves[row] = int(seen[1] < seen[0])
                counts[halves[row], domain] += 1
        return halves, counts

    def _on_forward(self, watched: _Watched) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if self._batch is None or not output.requires_grad:
                return
            rows, scale, size = self._batch
            if not args:
                raise InputError(
                    "layers", "the watched layer is called with its input by name",
                    "watch one that is called as layer(x)",
                )  # fmt: skip
            hidden = args[0].detach()
            if hidden.ndim < 2 or len(hidden) != size:
                raise InputError(
                    "domains",
                    f"{size} ids for a layer whose input has shape {tuple(hidden.shape)}",
                    "the first dimension of the watched layer must be the examples of the batch",
                )

            def on_gradient(delta: Tensor) -> None:
                # A hook on the tensor, not on the module: it fires once, also when gradient
                # checkpointing runs the forward pass twice.
                watch = self.watch_with or nullcontext
                with watch(delta.device):
                    self._add(watched, hidden, delta, rows, scale)

            output.register_hook(on_gradient)

        return hook

    @torch.no_grad()
    def _add(
        self,
        watched: _Watched,
        hidden: Tensor,
        delta: Tensor,
        rows: Mapping[tuple[int, int], Tensor],
        scale: float,
    ) -> None:
        with torch.autocast(device_type=delta.device.type, enabled=False):
            sketch, total = self._prepare(watched, hidden, delta)
            size, width = len(delta), delta.shape[-1]
            folded = sketch.fold(delta.reshape(-1, width))
            folded = folded.reshape(sketch.blocks, size, -1, sketch.buckets)
            hidden = sketch.split(hidden.reshape(size, -1, hidden.shape[-1]))
            for (half, domain), members in rows.items():
                at = members.to(delta.device)
                left = folded[:, at].flatten(1, 2).to(total.dtype)
                right = hidden[:, at].flatten(1, 2).to(total.dtype)
                part = torch.bmm(left.mT, right)
                # A batch that overflowed, as under fp16's loss scaling, must not spoil the round.
                total[half, domain] += torch.where(part.isfinite().all(), scale * part, 0.0)
                self.flops += 2 * left.numel() * right.shape[-1]
            self.flops += sketch.flops * delta.numel() // width

    def _prepare(
        self, watched: _Watched, hidden: Tensor, delta: Tensor
    ) -> tuple[CountSketch, Tensor]:
        if watched.sketch is None:
            width = delta.shape[-1]
            buckets = width if self.estimator == "exact" else self.buckets
            watched.sketch = CountSketch(width, buckets, self._round_seed(watched))
        if watched.total is None:
            sketch = watched.sketch
            width = math.ceil(hidden.shape[-1] / sketch.blocks)
            shape = (_HALVES, self.n_domains, sketch.blocks, sketch.buckets, width)
            dtype = torch.promote_types(delta.dtype, torch.float32)
            watched.total = torch.zeros(shape, dtype=dtype, device=delta.device)
        return watched.sketch, watched.total

    def _round_seed(self, watched: _Watched) -> int:
        entropy = [self.seed, self.round, self._watched.index(watched)]
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    # ----------------------------------------------------------------- estimating

    @torch.no_grad()
    def estimate(self) -> GramEstimate:
        """Return the Gram matrix of the round so far; costs ``2 m^2`` per accumulated number."""
        n1, n2 = self._counts.astype(np.float64)
        if self._counts.any() and any(watched.total is None for watched in self._watched):
            raise InputError(
                "layers", "a watched layer took no part in the backward pass",
                "watch another, or use a loss that is not fused with it",
            )  # fmt: skip
        m = self.n_domains
        whole, squares = np.zeros((m, m)), np.zeros((3, m))
        for watched in self._watched:
            if watched.total is not None:  # None: nothing was watched yet
                for first, second in _chunks(watched.total):
                    both = first + second
                    whole += (both @ both.T).cpu().numpy()
                    pairs = ((first, second), (first, first), (second, second))
                    squares += [torch.linalg.vecdot(a, b).cpu().numpy() for a, b in pairs]
        with np.errstate(divide="ignore", invalid="ignore"):
            cross, one, two = squares / np.array([n1 * n2, n1 * n1, n2 * n2])
        counts = self._counts.sum(axis=0)
        absent = np.where(counts > 0, 1.0, np.nan)
        n = np.maximum(counts, 1) * absent
        gram = whole / np.outer(n, n)
        split = np.where((n1 > 0) & (n2 > 0), 1.0, np.nan)
        return GramEstimate(gram, counts, cross * split, (one + two - 2 * cross) / 4 * split)

    def reset(self) -> None:
        """Start a new round: forget the gradients, draw new signs."""
        self.round += 1
        self._counts[:] = 0
        for watched in self._watched:
            if watched.total is not None:
                watched.total.zero_()
            if watched.sketch is not None and not watched.sketch.exact:
                watched.sketch = None

    @property
    def bytes(self) -> int:
        """Memory of the accumulators, in bytes (0 before the first batch)."""
        totals = [w.total for w in self._watched if w.total is not None]
        return sum(total.numel() * total.element_size() for total in totals)

    @property
    def estimate_flops(self) -> int:
        """Operations of one :meth:`estimate`, by formula: the product and the half-rounds' rows."""
        numbers = sum(w.total[0, 0].numel() for w in self._watched if w.total is not None)
        return (2 * self.n_domains + 8) * self.n_domains * numbers

    def remove(self) -> None:
        """Take the hooks off the layers."""
        for hook in self._hooks:
            hook.remove()

    # -------------------------------------------------------------------- resuming

    def state_dict(self) -> dict[str, Any]:
        """State in the middle of a round: tensors and integers."""
        state: dict[str, Any] = {
            "settings": self._settings(),
            "round": self.round,
            "counts": torch.from_numpy(self._counts),
        }
        for index, watched in enumerate(self._watched):
            if watched.total is not None:
                state[f"total.{index}"] = watched.total
        return state

    def _settings(self) -> dict[str, Any]:
        return {
            "n_domains": self.n_domains,
            "estimator": self.estimator,
            "buckets": self.buckets,
            "seed": self.seed,
            "layers": [list(w.weight.shape) for w in self._watched],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state saved by :meth:`state_dict`; signs are drawn again from the seed."""
        for name, mine in self._settings().items():
            if state["settings"].get(name) != mine:
                raise InputError(
                    "tracker state", f"saved with {name} {state['settings'].get(name)}, not {mine}",
                    f"resume with the {name} of the checkpoint",
                )  # fmt: skip
        counts = torch.as_tensor(state["counts"]).cpu().numpy().astype(np.int64)
        self.round, self._counts = int(state["round"]), counts
        for index, watched in enumerate(self._watched):
            total, watched.sketch = state.get(f"total.{index}"), None
            device = watched.weight.device
            watched.total = None if total is None else torch.as_tensor(total).clone().to(device)


class _Watched:
    """One layer, the round's sketch, and its sums: (2 halves, m, blocks, buckets, d / blocks)."""

    def __init__(self, layer: nn.Module) -> None:
        matrices = [p for p in layer.parameters(recurse=False) if p.ndim == 2]
        if len(matrices) != 1 or isinstance(layer, nn.Embedding):
            raise InputError(
                "layers", f"{type(layer).__name__} is not a linear layer", "watch an nn.Linear"
            )
        self.layer, self.weight = layer, matrices[0]
        self.sketch: CountSketch | None = None
        self.total: Tensor | None = None


def _chunks(total: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the two half-rounds, (m, some) each, in chunks whose float64 copies stay small.

    Products are taken in float64, since G is a small difference of large sums. Apple's GPUs
    have no such numbers.
    """
    widest = total.dtype if total.device.type == "mps" else torch.float64
    flat = total.flatten(2)
    for chunk in torch.split(flat, max(1, (1 << 20) // flat.shape[1]), dim=2):
        first, second = chunk.to(widest)
        yield first, second


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
    if head is None:
        head = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    if head is None:
        raise InputError("layer", "the model has no linear layer", "name a module to watch")
    assert isinstance(head, nn.Module)
    return head
