"""Count sketch of the output side of a linear layer's gradient.

The gradient of ``y = x W^T`` on a batch is ``Delta^T H``: one row per output. Folding the
rows into `c` buckets with random signs, ``S Delta^T H``, keeps inner products in
expectation, ``E <S A, S B> = <A, B>``, because for two different outputs in one bucket
the product of their signs has mean 0. Only signs need to be random for that, so output j
simply goes to bucket ``j mod c``: consecutive memory is read once, without a scatter.

How far an estimate strays is another matter. Rows of a language model's head point mostly
the same way, along the mean hidden state, so two rows in one bucket have a large product
whose single random sign decides all. Remedy: inputs are cut into B blocks, and how the
outputs are folded differs from block to block. Outputs are first folded, with random signs,
into B groups of c buckets; block b then adds the groups up with the signs of row b of a
Hadamard matrix. For two outputs in different groups the products of these signs sum to zero
over the blocks, so where their rows point the same way in all blocks, nothing is left of the
error. At the same memory this cuts the error to a quarter (``bench/fidelity.py``).

Signs are drawn anew each round, so that the errors of rounds are independent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Elements of the temporary that one chunk of the fold may take: it should stay in cache.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 26}
_BLOCKS = 16  # more are closer still, but cost more products


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
        B, at most: a power of two; fewer are taken if there are fewer groups to tell apart.

    Examples
    --------
    >>> CountSketch(size=10, buckets=4, seed=0).fold(torch.ones(3, 10)).shape
    torch.Size([4, 3, 4])
    """

    def __init__(self, size: int, buckets: int, seed: int, blocks: int = _BLOCKS) -> None:
        self.size = size
        self.buckets = min(buckets, size)
        groups = math.ceil(size / self.buckets)
        self.blocks = min(blocks, 1 << (groups - 1).bit_length())
        generator = torch.Generator().manual_seed(seed)
        self._signs = torch.randint(0, 2, (size,), generator=generator).mul_(2).sub_(1).float()
        self._mix = _hadamard(self.blocks)

    @property
    def exact(self) -> bool:
        """Whether there is a bucket for every output."""
        return self.buckets == self.size

    @property
    def flops(self) -> int:
        """Operations that folding one row takes: signs and additions, then the mixing."""
        return 0 if self.exact else 2 * self.size + 2 * self.blocks**2 * self.buckets

    def fold(self, delta: Tensor) -> Tensor:
        """Return the sketch of `delta` (T, size) as (blocks, T, buckets), float32 or float64."""
        dtype = torch.promote_types(delta.dtype, torch.float32)
        if self.exact:
            return delta.to(dtype)[None]
        signs = self._signs.to(device=delta.device, dtype=dtype)
        mix = self._mix.to(device=delta.device, dtype=dtype)
        width = self.blocks * self.buckets
        groups = delta.new_empty((len(delta), width), dtype=dtype)
        rows = max(1, _CHUNK.get(delta.device.type, 1 << 22) // self.size)
        for start in range(0, len(delta), rows):
            groups[start : start + rows] = _fold(delta[start : start + rows] * signs, width)
        # One product over all rows, in the order in which they are needed.
        groups = groups.view(len(delta), self.blocks, self.buckets).movedim(1, 0)
        mixed = mix @ groups.reshape(self.blocks, -1)
        return mixed.view(self.blocks, len(delta), self.buckets)

    def split(self, hidden: Tensor) -> Tensor:
        """Return `hidden` (..., d) as (blocks, ..., ceil(d / blocks)), zeros at the end."""
        width = math.ceil(hidden.shape[-1] / self.blocks)
        missing = self.blocks * width - hidden.shape[-1]
        if missing:
            hidden = torch.nn.functional.pad(hidden, (0, missing))
        blocks: Tensor = hidden.reshape(*hidden.shape[:-1], self.blocks, width)
        return blocks.movedim(-2, 0)


def _hadamard(size: int) -> Tensor:
    """Return Sylvester's matrix of +1 and -1 with orthogonal rows; `size` is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix


def _fold(rows_TxV: Tensor, buckets: int) -> Tensor:
    """Sum the columns j, j + buckets, j + 2 buckets, ... of each row."""
    whole = rows_TxV.shape[1] // buckets * buckets
    folded = rows_TxV[:, :whole].reshape(len(rows_TxV), -1, buckets).sum(1)
    folded[:, : rows_TxV.shape[1] - whole] += rows_TxV[:, whole:]
    return folded
