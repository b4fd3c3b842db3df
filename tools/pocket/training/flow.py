"""Sizes of the pocket generator, and the pretraining of its text encoder.

The pretraining teaches the text encoder what the known names look like before it is trained on images: at
each noun ("velmora finch", the second word) linear heads predict kind, colours and pattern from the hidden
states that the transformer will read; for an unknown name the class is "unknown". Names that share a colour
then share a direction, and the transformer learns a dozen colours in place of fifty-four names.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.invented.shapes import PALETTE
from pleinair.tools.pocket.invented.world import KINDS, NOUNS, PATTERNS, Species
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Flow, Layout
from pleinair.tools.pocket.training.pool import KNOWN, draw_prompt
from pleinair.tools.pocket.training.streams import training_rng

LAYOUT = Layout(
    text_tokens=20,
    text_width=96,
    text_inner=256,
    side=8,
    reference_side=4,
    references=2,
    double_blocks=1,
    single_blocks=5,
    heads=6,
)
NOISE = 0.4  # centre of the noise levels
UNKNOWN = 0
WORD_BATCH, WORD_RATE, WORD_STEPS = 96, 2e-3, 200
CLASSES = (len(KINDS), len(PALETTE) + 1, len(PALETTE) + 1, len(PATTERNS) + 1)


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
        self.heads = nn.ModuleList(nn.Linear(LAYOUT.text_width, sum(CLASSES)) for _ in TEXT_LAYERS[1:])

    def forward(self, prompts: Sequence[str], species: Sequence[list[Species]]) -> Tensor:
        """Return the mean cross entropy over attributes and layers."""
        ids, mask = LAYOUT.tokenize(self.tokenizer, prompts)
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
