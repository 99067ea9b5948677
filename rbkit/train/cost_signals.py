r"""What rbkit pays for the signals of a mixer, and what the paper's cost model leaves out.

The formulas of :mod:`rbkit.train.cost_model` are of published algorithms. rbkit's trainer asks
for each signal once per round, so a mixer costs the sum of its signals: the same for a rule
that you wrote. These are modelled prices; the ledger of a run has the counted and measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import MIXERS
from rbkit.errors import InputError
from rbkit.train.cost_model import METHODS, Budget, relative_overhead


def modelled_overhead(
    mixer: str | Mixer | type[Mixer],
    budget: Budget,
    variant: Literal["table", "prose", "rbkit"] = "table",
) -> float:
    """Return the modelled overhead of a mixer, as a share of plain training.

    Parameters
    ----------
    mixer : str, Mixer or subclass of Mixer
        A rule without a formula of its own, such as one you wrote, is priced by the signals
        that it declares, as with ``variant="rbkit"``.
    budget : Budget
    variant : {"table", "prose", "rbkit"}
        The published algorithm, by Table 4 of the R&B paper (or derived likewise), or by its
        Appendix D; or what rbkit pays for the mixer's signals.

    Raises
    ------
    InputError
        For an unknown name or variant.

    Examples
    --------
    >>> budget = Budget(params=1e6, train_tokens=1e6, eval_tokens=3e4, domains=5, rounds=10)
    >>> round(modelled_overhead("DoGE", budget), 3), modelled_overhead("Target", budget, "rbkit")
    (2.667, 0.0)
    """
    if variant not in ("table", "prose", "rbkit"):
        raise InputError("variant", f"{variant!r} is unknown", "use table, prose or rbkit")
    rule: Mixer | type[Mixer] | None
    if isinstance(mixer, str):
        name, rule = mixer, MIXERS.get(mixer)
    else:
        name, rule = mixer.__name__ if isinstance(mixer, type) else mixer.name, mixer
    if variant != "rbkit" and (name in METHODS or rule is None):
        return relative_overhead(name, budget, variant)
    if rule is None:
        raise InputError("mixer", f"{name!r} is unknown", f"use one of {', '.join(MIXERS)}")
    return signal_overhead(rule.signals, budget)


def signal_overhead(signals: Iterable[str], budget: Budget) -> float:
    r"""Return what rbkit's trainer pays for a set of signals, as a share of plain training.

    Per round: one evaluation for ``eval_losses``; a batch of :math:`\delta D_t` tokens for each
    fresh gradient; :math:`m^2` products of the tracked numbers for ``gram``, beside 2 FLOPs per
    training token and number to form them. Before the run: m probe runs of
    :math:`\delta D_t` tokens with m + 1 evaluations, or a reference model, evaluated once and
    then asked for every training token. Training losses are there anyway.

    Examples
    --------
    Skill-It's two signals make up its row in Table 4, with one evaluation more, before any probe:

    >>> b = Budget(params=1e6, train_tokens=1e6, eval_tokens=3e4, domains=5, delta=0.1)
    >>> signals = signal_overhead({"eval_losses", "probe_runs"}, b)
    >>> round(signals - relative_overhead("Skill-It", b), 9) == b.forward
    True
    """
    signals = set(signals)
    b, m = budget, budget.domains
    tracked = b.params if b.tracked is None else b.tracked
    price = {
        "gram": forming_overhead(tracked, b.params) + 2 * b.rounds * m**2 * tracked / b.plain,
        "eval_losses": b.rounds * b.forward,
        "probe_runs": m * b.delta + (m + 1) * b.forward,
        "excess_losses": b.proxy_run + b.proxy_size * (1 / 3 + b.forward),
    }
    fresh = {"target_gradient", "domain_gradients"} & signals
    # The domains' batches serve both signals; the eval set's is one more.
    batches = m + ("target_gradient" in fresh) if fresh else 0
    asked = [price.get(name, 0.0) for name in signals]
    return math.fsum([*asked, b.rounds * batches * b.delta])  # whatever the order of a set


def forming_overhead(layer_params: float, params: float) -> float:
    """Return the price of forming domain gradients of a layer by a product of their own.

    ``2 D_t |W|`` beside ``6 D_t N``. It is zero only where the layer's ordinary weight gradient
    is computed as a sum over domains.

    Examples
    --------
    The LM head of GPT-Neo-125M, and its last MLP projection:

    >>> for weights in (50257 * 768, 3072 * 768):
    ...     print(f"{forming_overhead(weights, 125.2e6):.2%}")
    10.28%
    0.63%
    """
    return layer_params / (3 * params)


def accumulator_bytes(domains: int, numbers: float, *, each: int = 4) -> float:
    """Return the memory of the summed gradients of all domains, at `each` bytes a number."""
    return domains * numbers * each


def embedding_overhead(
    examples: float, budget: Budget, *, tokens: float = 512, embedder_params: float = 149e6
) -> float:
    """Return the price of embedding a corpus for Regroup, relative to the training run.

    ``2 N_embedder`` per token; 149M parameters are those of ModernBERT-embed, the paper's.

    Examples
    --------
    Dolly's 15,000 examples, of 512 tokens at most, for the paper's 2,000 steps:

    >>> dolly = Budget(params=125e6, train_tokens=16 * 512 * 2000, domains=7)
    >>> round(embedding_overhead(15_000, dolly), 2)
    0.19
    """
    return 2 * embedder_params * tokens * examples / budget.plain
