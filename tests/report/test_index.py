"""The page of a report: its text, and what it does in a real browser."""

import base64
import hashlib
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
def written(tmp_path_factory, write_run):
    """Page of three mixers, a run that failed, and one with another seed and another k."""
    folder = tmp_path_factory.mktemp("report")
    runs = [write_run(folder / "runs" / mixer, mixer) for mixer in ("Stratified", "Target", "RnB")]
    (runs[2].path / "run.html").write_text("report")
    error = "ValueError: <b>no</b>"
    write_run(folder / "runs" / "bad", "Bad", status="failed", error=error)
    write_run(folder / "runs" / "two", "RnB", seed=1, rounds=2, parameters={"k": 7})
    return write_report(folder, folder / "index.html", title="A comparison", progress=False)


@pytest.fixture(scope="module")
def page(written):
    return written.read_text()


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
    assert [row.th.get_text() for row in rows] == ["RnB", "Target", "Stratified", "RnB", "Bad"]
    assert [row.select_one(".status").get_text() for row in rows] == ["ok"] * 4 + ["failed"]


def test_links_are_relative_and_only_to_files_that_exist(soup):
    links = [a["href"] for a in soup.select("td.links a")]
    assert links == ["runs/RnB/run.html"]


def test_the_frames_are_the_recorded_ones(soup):
    frames = json.loads(soup.find(id="frames").string)
    m = len(frames["names"])
    assert len(frames["frames"]) == frames["rounds"] == 12
    assert all(len(f["g"]) == m * (m + 1) // 2 for f in frames["frames"])
    assert any(None in f["g"] for f in frames["frames"])  # a domain without examples
    assert sum(frames["frames"][-1]["next"]) == pytest.approx(1, abs=1e-3)


def test_text_of_a_stranger_is_never_markup(tmp_path, write_run):
    names = [f"{i} {HOSTILE} $x$ {{{{ 7*7 }}}}" for i in range(4)]
    runs = [
        write_run(tmp_path / "a", "RnB", names=names, rounds=2),
        write_run(
            tmp_path / "b",
            HOSTILE[:40].replace("/", ""),
            names=names,
            rounds=2,
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


# --------------------------------------------------------------------------- in a browser


@pytest.fixture
def visit(chromium, written):
    contexts, noise = [], []

    def to(width):
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("data:", "file:")) or noise.append(r.url))
        page.goto(written.as_uri())
        return page

    yield to
    for context in contexts:
        context.close()
    assert noise == []


@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_is_quiet_and_fits(visit, width):
    page = visit(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    broken = "Array.from(document.images).filter((i) => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(broken) == 0


def _pixels(page):
    return page.evaluate("document.getElementById('matrix').toDataURL()")


def test_the_slider_shows_another_round(visit):
    page = visit(1280)
    last = _pixels(page)
    assert page.text_content("#when") == "round 12 of 12, step 300"
    page.fill("#round", "0")
    assert page.text_content("#when") == "round 1 of 12, step 25"
    assert _pixels(page) != last


def test_the_colour_scale_stays_the_same_over_rounds(visit):
    page = visit(1280)
    scale = page.text_content("#high")
    page.fill("#round", "0")
    assert page.text_content("#high") == scale
    page.check("input[value=raw]")
    assert page.text_content("#high") != scale


def test_a_cell_says_its_pair_of_domains(visit):
    page = visit(1280)
    page.hover("#matrix", position={"x": 300, "y": 100})
    assert " / " in page.text_content("#pair")
    page.focus("#matrix")
    before = page.text_content("#pair")
    page.keyboard.press("ArrowRight")
    assert page.text_content("#pair") != before


def test_play_runs_through_the_rounds(visit):
    page = visit(1280)
    page.click("#play")
    rounds = {page.wait_for_timeout(200) or page.input_value("#round") for _ in range(12)}
    assert {"1", "2"} <= rounds
    page.click("#play")
    assert page.text_content("#play") == "▶ play"


NAMES = """Array.from(document.querySelectorAll("#runs-table tbody tr:not([hidden]) th"))
    .map((t) => t.textContent)"""


def test_the_table_sorts_with_unknown_values_last(visit):
    page = visit(1280)
    button = "#runs-table thead button >> text=eval loss"
    page.click(button)
    assert page.evaluate(NAMES)[-1] == "Bad"
    ascending = page.evaluate(NAMES)[:-1]
    page.press(button, "Enter")  # from the keyboard, too
    assert page.evaluate(NAMES) == [*ascending[::-1], "Bad"]
    assert page.get_attribute("#runs-table th:has-text('eval loss')", "aria-sort") == "descending"


def test_rows_are_found_by_words_and_by_the_values_of_what_varied(visit):
    page = visit(1280)
    count = ".filters[data-table=runs-table] output"
    assert page.text_content(count) == "5 runs"
    page.get_by_label("find").fill("rnb")
    assert set(page.evaluate(NAMES)) == {"RnB"}
    assert page.text_content(count) == "2 of 5 shown"
    page.get_by_label("k", exact=True).select_option("7")
    assert page.text_content(count) == "1 of 5 shown"
    page.click("text=clear")
    assert page.text_content(count) == "5 runs"
    page.get_by_label("status").select_option("failed")
    assert page.evaluate(NAMES) == ["Bad"]
