"""A plan: every run of a sweep with its id, before anything runs or is written."""

from __future__ import annotations

import itertools
import platform
import shlex
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbkit.errors import InputError, RbkitWarning
from rbkit.processes import kill_group
from rbkit.report.notebooks import read_notebook
from rbkit.report.parameters import Declared, as_text, declared
from rbkit.report.sweep.folder import (
    DIGITS,
    JOB_FILE,
    Contents,
    code_sha,
    content_of,
    job_status,
    known_ids,
    new_job,
    now,
    read_job,
    release,
    slug,
    write_job,
    write_sweep,
)
from rbkit.report.sweep.grid import MOST, GridLike, format_grid, parse_grid

# The sweep says where a run writes, and whether it goes on from a checkpoint.
_OURS = {"run_dir": "it is set by --out", "resume": "it is set by --resume"}


@dataclass(frozen=True)
class Job:
    """One run of a plan.

    Attributes
    ----------
    id : str
        Words for what varies and a hash of what the run is made of: ``mixer-RnB-1a2b3c4d5e6f``.
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
        What it is made of; see :func:`~rbkit.report.sweep.folder.content_of`.
    """

    id: str
    parameters: dict[str, Any]
    given: dict[str, Any]
    varied: dict[str, Any]
    run_dir: Path
    command: str = ""
    content: dict[str, Any] = field(default_factory=dict)

    def new(self, template: str) -> dict[str, Any]:
        """Return what ``job.json`` says before the run begins."""
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
    known : Declared
        What the notebook declares.
    notes : list of str
        What the user should know, such as points that were left out.
    options : dict
        Of the command line, beside these: ``{"jobs": 2}``.
    """

    template: Path
    out: Path
    jobs: list[Job]
    grid: dict[str, list[Any]]
    fixed: dict[str, Any]
    given: str
    template_sha: str
    known: Declared
    notes: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """Repeats the sweep, in a shell."""
        grid = ["--grid", format_grid(self.grid)] if self.grid else []
        fixed = _options(self.known, self.fixed)
        words = ["rbkit", "sweep", self.given, *grid, *fixed, "--out", str(self.out)]
        for name, value in self.options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return shlex.join(words)

    def statuses(self) -> dict[str, str]:
        """How each run stands, by id: ``queued`` where nothing has been written yet."""
        found = {job.id: _read(job.run_dir) for job in self.jobs}
        return {id: job_status(job) if job else "queued" for id, job in found.items()}

    def write(self) -> None:
        """Write ``sweep.json``, and a ``job.json`` for each run that has none.

        Runs that an earlier call planned in this folder stay in it. This process counts as
        the one that works on the sweep, until :meth:`release` or its end.

        Raises
        ------
        InputError
            The folder belongs to the sweep of another notebook, or another process works on it.
        """
        from tqdm import tqdm

        write_sweep(self)
        for job in tqdm(self.jobs, desc="planning", delay=2, leave=False, disable=None):
            if _read(job.run_dir) is None:
                write_job(job.run_dir, job.new(self.given))

    def release(self) -> None:
        """Write into ``sweep.json`` that this process has ended its work."""
        release(self.out)


def make_plan(
    template: str | Path,
    grid: GridLike = (),
    out: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    profile: str | None = None,
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
    known = declared(node)
    _check_kernel(path, node)
    out = Path("reports") / path.stem if out is None else Path(out)
    fixed = {**(parameters or {}), **({} if profile is None else {"profile": profile})}
    points = parse_grid(grid)
    _check_names(known, points, fixed)
    fixed = known.check_given(fixed)
    notes: list[str] = []
    points = {name: _each_once(known, name, values, notes) for name, values in points.items()}
    runs = 1
    for values in points.values():
        runs *= len(values)
    if runs > MOST:
        raise InputError("grid", f"makes {runs:,} runs", f"at most {MOST:,} can be planned")
    plan = Plan(path, out, [], points, fixed, str(template), code_sha(node), known, notes)
    contents, ids, same = Contents(out, known), _Ids(out), dict[str, Job]()
    for point in itertools.product(*points.values()):
        varied = dict(zip(points, point, strict=True))
        job = _job(plan, known, contents, ids, varied)
        sha = job.content["sha"]
        if sha in same:
            before = _words(same[sha].varied)
            notes.append(f"{_words(varied)} is left out: the same as {before}")
        else:
            same[sha] = job
    plan.jobs = list(same.values())
    notes += contents.notes
    return plan


def find_template(template: str | Path) -> Path:
    """Return the path of a notebook: of a file, or of one of rbkit's by its name."""
    path = Path(template)
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path
    from rbkit.report.notebooks import find_notebook

    return find_notebook(path.name)


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
        if name in _OURS and name in known:
            raise InputError(name, "cannot be given to a sweep", _OURS[name])
    known.check_names({**grid, **fixed})
    for name in grid:
        if name in fixed:
            raise InputError(
                name, f"is in the grid, and fixed to {fixed[name]!r}", "give it in one place"
            )


