"""What each pipeline class of diffusers wants, as data that the engines read.

Argument names and behaviours are those of diffusers 0.42; no engine compares a model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pleinair.tools.diffusion.prompt import SHOWS
from pleinair.tools.types import BadInput


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describe how one pipeline class is called.

    Args:
        slots: the most references that one call takes.
        images: its argument for the references; empty where it takes none.
        listed: whether that argument is a list, not one picture.
        guidance: its argument for guidance; empty where it has none.
        negative_prompt: whether it has an argument of that name that works.
        blank: the negative prompt sent where the request has none; None sends none.
        area: its argument for height × width; without it such a class draws at a size of its own.
        placeholder: what the prompt must hold for each reference, with `{}` for its number from 1.
        wording: the sentence behind the prompt for each reference, with {number} and {concept}.
        plain: the class that draws without references from the same parts; empty where this one can.
        patch: side of a token in latent pixels; sides in pixels are multiples of it times the autoencoder's.
        text_tokens: of a prompt, as the class pads or cuts it when not told otherwise.
        reference_area: pixels that it scales every reference to; 0 where it takes them as they are.
        dtype: the only number format that it works in; empty where the machine decides.
        activations: numbers that a step holds for each token and each channel of the transformer's width, as
            measured; 0 where nobody has.
        resident: parts that stay on the device when layers are offloaded one by one: their classes read a
            weight of a layer without calling it, and would find nothing.
        also: classes whose folders may be opened as this one.
        controlnet: the class of its control branch.
    """

    slots: int = 0
    images: str = ""
    listed: bool = True
    guidance: str = "guidance_scale"
    negative_prompt: bool = False
    blank: str | None = None
    area: str = ""
    placeholder: str = ""
    wording: str = ""
    plain: str = ""
    patch: int = 2
    text_tokens: int = 512
    reference_area: int = 0
    dtype: str = ""
    activations: float = 0.0
    resident: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    controlnet: str = ""

    def opens(self, pipeline: str, found: str) -> bool:
        """Tell whether a folder of class `found` can be opened as class `pipeline`."""
        return found in (pipeline, self.plain, *self.also)


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """Describe the class that paints a box of a picture anew from the same parts.

    Args:
        pipeline: its name; picture and mask are its `image` and `mask_image`.
        slots: the most references that it takes beside the picture.
        images: its argument for the references; empty where it takes none.
        listed: whether that argument is a list, not one picture.
        in_context: whether the picture itself stands in the sequence once more, as a reference does.
        fixed: arguments that it is always given.
    """

    pipeline: str
    slots: int = 0
    images: str = ""
    listed: bool = True
    in_context: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)


# Left out: Flux2Pipeline and OmniGenPipeline, for which 0.42 has no class; Flux2KleinKVPipeline, whose
# weights want a cache that Flux2KleinInpaintPipeline does not keep; StableDiffusion3Pipeline, whose class
# decodes without the autoencoder's shift; ControlNets, whose branch lays a reference over the whole picture.
INPAINTING = {
    # the picture is its first reference; a list has the size of its first one
    "Flux2KleinPipeline": Inpainting(
        pipeline="Flux2KleinInpaintPipeline", slots=3, images="image_reference", in_context=True
    ),
    # a reference takes the picture's place in the sequence; left alone it draws in a size of its own
    "FluxKontextPipeline": Inpainting(
        pipeline="FluxKontextInpaintPipeline",
        slots=1,
        images="image_reference",
        listed=False,
        in_context=True,
        fixed={"_auto_resize": False},
    ),
    # QwenImageEditInpaintPipeline draws a megapixel whatever is asked for, and takes no references either
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
    "Flux2KleinPipeline": Family(slots=4, images="image", wording=SHOWS, activations=FLUX2),
    # the references' keys and values are computed at the first step and used again at the others
    "Flux2KleinKVPipeline": Family(
        slots=4, images="image", wording=SHOWS, guidance="", also=("Flux2KleinPipeline",)
    ),
    "Flux2Pipeline": Family(slots=6, images="image", wording=SHOWS, activations=FLUX2),
    # a list is a batch here, and nothing stitches it: one reference; its negative prompt does nothing
    # without a second guidance, true_cfg_scale, that the model was not distilled for
    "FluxKontextPipeline": Family(
        slots=1,
        images="image",
        listed=False,
        area="max_area",
        reference_area=1024 * 1024,
    ),
    # without a reference it fails, and without a negative prompt it drops its guidance; it shows its model
    # the references as "Picture 1: …"
    "QwenImageEditPlusPipeline": Family(
        slots=3,
        images="image",
        wording="Picture {number} shows {concept}.",
        guidance="true_cfg_scale",
        negative_prompt=True,
        blank=" ",
        plain="QwenImagePipeline",
        reference_area=1024 * 1024,
    ),
    "OmniGenPipeline": Family(slots=3, images="input_images", placeholder="<img><|image_{}|></img>"),
    # it encodes references in bfloat16 whatever the autoencoder was loaded in
    "ZImageOmniPipeline": Family(
        slots=4, images="image", wording=SHOWS, negative_prompt=True, dtype="bfloat16", resident=("siglip",)
    ),
}

TEXT_ONLY = {
    "StableDiffusionPipeline": Family(negative_prompt=True, patch=1),
    "StableDiffusionXLPipeline": Family(negative_prompt=True, patch=1),
    "StableDiffusion3Pipeline": Family(negative_prompt=True),
    "FluxPipeline": Family(),
    "FluxKontextPipeline": Family(area="max_area"),
    "Flux2KleinPipeline": Family(),
    "Flux2KleinKVPipeline": Family(guidance="", also=("Flux2KleinPipeline",)),
    "Flux2Pipeline": Family(),
    "QwenImagePipeline": Family(
        guidance="true_cfg_scale", negative_prompt=True, blank=" ", also=("QwenImageEditPlusPipeline",)
    ),
    "OmniGenPipeline": Family(),
    "ZImagePipeline": Family(negative_prompt=True),
    "ZImageOmniPipeline": Family(negative_prompt=True, dtype="bfloat16"),
}

IP_ADAPTER = {
    "StableDiffusionPipeline": Family(slots=4, images="ip_adapter_image", negative_prompt=True, patch=1),
    "StableDiffusionXLPipeline": Family(slots=4, images="ip_adapter_image", negative_prompt=True, patch=1),
}

CONTROLNET = {
    "StableDiffusionControlNetPipeline": Family(
        slots=1,
        images="image",
        listed=False,
        negative_prompt=True,
        patch=1,
        plain="StableDiffusionPipeline",
        controlnet="ControlNetModel",
    ),
    "StableDiffusionXLControlNetPipeline": Family(
        slots=1,
        images="image",
        listed=False,
        negative_prompt=True,
        patch=1,
        plain="StableDiffusionXLPipeline",
        controlnet="ControlNetModel",
    ),
    "StableDiffusion3ControlNetPipeline": Family(
        slots=1,
        images="control_image",
        listed=False,
        negative_prompt=True,
        plain="StableDiffusion3Pipeline",
        controlnet="SD3ControlNetModel",
    ),
    "FluxControlNetPipeline": Family(
        slots=1,
        images="control_image",
        listed=False,
        plain="FluxPipeline",
        controlnet="FluxControlNetModel",
    ),
}


def family_of(families: Mapping[str, Family], pipeline: str) -> Family:
    """Find the family of a class, or raise `BadInput` with the names there are."""
    if pipeline not in families:
        choices = ", ".join(sorted(families))
        raise BadInput(f"generator.pipeline = {pipeline!r}: unknown here; wanted one of: {choices}")
    return families[pipeline]
