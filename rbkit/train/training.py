"""From a corpus and its domains to a trained model and a run folder, in one call."""

from __future__ import annotations

import copy
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow.compute as pc
import torch
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProcessorMixin,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as hf_logging

from rbkit.balance.gram import find_layer
from rbkit.balance.mixers.base import Mixer, effective_number
from rbkit.balance.signals import FloatArray
from rbkit.data.columns import has_images
from rbkit.data.corpus import about
from rbkit.errors import InputError, RbkitError, RbkitWarning, as_count, as_number, as_seed
from rbkit.files import check_folder, free_name, json_ready
from rbkit.regroup.domains import Domains
from rbkit.regroup.weights import repetition
from rbkit.text import listed, nearest, progress_bar
from rbkit.train.checkpoint import complete_checkpoints, latest_checkpoint
from rbkit.train.contrastive import (
    PairCollator,
    caption_rows,
    contrastive_losses,
    image_processor,
    pair_processor,
)
from rbkit.train.losses import IGNORED
from rbkit.train.metrics import GenerationMetric, Metric, as_metrics, described
from rbkit.train.models import (
    PRESETS,
    PackCollator,
    PadCollator,
    build_model,
    copy_model,
    freeze_all_but_last,
    is_contrastive,
    load_tokenizer,
    positions,
    separates,
    tokenize,
    tokenize_completions,
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
    model: str | os.PathLike[str] | torch.nn.Module = "tiny",
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    trainable_layers: int | None = None,
    steps: int = 300,
    round_steps: int = 25,
    batch_size: int = 16,
    accumulate: int = 1,
    context: int = 96,
    completion_only_loss: bool = False,
    packing: bool = False,
    vocab_size: int | None = None,
    learning_rate: float | None = None,
    training_args: Mapping[str, Any] | None = None,
    layer: str | Sequence[str] | None = None,
    estimator: Literal["sketch", "exact", "grouped"] = "sketch",
    buckets: int | None = None,
    fraction: float = 1.0,
    eval_rounds: int = 1,
    fidelity_rounds: int = 0,
    metrics: Mapping[str, Metric | str] | Sequence[str] | None = None,
    metric_rounds: int | None = None,
    metric_examples: int | None = None,
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
    callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
) -> Run:
    """Train a causal LM, or a CLIP, on a mixture of domains; record everything in `run_dir`.

    Parameters
    ----------
    corpus : datasets.DatasetDict
        Splits ``train`` and ``eval`` with a column ``text``; for a CLIP also ``image``, of which
        the text is the caption.
    domains : Domains
        Of that corpus.
    run_dir : path
        Folder of the run: see :mod:`rbkit.train.recorder`. Its ``run.json`` has all these
        parameters, defaults included, under ``arguments``.
    mixer : Mixer or str
        Rule for the proportions.
    model : str, path, PreTrainedModel or PeftModel
        A preset trained from scratch (``tiny``, ``small``, ``gpt-neo-125m``) with a BPE
        trained on the corpus, or any causal LM by hub id or path, with its tokenizer. The
        latter is trained in float32, on a GPU under an autocast to bfloat16. Of a model that is
        given as an object a copy is trained, in the dtype that it has: the object stays as it
        is, and ``run_dir/model`` holds the trained one (of a PeftModel, the adapters).
        Or a model of images and captions: ``clip-tiny`` from scratch, CLIP or SigLIP by id or
        path, or as an object. Its loss is :func:`rbkit.train.contrastive_losses`, of training and
        eval batches of `batch_size` pairs; both of its projections are tracked.
    tokenizer : PreTrainedTokenizerBase or ProcessorMixin, optional
        In place of the model's own; a model that is given as an object needs it. A processor, such
        as ``CLIPProcessor``, is a tokenizer and what makes pixels of images; with a tokenizer
        alone, images of such an object are prepared as CLIP's are.
    trainable_layers : int, optional
        Train only the last so many blocks and the head (with the input embedding, where that
        shares the head's weights); by default all weights, or those that are not frozen.
    steps, round_steps : int
        Optimizer steps in all, and between two updates of p.
    batch_size, accumulate : int
        Examples per micro-batch of one process, packed or not; micro-batches per step.
    context : int
        Tokens per example, at most; of a caption no more than the model takes.
    completion_only_loss : bool
        Train on the columns ``prompt`` and ``completion`` of the corpus in place of ``text``, with
        the loss of completions only: see :func:`~rbkit.train.models.tokenize_completions`.
        Examples without a token to be predicted are not drawn.
    packing : bool
        Put the examples of a micro-batch, uncut, into as few rows of `context` tokens as they fit,
        in place of a padded row each: the same steps with less padding, so that a larger
        `batch_size` fills the rows. Shares, counts and rounds are of examples as ever. No token
        is predicted from, or attends to, another example; a model that cannot be kept from the
        latter (with ALiBi, or a state that is carried on) is trained with a warning.
        ``run.json`` has the input that separates them. Evaluation is not packed.
    vocab_size : int, optional
        Vocabulary of a preset.
    learning_rate : float, optional
        Peak of a cosine with 5 % warm-up; 3e-3 from scratch (1e-3 of ``clip-tiny``), 5e-5
        otherwise.
    training_args : mapping, optional
        More arguments of ``transformers.TrainingArguments``, e.g. ``{"weight_decay": 0.0,
        "max_grad_norm": 0.5, "lr_scheduler_type": "linear", "bf16": True}``. Those that an option
        above decides, and those that would decide nothing, are refused.
    layer, estimator, buckets, fraction
        What is tracked and how: see :class:`~rbkit.balance.gram.GramTracker`.
    eval_rounds, checkpoint_rounds : int
        Evaluate, and save a checkpoint, every so many rounds.
    fidelity_rounds : int
        Compare the tracked layer with all parameters every so many rounds; 0 never.
    metrics : mapping of str to callable, or sequence of str, optional
        Functions ``fn(model, rows)`` that return a number for each row; `rows` is a
        ``datasets.Dataset``, those rows of ``corpus["eval"]`` that are asked, with all of their
        columns. Or names of metrics of :mod:`rbkit.train.metrics`: ``exact_match`` and
        ``token_f1`` of what the model writes after ``prompt``, compared with ``completion``;
        ``recall_at_1`` and ``recall_at_5`` of captions, of images among those that are asked.
        See :class:`~rbkit.train.MixtureTrainer`.
    metric_rounds, metric_examples : int, optional
        Evaluate metrics every so many rounds, as often as losses by default; on at most so many
        of the eval examples, all by default.
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
    callbacks : sequence of TrainerCallback
        For the trainer; not for the side runs of a mixer.

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
    tokenizer, to_pixels = _parts(tokenizer)
    model = arguments["model"] = os.fspath(model) if isinstance(model, os.PathLike) else model
    _check_tokenizer(model, tokenizer, vocab_size)
    from_scratch = isinstance(model, str) and model in PRESETS
    if learning_rate is None:
        learning_rate = _FINE_TUNING
        if from_scratch:
            learning_rate = PRESETS[str(model)].get("learning_rate", _FROM_SCRATCH)
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
    if trainable_layers is not None:
        trainable_layers = as_count("trainable_layers", trainable_layers, remedy="0: the head only")
        arguments["trainable_layers"] = trainable_layers
    if not metrics and (metric_rounds, metric_examples) != (None, None):
        name = "metric_examples" if metric_rounds is None else "metric_rounds"
        raise InputError(name, "decides nothing without metrics", "give metrics too")
    named = as_metrics(metrics, "to come" if tokenizer is None else tokenizer, "to come")
    given = arguments["training_args"] = check_training_args(training_args)
    callbacks = arguments["callbacks"] = _callbacks(callbacks)
    _check_device(device)
    watching = watchers(live, report_to)
    texts = _texts(corpus, domains)
    if _of_type("completion_only_loss", completion_only_loss, bool):
        _check_completions(corpus)
    _check_metric_columns(named, corpus)
    packing = arguments["packing"] = bool(_of_type("packing", packing, bool))
    if packing and given.get("use_cache"):
        what = "lets tokens attend to the examples that are packed before theirs"
        raise InputError("use_cache", what, "leave it out, or packing")
    checkpoints = run_dir / "checkpoints"
    checkpoint = _checkpoint(run_dir, checkpoints, resume, overwrite)
    # Several processes prepare a run together: the first one's recorder then takes the folder.
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    with reserved(run_dir, replace=resume or overwrite) if alone else nullcontext():
        if tokenizer is None:
            assert isinstance(model, str)
            tokenizer = _tokenizer(model, texts["train"], vocab_size, progress)
        if isinstance(model, str):
            lm = build_model(model, vocab_size=len(tokenizer), context=context, seed=seed)
        else:
            lm = copy_model(model)
        if pairs := is_contrastive(lm.config):
            _check_pairs(corpus, completion_only_loss, packing)
            limit = positions(lm.config)
            context = min(context, limit or context)
            source = None if from_scratch or not isinstance(model, str) else model
            to_pixels = image_processor(lm.config, source, to_pixels)
        elif to_pixels is not None:
            what = f"{_named(model)} takes no images, but a processor is given"
            raise InputError("tokenizer", what, "give the tokenizer alone")
        if trainable_layers is not None:
            freeze_all_but_last(lm, trainable_layers)
            _check_layer(lm, layer, trainable_layers)
        if (limit := positions(lm.config)) is not None and context > limit:
            what = f"{context} tokens, but {_named(model)} takes {limit}"
            raise InputError("context", what, f"use {limit}")
        data = {
            split: tokenize_completions(*_pairs(corpus[split]), tokenizer, context)
            if completion_only_loss
            else caption_rows(corpus[split], tokenizer, context)
            if pairs
            else tokenize(rows, tokenizer, context)
            for split, rows in texts.items()
        }
        if completion_only_loss:
            domains = _with_loss(domains, data)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    pad = int(pad or 0)
    _check_vocabulary(lm, data, pad)
    by = _separated_by(lm, len(tokenizer)) if packing else None
    collator: Any = PairCollator(pad, to_pixels) if pairs else PadCollator(pad)
    pack = PackCollator(pad, context, masks=by == "attention_mask")
    processor = pair_processor(tokenizer, collator, context) if pairs else None
    named = as_metrics(metrics, tokenizer, processor)
    library: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "max_steps": steps,
        "seed": seed,
        "data_seed": seed,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulate,
        # A contrastive loss depends on it: that of training and of evaluation then compare.
        "per_device_eval_batch_size": batch_size if pairs else 4 * batch_size,
        "remove_unused_columns": not pairs,  # the images, of which pixels are made
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, steps // 20),
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "save_steps": max(1, checkpoint_rounds * round_steps),
        # The record has the losses; the library's own log is for callbacks.
        "logging_strategy": "steps" if any(n.startswith("logging_") for n in given) else "no",
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "use_cpu": device == "cpu" or not torch.accelerator.is_available(),
        "bf16": not from_scratch
        and device in (None, "cuda")
        and _has_bfloat16()
        and not given.get("fp16"),
        "dataloader_num_workers": 0,
    }
    with _refused_by_library(given):
        args = TrainingArguments(**{**library, **_present_names(given)})
        _check_obeyed(args, given, lm)
        trainer = MixtureTrainer(
            lm,
            args,
            train_dataset=data["train"],
            eval_dataset=data["eval"],
            data_collator=pack if packing else collator,
            eval_collator=collator,
            loss_of=contrastive_losses if pairs else None,
            domains=domains,
            mixer=mixer,
            round_steps=round_steps,
            layer=layer,
            estimator=estimator,
            buckets=buckets,
            fraction=fraction,
            eval_rounds=eval_rounds,
            fidelity_rounds=fidelity_rounds,
            metrics=named,
            metric_rounds=metric_rounds,
            metric_examples=metric_examples,
            metric_dataset=corpus["eval"] if metrics else None,
            run_dir=run_dir,
            overwrite=resume or overwrite,
            watchers=watching,
            callbacks=callbacks,
            record={
                "corpus": about(corpus),
                "model": {
                    "name": model if isinstance(model, str) else _name_of(model),
                    "class": type(lm).__name__,
                    "parameters": int(lm.num_parameters()),
                    "trainable": sum(w.numel() for w in lm.parameters() if w.requires_grad),
                    "vocabulary": len(tokenizer),
                },
                **({"packing": {"separated_by": by}} if packing else {}),
                **(record or {}),
            },
        )
        if given and not trainer.is_fsdp_enabled:
            # What the optimizer and the schedule do not take is refused before the run begins.
            trainer.create_optimizer_and_scheduler(steps)
            trainer.optimizer = trainer.lr_scheduler = None
    trainer.record["arguments"] = as_recorded(
        {**arguments, "mixer": trainer.mixer, "learning_rate": learning_rate}
    )
    if checkpoint is not None:
        _check_resumed(run_dir, checkpoint, trainer.record)
    elif is_first():
        _warn_of_repetition(trainer)
    trainer.drops_side_runs, trainer.ways = not resume, RESUME_OR_OVERWRITE
    trainer.record["parameters"] |= {
        "model": trainer.record["arguments"]["model"],
        "context": context,
        "vocab_size": len(tokenizer),
        "steps": steps,
        "micro_batch_size": batch_size,
        "accumulate": accumulate,
    }
    for name in ("trainable_layers", "training_args", "completion_only_loss", "packing"):
        if asked := trainer.record["arguments"][name]:
            trainer.record["parameters"].setdefault(name, asked)
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
                _save_model(trainer, [tokenizer, *([to_pixels] * pairs)], run_dir / "model")
            except Exception as error:
                if (why := unwritable(error)) is None:
                    raise
                what = f"{run_dir / 'model'}: cannot be written ({why}); {MAKE_ROOM}"
                trainer.recorder.finish("failed", error=f"TrainingError: {what}")
                raise TrainingError(what) from error
    return run


def _warn_of_repetition(trainer: MixtureTrainer) -> None:
    """Warn of domains that the first mixture would read over and over."""
    rule, sampler = trainer.mixture.mixer, trainer.mixture.sampler
    if rule.max_epochs is not None or rule.knows_repetition:
        return
    epochs = sampler.p * (rule.budget or 0) / np.maximum(sampler.sizes, 1)
    if message := repetition(trainer.domains.names, epochs):
        # At the caller of rb.train.
        warnings.warn(f"{rule.name} begins so that {message}", RbkitWarning, stacklevel=4)


def _save_model(trainer: MixtureTrainer, prepare: Sequence[Any], folder: Path) -> None:
    if trainer.is_fsdp_enabled:
        trainer.save_model(str(folder))  # gathers what is sharded
    elif is_first():
        trainer.bare_model.save_pretrained(str(folder))
    for part in prepare if is_first() else ():  # tokenizer, and what makes pixels
        part.save_pretrained(str(folder))


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
    domains.check_origin(corpus)
    if own := [name for name in ("input_ids", "labels") if name in corpus["train"].column_names]:
        message = f"corpus: its columns {listed(own)} are not used: texts are tokenised anew"
        warnings.warn(message, RbkitWarning, stacklevel=3)
    return texts


def _check_pairs(corpus: Any, completion_only_loss: bool, packing: bool) -> None:
    if packing:
        raise InputError("packing", "images and captions are not packed", "leave it out")
    if completion_only_loss:
        what = "captions have no prompt that could be left out"
        raise InputError("completion_only_loss", what, "leave it out for this model")
    for split in ("train", "eval"):
        if not has_images(corpus[split].features):
            what = f"the split {split!r} has no column 'image' of images, which the model needs"
            raise InputError("corpus", what, "load it with rb.load_corpus(..., image=...)")


def _parts(given: Any) -> tuple[Any, Any]:
    """Return the tokenizer of what was given, and what makes pixels of images, if it has both."""
    if isinstance(given, ProcessorMixin):
        return getattr(given, "tokenizer", given), getattr(given, "image_processor", None)
    return given, None


def _check_completions(corpus: Any) -> None:
    for split in ("train", "eval"):
        for name in ("prompt", "completion"):
            if name not in corpus[split].column_names:
                what = f"the split {split!r} of the corpus has no column {name!r}"
                remedy = "give columns prompt and completion, beside text, or leave it out"
                raise InputError("completion_only_loss", what, remedy)
            for i, value in enumerate(corpus[split][name]):
                messages = isinstance(value, list) and all(map(_is_message, value))
                if not (messages or isinstance(value, str)):
                    what = f"row {i} of {split!r} has {repr(value)[:60]} as its {name}"
                    raise InputError("corpus", what, "give text, or messages with role and content")


def _check_metric_columns(metrics: Mapping[str, Metric], corpus: Any) -> None:
    """Refuse metrics of answers where the eval examples have no prompts, or no answers."""
    for name, metric in metrics.items():
        if isinstance(metric, GenerationMetric):
            for column in (metric.prompt, metric.reference):
                if column not in corpus["eval"].column_names:
                    what = f"the split 'eval' of the corpus has no column {column!r}"
                    remedy = "give GenerationMetric(..., prompt=, reference=) the columns it has"
                    raise InputError(f"metric {name}", what, remedy)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and {"role", "content"} <= value.keys()


def _pairs(rows: Any) -> tuple[list[Any], list[Any]]:
    return list(rows["prompt"]), list(rows["completion"])


def _with_loss(domains: Domains, data: Mapping[str, Any]) -> Domains:
    """Return the domains without training examples that have no token to be predicted."""
    bare = {}
    for split, rows in data.items():
        # The first token of a row is not predicted, whatever its label.
        bare[split] = np.array([all(x == IGNORED for x in row[1:]) for row in rows["labels"]])
        labels = np.asarray(getattr(domains, f"{split}_labels"))
        for i, name in enumerate(domains.names):
            if (mine := labels == i).any() and bare[split][mine].all():
                what = f"no {split} example of {name!r} has a token of a completion to be predicted"
                raise InputError("domains", what, "merge or drop it, or give its completions")
    number = sum(int(each.sum()) for each in bare.values())
    if number and os.environ.get("RANK", "0") == "0":  # one of several processes says it
        warnings.warn(
            f"completion_only_loss: {number} of {sum(map(len, bare.values()))} examples have no "
            "token of a completion to be predicted: they are not drawn, and count in no loss",
            RbkitWarning,
            stacklevel=3,
        )
    labels = np.where(bare["train"], -1, domains.train_labels)
    return replace(domains, train_labels=labels, material=None) if bare["train"].any() else domains


def _separated_by(model: Any, vocabulary: int) -> str | None:
    """Return the input that keeps packed examples apart, and warn where there is none."""
    by = separates(model, vocabulary)
    if by is None and os.environ.get("RANK", "0") == "0":
        warnings.warn(
            f"packing: tokens of {type(model).__name__} attend to the examples that are packed "
            "before theirs: it is kept from that by neither position_ids nor an attention_mask",
            RbkitWarning,
            stacklevel=3,
        )
    return by


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


_OF_THE_STATE = ("trainable_layers", "training_args")  # of the optimizer's, in a checkpoint
_OF_THE_RESULT = (
    *_OF_THE_STATE,
    *("model", "tokenizer", "completion_only_loss", "packing", "steps", "context", "vocab_size"),
    *("learning_rate", "estimator"),
    *("buckets", "fraction", "eval_rounds", "fidelity_rounds", "seed"),
    *("metrics", "metric_rounds", "metric_examples"),
)


def _check_resumed(run_dir: Path, checkpoint: Path, record: Mapping[str, Any]) -> None:
    """Refuse to continue another model's run, or to call a finished one the result of others."""
    recorded, now = Run.open(run_dir).info, record["arguments"]
    before = recorded.get("arguments") or {}
    finished = recorded["status"] == "ok" and now["steps"] <= int(checkpoint.name.split("-")[1])
    ways = f"give overwrite=True to replace it, or another folder, such as {free_name(run_dir)}"
    which = "the finished run" if finished else "the run"
    for name in _OF_THE_RESULT if finished else _OF_THE_STATE:
        if name in before and before[name] != now[name]:
            what = f"was {before[name]!r} in {which} in {run_dir}, and is {now[name]!r} now"
            raise InputError(name, what, ways)
    theirs, mine = recorded.get("model") or {}, record["model"]
    for name in ("class", "parameters", "trainable", "vocabulary"):
        if name in theirs and theirs[name] != mine[name]:
            what = f"its {name} was {theirs[name]!r} in {which} in {run_dir}, not {mine[name]!r}"
            raise InputError("model", what, f"resume with the same model; {ways}")


