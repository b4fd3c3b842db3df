"""What each pipeline class of diffusers needs, as data that the engines read.

Argument names and behaviours are those of diffusers 0.42; no engine compares a model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pleinair.tools.diffusion.references import REFERENCE_SENTENCE
from pleinair.tools.types import BadInput


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one pipeline class is called."""

    slots: int = 0  # maximum number of references a call
    images: str = ""  # argument for the references; empty if it takes none
    as_list: bool = True  # whether that argument is a list rather than one image
    guidance: str = "guidance_scale"  # argument for guidance; empty if it has none
    negative_prompt: bool = False  # whether it has an argument of that name that works
    default_negative_prompt: str | None = None  # sent if the request has none
    area: str = ""  # argument for height × width, without which such a class chooses a size of its own
    placeholders: bool = False  # whether the prompt must contain a placeholder for each reference
    wording: str = ""  # sentence behind the prompt for each reference, with {number} and {concept}
    text_pipeline: str = ""  # class that generates without references from the same parts; empty: this one
    patch: int = 2  # side of a token in latent pixels; sides in pixels are multiples of it × autoencoder's
    text_tokens: int = 512  # of a prompt, as the class pads or cuts it by default
    reference_area: int = 0  # pixels to which it scales every reference; 0 if it takes them as they are
    dtype: str = ""  # the only number format in which it works; empty if the device decides
    activations: float = 0.0  # numbers a step holds per token and channel, as measured; 0 if not measured
    # parts that stay on the device in sequential offload: they read a layer's weight without calling it
    resident: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()  # further classes whose folders may be opened as this one
    controlnet: str = ""  # class of its control branch

    def can_open(self, pipeline: str, class_name: str) -> bool:
        """Return whether a folder of class `class_name` can be opened as class `pipeline`."""
        return class_name in (pipeline, self.text_pipeline, *self.compatible)


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """Class that inpaints a box of an image with the same parts; it takes `image` and `mask_image`."""

    pipeline: str
    slots: int = 0  # maximum number of references beside the image
    images: str = ""  # argument for the references; empty if it takes none
    as_list: bool = True  # whether that argument is a list rather than one image
    in_sequence: bool = False  # whether the image itself is in the sequence once more, as a reference is
    arguments: Mapping[str, Any] = field(default_factory=dict)  # further ones of every call


# Omitted: Flux2Pipeline and OmniGenPipeline, for which 0.42 has no class; Flux2KleinKVPipeline, whose weights
# need a cache that Flux2KleinInpaintPipeline does not keep; StableDiffusion3Pipeline, whose class decodes
# without the autoencoder's shift; ControlNets, whose branch lays a reference over the whole image.
INPAINTING = {
    # the image is its first reference; a list has the size of its first one
    "Flux2KleinPipeline": Inpainting(
        pipeline="Flux2KleinInpaintPipeline", slots=3, images="image_reference", in_sequence=True
    ),
    # a reference takes the image's place in the sequence; by default it chooses a size of its own
    "FluxKontextPipeline": Inpainting(
        pipeline="FluxKontextInpaintPipeline",
        slots=1,
        images="image_reference",
        as_list=False,
        in_sequence=True,
        arguments={"_auto_resize": False},
    ),
    # QwenImageEditInpaintPipeline generates a megapixel whatever the request, and takes no references either
    "QwenImageEditPlusPipeline": Inpainting(pipeline="QwenImageInpaintPipeline"),
    "QwenImagePipeline": Inpainting(pipeline="QwenImageInpaintPipeline"),
    "StableDiffusionPipeline": Inpainting(
        pipeline="StableDiffusionInpaintPipeline", slots=4, images="ip_adapter_image"
    ),
    "StableDiffusionXLPipeline": Inpainting(
        pipeline="StableDiffusionXLInpaintPipeline", slots=4, images="ip_adapter_image"
    ),
    "FluxPipeline": Inpainting(pipeline="FluxInpaintPipeline"),
    "ZImagePipeline": Inpainting(pipeline="ZImageInpaintPipeline"),
}

# Peak memory in bfloat16 without the weights, measured by users of FLUX.2 (InvokeAI, pull request 9519): at a
# width of 4,096 about 1.7 GB for 4,608 tokens and 6.5 GB for 16,896; at 6,144 half as much again a token.
FLUX2 = 48.0

