"""What all diffusers backends share: loading, offloading, one call, step callbacks and stopping.

Each way of conditioning is a subclass that declares its settings and pipeline classes, how references become
arguments, and what it loads beside the pipeline. Not covered: several images with references a call.
"""

from __future__ import annotations

import inspect
import json
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pleinair.tools.arguments import validated
from pleinair.tools.callbacks import PreviewCallback
from pleinair.tools.deadline import holding
from pleinair.tools.diffusion import loading, memory
from pleinair.tools.diffusion.encodings import MIB, Encodings
from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.inpaint import PreparedRequest, prepare
from pleinair.tools.diffusion.offload import (
    Offloading,
    find_device,
    find_dtype,
    is_out_of_memory,
)
from pleinair.tools.diffusion.previews import Previews
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.generate import check_request, check_size
from pleinair.tools.model_files.folders import locate
from pleinair.tools.model_files.hub import INDEX
from pleinair.tools.threads import limited_threads, step_threads
from pleinair.tools.types import (
    Capabilities,
    GenerateRequest,
    ModelFault,
    OnStep,
    Refused,
)
from pleinair.tools.worker.devices import cpu_sharers, list_devices

if TYPE_CHECKING:
    from PIL.Image import Image

_PLACEHOLDER = "0" * 40  # a commit
log = logging.getLogger(__name__)
# beginnings of arguments that only act on references
_REFERENCE_OPTIONS = (
    "control",
    "guess_mode",
    "image_guidance",
    "img_guidance",
    "ip_adapter",
    "use_input_image",
)


@dataclass(frozen=True)
class LoadedPipeline:
    """Pipeline that a program has loaded and placed on a device, its id, and the lock of its parts."""

    pipeline: Any
    id: str
    lock: threading.Lock


