r"""The cost model of the R&B paper (arXiv 2505.00358, Table 4), and the same for other rules.

One training token costs :math:`6N` FLOPs in a model of N parameters: 2N forward, 4N backward; a
token that is only evaluated costs 2N. With :math:`D_t` training and :math:`D_e` eval tokens, m
domains, T rounds, and :math:`\delta`, the share of the training tokens that one extra batch has,
everything is a sum of such tokens. Overheads are relative to the plain run, :math:`6 D_t N`.

The five rows of Table 4 are as printed. (DGA's has :math:`m\delta` without T, as if the domains'
batches were drawn once and not in each round.) The prose of the paper's Appendix D disagrees with
three of them; ``variant="prose"`` gives its version. Rules that Table 4 lacks are derived from
their published algorithms in the same manner:

- *DoGE*, one backward pass per domain on one graph: :math:`(2 + 4m) D_t N`, so 2(m-1)/3 more.
- *DoReMi*, its own reference (:math:`6 D_{ref} N_{ref}`), asked for every token
  (:math:`2 N_{ref}`): 4/3 if it is as large and trained as long. The run itself is then a proxy,
  whose price comes on top for a larger run that uses its mixture.
- *GroupDRO*, *ODM*: losses that the step has anyway. *ADO*: likewise; its curve fits do not grow
  with N. All 0.
- *MGDA*, *UPGrad*: weights of the same Gram matrix as R&B, at the same price.
- *RegMix*: its proxy runs. *MixMin*: a proxy per domain, each run on the eval set.

These are prices of published algorithms. rbkit's trainer asks for each signal once per round, so
there a mixer costs the sum of its signals, also a rule that you wrote. Both are modelled; the
ledger of a run has the counted and measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import MIXERS
from rbkit.errors import InputError

Variant = Literal["table", "prose"]


@dataclass(frozen=True)
class Budget:
    """The quantities that costs are made of.

    Attributes
    ----------
    params : float
        N, parameters of the model.
    train_tokens, eval_tokens : float
        D_t and D_e.
    domains : int
        m.
    rounds : int
        T, how often p is set. The paper's Table 1 comes out with 10.
    delta : float
        Tokens of one extra batch (of one probe run, for Skill-It) as a share of D_t. The
        paper's Table 1 comes out with one batch of 2,000 steps, 0.0005.
    tracked : float, optional
        Numbers kept per domain to form the Gram matrix from: the layer's, or ``buckets * d`` of
        a sketch. No formula of the paper has it; N if not given.
    proxies : int
        Proxy runs of RegMix.
    proxy_params, proxy_tokens : float, optional
        Size and training tokens of a proxy or a reference model; as the run's if not given.
    """

    params: float
    train_tokens: float
    domains: int
    eval_tokens: float = 0.0
    rounds: int = 10
    delta: float = 5e-4
    tracked: float | None = None
    proxies: int = 512
    proxy_params: float | None = None
    proxy_tokens: float | None = None

    def __post_init__(self) -> None:
        for name in ("params", "train_tokens", "domains"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"Budget({name}=...)", f"{getattr(self, name)} is not positive", "give its size"
                )
        for name in ("eval_tokens", "rounds", "delta", "proxies"):
            if not getattr(self, name) >= 0:
                raise InputError(
                    f"Budget({name}=...)", f"{getattr(self, name)} is negative", "give 0 or more"
                )

    @property
    def plain(self) -> float:
        """FLOPs of training alone, ``6 D_t N``."""
        return 6 * self.train_tokens * self.params

    @property
    def forward(self) -> float:
        """FLOPs of one pass over the eval set, relative to training: ``D_e / (3 D_t)``."""
        return self.eval_tokens / (3 * self.train_tokens)

    @property
    def proxy_size(self) -> float:
        """Size of a proxy relative to the model."""
        return (self.params if self.proxy_params is None else self.proxy_params) / self.params

    @property
    def proxy_run(self) -> float:
        """Price of training one proxy, relative to training."""
        tokens = self.train_tokens if self.proxy_tokens is None else self.proxy_tokens
        return self.proxy_size * tokens / self.train_tokens


@dataclass(frozen=True)
class Method:
    """One rule: its formulas in TeX, where they are from, and its relative overhead.

    Attributes
    ----------
    name : str
        As in the paper.
    total, relative : str
        Total FLOPs and overhead relative to ``6 D_t N``, in TeX.
    source : str
        ``Table 4``, or ``derived`` here.
    table : callable
        Relative overhead for a :class:`Budget`.
    prose : callable, optional
        The same by Appendix D's prose, where that differs.
    prose_relative : str
        Its formula.
    """

    name: str
    total: str
    relative: str
    source: str
    table: Callable[[Budget], float]
    prose: Callable[[Budget], float] | None = None
    prose_relative: str = ""


def _plain(name: str, source: str = "derived") -> Method:
    return Method(name, "6 D_t N", "0", source, lambda b: 0.0)


def _on_gram(name: str, source: str = "derived") -> Method:
    return Method(
        name,
        "6 D_t N + T m^2 N",
        r"\frac{T m^2}{6 D_t}",
        source,
        lambda b: b.rounds * b.domains**2 / (6 * b.train_tokens),
    )


_ALL = (
    _plain("Standard", "Table 4"),
    Method(
        "Skill-It",
        r"6 (1 + m\delta) D_t N + 2 (T + m) D_e N",
        r"m\delta + \frac{(T + m) D_e}{3 D_t}",
        "Table 4",
        lambda b: b.domains * b.delta + (b.rounds + b.domains) * b.forward,
        lambda b: b.delta + (b.rounds + b.domains) * b.forward,
        r"\delta + \frac{(T + m) D_e}{3 D_t}",
    ),
    Method(
        "Aioli",
        "6 D_t N + 2 T m D_e N",
        r"\frac{T m D_e}{3 D_t}",
        "Table 4",
        lambda b: b.rounds * b.domains * b.forward,
    ),
    Method(
        "DGA",
        r"6 (1 + m\delta) D_t N + 6 T \delta D_e N",
        r"m\delta + \frac{T \delta D_e}{D_t}",
        "Table 4",
        lambda b: b.domains * b.delta + b.rounds * b.delta * 3 * b.forward,
        lambda b: b.delta + b.rounds * (b.eval_tokens + b.domains) / b.train_tokens,
        r"\delta + \frac{T (D_e + m)}{D_t}",
    ),
    replace(
        _on_gram("R&B", "Table 4"),
        prose=lambda b: b.domains**2 / (6 * b.train_tokens),
        prose_relative=r"\frac{m^2}{6 D_t}",
    ),
    _on_gram("MGDA"),
    _on_gram("UPGrad"),
    Method(
        "DoGE",
        "(2 + 4m) D_t N",
        r"\frac{2(m - 1)}{3}",
        "derived",
        lambda b: 2 * (b.domains - 1) / 3,
    ),
    Method(
        "DoReMi",
        r"6 D_t N + 2 D_t N_{ref} + 6 D_{ref} N_{ref}",
        r"\frac{N_{ref}}{3 N} + \frac{D_{ref} N_{ref}}{D_t N}",
        "derived",
        lambda b: b.proxy_size / 3 + b.proxy_run,
    ),
    Method(
        "RegMix",
        r"6 D_t N + 6 n_{proxy} D_{proxy} N_{proxy}",
        r"\frac{n_{proxy} D_{proxy} N_{proxy}}{D_t N}",
        "derived",
        lambda b: b.proxies * b.proxy_run,
    ),
    Method(
        "MixMin",
        r"6 D_t N + m (6 D_{proxy} + 2 D_e) N_{proxy}",
        r"\frac{m N_{proxy}}{N} \left(\frac{D_{proxy}}{D_t} + \frac{D_e}{3 D_t}\right)",
        "derived",
        lambda b: b.domains * (b.proxy_run + b.proxy_size * b.forward),
    ),
    *(
        _plain(name)
        for name in ("Stratified", "Proportional", "Target", "Fixed", "GroupDRO", "ODM", "ADO")
    ),
)
TABLE_4 = ("Standard", "Skill-It", "Aioli", "DGA", "R&B")
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
# Two of rbkit's mixers go by other names than the paper's.
METHODS |= {"RnB": METHODS["R&B"], "SkillIt": METHODS["Skill-It"]}


def relative_overhead(method: str, budget: Budget, variant: Variant = "table") -> float:
    """Return what `method` costs beyond plain training, as a share of plain training.

    Parameters
    ----------
    method : str
        One of :data:`METHODS`, or the name of a mixer.
    budget : Budget
    variant : {"table", "prose"}
        Formulas as tabled, or derived; or those of Appendix D's prose, where they differ.

    Raises
    ------
    InputError
        For an unknown method or variant.

    Examples
    --------
    R&B on Dolly (Table 1): 8 domains, 2,000 steps of 16 x 512 tokens.

    >>> dolly = Budget(params=125e6, train_tokens=16 * 512 * 2000, domains=8)
    >>> f"{100 * relative_overhead('R&B', dolly):.5f} %"
    '0.00065 %'
    """
    if variant not in ("table", "prose"):
        raise InputError("variant", f"{variant!r} is unknown", "use table or prose")
    if method not in METHODS:
        raise InputError("method", f"{method!r} is unknown", f"use one of {', '.join(METHODS)}")
    formulas = METHODS[method]
    formula = formulas.prose if variant == "prose" and formulas.prose else formulas.table
    return float(formula(budget))


def total_flops(method: str, budget: Budget, variant: Variant = "table") -> float:
    """Return the FLOPs of training with `method`, ``6 D_t N`` included."""
    return budget.plain * (1 + relative_overhead(method, budget, variant))


def table4(budget: Budget | None = None) -> list[dict[str, object]]:
    """Return Table 4 of the paper, row by row, each with the prose's version.

    Parameters
    ----------
    budget : Budget, optional
        Gives the formulas numbers too: ``flops``, ``overhead`` and ``overhead_prose``.

    Returns
    -------
    list of dict
        ``method, total, relative, prose`` (TeX; ``prose`` is "" where both agree).
    """
    rows = []
    for name in TABLE_4:
        method = METHODS[name]
        row: dict[str, object] = {"method": name, "total": method.total}
        row |= {"relative": method.relative, "prose": method.prose_relative}
        if budget is not None:
            row["flops"] = total_flops(name, budget)
            row["overhead"] = relative_overhead(name, budget)
            row["overhead_prose"] = relative_overhead(name, budget, "prose")
        rows.append(row)
    return rows


def modelled_overhead(
    mixer: str | Mixer | type[Mixer],
    budget: Budget,
    variant: Literal["table", "prose", "rbkit"] = "table",
) -> float:
    """Return the modelled overhead of a mixer, as a share of plain training.

    Parameters
    ----------
    mixer : str, Mixer or subclass of Mixer
        A rule that has no formula here, such as one you wrote, is priced by the signals
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
    fresh gradient; :math:`m^2` products of the tracked numbers for ``gram``, and 2 FLOPs per
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

    ``2 D_t |W|`` on top of ``6 D_t N``. It is zero only where the layer's ordinary weight gradient
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
