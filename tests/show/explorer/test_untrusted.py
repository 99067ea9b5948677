"""A corpus is data: markup, right-to-left marks, long texts and odd images stay harmless."""

import pytest

SET_DOMAINS = "state => { model.state.domains = state; model.emit('change:domains'); }"
ALL = ["domains", "selection", "crosstab", "log"]


def walk(page, tools):
    """Show everything that shows text of the corpus."""
    for toggle in page.locator("[data-test=card-toggle]").all()[:4]:
        toggle.click()
    page.locator("[data-test=examples-strangest]").first.click()
    tools.lasso(page, [(100, 60), (500, 60), (500, 450), (100, 450)])
    for tab in ALL:
        page.click(f"[data-test=tab-{tab}]")
        page.wait_for_timeout(120)
    x, y = page.evaluate("explorer.screen(3)")
    page.hover("[data-test=map]", position={"x": x, "y": y})
    page.click("[data-test=map]", position={"x": x, "y": y})
    page.select_option("[data-test=colour]", "source")
    page.wait_for_timeout(150)


def test_markup_in_names_and_texts_is_shown_and_never_run(open_explorer, tools):
    page = open_explorer(n_train=900, n_eval=90, hostile=True)
    walk(page, tools)
    assert page.evaluate("window.pwned") is None
    assert page.locator(".rbx script, .rbx img").count() == 0
    assert page.locator(".rbx b:has-text('tricks')").count() == 0
    assert "<b>tricks</b>" in page.text_content(".rbx-title")
    page.click("[data-test=tab-domains]")
    assert any("<script>" in t for t in page.locator("[data-test=card-name]").all_text_contents())


def test_long_names_are_clipped_with_the_whole_in_the_title(open_explorer):
    page = open_explorer(n_train=900, n_eval=90, hostile=True)
    name = page.locator("[data-test=card][data-domain='2'] [data-test=card-name]")
    assert name.bounding_box()["height"] < 24
    assert len(name.get_attribute("title")) > 200
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_right_to_left_marks_do_not_move_what_stands_beside_them(open_explorer):
    page = open_explorer(n_train=900, n_eval=90, hostile=True)
    rows = page.evaluate("""() => [...document.querySelectorAll("[data-test=card]")].map((card) =>
      [".rbx-name", ".rbx-size", ".rbx-share"].map((part) =>
        card.querySelector(part).getBoundingClientRect().left))""")
    assert all(a < b < c for a, b, c in rows)
    assert len({round(a) for a, _, _ in rows}) == 1
    bidi = page.evaluate("getComputedStyle(document.querySelector('.rbx-name')).unicodeBidi")
    assert bidi == "isolate"


def test_a_megabyte_is_clipped_until_it_is_asked_for(open_explorer, tools):
    page = open_explorer(n_train=900, n_eval=90)
    page.session.text = lambda row: "word " * 200_000
    tools.lasso(page, [(100, 60), (500, 60), (500, 450), (100, 450)])
    example = page.locator("[data-test=selection-list] [data-test=example]").first
    example.wait_for()
    assert example.bounding_box()["height"] < 160
    example.locator("[data-test=example-more]").click()
    assert example.bounding_box()["height"] > 300


SVG = "data:image/svg+xml,<svg onload='window.pwned=3'/>"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.png", "javascript:alert(1)", SVG])
def test_only_png_data_becomes_an_image(open_explorer, tools, address):
    page = open_explorer(n_train=900, n_eval=90, images=True)
    assert page.evaluate("explorer.store.images") is True
    for domain in page.session.state["domains"]:
        domain["thumbs"] = [address]
    page.evaluate(SET_DOMAINS, page.session.state["domains"])
    page.wait_for_timeout(60)
    page.locator("[data-test=card-toggle]").first.click()
    assert page.locator(".rbx-thumbs img").count() == 0


def test_thumbnails_are_shown_in_cards_and_on_hover(open_explorer):
    page = open_explorer(n_train=900, n_eval=90, images=True)
    page.locator("[data-test=card-toggle]").first.click()
    assert page.locator(".rbx-thumbs img").count() == 3
    x, y = page.evaluate("explorer.screen(3)")
    page.hover("[data-test=map]", position={"x": x, "y": y})
    page.wait_for_selector("[data-test=tooltip] img")


def test_a_colour_that_is_none_does_no_harm(open_explorer):
    page = open_explorer(n_train=300, n_eval=0)
    domains = page.session.state["domains"]
    domains[0]["colour"] = "red; background: url(http://127.0.0.1:9/x)"
    page.evaluate(
        "state => { model.state.domains = state; model.emit('change:domains'); }", domains
    )
    page.wait_for_timeout(100)
    swatch = page.locator("[data-test=card][data-domain='0'] .rbx-swatch").first
    assert swatch.evaluate("node => node.style.getPropertyValue('--colour')") == "#8c959f"


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_any_width_in_either_theme(open_explorer, dark):
    page = open_explorer(n_train=900, n_eval=90, dark=dark)
    for width in (1240, 900, 700, 420):
        page.set_viewport_size({"width": width, "height": 860})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        classes = page.evaluate("[...document.querySelector('.rbx').classList]")
        assert ("rbx-dark" in classes) is dark
        box = page.locator("[data-test=map]").bounding_box()
        assert box["width"] > 280
        assert box["height"] > 250


def test_text_has_contrast_in_either_theme(open_explorer):
    for dark in (False, True):
        page = open_explorer(n_train=300, n_eval=30, dark=dark)
        low = page.evaluate("""() => {
          const rgb = (c) => (c.match(/[\\d.]+/g) || []).map(Number).map((v, i) =>
            c.startsWith("color(") && i < 3 ? 255 * v : v);
          const lum = (c) => c.slice(0, 3).map((v) => v / 255).map((v) =>
            v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
          const paper = rgb(getComputedStyle(document.querySelector(".rbx")).backgroundColor);
          const over = (c) => c.slice(0, 3).map((v, i) =>
            paper[i] + (v - paper[i]) * (c[3] ?? 1));
          return [".rbx-name", ".rbx-size", ".rbx-terms", ".rbx-tab", ".rbx-status-text",
            ".rbx-link"].map((part) => {
              const ink = lum(over(rgb(getComputedStyle(document.querySelector(part)).color)));
              const [a, b] = [ink, lum(paper)].sort((x, y) => y - x);
              return [part, (a + 0.05) / (b + 0.05)];
            }).filter(([, ratio]) => ratio < 4.5);
        }""")
        assert low == []
