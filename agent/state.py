"""What a run remembers between steps: plain JSON in the checkpoint, checked models in the nodes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, Self

from pydantic import (
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from pleinair.tools.types import (
    Attempt,
    BadInput,
    Budget,
    Concept,
    GenerateRequest,
    Outcome,
    Repair,
    Retrieval,
    Usage,
)

MAX_PROMPT = 2000  # characters
MAX_SEED = 2**63 - 1
FAULTS = 3  # told at once


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that is empty, too long or no text."""
    if not prompt.strip():
        raise BadInput("prompt: it is empty; wanted a description of the picture")
    if len(prompt) > MAX_PROMPT:
        raise BadInput(f"prompt: {len(prompt):,} characters; wanted at most {MAX_PROMPT:,}")
    if "\0" in prompt:
        raise BadInput(f"prompt: a NUL character at position {prompt.index(chr(0))}; wanted text")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"prompt: half a character at position {error.start}; wanted valid Unicode") from error


def by_number(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge attempts: one of the same number is replaced, so a repeated step adds nothing."""
    merged = {attempt["number"]: attempt for attempt in (*old, *new)}
    return [merged[number] for number in sorted(merged)]


def by_concept(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge retrievals: a later look-up for a concept replaces the earlier one."""
    return list({retrieval["concept"]: retrieval for retrieval in (*old, *new)}.values())


class Input(BaseModel):
    """What a caller gives: a prompt, and optionally a seed, a run id and a budget; else `BadInput`."""

    prompt: str
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    run_id: str = ""
    budget: Budget = Budget()

    @field_validator("prompt")
    @classmethod
    def is_a_prompt(cls, prompt: str) -> str:
        """Refuse a prompt that nothing can be drawn for."""
        check_prompt(prompt)
        return prompt

    @model_validator(mode="wrap")
    @classmethod
    def told_plainly(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Say in one line what is wrong."""
        try:
            return handler(given)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)[:FAULTS]
            told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'input'}: {one['msg']}" for one in faults)
            raise BadInput(told) from error


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
    request: GenerateRequest | None = None  # the next picture, fixed before it is drawn


class RetrieveTask(TypedDict):
    """Input of one `retrieve` task: a concept as plain JSON, because LangGraph does not check a `Send`."""

    name: str
    caption: str
    seed: NotRequired[int]  # the run's; tasks stored before 0.2 have none


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
