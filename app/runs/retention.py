"""Deletion of runs: their rows, folders, and input images that nothing else uses.

Results in the folders of requests are the user's files and are never touched. The rows go first, in one
transaction that notes what is still to be removed; what a killed process then leaves is shown nowhere, and
the next deletion removes it. Not covered: an image that is sent anew in the moment in which the last run
with it is deleted.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pleinair.app.paths import Paths
from pleinair.app.runs.database import Connection
from pleinair.app.runs.listing import RunFilter
from pleinair.app.runs.store import Runs
from pleinair.app.runs.tables import OPEN
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import BadInput, Picture

Reason = Literal["open", "thread", "parent", "unknown"]  # why a run stays
REASONS: dict[Reason, str] = {
    "open": "it has not ended",
    "thread": "it is in a chat thread",
    "parent": "another run was forked from it, or will continue from it",
    "unknown": "there is none",
}
AGES = {"h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}
SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LISTED_ALONE = 16  # runs whose files on object storage are listed run by run
NOTE = (
    "INSERT INTO deleted (id, images) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET images = excluded.images"
)
MOST_VALUES = 10_000  # of one statement
_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Deletion(NamedTuple):
    """Runs that are deleted, with the bytes of their folders, and why others stay."""

    sizes: dict[str, int]
    kept: dict[str, Reason]


def delete(runs: Runs, places: Paths, ids: Collection[str], *, threads: bool = False) -> Deletion:
    """Delete runs, and what earlier deletions have left.

    Args:
        runs: the run table.
        places: of the runs.
        ids: of the runs; with the one that keeps a parent, the parent goes too.
        threads: whether runs of chat threads are deleted too; a thread shows that its image is gone.
    """
    with runs.transaction() as db:
        kept = _kept(db, ids, threads)
        deleted = [id for id in ids if id not in kept]
        for id in deleted:
            images = json.dumps(sorted(_images_in(_texts(db, id))))
            db.execute(NOTE, (id, images))
            runs.forget(db, id)
    sizes = sizes_of(deleted, places)
    sweep(runs, places)
    return Deletion(sizes, kept)


def planned(runs: Runs, places: Paths, ids: Collection[str], *, threads: bool = False) -> Deletion:
    """Return what `delete` would do; writes nothing."""
    with runs.readable() as db:
        kept = _kept(db, ids, threads)
    return Deletion(sizes_of([id for id in ids if id not in kept], places), kept)


def prunable(
    runs: Runs,
    places: Paths,
    *,
    older_than: float | None = None,
    larger_than: int | None = None,
    status: str = "",
) -> list[str]:
    """Return the ids of the runs that retention deletes, the oldest first; some of them may have to stay.

    Args:
        runs: the run table.
        places: of the runs.
        older_than: seconds since a run changed last.
        larger_than: bytes of all runs; the oldest ones are deleted until the others are under it.
        status: only runs with this status.
    """
    where, values = RunFilter(status=status).where()
    query = f"SELECT id, status, updated FROM runs WHERE {where} ORDER BY updated, id"
    with runs.readable() as db:
        rows = db.execute(query, values).fetchall()
        closed = [row["id"] for row in rows if row["status"] not in OPEN]
        every = [row["id"] for row in db.execute("SELECT id FROM runs")]
        before = time.time() - (older_than or 0)
        old = {row["id"] for row in rows if older_than is not None and row["updated"] < before}
    if larger_than is None:
        return [id for id in closed if id in old or older_than is None]
    sizes = sizes_of(every, places)
    excess = sum(sizes.values()) - larger_than
    chosen = []
    for id in closed:
        if id in old or excess > 0:
            chosen.append(id)
            excess -= sizes[id]
    return chosen


def sizes_of(ids: Collection[str], places: Paths) -> dict[str, int]:
    """Return the bytes of runs on this machine and on object storage, 0 of one without files."""
    sizes = {id: sum(Folder(places.run(id)).sizes().values()) for id in ids}
    if places.objects and len(ids) <= _LISTED_ALONE:
        sizes = {id: size + sum(places.files(id).sizes().values()) for id, size in sizes.items()}
    elif places.objects:  # all are listed, a thousand files with each request
        for name, size in places.all_files.sizes().items():
            if (id := name.partition("/")[0]) in sizes:
                sizes[id] += size
    return sizes


def seconds_of(age: str) -> float:
    """Return the seconds of an age such as 30d, 12h or 2w; raises `BadInput`."""
    return _measured(age, AGES, "an age such as 12h, 30d or 4w")


def bytes_of(size: str) -> int:
    """Return the bytes of a size such as 500MB or 2GB; raises `BadInput`."""
    return int(_measured(size.upper(), SIZES, "a size such as 500MB or 2GB"))


def size_text(size: int) -> str:
    """Return a size for people."""
    unit = next((unit for unit in ("GB", "MB", "KB") if size >= SIZES[unit]), "KB")
    return f"{size / SIZES[unit]:.1f} {unit}"


def _measured(text: str, units: Mapping[str, float], wanted: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", text.strip())
    if match is None or match[2] not in units:
        raise BadInput(f"{text!r}: must be {wanted}")
    return float(match[1]) * units[match[2]]


def _kept(db: Connection, ids: Collection[str], threads: bool) -> dict[str, Reason]:
    """Return the runs that stay, and why."""
    statuses = {row["id"]: row["status"] for row in _rows(db, "SELECT id, status FROM runs WHERE id IN", ids)}
    kept: dict[str, Reason] = {id: "unknown" for id in ids if id not in statuses}
    kept |= {id: "open" for id, status in statuses.items() if status in OPEN}
    if not threads:
        used = {
            run for row in db.execute("SELECT thread_json FROM threads") for run in _RUN_ID.findall(row[0])
        }
        kept |= {id: "thread" for id in ids if id in used and id not in kept}
    users = _users(db)
    while added := {
        id for id in ids if id not in kept and any(u not in ids or u in kept for u in users.get(id, ()))
    }:
        kept |= dict.fromkeys(added, "parent")
    return kept


def _users(db: Connection) -> dict[str, set[str]]:
    """Return for each run those that were forked from it, or that are open and continue from it."""
    query = (
        "SELECT id, status, order_json FROM runs WHERE instr(order_json, '\"parent\":{') > 0 "
        "OR (outcome_json IS NULL AND instr(order_json, '\"thread\":{') > 0)"
    )
    users: dict[str, set[str]] = {}
    for id, status, text in db.execute(query):
        for run in _before(text, status in OPEN):
            users.setdefault(run, set()).add(id)
    return users


def _before(text: str, is_open: bool) -> list[str]:
    """Return the runs that a request needs: its parent, and those of its chat until it has ended."""
    try:
        request = json.loads(text)
        parent, thread = request.get("parent") or {}, (is_open and request.get("thread")) or {}
        runs = [parent.get("run"), thread.get("after"), *thread.get("between", ())]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []  # damaged: it cannot go on either
    return [run for run in runs if run]


def _rows(db: Connection, query: str, ids: Collection[str]) -> Iterator[Any]:
    """Yield the rows of ids, of any number, of a query that ends in IN."""
    every = list(ids)
    for start in range(0, len(every), MOST_VALUES):
        part = every[start : start + MOST_VALUES]
        yield from db.execute(f"{query} ({', '.join('?' * len(part))})", part)


def _texts(db: Connection, id: str) -> tuple[Any, ...]:
    return tuple(db.execute("SELECT order_json, answer_json FROM runs WHERE id = ?", (id,)).fetchone())


def _images_in(texts: Iterable[Any]) -> set[str]:
    return {name for text in texts if isinstance(text, str) for name in _SHA256.findall(text)}


def sweep(runs: Runs, places: Paths) -> None:
    """Remove the folders of deleted runs, and those of their input images that no run and no thread uses."""
    with runs.readable() as db:
        deleted = {row["id"]: json.loads(row["images"]) for row in db.execute("SELECT * FROM deleted")}
        used = _used_images(db) if any(deleted.values()) else set()
    store = ArtifactStore(places.input_images)
    for id, images in deleted.items():
        Folder(places.run(id)).remove()
        places.files(id).remove()
        for name in set(images) - used:
            store.remove(Picture(sha256=name, width=1, height=1))
        with runs.transaction() as db:
            db.execute("DELETE FROM deleted WHERE id = ?", (id,))


def _used_images(db: Connection) -> set[str]:
    requests = db.execute("SELECT order_json, answer_json FROM runs")
    threads = db.execute("SELECT thread_json FROM threads")
    return _images_in(text for row in (*requests, *threads) for text in row)
