"""From text to token rows: a BPE of the corpus' own, or a model's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rbkit.errors import InputError
from rbkit.files import atomic_path, cache_dir, fingerprint

_END = "<|endoftext|>"


def train_tokenizer(
    texts: Sequence[str], vocab_size: int = 4096, *, progress: bool = True
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `texts`, or load it if these texts were seen before.

    Small models from scratch learn most from a vocabulary of their corpus: 4,096 tokens
    keep a 1M-parameter model's embedding at half of its size.

    Parameters
    ----------
    texts : sequence of str
        Training texts; only these, never the eval set.
    vocab_size : int
        Tokens, the 256 bytes and the end-of-text token included.
    progress : bool
        Show the library's progress bar.

    Returns
    -------
    PreTrainedTokenizerFast
        With ``<|endoftext|>`` as beginning, end and padding.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["an ant and an aunt"] * 9, vocab_size=262, progress=False)
    >>> tokenizer.decode(tokenizer("an ant").input_ids)
    'an ant'
    """
    from tokenizers import ByteLevelBPETokenizer

    if not len(texts):
        raise InputError("texts", "no text to train a tokenizer on", "check the corpus")
    if vocab_size < 257:
        raise InputError("vocab_size", f"{vocab_size} is below 256 bytes + 1", "try 4096")
    path = cache_dir() / "tokenizers" / f"bpe-{vocab_size}-{fingerprint(texts)}.json"
    if not path.exists():
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(
            texts, vocab_size=vocab_size, min_frequency=2, special_tokens=[_END],
            show_progress=progress,
        )  # fmt: skip
        with atomic_path(path) as tmp:
            bpe.save(str(tmp))
    try:
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path), bos_token=_END, eos_token=_END, pad_token=_END
        )
    except Exception as error:
        # The Rust side raises a bare Exception; whatever it is, the file is at fault.
        raise InputError(str(path), f"not a tokenizer ({error})", "delete the file") from error


def tokenize(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, context: int = 128
) -> Dataset:
    """Return a dataset of one row ``input_ids`` per text, at most `context` tokens each.

    A row is one example: texts are cut, not packed, so that an example has one domain. The
    end-of-text token closes a text that fits.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["an ant and an aunt"] * 9, vocab_size=262, progress=False)
    >>> rows = tokenize(["an ant", "an ant and an aunt and an ant"], tokenizer, context=9)
    >>> [len(ids) for ids in rows["input_ids"]]
    [4, 9]
    """
    if context < 2:
        raise InputError("context", f"{context} tokens leave nothing to predict", "try 128")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return Dataset.from_dict({"input_ids": [[*row, *end][:context] for row in ids]})


class PadCollator:
    """Pad token rows to the longest of their batch; padding is neither seen nor predicted.

    Examples
    --------
    >>> batch = PadCollator(pad_id=0)([{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}])
    >>> batch["labels"].tolist()
    [[5, 6, 7], [8, 9, -100]]
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, (B, longest) each."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        shape = (len(rows), int(lengths.max()))
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : lengths[i]] = torch.as_tensor(row["input_ids"])
        mask = torch.arange(shape[1]) < torch.from_numpy(lengths)[:, None]
        return {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "labels": ids.masked_fill(~mask, -100),
        }
