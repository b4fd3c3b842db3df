"""Every type that crosses a boundary: frozen values, plain JSON in state and logs, checked as they are read.

Pixels never appear here but in the two engine protocols; a picture elsewhere is its name in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, cast, get_args, runtime_checkable

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Vectors = NDArray[np.float32]  # [n, dim], L2-normalised rows
    Cosines = NDArray[np.float32]  # [pictures, texts]
    Features = NDArray[np.float32]  # [pictures, patches, channels]

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of width and height
Status = Literal["present", "missing", "unsure"]
Action = Literal["reword", "new_seed", "add_reference", "swap_reference", "inpaint"]
Ending = Literal["accepted", "unchecked", "stopped", "refused", "cancelled", "failed"]
Limit = Literal["attempts", "images", "mllm_calls", "tokens", "usd", "seconds"]  # the fields of a budget
Side = Annotated[int, Field(gt=0, multiple_of=8)]  # pixels
Steps = Annotated[int, Field(gt=0, le=1000)]
Guidance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, le=1)]  # of references; at 0 they are ignored
OnStep = Callable[[int, int], None]  # told the steps done and the steps in all; may raise to stop


def _formerly(name: str, old: str) -> AliasChoices:
    """Accept a field under its name and under the one that runs stored before 0.2 have."""
    return AliasChoices(name, old)


class Value(BaseModel):
    """Base of all boundary types: immutable; an unknown field, infinity and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Picture(Value):
    """Image in the artifact store, identified by the SHA-256 of its bytes."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mime: str = "image/png"
    width: int = Field(gt=0)  # pixels
    height: int = Field(gt=0)  # pixels


class Concept(Value):
    """One thing that must be visible, with a caption for retrieval."""

    name: str = Field(min_length=1)
    caption: str = Field(min_length=1)


class Row(Value):
    """State for one concept whether a picture shows it, and on what evidence."""

    concept: str
    status: Status
    confidence: float = Field(ge=0, le=1)  # that `status` is right
    evidence: str = ""
    box: Box | None = None
    advice: str = ""


def belief(row: Row) -> float:
    """Return the probability, 0 to 1, that the row's concept is in the picture."""
    return {"present": row.confidence, "missing": 1 - row.confidence, "unsure": 0.5}[row.status]


class Ledger(Value):
    """One row for every concept of the prompt; never a single score."""

    rows: tuple[Row, ...]


class Hit(Value):
    """Report one library picture found for a query, best first."""

    id: str  # the picture's file name inside its library
    score: float  # dense: cosine to the query, -1 to 1; lexical: BM25, over 0; hybrid: sum of 1 / (60 + rank)
    caption: str = ""
    license: str = "unknown"
    source: str = ""
    author: str = ""
    boxes: dict[str, Box] = Field(default_factory=dict)  # where named things stand in it


class Reference(Value):
    """Bind a found picture to the concept that it shows the generator."""

    concept: str
    hit: Hit
    picture: Picture
    box: Box | None = None  # where in the new picture it acts; None is everywhere
    crop: Box | None = None  # the part of `picture` that is sent; None is all of it


class Retrieval(Value):
    """Record what one look-up found, what was picked, and why it abstained if it did."""

    concept: str
    query: str
    hits: tuple[Hit, ...]
    threshold: float | None = Field(
        default=None, validation_alias=_formerly("threshold", "floor")
    )  # hits under this score are never picked
    abstained: bool = False
    reason: str = ""


class Repair(Value):
    """Plan the cheapest thing that may put one missing concept into the picture."""

    concept: str
    action: Action
    why: str = ""


class Inpaint(Value):
    """Ask that only one concept's place in a picture is painted anew; everything else is kept."""

    concept: str  # of the references only its own are shown for it; the others are of what is kept
    picture: Picture  # as large as the new one
    box: Box


class ImageOptions(Value):
    """Options of one image, in diffusers' argument names; None leaves a value to the generator."""

    width: Side | None = None
    height: Side | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    reference_strength: Strength | None = None
    negative_prompt: str | None = None

    def merged(self, stronger: ImageOptions) -> ImageOptions:
        """Return these options with those of `stronger` that are set."""
        return self.model_copy(update=stronger.model_dump(exclude_none=True))


class GenerateRequest(Value):
    """Request for one image to a generator, in diffusers' argument names."""

    prompt: str = Field(min_length=1)
    negative_prompt: str = ""
    references: tuple[Reference, ...] = ()
    height: Side
    width: Side
    num_inference_steps: Steps
    guidance_scale: Guidance
    reference_strength: Strength | None = Field(
        default=None, exclude_if=lambda value: value is None
    )  # None: the generator's own
    seed: int = Field(ge=0, lt=2**63)
    inpaint: Inpaint | None = Field(default=None, validation_alias=_formerly("inpaint", "repaint"))


class Leak(Value):
    """How much of a reference came across besides its concept, 0 to 1; None where it cannot be told."""

    concept: str  # the reference's
    id: str  # of its hit
    background: float | None = Field(default=None, ge=0, le=1)  # of what was not there without it
    copied: float = Field(ge=0, le=1)  # likeness of the whole; 1 is the same picture
    pose: float | None = Field(default=None, ge=0, le=1)  # likeness of the concept's outline, or its mirror's


