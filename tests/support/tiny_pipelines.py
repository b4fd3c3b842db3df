"""Pipelines of diffusers' classes with a few thousand random weights each, saved to a test's folder.

Sizes are about the smallest that the classes accept; tokenizers are built here. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PIXTRAL = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
VOCABULARY = 3 + 256 + len(VISION + PIXTRAL)
USER_ONLY = """{% for message in messages if message['role'] == 'user' %}{% if message['content'] is string
%}{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}{% endfor %}"""
CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 16}


def tokenizer(length: int = 24) -> Any:
    """Build a tokenizer with a token for each byte, wrapped in <s> and </s>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", *letters, *VISION, *PIXTRAL]
    raw = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<pad>", bos_token="<s>", eos_token="</s>",
        model_max_length=length, additional_special_tokens=[*VISION, *PIXTRAL],
    )  # fmt: skip
    fast.chat_template = USER_ONLY
    return fast


def euler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def autoencoder(blocks: int = 2, **others: Any) -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=32, **others,
    )  # fmt: skip


def qwen3(layers: int = 1) -> Any:
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.Qwen3ForCausalLM(config)


def clip_text(projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        **CLIP, vocab_size=VOCABULARY, num_hidden_layers=2, max_position_embeddings=24,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    kind = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    return getattr(transformers, kind)(config)


def t5(size: int = 16) -> Any:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=size, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def flux2_parts(guidance: bool = False) -> dict[str, Any]:
    return {
        "scheduler": euler(),
        "vae": diffusers.AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        ),
        "transformer": diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance,
        ),
    }  # fmt: skip


def klein(kind: str = "Flux2KleinPipeline") -> Any:
    parts = {"text_encoder": qwen3(), "tokenizer": tokenizer(), "is_distilled": True}
    return getattr(diffusers, kind)(**flux2_parts(), **parts)


def klein_kv() -> Any:
    return klein("Flux2KleinKVPipeline")


def flux2() -> Any:
    text = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(
            **text, vocab_size=VOCABULARY, num_key_value_heads=2, head_dim=8, max_position_embeddings=64
        ),
        vision_config=transformers.PixtralVisionConfig(**text, head_dim=8, image_size=32, patch_size=16),
        image_token_index=tokenizer().convert_tokens_to_ids("[IMG]"),
    )
    processor = transformers.PixtralProcessor(
        transformers.PixtralImageProcessor(), tokenizer(), chat_template=USER_ONLY
    )
    encoder = transformers.Mistral3ForConditionalGeneration(config)
    return diffusers.Flux2Pipeline(**flux2_parts(True), text_encoder=encoder, tokenizer=processor)


FLUX1 = {
    "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 16, "pooled_projection_dim": 16,
    "axes_dims_rope": (4, 4, 8), "guidance_embeds": True,
}  # fmt: skip


def flux1(kind: str = "FluxPipeline") -> Any:
    return getattr(diffusers, kind)(
        scheduler=euler(), vae=autoencoder(shift_factor=0.1), text_encoder=clip_text(),
        tokenizer=tokenizer(), text_encoder_2=t5(), tokenizer_2=tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(**FLUX1),
    )  # fmt: skip


def kontext() -> Any:
    return flux1("FluxKontextPipeline")


def qwen_edit() -> Any:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            **text, "num_hidden_layers": 1, "vocab_size": VOCABULARY, "max_position_embeddings": 2048,
            "rope_parameters": {"type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16
        },
        image_token_id=tokenizer().convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer().convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer().convert_tokens_to_ids("<|vision_start|>"),
    )  # fmt: skip
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size), tokenizer(1024),
        transformers.Qwen2VLVideoProcessor(), chat_template=USER_ONLY,
    )  # fmt: skip
    return diffusers.QwenImageEditPlusPipeline(
        scheduler=euler(), tokenizer=tokenizer(1024), processor=processor,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def omnigen() -> Any:
    return diffusers.OmniGenPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        vae=autoencoder(blocks=4), tokenizer=tokenizer(),
        transformer=diffusers.OmniGenTransformer2DModel(
            hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32,
            num_layers=1, vocab_size=VOCABULARY, pad_token_id=0, pos_embed_max_size=16, time_step_dim=16,
            max_position_embeddings=1024, original_max_position_embeddings=64,
            rope_scaling={"short_factor": [1.0] * 4, "long_factor": [1.0] * 4},
        ),
    )  # fmt: skip


def z_image_omni() -> Any:
    vision = transformers.Siglip2VisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_patches=16
    )
    return diffusers.ZImageOmniPipeline(
        scheduler=euler(), vae=autoencoder(shift_factor=0.1), text_encoder=qwen3(2), tokenizer=tokenizer(),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
            siglip_feat_dim=16, axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
        ),
        siglip=transformers.Siglip2VisionModel(vision),
        siglip_processor=transformers.Siglip2ImageProcessor(max_num_patches=16),
    )  # fmt: skip


BRANCH = {
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}  # fmt: skip
CONDITIONING = {
    "conditioning_embedding_out_channels": (8, 8)
}  # halves the sides once, as the autoencoder does
XL = {
    "cross_attention_dim": 32, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 16 + 6 * 4, "use_linear_projection": True,
}  # fmt: skip


UNET = {**BRANCH, "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "sample_size": 16}
SMALL = {**UNET, "cross_attention_dim": 16}
LARGE = {**UNET, **XL}


def sd15() -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=clip_text(), tokenizer=tokenizer(),
        unet=diffusers.UNet2DConditionModel(**SMALL), feature_extractor=None,
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1), safety_checker=None,
        requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(), text_encoder=clip_text(), text_encoder_2=clip_text(projected=True),
        tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        unet=diffusers.UNet2DConditionModel(**LARGE),
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading"),
    )  # fmt: skip


