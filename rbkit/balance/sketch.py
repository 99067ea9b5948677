r"""A sketch of a linear layer's gradient: few numbers that keep inner products.

The gradient of ``y = x W^T`` on a batch is ``Delta^T H``, a sum over tokens of outer
products ``delta h^T``. Two steps make it small without ever forming it.

*Fold.* The V outputs are added up, each with a random sign, into B groups of c buckets:
output j goes to column ``j mod (B c)``, so consecutive memory is read once, without a
scatter. Only signs need to be random for ``E <S A, S B> = <A, B>`` (a count sketch;
Charikar, Chen and Farach-Colton 2002): for two outputs in one column the product of their
signs has mean 0. Signs are applied while adding, so folding takes one pass over the outputs.

*Convolve.* B c columns for every input would be too many. The d inputs are cut into B
blocks, and for each bucket the B groups of outputs are convolved with the B blocks of
inputs,

.. math:: out_u = \sum_k F_{u \oplus k}^T H_k, \qquad u = 0 \ldots B - 1,

which leaves c x d numbers: a tensor sketch (Pham and Pagh 2013) with exclusive or in place
of addition. Under a Walsh-Hadamard transform of groups and of blocks it is B separate
products, and the transform itself takes ``log2 B`` additions per number.

Why convolve: rows of a language model's head point mostly one way, along the mean hidden
state. With c plain buckets two rows that meet have a large product, and one random sign
decides all. Here two outputs of different groups meet only in different blocks of their
inputs, which have random signs of their own: for the common direction it is as if there
were B c buckets. What else is in the gradients is kept about as well as by a dense random
projection to c d numbers (``bench/tradeoff.py``).

New signs are drawn each round, so that the errors of rounds are independent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Numbers of folded rows to work on at a time: on a CPU they should stay in its cache.
_CHUNK = {"cpu": 1 << 17, "cuda": 1 << 24}
_COLUMNS = 512  # at least: fewer, and outputs that share a column decide the error
_BLOCKS = 8  # at least, so that inputs of all kinds are separated
_MEETING = 2  # outputs in a column at least: with fewer, transforms cost more than the fold
_NUMBERS = 8192  # that a sketch keeps, at most, of a domain by default: see bench/tradeoff.py


class CountSketch:
    """Sketch of gradients of shape (outputs, inputs) with ``buckets * inputs`` numbers.

    Parameters
    ----------
    outputs, inputs : int
        V and d: the shape of the layer's weight.
    buckets : int
        c. If it is at least `outputs`, nothing is folded: there is one block, and the sketch
        is exact.
    seed : int
        Seed of the signs: the same seed gives the same sketch on every device.

    Attributes
    ----------
    blocks : int
        B, a power of two.
    width : int
        Inputs of a block, ``ceil(d / B)``.

    Examples
    --------
    >>> sketch = CountSketch(outputs=50, inputs=8, buckets=4, seed=0)
    >>> sketch.fold(torch.ones(3, 50)).shape, sketch.split(torch.ones(3, 8)).shape
    (torch.Size([4, 3, 4]), torch.Size([4, 3, 2]))
    """

    def __init__(self, outputs: int, inputs: int, buckets: int, seed: int) -> None:
        self.outputs, self.inputs = outputs, inputs
        self.buckets = min(buckets, outputs)
        wanted = max(_BLOCKS, math.ceil(_COLUMNS / self.buckets))
        most = max(1, min(inputs, outputs // (_MEETING * self.buckets)))
        self.blocks = min(1 << (wanted - 1).bit_length(), 1 << (most.bit_length() - 1))
        self.width = math.ceil(inputs / self.blocks)
        generator = torch.Generator("cpu").manual_seed(seed)
        self._outputs, self._inputs = (
            1.0 - 2.0 * torch.randint(0, 2, (size,), generator=generator, device="cpu")
            for size in (outputs, inputs)
        )
        self._signs: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @property
    def exact(self) -> bool:
        """Whether there is a bucket for every output."""
        return self.buckets == self.outputs

    @property
    def gain(self) -> float:
        """Factor of a product of :meth:`fold` and :meth:`split`: the transforms' norm."""
        return float(self.blocks**-0.5)

    @property
    def additions(self) -> int:
        """Additions that one token takes: the fold, and the transforms of both sides."""
        if self.exact:
            return 0
        columns, stages = self.blocks * self.buckets, self.blocks.bit_length() - 1
        fold = self.outputs - columns  # the first number of a column is added to nothing
        return fold + stages * (columns + self.blocks * self.width)

    def fold(self, delta: Tensor) -> Tensor:
        """Return `delta` (T, V) as (blocks, T, buckets), float32 or float64."""
        dtype = torch.promote_types(delta.dtype, torch.float32)
        delta = delta.detach()
        if self.exact:
            return delta.to(dtype)[None]
        signs, _ = self._signs_like(delta, dtype)
        columns = self.blocks * self.buckets
        sums = delta[:, :columns] * signs[:columns]
        for first in range(columns, self.outputs, columns):
            some = delta[:, first : first + columns]
            sums[:, : some.shape[1]].addcmul_(some, signs[first : first + columns])
        return walsh(sums.unflatten(1, (self.blocks, self.buckets)).movedim(1, 0))

    def split(self, hidden: Tensor) -> Tensor:
        """Return `hidden` (T, d) as (blocks, T, width), float32 or float64."""
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        hidden = hidden.detach()
        if self.blocks == 1:
            return hidden.to(dtype)[None]
        _, signs = self._signs_like(hidden, dtype)
        missing = self.blocks * self.width - self.inputs
        padded = hidden * signs
        if missing:
            padded = torch.nn.functional.pad(padded, (0, missing))
        return walsh(padded.unflatten(1, (self.blocks, self.width)).movedim(1, 0))

    def rows_at_once(self, device: torch.device) -> int:
        """Return how many rows to fold at a time."""
        return max(1, _CHUNK.get(device.type, 1 << 20) // (self.blocks * self.buckets))

    def _signs_like(self, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the signs of outputs, (V,), and of inputs, (d,), on like's device."""
        key = like.device, dtype
        if key not in self._signs:
            self._signs[key] = self._outputs.to(*key), self._inputs.to(*key)
        return self._signs[key]


def default_buckets(inputs: int) -> int:
    """Return how many buckets give a sketch the numbers that it keeps by default.

    Examples
    --------
    >>> default_buckets(768), default_buckets(128), default_buckets(4096)
    (10, 64, 2)
    """
    return max(1, _NUMBERS // inputs)


def walsh(x: Tensor) -> Tensor:
    """Return the Walsh-Hadamard transform of `x` along its first dimension, a power of two.

    ``n log2 n`` additions for a column of n numbers; not normalised.

    Examples
    --------
    >>> walsh(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    tensor([2., 2., 0., 0.])
    """
    half, buffers = len(x) // 2, x.new_empty((2, *x.shape))
    # All stages are alike: sums and differences of the two halves, by turns, so that the inner
    # loops are long.
    for stage in range(len(x).bit_length() - 1):
        one, other = x[:half], x[half:]
        x = buffers[stage % 2]
        torch.add(one, other, out=x[0::2])
        torch.sub(one, other, out=x[1::2])
    return x
