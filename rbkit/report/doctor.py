"""What is installed, which device is used, which assets are there, and whether it all works."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata

from rich.console import Console
from rich.markup import escape

from rbkit.files import cache_dir
from rbkit.text import one_line

_PACKAGES = (
    "rbkit",
    "torch",
    "transformers",
    "datasets",
    "sentence-transformers",
    "faiss-cpu",
    "scikit-learn",
    "umap-learn",
    "hdbscan",
    "jupyterlab",
    "ipywidgets",
    "papermill",
    "matplotlib",
    "seaborn",
)
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # rbkit's __init__ sets one


def examine(*, smoke: bool = True) -> bool:
    """Print the state of this machine for rbkit; return whether everything works."""
    console = Console(highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        console.print(one_line(text))

    installed, missing = [], []
    for name in _PACKAGES:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    say("[bold]Installed[/]  " + ", ".join(installed))
    if missing:
        say(f"[red]Missing[/]    {', '.join(missing)}; install with: pip install -e .")
    _device(say)
    _assets(say)
    return (_smoke(say) if smoke else True) and not missing


def _device(say: Callable[..., None]) -> None:
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        say(f"[bold]Device[/]     {name}, {memory:.0f} GiB")
    elif torch.backends.mps.is_available():
        say("[bold]Device[/]     Apple GPU (mps)")
    else:
        say(f"[bold]Device[/]     CPU, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    set_to = [f"{name}={os.environ[name]}" for name in _WAITING if name in os.environ]
    say(
        f"[bold]Waiting[/]    {', '.join(set_to)}: threads that wait leave their cores to other "
        "programs; in a notebook, if rbkit is imported before torch, faiss and scikit-learn"
    )
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    say(f"[bold]Browser[/]    {browser or 'none (only tests need it)'}")


def _assets(say: Callable[..., None]) -> None:
    from rbkit.data.assets import status

    cache = cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    say(f"[bold]Cache[/]      {escape(str(cache))}, {free:.0f} GiB free")
    for row in status():
        if row["problem"]:
            state = f"[red]{escape(str(row['problem']))}[/]"
        elif row["cached"]:
            state = "[green]cached[/]"
        else:
            state = f"not cached; rbkit assets get {row['asset']} ({row['size_mb']:.0f} MB)"
        say(f"           {row['asset']:<8} {state} · {row['what']} · {row['licence']}")


def _smoke(say: Callable[..., None]) -> bool:
    import rbkit as rb
    from rbkit.report.job import load_inputs, train_options
    from rbkit.report.parameters import RunParameters

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rbkit-doctor-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = RunParameters(corpus="docstrings", profile="smoke", run_dir=folder, overwrite=True)
        params = given.resolved()
        corpus, domains = load_inputs(params, progress=False)
        run = rb.train(corpus, domains, **train_options(params), progress=False)
        loss, rounds = run.info["final"]["loss_token"], len(run.history["step"])
    took = time.perf_counter() - began
    works = run.status == "ok" and rounds > 0
    say(
        f"[bold]Smoke run[/]  [{'green]works' if works else 'red]failed'}[/]: {domains.m} domains "
        f"of {len(corpus['train'])} docstrings, {rounds} rounds, eval loss {loss:.2f}, {took:.1f} s"
    )
    return works
