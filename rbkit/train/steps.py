"""What is done when steps and rounds end; ``transformers.Trainer`` tells only its callbacks."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rbkit.train.checks import check_losses
from rbkit.train.parallel import any_of

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Ends steps and rounds of a trainer, and lets all its processes stop at the same step."""

    def __init__(self, trainer: MixtureTrainer) -> None:
        self.trainer, self.began = trainer, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate before the first step."""
        trainer = self.trainer
        if state.global_step == 0 and trainer.evaluates and trainer.evaluates_first:
            trainer.evaluate_domains(0)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.began = perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """End the step, and the run if any process was asked to."""
        self._end_step(state.global_step, perf_counter() - self.began)
        if any_of(self.trainer.asked_to_stop, args.device):
            control.should_save = control.should_training_stop = True

    def _end_step(self, step: int, seconds: float) -> None:
        """Note that `step` steps have been made, the last in so many seconds."""
        trainer = self.trainer
        probed = trainer.probes(step - 1)
        trainer.ledger.add("step", seconds, probe=probed)
        if probed:
            trainer.ledger.probed(step - 1)
        trainer.window.add(trainer.step_loss, trainer.step_tokens)
        trainer.step_loss = torch.zeros((), device=trainer.step_loss.device)
        trainer.step_tokens = 0
        steps = trainer.args.max_steps
        if step % trainer.log_every == 0 or step == steps:
            self._log(step)
        if step == trainer.mixture.round_ends:
            self._end_round(step)
        trainer.recorder.beat(step=step, steps=steps, loss=trainer.shown_loss)

    def _log(self, step: int) -> None:
        trainer = self.trainer
        losses = np.array(trainer.window.pool())
        check_losses(losses, step, trainer.args)
        trainer.shown_loss = float(losses.mean())
        trainer.recorder.log({
            "kind": "train", "step": step, "loss": trainer.shown_loss,
            "examples": step * trainer.examples_per_step, "tokens": trainer.window.tokens,
            "lr": trainer.lr_scheduler.get_last_lr()[0],
        })  # fmt: skip
        trainer.window.losses.clear()

    def _end_round(self, step: int) -> None:
        trainer = self.trainer
        trainer.ledger.settle()
        seen = trainer.observer.observe(step)
        done = trainer.mixture.rounds_done + 1
        if trainer.evaluates and done % trainer.eval_rounds == 0:
            trainer.evaluate_domains(step)
        if trainer.fidelity_rounds and done % trainer.fidelity_rounds == 0:
            trainer.observer.check_fidelity(step)
        with trainer.ledger.time("mixer"):
            p = trainer.mixer.update(seen)
        trainer.mixture.change(p, step)
        with trainer.ledger.time("record"):
            trainer.recorder.round(step=step, p=trainer.mixture.p, estimate=seen.gram)
        trainer.recorder.info["ledger"] = trainer.ledger.to_json()
