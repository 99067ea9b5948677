"""Sums and agreements over processes; with one process, nothing happens.

Only what is linear is ever summed: accumulated gradients, counts, losses. Processes must
call these functions in the same order.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist

from rbkit.balance.signals import FloatArray


def processes() -> int:
    """Return the number of processes that train together.

    Examples
    --------
    >>> processes()
    1
    """
    return dist.get_world_size() if _initialised() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _initialised() else 0


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def all_sum(values: FloatArray, device: torch.device) -> FloatArray:
    """Return `values`, float64 of any shape, summed over processes.

    `device` is where the processes talk: the GPU for NCCL, the CPU for gloo.

    Examples
    --------
    >>> all_sum(np.array([1.0, 2.0]), torch.device("cpu"))
    array([1., 2.])
    """
    if processes() == 1:
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def from_first(values: FloatArray, device: torch.device) -> FloatArray:
    """Return what the first process has, float64, so that all go on with the same bits."""
    if processes() == 1:
        return values
    tensor = torch.from_numpy(np.array(values, dtype=np.float64)).to(device)
    dist.broadcast(tensor, src=0)
    return tensor.cpu().numpy()


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in any process."""
    return bool(all_sum(np.array([float(flag)]), device)[0] > 0)


def wait() -> None:
    """Wait for the other processes."""
    if processes() > 1:
        dist.barrier()


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()
