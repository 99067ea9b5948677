"""From a corpus and its domains to a trained model and a run folder, in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as hf_logging

from rbkit.balance.mixers.base import Mixer, effective_number
from rbkit.balance.signals import FloatArray
from rbkit.data.corpus import about
from rbkit.errors import InputError, as_count, as_number, as_seed
from rbkit.files import check_folder, free_name, json_ready
from rbkit.regroup.domains import Domains
from rbkit.train.checkpoint import complete_checkpoints, latest_checkpoint
from rbkit.train.models import (
    PRESETS,
    PadCollator,
    build_model,
    load_tokenizer,
    positions,
    tokenize,
    train_tokenizer,
)
from rbkit.train.parallel import is_first, wait
from rbkit.train.recorder import (
    MAKE_ROOM,
    RESUME_OR_OVERWRITE,
    Live,
    check_free,
    reserved,
    shows_progress,
    unwritable,
)
from rbkit.train.run import Run
from rbkit.train.trackers import watchers
from rbkit.train.trainer import MixtureTrainer, TrainingError

_FROM_SCRATCH, _FINE_TUNING = 3e-3, 5e-5  # learning rates


def train(
    corpus: Any,
    domains: Domains,
    *,
    run_dir: str | Path,
    mixer: Mixer | str = "RnB",
    model: str = "tiny",
    steps: int = 300,
    round_steps: int = 25,
    batch_size: int = 16,
    accumulate: int = 1,
    context: int = 96,
    vocab_size: int | None = None,
    learning_rate: float | None = None,
    layer: str | Sequence[str] | None = None,
    estimator: Literal["sketch", "exact", "grouped"] = "sketch",
    buckets: int | None = None,
    fraction: float = 1.0,
    eval_rounds: int = 1,
    fidelity_rounds: int = 0,
    checkpoint_rounds: int = 4,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    record: Mapping[str, Any] | None = None,
    save_model: bool = True,
    progress: bool = True,
    live: Live = False,
    report_to: str | Sequence[str] = "none",
) -> Run:
    """Train a causal LM on a mixture of domains; record everything in `run_dir`.

    Parameters
    ----------
    corpus : datasets.DatasetDict
        Splits ``train`` and ``eval`` with a column ``text``.
    domains : Domains
        Of that corpus.
    run_dir : path
        Folder of the run: see :mod:`rbkit.train.recorder`. Its ``run.json`` has all these
        parameters, defaults included, under ``arguments``.
    mixer : Mixer or str
        Rule for the proportions.
    model : str
        A preset trained from scratch (``tiny``, ``small``, ``gpt-neo-125m``) with a BPE
        trained on the corpus, or any causal LM by hub id or path, with its tokenizer. The
        latter is trained in float32, on a GPU under an autocast to bfloat16.
    steps, round_steps : int
        Optimizer steps in all, and between two updates of p.
    batch_size, accumulate : int
        Examples per micro-batch of one process; micro-batches per step.
    context : int
        Tokens per example, at most.
    vocab_size : int, optional
        Vocabulary of a preset.
    learning_rate : float, optional
        Peak of a cosine with 5 % warm-up; 3e-3 from scratch, 5e-5 otherwise.
    layer, estimator, buckets, fraction
        What is tracked and how: see :class:`~rbkit.balance.gram.GramTracker`.
    eval_rounds, checkpoint_rounds : int
        Evaluate, and save a checkpoint, every so many rounds.
    fidelity_rounds : int
        Compare the tracked layer with all parameters every so many rounds; 0 never.
    seed : int
        Of weights, order of examples, and sketches.
    resume : bool
        Continue from the newest checkpoint in `run_dir`, if there is one; a finished run stays as
        it is. So a notebook can be run twice.
    overwrite : bool
        Replace the run in `run_dir`. Without `resume` and `overwrite`, a folder with a run that
        has made a step is refused.
    device : {"cpu", "cuda", "mps"}, optional
        The best one by default.
    record : mapping, optional
        More entries for ``run.json``.
    save_model : bool
        Save the final model and tokenizer in ``run_dir/model``.
    progress : bool
        Show a progress bar, unless a panel shows the same.
    live : bool, {"live", "batch", "final", "off"}, Watcher, or a sequence of them
        Show Gram matrix, proportions, losses and price while training, and one figure at the
        end. True: in the mode that ``$RBKIT_DISPLAY`` names, by default ``live`` in a
        notebook, else ``final``.
    report_to : str or sequence of str
        Trackers to feed, e.g. ``"tensorboard"``: see :mod:`rbkit.train.trackers`.

    Returns
    -------
    Run
        With status ``ok``, or ``interrupted`` after Ctrl-C, SIGTERM, the ■ of a notebook, or a
        file ``STOP`` in the run folder.

    Raises
    ------
    InputError
        For parameters, corpus or domains that cannot work, and for a folder that another process
        writes, or whose run would be lost.
    TrainingError
        If the loss becomes NaN or infinite, or the disk is full.
    """
    arguments = dict(locals())
    run_dir = Path(run_dir)
    if learning_rate is None:
        learning_rate = _FROM_SCRATCH if model in PRESETS else _FINE_TUNING
    at_least_one = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "checkpoint_rounds": checkpoint_rounds,
        "round_steps": round_steps,
        "context": context,
    }
    if vocab_size is not None:
        at_least_one["vocab_size"] = vocab_size
    counts = {
        name: as_count(name, value, least=1, remedy="give at least 1")
        for name, value in at_least_one.items()
    }
    for name in ("eval_rounds", "fidelity_rounds"):
        counts[name] = as_count(name, arguments[name], remedy="0 means never")
    counts["seed"] = seed = as_seed(seed)
    steps, batch_size, accumulate, context = (
        counts[name] for name in ("steps", "batch_size", "accumulate", "context")
    )
    round_steps, checkpoint_rounds = counts["round_steps"], counts["checkpoint_rounds"]
    vocab_size = counts.get("vocab_size")
    arguments |= counts
    learning_rate = as_number("learning_rate", learning_rate, "try 3e-3")
    if not 0 < learning_rate < float("inf"):
        raise InputError("learning_rate", f"{learning_rate} is not a rate", "try 3e-3")
    _check_device(device)
    watching = watchers(live, report_to)
    texts = _texts(corpus, domains)
    checkpoints = run_dir / "checkpoints"
    checkpoint = _checkpoint(run_dir, checkpoints, resume, overwrite)
    # Several processes prepare a run together: the first one's recorder then takes the folder.
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    with reserved(run_dir, replace=resume or overwrite) if alone else nullcontext():
        tokenizer = _tokenizer(model, texts["train"], vocab_size, progress)
        lm = build_model(model, vocab_size=len(tokenizer), context=context, seed=seed)
        if (limit := positions(lm.config)) is not None and context > limit:
            what = f"{context} tokens, but {model} takes {limit}"
            raise InputError("context", what, f"use {limit}")
        data = {split: tokenize(rows, tokenizer, context) for split, rows in texts.items()}
    args = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        seed=seed,
        data_seed=seed,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate,
        per_device_eval_batch_size=4 * batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
        weight_decay=0.1,
        max_grad_norm=1.0,
        save_strategy="steps",
        save_total_limit=2,
        save_steps=max(1, checkpoint_rounds * round_steps),
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        use_cpu=device == "cpu",
        bf16=model not in PRESETS and device in (None, "cuda") and _has_bfloat16(),
        dataloader_num_workers=0,
    )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    trainer = MixtureTrainer(
        lm,
        args,
        train_dataset=data["train"],
        eval_dataset=data["eval"],
        data_collator=PadCollator(int(pad or 0)),
        domains=domains,
        mixer=mixer,
        round_steps=round_steps,
        layer=layer,
        estimator=estimator,
        buckets=buckets,
        fraction=fraction,
        eval_rounds=eval_rounds,
        fidelity_rounds=fidelity_rounds,
        run_dir=run_dir,
        overwrite=resume or overwrite,
        watchers=watching,
        record={
            "corpus": about(corpus),
            "model": {
                "name": model,
                "class": type(lm).__name__,
                "parameters": int(lm.num_parameters()),
                "vocabulary": len(tokenizer),
            },
            **(record or {}),
        },
    )
    trainer.record["arguments"] = _as_recorded(
        {**arguments, "mixer": trainer.mixer, "learning_rate": learning_rate}
    )
    if checkpoint is not None:
        _check_finished(run_dir, checkpoint, trainer.record["arguments"])
    trainer.drops_side_runs, trainer.ways = not resume, RESUME_OR_OVERWRITE
    trainer.record["parameters"] |= {
        "model": model,
        "context": context,
        "vocab_size": len(tokenizer),
        "steps": steps,
        "micro_batch_size": batch_size,
        "accumulate": accumulate,
    }
    wait()  # until all processes have looked for checkpoints
    trainer.remove_callback(PrinterCallback)
    if progress and is_first() and not any(shows_progress(watcher) for watcher in watching):
        trainer.add_callback(
            _ProgressBar(trainer.mixer.name, lambda: (trainer.shown_loss, trainer.mixture.p))
        )
    with without_library_bars():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        run = Run.open(run_dir)
        if save_model and run.status == "ok":
            try:
                _save_model(trainer, tokenizer, run_dir / "model")
            except Exception as error:
                if (why := unwritable(error)) is None:
                    raise
                what = f"{run_dir / 'model'}: cannot be written ({why}); {MAKE_ROOM}"
                trainer.recorder.finish("failed", error=f"TrainingError: {what}")
                raise TrainingError(what) from error
    return run


def _save_model(trainer: MixtureTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    if trainer.is_fsdp_enabled:
        trainer.save_model(str(folder))  # gathers what is sharded
    elif is_first():
        trainer.bare_model.save_pretrained(str(folder))
    if is_first():
        tokenizer.save_pretrained(str(folder))


@contextmanager
def without_library_bars() -> Iterator[None]:
    """Silence the bars that transformers shows whenever it writes a file."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _texts(corpus: Any, domains: Domains) -> dict[str, list[str]]:
    """Return the texts of both splits, checked to be those that the domains were made from."""
    texts = {}
    for split in ("train", "eval"):
        if split not in corpus or "text" not in corpus[split].column_names:
            raise InputError(
                "corpus", f"no split {split!r} with a column 'text'", "load it with rb.load_corpus"
            )
        texts[split] = list(corpus[split]["text"])
        if not texts[split]:
            raise InputError("corpus", f"the split {split!r} is empty", "load more examples")
        blank = next((i for i, text in enumerate(texts[split]) if not text), None)
        if blank is not None:
            raise InputError(
                "corpus", f"row {blank} of {split!r} has no text", "load it with rb.load_corpus"
            )
    check_origin(domains, corpus)
    return texts


