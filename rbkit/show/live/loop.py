"""``rb.live``: a run folder and a live panel for a training loop of your own."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.sampler import MixtureSampler
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.show.live.live_loop import LiveLoop, where_processes_talk
from rbkit.show.live.loop_rounds import shares
from rbkit.train.parallel import any_of, is_first
from rbkit.train.run_folder import Run
from rbkit.train.watch import Watcher, watchers


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
    display: bool | str | Watcher = True,
    report_to: str | Sequence[str] = "none",
) -> LiveLoop:
    """Record a training loop in a run folder, and show it while it runs.

    Parameters
    ----------
    run_dir : path
        Folder of the run, which reports, :func:`rbkit.attach` and the scrubber read. A record
        that is there is replaced, unless its run is still going on.
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
        Proportions of the first round, where there is no `sampler`. Until they are told they
        are recorded as unknown.
    parameters : mapping, optional
        More to record: seed, learning rate, ...
    log_every : int
        Steps between two logged losses; the mean over them is logged.
    round_steps : int
        Least steps of a round that no Gram matrix ends: of proportions that change at every
        step the mean over so many steps is recorded.
    display : bool, {"live", "batch", "final", "off"} or Watcher
        How to show it: see :mod:`rbkit.show.modes`.
    report_to : str or sequence of str
        Trackers to feed: see :mod:`rbkit.train.tracking`.

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
    >>> Run.open(folder).status
    'ok'
    """
    path, watching = Path(run_dir), watchers(display, report_to)
    about = _about(domains, q)
    if round_steps < 1:
        raise InputError("round_steps", f"{round_steps} steps make no round", "use 1 or more")
    begin = sampler.p if p is None and sampler is not None else p
    m = len(about["names"])
    first = np.full(m, np.nan) if begin is None else shares("p", begin, m)
    _agree_that_free(path)
    loop = LiveLoop(
        path, about, {**(parameters or {}), **_rule(mixer)}, steps=steps, sampler=sampler,
        p=first, log_every=log_every, round_steps=round_steps, watching=watching,
    )  # fmt: skip
    if isinstance(domains, Domains) and is_first():  # now that those of an older run are gone
        domains.save(path / "domains")
    return loop


def _agree_that_free(run_dir: Path) -> None:
    """Let the first process look, before any writes: the others would find its own run."""
    refused: InputError | None = None
    if is_first():
        try:
            _check_free(run_dir)
        except InputError as error:
            refused = error
    if any_of(refused is not None, where_processes_talk()):
        raise refused or InputError(
            "run_dir", f"the first process cannot use {run_dir}", "see what it says"
        )


def _check_free(run_dir: Path) -> None:
    if not (run_dir / "run.json").exists():
        return
    run = Run.open(run_dir)
    mine = run.info["pid"] == os.getpid() and run.info.get("host") == platform.node()
    if run.status == "running" and not mine:  # mine: a cell that is run once more
        raise InputError(
            "run_dir", f"a run is going on in {run_dir}",
            "stop it with a file STOP in there, or use another folder",
        )  # fmt: skip


def _about(domains: Domains | Sequence[str], q: ArrayLike | None) -> dict[str, Any]:
    """Return what ``run.json`` says of the domains."""
    if isinstance(domains, Domains):
        return {"names": list(domains.names), "sizes": domains.sizes,
                "eval_sizes": domains.eval_sizes, "q": domains.q}  # fmt: skip
    names = [str(name) for name in domains]
    if not names:
        raise InputError("domains", "there are none", "give their names")
    q = None if q is None else shares("q", q, len(names))
    return {"names": names, "sizes": None, "eval_sizes": None, "q": q}


def _rule(mixer: Mixer | str) -> dict[str, Any]:
    if isinstance(mixer, Mixer):
        return {"mixer": mixer.name, "mixer_options": mixer.options()}
    return {"mixer": mixer} if mixer else {}
