r"""What could any mixing rule still gain? Short continued runs from a checkpoint answer it.

From one checkpoint, with its optimizer state and the sampler's place in the data, training
continues for a few steps on the mixture p in force, and on mixtures that differ from it by a
step in one log-share, :math:`p' \propto p \exp(\delta e_i)`. The learning rate is annealed to 0:
without that, the losses of so few steps are noise. Each fork is made on two or more streams, the
next stretches of the run's own sequence of examples, which all mixtures share. The *gain* of a
fork is how much lower its eval loss ends than that of p on the same stream; how far the streams
agree is its reliability. At last the gains are added up to a direction, and that is tried on
streams of its own, so that it is not chosen by the noise that it is judged by.

Before one adopts a rule, this is what it could gain at best; and it shows which cheap score (q,
Gq, loss slope) would have pointed there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.modeling_utils import load_state_dict

from rbkit.balance.mixers.base import tilt
from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.sampler import MixtureSampler
from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError, as_count, as_number
from rbkit.files import read_json, write_json
from rbkit.regroup.domains import Domains
from rbkit.regroup.weights import Shares, proportions_of
from rbkit.text import progress_bar
from rbkit.train.checkpoint import check_checkpoint, complete_checkpoints
from rbkit.train.models import PRESETS, load_tokenizer
from rbkit.train.propose.runs import check_options, cost_of, train_once
from rbkit.train.run import Run

FORMAT = "rbkit-headroom/1"
_OF_THE_RUN = (  # options of the run that its forks keep
    *("model", "vocab_size", "trainable_layers", "batch_size", "accumulate", "context"),
    *("completion_only_loss", "training_args", "seed"),
)
_ANNEALED = {"lr_scheduler_type": "linear", "warmup_steps": 0}
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Headroom:
    """The result of :func:`headroom`: gains by direction, and what they are worth.

    Attributes
    ----------
    names : tuple of n str
        Names of the directions: by default the domains with training data.
    p : ndarray of shape (m,)
        Mixture that all gains are relative to.
    mixtures : ndarray of shape (n, m)
        What was trained on.
    gains : ndarray of shape (n, streams)
        How much lower the eval loss ended than on `p`, in the unit of the loss; paired by stream.
    combined : ndarray of shape (m,)
        Mixture that the mean gains add up to, at most `shift` from `p` in any log-share.
    combined_gains : ndarray of shape (streams,)
        Its gains, on streams of its own.
    scores : dict of str to ndarray of shape (n,)
        Cheap scores at the checkpoint, for directions that are domains; NaN for others.
    shift : float
        Step in log-share.
    steps, step : int
        Steps of each fork; step of the checkpoint.
    worth : float
        Gain below which mixing is not worth the trouble.
    at_target : bool
        Whether `p` is the target, q.
    cost : dict
        ``runs``, ``flops`` and ``seconds`` of all forks, by their own ledgers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = Headroom(("a", "b", "c", "d"), np.full(4, .25), np.eye(4),
    ...     np.array([[.010, .012], [.000, .001], [-.010, -.011], [.000, .002]]), np.full(4, .25),
    ...     np.array([.011, .012]), {"q": np.array([.4, .3, .2, .1])}, .5, 40, 200, .002, True, {})
    >>> print(found.verdict)
    a mixture within 0.5 in log-share of p = q gains 0.0115 ± 0.0023 (streams agree: r = 1.00): \
