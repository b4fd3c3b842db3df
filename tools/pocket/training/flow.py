"""Build the generator's two networks and their rectified-flow loss, as Flux2KleinPipeline will run them."""

from dataclasses import dataclass

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from pleinair.tools.pocket.training.pool import REFERENCE_TOKENS
from pleinair.tools.pocket.training.tokens import MAX_LENGTH

TEXT_LAYERS = (0, 2, 3)
TEXT_WIDTH = 96
COVERED_WEIGHT = 3.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold one batch of items with r references each.

    `ids`, `mask` (b, 20); `targets` (b, 64, 64); `references` (b, 16 r, 64); `covered` (b, 64).
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor
    references: Tensor
    covered: Tensor


def _build_text_encoder(vocabulary: int) -> Qwen3ForCausalLM:
    """Return a three-layer Qwen3 of width 96."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=24,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,
        use_cache=False,
    )
    return Qwen3ForCausalLM(config)


def _build_transformer() -> Flux2Transformer2DModel:
    """Return one double and five single blocks of width 192, with gates that start near zero."""
    model = Flux2Transformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=5,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=TEXT_WIDTH * len(TEXT_LAYERS),
        timestep_guidance_channels=64,
        mlp_ratio=2.0,
        axes_dims_rope=(8, 10, 10, 4),
        guidance_embeds=False,
    )
    for name, parameter in model.named_parameters():
        if "modulation" in name or name.startswith(("norm_out", "proj_out")):
            nn.init.normal_(parameter, std=0.01)
    return model


class Flow(nn.Module):
    """Join text encoder and transformer; `forward` is the training loss."""

    def __init__(self, vocabulary: int, channel_weight: Tensor) -> None:
        """Take the tokenizer's size and the loss weight of each of the 64 channels (mean 1)."""
        super().__init__()
        self.channel_weight: Tensor
        self.text_encoder = _build_text_encoder(vocabulary)
        self.transformer = _build_transformer()
        self.register_buffer("channel_weight", channel_weight, persistent=False)
        self.register_buffer(
            "text_ids", Flux2KleinPipeline._prepare_text_ids(torch.zeros(1, MAX_LENGTH, 1))[0], False
        )
        for count in range(3):
            self.register_buffer(f"image_ids_{count}", image_ids(count), persistent=False)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return (b, 20, 288): the hidden states of `TEXT_LAYERS` side by side, as in the pipeline."""
        states = self.text_encoder.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states
        return torch.cat([states[k] for k in TEXT_LAYERS], dim=-1)

    def velocity(self, noisy: Tensor, references: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Return the predicted velocity (b, 64, 64) at noise level `sigma` (b,) in 0..1."""
        ids = getattr(self, f"image_ids_{references.shape[1] // REFERENCE_TOKENS}")
        out: Tensor = self.transformer(
            hidden_states=torch.cat([noisy, references], dim=1),
            timestep=sigma,
            encoder_hidden_states=text,
            img_ids=ids,
            txt_ids=self.text_ids,
            return_dict=False,
        )[0]
        return out[:, : noisy.shape[1]]

    def forward(self, batch: Batch, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return the weighted squared velocity error; tokens under a subject count `COVERED_WEIGHT` times."""
        level = sigma[:, None, None]
        noisy = (1 - level) * batch.targets + level * noise
        predicted = self.velocity(noisy, batch.references, sigma, self.embed(batch.ids, batch.mask))
        error = ((predicted - (noise - batch.targets)) ** 2 * self.channel_weight).mean(dim=-1)
        weight = 1 + (COVERED_WEIGHT - 1) * batch.covered
        loss: Tensor = (error * weight).sum() / weight.sum()
        return loss


def image_ids(references: int) -> Tensor:
    """Return (64 + 16 r, 4) positions: the target's 8 × 8 grid, then each reference's 4 × 4 grid."""
    target: Tensor = Flux2KleinPipeline._prepare_latent_ids(torch.zeros(1, 1, 8, 8))[0]
    if not references:
        return target
    grids = [torch.zeros(1, 1, 4, 4) for _ in range(references)]
    return torch.cat([target, Flux2KleinPipeline._prepare_image_ids(grids)[0]])


def draw_sigma(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels: logit-normal, leaning to the noisy side where the plan of a picture is made."""
    normal = torch.randn(count, generator=generator)
    return torch.sigmoid(0.4 + 1.1 * normal)
