"""A frame is an image that every notebook shows, whatever the domains are called."""

import base64
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from rbkit.show.live.frame import alt, frame_html, frame_svg
from rbkit.show.live.snapshot import Scale, snapshot
from rbkit.train import Run

SVG = "{http://www.w3.org/2000/svg}"
NASTY = ["<script>alert(1)</script>", 'a" onload="x', "]]>&amp;\x00\x1b[31m", "\ud800 half", ""]


@pytest.fixture(scope="module")
def snap(write_run, tmp_path_factory):
    return snapshot(write_run(tmp_path_factory.mktemp("frame") / "run"))


def texts(svg):
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_it_says_what_there_is_to_see(snap):
    said = " ".join(texts(frame_svg(snap)))
    for words in (
        "RnB",
        "step 300 of 300",
        "cosines, scale ±",
        "Proportions",
        "eval",
        "train",
        "worst",
        "effective domains",
        "noise",
        "price of adapting p",
        "this view",
        "09 import, class, kwargs",
    ):
        assert words in said


def test_the_output_is_one_image_with_its_words_and_no_markup_that_is_stripped(snap):
    html = frame_html(snap, hint="<stop>")
    assert re.findall(r"<(\w+)", html) == ["style", "img", "div"]  # without the style: paper
    assert "&lt;stop&gt;" in html
    image = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)[1]
    ElementTree.fromstring(base64.b64decode(image))
    assert 'alt="RnB, ok, step 300 of 300; training loss' in html


def test_names_of_a_corpus_are_text_and_nothing_else(snap):
    m = len(NASTY)
    nasty = replace(
        snap,
        names=tuple(NASTY),
        order=np.arange(m),
        gram=snap.gram[:m, :m],
        p=np.full((2, m), 1 / m),
        edges=np.array([0.0, 5, 9]),
        q=np.full(m, 1 / m),
        worst_name=NASTY[0],
        error=NASTY[0],
        name=NASTY[1],
    )
    svg = frame_svg(nasty)
    tree = ElementTree.fromstring(svg.encode("utf-8"))
    assert {e.tag.removeprefix(SVG) for e in tree.iter()} <= {
        "svg",
        "rect",
        "text",
        "tspan",
        "path",
        "image",
        "defs",
        "pattern",
    }
    assert not [name for e in tree.iter() for name in e.attrib if name.startswith("on")]
    html = frame_html(nasty)
    assert "<script" not in html
    assert html.count('"') == frame_html(snap).count('"')


def test_a_domain_never_seen_is_hatched_and_the_diagonal_is_outlined(snap):
    gram = snap.gram.copy()
    gram[3, :] = gram[:, 3] = np.nan
    svg = frame_svg(replace(snap, gram=gram))
    assert 'fill="url(#unseen)"' in svg
    outlines = re.search(r'd="([^"]+)" fill="none" stroke="#3b4652"', svg)[1]
    assert outlines.count("z") == snap.m - 1


def test_before_the_first_round_and_without_a_run_there_is_a_frame(tmp_path):
    nothing = snapshot(Run.follow(tmp_path / "later"))
    assert "after the first round" in " ".join(texts(frame_svg(nothing)))
    assert "waiting" in alt(nothing)


@pytest.mark.parametrize("m", [1, 2, 60, 1000])
def test_any_number_of_domains_fits(snap, m):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(m, 5))
    p = rng.dirichlet(np.ones(m), 400)
    many = replace(
        snap,
        names=tuple(f"{i:03d} words of it" for i in range(m)),
        p=p,
        q=p[0],
        order=rng.permutation(m),
        gram=vectors @ vectors.T,
        edges=np.arange(401.0),
    )
    html = frame_html(many)
    assert len(html) < 500_000
    assert len(texts(frame_svg(many))) < 110


def test_losses_of_a_long_run_do_not_make_a_long_picture(snap):
    n = 50_000
    long = type(snap.train)(np.arange(n, dtype=float), np.linspace(9, 3, n))
    assert len(frame_svg(replace(snap, train=long))) < 1.5 * len(frame_svg(snap))


def test_the_scale_only_grows_and_only_in_round_steps(snap):
    scale, limits = Scale("cosine"), []
    for size in (0.11, 0.05, 0.3, 0.2, 0.9):
        limits.append(scale.include([[[1.0, size], [size, 1.0]]]))
    assert limits == [0.2, 0.2, 0.5, 0.5, 1.0]
    assert "cosines, scale ±0.2" in " ".join(texts(frame_svg(snap, scale=0.2)))


def test_the_scale_does_not_depend_on_when_one_began_to_look(write_run, tmp_path):
    history = write_run(tmp_path / "run").history
    early, late = Scale("raw"), Scale("raw")
    for t in range(1, 13):
        early.follow({"gram": history["gram"][:t]})
    assert late.follow(history) == early.limit
    assert early.follow({"gram": history["gram"][:2]}) <= late.limit  # cut back by a resume


def test_cosines_and_inner_products_look_different(snap):
    raw = frame_svg(snap, "raw")
    assert "inner products, scale ±" in " ".join(texts(raw))
    assert raw != frame_svg(snap)


def test_metrics_have_curves_below_the_losses(write_run, tmp_path):
    metrics = {"exact_match": 0.42, "token_f1": 0.61, "length": 12.0}
    scored = snapshot(write_run(tmp_path / "run", metrics=metrics))
    assert [*scored.metrics] == [*metrics]
    assert [*scored.metrics_drawn] == ["exact_match", "token_f1"]  # shares have one axis
    svg = frame_svg(scored)
    said = texts(svg)
    assert {"exact_match and token_f1", "exact_match 0.420", "token_f1 0.610"} <= {*said}
    assert any(text.startswith("eval ") for text in said)
    assert "; exact_match 0.420; token_f1 0.610;" in alt(scored)
    (tmp_path / "other").mkdir()
    long = snapshot(write_run(tmp_path / "other" / "run", metrics={"length": 12.0, "f1": 0.2}))
    assert [*long.metrics_drawn] == ["length"]


def test_a_metric_that_never_counted_is_not_drawn(write_run, tmp_path):
    run = write_run(tmp_path / "run", metrics={"f1": 0.2})
    rows = [row | {"value": None} if row["kind"] == "metric" else row for row in run.metrics()]
    blank = snapshot(run.with_(metrics=rows))
    assert blank.metrics_drawn == {}
    assert texts(frame_svg(blank)) == texts(frame_svg(replace(blank, metrics={})))
