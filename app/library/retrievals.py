"""What the runs retrieved and used, from their events; cached in a file, so that each is read once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from pleinair.app.paths import Paths
from pleinair.app.runs.events import parse
from pleinair.app.runs.store import Runs
from pleinair.app.trace.trace import trace_of
from pleinair.tools.retrieve import best_score
from pleinair.tools.types import Retrieval, Value

VERSION = 1  # of the cache's lines; others are read from the events again
CHUNK = 256  # runs whose rows are read at a time


class Abstention(Value):
    """Retrieval of a run that abstained."""

    concept: str
    query: str
    best: float | None = None  # score of the best hit, a cosine; None without one
    threshold: float | None = None


class Retrieved(Value):
    """What one run that has ended retrieved."""

    v: int = VERSION
    run: str
    ended: float  # seconds since the epoch
    prompt: str = ""
    abstentions: tuple[Abstention, ...] = ()
    used: tuple[str, ...] = ()  # ids of the library images that it used
    damaged: bool = Field(default=False)  # whether its events cannot be read


class AllRetrieved(NamedTuple):
    """What all runs that have ended retrieved, the newest first, and how many cannot be read."""

    runs: list[Retrieved]
    damaged: int


class RetrievedCache:
    """What runs retrieved, by run; a run's events are read once, and the file may be deleted."""

    def __init__(self, runs: Runs, places: Paths) -> None:
        self._runs, self._places = runs, places
        self._file = places.cache / "retrieved.jsonl"
        self._lock = threading.Lock()
        self._records: dict[str, Retrieved] | None = None

    def all(self) -> AllRetrieved:
        """Return what the runs retrieved; raise `PleinairError` if the run table cannot be read."""
        with self._lock:
            if self._records is None:
                self._records = dict(_stored(self._file))
            ended = self._runs.ended()
            missing = [id for id, at in ended.items() if self._ended(id) != at]
            for start in range(0, len(missing), CHUNK):
                self._add(missing[start : start + CHUNK])
            records = [self._records[id] for id in ended if id in self._records]
        readable = [record for record in records if not record.damaged]
        readable.sort(key=lambda record: (record.ended, record.run), reverse=True)
        return AllRetrieved(readable, len(ended) - len(readable))

    def _ended(self, id: str) -> float | None:
        record = (self._records or {}).get(id)
        return record.ended if record else None

    def _add(self, ids: list[str]) -> None:
        """Read the events of runs and append what they retrieved to the file, if it can be written."""
        assert self._records is not None
        rows = self._runs.get_some(ids)
        read = [
            _read(id, rows[id].updated, rows[id].request_json, self._places)
            for id in ids
            if id in rows and not rows[id].damage
        ]
        self._records |= {record.run: record for record in read}
        lines = b"".join(record.model_dump_json(exclude_defaults=True).encode() + b"\n" for record in read)
        with suppress(OSError):  # then the events are read again
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(lines)


def _stored(path: Path) -> Iterator[tuple[str, Retrieved]]:
    """Yield the records of the file that can be read; the last one of a run counts."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValidationError):
            record = Retrieved.model_validate_json(line)
            if record.v == VERSION:
                yield record.run, record


def _read(id: str, ended: float, request: str, places: Paths) -> Retrieved:
    facts: dict[str, Any] = {"run": id, "ended": ended}
    with suppress(ValueError, TypeError, AttributeError):
        facts["prompt"] = str(json.loads(request).get("prompt", ""))
    try:
        trace = trace_of(parse(_ending(places.events(id).read_bytes())).events)
    except OSError:
        trace = None
    if trace is None:
        return Retrieved(**facts, damaged=True)
    references = (item for attempt in trace.attempts.values() for item in attempt.request.references)
    return Retrieved(
        **facts,
        abstentions=tuple(map(_abstention, filter(_is_gap, trace.retrievals.values()))),
        used=tuple(dict.fromkeys(reference.hit.id for reference in references)),
    )


def _ending(text: bytes) -> bytes:
    """Return the last line of a log if it tells the run's whole state, else all of the log."""
    start = text.rfind(b"\n", 0, len(text) - 1) + 1
    return text[start:] if parse(text[start:]).events and b'"kind":"ended"' in text[start:] else text


def _is_gap(retrieval: Retrieval) -> bool:
    """Return whether a library was searched and had nothing."""
    is_empty = retrieval.abstained and not (retrieval.excluded_by_license or retrieval.unmet)
    return is_empty and retrieval.threshold is not None


def _abstention(retrieval: Retrieval) -> Abstention:
    return Abstention(
        concept=retrieval.concept,
        query=retrieval.query,
        best=best_score(retrieval.hits),
        threshold=retrieval.threshold,
    )
