"""Requests and answers of the images interface, in OpenAI's names."""

from __future__ import annotations

from operator import not_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pleinair.app.api import DrawOptions
from pleinair.app.engines import declared_capabilities
from pleinair.app.runs.prompts import size_of_ratio
from pleinair.app.runs.request import DIRECT
from pleinair.app.server.v1.errors import ApiFault
from pleinair.app.server.v1.models import profile_of
from pleinair.app.settings import load
from pleinair.app.trace.view import RunView
from pleinair.tools.generate import check_options
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import BadInput, ImageOptions

AUTO: Literal["auto"] = "auto"
DRAFT = ("low", "draft")  # qualities for which one image is enough
BY_URL = ("dall-e-2", "dall-e-3")  # models that answer with addresses by default
BUILT_IN = (  # sizes of OpenAI's models
    "256x256",
    "512x512",
    "1024x1024",
    "1024x1536",
    "1536x1024",
    "1024x1792",
    "1792x1024",
)
Format = Literal["png", "webp", "jpeg"]
BEST = 100
Compression = Annotated[int, Field(ge=0, le=BEST)]  # quality of webp and jpeg


class PleinairOptions(BaseModel):
    """Options beyond OpenAI's; what is omitted follows the settings."""

    model_config = ConfigDict(extra="forbid")

    graph: str | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    reference_strength: float | None = None
    license: Licenses | None = None  # of references


def _without_empty(values: Any) -> Any:
    """Return fields without those that are null, which counts as omitted."""
    if not isinstance(values, dict):
        return values
    return {name: value for name, value in values.items() if value is not None}


class ImageRequest(BaseModel):
    """Request for images; what cannot change an image is accepted and not used."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3})$")] = AUTO
    quality: Literal[
        "auto", "low", "medium", "high", "xhigh", "max", "standard", "hd", "draft", "full"
    ] = AUTO  # fmt: skip
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Format = "png"
    output_compression: Compression = BEST
    background: Literal["auto", "opaque"] = AUTO
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    pleinair: Annotated[PleinairOptions, BeforeValidator(_without_empty)] = PleinairOptions()
    user: Any = None
    safety_identifier: Any = None
    moderation: Any = None
    metadata: Any = None
    style: Literal["vivid", "natural"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_values(cls, values: Any) -> Any:
        return _without_empty(values)

    @model_validator(mode="after")
    def _combined(self) -> ImageRequest:
        """Raise `ApiFault` for values that exclude each other."""
        if self.response_format == "url" and self.stream:
            raise _unsupported("response_format", "'url': a stream has the images themselves")
        if self.output_format == "png" and self.output_compression != BEST:
            raise _unsupported("output_compression", f"{self.output_compression}: only of webp and jpeg")
        return self

    @property
    def is_by_url(self) -> bool:
        """Whether images are answered by their addresses, as the models DALL·E do by default."""
        if self.response_format is None:
            return self.model in BY_URL
        return self.response_format == "url"

    @property
    def graph(self) -> str:
        """The graph: the one that is named, or the one of the quality."""
        return self.pleinair.graph or (DIRECT if self.is_draft else "pleinair")

    @property
    def is_draft(self) -> bool:
        """Whether one image is enough."""
        return self.quality in DRAFT

    def options(self) -> DrawOptions:
        """Return the options of the run; raises `ApiFault` for an unknown model."""
        options: DrawOptions = {
            "graph": self.graph,
            "profile": profile_of(self.model),
            "seed": self.pleinair.seed,
            "negative_prompt": self.pleinair.negative_prompt,
            "reference_strength": self.pleinair.reference_strength,
            "license": self.pleinair.license,
        }
        if self.size != AUTO:
            width, height = self._size(options["profile"])
            options |= {"width": width, "height": height}
        return options

    def _size(self, profile: str | None) -> tuple[int, int]:
        """Return width and height in pixels.

        Clients have a size of OpenAI's models built in: under the name of one, a size that the generator
        cannot have means its ratio, at the generator's own number of pixels.
        """
        width, height = map(int, self.size.split("x"))
        if profile is None and self.size in BUILT_IN:
            capabilities = declared_capabilities(load())
            try:
                check_options(ImageOptions(width=width, height=height), capabilities)
            except BadInput:
                return size_of_ratio(f"{width}:{height}", capabilities, "size")
        return width, height


class EditRequest(ImageRequest):
    """Request for images that show what the input images show, or change a part of the first one."""

    input_fidelity: Literal["low", "high"] | None = None


def _unsupported(param: str, fault: str) -> ApiFault:
    return ApiFault(f"{param} = {fault}", "unsupported_value", param=param)


class TokenDetails(BaseModel):
    """Tokens by kind; models do not count them separately."""

    image_tokens: int = 0
    text_tokens: int


class ImageUsage(BaseModel):
    """Tokens of all MLLM calls, and of generators that count them; they are not split."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int = 0
    total_tokens: int

    @classmethod
    def of(cls, tokens: int) -> ImageUsage:
        """Build the usage of so many tokens."""
        details = TokenDetails(text_tokens=tokens)
        return cls(input_tokens=tokens, input_tokens_details=details, total_tokens=tokens)


def _is_none(value: object) -> bool:
    return value is None


class ImageData(BaseModel):
    """One image, and the run that generated it."""

    b64_json: str | None = Field(default=None, exclude_if=_is_none)
    url: str | None = Field(default=None, exclude_if=_is_none)
    revised_prompt: str  # that of the image, as it was sent to the generator
    pleinair: RunView


class ImagesAnswer(BaseModel):
    """Images of a request, in the order of their seeds."""

    created: int  # seconds since the epoch
    data: list[ImageData]
    background: Literal["opaque"] = "opaque"
    output_format: Format
    quality: Literal["low", "high"]
    size: str  # of the first image
    usage: ImageUsage
    pleinair: list[RunView] = Field(default=[], exclude_if=not_)  # runs that ended without an image


class ImageEvent(BaseModel):
    """Event of a stream: a preview, or an image."""

    type: str
    b64_json: str
    created_at: int
    background: Literal["opaque"] = "opaque"
    output_format: Format
    quality: Literal["low", "high"]
    size: str


class PartialImage(ImageEvent):
    """Preview of an image in progress."""

    partial_image_index: int


class CompletedImage(ImageEvent):
    """Image of a run that has ended."""

    usage: ImageUsage
    revised_prompt: str
    pleinair: RunView
