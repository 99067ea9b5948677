"""Parameters that a notebook declares in its ``parameters`` cell: the one place they are read.

papermill neither types nor checks parameters: a misspelt name is a warning, ``"1e-3"``
stays text, and a hint such as ``int | None`` is unknown to it. Here the cell is read as what
it is, Python source with hints, defaults and a line of help each, without running it. ::

    steps: int = 300  # optimizer steps
    mixer: Literal["Target", "RnB"] = "RnB"  # rule that sets the proportions

A notebook that makes :class:`~rbkit.report.parameters.RunParameters` of its cell, as
``90_run`` does, has its values checked by that class as well, before anything runs.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from rbkit.balance.mixers.registry import MIXERS, canonical_mixer
from rbkit.errors import InputError
from rbkit.report.coerce import Text, check, did_you_mean, hint_source
from rbkit.report.nbio import read_notebook
from rbkit.report.parameters import RunParameters, plain_json
from rbkit.report.sweep.grid import as_text
from rbkit.report.sweep.hints import KNOWN, read_hint


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
                self.name, f"its key {key!r} ({type(key).__name__}) would arrive as text",
                "give keys that are text, and let the notebook convert them",
            )  # fmt: skip
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
        return {name: each.default for name, each in self.parameters.items()
                if each.default is not COMPUTED}  # fmt: skip

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
                    str(name), what if self.is_run else f"the notebook declares {what}",
                    did_you_mean(str(name), self.names) if self.names else
                    "tag a cell of it with: parameters",
                )  # fmt: skip

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
    >>> from rbkit.report.shipped import find_notebook
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
        comments = {token.start[0]: token.string.lstrip("#").strip()
                    for token in tokenize.generate_tokens(io.StringIO(source).readline)
                    if token.type == tokenize.COMMENT}  # fmt: skip
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
