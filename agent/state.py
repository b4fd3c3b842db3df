"""State of a run: plain JSON in the checkpoint, checked models in the nodes."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, Self

from langgraph.channels import UntrackedValue
from pydantic import BaseModel, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from typing_extensions import TypedDict

from pleinair.tools.arguments import complaint
from pleinair.tools.deadline import seconds_left
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Budget,
    Concept,
    GenerateRequest,
    ImageOptions,
    Limit,
    Outcome,
    Picture,
    Repair,
    Retrieval,
    Usage,
    limit_reached,
)

IMAGE = Usage(images=1)  # expenses that `State.limit` checks
MLLM_CALL = Usage(mllm_calls=1)
IMAGE_AND_CRITIQUE = Usage(images=1, mllm_calls=1)
MAX_PROMPT = 2000  # characters
MAX_SEED = 2**63 - 1
MAX_ERRORS = 3  # in one message


def check_prompt(prompt: str) -> None:
    """Raise `BadInput` for a prompt that is empty, too long or not valid Unicode."""
    if not prompt.strip():
        raise BadInput("prompt: it is empty; wanted a description of the image", field="prompt")
    if len(prompt) > MAX_PROMPT:
        raise BadInput(f"prompt: {len(prompt):,} characters; wanted at most {MAX_PROMPT:,}", field="prompt")
    if "\0" in prompt:
        message = f"prompt: a NUL character at position {prompt.index(chr(0))}; wanted text"
        raise BadInput(message, field="prompt")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        message = f"prompt: half a character at position {error.start}; wanted valid Unicode"
        raise BadInput(message, field="prompt") from error


Items = Sequence[dict[str, Any]]


def by_number(attempts: Items, update: Items) -> list[dict[str, Any]]:
    """Merge attempts: one of the same number is replaced, so a repeated step adds nothing (a reducer)."""
    merged = {attempt["number"]: attempt for attempt in (*attempts, *update)}
    return [merged[number] for number in sorted(merged)]


def by_concept(retrievals: Items, update: Items) -> list[dict[str, Any]]:
    """Merge retrievals: a later one for a concept replaces the earlier one (a reducer)."""
    return list({retrieval["concept"]: retrieval for retrieval in (*retrievals, *update)}.values())


class Input(BaseModel):
    """Input of every graph; values of wrong types and ranges raise `BadInput`."""

    prompt: str  # what the image is to show, 1 to 2,000 characters
    seed: int = Field(default=0, ge=0, le=MAX_SEED)  # of the first image; later ones derive theirs from it
    run_id: str = ""  # under which costs and artifacts are recorded
    budget: Budget = Budget()  # limits of the run
    image: ImageOptions = ImageOptions()  # options of every image

    @model_validator(mode="wrap")
    @classmethod
    def _raise_bad_input(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise BadInput(complaint(error, cls, most=MAX_ERRORS)) from error


class ImageInput(Input):
    """Input of every graph that generates from references."""

    # input images, already in the store; they take slots, and stay with a thread until replaced
    pictures: list[Picture] = Field(default_factory=list)


class EditInput(ImageInput):
    """Input of a graph that can change a part of an image."""

    # image of which only the transparent part changes, in the store as RGBA; it stays with a thread, too
    base: Picture | None = None


UNTRACKED = frozenset({"image_url", "postponed"})  # fields that are in no checkpoint and no event


class Output(BaseModel):
    """Output of every graph."""

    outcome: Outcome | None = None  # how the run ended, with the best image
    attempts: Annotated[list[Attempt], by_number] = Field(default_factory=list)  # in the order of generation
    retrievals: Annotated[list[Retrieval], by_concept] = Field(default_factory=list)  # the last per concept
    usage: Annotated[list[Usage], operator.add] = Field(default_factory=list)  # of each step
    # the best image: a file:// or fsspec URL, or a data: URL, as the context says; in no checkpoint
    image_url: Annotated[str | None, UntrackedValue] = None


def spending_limit(budget: Budget, spent: Usage, spend: Usage) -> Limit | None:
    """Return the first limit, except attempts and seconds, that forbids `spend` after `spent`; else None."""
    counted: tuple[Limit, ...] = ("images", "mllm_calls")
    for name in counted:
        maximum = getattr(budget, name)
        if maximum is not None and getattr(spent, name) + getattr(spend, name) > maximum:
            return name
    measured: tuple[Limit, ...] = ("tokens", "usd")
    for name in measured:
        maximum = getattr(budget, name)
        if maximum is not None and getattr(spent, name) >= maximum:
            return name
    return None


class State(ImageInput, Output):
    """Working state of every graph; a field without a reducer is replaced."""

    concepts: list[Concept] = Field(default_factory=list)  # what must be visible
    repairs: list[Repair] = Field(default_factory=list)  # of the next attempt
    request: GenerateRequest | None = None  # the next image's, set before anything is spent on it
    asks_first: bool = False  # whether the first MLLM call comes before the draft, and not beside it
    # the `PleinairError` of that call beside the draft, raised when the draft is stored; in no checkpoint
    postponed: Annotated[Any, UntrackedValue] = Field(default=None, exclude=True)

    @property
    def concept_names(self) -> list[str]:
        """Return the names of the concepts, in their order."""
        return [concept.name for concept in self.concepts]

    def limit(self, spend: Usage) -> Limit | None:
        """Return the first limit of the budget that forbids `spend`, None if none does.

        Tokens, money and seconds of a step are not known before it: they forbid once they are reached, so a
        run may exceed them by at most one step.
        """
        if spend.images and len(self.attempts) >= self.budget.attempts:
            return "attempts"
        if limit := spending_limit(self.budget, Usage.total(self.usage), spend):
            return limit
        return "seconds" if self.seconds_left <= 0 else None

    def stopped(self, limit: Limit | None, best: Attempt | None, before: str = "") -> Outcome:
        """Return the outcome of a run that a limit stopped, None being the seconds, which end within a step.

        `before` is the first part of the reason.
        """
        limit = limit or "seconds"
        reason = limit_reached(limit, getattr(self.budget, limit))
        return Outcome(ending="stopped", limit=limit, reason=f"{before}{reason}", best=best)

    @property
    def calls_left(self) -> int:
        """Return the remaining MLLM calls; without a limit 2, enough for one answer and its repair."""
        if self.budget.mllm_calls is None:
            return 2
        return self.budget.mllm_calls - Usage.total(self.usage).mllm_calls

    @property
    def seconds_left(self) -> float:
        """Return the remaining seconds, infinity without a limit: of the run, else of the steps' work."""
        if self.budget.seconds is None:
            return math.inf
        remaining = seconds_left()
        if remaining < math.inf:
            return remaining
        return self.budget.seconds - Usage.total(self.usage).seconds


class EditState(State, EditInput):
    """Working state of a graph that can change a part of an image."""


class RetrieveTask(TypedDict):
    """Input of one `retrieve` task: concepts as plain JSON, because LangGraph does not check a `Send`."""

    concepts: NotRequired[list[dict[str, Any]]]  # ImageRAG's captions have a query on each line
    seed: NotRequired[int]  # the run's; tasks stored before 0.2 have none
    name: NotRequired[str]  # of the only concept, in a task that was stored before there were several
    caption: NotRequired[str]


def changed(**fields: Any) -> dict[str, Any]:
    """Return a node's update of the state as plain JSON, so that a checkpoint has no class names."""
    return {name: plain(value) for name, value in fields.items()}


def plain(value: Any) -> Any:
    """Convert models, and models inside lists, tuples and dicts, to JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
