"""Cards, selection, crosstab and log: what they say, what they send, and how keys walk them."""

import numpy as np
import pytest


def card(page, domain):
    return page.locator(f"[data-test=card][data-domain='{domain}']")


def names(page):
    return page.locator("[data-test=card-name]").all_text_contents()


def selected(page):
    return page.evaluate("[...explorer.store.selection]")


def focused(page):
    """data-test of what has the focus."""
    return page.evaluate("document.activeElement.dataset.test")


def test_cards_stand_by_size_and_can_be_put_in_another_order(open_explorer):
    page = open_explorer()
    sizes = [d["size"] for d in page.session.state["domains"]]
    shown = [int(t.replace(",", "")) for t in page.locator(".rbx-size").all_text_contents()]
    assert shown == sorted(sizes, reverse=True)
    page.select_option("[data-test=sort]", "name")
    assert names(page) == sorted(names(page))


@pytest.mark.parametrize("how", ["double click", "F2", "button"])
def test_renaming_in_place(open_explorer, tools, how):
    page = open_explorer()
    target = card(page, 3)
    if how == "double click":
        target.locator("[data-test=card-name]").dblclick()
    elif how == "F2":
        target.focus()
        page.keyboard.press("F2")
    else:
        target.locator("[data-test=card-toggle]").click()
        target.locator("[data-test=rename]").click()
    page.keyboard.type("legal matters")
    page.keyboard.press("Enter")
    assert tools.operations(page) == [{"op": "rename", "domain": 3, "name": "legal matters"}]
    assert target.locator("[data-test=card-name]").text_content() == "legal matters"
    assert focused(page) == "card"


def test_a_rename_that_is_given_up_sends_nothing(open_explorer, tools):
    page = open_explorer()
    card(page, 3).focus()
    page.keyboard.press("F2")
    page.keyboard.type("nonsense")
    page.keyboard.press("Escape")
    assert tools.operations(page) == []
    assert "nonsense" not in names(page)


def test_an_update_from_python_does_not_disturb_a_rename(open_explorer):
    page = open_explorer()
    card(page, 3).focus()
    page.keyboard.press("F2")
    page.keyboard.type("half a na")
    page.evaluate("model.emit('change:domains')")
    page.wait_for_timeout(60)
    assert page.input_value("[data-test=rename-input]") == "half a na"


def test_merging_chosen_domains(open_explorer, tools):
    page = open_explorer()
    card(page, 2).locator(".rbx-terms").click()
    card(page, 5).locator(".rbx-terms").click(modifiers=["Control"])
    assert page.evaluate("model.get('selected_domains').sort()") == [2, 5]
    page.fill("[data-test=merge-name]", "both")
    page.click("[data-test=merge]")
    (op,) = tools.operations(page)
    assert (op["op"], sorted(op["domains"]), op["name"]) == ("merge", [2, 5], "both")
    page.wait_for_selector("[data-test=card-name]:has-text('both')")
    assert len(names(page)) == 11
    assert focused(page) == "card"  # a card that went away left its focus to another


def test_splitting_dropping_undo_and_redo(open_explorer, tools):
    page = open_explorer()
    target = card(page, 4)
    target.locator("[data-test=card-toggle]").click()
    target.locator("[data-test=split-parts]").fill("3")
    target.locator("[data-test=split-run]").click()
    page.wait_for_function("document.querySelectorAll('[data-test=card]').length === 14")
    target.focus()
    page.keyboard.press("Delete")
    page.wait_for_function("document.querySelectorAll('[data-test=card]').length === 13")
    assert focused(page) == "card"
    assert tools.operations(page) == [
        {"op": "split", "domain": 4, "parts": 3},
        {"op": "drop", "domain": 4},
    ]
    page.keyboard.press("Control+z")
    page.wait_for_function("document.querySelectorAll('[data-test=card]').length === 14")
    page.click("[data-test=undo]")
    page.wait_for_function("document.querySelectorAll('[data-test=card]').length === 12")
    page.keyboard.press("Control+Shift+Z")
    page.wait_for_function("document.querySelectorAll('[data-test=card]').length === 14")
    page.click("[data-test=tab-log]")
    lines = page.locator("[data-test=log] li").all_text_contents()
    assert lines[0].endswith("undone")
    assert lines[1].startswith("split")


