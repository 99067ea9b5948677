"""What runs were made with, also where it was not recorded as a parameter.

Runs of the run notebook record all of its parameters; runs made by hand record what training
was given, and their corpus and domains elsewhere. A parameter that only some runs record is
not known to be the same: it is taken from where it can be known, else it is a value of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from rbkit.report.compare.values import frozen
from rbkit.report.parameters import RunParameters, plain_json
from rbkit.show.facts import RunLike, domain_names

NOT_RECORDED = "not recorded"
# Act through the corpus alone, and through the domains alone: where those are the same, so is
# all that these could have changed.
_OF_CORPUS = ("corpus", "text_column", "source_column", "eval_sources", "max_examples", "eval_size")
_OF_DOMAINS = ("embedder", "max_tokens", "cluster", "k", "min_cluster_size", "noise", "max_noise",
               "far", "edits")  # fmt: skip
_MARKS = ("corpus", "embedder", "k")  # who records these was made by the run notebook


def completed(
    runs: Sequence[RunLike],
    settings: Sequence[Mapping[str, Any]],
    finished: Sequence[bool],
    but: frozenset[str],
) -> list[dict[str, Any]]:
    """Return `settings` with a value for each name that some run records.

    Parameters
    ----------
    runs : sequence of Run
    settings : sequence of mapping
        Parameters of each, as recorded.
    finished : sequence of bool
        Which of them finished. One that did not may have had no time to record all: it is
        taken for what the finished runs of its mixer are, where those agree.
    but : frozenset of str
        Names that need no value.
    """
    names = {name for values in settings for name in values} - but
    twins = _twins(runs, settings)
    named = [(run.info.get("corpus") or {}).get("name") for run in runs]
    if len({value for value in named if value is not None}) > 1:
        names.add("corpus")
    made = []
    for i, values in enumerate(settings):
        full = dict(values)
        for name in sorted(names - set(values)):
            if (found := next(twins(i, name), None)) is not None:
                full[name] = found[0]
            elif name == "corpus" and named[i] is not None:
                full[name] = named[i]
            elif name in defaults() and all(mark in values for mark in _MARKS):
                full[name] = defaults()[name]
            elif finished[i]:
                full[name] = NOT_RECORDED
            else:
                usual = {
                    frozen(other[name]): other[name]
                    for other, done in zip(settings, finished, strict=True)
                    if done and name in other and other.get("mixer") == values.get("mixer")
                }
                if len(usual) == 1:
                    full[name] = next(iter(usual.values()))
        made.append(full)
    return made


@cache
def defaults() -> Mapping[str, Any]:
    """Parameters of the run notebook that is shipped, as plain JSON."""
    found: Mapping[str, Any] = plain_json(asdict(RunParameters()))
    return found


def _twins(runs: Sequence[RunLike], settings: Sequence[Mapping[str, Any]]) -> Any:
    """Look a name up in the runs that had the same corpus, or the same domains of it."""
    corpora = [(run.info.get("corpus") or {}).get("fingerprint") for run in runs]
    domains = [tuple(domain_names(run)) for run in runs]

    def find(i: int, name: str) -> Iterator[tuple[Any]]:
        if corpora[i] is None or name not in (*_OF_CORPUS, *_OF_DOMAINS):
            return
        for j, values in enumerate(settings):
            if name in values and corpora[j] == corpora[i] and (
                name in _OF_CORPUS or (domains[i] and domains[j] == domains[i])
            ):  # fmt: skip
                yield (values[name],)

    return find
