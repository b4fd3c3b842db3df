"""State that a run takes over from another one: the steps before a fork, the chat before a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pleinair.app.paths import Paths
from pleinair.app.runs.request import ChatThread, Parent
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.types import BadInput, Picture, Reference, concept_key

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import CheckpointTuple

    from pleinair.agent.react.state import ReactState
    from pleinair.app.runs.checkpoints import Saver

TASKS = "__pregel_tasks"  # LangGraph's channel of the tasks that are sent
OWN = ("prompt", "seed", "run_id", "budget")  # fields of the input that a fork does not take over


def config_of(run_id: str, checkpoint: str | None = None) -> RunnableConfig:
    """Return LangGraph's configuration of a run, or of one of its checkpoints."""
    at = {"checkpoint_id": checkpoint} if checkpoint else {}
    return {"configurable": {"thread_id": run_id, "checkpoint_ns": "", **at}}


def copy_parent(run_id: str, parent: Parent, own_input: dict[str, Any], saver: Saver, places: Paths) -> None:
    """Copy a parent's history up to its step, with the fork's own input and request in the state there.

    The checkpoint at the step is written first and is the newest, so a crash in between loses earlier history
    and repeats nothing. Writes of the step's own tasks are not copied: they run again.

    Raises:
        BadInput: the parent's checkpoint is gone.
        BadArtifact: an image of the parent is missing or has changed.
    """
    at, *earlier = _history(places, parent)
    values = at.checkpoint["channel_values"]
    shown = _with_given(values, parent.given)
    own = {key: own_input[key] for key in OWN if key in values} | shown
    values |= own
    for snapshot in _snapshots(values):
        snapshot |= {key: value for key, value in own.items() if key in snapshot}
    versions = at.checkpoint["channel_versions"]
    versions |= dict.fromkeys(shown.keys() - versions.keys(), max(versions.values()))  # else it is not read
    if parent.request:
        values["request"] = {**values["request"], **parent.request}
    store, inputs = ArtifactStore(places.pictures(run_id)), ArtifactStore(places.input_images)
    given = [reference.picture for reference in parent.given]
    for picture in (*pictures_in(parent.request), *given):
        with suppress(BadArtifact):  # not exchanged: the parent has it
            store.adopt(picture, inputs)
    _adopt(pictures_in(values), parent.run, run_id, places)
    for checkpoint in (at, *earlier):
        copy_checkpoint(saver, run_id, checkpoint)


def _snapshots(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the states that tasks of a driving model are sent with."""
    for send in values.get(TASKS, ()):
        if isinstance(send.arg, dict) and "snapshot" in send.arg:
            yield send.arg["snapshot"]


def _with_given(values: dict[str, Any], given: Sequence[Reference]) -> dict[str, Any]:
    """Return what changes in a driving model's state so that nothing else shows the concepts of `given`."""
    keys, ids = {concept_key(each.concept) for each in given}, {each.hit.id for each in given}
    others = {
        name: [each for each in values.get(name, ()) if concept_key(each["concept"]) not in keys]
        for name in ("given", "pins")
    }
    others["given"] += [reference.model_dump(mode="json") for reference in given]
    vetoes = [id for id in values.get("vetoes", ()) if id not in ids]
    return {**others, "vetoes": vetoes} if given else {}


def _history(places: Paths, parent: Parent) -> list[CheckpointTuple]:
    """Return the parent's checkpoints, newest first, beginning with that of the step."""
    history = [at for at in _checkpoints(parent.run, places) if at.checkpoint["id"] <= parent.checkpoint]
    if not history or history[0].checkpoint["id"] != parent.checkpoint:
        raise BadInput(f"run {parent.run}: its checkpoint before {parent.step} is missing")
    return history


def _checkpoints(run_id: str, places: Paths, limit: int | None = None) -> list[CheckpointTuple]:
    """Return the checkpoints of a run, newest first; none if it was never started."""
    from pleinair.app.runs.checkpoints import has_begun, open_saver

    if not has_begun(places, run_id):
        return []
    with open_saver(places, run_id) as saver:
        return list(saver.list(config_of(run_id), limit=limit))


def copy_checkpoint(saver: Saver, run_id: str, checkpoint: CheckpointTuple) -> None:
    """Write a checkpoint of another run as one of this run."""
    before = checkpoint.parent_config
    config = config_of(run_id, before["configurable"]["checkpoint_id"] if before else None)
    saver.put(config, checkpoint.checkpoint, checkpoint.metadata, checkpoint.checkpoint["channel_versions"])


def pictures_in(value: Any) -> Iterator[Picture]:
    """Yield every image in a state, at any depth."""
    if isinstance(value, dict) and value.keys() == Picture.model_fields.keys():
        yield Picture.model_validate(value)
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from pictures_in(inner)


def chat_input(run_id: str, thread: ChatThread, places: Paths) -> dict[str, Any]:
    """Return the graph's input from the chat, after copying its images into the run's own store.

    Raises `BadArtifact` if an image of the run before, or an input image, is missing.
    """
    from pleinair.agent.react.state import Turn, last_turn_with_image
    from pleinair.agent.state import changed

    requested = changed(vetoes=thread.vetoes, pins=thread.pins, given=thread.given)
    store, inputs = ArtifactStore(places.pictures(run_id)), ArtifactStore(places.input_images)
    for reference in thread.given:
        store.adopt(reference.picture, inputs)
    fields = carried(thread, places)
    turn = last_turn_with_image([Turn.model_validate(turn) for turn in fields.get("turns", [])])
    if turn and turn.outcome.best:
        *others, last = (run for run in (*thread.between, thread.after) if run)
        for run in others:
            with suppress(BadArtifact):
                _adopt([turn.outcome.best.picture], run, run_id, places)
        _adopt([turn.outcome.best.picture], last, run_id, places)
    return fields | requested


def carried(thread: ChatThread, places: Paths) -> dict[str, Any]:
    """Return the input that the next request of a chat takes over from its runs; {} for the first one."""
    from pleinair.agent.react.state import archive_request

    before = state_of(thread.after, places) if thread.after else None
    fields = archive_request(before) if before else {}
    for run in thread.between:
        if state := state_of(run, places):
            fields = archive_request(_continuing(state, fields))
    return fields


def _continuing(state: ReactState, fields: dict[str, Any]) -> ReactState:
    """Return the state of a run of another graph as if it had continued the chat."""
    from langchain_core.messages import HumanMessage

    from pleinair.agent.react.state import ReactState, to_json
    from pleinair.agent.state import by_concept

    messages = [*fields.get("messages", []), *to_json(HumanMessage(state.prompt))]
    retrievals = by_concept(fields.get("retrievals", []), state.model_dump(mode="json")["retrievals"])
    update = fields | {"messages": messages, "retrievals": retrievals}
    return ReactState.model_validate(state.model_dump(mode="json") | update)


def _adopt(pictures: Iterable[Picture], parent: str, run_id: str, places: Paths) -> None:
    before, store = (ArtifactStore(places.pictures(id)) for id in (parent, run_id))
    for picture in pictures:
        store.adopt(picture, before)


def state_of(run_id: str, places: Paths) -> ReactState | None:
    """Return the state of a run of a chat; None if it was never started."""
    from pleinair.agent.react.state import ReactState

    newest = _checkpoints(run_id, places, limit=1)
    values = newest[0].checkpoint["channel_values"] if newest else {}
    fields = {key: value for key, value in values.items() if key in ReactState.model_fields}
    return ReactState.model_validate(fields) if "prompt" in fields else None
