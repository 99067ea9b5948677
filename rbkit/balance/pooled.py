"""Sums over the processes that train together; with one process, nothing happens.

Only what is linear in the gradient is ever summed: accumulators and counts. A Gram matrix
is quadratic, so it is formed afterwards, from the sums, by each process. All processes must
call these functions, in the same order; one that has seen no batch has None for its sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rbkit.balance.signals import FloatArray

_CHUNK = 1 << 20  # numbers that are summed at a time
_DIMENSIONS = 5  # of a layer's sums: halves, domains, blocks, buckets, width


def processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if processes() > 1 else 0


def pooled(values: FloatArray, device: torch.device) -> FloatArray:
    """Return `values` summed over processes, float64.

    Examples
    --------
    >>> pooled(np.array([1.0, 2.0]), torch.device("cpu"))
    array([1., 2.])
    """
    if processes() == 1:
        return values
    tensor = torch.from_numpy(np.array(values, dtype=np.float64)).to(device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def layout(total: Tensor | None, device: torch.device) -> tuple[list[int], torch.dtype] | None:
    """Return shape and dtype of a layer's sums in whichever process has some, else None."""
    if processes() > 1:
        mine = torch.zeros(_DIMENSIONS + 1, dtype=torch.int64, device=device)
        if total is not None:
            mine = torch.tensor([*total.shape, total.element_size()], device=device)
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        *shape, size = mine.tolist()
        return (shape, torch.float64 if size == 8 else torch.float32) if size else None
    return (list(total.shape), total.dtype) if total is not None else None


def halves(
    total: Tensor | None, shape: list[int], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the half-rounds' sums over all processes, (m, some) each, chunk by chunk.

    Chunks are float64, since G is a small difference of large sums, and small, so that the
    copies are. Apple's GPUs have no such numbers.
    """
    widest = torch.float32 if device.type == "mps" else torch.float64
    m, numbers = shape[1], int(np.prod(shape[2:]))
    step = max(1, _CHUNK // m)
    flat = None if total is None else total.flatten(2)
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


def summed(total: Tensor | None, device: torch.device) -> Tensor | None:
    """Return a layer's sums over all processes, in a tensor of their own; None if none has any."""
    if processes() == 1:
        return total
    found = layout(total, device)
    if found is None:
        return None
    shape, dtype = found
    whole = torch.empty(shape, dtype=dtype, device=device)
    flat, start = whole.flatten(2), 0
    for pair in halves(total, shape, device):
        chunk = torch.stack(pair)
        flat[:, :, start : start + chunk.shape[2]] = chunk
        start += chunk.shape[2]
    return whole
