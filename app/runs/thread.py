"""A run that follows another one in a talk: what it takes over of what was said, drawn and found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_order
from pleinair.app.runs.work import Work
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Picture

if TYPE_CHECKING:
    from pleinair.agent.react.state import ReactState
    from pleinair.app.runs.store import Run


def carried(work: Work) -> dict[str, Any]:
    """Give the graph's input that comes from the talk, with its pictures in the run's own store.

    Raises `BadArtifact` when a picture of the run before, or one that the user gave, is gone.
    """
    thread = work.order.thread
    if thread is None:
        return {}
    from pleinair.agent.react.state import Turn, archive_request, last_turn_with_image
    from pleinair.agent.state import changed

    store, wanted = ArtifactStore(work.folder / "pictures"), changed(**dict(thread))
    _adopt([one.picture for one in thread.given], ArtifactStore(work.places.given), store)
    before = state_of(thread.after, work.places) if thread.after else None
    if before is None:
        return {key: value for key, value in wanted.items() if key != "after"}
    kept = archive_request(before)
    turn = last_turn_with_image([Turn.model_validate(one) for one in kept["turns"]])
    shown = [turn.outcome.best.picture] if turn and turn.outcome.best else []
    _adopt(shown, ArtifactStore(work.places.run(thread.after) / "pictures"), store)
    return kept | {key: value for key, value in wanted.items() if key != "after"}


def _adopt(pictures: Sequence[Picture], past: ArtifactStore, store: ArtifactStore) -> None:
    """Copy pictures from one store to another."""
    for picture in pictures:
        store.adopt(picture, past)


def state_of(run_id: str, places: Paths) -> ReactState | None:
    """Read what a run remembers; None where it never began."""
    from pleinair.agent.react.state import ReactState
    from pleinair.app.runs.checkpoints import open_saver
    from pleinair.app.runs.copy_history import thread

    path = places.run(run_id) / "checkpoints.sqlite"
    if not path.exists():
        return None
    with open_saver(path, lambda: None) as saver:
        found = saver.get_tuple(thread(run_id))
    values = found.checkpoint["channel_values"] if found else {}
    known = {key: value for key, value in values.items() if key in ReactState.model_fields}
    return ReactState.model_validate(known) if "prompt" in known else None


def is_talk(run: Run) -> bool:
    """Tell whether a run may be followed by another one."""
    return read_order(run.order_json).thread is not None
