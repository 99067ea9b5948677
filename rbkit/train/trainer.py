"""``transformers.Trainer`` with a mixture that adapts while the model trains.

Checkpoints, mixed precision, gradient accumulation and the optimiser stay the library's.
Added are the sampler, the Gram tracker on one linear layer, the mixer at the end of each
round, eval losses by domain, the run folder, and a resume that is exact: the continued run
draws the same examples and writes the same metrics as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from rbkit.balance.gram import GramTracker, find_layer
from rbkit.balance.mixers.base import Mixer, check_proportions
from rbkit.balance.mixers.registry import mixer_by_name
from rbkit.balance.sampler import MixtureSampler
from rbkit.balance.signals import Observation
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.train.checks import check_arguments, check_domains, check_losses, check_rows
from rbkit.train.evaluate import EvalLosses, LossOf, evaluate, example_losses, length_batches
from rbkit.train.interrupt import StopRequest
from rbkit.train.ledger import Ledger
from rbkit.train.loader import DOMAIN, MixtureLoader
from rbkit.train.record import Recorder
from rbkit.train.resume import collect, restore
from rbkit.train.state import latest_checkpoint, save_state


class MixtureTrainer(Trainer):  # type: ignore[misc]
    """A ``transformers.Trainer`` whose batches come from domains in changing proportions.

    Parameters
    ----------
    *args, **kwargs
        As for ``transformers.Trainer``. ``train_dataset`` and ``eval_dataset`` must be
        map-style and in the order of `domains`' labels.
    domains : Domains
        Domain of each train and eval example.
    mixer : Mixer or str
        The rule, or its name.
    round_steps : int
        K, optimizer steps between two updates of p.
    layer : str, optional
        Module whose gradients are tracked; the LM head by default.
    estimator, buckets
        As for :class:`~rbkit.balance.gram.GramTracker`.
    eval_rounds : int
        Evaluate by domain every so many rounds (and before the first step, and at the
        end); 0 never.
    log_every : int
        Steps between two logged training losses.
    run_dir : path, optional
        Run folder; the trainer's ``output_dir`` by default.
    loss_of : callable, optional
        Losses and token counts of a batch's examples, for models that are neither causal
        LMs nor classifiers; see :func:`rbkit.train.evaluate.example_losses`.
    record : mapping, optional
        More entries for ``run.json``, such as ``corpus``.
    """

    def __init__(
        self,
        *args: Any,
        domains: Domains,
        mixer: Mixer | str = "RnB",
        round_steps: int = 200,
        layer: str | None = None,
        estimator: Literal["sketch", "exact"] = "sketch",
        buckets: int = 128,
        eval_rounds: int = 1,
        log_every: int = 10,
        run_dir: str | Path | None = None,
        loss_of: LossOf = example_losses,
        record: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.domains, self.round_steps, self.layer = domains, round_steps, layer
        self.mixer = mixer_by_name(mixer) if isinstance(mixer, str) else mixer
        self.eval_rounds, self.log_every, self.loss_of = eval_rounds, log_every, loss_of
        check_rows("train_dataset", self.train_dataset, domains.train_labels)
        check_rows("eval_dataset", self.eval_dataset, domains.eval_labels)
        check_arguments(self.args, self.mixer, round_steps)
        check_domains(domains)
        if self.args.max_steps <= 0:
            examples = self.args.num_train_epochs * len(domains.train_labels)
            self.args.max_steps = max(1, int(np.ceil(examples / self._examples_per_step)))
        sizes, seed = np.asarray(domains.sizes), self.args.seed
        p = check_proportions(self.mixer.start(domains.q, sizes), sizes > 0)
        self.sampler = MixtureSampler(domains.train_labels, p, seed=seed)
        self.ledger = Ledger()
        for name, seconds in domains.method.get("seconds", {}).items():
            self.ledger.add(name, float(seconds), probe=False)  # what Regroup cost, once
        self.tracker: GramTracker | None = None
        if "gram" in self.mixer.signals:
            watched = find_layer(self.model, layer)
            self.tracker = GramTracker(
                watched, domains.m, estimator=estimator, buckets=buckets, seed=seed
            )
            self.tracker.watch_with = self.ledger.track
        self.run_dir = Path(run_dir or self.args.output_dir)
        record = dict(record or {})
        self.record = {
            "parameters": {
                **record.pop("parameters", {}),
                "mixer": self.mixer.name, "mixer_options": self.mixer.options(), "seed": seed,
                "round_steps": round_steps, "layer": layer, "estimator": estimator,
                "buckets": buckets, "steps": self.args.max_steps,
                "batch_size": self._examples_per_step, "learning_rate": self.args.learning_rate,
            },
            **record,
        }  # fmt: skip
        self.rounds_done = 0
        self.window: list[torch.Tensor] = []  # losses since the last logged one
        self.tokens = 0
        self.last_eval: tuple[int, EvalLosses] | None = None  # of this very training
        self._loss = torch.zeros(())  # of the step in progress
        self._shown_loss: float | None = None  # mean of the last logged window
        self._eval_plan: list[np.ndarray[Any, Any]] | None = None  # rows of each eval batch
        self._stop = StopRequest(self.run_dir)
        self.control: TrainerControl
        self.add_callback(_Steps(self))

    @property
    def _examples_per_step(self) -> int:
        return int(self.args.train_batch_size * self.args.gradient_accumulation_steps)

    @property
    def _evaluates(self) -> bool:
        return self.eval_dataset is not None and self.eval_rounds > 0

    # ------------------------------------------------------------------- training

    def get_train_dataloader(self) -> Any:
        """Return the loader of the mixture; it never reads ahead of a change of p."""
        return MixtureLoader(
            self._used_columns(self.train_dataset, "training"), self.sampler,
            batch_size=self.args.train_batch_size,
            batches_per_round=self.round_steps * self.args.gradient_accumulation_steps,
            collate=self.data_collator, workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )  # fmt: skip

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, or resume from a checkpoint (True: the newest complete one in ``output_dir``).

        Ctrl-C, or a file ``STOP`` in the run folder, ends the run after the step in
        progress: a checkpoint is written and the run's status is ``interrupted``.
        """
        checkpoint: str | Path | None = resume_from_checkpoint or None  # type: ignore[assignment]
        if resume_from_checkpoint is True:
            checkpoint = latest_checkpoint(self.args.output_dir)
            if checkpoint is None:
                raise InputError(str(self.args.output_dir), "no complete checkpoint to resume from",
                                 "train without resuming")  # fmt: skip
        elif checkpoint is None and self.sampler.position > 0:
            raise InputError(
                "train()", "this trainer has trained already",
                "make a new one, or give resume_from_checkpoint=True",
            )  # fmt: skip
        self.recorder = Recorder(self.run_dir, resume=checkpoint is not None)
        self.recorder.q = np.asarray(self.domains.q)
        self.recorder.arrays["p"] = [self.sampler.p]
        self.last_eval = None
        step = restore(self, Path(checkpoint)) if checkpoint is not None else 0
        self.args.ignore_data_skip = True  # the sampler itself knows where it stands
        self.recorder.start(
            **self.record,
            device=str(self.args.device),
            domains={"names": list(self.domains.names), "sizes": self.domains.sizes,
                     "eval_sizes": self.domains.eval_sizes, "q": self.domains.q},
            ledger=self.ledger.to_json(),
        )  # fmt: skip
        self.domains.save(self.run_dir / "domains")
        try:
            with self._stop.listening():
                # The library takes a step before it looks at the limit, so it must not be asked.
                output = self._only_load(str(checkpoint)) if step >= self.args.max_steps else (
                    super().train(str(checkpoint) if checkpoint else None, **kwargs)
                )  # fmt: skip
                done = self.state.global_step >= self.args.max_steps
                final = self._final() if done else None
        except BaseException as error:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._finish(kind, error=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        self._finish("ok" if done else "interrupted", final=final)
        return output

    def _only_load(self, checkpoint: str) -> TrainOutput:
        """Take up a run that had already made all its steps."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        self._move_model_to_device(self.model, self.args.device)
        return TrainOutput(self.state.global_step, float("nan"), {})

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Train on one micro-batch, watched by the tracker."""
        inputs = dict(inputs)
        domains = inputs.pop(DOMAIN)
        tokens = int(next(v for v in inputs.values() if isinstance(v, torch.Tensor)).numel())
        self.ledger.tokens += tokens
        self.tokens += tokens
        first_of_round = self.state.global_step % self.round_steps == 0
        with ExitStack() as stack:
            if self.tracker is not None:
                scale = self._divisor(inputs, num_items_in_batch)
                stack.enter_context(self.tracker.batch(domains, scale=scale))
            if first_of_round:
                stack.enter_context(self.ledger.probe(tokens))
            loss = super().training_step(model, inputs, num_items_in_batch)
        assert isinstance(loss, torch.Tensor)
        self._loss = self._loss.to(loss.device) + loss
        return loss

    def _divisor(self, inputs: Mapping[str, Any], num_items: Any) -> float:
        """Return what the summed loss of a micro-batch was divided by before ``backward``."""
        scaler = getattr(self.accelerator, "scaler", None)
        gain = float(scaler.get_scale()) if scaler is not None else 1.0  # of fp16's loss scaling
        by_items = self.model_accepts_loss_kwargs or self.compute_loss_func is not None
        if num_items is not None and by_items:
            return float(num_items) / gain
        labels = inputs.get("labels")
        if labels is None:
            items = len(next(iter(inputs.values())))
        else:
            items = int(((labels if labels.ndim == 1 else labels[:, 1:]) != -100).sum())
        return float(items * self.current_gradient_accumulation_steps / gain)

    # ------------------------------------------------------------------ per step

    def _end_step(self, step: int, seconds: float) -> None:
        self.ledger.add("step", seconds, probe=(step - 1) % self.round_steps == 0)
        self.window.append(self._loss)
        self._loss = torch.zeros((), device=self._loss.device)
        if step % self.log_every == 0 or step == self.args.max_steps:
            self._log_window(step)
        if step % self.round_steps == 0:
            self._end_round(step)
        self.recorder.beat(step=step, steps=self.args.max_steps, loss=self._shown_loss)

    def _log_window(self, step: int) -> None:
        # One transfer from the device per window, not per step.
        losses = torch.stack(self.window).double().cpu().numpy()
        check_losses(losses, step, self.args)
        self._shown_loss = float(losses.mean())
        self.recorder.log({
            "kind": "train", "step": step, "loss": self._shown_loss,
            "examples": step * self._examples_per_step, "tokens": self.tokens,
            "lr": self.lr_scheduler.get_last_lr()[0],
        })  # fmt: skip
        self.window.clear()

    def _end_round(self, step: int) -> None:
        self.ledger.settle()
        wanted = "eval_losses" in self.mixer.signals
        due = self._evaluates and (self.rounds_done + 1) % self.eval_rounds == 0
        losses = self._evaluate_domains(step) if wanted or due else None
        estimate = None
        if self.tracker is not None:
            with self.ledger.time("gram"), self.ledger.count_all("gram"):
                estimate = self.tracker.estimate()
                self.tracker.reset()
            self.ledger["track"].flops_modelled = self.tracker.flops
            self.ledger["track"].bytes = self.tracker.bytes
            entry = self.ledger["gram"]
            entry.flops_modelled = (entry.flops_modelled or 0) + self.tracker.estimate_flops
        seen = Observation(
            self.rounds_done, self.sampler.p, np.asarray(self.domains.q),
            np.asarray(self.domains.sizes), gram=estimate,
            eval_losses=losses.by_domain_token if losses is not None else None,
        )  # fmt: skip
        with self.ledger.time("mixer"):
            p = check_proportions(self.mixer.update(seen), seen.available)
        self.sampler.set_proportions(p)
        self.rounds_done += 1
        with self.ledger.time("record"):
            self.recorder.round(step=step, p=p, estimate=estimate)
        self.recorder.info["ledger"] = self.ledger.to_json()

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate by domain, log and return ``eval_loss`` (per token) and its parts."""
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            return dict(super().evaluate(eval_dataset, *args, **kwargs))
        losses = self._measure()
        metrics = {"eval_loss": losses.token, "eval_loss_example": losses.example}
        for name, value in zip(self.domains.names, losses.by_domain_token, strict=True):
            metrics[f"eval_loss/{name}"] = float(value)
        self.log(dict(metrics))
        control: TrainerControl = self.control
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics

    def _evaluate_domains(self, step: int) -> EvalLosses:
        """Evaluate as part of the run: once per step, and recorded."""
        if self.last_eval is not None and self.last_eval[0] == step:
            return self.last_eval[1]
        losses = self._measure()
        self.last_eval = (step, losses)
        self.recorder.log({
            "kind": "eval", "step": step, "round": step // self.round_steps,
            "loss_token": losses.token, "loss_example": losses.example,
            "by_domain_token": losses.by_domain_token,
            "by_domain_example": losses.by_domain_example,
        })  # fmt: skip
        return losses

    def _measure(self) -> EvalLosses:
        if self.eval_dataset is None:
            raise InputError("eval_dataset", "none was given", "give one, or set eval_rounds=0")
        with self.ledger.time("eval"), self.compute_loss_context_manager():
            return evaluate(
                self.model, self._eval_batches(), np.asarray(self.domains.eval_labels),
                self.domains.m, loss_of=self.loss_of,
            )  # fmt: skip

    def _used_columns(self, data: Any, description: str) -> Any:
        named = hasattr(data, "column_names")
        return self._remove_unused_columns(data, description=description) if named else data

    def _eval_batches(self) -> Any:
        data = self._used_columns(self.eval_dataset, "evaluation")
        if self._eval_plan is None:
            lengths = [len(row["input_ids"]) if "input_ids" in row else 0 for row in data]
            self._eval_plan = length_batches(np.array(lengths), self.args.eval_batch_size)
        for rows in self._eval_plan:
            batch = self.data_collator([data[int(i)] for i in rows])
            yield rows, self._prepare_inputs(dict(batch))

    def _final(self) -> dict[str, Any]:
        final: dict[str, Any] = {"proportions": self.sampler.p, "epochs": self.sampler.epochs}
        if self._evaluates:
            losses = self._evaluate_domains(self.state.global_step)
            self.recorder.save_arrays("final.npz", eval_loss_per_example=losses.per_example)
            final.update(
                loss_token=losses.token, loss_example=losses.example,
                by_domain_token=losses.by_domain_token, by_domain_example=losses.by_domain_example,
            )  # fmt: skip
        return final

    def _finish(self, status: str, **info: Any) -> None:
        self.ledger.settle()
        step = self.state.global_step
        progress = {"step": step, "steps": self.args.max_steps, "loss": self._shown_loss}
        self.recorder.finish(status, ledger=self.ledger.to_json(), progress=progress, **info)

    # ------------------------------------------------------------------ resuming

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.window:  # a poisoned model must not be saved
            losses = torch.stack(self.window).double().cpu().numpy()
            check_losses(losses, self.state.global_step, self.args)
        # An older checkpoint may go only when this one is complete, so rotate afterwards.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            save_state(folder, collect(self))
        finally:
            self.args.save_total_limit = limit
        rotate_checkpoints(
            output_dir=self._get_output_dir(trial), save_total_limit=limit, use_mtime=True,
            best_model_checkpoint=self.state.best_model_checkpoint,
        )  # fmt: skip


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer when steps begin and end."""

    def __init__(self, trainer: MixtureTrainer) -> None:
        self.trainer, self.began = trainer, 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == 0 and self.trainer._evaluates:
            self.trainer._evaluate_domains(0)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.trainer._end_step(state.global_step, perf_counter() - self.began)
        if self.trainer._stop:
            control.should_save = control.should_training_stop = True
