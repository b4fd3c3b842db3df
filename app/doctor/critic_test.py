"""Can this model be a critic? Twenty pictures of the miniature world, of which the truth is known.

After ImageRAG's test of a model's judgement (ICLR 2026, appendix E.5): what is asked for is there, or half of
it is, or something else is. The prompt says what things look like, as their names mean nothing elsewhere. Not
covered: backgrounds, relations, numbers, and pictures that a generator has drawn badly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleinair.tools.types import Concept, PleinairError, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pleinair.tools.pocket.world import Species

PICTURES = 20
ENOUGH = 18  # pictures, 90 %: the weakest model that the paper recommends names 92 % of what is missing
SIDE = 256  # pixels
SEED = 5


@dataclass(frozen=True)
class Case:
    """Hold a picture, what is asked for, and the names of what is there and of what is not."""

    png: bytes
    prompt: str
    there: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """Count right verdicts; a row that is unsure is not right."""

    pictures: int  # with every row right
    there: tuple[int, int]  # rows right of rows in all
    absent: tuple[int, int]
    usage: Usage

    @property
    def text(self) -> str:
        """Say it in one line."""
        seen, missed = self.there, self.absent
        cost = f"{self.usage.tokens:,} tokens, {self.usage.usd:.4f} USD, {self.usage.seconds:.0f} s"
        return (
            f"{self.pictures} of {PICTURES} pictures judged right (wanted {ENOUGH}): saw {seen[0]} of "
            f"{seen[1]} things that are there, and said of {missed[0]} of {missed[1]} that they are missing; "
            f"{cost}"
        )


def accept(model: BaseChatModel) -> str:
    """Let a model judge all pictures; raises `PleinairError` with the score where it is too low."""
    score = judge(model)
    if score.pictures < ENOUGH:
        raise PleinairError(score.text)
    return score.text


def judge(model: BaseChatModel) -> Score:
    """Put the question of the loop, one a picture, and a second one where the answer does not fit."""
    from pleinair.agent.budget import total
    from pleinair.tools.critique import critique

    right: dict[str, list[bool]] = {"present": [], "missing": []}
    spent, pictures = list[Usage](), 0
    for case in cases():
        concepts = [Concept(name=name, caption=name) for name in case.there + case.absent]
        ledger, usage = critique(case.png, case.prompt, concepts, model=model, calls=2)
        truth = ["present"] * len(case.there) + ["missing"] * len(case.absent)
        verdicts = [row.status == status for row, status in zip(ledger.rows, truth, strict=True)]
        for status, verdict in zip(truth, verdicts, strict=True):
            right[status].append(verdict)
        pictures += all(verdicts)
        spent.append(usage)
    there, absent = ((sum(rows), len(rows)) for rows in right.values())
    return Score(pictures, there, absent, total(spent))


def cases() -> Iterator[Case]:
    """Draw the pictures, always the same: all there, half there, or another thing there, in turn."""
    from pleinair.tools.pocket.world import SPECIES, random_scene, render
    from pleinair.tools.storage.artifacts import encode_png

    rng = random.Random(SEED)
    known = [one for one in SPECIES if one.tier == "known"]
    for number in range(PICTURES):
        shown = rng.choice(known)
        other = rng.choice([one for one in known if one.kind != shown.kind and one.body != shown.body])
        png = encode_png(render(random_scene(rng, [shown]), SIDE))
        there, absent = [((shown,), ()), ((shown,), (other,)), ((), (other,))][number % 3]
        yield Case(png, _ask_for(*there, *absent), _names(there), _names(absent))


def _ask_for(*species: Species) -> str:
    """Ask for things by name, and say what each looks like."""
    from pleinair.tools.pocket.prompts import describe, with_article

    return "a picture of " + " and ".join(
        f"{with_article(one.name)}, which is {with_article(describe(one))}" for one in species
    )


def _names(species: Sequence[Species]) -> tuple[str, ...]:
    """Name things."""
    return tuple(one.name for one in species)
