"""What a checkpoint must hold beside the library's own files, so that a resume is exact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rbkit.errors import InputError
from rbkit.files import fingerprint
from rbkit.train.evaluate import EvalLosses
from rbkit.train.state import check_weights, load_state

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer

_SAMPLED_ROWS = 64  # of the training set, that its fingerprint looks at


def identity(trainer: MixtureTrainer) -> dict[str, Any]:
    """Return what must not change between a run and its continuation, by name.

    Not in it, so free to change: the number of steps, the learning rate, how often to
    evaluate, log and save.
    """
    domains, args = trainer.domains, trainer.args
    labels = np.asarray(domains.train_labels), np.asarray(domains.eval_labels)
    return {
        "mixer": trainer.mixer.name,
        "mixer_options": trainer.mixer.options(),
        "domains": fingerprint(
            list(domains.names), *(x.astype(np.int64).tobytes() for x in labels)
        ),
        "train_dataset": _fingerprint_of(trainer.train_dataset),
        "round_steps": trainer.round_steps,
        "batch_size": args.train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "seed": args.seed,
        "layer": trainer.layer,
    }


def collect(trainer: MixtureTrainer) -> dict[str, Any]:
    """Return the state of everything that rbkit adds to a trainer."""
    step, losses = trainer.last_eval or (None, None)
    return {
        "identity": identity(trainer),
        "step": trainer.state.global_step,
        "sampler": trainer.sampler.state_dict(),
        "mixer": trainer.mixer.state_dict(),
        "tracker": trainer.tracker.state_dict() if trainer.tracker is not None else {},
        "ledger": trainer.ledger.state_dict(),
        "recorder": trainer.recorder.state_dict(),
        "rounds_done": trainer.rounds_done,
        "window": [float(loss) for loss in trainer.window],
        "tokens": trainer.tokens,
        "last_eval": {"step": step, **vars(losses)} if losses is not None else None,
    }


def restore(trainer: MixtureTrainer, checkpoint: Path) -> int:
    """Take up a checkpoint's state; return the step at which it was written.

    Raises
    ------
    InputError
        A damaged file, or a run that is not the one being continued. The trainer's record
        is not touched before everything else has been read.
    """
    state = load_state(checkpoint)
    check_weights(checkpoint)
    for name, mine in identity(trainer).items():
        theirs = state["identity"].get(name)
        if theirs != mine:
            raise InputError(
                str(checkpoint), f"{name} was {theirs!r}, and is {mine!r} now",
                "resume with the same, or start a new run in another folder",
            )  # fmt: skip
    trainer.sampler.load_state_dict(state["sampler"])
    trainer.mixer.load_state_dict(state["mixer"])
    if trainer.tracker is not None:
        trainer.tracker.load_state_dict(state["tracker"])
    trainer.ledger.load_state_dict(state["ledger"])
    trainer.rounds_done, trainer.tokens = int(state["rounds_done"]), int(state["tokens"])
    device = trainer.args.device
    trainer.window = [torch.tensor(loss, device=device) for loss in state["window"]]
    if (last := state["last_eval"]) is not None:
        trainer.last_eval = (int(last.pop("step")), EvalLosses(**last))
    trainer.recorder.load_state_dict(state["recorder"])
    return int(state["step"])


def _fingerprint_of(dataset: Any) -> str:
    rows = np.linspace(0, len(dataset) - 1, min(_SAMPLED_ROWS, len(dataset))).astype(int)
    return fingerprint(str(len(dataset)), [str(dataset[int(i)]) for i in rows])