def _check_tokenizer(model: Any, tokenizer: Any, vocab_size: int | None) -> None:
    """Refuse a tokenizer that is missing, is not one, or leaves nothing of `vocab_size`."""
    remedy = "give tokenizer=AutoTokenizer.from_pretrained(...)"
    if tokenizer is None:
        if not isinstance(model, str):
            what = f"a {type(model).__name__} that is given as an object brings none"
            raise InputError("tokenizer", what, remedy)
    elif not isinstance(tokenizer, PreTrainedTokenizerBase):
        what = f"{type(tokenizer).__name__} is not a tokenizer of transformers"
        raise InputError("tokenizer", what, remedy)
    elif vocab_size is not None:
        raise InputError("vocab_size", "the tokenizer that is given has its own", "leave it out")


def _tokenizer(
    model: str, texts: list[str], vocab_size: int | None, progress: bool
) -> PreTrainedTokenizerBase:
    if model in PRESETS:
        size = vocab_size or min(int(PRESETS[model]["vocab_size"]), 8192)
        return train_tokenizer(texts, size, progress=progress and os.isatty(2))
    if vocab_size is not None:
        raise InputError("vocab_size", f"{model} brings its own tokenizer", "leave it out")
    return load_tokenizer(model)


def _check_vocabulary(model: Any, data: Mapping[str, Any], pad: int) -> None:
    """Refuse tokens that the model has no embedding for: of another model's tokenizer."""
    with suppress(NotImplementedError):  # the library does not know where this one has it
        n_rows = int(model.get_input_embeddings().weight.shape[0])
        ids = [pc.list_flatten(rows.data.column("input_ids")) for rows in data.values()]
        if (token := max(pad, *(pc.max(each).as_py() or 0 for each in ids))) >= n_rows:
            what = f"has a token {token}, but the model has embeddings of {n_rows}"
            remedy = "give the model's own, or model.resize_token_embeddings(len(tokenizer)) first"
            raise InputError("tokenizer", what, remedy)


