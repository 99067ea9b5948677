"""Runs beside the run: probe runs on single domains, and a reference model.

Each is a run folder of its own, below ``side/`` of the run that asked for it. One that has
ended well is not made again, so they survive a killed process like everything else.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.torch import load_model, save_model
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.signals import FloatArray, ProbeRuns
from rbkit.errors import InputError
from rbkit.files import fingerprint
from rbkit.train.checkpoint import common, latest_checkpoint
from rbkit.train.parallel import is_first, wait
from rbkit.train.run import Run

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer

_WEIGHTS = "weights.safetensors"


class Stopped(Exception):
    """Somebody asked a side run to stop, and so the run that asked for it."""


def probe_runs(trainer: MixtureTrainer) -> ProbeRuns:
    """Train on each domain alone, from the weights as they are, and evaluate on all.

    As Skill-It (arXiv 2307.14430) learns its graph: the runs take the trainer's arguments,
    with a constant learning rate, and leave its model as it was.
    """
    m, steps = trainer.domains.m, trainer.mixer.probe_steps()
    before = trainer.evaluate_domains(0, name="probe_runs").by_domain_token
    after = np.full((m, m), np.nan)
    for domain in np.flatnonzero(np.asarray(trainer.domains.sizes) > 0):
        run = side_run(
            trainer,
            f"probe-{domain}",
            np.eye(m)[domain],
            steps,
            "probe_runs",
            constant=True,
            keep_model=False,
        )[0]
        after[domain] = np.array(run.info["final"]["by_domain_token"], dtype=float)
    return ProbeRuns(before, after, steps)


def reference_model(trainer: MixtureTrainer) -> Any:
    """Train a reference from the same weights on the corpus' own proportions; return its model."""
    sizes = np.asarray(trainer.domains.sizes, dtype=float)
    steps = trainer.mixer.reference_steps or trainer.args.max_steps
    model = side_run(
        trainer,
        "reference",
        sizes / sizes.sum(),
        steps,
        "reference_run",
        constant=False,
        keep_model=True,
    )[1]
    return model.eval().requires_grad_(False)


def side_run(
    trainer: MixtureTrainer,
    name: str,
    p: FloatArray,
    steps: int,
    entry: str,
    *,
    constant: bool,
    keep_model: bool,
) -> tuple[Run, Any]:
    """Make, finish, or only read the run `name` on fixed proportions; return it and its model.

    Its price goes to the ledger entry `entry` of the trainer that asked.
    """
    folder = trainer.run_dir / "side" / name
    model = copy.deepcopy(trainer.model)
    weights = sum(float(w.detach().double().sum()) for w in model.parameters())
    options = {
        "p": p.tolist(),
        "steps": steps,
        "weights": weights,
        "identity": fingerprint(str(common(trainer))),
    }
    done = (folder / "run.json").is_file() and _same(Run.open(folder), options)
    kept = not keep_model or (folder / _WEIGHTS).is_file()
    wait()  # before the first process writes what the others look at
    if not (done and kept):
        _train(trainer, model, folder, p, steps, options, constant=constant)
        if is_first() and keep_model:
            save_model(model, str(folder / _WEIGHTS))
        wait()
        set_seed(trainer.args.seed)  # the run goes on as if nothing had happened
    elif keep_model:
        load_model(model, folder / _WEIGHTS, device=str(trainer.args.device))
    run = Run.open(folder)
    if run.status != "ok":
        raise InputError(
            str(folder), f"the side run is {run.status}", "resume the run: it goes on from there"
        )
    trainer.ledger.absorb(entry, name, run.info["ledger"])
    return run, model


def _train(
    trainer: MixtureTrainer,
    model: Any,
    folder: Path,
    p: FloatArray,
    steps: int,
    options: dict[str, Any],
    *,
    constant: bool,
) -> None:
    args = copy.copy(trainer.args)
    args.output_dir, args.max_steps = str(folder / "checkpoints"), steps
    args.save_total_limit = 1
    if constant:
        args.lr_scheduler_type, args.warmup_steps, args.save_strategy = "constant", 0, "no"
    side = type(trainer)(
        model,
        args,
        train_dataset=trainer.train_dataset,
        eval_dataset=trainer.eval_dataset,
        data_collator=trainer.data_collator,
        eval_collator=trainer.eval_collator,
        domains=trainer.domains,
        mixer=Fixed(p.tolist()),
        round_steps=trainer.round_steps,
        eval_rounds=10**9,
        loss_of=trainer.loss_of,
        run_dir=folder,
        record={"parameters": {"side_run": options}},
    )
    side.evaluates_first = False  # all start from the same weights
    side.remove_callback(PrinterCallback)
    going_on = latest_checkpoint(args.output_dir)
    side.train(resume_from_checkpoint=str(going_on) if going_on else None)
    if side.stopped:
        raise Stopped


def _same(run: Run, options: dict[str, Any]) -> bool:
    return run.status == "ok" and run.info["parameters"].get("side_run") == options
