"""What is killed is what is meant: a number alone proves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from rbkit.processes import MARK, kill_group, process_identity

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups")


@pytest.fixture
def group():
    """A process that leads a group, and a member that outlives it: (leader, member)."""
    started = []

    def start(mark=None):
        leader = subprocess.Popen(
            ["sh", "-c", "sleep 600 >/dev/null & echo $!; read line"],
            start_new_session=True,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **({MARK: mark} if mark else {})},
        )
        member = psutil.Process(int(leader.stdout.readline()))
        started.append((leader, member))
        return leader, member

    yield start
    for leader, member in started:
        leader.communicate(timeout=5)
        if member.is_running():
            member.kill()


def lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def gone(process):
    end = time.monotonic() + 5
    while lives(process) and time.monotonic() < end:
        time.sleep(0.01)
    return not lives(process)


def stays(process):
    time.sleep(0.05)
    return lives(process)


def test_a_group_goes_with_its_leader_also_when_that_has_just_died(group):
    leader, member = group()
    assert kill_group(process_identity(leader.pid))
    assert leader.wait(5) == -signal.SIGKILL
    assert gone(member)
    leader, member = group()
    who = process_identity(leader.pid)
    leader.kill()
    while psutil.Process(leader.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not kill_group({**who, "born": who["born"] - 60})  # a zombie of somebody else
    assert stays(member)
    assert kill_group(who)
    assert gone(member)


@pytest.mark.parametrize(
    ("mark", "known", "killed"),
    [
        ("of this sweep", "of this sweep", True),
        ("of another", "of this sweep", False),
        (None, "of this sweep", False),
        ("of this sweep", None, False),
    ],
)
def test_without_its_leader_only_what_carries_the_mark_of_the_sweep_is_killed(
    group, mark, known, killed
):
    leader, member = group(mark)
    who = {**process_identity(leader.pid), "mark": known}
    leader.communicate("end\n", timeout=5)
    assert kill_group(who) is killed
    assert gone(member) if killed else stays(member)


def test_what_was_born_before_the_machine_was_started_is_nobody_here(group):
    leader, member = group("of this sweep")
    assert not kill_group({"pid": leader.pid, "born": 1000.0, "mark": "of this sweep"})
    assert stays(member)
    assert leader.poll() is None
