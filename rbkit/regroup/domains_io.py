"""How :class:`~rbkit.regroup.Domains` are kept on disk: Parquet and JSON, never pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import atomic_path, read_json, sha256_of_file, write_json

if TYPE_CHECKING:
    from rbkit.regroup.domains import Domains

FORMAT = "rbkit-domains/1"
_ASSIGNMENTS, _CENTROIDS = "assignments.parquet", "centroids.parquet"
REMEDY = "restore it from a copy, or regroup again"


def save(domains: Domains, folder: Path) -> Path:
    """Write `domains` to `folder`; the JSON file, written last, makes them valid."""
    header = folder / "domains.json"
    header.unlink(missing_ok=True)
    split = ["train"] * len(domains.train_labels) + ["eval"] * len(domains.eval_labels)
    lengths = (len(domains.train_labels), len(domains.eval_labels))
    assignments = pa.table(
        {
            "split": pa.array(split, pa.string()).dictionary_encode(),
            "row": np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]),
            "domain": np.concatenate([domains.train_labels, domains.eval_labels]),
        }
    )
    files = {_ASSIGNMENTS: assignments}
    if domains.centroids is None:
        (folder / _CENTROIDS).unlink(missing_ok=True)
    else:
        files[_CENTROIDS] = _table_of(domains.centroids, domains.centroid_domains)
    for name, table in files.items():
        with atomic_path(folder / name) as tmp:
            pq.write_table(table, tmp)
    facts = {
        "format": FORMAT,
        "names": domains.names,
        "n_train": lengths[0],
        "n_eval": lengths[1],
        "method": domains.method,
        "quality": domains.quality,
        "cards": [asdict(card) for card in domains.cards],
        "sha256": {name: sha256_of_file(folder / name) for name in files},
    }
    write_json(header, plain(facts))
    return folder


def load(folder: Path) -> dict[str, Any]:
    """Read the arguments of :class:`Domains` from `folder`, checked against their hashes."""
    header = folder / "domains.json"
    if not header.is_file():
        raise InputError(
            str(header), "no such file, so no saved domains", "give another folder, or regroup"
        )
    facts = read_json(header)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(str(header), f"not of the format {FORMAT}", REMEDY)
    try:
        # Two known names, not whatever the header lists: it may come from a stranger.
        sums = facts["sha256"]
        assignments = _read(folder / _ASSIGNMENTS, sums[_ASSIGNMENTS])
        centroids = _read(folder / _CENTROIDS, sums[_CENTROIDS]) if _CENTROIDS in sums else None
        labels = assignments["domain"].to_numpy()
        train = np.asarray(assignments["split"].to_pylist(), dtype=str) == "train"
        return {
            "names": facts["names"],
            "train_labels": labels[train],
            "eval_labels": labels[~train],
            "centroids": None if centroids is None else _matrix_of(centroids),
            "centroid_domains": None if centroids is None else centroids["domain"].to_numpy(),
            "method": facts["method"],
            "quality": facts["quality"],
            "cards": facts["cards"],
        }
    except (KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise InputError(str(header), f"not what was saved ({error!r})", REMEDY) from error


def plain(value: Any) -> Any:
    """Turn numpy scalars, arrays, tuples, paths and NaN into what JSON has.

    Examples
    --------
    >>> plain({"k": np.int64(3), "score": float("nan"), "grid": (1, np.float32(2))})
    {'k': 3, 'score': None, 'grid': [1, 2.0]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _read(path: Path, sha256: str) -> pa.Table:
    if not path.is_file():
        raise InputError(str(path), "no such file", REMEDY)
    if sha256_of_file(path) != sha256:
        raise InputError(str(path), "damaged: it is not the file that was saved", REMEDY)
    return pq.read_table(path)


def _table_of(matrix: NDArray[np.float32], owners: NDArray[np.int32] | None) -> pa.Table:
    rows = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({"domain": owners, "centroid": rows})


def _matrix_of(table: pa.Table) -> NDArray[np.float32]:
    column = table["centroid"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(table), -1), dtype=np.float32)
