"""``transformers.Trainer`` with a mixture that adapts while the model trains.

Checkpoints, mixed precision, gradient accumulation, DDP, FSDP and the optimiser stay the
library's. Added are the sampler, the signals that the mixer asks for, the mixer at the end
of each round, eval losses by domain, the run folder, and a resume that is exact: the
continued run draws the same examples and writes the same metrics as one that was never
stopped.

``transformers.Trainer`` offers the tokens of the whole step to the loss. Some models divide by
them, others by those of the micro-batch whatever they are offered: a few rows show which, before
training. And where DDP averages gradients over processes that the library wants summed, it
multiplies the loss by their number. The tracker's scale undoes all this.

The same rows show how the model's own loss divides among examples: see
:class:`rbkit.train.losses.Objective`.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, asdict, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import TrainOutput, rotate_checkpoints, speed_metrics

from rbkit.balance.gram import GramTracker, find_layer
from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.mixers.registry import MIXERS, mixer_by_name
from rbkit.balance.signals import (
    SIGNALS,
    FloatArray,
    FreshGradients,
    GramEstimate,
    Observation,
    TrainLosses,
    VisitLosses,
)
from rbkit.errors import InputError, RbkitError, as_count
from rbkit.files import check_folder, fingerprint, free_name
from rbkit.regroup.domains import Domains
from rbkit.regroup.weights import DOMAIN_IDS
from rbkit.train.checkpoint import (
    begin_checkpoint,
    check_checkpoint,
    clear_run,
    latest_checkpoint,
    missing_parts,
    readable,
    save_state,
)
from rbkit.train.fidelity import Fidelity, measure_fidelity
from rbkit.train.ledger import Ledger
from rbkit.train.losses import (
    EvalLosses,
    FreshBatches,
    LossOf,
    Objective,
    StepLosses,
    Total,
    VisitSums,
    Window,
    by_example,
    by_row,
    evaluate,
    examples_meet,
    find_objective,
    fresh_gradients,
    length_batches,
    likely_objectives,
    reference_excess,
    shares,
    shuffled_batches,
)
from rbkit.train.metrics import Metric, Metrics, MetricValues, as_metrics, same_random_state
from rbkit.train.mixture import (
    DOMAIN,
    EXAMPLE,
    HALF,
    VISITS,
    MixtureLoader,
    MixtureState,
    per_token,
)
from rbkit.train.parallel import all_sum, any_of, is_first, refused_together, wait
from rbkit.train.recorder import (
    MAKE_ROOM,
    Live,
    Recorder,
    StopRequest,
    Watcher,
    unwritable,
)
from rbkit.train.run import PER_EXAMPLE, PER_TOKEN
from rbkit.train.side import SideRuns
from rbkit.train.trackers import watchers as watchers_of


class TrainingError(RbkitError):
    """Training cannot continue: says at which step, why, and what to try."""


if TYPE_CHECKING:  # it uses what each of them has
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


class Mixture(_Trainer):  # type: ignore[misc]
    """What makes any subclass of ``transformers.Trainer`` draw from a mixture that adapts.

    ``class Mine(Mixture, SFTTrainer): pass`` takes the arguments of both. The other trainer's
    way to prepare rows, to collate them and to compute a loss stays. If its loss goes past the
    tracked layer, as that of a fused head does, the same loss is computed from the model's
    logits, if it is the same; what the other trainer measures along with its own is then missing.

    Runs in one process, or in several under ``torchrun`` or ``accelerate launch`` (DDP,
    FSDP): the examples of a step, and so p, are the same for the same global batch.

    Parameters
    ----------
    *args, **kwargs
        As for the other trainer. ``train_dataset`` and ``eval_dataset`` must be
        map-style and in the order of `domains`' labels; or, if examples are packed into rows,
        have the column of :func:`rbkit.regroup.add_domain_ids`.
    domains : Domains
        Domain of each train and eval example.
    mixer : Mixer or str
        The rule, or its name.
    round_steps : int
        K, optimizer steps between two updates of p.
    layer : str or sequence of str, optional
        Modules whose gradients are tracked; by default the LM head, or the last linear layer, or
        both projections of a model that has ``visual_projection`` and ``text_projection``.
    estimator, buckets, fraction
        As for :class:`~rbkit.balance.gram.GramTracker`.
    eval_rounds : int
        Evaluate by domain every so many rounds (and before the first step, and at the
        end); 0 never.
    fidelity_rounds : int
        Compare the tracked layers with all parameters every so many rounds, at the price of
        two passes per domain: see :mod:`rbkit.train.fidelity`. 0 never.
    metrics : mapping of str to callable, or sequence of str, optional
        Functions ``fn(model, rows)`` that return a number for each row, NaN where it does not
        count, or names of metrics of :mod:`rbkit.train.metrics`, which take a
        `processing_class`. Each is tried on two rows before training; then it is evaluated on
        eval examples in a domain, before the first step, after rounds and at the end, and
        recorded by domain and overall, examples weighing alike. Meanwhile the model is in eval
        mode and without gradients; its mode and the random state are then put back. A function
        whose values are better when they are low has the attribute ``higher_is_better = False``.
        Of several processes, each evaluates all rows.
    metric_rounds : int, optional
        Evaluate metrics every so many rounds, besides before and after training; as often as
        losses by default. 0 only before and after.
    metric_examples : int, optional
        On at most so many of the eval examples: the same for all rules and seeds.
    metric_dataset : map-style dataset, optional
        What functions get as `rows`: these rows of it, with all of their columns, as a
        ``datasets.Dataset`` where it is one, else as a list. In the order of `eval_dataset`,
        which it is by default.
    log_every : int
        Steps between two logged training losses.
    run_dir : path, optional
        Run folder; the trainer's ``output_dir`` by default.
    loss_of : callable, optional
        Losses and token counts of a batch's examples, where those of the model's own loss are
        not known; see :func:`rbkit.train.losses.example_losses`, and for images with captions
        :func:`rbkit.train.contrastive_losses`. Rules that read or weigh training losses train on
        it. Where examples of a batch meet in it (a few rows show that), eval batches are all of
        one size and in a random order, the same for any order of the rows: what the last one
        lacks is taken from the first, and does not count again.
    eval_collator : callable, optional
        Makes eval batches, one row per example; the data collator by default.
    record : mapping, optional
        More entries for ``run.json``, such as ``corpus``.
    overwrite : bool
        Replace the run that `run_dir` holds, its checkpoints included. Without it, training
        there is refused: it is to be resumed, or another folder to be given.
    live : bool, {"live", "batch", "final", "off"}, Watcher, or a sequence of them
        Show the run while it trains: see :func:`rbkit.train.trackers.watchers`.
    watchers : sequence of Watcher
        More watchers of the run folder, such as trackers. (``args.report_to`` stays the
        library's own.)

    Raises
    ------
    InputError
        For data, domains or settings that cannot work, or would give wrong numbers.

    Attributes
    ----------
    mixture : MixtureState
        The proportions in force, and the sampler that draws by them.
    tracker : GramTracker or None
        None if the mixer does not ask for the signal ``gram``.
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
        metrics: Mapping[str, Metric | str] | Sequence[str] | None = None,
        metric_rounds: int | None = None,
        metric_examples: int | None = None,
        metric_dataset: Any = None,
        log_every: int = 10,
        run_dir: str | Path | None = None,
        loss_of: LossOf | None = None,
        eval_collator: Any = None,
        record: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        live: Live = False,
        watchers: Sequence[Watcher] = (),
        **kwargs: Any,
    ) -> None:
        self.watchers = [*watchers_of(live), *watchers]
        if run_dir is not None:
            check_folder("run_dir", run_dir)
        super().__init__(*args, **kwargs)
        round_steps = as_count("round_steps", round_steps, least=1, remedy="try 200")
        never = "0 means never"
        self.domains, self.round_steps = domains, round_steps
        paired = all(hasattr(self.model, name) for name in _PROJECTIONS)
        by_default = _PROJECTIONS if paired else ()
        self.layers = (layer,) if isinstance(layer, str) else tuple(layer or by_default)
        self.mixer = mixer_by_name(mixer) if isinstance(mixer, str) else mixer
        self.eval_rounds = as_count("eval_rounds", eval_rounds, remedy=never)
        self.fidelity_rounds = as_count("fidelity_rounds", fidelity_rounds, remedy=never)
        self.log_every = as_count("log_every", log_every, least=1)
        self._own_loss_of = loss_of
        # How the loss divides among examples, and whether the library's is divided by the items
        # of a step rather than of a micro-batch: :meth:`_study_loss` finds out.
        self.loss_of: LossOf | None = loss_of
        self._objective, self._mean_of_step = likely_objectives(self.model, None)[0], True
        self._is_sum = self._is_studied = self._goes_past_layer = False
        self.loss_unit = PER_TOKEN
        self._meet = False  # whether a loss depends on the other examples of its batch
        self.eval_collator = eval_collator or self.data_collator
        self.bare_model = self.model  # as it was given: not wrapped for several processes
        self._check_loss_arguments()
        domains = self.domains = _by_row(domains, self.train_dataset, self.eval_dataset)
        _check_arguments(self.args, self.mixer, self.eval_dataset)
        self._check_other_trainers_arguments()
        _check_domains(domains)
        self.metrics = self._metrics_of(metrics, metric_dataset, metric_rounds, metric_examples)
        self.metric_rounds = self.eval_rounds
        if metric_rounds is not None:
            self.metric_rounds = as_count("metric_rounds", metric_rounds)
        if self.args.max_steps <= 0:
            examples = self.args.num_train_epochs * len(domains.train_labels)
            self.args.max_steps = max(1, int(np.ceil(examples / self.examples_per_step)))
        self.mixture = MixtureState(
            self.mixer,
            domains,
            steps=self.args.max_steps,
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
        self.tracker = self._gram_tracker(tracking) if self._needs("gram") else None
        self.step_losses: StepLosses | None = None  # of the round, if the mixer needs them
        self.visit_sums: VisitSums | None = None  # likewise
        if self._needs(*_OF_TRAINING):
            self.step_losses = StepLosses(domains.m, with_excess=self._needs("excess_losses"))
        if self._needs("visit_losses"):
            self.visit_sums = VisitSums(domains.m)
        self.reference: Any = None  # the model that excess losses are above
        self.run_dir = Path(run_dir or self.args.output_dir)
        self.overwrite = overwrite
        self.ways = "train(resume_from_checkpoint=True), MixtureTrainer(..., overwrite=True)"
        self.drops_side_runs = False  # those of an earlier run; else the same ones are used again
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
        self.last_metrics: tuple[int, dict[str, MetricValues]] | None = None
        self.evaluates_first = True  # before the first step
        self.stopped = False  # by request, before all steps were made
        self._asked = False  # to stop, and all processes know it
        self.shown_loss: float | None = None  # mean of the last logged window
        # Of the step in progress: its loss and tokens in this process; the weights of all its
        # tokens over all processes, where the mixer weighs losses; and of the micro-batch.
        self._step_loss, self._step_tokens = torch.zeros(()), 0
        self._weight_of_step = 1.0
        self._domain_ids = self._visits = torch.zeros(0, dtype=torch.int64)
        self._examples: Tensor | None = None  # of which each token is, where they are packed
        self._eval_plan: list[np.ndarray[Any, Any]] | None = None  # rows of each eval batch
        self._stop = StopRequest(self.run_dir)
        self.control: TrainerControl
        self.data_collator: Any
        self.add_callback(_StepHooks(self._evaluate_first, self._end_step))

    @property
    def examples_per_step(self) -> int:
        """Examples of one optimizer step, of all processes together."""
        args = self.args
        return int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)

    @property
    def evaluates(self) -> bool:
        """Whether eval losses are measured for the curves."""
        return self.eval_dataset is not None and self.eval_rounds > 0

    def _needs(self, *signals: str) -> bool:
        return bool(self.mixer.signals & set(signals))

    def _gram_tracker(self, options: Mapping[str, Any]) -> GramTracker:
        layers = [find_layer(self.model, name) for name in self.layers or (None,)]
        decay = self.mixer.gram_decay
        tracker = GramTracker(layers, self.domains.m, seed=self.args.seed, decay=decay, **options)
        tracker.watch_with = self.ledger.track
        return tracker

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
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
        )

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        *,
        allow_missing: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Train, or resume from a checkpoint (True: the newest complete one in ``output_dir``).

        Ctrl-C, SIGTERM, or a file ``STOP`` in the run folder, ends the run after the step in
        progress: a checkpoint is written and the run's status is ``interrupted``.

        A checkpoint without optimizer, scheduler or random state (``save_only_model=True``) is
        refused: the run would continue as another one. With `allow_missing` it does, and
        ``run.json`` has the missing parts under ``resumed_without``.
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
        if self.train_dataset is None:
            raise InputError("train_dataset", "none was given", "give one")
        if kwargs.get("trial") is not None:
            raise InputError("trial", "hyperparameters would change within a run", "leave it out")
        self._study_loss()
        if self.metrics is not None:
            with self.compute_loss_context_manager():
                self.metrics.check(self.bare_model)
        if self._meet:  # the losses depend on it
            self.record["parameters"]["eval_batch_size"] = self.args.eval_batch_size
        wait()  # until all have looked for checkpoints
        step = self._begin_record(checkpoint, allow_missing)
        output, final = TrainOutput(step, float("nan"), {}), None
        try:
            with self._stop.listening():
                if step >= self.args.max_steps:
                    # The library takes a step before it looks at the limit: do not ask it.
                    output = self._only_load(str(checkpoint))
                else:
                    self._prepare_mixer(resumed=checkpoint is not None)
                    source = str(checkpoint) if checkpoint else None
                    with readable(source, sharded=self.is_fsdp_enabled) as source:
                        output = super().train(source, **kwargs)
                if self.state.global_step >= self.args.max_steps or not self._asked:
                    final = self._final()  # a callback may end training early: that is an end
            self.stopped = final is None
            self._end_record("interrupted" if self.stopped else "ok", final=final)
        except _SideRunStopped:  # before the first step
            self.stopped = True
            self._end_record("interrupted", final=None)
        except BaseException as error:
            stop: BaseException = error
            if (why := unwritable(error)) is not None:
                stop = TrainingError(f"{self.run_dir}: cannot be written ({why}); {MAKE_ROOM}")
            kind = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._end_record(kind, error=f"{type(stop).__name__}: {stop}".splitlines()[0])
            if stop is error:
                raise
            raise stop from error
        wait()  # others may look at the record at once
        return output

    def _only_load(self, checkpoint: str) -> TrainOutput:
        """Load a run that had already made all its steps."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        self._move_model_to_device(self.model, self.args.device)
        return TrainOutput(self.state.global_step, float("nan"), {})

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of weights that a checkpoint lacks, but not of those tied to one that it has."""
        tied = getattr(self.bare_model, "all_tied_weights_keys", None) or {}
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    # --------------------------------------------------------------------- a step

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Fetch the micro-batches of a step."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.mixer.acts == "loss" and self.mixer.normalise_loss:
            weights = self.mixture.weights
            counts = [self._objective.counts(b, self._total(b)) for b in batches]
            pairs = zip(batches, counts, strict=True)
            here = sum(float((weights(b[DOMAIN]) * count).sum()) for b, count in pairs)
            self._weight_of_step = float(all_sum(np.array([here]), self.args.device)[0])
        return batches, items

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Train on one micro-batch, tracked if the mixer needs the Gram matrix."""
        inputs = dict(inputs)
        domains, halves = inputs.pop(DOMAIN), inputs.pop(HALF)
        self._domain_ids, self._examples = domains, inputs.pop(EXAMPLE, None)
        self._visits = inputs.pop(VISITS)
        tokens = self._amount(inputs)
        self.ledger.tokens += tokens * self.ledger.processes
        self._step_tokens += tokens
        with ExitStack() as stack:
            if self.tracker is not None:
                scale = self._loss_divisor(inputs, num_items_in_batch)
                stack.enter_context(self._tracked(self.tracker, domains, halves, scale))
            if self._probes(self.state.global_step):
                stack.enter_context(self.ledger.probe(tokens))
            loss = super().training_step(model, inputs, num_items_in_batch)
        assert isinstance(loss, Tensor)
        # Means of micro-batches that the library took for parts of the step's are shown as such.
        parts = 1.0
        if self._offers(num_items_in_batch) and not self._mean_of_step:
            parts = self._averaging_processes * self._left_undivided(num_items_in_batch)
        self._step_loss = self._step_loss.to(loss.device) + loss / parts
        return loss

    def _amount(self, inputs: Mapping[str, Any]) -> int:
        """Return the padded tokens of a micro-batch; its examples, where it is not of tokens."""
        if self.ledger.counts_tokens is None:
            of_images = any(
                isinstance(v, Tensor) and v.is_floating_point() and v.ndim > 2
                for v in inputs.values()
            )
            by_token = self.loss_unit == PER_TOKEN or not of_images
            self.ledger.counts_tokens = "input_ids" in inputs and by_token
        if self.ledger.counts_tokens:
            return int(inputs["input_ids"].numel())
        return len(self._domain_ids)

    @contextmanager
    def _tracked(
        self,
        tracker: GramTracker,
        domains: Tensor,
        halves: Tensor,
        scale: float,
    ) -> Iterator[None]:
        counts = None
        if (examples := self._examples) is not None:  # ids of tokens, but examples are counted
            m, inside = self.domains.m, domains >= 0
            which = halves[inside] * m + domains[inside]
            counts = torch.bincount(which, minlength=2 * m).reshape(2, m).numpy()
            domains, halves = per_token(domains, examples), per_token(halves, examples)
        step = self.state.global_step
        with tracker.batch(domains, scale, step=step, halves=halves, counts=counts):
            yield

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss: the library's, unless the mixer needs it by example, or weighs it."""
        weighs = self.mixer.acts == "loss"
        trains = not return_outputs  # else the library evaluates
        if not trains or (self.step_losses is None and not weighs and not self._goes_past_layer):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        losses, tokens = self._example_losses(model, inputs, self._domain_ids)
        if weighs:
            losses = losses * self.mixture.weights(self._domain_ids).to(losses.device)
        if weighs and self.mixer.normalise_loss:
            parts = self.current_gradient_accumulation_steps
            parts /= self._left_undivided(num_items_in_batch)  # the library divides by these
            return losses.sum() / self._weight_of_step * self.args.world_size * parts
        return losses.sum() / self._divisor(num_items_in_batch, tokens.sum())

    def _example_losses(
        self, model: Any, inputs: dict[str, Any], domains: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return summed losses and tokens of each example, (B,) each; keep them for the mixer."""
        excess, loss_of = None, self._losses_by_example
        total = self._total({DOMAIN: domains, EXAMPLE: self._examples})
        if self.reference is not None:
            losses, tokens, excess = reference_excess(
                model,
                self.reference,
                inputs,
                loss_of,
                lambda: self.ledger.within("reference", self.args.device),
                total,
            )
        elif isinstance(loss_of, Objective):
            losses, tokens = map(total, loss_of.by_token(model, inputs))
        else:
            losses, tokens = loss_of(model, inputs)
        if self.step_losses is not None:
            step = self.state.global_step - self.mixture.round_began
            self.step_losses.add(step, domains, losses, tokens, excess)
        if self.visit_sums is not None:
            self.visit_sums.add(domains, self._visits, losses, tokens)
        return losses, tokens

    @staticmethod
    def _total(batch: Mapping[str, Any]) -> Total:
        """Return what sums up by example: rows, unless they are packed."""
        if (examples := batch.get(EXAMPLE)) is None:
            return by_row
        return partial(by_example, examples=examples, number=len(batch[DOMAIN]))

    def _loss_divisor(self, inputs: Mapping[str, Any], items: Any) -> float:
        """Return what the summed loss of a micro-batch was divided by before ``backward``."""
        scaler = getattr(self.accelerator, "scaler", None)
        gain = float(scaler.get_scale()) if scaler is not None else 1.0  # of fp16's loss scaling
        parts = self.current_gradient_accumulation_steps / self._left_undivided(items)
        here = 1 if self._is_sum else int(self._objective.counts(inputs).sum())
        return float(self._divisor(items, here) * parts / gain)

    def _divisor(self, items: Any, here: Any) -> Any:
        """Return what :meth:`compute_loss` divides the sum of losses by.

        `items` are the predictions of the step as the library counts them, if it does, and `here`
        those of the micro-batch.
        """
        if not self._offers(items):
            return here
        return (items if self._mean_of_step else here) / self._averaging_processes

    def _offers(self, items: Any) -> bool:
        """Whether the library gives `items` to the loss, and takes it for divided by them."""
        takes = self.model_accepts_loss_kwargs or self.compute_loss_func is not None
        return items is not None and takes

    def _left_undivided(self, items: Any) -> int:
        """Return the micro-batches that the library should divide a loss by, but does not."""
        divided: bool | None = self.loss_is_scaled_for_ga
        if divided is None:
            divided = self._offers(items) or self.compute_loss_func is not None
        return self.current_gradient_accumulation_steps if divided else 1

    @property
    def _averaging_processes(self) -> int:
        """Processes over which the library averages a loss that was divided by all items."""
        return int(self.args.world_size) if self.args.average_tokens_across_devices else 1

    def _probes(self, step: int) -> bool:
        """Whether the FLOPs of step `step`, from 0, are counted; those of compiled code are not."""
        first = step == self.mixture.round_began and not self.args.torch_compile
        return first and self.ledger.probe_due(step)

    def _end_step(self, seconds: float) -> bool:
        """Record the step just made, and end the round with it if due; whether to stop."""
        step, steps = self.state.global_step, self.args.max_steps
        probed = self._probes(step - 1)
        self.ledger.add("step", seconds, probe=probed)
        if probed:
            self.ledger.probed(step - 1)
        self.window.add(self._step_loss, self._step_tokens)
        self._step_loss, self._step_tokens = torch.zeros((), device=self._step_loss.device), 0
        if step % self.log_every == 0 or step == steps:
            self._log_losses(step)
        if step == self.mixture.round_ends:
            try:
                self._end_round(step)
            except Exception:  # of what a loss that is not a number has led to, perhaps
                _check_losses(np.array(self.window.pool()), step, self.args)
                raise
        self.recorder.beat(step=step, steps=steps, loss=self.shown_loss)
        # All processes stop at the same step.
        self._asked = any_of(bool(self._stop), self.args.device)
        return self._asked

    def _log_losses(self, step: int) -> None:
        losses = np.array(self.window.pool())
        _check_losses(losses, step, self.args)
        self.shown_loss = float(losses.mean())
        self.recorder.log(
            {
                "kind": "train",
                "step": step,
                "loss": self.shown_loss,
                "examples": step * self.examples_per_step,
                **({"tokens": self.window.tokens} if self.ledger.counts_tokens else {}),
                "lr": self.lr_scheduler.get_last_lr()[0],
            }
        )
        self.window.losses.clear()

    # ------------------------------------------------------------------- the objective

    def _check_loss_arguments(self) -> None:
        """Refuse arguments of the library's trainer that would change nothing, or too late."""
        rule = self.mixer.name
        reads = self.mixer.acts == "loss" or self._needs(*_OF_TRAINING)
        side_runs = self._needs("probe_runs", "excess_losses")
        problem = getattr(getattr(self.model, "config", None), "problem_type", None)
        if self.model_init is not None:
            raise InputError("model_init", "layers of the model are watched", "give the model")
        if self.compute_loss_func is not None and reads:
            raise InputError(
                "compute_loss_func",
                f"{rule} needs the losses of examples, and this gives one of a batch",
                "give loss_of in its place: a loss and a number of tokens for each example",
            )
        if self.compute_loss_func is not None and self._own_loss_of is None and self._measures:
            raise InputError(
                "compute_loss_func",
                f"{self._measures} takes losses of examples, and this gives one of a batch",
                "also give loss_of, the same loss by example"
                + (", or set eval_rounds=0" if self._measures == "eval_rounds" else ""),
            )
        if self.args.label_smoothing_factor and self._own_loss_of is not None and reads:
            raise InputError(
                "label_smoothing_factor",
                f"{rule} trains on loss_of",
                "smooth the labels in loss_of",
            )
        if self.args.label_smoothing_factor and problem == "multi_label_classification":
            raise InputError(
                "label_smoothing_factor", "the library smooths no multiple labels", "leave it out"
            )
        if side_runs and (self.optimizer is not None or self.lr_scheduler is not None):
            raise InputError(
                "optimizers",
                f"{rule} makes side runs, whose models need optimizers of their own",
                "give args.optim, or optimizer_cls_and_kwargs",
            )

    def _check_other_trainers_arguments(self) -> None:
        """Refuse what only another trainer obeys, and the loss of packed documents' lengths."""
        columns = getattr(self.train_dataset, "column_names", None) or ()
        if "seq_lengths" in columns and self.args.remove_unused_columns:
            raise InputError(
                "remove_unused_columns",
                "would remove seq_lengths, which keeps the documents of packed rows apart",
                "set it to False",
            )
        if type(self) is not MixtureTrainer:  # others may obey them
            return
        own = TrainingArguments.__dataclass_fields__
        for owner in type(self.args).__mro__:
            if owner is TrainingArguments:
                break
            for field in fields(owner) if owner.__module__.split(".")[0] in _MAKERS else ():
                default, value = field.default, getattr(self.args, field.name)
                if field.default_factory is not MISSING:
                    default = field.default_factory()
                if field.name not in own and value not in (None, False, default):
                    raise InputError(
                        field.name,
                        f"{value!r} cannot be obeyed: it is for the trainer of {owner.__name__}",
                        "leave it out; for packing see rbkit.regroup.add_domain_ids",
                    )

    @property
    def _measures(self) -> str:
        """What takes losses of examples, apart from the training loss; "" if nothing does."""
        names = ("eval_losses", "probe_runs", "target_gradient", "domain_gradients")
        asked = sorted(self.mixer.signals & set(names))
        by_name = {
            f"{self.mixer.name} ({', '.join(asked)})": bool(asked),
            "fidelity_rounds": self.fidelity_rounds > 0,
            "eval_strategy": self.eval_dataset is not None and self.args.eval_strategy != "no",
            "eval_rounds": self.evaluates,
        }
        return next((name for name, does in by_name.items() if does), "")

    @property
    def _losses_by_example(self) -> LossOf:
        """What gives summed losses and numbers of predictions of a batch's examples, (B,) each."""
        self._study_loss()
        if self.loss_of is None:
            raise _not_by_example(self.model)
        return self.loss_of

    def _study_loss(self) -> None:
        """Find out, from a few rows, how the loss divides among examples and what divides it.

        Sharded models cannot be asked before they are; what transformers knows is then taken.
        """
        if self._is_studied:
            return
        self._is_studied = True
        reads = self.mixer.acts == "loss" or self.step_losses is not None
        with same_random_state():
            batch = self._study_batch()
        smoothing = float(self.args.label_smoothing_factor)
        labels = batch.get("labels")
        if isinstance(labels, Tensor):
            self._objective = likely_objectives(self.model, labels, smoothing)[0]
        found: LossOf | None = self._objective
        if not self.is_fsdp_enabled:
            training = self.model.training
            self.model.eval()
            try:
                with torch.no_grad(), self.accelerator.autocast():
                    found = self._find_objective(batch, smoothing)
                    self._mean_of_step = self._divides_by_items(batch)
                    if found is None and self.tracker is not None:
                        self._study_division(batch)
            finally:
                self.model.train(training)
        self.loss_of = self._own_loss_of or found
        if self.loss_of is None and (reads or self._measures):
            raise _not_by_example(self.model)
        if self._own_loss_of is not None:
            self._study_own_loss(self._own_loss_of)
        else:
            self.loss_unit = found.unit if isinstance(found, Objective) else "its own unit"

    def _study_own_loss(self, loss_of: LossOf) -> None:
        """Find out whether examples meet in a loss that was given, and what it is a mean over."""
        if self.is_fsdp_enabled:
            self._meet = True
            return
        training = self.model.training
        self.model.eval()
        try:
            with same_random_state(), torch.no_grad(), self.accelerator.autocast():
                batch = self._study_batch(for_eval=True)
                self._meet = examples_meet(loss_of, self.model, batch)
                _, counts = loss_of(self.model, batch)
        finally:
            self.model.train(training)
        self.loss_unit = PER_EXAMPLE if bool((counts == 1).all()) else PER_TOKEN

    def _study_batch(self, row: int | None = None, *, for_eval: bool = False) -> dict[str, Any]:
        """Return the first rows as a batch, or one of them."""
        data, collate = self.train_dataset, self.data_collator
        if data is None or for_eval:
            collate = self.eval_collator
            data = data if self.eval_dataset is None else self.eval_dataset
        data = self._used_columns(data, "training")
        rows = range(min(len(data), _STUDIED_ROWS)) if row is None else [row]
        batch: dict[str, Any] = self._prepare_inputs(dict(collate([data[i] for i in rows])))
        batch.pop(EXAMPLE, None)
        return batch

    def _find_objective(self, batch: dict[str, Any], smoothing: float) -> LossOf | None:
        if self.compute_loss_func is not None:
            return None
        with ExitStack() as stack:
            seen: list[bool] = []
            for name in self.layers or (None,) if self.tracker is not None else ():
                layer = find_layer(self.bare_model, name)
                handle = layer.register_forward_hook(lambda *_: seen.append(True))
                stack.callback(handle.remove)
            own = self._loss_of_library(batch, None)
        half = torch.is_autocast_enabled(self.args.device.type) or any(
            p.dtype in (torch.float16, torch.bfloat16) for p in self.model.parameters()
        )
        tolerance = 2e-2 if half else 1e-4
        found = find_objective(self.model, batch, own, smoothing, tolerance)
        self._goes_past_layer = found is not None and self.tracker is not None and not seen
        self._objective = found or self._objective
        return found

    def _divides_by_items(self, batch: dict[str, Any]) -> bool:
        """Whether the loss halves as the number of items doubles."""
        items = self._get_num_items_in_batch([batch], self.args.device)
        if not self._offers(items):
            return True
        one, other = (self._loss_of_library(batch, n) for n in (items, 2 * items))
        if not np.isfinite([one, other]).all() or other == 0:
            return True
        ratio = one / other
        matters = self.tracker is not None or self.step_losses is not None
        if matters and 1.1 < ratio < 1.6:  # auxiliary losses may be added to one that halves
            where = "model" if self.compute_loss_func is None else "compute_loss_func"
            raise InputError(
                where,
                "its loss depends on num_items_in_batch, but is not divided by it",
                "divide by it, or leave it unused",
            )
        return bool(ratio > 1.5)

    def _study_division(self, batch: dict[str, Any]) -> None:
        """Find out, from rows one by one, what a loss that is not known is a mean of, if it is."""
        items = self._get_num_items_in_batch([batch], self.args.device)
        if self._offers(items) and self._mean_of_step:
            return
        data = self.eval_dataset if self.train_dataset is None else self.train_dataset
        try:
            with same_random_state():
                rows = [self._study_batch(row) for row in range(min(len(data), _STUDIED_ROWS))]
            losses = np.array([self._loss_of_library(row, items) for row in rows])
        except InputError:  # a loss that a single row does not have
            return
        counts = np.array([float(self._objective.counts(row).sum()) for row in rows])
        whole = self._loss_of_library(batch, items)
        if abs(float(losses @ counts) - whole * counts.sum()) <= 0.01 * abs(whole) * counts.sum():
            return
        if abs(float(losses.mean()) - whole) <= 0.01 * abs(whole):
            self._objective = Objective("values")  # counts rows
        self._is_sum = abs(float(losses.sum()) - whole) <= 0.01 * abs(whole)

    def _loss_of_library(self, batch: dict[str, Any], items: Any) -> float:
        """Return the loss that the library trains on, for `items` predictions in the step."""
        try:
            loss = super().compute_loss(self.model, dict(batch), num_items_in_batch=items)
            return float(loss) / (self._averaging_processes if self._offers(items) else 1)
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                "train_dataset",
                f"{type(self.model).__name__} has no loss on its first rows: "
                f"{type(error).__name__}: {first}",
                "check its labels, the data collator and compute_loss_func",
            ) from error

    # ----------------------------------------------------------- the end of a round

    def _end_round(self, step: int) -> None:
        self.ledger.settle()
        seen = self._observe(step)
        done = self.mixture.rounds_done + 1
        if self.evaluates and done % self.eval_rounds == 0:
            self.evaluate_domains(step)
        if self.metric_rounds and done % self.metric_rounds == 0:
            self.evaluate_metrics(step)
        if self.fidelity_rounds and done % self.fidelity_rounds == 0:
            self._check_fidelity(step)
        with self.ledger.time("mixer"):
            p = self.mixer.update(seen)
        self.mixture.change(p, step)
        with self.ledger.time("record"):
            self.recorder.round(step=step, p=self.mixture.p, estimate=seen.gram)
        self.recorder.info["ledger"] = self.ledger.to_json()

    def _observe(self, step: int) -> Observation:
        """Return what the round that ends at `step` showed, for the signals the mixer needs."""
        losses = self.evaluate_domains(step) if self._needs("eval_losses") else None
        return self._observation(
            step,
            eval_losses=losses.by_domain_token if losses is not None else None,
            gram=self._gram_estimate(),
            train_losses=self._train_losses(step - self.mixture.round_began),
            gradients=self._fresh_gradients(),
            visit_losses=self._visit_losses(),
        )

    def _observation(self, step: int, **signals: Any) -> Observation:
        return Observation(
            self.mixture.rounds_done,
            self.mixture.p,
            np.asarray(self.domains.q),
            np.asarray(self.domains.sizes),
            drawn=self.sampler.drawn.copy(),
            step=step,
            steps=self.args.max_steps,
            learning_rate=float(self.lr_scheduler.get_last_lr()[0]),
            peak_learning_rate=float(self.args.learning_rate),
            **signals,
        )

    def _gram_estimate(self) -> GramEstimate | None:
        if self.tracker is None:
            return None
        with self.ledger.measure("gram"):
            estimate = self.tracker.estimate()
            self.tracker.reset()
        self.ledger["track"].flops_modelled = self.tracker.flops * self.ledger.processes
        self.ledger.hold("track", self.tracker.bytes)
        self.ledger.model("gram", self.tracker.estimate_flops)
        return estimate

    def _train_losses(self, steps: int) -> TrainLosses | None:
        if self.step_losses is None:
            return None
        losses = self.step_losses.collect(steps, self.args.device)
        self.step_losses.clear()
        return losses

    def _visit_losses(self) -> VisitLosses | None:
        if self.visit_sums is None:
            return None
        losses = self.visit_sums.collect(self.args.device)
        self.visit_sums.clear()
        return losses

    def _fresh_gradients(self) -> FreshGradients | None:
        among, target = self._needs("domain_gradients"), self._needs("target_gradient")
        if not (among or target):
            return None
        name = "domain_gradients" if among else "target_gradient"
        with self.ledger.measure(name), self.compute_loss_context_manager():
            gradients, held = fresh_gradients(
                self.bare_model,
                self._fresh_batches(),
                self.mixture.rounds_done,
                loss_of=self._losses_by_example,
                among=among,
                target=target,
            )
        self.ledger.hold(name, held)
        return gradients

    def _check_fidelity(self, step: int) -> Fidelity:
        """Compare the tracked layers with all parameters; record the result."""
        # An instance of its own: the run's must not remember what the comparison shows it. A rule
        # that rbkit does not have, or that does not look at G, is replaced by the default.
        own_rule = self._needs("gram") and self.mixer.name in MIXERS
        rule = mixer_by_name(self.mixer.name, self.mixer.options()) if own_rule else None
        with self.ledger.measure("fidelity"):
            fidelity = measure_fidelity(
                self.bare_model,
                [find_layer(self.bare_model, name) for name in self.layers or (None,)],
                self._fresh_batches(),
                self._observation(step),
                loss_of=self._losses_by_example,
                rule=rule,
                mixed=self._meet,
            )
        self.recorder.fidelity(asdict(fidelity))
        return fidelity

    def _fresh_batches(self) -> FreshBatches:
        def collate(rows: list[Any]) -> dict[str, Any]:
            batch: dict[str, Any] = self._prepare_inputs(dict(self.eval_collator(rows)))
            return batch

        return FreshBatches(
            self._used_columns(self.train_dataset, "training"),
            self._used_columns(self.eval_dataset, "evaluation"),
            self.sampler.members,
            np.flatnonzero(self.domains.eval_labels >= 0),
            collate,
            self.examples_per_step,
            self.args.seed,
        )

    # ---------------------------------------------------------------- evaluation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate by domain; log and return ``eval_loss`` (per token), its parts and metrics.

        Metrics are those of ``compute_metrics``, which takes a second pass. Examples that are in
        no domain count nowhere, or in the overall loss and metrics if ``domains.count_outside``.
        Another `eval_dataset` is evaluated as the library does.
        """
        prefix = metric_key_prefix
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            return dict(super().evaluate(eval_dataset, ignore_keys, prefix))
        self._memory_tracker.start()
        began, losses = time(), self._measure_losses()
        metrics = {} if self.compute_metrics is None else self._library_metrics(ignore_keys, prefix)
        metrics |= {f"{prefix}_loss": losses.token, f"{prefix}_loss_example": losses.example}
        for name, value in zip(self.domains.names, losses.by_domain_token, strict=True):
            metrics[f"{prefix}_loss/{name}"] = float(value)
        if self.domains.outside:
            metrics[f"{prefix}_loss_outside"] = losses.outside_token
        number = len(self._eval_rows)
        per_step = self.args.eval_batch_size * self.args.world_size
        steps = -(-number // per_step)
        metrics |= speed_metrics(prefix, began, num_samples=number, num_steps=steps)
        self.log(metrics)
        control: TrainerControl = self.control
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        self._memory_tracker.stop_and_update_metrics(metrics)
        return metrics

    def _library_metrics(self, ignore_keys: list[str] | None, prefix: str) -> dict[str, float]:
        """Return what ``compute_metrics`` gives, in the library's own pass."""
        data = self._used_columns(self.eval_dataset, "evaluation")
        collate, self.data_collator = self.data_collator, self.eval_collator
        try:
            with self.ledger.time("eval"):
                loader = self.get_eval_dataloader(Subset(data, self._eval_rows.tolist()))
                output = self.evaluation_loop(
                    loader, "Evaluation", ignore_keys=ignore_keys, metric_key_prefix=prefix
                )
        finally:
            self.data_collator = collate
        return dict(output.metrics)

    @property
    def _eval_rows(self) -> np.ndarray[Any, Any]:
        """Rows of the eval set that count: those in a domain, and those outside if they do."""
        return np.flatnonzero(self.domains.eval_labels >= (-1 if self.domains.count_outside else 0))

    def evaluate_domains(self, step: int, name: str | None = None) -> EvalLosses:
        """Evaluate as part of the run: once per step, recorded, and paid for by `name`."""
        if self.last_eval is not None and self.last_eval[0] == step:
            return self.last_eval[1]
        losses = self._measure_losses(name)
        self.last_eval = (step, losses)
        rounds = self.mixture.rounds_done + (step > self.mixture.round_began)
        self.recorder.log({"kind": "eval", "step": step, "round": rounds, **_by_kind(losses)})
        return losses

    def _evaluate_first(self) -> None:
        if self.evaluates and self.evaluates_first:
            self.evaluate_domains(0)
        self.evaluate_metrics(0)

    def _measure_losses(self, name: str | None = None) -> EvalLosses:
        """Evaluate now; the price goes to the ledger entry `name`.

        By default that of the mixer, if it asks for eval losses, or of the curves.
        """
        if self.eval_dataset is None:
            raise InputError("eval_dataset", "none was given", "give one, or set eval_rounds=0")
        self._study_loss()
        with ExitStack() as stack:
            stack.enter_context(self.compute_loss_context_manager())
            if name:  # one of several parts of an entry
                stack.enter_context(self.ledger.time(name))
                stack.enter_context(self.ledger.count_all(name))
            else:
                entry = "eval_losses" if self._needs("eval_losses") else "eval"
                stack.enter_context(self.ledger.measure(entry))
            return evaluate(
                self.model,
                self._eval_batches(),
                np.asarray(self.domains.eval_labels),
                self.domains.m,
                loss_of=self._losses_by_example,
                count_outside=self.domains.count_outside,
            )

    # ------------------------------------------------------------------------ metrics

    def _metrics_of(
        self, given: Any, data: Any, rounds: int | None, examples: int | None
    ) -> Metrics | None:
        """Return what evaluates the metrics that are given; None without."""
        functions = as_metrics(given, getattr(self, "processing_class", None))
        options = {"metric_rounds": rounds, "metric_examples": examples, "metric_dataset": data}
        if not functions:
            for name, value in options.items():
                if value is not None:
                    raise InputError(name, "decides nothing without metrics", "give metrics too")
            return None
        if self.args.fsdp:
            what = "a model in pieces cannot be handed to a function"
            raise InputError("metrics", what, "use DDP, or evaluate the saved model")
        if self.eval_dataset is None:
            raise InputError("eval_dataset", "none was given for metrics", "give one")
        if data is not None and len(data) != len(self.eval_dataset):
            what = f"{len(data)} rows, but eval_dataset has {len(self.eval_dataset)}"
            raise InputError("metric_dataset", what, "give the same examples, in its order")
        if examples is not None:
            examples = as_count("metric_examples", examples, least=1)
        data = self.eval_dataset if data is None else data
        labels, m = self.domains.eval_labels, self.domains.m
        made = Metrics(functions, data, labels, m, examples, self._eval_rows)
        if not len(made.rows):
            raise InputError("metrics", "no eval example is in a domain", "check the eval labels")
        return made

    def evaluate_metrics(self, step: int) -> dict[str, MetricValues]:
        """Evaluate the metrics as part of the run: once per step, recorded and paid for."""
        if self.metrics is None:
            return {}
        if self.last_metrics is not None and self.last_metrics[0] == step:
            return self.last_metrics[1]
        measured = self._measure_metrics(self.metrics)
        self.last_metrics = (step, measured)
        rounds = self.mixture.rounds_done + (step > self.mixture.round_began)
        for name, values in measured.items():
            about = {"kind": "metric", "step": step, "round": rounds, "name": name}
            self.recorder.log({**about, **values.to_json()})
        return measured

    def _measure_metrics(self, metrics: Metrics) -> dict[str, MetricValues]:
        with self.compute_loss_context_manager(), self.ledger.time("metrics"):
            measured = metrics(self.bare_model)
        if metrics.tokens:  # else only the seconds are known
            weights = sum(weight.numel() for weight in self.bare_model.parameters())
            self.ledger.model("metrics", 2 * weights * metrics.tokens * self.ledger.processes)
        return measured

    def _eval_batches(self) -> Iterator[tuple[np.ndarray[Any, Any], dict[str, Any]]]:
        data = self._used_columns(self.eval_dataset, "evaluation")
        if self._eval_plan is None:
            size = self.args.eval_batch_size
            if self._meet:
                keys = [fingerprint(str(self.args.seed), _as_text(row, whole=True)) for row in data]
                self._eval_plan = shuffled_batches(keys, size)
            else:
                lengths = [len(row["input_ids"]) if "input_ids" in row else 0 for row in data]
                self._eval_plan = length_batches(np.array(lengths), size)
        for rows, counts in shares(self._eval_plan):
            batch = self.eval_collator([data[int(i)] for i in np.where(rows < 0, ~rows, rows)])
            yield rows if counts else rows[:0], self._prepare_inputs(dict(batch))

    def _used_columns(self, data: Any, description: str) -> Any:
        if not hasattr(data, "column_names"):
            return data
        if DOMAIN_IDS in data.column_names:
            data = data.remove_columns(DOMAIN_IDS)
        return self._remove_unused_columns(data, description=description)

    # ------------------------------------------------- runs before the first step

    def _prepare_mixer(self, *, resumed: bool) -> None:
        """Make the runs that the mixer asks for before the first step."""
        side = SideRuns(
            self.run_dir / "side",
            self.model,
            self._shared_identity(),
            self._train_side_run,
            self.ledger,
            seed=self.args.seed,
            device=self.args.device,
        )
        sizes = np.asarray(self.domains.sizes)
        p = None
        if self._needs("probe_runs") and not resumed:
            before = self.evaluate_domains(0, name="probe_runs").by_domain_token
            p = self.mixer.prepare(side.probe(sizes, before, self.mixer.probe_steps()))
        if self._needs("excess_losses"):
            steps = self.mixer.reference_steps or self.args.max_steps
            self.reference = side.reference(sizes, steps)
        if p is not None:
            self.mixture.change(p)
            self.recorder.arrays["p"] = [self.mixture.p]

    def _train_side_run(
        self,
        model: Any,
        folder: Path,
        p: FloatArray,
        options: dict[str, Any],
        *,
        steps: int,
        constant: bool,
    ) -> None:
        """Train `model` on fixed proportions with this trainer's data and arguments."""
        args = copy.copy(self.args)
        args.output_dir, args.max_steps = str(folder / "checkpoints"), steps
        args.save_total_limit = 1
        args.eval_strategy, args.eval_on_start, args.load_best_model_at_end = "no", False, False
        args.save_strategy = "no" if args.save_strategy == "no" else "steps"
        args.push_to_hub = False
        if constant:
            args.lr_scheduler_type, args.warmup_steps, args.save_strategy = "constant", 0, "no"
        trainer = type(self)(
            model,
            args,
            train_dataset=self.train_dataset,
            eval_dataset=self.eval_dataset,
            data_collator=self.data_collator,
            eval_collator=self.eval_collator,
            domains=self.domains,
            mixer=Fixed(p.tolist()),
            round_steps=self.round_steps,
            eval_rounds=10**9,
            loss_of=self._own_loss_of,
            compute_loss_func=self.compute_loss_func,
            processing_class=self.processing_class,
            optimizer_cls_and_kwargs=self.optimizer_cls_and_kwargs,
            run_dir=folder,
            record={"parameters": {"side_run": options}},
            overwrite=True,  # it is not the one that is wanted, or has no checkpoint
        )
        trainer.evaluates_first = False  # all start from the same weights
        trainer.remove_callback(PrinterCallback)
        checkpoint = latest_checkpoint(args.output_dir)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.stopped:
            raise _SideRunStopped

    # ----------------------------------------------------------------- the record

    def _begin_record(self, checkpoint: str | Path | None, allow_missing: bool) -> int:
        """Begin or continue the run folder; return the step of the checkpoint, or 0."""
        with refused_together(self.args.device):
            self.recorder = Recorder(
                self.run_dir,
                resume=checkpoint is not None,
                overwrite=self.overwrite,
                active=is_first(),
                watchers=self.watchers,
                ways=self.ways,
            )
            if checkpoint is None:
                self._check_output_dir()
            self.recorder.in_use = True
        try:
            return self._fill_record(checkpoint, allow_missing)
        except BaseException as error:
            if (why := unwritable(error)) is not None:
                what = f"cannot be written ({why})"
                with suppress(OSError, InputError):  # the record is on that disk, too
                    if self.recorder.info:
                        self.recorder.finish("failed", error=f"{self.run_dir}: {what}")
            self.recorder.leave()
            if why is not None:
                raise InputError(str(self.run_dir), what, MAKE_ROOM) from error
            raise

    @property
    def _replaces(self) -> bool:
        """Whether a run from the start removes the checkpoints that are there."""
        inside = Path(self.args.output_dir).resolve().is_relative_to(self.run_dir.resolve())
        return self.overwrite or (inside and (self.run_dir / "run.json").exists())

    def _check_output_dir(self) -> None:
        """Refuse to write among the checkpoints of another run."""
        folder = Path(self.args.output_dir)
        if not self._replaces and any(folder.glob("checkpoint-*/trainer_state.json")):
            self.recorder.leave()
            remedy = f"give overwrite=True to replace them, or another, such as {free_name(folder)}"
            raise InputError("output_dir", f"{folder} holds checkpoints of another run", remedy)

    def _fill_record(self, checkpoint: str | Path | None, allow_missing: bool) -> int:
        if checkpoint is None and is_first() and self._replaces:
            clear_run(self.run_dir, Path(self.args.output_dir), side=self.drops_side_runs)
        self.recorder.q = np.asarray(self.domains.q)
        self.recorder.arrays["p"] = [self.mixture.p]
        self.last_eval = self.last_metrics = None
        step = 0 if checkpoint is None else self._restore(Path(checkpoint), allow_missing)
        self.args.ignore_data_skip = True  # the sampler itself knows where it stands
        made_by = ("name", "params", "embedder", "seed")  # not the edits: domains/ has them
        self.recorder.start(
            **self.record,
            device=str(self.args.device),
            loss_unit=self.loss_unit,
            domains={
                "names": list(self.domains.names),
                "sizes": self.domains.sizes,
                "eval_sizes": self.domains.eval_sizes,
                "q": self.domains.q,
                **({"outside": self.domains.outside} if self.domains.outside else {}),
                "method": {name: self.domains.method.get(name) for name in made_by},
            },
            ledger=self.ledger.to_json(),
        )
        if is_first():
            self.domains.save(self.run_dir / "domains")
        return step

    def _final(self) -> dict[str, Any]:
        final: dict[str, Any] = {
            "proportions": self.mixture.p,
            "epochs": self.sampler.epochs,
            "proposal": self.mixer.proposal(),
        }
        step, arrays = self.state.global_step, {}
        best = self.state.best_model_checkpoint if self.args.load_best_model_at_end else None
        kept = step if best is None else int(Path(best).name.rpartition("-")[2])
        if kept != step:  # not the weights that the curves end with
            final["step"] = kept
        if self.evaluates:
            losses = self.evaluate_domains(step) if kept == step else self._measure_losses()
            arrays["eval_loss_per_example"] = losses.per_example
            final |= _by_kind(losses)
        if self.metrics is not None:
            here = kept == step
            measured = self.evaluate_metrics(step) if here else self._measure_metrics(self.metrics)
            arrays |= {f"metric_{name}": each.per_example for name, each in measured.items()}
            final["metrics"] = {name: each.to_json() for name, each in measured.items()}
        if arrays:
            self.recorder.save_arrays("final.npz", **arrays)
        return final

    def _end_record(self, status: str, **info: Any) -> None:
        self.ledger.settle()
        step = self.state.global_step
        progress = {"step": step, "steps": self.args.max_steps, "loss": self.shown_loss}
        self.recorder.finish(status, ledger=self.ledger.to_json(), progress=progress, **info)

    # ---------------------------------------------------------------- checkpoints

    def _identity(self) -> dict[str, Any]:
        """Return what must not change between a run and its continuation, by name.

        Not in it, so free to change: the number of steps, the learning rate, how often to
        evaluate, log and save, and into how many processes and micro-batches a step is divided.
        """
        return {
            "mixer": self.mixer.name,
            "mixer_options": self.mixer.options(),
            **self._shared_identity(),
            "layer": list(self.layers),
        }

    def _shared_identity(self) -> dict[str, Any]:
        """Return the part of the identity that the side runs share."""
        domains = self.domains
        labels = np.asarray(domains.train_labels), np.asarray(domains.eval_labels)
        return {
            "domains": fingerprint(
                list(domains.names),
                *(x.astype(np.int64).tobytes() for x in labels),
                *(["outside"] if domains.outside else []),
            ),
            "train_dataset": _fingerprint_of(self.train_dataset),
            "round_steps": self.round_steps,
            "examples_per_step": self.examples_per_step,
            "seed": self.args.seed,
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # A poisoned model must not be saved.
        self._check_finite()
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        state = self._mixture_state()  # sums over processes: all take part
        if is_first():
            begin_checkpoint(folder)
        wait()
        # An older checkpoint may go only when this one is complete, so rotate afterwards.
        most, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
            wait()  # until all have written their part
            if is_first():
                save_state(folder, state)
        except BaseException:
            if is_first():  # half a checkpoint helps nobody, and the disk may be full
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self.args.save_total_limit = most
        if is_first():
            rotate_checkpoints(
                output_dir=self._get_output_dir(trial),
                save_total_limit=most,
                use_mtime=True,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )

    def _check_finite(self) -> None:
        """Stop at a loss or a weight, in any process, that is not a finite number."""
        step = self.state.global_step
        _check_losses(np.array(self.window.pool()), step, self.args)
        if self.is_fsdp_enabled:  # whose weights are in pieces
            return
        weights = [w.detach() for w in self.model.parameters() if w.element_size() > 1]
        bad = sum(torch.isfinite(w).all().logical_not().cpu() for w in weights)
        if any_of(bool(bad), self.args.device):
            raise _diverged("a weight", "not a finite number", step, self.args)

    def _mixture_state(self) -> dict[str, Any]:
        """Return the state of everything that is added to the library's trainer."""
        step, losses = self.last_eval or (None, None)
        return {
            "identity": self._identity(),
            "step": self.state.global_step,
            "mixture": self.mixture.state_dict(),
            "observer": self._round_state(),
            "ledger": self.ledger.state_dict(),
            "recorder": self.recorder.state_dict(),
            "window": self.window.pool(),
            "tokens": self.window.tokens,
            "last_eval": {"step": step, **vars(losses)} if losses is not None else None,
            "last_metrics": None
            if self.last_metrics is None
            else {
                "step": self.last_metrics[0],
                "values": {name: vars(each) for name, each in self.last_metrics[1].items()},
            },
        }

    def _round_state(self) -> dict[str, Any]:
        """Return what the round in progress has shown; all processes call this together.

        Sums of all processes are then with the first one, in this run and in a resumed one,
        so that both continue from the same numbers.
        """
        state: dict[str, Any] = {"tracker": {}, "losses": None, "visits": None}
        if self.tracker is not None:
            state["tracker"] = self.tracker.state_dict()
        if self.step_losses is not None:
            steps = self.state.global_step - self.mixture.round_began
            state["losses"] = self.step_losses.pool(steps, self.args.device)
        if self.visit_sums is not None:
            state["visits"] = self.visit_sums.pool(1, self.args.device)
        if self.ledger.processes > 1:
            self._load_round_state(state)
        return state

    def _load_round_state(self, state: Mapping[str, Any]) -> None:
        if self.tracker is not None:
            self.tracker.load_state_dict(state["tracker"])
        if self.step_losses is not None:
            self.step_losses.load(state["losses"])
        if self.visit_sums is not None:
            self.visit_sums.load(state["visits"])

    def _restore(self, checkpoint: Path, allow_missing: bool) -> int:
        """Load a checkpoint's state; return the step at which it was written.

        The record is not touched before everything else has been read.
        """
        state = check_checkpoint(checkpoint)
        if missing := missing_parts(checkpoint):
            if not allow_missing:
                raise InputError(
                    str(checkpoint),
                    f"has no {', no '.join(missing)}: to continue from it is not exact",
                    "resume from another checkpoint, or accept that with trainer.train(..., "
                    "allow_missing=True); save without save_only_model=True",
                )
            self.record["resumed_without"] = missing
        for name, mine in self._identity().items():
            theirs = state["identity"].get(name)
            if theirs != mine:
                raise InputError(
                    str(checkpoint),
                    f"{name} was {theirs!r}, and is {mine!r} now",
                    "resume with the same, or start a new run in another folder",
                )
        try:
            self.mixture.load_state_dict(state["mixture"])
            self._load_round_state(state["observer"])
            self.ledger.load_state_dict(state["ledger"])
            self.window.losses = [float(loss) for loss in state["window"]]
            self.window.tokens = int(state["tokens"])
            if (last := state["last_eval"]) is not None:
                self.last_eval = (int(last.pop("step")), EvalLosses(**last))
            if self.metrics is not None and (last := state.get("last_metrics")) is not None:
                values = {name: MetricValues(**each) for name, each in last["values"].items()}
                if values.keys() == self.metrics.functions.keys():
                    self.last_metrics = (int(last["step"]), values)
            self.recorder.load_state_dict(state["recorder"])
            return int(state["step"])
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise InputError(
                str(checkpoint),
                f"its state is damaged ({type(error).__name__}: {error})",
                "delete the checkpoint's folder and resume from another",
            ) from error


class MixtureTrainer(Mixture, Trainer):  # type: ignore[misc]
    __doc__ = (
        "A ``transformers.Trainer`` whose batches come from domains in changing proportions.\n\n"
        + "".join((Mixture.__doc__ or "").partition("    Runs in one process")[1:])
    )


class _SideRunStopped(Exception):
    """A side run was asked to stop, and so the run that needs it."""


class _StepHooks(TrainerCallback):  # type: ignore[misc]
    """Calls `first` before the first step, and `end_step(seconds)`, which says whether to stop."""

    def __init__(self, first: Callable[[], None], end_step: Callable[[float], bool]) -> None:
        self._first, self._end_step, self._began = first, end_step, 0.0

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step == 0:
            self._first()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = perf_counter()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._end_step(perf_counter() - self._began):
            control.should_save = control.should_training_stop = True


_OF_TRAINING = ("train_losses", "excess_losses", "visit_losses")  # signals: losses by example
_SAMPLED_ROWS = 64  # of the training set, that its fingerprint looks at


def _fingerprint_of(dataset: Any) -> str:
    rows = np.linspace(0, len(dataset) - 1, min(_SAMPLED_ROWS, len(dataset))).astype(int)
    return fingerprint(str(len(dataset)), [_as_text(dataset[int(i)]) for i in rows])


def _as_text(row: Any, *, whole: bool = False) -> str:
    """Return a row as text: images by their content, and with `whole` long arrays, too."""

    def content(value: Any) -> Any:
        if hasattr(value, "tobytes") and hasattr(value, "mode"):  # of PIL
            return fingerprint(f"{value.mode} {value.size}", value.tobytes())
        if whole and isinstance(value, Tensor | np.ndarray):
            array = value.cpu().numpy() if isinstance(value, Tensor) else value
            return fingerprint(array.tobytes())
        return value

    if not isinstance(row, Mapping):
        return str(content(row))
    return str({name: content(value) for name, value in row.items()})


def _by_kind(losses: EvalLosses) -> dict[str, Any]:
    outside = {"token": losses.outside_token, "example": losses.outside_example}
    return {
        "loss_token": losses.token,
        "loss_example": losses.example,
        "by_domain_token": losses.by_domain_token,
        "by_domain_example": losses.by_domain_example,
        **{f"outside_{per}": loss for per, loss in outside.items() if np.isfinite(loss)},
    }


_PROJECTIONS = ("visual_projection", "text_projection")  # of CLIP and its kin
_STUDIED_ROWS = 8  # that show how the loss divides
_MAKERS = ("transformers", "trl")  # of arguments that are for trainers of their own


def _not_by_example(model: Any) -> InputError:
    return InputError(
        "loss_of",
        f"the loss of {type(model).__name__} cannot be divided among examples",
        "give a function like rbkit.train.losses.example_losses, for images with captions "
        "rbkit.train.contrastive_losses, or measure none: eval_rounds=0 and a rule that does not "
        "need them",
    )


def _by_row(domains: Domains, train: Any, evaluation: Any) -> Domains:
    """Return the domains of the rows of both datasets: of packed ones, as ``domain_ids`` says."""
    labels = {"train": domains.train_labels, "eval": domains.eval_labels}
    packed: dict[str, Any] = {}
    for split, data in (("train", train), ("eval", evaluation)):
        name = f"{split}_dataset"
        _check_kind(name, data)
        if DOMAIN_IDS in (getattr(data, "column_names", None) or ()):
            packed[f"{split}_labels"] = _packed_labels(name, data, domains)
        elif data is not None and len(data) != len(labels[split]):
            raise InputError(
                name,
                f"{len(data)} rows, but the domains label {len(labels[split])}",
                "give the dataset that the domains were made from, in its order; for packed rows "
                "see rbkit.regroup.add_domain_ids",
            )
    return replace(domains, **packed, material=None) if packed else domains


def _packed_labels(name: str, data: Any, domains: Domains) -> list[int]:
    labels: list[int] = []
    for part in data.select_columns(DOMAIN_IDS).with_format("numpy").iter(1000):
        for ids in map(np.unique, part[DOMAIN_IDS]):
            if len(ids) != 1:
                names = " and ".join(
                    repr(domains.names[i]) if 0 <= i < domains.m else str(i) for i in ids[:2]
                )
                raise InputError(
                    name,
                    f"row {len(labels)} has tokens of {names or 'no domain'}: no proportions "
                    "can be obeyed",
                    "pack each domain by itself: see rbkit.regroup.add_domain_ids",
                )
            labels.append(int(ids[0]))
    return labels


def _check_kind(name: str, data: Any) -> None:
    if isinstance(data, Mapping):
        raise InputError(
            name, "several datasets in a dict", "concatenate them, and let domains tell them apart"
        )
    if data is not None and (isinstance(data, IterableDataset) or not hasattr(data, "__len__")):
        raise InputError(
            name,
            f"{type(data).__name__} has no rows to draw by number",
            "give a map-style dataset, such as datasets.Dataset",
        )


def _check_domains(domains: Domains) -> None:
    """Refuse a target that cannot be trained for (Domains has warned of empty domains)."""
    empty = np.asarray(domains.sizes) == 0
    lost = float(np.asarray(domains.q)[empty].sum())
    names = ", ".join(repr(domains.names[i]) for i in np.flatnonzero(empty)[:5])
    if empty.all():
        raise InputError("domains", "no domain has training data", "check the train labels")
    if lost > 0:
        raise InputError(
            "domains",
            f"{lost:.0%} of the eval set lies in domains without training data ({names})",
            "regroup with KMeans (eval examples go to the nearest train domain), or by sources "
            "with unseen='nearest', 'outside' or 'drop'",
        )


_NO = "leave it out"
_OBEYED: list[tuple[str, tuple[Any, ...], str, str]] = [  # arguments: what alone can be obeyed
    *(
        (f"{what}_strategy", ways, "a mixture has no epochs", f"use 'steps' with {what}_steps")
        for what, ways in (
            ("eval", ("no", "steps")),
            ("save", ("no", "steps", "best")),
            ("logging", ("no", "steps")),
        )
    ),
    ("train_sampling_strategy", ("random",), "the mixture draws the examples", _NO),
    (
        "auto_find_batch_size",
        (False,),
        "the examples of a step are planned",
        "choose per_device_train_batch_size",
    ),
    ("bf16_full_eval", (False,), "evaluation is in the model's dtype", "use bf16"),
    ("fp16_full_eval", (False,), "evaluation is in the model's dtype", "use fp16"),
    ("dataloader_drop_last", (False,), "training has no last batch", _NO),
    ("dataloader_persistent_workers", (False,), "workers end with a round", _NO),
    ("dataloader_in_order", (True,), "the sequence would not be that of the seed", _NO),
    ("split_batches", (False,), "the batch size is that of a process", _NO),
    ("dispatch_batches", (None, False), "each process draws its own part", _NO),
    (
        "enable_jit_checkpoint",
        (False,),
        "a run that is stopped is saved already",
        "stop it by Ctrl-C or a file STOP",
    ),
    ("parallelism_config", (None,), "only whole rows have a domain", "use DDP or FSDP"),
    ("deepspeed", (None,), "its gradients are not those of a plain loss", "use DDP or FSDP"),
]


def _check_arguments(args: TrainingArguments, mixer: Mixer, eval_dataset: Any) -> None:
    """Refuse settings under which the numbers would be silently wrong."""
    if args.n_gpu > 1:
        raise InputError(
            "devices",
            f"{args.n_gpu} GPUs in one process",
            f"start {args.n_gpu} processes with torchrun, or set CUDA_VISIBLE_DEVICES to one GPU",
        )
    if unknown := mixer.signals - set(SIGNALS):
        raise InputError(
            f"signals of {mixer.name}",
            f"{', '.join(sorted(unknown))} unknown",
            f"use some of {', '.join(SIGNALS)}",
        )
    needs_eval = mixer.signals & {"eval_losses", "target_gradient", "probe_runs"}
    if needs_eval and eval_dataset is None:
        raise InputError(
            "eval_dataset", f"{mixer.name} needs it for {', '.join(sorted(needs_eval))}", "give one"
        )
    if mixer.acts == "loss" and "gram" in mixer.signals:
        raise InputError(
            f"mixer {mixer.name}",
            "tracks gradients of losses that it weighs itself",
            "let it act by sampling, or use another signal",
        )
    whole = mixer.signals & {"target_gradient", "domain_gradients", "probe_runs", "excess_losses"}
    if args.fsdp and whole:
        raise InputError(
            "fsdp", f"{', '.join(sorted(whole))} need the whole model in each process", "use DDP"
        )
    for name, obeyed, what, remedy in _OBEYED:
        holder = args.accelerator_config if hasattr(args.accelerator_config, name) else args
        if (value := getattr(holder, name)) not in obeyed:
            value = getattr(value, "value", value)
            raise InputError(name, f"{value!r} cannot be obeyed: {what}", remedy)
    if args.data_seed not in (None, args.seed):
        raise InputError("data_seed", "the order of examples follows seed", "give only seed")
    if args.use_liger_kernel and "gram" in mixer.signals:
        raise InputError(
            "use_liger_kernel", "its loss goes past the layer that is tracked", "turn it off"
        )
    if args.torch_compile and "gram" in mixer.signals:
        raise InputError("torch_compile", "the tracker's hooks are not compiled", "turn it off")


def _check_losses(losses: FloatArray, last_step: int, args: TrainingArguments) -> None:
    """Stop at the first loss, of the steps up to `last_step`, that is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = last_step - len(losses) + 1 + int(bad[0])
        raise _diverged("loss", str(losses[bad[0]]), step, args)


def _diverged(what: str, became: str, step: int, args: TrainingArguments) -> TrainingError:
    return TrainingError(
        f"{what}: became {became} at step {step}; "
        f"lower learning_rate (now {args.learning_rate:g}) or max_grad_norm, then resume from "
        f"the last checkpoint in {args.output_dir}, if there is one, or start again"
    )