def _check_layer(model: Any, layer: str | Sequence[str] | None, trainable_layers: int) -> None:
    """Refuse to track a layer that is not trained: its gradients say nothing of the run's."""
    for name in (layer,) if isinstance(layer, str) else layer or ():
        if not any(weight.requires_grad for weight in find_layer(model, name).parameters()):
            what = f"{name!r} is not trained with trainable_layers={trainable_layers}"
            raise InputError("layer", what, "track a layer that is, or leave it out for the head")


# Arguments of the library's trainer that rb.train decides: by which option of its own.
_OPTION = {
    "output_dir": "run_dir",
    **dict.fromkeys(("max_steps", "num_train_epochs"), "steps"),
    **dict.fromkeys(("seed", "data_seed"), "seed"),
    **dict.fromkeys(("per_device_train_batch_size", "auto_find_batch_size"), "batch_size"),
    "gradient_accumulation_steps": "accumulate",
    "learning_rate": "learning_rate",
    **dict.fromkeys(("save_strategy", "save_steps"), "checkpoint_rounds"),
    "use_cpu": "device",
    "disable_tqdm": "progress",
    **dict.fromkeys(("resume_from_checkpoint", "ignore_data_skip"), "resume"),
    **dict.fromkeys(("report_to", "run_name", "project", "trackio_space_id"), "report_to"),
    **dict.fromkeys(("trackio_bucket_id", "trackio_static_space_id"), "report_to"),
}
# Those that would decide nothing: and why.
_IDLE = {
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "they are for scripts"),
    **dict.fromkeys(
        ("remove_unused_columns", "label_names", "length_column_name"),
        "rb.train makes the columns",
    ),
    **dict.fromkeys(
        (
            *("prediction_loss_only", "include_for_metrics", "batch_eval_metrics"),
            *("eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps"),
        ),
        "rb.train has no compute_metrics",
    ),
    "local_rank": "torchrun sets it",
    "hub_token": "a run records its arguments; log in with `hf auth login`, or set $HF_TOKEN",
}
# Those that need another one.
_NEEDS = {
    **dict.fromkeys(("eval_steps", "eval_delay", "metric_for_best_model"), "eval_strategy"),
    "greater_is_better": "metric_for_best_model",
    **dict.fromkeys(("logging_steps", "logging_first_step"), "logging_strategy"),
    "activation_checkpointing_kwargs": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "liger_kernel_config": "use_liger_kernel",
    **dict.fromkeys(
        (
            *("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push"),
            "hub_revision",
        ),
        "push_to_hub",
    ),
}


def check_training_args(given: Any) -> dict[str, Any]:
    """Return the `training_args` of :func:`train`, checked by name and type."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        what = f"{type(given).__name__} is not a dict"
        raise InputError("training_args", what, "give a dict, such as {'weight_decay': 0.0}")
    known = {field.name: field for field in fields(TrainingArguments) if field.init}
    values = dict(given)
    for name, value in values.items():
        if name not in known:
            close = nearest(name, known)
            remedy = f"did you mean {close}?" if close else "see its documentation"
            what = "transformers.TrainingArguments has no such argument"
            raise InputError(str(name), what, remedy)
        if name in _OPTION:
            what = "cannot be given in training_args: rb.train sets it"
            raise InputError(name, what, f"give {_OPTION[name]}= to rb.train in its place")
        if name in _IDLE:
            what = f"cannot be given in training_args: {_IDLE[name]}"
            raise InputError(name, what, "leave it out")
        needed = _NEEDS.get(name)
        without = None if needed != "logging_strategy" else "steps"  # which it then is
        if needed and values.get(needed, without) in (None, False, "no"):
            what = f"decides nothing without {needed}"
            raise InputError(name, what, f"give {needed} too, or leave it out")
        values[name] = _of_type(name, value, known[name].type)
    return values


def _of_type(name: str, value: Any, hint: Any) -> Any:
    """Return a number or a truth value as such; the library itself checks neither type nor sign."""
    kinds = set(get_args(hint) or (hint,))
    if value is None and type(None) in kinds:
        return value
    kind = next((each for each in (bool, int, float) if kinds - {type(None)} == {each}), None)
    if kind is bool:
        if not isinstance(value, bool | np.bool_):
            raise InputError(name, f"{value!r} is not a truth value", "give True or False")
        return bool(value)
    if kind is int:
        return as_count(name, value, least=int(name.startswith("per_device_")))
    if kind is float:
        smoothing = name == "label_smoothing_factor"
        remedy = "give a number " + ("from 0 to 1" if smoothing else "of 0 or more")
        number = as_number(name, value, remedy)
        if not 0 <= number <= (1 if smoothing else sys.float_info.max):
            raise InputError(name, f"{value} is out of range", remedy)
        return value if isinstance(value, int) else number
    return value


def _present_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` under the names that the library does not warn of, where it has them."""
    known = {field.name for field in fields(TrainingArguments)}
    renamed = {name: name.replace("gradient_ch", "activation_ch") for name in given}
    return {new if new in known else old: given[old] for old, new in renamed.items()}


