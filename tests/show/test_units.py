"""What losses are measured in is read from the run, in every view of it."""

import io
import json
import re

import pandas as pd
import pytest
from rich.console import Console

import rbkit as rb
from rbkit import show
from rbkit.report import write_report
from rbkit.report.compare import compare
from rbkit.report.compare.words import findings
from rbkit.show.facts import loss_unit
from rbkit.show.live.final import final_figure
from rbkit.show.live.frame import frame_svg
from rbkit.show.live.snapshot import numbers, snapshot
from rbkit.show.live.terminal import Room, draw
from rbkit.show.scrub.rounds import rounds_of, run_payload
from rbkit.train import Run

UNIT = "nats per example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run):
    """Runs of a model of images: losses per example, and no tokens."""
    folder = tmp_path_factory.mktemp("units")
    for mixer in ("Stratified", "Target", "RnB"):
        for seed in (0, 1):
            run = write_run(folder / f"{mixer}-{seed}", mixer, seed)
            (run.path / "run.json").write_text(json.dumps({**run.info, "loss_unit": UNIT}))
            rows = [
                json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()
            ]
            for row in rows:
                row.pop("tokens", None)
                if row["kind"] == "train":
                    row["examples"] = 16 * row["step"]
            (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    return [Run.open(path) for path in sorted(folder.glob("*-*"))]


def words_of(figure):
    """All text of a figure."""
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_every_figure_has_the_unit_of_the_runs(runs):
    comparison = compare(runs)
    gaps = [gap for gap in rb.report.compare.differences(comparison).values() if gap]
    axes = [
        show.loss_curves(runs),
        show.loss_curves(runs, "train"),
        show.loss_by_domain(runs),
        show.loss_bands(comparison.variants),
        show.loss_bands(comparison.variants, minus=comparison.baseline_of),
        show.pareto(comparison.variants),
        show.difference_forest(gaps, unit=loss_unit(runs)),
    ]
    for ax in axes[:-1]:
        text = words_of(ax.figure)
        assert UNIT in text, ax.get_title(loc="left")
        assert "token" not in text
    assert "Final eval loss per example" in axes[-1].get_title(loc="left")
    text = words_of(final_figure(runs[0]))
    assert f"Loss ({UNIT})" in text
    assert "token" not in text


def test_the_live_views_have_it_and_count_examples(runs):
    snap = snapshot(runs[-1])
    svg, said = frame_svg(snap), " ".join(f"{n.name} {n.value} {n.note}" for n in numbers(snap))
    console = Console(file=io.StringIO(), width=100)
    console.print(draw(snap, Room(100, 40, False)))
    terminal = console.file.getvalue()
    for text in (svg, said, terminal):
        assert UNIT in text
        assert "examples per second" in text
        assert "token" not in text


def test_the_page_its_sentences_and_its_numbers_have_it(folder, runs):
    page = write_report(folder, folder / "index.html", baseline="mixer=Target", progress=False)
    html = re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.S)
    assert f"{UNIT} on the eval set" in html
    assert f"losses in {UNIT}" in html
    assert "nats per token" not in html
    assert f"{UNIT} on the eval set" in findings(compare(runs))[0].text
    table = pd.read_csv(folder / "numbers" / "comparisons.csv")
    assert "difference in nats" in set(table["unit"])


def test_the_scrubber_gets_it(runs):
    rounds = rounds_of(runs[0])
    assert run_payload(rounds, "RnB", range(len(rounds.keys)))["unit"] == UNIT


def test_a_run_that_names_no_unit_is_one_of_tokens_and_a_strangers_unit_is_safe(
    tmp_path, write_run
):
    run = write_run(tmp_path / "run")
    assert run.loss_unit == "nats per token"
    assert loss_unit([run]) == "nats per token"
    hostile = run.with_(info={**run.info, "loss_unit": "<b>$\\frac{$\x1b[31m per token" * 9})
    assert re.fullmatch(r"[\w ./()-]{1,40}", hostile.loss_unit)
    assert run.with_(info={**run.info, "loss_unit": [1]}).loss_unit == "1"


def test_different_units_are_not_compared_in_silence(runs, tmp_path, write_run):
    other = write_run(tmp_path / "run", "Proportional")
    cautions = " ".join(found.text for found in compare([*runs, other]).cautions())
    assert "Losses are in" in cautions
    assert "nats per token" in cautions
    same = [
        run.with_(info={**run.info, "parameters": {**run.info["parameters"], "eval_batch_size": n}})
        for run, n in zip(runs, (8, 8, 16, 16, 8, 8), strict=True)
    ]
    assert "eval_batch_size varied" in " ".join(f.text for f in compare(same).cautions())
    assert "eval_batch_size" not in " ".join(f.text for f in compare(runs).cautions())


def test_a_loop_of_ones_own_names_its_unit(tmp_path):
    with rb.live(tmp_path, ["oak", "car"], steps=2, display=False, loss_unit=UNIT) as loop:
        for _ in loop:
            loop(1.0)
    assert Run.open(tmp_path).loss_unit == UNIT
