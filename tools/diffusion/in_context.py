"""In-context conditioning: references are in the transformer's sequence beside the prompt.

Drives FLUX.2 klein (with and without reuse of the references' keys and values) and dev, FLUX.1 Kontext,
Qwen-Image-Edit-Plus, OmniGen, Z-Image-Omni, and the pocket generator, which has FLUX.2 klein's classes.
Inpainting has a class of its own, listed in `INPAINTING`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import IN_CONTEXT
from pleinair.tools.diffusion.inpaint import PreparedRequest
from pleinair.tools.diffusion.loading import open_pipeline
from pleinair.tools.diffusion.memory import choose_level
from pleinair.tools.diffusion.offload import Offloading, find_dtype
from pleinair.tools.diffusion.references import (
    ReferencePlan,
    Size,
    TokenRule,
    append_sentences,
    check_sentence,
    insert_placeholders,
    plan_references,
    scale_reference,
)
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.types import GenerateRequest, Guidance, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


class InContextSettings(DiffusersSettings):
    """Settings of `InContext`.

    With `memory_limit`, references are made smaller too, by an estimate that only some families have.
    """

    families = IN_CONTEXT

    pipeline: str = "Flux2KleinPipeline"
    num_inference_steps: Steps = 4
    guidance_scale: Guidance = 1.0
    max_sequence_length: int | None = Field(default=None, gt=0, description="tokens of the text")
    text_encoder_out_layers: Sequence[int] = Field(
        default=(), description="hidden states of FLUX.2's text encoder that are stacked"
    )
    max_sequence: int | None = Field(
        default=None, gt=0, description="tokens of the sequence; references are made smaller to fit"
    )
    wording: Annotated[str | None, AfterValidator(check_sentence)] = Field(
        default=None,
        description="sentence for each reference, with {number} and {concept}; empty is none, by default the "
        "family's own",
    )

    @property
    def call_options(self) -> Mapping[str, Any]:
        """Return the options with the arguments that have a setting of their own."""
        settings = {
            "max_sequence_length": self.max_sequence_length,
            "text_encoder_out_layers": tuple(self.text_encoder_out_layers),
        }
        return {**self.options, **{name: value for name, value in settings.items() if value}}

    def token_rule(self, unit: int) -> TokenRule:
        """Return how the class turns images and text into tokens of `unit` pixels a side."""
        text = int(self.call_options.get("max_sequence_length") or self.family.text_tokens)
        return TokenRule(unit=unit, text=text, area=self.family.reference_area)


class InContext(DiffusersEngine):
    """Generator with references in the sequence."""

    backend = "in_context"
    settings_model = InContextSettings
    settings: InContextSettings

    _token_limit: int | None = None  # tokens for which memory has room, by the estimate

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the pipeline, and let it accept small references."""
        return accept_small_references(super().open(folder, dtype))

    def condition(self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]) -> dict[str, Any]:
        """Return the scaled references, and the prompt that announces them as the family demands."""
        family, wording = self.family, self.settings.wording
        prompt, concepts = request.prompt, [reference.label for reference in request.references]
        base_in_sequence = self._base_in_sequence(request)
        if family.placeholders:
            prompt = insert_placeholders(prompt, concepts, len(images))
        elif concepts and not request.announced:
            sentence = family.wording if wording is None else wording
            prompt = append_sentences(prompt, concepts, sentence, first=2 if base_in_sequence else 1)
        unit = pipeline.vae_scale_factor * family.patch
        sizes = [image.size for image in images]
        plan = self.plan(unit, (request.width, request.height), sizes, base_in_sequence=base_in_sequence)
        if not images:
            return {"prompt": prompt}
        scaled = [scale_reference(image, plan.size, unit) for image in images]
        target = (self.inpainting if request.inpaint else None) or family
        return {"prompt": prompt, target.images: scaled if target.as_list else scaled[0]}

    def plan(
        self, unit: int, image: Size, references: Sequence[Size], *, base_in_sequence: bool = False
    ) -> ReferencePlan:
        """Plan the sequence, with smaller references if it would be too long; see `plan_references`.

        `base_in_sequence` is for an image to inpaint that is in the sequence a second time.
        """
        longest, limit = self.settings.reference_size, _least(self.settings.max_sequence, self._token_limit)
        rule = self._token_rule(unit, image, base_in_sequence)
        plan = plan_references(rule, image, references, longest=longest, limit=limit)
        log.debug("a sequence of %d tokens, references of %d pixels", plan.tokens, plan.size)
        if plan.size < longest:
            log.warning(
                "References are scaled to %d pixels, not %d: the sequence is limited to %d tokens.",
                plan.size,
                longest,
                limit,
            )
        return plan

    def choose_offload_level(self, prepared: PreparedRequest, offloading: Offloading) -> None:
        """Choose a level at which the image will fit before weights are placed, or raise `OutOfMemory`.

        Considers the weights alone without an estimate of the steps, and nothing without a known limit.
        """
        self._token_limit = None
        memory = self._known_memory(offloading.device)
        if memory is None or not memory[0].token_bytes:
            return super().choose_offload_level(prepared, offloading)
        (estimate, room), request = memory, prepared.request
        image, sizes = (request.width, request.height), [image.size for image in prepared.images]
        rule = self._token_rule(estimate.unit, image, self._base_in_sequence(request))

        def plan(max_tokens: int | None) -> int:
            limit, longest = _least(self.settings.max_sequence, max_tokens), self.settings.reference_size
            return plan_references(rule, image, sizes, longest=longest, limit=limit).tokens

        level, self._token_limit = choose_level(estimate, offloading.remaining, room, plan)
        if level != offloading.level:
            offloading.lower(level, estimate.describe(offloading.level, plan(None)))

    def batch_size(self, request: GenerateRequest, offloading: Offloading) -> int:
        """Return for how many images there is room by the estimate of their tokens, where there is one."""
        known, size = self._known_memory(offloading.device), super().batch_size(request, offloading)
        if known is None or not known[0].token_bytes:
            return size
        estimate, room = known
        rule = self.settings.token_rule(estimate.unit)
        tokens = rule.text + rule.count((request.width, request.height))
        return max(1, min(size, estimate.max_tokens(offloading.level, room) // tokens))

    def _base_in_sequence(self, request: GenerateRequest) -> bool:
        return bool(request.inpaint and self.inpainting and self.inpainting.in_sequence)

    def _token_rule(self, unit: int, image: Size, base_in_sequence: bool) -> TokenRule:
        rule = self.settings.token_rule(unit)
        return replace(rule, text=rule.text + rule.count(image)) if base_in_sequence else rule


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def load(folder: Path, device: str) -> Any:
    """Load the pocket generator's pipeline from a folder, in the device's default number format."""
    pipeline = open_pipeline(folder, "Flux2KleinPipeline", find_dtype(device))
    return accept_small_references(pipeline).to(device)


def accept_small_references(pipeline: Any) -> Any:
    """Let a pipeline accept references below the minimum of 64 pixels a side that its class may have.

    The minimum protects models trained on megapixels; the pocket generator's references are 32 × 32.
    """
    from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor

    class SmallImageProcessor(Flux2ImageProcessor):  # type: ignore[misc]
        @staticmethod
        def check_image_input(image: Image, *_: Any) -> Image:
            return image

    if isinstance(pipeline.image_processor, Flux2ImageProcessor):
        pipeline.image_processor = SmallImageProcessor(vae_scale_factor=pipeline.vae_scale_factor * 2)
    return pipeline
