"""Pipelines of the real models' shapes with random weights: what they cost is theirs, what they draw is not.

Sizes are those of the published configurations. Text encoders are left out: the pipelines are given random
embeddings of the right shape. Not covered: the time of a text encoder, offloading, formats under 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = tuple[str, Mapping[str, Any]]  # a class of diffusers and its configuration


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Describe a pipeline without its weights.

    Args:
        pipeline: its class in diffusers.
        part: the denoiser's name in the pipeline.
        denoiser: class and configuration, as `vae` and `scheduler`.
        embeddings: the call's text arguments and their shapes.
        side: of the picture in pixels.
        reference: side of a reference in pixels.
        references: how many are given, one measurement each.
        listed: whether they are given as a list.
        call: further arguments of the call.
        parts: further arguments of the pipeline's class.
    """

    pipeline: str
    part: str = "transformer"
    denoiser: Config
    vae: Config
    scheduler: Config = ("FlowMatchEulerDiscreteScheduler", {})
    embeddings: Mapping[str, tuple[int, ...]]
    side: int = 1024
    reference: int = 512
    references: tuple[int, ...] = (0,)
    listed: bool = True
    call: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)


def _blocks(count: int) -> dict[str, Any]:
    """Name an autoencoder's blocks."""
    down, up = ("DownEncoderBlock2D",) * count, ("UpDecoderBlock2D",) * count
    return {"down_block_types": down, "up_block_types": up}


def _autoencoder(tiny: bool, **real: Any) -> dict[str, Any]:
    """Give the configuration that all these autoencoders have but for their latents."""
    if tiny:
        small = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
        return {**_blocks(2), **real, **small, "latent_channels": 4}
    return {**_blocks(4), "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, **real}


def _sdxl(tiny: bool) -> Shape:
    """Give Stable Diffusion XL, 2.6 billion weights in the U-Net."""
    levels = ("DownBlock2D", *("CrossAttnDownBlock2D",) * (1 if tiny else 2))
    real = {
        "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10), "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    }  # fmt: skip
    small = {
        "block_out_channels": (8, 16), "layers_per_block": 1, "attention_head_dim": 2, "norm_num_groups": 4,
        "transformer_layers_per_block": 1, "cross_attention_dim": 16, "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 16 + 6 * 4,
    }  # fmt: skip
    unet = {
        "in_channels": 4, "out_channels": 4, "down_block_types": levels, "addition_embed_type": "text_time",
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(levels)),
        "use_linear_projection": True, "sample_size": 128, **(small if tiny else real),
    }  # fmt: skip
    whole, pooled = ((1, 7, 16), (1, 16)) if tiny else ((1, 77, 2048), (1, 1280))
    texts = {"prompt_embeds": whole, "pooled_prompt_embeds": pooled}
    return Shape(
        pipeline="StableDiffusionXLPipeline",
        part="unet",
        denoiser=("UNet2DConditionModel", unet),
        vae=("AutoencoderKL", _autoencoder(tiny, latent_channels=4)),
        scheduler=("EulerDiscreteScheduler", {"beta_schedule": "scaled_linear"}),
        embeddings={**texts, **{f"negative_{name}": shape for name, shape in texts.items()}},
        side=64 if tiny else 1024,
        call={"num_inference_steps": 2 if tiny else 30, "guidance_scale": 5.0},
        parts=dict.fromkeys(("text_encoder_2", "tokenizer_2")),
    )


def _klein(tiny: bool, pipeline: str = "Flux2KleinPipeline") -> Shape:
    """Give FLUX.2 klein 4B: four steps, up to four references in context."""
    reused = pipeline == "Flux2KleinKVPipeline"
    real = {
        "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
        "guidance_embeds": False,
    }  # fmt: skip
    small = {
        **real, "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2,
        "attention_head_dim": 16, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 4, 4),
        "timestep_guidance_channels": 16,
    }  # fmt: skip
    counts = (0, 4) if tiny else (0, 1, 2, 3, 4)
    return Shape(
        pipeline=pipeline,
        denoiser=("Flux2Transformer2DModel", small if tiny else real),
        vae=("AutoencoderKLFlux2", _autoencoder(tiny, latent_channels=32)),
        embeddings={"prompt_embeds": (1, 7, 32) if tiny else (1, 512, 7680)},
        side=64 if tiny else 1024,
        reference=64 if tiny else 512,
        references=counts[1:] if reused else counts,
        call={"num_inference_steps": 2 if tiny else 4, **({} if reused else {"guidance_scale": 1.0})},
        parts={"is_distilled": True},
    )


def _klein_kv(tiny: bool) -> Shape:
    """Give FLUX.2 klein 4B whose references' keys and values are computed once."""
    return _klein(tiny, "Flux2KleinKVPipeline")


def _flux(tiny: bool, pipeline: str = "FluxPipeline") -> Shape:
    """Give FLUX.1 dev, 12 billion weights."""
    small = {
        "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 16,
        "axes_dims_rope": (4, 4, 8),
    }  # fmt: skip
    vae = {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611}
    whole, pooled = ((1, 7, 32), (1, 16)) if tiny else ((1, 512, 4096), (1, 768))
    edits = pipeline == "FluxKontextPipeline"
    return Shape(
        pipeline=pipeline,
        denoiser=("FluxTransformer2DModel", {"guidance_embeds": True, **(small if tiny else {})}),
        vae=("AutoencoderKL", _autoencoder(tiny, latent_channels=16, shift_factor=0.1159, **vae)),
        embeddings={"prompt_embeds": whole, "pooled_prompt_embeds": pooled},
        side=64 if tiny else 1024,
        reference=64 if tiny else 1024,
        references=(0, 1) if edits else (0,),
        listed=False,
        call={
            "num_inference_steps": 2 if tiny else 28,
            "guidance_scale": 2.5 if edits else 3.5,
            **({"_auto_resize": False, "max_area": 64 * 64 if tiny else 1024 * 1024} if edits else {}),
        },
        parts=dict.fromkeys(("text_encoder_2", "tokenizer_2")),
    )


def _kontext(tiny: bool) -> Shape:
    """Give FLUX.1 Kontext dev, which takes one reference."""
    return _flux(tiny, "FluxKontextPipeline")


SHAPES = {
    "SDXL": _sdxl,
    "FLUX.2-klein-4B": _klein,
    "FLUX.2-klein-4B, keys and values reused": _klein_kv,
    "FLUX.1-dev": _flux,
    "FLUX.1-Kontext-dev": _kontext,
}


def build(shape: Shape, device: str, dtype: Any) -> Any:
    """Make the pipeline on the device with random weights."""
    import diffusers

    name, config = shape.scheduler
    parts = {
        "vae": _materialise(shape.vae, device, dtype),
        "scheduler": getattr(diffusers, name)(**config),
        shape.part: _materialise(shape.denoiser, device, dtype),
    }
    absent = {"text_encoder": None, "tokenizer": None}
    pipeline = getattr(diffusers, shape.pipeline)(**parts, **absent, **shape.parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def meta(config: Config) -> Any:
    """Make a model without memory for its weights."""
    import diffusers
    import torch

    name, arguments = config
    with torch.device("meta"):
        return getattr(diffusers, name)(**arguments)


def _materialise(config: Config, device: str, dtype: Any) -> Any:
    """Give a model memory on the device, and small random weights: variances and norms of 1, biases of 0."""
    import torch

    model = torch.nn.Module.to(meta(config), dtype).to_empty(device=device).eval().requires_grad_(False)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.ndim > 1:
                tensor.normal_(0.0, 0.02)
            else:
                tensor.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return model
