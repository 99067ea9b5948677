"""Parameters, declared once: a frozen dataclass that notebook, command line and report share.

papermill passes strings where numbers were meant, and only warns of a misspelt name. So values
are checked against type hints, by the launcher before a notebook starts and again by the
notebook itself: those of a dataclass (:class:`RunParameters` is that of
``notebooks/90_run.ipynb``), or those in the cell of any notebook (:func:`declared`).
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import os
import re
import tokenize
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Optional, Self, Union

from pydantic import (
    AllowInfNan,
    BeforeValidator,
    InstanceOf,
    PlainValidator,
    Strict,
    TypeAdapter,
)

from rbkit.balance.mixers.registry import known_mixer, mixer_by_name
from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.files import json_ready
from rbkit.report.notebooks import read_notebook


class ShellText(str):
    """Text as it was typed in a shell: its type follows from the parameter's hint.

    Where text is allowed along with other types, text from Python is text. From a shell it is
    the other type if it can be, ``None`` included; ``"1"``, in the double quotes of JSON, is text.

    Examples
    --------
    >>> check("k", ShellText("1"), int | str), check("k", ShellText('"1"'), int | str)
    (1, '1')
    >>> check("k", "1", int | str), check("k", ShellText("007"), int | str)
    ('1', '007')
    """


def check(name: str, value: Any, hint: Any) -> Any:
    """Return `value` in the type `hint`, converting only what is unambiguous; refuse other values.

    ``"1e-3"`` is a float (YAML reads it as a string), ``3`` is a float too, ``[8, 12]`` is a
    tuple, ``"300"`` an int and a ``Path`` a str. ``"007"``, ``1.5`` and ``True`` are not ints.
    """
    try:
        return _adapter(hint).validate_python(value)
    except (ValueError, OverflowError, RecursionError):
        kind = "str" if isinstance(value, str) else type(value).__name__
        shown = f"{value!r} ({kind}) is not allowed"
        raise InputError(name, shown, f"give {hint_source(hint)}") from None


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_strict_type(hint))


def _strict_type(hint: Any) -> Any:
    """Return the pydantic type that converts only what is unambiguous.

    pydantic's own conversions are too generous: to them "007" and True are ints. So types
    are strict, and what may be converted is converted before.
    """
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (Union, types.UnionType):
        # Which member comes first depends on the value, which pydantic's unions cannot express.
        return Annotated[Any, PlainValidator(partial(_first_that_fits, args))]
    if origin is Literal:
        # pydantic's own takes True for 1.
        return Annotated[Any, PlainValidator(partial(_choice, args))]
    if origin is tuple:
        items = tuple(map(_strict_type, args or (Any, ...)))
        return Annotated[tuple[items], Strict(), BeforeValidator(_as_tuple)]  # type: ignore[valid-type]
    if origin is list:
        item = _strict_type(args[0]) if args else Any
        return Annotated[list[item], Strict(), BeforeValidator(lambda v: list(_as_tuple(v)))]  # type: ignore[valid-type]
    if origin is dict:
        of_key, of_value = map(_strict_type, args or (Any, Any))
        return Annotated[dict[of_key, of_value], Strict(), BeforeValidator(_from_json)]  # type: ignore[valid-type]
    if isinstance(hint, type) and hint not in _SCALARS:
        return Annotated[Any, PlainValidator(partial(_instance_of, hint))]
    return _SCALARS.get(hint, hint)


def _instance_of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError
    return value


def _first_that_fits(hints: Sequence[Any], value: Any) -> Any:
    value = _python_value(value)
    if isinstance(value, ShellText):
        text, words = str(value), str in hints
        if words and text[:1] == '"':
            with suppress(ValueError, RecursionError):
                quoted = json.loads(text)
                if isinstance(quoted, str):
                    return quoted
        # "007" and "1_000" are words where words are allowed; so is "null", but not "None".
        ordered = sorted(hints, key=lambda hint: _SHELL_ORDER.get(hint, 3))
        if words:
            unfit = {float: not _is_number(text), type(None): text != "None"}
            ordered = [hint for hint in ordered if not unfit.get(hint)]
        hints = ordered
        value = text
    elif any(type(value) is hint for hint in hints):
        return value  # so that "None" stays a string where strings are allowed
    for hint in hints:
        with suppress(ValueError, OverflowError):
            return _adapter(hint).validate_python(value)
    raise ValueError("no type fits")


_SHELL_ORDER = {int: 0, float: 1, bool: 2, str: 9, Any: 9}
_is_number = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII).fullmatch
_is_integer = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII).fullmatch  # "007" may well be a name


def _choice(allowed: Sequence[Any], value: Any) -> Any:
    value = _python_value(value)
    for choice in allowed:
        if value == choice and (type(value) is type(choice) or isinstance(value, ShellText)):
            return choice
    for choice in allowed if isinstance(value, str) else ():  # a shell can only give text
        with suppress(ValueError):
            kind: Any = type(choice)
            if _adapter(kind).validate_python(value) == choice:
                return choice
    raise ValueError("not a choice")


def _as_tuple(value: Any) -> tuple[Any, ...]:
    value = _from_json(value)
    if not isinstance(value, list | tuple):
        raise ValueError("not a sequence")
    return tuple(value)


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _python_value(value: Any) -> Any:
    """Return the Python value of a scalar of any library, such as one of ``np.arange``."""
    scalar = hasattr(value, "item") and getattr(value, "ndim", 1) == 0
    return value.item() if scalar else value


def _integer(value: Any) -> Any:
    if isinstance(value, str):  # papermill and a shell give nothing else
        return int(value) if _is_integer(value) else value
    return as_count("", value, least=None)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("not a number")
    return float(value) if isinstance(value, int | str) else value


def _truth(value: Any) -> Any:
    words = {"true": True, "false": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _anything(value: Any) -> Any:
    words = {"None": None, "True": True, "False": False}
    return words[value] if isinstance(value, ShellText) and value in words else _text(value)


def _text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value) if isinstance(value, ShellText) else value


def _nothing(value: Any) -> Any:
    return None if value in ("None", "null") else value


def _scalar(kind: Any, convert: Callable[[Any], Any], *rules: Any) -> Any:
    return Annotated[kind, *rules, BeforeValidator(lambda value: convert(_python_value(value)))]


_SCALARS: dict[Any, Any] = {
    int: _scalar(int, _integer, Strict()),
    float: _scalar(float, _number, Strict(), AllowInfNan(False)),  # JSON has neither
    bool: _scalar(bool, _truth, Strict()),
    str: _scalar(InstanceOf[str], _text),  # pydantic's own refuses half characters too early
    type(None): _scalar(None, _nothing),
    Any: _scalar(Any, _anything),
}


def as_text(value: Any) -> str:
    """Write a value as the command line takes it: text as it is, everything else as JSON."""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    )


def source_of(value: Any) -> str:
    """Write a value as Python source, strings with double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def hint_source(hint: Any) -> str:
    """Write a type hint as Python source, the way it is written in this file."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "None"
    if hint is Ellipsis:
        return "..."
    if origin in (Union, types.UnionType):
        return " | ".join(map(hint_source, args))
    if origin is Literal:
        return f"Literal[{', '.join(map(source_of, args))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(hint_source, args))}]"
    return str(getattr(hint, "__name__", hint))


_NAMES: dict[str, Any] = {t.__name__: t for t in (int, float, str, bool, dict, list, tuple)}
_GENERIC: dict[str, Any] = {t.__name__: t for t in (dict, list, tuple)}
_NAMES |= {"Any": Any, "None": type(None)}
_GENERIC |= {"Literal": Literal, "Optional": Optional, "Union": Union}
_KNOWN_HINTS = "int, float, str, bool, None, Any, dict, list, tuple, Literal and |"


def read_hint(source: str) -> Any:
    """Return the type of a hint; ValueError for other names than those of the closed set.

    Examples
    --------
    >>> read_hint("tuple[int, ...] | int | None")
    tuple[int, ...] | int | None
    >>> read_hint("datetime.date")
    Traceback (most recent call last):
        ...
    ValueError: datetime.date
    """
    try:
        hint = _hint(ast.parse(source.strip(), mode="eval").body)
        hash(hint)  # Literal[[1]] is not a type
    except (SyntaxError, TypeError, RecursionError) as error:
        raise ValueError(source) from error
    return hint


def _hint(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        if node.value is None or node.value is Ellipsis:
            return type(None) if node.value is None else Ellipsis
        if isinstance(node.value, str):  # a forward reference
            return read_hint(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _hint(node.left) | _hint(node.right)
    if isinstance(node, ast.Subscript) and (name := _name(node.value)) in _GENERIC:
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return Literal[tuple(map(ast.literal_eval, items))]
        hints = tuple(map(_hint, items))
        return _GENERIC[name][hints if len(hints) > 1 else hints[0]]
    if (name := _name(node)) in _NAMES:
        return _NAMES[name]
    raise ValueError(ast.unparse(node))


def _name(node: ast.expr) -> str:
    """Last part of a name: ``Literal`` of ``typing.Literal``; empty for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id in ("typing", "t") else ""
    return node.id if isinstance(node, ast.Name) else ""


