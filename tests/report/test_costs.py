"""What each rule costs: real runs of seconds, priced from their own ledgers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from rbkit.balance.mixers.registry import MIXERS, mixer_by_name
from rbkit.errors import InputError
from rbkit.report.costs import (
    CostRow,
    Setup,
    cost_row,
    costs,
    headline,
    overhead_bars,
    print_table,
    runnable,
    setup,
    write_page,
)
from rbkit.report.html import assert_offline
from rbkit.report.parameters import RunParameters
from rbkit.show.facts import NOT_ADAPTING
from rbkit.show.style import alt_text
from rbkit.train import Recorder, Run

SMALL = {"corpus": "docstrings", "profile": "smoke"}
ROW = CostRow("RnB", "8 steps, K = 4", "gram", 0.1, 0.4, 0.4, 8.0, 4096, 12.0, 8, 4)


# ----------------------------------------------------------------------------- how rules are run


@pytest.mark.parametrize("name", runnable())
def test_every_rule_is_run_in_a_way_that_it_can_work(name):
    one = setup(name, RunParameters(steps=100, round_steps=25))
    rule = one.rule()
    rule.budget = 1000
    rule.start(np.full(12, 1 / 12), np.full(12, 50))
    assert 1 <= rule.round_length(one.round_steps) <= one.steps
    assert one.round_steps == 1 if MIXERS[name].per_step else one.round_steps > 1


def test_rules_that_take_gradients_in_each_step_run_shorter():
    params = RunParameters(steps=100, round_steps=25)
    assert setup("DoGE", params).steps == 10
    assert setup("DoReMi", params).steps == 100


def test_an_adaptive_rule_really_adapts_within_its_run():
    one = setup("ADO", RunParameters(steps=100))
    assert one.options["start_steps"] < one.options["refit_steps"] < one.steps


# ------------------------------------------------------------------------- from ledgers to prices


def recorded(path, entries, *, sizes=(30, 10, 0), tokens=6000, rounds=2):
    """Write a run folder whose ledger has `entries` {name: (seconds, flops, bytes)}."""
    recorder = Recorder(path)
    listed = [
        {"name": name, "seconds": s, "calls": 4, "flops_counted": f, "bytes": held}
        for name, (s, f, held) in entries.items()
    ]
    recorder.start(
        parameters={"mixer": path.name},
        model={"name": "tiny", "parameters": 1000},
        domains={"names": ["a", "b", "c"], "sizes": list(sizes), "q": [0.5, 0.5, 0]},
        ledger={"entries": listed, "note": "a note"},
    )
    recorder.log({"kind": "train", "step": 4, "loss": 2.0, "tokens": tokens})
    recorder.arrays["p"] = [np.array([0.5, 0.5, 0])]
    for t in range(rounds):
        recorder.round(step=2 * t + 2, p=np.array([0.5, 0.5, 0]), estimate=None)
    recorder.finish("ok")
    return Run.open(path)


def test_only_what_the_rule_asked_for_is_its_price(tmp_path):
    run = recorded(
        tmp_path / "RnB",
        {
            "step": (10.0, 1000, None),
            "track": (0.5, 20, 4800),
            "gram": (0.25, 5, None),
            "mixer": (0.25, None, None),
            "eval": (99.0, 999, None),
            "record": (9.0, None, None),
            "embed": (50.0, None, None),
            "cluster": (5.0, None, None),
            "fidelity": (7.0, 70, 10**9),
        },
    )
    row = cost_row(run, Setup("RnB", {}, 4, 2), d_e=300)
    assert (row.counted, row.measured) == (2.5, 10.0)
    assert (row.peak_bytes, row.step_ms) == (4800, 2500.0)
    assert {"eval", "record", "embed", "cluster"} < set(NOT_ADAPTING)


def test_the_modelled_price_is_the_papers_formula_at_the_runs_own_sizes(tmp_path):
    entries = {"step": (10.0, 1000, None), "eval_losses": (1.0, 10, None)}
    run = recorded(tmp_path / "DGA", entries)
    row = cost_row(run, Setup("DGA", {}, 4, 2), d_e=300)
    m, delta, rounds = 2, 1 / 4, 2  # the third domain has no data
    assert row.modelled == pytest.approx(100 * (m * delta + rounds * delta * 300 / 6000))
    assert row.modelled_rbkit == pytest.approx(100 * rounds * (m + 1) * delta)


def test_a_ledger_without_counted_flops_gives_no_share(tmp_path):
    run = recorded(tmp_path / "RnB", {"step": (10.0, None, None), "track": (1.0, None, 8)})
    row = cost_row(run, Setup("RnB", {}, 4, 2), d_e=300)
    assert row.counted is None
    assert row.measured == 10.0


# ------------------------------------------------------------------------------ table and page


def test_the_page_opens_offline_and_says_the_numbers_in_words(tmp_path):
    rows = [
        replace(ROW, mixer="Target", counted=0.0, modelled=0.0),
        ROW,
        replace(ROW, mixer="DoGE", counted=400.0),
    ]
    run = recorded(tmp_path / "run", {"step": (10.0, 1000, None), "embed": (3.0, None, None)})
    html = write_page(rows, [run], tmp_path / "index.html").read_text()
    assert assert_offline(html) == []
    assert "400 %" in html
    assert "1,000 parameters" in html
    assert "3.0 s" in html
    assert "DoGE most (400 %)" in html
    assert 'alt="Overhead of each rule' in html


def test_the_figure_has_a_bar_for_each_price_and_none_for_nothing():
    rows = [ROW, replace(ROW, mixer="Target", modelled=0.0, counted=0.0, measured=None)]
    ax = overhead_bars(rows)
    assert sum(bar.get_width() > 0 for bar in ax.patches) == 3
    assert ax.get_xscale() == "log"
    assert "RnB 0.40 % counted" in alt_text(ax)
    assert overhead_bars([rows[1]]).patches  # nothing but zeros is a figure, too


def test_without_a_paying_rule_there_is_nothing_to_compare():
    assert "No rule" in headline([replace(ROW, counted=0.0)])


def test_the_table_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_table([replace(ROW, mixer="Proportional", modelled=1234.5678)])
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("Proportional"))
    assert "1,235 %" in line
    assert "4.1 kB" in line


# --------------------------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("costs")
    names = ["Target", "RnB", "GroupDRO", "DGA", "SkillIt"]
    return out, costs(out, overrides=SMALL, mixers=names, progress=False)


@pytest.mark.slow
def test_counted_flops_agree_with_what_rbkit_models(done):
    rows = {row.mixer: row for row in done[1]}
    assert rows["Target"].counted == rows["Target"].modelled_rbkit == 0
    for name in ("RnB", "DGA", "SkillIt"):
        assert rows[name].counted == pytest.approx(rows[name].modelled_rbkit, rel=0.25), name
    assert rows["RnB"].counted < rows["DGA"].counted
    assert [row.counted for row in done[1]] == sorted(row.counted for row in done[1])


@pytest.mark.slow
def test_table_and_page_are_written_beside_the_runs(done):
    out, rows = done
    with (out / "costs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["mixer"] for row in table] == [row.mixer for row in rows]
    assert float(table[-1]["counted"]) == rows[-1].counted
    assert assert_offline((out / "index.html").read_text()) == []
    assert Run.open(out / "runs" / "DGA").status == "ok"


@pytest.mark.slow
def test_a_killed_call_goes_on_with_the_run_that_was_killed(done):
    out, rows = done
    killed = out / "runs" / "RnB" / "run.json"
    info = json.loads(killed.read_text())
    killed.write_text(json.dumps({**info, "status": "running", "pid": 2**22 + 1, "final": None}))
    before = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/run.json") if p != killed}
    again = costs(out, overrides=SMALL, mixers=[row.mixer for row in rows], progress=False)
    assert Run.open(killed.parent).status == "ok"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {r.mixer: r.counted for r in again} == {r.mixer: r.counted for r in rows}


@pytest.mark.slow
def test_other_settings_do_not_mix_with_what_is_there(done):
    with pytest.raises(InputError, match="other options"):
        costs(done[0], overrides={**SMALL, "seed": 1}, mixers=["Target"], progress=False)


def test_a_name_that_is_no_rule_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="did you mean RnB"):
        costs(tmp_path / "x", overrides=SMALL, mixers=["rnbb"], progress=False)
    assert not (tmp_path / "x").exists()
    assert "Fixed" not in runnable()
    with pytest.raises(InputError):
        mixer_by_name("Fixed")
