"""Parameters, declared once: a frozen dataclass that notebook, command line and report share.

papermill passes strings where numbers were meant, and only warns of a misspelt name. So
values are checked against the type hints of the dataclass, by the launcher before a
notebook starts and again by the notebook itself. The functions here work for any frozen
dataclass; :class:`RunParameters` is the one of ``notebooks/90_run.ipynb``.
"""

# ruff: noqa: RUF009  (declare() makes a dataclasses.field: a fresh default for each instance)
from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, Self

from rbkit.balance.mixers.registry import canonical_mixer, mixer_by_name
from rbkit.errors import InputError
from rbkit.report.coerce import check, did_you_mean, hint_source, source_of


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
        positive = ("max_examples", "eval_size", "max_tokens", "vocab_size", "context", "steps",
                    "round_steps", "batch_size", "learning_rate", "fraction")  # fmt: skip
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
    "corpus": "docstrings", "text_column": "text", "source_column": "source",
    "eval_sources": None, "max_examples": 240, "eval_size": 40, "embedder": "tfidf",
    "cluster": "kmeans", "k": (3, 4), "min_cluster_size": None, "edits": "", "domains": "",
    "model": "tiny", "vocab_size": 512, "context": 32, "steps": 8, "round_steps": 4,
}  # fmt: skip


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
