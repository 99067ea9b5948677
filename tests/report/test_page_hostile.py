"""Pages of text from strangers, in a real browser: it is shown, and it does nothing."""

import json

import pytest

from rbkit.report import write_report

# What breaks out of text, attributes, style sheets, scripts, JSON, SVG, comments and CDATA.
SIGNS = [
    "<script>window.hit=1</script>",
    "</script><script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "' onmouseover='window.hit=1' x='",
    "</style><style>body{display:none}</style>",
    "]]><svg onload='window.hit=1'/>",
    "--><b class=hit>bold</b><!--",
    "</svg></title><b class=hit>",
    "line\u2028separator\u2029",
    "\u202egnp.exe\u2066",
    "javascript:window.hit=1",
    "{{ 7*7 }} ${7*7} $x$",
    "\x1b[31mred\x1b[0m, \x00null, \ufeffmark",
    "&lt;b class=hit&gt; &amp;",
    "=cmd|'/c calc'!A1",
]


@pytest.fixture(scope="module")
def page_of_signs(tmp_path_factory, write_run):
    """A report in which every text that a stranger may have written holds all the signs."""
    folder = tmp_path_factory.mktemp("hostile") / "a 'quoted' \"folder\" & <b class=hit>"
    every = " ".join(SIGNS)
    halved = f"{every} \ud800"  # JSON can say it, UTF-8 cannot
    names = [f"{i} {sign} {every}" for i, sign in enumerate(SIGNS)]
    for i, sign in enumerate(SIGNS):
        where = folder / "runs" / f"javascript:{i} ' \" # ? % <b class=hit>"
        run = write_run(
            where,
            sign if i % 2 else "RnB",
            names=names,
            rounds=2,
            status="failed" if i % 3 == 2 else "ok",
            error=every if i % 3 == 2 else None,
        )
        info = run.info
        info["parameters"] |= {
            "k": sign,
            "seed": sign if i == 4 else 0,
            sign: sign,
            "mixer_options": {sign: sign},
        }
        info["versions"] = {sign: sign}
        info["device"] = info["git"] = halved
        licence = dict.fromkeys(("asset", "licence", "attribution", "url"), halved)
        info["corpus"] |= {"name": halved, "fingerprint": "same", "licences": [licence]}
        info["ledger"]["entries"].append({"name": halved, "seconds": 1.0, "calls": 1})
        info["ledger"]["note"] = halved
        (where / "run.json").write_text(json.dumps(info))
        cards = json.loads((where / "domains" / "domains.json").read_text())
        for card in cards.get("cards", []):
            card |= {"terms": SIGNS, "nearest": [every], "sources": {every: 1.0}}
        (where / "domains" / "domains.json").write_text(json.dumps(cards))
        for name in ("run.html", "run.ipynb"):
            (where / name).write_text("")
    return write_report(folder, folder / "index.html", title=halved, intro=halved, progress=False)


@pytest.fixture(scope="module")
def visited(chromium, page_of_signs):
    noise = []
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("data:", "file:")) or noise.append(r.url))
    page.on("dialog", lambda dialog: noise.append(dialog.message))
    page.goto(page_of_signs.as_uri())
    return page, noise


def test_nothing_runs_and_the_console_is_silent(visited):
    page, noise = visited
    for head in page.query_selector_all("#runs-table thead button"):
        head.click()
    page.hover("#matrix", position={"x": 300, "y": 100})
    page.get_by_label("find").last.fill("<script>")
    assert page.evaluate("window.hit") is None
    assert noise == []


def test_text_makes_no_element_and_no_attribute(visited):
    page, _ = visited
    assert page.evaluate("document.querySelectorAll('.hit, b, iframe, object').length") == 0
    assert page.evaluate("document.scripts.length") == 2
    assert page.evaluate("document.querySelectorAll('style').length") == 1
    handlers = """Array.from(document.querySelectorAll("*")).filter((tag) =>
        Array.from(tag.attributes).some((a) => a.name.startsWith("on") || a.name === "style")
        && tag.tagName !== "CANVAS").length"""
    assert page.evaluate(handlers) == 0
    assert page.evaluate("getComputedStyle(document.body).display") == "block"


def test_what_is_shown_is_what_was_written_but_for_signs_that_cannot_be_seen(visited):
    page, _ = visited
    text = page.text_content("h1")
    assert "<script>window.hit=1</script>" in text
    assert "{{ 7*7 }} ${7*7} $x$" in text
    assert "&lt;b class=hit&gt; &amp;" in text
    assert not set("\u202e\u2066\u2028\x1b\x00\ufeff") & set(page.content())


def test_links_lead_to_files_beside_the_page_only(visited, page_of_signs):
    page, _ = visited
    links = page.evaluate("Array.from(document.links).map((a) => a.href)")
    here = page_of_signs.parent.as_uri()
    assert len(links) > 30
    assert all(link.startswith(f"{here}/") for link in links)
    assert all(not link.startswith("javascript:") for link in links)


def test_the_rounds_are_read_as_data(visited):
    page, _ = visited
    names = page.evaluate("JSON.parse(document.getElementById('frames').textContent).names")
    assert len(names) == len(SIGNS)
    assert any("</script>" in name for name in names)
