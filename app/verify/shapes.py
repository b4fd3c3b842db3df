"""Sizes of published models, so that they can be timed with random weights where they are not downloaded.

The configurations are those that the models' makers publish beside the weights, written down by hand; a test
compares the numbers of weights with the published ones. Text encoders are left out: a pipeline receives
random embeddings of their sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Config = tuple[str, Mapping[str, Any]]  # class of diffusers, its arguments


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """IP-Adapter-plus: a CLIP vision model and a resampler of its patches (Ye et al., 2023)."""

    vision: Mapping[str, int]  # arguments of transformers' CLIPVisionConfig
    width: int  # of the resampler
    queries: int  # tokens that a reference becomes


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model: its parts, and the sizes of the text embeddings that its pipeline takes."""

    part: str = "transformer"  # the denoiser's name in the pipeline
    denoiser: Config
    vae: Config
    scheduler: Config = ("FlowMatchEulerDiscreteScheduler", {})
    embeddings: Mapping[str, tuple[int, ...]]  # by argument of the call
    reference_tokens: int = 0  # by which each reference makes the text longer
    flags: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the pipeline's class
    adapter: Adapter | None = None


def _kl(blocks: int, channels: tuple[int, ...], **others: Any) -> dict[str, Any]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "block_out_channels": channels,
        "layers_per_block": 2,
        **others,
    }


_WIDE = (128, 256, 512, 512)
_TINY_KL = _kl(2, (8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4)
_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}
_FLUX1_SCALE = {"shift_factor": 0.1159, "scaling_factor": 0.3611}
_FLUX1_VAE: Config = ("AutoencoderKL", _kl(4, _WIDE, latent_channels=16, **_FLUX1_SCALE, **_NO_QUANT))
_FLUX2_VAE: Config = ("AutoencoderKLFlux2", _kl(4, _WIDE, latent_channels=32))
_SDXL_VAE: Config = ("AutoencoderKL", _kl(4, _WIDE, latent_channels=4, scaling_factor=0.13025))
_EULER: Config = (
    "EulerDiscreteScheduler",
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
)
_VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "projection_dim": 1024,
    "image_size": 224,
    "patch_size": 14,
}


def _flux2(layers: int, single_layers: int, heads: int, text: int, guidance: bool = False) -> Shape:
    return Shape(
        denoiser=(
            "Flux2Transformer2DModel",
            {
                "num_layers": layers,
                "num_single_layers": single_layers,
                "num_attention_heads": heads,
                "joint_attention_dim": text,
                "guidance_embeds": guidance,
            },
        ),
        vae=_FLUX2_VAE,
        embeddings={"prompt_embeds": (1, 512, text)},
        flags={} if guidance else {"is_distilled": True},
    )


def _flux1(guidance: bool) -> Shape:
    return Shape(
        denoiser=("FluxTransformer2DModel", {"guidance_embeds": guidance}),
        vae=_FLUX1_VAE,
        embeddings={"prompt_embeds": (1, 512, 4096), "pooled_prompt_embeds": (1, 768)},
    )


