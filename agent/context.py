"""What a run works with: engines and knobs, handed to every node and never checkpointed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pydantic_core import CoreSchema, core_schema

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.tools.callbacks import no_callback
from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.realrag import RealRAGOptions
from pleinair.tools.retrieval.crossmodal.captions import CaptionBook
from pleinair.tools.types import Capabilities, Generator, ImageOptions, Retriever, Scorer

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pleinair.tools.storage.artifacts import ArtifactStore


_DEFAULTS = {"width", "height", "num_inference_steps", "guidance_scale"}  # that capabilities declare


@dataclass(frozen=True, kw_only=True)
class Context:
    """Engines and knobs of one run."""

    model: BaseChatModel
    generator: Generator
    retriever: Retriever
    store: ArtifactStore
    k: int = 4  # hits looked at for a concept
    threshold: float = 0.0  # cosine similarity under which retrieval abstains
    image: ImageOptions = ImageOptions()  # of every request; what the graph's input sets goes first
    crops: CropOptions = CropOptions()
    leak: LeakOptions = LeakOptions()
    imagerag: ImageRAGOptions = ImageRAGOptions()  # read by the graph of that name only
    realrag: RealRAGOptions = RealRAGOptions()  # likewise
    crossmodal: CrossmodalOptions = CrossmodalOptions()  # likewise, and the two below
    scorer: Scorer | None = None  # the dense stage; without one the retriever's own scores
    captions: CaptionBook = field(default_factory=CaptionBook)  # written for pictures without one
    # steps done, steps in all; raises Cancelled to stop, and its `check()`, if it has one, does between steps
    on_step: Callable[[int, int], None] = no_callback
    previews: bool = False  # put small pictures of what is being drawn on the custom stream

    def capabilities(self, options: ImageOptions) -> Capabilities:
        """Return the generator's capabilities with the options that the settings and a request set."""
        values = self.image.merged(options).model_dump(include=_DEFAULTS, exclude_none=True)
        return self.generator.capabilities.model_copy(update=values)

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
        """Name the parts to LangGraph's tools; they are Python's objects, which JSON cannot hold."""
        parts = {one.name: {"description": f"a Python object, {one.type}"} for one in fields(cls)}
        wanted = [one.name for one in fields(cls) if one.default is one.default_factory is MISSING]
        facts = {"title": cls.__name__, "description": cls.__doc__}
        return facts | {"type": "object", "properties": parts, "required": wanted}
