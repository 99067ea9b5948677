"""The paper's cost model, and the price of rbkit's own signals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from job import make

from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.registry import MIXERS
from rbkit.balance.signals import SIGNALS
from rbkit.errors import InputError
from rbkit.train import Run
from rbkit.train.costs import (
    METHODS,
    TABLE_4,
    Budget,
    accumulator_bytes,
    embedding_overhead,
    forming_overhead,
    modelled_overhead,
    relative_overhead,
    signal_overhead,
    table4,
    total_flops,
)

DOLLY = Budget(125e6, 16 * 512 * 2000, domains=8, eval_tokens=750 * 512)
FREE = {"Stratified", "Proportional", "Target", "Fixed", "ODM", "ADO", "GroupDRO"}


@st.composite
def budgets(draw):
    size = st.floats(1e3, 1e12)
    return Budget(
        draw(size),
        draw(size),
        domains=draw(st.integers(1, 300)),
        eval_tokens=draw(size),
        rounds=draw(st.integers(0, 500)),
        delta=draw(st.floats(0, 1)),
        proxy_params=draw(size),
        proxy_tokens=draw(size),
        tracked=draw(size),
    )


# Total FLOPs as Table 4 prints them, and as Appendix D's prose does.
TOTALS = {
    ("Standard", "table"): lambda N, Dt, De, m, T, d: 6 * Dt * N,
    ("Skill-It", "table"): lambda N, Dt, De, m, T, d: (
        6 * (1 + m * d) * Dt * N + 2 * (T + m) * De * N
    ),
    ("Skill-It", "prose"): lambda N, Dt, De, m, T, d: 6 * (1 + d) * Dt * N + 2 * (T + m) * De * N,
    ("Aioli", "table"): lambda N, Dt, De, m, T, d: 6 * Dt * N + 2 * T * m * De * N,
    ("DGA", "table"): lambda N, Dt, De, m, T, d: 6 * (1 + m * d) * Dt * N + 6 * T * d * De * N,
    ("DGA", "prose"): lambda N, Dt, De, m, T, d: 6 * (1 + d) * Dt * N + 6 * T * (De + m) * N,
    ("R&B", "table"): lambda N, Dt, De, m, T, d: 6 * Dt * N + T * m**2 * N,
    ("R&B", "prose"): lambda N, Dt, De, m, T, d: 6 * Dt * N + m**2 * N,
}


@pytest.mark.parametrize(("method", "variant"), TOTALS)
@given(budget=budgets())
def test_total_flops_are_those_of_table_4_and_of_the_prose(method, variant, budget):
    b = [Fraction(x) for x in (budget.params, budget.train_tokens, budget.eval_tokens)]
    rest = (budget.domains, budget.rounds, Fraction(budget.delta))
    exact = float(TOTALS[method, variant](*b, *rest))
    assert total_flops(method, budget, variant) == pytest.approx(exact, rel=1e-9)


def test_where_prose_and_table_agree_there_is_one_formula():
    for method in METHODS:
        differs = METHODS[method].prose is not None
        assert differs == bool(METHODS[method].prose_relative)
        if not differs:
            assert relative_overhead(method, DOLLY) == relative_overhead(method, DOLLY, "prose")
    assert {n for n in TABLE_4 if METHODS[n].prose} == {"Skill-It", "DGA", "R&B"}


def test_table_4_has_the_five_rows_of_the_paper():
    rows = table4(DOLLY)
    assert [row["method"] for row in rows] == ["Standard", "Skill-It", "Aioli", "DGA", "R&B"]
    assert [round(100 * row["overhead"], 4) for row in rows] == [0, 14.4625, 62.5, 0.4117, 0.0007]
    assert "flops" not in table4()[0]


@given(budget=budgets())
def test_rules_that_need_no_signal_of_their_own_cost_nothing(budget):
    assert all(modelled_overhead(name, budget) == 0 for name in FREE)


@given(budget=budgets())
def test_no_rule_saves_flops(budget):
    for method in METHODS:
        for variant in ("table", "prose"):
            assert relative_overhead(method, budget, variant) >= 0


def test_doge_trains_on_m_backward_passes_and_one_forward():
    # Forward 2N, backward 4N per token and domain: (2 + 4m)N instead of 6N.
    for m in (1, 2, 10):
        budget = replace(DOLLY, domains=m)
        each = (2 + 4 * m) * budget.params * budget.train_tokens
        assert total_flops("DoGE", budget) == pytest.approx(each)


def test_doremi_pays_for_a_reference_and_asks_it_for_every_token():
    assert relative_overhead("DoReMi", DOLLY) == pytest.approx(1 + 1 / 3)
    small = replace(DOLLY, proxy_params=DOLLY.params / 10, proxy_tokens=DOLLY.train_tokens / 2)
    assert relative_overhead("DoReMi", small) == pytest.approx(0.1 * 0.5 + 0.1 / 3)


def test_regmix_pays_two_percent_for_its_own_setting():
    # 512 proxies of 1M parameters and 1B tokens, for 1B parameters and 25B tokens.
    run = Budget(1e9, 25e9, domains=17, proxies=512, proxy_params=1e6, proxy_tokens=1e9)
    assert relative_overhead("RegMix", run) == pytest.approx(0.02, rel=0.05)


@given(budget=budgets())
def test_more_signals_never_cost_less(budget):
    names = list(SIGNALS)
    prices = [signal_overhead(names[:i], budget) for i in range(len(names) + 1)]
    assert prices[0] == 0
    assert (np.diff(prices) >= 0).all()


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_registered_mixer_has_a_modelled_price(name):
    for variant in ("table", "prose", "rbkit"):
        price = modelled_overhead(name, DOLLY, variant)
        assert 0 <= price < 100
    signals = MIXERS[name].signals
    assert modelled_overhead(MIXERS[name], DOLLY, "rbkit") == signal_overhead(signals, DOLLY)


def test_a_rule_of_ones_own_is_priced_by_its_signals():
    class Mine(Mixer):
        signals = frozenset({"eval_losses"})

        def update(self, seen):
            return seen.p

    assert modelled_overhead(Mine(), DOLLY) == pytest.approx(10 * 750 / (3 * 16 * 2000))


class Asking(Mixer):
    """Asks for signals, and does nothing with them."""

    def __init__(self, *signals):
        self.signals = frozenset(signals)

    def update(self, seen):
        return seen.p

    def probe_steps(self):
        return 4

    def prepare(self, found):
        return np.full(4, 0.25)


@pytest.mark.parametrize(
    "signals",
    [
        ("train_losses",),
        ("gram",),
        ("eval_losses",),
        ("target_gradient",),
        ("domain_gradients",),
        ("target_gradient", "domain_gradients"),
        ("probe_runs",),
        ("excess_losses",),
    ],
    ids="+".join,
)
def test_the_modelled_price_of_a_signal_is_near_what_torch_counts(signals, tmp_path):
    trainer = make(
        tmp_path, steps=12, round_steps=4, accumulate=1, eval_rounds=0, mixer=Asking(*signals)
    )
    trainer.train()
    run = Run.open(tmp_path)
    paid = {e["name"]: e["flops_counted"] or 0 for e in run.info["ledger"]["entries"]}
    others = {"step", "record", "mixer"}
    if "probe_runs" not in signals:  # they begin with an evaluation, booked as the run's own
        others.add("eval")
    mine = paid.keys() - others
    tracked = [e["bytes"] for e in run.info["ledger"]["entries"] if e["name"] == "track"]
    budget = Budget(
        params=sum(w.numel() for w in trainer.model.parameters() if w.ndim == 2),
        train_tokens=run.metrics("train")[-1]["tokens"],
        domains=4,
        rounds=3,
        eval_tokens=sum(len(row["input_ids"]) for row in trainer.eval_dataset),
        delta=(4 if "probe_runs" in signals else 1) / 12,
        tracked=tracked[0] / (4 * 2 * 4) if tracked else None,  # two halves of float32, 4 domains
    )
    counted = sum(paid[name] for name in mine) / paid["step"]
    # Padding differs from batch to batch, so not exactly.
    assert signal_overhead(signals, budget) == pytest.approx(counted, rel=0.3)


def test_the_sketch_is_cheaper_than_the_layer_which_costs_a_tenth():
    head = 50257 * 768
    exact = modelled_overhead("RnB", replace(DOLLY, tracked=head), "rbkit")
    sketch = modelled_overhead("RnB", replace(DOLLY, tracked=128 * 768), "rbkit")
    assert exact == pytest.approx(0.1029, rel=1e-2)
    assert sketch < exact / 300


def test_what_the_model_leaves_out_has_the_size_that_we_say():
    assert accumulator_bytes(1, 50257 * 768) == pytest.approx(154e6, rel=0.01)
    assert forming_overhead(3072 * 768, 125e6) == pytest.approx(0.0063, rel=0.01)
    shares = [embedding_overhead(n, DOLLY) for n in (15_000, 285_000, 3_560_000)]
    assert shares == pytest.approx([0.19, 3.5, 44], rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Budget(0, 1, 1), "params=...): 0 is not positive"),
        (lambda: Budget(1, 1, 1, delta=-1), "delta=...): -1 is negative"),
        (lambda: relative_overhead("SkilIt", DOLLY), "'SkilIt' is unknown"),
        (lambda: relative_overhead("DGA", DOLLY, "poetry"), "'poetry' is unknown"),
        (lambda: modelled_overhead("RNB", DOLLY, "rbkit"), "'RNB' is unknown"),
        (lambda: modelled_overhead("RnB", DOLLY, "poetry"), "'poetry' is unknown"),
    ],
)
def test_an_unknown_name_or_size_is_told_of(call, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        call()
