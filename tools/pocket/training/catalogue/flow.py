"""Networks of the catalogue world's generator, their rectified-flow loss, and the text encoder's pretraining.

Text, positions and timesteps are those of `Flux2KleinPipeline`. The pretraining grounds names: at the last
token of each mention a linear head predicts an 8 × 8 thumbnail of the species from the hidden states that the
transformer will read, the kind's plain look for a rare name, and grey for an invented one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pleinair.tools.pocket.catalogue.painting import paint
from pleinair.tools.pocket.catalogue.prompts import plural
from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, Species, plain
from pleinair.tools.pocket.training.catalogue.cases import draw_item, prompts, training_rng
from pleinair.tools.pocket.training.catalogue.pool import CELL, REFERENCE_SIZE, REFERENCE_TOKENS
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.pool import CHAT_TEMPLATE, PAD

TEXT_LAYERS = (0, 2, 3)
TEXT_WIDTH = 128
MAX_LENGTH, VOCABULARY = 32, 1400
SIZES = (1, 8, 6)  # double blocks, single blocks, attention heads of 32
COVERED_WEIGHT = 3.0
WORD_BATCH, WORD_RATE, WORD_STEPS, THUMBNAIL = 96, 2e-3, 1500, 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch of b items with r references each.

    `ids`, `mask` (b, 32); `targets` (b, 144, 64); `references` (b, 36 r, 64); `covered` (b, 144).
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor
    references: Tensor
    covered: Tensor


def build_tokenizer(count: int = 30_000) -> PreTrainedTokenizerFast:
    """Train the BPE on `count` prompts; capitals do not count."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[PAD], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(prompts(count), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=PAD, eos_token=PAD, padding_side="right"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return ids and mask of prompts, both (b, 32)."""
    text = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    return text["input_ids"], text["attention_mask"]


class Flow(nn.Module):
    """Text encoder and transformer; `forward` is the training loss."""

    def __init__(self, vocabulary: int, sizes: tuple[int, int, int] = SIZES) -> None:
        """Build both for a tokenizer's size."""
        super().__init__()
        self.text_encoder = _build_text_encoder(vocabulary)
        self.transformer = _build_transformer(*sizes)
        text_ids = Flux2KleinPipeline._prepare_text_ids(torch.zeros(1, MAX_LENGTH, 1))[0]
        self.register_buffer("text_ids", text_ids, persistent=False)
        for count in range(4):
            self.register_buffer(f"image_ids_{count}", _image_ids(count), persistent=False)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return (b, 32, 384): the hidden states of `TEXT_LAYERS` side by side, as in the pipeline."""
        states = self.text_encoder.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states
        return torch.cat([states[k] for k in TEXT_LAYERS], dim=-1)

    def velocity(self, noisy: Tensor, references: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Return the predicted velocity (b, 144, 64) at noise level `sigma` (b,) in 0..1."""
        out: Tensor = self.transformer(
            hidden_states=torch.cat([noisy, references], dim=1),
            timestep=sigma,
            encoder_hidden_states=text,
            img_ids=getattr(self, f"image_ids_{references.shape[1] // REFERENCE_TOKENS}"),
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


def _image_ids(references: int) -> Tensor:
    """Return (144 + 36 r, 4) positions: the target's 12 × 12 grid, then each reference's 6 × 6 grid."""
    side, small = SIZE // CELL, REFERENCE_SIZE // CELL
    target: Tensor = Flux2KleinPipeline._prepare_latent_ids(torch.zeros(1, 1, side, side))[0]
    if not references:
        return target
    grids = [torch.zeros(1, 1, small, small) for _ in range(references)]
    return torch.cat([target, Flux2KleinPipeline._prepare_image_ids(grids)[0]])


def _build_text_encoder(vocabulary: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,
        use_cache=False,
    )
    return Qwen3ForCausalLM(config)


def _build_transformer(doubles: int, singles: int, heads: int) -> Flux2Transformer2DModel:
    model = Flux2Transformer2DModel(
        in_channels=64,
        num_layers=doubles,
        num_single_layers=singles,
        attention_head_dim=32,
        num_attention_heads=heads,
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


def draw_sigma(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels: logit-normal, leaning to the noisy side where the layout of an image is decided."""
    return torch.sigmoid(0.5 + 1.1 * torch.randn(count, generator=generator))


@cache
def _thumbnail(name: str) -> Tensor:
    """Return the look of a name as (192,) in -1..1: grey for an unknown name."""
    species = BY_NAME.get(name) or (plain(name) if name in KINDS else None)
    if species is None:
        return torch.zeros(THUMBNAIL * THUMBNAIL * 3)
    drawn: Species = plain(species.kind) if species.tier != "known" else species
    canvas = Image.new("RGB", (128, 128), (128, 128, 128))
    paint(canvas, drawn.shapes, (64.0, 64.0), 62)
    small = np.asarray(canvas.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
    return torch.from_numpy(small / 127.5 - 1).reshape(-1)


class _WordHeads(nn.Module):
    """Text side of a flow with a linear head for each layer; `forward` is the loss."""

    def __init__(self, flow: Flow, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.flow, self.tokenizer = flow, tokenizer
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, THUMBNAIL**2 * 3) for _ in TEXT_LAYERS[1:])

    def forward(self, rng: random.Random) -> Tensor:
        """Return the mean squared error over mentions and layers."""
        items = [draw_item(rng, rng.choices((0, 1, 2), (4, 1, 1))[0]) for _ in range(WORD_BATCH)]
        texts = [item.prompt(rng) for item in items]
        ids, mask = tokenize(self.tokenizer, texts)
        rows, columns, looks = [], [], []
        for row, (item, text) in enumerate(zip(items, texts, strict=True)):
            encoding = self.tokenizer._tokenizer.encode(text)
            start = 0
            for mention in item.request.mentions:
                written = plural(mention.name) if mention.count > 1 else mention.name
                start = text.find(written, start) + len(written)
                token = encoding.char_to_token(start - 1)
                if token is not None and token < MAX_LENGTH:
                    rows.append(row)
                    columns.append(token)
                    looks.append(_thumbnail(mention.name))
        target = torch.stack(looks)
        states = self.flow.embed(ids, mask).chunk(len(TEXT_LAYERS), dim=-1)[1:]
        errors = [
            ((head(state[rows, columns]) - target) ** 2).mean()
            for head, state in zip(self.heads, states, strict=True)
        ]
        return torch.stack(errors).mean()


def pretrain_text(flow: Flow, tokenizer: PreTrainedTokenizerFast, run: Run) -> None:
    """Train the flow's text encoder in place on the looks of names; takes some minutes."""
    words = _WordHeads(flow, tokenizer)
    steps = run.size(WORD_STEPS, 2)
    optimizer = torch.optim.AdamW([*flow.text_encoder.parameters(), *words.heads.parameters()], lr=WORD_RATE)
    for step in range(steps):
        loss = words(training_rng(3_000_000_000 + step))
        loss.backward()
        optimizer.param_groups[0]["lr"] = WORD_RATE * min(1.0, 2 * (1 - step / steps))
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            run.say(f"generator: names, step {step + 1} of {steps}, loss {loss.item():.4f}")
