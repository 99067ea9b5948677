"""The door: ``rbkit doctor | demo | lab | run | sweep | status | watch | report | ...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rbkit.cli import assets, batch, notebooks
from rbkit.cli.given import Parameter, read_parameters
from rbkit.errors import RbkitError

app = typer.Typer(
    help="Regroup a corpus into semantic domains, then balance them while a model trains "
    "(R&B, arXiv 2505.00358).\n\nStart with: rbkit doctor, then rbkit demo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(assets.app, name="assets")
app.add_typer(notebooks.app, name="nb")


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

    page = make(out, overrides=read_parameters(parameter))
    typer.echo(f"\nThe report: {page.resolve()}\nOpen it in a browser; it needs no internet.")


for command in (batch.run, batch.sweep, batch.status, batch.watch, batch.report):
    app.command()(command)


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

    print_table(measure(out, overrides=read_parameters(parameter), mixers=mixer))
    typer.echo(f"\nThe page: {(out / 'index.html').resolve()}")


@app.command()
def lab() -> None:
    """Open JupyterLab on the notebooks."""
    from rbkit.report.notebooks import find_notebook

    folder = find_notebook("00_tour").parent
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", "--notebook-dir", str(folder)])


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