# ruff: noqa: RUF009  (declare() makes a dataclasses.field: a fresh default for each instance)


def declare(default: Any, help: str, check: Callable[[Any], Any] | None = None) -> Any:
    """Declare a field with a default and one line of help; mutable defaults are copied.

    `check` takes a value of the right type, and returns it as it is spelled, or refuses it.
    """
    about = {"help": help, "check": check}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Parameters:
    """Base of parameter sets: made from mappings, checked against their type hints."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make parameters from names and values; whatever is not given keeps its default.

        Raises
        ------
        InputError
            An unknown name (with the names it may have meant), or a value of the wrong type.

        Examples
        --------
        >>> RunParameters.from_mapping({"learning_rate": "1e-3", "mixer": "rnb"}).mixer
        'RnB'
        >>> RunParameters.from_mapping({"setps": 10})
        Traceback (most recent call last):
            ...
        rbkit.errors.InputError: setps: no such parameter; did you mean steps or edits?
        """
        hints = _hints(cls)  # type: ignore[arg-type]  # mypy takes the class for an instance
        checks = {f.name: f.metadata["check"] for f in fields(cls)}
        values = dict(values)
        for name in values:
            if name not in checks:
                remedy = did_you_mean(str(name), list(checks))
                raise InputError(str(name), "no such parameter", remedy)
            values[name] = check(name, values[name], hints[name])
            if checks[name] is not None:
                values[name] = checks[name](values[name])
        made = cls(**values)
        made.validate()
        return made

    @classmethod
    def from_globals(cls, namespace: Mapping[str, Any]) -> Self:
        """Make parameters from the variables of a notebook: ``from_globals(globals())``.

        Only names of parameters are read; a notebook has many other variables.
        """
        return cls.from_mapping(
            {f.name: namespace[f.name] for f in fields(cls) if f.name in namespace}
        )

    def validate(self) -> None:
        """Check what types cannot express; called by :meth:`from_mapping`."""

    def to_dict(self) -> dict[str, Any]:
        """Values as JSON types: tuples become lists."""
        return dict(json_ready(asdict(self)))

    def to_json(self) -> str:
        """Values as one JSON object, names sorted: the same text for the same parameters."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)  # slow: a sweep asks for them once per run


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the remedy for an unknown name: close matches, or all names."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(known)}"


@dataclass(frozen=True)
class RunParameters(Parameters):
    """Parameters of one run: corpus, domains, mixer, model, training.

    Examples
    --------
    >>> RunParameters(mixer="Target", steps=50).to_dict()["steps"]
    50
    """

    corpus: str = declare("demo", "built-in name, file, glob or hub id")
    split: str | None = declare(None, "one split of the data, as all of it")
    text_column: tuple[str, ...] | str = declare(
        "text", "column with the text of an example, or several"
    )
    messages: str | None = declare(None, "column with chats, in place of text_column")
    source_column: str = declare("source", "column with its human label")
    eval_sources: dict[str, float] | None = declare(None, "share of each source in the eval set")
    max_examples: int | None = declare(None, "use at most this many examples")
    eval_size: int | None = declare(None, "examples held out for evaluation")
    embedder: str = declare("minilm", "minilm, tfidf, or a sentence-transformers id or path")
    embed: str = declare("text", "column that the embedder reads: text, prompt, ...")
    embedder_prefix: str = declare("", "what the embedder wants before each text")
    max_tokens: int = declare(64, "tokens of a text that the embedder reads")
    cluster: Literal["kmeans", "ward", "hdbscan", "sources"] = declare(
        "kmeans", "how to make domains"
    )
    k: tuple[int, ...] | int = declare(
        (8, 12, 16, 20), "number of domains, or a grid to choose from"
    )
    min_cluster_size: int | None = declare(None, "least examples of a domain, with hdbscan")
    noise: Literal["nearest", "own", "drop"] | None = declare(
        None, "what becomes of hdbscan's noise"
    )
    max_noise: float | None = declare(None, "at most this share of the examples stays noise")
    far: Literal["keep", "apart", "outside"] = declare(
        "keep", "far eval examples: in q, apart, or outside"
    )
    unseen: Literal["error", "drop", "nearest", "outside"] = declare(
        "error", "eval sources that train lacks"
    )
    edits: str = declare("", "log of edits made by hand, to be repeated")
    domains: str = declare("", "folder of saved domains; new ones if empty")
    mixer: str = declare("RnB", "rule that sets the proportions", check=known_mixer)
    mixer_options: dict[str, Any] = declare({}, "options of the mixer")
    model: str = declare("tiny", "preset, or a causal LM by id or path")
    vocab_size: int = declare(4096, "tokens of the tokenizer trained for a preset")
    trainable_layers: int | None = declare(None, "last blocks that are trained; all if None")
    context: int = declare(96, "tokens of a training example")
    completion_only_loss: bool = declare(False, "train on column completion, after column prompt")
    packing: bool = declare(False, "pack several examples into a row of the context")
    steps: int = declare(300, "optimizer steps")
    round_steps: int = declare(25, "steps between two updates of p")
    batch_size: int = declare(16, "examples in a step")
    learning_rate: float | None = declare(None, "peak rate; if None 3e-3 from scratch, else 5e-5")
    training_args: dict[str, Any] = declare({}, "more arguments of transformers' trainer")
    estimator: Literal["sketch", "exact", "grouped"] = declare(
        "sketch", "how domain gradients are kept"
    )
    fraction: float = declare(1.0, "share of the steps whose gradients are tracked")
    layer: tuple[str, ...] | str | None = declare(None, "tracked layers; the output layer if None")
    fidelity_rounds: int = declare(0, "rounds between two checks of the tracked layer; 0: none")
    metrics: tuple[Literal["exact_match", "token_f1", "recall_at_1", "recall_at_5"], ...] = declare(
        (), "scores"
    )
    metric_examples: int | None = declare(None, "eval examples to ask; all if None")
    seed: int = declare(0, "seed of everything random")
    resume: bool = declare(False, "continue from the last checkpoint of an unfinished run")
    overwrite: bool = declare(False, "replace the run that the run folder holds")
    run_dir: str = declare("", "run folder; a new one under reports/ if empty")
    profile: Literal["full", "smoke"] = declare("full", "smoke: seconds, on a part of the corpus")

    def resolved(self) -> RunParameters:
        """Return the parameters that will be run: small ones with ``profile="smoke"``.

        Corpus, eval set, sources and clusterer stay the given ones, and saved domains too;
        :func:`rbkit.report.job.load_inputs` cuts them. What does not fit a part of the examples,
        or a tiny model, is left out with a warning.
        """
        if self.profile != "smoke":
            return self
        model = "clip-tiny" if self.model == "clip-tiny" else _SMOKE["model"]
        small = {**_SMOKE, "model": model}
        if model == self.model:
            small |= {name: getattr(self, name) for name in ("metrics", "metric_examples")}
        asked = ("edits", "trainable_layers", "completion_only_loss", "metrics")
        if out := [n for n in asked if getattr(self, n) not in (None, small[n])]:
            why = "which has a part of the examples, and a tiny model"
            message = f"{', '.join(out)}: left out with profile='smoke', {why}"
            warnings.warn(message, RbkitWarning, stacklevel=2)
        return replace(self, **small)

    def validate(self) -> None:
        """Refuse numbers that cannot work, by name."""
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(name, f"{value} is not positive", "give a number above 0")
        mixer_by_name(self.mixer, self.mixer_options)
        if self.metric_examples is not None and not self.metrics:
            raise InputError("metric_examples", "decides nothing without metrics", "leave it out")
        if self.training_args:  # the library that knows them takes seconds to load
            from rbkit.train.training import check_training_args

            check_training_args(self.training_args)
        ks = self.k if isinstance(self.k, tuple) else (self.k,)
        if not ks or min(ks) < 1:
            raise InputError(
                "k", f"{self.k!r} is not a number of domains", "give numbers of 1 or more"
            )


SMOKE_SIZES = {"train": 240, "eval": 40}  # examples
_POSITIVE = ["max_examples", "eval_size", "max_tokens", "vocab_size", "context", "steps"]
_POSITIVE += ["round_steps", "batch_size", "learning_rate", "fraction", "metric_examples"]
# A run of seconds that touches every part of the given data, with a tiny model.
_SMOKE: dict[str, Any] = {
    "embedder": "tfidf",
    "embedder_prefix": "",
    "k": (3, 4),
    "min_cluster_size": None,
    "edits": "",
    "model": "tiny",
    "vocab_size": 512,
    "trainable_layers": None,
    "completion_only_loss": False,
    "context": 32,
    "steps": 8,
    "round_steps": 4,
    "metrics": (),  # answers to chats need the template of a model that was given
    "metric_examples": None,
}


class _Computed:
    """A default that only the notebook can compute, such as ``Path.cwd()``."""

    def __repr__(self) -> str:
        return "computed"


COMPUTED: Final = _Computed()


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's cell of parameters."""

    name: str
    hint: Any  # None if it is outside of the closed set: such a parameter cannot be set
    written: str  # the hint in the cell; the inferred one if there is none
    default: Any  # as JSON, or COMPUTED
    required: bool = False
    help: str = ""
    rule: Callable[[Any], Any] | None = None  # checks a value of the right type; see `declare`

    def check(self, value: Any) -> Any:
        """Return `value` as JSON, in the type that is declared; refuse others by name."""
        if self.hint is None:
            what = f"its type {self.written} cannot be checked"
            raise InputError(self.name, what, f"declare it by {_KNOWN_HINTS}")
        if isinstance(value, str) and _may_be_json(value, self.hint):
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        checked = check(self.name, value, self.hint)
        if self.rule is not None:
            checked = self.rule(checked)
        if (key := _key_that_is_not_text(checked)) is not None:
            raise InputError(
                self.name,
                f"its key {key!r} ({type(key).__name__}) would arrive as text",
                "give keys that are text, and let the notebook convert them",
            )
        try:
            text = json.dumps(checked, allow_nan=False, ensure_ascii=False)
            text.encode()
        except UnicodeEncodeError as error:
            what = f"{checked!r} is not all text"
            raise InputError(self.name, what, "write it in UTF-8") from error
        except (TypeError, ValueError) as error:
            remedy = "give numbers, strings, lists, dicts"
            raise InputError(self.name, str(error), remedy) from error
        return json.loads(text)

    def as_text(self, value: Any) -> str:
        """Write a checked value as ``-p`` takes it; text that would be read as a number is quoted.

        Examples
        --------
        >>> k = read_cell("k: int | str = 3")["k"]
        >>> k.as_text(1), k.as_text("1"), k.as_text("one")
        ('1', '"1"', 'one')
        """
        text = as_text(value)
        ambiguous = isinstance(value, str) and self.check(ShellText(text)) != value
        return json.dumps(value, ensure_ascii=False) if ambiguous else text