it pays to read more of a, less of c
    >>> round(found.correlations["q"]["with_gain"], 2)
    0.4
    """

    names: tuple[str, ...]
    p: FloatArray
    mixtures: FloatArray
    gains: FloatArray
    combined: FloatArray
    combined_gains: FloatArray
    scores: dict[str, FloatArray]
    shift: float
    steps: int
    step: int
    worth: float
    at_target: bool
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> FloatArray:
        """Mean gain of each direction over streams, (n,)."""
        return np.asarray(self.gains.mean(axis=1))

    @property
    def reliability(self) -> float | None:
        """Mean correlation of the gains of two streams, over directions; None below three."""
        if len(self.names) < 3 or (np.ptp(self.gains, axis=0) == 0).any():
            return None
        among = np.asarray(np.corrcoef(self.gains.T))
        return float(among[np.triu_indices(len(among), 1)].mean())

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of a mean gain, from how far the streams differ."""
        own = self.gains - self.gains.mean(axis=0) - (self.gain - self.gain.mean())[:, None]
        n, streams = self.gains.shape
        freedom = max(1, (n - 1) * (streams - 1))
        deviation = np.sqrt((own**2).sum() / freedom)
        return float(stats.t.ppf((1 + _LEVEL) / 2, freedom) * deviation / np.sqrt(streams))

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row for each direction, the best first: ``name``, ``gain``, ``gains``, scores."""
        rows = [
            {
                "name": name,
                "gain": float(self.gain[i]),
                "gains": self.gains[i].tolist(),
                **{score: float(values[i]) for score, values in self.scores.items()},
            }
            for i, name in enumerate(self.names)
        ]
        return sorted(rows, key=lambda row: -row["gain"])

    @property
    def correlations(self) -> dict[str, dict[str, Any]]:
        """Rank correlation of each score with the gain: as it is, and given q."""
        return {
            name: {
                "with_gain": _rank_correlation(values, self.gain),
                "given_q": None
                if name == "q"
                else _rank_correlation(values, self.gain, self.scores["q"]),
            }
            for name, values in self.scores.items()
        }

    @property
    def verdict(self) -> str:
        """What could be gained, in a sentence."""
        prior = "p = q" if self.at_target else "p"
        r = self.reliability
        agree = "how far streams agree is unknown" if r is None else f"streams agree: r = {r:.2f}"
        found, half = float(self.combined_gains.mean()), self.half_width
        within = f"within {self.shift:g} in log-share of {prior}"
        if found - half > self.worth:
            ranked = np.argsort(-self.gain)
            clear = [i for i in ranked if abs(self.gain[i]) > half]
            more = ", ".join(self.names[i] for i in clear[:3] if self.gain[i] > 0)
            less = ", ".join(self.names[i] for i in clear[::-1][:3] if self.gain[i] < 0)
            what = ", ".join(
                f"{verb} of {names}" for verb, names in (("more", more), ("less", less)) if names
            )
            return f"a mixture {within} gains {found:.4f} ± {half:.4f} ({agree})" + (
                f": it pays to read {what}" if what else ""
            )
        if found + half <= self.worth:
            return (
                f"no mixture {within} was found that gains more than {self.worth:g} "
                f"({found:+.4f} ± {half:.4f}; {agree}): keep {prior}"
            )
        return (
            f"what a mixture {within} gains is not known well enough: {found:+.4f} ± {half:.4f} "
            f"({agree}); try more steps or streams"
        )

    def __repr__(self) -> str:
        n, streams = self.gains.shape
        return f"Headroom({n} directions, {streams} streams: {self.verdict})"

    def save(self, path: str | Path) -> Path:
        """Write the result as JSON, atomically; return the path."""
        values = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }
        values["scores"] = {
            name: [None if np.isnan(x) else float(x) for x in score]
            for name, score in self.scores.items()
        }
        write_json(path, {"format": FORMAT, "verdict": self.verdict, **values})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Headroom:
        """Read a result; :class:`InputError` if the file does not hold one."""
        values = read_json(path)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise InputError(str(path), f"not in the format {FORMAT!r}", "measure it again")
        try:
            values.pop("verdict")
            for name in ("p", "mixtures", "gains", "combined", "combined_gains"):
                values[name] = np.array(values[name], dtype=np.float64)
            values["scores"] = {k: np.array(v, dtype=float) for k, v in values["scores"].items()}
            return cls(**values | {"names": tuple(map(str, values["names"]))})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                str(path), f"not a whole result ({error})", "measure it again"
            ) from error


def headroom(
    run: Run | str | Path,
    corpus: Any,
    domains: Domains,
    *,
    run_dir: str | Path | None = None,
    checkpoint: str | Path | None = None,
    p: Shares | None = None,
    directions: Mapping[str, ArrayLike] | None = None,
    shift: float = 0.5,
    steps: int = 40,
    streams: int = 2,
    worth: float = 0.002,
    progress: bool = True,
    **train_options: Any,
) -> Headroom:
    r"""Measure what a change of the mixture gains, by short runs from a checkpoint.

    It takes ``(n + 2) * streams`` forks for n directions, each of `steps` steps and two
    evaluations: how long that is, is shown before the first one.

    Parameters
    ----------
    run : Run or path
        A run of :func:`rbkit.train.train`, finished or stopped.
    corpus, domains
        Those that it was trained on.
    run_dir : path, optional
        Holds a run folder for each fork, and ``headroom.json``; ``headroom-<step>`` in the run's
        folder by default. The same call continues where a killed one stopped.
    checkpoint : path, optional
        The newest complete one whose learning rate is not yet 0 by default.
    p : array of shape (m,), mapping of m names, or {"target", ...}, optional
        What gains are relative to, as in :func:`rbkit.regroup.proportions_of`; the proportions in
        force at the checkpoint by default. ``"target"`` is q.
    directions : mapping of names to arrays of shape (m,), optional
        Changes of the log-shares for a shift of 1; by default each domain with data alone.
    shift : float
        :math:`\delta`, the step in log-share.
    steps, streams : int
        Steps of a fork, and streams of examples that each mixture is trained on, at least 2.
    worth : float
        Gain that would be worth having, for the verdict.
    progress : bool
        Show a bar, and what it will take.
    **train_options
        Options of :func:`rbkit.train.training.train` that differ from the run's, such as `device`;
        `model` and `tokenizer` where the run had them as objects.

    Returns
    -------
    Headroom

    Raises
    ------
    InputError
        For a run without a usable checkpoint, or other data than it was trained on.
    KeyboardInterrupt
        If it was stopped; the same call continues.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    steps = as_count("steps", steps, least=1, remedy="try 40")
    streams = as_count("streams", streams, least=2, remedy="two show how far they agree")
    if not 0 < abs(as_number("shift", shift, "try 0.5")) < 5:
        raise InputError("shift", f"{shift} is no step in log-share", "try 0.5")
    fork = _Checkpoint.of(run, checkpoint)
    sampler = MixtureSampler(domains.train_labels, domains.sizes / np.sum(domains.sizes))
    sampler.load_state_dict(fork.sampler)  # which refuses other data
    prior = fork.p if p is None else proportions_of(domains, p)
    ways = _directions(directions, domains, prior)
    options = _options(run, fork, steps, train_options)
    folder = Path(run_dir) if run_dir is not None else run.path / f"headroom-{fork.step}"
    per_stream = steps * options["batch_size"] * options["accumulate"]

    mixtures = {name: tilt(prior, way, shift) for name, way in ways.items()}
    jobs = [("p", prior, s) for s in range(2 * streams)]
    jobs += [(name, each, s) for name, each in mixtures.items() for s in range(streams)]
    number = len(jobs) + streams
    if progress:
        tqdm.write(_price(run, number, steps, options))
    bar = progress_bar(total=number, desc="headroom", unit="fork", disable=not progress)
    runs: list[Run] = []

    def loss_on(name: str, shares: FloatArray, stream: int) -> float:
        start = _Fork(fork, stream * per_stream)
        place = folder / _file_name(name, list(ways)) / f"stream-{stream}"
        rule = Fixed(shares.tolist())
        made = train_once(corpus, domains, place, rule, {**options, "callbacks": [start]})
        runs.append(made)
        bar.update()
        return float(made.info["final"]["loss_token"])

    with bar:
        ended = {(name, s): loss_on(name, shares, s) for name, shares, s in jobs}
        base = np.array([ended["p", s] for s in range(2 * streams)])
        gains = np.array([[base[s] - ended[name, s] for s in range(streams)] for name in mixtures])
        mean = gains.mean(axis=1)
        toward = mean @ np.array(list(ways.values())) / max(float(np.abs(mean).max()), 1e-300)
        combined = tilt(prior, toward / max(1.0, float(np.abs(toward).max())), shift)
        late = range(streams, 2 * streams)
        combined_gains = np.array([base[s] - loss_on("combined", combined, s) for s in late])
    result = Headroom(
        tuple(ways),
        prior,
        np.array(list(mixtures.values())),
        gains,
        combined,
        combined_gains,
        _scores(run, fork, sampler, domains, list(ways), directions is None),
        float(shift),
        steps,
        fork.step,
        float(worth),
        bool(np.allclose(prior, domains.q)),
        cost_of(runs),
    )
    result.save(folder / "headroom.json")
    return result