def _check_obeyed(args: TrainingArguments, given: Mapping[str, Any], model: Any) -> None:
    """Refuse arguments that the library has no use for with this optimizer, schedule or device."""
    schedule = args.lr_scheduler_type.value
    if given.get("warmup_steps") and schedule in ("constant", "reduce_lr_on_plateau"):
        what = f"decides nothing with lr_scheduler_type={schedule!r}"
        raise InputError("warmup_steps", what, "leave it out, or use 'constant_with_warmup'")
    if args.fp16 and args.device.type == "cpu":
        raise InputError("fp16", "a CPU does not train in it", "give {'bf16': True}, or a GPU")
    for name in ("optim_args", "optim_target_modules"):
        if given.get(name):
            without = copy.copy(args)
            setattr(without, name, None)
            made_by, idle = MixtureTrainer.get_optimizer_cls_and_kwargs, False
            with suppress(ValueError):  # it is needed, then
                idle = made_by(args, model) == made_by(without, model)
            if idle:
                what = f"decides nothing with optim={args.optim.value!r}"
                raise InputError(name, what, "leave it out, or give another optim")


@contextmanager
def _refused_by_library(given: Mapping[str, Any]) -> Iterator[None]:
    """Raise what the library says of arguments that were given as an error of theirs."""
    try:
        yield
    except RbkitError:
        raise
    except Exception as error:  # whatever it is: they are not checked there
        if not given:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "see transformers.TrainingArguments"
        raise InputError("training_args", f"{dict(given)}: {reason}", remedy) from error


