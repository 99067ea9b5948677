"""Plans: everything is checked before anything is written, and ids come from content."""

import os
import shlex

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rbkit
from rbkit import files
from rbkit.cli import read_parameters
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import read_json, write_json
from rbkit.processes import process_identity
from rbkit.report.sweep import folder, pipeline
from rbkit.report.sweep import plan as plan_module
from rbkit.report.sweep.folder import read_job
from rbkit.report.sweep.grid import format_grid
from rbkit.report.sweep.plan import make_plan, queue_unfinished, slug


def hashes(plan):
    return [job.id[-8:] for job in plan.jobs]


@pytest.fixture
def plan(template, tmp_path, monkeypatch):
    """Plan a sweep of the test notebook, with relative paths."""
    monkeypatch.chdir(tmp_path)
    template()

    def make(grid="mixer=target,rnb seed=0..1", out="out", **more):
        return make_plan("try.ipynb", grid, out, **more)

    return make


def test_a_plan_is_the_product_of_its_values_in_their_order(plan):
    made = plan("mixer=target,rnb seed=0..2 k=10,[8,12]")
    assert len(made.jobs) == 12
    assert [job.varied for job in made.jobs][:3] == [
        {"mixer": "Target", "seed": 0, "k": 10},
        {"mixer": "Target", "seed": 0, "k": [8, 12]},
        {"mixer": "Target", "seed": 1, "k": 10},
    ]
    assert made.jobs[0].parameters["rate"] == 0.001
    assert not {"run_dir", "resume"} & set(made.jobs[0].parameters)
    assert made.jobs[0].id.startswith("mixer-Target_seed-0_k-10-")


def test_planning_writes_nothing(plan, tmp_path):
    plan()
    assert [path.name for path in tmp_path.iterdir()] == ["try.ipynb"]


@pytest.mark.parametrize(
    ("grid", "parameters", "said"),
    [
        ("sed=0..4", {}, "sed: the notebook declares no such parameter; did you mean seed"),
        ("seed=0,many", {}, "seed: 'many' (str) is not allowed; give int"),
        ("how=slow,quick", {}, 'give Literal["slow", "fast", 2]'),
        ("mixer=rbn", {}, "mixer: 'rbn' is unknown; use one of Stratified"),
        ("seed=0", {"rate": "fast"}, "rate: 'fast' (str) is not allowed; give float"),
        ("seed=0", {"seed": 1}, "seed: is in the grid, and fixed to 1"),
        ("run_dir=a,b", {}, "run_dir: cannot be given to a sweep; it is set by --out"),
        ("seed=0", {"resume": True}, "resume: cannot be given to a sweep"),
        ("seed=0..999 rate=0..999", {}, "makes 1,000,000 runs"),
    ],
)
def test_what_is_wrong_stops_before_anything_is_written(plan, tmp_path, grid, parameters, said):
    with pytest.raises(InputError) as error:
        plan(grid, parameters=parameters)
    assert said in str(error.value)
    with pytest.raises(InputError):
        pipeline.sweep("try.ipynb", grid, parameters=parameters)
    assert [path.name for path in tmp_path.iterdir()] == ["try.ipynb"]


def test_a_kernel_that_is_not_there_stops_before_anything_runs(plan, template):
    node = nbformat.read(template(), as_version=4)
    node.metadata.kernelspec.name = "nosuch"
    nbformat.write(node, "try.ipynb")
    with pytest.raises(InputError, match=r"wants the kernel 'nosuch', which is not installed"):
        plan()


def test_a_profile_is_a_parameter_that_must_be_declared(plan):
    with pytest.raises(InputError, match="profile: the notebook declares no such parameter"):
        plan(profile="smoke")


def test_points_that_are_the_same_are_run_once_and_reported(plan):
    made = plan("rate=1e-3,0.001,2e-3 mixer=rnb,RnB")
    assert [job.varied["rate"] for job in made.jobs] == [0.001, 0.002]
    assert made.notes == [
        "rate=0.001 is in the grid twice, and run once",
        "mixer=RnB is in the grid twice, and run once",
    ]


@pytest.mark.parametrize("written", ["1e-3", 1e-3, "0.001", "1.0e-03"])
def test_a_float_is_a_float_however_it_was_written(plan, written):
    assert hashes(plan("rate=1e-3")) == hashes(plan({"rate": [written]}))
    assert hashes(plan("rate=1e-3")) == hashes(plan("", parameters={"rate": written}))


