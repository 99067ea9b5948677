"""Reports of folders: what is written, what is left out, and that nothing is half there."""

import csv
import json
import shutil
import subprocess
import sys
from urllib.parse import unquote

import numpy as np
import pyarrow.parquet as pq
import pytest
from bs4 import BeautifulSoup

from rbkit.errors import InputError, RbkitWarning
from rbkit.report import html, write_report
from rbkit.report.collect import collect_runs
from rbkit.report.compare import compare, differences
from rbkit.report.html import assert_offline
from rbkit.report.page.pictures import drawings
from rbkit.show import alt_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("made")
    for seed in (0, 1):
        for mixer in ("Stratified", "RnB"):
            write_run(folder / "runs" / f"{mixer}-{seed}", mixer, seed, rounds=2)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without figures: drawing is most of the time, and tested elsewhere."""
    monkeypatch.setattr("rbkit.report.page.page.drawings", lambda *_: {})


@pytest.fixture(scope="module")
def written(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rbkit.report.page.page.drawings", lambda *_: {})
        return write_report(folder, folder / "index.html", intro="a < b", progress=False)


def test_runs_made_by_hand_have_a_page_with_all_numbers_beside_it(written):
    soup = BeautifulSoup(written.read_text(), "html.parser")
    assert assert_offline(written.read_text()) == []
    assert soup.select_one(".intro").get_text() == "a < b"
    addresses = [a["href"] for a in soup.select(".files a")]
    assert {a.rsplit(".")[-1] for a in addresses} == {"csv", "parquet"}
    assert all((written.parent / a).is_file() for a in addresses)
    assert pq.read_table(written.parent / "numbers" / "runs.parquet").num_rows == 4
    with (written.parent / "numbers" / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_paired_interval_against_the_baseline_is_the_first_thing_said(written):
    soup = BeautifulSoup(written.read_text(), "html.parser")
    assert "Stratified (95 % interval" in soup.select_one(".headline").get_text()
    cells = [cell.get_text(strip=True) for cell in soup.select("#variants-table tbody tr")[0]]
    assert "RnB" in cells


def test_another_baseline_may_be_chosen(folder, tmp_path, undrawn):
    page = write_report(folder, tmp_path / "i.html", baseline="mixer=rnb", progress=False)
    heads = [th.get_text() for th in BeautifulSoup(page.read_text(), "html.parser").select("th")]
    assert "vs RnB" in heads


def test_two_pages_in_one_folder_have_numbers_of_their_own(folder, tmp_path, undrawn):
    made = folder / "runs"
    one = write_report(made / "RnB-0", tmp_path / "a b.html", progress=False)
    two = write_report(made, tmp_path / "c.html", progress=False)
    for page, n in ((one, 1), (two, 4)):
        links = BeautifulSoup(page.read_text(), "html.parser").select(".files a")
        files = [page.parent / unquote(a["href"]) for a in links]
        assert all(file.is_file() for file in files)
        runs = next(file for file in files if file.name == "runs.parquet")
        assert pq.read_table(runs).num_rows == n


def test_an_error_leaves_nothing_behind(folder, tmp_path, monkeypatch, undrawn):
    with pytest.raises(InputError, match="is in none of the runs"):
        write_report(folder, tmp_path / "a" / "i.html", baseline="mixer=Nobody", progress=False)
    with pytest.raises(InputError, match="no run folder"):
        write_report(tmp_path, tmp_path / "a" / "i.html", progress=False)
    monkeypatch.setattr("rbkit.report.page.page.frames", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(folder, tmp_path / "b" / "i.html", progress=False)
    assert not list(tmp_path.glob("a/*"))
    assert not list(tmp_path.glob("b/*"))


def test_a_place_that_cannot_be_written_to_is_named(folder, tmp_path, undrawn):
    (tmp_path / "stick").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"stick.*cannot be written"):
        write_report(folder, tmp_path / "stick" / "index.html", progress=False)


DAMAGE = {
    "corpus": "text",
    "domains": {"names": "abc", "q": [1, "a"]},
    "versions": [1],
    "ledger": {"entries": [1, {"name": [2]}, {"name": "step", "seconds": "fast"}]},
    "final": {"loss_token": 4.0, "by_domain_token": [1, None, "x", [2], 2**80]},
    "parameters": {"mixer": {"a": 1}, "seed": [1, 2], "steps": "many", "k": None},
    "device": {"a": ["\ud800"]},
    "started": 5,
    "error": ["x"],
    "progress": "half",
}


def test_records_that_make_little_sense_cost_no_report(folder, tmp_path, undrawn):
    shutil.copytree(folder / "runs" / "RnB-0", tmp_path / "whole")
    for name, value in DAMAGE.items():
        run = shutil.copytree(folder / "runs" / "RnB-0", tmp_path / name)
        info = json.loads((run / "run.json").read_text()) | {name: value}
        (run / "run.json").write_text(json.dumps(info))
    run = shutil.copytree(folder / "runs" / "RnB-0", tmp_path / "history")
    np.savez(run / "history.npz", p=np.ones((3, 2)), gram=np.ones((3, 4, 4)), step=np.ones(3))
    with pytest.warns(RbkitWarning, match="do not fit each other"):
        page = write_report(tmp_path, tmp_path / "out" / "index.html", progress=False)
    rows = BeautifulSoup(page.read_text(), "html.parser").select("#runs-table tbody tr")
    assert len(rows) == len(DAMAGE) + 2


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "history.npz"])
def test_a_damaged_run_is_on_the_page_as_damaged(folder, tmp_path, undrawn, name):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "RnB-1" / name).write_text("{\n{")
    with pytest.warns(RbkitWarning, match="RnB-1"):
        page = write_report(tmp_path, tmp_path / "index.html", progress=False)
    soup = BeautifulSoup(page.read_text(), "html.parser")
    statuses = [row.select_one(".status").get_text() for row in soup.select("#runs-table tbody tr")]
    assert sorted(statuses) == ["damaged", "ok", "ok", "ok"]
    assert name in soup.select_one(".failures .error").get_text()


def test_runs_of_which_none_can_be_read_are_a_page_as_well(folder, tmp_path, undrawn):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    for path in tmp_path.glob("runs/*/run.json"):
        path.write_text("[]")
    with pytest.warns(RbkitWarning, match="damaged run"):
        page = write_report(tmp_path, tmp_path / "index.html", progress=False)
    soup = BeautifulSoup(page.read_text(), "html.parser")
    assert len(soup.select(".dot.damaged")) >= 4


def test_a_notebook_that_trains_nothing_has_a_row(tmp_path, undrawn):
    from rbkit.report.sweep.folder import new_job, write_job

    for i in range(2):
        run = tmp_path / "runs" / f"x-{i}"
        run.mkdir(parents=True)
        job = new_job(f"x-{i}", "t.ipynb", {"x": i}, {"x": i}, f"rbkit run -p x={i}")
        write_job(run, job | {"status": "ok" if i else "failed", "tail": ["E <b>bold</b>"]})
    page = write_report(tmp_path, tmp_path / "index.html", progress=False)
    soup = BeautifulSoup(page.read_text(), "html.parser")
    assert [row.select_one(".status").get_text() for row in soup.select("#runs-table tbody tr")]
    assert soup.select_one(".failures pre").get_text() == "E <b>bold</b>"


def test_the_demo_does_not_replace_other_runs(tmp_path, write_run):
    from rbkit.report.demo import demo

    run = write_run(tmp_path / "mine" / "runs" / "RnB", rounds=2)
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(InputError, match=r"RnB: holds another run, with .*; give --out, such as"):
        demo(tmp_path / "mine", progress=False)
    assert (run.path / "run.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["runs"]


# ------------------------------------------------------------------------------------- PDF


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_is_printed_where_there_is_a_browser(folder, tmp_path, undrawn):
    try:
        html.find_browser()
    except InputError:
        pytest.skip("no Chromium")
    write_report(folder, tmp_path / "index.html", pdf=True, progress=False)
    assert (tmp_path / "index.pdf").read_bytes().startswith(b"%PDF-")
    assert not list(tmp_path.glob(".tmp*"))


def test_without_a_browser_it_is_said_before_anything_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(html, "_PLACES", ())
    with pytest.raises(InputError, match=r"no Chromium or Chrome on PATH; install one"):
        write_report(folder, tmp_path / "index.html", pdf=True, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import time; time.sleep(60)", "took more than"),
        ("import sys; print('no display', file=sys.stderr)", "printed nothing: no display"),
    ],
)
def test_a_browser_that_hangs_or_fails_is_ended_and_told_of(tmp_path, source, said):
    browser = tmp_path / "browser"
    browser.write_text(f"#!{sys.executable}\n{source}\n")
    browser.chmod(0o755)
    (tmp_path / "page.html").write_text("")
    with pytest.raises(InputError, match=said):
        html.html_to_pdf(tmp_path / "page.html", browser=str(browser), timeout=1.5)
    assert not (tmp_path / "page.pdf").exists()


# ----------------------------------------------------------------------------- many runs


@pytest.mark.slow
def test_a_report_of_200_runs_takes_less_than_a_minute_and_10_mb(tmp_path):
    from pathlib import Path

    bench = Path(__file__).parents[2] / "bench" / "report.py"
    if not bench.exists():
        pytest.skip("no bench folder")
    out = tmp_path / "result.json"
    subprocess.run([sys.executable, bench, "--results", out], check=True, capture_output=True)
    found = json.loads(out.read_text())
    assert found["runs"] == 200
    assert found["cpu_seconds"] < 60  # the clock depends on what else the machine does
    assert found["page_mb"] < 10


@pytest.fixture(scope="module")
def scored(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("scored")
    for seed, score in enumerate((0.5, 0.6)):
        for mixer, gain in (("Stratified", 0.1), ("RnB", 0.0)):
            metrics = {"exact_match": score + gain, "error_rate": 0.3}
            write_run(folder / f"{mixer}{seed}", mixer, seed, rounds=2, metrics=metrics)
    return folder


def heads_and_first_row(soup, table):
    heads = [th.get_text(" ") for th in soup.select(f"#{table} thead th")]
    first = soup.select_one(f"#{table} tbody tr")
    row = [cell.get_text(strip=True) for cell in first.select("th,td")]
    return dict(zip(heads, row, strict=True))


def test_metrics_stand_beside_the_loss_in_tables_and_numbers(scored, tmp_path, undrawn):
    page = write_report(scored, tmp_path / "index.html", progress=False)
    soup = BeautifulSoup(page.read_text(), "html.parser")
    run = heads_and_first_row(soup, "runs-table")
    assert (run["run"], run["exact_match"], run["error_rate"]) == ("RnB", "0.500", "0.300")
    variant = heads_and_first_row(soup, "variants-table")
    assert variant["variant"] == "RnB"
    assert variant["exact_match, mean"] == "0.550"
    headline = soup.select_one(".headline").get_text()
    assert "exact_match disagrees (higher is better): Stratified" in headline
    tables = {
        path.stem: pq.read_table(path).to_pandas() for path in page.parent.glob("numbers/*.parquet")
    }
    assert sorted(tables["runs"]["metric_exact_match"]) == [0.5, 0.6, 0.6, 0.7]
    assert {"metric_exact_match", "metric_error_rate"} <= {*tables["metrics"]["metric"]}
    assert "metric_exact_match" in tables["by_domain"]
    gap = tables["comparisons"].set_index("metric").loc["metric_exact_match"]
    assert gap["mean"] == pytest.approx(-0.1)


def test_a_page_by_a_metric_ranks_by_it(scored, tmp_path, undrawn):
    page = write_report(scored, tmp_path / "index.html", metric="exact_match", progress=False)
    soup = BeautifulSoup(page.read_text(), "html.parser")
    assert heads_and_first_row(soup, "variants-table")["variant"] == "Stratified"
    run = heads_and_first_row(soup, "runs-table")
    assert (run["run"], run["exact_match"]) == ("Stratified", "0.700")
    assert soup.select_one(".headline").get_text().startswith("RnB ended at exact_match 0.550")
    assert "highest exact_match first" in soup.select_one("p.note").get_text()
    with pytest.raises(InputError, match="metric: no run recorded 'f1'; they have exact_match, e"):
        write_report(scored, tmp_path / "other.html", metric="f1", progress=False)


def test_the_figures_of_a_page_by_a_metric_are_of_the_metric(scored):
    comparison = compare(collect_runs(scored), metric="exact_match")
    drawn = drawings(comparison, differences(comparison), None, None)
    titles = {name: alt_text(drawn[name]()) for name in ("forest", "pareto", "gap", "by_domain")}
    assert all("exact_match" in title for title in titles.values())
    assert "above 0 is better" in titles["forest"]
    assert "exact_match by step" in alt_text(drawn["metric exact_match"]())
    assert "error_rate by step" in alt_text(drawn["metric error_rate"]())
    assert "Eval loss by step" in alt_text(drawn["eval"]())
