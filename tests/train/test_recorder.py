"""Watchers see a run begin, go on and end; they cannot harm it, and what they take is recorded."""

import os
import subprocess
import sys
import time

import pytest

from rbkit.errors import InputError, RbkitWarning
from rbkit.train import Run
from rbkit.train.recorder import Audience, Recorder, Throttle, reserved
from rbkit.train.trackers import watchers


class Diary:
    """Writes down what it is told."""

    def __init__(self, fails_at="", takes=0.0):
        self.told, self.fails_at, self.takes = [], fails_at, takes

    def begin(self, path):
        self._note("begin")
        self.status = Run.open(path).status

    def look(self):
        self._note("look")

    def end(self):
        self._note("end")

    def _note(self, what):
        self.told.append(what)
        time.sleep(self.takes)
        if what == self.fails_at:
            raise RuntimeError(f"no {what}")


def record(folder, *watching, steps=3, **options):
    recorder = Recorder(folder, watchers=watching, **options)
    recorder.start(parameters={})
    for step in range(steps):
        recorder.beat(step=step + 1)
    recorder.finish("ok")


def test_a_watcher_sees_the_run_from_its_first_record_to_its_last(tmp_path):
    diary = Diary()
    record(tmp_path, diary)
    assert diary.told == ["begin", "look", "look", "look", "end"]
    assert diary.status == "running"


@pytest.mark.parametrize("what", ["begin", "look", "end"])
def test_a_watcher_that_raises_is_dropped_with_one_warning(tmp_path, what):
    broken, well = Diary(fails_at=what), Diary()
    with pytest.warns(RbkitWarning, match=f"training continues: RuntimeError: no {what}") as said:
        record(tmp_path, broken, well)
    assert len(said) == 1
    assert broken.told.count(what) == 1
    assert well.told[-1] == "end"
    assert Run.open(tmp_path).status == "ok"


def test_what_watching_took_is_recorded(tmp_path):
    record(tmp_path, Diary(takes=0.02))
    assert 0.08 <= Run.open(tmp_path).info["watch"]["seconds"] < 0.5


def test_what_watching_took_before_a_resume_counts_too(tmp_path):
    record(tmp_path, Diary(takes=0.02))
    before = Run.open(tmp_path).info["watch"]["seconds"]
    resumed = Recorder(tmp_path, resume=True)
    resumed.start(parameters={})
    assert Run.open(tmp_path).info["watch"]["seconds"] == before
    resumed.finish("ok")


