"""``transformers.Trainer`` with a mixture that adapts while the model trains.

Checkpoints, mixed precision, gradient accumulation, DDP, FSDP and the optimiser stay the
library's. Added are the sampler, the signals that the mixer asks for, the mixer at the end
of each round, eval losses by domain, the run folder, and a resume that is exact: the
continued run draws the same examples and writes the same metrics as one that was never
stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from rbkit.balance.gram import GramTracker, find_layer
from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import MIXERS, mixer_by_name
from rbkit.balance.signals import FloatArray, FreshGradients, GramEstimate, Observation, TrainLosses
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.train.checkpoint import collect, latest_checkpoint, readable, restore, save_state
from rbkit.train.checks import check_arguments, check_domains, check_losses, check_rows
from rbkit.train.fidelity import Fidelity, measure_fidelity
from rbkit.train.ledger import Ledger
from rbkit.train.losses import (
    DomainEvaluator,
    EvalLosses,
    FreshBatches,
    LossOf,
    StepLosses,
    Weighing,
    Window,
    example_losses,
    fresh_gradients,
    reference_excess,
)
from rbkit.train.mixture import DOMAIN, HALF, LENGTH, Mixture, MixtureLoader, per_token
from rbkit.train.parallel import any_of, is_first, wait
from rbkit.train.recorder import Live, Recorder, StopRequest, Watcher
from rbkit.train.recorder import watchers as watchers_of
from rbkit.train.side import Stopped, probe_runs, reference_model


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
        trainer.recorder.log(
            {
                "kind": "train",
                "step": step,
                "loss": trainer.shown_loss,
                "examples": step * trainer.examples_per_step,
                "tokens": trainer.window.tokens,
                "lr": trainer.lr_scheduler.get_last_lr()[0],
            }
        )
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


_FRESH = {"target_gradient", "domain_gradients"}


class Observer:
    """What a trainer watches for its mixer.

    Parameters
    ----------
    trainer : MixtureTrainer
    layers : sequence of str
        Names of the modules to track; empty for the model's head.
    tracking : mapping
        Options of :class:`~rbkit.balance.gram.GramTracker`.
    """

    def __init__(
        self, trainer: MixtureTrainer, layers: tuple[str, ...], tracking: Mapping[str, Any]
    ) -> None:
        self.trainer, self.wanted = trainer, trainer.mixer.signals
        m, ledger = trainer.domains.m, trainer.ledger
        self.tracker: GramTracker | None = None
        if "gram" in self.wanted:
            watched = [find_layer(trainer.model, name) for name in layers or (None,)]
            self.tracker = GramTracker(
                watched, m, seed=trainer.args.seed, decay=trainer.mixer.gram_decay, **tracking
            )
            self.tracker.watch_with = ledger.track
        excess = "excess_losses" in self.wanted
        wants_losses = excess or "train_losses" in self.wanted
        self.losses = StepLosses(m, with_excess=excess) if wants_losses else None
        self.reference: Any = None

    def prepare(self, *, resumed: bool) -> FloatArray | None:
        """Make the runs that the mixer asks for before the first step; return its new p, if any."""
        trainer, found = self.trainer, None
        if "probe_runs" in self.wanted and not resumed:
            found = trainer.mixer.prepare(probe_runs(trainer))
        if "excess_losses" in self.wanted:
            self.reference = reference_model(trainer)
        return found

    @contextmanager
    def watching(
        self, domains: Tensor, halves: Tensor, lengths: Tensor | None, scale: float
    ) -> Iterator[None]:
        """Watch the forward and backward pass of one micro-batch."""
        if self.tracker is None:
            yield
            return
        counts = None
        if lengths is not None:  # packed: ids of tokens, but examples are counted
            known = domains[domains >= 0]
            counts = torch.bincount(known, minlength=self.trainer.domains.m).numpy()
            domains, halves = per_token(domains, lengths), per_token(halves, lengths)
        step = self.trainer.state.global_step
        with self.tracker.batch(domains, scale, step=step, halves=halves, counts=counts):
            yield

    def example_losses(self, model: Any, inputs: dict[str, Any], domains: Tensor) -> Any:
        """Return summed losses and tokens of each example, (B,) each; keep them for the mixer."""
        trainer, excess = self.trainer, None
        if self.reference is not None:
            losses, tokens, excess = reference_excess(
                model,
                self.reference,
                inputs,
                trainer.loss_of,
                lambda: trainer.ledger.within("reference", trainer.args.device),
            )
        else:
            losses, tokens = trainer.loss_of(model, inputs)
        if self.losses is not None:
            self.losses.add(
                trainer.state.global_step - trainer.mixture.round_began,
                domains,
                losses,
                tokens,
                excess,
            )
        return losses, tokens

    # ----------------------------------------------------------------- end of a round

    def observe(self, step: int) -> Observation:
        """Return what the round that ends at `step` showed, and begin the next."""
        trainer = self.trainer
        rate = trainer.lr_scheduler.get_last_lr()[0]
        losses = trainer.evaluate_domains(step) if "eval_losses" in self.wanted else None
        return Observation(
            trainer.mixture.rounds_done,
            trainer.mixture.p,
            np.asarray(trainer.domains.q),
            np.asarray(trainer.domains.sizes),
            gram=self._gram(),
            eval_losses=losses.by_domain_token if losses is not None else None,
            train_losses=self._losses(step - trainer.mixture.round_began),
            gradients=self._fresh(),
            step=step,
            steps=trainer.args.max_steps,
            learning_rate=float(rate),
            peak_learning_rate=float(trainer.args.learning_rate),
        )

    def check_fidelity(self, step: int) -> Fidelity:
        """Compare the tracked layers with all parameters; keep the result in the run's record."""
        trainer = self.trainer
        layers = [find_layer(trainer.bare_model, name) for name in trainer.layers or (None,)]
        own = "gram" in self.wanted and trainer.mixer.name in MIXERS
        rule = mixer_by_name(trainer.mixer.name, trainer.mixer.options()) if own else None
        mixture, domains = trainer.mixture, trainer.domains
        now = Observation(
            mixture.rounds_done,
            mixture.p,
            np.asarray(domains.q),
            np.asarray(domains.sizes),
            step=step,
        )
        with trainer.ledger.measure("fidelity"):
            found = measure_fidelity(
                trainer.bare_model, layers, self._batches(), now, loss_of=trainer.loss_of, rule=rule
            )
        trainer.recorder.fidelity(asdict(found))
        return found

    def _gram(self) -> GramEstimate | None:
        if self.tracker is None:
            return None
        ledger = self.trainer.ledger
        with ledger.measure("gram"):
            estimate = self.tracker.estimate()
            self.tracker.reset()
        ledger["track"].flops_modelled = self.tracker.flops * ledger.processes
        ledger.hold("track", self.tracker.bytes)
        ledger.model("gram", self.tracker.estimate_flops)
        return estimate

    def _losses(self, steps: int) -> TrainLosses | None:
        if self.losses is None:
            return None
        found = self.losses.collect(steps, self.trainer.args.device)
        self.losses.clear()
        return found

    def _fresh(self) -> FreshGradients | None:
        if not self.wanted & _FRESH:
            return None
        trainer, ledger = self.trainer, self.trainer.ledger
        name = "domain_gradients" if "domain_gradients" in self.wanted else "target_gradient"
        with ledger.measure(name), trainer.compute_loss_context_manager():
            found, held = fresh_gradients(
                trainer.bare_model,
                self._batches(),
                trainer.mixture.rounds_done,
                loss_of=trainer.loss_of,
                among="domain_gradients" in self.wanted,
                target="target_gradient" in self.wanted,
            )
        ledger.hold(name, held)
        return found

    def _batches(self) -> FreshBatches:
        trainer = self.trainer

        def collate(rows: list[Any]) -> dict[str, Any]:
            batch: dict[str, Any] = trainer._prepare_inputs(dict(trainer.eval_collator(rows)))
            return batch

        return FreshBatches(
            trainer._used_columns(trainer.train_dataset, "training"),
            trainer._used_columns(trainer.eval_dataset, "evaluation"),
            trainer.sampler.members,
            np.flatnonzero(np.asarray(trainer.domains.eval_labels) >= 0),
            collate,
            trainer.examples_per_step,
            trainer.args.seed,
        )

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return what is known in the middle of a round; all processes call this together.

        Sums of all processes are then with the first one, in this run and in a resumed one,
        so that both go on from the same numbers.
        """
        trainer = self.trainer
        state: dict[str, Any] = {"tracker": {}, "losses": None}
        if self.tracker is not None:
            state["tracker"] = self.tracker.state_dict()
        if self.losses is not None:
            steps = trainer.state.global_step - trainer.mixture.round_began
            state["losses"] = self.losses.pool(steps, trainer.args.device)
        if trainer.ledger.processes > 1:
            self.load_state_dict(state)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        if self.tracker is not None:
            self.tracker.load_state_dict(state["tracker"])
        if self.losses is not None:
            self.losses.load(state["losses"])


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
        Show the run while it trains: see :func:`rbkit.train.recorder.watchers`.
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
            self.mixer,
            domains,
            round_steps=round_steps,
            seed=self.args.seed,
            examples_per_step=self.examples_per_step,
            device=self.args.device,
        )
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
                "mixer": self.mixer.name,
                "mixer_options": self.mixer.options(),
                "seed": self.args.seed,
                "round_steps": round_steps,
                "layer": ", ".join(self.layers) or None,
                **tracking,
                "buckets": getattr(self.tracker, "buckets", buckets),
                "steps": self.args.max_steps,
                "batch_size": self.examples_per_step,
                "learning_rate": self.args.learning_rate,
                "processes": self.args.world_size,
            },
            **record,
        }
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
            self._used_columns(self.train_dataset, "training"),
            self.sampler,
            batch_size=self.args.train_batch_size,
            until=lambda: self.mixture.round_ends * self.examples_per_step,
            collate=self.data_collator,
            workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, or resume from a checkpoint (True: the newest complete one in ``output_dir``).

        Ctrl-C, or a file ``STOP`` in the run folder, ends the run after the step in
        progress: a checkpoint is written and the run's status is ``interrupted``.
        """
        checkpoint: str | Path | None = resume_from_checkpoint or None  # type: ignore[assignment]
        if resume_from_checkpoint is True:
            checkpoint = latest_checkpoint(self.args.output_dir)
            if checkpoint is None:
                raise InputError(
                    str(self.args.output_dir),
                    "no complete checkpoint to resume from",
                    "train without resuming",
                )
        elif checkpoint is None and self.sampler.position > 0:
            raise InputError(
                "train()",
                "this trainer has trained already",
                "make a new one, or give resume_from_checkpoint=True",
            )
        wait()  # until all have looked for checkpoints
        self.recorder = Recorder(
            self.run_dir, resume=checkpoint is not None, active=is_first(), watchers=self.watchers
        )
        self.recorder.q = np.asarray(self.domains.q)
        self.recorder.arrays["p"] = [self.mixture.p]
        self.last_eval = None
        step = restore(self, Path(checkpoint)) if checkpoint is not None else 0
        self.args.ignore_data_skip = True  # the sampler itself knows where it stands
        self.recorder.start(
            **self.record,
            device=str(self.args.device),
            domains={
                "names": list(self.domains.names),
                "sizes": self.domains.sizes,
                "eval_sizes": self.domains.eval_sizes,
                "q": self.domains.q,
            },
            ledger=self.ledger.to_json(),
        )
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
        self.recorder.log(
            {
                "kind": "eval",
                "step": step,
                "round": rounds,
                "loss_token": losses.token,
                "loss_example": losses.example,
                "by_domain_token": losses.by_domain_token,
                "by_domain_example": losses.by_domain_example,
            }
        )
        return losses

    def _used_columns(self, data: Any, description: str) -> Any:
        named = hasattr(data, "column_names")
        return self._remove_unused_columns(data, description=description) if named else data

    def _final(self) -> dict[str, Any]:
        final: dict[str, Any] = {
            "proportions": self.mixture.p,
            "epochs": self.sampler.epochs,
            "proposal": self.mixer.proposal(),
        }
        if self.evaluates:
            losses = self.evaluate_domains(self.state.global_step)
            self.recorder.save_arrays("final.npz", eval_loss_per_example=losses.per_example)
            final.update(
                loss_token=losses.token,
                loss_example=losses.example,
                by_domain_token=losses.by_domain_token,
                by_domain_example=losses.by_domain_example,
            )
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
                output_dir=self._get_output_dir(trial),
                save_total_limit=limit_,
                use_mtime=True,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )
