"""An executed notebook as one HTML file that opens offline: nothing is fetched, ever.

nbconvert's own templates load four to six scripts from the internet. This exporter uses a small
template under a strict Content-Security-Policy, turns LaTeX into MathML, folds code away, keeps
the alternative text of figures, and removes whatever in an output would fetch or run something.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Comment, Doctype, Tag
from bs4.element import PreformattedString
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor, TagRemovePreprocessor
from traitlets.config import Config

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, write_text
from rbkit.report.engine import execute
from rbkit.report.notebooks import read_notebook
from rbkit.report.parameters import Parameters

# Notebooks and corpora may come from strangers. What a page of theirs would fetch, run or submit is
# removed on its way into a report, whatever the browser's policy would do.

# Elements that run or fetch something, or that change how the page is read.
_RUN = ["script", "iframe", "frame", "object", "embed", "applet", "portal", "form"]
_FETCH = ["link", "base", "audio", "video", "source", "track", "template", "noscript"]
_ADDRESSES = ["src", "srcset", "href", "xlink:href", "data", "poster", "background", "manifest"]
_ADDRESSES += ["action", "formaction", "ping", "cite", "longdesc"]
_CSS_FETCH = re.compile(r"url\(\s*['\"]?(?!data:|#)([^'\")]*)|@import\s+(?!url)([^;]*)", re.I)
# Elements whose content a browser does not read as elements, where the parser here does.
_RAW = ("xmp", "plaintext", "noembed", "noframes")
_NAME = re.compile(r"[a-zA-Z_][\w:.-]*")
# What a browser does not see in an address: controls and blanks, in front and in between.
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\s]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.I)


def seal(html: str) -> str:
    """Remove from a page all that fetches, runs or submits; what was a link stays as text.

    The page is rewritten from the parsed tree, with every character escaped that could be
    markup: where a browser would have parsed the given text differently (it ends some comments
    sooner), nothing is left to be parsed differently. Comments are removed for that.
    """
    soup = BeautifulSoup(html, "html.parser")
    for part in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):
        if not isinstance(part, Doctype) or str(part).strip().lower() != "html":
            part.extract()
    for tag in soup.find_all([*_RUN, *_FETCH]):
        tag.decompose()
    for tag in soup.find_all("meta"):
        if str(tag.get("http-equiv", "")).strip().lower() not in ("", "content-security-policy"):
            tag.decompose()
    for tag in soup.find_all(True):
        if tag.name in _RAW or not _NAME.fullmatch(tag.name):
            tag.unwrap()
        else:
            _seal_tag(soup, tag)
    for tag in soup.find_all("style"):
        # Inside a drawing a browser parses a style sheet as markup; in CSS, \3c is a "<".
        text = _CSS_FETCH.sub("none(", tag.get_text())
        tag.string = re.sub(r"<(?=[a-zA-Z/!?])", r"\\3c ", text)
    return str(soup)


def _address(value: object) -> str:
    """Return an address as a browser reads it: without blanks, with forward slashes."""
    text = " ".join(value) if isinstance(value, list) else str(value)
    return _UNSEEN.sub("", text).replace("\\", "/")


def _seal_tag(soup: BeautifulSoup, tag: Tag) -> None:
    for name in [n for n in tag.attrs if n.lower().startswith("on") or not _NAME.fullmatch(n)]:
        del tag[name]
    if "style" in tag.attrs and _CSS_FETCH.search(str(tag["style"])):
        del tag["style"]
    for name in [n for n in tag.attrs if n.lower() in _ADDRESSES]:
        address = _address(tag[name])
        embedded = tag.name in ("img", "image") and re.match(r"data:image/[\w.+-]+[;,]", address)
        in_report = tag.name == "a" and not _SCHEME.match(address)  # relative, no host
        if address.startswith("#") or embedded or in_report:
            continue
        del tag[name]
        if tag.name == "a" and re.match(r"(https?:)?//", address):
            # Readable: on paper, too, an address is worth more than an underline.
            readable = re.sub(r"^(https?:)?//", "", address)
            if readable not in tag.get_text():
                tag.append(f" ({readable})")
        elif tag.name in ("img", "image"):
            tag.replace_with(f"[picture left out: {tag.get('alt') or address[:80]}]")
            return


def assert_offline(html: str) -> list[str]:
    """List every reference of a page to something outside of it; none is what we want.

    Looks at attributes that fetch or lead away, at ``url(...)`` and ``@import`` in styles,
    at scripts that name an address, at forbidden elements, at what runs or leads away by
    itself, and at comments that a browser ends elsewhere than the parser here.

    Examples
    --------
    >>> assert_offline('<img alt="" src="https://example.org/a.png"><p>see example.org</p>')
    ['<img src="https://example.org/a.png">']
    """
    soup = BeautifulSoup(html, "html.parser")
    found = [f"<!{str(text)[:100]}" for text in soup.find_all(string=_ends_elsewhere)]
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = " ".join(value) if isinstance(value, list) else str(value)
            address = _address(text)
            leads_away = (
                name.lower() in _ADDRESSES
                and bool(_SCHEME.match(address))
                and not address.lower().startswith("data:")
            )
            runs = name.lower().startswith("on") and bool(_NAME.fullmatch(name))
            if leads_away or runs or (name.lower() == "style" and _CSS_FETCH.search(text)):
                found.append(f'<{tag.name} {name}="{text[:100]}">')
        if tag.name == "meta" and str(tag.get("http-equiv", "")).strip().lower() == "refresh":
            found.append(f'<meta http-equiv="refresh" content="{tag.get("content")}">')
        if tag.name in ("iframe", "object", "embed", "base"):
            found.append(f"<{tag.name}>")
        if tag.name == "style" and (match := _CSS_FETCH.search(tag.get_text())):
            found.append(f"<style> {match.group(0)[:100]}")
        if tag.name == "script" and str(tag.get("type", "")) != "application/json":
            found += re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", tag.get_text())
            found += re.findall(r"\b(?:fetch|XMLHttpRequest|import|WebSocket)\s*\(", tag.get_text())
    return found


def _ends_elsewhere(text: object) -> bool:
    """Whether a browser may see an end inside of what the parser here takes for one comment."""
    if isinstance(text, Comment):
        return bool(re.match(r"-?>", text)) or "--!>" in text
    return isinstance(text, PreformattedString) and ">" in text


TEMPLATES = Path(__file__).parent / "templates"

_MAX_LINES = 200
_MAX_LINE = 20_000  # characters: converting colours takes time that grows with their square
# A progress bar. One digit each: a run of them would be searched from each of its digits.
_BAR = re.compile(r"\d%\|.*\||\d(it|examples?|files?) \[\d")


def run_notebook(
    notebook: str | Path,
    parameters: Parameters | Mapping[str, Any] | None,
    run_dir: str | Path,
    *,
    title: str | None = None,
    on_end: Callable[[], object] | None = None,
    **options: Any,
) -> Path:
    """Execute a notebook into ``run_dir/run.ipynb``, and write it as ``run_dir/run.html``.

    The page is written also if a cell failed, or Ctrl-C interrupted it: the error can be seen
    there. Without a page a run is still what it is, so that only warns.

    Parameters
    ----------
    notebook, parameters, run_dir, **options
        As of :func:`~rbkit.report.engine.execute`, which also lists what is raised.
    title : str, optional
        Title of the page.
    on_end : callable, optional
        Called between notebook and page.

    Returns
    -------
    Path
        The page.
    """
    ran, page = Path(run_dir) / "run.ipynb", Path(run_dir) / "run.html"
    before = ran.stat().st_mtime_ns if ran.exists() else None
    try:
        execute(notebook, parameters, run_dir, **options)
    finally:
        if on_end is not None:
            on_end()
        if ran.exists() and ran.stat().st_mtime_ns != before:  # not that of an earlier attempt
            try:
                notebook_to_html(ran, page, title)
            except Exception as error:
                page.unlink(missing_ok=True)  # of an earlier attempt: it is not of this notebook
                why = f"{type(error).__name__}: {error}"
                warnings.warn(f"{ran}: no page could be made ({why})", RbkitWarning, stacklevel=2)
    return page


def notebook_to_html(
    ipynb_path: str | Path, out_path: str | Path, title: str | None = None
) -> Path:
    """Write an executed notebook as one offline HTML file.

    Cells tagged ``remove-cell`` are left out, ``hide-input`` shows only the output, other
    code is folded. A figure's alternative text is read from the metadata of its output,
    ``{"image/png": {"alt": ...}}``, as :func:`rbkit.show.show` writes it.

    Parameters
    ----------
    ipynb_path, out_path : path
    title : str, optional
        Title of the page; the notebook's first heading if not given.

    Returns
    -------
    Path
        `out_path`.

    Raises
    ------
    InputError
        The notebook is missing or not a notebook.
    """
    ipynb_path, out_path = Path(ipynb_path), Path(out_path)
    notebook = read_notebook(ipynb_path)
    notebook.metadata["title"] = title or _first_heading(notebook) or ipynb_path.stem
    html, _ = OfflineExporter().from_notebook_node(notebook)
    write_text(out_path, html)
    return out_path


class OfflineExporter(HTMLExporter):
    """nbconvert's HTML exporter with rbkit's template, MathML, and nothing from outside."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("template_name", "rbkit_report")
        kwargs.setdefault("extra_template_basedirs", [str(TEMPLATES)])
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def default_config(self) -> Config:
        """Static pictures first: widgets and scripts are blank offline."""
        config = Config(
            {
                "NbConvertBase": {"display_data_priority": list(_MIME_TYPES)},
                "TagRemovePreprocessor": {
                    "enabled": True,
                    "remove_cell_tags": ("remove-cell",),
                    "remove_input_tags": ("hide-input", "remove-input"),
                    "remove_all_outputs_tags": ("remove-output",),
                },
                "HTMLExporter": {
                    "preprocessors": [TagRemovePreprocessor, QuietStreams],
                    "exclude_anchor_links": True,
                },
            }
        )
        base: Config = super().default_config.copy()
        base.merge(config)
        return base

    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown filter whose mathematics is MathML."""
        cell = context.get("cell", {})
        renderer = MathMLRenderer(
            escape=False, attachments=cell.get("attachments", {}), exclude_anchor_links=True
        )
        return str(MarkdownWithMath(renderer=renderer).render(source))

    markdown2html.jinja_pass_arg = HTMLExporter.markdown2html.jinja_pass_arg  # type: ignore[attr-defined]

    def from_notebook_node(self, nb: Any, resources: Any = None, **kw: Any) -> Any:
        """Convert, then remove whatever would fetch or run something."""
        html, resources = super().from_notebook_node(nb, resources, **kw)
        return seal(html), resources


class MathMLRenderer(IPythonRenderer):
    """nbconvert's Markdown renderer, with MathML in place of LaTeX for a script to find."""

    def block_math(self, body: str) -> str:
        """Display mathematics."""
        return mathml(body, display=True)

    def inline_math(self, body: str) -> str:
        """Mathematics in a line of text."""
        return mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        r"""Handle ``\begin{align}...`` and other environments."""
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)


