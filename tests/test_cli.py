"""The command line: one line for every error, and help that is good to read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rbkit.balance.mixers.registry import MIXERS
from rbkit.balance.signals import SIGNALS
from rbkit.cli import app, main
from rbkit.report.parameters import RunParameters
from rbkit.report.recipe import FOLDER, TWINS, recipe
from rbkit.train.models import build_model, train_tokenizer
from rbkit.train.run import Run

COMMANDS = [
    "doctor",
    "demo",
    "run",
    "sweep",
    "status",
    "watch",
    "report",
    "mixers",
    "recipes",
    "lab",
    "assets",
    "nb",
]


def test_help_shows_every_command():
    said = CliRunner().invoke(app, ["--help"]).output
    assert all(command in said for command in COMMANDS)
    assert "Start with: rbkit doctor" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from rbkit.cli import app; from typer.testing import CliRunner; "
        "CliRunner().invoke(app, ['run', '--help']); CliRunner().invoke(app, ['mixers']); "
        "assert not {'torch', 'transformers', 'datasets', 'papermill'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--out", "x", "-p", "setps=10"], "setps: no such parameter; did you mean steps"),
        (["run", "--out", "x", "-p", "steps=many"], "steps: 'many' (str) is not allowed; give int"),
        (["run", "--out", "x", "-p", "steps=0"], "steps: 0 is not positive"),
        (["demo", "--out", "x", "-p", "mixer_options=[1]"], "mixer_options: '[1]'"),
        (["report", "nowhere"], "nowhere: no run folder in there; give the folder that holds runs"),
        (["assets", "path", "wikipedia"], "wikipedia"),
    ],
)
def test_an_error_is_one_line_with_the_remedy(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rbkit", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert said.startswith("rbkit: ")
    assert message in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_without_a_value_is_explained():
    done = CliRunner().invoke(app, ["run", "--out", "x", "-p", "steps"])
    assert done.exit_code == 2
    assert "NAME=VALUE" in done.output


def test_doctor_tells_what_is_there_and_tries_a_run():
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    for word in (
        "Installed",
        "torch",
        "Device",
        "Waiting",
        "Cache",
        "minilm",
        "Smoke run",
        "works",
    ):
        assert word in done.output


def test_assets_are_listed_with_their_licence():
    said = CliRunner().invoke(app, ["assets", "list"]).output
    assert "CC BY-SA 4.0" in said
    assert "smollm2" in said


def wide(*arguments):
    """Run the command in a process of its own, in a wide terminal; return its lines."""
    done = subprocess.run(
        [sys.executable, "-m", "rbkit.cli", *arguments],
        text=True,
        capture_output=True,
        env=os.environ | {"COLUMNS": "400"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_mixer_is_listed_with_what_it_needs():
    rows = {line.split()[0]: line for line in wide("mixers")[1:] if line.strip()}
    assert set(MIXERS) <= set(rows)
    for name, rule in MIXERS.items():
        assert all(signal in rows[name] for signal in rule.signals)
        assert rule.acts in rows[name]


def test_every_signal_is_explained_with_who_asks_for_it():
    lines = wide("mixers", "--signals")
    for signal, meaning in SIGNALS.items():
        (row,) = [line for line in lines if line.startswith(f"{signal} ")]
        assert meaning in row
        asking = [name for name, rule in MIXERS.items() if signal in rule.signals]
        assert row.rstrip().endswith(asking[-1] if asking else "no rule")


@pytest.mark.slow
@pytest.mark.notebook
def test_run_and_report_make_offline_pages(tmp_path):
    runner, out = CliRunner(), tmp_path / "runs"
    for mixer in ("Target", "RnB"):
        done = runner.invoke(
            app,
            [
                *("run", "--out", str(out / mixer), "-p", "profile=smoke"),
                *("-p", f"mixer={mixer}", "-p", "corpus=docstrings"),
            ],
        )
        assert done.exit_code == 0, done.output
        assert (out / mixer / "run.html").exists()
    done = runner.invoke(app, ["report", str(out)])
    assert done.exit_code == 0, done.output
    from rbkit.report.html import assert_offline

    page = (out / "index.html").read_text()
    assert assert_offline(page) == []
    assert "Target" in page
    assert "RnB/run.html" in page


EVIL = "a\x1b[31m\x1b]0;title\x07\u202eb"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", EVIL],
        ["watch", "--once", EVIL],
        ["report", EVIL],
        ["status", "here", EVIL],  # one folder more than it takes
        [EVIL],
        ["run", "--out", "x", "-p", f"{EVIL}=1", "-p", f"{EVIL}=1"],
        ["run", "--out", "x", "-p", EVIL],
        ["sweep", EVIL],
        ["sweep", "90_run", "--grid", f"{EVIL}=1"],
        ["assets", "path", EVIL],
    ],
    ids=ascii,
)
def test_names_and_folders_bring_no_commands_to_the_terminal(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rbkit", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert not set("\x1b\x07\u202e") & set(said.out + said.err)


def test_a_run_folder_brings_no_commands_to_the_terminal(tmp_path, write_run, capsys, monkeypatch):
    folder = tmp_path / EVIL
    info = write_run(folder, "RnB").info | {"status": EVIL, "error": EVIL}
    info["parameters"]["mixer"] = EVIL
    (folder / "run.json").write_text(json.dumps(info))
    monkeypatch.setattr(sys, "argv", ["rbkit", "watch", "--once", str(folder)])
    with pytest.raises(SystemExit):
        main()
    print(Run.open(folder))
    said = capsys.readouterr()
    assert not set("\x1b\x07\u202e") & set(said.out + said.err)
    assert "ab" in said.out


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["mine"], []),
        (["--no-browser", "mine", "--port", "9000"], ["--port=9000", "--no-browser"]),
        (["mine", "--ip=0.0.0.0", "--debug"], ["--ip=0.0.0.0", "--debug"]),
    ],
)
def test_lab_passes_the_options_of_jupyter_on(arguments, options, tmp_path, monkeypatch):
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    done = CliRunner().invoke(app, ["lab", *arguments])
    assert done.exit_code == 0, done.output
    (command,) = commands
    assert command[1:] == ["-m", "jupyterlab", f"--notebook-dir={tmp_path / 'mine'}", *options]
    assert (tmp_path / "mine" / "00_tour.ipynb").is_file()


def test_lab_takes_one_folder():
    assert CliRunner().invoke(app, ["lab", "a", "b"]).exit_code == 2


def test_a_report_does_not_replace_a_page_of_somebody_else(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr("rbkit.report.page.page.drawings", lambda *_: {})
    write_run(tmp_path / "runs" / "one", names=["a", "b"], rounds=2)
    (tmp_path / "runs" / "index.html").write_text("my own page")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "runs")])
    assert "is not a page of rbkit's; give another place with --out" in str(done.exception)
    assert (tmp_path / "runs" / "index.html").read_text() == "my own page"
    for page in ("mine.html", "index.html"):
        (tmp_path / "runs" / "index.html").unlink(missing_ok=True)
        out = ["--out", str(tmp_path / page)] if page == "mine.html" else []
        for _ in range(2):
            assert CliRunner().invoke(app, ["report", str(tmp_path / "runs"), *out]).exit_code == 0


@pytest.mark.parametrize(
    "command", [["status"], ["report"], ["watch", "--once"], ["demo", "--out"]]
)
@pytest.mark.parametrize("path", ["x" * 400, "file", "pipe", "loop"], ids=lambda path: path[:4])
def test_a_path_that_is_no_folder_is_one_line(command, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setattr(sys, "argv", ["rbkit", *command, path])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert said.startswith("rbkit: ")
    assert "\n" not in said


RECIPES = [name for pair in TWINS.items() for name in pair]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_card_and_parameters_of_the_template(name):
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(RECIPES)
    made = recipe(name)
    assert set(made.card) == {*("what", "examples", "licence", "needs", "time", "paper", "differs")}
    RunParameters.from_mapping(made.parameters)
    assert name in CliRunner().invoke(app, ["recipes"]).output
    shown = CliRunner().invoke(app, ["recipes", name]).output
    assert shown.splitlines() == made.path.read_text().splitlines()


def test_the_papers_settings_are_those_of_its_recipes():
    for name, k in (("dolly", 7), ("ni", 30), ("ni-ood", 100)):
        given = RunParameters.from_mapping(recipe(name).parameters)
        assert (given.model, given.k) == ("EleutherAI/gpt-neo-125m", k)
        settings = (given.batch_size, given.context, given.learning_rate, given.steps)
        assert (*settings, given.round_steps) == (16, 512, 5e-5, 2000, 200)
    given = RunParameters.from_mapping(recipe("s1").parameters)
    assert (given.model, given.k, given.learning_rate) == ("Qwen/Qwen2-0.5B", 10, 1e-5)
    assert (given.batch_size, given.context, given.steps) == (4, 8192, 500)
    assert given.mixer_options == {"lam": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "doly"], "recipe: there is no 'doly'; did you mean dolly?"),
        (["--recipe", "nowhere.toml"], "recipe: there is no file nowhere.toml"),
        (["--recipe", "broken.toml"], "broken.toml: is not TOML (Invalid value"),
        (["--recipe", "outside.toml"], "outside.toml: steps is outside of the table [parameters]"),
        (["--recipe", "wrong.toml"], "setps: no such parameter; did you mean steps"),
        (["--recipe", "dolly", "-p", "steps=0"], "steps: 0 is not positive"),
        ([], "give --out FOLDER, or a --recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("steps = ")
    (tmp_path / "outside.toml").write_text("steps = 3\n[parameters]\nk = 2")
    (tmp_path / "wrong.toml").write_text("setps = 3")
    monkeypatch.setattr(sys, "argv", ["rbkit", "run", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("\u2502", "").split())
    assert not (tmp_path / "reports").exists()


WORDS = ["oak elm ash fir", "gear cog cam rod", "salt egg oil rye"]
SHAPES = {  # rows as those of the hub, and what differs from them here
    "dolly": lambda i: {
        "instruction": f"Say {i}",
        "context": WORDS[i % 3] * (i % 2),
        "response": f"{WORDS[i % 3]} {i}",
        "category": "abc"[i % 3],
    },
    "ni": lambda i: {
        "task_name": f"task{i % 3}",
        "id": str(i),
        "definition": f"Name {i}.",
        "inputs": WORDS[i % 3],
        "targets": f"{WORDS[i % 3][:7]} {i}",
    },
    "s1": lambda i: {
        "question": f"What is {i} {WORDS[i % 3]}?",
        "thinking_trajectories": [f"It is {WORDS[i % 3]}."],
        "attempt": f"{i}",
        "source_type": "abc"[i % 3],
    },
}
SHAPES["ni-ood"] = SHAPES["ni"]


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize("name", SHAPES)
def test_a_recipe_of_the_paper_runs_on_a_small_file_of_its_shape(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [" ".join(map(str, SHAPES[name](i).values())) for i in range(90)]
    tokenizer = train_tokenizer(texts, 300, progress=False)
    tokenizer.save_pretrained("model")
    build_model("tiny", vocab_size=len(tokenizer), context=64).save_pretrained("model")
    data = Path("data")
    data.mkdir()
    for split, rows in (("train", range(90)), ("validation", range(90, 120))):
        lines = "\n".join(json.dumps(SHAPES[name](i)) for i in rows)
        (data / f"{split}.jsonl").write_text(lines)
    small = {"model": "model", "embedder": "tfidf", "embedder_prefix": "", "k": 3, "steps": 4}
    small |= {"corpus": "data" if "ni" in name else "data/train.jsonl", "eval_size": 9}
    small |= {"round_steps": 2, "context": 48, "batch_size": 4}
    given = [f"-p{key}={value}" for key, value in small.items()]
    done = CliRunner().invoke(app, ["run", "--recipe", name, *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    run = Run.open(tmp_path / "reports" / name / "RnB")
    assert (run.status, run.domains.m) == ("ok", 3)
    assert sum(run.domains.sizes) == (90 if name == "ni-ood" else 81)
    assert run.info["arguments"]["learning_rate"] == recipe(name).parameters["learning_rate"]


def test_a_sweep_begins_with_a_recipe_and_varies_what_it_likes(tmp_path):
    (tmp_path / "mine.toml").write_text('corpus = "wiki"\nmixer = "RnB"\nsteps = 7\nk = [2, 3]\n')
    mine = ["--recipe", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out"), "--dry-run"]
    done = CliRunner().invoke(app, ["sweep", *mine, "--grid", "mixer=Target,DGA", "-p", "seed=3"])
    assert [line.split()[-1] for line in done.output.splitlines()[-2:]] == ["Target", "DGA"]
    assert CliRunner().invoke(app, ["sweep"]).exit_code == 2
