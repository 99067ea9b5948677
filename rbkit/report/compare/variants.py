"""Runs become variants: groups that differ only in their seed, compared with a baseline.

Whatever parameter differs among the runs makes variants. Runs without a final loss (failed,
killed, still running) are counted on their own, never averaged in or forgotten.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations, islice
from typing import Any, Literal

import numpy as np

from rbkit.balance.mixers.registry import canonical_mixer
from rbkit.errors import InputError
from rbkit.report.parameters import RunParameters
from rbkit.show.facts import (
    Measure,
    domain_names,
    loss_unit,
    measure_of,
    metric_names,
    mixer_of,
    pairs_by_seed,
    parameter,
    same_corpus,
    same_domains,
    same_machine,
    seed_of,
)
from rbkit.show.style import shorten
from rbkit.text import one_line
from rbkit.train.run import PER_TOKEN, Run

Key = tuple[tuple[str, Hashable], ...]
Settings = dict[str, Any]

_LOSS = Measure()
BASELINES = ("Stratified", "Target", "Proportional")
NOT_RECORDED = "not recorded"
# What a run has without it being a setting of the method: a variant's runs may differ in it.
NOT_SETTINGS = frozenset(
    {"seed", "run_dir", "resume", "overwrite", "profile", "domains"}
    | {"metrics", "metric_rounds", "metric_examples"}
    | {"micro_batch_size", "accumulate", "fidelity_rounds"}
)
_DIFFERENT_IN_ANY_CASE = frozenset({"seed", "run_dir", "resume", "overwrite", "mixer_options"})
# Recorded as they came out of the seed's own split of the corpus, or of what a mixer tracks:
# where they follow from the seed, or from the mixer, they are not settings of their own.
_FOLLOWS = {"vocab_size": "seed", "layer": "mixer", "buckets": "mixer"}
# Act through the corpus alone, and through the domains alone: runs with the same corpus, or the
# same domains, cannot differ in what these changed.
_OF_CORPUS = {"corpus", "text_column", "source_column", "eval_sources", "max_examples", "eval_size"}
_OF_DOMAINS = {
    "embedder",
    "embed",
    "max_tokens",
    "cluster",
    "k",
    "min_cluster_size",
    "noise",
    "max_noise",
    "far",
    "unseen",
    "edits",
}
_OF_NOTEBOOK = frozenset({"corpus", "embedder", "k"})  # who records these is the run notebook


# ----------------------------------------------------------------------- values and their text


def hashable(value: Any) -> Hashable:
    """Return a JSON value as a hashable one: lists as tuples, mappings as pairs by name.

    >>> hashable({"lam": 2.0, "floor": [0, 1]})
    (('floor', (0, 1)), ('lam', 2.0))
    """
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), hashable(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(hashable(item) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"  # which is not equal to itself
    return value if isinstance(value, Hashable) else str(value)


def setting_text(value: Any) -> str:
    """Write a setting's value as it stands in a label.

    >>> setting_text({"lam": 2.0}), setting_text([8, 12]), setting_text(0.001), setting_text(None)
    ('lam 2', '8, 12', '0.001', 'none')
    """
    value = hashable(value)
    if isinstance(value, tuple):
        if value and all(
            isinstance(v, tuple) and len(v) == 2 and isinstance(v[0], str) for v in value
        ):
            return ", ".join(f"{name} {setting_text(item)}" for name, item in value)
        return ", ".join(map(setting_text, value))
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).encode("utf-8", "replace").decode()  # UTF-8 holds no lone surrogate


def sort_key(value: Any) -> tuple[Any, ...]:
    """Order mixed values: nothing, then numbers by size, then all else by its text."""
    value = hashable(value)
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if isinstance(value, tuple) and value and all(isinstance(v, int | float) for v in value):
        return (1, float(value[0]), setting_text(value))
    return (2, 0.0, setting_text(value))


def label(key: Key, *, full: bool = False) -> str:
    """Name a variant by its values: its mixer first, then each other parameter with its name.

    >>> label((("mixer", "RnB"), ("k", 10))), label((("mixer_options", (("lam", 2.0),)),))
    ('RnB · k 10', 'lam 2')
    """
    values = dict(key)
    parts = [str(values.pop("mixer"))] if "mixer" in values else []
    for name, value in values.items():
        text = setting_text(value)
        if name == "mixer_options":  # its pairs bring names of their own
            parts += [text] if value else []
            continue
        if not full:
            if "/" in text:  # of a path, the end says most
                text = text.rstrip("/").rsplit("/", 1)[-1]
            text = shorten(text, 28)
        parts.append(f"{name} {text}")
    return " · ".join(parts) or "default"


def _labels(keys: Sequence[Key], otherwise: str) -> list[str]:
    """Name variants, each differently; `otherwise` is the name where nothing varies."""
    if len(keys) == 1 and not keys[0]:
        return [otherwise]
    count = Counter(map(label, keys))
    names = [label(key, full=count[label(key)] > 1) for key in keys]
    # Last resort, for values that are written alike although they differ, such as 1 and "1".
    used: Counter[str] = Counter()
    for i, name in enumerate(names):
        used[name] += 1
        names[i] = name if used[name] == 1 else f"{name} ({used[name]})"
    return names


# ------------------------------------------------------------------------------ what varies


def _settings(
    runs: Sequence[Run], finished: Sequence[bool]
) -> tuple[list[Settings], list[str], list[str]]:
    """Return the settings of each run, the names that make variants, and others that differ."""
    settings = _without_common_options(_completed(runs, finished))
    varied = _varied(settings)
    varied += _name_data(runs, settings, finished, varied)
    values = _values_by_name(settings)
    for name in NOT_SETTINGS & values.keys():
        if any(name not in each for each, done in zip(settings, finished, strict=True) if done):
            values[name].add(NOT_RECORDED)
    differ = {name for name, distinct in values.items() if len(distinct) > 1}
    incidental = sorted(differ - {*varied} - _DIFFERENT_IN_ANY_CASE)
    return settings, sorted(varied, key=lambda name: (name != "mixer", name)), incidental


def _distinct(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Any, set[Hashable]]:
    """Collect the distinct values of each key."""
    values: dict[Any, set[Hashable]] = {}
    for key, value in pairs:
        values.setdefault(key, set()).add(hashable(value))
    return values


def _values_by_name(settings: Sequence[Settings]) -> dict[str, set[Hashable]]:
    return _distinct(item for each in settings for item in each.items())


def _completed(runs: Sequence[Run], finished: Sequence[bool]) -> list[Settings]:
    """Return the parameters of each run with a value for every setting that some run records.

    A run records all arguments of its training. The rest is for folders of older versions, for
    parameters of the run notebook, which ``rb.train`` has not, and for runs that have not begun.
    """
    recorded = [
        {**(run.info.get("parameters") or {}), "mixer": canonical_mixer(mixer_of(run))}
        for run in runs
    ]
    names = {name for values in recorded for name in values} - NOT_SETTINGS
    corpora = [_corpus(run) for run in runs]
    domains = [domain_names(run) for run in runs]
    if len({corpus.get("name") for corpus in corpora} - {None}) > 1:
        names.add("corpus")

    def on_same_data(i: int, name: str) -> Iterator[Any]:
        """Values of runs that had the same corpus or, if `name` acts on those, domains."""
        print_ = corpora[i].get("fingerprint")
        for j, values in enumerate(recorded if print_ is not None else ()):
            if name in values and corpora[j].get("fingerprint") == print_:
                same = bool(domains[i]) and domains[j] == domains[i]
                if name in _OF_CORPUS or (name in _OF_DOMAINS and same):
                    yield values[name]

    def missing(i: int, name: str) -> Iterator[Any]:
        """Values that setting `name` of run `i` may be taken for, the best first."""
        if name in (arguments := runs[i].info.get("arguments") or {}):
            yield arguments[name]
        yield from on_same_data(i, name)
        if name == "corpus" and corpora[i].get("name") is not None:
            yield corpora[i]["name"]
        if name in _defaults() and recorded[i].keys() >= _OF_NOTEBOOK:
            yield _defaults()[name]
        if finished[i]:
            yield NOT_RECORDED
        else:  # it had no time to record all: it is what the finished runs of its mixer are
            usual = {
                hashable(other[name]): other[name]
                for other, done in zip(recorded, finished, strict=True)
                if done and name in other and other["mixer"] == recorded[i]["mixer"]
            }
            if len(usual) == 1:
                yield from usual.values()

    completed = []
    for i, values in enumerate(recorded):
        added = {name: list(islice(missing(i, name), 1)) for name in sorted(names - values.keys())}
        completed.append(values | {name: best[0] for name, best in added.items() if best})
    return completed


@cache
def _defaults() -> Mapping[str, Any]:
    return RunParameters().to_dict()


def _without_common_options(settings: Sequence[Settings]) -> list[Settings]:
    """Keep of ``mixer_options`` those that differ among runs of the same mixer.

    A run records all options of its mixer, and each mixer has its own: compared as they are,
    they would make every mixer a variant once more, in forty words.
    """

    def options(values: Settings) -> Mapping[str, Any]:
        given = values.get("mixer_options")
        return given if isinstance(given, Mapping) else {}

    seen = _distinct(
        ((values["mixer"], name), value)
        for values in settings
        for name, value in options(values).items()
    )
    without = []
    for values in settings:
        mine, mixer = options(values), values["mixer"]
        differing = {name: value for name, value in mine.items() if len(seen[mixer, name]) > 1}
        without.append(values | {"mixer_options": differing})
    return without


def _varied(settings: Sequence[Settings]) -> list[str]:
    """Names of the parameters that differ, less those that follow from others."""
    values = _values_by_name(settings)
    names = []
    unrecorded = set()
    for name in sorted(name for name, different in values.items() if len(different) > 1):
        if name in NOT_SETTINGS or (name in _FOLLOWS and _follows(settings, name, _FOLLOWS[name])):
            continue
        if NOT_RECORDED in values[name] and len(values[name]) == 2:
            # Of names that differ only in which runs record them, the first says it.
            by = frozenset(i for i, each in enumerate(settings) if each.get(name) == NOT_RECORDED)
            if by in unrecorded:
                continue
            unrecorded.add(by)
        names.append(name)
    # A folder of domains may be another for each run, and then says nothing; but where it is the
    # only difference of two runs of a seed, it is what was compared.
    folders = _distinct(
        (tuple(hashable(each.get(name)) for name in (*names, "seed")), each["domains"])
        for each in settings
        if "domains" in each
    )
    if any(len(different) > 1 for different in folders.values()):
        names.append("domains")
    return names


def _follows(settings: Sequence[Settings], name: str, other: str) -> bool:
    """Whether runs with the same value of parameter `other` have the same one of `name`."""
    values = _distinct(
        (hashable(each.get(other)), each[name])
        for each in settings
        if each.get(name, NOT_RECORDED) != NOT_RECORDED
    )
    return all(len(same) == 1 for same in values.values())


def _name_data(
    runs: Sequence[Run],
    settings: Sequence[Settings],
    finished: Sequence[bool],
    varied: Sequence[str],
) -> list[str]:
    """Add a setting for the data of runs that nothing else distinguishes; return its name."""
    added: list[str] = []
    for name, same, descriptions in (
        ("corpus", same_corpus, _CORPUS_DESCRIPTIONS),
        ("domains", same_domains, _DOMAINS_DESCRIPTIONS),
    ):
        alike: dict[Hashable, list[Run]] = {}
        for run, values, done in zip(runs, settings, finished, strict=True):
            if done and values.get("seed") is not None:
                names = (*varied, *added, "seed")
                key = tuple(hashable(values.get(each)) for each in names)
                alike.setdefault(key, []).append(run)
        pairs = [
            pair for group in alike.values() for pair in combinations(group, 2) if not same(*pair)
        ]
        if not pairs:
            continue
        # The last of them always distinguishes: it is what the runs are compared by.
        describe = next(d for d in descriptions if all(d(a) != d(b) for a, b in pairs))
        name = f"{name} made" if name in varied else name
        for run, values in zip(runs, settings, strict=True):
            values[name] = describe(run)
        added.append(name)
    return added


def _corpus(run: Run) -> dict[str, Any]:
    return run.info.get("corpus") or {}


def _clustering(run: Run) -> str:
    try:
        method = getattr(run.domains, "method", None) or {}
    except (InputError, OSError):  # a damaged file
        method = {}
    return str(method.get("name") or "unknown")


def _domain_count(run: Run) -> str | int:
    return len(domain_names(run)) or "unknown"


def _corpus_size(run: Run) -> str:
    sizes = [_corpus(run).get(name) for name in ("n_train", "n_eval")]
    return "unknown" if None in sizes else f"{sizes[0]} + {sizes[1]} examples"


def _domain_digest(run: Run) -> str:
    text = "\n".join(domain_names(run)).encode("utf-8", "replace")
    return f"{_domain_count(run)} ({hashlib.sha256(text).hexdigest()[:6]})"


_Describe = Callable[[Run], str | int]
_CORPUS_DESCRIPTIONS: list[_Describe] = [
    lambda run: str(_corpus(run).get("name") or "unknown"),
    _corpus_size,
    lambda run: str(_corpus(run).get("fingerprint") or "unknown"),
]
_DOMAINS_DESCRIPTIONS: list[_Describe] = [
    _clustering,
    _domain_count,
    lambda run: f"{_domain_count(run)} by {_clustering(run)}",
    _domain_digest,
]


# ---------------------------------------------------------------------------- a comparison


@dataclass(frozen=True)
class Finding:
    """A sentence about a comparison. Its text is plain, not escaped; ``str`` of it can be printed.

    Attributes
    ----------
    kind : str
        ``result`` (the headline), ``lowest`` (another variant ended lower), ``difference`` (of
        one more variant), ``count`` (of many variants) or ``caution`` (what limits them).
    text : str
    about : str
        Label of the variant that it is about, if it is about one.
    """

    kind: Literal["result", "lowest", "difference", "count", "caution"]
    text: str
    about: str = ""

    def __str__(self) -> str:
        """Return the text, safe for a terminal: names in it may be a stranger's."""
        return one_line(self.text)


