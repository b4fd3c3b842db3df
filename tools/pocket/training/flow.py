"""Networks of the pocket generator, their rectified-flow loss, and the pretraining of its text encoder.

Text, positions and timesteps are those of `Flux2KleinPipeline`. The pretraining teaches the text encoder what
the known names look like before it is trained on images: at each noun ("velmora finch", the second word)
linear heads predict kind, colours and pattern from the hidden states that the transformer will read; for an
unknown name the class is "unknown". Names that share a colour then share a direction, and the transformer
learns a dozen colours in place of fifty-four names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pleinair.tools.pocket.shapes import PALETTE
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.pool import KNOWN, MAX_LENGTH, REFERENCE_TOKENS, draw_prompt
from pleinair.tools.pocket.training.streams import training_rng
from pleinair.tools.pocket.world import KINDS, NOUNS, PATTERNS, Species

TEXT_LAYERS = (0, 2, 3)
TEXT_WIDTH = 96
COVERED_WEIGHT = 3.0
SIZES = (5, 6)  # single blocks, attention heads
UNKNOWN = 0
WORD_BATCH, WORD_RATE, WORD_STEPS = 96, 2e-3, 200
CLASSES = (len(KINDS), len(PALETTE) + 1, len(PALETTE) + 1, len(PATTERNS) + 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch of b items with r references each.

    `ids`, `mask` (b, 20); `targets` (b, 64, 64); `references` (b, 16 r, 64); `covered` (b, 64).
    """

    ids: Tensor
    mask: Tensor
    targets: Tensor
    references: Tensor
    covered: Tensor


def tokenize(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return ids and mask of prompts, both (b, 20)."""
    text = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    return text["input_ids"], text["attention_mask"]


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


def _build_transformer(layers: int, heads: int) -> Flux2Transformer2DModel:
    """Return one double and `layers` single blocks of width 32 · `heads`, with gates that start near zero."""
    model = Flux2Transformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=layers,
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


class Flow(nn.Module):
    """Text encoder and transformer; `forward` is the training loss."""

    def __init__(self, vocabulary: int, sizes: tuple[int, int] = SIZES) -> None:
        """Build both for a tokenizer's size, and a transformer of so many single blocks and heads."""
        super().__init__()
        self.text_encoder = _build_text_encoder(vocabulary)
        self.transformer = _build_transformer(*sizes)
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
        """Return the mean squared velocity error; tokens under a subject count `COVERED_WEIGHT` times."""
        level = sigma[:, None, None]
        noisy = (1 - level) * batch.targets + level * noise
        predicted = self.velocity(noisy, batch.references, sigma, self.embed(batch.ids, batch.mask))
        error = ((predicted - (noise - batch.targets)) ** 2).mean(dim=-1)
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
    """Draw noise levels: logit-normal, leaning to the noisy side where the layout of an image is decided."""
    normal = torch.randn(count, generator=generator)
    return torch.sigmoid(0.4 + 1.1 * normal)


def _classes(species: Species) -> tuple[int, int, int, int]:
    """Return the class of kind, body, accent and pattern; the last three are 0 for an unknown species."""
    kind, colours = KINDS.index(species.kind), list(PALETTE)
    if species not in KNOWN:
        return kind, UNKNOWN, UNKNOWN, UNKNOWN
    body, accent = colours.index(species.body), colours.index(species.accent)
    return kind, body + 1, accent + 1, PATTERNS.index(species.pattern) + 1


class _WordHeads(nn.Module):
    """Text side of a flow with a linear head for each layer; `forward` is the loss."""

    def __init__(self, flow: Flow, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.flow, self.tokenizer = flow, tokenizer
        self.nouns = torch.tensor(
            [tokenizer(f" {n}")["input_ids"][0] for nouns in NOUNS.values() for n in nouns]
        )
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, sum(CLASSES)) for _ in TEXT_LAYERS[1:])

    def forward(self, prompts: Sequence[str], species: Sequence[list[Species]]) -> Tensor:
        """Return the mean cross entropy over attributes and layers."""
        ids, mask = tokenize(self.tokenizer, prompts)
        states = self.flow.embed(ids, mask).chunk(len(TEXT_LAYERS), dim=-1)[1:]
        at_noun = torch.isin(ids, self.nouns)
        target = torch.tensor(
            [_classes(s) for row, nouns in zip(species, at_noun, strict=True) for s in row[: nouns.sum()]]
        )
        losses = []
        for head, state in zip(self.heads, states, strict=True):
            logits = head(state[at_noun]).split(CLASSES, dim=-1)
            losses += [nn.functional.cross_entropy(part, target[:, i]) for i, part in enumerate(logits)]
        return torch.stack(losses).mean()


def pretrain_text(flow: Flow, tokenizer: PreTrainedTokenizerFast, run: Run) -> None:
    """Train the flow's text encoder in place on the looks of names; takes a minute or two."""
    words = _WordHeads(flow, tokenizer)
    steps = run.size(WORD_STEPS, 2)
    optimizer = torch.optim.AdamW([*flow.text_encoder.parameters(), *words.heads.parameters()], lr=WORD_RATE)
    for step in range(steps):
        rng = training_rng(90_000_000 + step)
        prompts, species = zip(*[draw_prompt(rng, 0.75) for _ in range(WORD_BATCH)], strict=True)
        loss = words(prompts, species)
        loss.backward()
        optimizer.param_groups[0]["lr"] = WORD_RATE * min(1.0, 2 * (1 - step / steps))
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            run.say(f"generator: names, step {step + 1} of {steps}, loss {loss.item():.3f}")
