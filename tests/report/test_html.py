import base64
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from rbkit.cli import app
from rbkit.errors import InputError, RbkitWarning
from rbkit.report.html import assert_offline, mathml, notebook_to_html, run_notebook, seal, trim
from rbkit.show.style import bundle, set_alt

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def export(tmp_path):
    def write(*cells, title=None):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "run.ipynb")
        notebook_to_html(tmp_path / "run.ipynb", tmp_path / "run.html", title)
        return (tmp_path / "run.html").read_text()

    return write


def _code(source="1", *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def test_a_page_refers_to_nothing_outside(export):
    html = export(new_markdown_cell("# Title\n\n$a_b$ and $$c^d$$"), _code("x = 1"))
    assert assert_offline(html) == []
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_mathematics_is_mathml(export):
    html = export(
        new_markdown_cell(
            "$p < q$\n\n$$\\frac{Gq}{\\lVert Gq\\rVert_2}$$\n\n"
            "\\begin{align} a &= \\mathbb{E}[b] \\end{align}"
        )
    )
    soup = BeautifulSoup(html, "html.parser")
    assert [m["display"] for m in soup.find_all("math")][:2] == ["inline", "block"]
    assert soup.find("mfrac")
    assert soup.find("mtable")
    assert "$" not in soup.get_text()


def test_a_formula_that_cannot_be_converted_is_shown_as_it_is():
    assert mathml(r"\begin{x} <b>") == '<code class="tex">\\begin{x} &lt;b&gt;</code>'


@given(st.text(max_size=30))
def test_mathematics_is_never_markup(latex):
    soup = BeautifulSoup(mathml(latex), "html.parser")
    assert {tag.name for tag in soup.find_all(True)} <= {
        "code",
        "math",
        "mrow",
        "mi",
        "mo",
        "mn",
        "mtext",
        "msub",
        "msup",
        "msubsup",
        "mfrac",
        "msqrt",
        "mroot",
        "mover",
        "munder",
        "munderover",
        "mtable",
        "mtr",
        "mtd",
        "mspace",
        "mstyle",
        "mpadded",
        "menclose",
        "mmultiscripts",
        "mphantom",
    }


def test_names_of_functions_are_one_word():
    assert "<mi>softmax</mi>" in mathml(r"\mathrm{softmax}(x)")


def test_figures_keep_their_description_from_show_to_html(export):
    figure = Figure(figsize=(2, 1))
    set_alt(figure.subplots(), 'Loss "falls" <fast>.')
    data, metadata = bundle(figure)
    html = export(_code("show(figure)", new_output("display_data", data, metadata=metadata)))
    image = BeautifulSoup(html, "html.parser").find("img")
    assert image["alt"] == 'Loss "falls" <fast>.'
    assert image["width"] == str(metadata["image/png"]["width"])


def test_every_picture_has_some_description(export):
    dot = base64.b64encode(bytes.fromhex("89504e470d0a1a0a")).decode()
    png = new_output("display_data", {"image/png": dot, "text/plain": "<Figure>"})
    html = export(_code("1", png, new_output("display_data", {"image/svg+xml": "<svg/>"})))
    assert all(image.get("alt") for image in BeautifulSoup(html, "html.parser").find_all("img"))


def test_text_of_outputs_and_errors_is_escaped(export):
    html = export(
        _code(
            f"print('{HOSTILE}')",
            new_output("stream", name="stdout", text=HOSTILE),
            new_output("execute_result", {"text/plain": HOSTILE}),
            new_output(
                "error", ename=HOSTILE, evalue=HOSTILE, traceback=[f"\x1b[31m{HOSTILE}\x1b[0m"]
            ),
        ),
        title=f"a {HOSTILE}",
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
    assert 'class="ansi-red-fg"' in html


def test_what_would_fetch_or_run_is_taken_out_of_outputs(export):
    bad = (
        '<b onclick="x()">bold</b><script src="https://e.org/x.js"></script>'
        '<img src="//e.org/a.png">'
        '<link rel="stylesheet" href="https://e.org/x.css"><iframe src="https://e.org"></iframe>'
        '<style>@import "https://e.org/y.css"; p {background: url(https://e.org/z.png)}</style>'
        '<p style="background:url(https://e.org/b.png)">p</p><base href="https://e.org/">'
        '<meta http-equiv="refresh" content="0;url=https://e.org"><form action="https://e.org"></form>'
        '<a href="javascript:alert(1)">j</a><a href="https://e.org/page">page</a>'
    )
    html = export(
        _code("1", new_output("display_data", {"text/html": bad})),
        new_markdown_cell(bad),
        _code(
            "2", new_output("display_data", {"application/javascript": "fetch('https://e.org')"})
        ),
    )
    assert assert_offline(html) == []
    assert not re.search(r"onclick|javascript:|<script|http-equiv=\"refresh", html)
    assert "page (e.org/page)" in html  # a link stays readable


def test_code_is_folded_and_tags_are_respected(export):
    html = export(
        _code("shown = 1"),
        _code("secret = 2", tags=["remove-cell"]),
        _code(
            "hidden = 3", new_output("stream", name="stdout", text="output"), tags=["hide-input"]
        ),
    )
    soup = BeautifulSoup(html, "html.parser")
    assert len(soup.find_all("details")) == 1
    assert not soup.find("details").has_attr("open")
    assert "secret" not in html
    assert "hidden = 3" not in soup.get_text()
    assert "output" in html


def test_progress_bars_leave_no_noise(export):
    noise = "".join(f"\rtrain: {i:3d}%|###  | {i}/100 [00:01<00:02, 5it/s]" for i in range(101))
    html = export(_code("1", new_output("stream", name="stderr", text=noise + "\nkept\n")))
    assert "kept" in html
    assert "it/s" not in html


def test_long_output_is_cut_in_the_middle():
    text = trim("\n".join(f"line {i}" for i in range(1000)))
    assert "line 0\n" in text
    assert text.endswith("line 999")
    assert "[… 800 lines left out …]" in text


@given(st.text(alphabet="ab\r\n", max_size=40))
def test_trimmed_text_has_no_carriage_returns(text):
    assert "\r" not in trim(text)


def test_a_title_is_the_first_heading_unless_given(export):
    assert "<title>First</title>" in export(new_markdown_cell("# First\n\n# Second"))
    assert "<title>Mine</title>" in export(new_markdown_cell("# First"), title="Mine")


def test_what_is_no_notebook_is_refused(tmp_path):
    (tmp_path / "a.ipynb").write_text("[]")
    for name in ("a.ipynb", "missing.ipynb"):
        with pytest.raises(InputError):
            notebook_to_html(tmp_path / name, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://e.org/a.png">',
        '<img src="//e.org/a.png">',
        '<a href="http://e.org">x</a>',
        '<p style="background:url(http://e.org/a)">',
        "<style>@import 'http://e.org/a.css';</style>",
        "<style>p {background: url( //e.org/a )}</style>",
        "<script>fetch('x')</script>",
        "<script>let a = 'https://e.org/x'</script>",
        "<iframe></iframe>",
        '<svg><image xlink:href="https://e.org/a.png"/></svg>',
        '<meta http-equiv="refresh" content="0;url=https://e.org">',
        '<!--><meta http-equiv="refresh" content="0;url=https://e.org"><!-- -->',
        '<!--x--!><meta http-equiv="refresh" content="0;url=https://e.org"><b>-->',
        '<a href="\x01javascript:alert(1)">x</a>',
        '<a href="&#1;https://e.org/">x</a>',
        '<a href="/\\\\e.org/">x</a>',
        '<p onclick="alert(1)">',
    ],
)
def test_references_to_the_outside_are_found_and_sealed(html):
    assert assert_offline(html)
    assert assert_offline(seal(html)) == []


def test_links_inside_the_report_are_kept():
    page = (
        '<a href="runs/a/run.html">a</a><a href="#x">b</a>'
        '<img src="data:image/png;base64,AA" alt="c">'
    )
    assert assert_offline(page) == []
    assert seal(page).count("href") == 2
    assert "data:image/png" in seal(page)


# Each would lead away, or run, in a browser that reads it otherwise than the parser of `seal`.
TRICKS = [
    f"{before}<meta http-equiv=refresh content='0;url=elsewhere.html'>"
    f"<img src=x onerror='document.title=1'>{after}"
    for before, after in [
        ("<!-->", "<!-- -->"),
        ("<!--->", "-->"),
        ("<!--x--!>", "-->"),
        ("<![CDATA[>", "]]>"),
        ("<!ELEMENT [>", "]>"),
        ("<?php >", "?>"),
        ("<svg><style>", "</style></svg>"),
        ("<math><style>", "</style></math>"),
        ("<svg><![CDATA[>", "]]></svg>"),
        ("<xmp><p title='</xmp>", "'>"),
        ("<textarea><p title='</textarea>", "'>"),
        ("<title><p title='</title>", "'></title>"),
        ("<p a<b='>", "'>"),
        ("<noembed><p title='</noembed>", "'>"),
        ("<style><!--</style>", "--></style>"),
        ("<!DOCTYPE html [>", "]>"),
    ]
]


def test_a_browser_finds_nothing_to_run_in_what_is_sealed(chromium, tmp_path):
    (tmp_path / "elsewhere.html").write_text("<title>elsewhere</title>")
    page = chromium.new_page()
    try:
        for trick in TRICKS:
            (tmp_path / "page.html").write_text(f"<title>here</title>{seal(trick)}")
            page.goto((tmp_path / "page.html").as_uri())
            assert page.locator("meta[http-equiv], [onerror]").count() == 0, trick
            assert page.url.endswith("page.html"), trick
    finally:
        page.close()


@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_sealed_is_offline_and_stays_as_it_is(trick):
    assert assert_offline(seal(trick)) == []
    assert seal(seal(trick)) == seal(trick)


def test_a_style_sheet_stays_what_it_was():
    page = "<style>a > b { content: '<'; } @media (width < 40rem) { p::before { color: red } }"
    assert seal(f"{page}</style>") == f"{page}</style>"


def test_a_wrong_parameter_costs_nothing_of_an_earlier_run(tmp_path):
    template = tmp_path / "one.ipynb"
    cell = new_code_cell("steps: int = 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), template)
    for name in ("run.ipynb", "run.html"):
        (tmp_path / name).write_text("done before")
    with pytest.raises(InputError, match="did you mean steps"):
        run_notebook(template, {"setps": 2}, tmp_path)
    assert (tmp_path / "run.ipynb").read_text() == "done before"
    assert (tmp_path / "run.html").read_text() == "done before"


def test_where_no_page_can_be_made_the_run_stays_and_the_page_of_an_earlier_one_goes(
    tmp_path, monkeypatch
):
    def fail(*args):
        raise OSError(28, "No space left on device")

    template = tmp_path / "one.ipynb"
    cell = new_code_cell("steps: int = 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), template)
    monkeypatch.setattr("rbkit.report.html.notebook_to_html", fail)
    (tmp_path / "run.html").write_text("done before")
    with pytest.warns(RbkitWarning, match="no page could be made .OSError.*No space left"):
        page = run_notebook(template, {}, tmp_path)
    assert not page.exists()
    assert (tmp_path / "run.ipynb").exists()
    with pytest.warns(RbkitWarning, match="no page could be made"):
        result = CliRunner().invoke(
            app, ["run", "--template", str(template), "--out", str(tmp_path)]
        )
    assert result.exit_code == 1
    assert "run.ipynb" in result.output
