"""Numbers as people read them in a report."""

from __future__ import annotations

from typing import Any


def thousands(value: Any) -> str:
    """Write a number with commas; a dash for what is not known."""
    return f"{value:,}" if isinstance(value, int | float) else "–"


def percent(value: float | None) -> str:
    """Write a percentage with two digits that say something.

    Examples
    --------
    >>> percent(0.04673), percent(12.345), percent(None)
    ('0.047 %', '12.35 %', '–')
    """
    if value is None:
        return "–"
    if value == 0:
        return "0 %"
    return f"{value:.2f} %" if value >= 0.1 else f"{value:.2g} %"


def seconds(value: float | None) -> str:
    """Write a time in the unit that fits it.

    Examples
    --------
    >>> seconds(0.0141), seconds(41.9), seconds(335)
    ('14.1 ms', '41.9 s', '5 min 35 s')
    """
    if value is None:
        return "–"
    if value >= 100:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def amount(value: float | None, unit: str = "") -> str:
    """Write a number with a metric prefix.

    Examples
    --------
    >>> amount(2.4e12), amount(4_000_000, "B")
    ('2.4 T', '4 MB')
    """
    if value is None:
        return "–"
    size = float(value)
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(size) < 1000:
            return f"{size:.3g} {prefix}{unit}".rstrip()
        size /= 1000
    return f"{size:.3g} E{unit}"
