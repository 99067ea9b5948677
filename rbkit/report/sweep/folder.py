"""One launcher at a time in a sweep's folder."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

import rbkit
from rbkit.errors import InputError
from rbkit.files import read_json, sha256_of_file, write_json
from rbkit.processes import STALE, is_alive, process_identity
from rbkit.report.notebooks import read_notebook
from rbkit.report.parameters import RUN_HINTS, Declared

if TYPE_CHECKING:
    from rbkit.report.sweep.plan import Job, Plan

DIGITS = (12, 24, 64)  # of a hash, in an id: the first is enough but for one in millions of runs
_MOST = 20 * 2**30  # bytes of data that are read; of more, sizes and times have to do
_FILES = 100_000  # files of a folder or a pattern: of more, nobody means all
_NAMING_FILES = ("corpus", "embedder", "edits", "domains", "model")  # of RunParameters
_DATA = re.compile(r"(?<![^\W_])(data|corpus)(?![^\W_])", re.IGNORECASE)  # as a word of its own
_LONGEST = 60  # characters of the words of an id: folders nest, and paths have a limit


def code_sha(node: Any) -> str:
    """Hash the code of a notebook; text, outputs and what papermill injected do not count."""
    sources = [
        cell["source"].rstrip()
        for cell in node.cells
        if cell["cell_type"] == "code" and "injected-parameters" not in _tags(cell)
    ]
    return _sha(sources)


def content_of(
    template_sha: str, parameters: Mapping[str, Any], contents: Contents
) -> dict[str, Any]:
    """Return what a run is made of, in hashes.

    Returns
    -------
    dict
        ``sha`` of all of it, ``template_sha``, ``rbkit`` (major and minor version), and in
        ``data`` a hash for each parameter that names some.
    """
    made_of = {name: contents.of(name, value) for name, value in parameters.items()}
    version = ".".join(rbkit.__version__.split(".")[:2])
    data = {name: _sha(made)[:12] for name, made in made_of.items() if made != parameters[name]}
    return {
        "sha": _sha([template_sha, version, made_of]),
        "template_sha": template_sha,
        "rbkit": version,
        "data": data,
    }


def slug(varied: Mapping[str, Any], otherwise: str) -> str:
    """Return words for what varies that are safe in the name of a file.

    Examples
    --------
    >>> slug({"mixer": "RnB", "seed": 0, "k": [8, 12]}, "run")
    'mixer-RnB_seed-0_k-8-12'
    >>> slug({}, "90_run")
    '90_run'
    """
    words = "_".join(f"{name}-{_short(value)}" for name, value in varied.items())
    # A name that starts with a dot is hidden, one with a dash looks like an option.
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", words or otherwise).lstrip(".-")
    return safe[:_LONGEST].rstrip("._-") or "run"


class Contents:
    """What parameters stand for: values, and in place of the name of a file what is in it.

    Parameters
    ----------
    out : path
        Folder of the sweep: what it writes is none of its data.
    known : Declared
        The notebook's parameters.

    Attributes
    ----------
    notes : list of str
        What the user should know: folders and files that count by their names alone.
    """

    def __init__(self, out: Path, known: Declared) -> None:
        self._out, self._known = out.resolve(), known
        self._seen: dict[tuple[str, str], Any] = {}
        self._never = set(_too_large())
        self.notes: list[str] = []

    def of(self, name: str, value: Any) -> Any:
        """Return the value of a parameter with the content of what it names, as JSON.

        Examples
        --------
        >>> Contents(Path("out"), Declared({})).of("seed", 3)
        3
        """
        return self._of(name, value) if self._may_name_files(name, value) else value

    def _may_name_files(self, name: str, value: Any) -> bool:
        if self._known.is_run and name in RUN_HINTS and name not in _NAMING_FILES:
            return False
        each = self._known.parameters.get(name)
        if name == "mixer" or each is None or typing.get_origin(each.hint) is typing.Literal:
            return False
        # A word that is the default ("demo", "tiny") means what the notebook calls so, even if
        # there happens to be a file of that name.
        return not (value == each.default and re.fullmatch(r"[\w-]+", str(value)))

    def _folders_are_data(self, name: str) -> bool:
        if self._known.is_run and name in RUN_HINTS:
            return True
        return bool(_DATA.search(f"{name} {self._known.parameters[name].help}"))

    def _of(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(name, item) for item in value]
        if isinstance(value, dict):
            return {key: self._of(name, item) for key, item in value.items()}
        # "." and "/" are signs more often than folders, and folders too large to be meant.
        if not isinstance(value, str) or not re.search(r"\w", value):
            return value
        if (name, value) not in self._seen:
            try:
                self._seen[name, value] = self._read(name, value)
            except OSError as error:
                self.notes.append(
                    f"{name}: {value} cannot be read ({error.strerror}), and counts by its name"
                )
                self._seen[name, value] = value
        return self._seen[name, value]

    def _read(self, name: str, value: str) -> Any:
        try:
            path = Path(value).expanduser()
            there = path.exists()
        except PermissionError:
            raise
        except (OSError, ValueError, RuntimeError):  # too long, or with a zero in it: a text
            return value
        if there:
            return self._content(name, path, value)
        if glob.has_magic(value) and "\0" not in value:
            found = sorted(islice(glob.iglob(str(path), recursive=True), _FILES + 1))
            if len(found) > _FILES:
                return self._by_name(name, value, f"finds more than {_FILES:,} files")
            made = [self._content(name, Path(each), None) for each in found]
            if files := [each for each in made if each is not None]:
                return {"files": files}
        return value

    def _content(self, name: str, path: Path, otherwise: str | None) -> Any:
        # The name does not count, but its endings do: they say how a file is read.
        if path.is_file():
            return {"file": _digests([path])[0], "ending": "".join(path.suffixes[-2:])}
        if not path.is_dir() or path.resolve() in self._never:
            return otherwise  # also a device, a pipe: nothing to be read
        if not self._folders_are_data(name):
            if otherwise is not None:
                said = f'if it is data, write "data" into the comment of {name}'
                self._by_name(name, otherwise, f"is a folder; {said}")
            return otherwise
        names = list(islice(self._walk(path), _FILES + 1))
        if len(names) > _FILES:
            return self._by_name(name, otherwise or str(path), f"holds more than {_FILES:,} files")
        digests = _digests([path / each for each in names])
        return {"folder": _sha([list(pair) for pair in zip(names, digests, strict=True)])}

    def _by_name(self, name: str, value: str, why: str) -> str:
        self.notes.append(f"{name}: {value} counts by its name: it {why}")
        return value

    def _walk(self, folder: Path) -> Iterator[str]:
        for where, folders, files in os.walk(folder, onerror=_raise):
            here = Path(where)
            folders[:] = sorted(
                name
                for name in folders
                if name not in ("__pycache__", ".ipynb_checkpoints", ".git")
                and (here / name).resolve() != self._out
            )
            for name in sorted(files):
                if (here / name).is_file():
                    yield (here / name).relative_to(folder).as_posix()


def _too_large() -> Iterator[Path]:
    """Folders that are named as places, never as data."""
    for place in ("/", "/tmp", "/var/tmp", tempfile.gettempdir()):
        yield Path(place).resolve()
    with suppress(RuntimeError):  # nobody's home
        yield Path.home().resolve()


def _raise(error: OSError) -> None:
    raise error


def _digests(paths: list[Path]) -> list[str]:
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) > _MOST:
        return [
            f"{size} {path.stat().st_mtime_ns}" for path, size in zip(paths, sizes, strict=True)
        ]
    from tqdm import tqdm

    bar = tqdm(total=sum(sizes), desc="data", unit="B", unit_scale=True, delay=2, leave=False)
    found = []
    with bar:
        for path, size in zip(paths, sizes, strict=True):
            found.append(sha256_of_file(path))
            bar.update(size)
    return found


def _tags(cell: Any) -> Any:
    return cell.get("metadata", {}).get("tags", [])


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(f"{name}-{_short(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return "-".join(map(_short, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return Path(text).stem if "/" in text or os.sep in text else text


def _sha(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


JOB_FORMAT = "rbkit-job/1"
JOB_FILE = "job.json"
STATUSES = ("queued", "running", "ok", "failed", "killed", "timeout", "interrupted")
_AT_WORK = 30.0  # a launcher that is at work gives a heartbeat every few seconds

# What a reader may rely on. The file may come from a stranger: everything else is refused.
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "template": (str,),
    "parameters": (dict,),
    "given": (dict,),
    "varied": (dict,),
    "content": (dict,),
    "status": (str,),
    "attempts": (int,),
    "worker": (dict, type(None)),
    "kernel": (dict, type(None)),
    "launcher": (dict, type(None)),
    "host": (str, type(None)),
    "gpu": (str, int, type(None)),
    "threads": (int, type(None)),
    "queued": (str, type(None)),
    "started": (str, type(None)),
    "heartbeat": (str, type(None)),
    "ended": (str, type(None)),
    "seconds": (int, float, type(None)),
    "error": (str, type(None)),
    "cell": (str, type(None)),
    "tail": (list,),
    "command": (str,),
}
# Not there in files of the first versions.
_ADDED: dict[str, Any] = {"launcher": None, "given": {}, "content": {}}

_launching = 0  # launchers at work in this process


def now() -> str:
    """Return the time as ISO 8601 text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_job(
    id: str,
    template: str,
    parameters: Mapping[str, Any],
    varied: Mapping[str, Any],
    command: str = "",
    content: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a job that waits for its turn.

    Examples
    --------
    >>> job = new_job("seed-0-1a2b3c4d5e6f", "run.ipynb", {"seed": 0}, {"seed": 0})
    >>> job_status(job), job["attempts"]
    ('queued', 0)
    """
    return {
        "format": JOB_FORMAT,
        "id": id,
        "template": template,
        "parameters": dict(parameters),
        "given": dict(varied if given is None else given),
        "varied": dict(varied),
        "content": dict(content or {}),
        "status": "queued",
        "attempts": 0,
        "worker": None,
        "kernel": None,
        "launcher": None,
        "host": None,
        "gpu": None,
        "threads": None,
        "queued": now(),
        "started": None,
        "heartbeat": None,
        "ended": None,
        "seconds": None,
        "error": None,
        "cell": None,
        "tail": [],
        "command": command,
    }


def read_job(path: str | Path) -> dict[str, Any]:
    """Read the ``job.json`` of the run folder `path`.

    Raises
    ------
    InputError
        There is none, it is broken, or it is no job.
    """
    path = Path(path) / JOB_FILE
    if not path.is_file():
        raise InputError(str(path), "no such file", "give the folder of a run of a sweep")
    try:
        job = read_json(path)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error})", "check its permissions") from error
    if not isinstance(job, dict) or job.get("format") != JOB_FORMAT:
        found = job.get("format") if isinstance(job, dict) else type(job).__name__
        raise InputError(
            str(path), f"format {found!r} instead of {JOB_FORMAT!r}", "give a run of a sweep"
        )
    job = {**_ADDED, **job}
    for name, types in _TYPES.items():
        if name not in job or not isinstance(job[name], types):
            raise InputError(str(path), f"{name} is missing or damaged", "delete it, or run again")
    if job["status"] not in STATUSES:
        raise InputError(
            str(path), f"unknown status {job['status']!r}", f"known are {', '.join(STATUSES)}"
        )
    return job


def write_job(path: str | Path, job: Mapping[str, Any]) -> None:
    """Write `job` as ``job.json`` of the run folder `path`, whole or not at all."""
    write_json(Path(path) / JOB_FILE, {**job, "tail": list(job["tail"])[-30:]})


def update_job(path: str | Path, **changes: Any) -> dict[str, Any]:
    """Change some fields of the ``job.json`` in the run folder `path`; return the job."""
    if unknown := set(changes) - set(_TYPES):
        raise KeyError(", ".join(sorted(unknown)))
    job = {**read_job(path), **changes}
    write_job(path, job)
    return job


def job_status(job: Mapping[str, Any]) -> str:
    """Return how a job stands, which is not always what it says.

    A job that says it is running, but whose worker is gone, was killed. On the machine
    where it runs that is seen at once; from elsewhere, by a heartbeat older than 120 s.

    Examples
    --------
    >>> job = new_job("seed-0-1a2b3c4d5e6f", "run.ipynb", {}, {})
    >>> here = {"host": platform.node(), "worker": process_identity()}
    >>> job_status({**job, "status": "running", **here})
    'running'
    >>> here["worker"] = {"pid": os.getpid(), "born": 0.0}  # somebody else had that number
    >>> job_status({**job, "status": "running", **here})
    'killed'
    """
    status = str(job["status"])
    if status != "running":
        return status
    if job.get("host") == platform.node():
        # A worker ends a moment before the launcher has written how: while that one is at work,
        # it will.
        return "running" if is_alive(job.get("worker")) or _is_at_work(job) else "killed"
    return "running" if seconds_since(job.get("heartbeat")) < STALE else "killed"


@contextmanager
def launching() -> Iterator[None]:
    """Say that a launcher is at work in this process while the block runs."""
    global _launching
    _launching += 1
    try:
        yield
    finally:
        _launching -= 1


def _is_at_work(job: Mapping[str, Any]) -> bool:
    launcher = job.get("launcher")
    if not launcher or not is_alive(launcher):
        return False
    if launcher["pid"] == os.getpid():  # a notebook, say, which lives on when its sweep has ended
        return _launching > 0
    return seconds_since(job.get("heartbeat")) < _AT_WORK


def tail_of(lines: Sequence[str] | str, count: int = 30) -> list[str]:
    """Return the last lines of an error, without colours and other control characters."""
    from rbkit.text import one_line

    lines = lines.splitlines() if isinstance(lines, str) else lines
    return [one_line(line) for line in lines][-count:]


def seconds_since(time: Any) -> float:
    """Return the seconds since an ISO time; infinity if it is none."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(time))).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return float("inf")


def replaced(plan: Plan, info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of earlier runs that planned ones replace, with what has changed since.

    With the same code, the same parameters make the same run. With other code the cell of
    parameters may have changed: then it is those that were set, or those that both versions
    know, while the new ones have their defaults.

    Parameters
    ----------
    plan : Plan
    info : dict
        ``sweep.json`` of the folder.
    """
    planned = _Planned(plan)
    ids = {job.id for job in plan.jobs}
    found = {}
    for id in info["jobs"]:
        if id in ids:
            continue
        try:
            before = read_job(plan.out / "runs" / id)
        except InputError:
            continue  # nothing of it is there
        before["content"] = {"template_sha": info["template_sha"], **before["content"]}
        job = planned.instead_of(before)
        if job is not None:
            found[id] = _changes(before["content"], job.content)
    return found


class _Planned:
    """The runs of a plan, found by parameters."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._by_all = {_key(job.parameters): job for job in plan.jobs}
        self._by_given = {_key(job.given): job for job in plan.jobs}
        self._by_common: dict[frozenset[str], dict[str, Job]] = {}

    def instead_of(self, before: Mapping[str, Any]) -> Job | None:
        all_, given = before["parameters"], before["given"]
        same = self._by_all.get(_key(all_))
        if same is not None or before["content"]["template_sha"] == self._plan.template_sha:
            return same
        # Files of the first versions do not say what was given.
        same = self._by_given.get(_key(given)) if given or not all_ else None
        if same is not None:
            return same
        names = frozenset(all_)
        if names not in self._by_common:
            self._by_common[names] = self._common(names)
        common = {name: value for name, value in all_.items() if name in self._plan.known}
        return self._by_common[names].get(_key(common))

    def _common(self, names: frozenset[str]) -> dict[str, Job]:
        defaults = self._plan.known.defaults
        found = {}
        for job in self._plan.jobs:
            new = {n: value for n, value in job.parameters.items() if n not in names}
            if all(name in defaults and value == defaults[name] for name, value in new.items()):
                old = {n: value for n, value in job.parameters.items() if n in names}
                found[_key(old)] = job
        return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if before.get("template_sha") != now.get("template_sha"):
        found.append("the notebook's code")
    if before.get("rbkit", now.get("rbkit")) != now.get("rbkit"):
        found.append("rbkit's version")
    was, is_ = before.get("data"), now.get("data", {})
    if isinstance(was, dict):
        found += [f"the data of {n}" for n in sorted({*was, *is_}) if was.get(n) != is_.get(n)]
    return found


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


SWEEP_FORMAT = "rbkit-sweep/1"
SWEEP_FILE = "sweep.json"
_sweepfile_TYPES: dict[str, type] = {
    "template": str,
    "template_sha": str,
    "grid": dict,
    "parameters": dict,
    "command": str,
    "calls": list,
    "jobs": list,
    "superseded": list,
    "machine": dict,
    "versions": dict,
}


def read_sweep(out: str | Path) -> dict[str, Any]:
    """Return the ``sweep.json`` of the folder `out`.

    Raises
    ------
    InputError
        There is none, it is broken, or it is no sweep.
    """
    path = Path(out) / SWEEP_FILE
    if not path.is_file():
        raise InputError(str(out), f"no {SWEEP_FILE} there", "give the folder of a sweep")
    info = read_json(path)
    if not isinstance(info, dict) or info.get("format") != SWEEP_FORMAT:
        raise InputError(
            str(path), f"not of the format {SWEEP_FORMAT!r}", "give a folder of rbkit's"
        )
    for name, kind in _sweepfile_TYPES.items():
        if not isinstance(info.get(name), kind):
            raise InputError(str(path), f"{name} is missing or damaged", "repair it")
    # A run's folder is runs/<id>: an id with a path in it would lead elsewhere.
    for id in (*info["jobs"], *info["superseded"]):
        if not isinstance(id, str) or id in ("", ".", "..") or set(id) & set("/\\\0"):
            raise InputError(str(path), f"{id!r} is no id of a run", "repair it")
    return info


def launcher_of(out: str | Path, info: Mapping[str, Any]) -> str | None:
    """Say who works on the sweep: ``process 12`` or ``a process on HOST``; None if nobody does.

    A process of another machine cannot be seen; its heartbeats in the runs can.
    """
    who = info.get("launcher")
    if not isinstance(who, dict):
        return None
    if who.get("host") == platform.node():
        return f"process {who.get('pid')}" if is_alive(who) else None
    if seconds_since(who.get("since")) < STALE:
        return f"a process on {who.get('host')}"
    for id in info["jobs"]:
        with suppress(InputError):
            if job_status(read_job(Path(out) / "runs" / id)) == "running":
                return f"a process on {who.get('host')}"
    return None


def check_free(plan: Plan) -> dict[str, Any] | None:
    """Return what is in the plan's folder already; refuse if it is not ours to write to."""
    out = plan.out
    if not (out / SWEEP_FILE).exists():
        return None
    info = read_sweep(out)
    if (other := _other_template(info, plan)) is not None:
        raise InputError(
            str(out), f"holds a sweep of another notebook, {other}", "give another --out"
        )
    who = launcher_of(out, info)
    if who and not _is_me(info["launcher"]):
        raise InputError(
            str(out),
            f"{who} works on this sweep",
            f"wait for it, or stop it; see: rbkit status {out}",
        )
    return info


def _other_template(info: Mapping[str, Any], plan: Plan) -> str | None:
    """Return the notebook that the folder belongs to, if it is another one than the plan's.

    One that was moved, or copied as it is, is the same.
    """
    if Path(info["template"]).stem != Path(plan.given).stem:
        return str(info["template"])
    before = info.get("template_path")
    if not isinstance(before, str) or before == str(plan.template.resolve()):
        return None
    try:
        same = not Path(before).is_file() or code_sha(read_notebook(before)) == plan.template_sha
    except (InputError, OSError, ValueError):  # no path, or no notebook any more
        same = False
    return None if same else before


def write_sweep(plan: Plan) -> None:
    """Write the file for a plan; runs of earlier calls stay in it."""
    old = check_free(plan)
    ids = [job.id for job in plan.jobs]
    call = {
        "grid": plan.grid,
        "parameters": plan.fixed,
        "options": plan.options,
        "command": plan.command,
        "cwd": os.getcwd(),
        "jobs": ids,
        "created": now(),
    }
    calls = [] if old is None else old["calls"]
    if not calls or {**calls[-1], "created": ""} != {**call, "created": ""}:
        calls = [*calls, call]
    older = [id for id in (old or {}).get("superseded", []) if id not in ids]
    older += replaced(plan, old) if old else []
    kept = [id for id in (old or {}).get("jobs", []) if id not in older]
    write_json(
        plan.out / SWEEP_FILE,
        {
            "format": SWEEP_FORMAT,
            "template": plan.given,
            "template_path": str(plan.template.resolve()),
            "template_sha": plan.template_sha,
            "grid": plan.grid,
            "parameters": plan.fixed,
            "command": plan.command,
            "calls": calls,
            "jobs": list(dict.fromkeys([*kept, *ids])),
            "superseded": older,
            "launcher": _me(),
            "rbkit": rbkit.__version__,
            "versions": _versions(),
            "machine": machine(),
            "git": git(plan.template.parent),
            "created": (old or call)["created"],
        },
    )


def ways_on(info: Mapping[str, Any], statuses: Mapping[str, str]) -> list[str]:
    """Return commands that go on with all runs that are not ok: the latest calls that have some.

    Parameters
    ----------
    info : dict
        ``sweep.json``.
    statuses : mapping of str to str
        Status of each run, by id.
    """
    left = {id for id, status in statuses.items() if status != "ok"}
    found: list[str] = []
    for call in reversed(info["calls"]):
        ids = call.get("jobs") if isinstance(call, dict) else None
        mine = left.intersection(map(str, ids)) if isinstance(ids, list) else set()
        if mine:
            left -= mine
            found.insert(0, _from_here(call))
    if left and info["command"] not in found:  # planned by calls that did not say so
        found.append(info["command"])
    return list(dict.fromkeys(found))


def _from_here(call: Mapping[str, Any]) -> str:
    command, cwd = str(call.get("command")), call.get("cwd")
    elsewhere = isinstance(cwd, str) and cwd != os.getcwd()
    return f"cd {shlex.quote(str(cwd))} && {command}" if elsewhere else command


def release(out: Path) -> None:
    """Take this process out of the file, if it is the one in it."""
    info = read_sweep(out)
    if _is_me(info.get("launcher")):
        write_json(out / SWEEP_FILE, {**info, "launcher": None})


def superseded(plan: Plan) -> dict[str, list[str]]:
    """Return ids of runs in the folder that a plan would replace, and what has changed since."""
    return replaced(plan, read_sweep(plan.out)) if (plan.out / SWEEP_FILE).exists() else {}


def known_ids(out: Path) -> dict[str, str]:
    """Return the ids of the runs that are planned in `out`, by their hash.

    The words of an id depend on what varied when it was made; the hash says what it is.
    """
    if not (out / SWEEP_FILE).exists():
        return {}
    info = read_sweep(out)
    return {id.rpartition("-")[2]: id for id in (*info["superseded"], *info["jobs"])}


def machine() -> dict[str, Any]:
    """Describe this machine: what a result's seconds depend on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpus": cpus,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": platform.platform(),
        "gpus": _lines(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], Path.cwd()),
    }


def git(folder: Path) -> dict[str, Any] | None:
    """Return the commit that `folder` is at, and whether files differ from it; None outside."""
    commit = _lines(["git", "rev-parse", "HEAD"], folder)
    if not commit:
        return None
    changed = _lines(["git", "status", "--porcelain", "--untracked-files=no"], folder)
    return {"commit": commit[0], "changed": bool(changed)}


def _lines(command: list[str], folder: Path) -> list[str]:
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def _versions() -> dict[str, str]:
    from rbkit.train.recorder import versions

    return versions()


def _me() -> dict[str, Any]:
    return {**process_identity(), "host": platform.node(), "since": now()}


def _is_me(who: Any) -> bool:
    here = (os.getpid(), platform.node())
    return isinstance(who, dict) and (who.get("pid"), who.get("host")) == here and is_alive(who)


FOLDER = ".sweep"  # what belongs to the launcher alone


@contextmanager
def sweep_lock(out: Path) -> Iterator[None]:
    """Hold the lock of the folder `out`; it is released by the death of its holder, too.

    Raises
    ------
    InputError
        Another launcher has it, or the folder cannot be written.
    """
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / FOLDER / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        who = launcher_of(out, read_sweep(out)) if (out / SWEEP_FILE).exists() else None
        raise InputError(
            str(out),
            f"{who or 'another process'} works on this sweep",
            f"wait for it, or stop it; see rbkit status {out}",
        ) from None
    except (OSError, NotImplementedError) as error:
        raise cannot_write(out, error) from error
    try:
        yield
    finally:
        lock.release()


def stops_all(out: Path, error: OSError) -> bool:
    """Whether nothing more can be written in the folder `out`, not only where `error` arose."""
    if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return True
    try:
        with tempfile.TemporaryFile(dir=out / FOLDER) as file:
            file.write(b"?")
    except OSError:
        return True
    return False


def cannot_write(out: Path, error: BaseException) -> InputError:
    """Return the error that stops a sweep whose folder takes nothing any more."""
    why = getattr(error, "strerror", None) or str(error)
    return InputError(
        str(out),
        f"cannot be written ({why})",
        "make room, or give another --out, and run the same command again: what is done stays done",
    )