SD3 = {
    "sample_size": 16, "in_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 32, "caption_projection_dim": 32, "pooled_projection_dim": 32, "out_channels": 4,
    "pos_embed_max_size": 16,
}  # fmt: skip


def sd3() -> Any:
    return diffusers.StableDiffusion3Pipeline(
        scheduler=euler(), transformer=diffusers.SD3Transformer2DModel(**SD3),
        vae=autoencoder(shift_factor=0.1), text_encoder=clip_text(True), tokenizer=tokenizer(),
        text_encoder_2=clip_text(True), tokenizer_2=tokenizer(),
        text_encoder_3=t5(32), tokenizer_3=tokenizer(),
    )  # fmt: skip


def z_image() -> Any:
    return diffusers.ZImagePipeline(
        scheduler=euler(), vae=autoencoder(shift_factor=0.1), text_encoder=qwen3(2), tokenizer=tokenizer(),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
            axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
        ),
    )  # fmt: skip


def branch_sd15() -> Any:
    return activated(diffusers.ControlNetModel(**BRANCH, cross_attention_dim=16, **CONDITIONING))


def branch_sdxl() -> Any:
    return activated(diffusers.ControlNetModel(**BRANCH, **XL, **CONDITIONING))


def branch_sd3() -> Any:
    return activated(diffusers.SD3ControlNetModel(**{**SD3, "num_layers": 1}))


def branch_flux1() -> Any:
    return activated(diffusers.FluxControlNetModel(**FLUX1))


def activated(branch: Any) -> Any:
    """Return a branch with an effect: the outputs of a newly built one are all zero."""
    with torch.no_grad():
        for weight in branch.parameters():
            if not weight.any():
                weight.normal_(std=0.5)
    return branch


def save(make: Callable[[], Any], folder: Path) -> Path:
    """Build a model or pipeline from a fixed seed, save it, and return its folder."""
    torch.manual_seed(0)
    make().save_pretrained(folder, safe_serialization=True)
    return folder


def save_ip_adapter(unet: Any, folder: Path) -> None:
    """Save an IP-Adapter-plus for a U-Net, by its authors' names of weights, and an image encoder."""
    torch.manual_seed(0)
    width = unet.config.cross_attention_dim
    attentions = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    weights = {f"image_proj.{name}": weight for name, weight in resampler(width).items()}
    for number, name in enumerate(attentions):
        size = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(size, width)
    (folder / "models").mkdir(parents=True)
    save_file(weights, folder / "models" / "plus.safetensors")
    config = transformers.CLIPVisionConfig(**CLIP, num_hidden_layers=2, image_size=32, patch_size=16)
    encoder = transformers.CLIPVisionModelWithProjection(config)
    encoder.save_pretrained(folder / "models" / "image_encoder")


def resampler(width: int, inside: int = 64) -> dict[str, torch.Tensor]:
    """Return random weights of IP-Adapter-plus, which has four blocks with heads of 64 in every size."""
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, 4, inside), "proj_in.weight": (inside, 16), "proj_in.bias": (inside,),
        "proj_out.weight": (width, inside), "proj_out.bias": (width,),
        "norm_out.weight": (width,), "norm_out.bias": (width,),
    }  # fmt: skip
    for number in range(4):
        for name, shape in {
            "0.norm1.weight": (inside,), "0.norm1.bias": (inside,), "0.norm2.weight": (inside,),
            "0.norm2.bias": (inside,), "0.to_q.weight": (inside, inside),
            "0.to_kv.weight": (2 * inside, inside), "0.to_out.weight": (inside, inside),
            "1.0.weight": (inside,), "1.0.bias": (inside,), "1.1.weight": (4 * inside, inside),
            "1.3.weight": (inside, 4 * inside),
        }.items():  # fmt: skip
            shapes[f"layers.{number}.{name}"] = shape
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def save_dinov2(folder: Path) -> Path:
    """Save a DINOv2 of two small layers with its preprocessing, and return its folder."""
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    size = {"shortest_edge": 28}
    transformers.BitImageProcessor(size=size, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return save(lambda: transformers.Dinov2Model(config), folder)


def save_dino(folder: Path) -> Path:
    """Save a ViT in DINO's format, of two small layers, with its preprocessing, and return its folder."""
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return save(lambda: transformers.ViTModel(config, add_pooling_layer=False), folder)


TEXT = {"max_sequence_length": 24}
FLUX2 = {**TEXT, "text_encoder_out_layers": (0, 1)}
TEXT_ONLY: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {  # class → its model, options of its call
    "StableDiffusionPipeline": (sd15, {}),
    "StableDiffusionXLPipeline": (sdxl, {}),
    "StableDiffusion3Pipeline": (sd3, TEXT),
    "FluxPipeline": (flux1, TEXT),
    "FluxKontextPipeline": (kontext, TEXT),
    "Flux2KleinPipeline": (klein, FLUX2),
    "Flux2KleinKVPipeline": (klein, FLUX2),
    "Flux2Pipeline": (flux2, FLUX2),
    "QwenImagePipeline": (qwen_edit, {}),
    "OmniGenPipeline": (omnigen, {}),
    "ZImagePipeline": (z_image, TEXT),
    "ZImageOmniPipeline": (z_image_omni, TEXT),
}
