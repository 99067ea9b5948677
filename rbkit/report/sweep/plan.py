"""A plan: every run of a sweep with its id, before anything runs or is written.

A run is identified by its content: the code of the notebook, all parameters, and the data that
they name. So a second call recognises what is done, however the grid was written.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shlex
import tempfile
import typing
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import rbkit
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import sha256_of_file, write_json
from rbkit.processes import kill_group
from rbkit.report.notebooks import find_template, read_notebook
from rbkit.report.parameters import RUN_HINTS, Declared, as_text, declared
from rbkit.report.sweep.folder import (
    JOB_FILE,
    SWEEP_FILE,
    SWEEP_FORMAT,
    clear,
    is_this_process,
    job_status,
    launcher_of,
    new_job,
    now,
    read_job,
    read_sweep,
    this_launcher,
    works_already,
    write_job,
)
from rbkit.report.sweep.grid import MOST, GridLike, format_grid, parse_grid
from rbkit.report.sweep.machine import describe_machine, output_of

# The sweep decides where a run writes, and whether it continues from a checkpoint.
_SET_BY_SWEEP = {
    "run_dir": "it is set by --out",
    "resume": "it is set by --resume",
    "overwrite": "a sweep continues what is not done: see --resume",
}


@dataclass(frozen=True)
class Job:
    """One run of a plan.

    Attributes
    ----------
    id : str
        Words for what varies and a hash of the run's content: ``mixer-RnB-1a2b3c4d5e6f``.
    parameters : dict
        All parameters, checked, as JSON values; without ``run_dir`` and ``resume``.
    given : dict
        Those that were set, for all runs or by the grid. The notebook gets these alone: a
        default has come through JSON, where tuples are lists and keys are text.
    varied : dict
        Those that the grid sets.
    run_dir : Path
    command : str
        Repeats this run alone.
    content : dict
        Hashes: ``sha`` of everything, ``template_sha``, ``data`` by parameter; and ``rbkit``, the
        major and minor version.
    """

    id: str
    parameters: dict[str, Any]
    given: dict[str, Any]
    varied: dict[str, Any]
    run_dir: Path
    command: str = ""
    content: dict[str, Any] = field(default_factory=dict)

    def new(self, template: str) -> dict[str, Any]:
        """Return the ``job.json`` of this run before it begins."""
        return new_job(
            self.id, template, self.parameters, self.varied, self.command, self.content, self.given
        )


@dataclass
class Plan:
    """All runs of a sweep.

    Attributes
    ----------
    template : Path
        The notebook.
    out : Path
        Folder of the sweep.
    jobs : list of Job
        In the order of the grid.
    grid : dict of str to list
        Values as checked, each once.
    fixed : dict
        Parameters that were given for all runs, as checked.
    given : str
        The template as it was given.
    template_sha : str
        Of its code.
    declared : Declared
        The notebook's parameters.
    notes : list of str
        What the user should know, such as points that were left out.
    options : dict
        Further options of the command line: ``{"jobs": 2}``.
    """

    template: Path
    out: Path
    jobs: list[Job]
    grid: dict[str, list[Any]]
    fixed: dict[str, Any]
    given: str
    template_sha: str
    declared: Declared
    notes: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """Repeats the sweep, in a shell."""
        grid = ["--grid", format_grid(self.grid)] if self.grid else []
        fixed = _options(self.declared, self.fixed)
        words = ["rbkit", "sweep", self.given, *grid, *fixed, "--out", str(self.out)]
        for name, value in self.options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return shlex.join(words)

    def statuses(self) -> dict[str, str]:
        """Status of each run, by id: ``queued`` where nothing has been written yet."""
        jobs = {job.id: _read_if_intact(job.run_dir) for job in self.jobs}
        runs = self.out / "runs"
        return {id: job_status(job, runs / id) if job else "queued" for id, job in jobs.items()}

    def existing(self) -> dict[str, Any] | None:
        """Return the ``sweep.json`` that is in the folder already.

        Raises
        ------
        InputError
            The folder belongs to the sweep of another notebook, or another process works on it.
        """
        if not (self.out / SWEEP_FILE).exists():
            return None
        info = read_sweep(self.out)
        if (other := _other_template(info, self)) is not None:
            what = f"holds a sweep of another notebook, {other}"
            raise InputError(str(self.out), what, "give another --out")
        who = launcher_of(self.out, info)
        if who and not is_this_process(info["launcher"]):
            raise works_already(self.out, who)
        return info

    def superseded(self) -> dict[str, list[str]]:
        """Return ids of runs in the folder that this plan replaces, and what has changed since."""
        there = (self.out / SWEEP_FILE).exists()
        return _superseded(self, read_sweep(self.out)) if there else {}

    def write(self, *, progress: bool = False) -> None:
        """Write ``sweep.json``, and a ``job.json`` for each run that has none.

        Runs that an earlier call planned in this folder stay in it. This process counts as
        the one that works on the sweep, until :meth:`release` or its end.

        Raises
        ------
        InputError
            The folder belongs to the sweep of another notebook, or another process works on it.
        """
        _write_sweep(self)
        for job in _bar(self.jobs, "planning", len(self.jobs), progress):
            if _read_if_intact(job.run_dir) is None:
                # Thousands of them need not be on the disk: one that is lost is planned again.
                write_job(job.run_dir, job.new(self.given), flush=False)

    def release(self) -> None:
        """Record in ``sweep.json`` that this process has ended its work."""
        info = read_sweep(self.out)
        if is_this_process(info.get("launcher")):
            write_json(self.out / SWEEP_FILE, {**info, "launcher": None})


def make_plan(
    template: str | Path,
    grid: GridLike = (),
    out: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    profile: str | None = None,
    *,
    progress: bool = False,
) -> Plan:
    """Check everything that can be checked, and return the runs. Nothing is written.

    Parameters
    ----------
    template : path
        A notebook with a cell tagged ``parameters``; also the name of one of rbkit's.
    grid : str, mapping, or several
        See :func:`~rbkit.report.sweep.grid.parse_grid`; an empty one makes one run.
    out : path, optional
        Folder of the sweep; ``reports/<template>`` if not given.
    parameters : mapping, optional
        Values for all runs.
    profile : str, optional
        Value of the parameter ``profile``.
    progress : bool
        Show a bar on stderr where it takes more than a second.

    Raises
    ------
    InputError
        A wrong name, type or value, naming the parameter and what is allowed.

    Examples
    --------
    >>> plan = make_plan("90_run", "mixer=target,rnb seed=0..1", parameters={"steps": "50"})
    >>> [job.varied for job in plan.jobs][:2]
    [{'mixer': 'Target', 'seed': 0}, {'mixer': 'Target', 'seed': 1}]
    """
    path = find_template(template)
    node = read_notebook(path)
    declaration = declared(node)
    _check_kernel(path, node)
    out = Path("reports") / path.stem if out is None else Path(out)
    fixed = {**(parameters or {}), **({} if profile is None else {"profile": profile})}
    points = parse_grid(grid)
    _check_names(declaration, points, fixed)
    fixed = declaration.check_given(fixed)
    notes: list[str] = []
    points = {name: _each_once(declaration, name, points[name], notes) for name in points}
    runs = math.prod(map(len, points.values()))
    if runs > MOST:
        raise InputError("grid", f"makes {runs:,} runs", f"at most {MOST:,} can be planned")
    plan = Plan(path, out, [], points, fixed, str(template), code_sha(node), declaration, notes)
    hasher, ids, by_sha = _ContentHasher(out, declaration), _Ids(out), dict[str, Job]()
    for point in _bar(itertools.product(*points.values()), "checking", runs, progress):
        varied = dict(zip(points, point, strict=True))
        job = _job(plan, hasher, ids, varied)
        same = by_sha.setdefault(job.content["sha"], job)
        if same is not job:
            notes.append(f"{_words(varied)} is left out: the same as {_words(same.varied)}")
    plan.jobs = list(by_sha.values())
    notes += hasher.notes
    return plan


def _bar(items: Iterable[Any], what: str, total: int, progress: bool) -> Iterable[Any]:
    from tqdm import tqdm

    shown: Iterable[Any] = tqdm(
        items,
        desc=what,
        total=total,
        unit="run",
        delay=1,
        mininterval=1,
        leave=False,
        disable=not progress,
    )
    return shown


def _check_kernel(path: Path, node: Any) -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    name = node.metadata.get("kernelspec", {}).get("name") or "python3"
    if name not in (there := KernelSpecManager().find_kernel_specs()):
        raise InputError(
            str(path),
            f"wants the kernel {name!r}, which is not installed",
            f"install it, or choose one of {', '.join(sorted(there))} in the notebook",
        )


def _check_names(known: Declared, grid: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name in (*grid, *fixed):
        if name in _SET_BY_SWEEP and name in known:
            raise InputError(name, "cannot be given to a sweep", _SET_BY_SWEEP[name])
    known.check_names({**grid, **fixed})
    for name in grid:
        if name in fixed:
            raise InputError(
                name, f"is in the grid, and fixed to {fixed[name]!r}", "give it in one place"
            )


def _each_once(known: Declared, name: str, given: list[Any], notes: list[str]) -> list[Any]:
    values: dict[str, Any] = {}
    for each in given:
        value = known.parameters[name].check(each)
        if repr(value) in values:
            notes.append(f"{name}={as_text(value)} is in the grid twice, and run once")
        values.setdefault(repr(value), value)
    return list(values.values())


def _job(plan: Plan, hasher: _ContentHasher, ids: _Ids, varied: dict[str, Any]) -> Job:
    known = plan.declared
    full = known.check({**plan.fixed, **varied})
    parameters = {name: value for name, value in full.items() if name not in _SET_BY_SWEEP}
    # In the order of the notebook: however the grid was typed, the words are the same.
    ordered = {name: varied[name] for name in ["mixer", *known.names] if name in varied}
    content = hasher.content(plan.template_sha, parameters)
    id = ids.of(content["sha"], slug(ordered, plan.template.stem))
    given = {name: parameters[name] for name in parameters if name in {**plan.fixed, **varied}}
    # In another folder than the runs: repeating one must not disturb the sweep.
    repeat = ["rbkit", "run", "--out", str(plan.out / "repeat" / id), "--template", plan.given]
    command = shlex.join([*repeat, *_options(known, given)])
    return Job(id, parameters, given, varied, plan.out / "runs" / id, command, content)


def _options(known: Declared, values: Mapping[str, Any]) -> list[str]:
    pairs = [f"{name}={known.parameters[name].as_text(value)}" for name, value in values.items()]
    return [word for pair in pairs for word in ("-p", pair)]


def _words(varied: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={as_text(value)}" for name, value in varied.items())


# -------------------------------------------------------------- ids, and what a run is made of

_ID_DIGITS = (12, 24, 64)  # of a hash: the first suffices but for one in millions of runs
_ID_WORDS = 60  # characters: folders nest, and paths have a limit
_MAX_BYTES = 20 * 2**30  # of data that are read; beyond, sizes and times are taken
_MAX_FILES = 100_000  # of a folder or a pattern; more are hardly meant to be data
_RUN_DATA = ("corpus", "embedder", "edits", "domains", "model")  # RunParameters that name files
_DATA_WORD = re.compile(r"(?<![^\W_])(data|corpus)(?![^\W_])", re.IGNORECASE)


class _Ids:
    """Ids of runs: words and digits of a hash, more of them where two runs share the first.

    The words depend on what varied when an id was made, so ids in the folder are found by digits.
    """

    def __init__(self, out: Path) -> None:
        info = read_sweep(out) if (out / SWEEP_FILE).exists() else {"superseded": [], "jobs": []}
        ids: list[str] = [*info["superseded"], *info["jobs"]]
        self._there = {id.rpartition("-")[2]: id for id in ids}
        self._runs, self._taken = out / "runs", dict[str, str]()

    def of(self, sha: str, words: str) -> str:
        for digits in (sha[:count] for count in _ID_DIGITS):
            if self._taken.setdefault(digits, sha) != sha:
                continue
            there = self._there.get(digits)
            if there is None:
                return f"{words}-{digits}"
            try:
                if read_job(self._runs / there)["content"].get("sha", sha) == sha:
                    return there
            except InputError:  # not there, or damaged: the digits must do
                return there
        raise AssertionError(sha)  # two runs with the same 256 bits


def slug(varied: Mapping[str, Any], otherwise: str) -> str:
    """Return words for what varies that are safe in the name of a file.

    Examples
    --------
    >>> slug({"mixer": "RnB", "seed": 0, "k": [8, 12]}, "run")
    'mixer-RnB_seed-0_k-8-12'
    >>> slug({}, "90_run")
    '90_run'
    """
    words = "_".join(f"{name}-{_slug_value(value)}" for name, value in varied.items())
    # A name that starts with a dot is hidden, one with a dash looks like an option.
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", words or otherwise).lstrip(".-")
    return safe[:_ID_WORDS].rstrip("._-") or "run"


def _slug_value(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(f"{name}-{_slug_value(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return "-".join(map(_slug_value, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return Path(text).stem if "/" in text or os.sep in text else text


def code_sha(node: Any) -> str:
    """Hash the code of a notebook; text, outputs and what papermill injected do not count."""
    return _sha(
        [
            cell["source"].rstrip()
            for cell in node.cells
            if cell["cell_type"] == "code"
            and "injected-parameters" not in cell.get("metadata", {}).get("tags", [])
        ]
    )


def _sha(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _ContentHasher:
    """Hashes what parameters stand for: values, and for the name of a file what is in it.

    What counts as data:

    - a file, and files that a pattern such as ``texts/*.jsonl`` matches: always;
    - a folder: in rbkit's run notebook if one of ``_RUN_DATA`` names it; in any other notebook if
      the parameter's name or comment has the word *data* or *corpus*
      (``texts: str = "in"  # folder of data``). Runs may write to any other folder, and their ids
      would change with it: it counts by its name;
    - never the root, the home or the temporary folder, what the sweep writes to its own folder
      `out`, or more than 100,000 files.

    What cannot be read counts by its name. `notes` lists for the user what does so.
    """

    def __init__(self, out: Path, known: Declared) -> None:
        self._out, self._known = out.resolve(), known
        self._cache: dict[tuple[str, str], Any] = {}
        # Folders that are given as places, never as data.
        self._places = {
            Path(place).resolve() for place in ("/", "/tmp", "/var/tmp", tempfile.gettempdir())
        }
        with suppress(RuntimeError):  # no home folder
            self._places.add(Path.home().resolve())
        self.notes: list[str] = []

    def content(self, template_sha: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return :attr:`Job.content`."""
        made_of = {
            name: self._of(name, value) if self._may_name_files(name, value) else value
            for name, value in parameters.items()
        }
        version = ".".join(rbkit.__version__.split(".")[:2])
        data = {name: _sha(made)[:12] for name, made in made_of.items() if made != parameters[name]}
        return {
            "sha": _sha([template_sha, version, made_of]),
            "template_sha": template_sha,
            "rbkit": version,
            "data": data,
        }

    def _may_name_files(self, name: str, value: Any) -> bool:
        if self._known.is_run and name in RUN_HINTS and name not in _RUN_DATA:
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
        return bool(_DATA_WORD.search(f"{name} {self._known.parameters[name].help}"))

    def _of(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(name, item) for item in value]
        if isinstance(value, dict):
            return {key: self._of(name, item) for key, item in value.items()}
        # "." and "/" are signs more often than folders, and folders too large to be meant.
        if not isinstance(value, str) or not re.search(r"\w", value):
            return value
        if (name, value) not in self._cache:
            try:
                self._cache[name, value] = self._named(name, value)
            except OSError as error:
                self.notes.append(
                    f"{name}: {value} cannot be read ({error.strerror}), and counts by its name"
                )
                self._cache[name, value] = value
        return self._cache[name, value]

    def _named(self, name: str, value: str) -> Any:
        try:
            path = Path(value).expanduser()
            there = path.exists()
        except PermissionError:
            raise
        except (OSError, ValueError, RuntimeError):  # too long, or with a zero in it: a text
            return value
        if there:
            return self._at(name, path, value)
        if glob.has_magic(value) and "\0" not in value:
            paths = sorted(islice(glob.iglob(str(path), recursive=True), _MAX_FILES + 1))
            if len(paths) > _MAX_FILES:
                return self._by_name(name, value, f"finds more than {_MAX_FILES:,} files")
            contents = [self._at(name, Path(each), None) for each in paths]
            if files := [each for each in contents if each is not None]:
                return {"files": files}
        return value

    def _at(self, name: str, path: Path, otherwise: str | None) -> Any:
        # The name does not count, but its endings do: they decide how a file is read.
        if path.is_file():
            return {"file": _digests([path])[0], "ending": "".join(path.suffixes[-2:])}
        if not path.is_dir() or path.resolve() in self._places:
            return otherwise  # also a device, a pipe: nothing to be read
        if not self._folders_are_data(name):
            if otherwise is not None:
                remedy = f'if it is data, write "data" into the comment of {name}'
                self._by_name(name, otherwise, f"is a folder; {remedy}")
            return otherwise
        names = list(islice(self._walk(path), _MAX_FILES + 1))
        if len(names) > _MAX_FILES:
            why = f"holds more than {_MAX_FILES:,} files"
            return self._by_name(name, otherwise or str(path), why)
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


def _raise(error: OSError) -> None:
    raise error


def _digests(paths: list[Path]) -> list[str]:
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) > _MAX_BYTES:
        return [
            f"{size} {path.stat().st_mtime_ns}" for path, size in zip(paths, sizes, strict=True)
        ]
    from tqdm import tqdm

    total, digests = sum(sizes), []
    with tqdm(total=total, desc="data", unit="B", unit_scale=True, delay=2, leave=False) as bar:
        for path, size in zip(paths, sizes, strict=True):
            digests.append(sha256_of_file(path))
            bar.update(size)
    return digests


# ------------------------------------------------------------------- what is in the folder already


def _read_if_intact(run_dir: Path) -> dict[str, Any] | None:
    """Return the ``job.json``; None if there is none, or a damaged one."""
    try:
        return read_job(run_dir) if (run_dir / JOB_FILE).exists() else None
    except InputError as error:
        what = f"{error.where}: {error.what}; the run is queued again"
        warnings.warn(what, RbkitWarning, stacklevel=3)
        return None


def _other_template(info: Mapping[str, Any], plan: Plan) -> str | None:
    """Return the notebook that the folder belongs to, if it is not the plan's.

    One that was moved, or copied as it is, is the same.
    """
    if Path(info["template"]).stem != Path(plan.given).stem:
        return str(info["template"])
    before = info.get("template_path")
    if not isinstance(before, str) or before == str(plan.template.resolve()):
        return None
    try:
        same = not Path(before).is_file() or code_sha(read_notebook(before)) == plan.template_sha
    except (InputError, OSError, ValueError):  # not a path, or no longer a notebook
        same = False
    return None if same else before


def _write_sweep(plan: Plan) -> None:
    old = plan.existing()
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
    superseded = [id for id in (old or {}).get("superseded", []) if id not in ids]
    superseded += _superseded(plan, old) if old else []
    earlier = [id for id in (old or {}).get("jobs", []) if id not in superseded]
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
            "jobs": list(dict.fromkeys([*earlier, *ids])),
            "superseded": superseded,
            "launcher": this_launcher(),
            "rbkit": rbkit.__version__,
            "versions": _versions(),
            "machine": describe_machine(),
            "git": _git(plan.template.parent),
            "created": (old or call)["created"],
        },
    )


def _versions() -> dict[str, str]:
    from rbkit.train.recorder import versions

    return versions()


def _git(folder: Path) -> dict[str, Any] | None:
    """Return the commit that `folder` is at, and whether files differ from it; None outside."""
    commit = output_of("git", "rev-parse", "HEAD", folder=folder)
    if not commit:
        return None
    changed = output_of("git", "status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"commit": commit[0], "changed": bool(changed)}


def _superseded(plan: Plan, info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of earlier runs that planned ones replace, with what has changed since.

    With the same code, the same parameters make the same run. With other code the cell of
    parameters may have changed: then it is those that were set, or those that both versions
    know, while the new ones have their defaults.
    """
    ids = {job.id for job in plan.jobs}
    by_all = {_key(job.parameters): job for job in plan.jobs}
    by_given = {_key(job.given): job for job in plan.jobs}
    by_common: dict[frozenset[str], dict[str, Job]] = {}
    superseded = {}
    for id in info["jobs"]:
        if id in ids:
            continue
        try:
            old = read_job(plan.out / "runs" / id)
        except InputError:
            continue  # nothing of it is there
        content = {"template_sha": info["template_sha"], **old["content"]}
        parameters, given = old["parameters"], old["given"]
        job = by_all.get(_key(parameters))
        if job is None and content["template_sha"] != plan.template_sha:
            if given or not parameters:  # files of the first versions do not record it
                job = by_given.get(_key(given))
            if job is None:
                names = frozenset(parameters)
                if names not in by_common:
                    by_common[names] = _by_common_parameters(plan, names)
                common = {name: parameters[name] for name in parameters if name in plan.declared}
                job = by_common[names].get(_key(common))
        if job is not None:
            superseded[id] = _changes(content, job.content)
    return superseded


def _by_common_parameters(plan: Plan, names: frozenset[str]) -> dict[str, Job]:
    """Return the runs by those parameters that an older cell had, if the new ones are defaults."""
    defaults, jobs = plan.declared.defaults, {}
    for job in plan.jobs:
        new = {name: value for name, value in job.parameters.items() if name not in names}
        if all(name in defaults and value == defaults[name] for name, value in new.items()):
            jobs[_key({name: job.parameters[name] for name in job.parameters if name in names})] = (
                job
            )
    return jobs


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    changes = []
    if before.get("template_sha") != after.get("template_sha"):
        changes.append("the notebook's code")
    if before.get("rbkit", after.get("rbkit")) != after.get("rbkit"):
        changes.append("rbkit's version")
    old, new = before.get("data"), after.get("data", {})
    if isinstance(old, dict):
        changes += [f"the data of {n}" for n in sorted({*old, *new}) if old.get(n) != new.get(n)]
    return changes


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def queue_unfinished(
    plan: Plan, *, resume: bool
) -> tuple[list[tuple[Job, dict[str, Any]]], list[str]]:
    """Queue what is not done; with ``resume=False`` everything, from nothing.

    Processes that a killed launcher left are ended first: two must not write to one folder.
    Returns the queued jobs with their ``job.json``, and the ids of those that are done.
    """
    infos = {}
    for job in plan.jobs:
        try:
            infos[job.id] = read_job(job.run_dir)
        except InputError:  # none, or damaged: then it is not known to be done
            infos[job.id] = job.new(plan.given)
    for info in infos.values():
        if info["host"] == platform.node():
            kill_group(info["kernel"])
            kill_group(info["worker"])
    queued, done = [], []
    for job in plan.jobs:
        info = infos[job.id]
        if resume and info["status"] == "ok" and (job.run_dir / "run.ipynb").exists():
            done.append(job.id)
            continue
        if not resume:
            clear(job.run_dir)
            info = job.new(plan.given)
        before = dict(info)
        info |= dict.fromkeys(("worker", "kernel", "launcher", "gpu"))
        info.update(
            status="queued", given=job.given, command=job.command, queued=info["queued"] or now()
        )
        if info != before or not resume or not (job.run_dir / JOB_FILE).exists():
            write_job(job.run_dir, info, flush=False)
        queued.append((job, info))
    return queued, done
