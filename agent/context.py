"""Context of a run: engines and options, passed to every node and never checkpointed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, get_type_hints, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, InstanceOf, ValidationError, create_model
from pydantic_core import CoreSchema, core_schema

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.tools.arguments import complaint
from pleinair.tools.callbacks import Stop, no_callback
from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.protocols import check_part
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.registry import did_you_mean
from pleinair.tools.retrieval.crossmodal.captions import CaptionBook
from pleinair.tools.types import (
    Approve,
    BadInput,
    Budget,
    Capabilities,
    Generator,
    ImageOptions,
    Retriever,
    Scorer,
    Usage,
)

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pleinair.tools.storage.artifacts import ArtifactStore

ImageUrl = Literal["file", "data", "link"]
_REQUIRED = ("model", "generator", "retriever", "store")
_PARTS = (*_REQUIRED, "paper_retriever", "scorer")  # objects; the other fields are values


@runtime_checkable
class ProvableModel(Protocol):
    """Chat model on a server, which may turn out to take no images, or not to exist."""

    @property
    def is_proven(self) -> bool:
        """Return whether it is known to answer and to take images."""

    def prove(self) -> Usage:
        """Find out by a small call unless it is known; return its cost, or raise what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Engines and options of one run.

    Raises:
        BadInput: a part does not follow its protocol, or an option has a wrong type or range.
    """

    model: BaseChatModel  # for every MLLM call
    generator: Generator  # of the images
    retriever: Retriever  # over the user's library
    store: ArtifactStore  # of all images; the state has only their SHA-256
    paper_retriever: Retriever | None = None  # for the papers' graphs; None: the same
    k: Annotated[int, Field(ge=1)] = 4  # hits per concept
    threshold: FiniteFloat | None = 0.0  # cosine under which retrieval abstains; None: the retriever sets it
    image: ImageOptions = ImageOptions()  # of every request; those of the graph's input come first
    budget: Budget = Budget()  # of every run; limits of the graph's input come first
    crops: CropOptions = CropOptions()  # of references, down to their concept
    leak: LeakOptions = LeakOptions()  # measures from which on a reference has leaked
    imagerag: ImageRAGOptions = ImageRAGOptions()  # for the graph of that name only
    realrag: RealRAGOptions = RealRAGOptions()  # likewise
    crossmodal: CrossmodalOptions = CrossmodalOptions()  # likewise, and the two below
    scorer: Scorer | None = None  # the dense stage; without one the retriever's own scores
    captions: CaptionBook = field(default_factory=CaptionBook)  # written for images without one
    # called with the steps done and in all; raises Cancelled to stop, as may its `check()` in between
    on_step: Callable[[int, int], None] = no_callback
    previews: bool = False  # whether previews of the image are put on the custom stream
    approve: Approve = ""  # what a person is asked before it is generated; the papers' graphs ask nothing
    # form of the output's field: where it is stored, the PNG, or its path on LangGraph's server
    image_url: ImageUrl = "file"
    trace_images: bool = False  # whether LangSmith's traces contain the images of MLLM calls
    stop: Stop = field(default_factory=Stop)  # set by the graph when its caller is gone

    def __post_init__(self) -> None:
        for part in _PARTS:
            if part in _REQUIRED or getattr(self, part) is not None:
                check_part(part, getattr(self, part))
        options = _options()
        try:
            options.model_validate({name: getattr(self, name) for name in options.model_fields})
        except ValidationError as error:
            raise BadInput(complaint(error, prefix="context.")) from error

    @property
    def of_papers(self) -> Self:
        """Return the context of the papers' graphs, which search and open images by their own retriever."""
        return self.with_retrievers(self.paper_retriever or self.retriever, None)

    def with_retrievers(self, retriever: Retriever, papers: Retriever | None) -> Self:
        """Return a copy with other retrievers."""
        return replace(self, retriever=retriever, paper_retriever=papers)

    def capabilities(self, options: ImageOptions) -> Capabilities:
        """Return the generator's capabilities with the options that the settings and a request set."""
        declared = self.generator.capabilities
        if not isinstance(declared, Capabilities):
            raise BadInput(
                f"context.generator: `capabilities` is a {type(declared).__name__}; wanted a Capabilities of "
                "pleinair.tools.types"
            )
        return declared.with_options(self.image.merged(options))

    @property
    def asks_first(self) -> bool:
        """Return whether the first MLLM call comes before the first image, because that may be wasted.

        It may where an image costs money, and where the model has not been called yet.
        """
        is_unknown = isinstance(self.model, ProvableModel) and not self.model.is_proven
        return self.generator.capabilities.charged or is_unknown

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """Return a schema for LangGraph's tools; the properties are Python objects, which have no JSON."""
        parts = {part.name: {"description": f"a Python object, {part.type}"} for part in fields(cls)}
        required = [part.name for part in fields(cls) if part.default is part.default_factory is MISSING]
        schema = {"title": cls.__name__, "description": cls.__doc__, "type": "object"}
        return schema | {"properties": parts, "required": required}


def is_parts(value: Any) -> bool:
    """Return whether a context is a dict of parts, and not of settings."""
    return isinstance(value, dict) and any(part in value for part in _REQUIRED)


def from_parts(values: dict[str, Any]) -> Context:
    """Return a context of a dict of its fields; raises `BadInput` for an unknown, missing or bad one."""
    accepted = [part.name for part in fields(Context)]
    for key in values:
        if key not in accepted:
            hint = did_you_mean(str(key), accepted)
            raise BadInput(f"context: unknown key {key!r}; accepted: {', '.join(accepted)}.{hint}")
    if missing := [part for part in _REQUIRED if part not in values]:
        raise BadInput(
            f"context: {', '.join(missing)} missing",
            "`pleinair.app.engines.build` makes all parts; replace yours by `dataclasses.replace`.",
        )
    return Context(**{key: _option(key, value) for key, value in values.items()})


def _option(name: str, value: Any) -> Any:
    """Return a table as the model of the field of that name, and anything else as it is."""
    annotation = _annotations()[name]
    if not (isinstance(value, dict) and _is_model(annotation)):
        return value
    try:
        return annotation.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise BadInput(complaint(error, annotation, prefix=f"context.{name}.")) from error
    except TypeError as error:
        raise BadInput(f"context.{name}: {error}; wanted a table of JSON values") from error


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


@cache
def _annotations() -> dict[str, Any]:
    unchecked = {"BaseChatModel": Any, "ArtifactStore": Any}  # names that exist for type checkers only
    return get_type_hints(Context, localns=unchecked, include_extras=True)


@cache
def _options() -> type[BaseModel]:
    """Return a model of the fields that are no parts."""
    options: dict[str, Any] = {
        # a model's own fields are not strict
        name: (InstanceOf[kind] if _is_model(kind) else kind, ...)  # type: ignore[misc, valid-type]
        for name, kind in _annotations().items()
        if name not in _PARTS
    }
    return create_model(
        "Options", __config__=ConfigDict(strict=True, arbitrary_types_allowed=True), **options
    )
