"""Compare two repairs in the miniature world: inpainting a box, and generating the whole image again.

A draft lacks one of its two subjects, and something of that subject's kind is in its place: this box is
inpainted with the best reference retrieved, and the whole image is generated with the same one, from the same
noise. The oracle judges. Not covered: real models. The critic of the pocket profile never locates what is
missing, so its own loop seldom has a box to inpaint.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from pleinair.agent.context import Context
from pleinair.agent.repairs.plan import box_obstacle
from pleinair.evals.cases import Case, make_case
from pleinair.evals.metrics import interval_of_share, mean
from pleinair.evals.report import percent
from pleinair.evals.run import Judge, pocket_context
from pleinair.tools.callbacks import no_callback
from pleinair.tools.generate import generate
from pleinair.tools.pocket.catalogue.species import BY_NAME
from pleinair.tools.pocket.detector import ConceptDetector
from pleinair.tools.types import Box, GenerateRequest, Inpaint, Picture, Reference

DETECTOR = "pocket/catalogue/detector", "pocket/catalogue/encoder"


@dataclass(frozen=True, slots=True)
class Gap:
    """Draft that lacks one of its subjects, the box where it belongs, and a reference for it."""

    case: Case
    draft: Picture
    missing: str
    box: Box
    reference: Reference


@dataclass(frozen=True, slots=True)
class Trial:
    """Judge's answers on each repair: whether it shows the missing subject, and the other one."""

    inpainted: tuple[bool, bool]
    regenerated: tuple[bool, bool]


def gaps(cases: Iterable[Case], context: Context, detector: ConceptDetector) -> Iterator[Gap]:
    """Generate drafts and yield those that lack one subject but show something of its kind."""
    for case in cases:
        draft = _generate(context, case)
        image = context.store.open(draft)
        detections = zip(case.species, detector.detect(image, case.species), strict=True)
        missing = [name for name, detection in detections if detection.probability < 0.5]
        if len(missing) != 1:
            continue
        box = detector.detect(image, [f"a {BY_NAME[missing[0]].kind}"])[0].box
        hits = context.retriever.search(f"a photo of a {missing[0]}", 1)
        if box and not box_obstacle(box) and hits:
            picture = context.store.put(context.retriever.open(hits[0].id))
            reference = Reference(concept=missing[0], hit=hits[0], picture=picture)
            yield Gap(case, draft, missing[0], box, reference)


def _generate(context: Context, case: Case, *references: Reference, box: Inpaint | None = None) -> Picture:
    """Generate the case's image at the generator's own size, from the case's noise."""
    capabilities = context.generator.capabilities
    request = GenerateRequest(
        prompt=case.prompt,
        references=references,
        height=capabilities.height,
        width=capabilities.width,
        num_inference_steps=capabilities.num_inference_steps,
        guidance_scale=capabilities.guidance_scale,
        seed=case.seed,
        inpaint=box,
    )
    return generate(request, generator=context.generator, store=context.store, on_step=no_callback)


def repair(gap: Gap, context: Context, judge: Judge) -> Trial:
    """Repair a gap in both ways."""

    def shows(picture: Picture) -> tuple[bool, bool]:
        shown = judge.shows(context.store.open(picture), gap.case.species)
        return shown[gap.missing], all(is_shown for name, is_shown in shown.items() if name != gap.missing)

    inpaint = Inpaint(concept=gap.missing, picture=gap.draft, box=gap.box)
    inpainted = _generate(context, gap.case, gap.reference, box=inpaint)
    return Trial(shows(inpainted), shows(_generate(context, gap.case, gap.reference)))


def lines(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield the figures, with exact 95 % intervals."""
    yield f"{len(trials)} drafts that lack one of two subjects"
    for name, pairs in (
        ("box inpainted", [trial.inpainted for trial in trials]),
        ("image regenerated", [trial.regenerated for trial in trials]),
    ):
        hits = {
            "both right": [all(pair) for pair in pairs],
            "the missing one": [missing for missing, _ in pairs],
            "the other one": [other for _, other in pairs],
        }
        shares = {
            label: percent(mean(row), interval_of_share(sum(row), len(row))) for label, row in hits.items()
        }
        yield f"{name:<18} " + ", ".join(f"{label} {share}" for label, share in shares.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the figures."""
    from pleinair.evals.pocket.oracle import Oracle

    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.experiments.inpaint", description=__doc__)
    parser.add_argument("--drafts", type=int, default=24, help="drafts that lack one of two subjects (24)")
    parser.add_argument("--seed", type=int, default=1, help="seed of prompts and noise (1)")
    options = parser.parse_args(arguments)
    cases = (make_case("two", number, options.seed) for number in count())
    with tempfile.TemporaryDirectory() as folder:
        context, judge = pocket_context(Path(folder), {"generator.inpaint": True}), Oracle()
        drafts = islice(gaps(cases, context, ConceptDetector(*DETECTOR)), options.drafts)
        trials = [repair(gap, context, judge) for gap in drafts]
    print(*lines(trials), sep="\n")


if __name__ == "__main__":
    main()
