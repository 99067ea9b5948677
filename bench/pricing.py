"""What tracking costs on the shape of GPT-Neo-125M, counted without making any number.

Model, batch and tracker are on torch's "meta" device: shapes go through the real code, so its
FLOP counter sees every product of a step of 16 x 512 tokens, the R&B paper's, in a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from rbkit.balance import GramTracker
from rbkit.train.models import preset_config

MODEL, BATCH, CONTEXT, DOMAINS, ROUND_STEPS = "gpt-neo-125m", 16, 512, 30, 200


@dataclass(frozen=True)
class Price:
    """FLOPs of one step and of what tracking adds to it, in percent of the step."""

    step: int
    counted: float  # products of tracking and of the Gram matrix, as torch counts them
    with_additions: float  # and all additions
    gram: float  # of that: the Gram matrix and the mixer, once a round
    bytes_per_domain: int


@lru_cache(maxsize=1)
def _model() -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(preset_config(MODEL)).train()


def price(*, domains: int = DOMAINS, round_steps: int = ROUND_STEPS, **options: Any) -> Price:
    """Count one step under a tracker with `options`, and what the end of a round adds."""
    model = _model()
    head = model.get_output_embeddings()
    tracker = GramTracker(head, domains, **options)
    own = FlopCounterMode(display=False)
    tracker.watch_with = lambda _device: own
    ids = torch.zeros(BATCH, CONTEXT, dtype=torch.long, device="meta")
    rng = np.random.default_rng(0)
    watching = tracker.batch(rng.integers(0, domains, BATCH), scale=ids.numel())
    with FlopCounterMode(display=False) as all_, watching:
        model(input_ids=ids, labels=ids).loss.backward()
    tracker.remove()
    step = all_.get_total_flops() - own.get_total_flops()
    fraction = options.get("fraction", 1.0)
    products, additions = own.get_total_flops(), tracker.flops - tracker.products
    mixer = 2 * domains**2 + 10 * domains
    ending = tracker.estimate_flops + mixer
    per_round = fraction * round_steps * products + ending
    percent = 100 / (round_steps * step)
    return Price(
        step=step,
        counted=percent * per_round,
        with_additions=percent * (per_round + fraction * round_steps * additions),
        gram=percent * ending,
        bytes_per_domain=tracker.bytes // domains,
    )
