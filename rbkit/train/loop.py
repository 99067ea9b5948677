"""``rb.live``: a run folder and a live panel for your own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import ArrayLike

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.sampler import MixtureSampler
from rbkit.balance.signals import FloatArray, GramEstimate
from rbkit.errors import InputError, as_count
from rbkit.regroup.domains import Domains
from rbkit.train.losses import Window
from rbkit.train.parallel import any_of, is_first, processes, refused_together, wait
from rbkit.train.recorder import Recorder, StopRequest, Watcher
from rbkit.train.run import PER_TOKEN
from rbkit.train.trackers import watchers

_ROUNDING = 1e-3  # of a sum of proportions in single or half precision


def shares(where: str, values: ArrayLike, m: int) -> FloatArray:
    """Return `values` as proportions of `m` domains, float64, that sum to 1.

    Examples
    --------
    >>> shares("q", [0.25, 0.75], 2)
    array([0.25, 0.75])
    >>> shares("q", [30, 70], 2)
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: q: the sum is 100, not 1; divide by it
    """
    p = one_each(where, values, m)
    if not np.isfinite(p).all() or (p < 0).any():
        raise InputError(where, "some are negative or not numbers", "give shares from 0 to 1")
    total = float(p.sum())
    if abs(total - 1) > _ROUNDING:
        raise InputError(where, f"the sum is {total:g}, not 1", "divide by it")
    return p / total if abs(total - 1) > 1e-9 else p


def one_each(where: str, values: ArrayLike, m: int) -> FloatArray:
    """Return `values` as float64, one for each of `m` domains."""
    array = np.array(values, dtype=np.float64)
    if array.shape != (m,):
        raise InputError(
            where, f"shape {array.shape}, but there are {m} domains", "give one number for each"
        )
    return array


class LoopRounds:
    """Make rounds of proportions and Gram matrices, and record them.

    A round ends with a Gram matrix, or where the proportions change, though not before it has
    `round_steps` steps: where they change at every step, a round is recorded with their mean.
    Proportions that change between a Gram matrix and the end of the next step are those which
    it led to. Until they are known they are NaN.

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
        self._sum, self._known_steps = np.zeros(len(p)), 0  # p of its steps, where it is known
        self._mixed = False  # whether not all its steps had the same
        self._waiting = False  # for what the Gram matrix led to
        recorder.arrays["p"] = [p]

    def change(self, step: int, p: FloatArray) -> None:
        """Note other proportions, in force from the step after `step`."""
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
        """Note a step, the proportions from now on, and the Gram matrix of a round."""
        after = self._p if p is None else p
        if self._waiting and not _same(after, self._p):
            self._p = after
            self._recorder.amend(after)
        self._waiting = False
        self._mixed |= not _same(self._p, self._recorder.arrays["p"][-1])
        if np.isfinite(self._p).all():
            self._sum += self._p
            self._known_steps += 1
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
        if self._mixed and self._known_steps:
            self._recorder.arrays["p"][-1] = self._sum / self._known_steps
        self._recorder.round(step=step, p=self._p, estimate=gram)
        self._began, self._sum, self._known_steps = step, np.zeros(len(self._p)), 0
        self._mixed = False


