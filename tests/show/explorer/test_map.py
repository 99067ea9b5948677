"""The map selects what lies in a loop, shows what is under the pointer, and is fast."""

import itertools

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

LOOP = [(150, 130), (380, 120), (430, 330), (250, 420), (140, 300)]


def places(page):
    """Pixels of all rows on the map's canvas, (n, 2)."""
    return np.array(
        page.evaluate("Array.from({ length: explorer.store.n }, (_, i) => explorer.screen(i))")
    )


def selected(page):
    return page.evaluate("[...explorer.store.selection]")


def within(page, loop):
    """Rows inside a loop, and those whose side of its line a pixel could change."""
    at = places(page)
    inside = Polygon([*loop, loop[0]]).contains_points(at)
    ends = np.array([*loop, loop[0]], float)
    steps = np.concatenate([np.linspace(a, b, 400) for a, b in itertools.pairwise(ends)])
    near = np.array([np.min(np.abs(steps - point).sum(1)) < 4 for point in at])
    return inside, near


@pytest.mark.parametrize("scale", [1, 2])
def test_a_loop_selects_the_rows_inside_it_and_no_other(open_explorer, tools, scale):
    page = open_explorer(scale=scale)
    tools.lasso(page, LOOP)
    inside, near = within(page, LOOP)
    got = np.isin(np.arange(len(inside)), selected(page))
    assert got.sum() > 100
    assert (got == inside)[~near].all()
    assert page.session.selection.tolist() == selected(page)  # Python has the same rows


def test_shift_adds_alt_takes_away_and_escape_clears(open_explorer, tools):
    page = open_explorer()
    tools.lasso(page, LOOP)
    first = set(selected(page))
    other = [(400, 300), (600, 300), (600, 500), (400, 500)]
    tools.lasso(page, other, modifier="Shift")
    both = set(selected(page))
    assert first < both
    tools.lasso(page, other, modifier="Alt")
    assert set(selected(page)) < both
    assert not set(selected(page)) - first
    page.keyboard.press("Escape")
    assert selected(page) == []


def test_a_loop_that_crosses_itself_selects_all_that_it_fills(open_explorer, tools):
    page = open_explorer()
    square = [(200, 200), (400, 200), (400, 400), (200, 400)]
    tools.lasso(page, square)
    once = selected(page)
    tools.lasso(page, square * 2)
    assert selected(page) == once


def test_only_what_is_shown_can_be_selected(open_explorer, tools):
    page = open_explorer(n_train=1500, n_eval=500)
    page.select_option("[data-test=split]", "eval")
    tools.lasso(page, [(5, 5), (640, 5), (640, 580), (5, 580)])
    assert len(selected(page)) > 300
    assert min(selected(page)) >= 1500


def test_hovering_reads_the_nearest_example_and_a_click_pins_it(open_explorer):
    page = open_explorer()
    x, y = page.evaluate("explorer.screen(11)")
    page.hover("[data-test=map]", position={"x": x, "y": y})
    page.wait_for_selector("[data-test=tooltip]:has-text('says a sentence')")
    page.click("[data-test=map]", position={"x": x, "y": y})
    page.wait_for_selector("[data-test=pinned]:has-text('says a sentence')")
    page.click("[data-test=pinned-close]")
    assert page.is_hidden("[data-test=pinned]")


def test_the_pointer_over_many_points_asks_one_question_at_a_time(open_explorer, tools):
    page = open_explorer(silent=True)
    box = page.locator("[data-test=map]").bounding_box()
    for step in range(40):
        page.mouse.move(box["x"] + 200 + 5 * step, box["y"] + 300)
    assert len(tools.messages(page, "read")) == 1


def test_wheel_zooms_only_once_the_map_has_the_focus(open_explorer):
    page = open_explorer()
    page.hover("[data-test=map]", position={"x": 300, "y": 300})
    before = places(page)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(50)
    assert np.allclose(places(page), before)
    page.focus("[data-test=map]")
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(50)
    assert np.ptp(places(page)) > 1.3 * np.ptp(before)
    page.keyboard.press("0")
    assert np.allclose(places(page), before)


def test_space_and_drag_moves_the_map_and_selects_nothing(open_explorer):
    page = open_explorer()
    page.focus("[data-test=map]")
    page.keyboard.press("+")
    page.keyboard.press("+")
    before = places(page)
    box = page.locator("[data-test=map]").bounding_box()
    page.keyboard.down(" ")
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 340, box["y"] + 280, steps=5)
    page.mouse.up()
    page.keyboard.up(" ")
    assert np.allclose(places(page) - before, [40, -20], atol=1)
    assert selected(page) == []


