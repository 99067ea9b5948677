"""A small run in several processes, started by torchrun: not a test itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState, DistributedType
from job import make
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from rbkit.balance.mixers.registry import mixer_by_name
from rbkit.train.parallel import is_first, rank

GLOBAL_BATCH = 8


class KillRank(TrainerCallback):
    """One process kills itself at the end of a step, before anything of it is saved."""

    def __init__(self, who, step):
        self.who, self.step = who, step

    def on_step_end(self, args, state, control, **_):
        if rank() == self.who and state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_while_saving(trainer, who, step):
    """One process kills itself when weights are saved, but the state of the mixture is not."""
    save = trainer._save_rng_state  # comes after the weights, in each process

    def dying(folder):
        if rank() == who and trainer.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return save(folder)

    trainer._save_rng_state = dying


def allow_fsdp_on_cpu():
    """Shard on CPUs too: torch can, only accelerate keeps it to GPUs."""
    plain = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **options):
        plain(self, *args, fsdp_plugin=fsdp_plugin, **options)
        fsdp_plugin = fsdp_plugin or self._shared_state.get("fsdp_plugin")
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = init


def build(folder, options):
    world = int(os.environ.get("WORLD_SIZE", "1"))
    options = dict(options)
    accumulate = options.pop("accumulate", 1)
    arguments = options.pop("arguments", {})
    mixer = mixer_by_name(options.pop("mixer", "RnB"), options.pop("mixer_options", None))
    size = GLOBAL_BATCH // world // accumulate
    arguments = {"per_device_train_batch_size": size, **arguments}
    return make(
        folder,
        steps=options.pop("steps", 24),
        accumulate=accumulate,
        dropout=0.0,
        mixer=mixer,
        round_steps=options.pop("round_steps", 6),
        arguments=arguments,
        **options,
    )


def main(folder, what, options):
    """Make one run in `folder`, or, given a list of mixers, one for each in a folder below it."""
    torch.set_num_threads(1)
    allow_fsdp_on_cpu()
    options = json.loads(options)
    for name, mixer_options in options.pop("mixers", {}).items():
        one = build(Path(folder) / name, {**options, "mixer": name, "mixer_options": mixer_options})
        one.train()
    if what != "mixers":
        run(folder, what, options)


def run(folder, what, options):
    trainer = build(folder, options)
    drawn, take = [], trainer.sampler.take
    trainer.sampler.take = lambda n: drawn.append(take(n)) or drawn[-1]
    word, *numbers = what.split(":")
    if word == "kill":
        trainer.add_callback(KillRank(*map(int, numbers)))
    if word == "kill-saving":
        kill_while_saving(trainer, *map(int, numbers))
    trainer.train(resume_from_checkpoint=word == "resume" or None)
    sharded = any(isinstance(p, DTensor) for p in trainer.model.parameters())
    if is_first():
        start = trainer.sampler.position - sum(map(len, drawn))
        result = {"start": start, "drawn": np.concatenate(drawn).tolist(), "sharded": sharded}
        (Path(folder) / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