def test_the_same_sweep_typed_differently_has_the_same_ids(plan):
    first = plan("mixer=target,rnb seed=0..1")
    again = plan({"seed": (1, 0), "mixer": ["RNB", "Target"]})
    assert {job.id for job in first.jobs} == {job.id for job in again.jobs}
    # What is fixed in one call may vary in another: the words differ, the run does not.
    assert hashes(plan("seed=1", parameters={"mixer": "rnb"}))[0] in hashes(first)
    # The default given is the default.
    assert hashes(plan("seed=0")) == hashes(plan("seed=0 k=[8,12]"))


VALUES = {
    "mixer": st.sampled_from(["Target", "RnB", "ADO"]),
    "seed": st.integers(0, 9),
    "k": st.integers(1, 9) | st.lists(st.integers(1, 9), max_size=2),
    "data": st.text(st.characters(codec="ascii", exclude_characters="/\\*?[.~"), max_size=4),
}
GRIDS = st.fixed_dictionaries(
    {},
    optional={n: st.lists(v, min_size=1, max_size=2, unique_by=repr) for n, v in VALUES.items()},
)


@settings(max_examples=40)
@given(grid=GRIDS)
def test_a_grid_from_python_and_from_the_command_line_are_the_same_sweep(template_path, grid):
    made = make_plan(template_path, grid, "nowhere")
    again = make_plan(template_path, format_grid(made.grid), "nowhere")
    backwards = make_plan(template_path, dict(reversed(list(grid.items()))), "nowhere")
    assert [job.id for job in made.jobs] == [job.id for job in again.jobs]
    assert {job.id for job in made.jobs} == {job.id for job in backwards.jobs}
    words = shlex.split(made.command)
    assert words[:3] == ["rbkit", "sweep", str(template_path)]


@pytest.fixture(scope="module")
def template_path(tmp_path_factory):
    cell = 'mixer: str = "RnB"\nseed: int = 0\nk: tuple[int, ...] | int = 3\ndata: str = ""'
    node = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell, metadata={"tags": ["parameters"]})]
    )
    path = tmp_path_factory.mktemp("grid") / "t.ipynb"
    nbformat.write(node, path)
    return path


def test_the_code_counts_and_text_and_outputs_do_not(plan, template, monkeypatch):
    before = hashes(plan())
    template(text="# Another title")
    node = nbformat.read("try.ipynb", as_version=4)
    node.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1")]
    node.cells[-1].execution_count = 3
    injected = nbformat.v4.new_code_cell("seed = 4", metadata={"tags": ["injected-parameters"]})
    node.cells.insert(2, injected)
    nbformat.write(node, "try.ipynb")
    assert hashes(plan()) == before
    with monkeypatch.context() as patch:
        patch.setattr(rbkit, "__version__", f"{rbkit.__version__}.7")
        assert hashes(plan()) == before
        patch.setattr(rbkit, "__version__", "99.0.0")
        assert not set(hashes(plan())) & set(before)
    template(code="print(seed + 1)")
    assert not set(hashes(plan())) & set(before)


def test_the_content_of_data_counts_and_its_name_does_not(plan, tmp_path):
    files = tmp_path / "texts"
    files.mkdir()
    for name in ("a", "b"):
        (files / f"{name}.jsonl").write_text("same")
    for given_ in ("texts/a.jsonl", "texts", "texts/*.jsonl"):
        before = hashes(plan("seed=0", parameters={"data": given_}))
        assert before == hashes(plan("seed=0", parameters={"data": str(tmp_path / given_)}))
        (files / "a.jsonl").write_text("other")
        assert before != hashes(plan("seed=0", parameters={"data": given_}))
        (files / "a.jsonl").write_text("same")
        assert before == hashes(plan("seed=0", parameters={"data": given_}))
    one, other = plan("data=texts/a.jsonl,texts/b.jsonl"), plan("data=texts/a.jsonl")
    assert hashes(one) == hashes(other)
    assert one.notes == ["data=texts/b.jsonl is left out: the same as data=texts/a.jsonl"]


def test_what_the_sweep_writes_is_none_of_its_data(plan):
    before = hashes(plan("seed=0", parameters={"data": "../" + os.path.basename(os.getcwd())}))
    plan("seed=0").write()
    after = hashes(plan("seed=0", parameters={"data": "../" + os.path.basename(os.getcwd())}))
    assert before == after


@pytest.mark.parametrize("text", ["/", ".", "a" * 5000, "\0", "*", "[", "~nobody/x"])
def test_text_that_names_no_file_is_text(plan, text):
    assert plan({"data": [text]}).jobs[0].parameters["data"] == text


