import json
import os
import re
from datetime import UTC, datetime

import pytest
from bs4 import BeautifulSoup

from rbkit.report import write_report
from rbkit.report.html import assert_offline

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def report(folder, **options):
    """Text of the page of the runs in a folder."""
    return write_report(folder, folder / "index.html", progress=False, **options).read_text()


def record(run, **changes):
    """Change what a run has recorded."""
    (run.path / "run.json").write_text(json.dumps({**run.info, **changes}))


@pytest.fixture(scope="module")
def page(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("report")
    runs = [write_run(folder / "runs" / mixer, mixer) for mixer in ("Stratified", "Target", "RnB")]
    (runs[2].path / "run.html").write_text("report")
    return report(folder, title="A comparison")


@pytest.fixture(scope="module")
def soup(page):
    return BeautifulSoup(page, "html.parser")


def test_the_page_refers_to_nothing_outside_and_is_small(page):
    assert assert_offline(page) == []
    assert not re.search(r"https?://(?!www\.w3\.org/1998/Math)", page)
    assert len(page) < 3_000_000


def test_every_picture_is_described_from_its_data(soup):
    images = soup.find_all("img")
    assert len(images) >= 8
    for image in images:
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"]) > 40


def test_the_only_script_is_the_one_whose_hash_is_allowed(page, soup):
    import base64
    import hashlib

    code = [s for s in soup.find_all("script") if s.get("type") != "application/json"]
    assert len(code) == 1
    digest = base64.b64encode(hashlib.sha256(code[0].string.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_the_rule_is_there_as_mathml(soup):
    rule = soup.find("math", display="block")
    assert rule.find("mfrac")
    assert "softmax" in rule.get_text()


def test_runs_are_rows_sorted_by_loss_with_status_in_words(soup):
    rows = soup.select("#runs-table tbody tr")
    assert [row.th.get_text() for row in rows] == ["RnB", "Target", "Stratified"]
    assert [row.select_one(".status").get_text() for row in rows] == ["ok"] * 3


def test_links_are_relative_and_only_to_files_that_exist(soup):
    links = [a["href"] for a in soup.select("td.links a")]
    assert links == ["runs/RnB/run.html"]


def test_the_frames_are_the_recorded_ones(soup, write_run, tmp_path):
    frames = json.loads(soup.find(id="frames").string)
    m = len(frames["names"])
    assert len(frames["frames"]) == frames["rounds"] == 12
    assert all(len(f["g"]) == m * (m + 1) // 2 for f in frames["frames"])
    assert any(None in f["g"] for f in frames["frames"])  # a domain without examples
    assert sum(frames["frames"][-1]["next"]) == pytest.approx(1, abs=1e-3)


def test_text_of_a_stranger_is_never_markup(tmp_path, write_run):
    names = [f"{i} {HOSTILE} $x$ {{{{ 7*7 }}}}" for i in range(4)]
    runs = [
        write_run(tmp_path / "a", "RnB", names=names),
        write_run(
            tmp_path / "b",
            HOSTILE[:40].replace("/", ""),
            names=names,
            status="failed",
            error=HOSTILE,
        ),
    ]
    licences = [{"asset": HOSTILE, "url": HOSTILE}]
    corpus = {**runs[0].info["corpus"], "name": HOSTILE, "licences": licences}
    record(runs[0], corpus=corpus, versions={HOSTILE: HOSTILE})
    domains = runs[0].path / "domains" / "domains.json"
    saved = json.loads(domains.read_text())
    for card in saved["cards"]:
        card |= {"terms": [HOSTILE], "nearest": [HOSTILE], "sources": {HOSTILE: 1.0}}
    domains.write_text(json.dumps(saved))
    page = report(tmp_path, title=HOSTILE, intro=HOSTILE)
    soup = BeautifulSoup(page, "html.parser")
    assert assert_offline(page) == []
    assert len(soup.find_all("script")) == 2  # the frames and our own
    assert not [t for t in soup.find_all(True) if any(a.startswith("on") for a in t.attrs)]
    assert "49" not in soup.h1.get_text()
    assert HOSTILE in soup.select_one(".failures .error").get_text()
    assert json.loads(soup.find(id="frames").string)["names"][0].startswith(("0", "1", "2", "3"))


@pytest.mark.parametrize("status", ["failed", "killed", "interrupted", "running"])
def test_runs_that_did_not_end_well_are_shown_as_such(tmp_path, write_run, status, monkeypatch):
    monkeypatch.setattr("rbkit.report.page.page.drawings", lambda *_: {})  # not about figures
    run = write_run(tmp_path / "run", status=status, error=None if status == "killed" else "why")
    if status == "running":
        record(run, pid=os.getpid(), heartbeat=datetime.now(UTC).isoformat())
    soup = BeautifulSoup(report(tmp_path), "html.parser")
    assert soup.select_one(".status").get_text() == status
    assert bool(soup.select_one("#failures")) == (status != "running")
    assert bool(soup.select_one(".notice")) == (status == "running")


def test_a_page_without_a_finished_run_says_so(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr("rbkit.report.page.page.drawings", lambda *_: {})
    write_run(tmp_path / "run", status="failed", rounds=2)
    assert "No run has finished yet" in report(tmp_path)


def test_runs_without_history_domains_or_ledger_have_a_page(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    for name in ("history.npz", "metrics.jsonl"):
        (run.path / name).unlink()
    (run.path / "domains").rename(tmp_path / "elsewhere")
    absent = ("ledger", "versions", "corpus", "final", "domains")
    record(run, **dict.fromkeys(absent))
    page = report(run.path)
    assert assert_offline(page) == []


def test_no_half_written_page_is_left(tmp_path, write_run, monkeypatch):
    write_run(tmp_path / "run", rounds=2)
    monkeypatch.setattr("rbkit.report.page.page.findings", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report(tmp_path)
    assert not list(tmp_path.glob("*.html"))
