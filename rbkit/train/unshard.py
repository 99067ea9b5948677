"""Checkpoints of sharded runs, made readable where nothing is sharded.

Under FSDP with full state dicts the library saves whole weights beside a whole optimiser
state that is keyed by parameter names; without FSDP it reads an optimiser state keyed by
numbers, and refuses a folder in which it sees the former.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rbkit.errors import InputError
from rbkit.train.parallel import is_first, wait

_MODEL, _OPTIMIZER = "pytorch_model_fsdp", "optimizer"


@contextmanager
def readable(checkpoint: str | None, *, sharded: bool) -> Iterator[str | None]:
    """Give a checkpoint as the library can read it in a run that is, or is not, `sharded`.

    Raises
    ------
    InputError
        If the checkpoint is in shards, which only a sharded run can put together.
    """
    if checkpoint is None or sharded or not any(Path(checkpoint).glob(f"{_MODEL}*")):
        yield checkpoint
        return
    folder = Path(checkpoint)
    if not (folder / f"{_OPTIMIZER}.bin").is_file():
        raise InputError(
            checkpoint, "is in shards", "resume with FSDP on; or save with state_dict_type="
            "'FULL_STATE_DICT', which any number of processes can read",
        )  # fmt: skip
    copy = folder.parent / f"unsharded-{folder.name}"
    wait()
    if is_first():
        shutil.rmtree(copy, ignore_errors=True)
        left_out = shutil.ignore_patterns(f"{_MODEL}*", f"{_OPTIMIZER}*")
        shutil.copytree(folder, copy, ignore=left_out)
        torch.save(by_number(_load(folder / f"{_OPTIMIZER}.bin")), copy / f"{_OPTIMIZER}.pt")
    wait()
    try:
        yield str(copy)
    finally:
        if is_first():
            shutil.rmtree(copy, ignore_errors=True)


def by_number(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser state keyed by names as one keyed by numbers, in the groups' order.

    Examples
    --------
    >>> by_number({"state": {"b": 2, "a": 1}, "param_groups": [{"lr": 1, "params": ["a", "b"]}]})
    {'state': {0: 1, 1: 2}, 'param_groups': [{'lr': 1, 'params': [0, 1]}]}
    """
    names = [name for group in state["param_groups"] for name in group["params"]]
    number = {name: at for at, name in enumerate(names)}
    groups = [
        {**group, "params": [number[name] for name in group["params"]]}
        for group in state["param_groups"]
    ]
    return {
        "state": {number[name]: state["state"][name] for name in names if name in state["state"]},
        "param_groups": groups,
    }


def _load(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))
