"""Checkpoints: the state of a mixture as arrays and JSON, next to what transformers saves.

Under FSDP with full state dicts the library saves whole weights next to a whole optimiser
state that is keyed by parameter names; without FSDP it reads an optimiser state keyed by
numbers, and refuses a folder that has the former. :func:`readable` makes one of the other.
"""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, read_json, read_npz, regular, write_json
from rbkit.text import clean
from rbkit.train.parallel import is_first, wait

_ARRAYS, _VALUES = "rbkit_state.npz", "rbkit_state.json"
_MARK = "array:"
_PARTS_OF_STATE = {"identity", "step", "mixture", "observer", "ledger", "recorder"}


def save_state(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts of arrays, tensors and JSON values; the JSON file comes last.

    A folder without it holds a checkpoint whose writer was killed.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> save_state(folder, {"sampler": {"position": 7, "drawn": np.arange(3)}})
    >>> load_state(folder)["sampler"]["drawn"]
    array([0, 1, 2])
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def split(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            return {k: split(v, f"{path}/{k}") for k, v in value.items()}
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, float) and not np.isfinite(value):
            value = np.array(value)  # JSON has none
        if isinstance(value, np.ndarray):
            arrays[path] = value
            return _MARK + path
        if isinstance(value, list | tuple):
            return [split(v, f"{path}/{i}") for i, v in enumerate(value)]
        return value.item() if isinstance(value, np.generic) else value

    values = split(state, "")
    with atomic_path(Path(folder) / _ARRAYS) as tmp:
        np.savez(tmp, **arrays)  # type: ignore[arg-type]
    write_json(Path(folder) / _VALUES, values)


def load_state(folder: str | Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote; arrays come back as numpy arrays."""
    if not (Path(folder) / _VALUES).is_file():
        raise InputError(
            str(folder),
            "not a checkpoint of a mixture (no rbkit_state.json)",
            "resume from a complete checkpoint that MixtureTrainer wrote",
        )
    values = read_json(Path(folder) / _VALUES)
    arrays = read_npz(
        Path(folder) / _ARRAYS, "delete the checkpoint's folder and resume from another"
    )

    def join(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: join(v) for k, v in value.items()}
        if isinstance(value, list):
            return [join(v) for v in value]
        if isinstance(value, str) and value.startswith(_MARK):
            return arrays[value.removeprefix(_MARK)]
        return value

    try:
        return dict(join(values))
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(Path(folder) / _VALUES, f"{type(error).__name__}: {error}") from error


def check_checkpoint(folder: str | Path) -> dict[str, Any]:
    """Return the state in a checkpoint; refuse one that is damaged, naming the file.

    What was never saved is another matter: see :func:`missing_parts`.
    """
    folder = Path(folder)
    for path in folder.rglob("*"):
        regular(path, or_folder=True)
    for name in (_ARRAYS, "trainer_state.json"):
        if not (folder / name).is_file() and (folder / _VALUES).is_file():
            raise _unusable(folder / name, "it is missing")
    state = load_state(folder)
    if lacking := _PARTS_OF_STATE - state.keys():
        raise _unusable(folder / _VALUES, f"{', '.join(sorted(lacking))} missing")
    weights = list(folder.glob("*.safetensors"))
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise _unusable(path, str(error)) from error
    archives = [p for p in sorted(folder.glob("*.*")) if p.suffix in (".pt", ".pth", ".bin")]
    for path in archives:
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError) as error:
            raise _unusable(path, str(error)) from error
        if damaged is not None:
            raise _unusable(path, f"{damaged} is damaged")
        if path.name != "training_args.bin":  # which nothing of it is read from
            _check_pickle(path)
    others = ("*model*.bin", "*model*/", "global_step*")  # of torch, FSDP, DeepSpeed
    if not weights and not any(any(folder.glob(pattern)) for pattern in others):
        raise _unusable(folder, "the weights are missing")
    for index in folder.glob("*.index.json"):
        for name in sorted(set(read_json(index)["weight_map"].values())):
            if not (folder / name).is_file():
                raise _unusable(folder / name, "it is missing")
    _check_trainer_state(folder / "trainer_state.json")
    return state


def _check_pickle(path: Path) -> None:
    """Refuse a file of torch with anything but numbers in it; the numbers are not read."""
    try:
        with safe_globals():
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever it is, the file is at fault
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise _unusable(path, reason) from error


def _check_trainer_state(path: Path) -> None:
    """Refuse a ``trainer_state.json`` that transformers could not continue from."""
    facts = read_json(path)
    wanted: dict[str, Any] = {
        "global_step": int,
        "max_steps": int,
        "num_train_epochs": int,
        "log_history": list,
    }
    wanted |= {"epoch": int | float | None, "best_model_checkpoint": str | None}
    try:
        TrainerState(**facts)
        usual = vars(TrainerState())
        numbers = [name for name in usual if isinstance(usual[name], int | float)]
        wanted = dict.fromkeys(numbers, int | float | None) | wanted
        odd = [n for n, kind in wanted.items() if n in facts and not isinstance(facts[n], kind)]
        if clean(facts) != facts or not isinstance(facts.get("stateful_callbacks", {}), dict):
            odd.append("a text")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error
    if odd:
        raise _unusable(path, f"{odd[0]} is not what it should be")


def missing_parts(folder: str | Path) -> list[str]:
    """Return what an exact resume needs besides the weights, and a checkpoint does not have."""
    parts = {
        "optimizer": ("optimizer*", "global_step*"),
        "scheduler": ("scheduler.pt", "global_step*"),
        "random state": ("rng_state*.pth",),
    }
    return [
        part
        for part, patterns in parts.items()
        if not any(any(Path(folder).glob(pattern)) for pattern in patterns)
    ]


def complete_checkpoints(folder: str | Path) -> list[Path]:
    """Return the complete ``checkpoint-N`` in `folder`, the newest first."""
    complete = [p.parent for p in Path(folder).glob(f"checkpoint-*/{_VALUES}")]
    numbered = [
        (int(p.name.removeprefix("checkpoint-")), p)
        for p in complete
        if p.name.removeprefix("checkpoint-").isdigit()
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest complete ``checkpoint-N`` in `folder` that can be read, or None.

    Raises
    ------
    InputError
        If none can be read: names what is wrong with the newest.

    Warns
    -----
    RbkitWarning
        Of each damaged one that is passed over for one before it.
    """
    errors: list[InputError] = []
    for checkpoint in complete_checkpoints(folder):
        try:
            check_checkpoint(checkpoint)
        except InputError as error:
            errors.append(error)
            continue
        for damage in errors if is_first() else ():
            what = f"passed over for {checkpoint.name}: {damage.where}: {damage.what}"
            warnings.warn(f"a checkpoint is {what}", RbkitWarning, stacklevel=2)
        return checkpoint
    if errors:
        raise errors[0]
    return None


def begin_checkpoint(folder: Path) -> None:
    """Take the mark of a complete checkpoint from `folder`, where a new one will be written."""
    (folder / _VALUES).unlink(missing_ok=True)


def clear_run(run_dir: Path, checkpoints: Path, *, side: bool) -> None:
    """Remove checkpoints and model of an earlier run, its side runs if asked, and nothing else."""
    for run in (run_dir / "side").glob("*/run.json") if side else ():
        shutil.rmtree(run.parent)
    for old in checkpoints.glob("checkpoint-*"):
        if (old / "trainer_state.json").exists() or (old / "model.safetensors").exists():
            shutil.rmtree(old)
    if (run_dir / "model" / "config.json").exists():
        shutil.rmtree(run_dir / "model")


def _unusable(path: Path, why: str) -> InputError:
    remedy = "delete the checkpoint's folder and resume from another"
    return InputError(str(path), f"cannot be read ({why})", remedy)


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
            checkpoint,
            "is in shards",
            "resume with FSDP on; or save with state_dict_type="
            "'FULL_STATE_DICT', which any number of processes can read",
        )
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