def check_origin(domains: Domains, corpus: Any) -> None:
    """Refuse domains that were made from another corpus, or from another split of it."""
    made_from, given = domains.method.get("corpus"), about(corpus)["fingerprint"]
    if made_from is not None and made_from != given:
        raise InputError(
            "domains",
            f"made from the corpus {made_from}, not from this one ({given})",
            "regroup this corpus, or load it with the same seed and sizes as before",
        )


def _check_device(device: str | None) -> None:
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device is not None and not available.get(device, False):
        names = " or ".join(name for name, is_there in available.items() if is_there)
        raise InputError("device", f"{device!r} is not here", f"use {names}, or leave it out")


def _checkpoint(run_dir: Path, checkpoints: Path, resume: bool, overwrite: bool) -> Path | None:
    """Return the checkpoint to continue from, if any; refuse to lose a run that is there."""
    if resume and overwrite:
        raise InputError("overwrite", "is given with resume", "give one of the two")
    check_folder("run_dir", run_dir / "checkpoints")
    check_free(run_dir, replace=resume or overwrite)
    other = f"overwrite=True to replace it, or another folder, such as {free_name(run_dir)}"
    if not (resume or overwrite) and complete_checkpoints(checkpoints):  # and no run.json
        what = f"{run_dir} holds checkpoints of a run"
        raise InputError("run_dir", what, f"give resume=True to continue it, {other}")
    newest = latest_checkpoint(checkpoints) if resume else None
    started = (run_dir / "run.json").exists()
    if resume and newest is None and started and Run.open(run_dir).status == "ok":
        what = f"{run_dir} holds a finished run without checkpoints, which cannot be resumed"
        raise InputError("run_dir", what, f"give {other}")
    return newest


