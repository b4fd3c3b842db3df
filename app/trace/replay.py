"""Make a finished run's files again from what is stored, and draw anew from a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pleinair.app.api import OnEvent, find, finish, home, run_table
from pleinair.app.paths import Paths
from pleinair.app.runs.copy_history import pictures
from pleinair.app.runs.events import read
from pleinair.app.runs.request import DrawRequest, new_order, read_order, require_given
from pleinair.app.runs.results import FORMAT, Facts, Result, deliver, files
from pleinair.app.runs.store import Run
from pleinair.app.runs.work import KEPT
from pleinair.app.trace.story import HEADING
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import Attempt, BadInput


def replay(run: str, out: str | None = None) -> Result:
    """Write a finished run's picture and record again, and the picture of every attempt; no model is called.

    Every stored picture, references too, is read and compared with its SHA-256 before anything is written.
    The record is the one that was written at the run's end, byte for byte, and so are the attempts' pictures,
    `…-attempt-0.png` and on.

    Args:
        run: a run's id, the beginning of one, or "last".
        out: the folder to write to; the run's own when None.

    Raises:
        BadInput: the run has not ended, or its log cannot be read.
        BadArtifact: a picture is missing, or no longer what it was.
        PleinairError: the disk is full or the folder is closed.
    """
    row = find(run)
    if row.outcome is None:
        raise BadInput(f"run {row.id}: it has not ended (status: {row.status}); wanted one that has")
    facts = _facts_of(row, home())
    for picture in pictures(facts.kept):
        facts.store.read(picture)
    folder = Path(out or facts.order.out).expanduser().absolute()
    deliver(facts, row.outcome, folder)
    picture_file, sidecar = files(row, facts.order, folder)
    for attempt in (Attempt.model_validate(one) for one in facts.kept.get("attempts", ())):
        file = picture_file.with_name(f"{picture_file.stem}-attempt-{attempt.number}.png")
        write_whole(file, facts.store.read(attempt.picture))
    return Result(row.id, row.outcome, row.seed, picture_file if row.outcome.best else None, sidecar)


def _facts_of(row: Run, places: Paths) -> Facts:
    """Read what a finished run's log says at its end; raises `BadInput` when it does not say it."""
    ends = [event.data for event in read(places.events(row.id)) if event.kind == "ended"]
    if not ends:
        raise BadInput(f"{places.events(row.id)}: it does not tell how the run ended")
    told = ends[-1]
    return Facts(
        run=row,
        order=read_order(row.order_json),
        heading={key: told[key] for key in HEADING if key in told},
        kept={key: told[key] for key in KEPT if key in told},
        store=ArtifactStore(places.run(row.id) / "pictures"),
        versions=told.get("versions", {}),
    )


def redraw(record: Path, *, out: str | None = None, on_event: OnEvent | None = None) -> Result:
    """Draw anew from the record beside a picture: the same prompt, seed and settings, as a new run.

    On the same machine, with the same models, library and versions, the picture has the same pixels.

    Raises:
        BadInput: the file is no record, or that of a fork or of a talk, which need other runs' history too;
            or a picture that was given with the prompt is not on this machine.
    """
    order, seed = _read_record(record)
    if order.parent:
        raise BadInput(f"{record}: run {order.parent.run} was forked for it; fork that again")
    if order.thread:
        raise BadInput(f"{record}: it is of a talk; `pleinair chat --after RUN` goes on with one")
    again = new_order(order.prompt, order.graph, seed, order.settings, out or order.out, order.strip_metadata)
    again = again.model_copy(update={"pictures": require_given(order.pictures, home())})
    return finish(run_table().add(again.model_dump_json(), seed), on_event)


def _read_record(record: Path) -> tuple[DrawRequest, int]:
    """Read what was asked, and the seed; raises `BadInput`."""
    try:
        told: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if told["format"] == FORMAT:
            return DrawRequest.model_validate(told["order"]), int(told["seed"])
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise BadInput(f"{record}: not a record that this pleinair can read") from error
    raise BadInput(f"{record}: its format is {told['format']}, this pleinair reads {FORMAT}")
