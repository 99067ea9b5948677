"""``transformers.Trainer`` with a mixture that adapts while the model trains.

Checkpoints, mixed precision, gradient accumulation, DDP, FSDP and the optimiser stay the
library's. Added are the sampler, the signals that the mixer asks for, the mixer at the end
of each round, eval losses by domain, the run folder, and a resume that is exact: the
continued run draws the same examples and writes the same metrics as one that was never
stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerControl, TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import mixer_by_name
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.train.checks import check_arguments, check_domains, check_losses, check_rows
from rbkit.train.evaluate import DomainEvaluator, EvalLosses
from rbkit.train.interrupt import StopRequest
from rbkit.train.ledger import Ledger
from rbkit.train.loader import DOMAIN, HALF, LENGTH, MixtureLoader
from rbkit.train.losses import LossOf, Window, example_losses
from rbkit.train.mixture import Mixture
from rbkit.train.observe import Observer
from rbkit.train.parallel import is_first, wait
from rbkit.train.record import Recorder
from rbkit.train.resume import collect, restore
from rbkit.train.side import Stopped
from rbkit.train.state import latest_checkpoint, save_state
from rbkit.train.steps import StepCallback
from rbkit.train.unshard import readable
from rbkit.train.watch import Live, Watcher
from rbkit.train.watch import watchers as watchers_of
from rbkit.train.weighing import Weighing


class MixtureTrainer(Trainer):  # type: ignore[misc]
    """A ``transformers.Trainer`` whose batches come from domains in changing proportions.

    Runs in one process, or in several under ``torchrun`` or ``accelerate launch`` (DDP,
    FSDP): the examples of a step, and so p, are the same for the same global batch.

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
    layer : str or sequence of str, optional
        Modules whose gradients are tracked; the LM head by default.
    estimator, buckets, fraction
        As for :class:`~rbkit.balance.gram.GramTracker`.
    eval_rounds : int
        Evaluate by domain every so many rounds (and before the first step, and at the
        end); 0 never.
    fidelity_rounds : int
        Compare the tracked layers with all parameters every so many rounds, at the price of
        two passes per domain: see :mod:`rbkit.train.fidelity`. 0 never.
    log_every : int
        Steps between two logged training losses.
    run_dir : path, optional
        Run folder; the trainer's ``output_dir`` by default.
    loss_of : callable, optional
        Losses and token counts of a batch's examples, for models that are neither causal
        LMs nor classifiers; see :func:`rbkit.train.losses.example_losses`.
    eval_collator : callable, optional
        Makes eval batches, one row per example; the data collator by default.
    record : mapping, optional
        More entries for ``run.json``, such as ``corpus``.
    live : bool, {"live", "batch", "final", "off"}, Watcher, or a sequence of them
        Show the run while it trains: see :func:`rbkit.train.watch.watchers`.
    watchers : sequence of Watcher
        More who look at the run folder meanwhile, such as trackers. (``args.report_to``
        stays the library's own.)
    """

    def __init__(
        self,
        *args: Any,
        domains: Domains,
        mixer: Mixer | str = "RnB",
        round_steps: int = 200,
        layer: str | Sequence[str] | None = None,
        estimator: Literal["sketch", "exact", "grouped"] = "sketch",
        buckets: int | None = None,
        fraction: float = 1.0,
        eval_rounds: int = 1,
        fidelity_rounds: int = 0,
        log_every: int = 10,
        run_dir: str | Path | None = None,
        loss_of: LossOf = example_losses,
        eval_collator: Any = None,
        record: Mapping[str, Any] | None = None,
        live: Live = False,
        watchers: Sequence[Watcher] = (),
        **kwargs: Any,
    ) -> None:
        self.watchers = [*watchers_of(live), *watchers]
        super().__init__(*args, **kwargs)
        self.domains, self.round_steps = domains, round_steps
        self.layers = (layer,) if isinstance(layer, str) else tuple(layer or ())
        self.mixer = mixer_by_name(mixer) if isinstance(mixer, str) else mixer
        self.eval_rounds, self.fidelity_rounds = eval_rounds, fidelity_rounds
        self.log_every, self.loss_of = log_every, loss_of
        self.eval_collator = eval_collator or self.data_collator
        self.bare_model = self.model  # as it was given: not wrapped for several processes
        check_rows("train_dataset", self.train_dataset, domains.train_labels)
        check_rows("eval_dataset", self.eval_dataset, domains.eval_labels)
        check_arguments(self.args, self.mixer, round_steps, self.eval_dataset)
        check_domains(domains)
        if self.args.max_steps <= 0:
            examples = self.args.num_train_epochs * len(domains.train_labels)
            self.args.max_steps = max(1, int(np.ceil(examples / self.examples_per_step)))
        self.mixture = Mixture(
            self.mixer, domains, round_steps=round_steps, seed=self.args.seed,
            examples_per_step=self.examples_per_step, device=self.args.device,
        )  # fmt: skip
        self.sampler = self.mixture.sampler
        self.ledger = Ledger(self.args.world_size)
        for name, seconds in domains.method.get("seconds", {}).items():
            self.ledger.add(name, float(seconds), probe=False)  # what Regroup cost, once
        tracking = {"estimator": estimator, "fraction": fraction}
        tracking |= {} if buckets is None else {"buckets": buckets}
        self.observer = Observer(self, self.layers, tracking)
        self.evaluator, self.weighing = DomainEvaluator(self), Weighing(self)
        self.run_dir = Path(run_dir or self.args.output_dir)
        record = dict(record or {})
        self.record = {
            "parameters": {
                **record.pop("parameters", {}),
                "mixer": self.mixer.name, "mixer_options": self.mixer.options(),
                "seed": self.args.seed, "round_steps": round_steps,
                "layer": ", ".join(self.layers) or None, **tracking,
                "buckets": getattr(self.tracker, "buckets", buckets),
                "steps": self.args.max_steps, "batch_size": self.examples_per_step,
                "learning_rate": self.args.learning_rate, "processes": self.args.world_size,
            },
            **record,
        }  # fmt: skip
        self.window = Window(self.args.device)
        self.last_eval: tuple[int, EvalLosses] | None = None  # of this very training
        self.evaluates_first = True  # before the first step
        self.stopped = False  # before all steps were made
        self.step_loss, self.step_tokens = torch.zeros(()), 0  # of the step in progress
        self.shown_loss: float | None = None  # mean of the last logged window
        self._domains_now = torch.zeros(0, dtype=torch.int64)  # of the micro-batch in progress
        self._stop = StopRequest(self.run_dir)
        self.control: TrainerControl
        self.add_callback(StepCallback(self))

    @property
    def tracker(self) -> Any:
        """The Gram tracker, or None if the mixer does not ask for the signal."""
        return self.observer.tracker

    @property
    def examples_per_step(self) -> int:
        """Examples of one optimizer step, of all processes together."""
        args = self.args
        return int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)

    @property
    def evaluates(self) -> bool:
        """Whether eval losses are measured for the curves."""
        return self.eval_dataset is not None and self.eval_rounds > 0

    # ------------------------------------------------------------------- training

    def get_train_dataloader(self) -> Any:
        """Return the loader of the mixture; it never reads ahead of a change of p."""
        return MixtureLoader(
            self._used_columns(self.train_dataset, "training"), self.sampler,
            batch_size=self.args.train_batch_size,
            until=lambda: self.mixture.round_ends * self.examples_per_step,
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
        wait()  # until all have looked for checkpoints
        self.recorder = Recorder(self.run_dir, resume=checkpoint is not None, active=is_first(),
                                 watchers=self.watchers)  # fmt: skip
        self.recorder.q = np.asarray(self.domains.q)
        self.recorder.arrays["p"] = [self.mixture.p]
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
        if is_first():
            self.domains.save(self.run_dir / "domains")
        output, final = TrainOutput(step, float("nan"), {}), None
        try:
            with self._stop.listening():
                if step >= self.args.max_steps:
                    # The library takes a step before it looks at the limit: do not ask it.
                    output = self._only_load(str(checkpoint))
                else:
                    first = self.observer.prepare(resumed=checkpoint is not None)
                    if first is not None:
                        self.mixture.change(first)
                        self.recorder.arrays["p"] = [self.mixture.p]
                    source = str(checkpoint) if checkpoint else None
                    with readable(source, sharded=self.is_fsdp_enabled) as source:
                        output = super().train(source, **kwargs)
                if self.state.global_step >= self.args.max_steps:
                    final = self._final()
        except Stopped:  # in a run beside this one, before the first step
            pass
        except BaseException as error:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._finish(kind, error=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        self.stopped = final is None
        self._finish("interrupted" if self.stopped else "ok", final=final)
        wait()  # others may look at the record at once
        return output

    def _only_load(self, checkpoint: str) -> TrainOutput:
        """Take up a run that had already made all its steps."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        self._move_model_to_device(self.model, self.args.device)
        return TrainOutput(self.state.global_step, float("nan"), {})

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Fetch the micro-batches of a step."""
        found, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.weighing.plan(found)
        return found, items

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Train on one micro-batch, watched by the observer."""
        inputs = dict(inputs)
        domains, halves, lengths = inputs.pop(DOMAIN), inputs.pop(HALF), inputs.pop(LENGTH, None)
        self._domains_now = domains
        tokens = int(next(v for v in inputs.values() if isinstance(v, Tensor)).numel())
        self.ledger.tokens += tokens * self.ledger.processes
        self.step_tokens += tokens
        step = self.state.global_step
        scale = (
            self.weighing.divisor(inputs, num_items_in_batch) if self.tracker is not None else 1.0
        )
        with ExitStack() as stack:
            stack.enter_context(self.observer.watching(domains, halves, lengths, scale))
            if self.probes(step):
                stack.enter_context(self.ledger.probe(tokens))
            loss = super().training_step(model, inputs, num_items_in_batch)
        assert isinstance(loss, Tensor)
        self.step_loss = self.step_loss.to(loss.device) + loss
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss: the library's, unless the mixer needs it by example, or weighs it."""
        if self.observer.losses is None and not self.weighing.by_domain:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        losses, tokens = self.observer.example_losses(model, inputs, self._domains_now)
        return self.weighing.loss(losses, tokens, self._domains_now, num_items_in_batch)

    def probes(self, step: int) -> bool:
        """Whether the FLOPs of step `step`, from 0, are counted; those of compiled code are not."""
        first = step == self.mixture.round_began and not self.args.torch_compile
        return first and self.ledger.probe_due(step)

    # ---------------------------------------------------------------- evaluation

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate by domain, log and return ``eval_loss`` (per token) and its parts."""
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            return dict(super().evaluate(eval_dataset, *args, **kwargs))
        metrics = self.evaluator.metrics()
        self.log(dict(metrics))
        control: TrainerControl = self.control
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics

    def evaluate_domains(self, step: int, name: str | None = None) -> EvalLosses:
        """Evaluate as part of the run: once per step, recorded, and paid for by `name`."""
        if self.last_eval is not None and self.last_eval[0] == step:
            return self.last_eval[1]
        losses = self.evaluator.measure(name)
        self.last_eval = (step, losses)
        rounds = self.mixture.rounds_done + (step > self.mixture.round_began)
        self.recorder.log({
            "kind": "eval", "step": step, "round": rounds,
            "loss_token": losses.token, "loss_example": losses.example,
            "by_domain_token": losses.by_domain_token,
            "by_domain_example": losses.by_domain_example,
        })  # fmt: skip
        return losses

    def _used_columns(self, data: Any, description: str) -> Any:
        named = hasattr(data, "column_names")
        return self._remove_unused_columns(data, description=description) if named else data

    def _final(self) -> dict[str, Any]:
        final: dict[str, Any] = {
            "proportions": self.mixture.p, "epochs": self.sampler.epochs,
            "proposal": self.mixer.proposal(),
        }  # fmt: skip
        if self.evaluates:
            losses = self.evaluate_domains(self.state.global_step)
            self.recorder.save_arrays("final.npz", eval_loss_per_example=losses.per_example)
            final.update(
                loss_token=losses.token, loss_example=losses.example,
                by_domain_token=losses.by_domain_token, by_domain_example=losses.by_domain_example,
            )  # fmt: skip
        return final

    def _finish(self, status: str, **info: Any) -> None:
        self.ledger.settle()
        step = self.state.global_step
        progress = {"step": step, "steps": self.args.max_steps, "loss": self.shown_loss}
        self.recorder.finish(status, ledger=self.ledger.to_json(), progress=progress, **info)

    @property
    def asked_to_stop(self) -> bool:
        """Whether someone asked the run to end, in this process."""
        return bool(self._stop)

    # ------------------------------------------------------------------ resuming

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # A poisoned model must not be saved.
        check_losses(np.array(self.window.pool()), self.state.global_step, self.args)
        # An older checkpoint may go only when this one is complete, so rotate afterwards.
        limit_, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
            state = collect(self)  # sums over processes: all take part
            wait()  # until all have written their part
            if is_first():
                folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
                save_state(folder, state)
        finally:
            self.args.save_total_limit = limit_
        if is_first():
            rotate_checkpoints(
                output_dir=self._get_output_dir(trial), save_total_limit=limit_, use_mtime=True,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )  # fmt: skip
