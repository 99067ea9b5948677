"""``rbkit nb``: notebooks and their masters in step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Keep notebooks and their masters in step.", no_args_is_help=True)


@app.command("build")
def nb_build(root: Annotated[Path, typer.Argument()] = Path("notebooks")) -> None:
    """Make the notebooks from their masters in src/, without outputs."""
    from rbkit.report.notebooks import build

    for path in build(root / "src", root):
        typer.echo(path)


@app.command("check")
def nb_check(root: Annotated[Path, typer.Argument()] = Path("notebooks")) -> None:
    """Say which notebooks are not what their masters give."""
    from rbkit.report.notebooks import check

    problems = check(root / "src", root)
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(1 if problems else 0)


@app.command("pull")
def nb_pull(notebook: Annotated[Path, typer.Argument()]) -> None:
    """Bring edits made in JupyterLab back into the master of a notebook."""
    from rbkit.report.notebooks import pull

    typer.echo(pull(notebook, notebook.parent / "src" / f"{notebook.stem}.py"))
