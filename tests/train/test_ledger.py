"""What the ledger says was paid, and for what."""

from __future__ import annotations

import time

import torch

from rbkit.train.ledger import Ledger


def entries(ledger):
    return {entry["name"]: entry for entry in ledger.to_json()["entries"]}


def other(seconds, flops):
    """Another run, of which Regroup and files are not its own to pay."""
    ledger = Ledger()
    ledger.add("step", seconds, probe=False)
    ledger["step"].flops_counted = flops
    for shared in ("embed", "cluster", "record"):
        ledger.add(shared, 50.0, probe=False)
    return ledger.to_json()


def test_runs_beside_a_run_are_paid_without_what_all_runs_share():
    ledger = Ledger()
    ledger.absorb("probe_runs", "a", other(1.0, 100))
    ledger.absorb("probe_runs", "b", other(2.0, 200))
    found = entries(ledger)["probe_runs"]
    assert (found["calls"], found["seconds"], found["flops_counted"]) == (2, 3.0, 300)


def test_a_run_looked_at_again_is_not_paid_twice():
    ledger = Ledger()
    ledger.absorb("probe_runs", "a", other(1.0, 100))
    again = Ledger()
    again.load_state_dict(ledger.state_dict())
    again.absorb("probe_runs", "a", other(1.0, 100))
    assert entries(again)["probe_runs"] == entries(ledger)["probe_runs"]


def product():
    torch.ones(4, 4) @ torch.ones(4, 4)


def test_the_first_call_is_counted_and_the_others_are_timed():
    ledger = Ledger()
    for pause in (0.5, 0.0, 0.0):  # the first one is slow, as torch's counter makes it
        with ledger.measure("gram"):
            time.sleep(pause)
            product()
    found = entries(ledger)["gram"]
    assert found["flops_counted"] == 3 * 2 * 4**3
    assert found["calls"] == 3
    assert found["seconds"] < 0.5


def test_the_time_of_a_single_call_stands_though_it_was_counted():
    ledger = Ledger()
    with ledger.measure("gram"):
        time.sleep(0.01)
    assert entries(ledger)["gram"]["seconds"] >= 0.01


def test_work_inside_a_probe_is_counted_and_not_timed():
    ledger, device = Ledger(), torch.device("cpu")
    ledger.tokens = 10
    with ledger.probe(10):
        product()
        with ledger.track(device):
            time.sleep(0.5)
            product()
    with ledger.track(device):
        pass
    found = entries(ledger)
    assert found["track"]["flops_counted"] == 2 * 4**3
    assert ledger.scaled()["step"] == 2 * 4**3
    assert found["track"]["seconds"] < 0.5


def test_several_processes_pay_several_times():
    ledger = Ledger(processes=4)
    with ledger.measure("gram"):
        product()
    ledger.hold("track", 100)
    found = entries(ledger)
    assert found["gram"]["flops_counted"] == 4 * 2 * 4**3
    assert found["track"]["bytes"] == 400
