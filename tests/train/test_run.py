"""A run folder is followed while it is written: only new bytes are read, nothing half is seen."""

import json
import shutil
from html import escape as html_escape

import numpy as np
import pytest

from rbkit.balance.mixers.fixed import Fixed
from rbkit.errors import InputError
from rbkit.processes import take_lock
from rbkit.train import Recorder, Run


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path / "run")
    recorder.start(parameters={"mixer": "RnB"})
    return recorder


def log(recorder, *steps, kind="train"):
    for step in steps:
        recorder.log({"kind": kind, "step": step, "loss": 5.0 - step / 100})


def steps(run, kind="train"):
    return [row["step"] for row in run.metrics(kind)]


def test_nothing_is_there_before_the_run(tmp_path):
    run = Run.follow(tmp_path / "later")
    assert not run.refresh()
    assert (run.status, run.info, run.metrics(), run.history) == ("waiting", {}, [], {})


def test_new_rows_arrive_and_nothing_arrives_twice(recorder):
    run = Run.follow(recorder.path)
    log(recorder, 10, 20)
    log(recorder, 20, kind="eval")
    assert run.refresh()
    assert not run.refresh()
    log(recorder, 30)
    assert run.refresh()
    assert (steps(run), steps(run, "eval")) == ([10, 20, 30], [20])
    assert [row["step"] for row in run.timings()] == [10, 20, 20, 30]
    assert len(run.metrics()) == 4


def test_a_line_without_its_end_is_not_there_yet(recorder):
    run, path = Run.follow(recorder.path), recorder.path / "metrics.jsonl"
    log(recorder, 10)
    line = json.dumps({"kind": "train", "step": 20}) + "\n"
    with path.open("a") as file:
        file.write(line[:9])
    run.refresh()
    assert steps(run) == [10]
    with path.open("a") as file:
        file.write(line[9:])
    run.refresh()
    assert steps(run) == [10, 20]


