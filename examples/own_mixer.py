"""Your own mixer: train more on the domains whose eval loss has stopped falling."""

import numpy as np

from rbkit.balance.mixers.base import Mixer, normalise


class Stalled(Mixer):
    """Weigh a domain up by ``rate`` for each round in which its eval loss did not fall."""

    signals = frozenset({"eval_losses"})  # the trainer evaluates each round and records the price
    cost = "an evaluation each round"

    def __init__(self, rate=1.5):
        self.rate, self.losses, self.weights = rate, None, None

    def start(self, q, sizes):
        """Begin a run on uniform proportions."""
        self.losses, self.weights = None, np.ones(len(q))  # forget any earlier run
        return super().start(q, sizes)

    def update(self, seen):
        """Return the proportions of the next round."""
        if self.losses is not None:  # an unknown loss (NaN) has not stalled
            self.weights = np.where(seen.eval_losses >= self.losses, self.rate, 1) * self.weights
        self.losses = seen.eval_losses.copy()
        return normalise(self.weights, seen.available)

    def state_dict(self):
        """Return the state that must survive a restart."""
        return {} if self.losses is None else {"losses": self.losses, "weights": self.weights}

    def load_state_dict(self, state):
        """Resume from a saved state."""
        self.losses, self.weights = state.get("losses"), state.get("weights", self.weights)

    def options(self):
        """Return the options that are recorded with a run."""
        return {"rate": self.rate}
