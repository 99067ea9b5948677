"""What a run is known by: files and data count by their content, other folders by name."""

import pytest

from rbkit.report.sweep import plan as plan_module
from rbkit.report.sweep.plan import make_plan


@pytest.fixture
def names(template, tmp_path, monkeypatch):
    """Plan one run of a notebook with these lines of parameters; return its id and the notes."""
    monkeypatch.chdir(tmp_path)

    def make(*lines, code="print(1)", **values):
        template("\n".join(lines), code=code, name="names.ipynb")
        made = make_plan("names.ipynb", "", "out", values)
        return made.jobs[0].id, made.notes

    return make


@pytest.mark.parametrize("line", ['results: str = "made/a"', 'cache: str = ""  # of databases'])
def test_a_folder_that_runs_write_to_does_not_change_their_ids(names, tmp_path, line):
    name = line.split(":")[0]
    (tmp_path / "made/a").mkdir(parents=True)
    before, notes = names(line, **{name: "made/a"})
    (tmp_path / "made/a/0.txt").write_text("of the first run")
    assert names(line, **{name: "made/a"}) == (before, notes)
    assert notes == [
        f"{name}: made/a counts by its name: it is a folder; if it is data, write "
        f'"data" into the comment of {name}'
    ]


@pytest.mark.parametrize(
    "line", ['data: str = ""', 'my_corpus: str = ""', 'texts: str = ""  # folder of data']
)
def test_a_folder_is_data_where_the_parameter_says_so(names, tmp_path, line):
    name = line.split(":")[0]
    (tmp_path / "in").mkdir()
    before, notes = names(line, **{name: "in"})
    (tmp_path / "in/a.txt").write_text("more")
    assert names(line, **{name: "in"})[0] != before
    assert notes == []


def test_a_file_is_data_whatever_the_parameter_is_called(names, tmp_path):
    (tmp_path / "a.txt").write_text("1")
    before = [names('x: str = ""', x=given_)[0] for given_ in ("a.txt", "*.txt")]
    (tmp_path / "a.txt").write_text("2")
    after = [names('x: str = ""', x=given_)[0] for given_ in ("a.txt", "*.txt")]
    assert not set(before) & set(after)


def test_folders_of_the_run_notebook_are_those_that_it_reads(names, tmp_path):
    lines, code = ['corpus: str = "demo"', 'layer: str = ""'], "RunParameters.from_globals()"
    (tmp_path / "in").mkdir()
    before = names(*lines, code=code, corpus="in")[0]
    other = names(*lines, code=code, layer="in")
    (tmp_path / "in/a.txt").write_text("more")
    assert names(*lines, code=code, corpus="in")[0] != before
    assert names(*lines, code=code, layer="in") == other


@pytest.mark.parametrize("place", ["/tmp", "/", "~", "/var/tmp/"])
def test_places_are_never_read(names, monkeypatch, place):
    monkeypatch.setattr(plan_module, "_digests", None)
    assert names(f'data: str = "{place}"')[1] == []


def test_a_folder_of_too_many_files_counts_by_its_name(names, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "_MAX_FILES", 2)
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / f"in/{n}").touch()
    for given_, does in (("in", "holds"), ("in/*", "finds")):
        notes = names("data: str = ''", data=given_)[1]
        assert notes == [f"data: {given_} counts by its name: it {does} more than 2 files"]


def test_data_that_cannot_be_read_counts_by_its_name(names, tmp_path, monkeypatch):
    def refuse(paths):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.csv").touch()
    monkeypatch.setattr(plan_module, "_digests", refuse)
    notes = names("data: str = ''", data="secret.csv")[1]
    assert notes == ["data: secret.csv cannot be read (Permission denied), and counts by its name"]


def test_two_runs_with_the_same_digits_are_two_runs(names, tmp_path, monkeypatch, template):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_module, "_ID_DIGITS", (1, 24))
    template()
    made = make_plan("try.ipynb", {"seed": range(40)}, "out")  # of 16 first digits
    assert len({job.id for job in made.jobs}) == 40
    assert made.notes == []
    made.write()
    few, more = (make_plan("try.ipynb", {"seed": s}, "out") for s in ([39, 3], range(60)))
    ids = {job.varied["seed"]: job.id for job in made.jobs}
    assert [job.id for job in few.jobs] == [ids[39], ids[3]]
    assert [job.id for job in more.jobs][:40] == list(ids.values())
    assert len({job.id for job in more.jobs}) == 60


def test_ids_have_twelve_digits(names):
    assert len(names("seed: int = 0")[0].rpartition("-")[2]) == 12
