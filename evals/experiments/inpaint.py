"""Which repair is better in the miniature world: the box painted anew, or the whole picture drawn again?

A draft lacks one of its two subjects, and something of that subject's kind stands where it should: this box
is painted with the best reference found, and the whole picture is drawn with the same one, from the same
noise. The oracle judges. Not covered: what real models do. The critic of the pocket profile never says where
something missing would be, so its own loop seldom has a box to paint.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.agent.context import Context
from pleinair.agent.repairs.inpaint import box_obstacle
from pleinair.evals.cases import Case, make_case
from pleinair.evals.metrics import interval_of_share
from pleinair.tools.callbacks import no_callback
from pleinair.tools.generate import generate
from pleinair.tools.types import Box, GenerateRequest, Inpaint, Picture, Reference

if TYPE_CHECKING:
    from pleinair.evals.run import Judge
    from pleinair.tools.pocket.detector import ConceptDetector


@dataclass(frozen=True, slots=True)
class Gap:
    """Hold a draft that lacks one of its subjects, where it should be, and the reference found for it."""

    case: Case
    draft: Picture
    lacking: str
    box: Box
    reference: Reference


@dataclass(frozen=True, slots=True)
class Trial:
    """Say which subjects each repair shows: the one that was lacking, and the one that was there."""

    painted: tuple[bool, bool]
    drawn: tuple[bool, bool]


def _open_context(folder: Path) -> Context:
    """Build the pocket engines with inpainting switched on, their pictures under `folder`."""
    from pleinair.app.engines import build
    from pleinair.app.paths import places
    from pleinair.app.settings import load
    from pleinair.tools.storage.artifacts import ArtifactStore

    settings = load("pocket", {"generator.inpaint": True})
    return build(settings, places(settings.paths.home), ArtifactStore(folder / "pictures"))


def gaps(cases: Iterable[Case], context: Context, detector: ConceptDetector) -> Iterator[Gap]:
    """Draw drafts, and keep those that lack one subject of which the kind is there."""
    for case in cases:
        draft = _draw(_request(case, context), context)
        image = context.store.open(draft)
        detections = zip(case.species, detector.detect(image, case.species), strict=True)
        lacking = [name for name, detection in detections if detection.probability < 0.5]
        if len(lacking) != 1:
            continue
        box = detector.detect(image, [f"a {kind_of(lacking[0])}"])[0].box
        hits = context.retriever.search(f"a photo of a {lacking[0]}", 1)
        if box and not box_obstacle(box) and hits:
            picture = context.store.put(context.retriever.open(hits[0].id))
            yield Gap(
                case, draft, lacking[0], box, Reference(concept=lacking[0], hit=hits[0], picture=picture)
            )


def kind_of(species: str) -> str:
    """Give the kind that a species' noun names, such as "bird"."""
    from pleinair.tools.pocket.names import KIND_OF_NOUN

    return KIND_OF_NOUN[species.split()[-1]]


def _request(
    case: Case, context: Context, *references: Reference, inpaint: Inpaint | None = None
) -> GenerateRequest:
    """Ask for the case's picture at the generator's own size, from the case's noise."""
    able = context.generator.capabilities
    return GenerateRequest(
        prompt=case.prompt,
        references=references,
        height=able.height,
        width=able.width,
        num_inference_steps=able.num_inference_steps,
        guidance_scale=able.guidance_scale,
        seed=case.seed,
        inpaint=inpaint,
    )


def _draw(asked: GenerateRequest, context: Context) -> Picture:
    """Draw one picture into the store."""
    return generate(asked, generator=context.generator, store=context.store, on_step=no_callback)


def trial(gap: Gap, context: Context, judge: Judge) -> Trial:
    """Repair a gap in both ways."""
    repaint = Inpaint(concept=gap.lacking, picture=gap.draft, box=gap.box)
    painted = _draw(_request(gap.case, context, gap.reference, inpaint=repaint), context)
    drawn = _draw(_request(gap.case, context, gap.reference), context)
    return Trial(_shown(painted, gap, context, judge), _shown(drawn, gap, context, judge))


def _shown(picture: Picture, gap: Gap, context: Context, judge: Judge) -> tuple[bool, bool]:
    """Say whether a picture shows what was lacking, and what was there."""
    seen = judge.shows(context.store.open(picture), gap.case.species)
    return seen[gap.lacking], all(there for name, there in seen.items() if name != gap.lacking)


def lines(trials: Sequence[Trial]) -> Iterator[str]:
    """Tell the figures, with exact 95 % intervals."""
    yield f"{len(trials)} drafts that lack one of two subjects"
    for name, pairs in (
        ("box painted anew", [one.painted for one in trials]),
        ("whole drawn again", [one.drawn for one in trials]),
    ):
        new, old, both = ([pair[0] for pair in pairs], [pair[1] for pair in pairs], list(map(all, pairs)))
        shares = zip(("both right", "the lacking one", "the other one"), (both, new, old), strict=True)
        yield f"{name:<18} " + ", ".join(f"{what} {_share(hits)}" for what, hits in shares)


def _share(hits: Sequence[bool]) -> str:
    """Write a share with its interval, in percent."""
    bounds = interval_of_share(sum(hits), len(hits))
    if bounds is None:
        return "none"
    return f"{sum(hits) / len(hits):.0%} [{bounds[0] * 100:.0f}, {bounds[1] * 100:.0f}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.tools.pocket.detector import ConceptDetector

    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.experiments.inpaint", description=__doc__)
    parser.add_argument("--drafts", type=int, default=24, help="that lack one of two subjects")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(argv)
    cases = (make_case("two", number, asked.seed) for number in count())
    with tempfile.TemporaryDirectory() as folder:
        context, judge = _open_context(Path(folder)), Oracle()
        found = islice(gaps(cases, context, ConceptDetector()), asked.drafts)
        told = lines([trial(gap, context, judge) for gap in found])
        sys.stdout.write("".join(f"{line}\n" for line in told))


if __name__ == "__main__":
    main()
