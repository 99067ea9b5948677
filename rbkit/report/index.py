"""One offline page that compares runs: what was done, what came out, what it cost.

Everything is read from the run folders, so the page can be made again at any time, also
for runs that failed. Figures are pictures inside the page; the one script, which draws
the Gram matrix of any round, is allowed by its hash and nothing else is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rbkit.files import write_text
from rbkit.report.html import mathml
from rbkit.report.offline import seal
from rbkit.report.summary import headline, rows, varying
from rbkit.report.units import amount, percent, seconds, thousands
from rbkit.show.cards import domain_sizes, top_sources
from rbkit.show.choice_figure import k_choice
from rbkit.show.cost_figure import cost_table, costs
from rbkit.show.curves import loss_by_domain, loss_curves, loss_gap
from rbkit.show.display import png, size_of
from rbkit.show.facts import RunLike, domain_names, mixer_of, target
from rbkit.show.gram_figure import common_scale, domain_order, gram_over_time, to_cosine
from rbkit.show.mixture import proportions_side_by_side
from rbkit.show.style import alt_text, mixer_colour, number

TEMPLATES = Path(__file__).parent / "templates"
RULE = (
    r"p^{(t+1)} = \mathrm{softmax}\left(\lambda\,\frac{G^{(t)} q}{\lVert G^{(t)} q\rVert_2}\right)"
)

# Frames of the Gram matrix that the page carries, and panels that fit beside each other.
_FRAMES, _PANELS = 40, 4


def write_index(
    runs: Sequence[RunLike],
    out: str | Path,
    *,
    title: str = "rbkit report",
    intro_html: str | None = None,
) -> Path:
    """Write one self-contained page that compares `runs`.

    Parameters
    ----------
    runs : sequence of Run
        Runs in any state; failed, killed and interrupted ones get a row with their error.
    out : path
        The HTML file, usually ``reports/<name>/index.html``. Links to ``run.html`` and
        ``run.ipynb`` of each run are relative to it and made only where the file exists.
    title : str
    intro_html : str, optional
        A paragraph of HTML of your own under the title; scripts and pictures from
        elsewhere are taken out of it.

    Returns
    -------
    Path
        `out`.
    """
    out = Path(out)
    script = (TEMPLATES / "index.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = (
        _environment()
        .get_template("index.html.j2")
        .render(
            title=title,
            intro=seal(intro_html) if intro_html else "",
            css=(TEMPLATES / "index.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=digest,
            rule=mathml(RULE, display=True),
            symbols={name: mathml(name) for name in ("p", "q", "G", "G q", r"\lambda", "k")},
            **_content(list(runs), out.resolve().parent),
        )
    )
    write_text(out, page)
    return out


def _content(runs: list[RunLike], folder: Path) -> dict[str, Any]:
    whole = [run for run in runs if run.status == "ok"] or runs
    tracked = [run for run in whole if np.asarray(run.history.get("gram", [])).size]
    subject = next(iter(tracked or whole), None)
    domains = subject.domains if subject is not None else None
    table = rows(runs)
    for row in table:
        row["links"] = _links(row.pop("run").path, folder)
        row["colour"] = mixer_colour(row["mixer"])
    shared, differ = varying(runs)
    mixers = list({mixer_of(run): run for run in reversed(whole)}.values())[::-1]
    info = subject.info if subject is not None else {}
    return {
        "headline": headline(runs),
        "facts": _facts(runs, shared, info),
        "table": table,
        "seeds": len({row["seed"] for row in table}) > 1,
        "figures": _figures(whole, mixers, tracked, domains),
        "tall": len(_names(subject)) > 20 if subject is not None else False,
        "frames": _frames(tracked[0]) if tracked else None,
        "tracked": mixer_of(tracked[0]) if tracked else "",
        "cards": _cards(domains),
        "quality": domains.quality if domains is not None else {},
        "method": domains.method if domains is not None else {},
        "ledger": cost_table(runs),
        "ledger_note": (info.get("ledger") or {}).get("note", ""),
        "shared": shared,
        "differ": differ,
        "versions": info.get("versions") or {},
        "device": info.get("device") or "",
        "started": min((str(run.info.get("started") or "") for run in runs), default=""),
        "corpus": info.get("corpus") or {},
    }


def _facts(
    runs: Sequence[RunLike], shared: dict[str, Any], info: dict[str, Any]
) -> list[tuple[str, str]]:
    corpus = info.get("corpus") or {}
    m = len((info.get("domains") or {}).get("names") or [])
    seeds = sorted({str((run.info.get("parameters") or {}).get("seed")) for run in runs})
    steps, every = shared.get("steps"), shared.get("round_steps")
    found = [
        ("corpus", corpus.get("name")),
        ("train examples", thousands(corpus.get("n_train"))),
        ("eval examples", thousands(corpus.get("n_eval"))),
        ("domains", m or None),
        ("model", shared.get("model")),
        ("steps", f"{steps:,} in rounds of {every}" if steps and every else steps),
        ("runs", len(runs)),
        ("seed" if len(seeds) == 1 else "seeds", ", ".join(seeds)),
        ("device", info.get("device")),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "", "None")]


def _figures(
    runs: list[RunLike], mixers: list[RunLike], tracked: list[RunLike], domains: Any
) -> dict[str, dict[str, Any]]:
    drawn: dict[str, Any] = {}
    if runs:
        drawn["eval"] = loss_curves(runs, "eval")
        drawn["train"] = loss_curves(runs, "train")
        drawn["gap"] = loss_gap(runs)
        drawn["by_domain"] = loss_by_domain(mixers)
        drawn["costs"] = costs(mixers)
    moving = [run for run in mixers if "p" in run.history][:_PANELS]
    if moving:
        drawn["proportions"] = proportions_side_by_side(moving)
    if tracked:
        names = _names(tracked[0])
        # Fewer and larger panels where there are many names to read.
        panels = 5 if len(names) <= 16 else 4 if len(names) <= 24 else 3
        drawn["gram"] = gram_over_time(tracked[0].history, names, panels)[0]
    if domains is not None:
        drawn["sizes"] = domain_sizes(domains)
        if domains.quality.get("grid"):
            drawn["k"] = k_choice(domains.quality["grid"], chosen=len(domains.names))
    return {name: _picture(figure) for name, figure in drawn.items()}


def _picture(figure: Any) -> dict[str, Any]:
    figure = figure.get_figure(root=True) if hasattr(figure, "get_figure") else figure
    image = png(figure, dpi=180)
    width, height = size_of(image)
    return {
        "src": "data:image/png;base64," + base64.b64encode(image).decode("ascii"),
        "alt": alt_text(figure),
        "width": round(width / 1.8),
        "height": round(height / 1.8),
    }


def _frames(run: RunLike) -> str:
    """Gram matrices and proportions as JSON that is safe inside a script element."""
    history = run.history
    grams = np.asarray(history["gram"], dtype=np.float64)
    order = domain_order(history)
    keep = np.unique(np.linspace(0, len(grams) - 1, min(_FRAMES, len(grams))).astype(int))
    ordered = grams[:, order][:, :, order]
    p = np.asarray(history["p"], dtype=np.float64)[:, order]
    q = target(run)
    steps = np.asarray(history["step"])[-len(grams) :]
    frames = [
        {
            "step": int(steps[t]),
            "round": int(t) + 1,
            "g": _triangle(ordered[t]),
            "next": _digits(p[min(t + 1, len(p) - 1)], 4),
        }
        for t in keep
    ]
    value = {
        "names": [_names(run)[i] for i in order],
        "q": _digits(q[order], 4) if q is not None else None,
        "rounds": len(grams),
        "frames": frames,
        "scale": {"raw": common_scale(grams), "cosine": common_scale(to_cosine(grams))},
    }
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _triangle(gram: np.ndarray[Any, Any]) -> list[float | None]:
    return _digits(gram[np.tril_indices(len(gram))], 4)


def _digits(values: np.ndarray[Any, Any], digits: int) -> list[float | None]:
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in values.ravel()]


def _cards(domains: Any) -> list[dict[str, Any]]:
    if domains is None or not domains.cards:
        return []
    sizes = np.asarray(domains.sizes, dtype=np.float64)
    share, q = sizes / max(sizes.sum(), 1.0), np.asarray(domains.q, dtype=np.float64)
    top = max(float(share.max(initial=0)), float(q.max(initial=0)), 1e-9)
    cards = [
        {
            "name": card.name,
            "size": int(card.size),
            "terms": list(card.terms)[:10],
            "nearest": list(card.nearest)[:3],
            "sources": top_sources(card.sources),
            "share": float(share[i]),
            "q": float(q[i]),
            "share_width": 100 * float(share[i]) / top,
            "q_width": 100 * float(q[i]) / top,
        }
        for i, card in enumerate(domains.cards)
    ]
    return sorted(cards, key=lambda card: -card["q"])


def _links(path: Path, folder: Path) -> list[tuple[str, str]]:
    found = []
    for name, text in (("run.html", "report"), ("run.ipynb", "notebook")):
        if (path / name).exists():
            relative = Path(os.path.relpath((path / name).resolve(), folder)).as_posix()
            found.append((text, quote(relative)))
    return found


def _names(run: RunLike) -> list[str]:
    names = domain_names(run)
    m = np.asarray(run.history["p"]).shape[-1] if "p" in run.history else len(names)
    return names if len(names) == m else [f"domain {i}" for i in range(m)]


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": lambda v: "–" if v is None else ("+" if v > 0 else "") + number(v),
        "percent": percent,
        "seconds": seconds,
        "amount": amount,
        "thousands": thousands,
    }
    return environment
