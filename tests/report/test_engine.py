import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rbkit.errors import InputError
from rbkit.report import engine
from rbkit.report.engine import NotebookError, execute
from rbkit.report.html import trim
from rbkit.report.kernels import IPCKernelManager, joined_streams

pytestmark = pytest.mark.notebook
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
PARAMETERS = 'k: tuple[int, ...] = (1,)\nrun_dir: str = ""\nprofile: str = "full"\nseed = 0'


@pytest.fixture
def notebook(tmp_path):
    def write(*sources, parameters=PARAMETERS):
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell("# Test"), first, *map(new_code_cell, sources)]
        path = tmp_path / "test.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
        return path

    return write


def test_a_finished_run_is_not_lost_to_a_notebook(notebook, tmp_path, write_run):
    folder = write_run(tmp_path / "run", rounds=2).path
    info = json.loads((folder / "run.json").read_text()) | {"progress": {"step": 50}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "run.ipynb").write_text("mine")
    with pytest.raises(InputError, match=r"holds a finished run; give resume or overwrite as True"):
        execute(notebook("1"), None, folder, progress=False)
    assert (folder / "run.ipynb").read_text() == "mine"
    asked = "resume: bool = False\noverwrite: bool = False\nrun_dir: str = ''"
    template = notebook("1 + 1", parameters=asked)
    with pytest.raises(InputError, match="holds a finished run"):
        execute(template, {"overwrite": False}, folder, progress=False)
    execute(template, {"resume": True}, folder, progress=False)
    assert json.loads((folder / "run.json").read_text()) == info


def _states(path):
    ran = nbformat.read(path, as_version=4)
    ours = [c.metadata.papermill.status for c in ran.cells if "papermill" in c.metadata]
    return ran.metadata.papermill.exception, ours[-2:]


def test_parameters_arrive_with_their_types(notebook, tmp_path):
    source = (
        "import os\nassert k == [3, 4] and profile == 'smoke' and seed == 0\n"
        f"assert run_dir == {str(tmp_path / 'run')!r}\n"
        "assert os.environ['RBKIT_DISPLAY'] == 'batch' and os.environ['MINE'] == 'yes'"
    )
    template = notebook(source)
    book = nbformat.read(template, as_version=4)
    book.cells[-1].outputs = [new_output("stream", text="of last year")]
    nbformat.write(book, template)
    path = execute(
        template,
        {"k": (3, 4)},
        tmp_path / "run",
        profile="smoke",
        env={"MINE": "yes"},
        progress=False,
    )
    assert path == tmp_path / "run" / "run.ipynb"
    assert [p.name for p in path.parent.iterdir()] == ["run.ipynb"]
    assert _states(path)[0] is None
    assert "of last year" not in path.read_text()
    about = nbformat.read(path, as_version=4).metadata.papermill
    assert (about.input_path, about.output_path) == ("test.ipynb", "run.ipynb")


def test_a_notebook_need_not_say_its_language(notebook, tmp_path):
    path = notebook("assert k == [7]")
    book = nbformat.read(path, as_version=4)
    del book.metadata.kernelspec["language"]
    nbformat.write(book, path)
    assert execute(path, {"k": (7,)}, tmp_path / "run", progress=False).exists()


def test_a_failing_cell_is_reported_by_its_last_line(notebook, tmp_path):
    path = notebook("# papermill_description=Training\nraise ValueError('loss is NaN')", "2")
    with pytest.raises(NotebookError, match="cell 'Training': ValueError: loss is NaN") as error:
        execute(path, None, tmp_path / "run", progress=False)
    assert error.value.status == "failed"
    assert _states(error.value.path) == (True, ["failed", "pending"])


def test_a_killed_kernel_is_not_a_completed_run(notebook, tmp_path):
    path = notebook("import os\nos.kill(os.getpid(), 9)", "2")
    with pytest.raises(NotebookError, match="DeadKernelError") as error:
        execute(path, None, tmp_path / "run", progress=False)
    assert error.value.status == "killed"
    assert _states(error.value.path) == (True, ["failed", "pending"])


def test_a_cell_over_its_time_is_stopped(notebook, tmp_path):
    path = notebook("import time\ntime.sleep(60)", "2")
    with pytest.raises(NotebookError, match="longer than the limit of 2 s") as error:
        execute(path, None, tmp_path / "run", timeout=2, progress=False)
    assert error.value.status == "timeout"
    assert _states(error.value.path) == (True, ["failed", "pending"])


@pytest.mark.parametrize(
    "sources",
    [
        ["import asyncio, time\nasyncio.get_running_loop().call_soon(time.sleep, 60)"],
        ["k = get_ipython().kernel\nk._publish_status = lambda *_, **__: None", "2"],
    ],
    ids=["what the last cell left to be done", "outputs after its reply"],
)
def test_the_limit_also_covers_what_comes_after_a_cell(notebook, tmp_path, sources):
    began = time.monotonic()
    with pytest.raises(NotebookError, match="longer than the limit of 6 s") as error:
        execute(notebook(*sources), None, tmp_path / "run", timeout=6, progress=False)
    assert time.monotonic() - began < 50  # with the start of a kernel, on a busy machine
    assert error.value.status == "timeout"
    assert _states(error.value.path)[0] is True