# ------------------------------------------------------------------------ the checkpoint


@dataclass(frozen=True)
class _Checkpoint:
    """What a fork starts from."""

    path: Path
    step: int
    p: FloatArray
    sampler: dict[str, Any]
    learning_rate: float

    @classmethod
    def of(cls, run: Run, given: str | Path | None) -> _Checkpoint:
        where = run.path / "checkpoints"
        candidates = [Path(given)] if given is not None else complete_checkpoints(where)
        if not candidates:
            remedy = "train with fewer checkpoint_rounds, or give checkpoint="
            raise InputError(str(where), "no complete checkpoint", remedy)
        for path in candidates:
            state = check_checkpoint(path)
            for name in ("optimizer.pt", "scheduler.pt"):
                if not (path / name).is_file():
                    what = f"has no {name}: a fork would not continue the run"
                    raise InputError(str(path), what, "give another checkpoint")
            schedule = torch.load(path / "scheduler.pt", map_location="cpu", weights_only=True)
            rate = float(schedule["_last_lr"][0])
            if rate > 0:
                mixture = state["mixture"]
                p = np.asarray(mixture["p"], dtype=np.float64)
                return cls(path, int(state["step"]), p, mixture["sampler"], rate)
        raise InputError(
            str(candidates[0]),
            "its learning rate has come to 0: nothing more is learned from there",
            "give an earlier checkpoint=; rb.train keeps the last two, every checkpoint_rounds",
        )