SHAPES: dict[str, Shape] = {  # by hub id
    "black-forest-labs/FLUX.2-klein-4B": _flux2(5, 20, 24, 7680),
    "black-forest-labs/FLUX.2-klein-9b-kv": _flux2(8, 24, 32, 12288),
    "black-forest-labs/FLUX.2-dev": _flux2(8, 48, 48, 15360, guidance=True),
    "black-forest-labs/FLUX.1-Kontext-dev": _flux1(True),
    "black-forest-labs/FLUX.1-schnell": _flux1(False),
    "Qwen/Qwen-Image-Edit-2509": Shape(
        denoiser=("QwenImageTransformer2DModel", {"out_channels": 16}),
        vae=("AutoencoderKLQwenImage", {}),
        embeddings={"prompt_embeds": (1, 128, 3584), "negative_prompt_embeds": (1, 128, 3584)},
        reference_tokens=189,  # 384 × 384 pixels at 28 a token, as its text encoder sees a reference
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": Shape(
        part="unet",
        denoiser=(
            "UNet2DConditionModel",
            {
                "sample_size": 128,
                "use_linear_projection": True,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "block_out_channels": (320, 640, 1280),
                "attention_head_dim": (5, 10, 20),
                "transformer_layers_per_block": (1, 2, 10),
                "cross_attention_dim": 2048,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
        vae=_SDXL_VAE,
        scheduler=_EULER,
        embeddings={
            "prompt_embeds": (1, 77, 2048),
            "pooled_prompt_embeds": (1, 1280),
            "negative_prompt_embeds": (1, 77, 2048),
            "negative_pooled_prompt_embeds": (1, 1280),
        },
        adapter=Adapter(vision=_VIT_H, width=1280, queries=16),
    ),
}

_TINY_FLUX2 = Shape(
    denoiser=(
        "Flux2Transformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "timestep_guidance_channels": 16,
            "axes_dims_rope": (4, 4, 4, 4),
            "guidance_embeds": False,
        },
    ),
    vae=("AutoencoderKLFlux2", _TINY_KL),
    embeddings={"prompt_embeds": (1, 7, 32)},
    flags={"is_distilled": True},
)
_TINY_FLUX1 = Shape(
    denoiser=(
        "FluxTransformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (4, 4, 8),
            "guidance_embeds": True,
        },
    ),
    vae=("AutoencoderKL", {**_TINY_KL, **_FLUX1_SCALE, **_NO_QUANT}),
    embeddings={"prompt_embeds": (1, 7, 32), "pooled_prompt_embeds": (1, 16)},
)
TINY: dict[str, Shape] = {  # by class, about the smallest sizes that it accepts
    "Flux2KleinPipeline": _TINY_FLUX2,
    "Flux2KleinKVPipeline": _TINY_FLUX2,
    "FluxKontextPipeline": _TINY_FLUX1,
    "QwenImageEditPlusPipeline": Shape(
        denoiser=(
            "QwenImageTransformer2DModel",
            {
                "in_channels": 16,
                "out_channels": 4,
                "num_layers": 1,
                "attention_head_dim": 16,
                "num_attention_heads": 2,
                "joint_attention_dim": 16,
                "axes_dims_rope": (4, 6, 6),
            },
        ),
        vae=(
            "AutoencoderKLQwenImage",
            {
                "base_dim": 2,
                "z_dim": 4,
                "dim_mult": [1]
                * 6,  # 32 pixels a latent: its attention over a reference's megapixel is small
                "temperal_downsample": [False] * 5,
                "num_res_blocks": 0,
                "latents_mean": [0.0] * 4,
                "latents_std": [1.0] * 4,
            },
        ),
        embeddings={"prompt_embeds": (1, 7, 16), "negative_prompt_embeds": (1, 7, 16)},
        reference_tokens=2,
    ),
    "StableDiffusionXLPipeline": replace(
        SHAPES["stabilityai/stable-diffusion-xl-base-1.0"],
        denoiser=(
            "UNet2DConditionModel",
            {
                "sample_size": 32,
                "use_linear_projection": True,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "block_out_channels": (8, 16),
                "layers_per_block": 1,
                "attention_head_dim": 2,
                "cross_attention_dim": 32,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 4,
                "projection_class_embeddings_input_dim": 40,
                "norm_num_groups": 4,
            },
        ),
        vae=("AutoencoderKL", _TINY_KL),
        embeddings={
            "prompt_embeds": (1, 7, 32),
            "pooled_prompt_embeds": (1, 16),
            "negative_prompt_embeds": (1, 7, 32),
            "negative_pooled_prompt_embeds": (1, 16),
        },
        adapter=Adapter(
            vision={
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "projection_dim": 16,
                "image_size": 32,
                "patch_size": 16,
            },
            width=64,
            queries=4,
        ),
    ),
}


def find_shape(model: str, pipeline: str, tiny: bool) -> Shape | None:
    """Return the sizes of a model of the hub, or tiny ones of its class; None where there are none."""
    return TINY.get(pipeline) if tiny else SHAPES.get(model)
