"""Count sketch of the output side of a linear layer's gradient.

The gradient of ``y = x W^T`` on a batch is ``Delta^T H``: one row per output. Folding the
rows into `c` buckets with random signs, ``S Delta^T H``, keeps inner products in
expectation, ``E <S A, S B> = <A, B>``, because for two different outputs in one bucket
the product of their signs has mean 0. Only signs need to be random for that, so output j
simply goes to bucket ``j mod c``: consecutive memory is read once, without a scatter.

How far an estimate strays is another matter. Rows of a language model's head point mostly
the same way, along the mean hidden state, so two rows in one bucket have a large product
whose single random sign decides all. With signs drawn anew for each of B blocks of the
inputs, B smaller products come with independent signs and mostly cancel. To read the
logits only once for all that, outputs are folded in two stages: into 16 c buckets, the
same for all blocks, then into c with signs of each block's own. At the same memory and the
same products this cuts the error to about a third (``bench/fidelity.py``).

Signs are drawn anew each round, so that the errors of rounds are independent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Elements of the temporary that one chunk of the fold may take: it should stay in cache.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 26}
_FIRST_STAGE = 16  # buckets of the first stage, as a multiple of those of the second


class CountSketch:
    """Fold the last dimension of a tensor into `buckets`, once for each block of inputs.

    Parameters
    ----------
    size : int
        Length of the last dimension: outputs of the layer.
    buckets : int
        Length that it is folded to. If it is at least `size`, nothing is folded: there is
        one block, and the sketch is exact.
    seed : int
        Seed of the signs: the same seed gives the same sketch on every device.
    blocks : int
        B, blocks of inputs that get signs of their own.

    Examples
    --------
    >>> CountSketch(size=10, buckets=4, seed=0, blocks=2).fold(torch.ones(3, 10)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, size: int, buckets: int, seed: int, blocks: int = 16) -> None:
        self.size = size
        self.buckets = min(buckets, size)
        self.blocks = 1 if self.exact else blocks
        generator = torch.Generator().manual_seed(seed)
        self._wide = min(size, _FIRST_STAGE * self.buckets)
        self._first = _signs((size,), generator)
        self._second = _signs((self.blocks, self._wide), generator)

    @property
    def exact(self) -> bool:
        """Whether there is a bucket for every output."""
        return self.buckets == self.size

    @property
    def additions(self) -> int:
        """Additions (each with a sign) that one row of outputs takes."""
        return 0 if self.exact else self.size + self.blocks * self._wide

    def fold(self, delta: Tensor) -> Tensor:
        """Return the sketch of `delta` (T, size) as (blocks, T, buckets), float32 or float64."""
        dtype = torch.promote_types(delta.dtype, torch.float32)
        if self.exact:
            return delta.to(dtype)[None]
        first = self._first.to(device=delta.device, dtype=dtype)
        second = self._second.to(device=delta.device, dtype=dtype)
        folded = delta.new_empty((self.blocks, len(delta), self.buckets), dtype=dtype)
        rows = max(1, _CHUNK.get(delta.device.type, 1 << 22) // self.size)
        for start in range(0, len(delta), rows):
            wide = _fold(delta[start : start + rows] * first, self._wide)
            for block in range(self.blocks):
                signed = wide * second[block]
                folded[block, start : start + rows] = _fold(signed, self.buckets)
        return folded

    def split(self, hidden: Tensor) -> Tensor:
        """Return `hidden` (..., d) as (blocks, ..., ceil(d / blocks)), zeros at the end."""
        width = math.ceil(hidden.shape[-1] / self.blocks)
        missing = self.blocks * width - hidden.shape[-1]
        if missing:
            hidden = torch.nn.functional.pad(hidden, (0, missing))
        blocks: Tensor = hidden.reshape(*hidden.shape[:-1], self.blocks, width)
        return blocks.movedim(-2, 0)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).mul_(2).sub_(1).float()


def _fold(rows_TxV: Tensor, buckets: int) -> Tensor:
    """Sum the columns j, j + buckets, j + 2 buckets, ... of each row."""
    whole = rows_TxV.shape[1] // buckets * buckets
    folded = rows_TxV[:, :whole].reshape(len(rows_TxV), -1, buckets).sum(1)
    folded[:, : rows_TxV.shape[1] - whole] += rows_TxV[:, whole:]
    return folded
