"""Side runs of a run: probe runs on single domains, and a reference model.

Each has a run folder, below ``side/`` of the run that needs it. One that has ended well is
not made again, so they survive a killed process like everything else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from transformers import set_seed

from rbkit.balance.signals import FloatArray, IntArray, ProbeRuns
from rbkit.errors import InputError
from rbkit.files import fingerprint
from rbkit.train.ledger import Ledger
from rbkit.train.parallel import is_first, wait
from rbkit.train.run import Run

_WEIGHTS = "weights.safetensors"


class TrainOn(Protocol):
    """Trains `model` in place on fixed proportions `p`, in a run folder with these options."""

    def __call__(
        self,
        model: Any,
        folder: Path,
        p: FloatArray,
        options: dict[str, Any],
        *,
        steps: int,
        constant: bool,
    ) -> None: ...


@dataclass(frozen=True)
class SideRuns:
    """Makes, finishes or only reads runs on fixed proportions, from the weights of `model`.

    Attributes
    ----------
    folder : Path
        Holds a run folder for each.
    model : nn.Module
        Stays as it is.
    identity : mapping
        What makes runs comparable; one recorded with another is made again.
    train : callable
    ledger : Ledger
        Of the run that needs them: it pays.
    seed : int
    device : torch.device
    """

    folder: Path
    model: Any
    identity: Mapping[str, Any]
    train: TrainOn
    ledger: Ledger
    seed: int
    device: torch.device

    def probe(self, sizes: IntArray, before: FloatArray, steps: int) -> ProbeRuns:
        """Train on each domain alone for some steps, and evaluate on all.

        As Skill-It (arXiv 2307.14430) learns its graph: with a constant learning rate.
        `before` are the eval losses by domain that all begin with, (m,).
        """
        m = len(sizes)
        after = np.full((m, m), np.nan)
        for domain in np.flatnonzero(sizes > 0):
            run, _ = self._run(
                f"probe-{domain}",
                np.eye(m)[domain],
                steps,
                "probe_runs",
                constant=True,
                keep_model=False,
            )
            after[domain] = np.array(run.info["final"]["by_domain_token"], dtype=float)
        return ProbeRuns(before, after, steps)

    def reference(self, sizes: IntArray, steps: int) -> Any:
        """Train a reference on the corpus' own proportions; return its model."""
        p = np.asarray(sizes, dtype=float) / np.sum(sizes)
        _, model = self._run(
            "reference", p, steps, "reference_run", constant=False, keep_model=True
        )
        return model.eval().requires_grad_(False)

    def _run(
        self,
        name: str,
        p: FloatArray,
        steps: int,
        entry: str,
        *,
        constant: bool,
        keep_model: bool,
    ) -> tuple[Run, Any]:
        """Return the run `name` and its model; its price goes to the ledger entry `entry`."""
        folder = self.folder / name
        model = copy.deepcopy(self.model)
        weights = sum(float(w.detach().double().sum()) for w in model.parameters())
        options = {
            "p": p.tolist(),
            "steps": steps,
            "weights": weights,
            "identity": fingerprint(str(dict(self.identity))),
        }
        done = (folder / "run.json").is_file() and _is_done(Run.open(folder), options)
        has_model = not keep_model or (folder / _WEIGHTS).is_file()
        wait()  # before the first process writes what the others look at
        if not (done and has_model):
            self.train(model, folder, p, options, steps=steps, constant=constant)
            if is_first() and keep_model:
                save_model(model, str(folder / _WEIGHTS))
            wait()
            set_seed(self.seed)  # the run continues as if nothing had happened
        elif keep_model:
            load_model(model, folder / _WEIGHTS, device=str(self.device))
        run = Run.open(folder)
        if run.status != "ok":
            raise InputError(
                str(folder),
                f"the side run is {run.status}",
                "resume the run: it continues from there",
            )
        self.ledger.absorb(entry, name, run.info["ledger"])
        return run, model


def _is_done(run: Run, options: dict[str, Any]) -> bool:
    return run.status == "ok" and run.info["parameters"].get("side_run") == options
