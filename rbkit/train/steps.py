"""When steps begin and end: what ``transformers.Trainer`` tells only its callbacks."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rbkit.train.parallel import any_of

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Tells a trainer that steps begin and end, and lets all processes stop at the same one."""

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
        self.trainer.end_step(state.global_step, perf_counter() - self.began)
        if any_of(self.trainer.asked_to_stop, args.device):
            control.should_save = control.should_training_stop = True
