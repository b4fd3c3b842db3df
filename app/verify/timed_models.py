"""Generators that are timed: a downloaded model, and one with random weights of its sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from pleinair.app.models.inventory import BACKENDS, generator_settings
from pleinair.app.settings import BackendChoice
from pleinair.app.verify.plan import CannotMeasure
from pleinair.app.verify.random_pipelines import build_pipeline, embeddings, part_bytes, read_config
from pleinair.app.verify.shapes import Shape
from pleinair.tools.diffusion import memory
from pleinair.tools.diffusion.in_context import InContextSettings
from pleinair.tools.diffusion.ip_adapter import IpAdapterSettings
from pleinair.tools.diffusion.loading import convert_pipeline, library_warnings_off
from pleinair.tools.diffusion.offload import Offloading, find_device, find_dtype
from pleinair.tools.diffusion.references import plan_references, scale_reference
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.types import GenerateRequest

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 1024  # pixels of a reference before it is scaled
_COLOURS = ("#c8553d", "#5b8e9c", "#8aa67a", "#d9a441", "#6a655d", "#883344", "#335588", "#99aa33")


class TimedModel(Protocol):
    """A generator that is timed."""

    weights: str  # "real" or "random"
    steps: int  # of an image
    load_seconds: float | None  # None until it is loaded

    def draw(self, references: int, steps: int, number: int) -> None:
        """Generate an image with references; `number` chooses its prompt, its noise and its references."""
        ...

    def estimate(self, references: int) -> int | None:
        """Return the bytes that an image is estimated to take at the current level; None if unknown."""
        ...

    @property
    def levels(self) -> list[str]:
        """List the offload levels that were tried, the current one last."""
        ...


def _reference_images(count: int, number: int) -> list[Image]:
    """Return `count` images of a megapixel that differ from each other and from those of another number."""
    from PIL import Image, ImageOps

    shade = Image.linear_gradient("L").resize((_SIDE, _SIDE))
    pairs = [(_COLOURS[(number + index) % 8], _COLOURS[(number + index + 3) % 8]) for index in range(count)]
    turns = [shade.rotate(90 * ((number + index) % 4)) for index in range(count)]
    return [ImageOps.colorize(turn, *pair) for turn, pair in zip(turns, pairs, strict=True)]


class RealModel:
    """A downloaded model, called by its engine as a run calls it."""

    weights = "real"

    def __init__(self, backend: str, arguments: Mapping[str, Any]) -> None:
        self._engine = BACKENDS[backend](**arguments)
        self.steps = self._engine.capabilities.num_inference_steps
        self.load_seconds: float | None = None
        self._estimated: memory.MemoryEstimate | None = None

    def draw(self, references: int, steps: int, number: int) -> None:
        """Generate an image; the first call loads the model."""
        capabilities = self._engine.capabilities
        request = GenerateRequest(
            prompt=f"a finch on a branch, number {number}",
            height=capabilities.height,
            width=capabilities.width,
            num_inference_steps=steps,
            guidance_scale=capabilities.guidance_scale,
            seed=number,
        )
        started = perf_counter()

        def on_step(done: int, _: int) -> None:
            if done == 0 and self.load_seconds is None:
                self.load_seconds = perf_counter() - started

        self._engine.generate(request, _reference_images(references, number), on_step)

    def estimate(self, references: int) -> int | None:
        """Return the bytes of an image by the estimate that chooses the offload level."""
        engine, settings = self._engine, self._engine.settings
        if self._estimated is None:
            folder = engine.source.local_folder()
            assert folder is not None, "the files were examined before"
            itemsize = find_dtype(
                find_device(settings.device), engine.family.dtype or settings.dtype
            ).itemsize
            self._estimated = memory.read_estimate(folder, engine.family, itemsize, settings.variant)
        if not self._estimated:
            return None
        return self._estimated.total(self.levels[-1], _tokens(settings, self._estimated.unit, references))

    @property
    def levels(self) -> list[str]:
        """List the offload levels that were tried, the current one last."""
        return self._engine.offload_levels


class RandomModel:
    """A pipeline of a model's class and sizes with random weights, without text encoders."""

    weights = "random"

    def __init__(self, backend: str, arguments: Mapping[str, Any], shape: Shape) -> None:
        self._settings = generator_settings(BackendChoice(backend=backend, **arguments))
        self._shape, self._family = shape, self._settings.family
        self._device = find_device(self._settings.device)
        self._dtype = find_dtype(self._device, self._family.dtype or self._settings.dtype)
        self.steps = self._settings.num_inference_steps
        self.load_seconds: float | None = None
        self._offloading = Offloading(self._device, self._settings.memory)
        self._estimated = self._read_estimate()
        self._pipeline: Any = None
        self._placed_level = ""

    @property
    def levels(self) -> list[str]:
        """List the offload levels that were tried, the current one last."""
        return list(self._offloading.history)

    def estimate(self, references: int) -> int | None:
        """Return the bytes of an image by the estimate that chooses the offload level."""
        tokens = _tokens(self._settings, self._estimated.unit, references)
        return self._estimated.total(self._offloading.level, tokens)

    def draw(self, references: int, steps: int, number: int) -> None:
        """Generate an image; the first call builds the model at the first level with room for it."""
        images = _reference_images(references, number)

        def work() -> None:
            pipeline = self._place(references)
            if self._family.text_pipeline and not images:
                pipeline = convert_pipeline(pipeline, self._family.text_pipeline)
            arguments = self._arguments(pipeline, images, steps, number)
            with library_warnings_off():
                pipeline(**arguments)

        try:
            self._offloading.retry(work)
        finally:
            if self._pipeline is not None:
                self._pipeline.maybe_free_model_hooks()

    def _read_estimate(self) -> memory.MemoryEstimate:
        shape, itemsize = self._shape, self._dtype.itemsize
        denoiser, vae = read_config(shape.denoiser), read_config(shape.vae)
        heads = denoiser["num_attention_heads"] if shape.part == "transformer" else 0
        width = heads and heads * denoiser["attention_head_dim"]
        halvings = len(vae.get("temperal_downsample", vae.get("block_out_channels", ())[1:]))
        return memory.MemoryEstimate(
            parts=part_bytes(shape, itemsize),
            token_bytes=self._family.activations * width * itemsize,
            unit=2**halvings * self._family.patch,
        )

    def _place(self, references: int) -> Any:
        """Return the pipeline at a level with room for it, as the engine chooses it."""
        self._choose_level(references)
        level = self._offloading.level
        if self._pipeline is None:
            started = perf_counter()
            device = self._device if level in ("whole", "vae_tiling") else "cpu"
            if device == "cpu" != self._device:
                _require_room(sum(self._estimated.parts.values()))
            self._pipeline = build_pipeline(self._settings.pipeline, self._shape, device, self._dtype)
            if self._settings.compile:
                getattr(self._pipeline, self._shape.part).compile_repeated_blocks()
            self.load_seconds = perf_counter() - started
        if self._placed_level != level:
            self._offloading.place(self._pipeline, self._family.resident)
            self._placed_level = level
        return self._pipeline

    def _choose_level(self, references: int) -> None:
        room = memory.available_memory(self._device, self._settings.memory_limit)
        if room is None:
            return
        estimate, offloading = self._estimated, self._offloading
        if not estimate.token_bytes or not isinstance(self._settings, InContextSettings):
            memory.fit_weights(offloading, estimate, room)
            return
        settings, unit = self._settings, estimate.unit

        def plan(limit: int | None) -> int:
            return _tokens(settings, unit, references, limit)

        level, _ = memory.choose_level(estimate, offloading.remaining, room, plan)
        if level != offloading.level:
            offloading.lower(level, estimate.describe(offloading.level, plan(None)))

    def _arguments(self, pipeline: Any, images: Sequence[Image], steps: int, number: int) -> dict[str, Any]:
        import torch

        settings, family = self._settings, self._family
        arguments = {
            **settings.call_options,
            **embeddings(self._shape, len(images), pipeline._execution_device, self._dtype),
            "height": settings.height,
            "width": settings.width,
            "num_inference_steps": steps,
            "generator": torch.Generator("cpu").manual_seed(number),
            "output_type": "np",
        }
        if family.guidance:
            arguments[family.guidance] = settings.guidance_scale
        if family.area:
            arguments[family.area] = settings.height * settings.width
        scaled = [scale_reference(image, settings.reference_size) for image in images]
        if isinstance(settings, IpAdapterSettings):
            pipeline.set_ip_adapter_scale(settings.scale if scaled else 0.0)
            arguments[family.images] = [scaled or _reference_images(1, 0)]
        elif scaled:
            arguments[family.images] = scaled if family.as_list else scaled[0]
        return arguments


def _tokens(settings: DiffusersSettings, unit: int, references: int, limit: int | None = None) -> int:
    """Return the tokens of an image with references; 0 where references are not in the sequence."""
    if not isinstance(settings, InContextSettings):
        return 0
    rule, image = settings.token_rule(unit), (settings.width, settings.height)
    sizes = [(_SIDE, _SIDE)] * references
    return plan_references(rule, image, sizes, longest=settings.reference_size, limit=limit).tokens


def _require_room(size: int) -> None:
    """Raise `CannotMeasure` where weights that a GPU does not hold do not fit in the computer's memory."""
    import psutil

    room = psutil.virtual_memory().available
    if size > room:
        raise CannotMeasure(
            f"its weights take {memory.format_gib(size)} GiB: more than the GPU has, and of the computer's "
            f"memory {memory.format_gib(room)} GiB are free"
        )
