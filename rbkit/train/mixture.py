"""The mixture of a run: its proportions, whether they sample or weigh losses, and its rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from rbkit.balance.mixers.base import Mixer, check_proportions, limit, normalise
from rbkit.balance.sampler import MixtureSampler
from rbkit.balance.signals import FloatArray
from rbkit.regroup.domains import Domains
from rbkit.train.parallel import from_first, processes, rank

DOMAIN = "rbkit_domain"  # key under which a batch carries the domain of each example
HALF = "rbkit_half"  # ... and the half of the round that each example belongs to
VISITS = "rbkit_visits"  # ... and how often each example was drawn before
EXAMPLE = "rbkit_example"  # ... and, if examples are packed, which of them each token belongs to


class MixtureLoader:
    """Endless batches drawn by a :class:`MixtureSampler`, each with its domain ids.

    The rows of a whole round are planned when it begins, since p is constant within it;
    worker processes may fetch ahead up to its end, but never past a change of p. The
    sampler moves on only as batches are handed out, so its state is always that of the
    training loop.

    Several training processes share one sequence: each takes its part of every
    ``processes x batch_size`` examples, so the examples of a step do not depend on how many
    processes there are.

    `batch_size` is that of this process; `until` gives the position in the sequence up to which
    p stays as it is. A `collate` that packs says so by :data:`EXAMPLE`; one that puts all rows into
    a single one, as transformers' ``DataCollatorWithFlattening``, is recognised.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: MixtureSampler,
        *,
        batch_size: int,
        until: Callable[[], int],
        collate: Callable[[list[Any]], dict[str, Any]],
        workers: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        multiprocessing_context: str | None = None,
    ) -> None:
        self.dataset, self.sampler, self.collate = dataset, sampler, collate
        self.batch_size, self.until = batch_size, until
        self.workers, self.pin_memory = workers, pin_memory
        self.options: dict[str, Any] = {
            "prefetch_factor": prefetch_factor if workers else None,
            "multiprocessing_context": multiprocessing_context if workers else None,
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            together = self.batch_size * processes()
            count = max(1, (self.until() - self.sampler.position) // together)
            rows, halves, visits = self.sampler.plan(count * together)
            mine = slice(rank() * self.batch_size, (rank() + 1) * self.batch_size)
            plan = torch.from_numpy(np.stack((rows, halves, visits), 1))
            loader: DataLoader[Any] = DataLoader(
                _WithIndex(self.dataset),
                batch_sampler=[part[mine].tolist() for part in plan.split(together)],
                collate_fn=self._collate,
                num_workers=self.workers,
                pin_memory=self.pin_memory,
                # Its own generator: a loader must not touch the random state of the model.
                generator=torch.Generator(),
                **self.options,
            )
            for batch in loader:
                self.sampler.take(together)
                yield batch

    def _collate(self, items: Sequence[tuple[list[int], Any]]) -> dict[str, Any]:
        index, halves, visits = torch.tensor([plan for plan, _ in items]).T
        rows = [row for _, row in items]
        # Before collating: some collators change the rows they are given.
        texts = [row["input_ids"] for row in rows if "input_ids" in row]
        batch = dict(self.collate(rows))
        batch[DOMAIN] = torch.as_tensor(self.sampler.labels[index.numpy()])
        batch[HALF], batch[VISITS] = halves, visits
        ids = batch.get("input_ids")
        if len(texts) > 1 and isinstance(ids, Tensor) and ids.ndim == 2 and len(ids) == 1:
            flat = torch.cat([torch.as_tensor(text) for text in texts])
            padding = ids.shape[1] - len(flat)
            # One after the other, and as they were, but for some tokens that may be masked.
            if padding >= 0 and (ids[0, : len(flat)] == flat).float().mean() > 0.5:
                lengths = torch.tensor([*map(len, texts), padding])
                which = torch.tensor([*range(len(texts)), -1])
                batch[EXAMPLE] = which.repeat_interleave(lengths)[None]
        return batch


def per_token(values: Tensor, examples: Tensor) -> Tensor:
    """Return values of packed examples, (B,), as values of their tokens, (R, T).

    `examples`, (R, T), says which of the B a token belongs to; that of padding, and its value, is
    -1.

    Examples
    --------
    >>> per_token(torch.tensor([7, 8]), torch.tensor([[0, 0, -1], [1, -1, -1]]))
    tensor([[ 7,  7, -1],
            [ 8, -1, -1]])
    """
    return F.pad(values, (0, 1), value=-1)[examples]


class _WithIndex(Dataset[tuple[list[int], Any]]):
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, plan: list[int]) -> tuple[list[int], Any]:
        return plan, self.dataset[plan[0]]


class MixtureState:
    """Proportions, the sampler that they set, and the round that they hold for.

    Parameters
    ----------
    mixer : Mixer
    domains : Domains
    steps : int
        Of the whole run.
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
        self,
        mixer: Mixer,
        domains: Domains,
        *,
        steps: int,
        round_steps: int,
        examples_per_step: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.mixer, self.round_steps, self.device = mixer, round_steps, device
        self.examples_per_step = examples_per_step
        sizes, mixer.domain_names = np.asarray(domains.sizes), list(domains.names)
        mixer.budget = steps * examples_per_step
        self.available = sizes > 0
        self.p = check_proportions(mixer.start(domains.q, sizes), self.available)
        self.sampler = MixtureSampler(
            domains.train_labels, self._sampled(), seed, mixer.max_epochs, mixer.reserve
        )
        self.rounds_done = self.round_began = 0
        self.round_ends = self._length()

    def change(self, p: FloatArray, step: int | None = None) -> None:
        """Continue with `p`; with a `step`, the round ends there and the next begins.

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
        """Return the weight of each example's loss, (B,): its domain's p over its sampled share."""
        sampled = self.sampler.p
        ratio = np.divide(self.p, sampled, out=np.zeros(len(self.p)), where=sampled > 0)
        return torch.from_numpy(ratio).float()[domains.cpu()]

    def _sampled(self) -> FloatArray:
        """Return the sampled proportions: p, or uniform where p weighs losses."""
        if self.mixer.acts == "sampling":
            return self.p
        return normalise(np.ones(len(self.p)), self.available)

    def _length(self) -> int:
        return max(1, int(self.mixer.round_length(self.round_steps)))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resume needs: arrays and JSON values."""
        return {
            "sampler": self.sampler.state_dict(),
            "mixer": self.mixer.state_dict(),
            "p": self.p,
            "round": [self.round_began, self.round_ends],
            "rounds_done": self.rounds_done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where the saved mixture stood."""
        self.sampler.load_state_dict(state["sampler"])
        self.mixer.load_state_dict(state["mixer"])
        self.p, self.rounds_done = np.array(state["p"]), int(state["rounds_done"])
        self.round_began, self.round_ends = (int(step) for step in state["round"])
