"""Parameters, declared once: a frozen dataclass that notebook, command line and report share.

papermill passes strings where numbers were meant, and only warns of a misspelt name. So
values are checked against the type hints of the dataclass, by the launcher before a
notebook starts and again by the notebook itself. The functions here work for any frozen
dataclass; :class:`RunParameters` is the one of ``notebooks/90_run.ipynb``.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import math
import os
import re
import tokenize
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Optional, Self, Union, get_type_hints

from rbkit.balance.mixers.registry import MIXERS, canonical_mixer, mixer_by_name
from rbkit.errors import InputError
from rbkit.report.notebooks import read_notebook

_NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def as_text(value: Any) -> str:
    """Write a value as the command line takes it: text as it is, everything else as JSON."""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    )


class Text(str):
    """Text as it was typed in a shell: what it stands for is found out by a type hint.

    Where text is allowed beside other types, text from Python is text. From a shell it is the
    other type if it can be; ``"1"``, in double quotes of JSON, is text.

    Examples
    --------
    >>> check("k", Text("1"), int | str), check("k", Text('"1"'), int | str)
    (1, '1')
    >>> check("k", "1", int | str), check("k", Text("007"), int | str)
    ('1', '007')
    """


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


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the remedy for an unknown name: close matches, or all names."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(known)}"


def check(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type that `hint` says, converting only what is unambiguous.

    ``"1e-3"`` is a float (YAML reads it as a string), ``3`` is a float too, ``[8, 12]`` is a
    tuple, ``"300"`` an int and a ``Path`` a str. ``"007"``, ``1.5`` and ``True`` are no ints.

    Raises
    ------
    InputError
        Naming the parameter, the value and what is allowed.
    """
    try:
        return _convert(value, hint)
    except (TypeError, ValueError):
        allowed = hint_source(hint)
        kind = "str" if isinstance(value, str) else type(value).__name__
        raise InputError(name, f"{value!r} ({kind}) is not allowed", f"give {allowed}") from None


def _convert(value: Any, hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()  # from np.arange, np.logspace
    if isinstance(value, Text):
        if origin in (Union, types.UnionType):
            return _typed(value, args)
        value = str(value)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, args)
    if origin is Literal:
        return _choice(value, args)
    if hint is tuple or origin is tuple:
        return _tuple(value, args or (Any, ...))
    if hint is list or origin is list:
        return list(_tuple(value, (args[0] if args else Any, ...)))
    if hint is dict or origin is dict:
        value, (of_key, of_value) = _json(value, dict), args or (Any, Any)
        return {_convert(k, of_key): _convert(v, of_value) for k, v in value.items()}
    return _scalar(value, hint)


def _choice(value: Any, allowed: Sequence[Any]) -> Any:
    # `in` alone would take True for 1.
    if any(value == a and type(value) is type(a) for a in allowed):
        return value
    for choice in allowed:
        # The command line can only give text; choices that are text were compared above.
        if isinstance(value, str) and not isinstance(choice, str):
            with suppress(TypeError, ValueError):
                if _scalar(value, type(choice)) == choice:
                    return choice
    raise ValueError


def _first_that_fits(value: Any, hints: Sequence[Any]) -> Any:
    # A value that has one of the types already keeps it; only then is anything converted,
    # so that "None" stays a string where strings are allowed.
    for hint in hints:
        if value is None and hint is type(None):
            return None
        if type(value) is hint:
            return value
    for hint in hints:
        try:
            return _convert(value, hint)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _typed(value: Text, hints: Sequence[Any]) -> Any:
    text, words = str(value), str in hints
    if words and text[:1] == '"':
        with suppress(ValueError, RecursionError):
            said = json.loads(text)
            if isinstance(said, str):
                return said
    for hint in sorted(hints, key=_order):
        if words and (hint is type(None) or (hint is float and not _NUMBER.fullmatch(text))):
            continue  # "None", "007" and "1_000" are words where words are allowed
        try:
            return _convert(text, hint)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _order(hint: Any) -> int:
    first = (int, float, bool)
    return first.index(hint) if hint in first else 9 if hint in (str, Any) else 5


def _tuple(value: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    value = _json(value, list) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise TypeError
    hints = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
    if len(hints) != len(value):
        raise ValueError
    return tuple(_convert(v, h) for v, h in zip(value, hints, strict=True))


def _json(value: Any, kind: type) -> Any:
    # The command line can only give text.
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _scalar(value: Any, kind: type) -> Any:
    if kind is type(None):
        if value is None or value in ("None", "null"):
            return None
        raise TypeError
    if kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
    elif kind is int:
        # No leading zeros: "007" may well be a name.
        if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]*)", value, re.ASCII):
            return int(value)
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number):  # JSON has no NaN, and no parameter means one
            raise ValueError
        return number
    elif kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) is not kind:
        raise TypeError
    return value


