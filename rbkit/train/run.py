"""A run folder as an object: finished, or growing while another process writes it."""

from __future__ import annotations

import copy
import platform
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.files import own, parse_json, read_json, read_npz, regular
from rbkit.processes import STALE, has_lived_since
from rbkit.text import number as in_digits
from rbkit.text import one_line

FORMAT = "rbkit-run/1"
_MOST_METRICS = 4  # named in one line
# Units of a loss; a run that does not name its own is one of a language model.
PER_TOKEN, PER_EXAMPLE = "nats per token", "nats per example"
_REQUIRED = {"status", "parameters", "heartbeat", "pid"}  # of run.json
_REPLACEABLE = ("path", "info", "history", "domains", "job")


class Run:
    """One run folder, as it was when it was opened, or followed while it grows.

    ``Run.open(path)``, or ``Run(path)``, reads a folder once and refuses one that cannot be
    read. ``Run.follow(path)`` reads one that may still be written, or not be there yet, and
    :meth:`refresh` brings it up to date. :meth:`with_` makes a run that differs in part.

    Parameters
    ----------
    path : path
        The folder.

    Attributes
    ----------
    path : Path
        The folder.
    info : dict
        ``run.json``; empty in a followed folder before the run has begun.
    history : dict of str to ndarray
        Arrays of ``history.npz``; empty before the first round has ended.
    domains : Domains or None
        The :class:`~rbkit.regroup.domains.Domains` the run trained on, if it saved them.
    job : dict
        ``job.json`` of a run made by a sweep; empty for one made by hand.

    Raises
    ------
    InputError
        If there is no run in the folder, or ``run.json`` cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder
    >>> folder = tempfile.mkdtemp()
    >>> run, recorder = Run.follow(folder), Recorder(folder)
    >>> run.refresh(), run.status
    (False, 'waiting')
    >>> recorder.start(parameters={})
    >>> recorder.log({"kind": "train", "step": 10, "loss": 5.2})
    >>> run.refresh(), run.refresh(), run.status
    (True, False, 'running')
    >>> run.metrics("train")
    [{'kind': 'train', 'step': 10, 'loss': 5.2}]
    >>> run.with_(metrics=[], status="ok", path=Path("reports/first"))
    Run('reports/first', first, ok, step 0; next: rb.scrub('reports/first'))
    """

    info: dict[str, Any]

    def __init__(self, path: str | Path) -> None:
        self._begin(regular(path, or_folder=True))
        if not own(self.path, "run.json").is_file():
            raise InputError(str(path), "no run.json there", "give the folder of a run")
        self.info = _read_info(self.path / "run.json")

    def _begin(self, path: str | Path) -> None:
        # A view may have another path than the folder that it is read from.
        self.path = self._folder = Path(path)
        self.info = {}
        self._rows: dict[str, list[dict[str, Any]] | _GrowingLines] = {}
        self._rows_of_kind: Callable[[str | None], list[dict[str, Any]]] | None = None  # of a view
        self._status: str | None = None  # of a view
        self._name: str | None = None
        self._stamps: dict[str, tuple[int, ...] | None] | None = None  # if followed
        self._last_status = "waiting"

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open the run folder `path`; :class:`InputError` if it cannot be read."""
        return cls(path)

    @classmethod
    def follow(cls, path: str | Path) -> Run:
        """Follow the run folder `path`, which need not be there yet; see :meth:`refresh`.

        Nothing that a writer may leave half done raises: what is missing or incomplete is
        not there yet.
        """
        run = cls.__new__(cls)
        run._begin(path)
        run.history = {}
        run._rows = {
            name: _GrowingLines(run.path, f"{name}.jsonl") for name in ("metrics", "timings")
        }
        run._stamps = {}
        return run

    def refresh(self) -> bool:
        """Read what is new in a followed folder; return whether anything is.

        A run that was opened, and a view, stay as they are: nothing is ever new.
        """
        if self._stamps is None:
            return False
        new = self._refresh_info()
        for lines in self._rows.values():
            assert isinstance(lines, _GrowingLines)
            new |= lines.read()
        new |= self._refresh_history()
        self.__dict__.pop("job", None)
        before, self._last_status = self._last_status, self.status  # a killed run writes nothing
        return new or before != self._last_status

    def with_(self, **changes: Any) -> Run:
        """Return a view: the same run with something replaced.

        Parameters
        ----------
        **changes
            `path`, `info`, `history`, `metrics` (list of all rows, or a function that returns
            those of a kind), `timings` (list), `domains`, `job`, `status` or `name`.
            Everything else is that of this run.
            Without `status`, the status follows from `info`.
        """
        view = copy.copy(self)
        view._stamps = None
        view._rows = {  # what is read later is not the view's
            name: list(rows.rows) if isinstance(rows, _GrowingLines) else rows
            for name, rows in self._rows.items()
        }
        for name, value in changes.items():
            if name == "metrics" and callable(value):
                view._rows_of_kind = value
            elif name in ("metrics", "timings"):
                view._rows[name] = list(value)
                view._rows_of_kind = None if name == "metrics" else view._rows_of_kind
            elif name in ("status", "name"):
                setattr(view, f"_{name}", str(value))
            elif name in _REPLACEABLE:
                setattr(view, name, value)
            else:
                raise TypeError(f"a run has no {name!r} that could be replaced")
        return view

    @property
    def name(self) -> str:
        """Mixer of the run, or the folder's name."""
        mixer = (self.info.get("parameters") or {}).get("mixer")
        return self._name or one_line(str(mixer or self.path.name))

    @property
    def loss_unit(self) -> str:
        """What the losses are measured in, such as ``nats per token``; safe to show."""
        unit = re.sub(r"[^\w ./()-]", "", str(self.info.get("loss_unit") or ""))
        return unit[:40].strip() or PER_TOKEN

    @property
    def status(self) -> str:
        """``waiting``, ``running``, ``ok``, ``failed``, ``interrupted`` or ``killed``.

        A run that is recorded as running but whose process is gone, or whose heartbeat is
        stale, was killed: a dead process cannot write that itself. A followed run is waiting
        until it has begun.
        """
        if self._status is not None:
            return self._status
        return status_of(self.info) if self.info else "waiting"

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Rows of ``metrics.jsonl``, of one `kind` (``train``, ``eval``, ``metric``) if given."""
        if self._rows_of_kind is not None:
            return self._rows_of_kind(kind)
        rows = self._all_rows("metrics")
        if isinstance(rows, _GrowingLines):
            return rows.rows if kind is None else rows.by_kind[kind]
        return [row for row in rows if kind is None or row.get("kind") == kind]

    def timings(self) -> list[dict[str, Any]]:
        """Rows of ``timings.jsonl``: seconds since the start, by kind and step."""
        rows = self._all_rows("timings")
        return rows.rows if isinstance(rows, _GrowingLines) else rows

    def mixture(self, at: int | str = "last") -> dict[str, float]:
        """Return the proportions of the run, by the names of its domains.

        A mixture that another training run can take: ``rb.Fixed(run.mixture())``,
        :func:`rbkit.regroup.add_weights`, or a library of your own.

        Parameters
        ----------
        at : {"last", "mean"} or int
            Those that the run has come to; their mean over the steps, so that each domain has
            its share of all that was drawn (or, where the mixer weighs losses, of the loss); or
            those in force in a round, numbered from 0.

        Raises
        ------
        InputError
            No round has ended, there is no such round, or its proportions or the names of the
            domains were not recorded.

        Examples
        --------
        >>> import tempfile
        >>> from rbkit.train import Recorder
        >>> recorder = Recorder(tempfile.mkdtemp())
        >>> recorder.start(parameters={}, domains={"names": ["wiki", "code"]})
        >>> recorder.arrays["p"] = [np.array([0.5, 0.5])]
        >>> recorder.round(step=10, p=np.array([0.25, 0.75]), estimate=None)
        >>> run = Run.open(recorder.path)
        >>> run.mixture(), run.mixture(0)
        ({'wiki': 0.25, 'code': 0.75}, {'wiki': 0.5, 'code': 0.5})
        """
        where, step = str(self.path), np.asarray(self.history.get("step", ()))
        rounds, p = len(step), np.asarray(self.history.get("p", ()), dtype=np.float64)
        if not rounds:
            raise InputError(where, "no finished round recorded", "wait for the end of the first")
        names = [str(name) for name in (self.info.get("domains") or {}).get("names") or ()]
        if len(set(names)) != p.shape[1]:
            what = f"{len(set(names))} different names recorded for {p.shape[1]} domains"
            raise InputError(where, what, "give each domain its own name")
        if at == "mean":
            lengths = np.maximum(np.diff(step, prepend=0), 0)
            shares = lengths @ p[:rounds] / max(1, lengths.sum())
        elif at == "last":
            shares = p[-1]
        else:
            remedy = f'give "last", "mean" or a round from 0 to {len(p) - 1}'
            shares = p[as_count("at", at, most=len(p) - 1, remedy=remedy)]
        if not np.isfinite(shares).all():
            what = f"its proportions at {at!r} are not all recorded"
            raise InputError(where, what, "give rb.live(...) p= or sampler=, or another round")
        return dict(zip(names, shares.tolist(), strict=True))

    @cached_property
    def history(self) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays of ``history.npz``; empty if no round has ended yet."""
        return load_history(self._folder)

    @cached_property
    def domains(self) -> Any | None:
        """The run's :class:`~rbkit.regroup.domains.Domains`, or None."""
        from rbkit.regroup.domains import Domains

        folder = own(self._folder, "domains")
        return Domains.load(folder) if folder.is_dir() else None

    @cached_property
    def job(self) -> dict[str, Any]:
        """``job.json`` of a run made by a sweep; empty for one made by hand."""
        try:
            path = own(self._folder, "job.json")
            job = read_json(path) if path.exists() else {}
            if not isinstance(job, dict):
                raise InputError(str(path), "not a JSON object", "delete it, or run again")
        except (InputError, OSError):
            if self._stamps is None:
                raise
            return {}
        return job

    def _all_rows(self, name: str) -> list[dict[str, Any]] | _GrowingLines:
        # Not kept: a folder of runs has millions of rows, and most are asked for once.
        rows = self._rows.get(name)
        return _read_rows(self._folder, f"{name}.jsonl") if rows is None else rows

    def _refresh_info(self) -> bool:
        if not self._has_changed("run.json"):
            return False
        try:
            info = _read_info(own(self._folder, "run.json"))
        except (InputError, OSError):
            return False
        if _beginnings(info) != _beginnings(self.info):
            # Another run in this folder, or one resumed and cut back: read it all again.
            for lines in self._rows.values():
                assert isinstance(lines, _GrowingLines)
                lines.forget()
            assert self._stamps is not None
            self._stamps.pop("history.npz", None)
            self.history = {}
            self.__dict__.pop("domains", None)
        self.info = info
        return True

    def _refresh_history(self) -> bool:
        if not self._has_changed("history.npz"):
            return False
        try:
            self.history = load_history(self._folder)
        except (InputError, OSError):
            return False
        return True

    def _has_changed(self, name: str) -> bool:
        assert self._stamps is not None
        now = _stamp(self._folder / name)
        before, self._stamps[name] = self._stamps.get(name), now
        return now is not None and now != before

    def _facts(self) -> tuple[list[str], str]:
        """Return what the run is at a glance, and the code to continue with."""
        facts, status, path = [self.name, self.status], self.status, str(self.path)
        progress, final = (self.info.get(name) or {} for name in ("progress", "final"))
        if (step := progress.get("step")) is not None:
            steps = progress.get("steps")
            facts.append(f"step {step:,}" + ("" if steps is None else f" of {steps:,}"))
        if (loss := final.get("loss_token")) is not None:
            facts.append(f"eval loss {in_digits(loss)}")
        elif (loss := progress.get("loss")) is not None:
            facts.append(f"loss {in_digits(loss)}")
        for name, last in list((final.get("metrics") or {}).items())[:_MOST_METRICS]:
            facts.append(f"{name} {in_digits(last.get('value'))}")
        if status != "ok" and (error := self.info.get("error")):
            facts.append(str(error)[:200])
        if status in ("waiting", "running"):
            return facts, f"rb.attach({path!r})"
        if status != "ok" and self.info.get("arguments"):  # made by rb.train
            return facts, f"rb.train(..., run_dir={path!r}, resume=True)"
        return facts, f"rb.scrub({path!r})"

    def __repr__(self) -> str:
        facts, code = self._facts()
        return one_line(f"Run({str(self.path)!r}, {', '.join(facts)}; next: {code})")

    def _repr_html_(self) -> str:
        facts, code = self._facts()
        name, *rest = (escape(one_line(fact)) for fact in facts)
        path, code = (escape(one_line(text)) for text in (str(self.path), code))
        line = " · ".join((f"<b>{name}</b>", *rest))
        return f"<p>{line}<br><code>{path}</code><br>next: <code>{code}</code></p>"


