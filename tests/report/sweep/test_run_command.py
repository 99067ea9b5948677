"""``rbkit run``: the command that a sweep writes down for each run repeats it."""

import shlex

import pytest
from typer.testing import CliRunner

from rbkit.cli import app, main
from rbkit.report import html
from rbkit.report.notebooks import find_notebook
from rbkit.report.sweep.plan import make_plan


@pytest.fixture
def rbkit(monkeypatch, tmp_path):
    """Run a command line; return which notebook it would execute, with what parameters."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(html, "execute", lambda *args, **more: asked.append(args))

    def run(command):
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        notebook, parameters, _ = asked.pop()
        return notebook, parameters

    return run


def test_the_name_of_a_shipped_notebook_is_a_template(rbkit):
    job = make_plan("90_run", "mixer=target", parameters={"steps": 50}).jobs[0]
    assert rbkit(job.command) == (find_notebook("90_run"), {"mixer": "Target", "steps": 50})
    assert rbkit("rbkit run --out x")[0] == find_notebook("90_run")


def test_defaults_stay_those_of_the_notebook(rbkit, template):
    template("shape = (2, 3)\nweights: dict[int, float] = {0: 1.0}\nx: int = 0")
    assert rbkit("rbkit run --out x --template try.ipynb -p x=3")[1] == {"x": 3}


def test_resume_is_given_on(rbkit):
    assert rbkit("rbkit run --out x --resume")[1] == {"resume": True}


def test_a_parameter_given_twice_is_refused():
    done = CliRunner().invoke(app, ["run", "--out", "x", "-p", "seed=1", "-p", "seed=2"])
    assert done.exit_code == 2
    assert "seed is given twice" in done.output
