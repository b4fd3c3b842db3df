"""Types that modules, processes and files exchange: frozen values, plain JSON in state and logs.

They are validated when they are built or read. Pixels appear in the protocols of generators and encoders
only; elsewhere an image is a `Picture`, its key in the artifact store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import not_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, cast, get_args, runtime_checkable

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Vectors = NDArray[np.float32]  # [n, dim], L2-normalised rows
    Cosines = NDArray[np.float32]  # [pictures, texts]
    Features = NDArray[np.float32]  # [pictures, patches, channels]

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of width and height
Status = Literal["present", "missing", "unsure"]
# "": the image as it is sent; "cut_out": its box in a second call, at more pixels; "unchanged": an earlier
# image, whose pixels this one has there
Basis = Literal["", "cut_out", "unchanged"]
Action = Literal["reword", "new_seed", "add_reference", "swap_reference", "inpaint"]
Approve = Literal["", "references", "draft"]  # asked before: nothing, the first references, the draft too
Ending = Literal["accepted", "unchecked", "stopped", "refused", "cancelled", "failed", "waiting"]
Limit = Literal["attempts", "images", "mllm_calls", "tokens", "usd", "seconds"]  # the fields of a budget
MAX_SIDE = 8192  # pixels of an image that is generated
SIZE_FIELD = "image.width"  # of errors about both sides
Side = Annotated[int, Field(gt=0, le=MAX_SIDE, multiple_of=8)]  # pixels
Steps = Annotated[int, Field(gt=0, le=1000)]
Guidance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, le=1)]  # of references; at 0 they are ignored
ScoreKind = Literal["", "cosine", "bm25", "rrf"]  # "": the retriever does not tell
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
Match = Literal["", "caption", "similarity", "both"]
INPUT_SOURCE = "given with the prompt"  # of an input image, in its hit
OnStep = Callable[[int, int], None]  # receives the steps done and the total; may raise to stop


class Value(BaseModel):
    """Base of these types: immutable; an unknown field, infinity and NaN are errors.

    The second of two aliases is the name in runs that were stored before 0.2.
    """

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


def without_article(name: str) -> str:
    """Return a concept's name without the article before it: "red car" of "a red car"."""
    return _ARTICLE.sub("", name)


def concept_key(name: str) -> str:
    """Return what is the same in all writings of a concept's name, such as "A Red  Car" and "red car"."""
    return without_article(" ".join(name.casefold().split()))


class Row(Value):
    """Judgement whether an image shows one concept, with the evidence."""

    concept: str
    status: Status
    confidence: float = Field(ge=0, le=1)  # that `status` is right
    evidence: str = ""
    box: Box | None = Field(default=None, description="x0, y0, x1, y1 as fractions of width and height")
    advice: str = ""
    # what was judged; it is in no schema that a model is sent, and no model sets it
    basis: SkipJsonSchema[Basis] = Field(default="", exclude_if=not_)


def belief(row: Row) -> float:
    """Return the probability, 0 to 1, that the image shows the row's concept."""
    return {"present": row.confidence, "missing": 1 - row.confidence, "unsure": 0.5}[row.status]


class Ledger(Value):
    """Critique of an image: one row for each concept of the prompt, and no overall score."""

    rows: tuple[Row, ...]


class QueryScores(Value):
    """Threshold of one query, relative to its own scores over a sample of the library."""

    threshold: float  # cosine: `margin` plus a share of `mean`
    mean: float  # cosine of the sampled images
    margin: float  # calibrated by the captions of the library
    sample: int  # images


class Hit(Value):
    """Library image that matches a query."""

    id: str  # path of the image inside its library
    score: float  # cosine to the query, -1 to 1; BM25, over 0; rrf: sum of 1 / (60 + rank)
    score_kind: ScoreKind = Field(default="", exclude_if=not_)
    matched_by: Match = Field(default="", exclude_if=not_)  # why hybrid retrieval counts it; "": it does not
    # the cosine of a hit whose score is by rank fusion
    similarity: float | None = Field(default=None, exclude_if=lambda value: value is None)
    caption: str = ""  # one a line
    # name of the MLLM that wrote the caption of a library's image; "": none did
    caption_model: str = Field(default="", exclude_if=not_)
    license: str = "unknown"
    source: str = ""
    author: str = ""
    boxes: dict[str, Box] = Field(default_factory=dict)  # of named objects in it
    # ids that a retriever left out for this one; `Retrieval.near_copies` has them once it is recorded
    near_copies: tuple[str, ...] = Field(default=(), exclude_if=not_)
    # of the query, where the threshold is relative to it; `Retrieval.query_scores` has them once recorded
    query_scores: QueryScores | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def captions(self) -> tuple[str, ...]:
        """Return the captions of the image, one a line of `caption`."""
        return tuple(self.caption.splitlines())