def test_the_whole_flow_without_a_pointer(open_explorer, tools):
    page = open_explorer()
    page.focus("[data-test=tab-domains]")
    page.keyboard.press("Tab")  # the order of the list
    page.keyboard.press("Tab")
    assert focused(page) == "card"
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    chosen = page.evaluate("model.get('selected_domains')")
    assert len(chosen) == 2
    page.keyboard.press("Enter")
    labels = np.array(page.evaluate("[...explorer.store.labels]"))
    assert selected(page) == np.flatnonzero(np.isin(labels, chosen)).tolist()
    page.keyboard.press("ArrowRight")  # opens the details
    page.keyboard.press("Tab")
    assert focused(page) == "rename"
    page.keyboard.press("Escape")
    assert focused(page) == "card"
    page.focus("[data-test=merge-name]")
    page.keyboard.type("joined")
    page.keyboard.press("Enter")
    assert tools.operations(page)[-1]["name"] == "joined"
    page.focus("[data-test=tab-domains]")
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-selection"
    assert page.is_visible("[data-test=panel-selection]")


def test_every_control_can_be_reached_by_tab_and_has_a_name(open_explorer):
    page = open_explorer()
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(focused(page))
    wanted = {
        "method",
        "k",
        "k-number",
        "undo",
        "redo",
        "search",
        "map-open",
        "export-open",
        "colour",
        "split",
        "map",
        "tool-lasso",
        "zoom-in",
        "tab-domains",
        "sort",
        "card",
    }
    assert wanted <= seen
    nameless = page.evaluate("""() => [...document.querySelectorAll(
      ".rbx button, .rbx input, .rbx select, .rbx [tabindex]")].filter((node) => !(
      node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length ||
      node.getAttribute("aria-labelledby"))).map((node) => node.outerHTML)""")
    assert nameless == []


def test_examples_of_a_card(open_explorer, tools):
    page = open_explorer()
    target = card(page, 6)
    target.locator("[data-test=card-toggle]").click()
    assert target.locator("[data-test=example]").count() == 3
    target.locator("[data-test=examples-strangest]").click()
    page.wait_for_function("document.querySelectorAll('[data-test=example]').length === 5")
    (asked,) = tools.messages(page, "more")
    assert (asked["domain"], asked["kind"]) == (6, "strangest")


def test_a_selection_is_read_and_moved_to_a_new_domain(open_explorer, tools):
    page = open_explorer()
    tools.lasso(page, [(150, 130), (380, 120), (430, 330), (250, 420), (140, 300)])
    page.wait_for_selector("[data-test=selection-list] [data-test=example]")
    assert page.is_visible("[data-test=panel-selection]")
    rows = selected(page)
    assert page.text_content("[data-test=selection-count]") == f"{len(rows)} examples selected"
    shown = [
        int(e.get_attribute("data-row"))
        for e in page.locator("[data-test=selection-list] [data-test=example]").all()
    ]
    assert len(shown) == 12
    assert len([m for m in tools.messages(page, "read") if len(m["rows"]) > 1]) == 1
    assert set(shown) <= set(rows)
    page.click("[data-test=selection-more]")
    page.wait_for_function("document.querySelectorAll('[data-test=example]').length === 24")
    page.fill("[data-test=move-name]", "my find")
    page.click("[data-test=move]")
    assert tools.operations(page) == [{"op": "move", "to": None, "name": "my find"}]
    page.wait_for_selector("[data-test=selection-domains] >> text=my find")
    page.click("[data-test=tab-domains]")
    mine = page.locator("[data-test=card]", has_text="my find")
    assert "100 % of this domain" in mine.locator("[data-test=card-selected]").text_content()


def test_the_crosstab_counts_and_its_cells_select(open_explorer):
    page = open_explorer()
    page.click("[data-test=tab-crosstab]")
    page.click("[data-test=basis-count]")
    session = page.session
    labels = session.labels[: session.n_train]
    sources = session.source_ids[: session.n_train]
    wanted = int(((labels == 5) & (sources == 2)).sum())
    cell = page.locator("[data-test=cell][data-source='2'][data-domain='5']")
    assert wanted > 0
    assert cell.text_content() == str(wanted)
    cell.click()
    assert selected(page) == np.flatnonzero((labels == 5) & (sources == 2)).tolist()
    assert focused(page) == "cell"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert selected(page) == np.flatnonzero((labels == 5) & (sources == 3)).tolist()
    page.check("[data-test=crosstab-selection]")
    filled = [t for t in page.locator("[data-test=cell]").all_text_contents() if t]
    assert filled == [str(len(selected(page)))]
