"""Rounds of a training loop of one's own, which says what it does in whatever order it likes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rbkit.balance.signals import FloatArray, GramEstimate
from rbkit.errors import InputError
from rbkit.train.record import Recorder

_ROUNDING = 1e-3  # of a sum of proportions in single or half precision


def shares(where: str, values: ArrayLike, m: int) -> FloatArray:
    """Return `values` as proportions of `m` domains, float64, that sum to 1.

    Raises
    ------
    InputError
        For another number of them, and for anything but proportions.

    Examples
    --------
    >>> shares("q", [0.25, 0.75], 2)
    array([0.25, 0.75])
    >>> shares("q", [30, 70], 2)
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: q: the sum is 100, not 1; divide by it
    """
    found = one_each(where, values, m)
    if not np.isfinite(found).all() or (found < 0).any():
        raise InputError(where, "some are negative or no numbers", "give shares from 0 to 1")
    total = float(found.sum())
    if abs(total - 1) > _ROUNDING:
        raise InputError(where, f"the sum is {total:g}, not 1", "divide by it")
    return found / total if abs(total - 1) > 1e-9 else found


def one_each(where: str, values: ArrayLike, m: int) -> FloatArray:
    """Return `values` as float64, one for each of `m` domains."""
    found = np.array(values, dtype=np.float64)
    if found.shape != (m,):
        raise InputError(where, f"shape {found.shape}, but there are {m} domains",
                         "give one number for each")  # fmt: skip
    return found


class LoopRounds:
    """Make rounds of proportions and Gram matrices, and record them.

    A round ends with a Gram matrix, or where the proportions change, though not before it has
    `round_steps` steps: where they change at every step, a round is recorded with their mean.
    Proportions that change between a Gram matrix and the end of the next step are those which
    it led to. As long as nobody told them they are NaN.

    Parameters
    ----------
    recorder : Recorder
    p : ndarray of shape (m,)
        Proportions at the beginning, or NaN.
    round_steps : int

    Examples
    --------
    >>> import tempfile
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> rounds = LoopRounds(recorder, np.array([0.5, 0.5]), round_steps=2)
    >>> for step, share in enumerate((0.4, 0.2, 0.1), start=1):
    ...     rounds.step(step, np.array([share, 1 - share]))
    >>> rounds.close(3)
    >>> recorder.arrays["step"], [p.round(2).tolist() for p in recorder.arrays["p"]]
    ([2, 3], [[0.45, 0.55], [0.2, 0.8], [0.1, 0.9]])
    """

    def __init__(self, recorder: Recorder, p: FloatArray, round_steps: int) -> None:
        self._recorder, self._round_steps = recorder, round_steps
        self._p = p  # in force now
        self._began = 0  # the step at which the round in progress began
        self._sum, self._told = np.zeros(len(p)), 0  # p of its steps, where it is known
        self._mixed = False  # whether not all its steps had the same
        self._waiting = False  # for what the Gram matrix led to
        recorder.arrays["p"] = [p]

    def change(self, step: int, p: FloatArray) -> None:
        """Take note of other proportions before the step after `step`."""
        if _same(p, self._p):
            return
        self._p, self._waiting = p, False
        if step == self._began:
            self._recorder.amend(p)
        else:
            self._end_if_due(step)

    def step(
        self, step: int, p: FloatArray | None = None, gram: GramEstimate | None = None
    ) -> None:
        """Take note of a step, of the proportions from now on, and of what the round showed."""
        after = self._p if p is None else p
        if self._waiting and not _same(after, self._p):
            self._p = after
            self._recorder.amend(after)
        self._waiting = False
        self._mixed |= not _same(self._p, self._recorder.arrays["p"][-1])
        if np.isfinite(self._p).all():
            self._sum += self._p
            self._told += 1
        before, self._p = self._p, after
        if gram is not None:
            self._end(step, gram)
            self._waiting = _same(after, before)
        else:
            self._end_if_due(step)

    def close(self, step: int) -> None:
        """End the round in progress if its proportions are not recorded yet."""
        if step > self._began and self._changed():
            self._end(step, None)

    def _changed(self) -> bool:
        return self._mixed or not _same(self._p, self._recorder.arrays["p"][-1])

    def _end_if_due(self, step: int) -> None:
        if step - self._began >= self._round_steps and self._changed():
            self._end(step, None)

    def _end(self, step: int, gram: GramEstimate | None) -> None:
        if self._mixed and self._told:
            self._recorder.arrays["p"][-1] = self._sum / self._told
        self._recorder.round(step=step, p=self._p, estimate=gram)
        self._began, self._sum, self._told = step, np.zeros(len(self._p)), 0
        self._mixed = False


def _same(one: FloatArray, other: FloatArray) -> bool:
    return np.array_equal(one, other, equal_nan=True)