class Reference(Value):
    """Library image that shows the generator one concept, or an input image, which the prompt explains."""

    concept: str
    hit: Hit
    picture: Picture
    box: Box | None = None  # where in the generated image it acts; None: everywhere
    crop: Box | None = None  # the part of `picture` that is sent; None: all of it

    @property
    def label(self) -> str:
        """Return what a generator is told that the image shows; "" of an input image."""
        return "" if self.hit.source == INPUT_SOURCE else self.concept


class Retrieval(Value):
    """Hits of one query, best first, and whether retrieval abstained, with the reason."""

    concept: str
    query: str
    hits: tuple[Hit, ...]
    threshold: float | None = Field(
        default=None, validation_alias=AliasChoices("threshold", "floor")
    )  # hits below this score are never selected
    # from which the threshold follows, where it is relative to the query
    query_scores: QueryScores | None = Field(default=None, exclude_if=lambda value: value is None)
    abstained: bool = False
    reason: str = ""
    # by id: why a hit could not be read when it was to be used; the next hit took its place
    unavailable: dict[str, str] = Field(default_factory=dict, exclude_if=not_)
    # by id of an image that was left out: the better hit of which it is a copy
    near_copies: dict[str, str] = Field(default_factory=dict, exclude_if=not_)
    # by id of a hit: the line of the query that found it, where the query has several
    found_by: dict[str, str] = Field(default_factory=dict, exclude_if=not_)
    # ids of the images that would have counted; retrieval abstained for their licenses alone
    excluded_by_license: tuple[str, ...] = Field(default=(), exclude_if=not_)
    # by setting, such as "retrieval.tags": images that meet a condition alone; none meets all of them
    unmet: dict[str, int] = Field(default_factory=dict, exclude_if=not_)

    @model_validator(mode="after")
    def _take_from_hits(self) -> Self:
        """Keep near copies and the query's scores out of the hits, so that references do not repeat them."""
        copies = {id: hit.id for hit in self.hits for id in hit.near_copies}
        if copies or any(hit.query_scores for hit in self.hits):
            update = {"near_copies": (), "query_scores": None}
            hits = tuple(hit.model_copy(update=update) for hit in self.hits)
            # frozen: set as pydantic's own validators do
            self.__dict__.update(hits=hits, near_copies=copies | self.near_copies)
        return self

    def accepts(self, hit: Hit) -> bool:
        """Return whether a hit may be selected: it is readable and has a match, or a score that is enough."""
        if hit.id in self.unavailable:
            return False
        return self.threshold is None or is_match(hit, self.threshold)

    def query_of(self, hit: Hit) -> str:
        """Return the line of the query that found a hit; of one that was found otherwise the first."""
        return self.found_by.get(hit.id) or self.query.split("\n", 1)[0]

    def without(self, id: str, why: str) -> Retrieval:
        """Return the retrieval with a hit that cannot be read; without another one it abstains."""
        changed = self.model_copy(update={"unavailable": {**self.unavailable, id: why}})
        if self.abstained or any(changed.accepts(hit) for hit in self.hits):
            return changed
        reason = "no image that was found can be read any more"
        return changed.model_copy(update={"abstained": True, "reason": reason})


def is_match(hit: Hit, threshold: float) -> bool:
    """Return whether a hit counts: it has a match, or a score of `threshold` or more; -1 is no threshold.

    A score by rank fusion is compared with no threshold.
    """
    return bool(hit.matched_by) or threshold <= -1 or (hit.score_kind != "rrf" and hit.score >= threshold)


class Repair(Value):
    """Cheapest action that may bring one missing concept into the image."""

    concept: str
    action: Action
    why: str = ""


class Inpaint(Value):
    """Request to regenerate a part of an image; everything else stays.

    The part is the box of one concept, or, where `masked`, what is transparent in an image of the user's own.
    """

    concept: str  # only its references are sent; the others show what stays. "": all are sent
    picture: Picture  # of the request's size; where `masked` RGBA, of which alpha 0 is what changes
    box: Box  # where `masked` the one around it
    masked: bool = Field(default=False, exclude_if=not_)

    def sends(self, reference: Reference) -> bool:
        """Return whether a reference is sent."""
        return self.masked or reference.concept == self.concept