def test_a_new_run_does_not_inherit_the_pictures_and_domains_of_an_older_one(tmp_path):
    for name in ("domains/domains.json", "trackers/mine.txt", "trackers/tensorboard/state.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    record(tmp_path)  # the first run: whatever is there is not a run's
    assert (tmp_path / "domains").exists()
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "live.png").write_bytes(b"")
    Recorder(tmp_path, resume=True).start(parameters={})
    assert (tmp_path / "domains").exists()
    record(tmp_path, overwrite=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {".lock", "run.json", "figures", "trackers", "trackers/mine.txt"}


def test_only_the_process_that_writes_is_watched(tmp_path):
    diary = Diary()
    record(tmp_path, diary, active=False)
    assert diary.told == []


def test_looking_takes_less_than_its_share_whatever_a_look_costs(monkeypatch):
    now = 0.0
    monkeypatch.setattr("rbkit.train.recorder.time.monotonic", lambda: now)
    throttle, looked = Throttle(share=0.01, least=0.5), 0.0
    for i in range(20_000):
        now += 0.01  # a step
        if throttle.due():
            with throttle.looking():
                cost = 0.002 * (1 + i % 7)
                now, looked = now + cost, looked + cost
    assert looked / now < 0.01


def test_many_steps_a_second_cost_nothing_when_it_is_too_early():
    class Early(Diary):
        def look(self):
            throttle.due()

    throttle = Throttle(least=1e9)
    with throttle.looking():
        pass
    audience = Audience([Early()])
    began = time.perf_counter()
    for _ in range(10_000):
        audience.look()
    assert (time.perf_counter() - began) / 10_000 < 2e-4


def test_a_watcher_of_ones_own_and_none_at_all():
    diary = Diary()
    assert watchers(diary) == [diary]
    assert watchers(False) == watchers("off") == []


@pytest.mark.parametrize(("live", "said"), [("hologram", "'hologram' is unknown"), (3, "int")])
def test_what_cannot_watch_is_refused_before_anything_runs(live, said):
    with pytest.raises(InputError, match=said):
        watchers(live)


def test_the_panel_is_found_without_naming_it(monkeypatch):
    monkeypatch.setenv("RBKIT_DISPLAY", "final")
    (panel,) = watchers(True)
    assert (type(panel).__name__, panel.mode) == ("LivePanel", "final")


HOLD = """
import sys, time
from rbkit.train.recorder import Recorder
recorder = Recorder(sys.argv[1])
if sys.argv[2] == "started":
    recorder.start(parameters={})
    recorder.beat(step=1)
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("begun", "who"), [("claimed", "of a process that has just"), ("started", "of process {}")]
)
def test_one_process_writes_a_folder_and_its_death_frees_it(tmp_path, begun, who):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), begun], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "begun\n"
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(InputError, match=f"in progress.*{who.format(holder.pid)}"):
                Recorder(tmp_path, **options)
    finally:
        holder.kill()
        holder.communicate()
    if begun == "started":
        with pytest.raises(InputError, match="a run that is killed at step 1; give resume=True"):
            Recorder(tmp_path)
    Recorder(tmp_path, overwrite=True).leave()


def test_two_recorders_of_a_process_do_not_write_one_folder_at_once(tmp_path):
    first = Recorder(tmp_path)
    first.start(parameters={})
    first.in_use = True
    with pytest.raises(InputError, match=r"in progress in .*, of this process"):
        Recorder(tmp_path, overwrite=True)
    first.in_use = False  # left, as by a cell that was interrupted
    Recorder(tmp_path).start(parameters={"seed": 1})
    first.log({"kind": "train", "step": 1, "loss": 1.0})  # too late
    first.finish("ok")
    assert (Run.open(tmp_path).metrics(), Run.open(tmp_path).status) == ([], "running")


def test_a_recorder_left_open_by_this_process_is_replaced_only_where_that_is_asked_for(tmp_path):
    first = Recorder(tmp_path)
    first.start(parameters={})
    first.log({"kind": "train", "step": 1, "loss": 1.0})
    first.beat(step=1)
    with pytest.raises(InputError, match="this process has left open at step 1; give resume=True"):
        Recorder(tmp_path)
    first.log({"kind": "train", "step": 2, "loss": 1.0})  # the refusal has not ended it
    first.finish("ok")
    assert [row["step"] for row in Run.open(tmp_path).metrics()] == [1, 2]


def test_a_folder_is_reserved_without_a_trace(tmp_path):
    for folder in (tmp_path, tmp_path / "new" / "run"):
        with reserved(folder, replace=False):
            done = subprocess.run(
                [sys.executable, "-c", HOLD, str(folder), "claimed"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "in progress" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["timings.jsonl", "metrics.jsonl"])
def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(tmp_path, name):
    record(tmp_path)
    os.mkfifo(tmp_path / name)

    def resume():
        recorder = Recorder(tmp_path, resume=True)
        recorder.start(parameters={})
        recorder.log({"kind": "train", "step": 9, "loss": 1.0})

    with pytest.raises(InputError, match=f"{name}: is not a regular file"):
        resume()


def test_a_record_is_replaced_only_where_that_is_asked_for(tmp_path):
    record(tmp_path)
    with pytest.raises(InputError, match="holds a finished run; give resume=True"):
        Recorder(tmp_path)
    Recorder(tmp_path, overwrite=True).leave()
    record(tmp_path / "nothing", steps=0)
    record(tmp_path / "nothing")  # without a step there is nothing to lose
