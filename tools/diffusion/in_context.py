"""In-context conditioning: references stand beside the prompt in the transformer's sequence.

Drives FLUX.2 klein (with and without reuse of the references' keys and values) and dev, FLUX.1 Kontext,
Qwen-Image-Edit-Plus, OmniGen, Z-Image-Omni, and the pocket generator, which has FLUX.2 klein's classes.
A box that is painted anew has a class of its own, which `INPAINTING` names.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pleinair.tools.diffusion.call import scaled
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import IN_CONTEXT
from pleinair.tools.diffusion.inpaint import Job
from pleinair.tools.diffusion.loading import open_pipeline
from pleinair.tools.diffusion.memory import ReferencePlan, Size, Tokens, choose, make_plan
from pleinair.tools.diffusion.prompt import checked, with_placeholders, with_sentences
from pleinair.tools.types import GenerateRequest, Guidance, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


@dataclass(eq=False)
class InContext(DiffusersEngine):
    """Generate with references in the sequence; further arguments are those of `DiffusersEngine`.

    Args:
        max_sequence_length: text tokens; the class's own number unless set.
        text_encoder_out_layers: hidden states of FLUX.2's text encoder that are stacked.
        max_sequence: the longest sequence of text, picture and references, in tokens, that the memory
            takes; references are made smaller to stay within it, and what is over it in any case is refused
            before anything runs. Without it there is no limit.
        memory_limit: as of every engine; references are made smaller too, by an estimate that only some
            families have; see `pleinair.tools.diffusion.memory`.
        wording: the sentence that tells of each reference what it shows, with {number} and {concept}; the
            family's own unless set, and none where it is empty.
    """

    engine: ClassVar[str] = "in_context"
    families = IN_CONTEXT

    pipeline: str = "Flux2KleinPipeline"
    num_inference_steps: Steps = 4
    guidance_scale: Guidance = 1.0
    max_sequence_length: Annotated[int, Field(gt=0)] | None = None
    text_encoder_out_layers: Sequence[int] = ()
    max_sequence: Annotated[int, Field(ge=1)] | None = None
    wording: str | None = None

    def __post_init__(self) -> None:
        """Add the named arguments to the options, and check all."""
        checked(self.wording or "")
        self._fitting: int | None = None  # tokens that memory has room for, by the estimate
        named = {
            "max_sequence_length": self.max_sequence_length,
            "text_encoder_out_layers": tuple(self.text_encoder_out_layers),
        }
        self.options = {**self.options, **{name: value for name, value in named.items() if value}}
        super().__post_init__()

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the pipeline, and let it take small references."""
        return _without_floor(open_pipeline(folder, self.pipeline, dtype, self.variant))

    def conditioning(
        self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]
    ) -> dict[str, Any]:
        """Give the scaled references, and the prompt with what the family wants said of them."""
        family = self.family
        prompt, names = request.prompt, [reference.concept for reference in request.references]
        if family.placeholder:
            prompt = with_placeholders(prompt, names, len(images), family.placeholder)
        else:
            wording = family.wording if self.wording is None else self.wording
            prompt = with_sentences(prompt, names, wording, first=2 if self._again(request) else 1)
        unit = pipeline.vae_scale_factor * family.patch
        inpainting = self.inpainting if request.inpaint else None
        sizes = [image.size for image in images]
        planned = self.plan(unit, (request.width, request.height), sizes, again=self._again(request))
        if not images:
            return {"prompt": prompt}
        small, takes = [scaled(image, planned.size, unit) for image in images], inpainting or family
        return {"prompt": prompt, takes.images: small if takes.listed else small[0]}

    def plan(
        self, unit: int, picture: Size, references: Sequence[Size], *, again: bool = False
    ) -> ReferencePlan:
        """Predict the sequence, with smaller references where it would be too long; see `make_plan`.

        `again` is for a picture that stands in it a second time, to be painted in.
        """
        longest, limit = self.reference_size, _least(self.max_sequence, self._fitting)
        tokens = self._tokens(unit, picture, again)
        planned = make_plan(tokens, picture, references, longest=longest, limit=limit)
        log.debug("a sequence of %d tokens, references of %d pixels", planned.tokens, planned.size)
        if planned.size < longest:
            log.warning(
                "References are scaled to %d pixels, not %d: the sequence is limited to %d tokens.",
                planned.size,
                longest,
                limit,
            )
        return planned

    def foresee(self, job: Job) -> None:
        """Choose a rung where the picture will fit before weights are placed, or raise `OutOfMemory`.

        Does nothing where memory has no known limit, and looks at the weights alone without an estimate.
        """
        ladder, self._fitting = self._ladder, None
        found = self._foreseen(ladder.device) if ladder else None
        if ladder is None or found is None or not found[0].token:
            return super().foresee(job)
        needs, room = found
        picture, sizes = (job.request.width, job.request.height), [image.size for image in job.images]
        tokens = self._tokens(needs.unit, picture, self._again(job.request))

        def plan(most: int | None) -> int:
            limit = _least(self.max_sequence, most)
            return make_plan(tokens, picture, sizes, longest=self.reference_size, limit=limit).tokens

        rung, self._fitting = choose(needs, ladder.left, room, plan)
        if rung != ladder.rung:
            ladder.lower(rung, needs.text(ladder.rung, plan(None)))

    def _again(self, request: GenerateRequest) -> bool:
        return bool(request.inpaint and self.inpainting and self.inpainting.in_context)

    def _tokens(self, unit: int, picture: Size, again: bool) -> Tokens:
        text = int(self.options.get("max_sequence_length") or self.family.text_tokens)
        tokens = Tokens(unit=unit, text=text, area=self.family.reference_area)
        return replace(tokens, text=text + tokens.of(picture)) if again else tokens


def _least(*limits: int | None) -> int | None:
    """Give the lowest of some limits; None is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def load(folder: Path, device: str) -> Any:
    """Load the pocket generator's class from a folder, in the device's own number format."""
    from pleinair.tools.diffusion.offload import find_dtype

    return _without_floor(open_pipeline(folder, "Flux2KleinPipeline", find_dtype(device))).to(device)


def _without_floor(pipeline: Any) -> Any:
    """Let a pipeline take references under 64 pixels a side, where its class has that floor.

    The floor guards models trained on megapixels; the pocket generator's references are 32 × 32.
    """
    from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor

    class SmallImageProcessor(Flux2ImageProcessor):  # type: ignore[misc]
        @staticmethod
        def check_image_input(image: Image, *_: Any) -> Image:
            return image

    if isinstance(pipeline.image_processor, Flux2ImageProcessor):
        pipeline.image_processor = SmallImageProcessor(vae_scale_factor=pipeline.vae_scale_factor * 2)
    return pipeline