class ImageOptions(Value):
    """Options of one image, in diffusers' argument names; None leaves a value to the generator."""

    width: Side | None = None  # pixels
    height: Side | None = None  # pixels
    num_inference_steps: Steps | None = None  # diffusion steps; a draft may take fewer
    guidance_scale: Guidance | None = None  # weight of the prompt, as the model's class defines it
    reference_strength: Strength | None = None  # of all references; at 0 they are ignored
    negative_prompt: str | None = None  # what the image must not show

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
    announced: bool = Field(default=False, exclude_if=not_)  # whether the prompt says what references show
    seed: int = Field(ge=0, lt=2**63)
    inpaint: Inpaint | None = Field(default=None, validation_alias=AliasChoices("inpaint", "repaint"))


class Leak(Value):
    """How much of a reference besides its concept is in the image, 0 to 1; None: not measurable."""

    concept: str  # the reference's
    id: str  # of its hit
    background: float | None = Field(default=None, ge=0, le=1)  # beyond that of images without it
    copied: float = Field(ge=0, le=1)  # similarity of the whole images; 1: equal
    pose: float | None = Field(default=None, ge=0, le=1)  # of the concept's outline


class Attempt(Value):
    """One generated image with its request, its critique and the repairs that led to it."""

    number: int = Field(ge=0)  # 0 is the draft
    request: GenerateRequest
    picture: Picture
    repairs: tuple[Repair, ...] = ()
    seconds: float = Field(ge=0)  # of generation; loading the models counts in the usage only
    ledger: Ledger | None = None
    leaks: tuple[Leak, ...] = ()  # one for each reference that was compared
    offload_levels: tuple[str, ...] = Field(
        default=(), validation_alias=AliasChoices("offload_levels", "rungs")
    )  # those tried so far, this image's last


class Usage(Value):
    """Cost of one step; a run's usage is the sum over its steps."""

    seconds: float = 0.0  # of work; the time between a crash and the resume does not count
    images: int = 0
    mllm_calls: int = 0
    tokens: int = 0  # of input and output
    cached_tokens: int = Field(default=0, exclude_if=not_)  # of `tokens`: read from a provider's cache
    usd: float = 0.0

    @classmethod
    def total(cls, parts: Sequence[Usage]) -> Usage:
        """Return the sum of usages, field by field."""
        return cls(**{name: sum(getattr(part, name) for part in parts) for name in cls.model_fields})


class Budget(Value):
    """Limits of a run; None is no limit."""

    attempts: int = Field(default=3, ge=0)  # images of the loop: the draft and its repairs
    images: int | None = Field(default=None, ge=0)  # all generated images
    mllm_calls: int | None = Field(default=None, ge=0)  # calls of the MLLM
    tokens: int | None = Field(default=None, ge=0)  # of the MLLM and of generators that count them
    usd: float | None = Field(default=None, ge=0)  # US dollars, by the price table
    seconds: float | None = Field(default=None, ge=0)  # of a run; waits for a device or a person do not count


def limit_reached(limit: Limit, amount: float | None = None) -> str:
    """Return the sentence about a reached limit of a budget, with its amount if that is known."""
    units = {"mllm_calls": "MLLM calls", "usd": "US dollars"}.get(limit, limit)
    unit = units.removesuffix("s") if amount == 1 else units
    return f"the limit {'on' if amount is None else f'of {amount:,.10g}'} {unit} is reached"