_MIME_TYPES = (
    "image/png",
    "image/jpeg",
    "image/svg+xml",
    "text/html",
    "text/markdown",
    "text/latex",
    "text/plain",
)


def _has_something_to_show(output: Any) -> bool:
    if output.output_type == "stream":
        return bool(output.text.strip())
    return output.output_type == "error" or any(kind in output.data for kind in _MIME_TYPES)


class QuietStreams(Preprocessor):
    """Show what a terminal would show at the end: no progress bars, no thousand lines.

    Outputs that only a script or a widget could show are left out, too.
    """

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> Any:
        """Join neighbouring streams and trim them."""
        if cell.cell_type != "code":
            return cell, resources
        outputs: list[Any] = []
        for output in cell.outputs:
            same = outputs and output.output_type == outputs[-1].output_type == "stream"
            if same and output.name == outputs[-1].name:
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = trim(output.text)
        cell.outputs = [output for output in outputs if _has_something_to_show(output)]
        return cell, resources


def trim(text: str, limit: int = _MAX_LINES) -> str:
    r"""Resolve carriage returns, drop progress bars, cut the middle out of long output.

    Examples
    --------
    >>> trim("train:  10%|#   | 1/10\rtrain: 100%|####| 10/10\nloss 4.2\n")
    'loss 4.2\n'
    """
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        last = line.rstrip("\r").rsplit("\r", 1)[-1]
        if not _BAR.search(last):
            cut = len(last) - _MAX_LINE
            lines.append(
                last if cut <= 0 else f"{last[:_MAX_LINE]}[… {cut:,} characters left out …]"
            )
    if len(lines) > limit:
        half = limit // 2
        cut = len(lines) - 2 * half
        lines = [*lines[:half], f"[… {cut:,} lines left out …]", *lines[-half:]]
    return "\n".join(lines)


