"""A training loop of one's own, on record in a run folder."""

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

from rbkit.balance.sampler import MixtureSampler
from rbkit.balance.signals import FloatArray, GramEstimate
from rbkit.show.live.loop_rounds import LoopRounds, one_each, shares
from rbkit.train.interrupt import StopRequest
from rbkit.train.losses import Window
from rbkit.train.parallel import any_of, is_first, processes, wait
from rbkit.train.record import Recorder
from rbkit.train.watch import Watcher


class LiveLoop:
    """A training loop on record; made by :func:`rbkit.live`.

    Iterating gives the numbers of the steps, 0, 1, ..., until all are made or somebody asked
    to stop: the ■ of a notebook, Ctrl-C, or a file ``STOP`` in the run folder. A loop that does
    not iterate over it has one step to look at :attr:`stopping`; the call after that raises
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
        self, run_dir: Path, about: Mapping[str, Any], parameters: Mapping[str, Any], *,
        steps: int | None, sampler: MixtureSampler | None, p: FloatArray, log_every: int,
        round_steps: int, watching: Sequence[Watcher],
    ) -> None:  # fmt: skip
        self.step, self.steps, self.log_every = 0, steps, log_every
        self._names = about["names"]
        self._q = np.asarray(about["q"] if about["q"] is not None else np.ones(len(self._names)))
        self._sampler = sampler
        self._losses: list[torch.Tensor] = []  # since the last one logged, and their tokens
        self._tokens: list[int | torch.Tensor] = []
        self._tokens_told = self._by_hand = False
        self._window: Window | None = None
        self._shown: float | None = None  # the loss logged last
        self._final: dict[str, Any] | None = None
        self._ended = self._left = False
        self._stop, self._asked, self._warned = StopRequest(run_dir), False, False
        self._listening: AbstractContextManager[None] | None = None
        if is_first():
            (run_dir / "STOP").unlink(missing_ok=True)  # meant for an earlier run
        self.recorder = Recorder(run_dir, active=is_first(), watchers=watching)
        self.recorder.q = None if about["q"] is None else self._q
        self._rounds = LoopRounds(self.recorder, p, round_steps)
        self.recorder.start(
            parameters={**parameters, "steps": steps}, domains=about,
            ledger={"entries": [], "note": "not measured"},
        )  # fmt: skip
        wait()  # nobody looks for STOP before it is gone

    @property
    def stopping(self) -> bool:
        """Whether somebody asked to stop; of several processes, as agreed after the last step."""
        return self._asked if processes() > 1 else bool(self._stop)

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.steps is not None and self.step >= self.steps

    def __iter__(self) -> Iterator[int]:
        try:
            while not self.done and not self.stopping:
                self._look_at_sampler()
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
            Mean loss of the step, in nats per token.
        tokens : int, optional
            Tokens of the step; without them there is no speed in tokens.
        gram : GramEstimate, optional
            ``tracker.estimate()`` of the round that ends with this step.
        p : array_like of shape (m,), optional
            Proportions from now on; those of the sampler by default. A round ends when `gram`
            is given, and when they change after `round_steps` steps or more. It does not matter
            whether they follow from `gram` in this call or in the next one.
        eval_losses : array_like of shape (m,), optional
            Eval loss of each domain, in nats per token; NaN where there is none. Their mean,
            weighted with q, is shown as the eval loss.

        Raises
        ------
        KeyboardInterrupt
            If somebody asked to stop, and the loop has gone on for a step since.
        """
        if self._left:  # the loop was left, and goes on after all
            self._left = self._ended = False
            self.recorder.info.update(status="running", error=None, ended=None)
        self.step += 1
        self._losses.append(torch.as_tensor(loss, dtype=torch.float32).detach())
        self._tokens.append(0 if tokens is None else tokens)
        self._tokens_told |= tokens is not None
        if self.step % self.log_every == 0 or self.step == self.steps:
            self._log()
        if eval_losses is not None:
            self._log_evaluation(one_each("eval_losses", eval_losses, len(self._names)))
        self._by_hand |= p is not None
        now = self._sampler.p if p is None and self._sampler is not None else p
        told = None if now is None else shares("p", now, len(self._names))
        self._rounds.step(self.step, told, gram)
        self.recorder.beat(step=self.step, steps=self.steps, loss=self._shown)
        if self.step == self.steps and self._listening is None:
            self.end()
        self._heed_stop()

    def _heed_stop(self) -> None:
        """Agree on whether to stop; do it where the loop was told and goes on."""
        self._asked = any_of(bool(self._stop), where_processes_talk())
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
            self._look_at_sampler()
            self._rounds.close(self.step)
        if self._losses and status != "failed" and (error is None or processes() == 1):
            self._log()
        progress = {"step": self.step, "steps": self.steps, "loss": self._shown}
        self.recorder.finish(status, error=error, final=self._final, progress=progress)

    def __enter__(self) -> Self:
        self._listening = self._stop.listening()
        self._listening.__enter__()
        wait()  # each process has removed STOP by now: one that comes is for this run
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        assert self._listening is not None
        early = self.stopping if self.steps is None else not self.done
        self._listening.__exit__(None, None, None)
        if error is None:
            self.end("interrupted" if early else "ok")
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            self.end("interrupted" if stopped else "failed", said)

    # ------------------------------------------------------------------- the record

    def _log(self) -> None:
        tokens = int(sum(self._tokens))
        self._window = self._window or Window(where_processes_talk())
        for loss in self._losses:
            self._window.add(loss, tokens if loss is self._losses[-1] else 0)
        self._shown = float(np.mean(self._window.pool()))
        self._losses, self._tokens, self._window.losses = [], [], []
        row = {"kind": "train", "step": self.step, "loss": self._shown}
        self.recorder.log(row | ({"tokens": self._window.tokens} if self._tokens_told else {}))

    def _log_evaluation(self, by_domain: FloatArray) -> None:
        weight = np.where(np.isfinite(by_domain), self._q, 0.0)
        overall = np.nansum(weight * by_domain) / weight.sum() if weight.any() else np.nan
        self._final = {"loss_token": float(overall), "by_domain_token": by_domain.tolist()}
        self.recorder.log({"kind": "eval", "step": self.step, **self._final})

    def _look_at_sampler(self) -> None:
        """Take note of proportions that were set after the last call."""
        if self._sampler is not None and not self._by_hand:
            self._rounds.change(self.step, shares("p", self._sampler.p, len(self._names)))


def where_processes_talk() -> torch.device:
    """Device that tensors must be on to be summed over processes."""
    if processes() > 1 and "gloo" not in dist.get_backend() and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