IN_CONTEXT = {
    "Flux2KleinPipeline": Family(slots=4, images="image", wording=REFERENCE_SENTENCE, activations=FLUX2),
    # the references' keys and values are computed at the first step and used again at the others
    "Flux2KleinKVPipeline": Family(
        slots=4, images="image", wording=REFERENCE_SENTENCE, guidance="", compatible=("Flux2KleinPipeline",)
    ),
    "Flux2Pipeline": Family(slots=6, images="image", wording=REFERENCE_SENTENCE, activations=FLUX2),
    # a list is a batch here, and nothing stitches it: one reference; its negative prompt has no effect
    # without a second guidance, true_cfg_scale, for which the model was not distilled
    "FluxKontextPipeline": Family(
        slots=1, images="image", as_list=False, area="max_area", reference_area=1024 * 1024
    ),
    # without a reference it fails, and without a negative prompt it drops its guidance; it presents the
    # references to its model as "Picture 1: …"
    "QwenImageEditPlusPipeline": Family(
        slots=3,
        images="image",
        wording="Picture {number} shows {concept}.",
        guidance="true_cfg_scale",
        negative_prompt=True,
        default_negative_prompt=" ",
        text_pipeline="QwenImagePipeline",
        reference_area=1024 * 1024,
    ),
    "OmniGenPipeline": Family(slots=3, images="input_images", placeholders=True),
    # it encodes references in bfloat16 whatever the autoencoder was loaded in
    "ZImageOmniPipeline": Family(
        slots=4,
        images="image",
        wording=REFERENCE_SENTENCE,
        negative_prompt=True,
        dtype="bfloat16",
        resident=("siglip",),
    ),
}

TEXT_ONLY = {
    "StableDiffusionPipeline": Family(negative_prompt=True, patch=1),
    "StableDiffusionXLPipeline": Family(negative_prompt=True, patch=1),
    "StableDiffusion3Pipeline": Family(negative_prompt=True, text_tokens=256),
    "FluxPipeline": Family(),
    "FluxKontextPipeline": Family(area="max_area"),
    "Flux2KleinPipeline": Family(),
    "Flux2KleinKVPipeline": Family(guidance="", compatible=("Flux2KleinPipeline",)),
    "Flux2Pipeline": Family(),
    "QwenImagePipeline": Family(
        guidance="true_cfg_scale",
        negative_prompt=True,
        default_negative_prompt=" ",
        compatible=("QwenImageEditPlusPipeline",),
    ),
    "OmniGenPipeline": Family(),
    "ZImagePipeline": Family(negative_prompt=True),
    "ZImageOmniPipeline": Family(negative_prompt=True, dtype="bfloat16"),
}

IP_ADAPTER = {
    name: Family(slots=4, images="ip_adapter_image", negative_prompt=True, patch=1)
    for name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
}


def _controlled(text_pipeline: str, images: str, controlnet: str, **others: Any) -> Family:
    return Family(
        slots=1, images=images, as_list=False, text_pipeline=text_pipeline, controlnet=controlnet, **others
    )


CONTROLNET = {
    "StableDiffusionControlNetPipeline": _controlled(
        "StableDiffusionPipeline", "image", "ControlNetModel", negative_prompt=True, patch=1
    ),
    "StableDiffusionXLControlNetPipeline": _controlled(
        "StableDiffusionXLPipeline", "image", "ControlNetModel", negative_prompt=True, patch=1
    ),
    "StableDiffusion3ControlNetPipeline": _controlled(
        "StableDiffusion3Pipeline",
        "control_image",
        "SD3ControlNetModel",
        negative_prompt=True,
        text_tokens=256,
    ),
    "FluxControlNetPipeline": _controlled("FluxPipeline", "control_image", "FluxControlNetModel"),
}


def find_family(families: Mapping[str, Family], pipeline: str) -> Family:
    """Return the family of a class; raise `BadInput` with the supported classes for any other."""
    if pipeline not in families:
        raise BadInput(
            f"generator.pipeline = {pipeline!r}: not supported by this backend; wanted one of: "
            f"{', '.join(sorted(families))}"
        )
    return families[pipeline]
