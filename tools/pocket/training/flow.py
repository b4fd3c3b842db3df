"""Sizes of the pocket generator, its tokenizer, and the pretraining of its text encoder.

The pretraining grounds names: at the last token of each mention a linear head predicts an 8 × 8 thumbnail of
the species from the hidden states that the transformer will read, the kind's plain look for a rare name, and
grey for an invented one.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import torch
from PIL import Image
from tokenizers import normalizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.catalogue.drawings.painting import paint
from pleinair.tools.pocket.catalogue.language.prompts import plural
from pleinair.tools.pocket.catalogue.scenes import SIZE
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, Species, plain
from pleinair.tools.pocket.training.cases import draw_item, prompts, training_rng
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Flow, Layout, train_tokenizer
from pleinair.tools.pocket.training.pool import CELL, REFERENCE_SIZE

LAYOUT = Layout(
    text_tokens=32,
    text_width=128,
    text_inner=320,
    side=SIZE // CELL,
    reference_side=REFERENCE_SIZE // CELL,
    references=3,
    double_blocks=1,
    single_blocks=8,
    heads=6,
)
VOCABULARY = 1400
NOISE = 0.5  # centre of the noise levels
WORD_BATCH, WORD_RATE, WORD_STEPS, THUMBNAIL = 96, 2e-3, 1500, 8


def load_tokenizer(run: Run) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a run, trained the first time."""
    folder = run.work / "tokenizer"
    if not folder.exists():
        build_tokenizer(run.size(30_000, 50)).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def build_tokenizer(count: int) -> PreTrainedTokenizerFast:
    """Train the BPE on `count` prompts; capitals do not count."""
    return train_tokenizer(prompts(count), VOCABULARY, normalizers.Lowercase(), prefix_space=True)


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
        self.heads = nn.ModuleList(nn.Linear(LAYOUT.text_width, THUMBNAIL**2 * 3) for _ in TEXT_LAYERS[1:])

    def forward(self, rng: random.Random) -> Tensor:
        """Return the mean squared error over mentions and layers."""
        items = [draw_item(rng, rng.choices((0, 1, 2), (4, 1, 1))[0]) for _ in range(WORD_BATCH)]
        texts = [item.prompt(rng) for item in items]
        ids, mask = LAYOUT.tokenize(self.tokenizer, texts)
        rows, columns, looks = [], [], []
        for row, (item, text) in enumerate(zip(items, texts, strict=True)):
            encoding = self.tokenizer._tokenizer.encode(text)
            start = 0
            for mention in item.request.mentions:
                written = plural(mention.name) if mention.count > 1 else mention.name
                start = text.find(written, start) + len(written)
                token = encoding.char_to_token(start - 1)
                if token is not None and token < LAYOUT.text_tokens:
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