@dataclass(frozen=True)
class Variant:
    """Runs with the same settings, which differ in their seed.

    Attributes
    ----------
    key : tuple of (name, value)
        What varies among all runs, and its value here; hashable.
    label : str
        Names only what varies: ``RnB · k 10``. Unique in a comparison.
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
    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...] = ()
    repeated: tuple[Run, ...] = ()

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
    """Variants of runs, what varies among them, and the baseline they are compared with.

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
    incidental : tuple of str
        Parameters that are not the same in all runs and yet make no variants, such as what
        follows from the mixer.
    measure : Measure
        What they are ranked by: the eval loss, or a metric.
    """

    variants: tuple[Variant, ...]
    varied: tuple[str, ...]
    shared: dict[str, Any]
    baseline: dict[str, Any]
    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...] = ()
    lost: tuple[Variant, ...] = ()
    repeated: tuple[Run, ...] = ()
    incidental: tuple[str, ...] = ()
    measure: Measure = _LOSS
    _settings: dict[str, Settings] = field(default_factory=dict, repr=False, compare=False)

    @property
    def baseline_label(self) -> str:
        """Name of the baseline where the rest is the same: ``Stratified``."""
        if not self.baseline and self.variants:
            return self.variants[0].label
        return label(tuple(self.baseline.items()))

    def is_baseline(self, variant: Variant) -> bool:
        """Whether `variant` has the values of the baseline."""
        return self.baseline.items() <= variant.values.items()

    def baseline_of(self, variant: Variant) -> Variant | None:
        """Return the variant with the baseline's values and otherwise those of `variant`.

        A baseline is its own. Options of a mixer belong to that mixer, so where the baseline
        is another mixer they need not agree, as long as only one variant can be meant.
        """
        if self.is_baseline(variant):
            return variant
        wanted = {**variant.values, **self.baseline}
        for other in self.variants:
            if other.values == wanted:
                return other
        if "mixer" not in self.baseline or "mixer_options" not in wanted:
            return None
        del wanted["mixer_options"]
        close = [other for other in self.variants if wanted.items() <= other.values.items()]
        return close[0] if len(close) == 1 else None

    def variant(self, label: str) -> Variant:
        """Return the variant called `label`; KeyError if there is none."""
        return {variant.label: variant for variant in self.variants}[label]

    def variant_of(self, run: Run) -> Variant:
        """Return the variant that a run of the comparison belongs to, also if it is lost."""
        return next(
            variant
            for variant in (*self.variants, *self.lost)
            if any(run is one for one in (*variant.runs, *variant.unfinished, *variant.repeated))
        )

    def setting(self, run: Run, name: str) -> Any:
        """Value of a run, of one name in `varied` or `incidental`; None if it has none.

        Corpus and domains of runs made by hand are not parameters of theirs, and of a mixer's
        options only those that differ say anything.
        """
        return self._settings.get(str(run.path), {}).get(name, parameter(run, name))

    def cautions(self) -> list[Finding]:
        """Sentences on what limits the comparison; plain text, not escaped."""
        sentences = (*_missing(self), *_unequal_seeds(self), *_not_comparable(self))
        return [Finding("caution", text) for text in sentences]


def compare(
    runs: Sequence[Run],
    baseline: str | Mapping[str, Any] | None = None,
    *,
    metric: str | None = None,
    higher_is_better: bool | None = None,
) -> Comparison:
    """Group runs into variants and choose the baseline they are compared with.

    Parameters
    ----------
    runs : sequence of Run
        In any order and any state.
    baseline : str or mapping, optional
        ``"mixer=Target"`` or ``{"mixer": "Target"}``; the case of a mixer does not matter.
        If not given: Stratified, else Target, else Proportional, else the first variant.
    metric : str, optional
        Metric to compare by in place of the eval loss. Runs without it count as unfinished.
    higher_is_better : bool, optional
        Of the metric; as the runs recorded it if not given.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If no run has the baseline's values, or the metric; it names those there are.
    """
    by_path = {str(run.path.resolve()): run for run in runs}  # each folder once
    runs = [by_path[path] for path in sorted(by_path)]  # and not in the caller's order
    measure = _measure(runs, metric, higher_is_better)
    finished = [is_finished(run, measure) for run in runs]
    settings, varied, incidental = _settings(runs, finished)
    groups: dict[Key, list[Run]] = {}
    for run, values in zip(runs, settings, strict=True):
        key = tuple((name, hashable(values.get(name))) for name in varied)
        groups.setdefault(key, []).append(run)
    mixers = {key: canonical_mixer(mixer_of(members[0])) for key, members in groups.items()}

    def usual_baselines_first(key: Key) -> tuple[Any, ...]:
        rank = {name: i for i, name in enumerate(BASELINES)}.get(mixers[key], len(BASELINES))
        return (rank, mixers[key].lower(), *(sort_key(value) for _, value in key))

    keys = sorted(groups, key=usual_baselines_first)
    variants = []
    for key, name in zip(keys, _labels(keys, next(iter(mixers.values()), "")), strict=True):
        latest, older = _one_per_seed([run for run in groups[key] if is_finished(run, measure)])
        rest = tuple(run for run in groups[key] if not is_finished(run, measure))
        variants.append(Variant(key, name, mixers[key], tuple(latest), rest, tuple(older)))
    # Of options, all are given where they are the same, also those that distinguish nothing.
    whole = [
        each
        | ({"mixer_options": parameter(run, "mixer_options")} if "mixer_options" in each else {})
        for run, each in zip(runs, settings, strict=True)
    ]
    shared = {
        name: next(each[name] for each in whole if name in each)
        for name, distinct in sorted(_values_by_name(whole).items())
        if len(distinct) == 1 and name not in {*varied, *incidental}
    }
    return Comparison(
        variants=tuple(variant for variant in variants if variant.runs),
        varied=tuple(varied),
        incidental=tuple(incidental),
        shared=shared,
        baseline=_baseline_values(baseline, variants, shared),
        runs=tuple(runs),
        unfinished=tuple(run for run in runs if not is_finished(run, measure)),
        lost=tuple(variant for variant in variants if not variant.runs),
        repeated=tuple(run for variant in variants for run in variant.repeated),
        measure=measure,
        _settings={str(run.path): each for run, each in zip(runs, settings, strict=True)},
    )


def _measure(runs: Sequence[Run], metric: str | None, higher_is_better: bool | None) -> Measure:
    if metric is None:
        if higher_is_better is not None:
            what = "is for a metric: a loss is better when it is low"
            raise InputError("higher_is_better", what, "give metric too")
        return measure_of(runs)
    if metric not in (known := metric_names(runs)):
        there = (
            f"they have {', '.join(known)}" if known else "they have none: give rb.train metrics"
        )
        raise InputError("metric", f"no run recorded {metric!r}", there)
    return measure_of(runs, metric, higher_is_better)


def is_finished(run: Run, measure: Measure = _LOSS) -> bool:
    """Whether a run came to its end and has a final eval loss, or a metric."""
    return run.status == "ok" and measure.final(run) is not None


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Return the latest run of each seed, by seed, and the older ones; unknown seeds stay."""
    latest: dict[Hashable, Run] = {}
    older = []

    def time_of(run: Run) -> tuple[str, str]:
        return str(run.info.get("ended") or run.info.get("started") or ""), str(run.path)

    for run in sorted(runs, key=time_of):
        seed = parameter(run, "seed")
        place = hashable(seed) if seed is not None else ("no seed", str(run.path))
        if place in latest:
            older.append(latest[place])
        latest[place] = run
    return sorted(latest.values(), key=lambda run: sort_key(parameter(run, "seed"))), older