def test_without_a_pointer_the_view_is_what_is_selected(open_explorer):
    page = open_explorer()
    page.focus("[data-test=map]")
    for key in ("+", "+", "+", "+", "ArrowRight", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    at = places(page)
    box = page.locator("[data-test=map]").bounding_box()
    size = np.array([box["width"], box["height"]])
    seen = ((at > 1) & (at < size - 1)).all(1)
    assert 10 < seen.sum() < len(at)
    assert set(np.flatnonzero(seen)) <= set(selected(page))
    assert abs(len(selected(page)) - seen.sum()) < 12


def test_a_finger_draws_a_loop_as_a_mouse_does(open_explorer):
    page = open_explorer()
    page.evaluate("""() => {
      const map = document.querySelector("[data-test=map]"), box = map.getBoundingClientRect();
      map.setPointerCapture = () => {};
      const send = (type, x, y) => map.dispatchEvent(new PointerEvent(type, { pointerId: 7,
        pointerType: "touch", clientX: box.left + x, clientY: box.top + y, button: 0,
        buttons: 1, bubbles: true }));
      send("pointerdown", 200, 200);
      for (const [x, y] of [[300, 200], [400, 200], [400, 300], [400, 400], [200, 400], [200, 300]])
        send("pointermove", x, y);
      send("pointerup", 200, 210);
    }""")
    assert len(selected(page)) > 50


def ink(page, x, y):
    """Colours around a place of the point layer."""
    return page.evaluate(
        """([x, y]) => {
          const copy = document.createElement("canvas"), pen = copy.getContext("2d");
          const ratio = window.devicePixelRatio;
          pen.drawImage(document.querySelector(".rbx-points"), -x * ratio, -y * ratio);
          return [...pen.getImageData(0, 0, 1, 1).data];
        }""",
        [x, y],
    )


def test_hovering_a_card_dims_all_other_points(open_explorer):
    page = open_explorer(n_train=600, n_eval=0)
    rows = page.evaluate("[...explorer.store.labels]")
    card = page.locator("[data-test=card]").first
    mine = int(card.get_attribute("data-domain"))
    inside, outside = rows.index(mine), next(i for i, r in enumerate(rows) if r != mine)
    card.hover()
    page.wait_for_timeout(100)
    colour = page.evaluate(f"explorer.store.byId.get({mine}).colour")
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    assert np.allclose(ink(page, *page.evaluate(f"explorer.screen({inside})"))[:3], rgb, atol=12)
    assert min(ink(page, *page.evaluate(f"explorer.screen({outside})"))[:3]) > 130


def test_map_cards_and_crosstab_point_at_each_other(open_explorer):
    page = open_explorer()
    x, y = page.evaluate("explorer.screen(11)")
    domain = page.evaluate("explorer.store.labels[11]")
    page.hover("[data-test=map]", position={"x": x, "y": y})
    page.wait_for_selector(f"[data-test=card][data-domain='{domain}'].rbx-hovered")
    page.click("[data-test=tab-crosstab]")
    page.hover("[data-test=map]", position={"x": x, "y": y})
    page.wait_for_selector("[data-test=crosstab] th.rbx-under")
    page.hover(f"[data-test=cell][data-domain='{domain}'] >> nth=0")
    assert page.evaluate("explorer.store.hover") == {"domain": domain, "source": 0}


def test_nothing_to_show_is_no_error(open_explorer, fake_session, tools):
    session = fake_session(n_train=10, n_eval=0, k=2)
    for name in ("xy", "labels", "source_ids"):
        session.state[name] = session.state[name][:0]
    session.state |= {"n_train": 0, "domains": [], "sources": []}
    session.state |= {name: {} for name in ("controls", "history", "colour", "status")}
    page = open_explorer(session=session)
    for tab in ("selection", "crosstab", "log", "domains"):
        page.click(f"[data-test=tab-{tab}]")
    tools.lasso(page, LOOP)
    assert page.text_content("[data-test=status]") == "0 examples in 0 domains"


def test_moving_the_slider_repaints_the_map(open_explorer):
    page = open_explorer()
    picture = "document.querySelector('.rbx-points').toDataURL()"
    before = page.evaluate(picture)
    page.fill("[data-test=k]", "25")
    page.wait_for_selector("[data-test=tab-domains]:has-text('25')")
    page.wait_for_timeout(100)
    assert page.evaluate(picture) != before


@pytest.mark.slow
def test_200_000_points_are_painted_and_lassoed_without_a_wait(open_explorer, tools, capsys):
    page = open_explorer(n_train=198_000, n_eval=2_000, k=30)
    page.evaluate("""() => document.querySelector("[data-test=map]").addEventListener(
      "pointerup", () => { window.up = performance.now(); }, true)""")
    waits, paints = [], []
    for shift in (0, 20, 40):
        tools.lasso(page, [(x + shift, y) for x, y in LOOP])
        page.wait_for_timeout(400)
        waits.append(page.evaluate("model.saved.at(-1).at - window.up"))
        paints.append(page.evaluate("explorer.cost.paint"))
    with capsys.disabled():
        print(
            f"\n200,000 points: lasso {np.median(waits):.0f} ms, paint {np.median(paints):.0f} ms"
        )
    assert min(waits) < 1500
    assert min(paints) < 1000
