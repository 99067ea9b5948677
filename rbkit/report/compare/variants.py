"""Runs become variants: groups that differ only in their seed, beside a baseline.

Whatever parameter differs among the runs tells variants apart. Runs without a final loss
(failed, killed, still running) are kept apart and counted, never averaged in or forgotten.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import Any, Protocol

from rbkit.balance.mixers.registry import canonical_mixer
from rbkit.errors import InputError
from rbkit.report.parameters import RunParameters
from rbkit.show.facts import (
    RunLike,
    domain_names,
    losses,
    mixer_of,
    parameter,
    same_corpus,
    same_domains,
)
from rbkit.show.style import shorten

Key = tuple[tuple[str, Hashable], ...]


def frozen(value: Any) -> Hashable:
    """Return a JSON value as a hashable one: lists as tuples, mappings as pairs by name.

    Examples
    --------
    >>> frozen({"lam": 2.0, "floor": [0, 1]})
    (('floor', (0, 1)), ('lam', 2.0))
    """
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), frozen(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"  # which is not equal to itself
    return value if isinstance(value, Hashable) else str(value)


def said(value: Any) -> str:
    """Write a value as a person would.

    Examples
    --------
    >>> said(frozen({"lam": 2.0})), said([8, 12]), said(0.001), said(None)
    ('lam 2', '8, 12', '0.001', 'none')
    """
    value = frozen(value)
    if isinstance(value, tuple):
        if value and all(_is_pair(item) for item in value):
            return ", ".join(f"{name} {said(item)}" for name, item in value)
        return ", ".join(said(item) for item in value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate is no text


def label(key: Key) -> str:
    """Name a variant by its values: its mixer first, then each other parameter with its name.

    Examples
    --------
    >>> label((("mixer", "RnB"), ("k", 10)))
    'RnB · k 10'
    >>> label((("mixer", "RnB"), ("mixer_options", (("lam", 2.0),))))
    'RnB · lam 2'
    """
    return " · ".join(_parts(key, short=True)) or "default"


def labels(keys: Sequence[Key], otherwise: str) -> list[str]:
    """Name variants, each differently; `otherwise` is the name where nothing varies."""
    if len(keys) == 1 and not keys[0]:
        return [otherwise]
    names = [label(key) for key in keys]
    twice = {name for name, count in Counter(names).items() if count > 1}
    names = [
        " · ".join(_parts(key, short=False)) if name in twice else name
        for name, key in zip(names, keys, strict=True)
    ]
    # Last resort, for values that are written alike although they differ, such as 1 and "1".
    count: Counter[str] = Counter()
    unique = []
    for name in names:
        count[name] += 1
        unique.append(name if count[name] == 1 else f"{name} ({count[name]})")
    return unique


def order(value: Any) -> tuple[Any, ...]:
    """Sort key for mixed values: nothing, then numbers by size, then all else by its text."""
    value = frozen(value)
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if isinstance(value, tuple) and value and all(isinstance(v, int | float) for v in value):
        return (1, float(value[0]), said(value))
    return (2, 0.0, said(value))


def _parts(key: Key, short: bool) -> list[str]:
    values = dict(key)
    parts = [str(values.pop("mixer"))] if "mixer" in values else []
    for name, value in values.items():
        if name == "mixer_options":  # its pairs bring names of their own
            parts += [said(value)] if value else []
            continue
        text = said(value)
        if short and "/" in text:  # of a path, the end says most
            text = text.rstrip("/").rsplit("/", 1)[-1]
        parts.append(f"{name} {shorten(text, 28) if short else text}")
    return parts


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


NOT_RECORDED = "not recorded"
# Act through the corpus alone, and through the domains alone: where those are the same, so is
# all that these could have changed.
_OF_CORPUS = ("corpus", "text_column", "source_column", "eval_sources", "max_examples", "eval_size")
_OF_DOMAINS = (
    "embedder",
    "max_tokens",
    "cluster",
    "k",
    "min_cluster_size",
    "noise",
    "max_noise",
    "far",
    "edits",
)
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
    found: Mapping[str, Any] = RunParameters().to_dict()
    return found


def _twins(runs: Sequence[RunLike], settings: Sequence[Mapping[str, Any]]) -> Any:
    """Look a name up in the runs that had the same corpus, or the same domains of it."""
    corpora = [(run.info.get("corpus") or {}).get("fingerprint") for run in runs]
    domains = [tuple(domain_names(run)) for run in runs]

    def find(i: int, name: str) -> Iterator[tuple[Any]]:
        if corpora[i] is None or name not in (*_OF_CORPUS, *_OF_DOMAINS):
            return
        for j, values in enumerate(settings):
            if (
                name in values
                and corpora[j] == corpora[i]
                and (name in _OF_CORPUS or (domains[i] and domains[j] == domains[i]))
            ):
                yield (values[name],)

    return find


_Describe = Callable[[RunLike], str | int]
UNKNOWN = "unknown"


def tell_data_apart(
    runs: Sequence[RunLike],
    settings: Sequence[dict[str, Any]],
    finished: Sequence[bool],
    varied: Sequence[str],
) -> list[str]:
    """Add settings for what runs of one variant and seed had different; return their names."""
    added: list[str] = []
    for name, same, ways in (("corpus", same_corpus, _CORPUS), ("domains", same_domains, _DOMAINS)):
        pairs = [
            pair
            for pair in _colliding(runs, settings, finished, (*varied, *added))
            if not same(*pair)
        ]
        if not pairs:
            continue
        # The last of them always tells apart: it is what the runs are compared by.
        way = next(way for way in ways if all(way(a) != way(b) for a, b in pairs))
        name = f"{name} made" if name in varied else name
        for run, values in zip(runs, settings, strict=True):
            values[name] = way(run)
        added.append(name)
    return added


def _colliding(
    runs: Sequence[RunLike],
    settings: Sequence[dict[str, Any]],
    finished: Sequence[bool],
    names: Sequence[str],
) -> Iterator[tuple[RunLike, RunLike]]:
    """Pairs of finished runs that nothing tells apart, not even their seed."""
    groups: dict[Hashable, list[RunLike]] = {}
    for run, values, done in zip(runs, settings, finished, strict=True):
        if done and values.get("seed") is not None:
            key = tuple(frozen(values.get(name)) for name in (*names, "seed"))
            groups.setdefault(key, []).append(run)
    for group in groups.values():
        yield from combinations(group, 2)


def _corpus(run: RunLike) -> dict[str, Any]:
    return run.info.get("corpus") or {}


def _size(run: RunLike) -> str:
    known = [_corpus(run).get(name) for name in ("n_train", "n_eval")]
    return UNKNOWN if None in known else f"{known[0]} + {known[1]} examples"


def _method(run: RunLike) -> str:
    made = getattr(run.domains, "method", None) or {}
    return str(made.get("name") or UNKNOWN)


def _count(run: RunLike) -> str | int:
    return len(domain_names(run)) or UNKNOWN


def _digest(run: RunLike) -> str:
    text = "\n".join(domain_names(run)).encode("utf-8", "replace")
    return f"{_count(run)} ({hashlib.sha256(text).hexdigest()[:6]})"


_CORPUS: list[_Describe] = [
    lambda run: str(_corpus(run).get("name") or UNKNOWN),
    _size,
    lambda run: str(_corpus(run).get("fingerprint") or UNKNOWN),
]
_DOMAINS: list[_Describe] = [
    _method,
    _count,
    lambda run: f"{_count(run)} by {_method(run)}",
    _digest,
]


# What a run has without it being a setting of the method: a variant's runs may differ in it.
NOT_SETTINGS = frozenset(
    {
        "seed",
        "run_dir",
        "resume",
        "profile",
        "domains",
        "micro_batch_size",
        "accumulate",
        "fidelity_rounds",
    }
)
_OF_A_RUN = frozenset(
    {"seed", "run_dir", "resume", "mixer_options"}
)  # different as a matter of course
# Recorded as they came out of the seed's own split of the corpus, or of what a mixer tracks:
# where they follow from the seed, or from the mixer, they are no setting of their own.
_FROM_SEED = ("vocab_size",)
_FROM_MIXER = ("layer", "buckets")


def settings_of(run: RunLike) -> dict[str, Any]:
    """Return the parameters of a run, its mixer spelt as its class is."""
    values = dict(run.info.get("parameters") or {})
    values["mixer"] = canonical_mixer(mixer_of(run))
    return values


def only_telling_options(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep of ``mixer_options`` those that differ among runs of the same mixer.

    A run records all options of its mixer, and each mixer has its own: compared as they are,
    they would tell every mixer apart once more, in forty words.
    """
    seen: dict[tuple[str, str], set[Hashable]] = {}
    for values in settings:
        for name, value in _options(values).items():
            seen.setdefault((values["mixer"], name), set()).add(frozen(value))
    return [
        {
            **values,
            "mixer_options": {
                name: value
                for name, value in _options(values).items()
                if len(seen[values["mixer"], name]) > 1
            },
        }
        for values in settings
    ]


