"""What a run remembers between steps: plain JSON in the checkpoint, checked models in the nodes."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from pydantic import BaseModel, Field

from pleinair.tools.types import Attempt, Budget, Concept, Outcome, Repair, Request, Retrieval, Usage


class Input(BaseModel):
    """What a caller gives: a prompt, and optionally a seed, a run id and a budget."""

    prompt: str
    seed: int = 0
    run_id: str = ""
    budget: Budget = Budget()


class Output(BaseModel):
    """What a caller gets: the outcome, and every attempt with its request and ledger."""

    outcome: Outcome | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    usage: list[Usage] = Field(default_factory=list)


class State(Input, Output):
    """The working state. Lists grow by reducers; everything else is replaced."""

    started: float = 0.0  # seconds since the epoch, set by the first step
    concepts: list[Concept] = Field(default_factory=list)
    attempts: Annotated[list[Attempt], operator.add] = Field(default_factory=list)
    retrievals: Annotated[list[Retrieval], operator.add] = Field(default_factory=list)
    usage: Annotated[list[Usage], operator.add] = Field(default_factory=list)
    repairs: list[Repair] = Field(default_factory=list)
    request: Request | None = None  # the next picture, fixed before it is drawn


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
