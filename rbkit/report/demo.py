"""The demo: the whole of R&B on a real corpus, from texts to one page that compares mixers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbkit.balance.mixers.registry import mixer_by_name
from rbkit.errors import InputError
from rbkit.files import check_folder, free_name
from rbkit.report.engine import NotebookError
from rbkit.report.html import run_notebook
from rbkit.report.job import load_inputs
from rbkit.report.notebooks import find_notebook
from rbkit.report.page.page import write_report
from rbkit.report.parameters import RunParameters
from rbkit.text import say, value_text
from rbkit.train.recorder import Recorder
from rbkit.train.run import Run

MIXERS = ("Stratified", "Target", "RnB")

# An eval set that is not the corpus' own mix: this is where balancing has something to do.
TARGET = {"recipes": 0.3, "Biology and health sciences": 0.4, "code": 0.2, "Everyday life": 0.1}

SETTINGS: dict[str, Any] = {
    "corpus": "demo",
    "eval_sources": TARGET,
    "eval_size": 600,
    "embedder": "minilm",
    "max_tokens": 64,
    "k": (4, 6, 8, 10, 12, 16, 20, 24),
    "model": "tiny",
    "steps": 300,
    "round_steps": 25,
}

INTRO = (
    "The corpus is Wikipedia leads of eleven topics, recipes and small programs. The model is "
    "wanted for something else than their natural mix: 40 % biology, 30 % recipes, 20 % code, "
    "10 % everyday life. Three mixers train the same model from the same start."
)


def demo(
    out: str | Path = "reports/demo",
    *,
    overrides: Mapping[str, Any] | None = None,
    mixers: tuple[str, ...] = MIXERS,
    progress: bool = True,
) -> Path:
    """Regroup the demo corpus, train once with each mixer, and write ``out/index.html``.

    Embeddings are cached, so a second call takes only the training time.

    Parameters
    ----------
    out : path
        Folder of the report; runs go to ``out/runs``.
    overrides : mapping, optional
        Parameters of the runs to change, such as ``{"steps": 100}``.
    mixers : tuple of str
        Rules to compare.
    progress : bool
        Report progress on stderr.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If a parameter, the corpus or an asset is at fault.
    NotebookError
        If a run did not come to its end; the page is written all the same.
    """
    out, began = Path(out), time.monotonic()
    check_folder("out", out)
    for mixer in mixers:
        mixer_by_name(mixer)
    template = find_notebook("90_run")
    settings = RunParameters.from_mapping({**SETTINGS, **(overrides or {})})
    shared = settings.resolved()

    def tell(text: str) -> None:
        if progress:
            say(f"[{time.monotonic() - began:4.0f} s] {text}")

    tell(f"corpus and domains: {shared.corpus}, embedded with {shared.embedder} (cached)")
    for mixer in mixers:
        _check_own(out / "runs" / mixer, mixer, shared)
    _, domains = load_inputs(shared, progress=progress)
    domains.save(out / "domains")
    errors = []
    for number, mixer in enumerate(mixers, 1):
        tell(f"run {number} of {len(mixers)}: {mixer}, {shared.steps} steps")
        run_dir = out / "runs" / mixer
        folder = "" if settings.profile == "smoke" else str(out / "domains")
        values = {**settings.to_dict(), "mixer": mixer, "domains": folder, "overwrite": True}
        (run_dir / "run.json").unlink(missing_ok=True)  # no result of an earlier call
        try:
            run_notebook(
                template,
                values,
                run_dir,
                title=f"{mixer} · rbkit",
                progress=progress,
                label=mixer,
            )
        except NotebookError as error:
            errors.append(error)
            tell(f"{mixer} stopped: {error}")
            if not (run_dir / "run.json").exists():  # it failed before training could begin one
                recorder = Recorder(run_dir)
                recorder.start(parameters=values)
                recorder.finish("failed", error=str(error))
    tell("writing the report")
    ours = (shared.corpus, shared.eval_sources) == ("demo", TARGET)
    page = write_report(
        [out / "runs" / mixer for mixer in mixers],
        out / "index.html",
        title="R&B in one page",
        intro=INTRO if ours else "",
        progress=progress,
    )
    if errors:
        raise errors[0]
    tell(f"done: {page}")
    return page


def _check_own(run_dir: Path, mixer: str, shared: RunParameters) -> None:
    """Refuse a folder with a run that this call would not make again."""
    if not (run_dir / "run.json").exists():
        return
    recorded = Run.open(run_dir).info["parameters"]
    wanted = {**shared.to_dict(), "mixer": mixer}
    recorded = {**RunParameters().to_dict(), **recorded}  # an older one has fewer
    for name in ("corpus", "eval_sources", "eval_size", "embedder", "k", "mixer", *_OF_TRAINING):
        if recorded.get(name) != wanted[name]:
            what = f"holds another run, with {name} {value_text(recorded.get(name))}"
            raise InputError(
                str(run_dir), what, f"give --out, such as {free_name(run_dir.parents[1])}"
            )


_OF_TRAINING = (
    *("model", "steps", "round_steps", "seed", "context", "batch_size", "learning_rate"),
    *("training_args", "completion_only_loss", "packing", "trainable_layers"),
)
