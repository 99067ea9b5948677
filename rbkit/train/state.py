"""State of a run as files: arrays in npz, the rest in JSON, never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from rbkit.errors import InputError
from rbkit.files import atomic_path, read_json, read_npz, write_json

_ARRAYS, _VALUES = "rbkit_state.npz", "rbkit_state.json"
_MARK = "array:"


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
            str(folder), "not a checkpoint of a mixture (no rbkit_state.json)",
            "resume from a complete checkpoint that MixtureTrainer wrote",
        )  # fmt: skip
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

    return dict(join(values))


def check_weights(folder: str | Path) -> None:
    """Refuse a checkpoint whose weights cannot be read, naming the file."""
    for path in Path(folder).glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                str(path), f"cannot be read ({error})",
                "delete the checkpoint's folder and resume from another",
            ) from error  # fmt: skip


def latest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest complete ``checkpoint-N`` in `folder`, or None."""
    found = [p.parent for p in Path(folder).glob(f"checkpoint-*/{_VALUES}")]
    numbered = [(int(p.name.removeprefix("checkpoint-")), p) for p in found
                if p.name.removeprefix("checkpoint-").isdigit()]  # fmt: skip
    return max(numbered)[1] if numbered else None
