"""Sums and agreements over processes; with one process, nothing happens.

Only what is linear is ever summed: accumulated gradients, counts, losses. Processes must
call these functions in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist

from rbkit.balance.gram import all_sum as all_sum
from rbkit.balance.gram import processes as processes
from rbkit.balance.gram import rank as rank
from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def from_first(values: FloatArray, device: torch.device) -> FloatArray:
    """Return what the first process has, float64, so that all continue with the same bits."""
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


@contextmanager
def refused_together(device: torch.device) -> Iterator[None]:
    """Let an :class:`InputError` that the block raises in one process end all of them."""
    refused: InputError | None = None
    try:
        yield
    except InputError as error:
        refused = error
    if any_of(refused is not None, device):
        raise refused or InputError("run_dir", "the first process cannot use it", "see its error")
