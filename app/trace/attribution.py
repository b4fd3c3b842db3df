"""What each reference of an image contributed: its redrawn versions, and what follows from their ledgers.

A reference's contribution to a concept is measured by leaving it out: the critic's belief that the image
shows the concept, with all references minus without this one. Where every combination was drawn, as with up
to three references, the Shapley value (Shapley, 1953) is there too: the mean gain of adding the reference to
any of the others, which divides among the references what they bring together. A critic can miss that a
subject has changed, or doubt one that has not; so where its ledger says where a concept is, the change of the
pixels there counts, too. Not covered: chance. One seed is one sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Literal

from pydantic import ValidationError

from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import BadInput, Limit, Picture, Reference, Row, Usage, Value, belief

FILE = "attribution.json"  # in the folder of the run
MARGIN = 0.25  # of belief; a smaller drop is no loss of a concept
SHOWN = 0.5  # of belief; with less an image does not show a concept
CHANGE = 0.03  # of pixels in the box of a concept, 0 to 1; with less it is what it was
DOMINANT = 2.0  # how many times more than without the others a concept changes without its carrier
MOST_ALONE = 3  # references up to which each is drawn alone, too
Subset = tuple[int, ...]  # numbers of references, from 0, in order


def planned_subsets(count: int) -> list[Subset]:
    """Return the references of the redrawn images: all but one, none, and up to three also one each."""
    every = range(count)
    subsets = [tuple(number for number in every if number != left_out) for left_out in every]
    subsets.append(())
    if count <= MOST_ALONE:
        subsets += [(number,) for number in every]
    return list(dict.fromkeys(subset for subset in subsets if len(subset) < count))


class Redrawn(Value):
    """The image drawn again with some of its references, with the same seed, prompt and settings."""

    references: Subset  # that it was drawn with
    prompt: str  # as sent
    picture: Picture
    difference: float  # mean absolute difference of its pixels to the accepted image's, 0 to 1
    # the same by concept, in the box that the accepted image's ledger has for it
    regions: dict[str, float] = {}
    rows: tuple[Row, ...] = ()  # its ledger; empty until it is judged
    usage: Usage = Usage()


class Contribution(Value):
    """What one reference contributes to one concept, as differences of belief, -1 to 1."""

    concept: str
    reference: int
    drop: float  # all references minus all but this one
    shapley: float | None = None  # None: not all combinations were drawn
    region: float | None = None  # mean absolute change of the concept's pixels, 0 to 1; None: no box is known

    @property
    def is_loss(self) -> bool:
        """Whether the concept is lost without the reference: by the critic, and by the pixels if known."""
        return self.drop > MARGIN and (self.region is None or self.region > CHANGE)

    @property
    def weight(self) -> float:
        """What decides between references that both lose a concept."""
        weights = (self.region, self.shapley, self.drop)
        return next(weight for weight in weights if weight is not None)


class Attribution(Value):
    """References of the best image of a run, with the images that were drawn without some of them."""

    format: Literal[1] = 1
    run: str
    attempt: int
    prompt: str  # of the run
    picture: Picture
    references: tuple[Reference, ...]
    concepts: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()  # ledger of the accepted image
    # difference of the image drawn again with all references, which is 0 where the generator repeats itself
    repeated: float | None = None
    redrawn: tuple[Redrawn, ...] = ()  # in the order of `planned_subsets`
    usage: Usage = Usage()  # of all of it
    limit: Limit | None = None  # of the budget, which stopped it

    @property
    def finished(self) -> bool:
        """Return whether every planned image is drawn and judged."""
        judged = [each.references for each in self.redrawn if each.rows]
        return bool(self.rows) and judged == planned_subsets(len(self.references))

    @property
    def everything(self) -> Subset:
        """Return the numbers of all references."""
        return tuple(range(len(self.references)))

    @cached_property
    def _rows(self) -> dict[Subset, tuple[Row, ...]]:
        return {self.everything: self.rows} | {each.references: each.rows for each in self.redrawn}

    def belief(self, concept: str, references: Subset) -> float | None:
        """Return the belief that the image with some references shows a concept; None if it is not judged."""
        return next((belief(row) for row in self.rows_of(references) if row.concept == concept), None)

    def rows_of(self, references: Subset) -> tuple[Row, ...]:
        """Return the ledger of the image with some references, empty if it is not judged."""
        return self._rows.get(references, ())

    @property
    def contributions(self) -> list[Contribution]:
        """Return the contribution of each reference to each concept, as far as they are judged."""
        return [
            contribution
            for concept in self.concepts
            for number in range(len(self.references))
            if (contribution := self._contribution(concept, number))
        ]

    def _contribution(self, concept: str, number: int) -> Contribution | None:
        others = tuple(other for other in self.everything if other != number)
        complete, without = self.belief(concept, self.everything), self.belief(concept, others)
        if complete is None or without is None:
            return None
        regions = next((each.regions for each in self.redrawn if each.references == others), {})
        return Contribution(
            concept=concept,
            reference=number,
            drop=complete - without,
            shapley=self._shapley(concept, number),
            region=regions.get(concept),
        )

    def _shapley(self, concept: str, number: int) -> float | None:
        others = [other for other in self.everything if other != number]
        total = 0.0
        for size in range(len(others) + 1):
            for subset in combinations(others, size):
                before = self.belief(concept, subset)
                after = self.belief(concept, tuple(sorted((*subset, number))))
                if before is None or after is None:
                    return None
                total += (after - before) / comb(len(others), size)
        return total / len(self.references)

    def carrier(self, concept: str) -> int | None:
        """Return the reference whose removal loses the concept, None if none does.

        Of several the one without which its pixels change most, or where no box is known that of the largest
        Shapley value. Where the critic loses it only without several of them, it is the one without which
        its pixels change by far the most.
        """
        of_concept = [each for each in self.contributions if each.concept == concept]
        lost = [each for each in of_concept if each.is_loss]
        if lost:
            return max(lost, key=lambda each: each.weight).reference
        if not self._is_needed(concept):
            return None
        ranked = sorted(((each.region or 0.0, each.reference) for each in of_concept), reverse=True)
        (first, reference), second = ranked[0], max((region for region, _ in ranked[1:]), default=0.0)
        return reference if first > CHANGE and first >= DOMINANT * second else None

    def _is_needed(self, concept: str) -> bool:
        """Return whether the concept is lost without any reference, and not merely doubted."""
        complete, bare = self.belief(concept, self.everything), self.belief(concept, ())
        regions = next((each.regions for each in self.redrawn if not each.references), {})
        if complete is None or bare is None:
            return False
        return complete - bare > MARGIN and regions.get(concept, 1.0) > CHANGE

    def verdict(self, concept: str) -> str:
        """Return who carries a concept, in a sentence for people; "" while it is not known."""
        if not self.finished:
            return ""
        carrier = self.carrier(concept)
        drops = {each.reference: each.drop for each in self.contributions if each.concept == concept}
        if carrier is None and self._is_needed(concept):
            return f"No reference alone carries “{concept}”: it is lost only without several of them."
        if carrier is None and max(drops.values(), default=0.0) > MARGIN:
            return (
                f"No reference carries “{concept}”: the critic doubts it without one, but it hardly changes."
            )
        if carrier is None and (self.belief(concept, self.everything) or 0) < SHOWN:
            return f"No reference carries “{concept}”: the image with all of them does not show it."
        if carrier is None:
            return f"No reference carries “{concept}”: the image without any shows it as well."
        if drops[carrier] > MARGIN:
            return f"“{concept}” is lost without {self.name(carrier)}, which carries it."
        return f"“{concept}” changes without {self.name(carrier)}, which carries it; the critic accepts both."

    def name(self, number: int) -> str:
        """Return how people are told about a reference."""
        reference = self.references[number]
        return f"reference {number + 1} ({reference.concept})"

    def title(self, references: Subset) -> str:
        """Return the title of an image with some of the references."""
        count = len(self.references)
        if len(references) == count:
            return "With all references" if count > 1 else "With its reference"
        if not references:
            return "Without any reference" if count > 1 else "Without its reference"
        left_out = [number for number in range(count) if number not in references]
        return (
            f"Without reference {left_out[0] + 1}"
            if len(left_out) == 1
            else f"Only reference {', '.join(str(number + 1) for number in references)}"
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        for number, reference in enumerate(self.references):
            yield f"reference {number + 1}  {reference.concept} ← {reference.hit.id}"
        for each in self.redrawn:
            changes = (self._change(concept, each) for concept in self.concepts)
            yield f"{self.title(each.references)}: {'; '.join(filter(None, changes)) or 'not judged'}"
        yield from (text for concept in self.concepts if (text := self.verdict(concept)))
        if self.note:
            yield self.note

    def _change(self, concept: str, redrawn: Redrawn) -> str:
        before = self.belief(concept, self.everything)
        after = self.belief(concept, redrawn.references)
        return "" if before is None or after is None else f"{concept} {before:.0%} → {after:.0%}"

    @property
    def note(self) -> str:
        """Return how far the differences may be chance, "" where the generator repeats its image."""
        if not self.repeated:
            return ""
        return (
            "The generator does not repeat its image: drawn again with all references, it differs by "
            f"{self.repeated:.1%} of the range of its pixels. Smaller differences mean nothing."
        )

    def plain(self) -> dict[str, object]:
        """Return all of it as JSON values, with the contributions and the carriers."""
        return {
            **self.model_dump(mode="json"),
            "finished": self.finished,
            "contributions": [each.model_dump(mode="json") for each in self.contributions],
            "carriers": {concept: self.carrier(concept) for concept in self.concepts},
            "verdicts": {concept: self.verdict(concept) for concept in self.concepts},
        }


def read_attribution(files: Folder) -> Attribution | None:
    """Return what is stored in the files of a run, None for nothing; raise `BadInput` if it is damaged."""
    data = files.read(FILE)
    if data is None:
        return None
    try:
        return Attribution.model_validate_json(data)
    except ValidationError as error:
        remedy = "Delete it; the images are drawn again."
        raise BadInput(f"{files.path(FILE)}: it cannot be read", remedy) from error


def write_attribution(attribution: Attribution, files: Folder) -> None:
    """Write the file of a run; raises `PleinairError` if the disk is full."""
    files.write(FILE, attribution.model_dump_json(indent=2).encode())
