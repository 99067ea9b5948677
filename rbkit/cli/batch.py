"""What runs notebooks, and what looks at runs: run, sweep, status, watch, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rbkit.cli.given import Parameter, read_parameters

Baseline = Annotated[
    str | None,
    typer.Option(metavar="NAME=VALUE", help="What runs are compared with, such as mixer=Target."),
]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write a PDF beside the page (by Chromium).")]


def run(
    out: Annotated[Path, typer.Option(help="Run folder.")],
    parameter: Parameter = None,
    template: Annotated[
        Path | None,
        typer.Option(help="Notebook with typed parameters, or the name of one of rbkit's; 90_run."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from an unfinished run there.")] = False,
    timeout: Annotated[int | None, typer.Option(help="Seconds that one cell may take.")] = None,
) -> None:
    """Execute a notebook with parameters of your own, and export it as offline HTML.

    Example: rbkit run --out reports/mine/rnb -p corpus=my.jsonl -p mixer=RnB -p steps=1000
    """
    from rbkit.report.engine import NotebookError, execute
    from rbkit.report.html import notebook_to_html
    from rbkit.report.parameters import declared
    from rbkit.report.sweep.plan import find_template
    from rbkit.text import need_streams

    need_streams()
    given = read_parameters(parameter)
    if resume:
        given["resume"] = True
    notebook = find_template(template or "90_run")
    checked = declared(notebook).check(given)
    label = str(checked.get("mixer") or notebook.stem)
    params = {name: checked[name] for name in given}  # defaults are the notebook's own affair
    try:
        execute(notebook, params, out, timeout=timeout, label=label)
    except NotebookError as error:
        if error.path.exists():
            notebook_to_html(error.path, out / "run.html")
        raise
    page = notebook_to_html(out / "run.ipynb", out / "run.html")
    typer.echo(f"The run: {page.resolve()}\nCompare runs with: rbkit report {out.parent}")


def sweep(
    template: Annotated[Path, typer.Argument(help="Notebook with a typed cell of parameters.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(help='Values to combine: "mixer=Target,RnB seed=0..4"; repeatable.'),
    ] = None,
    parameter: Parameter = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    resume: Annotated[
        bool, typer.Option(help="Skip what is done, go on with the rest; or all anew.")
    ] = True,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one run may take.")] = None,
    retries: Annotated[int, typer.Option(help="Try killed and timed-out runs again.")] = 0,
    gpus: Annotated[str, typer.Option(help="auto, none, or ids such as 0,1.")] = "auto",
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster; local: a new one.")
    ] = None,
    baseline: Baseline = None,
    profile: Annotated[str | None, typer.Option(help="smoke: runs of a few seconds.")] = None,
    pdf: Pdf = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Only list the notebook's parameters.")
    ] = False,
) -> None:
    """Run a notebook once for each point of a grid, and compare the runs on one page.

    A second call skips what is done and goes on with what was killed or failed. Exit code: 0 all
    runs are ok, 1 some are not, 2 wrong input, 130 interrupted.

    Example: rbkit sweep notebooks/90_run.ipynb --grid "mixer=stratified,target,rnb seed=0..4"
    --jobs 2
    """
    if parameters:
        return _list_parameters(template)
    from rbkit.report.sweep.pipeline import sweep as launch

    result = launch(
        template,
        grid or [],
        out,
        parameters=read_parameters(parameter),
        jobs=jobs,
        resume=resume,
        timeout=timeout,
        retries=retries,
        gpus=gpus,
        ray=ray,
        baseline=baseline,
        profile=profile,
        pdf=pdf,
        dry_run=dry_run,
    )
    raise typer.Exit(result.exit_code)


def _list_parameters(template: Path) -> None:
    """Print what may be set, with types, defaults and meaning."""
    import sys

    from rbkit.report.parameters import declared, source_of
    from rbkit.report.sweep.plan import find_template
    from rbkit.report.sweep.status import print_table

    found = declared(find_template(template)).parameters.values()
    rows = [(each.name, each.written, source_of(each.default), each.help) for each in found]
    print_table(("parameter", "type", "default", "meaning"), rows, sys.stdout)


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and keep it up to date.")] = False,
) -> None:
    """Say how a sweep stands, also while it runs.

    Exit code: 0 all runs are ok, 1 some are not and nothing runs, 3 it still runs.
    """
    from rbkit.report.sweep.status import print_status

    raise typer.Exit(print_status(folder, watch=watch))


def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    raw: Annotated[bool, typer.Option("--raw", help="Inner products in place of cosines.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and leave.")] = False,
) -> None:
    """Watch a run in the terminal: Gram matrix, proportions, losses, costs.

    Ctrl-C ends the view, never the run; a file STOP in the run folder ends the run.
    """
    from rbkit.show.live.terminal import watch as look

    raise typer.Exit(look(folder, raw=raw, once=once))


def report(
    runs: Annotated[list[Path], typer.Argument(help="Sweeps, run folders, or folders of them.")],
    out: Annotated[Path | None, typer.Option(help="Page; index.html beside the runs.")] = None,
    baseline: Baseline = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    pdf: Pdf = False,
) -> None:
    """Write one offline page that compares runs, with all its numbers beside it.

    Runs made in a notebook count as much as those of a sweep.
    """
    from rbkit.report.page.page import write_report

    page = write_report(
        runs, out or runs[0] / "index.html", baseline=baseline, title=title, pdf=pdf
    )
    typer.echo(f"The report: {page.resolve()}")
