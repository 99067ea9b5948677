"""Producing the signals that a mixer declares: nothing more, and at a price that is noted.

``gram`` comes from the tracker and ``train_losses`` from the losses of training itself;
``eval_losses`` is an evaluation; the others take passes, or whole runs, of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rbkit.balance.gram import GramTracker, find_layer
from rbkit.balance.mixers.registry import MIXERS, mixer_by_name
from rbkit.balance.signals import FloatArray, FreshGradients, GramEstimate, Observation, TrainLosses
from rbkit.train.fidelity import Fidelity, measure_fidelity
from rbkit.train.fresh import FreshBatches, fresh_gradients
from rbkit.train.loader import per_token
from rbkit.train.losses import StepLosses, reference_excess
from rbkit.train.side import probe_runs, reference_model

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer

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
                model, self.reference, inputs, trainer.loss_of,
                lambda: trainer.ledger.within("reference", trainer.args.device),
            )  # fmt: skip
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
            trainer.mixture.rounds_done, trainer.mixture.p, np.asarray(trainer.domains.q),
            np.asarray(trainer.domains.sizes), gram=self._gram(),
            eval_losses=losses.by_domain_token if losses is not None else None,
            train_losses=self._losses(step - trainer.mixture.round_began), gradients=self._fresh(),
            step=step, steps=trainer.args.max_steps, learning_rate=float(rate),
            peak_learning_rate=float(trainer.args.learning_rate),
        )  # fmt: skip

    def check_fidelity(self, step: int) -> Fidelity:
        """Compare the tracked layers with all parameters; keep the result in the run's record."""
        trainer = self.trainer
        layers = [find_layer(trainer.bare_model, name) for name in trainer.layers or (None,)]
        own = "gram" in self.wanted and trainer.mixer.name in MIXERS
        rule = mixer_by_name(trainer.mixer.name, trainer.mixer.options()) if own else None
        mixture, domains = trainer.mixture, trainer.domains
        now = Observation(mixture.rounds_done, mixture.p, np.asarray(domains.q),
                          np.asarray(domains.sizes), step=step)  # fmt: skip
        with trainer.ledger.measure("fidelity"):
            found = measure_fidelity(trainer.bare_model, layers, self._batches(), now,
                                     loss_of=trainer.loss_of, rule=rule)  # fmt: skip
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
                trainer.bare_model, self._batches(), trainer.mixture.rounds_done,
                loss_of=trainer.loss_of, among="domain_gradients" in self.wanted,
                target="target_gradient" in self.wanted,
            )  # fmt: skip
        ledger.hold(name, held)
        return found

    def _batches(self) -> FreshBatches:
        trainer = self.trainer

        def collate(rows: list[Any]) -> dict[str, Any]:
            batch: dict[str, Any] = trainer._prepare_inputs(dict(trainer.eval_collator(rows)))
            return batch

        return FreshBatches(
            trainer._used_columns(trainer.train_dataset, "training"),
            trainer._used_columns(trainer.eval_dataset, "evaluation"), trainer.sampler.members,
            np.flatnonzero(np.asarray(trainer.domains.eval_labels) >= 0), collate,
            trainer.examples_per_step, trainer.args.seed,
        )  # fmt: skip

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
