r"""A few numbers for the gradient of each example: what gradient clusters are made of.

Regroup cuts a corpus by embeddings and assumes that these behave as gradients do. To look, one
needs the gradient of single examples. That of a linear layer is ``Delta_x^T H_x``, over the
tokens of example x, and both factors are there after one pass over a batch: no gradient of
another layer is computed, and for the output layer no backward pass through the model.

It is sketched as domain gradients are (:mod:`rbkit.balance.sketch`), and what does not fit into
`size` numbers is folded with random signs: inner products are right in expectation, with an
error of about ``|g| |h| / sqrt(size)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rbkit.balance.gram import find_layer
from rbkit.balance.sketch import CountSketch
from rbkit.balance.watched import without_autocast
from rbkit.errors import InputError, as_count
from rbkit.text import progress_bar
from rbkit.train.losses import LossOf, example_losses
from rbkit.train.models import PadCollator


def gradient_sketches(
    model: nn.Module,
    rows: Any,
    *,
    size: int = 1024,
    layer: str | None = None,
    batch_size: int = 16,
    collate: Callable[[list[Any]], dict[str, Any]] | None = None,
    loss_of: LossOf = example_losses,
    per_token: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Return a sketch of the gradient of every example, at the model's present weights.

    Parameters
    ----------
    model : nn.Module
        On its device; dropout is off meanwhile, and no ``.grad`` is touched.
    rows : sequence or map-style dataset
        Tokenised examples (:func:`rbkit.train.tokenize`), or what `collate` takes.
    size : int
        s, numbers of a sketch. The same `size`, `seed` and layer give sketches that can be
        compared: those of train and eval examples.
    layer : str, optional
        Name of a linear layer; the output layer by default.
    batch_size : int
        Examples of a pass.
    collate : callable, optional
        Makes a batch of rows; pads token rows by default.
    loss_of : callable
        Summed loss and number of tokens of each example (:mod:`rbkit.train.losses`).
    per_token : bool
        Gradient of an example's mean loss per token, so that a long text weighs no more than
        a short one; False for that of the summed loss.
    seed : int
        Of the random signs.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ndarray of float32, shape (n, size)
        Exact, and padded with zeros, where the whole gradient fits.

    Raises
    ------
    InputError
        The layer is not linear, or has no part in the loss.

    Examples
    --------
    >>> from rbkit.train import build_model
    >>> model = build_model("tiny", vocab_size=300)
    >>> rows = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}]
    >>> gradient_sketches(model, rows, size=64, progress=False).shape
    (2, 64)
    """
    size = as_count("size", size, least=1, remedy="give at least 1")
    batch_size = as_count("batch_size", batch_size, least=1, remedy="give at least 1")
    seed = as_count("seed", seed, most=2**63 - 2)  # torch's, and 1 is added to it
    watched = _Watched(find_layer(model, layer), size, seed)
    device = watched.weight.device
    if collate is None:
        pad = getattr(getattr(model, "config", None), "pad_token_id", None)
        collate = PadCollator(int(pad or 0))
    sketches = np.zeros((len(rows), size), dtype=np.float32)
    training = model.training
    model.eval()
    bar = progress_bar(
        total=len(rows),
        desc="gradient sketches",
        unit="example",
        mininterval=1,
        disable=not progress,
    )
    try:
        with watched.hooked(), bar:
            for at in _batches(rows, batch_size):
                batch = _to(collate([rows[int(row)] for row in at]), device)
                sketches[at] = (
                    watched.sketch(model, batch, loss_of, per_token).float().cpu().numpy()
                )
                bar.update(len(at))
    finally:
        model.train(training)
    return sketches


class _Watched:
    """The layer, what went in and came out in the present batch, and the sketch of both."""

    def __init__(self, layer: nn.Module, size: int, seed: int) -> None:
        matrices = [p for p in layer.parameters(recurse=False) if p.ndim == 2]
        if len(matrices) != 1 or isinstance(layer, nn.Embedding):
            raise InputError(
                "layer", f"{type(layer).__name__} is not a linear layer", "name an nn.Linear"
            )
        self.layer, self.weight = layer, matrices[0]
        self.size, self.seed = size, seed
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._sketch: CountSketch | None = None
        self._signs: Tensor | None = None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        handle = self.layer.register_forward_hook(self._on_forward)
        try:
            yield
        finally:
            handle.remove()

    def _on_forward(self, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # Gradients are needed from here on, not before: no graph is kept of the layers below.
        torch.set_grad_enabled(True)
        if not output.requires_grad:
            output.requires_grad_()
        self._seen.append((args[0].detach(), output))

    def sketch(
        self, model: nn.Module, batch: dict[str, Any], loss_of: LossOf, per_token: bool
    ) -> Tensor:
        """Return (B, size) on the device."""
        self._seen.clear()
        with torch.no_grad():  # which the hook ends, and this block restores
            losses, tokens = loss_of(model, batch)
            if not self._seen or not losses.requires_grad:
                raise InputError(
                    "layer",
                    f"{type(self.layer).__name__} has no part in the loss",
                    "name a layer between input and loss, and a loss that is not fused with it",
                )
            if per_token:
                losses = losses / tokens.clamp(min=1)
            outputs = [output for _, output in self._seen]
            deltas = torch.autograd.grad(losses.sum(), outputs)
        with torch.no_grad(), without_autocast(losses.device):
            parts = [
                self._of_call(hidden, delta, len(losses))
                for (hidden, _), delta in zip(self._seen, deltas, strict=True)
            ]
            self._seen.clear()
            return torch.stack(parts).sum(0)

    def _of_call(self, hidden: Tensor, delta: Tensor, examples: int) -> Tensor:
        if len(delta) != examples:
            raise InputError(
                "layer",
                f"its output has {len(delta)} rows for {examples} examples",
                "name a layer whose first dimension is the example",
            )
        inputs, outputs = hidden.shape[-1], delta.shape[-1]
        if self._sketch is None:
            self._sketch = CountSketch(outputs, inputs, max(1, self.size // inputs), self.seed)
        sketch = self._sketch
        left = sketch.fold(delta.reshape(-1, outputs))
        right = sketch.split(hidden.reshape(-1, inputs)).to(left.dtype)
        left_BxE, right_BxE = (x.unflatten(1, (examples, -1)) for x in (left, right))
        numbers = torch.matmul(left_BxE.mT, right_BxE)  # (blocks, examples, buckets, width)
        return self._fold(sketch.gain * numbers.movedim(1, 0).flatten(1))

    def _fold(self, numbers: Tensor) -> Tensor:
        """Return `size` numbers of each row: padded with zeros, or added up with random signs."""
        many = numbers.shape[1]
        if many > self.size:
            if self._signs is None:
                generator = torch.Generator().manual_seed(self.seed + 1)
                signs = torch.randint(0, 2, (many,), generator=generator)
                self._signs = (2 * signs - 1).to(numbers)
            numbers = numbers * self._signs
        padded = nn.functional.pad(numbers, (0, -many % self.size))
        return padded.view(len(numbers), -1, self.size).sum(1)


def _batches(rows: Any, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers; token rows of like length together, so that little is padding."""
    order = np.arange(len(rows))
    if len(rows) and isinstance(rows[0], dict) and isinstance(rows[0].get("input_ids"), Sequence):
        order = np.argsort([-len(row["input_ids"]) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _to(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
