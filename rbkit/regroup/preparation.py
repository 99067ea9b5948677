"""From a corpus and an embedder to the material of a regrouping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import ArrayLike

from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.regroup.domains_io import plain
from rbkit.regroup.embedding import Embedder, embed_corpus, embedding_seconds
from rbkit.regroup.material import Material

_IN_MEMORY = 200_000  # examples; the vectors of more stay on disk
_REMEDY = "make the corpus with rbkit.data.load_corpus"


def prepare(
    corpus: DatasetDict,
    embedder: str | Mapping[str, Any] | Embedder = "minilm",
    *,
    vectors: Mapping[str, ArrayLike] | None = None,
    cache: Path | str | bool | None = True,
    num_proc: int = 1,
    progress: bool = True,
) -> tuple[Material, dict[str, float]]:
    """Embed a corpus, or take the vectors given; also return the seconds that it cost.

    Parameters
    ----------
    corpus, embedder, vectors, cache, num_proc, progress
        As in :func:`rbkit.regroup.regroup`; an embedder may also be what
        ``domains.method["embedder"]`` says.

    Examples
    --------
    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"text": ["oak tree", "elm tree", "car engine"]})
    >>> material, seconds = prepare(DatasetDict({"train": rows, "eval": rows}), "tfidf",
    ...                             progress=False)
    >>> material.train.shape, material.embedder["name"]
    ((3, 2), 'TfidfEmbedder')
    """
    check_columns(corpus)
    origin = about(corpus)["fingerprint"]
    if vectors is not None:
        both = {split: _checked(vectors, split) for split in ("train", "eval")}
        made = {"name": "vectors", "shape": list(both["train"].shape)}
        return Material(corpus, both["train"], both["eval"], embedder=made, origin=origin), {}
    tool = make_embedder(embedder)
    column = getattr(tool, "reads", "text")
    began = perf_counter()
    large = num_proc > 1 or len(corpus["train"]) > _IN_MEMORY
    if cache and column == "text" and large:
        from rbkit.regroup.shard_job import embed_corpus_sharded

        folder = Path(cache) if isinstance(cache, str | Path) else None
        shards = embed_corpus_sharded(corpus, tool, folder, num_proc=num_proc, progress=progress)
        found: Mapping[str, Any] = shards
        seconds = {"embed": shards["train"].seconds + shards["eval"].seconds}
    else:
        found = embed_corpus(corpus, tool, cache=cache, progress=progress)
        spent = perf_counter() - began
        items = [item for split in ("train", "eval") for item in corpus[split][column]]
        seconds = {"embed": max(spent, embedding_seconds(items, tool, cache=cache))}
    described = plain({"name": type(tool).__name__, **params_of(tool)})
    material = Material(corpus, found["train"], found["eval"], embedder=described, origin=origin)
    return material, seconds


def make_embedder(embedder: str | Mapping[str, Any] | Embedder) -> Embedder:
    """Return the embedder that a name or a description stands for.

    Parameters
    ----------
    embedder : str, mapping or Embedder
        ``"tfidf"``, ``"minilm"``, ``"pixels"``, a folder or a hub id; or ``{"name": class,
        **parameters}``, as in saved domains; or an embedder, which is returned.
    """
    if isinstance(embedder, Mapping):
        return _described(embedder)
    if not isinstance(embedder, str):
        return embedder
    name = {"tfidf": "TfidfEmbedder", "pixels": "PixelEmbedder"}.get(embedder)
    return _class(name)() if name else _class("TransformerEmbedder")(embedder)


def params_of(tool: Any) -> dict[str, Any]:
    """Return the parameters of an estimator; none of what has no ``get_params``."""
    return dict(tool.get_params()) if hasattr(tool, "get_params") else {}


def check_columns(corpus: DatasetDict) -> None:
    """Say what a corpus lacks: a split, examples, or the column ``text``."""
    for split in ("train", "eval"):
        if split not in corpus:
            raise InputError("corpus", f"no split {split!r}", _REMEDY)
        if not len(corpus[split]):
            raise InputError("corpus", f"the split {split!r} is empty", "give it examples")
        if "text" not in corpus[split].column_names:
            raise InputError("corpus", f"no column 'text' in the split {split!r}", _REMEDY)


def _described(facts: Mapping[str, Any]) -> Embedder:
    params = {key: value for key, value in facts.items() if key != "name"}
    name = str(facts.get("name"))
    if name not in _MODULES:
        what = f"{name!r} cannot be made from its name"
        raise InputError("embedder", what, "pass embedder= or vectors= of then")
    if params.get("trust_remote_code"):  # a saved file must not switch that on
        what = f"{name} of {params.get('model')!r} ran code that came with the model"
        raise InputError("embedder", what, "pass that embedder yourself if you trust it")
    try:
        return _class(name)(**params)
    except TypeError as error:
        raise InputError("embedder", f"{name}: {error}", "pass embedder= yourself") from error


_MODULES = {
    "TfidfEmbedder": "tfidf", "TransformerEmbedder": "transformer",
    "PixelEmbedder": "images", "ClipEmbedder": "images",
}  # fmt: skip


def _class(name: str) -> Callable[..., Embedder]:
    from importlib import import_module  # late: some import torch

    made: Callable[..., Embedder] = getattr(import_module(f"rbkit.regroup.{_MODULES[name]}"), name)
    return made


def _checked(vectors: Mapping[str, ArrayLike], split: str) -> Any:
    if split not in vectors:
        raise InputError("vectors", f"none for the split {split!r}", "give train and eval")
    found: Any = vectors[split]
    if not hasattr(found, "shape"):
        found = np.asarray(found, dtype=np.float32)
    if len(found.shape) != 2:
        raise InputError("vectors", f"{split!r} has shape {found.shape}", "give (n, d)")
    return found