class _Fork(TrainerCallback):  # type: ignore[misc]
    """Starts a run from a checkpoint: its weights, optimizer state, and place in the data.

    `skip` examples of the run's own sequence are passed over, for a stream of its own.
    """

    def __init__(self, checkpoint: _Checkpoint, skip: int) -> None:
        self._from, self._skip = checkpoint, skip
        # How a record names it, and so what a run is the same by.
        self.name_or_path = f"{checkpoint.path.name}+{skip}"

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        if state.global_step:
            return  # resumed from a checkpoint of its own
        model, optimizer = objects["model"], objects["optimizer"]
        weights: dict[str, Any] = {}
        for path in sorted(self._from.path.glob("*.safetensors")):
            weights |= load_state_dict(str(path))
        missing, unexpected = model.load_state_dict(weights, strict=False)
        tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        if unexpected or set(missing) - tied:
            names = [*unexpected, *sorted(set(missing) - tied)]
            what = f"its weights are of another model ({names[0]})"
            raise InputError(str(self._from.path), what, "give the run's own model=")
        model.tie_weights()
        saved = torch.load(
            self._from.path / "optimizer.pt", map_location=args.device, weights_only=True
        )
        optimizer = getattr(optimizer, "optimizer", optimizer)  # of accelerate's wrapper
        optimizer.load_state_dict(saved)
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate
        sampler = objects["train_dataloader"].sampler
        p = sampler.p
        sampler.load_state_dict(self._from.sampler)
        sampler.take(self._skip)  # by the proportions of the run: the same for all mixtures
        sampler.set_proportions(p)


