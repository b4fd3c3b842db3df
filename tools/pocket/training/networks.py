"""Networks of the pocket generator with its rectified-flow loss, and its tokenizer.

Text, positions and timesteps are those of `Flux2KleinPipeline`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEXT_LAYERS = (0, 2, 3)
COVERED_WEIGHT = 3.0
_PAD = "<|pad|>"
_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of a generator: its text encoder, its grids of image tokens, and its transformer."""

    text_tokens: int
    text_width: int  # of a three-layer Qwen3 with four heads
    text_inner: int  # of its feed-forward layers
    side: int  # tokens of an image's side
    reference_side: int
    references: int  # at most
    double_blocks: int
    single_blocks: int
    heads: int  # of the transformer, 32 wide each

    @property
    def image_tokens(self) -> int:
        """Return the tokens of a generated image."""
        return self.side**2

    @property
    def reference_tokens(self) -> int:
        """Return the tokens of a reference."""
        return self.reference_side**2

    def image_ids(self, references: int) -> Tensor:
        """Return (tokens, 4) positions: the image's grid, then that of each reference."""
        target: Tensor = Flux2KleinPipeline._prepare_latent_ids(torch.zeros(1, 1, self.side, self.side))[0]
        if not references:
            return target
        grids = [torch.zeros(1, 1, self.reference_side, self.reference_side) for _ in range(references)]
        return torch.cat([target, Flux2KleinPipeline._prepare_image_ids(grids)[0]])

    def tokenize(self, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask of prompts, both (b, `text_tokens`)."""
        text = tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.text_tokens,
            return_tensors="pt",
        )
        return text["input_ids"], text["attention_mask"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch of b items with r references each, n tokens an image and m a reference.

    `ids`, `mask` (b, text tokens); `targets` (b, n, 64); `references` (b, m r, 64); `covered` (b, n).
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor
    references: Tensor
    covered: Tensor


class Flow(nn.Module):
    """Text encoder and transformer; `forward` is the training loss."""

    def __init__(self, vocabulary: int, layout: Layout) -> None:
        """Build both for a tokenizer's size."""
        super().__init__()
        self.layout = layout
        self.text_encoder = _build_text_encoder(vocabulary, layout)
        self.transformer = _build_transformer(layout)
        text_ids = Flux2KleinPipeline._prepare_text_ids(torch.zeros(1, layout.text_tokens, 1))[0]
        self.register_buffer("text_ids", text_ids, persistent=False)
        for count in range(layout.references + 1):
            self.register_buffer(f"image_ids_{count}", layout.image_ids(count), persistent=False)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return (b, text tokens, 3 · width): the hidden states of `TEXT_LAYERS`, as in the pipeline."""
        states = self.text_encoder.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states
        return torch.cat([states[k] for k in TEXT_LAYERS], dim=-1)

    def velocity(self, noisy: Tensor, references: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Return the predicted velocity (b, n, 64) at noise level `sigma` (b,) in 0..1."""
        out: Tensor = self.transformer(
            hidden_states=torch.cat([noisy, references], dim=1),
            timestep=sigma,
            encoder_hidden_states=text,
            img_ids=getattr(self, f"image_ids_{references.shape[1] // self.layout.reference_tokens}"),
            txt_ids=self.text_ids,
            return_dict=False,
        )[0]
        return out[:, : noisy.shape[1]]

    def forward(self, batch: Batch, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return the mean squared velocity error; tokens under a subject count `COVERED_WEIGHT` times."""
        level = sigma[:, None, None]
        noisy = (1 - level) * batch.targets + level * noise
        predicted = self.velocity(noisy, batch.references, sigma, self.embed(batch.ids, batch.mask))
        error = ((predicted.float() - (noise - batch.targets)) ** 2).mean(dim=-1)
        weight = 1 + (COVERED_WEIGHT - 1) * batch.covered
        loss: Tensor = (error * weight).sum() / weight.sum()
        return loss


def _build_text_encoder(vocabulary: int, layout: Layout) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=layout.text_width,
        intermediate_size=layout.text_inner,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=layout.text_width // 4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,
        use_cache=False,
    )
    return Qwen3ForCausalLM(config)


def _build_transformer(layout: Layout) -> Flux2Transformer2DModel:
    """Return a transformer whose gates start near zero."""
    model = Flux2Transformer2DModel(
        in_channels=64,
        num_layers=layout.double_blocks,
        num_single_layers=layout.single_blocks,
        attention_head_dim=32,
        num_attention_heads=layout.heads,
        joint_attention_dim=layout.text_width * len(TEXT_LAYERS),
        timestep_guidance_channels=64,
        mlp_ratio=2.0,
        axes_dims_rope=(8, 10, 10, 4),
        guidance_embeds=False,
    )
    for name, parameter in model.named_parameters():
        if "modulation" in name or name.startswith(("norm_out", "proj_out")):
            nn.init.normal_(parameter, std=0.01)
    return model


def draw_sigma(count: int, generator: torch.Generator, centre: float) -> Tensor:
    """Draw logit-normal noise levels; a `centre` over 0 leans to noise, where the layout is decided."""
    return torch.sigmoid(centre + 1.1 * torch.randn(count, generator=generator))


def train_tokenizer(
    prompts: Iterable[str], vocabulary: int, normalizer: Any = None, *, prefix_space: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with the chat template of the pocket generator."""
    raw = Tokenizer(models.BPE())
    if normalizer is not None:
        raw.normalizer = normalizer
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[_PAD], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(prompts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=_PAD, eos_token=_PAD, padding_side="right"
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer
