"""One span of a run's trace, without OpenTelemetry: deterministic ids and bounded attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal

Scalar = str | int | float | bool
Attributes = Mapping[str, Scalar]
Status = Literal["", "ok", "error"]

CORE = 400  # bytes of attributes that each span may have
SHARE = 12  # a span may have this part of the bytes that are left for all
MOST_BYTES = 80_000  # of attributes beyond `CORE`, of all spans of a run
MOST_SPANS = 180  # of a run
MOST_TEXT = 2_000  # bytes of one text
_OVERHEAD = 12  # bytes of an attribute beside its name and value
_DATA = re.compile(r"data:[\w/+.-]*;base64,[A-Za-z0-9+/=]*|[A-Za-z0-9+/]{256,}={0,2}")


def trace_id(run_id: str) -> int:
    """Return the 128-bit id of a run's trace."""
    return int.from_bytes(sha256(f"pleinair {run_id}".encode()).digest()[:16])


def span_id(run_id: str, key: str) -> int:
    """Return the 64-bit id of a span by its key in the run."""
    return int.from_bytes(sha256(f"pleinair {run_id} {key}".encode()).digest()[:8])


@dataclass(frozen=True)
class SpanEvent:
    """Event of a span."""

    name: str
    at: float  # seconds since the epoch
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """Link to the first span of another run."""

    run: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Span of a run's trace; it never changes, since it is built once its end is in the log."""

    run: str
    key: str  # its name in the run, of which the id is made
    name: str
    start: float  # seconds since the epoch
    end: float
    attributes: Attributes
    parent: str = ""  # key of the parent
    closed: int = 0  # number of the event that ended it
    status: Status = ""
    reason: str = ""  # of an error
    is_call: bool = False  # of a model, which may run elsewhere
    events: tuple[SpanEvent, ...] = ()
    links: tuple[Link, ...] = ()


def bounded(spans: list[Span]) -> list[Span]:
    """Return spans whose texts are shortened, so that a run takes less than 200 kB.

    The first `MOST_SPANS` stay, and the first span of the run, which says how many were left out. Each span
    has its share of what is left, in the order of the ends, so that later spans change no earlier one.
    """
    rest, result = MOST_BYTES, list[Span]()
    for number, span in enumerate(spans):
        if number >= MOST_SPANS and span.parent:
            continue
        if number >= MOST_SPANS:
            left_out = len([other for other in spans[MOST_SPANS:] if other.parent])
            span = replace(span, attributes={"pleinair.spans_left_out": left_out, **span.attributes})
        room = CORE + rest // SHARE
        short, used = _fitted(span, room)
        rest -= max(used - CORE, 0)
        result.append(short)
    return result


def _fitted(span: Span, room: int) -> tuple[Span, int]:
    """Return a span whose attributes, and then events, fit into some bytes, and the bytes."""
    attributes, used = _fit(span.attributes, room)
    events = []
    for event in span.events:
        if used + 100 > room:
            break
        shown, more = _fit(event.attributes, room - used - 60)
        events.append(replace(event, attributes=shown))
        used += more + 60
    reason = cut(plain(span.reason), 300)
    name = cut(plain(span.name), 120)
    return replace(span, name=name, attributes=attributes, events=tuple(events), reason=reason), used


def _fit(attributes: Attributes, room: int) -> tuple[dict[str, Scalar], int]:
    """Return the attributes that fit, the first ones first; texts are shortened, addresses are not."""
    fitting, used = dict[str, Scalar](), 0
    for name, value in attributes.items():
        value = plain(value) if isinstance(value, str) else value
        left = room - used - len(name) - _OVERHEAD
        size = len(value.encode()) if isinstance(value, str) else 8
        most = min(left, MOST_TEXT)
        if size > most:
            if not isinstance(value, str) or name.endswith(".url") or most < 40:
                continue
            value = cut(value, most)
            size = len(value.encode())
            fitting.pop(name.removesuffix(".value") + ".mime_type", None)  # it is no JSON any more
        fitting[name] = value
        used += len(name) + size + _OVERHEAD
    return fitting, used


def plain(text: str) -> str:
    """Return a text without images and other data in base64, and without halves of characters."""
    text = _DATA.sub(lambda data: f"[{len(data[0])} characters of data]", text)
    return text.encode(errors="replace").decode()


def cut(text: str, most: int) -> str:
    """Return a text of at most so many bytes, with a mark where it was shortened."""
    data = text.encode()
    return text if len(data) <= most else data[: max(most - 3, 0)].decode(errors="ignore") + "…"
