"""What a checkpoint must hold beside the library's own files, so that a resume is exact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
    evaluate, log and save, and into how many processes and micro-batches a step is divided.
    """
    return {
        "mixer": trainer.mixer.name,
        "mixer_options": trainer.mixer.options(),
        **common(trainer),
        "layer": list(trainer.layers),
    }


def common(trainer: MixtureTrainer) -> dict[str, Any]:
    """Return what a run shares with the runs beside it, by name."""
    domains, args = trainer.domains, trainer.args
    labels = np.asarray(domains.train_labels), np.asarray(domains.eval_labels)
    return {
        "domains": fingerprint(
            list(domains.names), *(x.astype(np.int64).tobytes() for x in labels)
        ),
        "train_dataset": _fingerprint_of(trainer.train_dataset),
        "round_steps": trainer.round_steps,
        "examples_per_step": trainer.examples_per_step,
        "seed": args.seed,
    }


def collect(trainer: MixtureTrainer) -> dict[str, Any]:
    """Return the state of everything that rbkit adds to a trainer."""
    step, losses = trainer.last_eval or (None, None)
    return {
        "identity": identity(trainer),
        "step": trainer.state.global_step,
        "mixture": trainer.mixture.state_dict(),
        "observer": trainer.observer.state_dict(),
        "ledger": trainer.ledger.state_dict(),
        "recorder": trainer.recorder.state_dict(),
        "window": trainer.window.pool(),
        "tokens": trainer.window.tokens,
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
    trainer.mixture.load_state_dict(state["mixture"])
    trainer.observer.load_state_dict(state["observer"])
    trainer.ledger.load_state_dict(state["ledger"])
    trainer.window.losses = [float(loss) for loss in state["window"]]
    trainer.window.tokens = int(state["tokens"])
    if (last := state["last_eval"]) is not None:
        trainer.last_eval = (int(last.pop("step")), EvalLosses(**last))
    trainer.recorder.load_state_dict(state["recorder"])
    return int(state["step"])


def _fingerprint_of(dataset: Any) -> str:
    rows = np.linspace(0, len(dataset) - 1, min(_SAMPLED_ROWS, len(dataset))).astype(int)
    return fingerprint(str(len(dataset)), [str(dataset[int(i)]) for i in rows])