def _may_be_json(text: str, hint: Any) -> bool:
    """Whether text is to be read as JSON, although the parameter may be text as well.

    The command line can give nothing else: where lists are allowed, "[1, 2]" is one.
    """
    kinds = {typing.get_origin(each) or each for each in typing.get_args(hint)}
    if hint is Any or str not in kinds:
        return hint is Any
    lists = text[:1] in ("[", "{") and bool(kinds & {list, tuple, dict})
    return lists or (text == "null" and type(None) in kinds)


def _key_that_is_not_text(value: Any) -> Any:
    """Return a key that is not text, wherever it is in `value`: JSON has no others."""
    inner: Any = value if isinstance(value, list | tuple) else ()
    if isinstance(value, Mapping):
        inner = value.values()
        for key in value:
            if not isinstance(key, str):
                return key
    return next((key for item in inner if (key := _key_that_is_not_text(item)) is not None), None)


class Declared:
    """Parameters of a notebook, by name, in the order of its cell.

    Attributes
    ----------
    parameters : dict of str to Parameter
    is_run : bool
        The notebook makes :class:`RunParameters` of them.
    """

    def __init__(self, parameters: Mapping[str, Parameter], *, is_run: bool = False) -> None:
        self.parameters, self.is_run = dict(parameters), is_run

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return list(self.parameters)

    @property
    def hints(self) -> dict[str, Any]:
        """Types; None where a hint is outside of the closed set."""
        return {name: each.hint for name, each in self.parameters.items()}

    @property
    def defaults(self) -> dict[str, Any]:
        """Defaults that are known without running the notebook, as JSON values."""
        return {
            name: each.default
            for name, each in self.parameters.items()
            if each.default is not COMPUTED
        }

    @property
    def helps(self) -> dict[str, str]:
        """The comment behind each parameter."""
        return {name: each.help for name, each in self.parameters.items()}

    def __contains__(self, name: object) -> bool:
        return name in self.parameters

    def check_names(self, names: Mapping[str, Any]) -> None:
        """Refuse names that are not declared, with those that may be meant."""
        for name in names:
            if name not in self.parameters:
                what = "no such parameter"
                raise InputError(
                    str(name),
                    what if self.is_run else f"the notebook declares {what}",
                    did_you_mean(str(name), self.names)
                    if self.names
                    else "tag a cell of it with: parameters",
                )

    def check_given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return `values` as JSON, each in its declared type; nothing is added to them.

        Raises
        ------
        InputError
            An unknown name (with the names it may have meant), or a value of the wrong type.
        """
        self.check_names(values)
        return {name: self.parameters[name].check(value) for name, value in values.items()}

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a value for every parameter: `values`, checked, and the defaults.

        A parameter whose default only the notebook can compute is left out unless it is given.

        Raises
        ------
        InputError
            As :meth:`check_given`; a parameter without default and without value; or a
            combination that :meth:`RunParameters.validate` refuses.
        """
        given = self.check_given(values)
        for name, each in self.parameters.items():
            if each.required and name not in given:
                raise InputError(name, "has no default", f"give it: -p {name}=VALUE")
        full = {**self.defaults, **given}
        if self.is_run:
            ours = {n: full[n] for n in full if _is_shared(n, self.hints[n])}
            made = RunParameters.from_mapping(ours).to_dict()
            full |= {name: made[name] for name in ours}
        return {name: full[name] for name in self.names if name in full}


