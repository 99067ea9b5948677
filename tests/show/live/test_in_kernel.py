"""Training in a real kernel: its stop button ends the run well, and the cell has one output."""

from pathlib import Path

import pytest

from rbkit.train import Run

TESTS = Path(__file__).resolve().parents[2]
TRAIN = """
import sys
sys.path.insert(0, {tests!r})
from job import make
trainer = make({folder!r}, steps=100_000, live=True)
_ = trainer.train()
"""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel with its client; both end with the test."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.delenv("RBKIT_DISPLAY", raising=False)  # the mode is the default of a kernel
    manager, client = start_new_kernel(cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_the_stop_button_ends_with_a_checkpoint_and_the_figure(kernel, tmp_path):
    manager, client = kernel
    folder, seen, state = tmp_path / "run", [], {"interrupted": False}

    def hear(message):
        kind = message["msg_type"]
        if kind in ("display_data", "update_display_data"):
            seen.append((kind, message["content"]))
        rounds = (folder / "history.npz").exists()
        if rounds and not state["interrupted"]:
            state["interrupted"] = True
            manager.interrupt_kernel()

    cell = TRAIN.format(tests=str(TESTS / "train"), folder=str(folder))
    reply = client.execute_interactive(
        cell, output_hook=hear, timeout=240, stop_on_error=True, allow_stdin=False
    )
    assert state["interrupted"]
    assert reply["content"]["status"] == "ok"  # the cell ended normally

    run = Run.open(folder)
    assert run.status == "interrupted"
    assert (folder / "checkpoints" / f"checkpoint-{run.info['progress']['step']}").is_dir()

    # The library's own bars have no id; `rb.train` silences them.
    ours = [(kind, content) for kind, content in seen if "display_id" in content["transient"]]
    assert [kind for kind, _ in ours] == ["display_data"] + ["update_display_data"] * (
        len(ours) - 1
    )
    shown = [content for _, content in ours]
    assert len({content["transient"]["display_id"] for content in shown}) == 1
    assert all(set(c["data"]) == {"text/html", "text/plain"} for c in shown[:-1])
    assert set(shown[-1]["data"]) == {"image/png", "text/html", "text/plain"}
    assert "INTERRUPTED" in shown[-1]["data"]["text/plain"]
    assert "the ■ button" in shown[0]["data"]["text/html"]
    assert run.info["watch"]["seconds"] < 0.02 * run.info["seconds"] + 0.1
