"""A run in training in words and numbers: the same in panel, final figure and terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from rbkit.show.live.facts import LiveFacts
from rbkit.show.live.series import Series
from rbkit.show.style import number, shorten

UNKNOWN = "–"
_SAID = {
    "waiting": "waiting to begin",
    "running": "running",
    "ok": "finished",
    "failed": "FAILED",
    "interrupted": "INTERRUPTED",
    "killed": "KILLED",
}


class Told(NamedTuple):
    """A number of a run: what it is, how much, and what to compare it with."""

    what: str
    value: str
    beside: str = ""


def printable(facts: LiveFacts) -> LiveFacts:
    """Return facts whose names and error cannot move a cursor, turn text or hide in it."""
    return replace(
        facts, name=_printable(facts.name), mixer=_printable(facts.mixer),
        names=tuple(_printable(name) for name in facts.names),
        worst_name=None if facts.worst_name is None else _printable(facts.worst_name),
        error=None if facts.error is None else _printable(facts.error),
    )  # fmt: skip


def _printable(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c.isprintable()) or "?"


def status_said(facts: LiveFacts) -> str:
    """Status of a run in a word; in capitals if it did not end well."""
    return _SAID.get(facts.status, facts.status)


def went_wrong(facts: LiveFacts) -> bool:
    """Whether a run ended otherwise than by making all its steps."""
    return facts.status not in ("waiting", "running", "ok")


def progress_said(facts: LiveFacts) -> str:
    """Say how far a run is, and how long it will take."""
    steps = f"step {facts.step:,}" + (f" of {facts.steps:,}" if facts.steps else "")
    if facts.status == "running":
        return f"{steps}, {duration(facts.eta_seconds)} to go" if facts.eta_seconds else steps
    return steps


def numbers(facts: LiveFacts) -> list[Told]:
    """Return what there is to say of a run in numbers, in a fixed order.

    What is not known is a dash, so that a view does not jump.
    """
    q = number(facts.effective_target, 1)
    flops, seconds = percent(facts.overhead.flops), percent(facts.overhead.seconds)
    share = None if facts.noise_share is None else 100 * facts.noise_share
    told = [
        Told("eval loss", last(facts.evaluation), "nats per token"),
        Told("worst domain", last(facts.worst), shorten(facts.worst_name or "", 32)),
        Told("training loss", last(facts.train), "nats per token"),
        Told("effective domains", number(facts.effective, 1), f"of {facts.m:,}; target {q}"),
        Told("noise floor", percent(share), "of the diagonal of G"),
        Told("tokens per second", whole(facts.tokens_per_second)),
        Told("time", duration(facts.seconds)),
        Told("price of adapting", flops, f"of the FLOPs; {seconds} of the time"),
        Told("views", percent(facts.watch_percent), "of the time"),
    ]
    return [line if line.value != UNKNOWN else Told(line.what, UNKNOWN) for line in told]


def last(series: Series) -> str:
    """Last known value of a curve, with three digits."""
    values = [value for value in series.values[-50:].tolist() if value == value]
    return number(values[-1] if values else None)


def percent(value: float | None) -> str:
    """Write a percentage with two digits that say something.

    Examples
    --------
    >>> percent(0.04673), percent(12.345), percent(None)
    ('0.047 %', '12.3 %', '–')
    """
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0 %"
    return f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def whole(value: float | None) -> str:
    """Write a rate without decimals, with commas."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Write a time in the unit that fits it.

    Examples
    --------
    >>> duration(4.2), duration(335), duration(11_100), duration(200_000), duration(None)
    ('4 s', '5 min 35 s', '3 h 05 min', '2 d 7 h', '–')
    """
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
