"""How many tokens an example, and so a domain, gives to training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from rbkit.errors import InputError

# Bytes of UTF-8 and not characters: a Chinese character is 3 bytes and about one token, as a
# short English word is. English, German and code have 3.5 to 4.5 bytes per token of a BPE.
BYTES_PER_TOKEN = 4
_TEXTS = 1000  # tokenized at once


def token_counts(
    texts: Iterable[str],
    tokenizer: Callable[..., Any] | None = None,
    *,
    context: int | None = None,
    progress: bool = True,
) -> NDArray[np.int64]:
    """Count the tokens that each text gives to training.

    Parameters
    ----------
    texts : iterable of str
    tokenizer : transformers tokenizer, optional
        Counted as :func:`rbkit.train.text.tokenize` cuts: without special tokens, one more for
        the end of the text. Without a tokenizer, estimated: four bytes of UTF-8 to a token.
    context : int, optional
        Tokens per example at most, as in training; what is cut off gives nothing.
    progress : bool
        Show a bar while a tokenizer works.

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> token_counts(["an oak", "", "漢字"]).tolist()
    [3, 1, 3]
    >>> token_counts(["word " * 100], context=96).tolist()
    [96]
    """
    if context is not None and context < 1:
        raise InputError("context", f"{context} tokens are none", "give that of training, or None")
    if tokenizer is None:
        sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
        counts = -(-np.array(sizes, dtype=np.int64) // BYTES_PER_TOKEN) + 1
    else:
        end = int(getattr(tokenizer, "eos_token_id", None) is not None)
        found: list[int] = []
        total = len(texts) if isinstance(texts, Sequence) else None
        rest = iter(texts)
        with tqdm(total=total, desc="counting tokens", disable=not progress, delay=2) as bar:
            while piece := list(islice(rest, _TEXTS)):
                rows = tokenizer(piece, add_special_tokens=False)["input_ids"]
                found += [len(row) + end for row in rows]
                bar.update(len(piece))
        counts = np.array(found, dtype=np.int64)
    return counts if context is None else np.minimum(counts, context)


def tokens_by_domain(tokens: ArrayLike, labels: ArrayLike, m: int) -> NDArray[np.int64]:
    """Sum the tokens of each domain's examples: int64, shape (m,).

    Parameters
    ----------
    tokens : int array of shape (n,)
        Of each training example.
    labels : int array of shape (n,)
        Domain of each; -1 counts nowhere.
    m : int

    Examples
    --------
    >>> tokens_by_domain([5, 7, 9, 1], [0, 1, 0, -1], 2).tolist()
    [14, 7]
    """
    tokens, labels = np.asarray(tokens, dtype=np.int64), np.asarray(labels)
    if tokens.shape != labels.shape:
        what = f"{len(tokens)} counts for {len(labels)} training examples"
        raise InputError("tokens", what, "count the tokens of the training split")
    sums = np.zeros(m, dtype=np.int64)
    np.add.at(sums, labels[labels >= 0], tokens[labels >= 0])
    return sums
