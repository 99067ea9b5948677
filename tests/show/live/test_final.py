"""The static twin of the live view: all there is of a run, in whatever state it was left."""

import matplotlib
import numpy as np
import pytest

from rbkit.show import alt_text, final_figure, png
from rbkit.show.live.snapshot import numbers, snapshot
from rbkit.text import duration, percent
from rbkit.train import Run

ODD = ["costs $5, $\\frac{", "😀 emoji 日本語 ☃", "a very long name, " * 20, "<b>x</b>", "\x1b[31m"]


def text_of(figure):
    axes = [text.get_text() for ax in figure.axes for text in ax.texts]
    return " ".join([text.get_text() for text in figure.texts] + axes)


def test_a_finished_run_shows_everything(runs):
    figure = final_figure(runs[-1])
    matrix, layers, losses, _ = figure.axes[:4]
    assert matrix.images[0].get_clim()[0] == -matrix.images[0].get_clim()[1]
    assert len(layers.collections) == 14
    assert len(losses.lines) == 3
    said = text_of(figure)
    assert "finished at step 300 of 300" in said
    for label in ("eval loss", "worst domain", "effective domains", "noise floor", "views"):
        assert label in said
    assert "strongest conflict" in alt_text(figure)
    assert "finished at step 300 of 300" in alt_text(figure)


def test_the_scale_of_the_matrix_is_that_of_all_rounds(tmp_path, write_run):
    run = write_run(tmp_path / "run", names=list("abcd"), rounds=4)
    before = final_figure(run).axes[0].images[0].get_clim()
    run.history["gram"][-1] *= np.eye(4) + 1e-9  # the last round alone has no conflicts any more
    assert final_figure(run).axes[0].images[0].get_clim() == before


@pytest.mark.parametrize("status", ["failed", "killed", "interrupted"])
def test_a_run_that_did_not_end_well_says_so(tmp_path, write_run, status):
    error = "TrainingError: the loss became NaN" if status == "failed" else None
    run = write_run(tmp_path / "run", status=status, error=error, rounds=3, names=["a", "b"])
    figure = final_figure(run)
    assert f"{status.upper()} at step 26 of 75" in text_of(figure)
    assert f"{status.upper()} at step 26" in alt_text(figure)
    assert ("the loss became NaN" in alt_text(figure)) == (status == "failed")
    badge = next(text for text in figure.texts if status.upper() in text.get_text())
    assert badge.get_bbox_patch() is not None


def test_labels_of_curves_stand_at_the_edge(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="interrupted", names=["a", "b"])
    lines = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    evaluated = '{"kind": "eval", "step": 50, "loss_token": 5.0, "by_domain_token": [5.0, 6.0]}\n'
    (run.path / "metrics.jsonl").write_text("".join([*lines[:50], evaluated, *lines[50:]]))
    losses = final_figure(run).axes[2]
    assert {text.xy[0] for text in losses.texts} == {104.0}  # where the longest curve ends
    assert len(losses.texts) == 3


def test_a_run_without_matrices_says_that_it_has_none(runs):
    figure = final_figure(runs[0])
    assert "no Gram matrix recorded" in text_of(figure)
    assert "No Gram matrix recorded" in alt_text(figure)


def test_a_run_that_has_only_begun_is_drawn(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="killed")
    for name in ("metrics.jsonl", "history.npz"):
        (run.path / name).unlink()
    run = Run.open(run.path)
    run.info["ledger"] = run.info["domains"] = None
    said = text_of(final_figure(run))
    assert "KILLED at step 0 of 300" in said
    assert "no history recorded" in said
    assert "no loss recorded" in said


@pytest.mark.parametrize(
    "names", [ODD, ["a", "b"], [f"domain {i}" for i in range(1000)]], ids=["odd", "two", "thousand"]
)
def test_any_names_and_any_number_of_domains(tmp_path, write_run, names):
    before = dict(matplotlib.rcParams)
    figure = final_figure(write_run(tmp_path / "run", names=names, rounds=1))
    assert png(figure, 40)
    assert dict(matplotlib.rcParams) == before
    assert len(figure.axes[1].collections) == min(len(names), 24)
    top = figure.axes[1].collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(1)  # nothing is left out


def test_numbers_that_are_not_known_are_dashes(tmp_path, write_run):
    shown = {line.name: line for line in numbers(snapshot(write_run(tmp_path / "run")))}
    assert shown["tokens per second"].value == shown["views"].value == "–"
    assert shown["views"].note == ""
    assert shown["price of adapting"].value == "0.047 %"


def test_times_and_percentages_are_said_in_the_unit_that_fits():
    assert [duration(s) for s in (0, 59.6, 3599.7, 86_400)] == [
        "0 s",
        "1 min 00 s",
        "1 h 00 min",
        "24 h 00 min",
    ]
    assert [percent(p) for p in (0, 0.00123, 7.06, 140)] == ["0 %", "0.0012 %", "7.1 %", "140 %"]


def test_metrics_have_an_axis_and_rows_of_their_own(tmp_path, write_run):
    run = write_run(tmp_path / "run", rounds=3, names=["a", "b"], metrics={"f1": 0.5})
    figure = final_figure(run)
    axes = {ax.get_title("left"): ax for ax in figure.axes}
    assert len(axes["Loss (nats per token)"].lines) == 3
    assert axes["f1"].lines[0].get_ydata()[-1] == 0.5
    assert axes["f1"].get_xlim() == axes["Loss (nats per token)"].get_xlim()
    assert "f1 from 0.00 to 0.500" in alt_text(figure)
    assert ("f1", "0.500") in [(row.name, row.value) for row in numbers(snapshot(run))]
