"""What stands at the head of the page, and notes under it: facts, what varied, licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rbkit.report.compare.level import level
from rbkit.report.compare.values import order
from rbkit.report.compare.variants import Comparison
from rbkit.report.offline import seal
from rbkit.report.page.averaged import side_by_side
from rbkit.report.page.text import shown, value
from rbkit.report.units import thousands
from rbkit.show.facts import parameter

_EACH = 4  # values said of what makes no variants


def intro(html: str | None) -> str:
    """Return a paragraph of HTML of the user's, without what fetches, runs or styles."""
    if not html:
        return ""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(seal(shown(html)), "html.parser")
    for tag in soup.find_all("style"):
        tag.decompose()
    for tag in soup.find_all(style=True):  # the policy allows our own style sheet only
        del tag["style"]
    return str(soup)


def facts(comparison: Comparison, info: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of what the runs have in common, in a line under the title."""
    corpus, shared = info.get("corpus") or {}, comparison.shared
    m = len((info.get("domains") or {}).get("names") or [])
    every_seed = {
        value(s): s for run in comparison.runs if (s := parameter(run, "seed")) is not None
    }
    seeds = sorted(every_seed.values(), key=order)
    devices = sorted({value(run.info["device"]) for run in comparison.runs
                      if run.info.get("device") is not None})  # fmt: skip
    steps, every = shared.get("steps"), shared.get("round_steps")
    many = len(seeds) > 6 and all(isinstance(seed, int) for seed in seeds)
    found = [
        ("corpus", corpus.get("name")),
        ("train examples", thousands(corpus.get("n_train"))),
        ("eval examples", thousands(corpus.get("n_eval"))),
        ("domains", m or None),
        ("model", shared.get("model")),
        ("steps", f"{steps:,} in rounds of {every}" if isinstance(steps, int) and every else steps),
        ("runs", len(comparison.runs)),
        ("variants", len(comparison.variants) if len(comparison.variants) > 1 else None),
        ("seed" if len(seeds) == 1 else "seeds",
         f"{len(seeds)}: {seeds[0]} to {seeds[-1]}" if many else ", ".join(map(value, seeds))),
        ("devices" if len(devices) > 1 else "device", ", ".join(devices)),
    ]  # fmt: skip
    return [(name, value(what)) for name, what in found if what not in (None, "", "none", "–")]


def varied(comparison: Comparison) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each parameter that varies, with its values and the number of runs of each."""
    names = [*comparison.varied, *_seed(comparison.runs)]
    return [(name, _values(comparison, name)) for name in names]


def beside(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what else was not the same in all runs, each with its values in words."""
    found = []
    for name in comparison.beside:
        values = [text for text, _ in _values(comparison, name)]
        more = f" and {len(values) - _EACH} more" if len(values) > _EACH else ""
        found.append((name, "; ".join(values[:_EACH]) + more))
    return found


def _values(comparison: Comparison, name: str) -> list[tuple[str, int]]:
    """Values of a setting as text, in order, with the number of runs of each."""
    given = [comparison.setting(run, name) for run in comparison.runs]
    counts = Counter(map(value, given))
    first = {value(each): each for each in given}
    return sorted(counts.items(), key=lambda item: order(first[item[0]]))


def _seed(runs: Sequence[Any]) -> list[str]:
    return ["seed"] if len({value(parameter(run, "seed")) for run in runs}) > 1 else []


def by_domain_note(comparison: Comparison) -> str:
    """Say which variants, and how many of their seeds, the losses by domain are of."""
    shown = side_by_side(comparison, len(comparison.variants))
    if not shown:
        return ""
    held = [f"{name} {value(what)}" for name, what in shown[0].values.items()
            if name not in ("mixer", "mixer_options")]  # fmt: skip
    n, of = len(shown[0].runs), max(len(variant.runs) for variant in comparison.variants)
    said = [] if of == 1 else [f"means over {n} seeds"]
    if n < of:
        which = f"means over {n} of {of} seeds, those that"
        if n == 1:
            which = f"seed {value(parameter(shown[0].runs[0], 'seed'))} alone, which"
        said = [f"{which} all have with the same domains"]
    said += [f"at {', '.join(held)}"] if held else []
    text = ", ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def left_out_note(comparison: Comparison) -> str:
    """Say which variants are not in figures of losses, and why."""
    names = [variant.label for variant in level(comparison).left_out]
    return f"Left out, as it is on another corpus: {', '.join(names)}." if names else ""


def licences(given: Any) -> list[dict[str, str]]:
    """Return the licences of a corpus, whatever was recorded as such."""
    items = [item for item in given or [] if isinstance(item, dict)]
    names = ("asset", "licence", "attribution", "url")
    found = [{name: str(item.get(name) or "") for name in names} for item in items]
    return [{**i, "url": i["url"].replace("https://", "").replace("http://", "")} for i in found]
