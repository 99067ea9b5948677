"""Type hints read from source text, with a closed set of names; nothing is evaluated."""

from __future__ import annotations

import ast
from typing import Any, Literal, Optional, Union

_NAMES: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "dict": dict, "list": list,
    "tuple": tuple, "Any": Any, "None": type(None),
}  # fmt: skip
_GENERIC: dict[str, Any] = {
    "dict": dict, "list": list, "tuple": tuple, "Literal": Literal, "Optional": Optional,
    "Union": Union,
}  # fmt: skip
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
