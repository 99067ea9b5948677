r"""Skill-It: train on the domains that lower the losses which are still high.

Chen et al. (arXiv 2307.14430). Short runs on each domain alone give a skills graph,

.. math:: A_{ij} = \frac{L_j(\text{before}) - L_j(\text{after training on } i)}{L_j(\text{before})}

and each round, with :math:`\bar L` the sum of the last w evaluations,

.. math:: p_i \propto \exp\Big(\eta \sum_j A_{ij} \bar L_j\Big), \qquad
          p_i^{(0)} \propto \exp\Big(\eta \sum_j A_{ij}\Big)

The prior is uniform each time: the window is all the memory there is. The evaluation before the
first step is the window's first entry, as in the authors' code. That code gives no way to learn
the graph and none to bound it: edges may be negative here. An off-diagonal edge of exactly 1
becomes 0.5, as there (it is meant for graphs drawn by hand).

Options of the code, off by default: `targets` (its target mask: only these domains' losses count,
and the window's *mean* is taken), `decay` (:math:`\eta_t = \eta \sum L_0 / \sum L_t`), `normalise`
(:math:`\bar L_j / L_j(\text{before})`), `halve_edges` (its dynamic lambda: off-diagonal edges are
halved after each round). Defaults: w = 3 from the code; eta = 0.2 from the script of Aioli's
port (Skill-It's own use 0.1 to 0.8); 200 steps of graph learning from R&B's comparison.

Cost: m runs before the first step, and an evaluation each round. Known failures: domains that
share much of their content get nearly equal rows, so p stays near uniform; the graph is of the
first steps and is not learned again; q plays no part, every eval domain counts alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import Rule, normalise, tilt
from rbkit.balance.signals import FloatArray, IntArray, Observation, ProbeRuns
from rbkit.errors import InputError, as_count


@dataclass(eq=False)
class SkillIt(Rule):
    r"""Skill-It (arXiv 2307.14430): a skills graph, and the losses it leads to.

    Parameters
    ----------
    eta : float
        Step size of the weights.
    window : int
        w, evaluations whose losses are summed.
    graph_steps : int
        Steps of each of the m runs that the graph is learned from.
    targets : sequence of int or of str, optional
        Numbers or names of the domains whose losses count; all by default. With targets, the
        window's mean is taken.
    decay : bool
        Let eta grow as the losses fall: :math:`\eta \sum L_0 / \sum L_t`.
    normalise : bool
        Divide each loss by its value before training.
    halve_edges : bool
        Halve the off-diagonal edges after each round.

    Examples
    --------
    >>> rule = SkillIt(eta=1.0)
    >>> _ = rule.start(q=np.full(2, .5), sizes=np.array([9, 9]))
    >>> rule.prepare(ProbeRuns(np.array([2., 2.]), np.array([[1., 2.], [2., 2.]]), 200)).round(4)
    array([0.6225, 0.3775])
    """

    eta: float = 0.2
    window: int = 3
    graph_steps: int = 200
    targets: Sequence[int] | Sequence[str] | None = None
    decay: bool = False
    normalise: bool = False
    halve_edges: bool = False
    _graph: FloatArray | None = field(default=None, init=False, repr=False)  # (m, m)
    _first: FloatArray | None = field(default=None, init=False, repr=False)  # L_0
    _losses: FloatArray | None = field(default=None, init=False, repr=False)  # (<= w, m)
    _available: NDArray[np.bool_] | None = field(default=None, init=False, repr=False)

    signals = frozenset({"probe_runs", "eval_losses"})
    paper: ClassVar[str] = "Skill-It, arXiv 2307.14430"
    cost: ClassVar[str] = "m runs before the first step, and an evaluation each round"

    def __post_init__(self) -> None:
        self._check_number("eta", least=0, try_="0.2")
        self._check_number("window", least=1, whole=True, try_="3")
        self._check_number("graph_steps", least=1, whole=True, try_="200")
        for name in ("decay", "normalise", "halve_edges"):
            self._check_flag(name)
        if self.targets is not None:
            where, remedy = "SkillIt(targets=...)", "try targets=[0, 2], or names of domains"
            if isinstance(self.targets, str) or not hasattr(self.targets, "__iter__"):
                raise InputError(where, f"{self.targets!r} are not domains", remedy)
            given = list(self.targets)
            named = bool(given) and all(isinstance(each, str) for each in given)
            if named:
                self.targets = [str(each) for each in given]
            else:
                self.targets = [as_count(where, i, least=None, remedy=remedy) for i in given]

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run; the graph comes with :meth:`prepare`."""
        p = super().start(q, sizes)
        self._available = np.asarray(sizes) > 0
        if self.targets is not None:
            self._target_numbers(len(q))
        return p

    def _target_numbers(self, m: int) -> list[int]:
        names = [each for each in self.targets or () if isinstance(each, str)]
        if names:
            return self._numbers("targets", names, m, every=False)
        numbers = [each for each in self.targets or () if isinstance(each, int)]
        wrong = [i for i in numbers if not 0 <= i < m]
        if wrong or not numbers:
            raise InputError(
                "SkillIt(targets=...)",
                f"{wrong or 'nothing'} for {m} domains",
                f"name some of 0 to {m - 1}",
            )
        return numbers

    def probe_steps(self) -> int:
        """Return the steps of each run that the graph is learned from."""
        return self.graph_steps

    def prepare(self, probes: ProbeRuns) -> FloatArray:
        """Take up the runs on single domains; return the first proportions, (m,)."""
        if self._available is None:
            raise ValueError("SkillIt.prepare() comes after start()")
        before = probes.before
        # NaN: no eval examples, or no training data. No edge then.
        graph = np.nan_to_num((before - probes.after) / np.where(before > 0, before, np.nan))
        off_diagonal = ~np.eye(len(graph), dtype=bool)
        graph[off_diagonal & (graph == 1)] = 0.5
        self._graph, self._first = graph, before.copy()
        self._losses = before[None].copy()
        return self._weigh(self._counted(np.ones(len(before))), self.eta)

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,); a round without any eval loss changes nothing."""
        if seen.eval_losses is None:
            raise ValueError("SkillIt needs the signal 'eval_losses'")
        if self._graph is None or self._losses is None or self._first is None:
            raise ValueError("SkillIt needs the signal 'probe_runs': call prepare() first")
        now = seen.eval_losses
        if not np.isfinite(now).any():
            return seen.p
        self._losses = np.vstack([self._losses, now])[-self.window :]
        window = np.nan_to_num(self._losses)
        total = window.sum(axis=0) if self.targets is None else window.mean(axis=0)
        eta = self.eta
        if self.decay:
            both = self._counted(np.isfinite(now / self._first).astype(float)) > 0
            ratio = now[both].sum() / self._first[both].sum() if both.any() else 1.0
            eta = self.eta / ratio if ratio > 0 else self.eta
        if self.normalise:
            total = np.nan_to_num(total / np.where(self._first > 0, self._first, np.nan))
        p = self._weigh(self._counted(total), eta)
        if self.halve_edges:
            self._graph = np.where(np.eye(len(p), dtype=bool), self._graph, self._graph / 2)
        return p

    def _counted(self, losses: FloatArray) -> FloatArray:
        """Return `losses` with 0 for domains that are not targets."""
        if self.targets is None:
            return losses.astype(float)
        counted = np.zeros(len(losses))
        numbers = self._target_numbers(len(losses))
        counted[numbers] = losses[numbers]
        return counted

    def _weigh(self, losses: FloatArray, eta: float) -> FloatArray:
        assert self._graph is not None
        assert self._available is not None
        even = normalise(np.ones(len(losses)), self._available)
        return tilt(even, self._graph @ losses, eta)