def _options(values: Mapping[str, Any]) -> Mapping[str, Any]:
    options = values.get("mixer_options")
    return options if isinstance(options, Mapping) else {}


@dataclass(frozen=True)
class Told:
    """Settings of each run, and which of them tell runs apart.

    Attributes
    ----------
    values : list of dict
        Of each run, by name.
    varied : list of str
        Names of those that make variants, the mixer first.
    beside : list of str
        Names of others that are not the same in all runs: they follow from the mixer or the
        seed, or are no settings of the method, or were recorded by only some runs together
        with one that is in `varied`.
    """

    values: list[dict[str, Any]]
    varied: list[str]
    beside: list[str]


def tell_apart(runs: Sequence[RunLike], finished: Sequence[bool]) -> Told:
    """Return the settings of `runs` and what tells them apart."""
    recorded = [settings_of(run) for run in runs]
    values = only_telling_options(completed(runs, recorded, finished, NOT_SETTINGS))
    varied = _varied_names(values)
    varied += tell_data_apart(runs, values, finished, varied)
    differ: dict[str, set[Hashable]] = {}
    for each in values:
        for name, value in each.items():
            differ.setdefault(name, set()).add(frozen(value))
    for name in NOT_SETTINGS & differ.keys():
        if any(name not in each for each, done in zip(values, finished, strict=True) if done):
            differ[name].add(NOT_RECORDED)
    beside = sorted(
        name
        for name, found in differ.items()
        if len(found) > 1 and name not in varied and name not in _OF_A_RUN
    )
    return Told(values, sorted(varied, key=lambda name: (name != "mixer", name)), beside)