def test_damage_hides_what_is_damaged_and_no_more(recorder):
    run = Run.follow(recorder.path)
    log(recorder, 10)
    with (recorder.path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff{half\n[1]\n")
    log(recorder, 20)
    run.refresh()
    (recorder.path / "run.json").write_text("{")
    (recorder.path / "history.npz").write_bytes(b"PK no")
    run.refresh()
    assert (steps(run), run.status, run.history) == ([10, 20], "running", {})


def test_the_history_follows_the_rounds(recorder):
    run = Run.follow(recorder.path)
    recorder.round(step=5, p=[0.5, 0.5], estimate=None)
    assert run.refresh()
    np.testing.assert_array_equal(run.history["step"], [5])


def test_a_record_cut_back_by_a_resume_is_read_anew(recorder):
    run = Run.follow(recorder.path)
    log(recorder, 10)
    state = recorder.state_dict()
    log(recorder, 20, 30)
    run.refresh()
    resumed = Recorder(recorder.path, resume=True)
    resumed.load_state_dict(state)
    assert run.refresh()
    assert steps(run) == [10]
    resumed.start(parameters={})
    for step in (21, 31, 41):  # longer than it was
        log(resumed, step)
    run.refresh()
    assert steps(run) == [10, 21, 31, 41]


def test_another_run_in_the_same_folder_replaces_the_first(recorder):
    run = Run.follow(recorder.path)
    log(recorder, 10)
    recorder.round(step=10, p=[1.0], estimate=None)
    run.refresh()
    Recorder(recorder.path).start(parameters={}, started="2026-01-01T00:00:00+00:00")
    run.refresh()
    assert (run.metrics(), run.history) == ([], {})


def test_the_death_of_a_run_is_news(recorder):
    run = Run.follow(recorder.path)
    run.refresh()
    run.info["pid"] = 2**30
    assert run.refresh()
    assert run.status == "killed"


@pytest.mark.parametrize(
    "what", [{"heartbeat": None}, {"heartbeat": "yesterday"}, {"pid": None}, {"pid": -1}]
)
def test_a_heartbeat_or_process_that_cannot_be_read_is_not_there_yet(recorder, what):
    run, path = Run.follow(recorder.path), recorder.path / "run.json"
    path.write_text(json.dumps(recorder.info | what))
    run.refresh()
    assert run.status == "waiting"
    with pytest.raises(InputError, match="heartbeat or pid cannot be read"):
        Run.open(recorder.path)


def test_a_view_differs_only_in_what_was_replaced(recorder, tmp_path):
    log(recorder, 10, 20)
    recorder.round(step=20, p=[1.0], estimate=None)
    recorder.finish("ok")
    run = Run.open(recorder.path)
    changed = {"info": {"parameters": {"mixer": "Target"}}, "history": {}, "metrics": []}
    view = run.with_(**changed, path=tmp_path / "elsewhere", status="killed", job={"id": "a"})
    assert (view.name, view.status, view.metrics(), view.history) == ("Target", "killed", [], {})
    assert (view.path, view.job) == (tmp_path / "elsewhere", {"id": "a"})
    assert [row["step"] for row in view.timings()] == [10, 20]
    assert (run.name, run.status, steps(run), run.job) == ("RnB", "ok", [10, 20], {})
    assert run.with_(name="other").with_(timings=[]).name == "other"
    with pytest.raises(TypeError, match="colour"):
        run.with_(colour="red")


def test_a_view_of_a_followed_run_is_not_refreshed(recorder):
    run = Run.follow(recorder.path)
    run.refresh()
    view = run.with_(status="ok")
    log(recorder, 10)
    assert (view.refresh(), run.refresh()) == (False, True)


def test_a_number_that_python_refuses_to_read_is_no_run_yet(recorder):
    run, path = Run.follow(recorder.path), recorder.path / "run.json"
    path.write_text('{"pid": ' + "9" * 5000 + "}")
    assert not run.refresh()
    with pytest.raises(InputError, match="not valid JSON"):
        Run.open(recorder.path)


def test_a_view_of_a_followed_run_stays_as_it_is(recorder):
    run = Run.follow(recorder.path)
    log(recorder, 10)
    run.refresh()
    view = run.with_(name="then")
    log(recorder, 20)
    assert run.refresh()
    assert (steps(view), steps(run)) == ([10], [10, 20])
    assert not view.refresh()


def read_all(folder):
    run = Run.open(folder)
    return run.metrics(), run.history, run.job, run.domains


@pytest.mark.parametrize(
    "name", ["run.json", "metrics.jsonl", "history.npz", "job.json", "domains"]
)
def test_a_file_that_leads_out_of_the_folder_is_not_read(recorder, tmp_path, name):
    log(recorder, 10)
    recorder.finish("ok")
    shutil.copytree(recorder.path, tmp_path / "other")
    (tmp_path / "other" / "job.json").write_text("{}")
    (recorder.path / name).unlink(missing_ok=True)
    (recorder.path / name).symlink_to(tmp_path / "other" / name)
    with pytest.raises(InputError, match="is a link that leads out of run"):
        read_all(recorder.path)
    followed = Run.follow(recorder.path)
    followed.refresh()
    assert (followed.info == {}) == (name == "run.json")
    assert (followed.metrics() == []) == (name == "metrics.jsonl")
    if name != "job.json":  # which a launcher writes
        with pytest.raises(InputError, match="leads out of run"):
            Recorder(recorder.path, resume=True)


def test_nothing_is_locked_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="leads out of run"):
        Recorder(tmp_path / "run")
    with pytest.raises(OSError, match="the lock is a link"):
        take_lock(tmp_path / "run" / ".lock")
    assert (tmp_path / "precious").read_text() == "work"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[1]", "not an object"),
        (b'{"step": 1, "loss": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100"),
        (b"\xff", "line 2 is not a row"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(recorder, line, what):
    log(recorder, 10)
    with (recorder.path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InputError, match=f"metrics.jsonl: line 2 .*{what}|{what}"):
        Run.open(recorder.path).metrics()
    run = Run.follow(recorder.path)
    run.refresh()
    assert steps(run) == [10]


def test_what_makes_no_sense_in_a_record_is_left_out(recorder):
    odd = {
        "parameters": "many",
        "ledger": {"entries": [1, {"name": 2}, {"name": "step", "seconds": "fast"}]},
        "domains": {"names": "abc", "q": [1, "a"], "sizes": [1, 10**400]},
        "final": {"loss_token": float("nan"), "by_domain_token": [1, None, "x", [2]]},
        "progress": {"step": "half", "steps": 9},
        "seconds": 10**400,
        "resumed": 3,
        "status": "ok\x1b[31m",
    }
    (recorder.path / "run.json").write_text(json.dumps(recorder.info | odd))
    run = Run.open(recorder.path)
    assert (run.info["parameters"], run.info["domains"]) == ({}, {"names": []})
    assert [entry["name"] for entry in run.info["ledger"]["entries"]] == ["step"]
    assert run.info["final"] == {"loss_token": None, "by_domain_token": [1, None, None, None]}
    assert (run.info["progress"], run.info["seconds"], run.status) == ({"steps": 9}, None, "ok")
    (recorder.path / "metrics.jsonl").write_text('{"step": 1, "loss": [9], "tokens": 1e999}\n')
    assert run.metrics() == [{"step": 1, "loss": None, "tokens": None}]


@pytest.mark.parametrize(
    "arrays",
    [
        {"p": np.ones((3, 2)), "counts": np.ones((3, 4)), "step": np.ones(3)},
        {"p": np.ones((3, 2)), "gram": np.ones(3), "step": np.ones(3)},
        {"p": np.ones(2), "step": np.ones(2)},
        {"p": np.ones((2, 2)), "step": np.array(["a"])},
        {"p": np.ones((2, 2)), "step": np.array([np.nan])},
        {"p": np.ones((2, 2)), "step": np.ones(1), "q": np.ones(3)},
    ],
)
def test_arrays_of_other_rounds_or_domains_are_refused(recorder, arrays):
    np.savez(recorder.path / "history.npz", **arrays)
    with pytest.raises(InputError, match=r"history.npz: holds arrays that do not fit each other"):
        read_all(recorder.path)
    run = Run.follow(recorder.path)
    run.refresh()
    assert run.history == {}


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.npz", "STOP", ".lock", "domains"])
def test_a_folder_where_a_file_belongs_is_named(tmp_path, name):
    (tmp_path / name).write_text("") if name == "domains" else (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"{name}: is (not )?a folder; remove it, or use another"):
        Recorder(tmp_path)


# ------------------------------------------------------------------ the mixture of a run


def three_rounds(folder, names=("wiki", "code"), first=(0.5, 0.5)):
    """A run of three rounds, of 10, 30 and 10 steps."""
    recorder = Recorder(folder)
    recorder.start(parameters={"mixer": "RnB"}, domains={"names": list(names)})
    recorder.arrays["p"] = [np.array(first)]
    for step, share in ((10, 0.25), (40, 0.0), (50, 0.125)):
        recorder.round(step=step, p=np.array([share, 1 - share]), estimate=None)
    recorder.finish("ok")
    return Run.open(folder)


@pytest.mark.parametrize(
    ("at", "wiki"),
    [("last", 0.125), ("mean", (10 * 0.5 + 30 * 0.25) / 50), (0, 0.5), (2.0, 0.0), (3, 0.125)],
)
def test_the_mixture_of_a_run_has_the_names_of_its_domains(tmp_path, at, wiki):
    mixture = three_rounds(tmp_path).mixture(at)
    assert mixture == {"wiki": wiki, "code": 1 - wiki}
    assert json.loads(json.dumps(mixture)) == mixture
    assert Fixed(mixture).options() == {"p": mixture}


def test_a_mixture_that_is_not_recorded_is_refused(tmp_path, recorder):
    run = three_rounds(tmp_path / "a")
    for at in (4, -1, "first", True):
        with pytest.raises(InputError, match='give "last", "mean" or a round from 0 to 3'):
            run.mixture(at)
    with pytest.raises(InputError, match="no finished round recorded"):
        Run.open(recorder.path).mixture()
    with pytest.raises(InputError, match="1 different names recorded for 2 domains"):
        three_rounds(tmp_path / "b", names=("wiki", "wiki")).mixture()
    unknown = three_rounds(tmp_path / "c", first=(np.nan, np.nan))  # a loop that never said it
    assert unknown.mixture() == {"wiki": 0.125, "code": 0.875}
    with pytest.raises(InputError, match="its proportions at 'mean' are not all recorded"):
        unknown.mixture("mean")


# ------------------------------------------------------------------ at a glance


def test_a_run_shows_its_status_loss_and_path_and_what_to_do_next(recorder, write_run, tmp_path):
    run = Run.follow(tmp_path / "later")
    assert repr(run) == f"Run('{run.path}', later, waiting; next: rb.attach('{run.path}'))"
    recorder.beat(every=0, step=10, steps=1000, loss=4.9)
    assert "RnB, running, step 10 of 1,000, loss 4.900; next: rb.attach(" in repr(
        Run.open(recorder.path)
    )
    done = write_run(tmp_path / "done", "Target")
    loss = done.info["final"]["loss_token"]
    assert f"Target, ok, eval loss {loss:.3f}; next: rb.scrub('{done.path}'))" in repr(done)
    killed = done.with_(status="killed", info={**done.info, "final": None, "arguments": {"k": 1}})
    assert f"killed; next: rb.train(..., run_dir='{done.path}', resume=True))" in repr(killed)


def test_what_a_run_shows_is_escaped(write_run, tmp_path):
    run = write_run(tmp_path / "<b>&", "<script>\x1b[31m", status="failed", error="bad <i>\n2nd")
    html = run._repr_html_()
    assert "<script" not in html
    assert "<i>" not in html
    assert "&lt;script&gt; · " not in html  # the name is set in bold
    assert f"<code>{html_escape(str(run.path))}</code><br>next: <code>rb.scrub(" in html
    assert "failed · bad &lt;i&gt; 2nd" in html
    assert not set("\x1b\n") & set(repr(run) + html)
