"""Arguments of the tools: what a client sends, its JSON Schema, and what is said of a fault."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pleinair.agent.state import MAX_SEED
from pleinair.app.library.opened import MAX_QUERY
from pleinair.app.mcp.judging import MAX_CONCEPTS
from pleinair.app.runs.request import MAX_IMAGES, MAX_INPUT_IMAGES
from pleinair.app.settings import profiles
from pleinair.tools import registry
from pleinair.tools.arguments import complaint
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import Approve, BadInput, Ending

MOST_RUNS = 50  # of a list
MOST_HITS = 24  # of a search
MOST_SECONDS = 300.0  # of one `wait`
SECONDS = 50.0  # which ends before the limit of most clients, 60 seconds
COUNTED_UP = 1_000_000
IMAGE = "SHA-256 of a stored image, run id (its best image) or, for a local client, absolute path"
_Arguments = TypeVar("_Arguments", bound="Arguments")


def _decoded(value: Any) -> Any:
    """Return a list or table that a client has sent as a text with its JSON."""
    if isinstance(value, str) and value.strip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _size(value: str) -> str:
    if not re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", value):
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 1024x768")
    return value


Decoded = BeforeValidator(_decoded)
Size = Annotated[str, AfterValidator(_size)]
Names = Annotated[tuple[str, ...], Decoded]
ByConcept = Annotated[dict[str, str], Decoded]
RunId = Annotated[str, Field(max_length=64, description="Run id, its beginning, or `last`.")]
Profile = Annotated[
    str | None, Field(description="Models to use; those of the settings if omitted.", max_length=200)
]


class Arguments(BaseModel):
    """Base of the arguments; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(Arguments):
    """Arguments of `start`."""

    prompt: str = Field(description="What the image must show, in plain words.")
    n: int | None = Field(
        None, ge=1, le=MAX_IMAGES, description="Number of images; each is a run of its own."
    )
    graph: str | None = Field(
        None,
        description="`pleinair`, the default, judges the image and repairs it with references from the "
        "library; `direct` only generates.",
    )
    profile: Profile = None
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Random if omitted.")
    size: Size | None = Field(None, description="WIDTHxHEIGHT in pixels, such as 1024x768.")
    negative_prompt: str | None = Field(None, description="What the image must not show.")
    input_images: Names = Field(
        (),
        max_length=MAX_INPUT_IMAGES,
        description=f"The user's own images as first references: each {IMAGE}.",
    )
    base: str = Field("", description=f"Image of which only a part is to change (graph `direct`): {IMAGE}.")
    mask: str = Field(
        "",
        description="PNG of the base's size, transparent where it changes; the base's alpha if omitted.",
    )
    approve: Approve = Field(
        "", description="Ask a person before the first image with `references`, or before the `draft` too."
    )
    license: Licenses | None = Field(
        None, description="References only of `known` licenses, or `free` to use commercially and to change."
    )
    idempotency_key: str | None = Field(
        None, max_length=200, description="A second call with the key and request returns the same runs."
    )


class Wait(Arguments):
    """Arguments of `wait`."""

    run: RunId
    seconds: float = Field(SECONDS, ge=0, le=MOST_SECONDS, description="Longest time to wait.")


class Show(Arguments):
    """Arguments of `show`."""

    run: RunId
    attempt: int | None = Field(
        None, ge=0, le=COUNTED_UP, description="Number of the attempt to look at; the best one if omitted."
    )


class Answer(Arguments):
    """Arguments of `answer`; HIT is the number of a reference in the question, or its id."""

    run: RunId
    stop: bool = Field(False, description="End the run with its images so far.")
    vetoes: Names = Field((), description="HITs never to be used in this run.")
    hits: ByConcept = Field({}, description="HIT that is to show a concept, by concept.")
    without: Names = Field((), description="Concepts that get no reference.")
    input_images: ByConcept = Field({}, description="The user's own image by concept, named as in start.")
    concepts: ByConcept = Field({}, description="New names by concept; references are retrieved anew.")
    prompt: str = Field("", description="Prompt in place of the run's.")
    question: str = Field(
        "", max_length=64, description="Key of the question that is answered; refused if it has changed."
    )


class Cancel(Arguments):
    """Arguments of `cancel`."""

    run: RunId
    accept: bool = Field(False, description="End it as accepted with its best image so far.")


class SearchLibrary(Arguments):
    """Arguments of `search_library`."""

    query: str = Field(max_length=MAX_QUERY, description="What the image should show.")
    k: int = Field(6, ge=1, le=MOST_HITS, description="Number of images.")
    profile: Profile = None


class ListRuns(Arguments):
    """Arguments of `list_runs`."""

    search: str = Field("", max_length=MAX_QUERY, description="Words of the prompt.")
    status: Literal["queued", "running", Ending] | None = None
    limit: int = Field(10, ge=1, le=MOST_RUNS)
    offset: int = Field(0, ge=0, le=COUNTED_UP)


class Critique(Arguments):
    """Arguments of `critique`."""

    image: str = Field(description=f"{IMAGE}.")
    prompt: str = Field("", description="What the image must show; a run's own prompt if omitted.")
    concepts: Names = Field(
        (), max_length=MAX_CONCEPTS, description="What to judge; read from the prompt if omitted."
    )
    profile: Profile = None


def read_arguments(model: type[_Arguments], values: dict[str, Any] | None) -> _Arguments:
    """Return the arguments of a call; null counts as omitted. Raises `BadInput`."""
    present = {name: value for name, value in (values or {}).items() if value is not None}
    try:
        return model.model_validate(present)
    except ValidationError as error:
        raise BadInput(complaint(error, model, most=3)) from error


def schema_of(model: type[Arguments]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, with the graphs and profiles that there are.

    What may be omitted has no type null, which some clients cannot read.
    """
    schema = model.model_json_schema()
    properties: dict[str, Any] = schema["properties"]
    for name, property in properties.items():
        property.pop("title", None)
        if types := property.pop("anyOf", None):
            property |= next(kind for kind in types if kind.get("type") != "null")
        if property.get("default") in (None, "", (), [], {}):
            property.pop("default", None)
        if name in ("graph", "profile"):
            property["enum"] = registry.names("graph") if name == "graph" else list(profiles())
    required = {"required": schema["required"]} if "required" in schema else {}
    return {"type": "object", "properties": properties, **required, "additionalProperties": False}
