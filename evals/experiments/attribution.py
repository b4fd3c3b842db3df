"""Measure whether attribution names the reference that carries a concept in two-subject images.

The images are those of the loop that end accepted with two references, in the miniature world. Its library is
made by a program, so the species that a reference really shows is certain whatever its caption says.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.trace.attribution import Attribution
from pleinair.evals.cases import Case, make_cases
from pleinair.evals.metrics import interval_of_share
from pleinair.evals.run import show_progress
from pleinair.tools.pocket.catalogue.library import shown_species
from pleinair.tools.pocket.catalogue.species import BY_NAME

REFERENCES = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What attribution says about one concept, beside the references that show its species."""

    case: str
    concept: str
    tier: str
    carrier: int | None
    true: tuple[int, ...]  # references that show the species

    @property
    def right(self) -> bool:
        """Return whether it names a reference that shows the species, or none where none does."""
        return self.carrier in self.true if self.true else self.carrier is None


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("attribute", help="measure whether attribution names the right reference")
    parser.add_argument("--images", type=int, default=70, help="accepted images with two references (70)")
    parser.add_argument("--prompts", type=int, default=500, help="most prompts of two species (500)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the prompts and of the noise (1)")
    parser.add_argument("--json", type=Path, default=None, help="file for the answers")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    with pocket_home():
        answers = list(measure(options.images, options.prompts, options.seed))
    print()
    print(*report(answers), sep="\n")
    if options.json:
        lines = [{name: getattr(each, name) for name in Answer.__slots__} for each in answers]
        options.json.write_text(json.dumps(lines, indent=1), encoding="utf-8")


@contextmanager
def pocket_home() -> Iterator[None]:
    """Draw by the pocket profile in a home of its own."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"PLEINAIR_HOME": f"{folder}/home", "PLEINAIR_PATHS__OUT": f"{folder}/out"}
        before = {name: os.environ.get(name) for name in names}
        os.environ |= names
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def measure(images: int, prompts: int, seed: int) -> Iterator[Answer]:
    """Yield the answers about the first `images` accepted images of two references, of `prompts` at most."""
    from pleinair.app.api import draw
    from pleinair.app.trace.attribute import attribute

    shown, done = shown_species(), 0
    for number, case in enumerate(make_cases(prompts, seed, ("two",)), 1):
        if done == images:
            return
        result = draw(case.prompt, profile="pocket", seed=case.seed)
        best = result.outcome.best
        if result.outcome.ending == "accepted" and best and len(best.request.references) == REFERENCES:
            done += 1
            yield from _answers_of(case, attribute(result.run_id), shown)
        show_progress(f"{done}/{images} images of {number} prompts")


def _answers_of(case: Case, attribution: Attribution, shown: Mapping[str, Sequence[str]]) -> Iterator[Answer]:
    """Yield what an attribution says about the concepts that are species."""
    for concept in attribution.concepts:
        if concept in BY_NAME:
            references = enumerate(attribution.references)
            true = tuple(number for number, each in references if concept in shown[each.hit.id])
            yield Answer(case.id, concept, BY_NAME[concept].tier, attribution.carrier(concept), true)


def report(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield the share of right answers, by concept and by image, with exact intervals."""
    by_image: dict[str, list[Answer]] = {}
    for answer in answers:
        by_image.setdefault(answer.case, []).append(answer)
    right = [all(answer.right for answer in each) for each in by_image.values()]
    yield f"images with every carrier right: {_share(sum(right), len(right))}"
    yield f"concepts with the carrier right: {_share(sum(each.right for each in answers), len(answers))}"
    known = [each for each in answers if each.tier == "known"]
    right_known = sum(each.right for each in known)
    yield f"of these, species that the generator knows by name: {right_known} of {len(known)}"
    bare = sum(not answer.true for answer in answers)
    both = sum(len(answer.true) > 1 for answer in answers)
    yield f"concepts that no reference shows: {bare}, that both show: {both}"
    for answer in answers:
        if not answer.right:
            yield f"wrong: {answer.case}, {answer.concept}: named {answer.carrier}, shown by {answer.true}"


def _share(hits: int, total: int) -> str:
    ends = interval_of_share(hits, total)
    low, high = (100 * end for end in ends) if ends else (0.0, 100.0)
    return f"{hits} of {total}, {100 * hits / max(total, 1):.1f} % [{low:.1f}, {high:.1f}]"