def test_words_of_ids_are_safe_and_short():
    assert slug({"data": "../../etc/passwd", "k": ["a b", "*"]}, "x") == "data-passwd_k-a-b"
    assert slug({}, "my notebook") == "my-notebook"
    assert slug({"x": "ü" * 300}, "") == "x"
    assert len(slug({f"name{i}": i for i in range(50)}, "x")) <= 60


def test_the_command_of_a_run_repeats_it(plan, template_path):
    plan(
        {"mixer": ["rnb"], "data": ["it's; rm -rf $HOME"], "k": [(8, 12, 16)]},
        parameters={"options": {"a": 1}, "rate": "1e-3"},
    )
    job = plan({"data": ["it's; $HOME"], "seed": [3]}, parameters={"options": {"a": 1}}).jobs[0]
    words = shlex.split(job.command)
    assert words[:6] == ["rbkit", "run", "--out", f"out/repeat/{job.id}", "--template", "try.ipynb"]
    assert words[6::2] == ["-p"] * 3  # rate and the others are at their defaults
    options = dict(word.split("=", 1) for word in words[7::2])
    assert options == {"data": "it's; $HOME", "seed": "3", "options": '{"a":1.0}'}
    again = plan("", parameters=options)
    assert hashes(again) == [job.id[-8:]]


def test_commands_tell_numbers_from_text(plan, template):
    template("k: int | str = 3\nx: int | str = 0\nseed: int = 0")
    made = plan({"k": [1, "1", "true"], "seed": [3]}, parameters={"x": "2"})
    assert [job.varied["k"] for job in made.jobs] == [1, "1", "true"]
    words = shlex.split(made.command)
    assert words[4:7] == ['k=1,"1","true" seed=3', "-p", 'x="2"']
    again = plan(words[4], parameters=read_parameters(words[6:7]))
    assert [job.id for job in again.jobs] == [job.id for job in made.jobs]
    one = shlex.split(made.jobs[1].command)[7::2]
    assert one == ['k="1"', 'x="2"', "seed=3"]
    assert plan("", parameters=read_parameters(one)).jobs[0].id[-12:] == made.jobs[1].id[-12:]


def test_the_notebook_gets_what_was_given_and_the_record_has_all(plan, template):
    template("shape = (2, 3)\nweights: dict[int, float] = {0: 1.0}\nseed: int = 0\nx: int = 0")
    made = plan("seed=0", parameters={"x": 2})
    made.write()
    job = read_job(made.jobs[0].run_dir)
    assert job["given"] == made.jobs[0].given == {"seed": 0, "x": 2}
    assert set(job["parameters"]) == {"shape", "weights", "seed", "x"}


def test_sweep_json_says_what_was_asked_and_with_what(plan):
    made = plan()
    made.write()
    info = folder.read_sweep("out")
    assert info["format"] == "rbkit-sweep/1"
    assert info["jobs"] == [job.id for job in made.jobs]
    assert info["grid"] == {"mixer": ["Target", "RnB"], "seed": [0, 1]}
    assert set(info["machine"]) == {"cpus", "memory_gb", "platform", "gpus"}
    assert info["command"] == "rbkit sweep try.ipynb --grid 'mixer=Target,RnB seed=0,1' --out out"
    assert folder.launcher_of("out", info) == f"process {os.getpid()}"
    assert read_job(made.jobs[0].run_dir)["status"] == "queued"
    assert set(made.statuses().values()) == {"queued"}
    made.release()
    assert folder.launcher_of("out", folder.read_sweep("out")) is None


def test_another_grid_adds_its_runs_and_leaves_the_others(plan, ends):
    first = plan("seed=0..1")
    first.write()
    ends(first.jobs[0], "ok")
    second = plan("mixer=rnb,target seed=1..2")
    second.write()
    info = folder.read_sweep("out")
    assert info["jobs"][:2] == [job.id for job in first.jobs]
    assert len(info["jobs"]) == 2 + 3  # the seed 1 of Target was there already
    assert first.statuses()[first.jobs[0].id] == "ok"
    assert len(info["calls"]) == 2
    second.write()
    assert len(folder.read_sweep("out")["calls"]) == 2
    assert info["superseded"] == []


