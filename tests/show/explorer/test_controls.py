"""Slider, methods, search, export, status: what is sent, and never too much of it."""

import pytest


def test_a_dragged_slider_cuts_live_and_makes_one_operation(open_explorer, tools):
    page = open_explorer()
    box = page.locator("[data-test=k]").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.27 * box["width"], y)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(box["x"] + (0.27 + 0.025 * step) * box["width"], y)
        page.wait_for_timeout(15)
    page.wait_for_timeout(150)
    k = int(page.input_value("[data-test=k]"))
    assert page.text_content("[data-test=tab-domains]") == f"Domains{k}"
    assert 1 <= len(tools.messages(page, "preview")) <= 20
    page.mouse.up()
    page.wait_for_timeout(100)
    assert tools.operations(page) == [{"op": "cut", "method": "ward", "k": k}]


def test_previews_do_not_queue_up_while_python_is_busy(open_explorer, tools):
    page = open_explorer(silent=True)
    page.focus("[data-test=k]")
    for k in range(14, 24):
        page.evaluate(f"explorer.store.cutLive({k})")
    assert [m["k"] for m in tools.messages(page, "preview")] == [14]
    page.evaluate("model.emit('msg:custom', { type: 'previewed', k: 14 }, [])")
    assert [m["k"] for m in tools.messages(page, "preview")] == [14, 23]


def test_keys_on_the_slider_make_one_operation_once_they_rest(open_explorer, tools):
    page = open_explorer()
    page.focus("[data-test=k]")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(700)
    assert tools.operations(page) == [{"op": "cut", "method": "ward", "k": 17}]
    assert page.get_attribute("[data-test=k]", "aria-valuetext") == "17 domains"


def test_the_advised_number_is_one_click_away(open_explorer, tools):
    page = open_explorer()
    page.click("[data-test=recommended]")
    assert tools.operations(page) == [{"op": "cut", "method": "ward", "k": 18}]
    page.wait_for_selector("[data-test=recommended]:has-text('as advised')")


def test_methods_bring_their_own_controls(open_explorer, tools):
    page = open_explorer()
    assert page.is_hidden("[data-test=min-cluster-size]")
    page.select_option("[data-test=method]", "hdbscan")
    page.wait_for_selector("[data-test=min-cluster-size]")
    assert page.is_hidden("[data-test=k]")
    page.fill("[data-test=min-cluster-size-number]", "40")
    page.keyboard.press("Enter")
    page.fill("[data-test=min-samples]", "3")
    page.keyboard.press("Enter")
    page.fill("[data-test=max-noise]", "5")
    page.keyboard.press("Enter")
    page.select_option("[data-test=noise]", "drop")
    page.wait_for_timeout(500)
    sent = tools.operations(page)
    assert {"op": "cut", "method": "hdbscan", "min_cluster_size": 25} in sent
    assert {"op": "cut", "method": "hdbscan", "min_cluster_size": 40} in sent
    assert [op["op"] for op in sent if op.get("min_samples") == 3] == ["cut"]
    assert {"op": "noise", "policy": "drop", "max_noise": 0.05} in sent


def test_search_selects_and_says_how_many(open_explorer, tools):
    page = open_explorer()
    page.fill("[data-test=search]", "poetry")
    page.wait_for_selector("[data-test=found]:has-text('found')")
    found = int(page.text_content("[data-test=found]").split()[0])
    assert found == page.evaluate("explorer.store.selection.length") > 0
    page.focus("[data-test=search]")
    page.keyboard.press("Escape")
    assert page.evaluate("explorer.store.selection.length") == 0
    assert [m["query"] for m in tools.messages(page, "search")] == ["poetry"]


def test_export_names_the_files_or_the_reason(open_explorer):
    page = open_explorer()
    page.click("[data-test=export-open]")
    page.fill("[data-test=export-folder]", "/etc")
    page.click("[data-test=export-run]")
    page.wait_for_selector("[data-test=export-result]:has-text('outside')")
    page.fill("[data-test=export-folder]", "my-domains")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-test=export-result]:has-text('weights.json')")
    page.wait_for_selector("[data-test=export-result]:has-text('rb.train(corpus, rb.Domains')")
    page.keyboard.press("Escape")
    assert page.is_hidden("[data-test=export-run]")
    assert page.evaluate("document.activeElement.dataset.test") == "export-open"


@pytest.mark.parametrize("mode", ["source", "distance"])
def test_colouring_changes_the_legend(open_explorer, tools, mode):
    page = open_explorer()
    page.select_option("[data-test=colour]", mode)
    page.wait_for_selector(".rbx-ramp" if mode == "distance" else "[data-test=legend-source]")
    assert tools.messages(page, "colour") == [{"type": "colour", "mode": mode}]
    if mode == "source":
        page.click("[data-test=legend-source] >> nth=1")
        ids = page.evaluate("[...explorer.store.selection].map((i) => explorer.store.sourceIds[i])")
        assert set(ids) == {1}