class Outcome(Value):
    """Ending of a run, its reason, and the best image, which need not be the last."""

    ending: Ending
    reason: str  # a sentence for people; nothing decides on it
    limit: Limit | None = None  # the field of the budget that stopped the run
    accepted_by: Literal["", "person"] = Field(default="", exclude_if=lambda by: not by)  # "": by the ledger
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
    """Abilities of a generator; planning and selection depend on these and never on a model's name."""

    id: str  # backend, model and revision; stored with every image
    # what an image without references depends on beside the request: model, weights, arguments; "": the id
    sampler: str = ""
    slots: int = Field(ge=0)  # references that fit beside the prompt
    accepts: tuple[str, ...] = ("width", "height", "num_inference_steps", "guidance_scale")  # image options
    negative_prompt: bool = False
    placeholders: bool = False  # whether a prompt names its references as <img><|image_1|></img>
    boxes: bool = False  # whether a reference acts inside its box
    inpaint: bool = False  # whether it can regenerate a box of an image
    inpaint_slots: int = Field(default=0, ge=0)  # references beside the image then
    height: int  # pixels, by default
    width: int
    multiple_of: int = Field(default=8, gt=0)  # pixels of a side, as far as known before it is loaded
    max_pixels: int | None = None  # of an image, width × height; None: any number
    num_inference_steps: int
    draft_steps: int | None = None  # of the draft; None: all steps
    guidance_scale: float
    charged: bool = False  # whether an image may cost money
    batch: int = Field(default=1, gt=0, exclude_if=lambda count: count == 1)  # images one forward pass makes

    def with_options(self, options: ImageOptions) -> Capabilities:
        """Return them with the size, steps and guidance that some options set."""
        names = {"width", "height", "num_inference_steps", "guidance_scale"}
        return self.model_copy(update=options.model_dump(include=names, exclude_none=True))


class Generator(Protocol):
    """Generator of one image at a time; `images` are the references' and, last, that of `inpaint`.

    They are RGB, but for that of a mask (`Inpaint.masked`), which is RGBA; what is outside of a mask is
    restored in any case.
    """

    @property
    def capabilities(self) -> Capabilities: ...
    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image: ...


@runtime_checkable
class BatchGenerator(Protocol):
    """Generator whose `capabilities.batch` is more than 1."""

    def generate_batch(self, request: GenerateRequest, seeds: Sequence[int], on_step: OnStep) -> list[Image]:
        """Generate the image of a request without references, and after it those of further seeds.

        Where there is no room for all of them in one forward pass, only the first is returned.
        """


class Encoder(Protocol):
    """Encoder of texts and RGB images into one space: L2-normalised float32 rows [n, dim]."""

    @property
    def id(self) -> str: ...
    def encode_text(self, texts: Sequence[str]) -> Vectors: ...
    def encode_images(self, images: Sequence[Image]) -> Vectors: ...


class ImageSource(Protocol):
    """Images by their ids; `entries` are all of them, in order, with score 0."""

    def open(self, id: str) -> Image: ...
    def entries(self) -> Sequence[Hit]: ...


class Searcher(Protocol):
    """Search for up to `k` images, best first; a parameter `seed` of `search` receives the run's seed."""

    def search(self, query: str, k: int) -> list[Hit]: ...


class BatchSearcher(Searcher, Protocol):
    """Searcher of several texts at once, which a retriever may be; each has the hits that `search` finds."""

    def search_many(self, queries: Sequence[str], k: int) -> Sequence[list[Hit]]: ...


@runtime_checkable
class Retriever(ImageSource, Searcher, Protocol):
    """Searcher that can open the images it returns."""


class Scorer(Protocol):
    """Scorer of how well library images show texts, by the images and not by their captions."""

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Cosines: ...


class PleinairError(RuntimeError):
    """Base of the errors that a user can act on; `str` is the message followed by the remedy.

    It is a `RuntimeError` because LangGraph's server passes the message of those on, and hides others'.

    Args:
        message: what is wrong: the name, the value and what is accepted.
        remedy: what to do about it, as a sentence; "" if the message says it.
    """

    remedy: str = ""
    spent: Usage = Usage()  # before it was raised

    def __init__(self, message: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def message(self) -> str:
        """Return what is wrong, without the remedy."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message.removesuffix('.')}. {self.remedy}" if self.remedy else self.message

    def reworded(self, message: str) -> Self:
        """Return a copy with another message; class, remedy, cost and other fields stay."""
        other = type(self).__new__(type(self), message)
        other.__dict__ |= self.__dict__
        return other


class BadInput(PleinairError):
    """A value from the user is not usable.

    Args:
        message: as of `PleinairError`, like `remedy`.
        remedy: what to do about it.
        field: the argument of `draw` or the dotted setting that has it, the first of several; "" if none has.
    """

    field: str = ""

    def __init__(self, message: str = "", remedy: str = "", *, field: str = "") -> None:
        super().__init__(message, remedy)
        self.field = field


class NotFound(BadInput):
    """There is nothing of this name."""


class NoLibrary(BadInput):
    """The folder of a library does not exist, or has no usable image."""


class Refused(PleinairError):
    """A model or a rule declined the request."""


class ModelFault(PleinairError):
    """A model's output is not usable, and a retry would only hide it."""


class Cancelled(PleinairError):
    """The user asked the run to stop."""
