"""Which parameters tell runs apart: settings that differ, not what follows from other ones."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbkit.balance.mixers.registry import canonical_mixer
from rbkit.report.compare.apart import tell_data_apart
from rbkit.report.compare.recorded import NOT_RECORDED, completed
from rbkit.report.compare.values import frozen
from rbkit.show.facts import RunLike, mixer_of

# What a run has without it being a setting of the method: a variant's runs may differ in it.
NOT_SETTINGS = frozenset(
    {"seed", "run_dir", "resume", "profile", "domains", "micro_batch_size", "accumulate",
     "fidelity_rounds"}
)  # fmt: skip
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
        {**values, "mixer_options": {name: value for name, value in _options(values).items()
                                     if len(seen[values["mixer"], name]) > 1}}
        for values in settings
    ]  # fmt: skip


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
    beside = sorted(name for name, found in differ.items()
                    if len(found) > 1 and name not in varied and name not in _OF_A_RUN)  # fmt: skip
    return Told(values, sorted(varied, key=lambda name: (name != "mixer", name)), beside)


def _varied_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that differ, less those that follow from others."""
    seen: dict[str, set[Hashable]] = {}
    for values in settings:
        for name, value in values.items():
            seen.setdefault(name, set()).add(frozen(value))
    found = sorted(name for name, values in seen.items()
                   if len(values) > 1 and name not in NOT_SETTINGS)  # fmt: skip
    found = [name for name in found
             if not (name in _FROM_SEED and _follows(settings, name, "seed"))
             and not (name in _FROM_MIXER and _follows(settings, name, "mixer"))]  # fmt: skip
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
            lack = frozenset(i for i, values in enumerate(settings)
                             if values.get(name) == NOT_RECORDED)  # fmt: skip
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
