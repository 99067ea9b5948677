"""An error says where, what and what to do, also after a journey between processes."""

import multiprocessing
import re
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset

import rbkit as rb
from rbkit.balance.replay import replay_history
from rbkit.errors import (
    AssetError,
    InputError,
    RbkitError,
    RbkitWarning,
    as_count,
    as_number,
    as_seed,
)
from rbkit.regroup import (
    EditLog,
    distance_profile,
    drift_report,
    embed_shards,
    gradient_agreement,
    regret,
    sampling_weights,
    settle_noise,
    token_counts,
    training_table,
)
from rbkit.report.parameters import RunParameters
from rbkit.train import build_model, gradient_sketches, sweep_k, tokenize, train_tokenizer
from rbkit.train.propose import Proposal, mixmin, regmix
from rbkit.train.propose.regression import MixtureSpace, draw_mixtures


def fail(kind):
    raise kind("k", "500 domains\nasked of 120", "choose fewer")


@pytest.mark.parametrize("kind", [InputError, AssetError])
def test_an_error_of_a_worker_arrives_whole(kind):
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(kind) as caught:
        pool.apply(fail, (kind,))
    assert str(caught.value) == "k: 500 domains asked of 120; choose fewer"
    assert caught.value.remedy == "choose fewer"


@pytest.mark.parametrize(
    "value",
    [8, 8.0, np.int8(8), np.uint64(8), np.float16(8), np.array(8), torch.tensor(8), Fraction(8),
     torch.tensor(8.0, dtype=torch.bfloat16), Decimal(8), np.longdouble(8), pd.Series([8])[0]],
)  # fmt: skip
def test_a_count_is_a_whole_number_of_any_library(value):
    assert as_count("k", value) == 8
    assert type(as_count("k", value)) is int


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), "8", b"8", 8.5, np.float32(8.5), np.nan, np.inf, None,
     [8], np.array([8]), torch.tensor([8]), pd.NA, np.timedelta64(8, "ns"), 8 + 1j, np.str_("8"),
     Decimal("NaN"), torch.empty((), device="meta"), object()],
)  # fmt: skip
def test_nothing_else_is_a_count(value):
    with pytest.raises(InputError, match=r"k: .* is not a whole number; give an integer of 0"):
        as_count("k", value)


def test_the_range_of_a_count_is_named():
    for value, least, what in ((-1, 0, "negative"), (0, 1, "not positive"), (1, 2, "too few")):
        with pytest.raises(InputError, match=f"k: {value} is {what}"):
            as_count("k", value, least=least)
    with pytest.raises(InputError, match=f"from 0 to {2**32 - 1}"):
        as_seed(2**32)


@pytest.mark.parametrize(
    "value",
    [0.1, np.float32(0.1), np.array(0.1), torch.tensor(0.1), Fraction(1, 10), np.longdouble(0.1)],
)
def test_a_number_is_one_of_any_library(value):
    assert as_number("share", value, "try 0.1") == pytest.approx(0.1)
    assert type(as_number("share", value, "try 0.1")) is float


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "0.1", b"0.1", None, [0.1], np.array([0.1]), pd.NA, np.timedelta64(1, "s"),
     1j, np.str_("1"), object()],
)  # fmt: skip
def test_nothing_else_is_a_number(value):
    with pytest.raises(InputError, match=r"share: .* is not a number; try 0.1"):
        as_number("share", value, "try 0.1")


def two_domains():
    return rb.Domains.from_labels(["a", "b"], [0, 0, 1, 1], [0, 1])


