"""Runs become variants: groups that differ only in their seed, beside a baseline.

Whatever parameter differs among the runs tells variants apart. Runs without a final loss
(failed, killed, still running) are kept apart and counted, never averaged in or forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rbkit.balance.mixers.registry import canonical_mixer
from rbkit.report.compare.baseline import BASELINES, choose_baseline
from rbkit.report.compare.settings import tell_apart
from rbkit.report.compare.values import Key, frozen, label, labels, order
from rbkit.show.facts import RunLike, losses, mixer_of, parameter


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
        close = [other for other in self.variants
                 if all(other.values[name] == value for name, value in wanted.items())]  # fmt: skip
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
        from rbkit.report.compare.cautions import cautions_of

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
    whole = [{**values, "mixer_options": parameter(run, "mixer_options")}
             if "mixer_options" in values else values
             for run, values in zip(runs, settings, strict=True)]  # fmt: skip
    every = sorted({name for values in whole for name in values} - {*varied, *told.beside})
    shared = {name: next(v[name] for v in whole if name in v) for name in every
              if len({frozen(v[name]) for v in whole if name in v}) == 1}  # fmt: skip
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