def _varied_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that differ, less those that follow from others."""
    seen: dict[str, set[Hashable]] = {}
    for values in settings:
        for name, value in values.items():
            seen.setdefault(name, set()).add(frozen(value))
    found = sorted(
        name for name, values in seen.items() if len(values) > 1 and name not in NOT_SETTINGS
    )
    found = [
        name
        for name in found
        if not (name in _FROM_SEED and _follows(settings, name, "seed"))
        and not (name in _FROM_MIXER and _follows(settings, name, "mixer"))
    ]
    found = _once(settings, found, seen)
    # A folder of domains may be another for each run, and then says nothing; but where it is
    # all that tells two runs of a seed apart, it is what was compared.
    if len(seen.get("domains", ())) > 1:
        by_rest: dict[Hashable, set[Hashable]] = {}
        for values in settings:
            if "domains" in values:
                rest = tuple(frozen(values.get(name)) for name in (*found, "seed"))
                by_rest.setdefault(rest, set()).add(frozen(values["domains"]))
        if any(len(folders) > 1 for folders in by_rest.values()):
            found.append("domains")
    return found


def _once(
    settings: Sequence[Mapping[str, Any]], names: Sequence[str], seen: Mapping[str, set[Hashable]]
) -> list[str]:
    """Of names that differ only in being recorded or not, by the same runs, keep the first."""
    kept, groups = [], set()
    for name in names:
        if NOT_RECORDED in seen[name] and len(seen[name]) == 2:
            lack = frozenset(
                i for i, values in enumerate(settings) if values.get(name) == NOT_RECORDED
            )
            if lack in groups:
                continue
            groups.add(lack)
        kept.append(name)
    return kept


def _follows(settings: Sequence[Mapping[str, Any]], name: str, other: str) -> bool:
    """Whether runs with the same value of parameter `other` have the same one of `name`."""
    by_other: dict[Hashable, set[Hashable]] = {}
    for values in settings:
        if name in values and values[name] != NOT_RECORDED:
            by_other.setdefault(frozen(values.get(other)), set()).add(frozen(values[name]))
    return all(len(found) == 1 for found in by_other.values())


BASELINES = ("Stratified", "Target", "Proportional")


class _Grouped(Protocol):
    @property
    def mixer(self) -> str: ...
    @property
    def runs(self) -> Sequence[Any]: ...
    @property
    def values(self) -> dict[str, Any]: ...


def choose_baseline(
    given: str | Mapping[str, Any] | None,
    variants: Sequence[_Grouped],
    shared: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values that make a variant the baseline.

    Parameters
    ----------
    given : str, mapping or None
        What the user asked for: ``"mixer=Target k=10"``, the same as a mapping, or nothing.
    variants : sequence of Variant
        In their order, those that never finished included.
    shared : mapping
        Parameters that do not vary: they may be named, but tell nothing apart.

    Raises
    ------
    InputError
        If no variant has these values.
    """
    wanted = parse_baseline(given) if isinstance(given, str) else dict(given or {})
    found = {name: _match(name, value, variants, shared) for name, value in wanted.items()}
    found = {
        name: value for name, value in found.items() if variants and name in variants[0].values
    }
    if found:
        if not any(_has(variant, found) for variant in variants):
            asked = ", ".join(f"{name}={said(value)}" for name, value in found.items())
            raise InputError(
                "baseline", f"no run has {asked} together", "give values that one variant has"
            )
        return found
    return _usual([v for v in variants if v.runs] or list(variants))


