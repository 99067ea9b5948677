"""What is checked before training begins, and while it goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import TrainingArguments

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.signals import SIGNALS
from rbkit.errors import InputError, RbkitError
from rbkit.regroup.domains import Domains


class TrainingError(RbkitError):
    """Training cannot go on: says at which step, why, and what to try."""


def check_rows(name: str, data: Any, labels: Any) -> None:
    """Refuse a dataset that does not line up with the domains' labels."""
    if data is not None and len(data) != len(labels):
        raise InputError(
            name,
            f"{len(data)} rows, but the domains label {len(labels)}",
            "give the dataset that the domains were made from, in its order",
        )


def check_domains(domains: Domains) -> None:
    """Refuse a target that cannot be trained for (a domain merely empty was told of by Domains)."""
    empty = np.asarray(domains.sizes) == 0
    lost = float(np.asarray(domains.q)[empty].sum())
    names = ", ".join(repr(domains.names[i]) for i in np.flatnonzero(empty)[:5])
    if empty.all():
        raise InputError("domains", "no domain has training data", "check the train labels")
    if lost > 0:
        raise InputError(
            "domains",
            f"{lost:.0%} of the eval set lies in domains without training data ({names})",
            "regroup with KMeans (eval examples go to the nearest train domain), or leave those "
            "examples out with SourceLabels(unseen='drop')",
        )


def check_arguments(
    args: TrainingArguments, mixer: Mixer, round_steps: int, eval_dataset: Any
) -> None:
    """Refuse settings under which the numbers would be silently wrong."""
    if round_steps < 1:
        raise InputError("round_steps", f"{round_steps} is not positive", "try 200")
    if args.n_gpu > 1:
        raise InputError(
            "devices",
            f"{args.n_gpu} GPUs in one process",
            f"start {args.n_gpu} processes with torchrun, or set CUDA_VISIBLE_DEVICES to one GPU",
        )
    if unknown := mixer.signals - set(SIGNALS):
        raise InputError(
            f"signals of {mixer.name}",
            f"{', '.join(sorted(unknown))} unknown",
            f"use some of {', '.join(SIGNALS)}",
        )
    needs_eval = mixer.signals & {"eval_losses", "target_gradient", "probe_runs"}
    if needs_eval and eval_dataset is None:
        raise InputError(
            "eval_dataset", f"{mixer.name} needs it for {', '.join(sorted(needs_eval))}", "give one"
        )
    if mixer.acts == "loss" and "gram" in mixer.signals:
        raise InputError(
            f"mixer {mixer.name}",
            "tracks gradients of losses that it weighs itself",
            "let it act by sampling, or use another signal",
        )
    whole = mixer.signals & {"target_gradient", "domain_gradients", "probe_runs", "excess_losses"}
    if args.fsdp and whole:
        raise InputError(
            "fsdp", f"{', '.join(sorted(whole))} need the whole model in each process", "use DDP"
        )
    if args.save_strategy == "epoch":
        raise InputError(
            "save_strategy", "a mixture has no epochs", "use save_strategy='steps' with save_steps"
        )
    if args.torch_compile and "gram" in mixer.signals:
        raise InputError("torch_compile", "the tracker's hooks are not compiled", "turn it off")


def check_losses(losses: Any, last_step: int, args: TrainingArguments) -> None:
    """Stop at the first loss, of the steps up to `last_step`, that is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise TrainingError(
            f"loss: became {losses[bad[0]]} at step {last_step - len(losses) + 1 + int(bad[0])}; "
            f"lower learning_rate (now {args.learning_rate:g}) or max_grad_norm, then resume from "
            f"the last checkpoint in {args.output_dir}, if there is one, or start anew"
        )
