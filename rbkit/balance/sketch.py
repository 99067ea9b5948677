"""Count sketch of the output side of a linear layer's gradient.

The gradient of ``y = x W^T`` on a batch is ``Delta^T H``: one row per output. Folding the
rows into `c` buckets with random signs, ``S Delta^T H``, keeps inner products in
expectation, ``E <S A, S B> = <A, B>``, because for two different outputs in one bucket
the product of their signs has mean 0. Only signs need to be random for that, so output j
simply goes to bucket ``j mod c``: consecutive memory is read once, without a scatter. In
a vocabulary ordered by frequency (as BPE makes it) this also puts the c most frequent
tokens, whose rows are the largest, into buckets of their own.

The signs are drawn anew each round, so that the errors of rounds are independent.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Elements of the temporary that one chunk of the fold may take: it should stay in cache.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 26}


class CountSketch:
    """Fold the last dimension of a tensor into `buckets`, with random signs.

    Parameters
    ----------
    size : int
        Length of the last dimension.
    buckets : int
        Length that it is folded to. If it is at least `size`, nothing is folded and the
        sketch is exact.
    seed : int
        Seed of the signs: the same seed gives the same sketch on every device.

    Examples
    --------
    >>> sketch = CountSketch(size=10, buckets=4, seed=0)
    >>> sketch.fold(torch.ones(3, 10)).shape
    torch.Size([3, 4])
    """

    def __init__(self, size: int, buckets: int, seed: int) -> None:
        self.size = size
        self.buckets = min(buckets, size)
        generator = torch.Generator().manual_seed(seed)
        self._signs = torch.randint(0, 2, (size,), generator=generator).mul_(2).sub_(1).float()

    @property
    def exact(self) -> bool:
        """Whether there is a bucket for every output."""
        return self.buckets == self.size

    def fold(self, delta: Tensor) -> Tensor:
        """Return the sketch of `delta` (T, size) as (T, buckets), in float32 or float64."""
        dtype = torch.promote_types(delta.dtype, torch.float32)
        if self.exact:
            return delta.to(dtype)
        if self._signs.device != delta.device or self._signs.dtype != dtype:
            self._signs = self._signs.to(device=delta.device, dtype=dtype)
        folded = delta.new_empty((len(delta), self.buckets), dtype=dtype)
        rows = max(1, _CHUNK.get(delta.device.type, 1 << 22) // self.size)
        whole = self.size // self.buckets * self.buckets
        for start in range(0, len(delta), rows):
            signed = delta[start : start + rows] * self._signs
            out = folded[start : start + rows]
            torch.sum(signed[:, :whole].reshape(len(signed), -1, self.buckets), 1, out=out)
            out[:, : self.size - whole] += signed[:, whole:]
        return folded