def test_runs_of_older_code_make_way_for_those_of_the_new(plan, template, capsys):
    first = plan("seed=0..2")
    first.write()
    template(code="print(seed + 1)")
    pipeline.sweep("try.ipynb", "seed=0..1", "out", dry_run=True)
    assert "2 runs of older code or data make way for new ones" in capsys.readouterr().err
    second = plan("seed=0..1")
    second.write()
    info = folder.read_sweep("out")
    assert info["superseded"] == [job.id for job in first.jobs[:2]]
    assert info["jobs"] == [first.jobs[2].id, *(job.id for job in second.jobs)]
    template()
    plan("seed=0").write()  # back to the old code: that run is there
    info = folder.read_sweep("out")
    assert first.jobs[0].id in info["jobs"]
    assert second.jobs[0].id in info["superseded"]


def test_the_sweep_of_another_notebook_is_left_alone(plan, template):
    plan().write()
    before = folder.read_sweep("out")
    template(name="other.ipynb")
    with pytest.raises(InputError, match=r"holds a sweep of another notebook, try.ipynb; give an"):
        make_plan("other.ipynb", "seed=0", "out").write()
    assert folder.read_sweep("out") == before


def test_two_launchers_do_not_share_a_folder(plan):
    plan().write()
    info = folder.read_sweep("out")
    who = {**info["launcher"], **process_identity(os.getppid())}
    write_json("out/sweep.json", {**info, "launcher": who})
    with pytest.raises(InputError, match=f"process {os.getppid()} works on this sweep"):
        plan().write()
    elsewhere = {**who, "host": "elsewhere"}
    write_json("out/sweep.json", {**info, "launcher": elsewhere})
    with pytest.raises(InputError, match="a process on elsewhere works on this sweep"):
        plan().write()
    gone = {**elsewhere, "since": "2020-01-01T00:00:00+00:00"}  # no heartbeat in any run
    write_json("out/sweep.json", {**info, "launcher": gone})
    plan().write()


def test_a_damaged_job_is_queued_again_with_a_warning(plan):
    made = plan("seed=0")
    made.write()
    (made.jobs[0].run_dir / "job.json").write_text("{")
    with pytest.warns(RbkitWarning, match="not valid JSON.*the run is queued again"):
        made.write()
    assert read_job(made.jobs[0].run_dir)["status"] == "queued"


@pytest.mark.parametrize("id", ["../x", "/etc", "..", "", 3, "a\\b"])
def test_ids_that_lead_out_of_the_folder_are_refused(plan, id):
    plan("seed=0").write()
    info = read_json("out/sweep.json")
    write_json("out/sweep.json", {**info, "jobs": [id]})
    with pytest.raises(InputError, match="is not the id of a run"):
        folder.read_sweep("out")


def test_a_metric_that_no_run_will_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="metric: no run evaluates 'exact_match'; give the param"):
        pipeline.sweep("90_run", "seed=0,1", tmp_path / "out", metric="exact_match", dry_run=True)
    given = {"metrics": ["exact_match"]}
    made = pipeline.sweep(
        "90_run", "seed=0,1", tmp_path / "out", metric="exact_match", parameters=given, dry_run=True
    )
    assert made.counts == {"queued": 2}


def test_a_dry_run_shows_the_runs_and_writes_nothing(plan, tmp_path, capsys):
    plan("seed=0")
    result = pipeline.sweep("try.ipynb", "mixer=target,rnb", dry_run=True)
    said = capsys.readouterr()
    assert "try -> reports/try: 2 runs, 0 done already, 2 to do, 1 at a time" in said.err
    assert said.out.splitlines()[0].split() == ["run", "status", "mixer"]
    assert said.out.splitlines()[2].split()[1:] == ["queued", "RnB"]
    assert result.counts == {"queued": 2}
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("baseline", ["mixer=ado", "mxer=target", "target", {"mixer": "Nobody"}])
def test_a_baseline_that_no_run_can_have_is_refused_at_once(plan, baseline):
    plan()
    with pytest.raises(InputError):
        pipeline.sweep("try.ipynb", "mixer=target,rnb", "out", baseline=baseline, dry_run=True)


def test_planning_two_thousand_runs_shows_progress_and_waits_for_no_disk(
    template, tmp_path, monkeypatch, capsys
):
    flushed = []
    monkeypatch.setattr(files, "_flush_to_disk", flushed.append)
    grid = "seed=0..1999"
    plan = make_plan(template(), grid, tmp_path / "out", progress=True)
    plan.write(progress=True)
    queued, done = queue_unfinished(plan, resume=True)
    assert (len(queued), done) == (2000, [])
    assert len(flushed) <= 2  # sweep.json
    assert all(read_job(job.run_dir)["status"] == "queued" for job, _ in queued[::400])
    bars = [plan_module._bar(range(3), "planning", 3, progress) for progress in (True, False)]
    assert [bar.disable for bar in bars] == [False, True]