# ------------------------------------------------------------------------------- the baseline


def parse_baseline(text: str) -> dict[str, Any]:
    """Read ``name=value`` pairs, with spaces or commas between them; values stay text.

    >>> parse_baseline("mixer=Target, k=8,12")
    {'mixer': 'Target', 'k': '8,12'}
    """
    values = {}
    for part in re.split(r"[\s,]+(?=\w+\s*=)", text.strip()):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(
                "baseline",
                f"{text!r} is not of the form name=value",
                'write for example "mixer=Target"',
            )
        values[name.strip()] = value.strip().strip("\"'")
    return values


def _baseline_values(
    given: str | Mapping[str, Any] | None, variants: Sequence[Variant], shared: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values that make a variant the baseline.

    Parameters in `shared` may be named, but exclude no variant.
    """
    wanted = parse_baseline(given) if isinstance(given, str) else dict(given or {})
    values = {name: _match(name, value, variants, shared) for name, value in wanted.items()}
    values = {
        name: value for name, value in values.items() if variants and name in variants[0].values
    }
    if not values:
        return _usual_baseline([v for v in variants if v.runs] or list(variants))
    if not any(values.items() <= variant.values.items() for variant in variants):
        asked = ", ".join(f"{name}={setting_text(value)}" for name, value in values.items())
        raise InputError(
            "baseline", f"no run has {asked} together", "give values that one variant has"
        )
    return values


def _usual_baseline(variants: Sequence[Variant]) -> dict[str, Any]:
    if not variants:
        return {}
    if "mixer" not in variants[0].values:
        return variants[0].values
    mixers = [variant.mixer for variant in variants]
    return {"mixer": next((name for name in BASELINES if name in mixers), mixers[0])}


def _match(name: str, value: Any, variants: Sequence[Variant], shared: Mapping[str, Any]) -> Any:
    """Return the value of parameter `name` that `value` stands for, however it was written."""
    if not variants:
        return hashable(value)
    if name in variants[0].values:
        candidates = list(dict.fromkeys(variant.values[name] for variant in variants))
    elif name in shared:
        candidates = [hashable(shared[name])]
    else:
        there = ", ".join(variants[0].values) or "nothing"
        raise InputError(
            f"baseline {name}",
            "not a parameter in which these runs differ",
            f"what varies: {there}",
        )
    for candidate in candidates:
        if _same_value(name, candidate, value):
            return candidate
    raise InputError(
        f"baseline {name}",
        f"{value!r} is in none of the runs",
        f"use one of {', '.join(map(setting_text, candidates))}",
    )


def _same_value(name: str, candidate: Any, value: Any) -> bool:
    if candidate == hashable(value):
        return True
    if not isinstance(value, str):
        return False
    if name == "mixer" and isinstance(candidate, str):
        return candidate.lower() == value.lower()
    if value.replace(" ", "") in (setting_text(candidate).replace(" ", ""), str(candidate)):
        return True
    try:
        return bool(candidate == hashable(json.loads(value)))
    except ValueError:
        return False


# ------------------------------------------------------------- which means can be compared


def paired_values(
    runs: Sequence[Run], others: Sequence[Run], value: Callable[[Run], float | None]
) -> list[tuple[Run, Run, float]]:
    """Pairs of runs of the same seed and corpus, with the difference of their values."""
    pairs = []
    for run, other in pairs_by_seed(runs, others):
        ours, theirs = value(run), value(other)
        if same_corpus(run, other) and ours is not None and theirs is not None:
            pairs.append((run, other, ours - theirs))
    return pairs


@dataclass(frozen=True)
class Comparable:
    """The variants of a comparison whose mean losses, or metrics, can be compared.

    Seeds differ more than variants do: a mean over seeds 0 to 2 next to one over seed 0 alone
    would show which seeds were easy.

    `variants` have only the runs of the `seeds` that they share, where they share any; what is
    on another corpus is `left_out`, since its losses are of other texts.
    """

    comparison: Comparison
    variants: tuple[Variant, ...]
    seeds: tuple[Any, ...]
    left_out: tuple[Variant, ...] = ()

    @property
    def same_seeds(self) -> bool:
        """Whether the means of `variants` are over the same seeds."""
        return bool(self.seeds) or len(self.variants) < 2

    def value(self, variant: Variant) -> float | None:
        """Mean final eval loss per token, or metric, that can be compared with that of others.

        Over the shared seeds; without shared seeds, the mean of the baseline plus the mean
        paired difference from it, neither of which depends on which seeds were easy.
        """
        measure = self.comparison.measure
        own = next((each for each in self.variants if each.label == variant.label), None)
        if own is not None and self.same_seeds:
            return _mean(own, measure)
        base = self.comparison.baseline_of(variant)
        if base is None or base is variant:
            return _mean(variant, measure)
        gaps = [gap for _, _, gap in paired_values(variant.runs, base.runs, measure.final)]
        of_base = _mean(base, measure)
        if not gaps or of_base is None:
            return _mean(variant, measure)
        return of_base + float(np.mean(gaps))

    def cost(self, variant: Variant) -> float:
        """Return :meth:`value` such that lower is better; infinity where it is unknown."""
        return self.comparison.measure.cost(self.value(variant))


def comparable(comparison: Comparison) -> Comparable:
    """Return the variants whose mean losses can be compared, and over which seeds."""
    groups: list[list[Variant]] = []
    for variant in comparison.variants:
        fitting = (group for group in groups if all(_on_one_corpus(variant, v) for v in group))
        if (group := next(fitting, None)) is None:
            groups.append([variant])
        else:
            group.append(variant)
    largest = max(groups, key=len, default=[])  # of equally many, that of the first variant
    left_out = tuple(each for each in comparison.variants if each not in largest)
    shared = (
        set.intersection(*(_seeds_shared(largest[0], each) for each in largest))
        if largest
        else set()
    )
    if len(largest) < 2 or not shared:
        return Comparable(comparison, tuple(largest), (), left_out)
    even = tuple(with_seeds(variant, shared) for variant in largest)
    return Comparable(comparison, even, even[0].seeds, left_out)


def with_seeds(variant: Variant, seeds: set[str]) -> Variant:
    """Return a variant with only the runs of some seeds, as :func:`seed_of` writes them."""
    return replace(variant, runs=tuple(run for run in variant.runs if seed_of(run) in seeds))


def _on_one_corpus(one: Variant, other: Variant) -> bool:
    """Whether two variants had the same corpora, as far as their seeds can tell."""
    if pairs := pairs_by_seed(one.runs, other.runs):
        return any(same_corpus(*pair) for pair in pairs)
    return bool(_corpus(one.runs[0]).get("name") == _corpus(other.runs[0]).get("name"))


def _seeds_shared(one: Variant, other: Variant) -> set[str]:
    pairs = pairs_by_seed(one.runs, other.runs)
    return {seed_of(run) for run, base in pairs if same_corpus(run, base)}


def _mean(variant: Variant, measure: Measure) -> float | None:
    values = [value for run in variant.runs if (value := measure.final(run)) is not None]
    return float(np.mean(values)) if values else None


# ------------------------------------------------------------------------------- cautions


def _missing(comparison: Comparison) -> Iterator[str]:
    if comparison.unfinished:
        missing = comparison.measure.metric or "an eval loss"
        states = Counter(
            f"without {missing}" if run.status == "ok" else run.status
            for run in comparison.unfinished
        )
        each = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        lost, total = len(comparison.unfinished), len(comparison.runs)
        have = "has" if lost == 1 else "have"
        noun = comparison.measure.noun
        yield f"{lost} of {_runs(total)} {have} no final {noun} ({each}): see the table."
    if comparison.lost:
        names = ", ".join(variant.label for variant in comparison.lost)
        yield f"Nothing can be said of {names}: no run of it has finished."
    if comparison.repeated:
        n = len(comparison.repeated)
        yield f"{_runs(n)} repeated a seed of the same settings: the latest was kept."


def _runs(n: int) -> str:
    return "1 run" if n == 1 else f"{n} runs"


def _unequal_seeds(comparison: Comparison) -> Iterator[str]:
    variants = comparison.variants
    if len(variants) < 2:
        return
    counts = [len(variant.runs) for variant in variants]
    sets = {frozenset(map(seed_of, variant.runs)) for variant in variants}
    if max(counts) == 1:
        one = "One seed" if len(sets) == 1 else "One seed each, and not the same one"
        yield f"{one}: differences are not evidence of a ranking."
    elif min(counts) == 1:
        single = [variant.label for variant in variants if len(variant.runs) == 1]
        yield f"Only one seed, so no interval: {', '.join(single)}."
    lone = [variant.label for variant in variants if variant.seeds.count(None) > 1]
    if lone:
        yield f"Several runs record no seed, so none of them is paired: {', '.join(lone)}."
    if len(sets) > 1:
        if seeds := comparable(comparison).seeds:
            plural = "" if len(seeds) == 1 else "s"
            yield (
                "Variants have runs of different seeds: means are over "
                f"seed{plural} {', '.join(map(str, seeds))}, which all have; "
                "a difference is over all seeds that its two variants have."
            )
        else:
            yield (
                "No seed is in all variants: means are over different seeds. They are given as "
                "the baseline's mean plus the paired difference, where there are pairs, and "
                "rank nothing else."
            )


def _not_comparable(comparison: Comparison) -> Iterator[str]:
    pairs = [
        pair
        for variant in comparison.variants
        if (base := comparison.baseline_of(variant)) is not None and base is not variant
        for pair in pairs_by_seed(variant.runs, base.runs)
    ]
    finished = [run for variant in comparison.variants for run in variant.runs]
    if any(not same_corpus(*pair) for pair in pairs):
        yield (
            "Some runs used different corpora than the baseline's run of their seed: their "
            "losses cannot be compared and are left out of the differences."
        )
    elif any(not same_domains(*pair) for pair in pairs):
        yield "The runs used different domains: only overall losses can be compared."
    elif len({_corpus(run).get("fingerprint") for run in finished} - {None}) > 1:
        yield (
            "Corpora, or their splits, are not the same in all runs: final losses are compared "
            "within a seed only."
        )
    if any(not same_machine(*pair) for pair in pairs):
        yield (
            "Some runs were timed on another machine or device than the baseline's run of their "
            "seed: their seconds cannot be compared, and cost is given in FLOPs."
        )
    if len({loss_unit([run]) for run in finished}) > 1:
        yield f"Losses are in {loss_unit(finished)}: those in different units cannot be compared."
    elif "eval_batch_size" in comparison.varied:
        yield (
            "eval_batch_size varied: a loss in which examples of a batch meet depends on it, so "
            "losses can be compared only where it is the same."
        )
    if tokenizers := other_tokenizers(comparison):
        yield (
            f"{' and '.join(tokenizers)} varied: losses per token of different tokenizers are "
            "different units; compare those per example."
        )
    alone = [v.label for v in comparison.variants if comparison.baseline_of(v) is None]
    if alone:
        yield f"No finished baseline has the settings of {', '.join(alone)}: no difference given."


def other_tokenizers(comparison: Comparison) -> list[str]:
    """Names of the varied parameters that change what a token is, where losses are compared."""
    runs = [run for variant in comparison.variants for run in variant.runs]
    if comparison.measure.metric or all(loss_unit([run]) != PER_TOKEN for run in runs):
        return []
    return [name for name in ("model", "vocab_size") if name in comparison.varied]