def _options(run: Run, fork: _Checkpoint, steps: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a fork: the run's, annealed from the checkpoint's rate to 0."""
    asked = run.info.get("arguments")
    if not isinstance(asked, dict):
        raise InputError(str(run.path), "not a run of rb.train", "give one that is")
    kept = {name: asked[name] for name in _OF_THE_RUN if asked.get(name) is not None}
    mine = {
        "steps": steps,
        "round_steps": steps,
        "eval_rounds": 10**9,  # before the first step and after the last
        "checkpoint_rounds": 10**9,
        "learning_rate": fork.learning_rate,
        "save_model": False,
        "training_args": {**(kept.get("training_args") or {}), **_ANNEALED},
    }
    for name in ("callbacks", *(set(mine) - {"training_args"})):
        if name in given:
            raise InputError(name, "is set by the method", "leave it out")
    options = check_options(given, {**kept, **mine})
    saved = run.path / "model" / "tokenizer_config.json"  # else the same one is trained again
    if "tokenizer" not in options and options["model"] in PRESETS and saved.is_file():
        options["tokenizer"] = load_tokenizer(str(saved.parent))
        options.pop("vocab_size", None)
    return options


def _price(run: Run, forks: int, steps: int, options: Mapping[str, Any]) -> str:
    """Return what the forks will take, from what the run took."""
    entries = (run.info.get("ledger") or {}).get("entries", ())
    seconds = {entry["name"]: entry["seconds"] or 0.0 for entry in entries}
    made = (run.info.get("progress") or {}).get("step")
    per_step = seconds.get("step", 0.0) / max(1, made or 0)
    per_eval = seconds.get("eval", 0.0) / max(1, len(run.metrics("eval")))
    minutes = forks * (steps * per_step + 2 * per_eval) / 60
    known = f", about {max(1, round(minutes))} min" if minutes else ""
    each = f"{forks} forks of {steps} steps"
    return f"headroom: {each}, with an evaluation before and after each{known}"


# ------------------------------------------------------------------------ mixtures and scores


def _directions(
    given: Mapping[str, ArrayLike] | None, domains: Domains, p: FloatArray
) -> dict[str, FloatArray]:
    if given is None:
        return {domains.names[i]: np.eye(len(p))[i] for i in np.flatnonzero(p > 0)}
    ways = {str(name): np.asarray(way, dtype=np.float64) for name, way in given.items()}
    for name, way in ways.items():
        if way.shape != p.shape or not np.isfinite(way).all() or not way.any():
            what = f"{name!r} is not a change of {len(p)} log-shares"
            raise InputError("directions", what, "give (m,) numbers, not all 0")
    if not ways:
        raise InputError("directions", "none was given", "leave it out for all domains")
    return ways


def _file_name(name: str, names: Sequence[str]) -> str:
    """Return a folder for a direction: by its number, for names of domains may be anything."""
    return f"direction-{names.index(name):03d}" if name in names else name


def _scores(
    run: Run,
    fork: _Checkpoint,
    sampler: MixtureSampler,
    domains: Domains,
    names: Sequence[str],
    by_domain: bool,
) -> dict[str, FloatArray]:
    """Return scores at the checkpoint that cost nothing: of the directions that are domains."""
    m = domains.m
    scores = {"q": np.asarray(domains.q, dtype=np.float64), "epochs": -sampler.epochs}
    history = run.history
    at = np.flatnonzero(np.asarray(history.get("step", ())) <= fork.step)
    if len(at) and "gram" in history:
        gram = np.asarray(history["gram"])[at[-1]]
        known = np.isfinite(np.diagonal(gram))
        norms = np.sqrt(np.where(known, np.diagonal(gram), np.nan))
        scores["Gq"] = np.where(known, np.nan_to_num(gram) @ domains.q, np.nan)
        cosine = np.nan_to_num(gram / norms[:, None] / norms)
        scores["cosine"] = np.where(known, cosine @ domains.q, np.nan)
    evals = [row for row in run.metrics("eval") if row["step"] <= fork.step]
    if len(evals) > 1:
        before, after = (np.array(row["by_domain_token"], dtype=np.float64) for row in evals[-2:])
        scores["loss slope"] = before - after
    index = [domains.names.index(name) for name in names] if by_domain else []
    empty = np.full(len(names), np.nan)
    return {
        name: values[index] if by_domain else empty
        for name, values in scores.items()
        if values.shape == (m,)
    }


def _rank_correlation(
    score: FloatArray, gain: FloatArray, given: FloatArray | None = None
) -> float | None:
    """Return Spearman's correlation over known pairs, with the ranks of `given` taken out."""
    known = np.isfinite(score) & np.isfinite(gain)
    known &= np.isfinite(given) if given is not None else True
    if known.sum() < 4:
        return None
    ranks = [stats.rankdata(values[known]) for values in (score, gain)]
    if given is not None:
        by = np.column_stack([np.ones(known.sum()), stats.rankdata(given[known])])
        ranks = [rank - by @ np.linalg.lstsq(by, rank, rcond=None)[0] for rank in ranks]
    if min(np.ptp(rank) for rank in ranks) < 1e-9:
        return None
    return float(np.corrcoef(*ranks)[0, 1])
