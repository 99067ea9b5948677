"""The page in a real browser: no error, no request, and a slider that does something."""

import shutil

import pytest

from rbkit.report import write_report


@pytest.fixture(scope="module")
def address(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("browser")
    for mixer in ("Stratified", "Target", "RnB"):
        write_run(folder / mixer, mixer)
    write_run(folder / "bad", "Bad", status="failed", error="ValueError: <b>no</b>")
    write_run(folder / "two", "RnB", seed=1, rounds=2, parameters={"k": 7})
    yield write_report(folder, folder / "index.html", progress=False).as_uri()
    shutil.rmtree(folder)


@pytest.fixture
def visit(chromium, address):
    contexts, noise = [], []

    def to(width):
        context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("data:", "file:")) or noise.append(r.url))
        page.goto(address)
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
