"""Metrics beside the loss: what a run is good at, example by example, while it trains.

A metric is a function ``fn(model, rows)`` that returns one number for each row. :func:`generate`
writes greedy answers to many prompts; :func:`exact_match` and :func:`token_f1` score them,
:func:`zero_shot_accuracy` and :func:`recall_at_k` score embeddings.
:class:`GenerationMetric` and :class:`RetrievalMetric` make a metric of each.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError, as_count
from rbkit.text import nearest
from rbkit.train.models import positions
from rbkit.train.run import can_name_metric

Metric = Callable[[Any, Any], Any]
# What a metric may not be called: the losses are, in records, tables and files.
_TAKEN = ("loss", "loss_token", "loss_example", "loss_worst", "token", "example", "worst")
_TRIED_ROWS = 2  # before training
_SUBSET = 3  # keeps this use of a seed apart from others


# ------------------------------------------------------------------------- metrics of a trainer


@dataclass(frozen=True)
class MetricValues:
    """Values of a metric after a step.

    Attributes
    ----------
    value : float
        Mean over examples, each with the same weight; NaN if none counts.
    by_domain : ndarray of shape (m,)
        The same within each domain; NaN for a domain without an example that counts.
    examples, rows : int
        Examples that counted, of those that were asked.
    per_example : ndarray of shape (n,)
        In the order of the eval set; NaN where an example was not asked, or does not count.
    higher_is_better : bool
    """

    value: float
    by_domain: FloatArray
    examples: int
    rows: int
    per_example: FloatArray
    higher_is_better: bool

    def to_json(self) -> dict[str, Any]:
        """Return what is recorded: all but the values by example."""
        values = vars(self).copy()
        del values["per_example"]
        return values


class Metrics:
    """Evaluate named metrics on eval examples, without a trace in the training.

    Parameters
    ----------
    functions : mapping of str to callable
        As :func:`as_metrics` returns them.
    data : datasets.Dataset, or another map-style dataset
        Eval examples.
    labels : sequence of int
        Their domains; -1: of none.
    n_domains : int
    asked : array of int, optional
        Rows that may be asked; by default those in a domain.
    examples : int, optional
        Ask only so many examples: those that come first in a fixed order, which is the same for
        all rules and seeds.

    Attributes
    ----------
    tokens : int
        Tokens that the model was called with in the last evaluation; 0 if they are not known.
    rows : ndarray of int
        Numbers of the examples that are asked.
    """

    def __init__(
        self,
        functions: Mapping[str, Metric],
        data: Any,
        labels: ArrayLike,
        n_domains: int,
        examples: int | None = None,
        asked: ArrayLike | None = None,
    ) -> None:
        self.functions, self._data, self._m = dict(functions), data, n_domains
        self._labels = np.asarray(labels)
        order = np.random.default_rng(_SUBSET).permutation(len(self._labels))
        some = self._labels >= 0 if asked is None else np.isin(np.arange(len(order)), asked)
        self.rows = np.sort(order[some[order]][:examples])
        self.tokens = 0

    def check(self, model: Any) -> None:
        """Try each metric on the first examples; :class:`InputError` if it cannot work."""
        few = self._select(self.rows[:_TRIED_ROWS])
        for name, function in self.functions.items():
            _values_of(name, function, model, few)

    def __call__(self, model: Any) -> dict[str, MetricValues]:
        """Evaluate all metrics on all examples that are asked."""
        rows, measured = self._select(self.rows), {}
        with self._counted_tokens(model):
            for name, function in self.functions.items():
                values = np.full(len(self._labels), np.nan)
                values[self.rows] = _values_of(name, function, model, rows)
                measured[name] = summarise(
                    values, self._labels, self._m, len(self.rows), is_higher_better(function)
                )
        return measured

    def _select(self, rows: np.ndarray[Any, Any]) -> Any:
        if hasattr(self._data, "with_format"):
            return self._data.with_format(None).select(rows)
        return [self._data[int(row)] for row in rows]

    @contextmanager
    def _counted_tokens(self, model: Any) -> Iterator[None]:
        """Count the tokens of the block's calls of the model, where they are all it reads."""
        self.tokens = 0

        def add(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ids = kwargs.get("input_ids", args[0] if args else None)
            if isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point():
                self.tokens += 0 if "pixel_values" in kwargs else ids.numel()

        handle = model.register_forward_pre_hook(add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def summarise(
    values: FloatArray, labels: np.ndarray[Any, Any], m: int, rows: int, higher_is_better: bool
) -> MetricValues:
    """Average the values of examples, overall and by domain; NaN does not count.

    Examples
    --------
    >>> s = summarise(np.array([1.0, 0.0, np.nan, 1.0]), np.array([0, 0, 0, 1]), 2, 4, True)
    >>> s.value.__round__(3), s.by_domain, s.examples
    (0.667, array([0.5, 1. ]), 3)
    """

    def mean(inside: np.ndarray[Any, Any]) -> float:
        counts = inside & np.isfinite(values)
        return float(values[counts].mean()) if counts.any() else float("nan")

    by_domain = np.array([mean(labels == i) for i in range(m)])
    all_asked = np.ones(len(values), dtype=bool)  # the others are NaN
    counting = int(np.isfinite(values).sum())
    return MetricValues(mean(all_asked), by_domain, counting, rows, values, higher_is_better)


def is_higher_better(function: Metric) -> bool:
    """Whether a metric grows as a model gets better; a function says so by an attribute."""
    return bool(getattr(function, "higher_is_better", True))


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Leave a model's mode and the random state as they were; no gradients, no dropout inside."""
    modes = [(module, module.training) for module in model.modules()]
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    with same_random_state(device), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def same_random_state(device: torch.device | None = None) -> Iterator[None]:
    """Leave the random state as it was, also that of a GPU `device`."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _values_of(name: str, function: Metric, model: Any, rows: Any) -> FloatArray:
    """Return the values of a metric, checked: one finite number or NaN for each row."""
    where, n = f"metric {name}", len(rows)
    remedy = "return one number for each row, NaN where it does not count"
    try:
        with undisturbed(model):  # nor does a metric see what another one left
            given = function(model, rows)
    except InputError as error:
        raise InputError(where, f"{error.where}: {error.what}", error.remedy) from error
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        what = f"raised {type(error).__name__} on {n} rows: {first}"
        raise InputError(where, what, "call it with the model and rows yourself") from error
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.double() if given.is_floating_point() else given  # NumPy has no bfloat16
    try:
        values = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, another device
        values = np.empty(0, dtype=object)
    if values.dtype.kind not in "bfiu":
        what = f"returned {repr(given)[:60]}, which is not numbers"
        raise InputError(where, what, remedy)
    if values.shape != (n,):
        shown = f"shape {values.shape}" if values.ndim else f"{repr(given)[:40]}, a single number,"
        raise InputError(where, f"returned {shown} for {n} rows", remedy)
    values = values.astype(np.float64)
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise InputError(where, f"returned {values[row]} for row {row}", remedy)
    return values


# ------------------------------------------------------------------------------ what is given


def as_metrics(given: Any, tokenizer: Any = None, processor: Any = None) -> dict[str, Metric]:
    """Return metrics by name, checked; those of this library may be given by name alone.

    Parameters
    ----------
    given : mapping of str to callable, or sequence of str
        A value may also be the name of a metric of this library.
    tokenizer : PreTrainedTokenizerBase, optional
        For metrics by name that write answers to prompts.
    processor : callable, optional
        For those that compare images with captions, as :class:`RetrievalMetric` takes it.

    Raises
    ------
    InputError
        A name that cannot be that of a file or is taken, or what is not a function.

    Examples
    --------
    >>> list(as_metrics({"length": lambda model, rows: [len(row["text"]) for row in rows]}))
    ['length']
    >>> as_metrics({"loss": len})
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: metrics: 'loss' is what the loss is called; choose another name
    """
    if given is None:
        return {}
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Mapping):
        if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
            what = f"{type(given).__name__} gives no names"
            raise InputError("metrics", what, "give a dict of names and functions")
        given = {name: name for name in given}
    made: dict[str, Metric] = {}
    for name, function in given.items():
        if not can_name_metric(name):
            what = f"{name!r} cannot be the name of a metric"
            remedy = "use up to 48 letters, digits and _ . @ -, and begin with a letter"
            raise InputError("metrics", what, remedy)
        if name.lower() in _TAKEN:
            what = f"{name!r} is what the loss is called"
            raise InputError("metrics", what, "choose another name")
        if name.lower() in (before := {each.lower(): each for each in made}):
            what = f"{name!r} and {before[name.lower()]!r} would be one file on some disks"
            raise InputError("metrics", what, "choose another name")
        made[name] = (
            _by_name(function, tokenizer, processor) if isinstance(function, str) else function
        )
        if not callable(made[name]):
            what = f"{type(function).__name__} is not a function"
            raise InputError(f"metric {name}", what, "give fn(model, rows)")
    return made


def _by_name(name: str, tokenizer: Any, processor: Any) -> Metric:
    if name not in NAMED:
        close = nearest(name, NAMED)
        remedy = f"did you mean {close}?" if close else f"give a function, or {' or '.join(NAMED)}"
        raise InputError("metrics", f"no metric is called {name!r}", remedy)
    if name in _RECALLS:
        if processor is None:
            what = "compares images with captions, and the model is of texts alone"
            raise InputError(f"metric {name}", what, "give a metric of texts")
        return RetrievalMetric(processor, _RECALLS[name])
    if tokenizer is None:
        what = "writes answers, which takes a tokenizer"
        raise InputError(f"metric {name}", what, "give the trainer a processing_class=")
    return GenerationMetric(SCORES[name], tokenizer)


def described(function: Metric) -> str:
    """Name a metric for the record.

    Examples
    --------
    >>> described(exact_match), described(GenerationMetric(token_f1, None, max_new_tokens=8))
    ('exact_match', 'GenerationMetric(token_f1, max_new_tokens=8)')
    """
    if isinstance(function, GenerationMetric | RetrievalMetric):
        return str(function)
    return str(getattr(function, "__qualname__", type(function).__name__))


# ------------------------------------------------------------------------------ written answers


def generate(
    model: Any,
    rows: Any,
    tokenizer: Any,
    *,
    prompt: str = "prompt",
    max_new_tokens: int = 32,
    batch_size: int = 16,
) -> list[str]:
    """Return what a model writes after the prompt of each row: greedy, batched, to the end of text.

    Prompts are read as :func:`~rbkit.train.models.tokenize_completions` writes them for
    training, so through the tokenizer's chat template where it has one. Batches are padded at
    the left; a prompt that is too long for the model loses its beginning.

    Parameters
    ----------
    model : PreTrainedModel
        With a method ``generate``.
    rows : datasets.Dataset or sequence of mappings
    tokenizer : PreTrainedTokenizerBase
    prompt : str
        Column of the prompts: texts, or lists of messages with ``role`` and ``content``.
    max_new_tokens, batch_size : int
        Tokens of an answer, at most; answers that are written together.

    Returns
    -------
    list of str
        Answers without special tokens and white space at the ends, in the order of `rows`.

    Raises
    ------
    InputError
        For a model that cannot write, rows without prompts, and answers longer than the model.
    """
    most = as_count("max_new_tokens", max_new_tokens, least=1)
    batch_size = as_count("batch_size", batch_size, least=1)
    if not hasattr(model, "generate"):
        what = f"{type(model).__name__} writes no text"
        raise InputError("generate", what, "give a causal LM of transformers, or another metric")
    texts = [_as_prompt(i, row, prompt, tokenizer) for i, row in enumerate(rows)]
    limit = positions(model.config)
    if limit is not None and most >= limit:
        what = f"{most} leave no room for a prompt in the {limit} positions of the model"
        raise InputError("max_new_tokens", what, "give fewer")
    end = tokenizer.eos_token_id
    start = [next(i for i in (tokenizer.bos_token_id, end, 0) if i is not None)]  # of a blank one
    pad = next(i for i in (tokenizer.pad_token_id, end, 0) if i is not None)
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    ids = [(one if limit is None else one[-(limit - most) :]) or start for one in encoded]
    stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    stops = {end, *(stops if isinstance(stops, list) else [stops])} - {None}
    options: dict[str, Any] = {"max_new_tokens": most, "do_sample": False, "num_beams": 1}
    options |= dict.fromkeys(("temperature", "top_p", "top_k"))  # a model's own are for sampling
    options |= {"pad_token_id": pad, "eos_token_id": sorted(stops) or None, "use_cache": True}
    device = next(model.parameters()).device
    answers = [""] * len(ids)
    order = np.argsort([len(one) for one in ids], kind="stable")  # little padding
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size].tolist()
        longest = max(len(ids[i]) for i in batch)
        padding = [longest - len(ids[i]) for i in batch]
        padded = [[pad] * n + ids[i] for n, i in zip(padding, batch, strict=True)]
        mask = [[0] * n + [1] * (longest - n) for n in padding]
        written = model.generate(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
            **options,
        )
        for i, tokens in zip(batch, written[:, longest:].tolist(), strict=True):
            stop = next((at for at, token in enumerate(tokens) if token in stops), len(tokens))
            answers[i] = tokenizer.decode(tokens[:stop], skip_special_tokens=True).strip()
    return answers


def _as_prompt(number: int, row: Mapping[str, Any], column: str, tokenizer: Any) -> str:
    if column not in row:
        what = f"rows have no column {column!r}, but {', '.join(map(str, row)) or 'none'}"
        raise InputError("generate", what, "name the column of the prompts")
    given = row[column]
    if not tokenizer.chat_template:
        if not isinstance(given, str):
            what = f"row {number} has {repr(given)[:40]} as its {column}, and no chat template"
            raise InputError("generate", what, "give text, or a tokenizer with a chat template")
        return given
    turns = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


@dataclass(frozen=True)
class GenerationMetric:
    """A metric that scores what the model writes after each prompt against a reference.

    Parameters
    ----------
    score : callable
        Takes answers and references, returns (n,) numbers: :func:`exact_match`,
        :func:`token_f1`, or one of yours.
    tokenizer : PreTrainedTokenizerBase
    prompt, reference : str
        Columns. A reference is a text, several that are all right, or messages; None does not
        count.
    max_new_tokens, batch_size : int
        As for :func:`generate`.
    """

    score: Callable[[Sequence[str], Sequence[Any]], ArrayLike]
    tokenizer: Any
    prompt: str = "prompt"
    reference: str = "completion"
    max_new_tokens: int = 32
    batch_size: int = 16
    higher_is_better: bool = field(default=True, kw_only=True)

    def __call__(self, model: Any, rows: Any) -> ArrayLike:
        """Return the score of each row, (n,)."""
        for row in rows:
            if self.reference not in row:
                what = f"rows have no column {self.reference!r}"
                raise InputError("reference", what, "name the column of the right answers")
        answers = generate(
            model,
            rows,
            self.tokenizer,
            prompt=self.prompt,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
        )
        return self.score(answers, [row[self.reference] for row in rows])

    def __str__(self) -> str:
        return f"GenerationMetric({described(self.score)}, max_new_tokens={self.max_new_tokens})"


def exact_match(answers: Sequence[str], references: Sequence[Any]) -> FloatArray:
    """Return 1 where an answer equals its reference, by SQuAD's rules (arXiv 1606.05250), else 0.

    Case, punctuation, articles and white space do not matter. Of several references, the best
    one counts; NaN where the reference is None.

    Examples
    --------
    >>> exact_match(["The cat.", "a dog"], ["cat", ["hound", "dogs"]])
    array([1., 0.])
    """
    return _best(answers, references, lambda a, b: float(_words(a) == _words(b)))


def token_f1(answers: Sequence[str], references: Sequence[Any]) -> FloatArray:
    """Return the F1 of the words that an answer shares with its reference, as SQuAD measures it.

    Normalised as by :func:`exact_match`. Where one of the two has no word, 1 if both have none.

    Examples
    --------
    >>> token_f1(["the black cat", "a dog"], ["cat", "cat"]).round(3)
    array([0.667, 0.   ])
    """

    def f1(answer: str, reference: str) -> float:
        ours, theirs = _words(answer), _words(reference)
        if not ours or not theirs:
            return float(ours == theirs)
        shared = sum((Counter(ours) & Counter(theirs)).values())
        return 2 * shared / (len(ours) + len(theirs))

    return _best(answers, references, f1)


SCORES = {"exact_match": exact_match, "token_f1": token_f1}
_RECALLS = {"recall_at_1": 1, "recall_at_5": 5}
NAMED = (*SCORES, *_RECALLS)  # metrics that may be given by name
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _words(text: str) -> list[str]:
    """Return the words of a text as SQuAD's evaluation does."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _best(
    answers: Sequence[str], references: Sequence[Any], score: Callable[[str, str], float]
) -> FloatArray:
    scores = []
    for answer, given in zip(answers, references, strict=True):
        several = [given] if isinstance(given, str | Mapping) else list(given or ())
        texts = [each["content"] if isinstance(each, Mapping) else str(each) for each in several]
        scores.append(max((score(answer, text) for text in texts), default=float("nan")))
    return np.array(scores, dtype=np.float64)


# ----------------------------------------------------------------------------------- embeddings


def zero_shot_accuracy(images: Any, classes: Any, labels: ArrayLike) -> FloatArray:
    """Return 1 where an image is nearest to the text of its own class, by cosine, else 0.

    Parameters
    ----------
    images : Tensor or ndarray of shape (n, d)
    classes : Tensor or ndarray of shape (c, d)
        Embedding of each class's text.
    labels : int array of shape (n,)

    Returns
    -------
    ndarray of shape (n,)
        Of t classes that are equally near, each counts 1/t: one vector for all is chance.

    Examples
    --------
    >>> zero_shot_accuracy(np.eye(2), np.eye(2), [0, 0])
    array([1., 0.])
    """
    return _hits(_cosines(images, classes), np.asarray(labels, dtype=np.int64), 1)


def recall_at_k(images: Any, texts: Any, k: int = 1) -> FloatArray:
    """Return 1 where an image's own text is among the k nearest of all texts, by cosine, else 0.

    Parameters
    ----------
    images, texts : Tensor or ndarray of shape (n, d)
        Row i of both belongs together. Exchange them for the recall of images.
    k : int

    Returns
    -------
    ndarray of shape (n,)
        Ties count by the chance that a random order has the own text among the first k.

    Examples
    --------
    >>> recall_at_k(np.eye(3), np.eye(3)[[1, 0, 2]]), recall_at_k(np.ones((4, 2)), np.ones((4, 2)))
    (array([0., 0., 1.]), array([0.25, 0.25, 0.25, 0.25]))
    """
    cosines = _cosines(images, texts)
    return _hits(cosines, np.arange(len(cosines)), as_count("k", k, least=1))


def _cosines(left: Any, right: Any) -> FloatArray:
    one, other = (
        F.normalize(torch.as_tensor(each).detach().double().cpu(), dim=-1) for each in (left, right)
    )
    cosines: FloatArray = (one @ other.T).numpy()
    return cosines


def _hits(cosines: FloatArray, own: np.ndarray[Any, Any], k: int) -> FloatArray:
    """Return the chance that column own[i] is among the k largest of row i, (n,)."""
    mine = np.take_along_axis(cosines, own[:, None], axis=1)
    close = np.abs(cosines - mine) <= 1e-12  # products in another order round differently
    nearer = ((cosines > mine) & ~close).sum(axis=1)
    # Vectors that are not numbers are a miss, and no example that does not count.
    chance: FloatArray = np.clip((k - nearer) / np.maximum(close.sum(axis=1), 1), 0, 1)
    return chance * close.any(axis=1)


@dataclass(frozen=True)
class RetrievalMetric:
    """Recall of each image's own caption among those of all rows, for models such as CLIP.

    Parameters
    ----------
    processor : callable
        Makes inputs of ``images=`` and of ``text=``, as a ``CLIPProcessor`` does.
    k : int
    image, caption : str
        Columns; by default those of :func:`~rbkit.data.load_corpus`.
    batch_size : int
    """

    processor: Any
    k: int = 1
    image: str = "image"
    caption: str = "text"
    batch_size: int = 64
    higher_is_better: bool = field(default=True, kw_only=True)

    def __call__(self, model: Any, rows: Any) -> FloatArray:
        """Return the recall of each row, (n,)."""
        device = next(model.parameters()).device
        images, texts = [], []
        for first in range(0, len(rows), self.batch_size):
            batch = [rows[i] for i in range(first, min(first + self.batch_size, len(rows)))]
            shown = self.processor(images=[row[self.image] for row in batch], return_tensors="pt")
            said = self.processor(
                text=[row[self.caption] for row in batch],
                return_tensors="pt",
                padding=True,
                truncation=True,
            )
            images.append(_embedding(model.get_image_features(**_moved(shown, device))))
            texts.append(_embedding(model.get_text_features(**_moved(said, device))))
        return recall_at_k(torch.cat(images), torch.cat(texts), self.k)

    def __str__(self) -> str:
        return f"RetrievalMetric(k={self.k})"


def _moved(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) for name, value in inputs.items()}


def _embedding(output: Any) -> Tensor:
    """Return the embeddings, which some versions of transformers wrap."""
    embedding: Tensor = getattr(output, "pooler_output", output)
    return embedding.detach().float().cpu()
