"""Licenses of models, as far as their pages on the hub name them."""

from __future__ import annotations

from pleinair.tools.retrieval.licenses import spdx

LICENSES = {  # as their pages named them; a pull asks the hub
    "InstantX/FLUX.1-dev-Controlnet-Union": "non-commercial",
    "Qwen/Qwen-Image-Edit-2509": "apache-2.0",
    "black-forest-labs/FLUX.1-Kontext-dev": "non-commercial, gated",
    "black-forest-labs/FLUX.1-dev": "non-commercial, gated",
    "black-forest-labs/FLUX.1-schnell": "apache-2.0",
    "black-forest-labs/FLUX.2-dev": "non-commercial, gated",
    "black-forest-labs/FLUX.2-klein-4B": "apache-2.0",
    "black-forest-labs/FLUX.2-klein-9b-kv": "non-commercial, gated",
    "h94/IP-Adapter": "apache-2.0",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "mit",
    "stabilityai/stable-diffusion-3-medium-diffusers": "stability ai community, gated",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "timm/vit_base_patch32_clip_224.openai": "apache-2.0",
    "xinsir/controlnet-tile-sdxl-1.0": "apache-2.0",
}
_SHIPPED = "pocket"  # first part of the names of this package's own models
_SHIPPED_LICENSE = "Apache-2.0"


def license_of(label: str) -> str:
    """Return the license of a model by its label, such as "in_context:owner/name@commit"; "" if not known.

    A label of several models, joined by `+`, has all their licenses, and none if one is not known.
    """
    names = (
        [part.partition("@")[0] for part in label.partition(":")[2].split("+")] if ":" in label else [label]
    )
    licenses = [_license(name) for name in names]
    return ", ".join(dict.fromkeys(licenses)) if all(licenses) else ""


def _license(name: str) -> str:
    if name.partition("/")[0] == _SHIPPED:
        return _SHIPPED_LICENSE
    return spdx(LICENSES.get(name, ""))
