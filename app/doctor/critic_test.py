"""Test of a language model as a critic: twenty images of the miniature world, whose content is known.

After ImageRAG's test of a model's judgement (ICLR 2026, appendix E.5): the image shows what the prompt asks
for, half of it, or something else. The prompt describes the species, as they are drawn in a simple way.
Not covered: backgrounds, relations, numbers, and images that a generator has drawn badly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleinair.tools.callbacks import no_callback
from pleinair.tools.types import Concept, PleinairError, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pleinair.tools.pocket.catalogue.species import Species

IMAGES = 20
ENOUGH = 18  # images, 90 %: the weakest model that the paper recommends names 92 % of what is missing
SIDE = 256  # pixels
SEED = 5
_REPORTED = 5  # images between two reports


@dataclass(frozen=True)
class Case:
    """An image, a prompt, and the species of the prompt that it shows and lacks."""

    png: bytes
    prompt: str
    present: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """Numbers of correct verdicts; a row that is unsure is not correct."""

    images: int  # with every row correct
    present: tuple[int, int]  # rows correct, of rows in all
    absent: tuple[int, int]
    usage: Usage

    @property
    def text(self) -> str:
        """The score in one line."""
        present, absent, usage = self.present, self.absent, self.usage
        return (
            f"{self.images} of {IMAGES} images judged correctly (at least {ENOUGH} are needed): found "
            f"{present[0]} of {present[1]} species that are present, and the absence of {absent[0]} of "
            f"{absent[1]}; {usage.tokens:,} tokens, {usage.usd:.4f} USD, {usage.seconds:.0f} s"
        )


def accept(model: BaseChatModel, report: Callable[[str], None] = no_callback) -> str:
    """Return a model's score in words; raises `PleinairError` with it where it is too low."""
    score = judge(model, report)
    if score.images < ENOUGH:
        raise PleinairError(score.text)
    return score.text


def judge(model: BaseChatModel, report: Callable[[str], None] = no_callback) -> Score:
    """Run the critique of the loop on all images, with one more call where the answer is not valid.

    `report` is called with the progress every few images.
    """
    from pleinair.tools.critique import critique

    correct: dict[str, list[bool]] = {"present": [], "missing": []}
    spent, images = list[Usage](), 0
    for number, case in enumerate(cases()):
        if number % _REPORTED == 0:
            report(f"{number} of {IMAGES} images")
        concepts = [Concept(name=name, caption=name) for name in case.present + case.absent]
        ledger, usage = critique(case.png, case.prompt, concepts, model=model, calls=2)
        truth = ["present"] * len(case.present) + ["missing"] * len(case.absent)
        verdicts = [row.status == status for row, status in zip(ledger.rows, truth, strict=True)]
        for status, verdict in zip(truth, verdicts, strict=True):
            correct[status].append(verdict)
        images += all(verdicts)
        spent.append(usage)
    present, absent = ((sum(rows), len(rows)) for rows in correct.values())
    return Score(images, present, absent, Usage.total(spent))


def cases() -> Iterator[Case]:
    """Yield the cases, always the same: all present, half present, or another species present, in turn."""
    from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
    from pleinair.tools.pocket.catalogue.species import SPECIES
    from pleinair.tools.storage.artifacts import encode_png

    rng = random.Random(SEED)
    species = [candidate for candidate in SPECIES if candidate.tier == "known"]
    for number in range(IMAGES):
        shown = rng.choice(species)
        other = rng.choice([two for two in species if two.kind != shown.kind])
        png = encode_png(render(place_scene(rng, [Subject(shown)]), SIDE))
        present, absent = [((shown,), ()), ((shown,), (other,)), ((), (other,))][number % 3]
        yield Case(png, _prompt(*present, *absent), _names(present), _names(absent))


def _prompt(*species: Species) -> str:
    from pleinair.tools.pocket.catalogue.captions import describe, with_article

    rng = random.Random(SEED)
    return "a picture of " + " and ".join(
        f"{with_article(each.name)}, which is {with_article(describe(rng, each).words)}" for each in species
    )


def _names(species: Sequence[Species]) -> tuple[str, ...]:
    return tuple(each.name for each in species)
