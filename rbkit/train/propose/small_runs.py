"""Many small runs below one folder: made, finished, or only read.

A run that ended well with the same options is not repeated, and one that was killed goes on from
its last checkpoint. So a swarm of runs survives whatever ends the process.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.signals import FloatArray
from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.files import fingerprint
from rbkit.regroup.domains import Domains
from rbkit.train.record import Run
from rbkit.train.run import train

_OURS = ("corpus", "domains", "run_dir", "mixer", "resume", "record", "progress")


def train_once(
    corpus: Any, domains: Domains, run_dir: str | Path, mixer: Mixer, options: Mapping[str, Any]
) -> Run:
    """Return the run of `mixer` in `run_dir`: read if it ended well, else made or gone on with.

    Parameters
    ----------
    corpus, domains, run_dir, mixer
        As for :func:`rbkit.train.run.train`.
    options : mapping
        Its other options; see :func:`check_options`.

    Raises
    ------
    InputError
        If the folder holds a run of something else, or one that is going on.
    KeyboardInterrupt
        If somebody stopped the run.
    """
    run_dir = Path(run_dir)
    identity = _identity(corpus, domains, mixer, options)
    if (run_dir / "run.json").is_file():
        run = Run.open(run_dir)
        if run.info["parameters"].get("asked") != identity:
            raise InputError(
                str(run_dir), "holds a run with other options, corpus or domains",
                "give another folder, or the options of before",
            )  # fmt: skip
        if run.status == "ok":
            return run
        if run.status == "running":
            raise InputError(
                str(run_dir), f"the process {run.info['pid']} is training it", "wait for its end"
            )
    run = train(
        corpus, domains, run_dir=run_dir, mixer=mixer, resume=True, progress=False,
        record={"parameters": {"asked": identity}}, **options,
    )  # fmt: skip
    if run.status != "ok":
        raise KeyboardInterrupt(f"{run_dir} was stopped: the same call goes on from there")
    return run


def train_all(
    corpus: Any, domains: Domains, folder: str | Path, mixtures: FloatArray,
    options: Mapping[str, Any], *, names: Sequence[str], progress: bool = True,
) -> list[Run]:  # fmt: skip
    """Train one run per row of `mixtures` (n, m), in ``folder/<name>``; return them in order."""
    runs = []
    bar = tqdm(names, desc="small runs", unit="run", disable=not progress)
    for name, p in zip(bar, mixtures, strict=True):
        runs.append(train_once(corpus, domains, Path(folder) / name, Fixed(p.tolist()), options))
    return runs


def check_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for :func:`rbkit.train.run.train`, `given` over `defaults`.

    Raises
    ------
    InputError
        For a name that it does not have, or that the caller sets.

    Examples
    --------
    >>> check_options({"setps": 10}, {})
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: setps: rbkit.train has no such option; did you mean steps?
    """
    known = [name for name in inspect.signature(train).parameters if name not in _OURS]
    for name in given:
        if name in _OURS:
            raise InputError(name, "is set by the method", "leave it out")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1) or ["one of " + ", ".join(known)]
            raise InputError(name, "rbkit.train has no such option", f"did you mean {close[0]}?")
    return {**defaults, **given}


def _identity(
    corpus: Any, domains: Domains, mixer: Mixer, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a run is asked for, as JSON values."""
    labels = np.asarray(domains.train_labels), np.asarray(domains.eval_labels)
    asked = {
        "corpus": about(corpus)["fingerprint"],
        "domains": fingerprint(*(x.astype(np.int64).tobytes() for x in labels)),
        "mixer": mixer.name, "mixer_options": mixer.options(),
        "options": dict(sorted(options.items())),
    }  # fmt: skip
    return dict(json.loads(json.dumps(asked, default=str)))  # as it will be read from run.json