class Attempt(Value):
    """Keep one generated picture together with what was sent for it and what was seen in it."""

    number: int = Field(ge=0)  # 0 is the draft
    request: GenerateRequest
    picture: Picture
    repairs: tuple[Repair, ...] = ()
    seconds: float = Field(ge=0)  # of drawing; in the usage are also those in which the models loaded
    ledger: Ledger | None = None
    leaks: tuple[Leak, ...] = ()  # one a reference that was compared
    offload_levels: tuple[str, ...] = Field(
        default=(), validation_alias=_formerly("offload_levels", "rungs")
    )  # levels that were tried so far, that of this image last


class Usage(Value):
    """Count what one step spent; a run's usage is the sum over its steps."""

    seconds: float = 0.0  # of work, so that the time a run lay dead does not count
    images: int = 0
    mllm_calls: int = 0
    tokens: int = 0  # read and written
    usd: float = 0.0

    @classmethod
    def total(cls, parts: Sequence[Usage]) -> Usage:
        """Return the sum of usages, field by field."""
        return cls(**{name: sum(getattr(part, name) for part in parts) for name in cls.model_fields})


class Budget(Value):
    """Limit a run; None means no limit of that sort."""

    attempts: int = Field(default=3, ge=0)  # pictures in all: the draft and its repairs
    images: int | None = Field(default=None, ge=0)
    mllm_calls: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, ge=0)


def limit_reached(limit: Limit, amount: float | None = None) -> str:
    """Return the sentence that says that a limit of a budget is reached, with its amount if that is known."""
    units = {"mllm_calls": "MLLM calls", "usd": "US dollars"}.get(limit, limit)
    unit = units.removesuffix("s") if amount == 1 else units
    return f"the limit {'on' if amount is None else f'of {amount:,.10g}'} {unit} is reached"


class Outcome(Value):
    """How a run ended, why, and with which image: the best one, which need not be the last."""

    ending: Ending
    reason: str  # a sentence for people; nothing decides on it
    limit: Limit | None = None  # the field of the budget that stopped the run
    best: Attempt | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, data: Any) -> Any:
        """Convert outcomes of 0.1, which had no `limit` and stated two facts in the reason alone."""
        if not isinstance(data, dict) or data.get("ending") != "stopped" or "limit" in data:
            return data
        reason = str(data["reason"])
        if reason.startswith("the result is not checked by this graph") and data.get("best"):
            return data | {"ending": "unchecked"}
        before, _, limit = reason.rpartition(": ")
        if limit not in get_args(Limit) or before not in ("", "drawn without a reference"):
            return data
        sentence = limit_reached(cast(Limit, limit))
        return data | {"limit": limit, "reason": f"{before}: {sentence}" if before else sentence}


class Capabilities(Value):
    """Declare what a generator can do; plan and select read this and never a model's name."""

    id: str  # engine, model and revision; part of every record
    slots: int = Field(ge=0)  # references that fit beside the prompt
    accepts: tuple[str, ...] = ("width", "height", "num_inference_steps", "guidance_scale")  # image options
    negative_prompt: bool = False
    boxes: bool = False  # whether it heeds a reference's box
    inpaint: bool = False  # whether it paints a box of a picture anew
    inpaint_slots: int = Field(default=0, ge=0)  # references that fit beside the picture then
    height: int  # pixels, the size it was trained for
    width: int
    multiple_of: int = Field(default=8, gt=0)  # pixels of a side, as far as that is known before it is loaded
    num_inference_steps: int
    draft_steps: int | None = None  # of a first look at a prompt; None draws it in full
    guidance_scale: float


class Generator(Protocol):
    """Draw one picture; `images` are the references', and last that of `inpaint`; tell `on_step` steps."""

    @property
    def capabilities(self) -> Capabilities: ...
    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image: ...


class Encoder(Protocol):
    """Map texts and RGB images into one space, as L2-normalised float32 rows [n, dim]."""

    @property
    def id(self) -> str: ...
    def encode_text(self, texts: Sequence[str]) -> Vectors: ...
    def encode_images(self, images: Sequence[Image]) -> Vectors: ...


class ImageSource(Protocol):
    """Images by their ids: `open` one, or list all `entries` in order, at score 0."""

    def open(self, id: str) -> Image: ...
    def entries(self) -> Sequence[Hit]: ...


class Searcher(Protocol):
    """Search for up to `k` images, best first; if `search` has a parameter `seed`, it receives the run's."""

    def search(self, query: str, k: int) -> list[Hit]: ...


@runtime_checkable
class Retriever(ImageSource, Searcher, Protocol):
    """Search a source of images."""


class Scorer(Protocol):
    """Score how well library images show texts, by the images alone and not by their captions."""

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines: ...


class PleinairError(Exception):
    """Base of the errors that a user can act on; its text is the message followed by the remedy.

    Args:
        message: what is wrong: the name, the value and what is accepted.
        remedy: what to do about it, as a sentence; "" where the message leaves no question.
    """

    remedy: str = ""
    spent: Usage = Usage()  # what was paid for before it was raised

    def __init__(self, message: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def message(self) -> str:
        """What is wrong, without the remedy."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message.removesuffix('.')}. {self.remedy}" if self.remedy else self.message

    def reworded(self, message: str) -> Self:
        """Return a copy with another message; class, remedy, cost and other fields stay."""
        other = type(self).__new__(type(self), message)
        other.__dict__ |= self.__dict__
        return other


class BadInput(PleinairError):
    """A value given by the user is not usable."""


class Refused(PleinairError):
    """A model or a rule declined the request."""


class ModelFault(PleinairError):
    """A model answered in a way that no retry is allowed to hide."""


class Cancelled(PleinairError):
    """The user asked the run to stop."""
