"""A small run in a process of its own, so that a test can kill it: not a test itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback, TrainingArguments

from rbkit.balance.mixers.rnb import RnB
from rbkit.regroup.domains import Domains
from rbkit.train.models import PadCollator
from rbkit.train.trainer import MixtureTrainer

M, VOCAB = 4, 64


def rows(rng, labels):
    """Each domain has its own range of tokens, and lengths of its own."""
    return [
        {"input_ids": (rng.integers(0, 16, rng.integers(4, 9 + 3 * i)) + 12 * i).tolist()}
        for i in labels
    ]


class At(TrainerCallback):
    """Send `number` to this very process at the end of a step, before it is saved."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_substep_end(self, args, state, control, **_):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


def make(folder, *, steps=40, accumulate=2, dropout=0.1, tied=True, arguments=None, **options):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train_labels, eval_labels = rng.integers(0, M, 90), rng.choice(M, 30, p=[0.5, 0.3, 0.1, 0.1])
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        attention_dropout=dropout,
        tie_word_embeddings=tied,
    )
    args = TrainingArguments(
        **{
            "output_dir": str(Path(folder) / "checkpoints"),
            "max_steps": steps,
            "seed": 3,
            "save_steps": 7,
            "per_device_train_batch_size": 3,
            "learning_rate": 1e-2,
            "gradient_accumulation_steps": accumulate,
            "save_total_limit": 2,
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "lr_scheduler_type": "cosine",
            **(arguments or {}),
        }
    )
    return MixtureTrainer(
        LlamaForCausalLM(config),
        args,
        run_dir=folder,
        log_every=4,
        **{
            "train_dataset": Dataset.from_list(rows(rng, train_labels)),
            "data_collator": PadCollator(0),
            "eval_dataset": Dataset.from_list(rows(rng, eval_labels)),
            "mixer": RnB(prior="previous"),
            "round_steps": 10,
            "domains": Domains.from_labels(list("abcd"), train_labels, eval_labels),
            **options,
        },
    )


def main(folder, what, step):
    trainer = make(folder)
    drawn, take = [], trainer.sampler.take
    trainer.sampler.take = lambda n: drawn.append(take(n)) or drawn[-1]
    signals = {"kill": "SIGKILL", "interrupt": "SIGINT", "terminate": "SIGTERM"}
    if what in signals:
        trainer.add_callback(At(int(step), signal.Signals[signals[what]]))
    trainer.train(resume_from_checkpoint=what == "resume" or None)
    weights = {k: v.double().sum().item() for k, v in trainer.model.state_dict().items()}
    start = trainer.sampler.position - sum(map(len, drawn))
    result = {"start": start, "drawn": np.concatenate(drawn).tolist(), "weights": weights}
    (Path(folder) / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
