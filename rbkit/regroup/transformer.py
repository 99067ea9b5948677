"""Embedding with a transformer: any sentence-transformers or plain encoder model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from rbkit.errors import InputError
from rbkit.regroup.model_files import content_of, resolve_model


class TransformerEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Vectors of a sentence-transformers model, or of an encoder with mean pooling.

    The paper uses ``nomic-ai/modernbert-embed-base``, which wants
    ``prefix="clustering: "``; the default is the MiniLM that rbkit gets from PyPI.

    Parameters
    ----------
    model : str
        ``"minilm"``, a folder, or a hub id.
    max_tokens : int
        Texts are cut to this many tokens.
    prefix : str
        Put before every text; some models are trained with one.
    batch_tokens : int or None
        Padded tokens per batch; None: 2,048 on CPU (above it the caches overflow), 65,536 on
        an accelerator.
    device : str or None
        None: CUDA, else MPS, else CPU.
    normalize : bool
        Scale vectors to unit length.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Of the matrix products. "auto" takes bf16 where the hardware multiplies it natively
        (CUDA since Ampere; CPUs with AVX512-BF16 or AMX: 1.9 times as fast as fp32, cosine
        with fp32 above 0.9999), fp16 on older CUDA, and fp32 elsewhere.
    trust_remote_code : bool
        Run Python code that comes with the model. Off unless you trust its authors.

    Examples
    --------
    >>> embedder = TransformerEmbedder("nomic-ai/modernbert-embed-base", prefix="clustering: ")
    >>> embedder.get_params()["max_tokens"]
    128
    """

    def __init__(
        self,
        model: str = "minilm",
        *,
        max_tokens: int = 128,
        prefix: str = "",
        batch_tokens: int | None = None,
        device: str | None = None,
        normalize: bool = True,
        precision: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self.prefix = prefix
        self.batch_tokens = batch_tokens
        self.device = device
        self.normalize = normalize
        self.precision = precision
        self.trust_remote_code = trust_remote_code

    def fit(self, texts: Sequence[str] | None = None, y: None = None) -> Self:
        """Do nothing: the model is already trained. Here for scikit-learn's pipelines."""
        return self

    def transform(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (n, d), float32, in the order of `texts`."""
        texts = list(texts)
        model = self._load()
        vectors: NDArray[np.float32] | None = None
        budget = self.batch_tokens or (2_048 if self._device().type == "cpu" else 65_536)
        for rows in batches(self._token_counts(texts), budget):
            with torch.inference_mode(), self._autocast():
                batch = model.encode(
                    [texts[row] for row in rows],
                    prompt=self.prefix,
                    batch_size=len(rows),
                    normalize_embeddings=False,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                ).float()
            if self.normalize:
                batch = torch.nn.functional.normalize(batch, dim=1)
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
            vectors[rows] = batch.cpu().numpy()
        if vectors is None:
            raise InputError("texts", "there are none", "give at least one text")
        return vectors

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on: the model's content (not its name) and parameters."""
        return {
            "embedder": "TransformerEmbedder",
            "model": content_of(self._folder(), code=self.trust_remote_code),
            "max_tokens": self.max_tokens,
            "prefix": self.prefix,
            "normalize": self.normalize,
            "precision": self._precision(),
        }

    def _folder(self) -> Path:
        if not hasattr(self, "_resolved"):
            self._resolved = resolve_model(self.model, trust_remote_code=self.trust_remote_code)
        return self._resolved

    def _load(self) -> Any:
        if not hasattr(self, "_loaded"):
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            # A second bar, for the third of a second that loading takes, would be noise.
            bars_were_on = logging.is_progress_bar_enabled()
            logging.disable_progress_bar()
            try:
                self._loaded = SentenceTransformer(
                    str(self._folder()),
                    device=str(self._device()),
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                    # Never unpickle weights; and keep fp32 whatever the file says, since
                    # autocast decides what is computed in less.
                    model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                )
            except (OSError, ValueError, KeyError) as error:
                remedy = "give a folder or hub id of an encoder saved with save_pretrained"
                raise InputError(self.model, f"cannot be loaded ({error})", remedy) from error
            finally:
                if bars_were_on:
                    logging.enable_progress_bar()
            longest = self._loaded.max_seq_length
            self._loaded.max_seq_length = min(self.max_tokens, longest or self.max_tokens)
            self._loaded.eval()
        return self._loaded

    def _token_counts(self, texts: list[str]) -> NDArray[np.int64]:
        tokenizer = self._load().tokenizer
        limit = self._load().max_seq_length
        if not callable(tokenizer):  # static embeddings have a bare tokenizer
            return np.array([min(limit or len(text), 1 + len(text) // 4) for text in texts])
        encoded = tokenizer(
            [self.prefix + text for text in texts],
            truncation=True,
            max_length=limit,
            padding=False,
            return_attention_mask=False,
        )
        return np.array([len(ids) for ids in encoded["input_ids"]])

    def _device(self) -> torch.device:
        if self.device is not None:
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def _precision(self) -> str:
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            what = f"{self.precision!r} is none of auto, fp32, bf16, fp16"
            raise InputError("precision", what, "choose one of them")
        if self.precision != "auto":
            return self.precision
        kind = self._device().type
        if kind == "cuda":
            return "bf16" if torch.cuda.get_device_capability(self._device())[0] >= 8 else "fp16"
        return "bf16" if kind == "cpu" and cpu_multiplies_bf16() else "fp32"

    def _autocast(self) -> AbstractContextManager[Any]:
        precision = self._precision()
        if precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float16
        return torch.autocast(self._device().type, dtype=dtype)


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers, longest texts first, so that a padded batch holds `budget` tokens.

    A text longer than the budget makes a batch of its own.

    Examples
    --------
    >>> [rows.tolist() for rows in batches(np.array([2, 6, 3, 3]), budget=6)]
    [[1], [2, 3], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has bf16 matrix instructions; without them bf16 is 6 times slower."""
    # torch has no public name for these two yet; absent, we stay with fp32.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
