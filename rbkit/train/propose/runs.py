"""Many small runs below one folder: made, finished, or only read.

A run that ended well with the same options is not repeated, and one that was killed continues
from its last checkpoint. So a swarm of runs survives whatever ends the process.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.signals import FloatArray
from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.files import fingerprint, read_json, write_json
from rbkit.regroup.domains import Domains
from rbkit.text import nearest, one_line, progress_bar
from rbkit.train.run import Run
from rbkit.train.training import as_recorded, train

FORMAT = "rbkit-proposal/1"
# Regroup is paid for once, whatever is proposed afterwards.
_PAID_ONCE = ("embed", "cluster")


@dataclass(frozen=True, eq=False)
class Proposal:
    """A fixed mixture that a method proposes for another training run.

    Attributes
    ----------
    p : ndarray of shape (m,), float64
        The mixture.
    method : str
        ``RegMix`` or ``MixMin``.
    domains : tuple of m str
        Names of the domains that `p` is about.
    predicted_loss : float
        What the method expects of `p`, in nats per token; of a small run, or (MixMin) of a
        mixture of the source models: not of the run that will use it.
    diagnostics : dict
        How far to trust it; JSON values.
    cost : dict
        ``runs``, and their ``flops`` and ``seconds`` by the runs' own ledgers.
    options : dict
        Options that it was made with; JSON values.

    Examples
    --------
    >>> proposal = Proposal(np.array([0.25, 0.75]), "RegMix", ("code", "prose"), 3.2)
    >>> proposal.mixer().options()
    {'p': [0.25, 0.75]}
    >>> import tempfile
    >>> path = proposal.save(tempfile.mkdtemp() + "/proposal.json")
    >>> Proposal.load(path).p
    array([0.25, 0.75])
    """

    p: FloatArray
    method: str
    domains: tuple[str, ...]
    predicted_loss: float
    diagnostics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p = np.asarray(self.p, dtype=np.float64)
        object.__setattr__(self, "p", p)
        object.__setattr__(self, "domains", tuple(self.domains))
        if p.shape != (len(self.domains),):
            raise InputError(
                "Proposal(p=...)",
                f"{p.size} shares for {len(self.domains)} domains",
                "give one per domain",
            )
        if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-6):
            raise InputError(
                "Proposal(p=...)", f"{p} is not a mixture", "give shares that sum to 1"
            )

    def mixer(self) -> Fixed:
        """Return the mixer that trains on this mixture."""
        return Fixed(self.p.tolist())

    def save(self, path: str | Path) -> Path:
        """Write the proposal as JSON, atomically; return the path."""
        values = asdict(self) | {"p": self.p.tolist(), "domains": list(self.domains)}
        write_json(path, {"format": FORMAT, **values})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Proposal:
        """Read a proposal; :class:`InputError` if the file does not hold one."""
        if not Path(path).is_file():
            raise InputError(str(path), "no such file", "give the proposal.json of a folder")
        values = read_json(path)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise InputError(str(path), f"not in the format {FORMAT!r}", "make the proposal again")
        try:
            return cls(**{**values, "p": np.array(values["p"], dtype=np.float64)})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                str(path), f"not a whole proposal ({error})", "make the proposal again"
            ) from error

    def __repr__(self) -> str:
        top = np.argsort(-self.p, kind="stable")[:3]
        shares = ", ".join(f"{one_line(self.domains[i])} {self.p[i]:.0%}" for i in top)
        return f"Proposal({self.method}, loss {self.predicted_loss:.3f}: {shares}, ...)"


def cost_of(runs: Sequence[Run]) -> dict[str, float]:
    """Add up what runs cost by their ledgers, Regroup left out."""
    entries: list[Mapping[str, Any]] = [
        entry
        for run in runs
        for entry in run.info["ledger"]["entries"]
        if entry["name"] not in _PAID_ONCE
    ]
    return {
        "runs": len(runs),
        "flops": float(sum(entry["flops_counted"] or 0 for entry in entries)),
        "seconds": float(sum(entry["seconds"] or 0 for entry in entries)),
    }


_SET_BY_METHOD = (
    *("corpus", "domains", "run_dir", "mixer"),
    *("resume", "overwrite", "record", "progress"),
)


def train_once(
    corpus: Any, domains: Domains, run_dir: str | Path, mixer: Mixer, options: Mapping[str, Any]
) -> Run:
    """Return the run of `mixer` in `run_dir`: read if it ended well, else made or continued.

    A folder with a run of something else, or one that is being trained, is an InputError; a run
    that is stopped a KeyboardInterrupt. `options` are others of :func:`train`.
    """
    run_dir = Path(run_dir)
    identity = _identity(corpus, domains, mixer, options)
    if (run_dir / "run.json").is_file():
        run = Run.open(run_dir)
        if run.info["parameters"].get("asked") != identity:
            raise InputError(
                str(run_dir),
                "holds a run with other options, corpus or domains",
                "give another folder, or the same options as before",
            )
        if run.status == "ok":
            return run
        if run.status == "running":
            raise InputError(
                str(run_dir), f"the process {run.info['pid']} is training it", "wait for its end"
            )
    run = train(
        corpus,
        domains,
        run_dir=run_dir,
        mixer=mixer,
        resume=True,
        progress=False,
        record={"parameters": {"asked": identity}},
        **options,
    )
    if run.status != "ok":
        raise KeyboardInterrupt(f"{run_dir} was stopped: the same call continues from there")
    return run


def train_all(
    corpus: Any,
    domains: Domains,
    folder: str | Path,
    mixtures: FloatArray,
    options: Mapping[str, Any],
    *,
    names: Sequence[str],
    progress: bool = True,
) -> list[Run]:
    """Train one run per row of `mixtures` (n, m), in ``folder/<name>``; return them in order."""
    runs = []
    bar = progress_bar(names, desc="small runs", unit="run", disable=not progress)
    for name, p in zip(bar, mixtures, strict=True):
        runs.append(train_once(corpus, domains, Path(folder) / name, Fixed(p.tolist()), options))
    return runs


def check_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for :func:`rbkit.train.training.train`, `given` over `defaults`.

    Examples
    --------
    >>> check_options({"setps": 10}, {})
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: setps: rbkit.train has no such option; did you mean steps?
    """
    names = [name for name in inspect.signature(train).parameters if name not in _SET_BY_METHOD]
    for name in given:
        if name in _SET_BY_METHOD:
            raise InputError(name, "is set by the method", "leave it out")
        if name not in names:
            close = nearest(name, names) or f"one of {', '.join(names)}"
            raise InputError(name, "rbkit.train has no such option", f"did you mean {close}?")
    return {**defaults, **given}


def _identity(
    corpus: Any, domains: Domains, mixer: Mixer, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a run is asked for, as JSON values."""
    labels = np.asarray(domains.train_labels), np.asarray(domains.eval_labels)
    asked = {
        "corpus": about(corpus)["fingerprint"],
        "domains": fingerprint(*(x.astype(np.int64).tobytes() for x in labels)),
        "mixer": mixer.name,
        "mixer_options": mixer.options(),
        "options": as_recorded(dict(sorted(options.items()))),
    }
    return dict(json.loads(json.dumps(asked, default=str)))  # as it will be read from run.json