def _each_once(known: Declared, name: str, values: list[Any], notes: list[str]) -> list[Any]:
    kept: list[Any] = []
    seen: set[str] = set()
    for given in values:
        value = known.parameters[name].check(given)
        if (text := repr(value)) in seen:
            notes.append(f"{name}={as_text(value)} is in the grid twice, and run once")
        else:
            seen.add(text)
            kept.append(value)
    return kept


def _job(plan: Plan, known: Declared, contents: Contents, ids: _Ids, varied: dict[str, Any]) -> Job:
    full = known.check({**plan.fixed, **varied})
    parameters = {name: value for name, value in full.items() if name not in _OURS}
    # In the order of the notebook: however the grid was typed, the words are the same.
    ordered = {name: varied[name] for name in ["mixer", *known.names] if name in varied}
    content = content_of(plan.template_sha, parameters, contents)
    id = ids.of(content["sha"], slug(ordered, plan.template.stem))
    given = {name: parameters[name] for name in parameters if name in {**plan.fixed, **varied}}
    options = _options(known, given)
    # Beside the runs: repeating one must not disturb the sweep.
    repeat = plan.out / "repeat" / id
    command = shlex.join(["rbkit", "run", "--out", str(repeat), "--template", plan.given, *options])
    return Job(id, parameters, given, varied, plan.out / "runs" / id, command, content)


class _Ids:
    """Ids of runs: words and digits of a hash, more of them where two runs share the first."""

    def __init__(self, out: Path) -> None:
        self._runs, self._there = out / "runs", known_ids(out)
        self._taken: dict[str, str] = {}

    def of(self, sha: str, words: str) -> str:
        for digits in DIGITS:
            short = sha[:digits]
            if self._taken.setdefault(short, sha) != sha:
                continue
            there = self._there.get(short)
            if there is None:
                return f"{words}-{short}"
            if self._is(there, sha):
                return there
        raise AssertionError(sha)  # two runs with the same 256 bits

    def _is(self, id: str, sha: str) -> bool:
        try:
            return bool(read_job(self._runs / id)["content"].get("sha", sha) == sha)
        except InputError:  # not there, or damaged: the digits must do
            return True


def _read(run_dir: Path) -> dict[str, Any] | None:
    """Return what ``job.json`` says; None if there is none, or nothing that makes sense."""
    try:
        return read_job(run_dir) if (run_dir / JOB_FILE).exists() else None
    except InputError as error:
        warnings.warn(
            f"{error.where}: {error.what}; the run is queued anew", RbkitWarning, stacklevel=3
        )
        return None


def _options(known: Declared, values: Mapping[str, Any]) -> list[str]:
    pairs = [f"{name}={known.parameters[name].as_text(value)}" for name, value in values.items()]
    return [word for pair in pairs for word in ("-p", pair)]


def _words(varied: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={as_text(value)}" for name, value in varied.items())


@dataclass
class Todo:
    """Jobs to run, with their ``job.json``, and ids of those that are done."""

    jobs: list[tuple[Job, dict[str, Any]]]
    done: list[str]


def requeue(plan: Plan, *, resume: bool) -> Todo:
    """Queue what is not done; with ``resume=False`` everything, from nothing.

    Processes that a killed launcher left are ended first: two must not write to one folder.
    """
    found = [(job, _found(plan, job)) for job in plan.jobs]
    for _, info in found:
        if info["host"] == platform.node():
            kill_group(info["kernel"])
            kill_group(info["worker"])
    todo = Todo([], [])
    for job, info in found:
        if resume and info["status"] == "ok" and (job.run_dir / "run.ipynb").exists():
            todo.done.append(job.id)
            continue
        if not resume:
            clear(job.run_dir)
            info = _new(plan, job)
        for name in ("worker", "kernel", "launcher", "gpu"):
            info[name] = None
        info.update(
            status="queued", given=job.given, command=job.command, queued=info["queued"] or now()
        )
        write_job(job.run_dir, info)
        todo.jobs.append((job, info))
    return todo


def clear(run_dir: Path, keep: Sequence[str] = (JOB_FILE,)) -> None:
    """Remove what an earlier attempt wrote, but not what `keep` names."""
    for path in run_dir.iterdir() if run_dir.is_dir() else ():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def clear_halves(run_dir: Path) -> None:
    """Remove files that a killed process was writing."""
    for path in run_dir.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _found(plan: Plan, job: Job) -> dict[str, Any]:
    try:
        return read_job(job.run_dir)
    except InputError:  # none, or damaged: then it is not known to be done
        return _new(plan, job)


def _new(plan: Plan, job: Job) -> dict[str, Any]:
    return job.new(plan.given)
