"""What a run remembers between steps: plain JSON in the checkpoint, checked models in the nodes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from pleinair.tools.types import Attempt, Budget, Concept, Outcome, Repair, Request, Retrieval, Usage


def by_number(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge attempts: one of the same number is replaced, so a repeated step adds nothing."""
    merged = {attempt["number"]: attempt for attempt in (*old, *new)}
    return [merged[number] for number in sorted(merged)]


def by_concept(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge retrievals: a later look-up for a concept replaces the earlier one."""
    return list({retrieval["concept"]: retrieval for retrieval in (*old, *new)}.values())


class Input(BaseModel):
    """What a caller gives: a prompt, and optionally a seed, a run id and a budget."""

    prompt: str
    seed: int = 0
    run_id: str = ""
    budget: Budget = Budget()


class Output(BaseModel):
    """What a caller gets: the outcome, every attempt with its request and ledger, and the cost."""

    outcome: Outcome | None = None
    attempts: Annotated[list[Attempt], by_number] = Field(default_factory=list)
    retrievals: Annotated[list[Retrieval], by_concept] = Field(default_factory=list)
    usage: Annotated[list[Usage], operator.add] = Field(default_factory=list)


class State(Input, Output):
    """The working state; a field without a reducer is replaced."""

    concepts: list[Concept] = Field(default_factory=list)
    repairs: list[Repair] = Field(default_factory=list)
    request: Request | None = None  # the next picture, fixed before it is drawn


class LookUp(TypedDict):
    """One `retrieve` task: a concept as plain JSON, because LangGraph does not check a `Send`."""

    name: str
    caption: str


def changed(**fields: Any) -> dict[str, Any]:
    """Give a node's partial state as plain JSON, so that a checkpoint holds no class names."""
    return {name: plain(value) for name, value in fields.items()}


def plain(value: Any) -> Any:
    """Dump models, and models inside lists and tuples, to JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
