"""The least and the most of something that is not known exactly, and how it is told."""

from __future__ import annotations

from pleinair.tools.types import Value


class Range(Value):
    """Hold the least and the most of something; None is not known, and `note` says why."""

    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """Put it into words."""
        if self.low is None and self.high is None:
            return "not known"
        if self.high is None:
            return f"at least {_number(self.low)}"
        if self.low == self.high:
            return _number(self.low)
        return f"{_number(self.low)} to {_number(self.high)}"


def both(one: Range, other: Range) -> Range:
    """Add two ranges; what is not known of one is not known of both."""
    lows, highs = (one.low, other.low), (one.high, other.high)
    low = None if None in lows else sum(filter(None, lows))
    high = None if None in highs else sum(filter(None, highs))
    return Range(low=low, high=high, note="; ".join(filter(None, (one.note, other.note))))


def product(count: Range, low: float, high: float | None, note: str, digits: int = 0) -> Range:
    """Multiply a count by what each takes at least and at most."""
    least = None if count.low is None else round(count.low * low, digits)
    most = None if count.high is None or high is None else round(count.high * high, digits)
    return Range(low=least, high=most, note=note)


def _number(value: float | None) -> str:
    """Write a number for people."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
