"""The mixture of a run: what is sampled, what weighs losses, and when either changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbkit.balance.mixers.base import Mixer, check_proportions, limit, normalise
from rbkit.balance.sampler import MixtureSampler
from rbkit.balance.signals import FloatArray
from rbkit.regroup.domains import Domains
from rbkit.train.parallel import from_first


class Mixture:
    """Proportions, the sampler that they set, and the round that they hold for.

    Parameters
    ----------
    mixer : Mixer
    domains : Domains
    round_steps : int
        Steps of a round, unless the mixer plans shorter ones.
    examples_per_step : int
        Of all processes together.
    seed : int
        Of the sequence of examples.
    device : torch.device
        Where processes talk.

    Attributes
    ----------
    p : ndarray of shape (m,)
        Proportions in force: of examples, or of the loss, as the mixer acts.
    sampler : MixtureSampler
    round_began, round_ends : int
        First and last step of the round, as numbers of steps made.
    rounds_done : int
    """

    def __init__(
        self, mixer: Mixer, domains: Domains, *, round_steps: int, examples_per_step: int,
        seed: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.mixer, self.round_steps, self.device = mixer, round_steps, device
        self.examples_per_step = examples_per_step
        sizes = np.asarray(domains.sizes)
        self.available = sizes > 0
        self.p = check_proportions(mixer.start(domains.q, sizes), self.available)
        self.sampler = MixtureSampler(domains.train_labels, self._sampled(), seed, mixer.max_epochs)
        self.rounds_done = self.round_began = 0
        self.round_ends = self._length()

    def change(self, p: FloatArray, step: int | None = None) -> None:
        """Go on with `p`; with a `step`, the round ends there and the next begins.

        Processes agree on the first one's `p`. Where a domain would be seen too often in the
        coming round, its share is cut.
        """
        if step is not None:
            self.round_began, self.rounds_done = step, self.rounds_done + 1
        self.p = check_proportions(from_first(p, self.device), self.available)
        self.round_ends = self.round_began + self._length()
        if self.mixer.acts == "sampling" and self.mixer.max_epochs is not None:
            examples = (self.round_ends - self.round_began) * self.examples_per_step
            left = np.maximum(self.sampler.most - self.sampler.drawn, 0) / examples
            if left.sum() > 0:
                self.p = limit(self.p, left)
        self.sampler.set_proportions(self._sampled())

    def weights(self, domains: Tensor) -> Tensor:
        """Return the weight of each example's loss, (B,): its domain's p over what is sampled."""
        sampled = self.sampler.p
        ratio = np.divide(self.p, sampled, out=np.zeros(len(self.p)), where=sampled > 0)
        return torch.from_numpy(ratio).float()[domains.cpu()]

    def _sampled(self) -> FloatArray:
        """Return what is sampled: p, or uniform where p weighs losses."""
        if self.mixer.acts == "sampling":
            return self.p
        return normalise(np.ones(len(self.p)), self.available)

    def _length(self) -> int:
        return max(1, int(self.mixer.round_length(self.round_steps)))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resume needs: arrays and JSON values."""
        return {
            "sampler": self.sampler.state_dict(), "mixer": self.mixer.state_dict(), "p": self.p,
            "round": [self.round_began, self.round_ends], "rounds_done": self.rounds_done,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where the saved mixture stood."""
        self.sampler.load_state_dict(state["sampler"])
        self.mixer.load_state_dict(state["mixer"])
        self.p, self.rounds_done = np.array(state["p"]), int(state["rounds_done"])
        self.round_began, self.round_ends = (int(step) for step in state["round"])