def parse_baseline(text: str) -> dict[str, Any]:
    """Read ``name=value`` pairs, with spaces or commas between them; values stay text.

    Examples
    --------
    >>> parse_baseline("mixer=Target, k=8,12")
    {'mixer': 'Target', 'k': '8,12'}
    """
    found = {}
    for part in re.split(r"[\s,]+(?=\w+\s*=)", text.strip()):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(
                "baseline",
                f"{text!r} is not of the form name=value",
                'write for example "mixer=Target"',
            )
        found[name.strip()] = value.strip().strip("\"'")
    return found


def _usual(variants: Sequence[_Grouped]) -> dict[str, Any]:
    if not variants:
        return {}
    if "mixer" in variants[0].values:
        mixers = [variant.mixer for variant in variants]
        usual = [name for name in BASELINES if name in mixers]
        return {"mixer": usual[0] if usual else mixers[0]}
    return dict(variants[0].values)


def _match(name: str, value: Any, variants: Sequence[_Grouped], shared: Mapping[str, Any]) -> Any:
    """Return the value of parameter `name` that `value` stands for."""
    if not variants:
        return frozen(value)
    if name in variants[0].values:
        known = list(dict.fromkeys(variant.values[name] for variant in variants))
    elif name in shared:
        known = [frozen(shared[name])]
    else:
        there = ", ".join(variants[0].values) or "nothing"
        raise InputError(
            f"baseline {name}", "no parameter that tells these runs apart", f"what varies: {there}"
        )
    for candidate in known:
        if _same(name, candidate, value):
            return candidate
    raise InputError(
        f"baseline {name}",
        f"{value!r} is in none of the runs",
        f"use one of {', '.join(said(candidate) for candidate in known)}",
    )


def _same(name: str, candidate: Any, value: Any) -> bool:
    if candidate == frozen(value):
        return True
    if not isinstance(value, str):
        return False
    if name == "mixer" and isinstance(candidate, str):
        return candidate.lower() == value.lower()
    if value.replace(" ", "") in (said(candidate).replace(" ", ""), str(candidate)):
        return True
    try:
        return bool(candidate == frozen(json.loads(value)))
    except ValueError:
        return False


