"""Teach the text encoder what the known names look like, before and apart from any picture.

At each noun ("velmora finch", the second word) linear heads read kind, colours and pattern off the hidden
states that the transformer will see; an unknown name has the answer "unknown". Names that share a colour
then share a direction, and the transformer learns a dozen colours in place of fifty-four names.
"""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.names import NOUNS
from pleinair.tools.pocket.prompts import RELATIONS, Request, write_prompt
from pleinair.tools.pocket.shapes import PALETTE
from pleinair.tools.pocket.training.flow import TEXT_LAYERS, TEXT_WIDTH, Flow
from pleinair.tools.pocket.training.pool import KNOWN
from pleinair.tools.pocket.training.tokens import MAX_LENGTH
from pleinair.tools.pocket.world import KINDS, PATTERNS, Species, random_species, training_rng

UNKNOWN = 0
BATCH, RATE = 96, 2e-3
ANSWERS = (len(KINDS), len(PALETTE) + 1, len(PALETTE) + 1, len(PATTERNS) + 1)


def _answers(species: Species) -> tuple[int, int, int, int]:
    """Return the class of kind, body, accent and pattern; the last three are 0 for a species not known."""
    kind, colours = KINDS.index(species.kind), list(PALETTE)
    if species not in KNOWN:
        return kind, UNKNOWN, UNKNOWN, UNKNOWN
    looks = colours.index(species.body), colours.index(species.accent), PATTERNS.index(species.pattern)
    return kind, looks[0] + 1, looks[1] + 1, looks[2] + 1


def _draw_prompt(rng: random.Random) -> tuple[str, list[Species]]:
    """Return a prompt of known and invented names, and the species it names in order."""
    species = [
        rng.choice(KNOWN) if rng.random() < 0.75 else random_species(rng) for _ in range(rng.choice((1, 2)))
    ]
    relation = rng.choice(RELATIONS) if len(species) == 2 else None
    names = tuple(s.name for s in species)
    return write_prompt(rng, Request(names, relation, rng.choice((*BACKGROUNDS, None)))), species


class Words(nn.Module):
    """Hold a flow's text side and one linear head a question and layer; `forward` is the loss."""

    def __init__(self, flow: Flow, tokenizer: PreTrainedTokenizerFast) -> None:
        """Share the flow's text encoder; the heads are thrown away afterwards."""
        super().__init__()
        self.flow, self.tokenizer = flow, tokenizer
        self.nouns = torch.tensor(
            [tokenizer(f" {n}")["input_ids"][0] for nouns in NOUNS.values() for n in nouns]
        )
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, sum(ANSWERS)) for _ in TEXT_LAYERS[1:])

    def forward(self, prompts: Sequence[str], species: Sequence[list[Species]]) -> tuple[Tensor, float]:
        """Return the mean cross entropy over questions and layers, and the share of right body colours."""
        text = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        states = self.flow.embed(text["input_ids"], text["attention_mask"]).chunk(len(TEXT_LAYERS), dim=-1)[
            1:
        ]
        at_noun = torch.isin(text["input_ids"], self.nouns)
        right = torch.tensor(
            [_answers(s) for row, mask in zip(species, at_noun, strict=True) for s in row[: mask.sum()]]
        )
        losses, share = [], 0.0
        for head, state in zip(self.heads, states, strict=True):
            guesses = head(state[at_noun]).split(ANSWERS, dim=-1)
            losses += [nn.functional.cross_entropy(g, right[:, i]) for i, g in enumerate(guesses)]
            share = (guesses[1].argmax(dim=-1) == right[:, 1]).float().mean().item()
        return torch.stack(losses).mean(), share


def teach(flow: Flow, tokenizer: PreTrainedTokenizerFast, steps: int, say: Callable[[str], None]) -> None:
    """Train the flow's text encoder in place for `steps` batches; takes a minute or two."""
    words = Words(flow, tokenizer)
    optimizer = torch.optim.AdamW([*flow.text_encoder.parameters(), *words.heads.parameters()], lr=RATE)
    for step in range(steps):
        rng = training_rng(90_000_000 + step)
        prompts, species = zip(*[_draw_prompt(rng) for _ in range(BATCH)], strict=True)
        loss, share = words(prompts, species)
        loss.backward()
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - step / steps))
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 24:
            say(f"words step {step + 1} loss {loss.item():.3f} right {share:.2f}")