def _same(one: FloatArray, other: FloatArray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


class LiveLoop:
    """A training loop on record; made by :func:`rbkit.live`.

    Iterating gives the numbers of the steps, 0, 1, ..., until all are made or the loop is asked
    to stop: the ■ of a notebook, Ctrl-C, or a file ``STOP`` in the run folder. A loop that does
    not iterate over it has one step to check :attr:`stopping`; the call after that raises
    KeyboardInterrupt.

    Leaving the ``with`` block ends the record: ok, interrupted, or failed, with the error.
    Without a ``with`` it ends after the last step, by :meth:`end`, or as interrupted where an
    iteration is left early, be it by an error.

    Of several processes (``torch.distributed``) all must make it and call it after each step:
    they stop at the same step, and losses and tokens are pooled. The first one writes.

    Attributes
    ----------
    step : int
        Optimizer steps made.
    recorder : Recorder
    """

    def __init__(
        self,
        run_dir: Path,
        about: Mapping[str, Any],
        parameters: Mapping[str, Any],
        *,
        steps: int | None,
        sampler: MixtureSampler | None,
        p: FloatArray,
        log_every: int,
        round_steps: int,
        loss_unit: str,
        overwrite: bool,
        watching: Sequence[Watcher],
    ) -> None:
        self.step, self.steps, self.log_every = 0, steps, log_every
        self._names = about["names"]
        self._q = np.asarray(about["q"] if about["q"] is not None else np.ones(len(self._names)))
        self._sampler = sampler
        self._losses: list[torch.Tensor] = []  # since the last one logged, and their tokens
        self._tokens: list[int | torch.Tensor] = []
        self._counts_tokens = self._p_by_hand = False
        self._window: Window | None = None
        self._shown: float | None = None  # the loss logged last
        self._final: dict[str, Any] | None = None
        self._ended = self._left = False
        self._stop, self._asked, self._warned = StopRequest(run_dir), False, False
        self._listening: AbstractContextManager[None] | None = None
        with refused_together(communication_device()):
            self.recorder = Recorder(
                run_dir,
                overwrite=overwrite,
                active=is_first(),
                watchers=watching,
                ways="overwrite=True to replace it",
            )
        if is_first():
            (run_dir / "STOP").unlink(missing_ok=True)  # meant for an earlier run
        self.recorder.q = None if about["q"] is None else self._q
        self._rounds = LoopRounds(self.recorder, p, round_steps)
        self.recorder.start(
            parameters={**parameters, "steps": steps},
            loss_unit=loss_unit,
            domains=about,
            ledger={"entries": [], "note": "not measured"},
        )
        wait()  # no process looks for STOP before it is gone

    @property
    def stopping(self) -> bool:
        """Whether the loop is asked to stop; several processes agree on it after each step."""
        return self._asked if processes() > 1 else bool(self._stop)

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.steps is not None and self.step >= self.steps

    def __iter__(self) -> Iterator[int]:
        try:
            while not self.done and not self.stopping:
                self._read_sampler()
                yield self.step
        finally:  # also where the loop is left by break or by an error
            if self._listening is None and not self._ended:
                asked = self.done or self.stopping
                why = None if asked else f"the loop was left after step {self.step}"
                self.end("ok" if self.done else "interrupted", why)
                self._left = True

    def __call__(
        self,
        loss: torch.Tensor | float,
        *,
        tokens: int | torch.Tensor | None = None,
        gram: GramEstimate | None = None,
        p: ArrayLike | None = None,
        eval_losses: ArrayLike | None = None,
    ) -> None:
        """Note that a step has been made; a GPU is waited for only when a loss is logged.

        Several processes also agree here, after each step, whether to stop.

        Parameters
        ----------
        loss : Tensor or float
            Mean loss of the step, in `loss_unit`.
        tokens : int, optional
            Tokens of the step; without them no speed in tokens is shown.
        gram : GramEstimate, optional
            ``tracker.estimate()`` of the round that ends with this step.
        p : array_like of shape (m,), optional
            Proportions from now on; those of the sampler by default. A round ends when `gram`
            is given, and when they change after `round_steps` steps or more. It does not matter
            whether they follow from `gram` in this call or in the next one.
        eval_losses : array_like of shape (m,), optional
            Eval loss of each domain, in `loss_unit`; NaN where there is none. Their mean,
            weighted with q, is shown as the eval loss.

        Raises
        ------
        KeyboardInterrupt
            If the loop was asked to stop and made another step since.
        """
        if self._left:  # the loop was left, but continues
            self._left = self._ended = False
            if self.recorder.active:
                self.recorder.claim()
            self.recorder.info.update(status="running", error=None, ended=None)
        self.step += 1
        self._losses.append(torch.as_tensor(loss, dtype=torch.float32).detach())
        self._tokens.append(0 if tokens is None else tokens)
        self._counts_tokens |= tokens is not None
        if self.step % self.log_every == 0 or self.step == self.steps:
            self._log()
        if eval_losses is not None:
            self._log_evaluation(one_each("eval_losses", eval_losses, len(self._names)))
        self._p_by_hand |= p is not None
        now = self._sampler.p if p is None and self._sampler is not None else p
        current = None if now is None else shares("p", now, len(self._names))
        self._rounds.step(self.step, current, gram)
        self.recorder.beat(step=self.step, steps=self.steps, loss=self._shown)
        if self.step == self.steps and self._listening is None:
            self.end()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        """Agree on whether to stop; do it where the loop has been warned and continues."""
        self._asked = any_of(bool(self._stop), communication_device())
        if self._warned and not self.done:
            if self._listening is None:
                self.end("interrupted")
            raise KeyboardInterrupt("asked to stop a step ago")
        self._warned = self._asked

    def end(self, status: str = "ok", error: str | None = None) -> None:
        """End the record: ``ok``, ``interrupted`` or ``failed``. Only the first call counts."""
        if self._ended and not self._left:
            return
        self._ended, self._left = True, False
        # After an error the other processes may not be here to pool losses with.
        if status != "failed":
            self._read_sampler()
            self._rounds.close(self.step)
        if self._losses and status != "failed" and (error is None or processes() == 1):
            self._log()
        progress = {"step": self.step, "steps": self.steps, "loss": self._shown}
        self.recorder.finish(status, error=error, final=self._final, progress=progress)

    def __enter__(self) -> Self:
        self.recorder.in_use = True
        self._listening = self._stop.listening()
        self._listening.__enter__()
        wait()  # each process has removed STOP by now: one that comes is for this run
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listening is not None
        early = self.stopping if self.steps is None else not self.done
        self._listening.__exit__(None, None, None)
        if error is None:
            self.end("interrupted" if early else "ok")
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            self.end("interrupted" if stopped else "failed", message)

    # ------------------------------------------------------------------- the record

    def _log(self) -> None:
        tokens = int(sum(self._tokens))
        self._window = self._window or Window(communication_device())
        for loss in self._losses:
            self._window.add(loss, tokens if loss is self._losses[-1] else 0)
        self._shown = float(np.mean(self._window.pool()))
        self._losses, self._tokens, self._window.losses = [], [], []
        row = {"kind": "train", "step": self.step, "loss": self._shown}
        self.recorder.log(row | ({"tokens": self._window.tokens} if self._counts_tokens else {}))

    def _log_evaluation(self, by_domain: FloatArray) -> None:
        weight = np.where(np.isfinite(by_domain), self._q, 0.0)
        overall = np.nansum(weight * by_domain) / weight.sum() if weight.any() else np.nan
        self._final = {"loss_token": float(overall), "by_domain_token": by_domain.tolist()}
        self.recorder.log({"kind": "eval", "step": self.step, **self._final})

    def _read_sampler(self) -> None:
        """Note proportions that were set after the last call."""
        if self._sampler is not None and not self._p_by_hand:
            self._rounds.change(self.step, shares("p", self._sampler.p, len(self._names)))


def communication_device() -> torch.device:
    """Device that tensors must be on to be summed over processes."""
    if processes() > 1 and "gloo" not in dist.get_backend() and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def live(
    run_dir: str | Path,
    domains: Domains | Sequence[str],
    *,
    steps: int | None = None,
    mixer: Mixer | str = "",
    sampler: MixtureSampler | None = None,
    q: ArrayLike | None = None,
    p: ArrayLike | None = None,
    parameters: Mapping[str, Any] | None = None,
    log_every: int = 10,
    round_steps: int = 10,
    loss_unit: str = PER_TOKEN,
    overwrite: bool = False,
    display: bool | str | Watcher = True,
    report_to: str | Sequence[str] = "none",
) -> LiveLoop:
    """Record a training loop in a run folder, and show it while it runs.

    Parameters
    ----------
    run_dir : path
        Folder of the run, which reports, :func:`rbkit.attach` and the scrubber read.
    domains : Domains, or sequence of m str
        What the examples are divided into, or only the names.
    steps : int, optional
        Optimizer steps in all.
    mixer : Mixer or str, optional
        The rule, to be recorded.
    sampler : MixtureSampler, optional
        Where the proportions of each round are read; without it they are given by hand.
    q : array_like of shape (m,), optional
        Target proportions, where `domains` are only names.
    p : array_like of shape (m,), optional
        Proportions of the first round, where there is no `sampler`. Until they are known they
        are recorded as NaN.
    parameters : mapping, optional
        More to record: seed, learning rate, ...
    log_every : int
        Steps between two logged losses; the mean over them is logged.
    round_steps : int
        Least steps of a round that no Gram matrix ends: of proportions that change at every
        step the mean over so many steps is recorded.
    loss_unit : str
        What losses are measured in, for axes and pages: ``"nats per example"``, say.
    overwrite : bool
        Replace the run that is there; without it, one that has made a step is refused, also one
        that this process left open.
    display : bool, {"live", "batch", "final", "off"} or Watcher
        How to show it: see :mod:`rbkit.show.style`.
    report_to : str or sequence of str
        Trackers to feed: see :mod:`rbkit.train.trackers`.

    Returns
    -------
    LiveLoop
        Call it after each step: in every process, if there are several.

    Raises
    ------
    InputError
        For a mode, tracker or folder that cannot work: in all processes, if in the first.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with live(folder, ["oak", "car"], steps=3, display=False) as loop:
    ...     for step in loop:
    ...         loop(loss=2.0 - step / 10)
    >>> from rbkit.train import Run
    >>> Run.open(folder).status
    'ok'
    """
    path, watching = Path(run_dir), watchers(display, report_to)
    about = _about(domains, q)
    steps = None if steps is None else as_count("steps", steps)
    log_every = as_count("log_every", log_every, least=1)
    if (round_steps := as_count("round_steps", round_steps, least=None)) < 1:
        raise InputError("round_steps", f"{round_steps} steps do not make a round", "use 1 or more")
    begin = sampler.p if p is None and sampler is not None else p
    m = len(about["names"])
    first = np.full(m, np.nan) if begin is None else shares("p", begin, m)
    loop = LiveLoop(
        path,
        about,
        {**(parameters or {}), **_rule(mixer)},
        steps=steps,
        sampler=sampler,
        p=first,
        log_every=log_every,
        round_steps=round_steps,
        loss_unit=loss_unit,
        overwrite=overwrite,
        watching=watching,
    )
    if isinstance(domains, Domains) and is_first():  # now that those of an older run are gone
        domains.save(path / "domains")
    return loop


def _about(domains: Domains | Sequence[str], q: ArrayLike | None) -> dict[str, Any]:
    """Return the entry ``domains`` of ``run.json``."""
    if isinstance(domains, Domains):
        return {
            "names": list(domains.names),
            "sizes": domains.sizes,
            "eval_sizes": domains.eval_sizes,
            "q": domains.q,
        }
    names = [str(name) for name in domains]
    if not names:
        raise InputError("domains", "there are none", "give their names")
    q = None if q is None else shares("q", q, len(names))
    return {"names": names, "sizes": None, "eval_sizes": None, "q": q}


def _rule(mixer: Mixer | str) -> dict[str, Any]:
    if isinstance(mixer, Mixer):
        return {"mixer": mixer.name, "mixer_options": mixer.options()}
    return {"mixer": mixer} if mixer else {}