def _callbacks(given: Any) -> list[Any]:
    """Return the callbacks that are given as a list; refuse what is not one."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    for each in several:
        if not isinstance(each, TrainerCallback) and not (
            inspect.isclass(each) and issubclass(each, TrainerCallback)
        ):
            what = f"{each!r} is not a TrainerCallback of transformers"
            raise InputError("callbacks", what, "give objects of subclasses of TrainerCallback")
    return several


def _has_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def as_recorded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`train` as JSON values, but for the data and the record."""
    values = {k: v for k, v in arguments.items() if k not in ("corpus", "domains", "record")}
    if isinstance(mixer := values.get("mixer"), Mixer):
        values |= {"mixer": mixer.name, "mixer_options": mixer.options()}
    if metrics := values.get("metrics"):
        named = as_metrics(metrics, "as it will be", "as it will be")
        values["metrics"] = {name: described(each) for name, each in named.items()}
    for name in ("model", "tokenizer", "live", "callbacks"):
        if name in values:
            values[name] = _named(values[name])
    return dict(json_ready(values))


def _named(value: Any) -> Any:
    """Return objects by class and, of a model or a tokenizer, the name that it was loaded by."""
    if isinstance(value, list | tuple):
        return [_named(each) for each in value]
    if value is None or isinstance(value, bool | str | os.PathLike):
        return value
    kind = value if inspect.isclass(value) else type(value)
    name = getattr(value, "name_or_path", "")
    return f"{kind.__name__}({name})" if name else kind.__name__


def _name_of(thing: Any) -> str:
    return str(thing.name_or_path or type(thing).__name__)


class _ProgressBar(TrainerCallback):  # type: ignore[misc]
    """A bar on stderr: loss, and how many domains the mixture effectively has.

    `loss_and_p` gives the last logged loss, or None, and the proportions in force.
    """

    def __init__(
        self, mixer: str, loss_and_p: Callable[[], tuple[float | None, FloatArray]]
    ) -> None:
        self._mixer, self._loss_and_p = mixer, loss_and_p

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        self.bar = progress_bar(
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