class DiffusersEngine(ABC):
    """Generator with one pipeline of diffusers, loaded at the first image; one image at a time.

    Its arguments are those of `settings_model`, without a model's place for one that is `loaded`. The
    constructor raises `BadInput` for whatever can be refused without loading weights.
    """

    backend: ClassVar[str]
    boxes: ClassVar[bool] = False  # whether references act inside their boxes
    has_strength: ClassVar[bool] = False  # whether a request's `reference_strength` has an effect
    prefixes: ClassVar[tuple[str, ...]] = ("",)  # of the arguments that locate a model
    settings_model: ClassVar[type[DiffusersSettings]]
    settings: DiffusersSettings

    def __init__(self, folder: str = "", *, loaded: LoadedPipeline | None = None, **settings: Any) -> None:
        arguments = {"folder": folder, **settings}
        self.loaded = loaded
        self.settings = validated(self.settings_model, arguments, "generator", f"generator {self.backend!r}")
        self.family, self.inpainting = self.settings.family, self.settings.inpainting
        if loaded:
            self._unit = loaded.pipeline.vae_scale_factor * self.family.patch
        else:
            self.source = self.settings.source()
            if folder:
                loading.require_class(locate(folder), self.settings.pipeline, self.family)
            self._unit = memory.read_pixel_unit(self.source.local_folder(), self.family) or 8
        name = f"generator.height and width: {self.settings.pipeline}"
        check_size(self.settings.height, self.settings.width, self._unit, name)
        loading.check_attention_backend(self.settings.attention_backend)
        self._lock = loaded.lock if loaded else threading.Lock()
        self._estimate: memory.MemoryEstimate | None = None
        # by class: the loaded one and those made from its parts
        self._pipelines: dict[str, Any] = {self.settings.pipeline: loaded.pipeline} if loaded else {}
        self.encodings = Encodings(self.settings.encoding_cache * MIB)
        self._offloading: Offloading | None = None
        if loaded:
            self._offloading = Offloading(str(loaded.pipeline.device), levels=("whole",))
        self._placed_level = "whole" if loaded else ""

    @classmethod
    def declare(cls, **arguments: Any) -> Capabilities:
        """Check arguments and return the capabilities; nothing is loaded and the hub is not contacted.

        A model that has no commit yet, or a branch, is declared under a placeholder.
        """
        for prefix in cls.prefixes:
            key = f"{prefix}revision"
            if arguments.get(f"{prefix}model") and (arguments.get("allow_branch") or not arguments.get(key)):
                arguments[key] = _PLACEHOLDER
        return cls(**arguments).capabilities

    @abstractmethod
    def condition(self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]) -> dict[str, Any]:
        """Return the arguments that carry the references; without any, what the class needs instead."""

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the pipeline from its folder, on the CPU."""
        return loading.open_pipeline(folder, self.settings.pipeline, dtype, self.settings.variant)

    def identities(self) -> list[str]:
        """List the ids of the models that are loaded."""
        return [self._base_id]

    @property
    def _base_id(self) -> str:
        return self.loaded.id if self.loaded else self.source.id

    @property
    def sampler(self) -> str:
        """Return class, weights and arguments of an image without references, whatever the backend."""
        options = self.settings.call_options.items()
        used = {name: value for name, value in options if not name.startswith(_REFERENCE_OPTIONS)}
        arguments = json.dumps(used, sort_keys=True, default=str) if used else ""
        return f"{self.family.text_pipeline or self.settings.pipeline}:{self._base_id}{arguments}"

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the settings make of the class; the id names the exact weights."""
        settings, inpainting = self.settings, self.inpainting
        slots = self.family.slots if settings.slots is None else settings.slots
        accepts = {
            "width": True,
            "height": True,
            "num_inference_steps": True,
            "guidance_scale": self.family.guidance,
            "reference_strength": self.has_strength,
        }
        return Capabilities(
            id=f"{self.backend}:{'+'.join(self.identities())}",
            sampler=self.sampler,
            slots=slots,
            accepts=tuple(option for option, is_accepted in accepts.items() if is_accepted),
            negative_prompt=self.family.negative_prompt,
            placeholders=self.family.placeholders,
            boxes=self.boxes,
            inpaint=inpainting is not None,
            inpaint_slots=min(slots, inpainting.slots) if inpainting else 0,
            height=settings.height,
            width=settings.width,
            multiple_of=self._unit,
            max_pixels=settings.max_pixels,
            num_inference_steps=settings.num_inference_steps,
            draft_steps=settings.draft_steps,
            guidance_scale=settings.guidance_scale,
            batch=settings.batch,
        )

    @property
    def offload_levels(self) -> list[str]:
        """List the offload levels that were tried, the current one last."""
        return list(self._offloading.history) if self._offloading else []

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate one image; the same request on the same machine gives the same pixels.

        Args:
            request: prompt, size, steps, guidance and seed.
            images: the references' images, in the order of `request.references`; that to inpaint last.
            on_step: receives the steps done, at first 0, and the total; what it raises passes through.

        Raises:
            BadInput: what `check_request` refuses, or a request that the class cannot take.
            ModelFault: the numbers overflowed.
            OutOfMemory: it fits at no offload level of the device.
        """
        check_request(request, self.capabilities, len(images) - bool(request.inpaint))
        with self._ready() as offloading:
            return offloading.retry(lambda: self._attempt(request, images, on_step))

    def generate_batch(self, request: GenerateRequest, seeds: Sequence[int], on_step: OnStep) -> list[Image]:
        """Generate the image of a request without references and those of further seeds in one forward pass.

        Only the first is returned if the class has no batches, the estimate or the offload level leaves no
        room for them, memory runs out, or one of them is blocked or overflows. Errors as of `generate`.
        """
        check_request(request, self.capabilities, len(request.references))
        with self._ready() as offloading:
            try:
                if images := self._generate_together(request, (request.seed, *seeds), on_step, offloading):
                    return images
            except (ModelFault, Refused):
                log.info("one image of a batch failed: one by one")
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                log.info("no room for a batch of %d: one by one", 1 + len(seeds))
            return [offloading.retry(lambda: self._attempt(request, (), on_step))]

    @contextmanager
    def _ready(self) -> Iterator[Offloading]:
        """Lend the pipeline for one call, on its device."""
        with holding(self._lock):
            if self._offloading is None:
                self._offloading = Offloading(find_device(self.settings.own_device), self.settings.memory)
            yield self._offloading

    def _threads(self, pipeline: Any, request: GenerateRequest) -> AbstractContextManager[None]:
        """Limit torch's threads on the CPU to what a step needs, and to the share of this process."""
        if self._offloading is None or self._offloading.device != "cpu":
            return nullcontext()
        parameters = sum(part.numel() for part in _denoiser(pipeline).parameters())
        side = pipeline.vae_scale_factor * self.family.patch  # of a token, in pixels
        text = int(self.settings.call_options.get("max_sequence_length") or self.family.text_tokens)
        tokens = text + (request.height // side) * (request.width // side)
        return limited_threads(
            step_threads(parameters * tokens, cpu_sharers(list_devices(self.settings.devices)))
        )

    def batch_size(self, request: GenerateRequest, offloading: Offloading) -> int:
        """Return for how many images of a request memory has room, as far as known."""
        return self.settings.batch if offloading.level == "whole" else 1

    def _generate_together(
        self, request: GenerateRequest, seeds: Sequence[int], on_step: OnStep, offloading: Offloading
    ) -> list[Image]:
        """Return the images of some seeds; none if they do not fit together."""
        pipeline = self._place(PreparedRequest(request, ()), offloading)
        has_batches = "num_images_per_prompt" in inspect.signature(type(pipeline).__call__).parameters
        if not has_batches or len(seeds) > self.batch_size(request, offloading):
            return []
        return self._call(pipeline, PreparedRequest(request, ()), on_step, seeds)

    def choose_offload_level(self, prepared: PreparedRequest, offloading: Offloading) -> None:
        """Choose a level with room for the weights before they are placed, or raise `OutOfMemory`."""
        if limits := self._known_memory(offloading.device):
            memory.fit_weights(offloading, *limits)

    def _known_memory(self, device: str) -> tuple[memory.MemoryEstimate, int] | None:
        """Return what the model takes and the available bytes; None if one is not known."""
        if self.loaded:
            return None
        room = memory.available_memory(device, self.settings.memory_limit)
        if room is not None and self._estimate is None:
            itemsize = self._dtype(device).itemsize
            self._estimate = memory.read_estimate(self._fetch(), self.family, itemsize, self.settings.variant)
        return (self._estimate, room) if room is not None and self._estimate else None

    def _dtype(self, device: str) -> Any:
        return find_dtype(device, self.family.dtype or self.settings.dtype)

    def _fetch(self) -> Path:
        return loading.fetch_pipeline(self.source, self.settings.pipeline, self.family, self.settings.variant)

    def _load(self, device: str) -> Any:
        if self.settings.compile:
            loading.check_compilable(self.source.require_files((INDEX,)))
        pipeline = self.open(self._fetch(), self._dtype(device))
        denoiser = _denoiser(pipeline)
        if self.settings.attention_backend:
            loading.set_attention_backend(denoiser, self.settings.attention_backend)
        if self.settings.compile:
            denoiser.compile_repeated_blocks()
        return pipeline

    def _place(self, prepared: PreparedRequest, offloading: Offloading) -> Any:
        """Return the pipeline for a request, loaded and placed at an offload level with room for it."""
        main = self.settings.pipeline
        self.choose_offload_level(prepared, offloading)
        if main not in self._pipelines:
            self._pipelines[main] = self._load(offloading.device)
        if self._placed_level != offloading.level:
            offloading.place(self._pipelines[main], self.family.resident)
            self._placed_level = offloading.level
            self.encodings.clear()  # another level may round differently
        name = main if prepared.images else self.family.text_pipeline or main
        if prepared.base and self.inpainting:
            name = self.inpainting.pipeline
        if name not in self._pipelines:
            self._pipelines[name] = loading.convert_pipeline(self._pipelines[main], name)
        return self._pipelines[name]

    def _attempt(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Generate; if memory runs out, once more without what is cached."""
        try:
            return self._generate(request, images, on_step)
        except Exception as error:
            if not (is_out_of_memory(error) and self.encodings.clear()):
                raise
        # outside of the handler, whose traceback holds the tensors
        return self._generate(request, images, on_step)

    def _generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        assert self._offloading is not None
        prepared = prepare(request, images) if request.inpaint else PreparedRequest(request, images)
        pipeline = self._place(prepared, self._offloading)
        (image,) = self._call(pipeline, prepared, on_step)
        return prepared.finish(image)

    def _call(
        self, pipeline: Any, prepared: PreparedRequest, on_step: OnStep, seeds: Sequence[int] = ()
    ) -> list[Image]:
        """Return what a placed pipeline makes of a request: one image, or one for each of several seeds."""
        request, main = prepared.request, self._pipelines[self.settings.pipeline]
        unit = pipeline.vae_scale_factor * self.family.patch
        check_size(request.height, request.width, unit, self.settings.pipeline)
        arguments = {
            **loading.select_options(pipeline, main, self.settings.call_options),
            **_call_arguments(request, self.family, on_step, self.capabilities.id),
            **prepared.inpaint_arguments(self.inpainting, unit),
            **self.condition(pipeline, prepared.request, prepared.images),
        }
        if len(seeds) > 1:
            arguments["generator"] = [_noise(seed) for seed in seeds]
            arguments["num_images_per_prompt"] = len(seeds)
        # a scheduler keeps state between calls, so each call gets its own
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        try:
            with (
                self._threads(main, request),
                self.encodings.used_by(pipeline),
                _seeded_encoding(pipeline, request.seed),
                loading.library_warnings_off(),
            ):
                on_step(0, request.num_inference_steps)  # the model is loaded, and the first step begins
                return output_images(pipeline, pipeline(**arguments), self.capabilities.id)
        finally:
            # what is still on the device, after a stop or when another class generated
            main.maybe_free_model_hooks()


def _denoiser(pipeline: Any) -> Any:
    return getattr(pipeline, "transformer", None) or pipeline.unet


def _step_callback(on_step: OnStep, request: GenerateRequest, id: str) -> Callable[..., dict[str, Any]]:
    """Return a callback of a pipeline that reports each step and fails at the first non-finite number.

    A `PreviewCallback` receives previews too, except of the last step, whose image follows anyway.
    """
    size = request.width, request.height
    previews = Previews(on_step, size) if isinstance(on_step, PreviewCallback) else None

    def after_step(pipeline: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if not tensors["latents"].isfinite().all():
            raise ModelFault(f"`{id}` overflowed at step {step + 1}.", "Try generator.dtype = 'float32'.")
        # some schedulers take more steps than requested
        total = getattr(pipeline, "num_timesteps", None) or request.num_inference_steps
        on_step(step + 1, total)
        if previews and step + 1 < total:
            previews(pipeline, tensors["latents"][:1])  # of a batch the first image
        return tensors

    return after_step


def _noise(seed: int) -> Any:
    """Return a generator of noise on the CPU, which is the same for every device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def _call_arguments(request: GenerateRequest, family: Family, on_step: OnStep, id: str) -> dict[str, Any]:
    """Convert a request into the arguments of a class's call, references and options excluded.

    `id` is the generator's, for error messages.
    """
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.num_inference_steps,
        "generator": _noise(request.seed),
        "output_type": "np",
        "callback_on_step_end": _step_callback(on_step, request, id),
    }
    if family.guidance:
        arguments[family.guidance] = request.guidance_scale
    if family.negative_prompt:
        arguments["negative_prompt"] = request.negative_prompt or family.default_negative_prompt
    if family.area:
        arguments[family.area] = request.height * request.width
    return arguments


@contextmanager
def _seeded_encoding(pipeline: Any, seed: int) -> Iterator[None]:
    """Let a pipeline's autoencoder sample from a generator of its own during a call.

    Some classes (OmniGen, SD3's ControlNet) let it sample a reference without a generator, that is from
    torch's global noise, which every thread of the process consumes.
    """
    import torch

    encode, is_instance_attribute = pipeline.vae.encode, "encode" in vars(pipeline.vae)
    noise = torch.Generator(pipeline._execution_device).manual_seed(seed)

    def encode_seeded(*args: Any, **kwargs: Any) -> Any:
        output = encode(*args, **kwargs)
        if distribution := getattr(output, "latent_dist", None):
            sample = distribution.sample
            distribution.sample = lambda generator=None: sample(generator or noise)
        return output

    pipeline.vae.encode = encode_seeded
    try:
        yield
    finally:
        if is_instance_attribute:
            pipeline.vae.encode = encode
        else:
            del pipeline.vae.encode


def output_images(pipeline: Any, output: Any, id: str) -> list[Image]:
    """Return the images of an output; raise `ModelFault` for non-finite numbers, `Refused` if blocked."""
    import numpy as np

    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise Refused(f"The safety checker of `{id}` blocked the image.")
    if not np.isfinite(output.images).all():
        raise ModelFault(f"`{id}` decoded to non-finite numbers.", "Try generator.dtype = 'float32'.")
    images: list[Image] = pipeline.image_processor.numpy_to_pil(output.images)
    return images