def mathml(latex: str, display: bool = False) -> str:
    r"""LaTeX as MathML; what cannot be converted is shown as its source.

    Examples
    --------
    >>> mathml("a < b")[:5], mathml(r"\begin{x}"), mathml(r"\arg x")
    ('<math', '<code class="tex">\\begin{x}</code>', '<code class="tex">\\arg x</code>')
    """
    from latex2mathml.converter import convert

    try:
        made = str(convert(latex.strip(), display="block" if display else "inline"))
    except Exception:  # latex2mathml raises many kinds, and a formula must not cost a report
        return f'<code class="tex">{escape(latex.strip())}</code>'
    # Its output may hold raw text of \text{...}; nothing but MathML may come out.
    soup = BeautifulSoup(made, "html.parser")
    # A command that it does not know comes out as its name, with the backslash.
    known = "\\" not in soup.get_text()
    if known and all(tag.name == "math" or tag.name.startswith("m") for tag in soup.find_all(True)):
        return _join_letters(made)
    return f'<code class="tex">{escape(latex.strip())}</code>'


def _join_letters(made: str) -> str:
    # \mathrm{softmax} comes as seven separate <mi>, spaced like seven factors.
    letters = r'(?:<mi mathvariant="normal">[A-Za-z]</mi>){2,}'

    def join(match: re.Match[str]) -> str:
        return f"<mi>{''.join(re.findall('>([A-Za-z])<', match.group(0)))}</mi>"

    return re.sub(letters, join, made)