COUNTS = {  # a function of each kind of count, called with it
    "MixtureSampler.take": lambda n: rb.MixtureSampler([0, 1], [0.5, 0.5]).take(n),
    "GramTracker seed": lambda n: rb.GramTracker(torch.nn.Linear(2, 2), 2, seed=n),
    "check_mixer runs": lambda n: rb.check_mixer(rb.RnB, runs=n),
    "check_mixer seed": lambda n: rb.check_mixer(rb.RnB, seed=n, runs=1),
    "replay_history steps": lambda n: replay_history({}, rb.RnB(), sizes=[1], steps=n),
    "drift_report seed": lambda n: drift_report(two_domains(), np.eye(4), seed=n),
    "gradient_agreement seed": lambda n: gradient_agreement([0, 1], np.eye(2), seed=n),
    "gradient_agreement permutations": lambda n: gradient_agreement(
        [0, 1], np.eye(2), permutations=n
    ),
    "regret seed": lambda n: regret([0, 1], [0.0, 1.0], seed=n),
    "distance_profile m": lambda n: distance_profile(np.eye(2), [0, 1], np.eye(2), m=n),
    "token_counts context": lambda n: token_counts(["a"], context=n),
    "training_table steps": lambda n: training_table(two_domains(), steps=n, batch_size=2),
    "training_table round_steps": lambda n: training_table(
        two_domains(), steps=2, batch_size=2, round_steps=n
    ),
    "build_model seed": lambda n: build_model("tiny", seed=n),
    "build_model context": lambda n: build_model("tiny", context=n),
    "train_tokenizer": lambda n: train_tokenizer(["a"], n),
    "tokenize": lambda n: tokenize(["a"], None, n),
    "gradient_sketches seed": lambda n: gradient_sketches(torch.nn.Linear(2, 2), [], seed=n),
    "live steps": lambda n: rb.live("unused", ["a"], steps=n),
    "live log_every": lambda n: rb.live("unused", ["a"], log_every=n),
    "draw_mixtures seed": lambda n: draw_mixtures(MixtureSpace.of(np.ones(2)), 1, seed=n),
    "regmix best": lambda n: regmix(None, two_domains(), "unused", best=n),
    "mixmin max_steps": lambda n: mixmin(None, two_domains(), "unused", max_steps=n),
    "sweep_k domain_seed": lambda n: sweep_k(None, [2], run_dir="unused", domain_seed=n),
    "sweep jobs": lambda n: rb.sweep("90_run", "seed=0", "unused", jobs=n),
    "sweep retries": lambda n: rb.sweep("90_run", "seed=0", "unused", retries=n),
    "embed_shards": lambda n: embed_shards(
        Dataset.from_dict({"text": ["a"]}), None, "unused", rows_per_shard=n
    ),
    "RunParameters": lambda n: RunParameters.from_mapping({"steps": n}),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", ["many", 2.5, True, float("nan")])
def test_every_count_is_refused_by_its_name_before_anything_is_done(name, value):
    parameter = {"MixtureSampler.take": "count", "train_tokenizer": "vocab_size"}.get(name)
    parameter = parameter or {"tokenize": "context", "embed_shards": "rows_per_shard"}.get(name)
    parameter = parameter or {"RunParameters": "steps"}.get(name) or name.split()[-1]
    with pytest.raises(InputError, match=f"^{parameter}: "):
        COUNTS[name](value)
    assert not Path("unused").exists()


NUMBERS = {
    "eval_share": lambda x: rb.load_corpus(["a", "b"], eval_share=x),
    "fraction": lambda x: rb.GramTracker(torch.nn.Linear(2, 2), 2, fraction=x),
    "token_fraction": lambda x: rb.GramTracker(torch.nn.Linear(2, 2), 2, token_fraction=x),
    "decay": lambda x: rb.GramTracker(torch.nn.Linear(2, 2), 2, decay=x),
    "max_epochs": lambda x: rb.MixtureSampler([0, 1], [0.5, 0.5], max_epochs=x),
    "quantile": lambda x: regret([0, 0, 1, 1], [0.0, 1.0, 2.0, 4.0], quantile=x),
    "level": lambda x: distance_profile(np.eye(2), [0, 1], np.eye(2), level=x),
    "holdout": lambda x: regmix(None, two_domains(), "unused", holdout=x),
    "temperature": lambda x: MixtureSpace.of(np.ones(2), temperature=x),
    "timeout": lambda x: rb.sweep("90_run", "seed=0", "unused", timeout=x, progress=False),
    "max_noise": lambda x: settle_noise([0, -1], np.eye(2), "own", max_noise=x),
    "learning_rate": lambda x: rb.train(None, two_domains(), run_dir="unused", learning_rate=x),
    "RnB(lam=...)": lambda x: rb.RnB(lam=x),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["0.5", True, [0.5]])
def test_every_number_is_refused_by_its_name(name, value):
    with pytest.raises(InputError, match=re.escape(f"{name}: ")):
        NUMBERS[name](value)
    assert not Path("unused").exists()


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202eevil\x08"


@pytest.mark.parametrize("kind", [RbkitError, RbkitWarning])
def test_errors_and_warnings_are_safe_to_send_to_a_terminal(kind):
    assert str(kind(HOSTILE)) == "red evil"
    assert str(InputError(HOSTILE, HOSTILE, HOSTILE)) == "red evil: red evil; red evil"
    with pytest.warns(RbkitWarning) as caught:
        warnings.warn(HOSTILE, RbkitWarning, stacklevel=1)
    message = caught[0]
    said = warnings.formatwarning(message.message, message.category, "x.py", 1, "")
    assert said == "x.py:1: RbkitWarning: red evil\n"


def test_names_of_strangers_are_safe_in_what_a_terminal_prints():
    domains = rb.Domains([HOSTILE, "b"], [0, 0, 1, 1], [0, 1], centroids=np.eye(2))
    domains.quality["distances"] = distance_profile(
        np.repeat(np.eye(2), 2, 0), [0, 0, 1, 1], np.eye(2)
    )
    log = EditLog(
        [{"op": "cut", "method": HOSTILE}, {"op": "rename", "domain": 0, "name": HOSTILE}]
    )
    shown = [
        repr(domains),
        repr(sampling_weights(domains)),
        repr(drift_report(domains, np.eye(2))),
        repr(Proposal(np.full(2, 0.5), "RegMix", (HOSTILE, "b"), 1.0)),
        repr(drift_report(domains, np.eye(2)).table),
        repr(training_table(domains, steps=1, batch_size=1, warn=False)),
        str(log),
        repr(log),
    ]
    for text in shown:
        assert "red" in text or "evil" in text
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text), text