_OF_THE_RESULT = (
    *("model", "steps", "context", "vocab_size", "learning_rate", "estimator"),
    *("buckets", "fraction", "eval_rounds", "fidelity_rounds", "seed"),
)


def _check_finished(run_dir: Path, checkpoint: Path, arguments: Mapping[str, Any]) -> None:
    """Refuse to call a finished run the result of other arguments."""
    recorded = Run.open(run_dir).info
    before = recorded.get("arguments") or {}
    if recorded["status"] != "ok" or arguments["steps"] > int(checkpoint.name.split("-")[1]):
        return
    for name in _OF_THE_RESULT:
        if name in before and before[name] != arguments[name]:
            raise InputError(
                name,
                f"was {before[name]!r} in the finished run in {run_dir}, and is "
                f"{arguments[name]!r} now",
                f"give overwrite=True to replace it, or another folder, such as "
                f"{free_name(run_dir)}",
            )


def _tokenizer(
    model: str, texts: list[str], vocab_size: int | None, progress: bool
) -> PreTrainedTokenizerBase:
    if model in PRESETS:
        size = vocab_size or min(int(PRESETS[model]["vocab_size"]), 8192)
        return train_tokenizer(texts, size, progress=progress and os.isatty(2))
    if vocab_size is not None:
        raise InputError("vocab_size", f"{model} brings its own tokenizer", "leave it out")
    return load_tokenizer(model)


def _has_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _as_recorded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`train` as JSON values, but for the data and the record."""
    values = {k: v for k, v in arguments.items() if k not in ("corpus", "domains", "record")}
    mixer, live = values.pop("mixer"), values["live"]
    views = live if isinstance(live, list | tuple) else [live]
    shown = [view if isinstance(view, bool | str) else type(view).__name__ for view in views]
    values["live"] = shown if isinstance(live, list | tuple) else shown[0]
    return dict(json_ready({"mixer": mixer.name, "mixer_options": mixer.options(), **values}))


class _ProgressBar(TrainerCallback):  # type: ignore[misc]
    """A bar on stderr: loss, and how many domains the mixture effectively has.

    `loss_and_p` gives the last logged loss, or None, and the proportions in force.
    """

    def __init__(
        self, mixer: str, loss_and_p: Callable[[], tuple[float | None, FloatArray]]
    ) -> None:
        self._mixer, self._loss_and_p = mixer, loss_and_p

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            mininterval=1,
            desc=f"training ({self._mixer})",
        )

    def on_step_end(self, *_: Any, **__: Any) -> None:
        loss, p = self._loss_and_p()
        if loss is not None:
            effective = f"{effective_number(p):.1f} effective domains"
            self.bar.set_postfix_str(f"loss {loss:.3f}, {effective}", refresh=False)
        self.bar.update(1)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.bar.close()
