"""The shapes of rows: types of columns, fields inside them, and those of usual data sets.

Instructions, questions and chats come in a few shapes, each with columns of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Shape:
    """Where a usual data set has its prompts, their completions, and its sources.

    >>> shape = Shape("Dolly", ("instruction", "context"), ("response",), "category")
    >>> shape.text
    ('instruction', 'context', 'response')
    """

    name: str
    prompt: tuple[str, ...] = ()
    completion: tuple[str, ...] = ()
    source: str | None = None
    messages: str | None = None  # the column of chats, which hold both

    @property
    def text(self) -> tuple[str, ...]:
        """The columns that make the text, in order."""
        return (*self.prompt, *self.completion)


TASKS = "Super-NaturalInstructions"
_USUAL = [
    Shape("Dolly", ("instruction", "context"), ("response",), "category"),
    Shape(TASKS, ("Definition", "input"), ("output",), "task"),  # as `read_task` gives them
    Shape(TASKS, ("definition", "inputs"), ("targets",), "task_name"),  # as on the hub
    Shape("Alpaca", ("instruction", "input"), ("output",)),
    Shape("S1", ("question",), ("thinking_trajectories", "attempt"), "source_type"),
    Shape("S1", ("question",), ("deepseek_thinking_trajectory", "deepseek_attempt"), "source_type"),
    Shape("prompts and completions", ("prompt",), ("completion",)),
    Shape("questions and answers", ("question",), ("answer",)),
    Shape("images with captions", ("caption",)),
    Shape("a WebDataset", ("txt",)),
]
_TURNS = {"OpenAI's chats": ("role", "content"), "ShareGPT": ("from", "value")}
_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's


def usual_shape(features: Mapping[str, Any]) -> Shape | None:
    """Return the shape that the columns are those of; None if there is none."""
    for column in ("messages", "conversations"):
        if (kind := turn_of(features.get(column))) is not None:
            return Shape(kind, messages=column)
    for shape in _USUAL:
        if all(is_text(features.get(name)) for name in shape.text):
            there = shape.source in features
            return shape if there else replace(shape, source=None)
    return None


def is_text(feature: Any) -> bool:
    """Whether a column holds texts, or lists of them, which are joined by blank lines."""
    return kind_of(feature) in TEXTS or kind_of(item_of(feature)) in TEXTS


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


def joined(value: Any) -> str:
    r"""Return a text, or texts joined by blank lines; missing and blank ones are left out.

    >>> joined(["one", None, " ", "two"])
    'one\n\ntwo'
    """
    if value is None or isinstance(value, str):
        return value or ""
    return "\n\n".join(part for part in value if part and part.strip())


def chat(column: str, row: dict[str, Any]) -> str:
    r"""Return the chat in a column of a row as a text.

    >>> turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    >>> chat("messages", {"messages": turns})
    'User: Why?\n\nAssistant: Because.'
    """
    return chat_text(messages_of(field_of(row, column)))


def chat_text(messages: Iterable[Mapping[str, str]]) -> str:
    """Return messages as a text, with blank lines between them."""
    pairs = ((each["role"].capitalize(), each["content"].strip()) for each in messages)
    return "\n\n".join(f"{who}: {text}" if who else text for who, text in pairs)


def messages_of(turns: Any) -> list[dict[str, str]]:
    """Return the turns of a chat that have a text, each as ``{"role", "content"}``.

    >>> messages_of([{"from": "human", "value": "Why?"}, {"from": "gpt", "value": None}])
    [{'role': 'user', 'content': 'Why?'}]
    """
    if isinstance(turns, Mapping):
        turns = [dict(zip(turns, turn, strict=True)) for turn in zip(*turns.values(), strict=True)]
    made = []
    for turn in turns or []:
        if not isinstance(turn, Mapping):
            raise TypeError(f"a turn is {type(turn).__name__}, not a dict")
        given = (fields for fields in _TURNS.values() if turn.get(fields[1]) is not None)
        role, content = next(given, ("", ""))
        text = turn.get(content)
        if isinstance(text, list):  # parts, of which pictures and calls of tools have no text
            text = "\n".join(part["text"] for part in text if part.get("text"))
        if text is not None and text.strip():
            who = str(turn.get(role) or "")
            made.append({"role": _ROLES.get(who, who), "content": text})
    return made


def last_answer(messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], ...]:
    """Divide a chat into the prompt and its completion: the assistant's last message.

    >>> last_answer([{"role": "user", "content": "Why?"}])
    ([{'role': 'user', 'content': 'Why?'}], [])
    """
    answers = [at for at, each in enumerate(messages) if each["role"] == "assistant"]
    at = answers[-1] if answers else len(messages)
    return messages[:at], messages[at : at + 1]


_OF_TASK = ("Categories", "Domains", "Source", "Reasoning", "Input_language", "Output_language")


def read_task(name: str, facts: Mapping[str, Any], examples: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the instances of an original task file of Super-NaturalInstructions as rows.

    ``output`` is the first of an instance's ``outputs``; `examples` is the number of the task's
    positive examples that are written between its definition and the input. What is said of the
    task comes with each row, lists joined by commas.

    >>> facts = {"Definition": ["Add."], "Instances": [{"input": "1 1", "output": ["2", "two"]}]}
    >>> row = next(read_task("task7_add", facts))
    >>> row["task"], row["Definition"], row["output"], row["outputs"]
    ('task7_add', 'Add.', '2', ['2', 'two'])
    """
    of_task = {key: facts.get(key) for key in _OF_TASK}
    of_task = {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in of_task.items()}
    shown = list(facts.get("Positive Examples") or [])[:examples]
    parts = [joined(facts["Definition"])]
    parts += [f"Input: {each['input']}\nOutput: {joined(each['output'])}" for each in shown]
    for instance in facts["Instances"]:
        outputs = instance["output"]
        outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        yield {
            "task": name,
            "id": instance.get("id"),
            "Definition": joined(parts),
            "input": instance["input"],
            "output": outputs[0] if outputs else None,
            "outputs": outputs,
            **of_task,
        }
