"""An executed notebook as one HTML file that opens offline: nothing is fetched, ever.

nbconvert's own templates load four to six scripts from the internet. This exporter uses
a small template of its own under a strict Content-Security-Policy, turns LaTeX into
MathML, folds code away, keeps the alternative text of figures, and drops whatever in an
output would fetch or run something.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor, TagRemovePreprocessor
from traitlets.config import Config

from rbkit.files import write_text
from rbkit.report.nbio import read_notebook
from rbkit.report.offline import assert_offline, seal

TEMPLATES = Path(__file__).parent / "templates"

__all__ = ["OfflineExporter", "assert_offline", "mathml", "notebook_to_html", "trim"]

_MAX_LINES = 200


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
    """nbconvert's HTML exporter with our template, MathML, and nothing from outside."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("template_name", "rbkit_report")
        kwargs.setdefault("extra_template_basedirs", [str(TEMPLATES)])
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def default_config(self) -> Config:
        """Static pictures first: widgets and scripts are blank offline."""
        config = Config(
            {
                "NbConvertBase": {"display_data_priority": list(_SHOWN)},
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
        """Convert, then take out whatever would fetch or run something."""
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


_SHOWN = (
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
    return output.output_type == "error" or any(kind in output.data for kind in _SHOWN)


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
        if not re.search(r"\d+%\|.*\||\d+(it|examples?|files?) \[\d", last):
            lines.append(last)
    if len(lines) > limit:
        half = limit // 2
        cut = len(lines) - 2 * half
        lines = [*lines[:half], f"[… {cut:,} lines left out …]", *lines[-half:]]
    return "\n".join(lines)


def mathml(latex: str, display: bool = False) -> str:
    r"""LaTeX as MathML; what cannot be converted is shown as its source.

    Examples
    --------
    >>> mathml("a < b")[:5], mathml(r"\begin{x}")
    ('<math', '<code class="tex">\\begin{x}</code>')
    """
    from latex2mathml.converter import convert

    try:
        made = str(convert(latex.strip(), display="block" if display else "inline"))
    except Exception:  # latex2mathml raises many kinds, and a formula must not cost a report
        return f'<code class="tex">{escape(latex.strip())}</code>'
    # Its output may hold raw text of \text{...}; nothing but MathML may come out.
    soup = BeautifulSoup(made, "html.parser")
    if all(tag.name == "math" or tag.name.startswith("m") for tag in soup.find_all(True)):
        return _upright(made)
    return f'<code class="tex">{escape(latex.strip())}</code>'


def _upright(made: str) -> str:
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