def list_runs(folder: str | Path) -> list[Run]:
    """Return the runs directly inside `folder`, by time of their start.

    A folder that cannot be read is left out, with an :class:`RbkitWarning`.
    """
    runs = []
    for path in Path(folder).glob("*/run.json"):
        try:
            run = Run(path.parent)
            run.metrics(), run.history
            runs.append(run)
        except InputError as error:
            warnings.warn(f"run left out: {error}", RbkitWarning, stacklevel=2)
    return sorted(runs, key=lambda run: (str(run.info.get("started")), run.path.name))


def status_of(info: Mapping[str, Any]) -> str:
    """Status of a run by its ``run.json``, corrected where its process is gone.

    Examples
    --------
    >>> status_of({"status": "ok"})
    'ok'
    """
    status = one_line(str(info["status"]))
    if status != "running":
        return status
    beat = datetime.fromisoformat(info["heartbeat"])
    if info.get("host") == platform.node():
        alive = has_lived_since(int(info["pid"]), beat)
    else:
        alive = (datetime.now(UTC) - beat).total_seconds() < STALE
    return "running" if alive else "killed"


def load_history(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of ``history.npz``; empty if there is none."""
    path, remedy = own(folder, "history.npz"), "delete it, or run again"
    history = read_npz(path, remedy) if path.exists() else {}
    gram = history.get("gram", np.empty((0, 0, 0)))  # one of another shape is named by the views
    rest = {name: array for name, array in history.items() if name != "gram"}
    if history and not (fits_together(rest) and gram.ndim in (2, 3) and gram.dtype.kind in "fiub"):
        raise InputError(str(path), "holds arrays that do not fit each other", remedy)
    return history


def _read_info(path: Path) -> dict[str, Any]:
    """Read a ``run.json`` that has all that a status is made of."""
    info = read_json(path)
    given = info.get("format") if isinstance(info, dict) else None
    if given != FORMAT:
        raise InputError(
            str(path),
            f"format {given!r} instead of {FORMAT!r}",
            "give the folder of a run made by rbkit",
        )
    if missing := _REQUIRED - set(info):
        raise InputError(
            str(path), f"lacks {', '.join(sorted(missing))}", "repair it, or run again"
        )
    try:
        status_of(info)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            str(path), f"heartbeat or pid cannot be read ({error})", "repair it, or run again"
        ) from error
    return orderly_info(info)


def _beginnings(info: Mapping[str, Any]) -> tuple[Any, int]:
    return info.get("started"), len(info.get("resumed") or [])


def _read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = own(folder, name)
    if not path.exists():
        return []
    rows = []
    # A line without its newline is still being written: it is not there yet.
    for number, line in enumerate(regular(path).read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows += [_orderly_row(parse_json(line))] if line else []
        except _NoStep:
            continue
        except ValueError as error:
            what = f"line {number} is not a row of numbers ({error})"
            raise InputError(str(path), what, "repair it") from error
    return rows


class _GrowingLines:
    """Rows of a ``.jsonl`` file that grows, or is cut back and grows again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.forget()

    def forget(self) -> None:
        """Start from the first line again."""
        self.rows: list[dict[str, Any]] = []
        self.by_kind: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self._bytes_read, self._inode = 0, 0

    def read(self) -> bool:
        """Read the new whole lines; whether there were any, or the file was cut back."""
        stamp = _stamp(self.folder / self.name)
        if stamp is None:
            return False
        _, size, inode = stamp
        cut = bool(self.rows) and (size < self._bytes_read or inode != self._inode)
        if cut:
            self.forget()
        self._inode = inode
        if size == self._bytes_read:
            return cut
        try:
            with regular(own(self.folder, self.name)).open("rb") as file:
                file.seek(self._bytes_read)
                new = file.read()
        except (OSError, InputError):
            return cut
        whole = new[: new.rfind(b"\n") + 1]  # the rest is still being written
        self._bytes_read += len(whole)
        for line in whole.splitlines():
            try:
                row = _orderly_row(parse_json(line))
            except ValueError:
                continue  # a damaged line is no reason to lose sight of a run
            self.rows.append(row)
            self.by_kind[row.get("kind")].append(row)
        return cut or bool(whole)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced or grows; None if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


# ------------------------------------------------------------------ records put in order
#
# A run folder may be damaged, of an older version, or written by a stranger: what makes no sense
# is left out here, so that no view has to ask.

MAPPINGS: tuple[str, ...] = ("parameters", "arguments", "domains", "corpus", "ledger", "final")
MAPPINGS += ("versions", "model", "progress", "watch")
_LISTS = ("resumed", "resumed_seconds")
_LEDGER_COLUMNS = ("seconds", "flops_counted", "flops_modelled", "bytes", "calls")
_NUMBERS = ("tokens", "examples", "rows", "seconds", "lr", "value")
_BY_ROUND = ("gram", "counts", "noise_floor", "diagonal_debiased")
_EXACT = 2**53  # integers beyond are not exact as numbers of JSON, nor do they fit a table


def orderly_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``run.json`` with mappings where mappings belong, and numbers where numbers do.

    Examples
    --------
    >>> orderly_info({"status": "ok", "final": [], "progress": {"step": "many", "steps": 9}})
    {'status': 'ok', 'progress': {'steps': 9}}
    """
    kinds: dict[str, Any] = {**dict.fromkeys(MAPPINGS, dict), **dict.fromkeys(_LISTS, list)}
    made: dict[str, Any] = {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in info.items()
        if value is None or isinstance(value, kinds.get(name, object))
    }
    made |= {"seconds": _finite(made["seconds"])} if "seconds" in made else {}
    made |= {"parameters": made.get("parameters") or {}} if "parameters" in info else {}
    for name, keys in (("progress", ("step", "steps", "loss")), ("watch", ("seconds",))):
        for key in keys:
            if made.get(name) and _finite(made[name].get(key)) is None:
                made[name].pop(key, None)
    if seconds := made.get("resumed_seconds"):
        made["resumed_seconds"] = [value for value in map(_finite, seconds) if value is not None]
    if ledger := made.get("ledger"):
        entries = ledger.get("entries")
        ledger["entries"] = [
            entry
            | {"name": entry["name"][:60]}
            | {column: _finite(entry.get(column)) for column in _LEDGER_COLUMNS}
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        ]
    if domains := made.get("domains"):
        names = domains.get("names")
        domains["names"] = [str(name) for name in names] if isinstance(names, list) else []
        for name in ("q", "sizes"):  # None where they are not known
            values = domains.get(name) or []
            if not isinstance(values, list) or None in map(_finite, values):
                domains.pop(name)
    if final := made.get("final"):
        made["final"] = _orderly_values(final)
    return made


class _NoStep(ValueError):
    """A row that belongs to no step, or to no kind: it is left out."""


def _orderly_row(row: Any) -> dict[str, Any]:
    """Return a row of a ``.jsonl`` file, its losses numbers, lists of numbers, or None."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if type(step := row.get("step")) is not int or not abs(step) < _EXACT:
        raise _NoStep("its step is not a whole number")
    if not isinstance(row.get("kind"), str | None):
        raise _NoStep("its kind is not a word")
    if row.get("kind") == "metric" and not can_name_metric(row.get("name")):
        raise _NoStep("its metric has no name")
    return _orderly_values(row)


def _orderly_values(row: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith("by_domain") or name == "proportions":
            changed[name] = [_finite(v) for v in value] if isinstance(value, list) else []
        elif name.startswith("loss") or name in _NUMBERS:
            changed[name] = _finite(value)
        elif name == "metrics":  # of the final record: values by name
            changed[name] = {
                metric: _orderly_values(each)
                for metric, each in (value.items() if isinstance(value, dict) else ())
                if isinstance(each, dict) and can_name_metric(metric)
            }
    return {**row, **changed}


def _finite(value: Any) -> Any:
    """Return a finite number as it is (if huge, as a float), everything else as None."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e300:
        return None
    return value if abs(value) < _EXACT else float(value)


def can_name_metric(name: Any) -> bool:
    """Whether a metric can be called so, in files, tables and figures.

    Examples
    --------
    >>> can_name_metric("recall@5"), can_name_metric("../f1"), can_name_metric("nul")
    (True, False, False)
    """
    return isinstance(name, str) and bool(_METRIC_NAME.fullmatch(name))


# No path, no markup, and none of the names that Windows keeps for itself.
_METRIC_NAME = re.compile(
    r"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))[a-z][a-z0-9_.@-]{0,47}", re.ASCII | re.IGNORECASE
)


def fits_together(history: Mapping[str, Any]) -> bool:
    """Whether the arrays of a history are of the same rounds and the same domains."""
    p = np.asarray(history.get("p", np.empty((0, 0))))
    step = np.asarray(history.get("step", np.empty(0)))
    numbers = all(np.asarray(a).dtype.kind in "fiub" for a in history.values())
    numbers = numbers and bool((np.abs(step) < _EXACT).all())  # not where one is NaN
    if not numbers or p.ndim != 2 or step.ndim != 1 or (len(step) and len(p) < len(step)):
        return False
    m = p.shape[1]
    for name in _BY_ROUND:
        array = np.asarray(history.get(name, np.empty((0, m))))
        if len(array.shape) < 2 or set(array.shape[1:]) != {m} or len(array) > len(step):
            return False
    gram, q = np.asarray(history.get("gram", np.empty((0, m, m)))), history.get("q")
    return gram.ndim == 3 and (q is None or np.asarray(q).shape == (m,))