def _has(variant: _Grouped, values: Mapping[str, Any]) -> bool:
    return all(variant.values.get(name) == value for name, value in values.items())


@dataclass(frozen=True)
class Variant:
    """Runs with the same settings, which differ in their seed.

    Attributes
    ----------
    key : tuple of (name, value)
        What varies among all runs, and its value here; hashable.
    label : str
        Says only what varies: ``RnB · k 10``. Unique in a comparison.
    mixer : str
    runs : tuple of Run
        Those with a final loss, one per seed, by seed.
    unfinished : tuple of Run
        Those without.
    repeated : tuple of Run
        Older finished runs of a seed that a later one repeated: left out.
    """

    key: Key
    label: str
    mixer: str
    runs: tuple[RunLike, ...]
    unfinished: tuple[RunLike, ...] = ()
    repeated: tuple[RunLike, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """What varies, by name."""
        return dict(self.key)

    @property
    def seeds(self) -> tuple[Any, ...]:
        """Seed of each run, None where none was recorded."""
        return tuple(parameter(run, "seed") for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Variants of runs, what tells them apart, and the baseline they are held against.

    Attributes
    ----------
    variants : tuple of Variant
        Those with at least one finished run: usual baselines first, then by name and value.
    varied : tuple of str
        Parameters that differ.
    shared : dict
        Parameters with the same value in all runs.
    baseline : dict
        Values that make a variant a baseline, such as ``{"mixer": "Target"}``.
    runs : tuple of Run
        All that were given, each folder once.
    unfinished : tuple of Run
        Those without a final loss, whatever the reason.
    lost : tuple of Variant
        Variants none of whose runs has finished.
    repeated : tuple of Run
        Older runs of a seed that another run has repeated: left out.
    beside : tuple of str
        Parameters that are not the same in all runs and yet make no variants, such as what
        follows from the mixer.
    """

    variants: tuple[Variant, ...]
    varied: tuple[str, ...]
    shared: dict[str, Any]
    baseline: dict[str, Any]
    runs: tuple[RunLike, ...]
    unfinished: tuple[RunLike, ...] = ()
    lost: tuple[Variant, ...] = ()
    repeated: tuple[RunLike, ...] = ()
    beside: tuple[str, ...] = ()
    _settings: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)
    _by_key: dict[Key, Variant] = field(default_factory=dict, repr=False, compare=False)

    @property
    def baseline_label(self) -> str:
        """What the baseline is called where the rest is the same: ``Stratified``."""
        if not self.baseline and self.variants:
            return self.variants[0].label
        return label(tuple(self.baseline.items()))

    def is_baseline(self, variant: Variant) -> bool:
        """Whether `variant` has the values of the baseline."""
        values = variant.values
        return all(values.get(name) == value for name, value in self.baseline.items())

    def baseline_of(self, variant: Variant) -> Variant | None:
        """Return the variant with the baseline's values and otherwise those of `variant`.

        A baseline is its own. Options of a mixer belong to that mixer, so where the baseline
        is another mixer they need not agree, as long as only one variant can be meant.
        """
        if self.is_baseline(variant):
            return variant
        wanted = {**variant.values, **self.baseline}
        if found := self._by_key.get(tuple(wanted.items())):
            return found
        if "mixer" not in self.baseline or "mixer_options" not in wanted:
            return None
        del wanted["mixer_options"]
        close = [
            other
            for other in self.variants
            if all(other.values[name] == value for name, value in wanted.items())
        ]
        return close[0] if len(close) == 1 else None

    def variant(self, label: str) -> Variant:
        """Return the variant called `label`; KeyError if there is none."""
        return {variant.label: variant for variant in self.variants}[label]

    def setting(self, run: RunLike, name: str) -> Any:
        """Value of a run, of one name in `varied` or `beside`; None if it has none.

        Corpus and domains of runs made by hand are no parameters of theirs, and of a mixer's
        options only those that differ say anything.
        """
        return self._settings.get(str(run.path), {}).get(name, parameter(run, name))

    @property
    def seeds(self) -> int:
        """Number of different seeds among the finished runs."""
        return len({seed for variant in self.variants for seed in variant.seeds})

    def cautions(self) -> list[str]:
        """Sentences on what limits the comparison. Plain text, not escaped."""
        from rbkit.report.compare.words import cautions_of

        return cautions_of(self)


def compare(runs: Sequence[RunLike], baseline: str | Mapping[str, Any] | None = None) -> Comparison:
    """Group runs into variants and choose what they are compared with.

    Parameters
    ----------
    runs : sequence of Run
        In any order and any state.
    baseline : str or mapping, optional
        ``"mixer=Target"`` or ``{"mixer": "Target"}``; the case of a mixer does not matter.
        If not given: Stratified, else Target, else Proportional, else the first variant.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If no run has the baseline's values; it names those there are.
    """
    runs = _each_once(runs)
    told = tell_apart(runs, [is_finished(run) for run in runs])
    settings, varied = told.values, told.varied
    groups: dict[Key, list[RunLike]] = {}
    for run, values in zip(runs, settings, strict=True):
        key = tuple((name, frozen(values.get(name))) for name in varied)
        groups.setdefault(key, []).append(run)
    mixers = {key: canonical_mixer(mixer_of(members[0])) for key, members in groups.items()}
    ordered = sorted(groups, key=lambda key: (_rank(mixers[key]), *(order(v) for _, v in key)))
    names = labels(ordered, otherwise=next(iter(mixers.values()), ""))
    variants = []
    for key, name in zip(ordered, names, strict=True):
        done = [run for run in groups[key] if is_finished(run)]
        kept, older = _one_per_seed(done)
        rest = tuple(run for run in groups[key] if not is_finished(run))
        variants.append(Variant(key, name, mixers[key], tuple(kept), rest, tuple(older)))
    finished = tuple(variant for variant in variants if variant.runs)
    # Of options, all are said where they are the same, also those that tell nothing apart.
    whole = [
        {**values, "mixer_options": parameter(run, "mixer_options")}
        if "mixer_options" in values
        else values
        for run, values in zip(runs, settings, strict=True)
    ]
    every = sorted({name for values in whole for name in values} - {*varied, *told.beside})
    shared = {
        name: next(v[name] for v in whole if name in v)
        for name in every
        if len({frozen(v[name]) for v in whole if name in v}) == 1
    }
    return Comparison(
        variants=finished,
        varied=tuple(varied),
        beside=tuple(told.beside),
        shared=shared,
        baseline=choose_baseline(baseline, variants, shared),
        runs=tuple(runs),
        unfinished=tuple(run for run in runs if not is_finished(run)),
        lost=tuple(variant for variant in variants if not variant.runs),
        repeated=tuple(run for variant in variants for run in variant.repeated),
        _settings={str(run.path): values for run, values in zip(runs, settings, strict=True)},
        _by_key={variant.key: variant for variant in finished},
    )


def is_finished(run: RunLike) -> bool:
    """Whether a run came to its end and has a final eval loss."""
    return run.status == "ok" and losses(run).token is not None


def _each_once(runs: Sequence[RunLike]) -> list[RunLike]:
    """Leave out folders given twice, and put the rest in an order that is not the caller's."""
    found = {str(run.path.resolve()): run for run in runs}
    return [found[path] for path in sorted(found)]


def _one_per_seed(runs: Sequence[RunLike]) -> tuple[list[RunLike], list[RunLike]]:
    """Return the latest run of each seed, by seed, and the older ones; unknown seeds stay."""
    latest: dict[Hashable, RunLike] = {}
    older = []
    for run in sorted(runs, key=_when):
        seed = parameter(run, "seed")
        place = frozen(seed) if seed is not None else ("no seed", str(run.path))
        if place in latest:
            older.append(latest[place])
        latest[place] = run
    return sorted(latest.values(), key=lambda run: order(parameter(run, "seed"))), older


def _when(run: RunLike) -> tuple[str, str]:
    return str(run.info.get("ended") or run.info.get("started") or ""), str(run.path)


def _rank(mixer: str) -> tuple[int, str]:
    """Order of mixers: the usual baselines, then the others by name."""
    return (BASELINES.index(mixer) if mixer in BASELINES else len(BASELINES), mixer.lower())