def test_progress_is_shown_and_can_be_cancelled(open_explorer, tools):
    page = open_explorer()
    page.click("[data-test=map-open]")
    page.click("[data-test=map-run]")
    page.wait_for_selector("[data-test=progress]")
    assert page.text_content("[data-test=status]") == "UMAP: epoch 120 of 200"
    assert page.get_attribute(".rbx", "aria-busy") == "true"
    page.click("[data-test=cancel]")
    page.wait_for_selector("[data-test=progress]", state="hidden")
    assert tools.messages(page, "cancel") == [{"type": "cancel"}]


def test_an_error_is_said_aloud_and_dismissed(open_explorer):
    page = open_explorer()
    page.evaluate("model.emit('msg:custom', { type: 'error', text: 'k: too many' }, [])")
    page.wait_for_selector("[role=alert]:has-text('k: too many')")
    page.click("[data-test=error-close]")
    assert page.is_hidden("[data-test=error]")


def test_keys_do_not_reach_the_notebook_but_its_own_do(open_explorer):
    page = open_explorer()
    page.evaluate("""() => {
      window.heard = [];
      document.addEventListener("keydown", (event) => heard.push(event.key));
    }""")
    for target in ("[data-test=card] >> nth=0", "[data-test=map]", "[data-test=search]"):
        page.focus(target)
        for key in ("d", "d", "a", "Enter", "Shift+Enter", "Control+z"):
            page.keyboard.press(key)
    assert set(page.evaluate("heard")) <= {"Shift", "Control"}
    page.keyboard.press("Control+s")
    assert "s" in page.evaluate("heard")


def test_leaving_takes_everything_away(open_explorer):
    page = open_explorer()
    before = page.evaluate("Object.values(model.handlers).reduce((n, set) => n + set.size, 0)")
    page.evaluate("leave()")
    after = page.evaluate("Object.values(model.handlers).reduce((n, set) => n + set.size, 0)")
    assert before > 10
    assert after == 0
    assert page.locator(".rbx").count() == 0
    page.evaluate("model.emit('change:labels')")


def test_two_views_share_the_selection_but_not_the_hover(open_explorer, tools):
    page = open_explorer(height=1700)
    page.evaluate("""() => {
      const host = document.body.appendChild(document.createElement("div"));
      module.default.render({ model, el: host });
    }""")
    page.wait_for_timeout(100)
    tools.lasso(page, [(150, 130), (380, 120), (430, 330), (250, 420), (140, 300)])
    page.wait_for_timeout(300)
    counts = page.locator("[data-test=selection-count]").all_text_contents()
    assert len(counts) == 2
    assert counts[0] == counts[1] != "0 examples selected"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))


def test_after_a_restart_of_the_kernel_it_is_no_longer_connected(open_explorer):
    page = open_explorer()
    assert page.is_hidden("[data-test=error]")
    page.evaluate("model.emit('comm_live_update')")
    page.wait_for_selector("[data-test=error]:has-text('No longer connected')")
    assert page.evaluate("document.querySelector('.rbx-bar').inert")


CLIPPED = """() => {
  const root = document.querySelector('.rbx'), paper = root.getBoundingClientRect(), wrong = [];
  for (const it of root.querySelectorAll('input, select, button')) {
    const box = it.getBoundingClientRect(), style = getComputedStyle(it);
    if (!box.width || style.visibility === 'hidden' || it.closest('.rbx-sr')) continue;
    for (let at = it.parentElement; at && at !== root; at = at.parentElement) {
      if (['auto', 'scroll'].includes(getComputedStyle(at).overflowX)) { box.scrolls = true; }
    }
    if (!box.scrolls && (box.right > paper.right + 1 || box.left < paper.left - 1)) {
      wrong.push(`${it.dataset.test || it.textContent}: ${box.left} to ${box.right}`);
    }
    const text = it.tagName === 'SELECT' || it.tagName === 'BUTTON';
    if (text && it.scrollWidth > it.clientWidth + 2 && it.tagName === 'BUTTON') {
      wrong.push(`${it.dataset.test || it.textContent} is cut`);
    }
  }
  return wrong;
}"""


@pytest.mark.parametrize("width", [320, 380])
@pytest.mark.parametrize("method", ["ward", "kmeans", "hdbscan"])
def test_no_input_is_clipped_on_a_narrow_page(open_explorer, width, method):
    page = open_explorer(width=width + 32)
    if method != "ward":
        page.select_option("[data-test=method]", method)
        page.wait_for_timeout(100)
    assert page.evaluate(CLIPPED) == []
    for opener in page.locator(".rbx-anchor > button").all():
        opener.click()
        assert page.evaluate(CLIPPED) == []
        page.keyboard.press("Escape")
