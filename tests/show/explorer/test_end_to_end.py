"""The story of the explorer: two lines of code, then the hand alone, then training.

Somebody who has never seen the corpus looks at the map, cuts it finer with the slider, takes a
lasso, merges, renames, changes their mind, exports, and trains two rounds on the result.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

import rbkit as rb

TOPICS = {
    "forest": "oak elm pine birch leaf root bark moss fern trunk",
    "engine": "piston valve gear clutch torque fuel brake axle turbo crank",
    "kitchen": "flour butter sugar oven dough yeast salt whisk cream pan",
    "ocean": "whale coral tide wave shark reef salt harbour sail anchor",
}

pytestmark = pytest.mark.slow


def write_corpus(path, n=600):
    rng = np.random.default_rng(0)
    topics = rng.choice(list(TOPICS), size=n)
    with path.open("w") as file:
        for topic in topics:
            words = rng.choice(TOPICS[topic].split(), size=rng.integers(6, 30))
            file.write(json.dumps({"text": " ".join(words), "source": str(topic)}) + "\n")


CELLS = [
    "import rbkit as rb; corpus = rb.load_corpus('texts.jsonl')",
    "explorer = rb.explore(corpus, embedder='tfidf'); explorer",
]


def drag_around(page, tools, rows):
    """Draw a loop around the points of some examples."""
    screen = np.array(
        page.evaluate(
            "rows => { const root = document.querySelector('[data-test=explorer]');"
            " return rows.map((row) => root.explorer.screen(row)); }",
            rows,
        )
    )
    (left, top), (right, bottom) = screen.min(axis=0) - 6, screen.max(axis=0) + 6
    tools.lasso(page, [(left, top), (right, top), (right, bottom), (left, bottom)], pause=30)


def cards(page):
    return page.locator("[data-test=card-name]").all_text_contents()


def test_from_an_unknown_corpus_to_a_trained_model_by_hand(lab, tools, write_notebook, tmp_path):
    write_corpus(tmp_path / "texts.jsonl")
    page = lab(write_notebook(tmp_path / "explore.ipynb", *CELLS))
    page.run_all()
    page.explorer()
    # The map and then the advice on k come from the background: the kernel stays free.
    page.wait_for_selector("[data-test=recommended]:visible", timeout=90_000)

    # The slider cuts the hierarchy while it moves; release makes it an operation.
    page.focus("[data-test=k]")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-test=tab-domains]:has-text('4')")
    page.wait_for_function("document.querySelectorAll('[data-test=card]').length === 4")

    # A lasso, and its examples go to a domain of their own.
    page.click("[data-test=tab-selection]")
    drag_around(page, tools, [0, 1])
    page.wait_for_selector("[data-test=selection-list] [data-test=example]")
    page.select_option("[data-test=move-target]", index=0)
    page.fill("[data-test=move-name]", "picked by hand")
    page.click("[data-test=move]")
    page.click("[data-test=tab-domains]")
    page.wait_for_selector("[data-test=card-name]:has-text('picked by hand')")
    assert len(cards(page)) == 5

    # Merge two, rename the result, and take a third step back.
    page.locator("[data-test=card-name]").nth(0).click()
    page.locator("[data-test=card-name]").nth(1).click(modifiers=["Control"])
    page.fill("[data-test=merge-name]", "two in one")
    page.click("[data-test=merge]")
    page.wait_for_selector("[data-test=card-name]:has-text('two in one')")
    assert len(cards(page)) == 4
    last = page.locator("[data-test=card]:not(:has-text('two in one'))").first
    last.focus()
    page.keyboard.press("F2")
    page.keyboard.press("Control+a")
    page.keyboard.type("named by hand")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-test=card-name]:has-text('named by hand')")
    page.click("[data-test=undo]")
    page.wait_for_selector("[data-test=card-name]:has-text('named by hand')", state="detached")
    page.click("[data-test=redo]")
    page.wait_for_selector("[data-test=card-name]:has-text('named by hand')")

    # One click hands the result over.
    page.click("[data-test=export-open]")
    page.fill("[data-test=export-folder]", "mine")
    page.click("[data-test=export-run]")
    page.wait_for_selector("[data-test=export-result]:has-text('domains.json')")
    page.screenshot(path=tmp_path / "explorer.png")
    assert page.noise == []

    # Another process takes it from there: the same corpus, two rounds of training.
    domains = rb.Domains.load(tmp_path / "mine")
    assert sorted(set(domains.names) & {"two in one", "named by hand"}) == [
        "named by hand",
        "two in one",
    ]
    corpus = rb.load_corpus(tmp_path / "texts.jsonl", progress=False)
    run = rb.train(
        corpus,
        domains,
        run_dir=tmp_path / "run",
        mixer="RnB",
        steps=4,
        round_steps=2,
        context=32,
        vocab_size=300,
        progress=False,
    )
    assert run.status == "ok"
    assert len(run.history["gram"]) == 2

    # And papermill repeats the hand's work from its log.
    again = rb.regroup(corpus, edits=tmp_path / "mine" / "edits.json", progress=False)
    assert np.array_equal(again.train_labels, domains.train_labels)
    assert again.names == domains.names
    weights = json.loads((tmp_path / "mine" / "weights.json").read_text())
    assert weights["names"] == domains.names
    kept = Dataset.from_parquet(str(tmp_path / "mine" / "train.parquet"), cache_dir=str(tmp_path))
    assert set(kept["domain"]) == set(domains.names)
    assert isinstance(corpus, DatasetDict)