def test_streams_are_joined_as_a_terminal_shows_them():
    parts = ["a\rb\n", "10%|\r", "20%|\r\n", "c\r\n\rd", "e\r"]
    outputs = [new_output("stream", name="stderr", text=text) for text in parts]
    outputs.insert(1, new_output("stream", name="stdout", text="out"))
    outputs.insert(3, new_output("display_data", {"text/plain": "figure"}))
    joined = joined_streams(outputs)
    # nbclient's rule, whose cost is the square of a line's length
    expected = re.sub(r".*\r(?=[^\n])", "", "".join(parts))
    assert [output.get("text") for output in joined] == ["out", expected, None]


@pytest.mark.parametrize("sign", ["x", "9", "ab\r", "1%", "\x1b[31mx\x1b[0m"], ids=repr)
def test_a_line_of_a_megabyte_is_joined_and_trimmed_in_linear_time(sign):
    text = sign * (2**20 // len(sign))
    outputs = [new_output("stream", text=text[at : at + 50]) for at in range(0, len(text), 50)]
    began = time.process_time()
    (joined,) = joined_streams(outputs)
    assert len(trim(joined.text)) < 21_000
    assert time.process_time() - began < 1  # minutes, with the square of its length
    assert joined.text == (text if "\r" not in sign else "ab\r")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_the_cell_end_and_leaves_nothing(notebook, tmp_path, number):
    pid_file, sockets = tmp_path / "pid", tmp_path / "sockets"
    path = notebook(
        "import ipykernel, json, os, pathlib, time\n"
        "ip = json.loads(pathlib.Path(ipykernel.get_connection_file()).read_text())['ip']\n"
        f"pathlib.Path({str(sockets)!r}).write_text(os.path.dirname(ip))\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('ended cleanly')",
        "2",
    )
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rbkit.report.engine import execute; execute(sys.argv[1], None, sys.argv[2], "
        "progress=False)"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "run")]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        parent.send_signal(number)
        _, said = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert b"KeyboardInterrupt" in said
    left = Path(f"/proc/{pid_file.read_text()}")
    assert not left.exists(), (left / "status").read_text()
    assert not Path(sockets.read_text()).exists()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["run.ipynb"]
    assert _states(tmp_path / "run" / "run.ipynb") == (True, ["failed", "pending"])
    assert "ended cleanly" in (tmp_path / "run" / "run.ipynb").read_text()


def test_a_kernel_that_its_manager_did_not_end_is_ended(notebook, tmp_path, monkeypatch):
    async def given_up(self, restart=False):  # as after its five seconds
        pass

    monkeypatch.setattr(IPCKernelManager, "_async_kill_kernel", given_up)
    pids = []
    execute(notebook("1"), None, tmp_path / "run", progress=False, on_kernel=pids.append)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_progress_names_the_cell_and_its_bar(notebook, tmp_path, capsys):
    bar = "import sys\nprint('train:  63%|######   | 63/100', file=sys.stderr)"
    path = notebook(f"# papermill_description=Training\n{bar}", "1")
    execute(path, None, tmp_path / "run", label="RnB")
    said = capsys.readouterr().err
    assert "RnB" in said
    assert "done" in said
    assert "starting a kernel" in said


def test_an_unknown_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    with pytest.raises(InputError, match=r"sed: the notebook declares no .* did you mean seed"):
        execute(notebook("1"), {"sed": 1}, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_values_of_another_type_are_refused_by_name_before_anything_runs(notebook, tmp_path):
    for value in (object(), float("nan"), "many", 1.5):
        with pytest.raises(InputError, match=r"^seed: .* is not allowed; give int"):
            execute(notebook("1"), {"seed": value}, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_what_a_killed_run_left_is_not_taken_for_this_ones(notebook, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tmp-run.ipynb").write_text('{"cells": [')
    monkeypatch.setattr(engine, "_papermill", lambda *_: [][0])
    with pytest.raises(IndexError):
        execute(notebook("1"), None, tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").iterdir())


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "x.ipynb").write_text("{")
    for name, why in (("x.ipynb", "not a notebook"), ("y.ipynb", "no such notebook")):
        with pytest.raises(InputError, match=why):
            execute(tmp_path / name, None, tmp_path / "run", progress=False)


def test_papermill_knows_the_engine_by_name(notebook, tmp_path):
    # As a fresh process, in which papermill loads its engines while it is imported itself.
    code = (
        "import sys, papermill; papermill.execute_notebook(sys.argv[1], sys.argv[2],"
        " engine_name='rbkit', progress_bar=False)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(notebook("import os; os._exit(137)")),
        str(tmp_path / "out.ipynb"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "DeadKernelError" in ran.stderr
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata.papermill.exception is True


def test_importing_the_engine_does_not_import_papermill():
    code = "import rbkit.report.engine, sys; assert 'papermill' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_notebook_that_leaves_half_way_has_not_ended_well(notebook, tmp_path):
    path = notebook("# papermill_description=Training\nimport sys\nsys.exit(0)", "2")
    with pytest.raises(NotebookError, match="cell 'Training': SystemExit") as error:
        execute(path, None, tmp_path / "run", progress=False)
    assert error.value.status == "failed"
    assert _states(error.value.path) == (True, ["failed", "pending"])