def declared(notebook: str | Path | Any) -> Declared:
    """Read the parameters of a notebook from its cell that is tagged ``parameters``.

    A parameter with the name and the type of one of :class:`RunParameters`, and a default that
    is allowed there, is checked as it is there.

    Parameters
    ----------
    notebook : path or NotebookNode
        No such cell means no parameters.

    Raises
    ------
    InputError
        There is no such notebook, or its cell is not Python.

    Examples
    --------
    >>> from rbkit.report.notebooks import find_notebook
    >>> ours = declared(find_notebook("90_run"))
    >>> ours.check({"mixer": "rnb", "learning_rate": "1e-3"})["mixer"]
    'RnB'
    >>> ours.check({"steps": "many"})
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: steps: 'many' (str) is not allowed; give int
    """
    node = read_notebook(notebook) if isinstance(notebook, str | Path) else notebook
    cells = [c for c in node.cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    parameters = read_cell(cells[0]["source"]) if cells else {}
    shared = [n for n, each in parameters.items() if _is_shared(n, each.hint)]
    for name in shared:
        if (rule := _RULES[name]) is not None:
            with suppress(InputError):
                default = rule(parameters[name].default)
                parameters[name] = replace(parameters[name], default=default, rule=rule)
    code = "\n".join(c["source"] for c in node.cells if c["cell_type"] == "code")
    makes_run = re.search(r"\bRunParameters\b", code) is not None
    return Declared(parameters, is_run=bool(shared) and makes_run)


RUN_HINTS: Final = typing.get_type_hints(RunParameters)
_RULES: Final = {f.name: f.metadata["check"] for f in fields(RunParameters)}


def _is_shared(name: str, hint: Any) -> bool:
    return name in RUN_HINTS and hint == RUN_HINTS[name]


def read_cell(source: str) -> dict[str, Parameter]:
    """Read the parameters that the source of a cell assigns.

    Examples
    --------
    >>> rate = read_cell("rate: float = 1e-3  # of learning")["rate"]
    >>> rate.hint, rate.default, rate.help
    (<class 'float'>, 0.001, 'of learning')
    """
    # Magics and shell commands are not Python; a line stays a line, for the comments.
    source = re.sub(r"^[ \t]*[%!].*$", "", source, flags=re.MULTILINE)
    try:
        body = ast.parse(source).body
        comments = {
            token.start[0]: token.string.lstrip("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError) as error:
        raise InputError(
            "the notebook's parameters cell", f"is not Python ({error})", "repair it"
        ) from error
    parameters = {}
    for statement in body:
        if isinstance(statement, ast.AnnAssign):
            targets: list[ast.expr] = [statement.target]
            hint = ast.unparse(statement.annotation)
        elif isinstance(statement, ast.Assign):
            targets, hint = statement.targets, ""
        else:
            continue
        comment = comments.get(statement.end_lineno or 0, "")
        for target in targets:
            if isinstance(target, ast.Name):
                parameters[target.id] = _parameter(target.id, hint, statement.value, comment)
    return parameters


def _parameter(name: str, written: str, value: ast.expr | None, comment: str) -> Parameter:
    default: Any = COMPUTED
    if value is not None:
        # An expression, or what JSON cannot express, is left to the notebook.
        with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            literal = ast.literal_eval(value)
            default = json.loads(json.dumps(literal, allow_nan=False))
    if written:
        hint = None
        with suppress(ValueError):
            hint = read_hint(written)
        if hint is not None and default is not COMPUTED:
            with suppress(InputError):  # `k: int = None` is common, and left alone
                default = json_ready(check(name, default, hint))  # 1 as a float is 1.0
    else:
        hint = Any if default is COMPUTED or default is None else type(literal)
        written = hint_source(hint)
    return Parameter(name, hint, written, default, required=value is None, help=comment)