def _first_heading(notebook: Any) -> str | None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^#\s+(.+)$", cell.source, re.M)):
            return str(match.group(1)).strip()
    return None


_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "microsoft-edge",
    "msedge",
)
# macOS puts no browser on PATH.
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# Nothing is requested from the network, and nothing is stored.
_QUIET = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--no-pdf-header-footer",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def find_browser() -> str:
    """Return the path of a Chromium or Chrome; refuse if there is none."""
    browsers = [place for name in _BROWSERS if (place := shutil.which(name))]
    browsers += [place for place in _PLACES if Path(place).is_file()]
    if not browsers:
        raise InputError(
            "pdf",
            "no Chromium or Chrome on PATH",
            "install one (such as: apt install chromium), or print the page from your browser",
        )
    return browsers[0]


def html_to_pdf(
    page: str | Path,
    out: str | Path | None = None,
    *,
    timeout: float = 120.0,
    browser: str | None = None,
) -> Path:
    """Print an HTML file to PDF with `browser`, next to the page if `out` is not given."""
    page = Path(page).resolve()
    out = page.with_suffix(".pdf") if out is None else Path(out)
    if not page.is_file():
        raise InputError(str(page), "no such file", "write the page first")
    browser = browser or find_browser()
    with (
        tempfile.TemporaryDirectory(prefix="rbkit-pdf-", ignore_cleanup_errors=True) as profile,
        atomic_path(out) as printed,
    ):
        stderr = _print(browser, page, printed, profile, timeout)
        if printed.read_bytes()[:5] != b"%PDF-":
            raise InputError(
                str(out),
                f"{Path(browser).name} printed nothing: {stderr or 'no reason given'}",
                "print the page from your browser",
            )
    return out


def _print(browser: str, page: Path, out: Path, profile: str, timeout: float) -> str:
    """Run the browser; return the end of its stderr."""
    command = [browser, *_QUIET, f"--user-data-dir={profile}", f"--print-to-pdf={out}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to run as root with it
    # Its helpers outlive a kill of the parent alone: they are a group, and end as one.
    group = {"start_new_session": True} if sys.platform != "win32" else {}
    process = subprocess.Popen(
        [*command, page.as_uri()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **group,  # type: ignore[call-overload]
    )
    try:
        _, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise InputError(
            str(page),
            f"{Path(browser).name} took more than {timeout:g} s to print it",
            "give it more time, or print the page from your browser",
        ) from None
    finally:
        if process.poll() is None:
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return " ".join(stderr.split())[-300:]
