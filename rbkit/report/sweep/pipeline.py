"""``sweep``: check, plan, run, report. Also ``rb.sweep`` and ``rbkit sweep``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.report.parameters import ShellText, as_text
from rbkit.report.sweep.folder import SWEEP_FILE
from rbkit.report.sweep.grid import GridLike
from rbkit.report.sweep.launcher import SweepResult, run_plan
from rbkit.report.sweep.machine import runs_at_once
from rbkit.report.sweep.plan import Plan, make_plan
from rbkit.report.sweep.status import print_table
from rbkit.text import need_streams, say


def sweep(
    template: str | Path,
    grid: GridLike = (),
    out: str | Path | None = None,
    *,
    jobs: int = 1,
    parameters: Mapping[str, Any] | None = None,
    profile: str | None = None,
    resume: bool = True,
    timeout: float | None = None,
    retries: int = 0,
    gpus: str = "auto",
    ray: str | None = None,
    baseline: str | Mapping[str, Any] | None = None,
    metric: str | None = None,
    report: bool = True,
    pdf: bool = False,
    progress: bool = True,
    dry_run: bool = False,
) -> SweepResult:
    """Run a notebook once for each point of a grid, and compare the runs on one page.

    Everything that is given is checked before anything runs or is written. A run is known by
    its content (the notebook's code, all parameters, the data that they name): a second call
    leaves what is done and continues with the rest; another grid in the same folder adds to it.

    Parameters
    ----------
    template : path
        A notebook with a cell tagged ``parameters``; or the name of one of rbkit's, ``90_run``.
    grid : str, mapping, or several
        ``"mixer=target,rnb seed=0..4"`` or ``{"mixer": ["Target", "RnB"], "seed": range(5)}``.
    out : path, optional
        Folder of the sweep; ``reports/<template>`` if not given.
    jobs : int
        Runs at the same time, each in a process of its own.
    parameters : mapping, optional
        Values for all runs.
    profile : str, optional
        Value of the parameter ``profile``; ``smoke`` makes runs of seconds.
    resume : bool
        Leave what is done. False: run everything again.
    timeout : float, optional
        Seconds that a run may take.
    retries : int
        How often a run that was killed or ran out of time is tried again at once.
    gpus : str
        ``auto``, ``none``, or ids: each run gets one to itself.
    ray : str, optional
        ``local``, or the address of a Ray cluster that does the runs.
    baseline : str or mapping, optional
        What the report compares with: ``"mixer=Target"``.
    metric : str, optional
        What the report compares by, in place of the eval loss.
    report : bool
        Write ``out/index.html``, also if some runs have failed.
    pdf : bool
        Print the page to PDF as well.
    progress : bool
        Report progress on stderr.
    dry_run : bool
        Print the runs and their statuses; start and write nothing.

    Returns
    -------
    SweepResult
        Status of each run, counts, and the exit code for scripts.

    Raises
    ------
    InputError
        A wrong name, type or value, naming the parameter and what is allowed; a folder that
        holds another notebook's sweep, or in which another process works.

    Examples
    --------
    >>> sweep("90_run", "mixer=rbn", dry_run=True)
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: mixer: 'rbn' is unknown; use one of Stratified, Proportional, ...
    """
    need_streams()
    jobs, retries = as_count("jobs", jobs, least=1), as_count("retries", retries)
    plan = make_plan(template, grid, out, parameters, profile, progress=progress)
    _check_baseline(plan, baseline)
    _check_metric(plan, metric)
    plan.options = _options(
        jobs=jobs,
        timeout=timeout,
        retries=retries,
        gpus=gpus,
        ray=ray,
        baseline=baseline,
        metric=metric,
        pdf=pdf,
    )
    if pdf and report and not dry_run:
        from rbkit.report.html import find_browser

        find_browser()  # now: it may be missing
    if not dry_run:
        plan.existing()
    before = plan.statuses()
    if progress or dry_run:
        at_once = runs_at_once(jobs, gpus) if ray is None else jobs
        _announce(plan, before if resume else dict.fromkeys(before, "queued"), at_once)
    if dry_run:
        _print_plan(plan, before)
        return SweepResult(plan.out, before)
    result = run_plan(
        plan,
        jobs=jobs,
        resume=resume,
        timeout=timeout,
        retries=retries,
        gpus=gpus,
        progress=progress,
        ray=ray,
    )
    page = None
    try:
        # An interrupt that came when all was done has interrupted nothing.
        if report and result.exit_code != 130:
            page = _report(plan, pdf, progress, baseline=baseline, metric=metric)
    finally:
        if progress:
            _say(plan, ", ".join(f"{count} {status}" for status, count in result.counts.items()))
    if progress and result.exit_code == 130:
        say(f"Interrupted. Resume with: {plan.command}")
    elif progress and page is not None:
        say(f"The report: {page.resolve()}")
    return result


def _options(*, baseline: str | Mapping[str, Any] | None, **given: Any) -> dict[str, Any]:
    """Options that a command would have to repeat: those that are not at their defaults."""
    usual = {"jobs": 1, "timeout": None, "retries": 0, "gpus": "auto", "ray": None, "pdf": False}
    usual |= {"metric": None}
    options = {name: value for name, value in given.items() if value != usual[name]}
    if isinstance(baseline, Mapping):
        baseline = " ".join(f"{name}={as_text(value)}" for name, value in baseline.items())
    return options if baseline is None else {**options, "baseline": baseline}


def _report(plan: Plan, pdf: bool, progress: bool, **given: Any) -> Path:
    from rbkit.report.page.page import write_report

    page = plan.out / "index.html"
    try:
        return write_report([plan.out], page, pdf=pdf, progress=progress, **given)
    except InputError as error:
        asked = [name for name, value in given.items() if value is not None]
        if not asked:
            raise
        # Its runs may be those that failed; the others are to be shown all the same.
        taken = " and ".join("the loss" if n == "metric" else f"another {n}" for n in asked)
        warnings.warn(f"the report takes {taken}: {error}", RbkitWarning, stacklevel=3)
        return write_report([plan.out], page, pdf=pdf, progress=progress)


def _check_baseline(plan: Plan, baseline: str | Mapping[str, Any] | None) -> None:
    """Refuse a baseline that no run can have, before hours of training."""
    if baseline is None:
        return
    from rbkit.report.compare.variants import parse_baseline

    pairs = (
        dict(baseline)
        if isinstance(baseline, Mapping)
        else {name: ShellText(value) for name, value in parse_baseline(baseline).items()}
    )
    others = (plan.out / SWEEP_FILE).exists()  # an earlier call may have made its runs
    for name, value in plan.declared.check_given(pairs).items():
        if name in plan.grid and value not in plan.grid[name] and not others:
            raise InputError(
                f"baseline {name}",
                f"{value!r} is not in the grid",
                f"use one of {', '.join(map(as_text, plan.grid[name]))}",
            )


def _check_metric(plan: Plan, metric: str | None) -> None:
    """Refuse a metric that no run of the run notebook will have."""
    if metric is None or not plan.declared.is_run or (plan.out / SWEEP_FILE).exists():
        return
    if not any(metric in job.parameters.get("metrics", ()) for job in plan.jobs):
        what = f"no run evaluates {metric!r}"
        raise InputError("metric", what, f'give the parameter metrics=["{metric}"] too')


def _announce(plan: Plan, statuses: Mapping[str, str], at_once: int) -> None:
    for note in plan.notes:
        say(note)
    done = sum(status == "ok" for status in statuses.values())
    left = len(statuses) - done
    todo = f"{left} to do, {at_once} at a time" if left else "nothing to do"
    runs = "1 run" if len(statuses) == 1 else f"{len(statuses)} runs"
    _say(plan, f"{runs}, {done} done already, {todo}")
    if older := plan.superseded():
        changes = ", ".join(dict.fromkeys(each for changed in older.values() for each in changed))
        what = f"{len(older)} runs of older code or data make way for new ones"
        _say(plan, f"{what}; changed: {changes}" if changes else what)


def _say(plan: Plan, what: str) -> None:
    say(f"{plan.template.stem} -> {plan.out}: {what}")


def _print_plan(plan: Plan, statuses: Mapping[str, str]) -> None:
    names = list(plan.grid)
    rows = [
        [job.id, statuses[job.id], *(as_text(job.varied[name]) for name in names)]
        for job in plan.jobs
    ]
    print_table(["run", "status", *names], rows, sys.stdout)
