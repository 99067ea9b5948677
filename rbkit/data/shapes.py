"""The shapes of rows: types of columns, fields inside them, and those of usual data sets.

Instructions, questions and chats come in a few shapes, each with columns of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import datasets

TEXTS = ("string", "null")


def kind_of(feature: Any) -> str:
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    if not isinstance(feature, datasets.Value):
        return type(feature).__name__
    if feature.dtype in ("string", "large_string", "string_view"):
        return "string"
    if feature.dtype.startswith(("int", "uint", "bool")):
        return "integer"
    return str(feature.dtype)


def steps(name: str, columns: Iterable[str]) -> list[str]:
    """Return the column and the fields inside it that a name stands for.

    >>> steps("doc.body", ["doc"]), steps("doc.body", ["doc", "doc.body"])
    (['doc', 'body'], ['doc.body'])
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (column := ".".join(parts[:end])) in columns:
            return [column, *parts[end:]]
    return [name]


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column or field in a row, or its type in features; else None."""
    value: Any = row
    for step in steps(name, row):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


# The columns that make the text, in order, and the one that is the source.
_USUAL = {
    "Dolly": (("instruction", "context", "response"), "category"),
    "Alpaca": (("instruction", "input", "output"), None),
    "prompts and completions": (("prompt", "completion"), None),
    "questions and answers": (("question", "answer"), None),
}
_TURNS = {"OpenAI's chats": ("role", "content"), "ShareGPT": ("from", "value")}
_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's


def usual_columns(features: Mapping[str, Any]) -> tuple[str, Any, str | None, str | None] | None:
    """Return the name of the shape, and text, messages and source in it; None if there is none."""
    for column in ("messages", "conversations"):
        if (kind := turn_of(features.get(column))) is not None:
            return kind, "text", column, None
    for kind, (text, source) in _USUAL.items():
        if all(kind_of(features.get(name)) in TEXTS for name in text):
            return kind, text, None, source if source in features else None
    return None


def turn_of(feature: Any) -> str | None:
    """Return the kind of chat that a column holds: lists of turns, or turns of lists."""
    turn = item_of(feature)
    if isinstance(feature, dict) and all(item_of(part) is not None for part in feature.values()):
        turn = feature
    for kind, fields in _TURNS.items():
        if isinstance(turn, dict) and all(field in turn for field in fields):
            return kind
    return None


def item_of(feature: Any) -> Any:
    """Return the type of a list's items; None if it is not a list."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", None)


def chat(column: str, row: dict[str, Any]) -> str:
    r"""Return a chat as a text.

    >>> turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    >>> chat("messages", {"messages": turns})
    'User: Why?\n\nAssistant: Because.'
    """
    turns = field_of(row, column) or []
    if isinstance(turns, Mapping):
        turns = [dict(zip(turns, turn, strict=True)) for turn in zip(*turns.values(), strict=True)]
    return "\n\n".join(filter(None, map(_turn_text, turns)))


def _turn_text(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        raise TypeError(f"a turn is {type(turn).__name__}, not a dict")
    given = (fields for fields in _TURNS.values() if turn.get(fields[1]) is not None)
    role, content = next(given, ("", ""))
    said = turn.get(content)
    if isinstance(said, list):  # parts, of which pictures and calls of tools have no text
        said = "\n".join(part["text"] for part in said if part.get("text"))
    if said is None or not said.strip():
        return ""
    who = str(turn.get(role) or "")
    who = _ROLES.get(who, who).capitalize()
    return f"{who}: {said.strip()}" if who else said.strip()