def source_of(value: Any) -> str:
    """Write a value as Python source, strings with double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


_NAMES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "Any": Any,
    "None": type(None),
}
_GENERIC: dict[str, Any] = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
}
KNOWN = "int, float, str, bool, None, Any, dict, list, tuple, Literal and |"


def read_hint(source: str) -> Any:
    """Return the type that a hint says.

    Raises
    ------
    ValueError
        The hint holds something else than the names of the closed set.

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
        return _hint(ast.parse(source.strip(), mode="eval").body)
    except (SyntaxError, TypeError, RecursionError) as error:
        raise ValueError(source) from error


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
        found = tuple(map(_hint, items))
        return _GENERIC[name][found if len(found) > 1 else found[0]]
    if (name := _name(node)) in _NAMES:
        return _NAMES[name]
    raise ValueError(ast.unparse(node))


def _name(node: ast.expr) -> str:
    """Last part of a name: ``Literal`` of ``typing.Literal``; empty for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id in ("typing", "t") else ""
    return node.id if isinstance(node, ast.Name) else ""


# ruff: noqa: RUF009  (declare() makes a dataclasses.field: a fresh default for each instance)


def declare(default: Any, help: str) -> Any:
    """Declare a field with a default and one line of help; mutable defaults are copied."""
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


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
        >>> RunParameters.from_mapping({"learning_rate": "1e-3"}).learning_rate
        0.001
        >>> RunParameters.from_mapping({"setps": 10})
        Traceback (most recent call last):
            ...
        rbkit.errors.InputError: setps: no such parameter; did you mean steps or edits?
        """
        hints = _hints(cls)  # type: ignore[arg-type]  # mypy takes the class for an instance
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(str(name), "no such parameter", did_you_mean(str(name), known))
        made = cls(**{name: check(name, value, hints[name]) for name, value in values.items()})
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
        """Check what types cannot say; called by :meth:`from_mapping`."""

    def to_dict(self) -> dict[str, Any]:
        """Values as plain JSON types: tuples become lists."""
        return {name: plain_json(value) for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """Values as one JSON object, names sorted: the same text for the same parameters."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class RunParameters(Parameters):
    """Parameters of one run: corpus, domains, mixer, model, training.

    Examples
    --------
    >>> RunParameters(mixer="Target", steps=50).to_dict()["steps"]
    50
    """

    corpus: str = declare("demo", "built-in name, file, glob or hub id")
    text_column: str = declare("text", "column with the text of an example")
    source_column: str = declare("source", "column with its human label")
    eval_sources: dict[str, float] | None = declare(None, "share of each source in the eval set")
    max_examples: int | None = declare(None, "use at most this many examples")
    eval_size: int | None = declare(None, "examples held out for evaluation")
    embedder: str = declare("minilm", "minilm, tfidf, or a sentence-transformers id or path")
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
    far: Literal["keep", "apart"] = declare("keep", "far eval examples: in q, or apart")
    edits: str = declare("", "log of edits made by hand, to be repeated")
    domains: str = declare("", "folder of saved domains; made anew if empty")
    mixer: str = declare("RnB", "rule that sets the proportions")
    mixer_options: dict[str, Any] = declare({}, "options of the mixer")
    model: str = declare("tiny", "preset, or a causal LM by id or path")
    vocab_size: int = declare(4096, "tokens of the tokenizer trained for a preset")
    context: int = declare(96, "tokens of a training example")
    steps: int = declare(300, "optimizer steps")
    round_steps: int = declare(25, "steps between two updates of p")
    batch_size: int = declare(16, "examples in a step")
    learning_rate: float = declare(3e-3, "peak learning rate")
    estimator: Literal["sketch", "exact", "grouped"] = declare(
        "sketch", "how domain gradients are kept"
    )
    fraction: float = declare(1.0, "share of the steps whose gradients are tracked")
    layer: tuple[str, ...] | str | None = declare(None, "tracked layers; the output layer if None")
    fidelity_rounds: int = declare(0, "rounds between two checks of the tracked layer; 0: none")
    seed: int = declare(0, "seed of everything random")
    resume: bool = declare(False, "go on from the last checkpoint of an unfinished run")
    run_dir: str = declare("", "run folder; a new one under reports/ if empty")
    profile: Literal["full", "smoke"] = declare("full", "smoke: a few seconds, to test")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make parameters as :meth:`Parameters.from_mapping`; mixers are known in any case.

        Examples
        --------
        >>> RunParameters.from_mapping({"mixer": "rnb"}).mixer
        'RnB'
        """
        if isinstance(values.get("mixer"), str):
            values = {**values, "mixer": canonical_mixer(values["mixer"])}
        return super().from_mapping(values)

    def resolved(self) -> RunParameters:
        """Return what will really be run: with ``profile="smoke"``, everything is made small."""
        return replace(self, **_SMOKE) if self.profile == "smoke" else self

    def validate(self) -> None:
        """Refuse numbers that cannot work, by name."""
        positive = (
            "max_examples",
            "eval_size",
            "max_tokens",
            "vocab_size",
            "context",
            "steps",
            "round_steps",
            "batch_size",
            "learning_rate",
            "fraction",
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(name, f"{value} is not positive", "give a number above 0")
        mixer_by_name(self.mixer, self.mixer_options)
        ks = self.k if isinstance(self.k, tuple) else (self.k,)
        if not ks or min(ks) < 1:
            raise InputError(
                "k", f"{self.k!r} is no number of domains", "give numbers of 1 or more"
            )


# A run of seconds that touches every part: no download, no model but a tiny one.
_SMOKE: dict[str, Any] = {
    "corpus": "docstrings",
    "text_column": "text",
    "source_column": "source",
    "eval_sources": None,
    "max_examples": 240,
    "eval_size": 40,
    "embedder": "tfidf",
    "cluster": "kmeans",
    "k": (3, 4),
    "min_cluster_size": None,
    "edits": "",
    "domains": "",
    "model": "tiny",
    "vocab_size": 512,
    "context": 32,
    "steps": 8,
    "round_steps": 4,
}


def parameters_cell(cls: type[Parameters]) -> str:
    """Source of a notebook's ``parameters`` cell: ``name: type = default  # help``.

    Examples
    --------
    >>> print(parameters_cell(RunParameters).splitlines()[-1])
    profile: Literal["full", "smoke"] = "full"  # smoke: a few seconds, to test
    """
    hints = typing.get_type_hints(cls)
    return "\n".join(
        f"{f.name}: {hint_source(hints[f.name])} = {source_of(_default(f))}  # {f.metadata['help']}"
        for f in fields(cls)
    )


@cache
def _hints(cls: type[Parameters]) -> dict[str, Any]:
    return typing.get_type_hints(cls)  # slow: a sweep asks for them once per run


def plain_json(value: Any) -> Any:
    """Return `value` as JSON types: tuples become lists, keys become text."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    return [plain_json(item) for item in value] if isinstance(value, list | tuple) else value


def _default(declared: Field[Any]) -> Any:
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default


class _Computed:
    """A default that only running the notebook would tell, such as ``Path.cwd()``."""

    def __repr__(self) -> str:
        return "computed"


COMPUTED: Final = _Computed()


@dataclass(frozen=True)
class Parameter:
    """One line of the cell.

    Attributes
    ----------
    name : str
    hint : type or None
        None if the hint is outside of the closed set: such a parameter cannot be set.
    written : str
        The hint as it is written; what was inferred if there is none.
    default : JSON value or COMPUTED
    required : bool
        There is no default.
    help : str
    """

    name: str
    hint: Any
    written: str
    default: Any
    required: bool = False
    help: str = ""

    def check(self, value: Any) -> Any:
        """Return `value` as JSON, in the type that is declared.

        Raises
        ------
        InputError
            Naming the parameter, the value and what is allowed.
        """
        if self.hint is None:
            raise InputError(
                self.name, f"its type {self.written} cannot be checked", f"declare it by {KNOWN}"
            )
        if self.name == "mixer" and self.hint is str and self.default in MIXERS:
            return _mixer(value)
        if isinstance(value, str) and _is_json(value, self.hint):
            value = _from_text(value)
        checked = check(self.name, value, self.hint)
        if (key := _odd_key(checked)) is not None:
            raise InputError(
                self.name,
                f"its key {key!r} ({type(key).__name__}) would arrive as text",
                "give keys that are text, and let the notebook convert them",
            )
        value = plain_json(checked)
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                self.name, f"{value!r} is not all text", "write it in UTF-8"
            ) from error
        except (TypeError, ValueError) as error:
            raise InputError(
                self.name, str(error), "give numbers, strings, lists, dicts"
            ) from error
        return value

    def as_text(self, value: Any) -> str:
        """Write a checked value as ``-p`` takes it; text that would be read as a number is quoted.

        Examples
        --------
        >>> k = read_cell("k: int | str = 3")["k"]
        >>> k.as_text(1), k.as_text("1"), k.as_text("one")
        ('1', '"1"', 'one')
        """
        text = as_text(value)
        again = isinstance(value, str) and self.check(Text(text)) != value
        return json.dumps(value, ensure_ascii=False) if again else text


class Declared:
    """Parameters of a notebook, by name, in the order of its cell.

    Attributes
    ----------
    parameters : dict of str to Parameter
    is_run : bool
        The notebook makes :class:`~rbkit.report.parameters.RunParameters` of them.
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
            ours = {n: full[n] for n in full if self.hints[n] == RUN_HINTS.get(n)}
            made = RunParameters.from_mapping(ours).to_dict()
            full |= {name: made[name] for name in ours}
        return {name: full[name] for name in self.names if name in full}


def declared(notebook: str | Path | Any) -> Declared:
    """Read the parameters of a notebook from its cell that is tagged ``parameters``.

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
    found = read_cell(cells[0]["source"]) if cells else {}
    code = "\n".join(c["source"] for c in node.cells if c["cell_type"] == "code")
    ours = any(each.hint == RUN_HINTS.get(name) for name, each in found.items())
    return Declared(found, is_run=ours and re.search(r"\bRunParameters\b", code) is not None)


def read_cell(source: str) -> dict[str, Parameter]:
    """Read the parameters that the source of a cell assigns.

    Examples
    --------
    >>> found = read_cell("rate: float = 1e-3  # of learning")["rate"]
    >>> found.hint, found.default, found.help
    (<class 'float'>, 0.001, 'of learning')
    """
    # Magics and shell commands are no Python; a line stays a line, for the comments.
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
    found = {}
    for statement in body:
        if isinstance(statement, ast.AnnAssign):
            targets: list[ast.expr] = [statement.target]
            hint = ast.unparse(statement.annotation)
        elif isinstance(statement, ast.Assign):
            targets, hint = statement.targets, ""
        else:
            continue
        said = comments.get(statement.end_lineno or 0, "")
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = _parameter(target.id, hint, statement.value, said)
    return found


def _parameter(name: str, written: str, value: ast.expr | None, said: str) -> Parameter:
    default: Any = COMPUTED
    if value is not None:
        try:
            literal = ast.literal_eval(value)
            json.dumps(literal, allow_nan=False)
            default = plain_json(literal)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            default = COMPUTED  # an expression, or what JSON cannot say: the notebook knows
    if written:
        try:
            hint = read_hint(written)
        except ValueError:
            hint = None
        if hint is not None and default is not COMPUTED:
            with suppress(InputError):  # `k: int = None` is common, and left alone
                default = plain_json(check(name, default, hint))  # 1 as a float is 1.0
        if name == "mixer" and hint is str and isinstance(default, str):
            default = canonical_mixer(default)
    else:
        hint = Any if default is COMPUTED or default is None else type(literal)
        written = hint_source(hint)
    return Parameter(name, hint, written, default, required=value is None, help=said)


def _odd_key(value: Any) -> Any:
    """Return a key that is no text, wherever it is in `value`: JSON has no others."""
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.values()
        for key in value:
            if not isinstance(key, str):
                return key
    elif isinstance(value, list | tuple):
        inner = value
    return next((key for item in inner if (key := _odd_key(item)) is not None), None)


def _mixer(value: Any) -> str:
    name = canonical_mixer(value) if isinstance(value, str) else value
    if not isinstance(name, str) or name not in MIXERS:
        raise InputError("mixer", f"{value!r} is unknown", f"use one of {', '.join(MIXERS)}")
    return name


def _is_json(text: str, hint: Any) -> bool:
    """Whether text is to be read as JSON, although the parameter may be text as well.

    The command line can give nothing else: where lists are allowed, "[1, 2]" is one.
    """
    kinds = {typing.get_origin(each) or each for each in typing.get_args(hint)}
    if hint is Any or str not in kinds:
        return hint is Any
    lists = text[:1] in ("[", "{") and bool(kinds & {list, tuple, dict})
    return lists or (text == "null" and type(None) in kinds)


def _from_text(text: str) -> Any:
    """Read text as JSON if it is some: "3" is 3, "abc" is "abc"."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# Of the dataclass: a notebook that uses it has the same names with the same types.
RUN_HINTS: Final = get_type_hints(RunParameters)
