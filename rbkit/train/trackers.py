"""The watchers of a run: the live panel, and trackers (TensorBoard, trackio, wandb, mlflow, ...).

The run folder stays the truth: trackers are fed from it, so that they cannot differ from it.
They are off unless named, never detected. The classes that talk to them are those of
``accelerate``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import effective_number
from rbkit.balance.signals import noise_share
from rbkit.errors import InputError
from rbkit.files import read_json, write_json
from rbkit.train.recorder import Live, Throttle, Watcher
from rbkit.train.run import Run

DOMAINS_BY_NAME = 100  # of more domains the largest: a list of a thousand curves cannot be read
_LONGEST = 80  # characters of a name; some trackers refuse more than 250 in all
_TRAIN = {"loss": "train/loss", "lr": "train/learning_rate", "examples": "train/examples"}
_EVAL = {"loss_token": "eval/loss", "loss_example": "eval/loss_per_example"}
_EVAL["outside_token"] = "eval/loss_outside"  # of eval examples in no domain that count
_FIDELITY = {"correlation": "rb/fidelity", "tv": "rb/fidelity_distance"}


def watchers(live: Live = False, report_to: str | Sequence[str] = "none") -> list[Watcher]:
    """Return the watchers of a run: the live panel, and trackers.

    Parameters
    ----------
    live : bool, str, Watcher, or a sequence of them
        True: the live panel, in the mode that ``$RBKIT_DISPLAY`` names. ``"live"``,
        ``"batch"``, ``"final"`` or ``"off"``: in that mode. Or your own watcher.
    report_to : str or sequence of str
        Names of trackers: see :class:`TrackerWatcher`.

    Raises
    ------
    InputError
        For a mode, a tracker or an object that cannot watch.

    Examples
    --------
    >>> watchers(live=False, report_to="none")
    []
    """
    chosen: list[Watcher] = []
    for one in live if isinstance(live, list | tuple) else [live]:
        if isinstance(one, bool | str):
            if one and one != "off":
                chosen.append(_panel(None if one is True else one))
        elif isinstance(one, Watcher):
            chosen.append(one)
        else:
            raise InputError("live", f"{type(one).__name__} cannot watch", "give True or False")
    return [*chosen, *(TrackerWatcher(name) for name in tracker_names(report_to))]


def _panel(mode: str | None) -> Watcher:
    for entry in entry_points(group="rbkit.watcher", name="panel"):
        panel: Watcher = entry.load()(mode)
        return panel
    raise InputError("live", "no panel is installed", "install rbkit again: pip install -e .")


def tag_names(names: Sequence[str]) -> list[str]:
    """Names of domains as trackers take them: letters, digits, ``_``, ``-`` and ``.``.

    If two then look the same, all get their number in front.

    Examples
    --------
    >>> tag_names(["c++", "c#", "film/tv"])
    ['00_c', '01_c', '02_film_tv']
    """
    clean = list(map(_tag, names))
    if all(clean) and len(set(clean)) == len(clean):
        return clean
    return [f"{i:02d}_{name}".rstrip("_") for i, name in enumerate(clean)]


def _tag(name: Any) -> str:
    return re.sub(r"[^\w.-]+", "_", str(name or "")).strip("_")[:_LONGEST]


class TrackedValues:
    """Turn rows and rounds of a record into numbers with names.

    Parameters
    ----------
    info : mapping
        ``run.json``.

    Examples
    --------
    >>> values = TrackedValues({"domains": {"names": ["code", "film"]}})
    >>> row = {"kind": "eval", "loss_token": 3.0, "by_domain_token": [2.5, None]}
    >>> values.row(row)
    {'eval/loss': 3.0, 'eval/loss/code': 2.5, 'eval/loss_worst': 2.5}
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        domains = info.get("domains") or {}
        self.tags = tag_names([str(name) for name in domains.get("names") or []])
        size = np.asarray(domains.get("sizes") or [], dtype=np.float64)
        if len(size) != len(self.tags):
            size = np.zeros(len(self.tags))
        shown = np.argsort(-size, kind="stable")[:DOMAINS_BY_NAME]
        self._shown = np.sort(shown)

    def row(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Numbers of one line of ``metrics.jsonl``."""
        kind = row.get("kind")
        if kind == "train":
            return _named(row, _TRAIN)
        if kind == "fidelity":
            return _named(row, _FIDELITY)
        if kind == "metric" and (name := _tag(row.get("name"))):
            by_domain = [_finite(v) for v in row.get("by_domain") or []]
            values = _named(row, {"value": f"eval/{name}"})
            return values | self._by_domain(f"eval/{name}", by_domain)
        if kind != "eval":
            return {}
        values = _named(row, _EVAL)
        by_domain = [_finite(v) for v in row.get("by_domain_token") or []]
        values |= self._by_domain("eval/loss", by_domain)
        if finite := [v for v in by_domain if v is not None]:
            values["eval/loss_worst"] = max(finite)
        return values

    def round(self, history: Mapping[str, NDArray[Any]], t: int) -> dict[str, float]:
        """Numbers of round `t`: the p that it was made of, and the Gram matrix at its end."""
        values: dict[str, float] = {}
        p = history.get("p", np.empty(0))
        if t < len(p):
            values |= self._by_domain("rb/p", [_finite(v) for v in p[t]])
            if np.isfinite(p[t]).all():  # else unknown
                values["rb/effective_domains"] = effective_number(p[t])
        gram = history.get("gram", np.empty(0))
        if len(gram) == len(history["step"]):  # else their rounds are unknown
            values |= _of_gram(gram[t])
            floor = history.get("noise_floor", np.empty(0))
            if len(floor) == len(gram):
                share = noise_share(gram[t], floor[t])
                values |= {} if share is None else {"rb/noise_share": share}
        return values

    def _by_domain(self, group: str, values: Sequence[float | None]) -> dict[str, float]:
        if len(values) != len(self.tags):
            return {}
        pairs = ((self.tags[i], values[i]) for i in self._shown)
        return {f"{group}/{tag}": value for tag, value in pairs if value is not None}


def hyperparameters(info: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Parameters of a run, flat and in the types that every tracker takes.

    Examples
    --------
    >>> hyperparameters({"parameters": {"k": [8, 12], "mixer_options": {"lam": 3.0}}})
    {'k': '[8, 12]', 'mixer_options.lam': 3.0}
    """
    values = _flat(info.get("parameters") or {})
    if names := (info.get("domains") or {}).get("names"):
        values["n_domains"] = len(names)
    if rbkit := (info.get("versions") or {}).get("rbkit"):
        values["rbkit"] = str(rbkit)
    return values


def _of_gram(gram: NDArray[Any]) -> dict[str, float]:
    seen = np.isfinite(np.diagonal(gram))
    G = np.asarray(gram, dtype=np.float64)[np.ix_(seen, seen)]
    if not G.size or not np.isfinite(G).all():
        return {}
    return {"rb/gram_min_eig": float(np.linalg.eigvalsh(G)[0]), "rb/gram_trace": float(np.trace(G))}


def _named(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    pairs = ((name, _finite(row.get(key))) for key, name in names.items())
    return {name: value for name, value in pairs if value is not None}


def _finite(value: Any) -> float | None:
    finite = isinstance(value, int | float | np.number) and np.isfinite(value)
    return float(value) if finite else None


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, bool | int | float | str]:
    flat: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        elif value is not None:
            is_number = isinstance(value, bool | int | float)
            flat[f"{above}{key}"] = value if is_number else str(value)[:250]
    return flat


_SHARE = 0.01  # of the time that trackers may take before the end
_PROJECT = "rbkit"


def tracker_names(report_to: str | Sequence[str]) -> list[str]:
    """Check the names of trackers before anything runs; ``"none"`` gives none.

    Parameters
    ----------
    report_to : str or sequence of str
        Names as in ``accelerate.tracking``, e.g. ``"tensorboard"``.

    Raises
    ------
    InputError
        For a name that ``accelerate`` does not have, or a tracker that is not installed.

    Examples
    --------
    >>> tracker_names("none")
    []
    """
    asked = [report_to] if isinstance(report_to, str) else list(report_to)
    asked = list(dict.fromkeys(name for name in asked if name != "none"))
    if not asked:
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in asked:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise InputError(
                "report_to",
                f"no tracker is called {name!r}",
                f"name one of none, {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}",
            )
        if name not in installed:
            raise InputError(
                "report_to", f"{name} is not installed", f"pip install {name}, or leave it out"
            )
    return asked


class TrackerWatcher:
    """Keep a tracker up to date with a run folder while it is written.

    Per step there are ``train/loss``, ``train/learning_rate``, ``train/examples``,
    ``eval/loss`` (in the unit of the run), ``eval/loss/<domain>``, ``eval/loss_worst``,
    ``eval/loss_per_example``, ``eval/<metric>`` and ``eval/<metric>/<domain>``;
    per round, at its last step, ``rb/p/<domain>`` (the proportions
    that the round was made of), ``rb/effective_domains``, ``rb/gram_min_eig``,
    ``rb/gram_trace`` and ``rb/noise_share``. Of more than 100 domains the largest are named.

    Its files land in ``<run folder>/trackers/<name>``; trackio keeps its own, in
    ``$TRACKIO_DIR``, so that one dashboard shows all runs. A resumed run continues the same
    curves, without a step twice. Tried and read back: tensorboard, trackio, mlflow, and wandb
    offline; the others are opened as ``accelerate`` opens them.

    Parameters
    ----------
    name : str
        As for :func:`tracker_names`, which it is checked with.
    """

    def __init__(self, name: str) -> None:
        (self.name,) = tracker_names(name) or [""]
        if not self.name:
            raise InputError("report_to", "none is not a tracker", "make no watcher for it")
        self._throttle = Throttle(_SHARE, least=1.0)

    def begin(self, path: Path) -> None:
        """Open the tracker, or continue where a resumed run had stopped."""
        self._folder = Path(path) / "trackers" / self.name
        self._run = Run.follow(path)
        self._run.refresh()
        info = self._run.info
        state = self._known_state(info)
        self._done = int(state.get("step", -1))  # logged up to here by an earlier part of the run
        self._rows = self._rounds = 0  # rows and rounds read so far
        self._held: dict[int, dict[str, float]] = {}  # by step, not yet sent
        self._values = TrackedValues(info)
        id_ = state.get("id") or uuid4().hex[:8]
        self._tracker = _open(self.name, self._folder, id_)
        # The library gives mlflow's runs their names; the others take ours.
        self._id = _given_id(self._tracker) or id_
        self._started = info.get("started")
        if not state:
            self._tracker.store_init_configuration(hyperparameters(info))
        self._save_state()
        self._update()

    def look(self) -> None:
        """Send new values, seldom enough to take under a hundredth of the time."""
        if not self._throttle.due():
            return
        with self._throttle.looking():
            if self._run.refresh():
                self._update()

    def end(self) -> None:
        """Send the rest and close the tracker."""
        self._run.refresh()
        self._update(everything=True)
        self._tracker.finish()

    # --------------------------------------------------------------------- sending

    def _update(self, everything: bool = False) -> None:
        try:
            self._send(everything)
        except Exception:
            self._tracker.finish()  # this watcher will not be called again
            raise

    def _send(self, everything: bool) -> None:
        self._collect()
        # One call per step, in order: wandb drops what comes late.
        limit = float("inf") if everything else self._complete_up_to()
        ready = sorted(step for step in self._held if step <= limit)
        for step in ready:
            self._tracker.log(self._held.pop(step), step=step)
        if ready and ready[-1] > self._done:
            self._done = ready[-1]
            self._save_state()

    def _collect(self) -> None:
        rows, history = self._run.metrics(), self._run.history
        for row in rows[self._rows :]:
            if isinstance(step := row.get("step"), int):
                self._hold(step, self._values.row(row))
        self._rows = len(rows)
        steps = history.get("step", np.empty(0))
        for t in range(self._rounds, len(steps)):
            self._hold(int(steps[t]), self._values.round(history, t))
        self._rounds = len(steps)

    def _hold(self, step: int, values: Mapping[str, float]) -> None:
        if values and step > self._done:
            self._held.setdefault(step, {}).update(values)

    def _complete_up_to(self) -> float:
        """Return the last step of which nothing is missing: rounds are written after rows."""
        info, steps = self._run.info, self._run.history.get("step", np.empty(0))
        last = int(steps[-1]) if len(steps) else 0
        length = (info.get("parameters") or {}).get("round_steps")
        if isinstance(length, int):
            return last + length - 1
        if len(steps) < int(info.get("rounds") or 0):
            return last  # history.npz is behind
        # Rounds of a custom loop end at any time: nothing is known after the heartbeat.
        return max(last, int((info.get("progress") or {}).get("step") or 0))

    # ----------------------------------------------------------------------- state

    def _known_state(self, info: Mapping[str, Any]) -> dict[str, Any]:
        path = self._folder / "state.json"
        if not path.exists():
            return {}
        state: dict[str, Any] = read_json(path)
        if info.get("resumed") and state.get("started") == info.get("started"):
            return state
        shutil.rmtree(self._folder)  # of another run that was here, whose record is gone too
        return {}

    def _save_state(self) -> None:
        state = {"started": self._started, "step": self._done, "id": self._id}
        write_json(self._folder / "state.json", state)


def _open(name: str, folder: Path, id_: str) -> Any:
    """Open one of accelerate's trackers with its files in `folder`."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # its logger wants one; a trainer has made it already
    folder.mkdir(parents=True, exist_ok=True)
    run = folder.parent.parent.name
    options = _OPTIONS[name](folder, run, id_) if name in _OPTIONS else {"run_name": _PROJECT}
    make: Any = LOGGER_TYPE_TO_CLASS[name]
    tracker = make(**options)
    # Only the first process of a run records, and so has watchers.
    tracker.main_process_only = False
    tracker.start()
    return tracker


def _given_id(tracker: Any) -> str | None:
    given = getattr(getattr(tracker.tracker, "info", None), "run_id", None)
    return given if isinstance(given, str) else None


def _mlflow(folder: Path, run: str, id_: str) -> dict[str, Any]:
    mlflow: Any = import_module("mlflow")  # not among what rbkit asks for, nor its type checker

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    resumed = (folder / "state.json").exists()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    return {
        "experiment_name": name,
        "run_name": run,
        "run_id": id_ if resumed else None,
        "logging_dir": (folder / "artifacts").resolve().as_uri(),
    }


# Arguments with which each class writes into the run folder and continues the same run.
_OPTIONS: dict[str, Callable[[Path, str, str], dict[str, Any]]] = {
    "tensorboard": lambda folder, run, id_: {
        "run_name": folder.name,
        "logging_dir": folder.parent,
    },
    "aim": lambda folder, run, id_: {"run_name": run, "logging_dir": folder},
    "dvclive": lambda folder, run, id_: {"dir": str(folder / "dvclive"), "resume": True},
    "mlflow": _mlflow,
    "swanlab": lambda folder, run, id_: {
        "run_name": _PROJECT,
        "experiment_name": run,
        "logdir": str(folder),
    },
    "trackio": lambda folder, run, id_: {
        "run_name": _PROJECT,
        "name": f"{run}-{id_}",
        "resume": "allow",
        "embed": False,
    },
    "wandb": lambda folder, run, id_: {
        "run_name": os.environ.get("WANDB_PROJECT", _PROJECT),
        "name": run,
        "id": id_,
        "dir": str(folder),
        "resume": "allow",
    },
}
