"""Give a fork its parent's history: the checkpoints before its step, and the pictures that they name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import Paths
from pleinair.app.runs.checkpoints import FencedSaver, open_saver
from pleinair.app.runs.request import Parent
from pleinair.app.runs.work import Work
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Picture

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple


ANEW = ("prompt", "seed", "run_id", "budget")  # of the input, what a fork has of its own


def graft(work: Work, saver: FencedSaver, parent: Parent, given: dict[str, Any]) -> None:
    """Copy the history up to the step, with `given` and the changed request in the state there.

    The checkpoint at the step is written first and is the newest, so a crash in between loses old history and
    repeats nothing. What tasks of the step itself had written stays behind: they run again.

    Raises:
        BadInput: the parent's checkpoint is gone.
        BadArtifact: a picture of the parent's is missing or changed.
    """
    at, *earlier = _history(work.places, parent)
    values = at.checkpoint["channel_values"]
    values |= {key: given[key] for key in ANEW if key in values}
    if parent.request:
        values["request"] = {**values["request"], **parent.request}
    past = ArtifactStore(work.places.run(parent.run) / "pictures")
    store = ArtifactStore(work.folder / "pictures")
    for picture in pictures(values):
        store.adopt(picture, past)
    for one in (at, *earlier):
        keep(saver, work.run.id, one)


def _history(places: Paths, parent: Parent) -> list[CheckpointTuple]:
    """Read the parent's checkpoints from the step's own back to the first."""
    path = places.run(parent.run) / "checkpoints.sqlite"
    found = []
    if path.exists():
        with open_saver(path, lambda: None) as saver:
            every = list(saver.list(thread(parent.run)))
        found = [one for one in every if one.checkpoint["id"] <= parent.checkpoint]
    if not found or found[0].checkpoint["id"] != parent.checkpoint:
        raise BadInput(f"run {parent.run}: its checkpoint before {parent.step} is gone")
    return found


def keep(saver: FencedSaver, run_id: str, one: CheckpointTuple) -> None:
    """Write a checkpoint of another run under this run's name."""
    before = one.parent_config["configurable"]["checkpoint_id"] if one.parent_config else None
    saver.put(thread(run_id, before), one.checkpoint, one.metadata, one.checkpoint["channel_versions"])


def thread(run_id: str, checkpoint: str | None = None) -> RunnableConfig:
    """Name a run, or one of its checkpoints, to LangGraph."""
    where = {"checkpoint_id": checkpoint} if checkpoint else {}
    return {"configurable": {"thread_id": run_id, "checkpoint_ns": "", **where}}


def pictures(value: Any) -> Iterator[Picture]:
    """Find every picture that a state names, however deep."""
    if isinstance(value, dict) and value.keys() == Picture.model_fields.keys():
        yield Picture.model_validate(value)
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from pictures(inner)
