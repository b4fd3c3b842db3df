"""Two repairs of one gap, with engines whose answers are known."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from support.fake_engines import SquareGenerator, make_context

from pleinair.agent.context import Context
from pleinair.evals.cases import Case
from pleinair.evals.experiments.inpaint import Trial, gaps, lines, repair
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.pocket.detector import ConceptDetector, Detection
from pleinair.tools.types import Box, Hit

BIRD, CAR = (next(species.name for species in SPECIES if species.kind == kind) for kind in ("bird", "car"))
CASE = Case("two-0", "two", f"a {BIRD} beside a {CAR}", (BIRD, CAR), seed=3)
BOX: Box = (0.0, 0.0, 0.5, 0.5)


class FakeDetector(ConceptDetector):
    """Detector that finds the given phrases."""

    def __init__(self, present: Sequence[str], box: Box | None = BOX) -> None:
        self.present, self.box = present, box

    def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        return [Detection(0.9 if phrase in self.present else 0.1, self.box) for phrase in phrases]


class FakeJudge:
    """Judge that finds the bird in every image but the draft, and the car always."""

    def __init__(self, draft: int) -> None:
        self.draft = draft

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        red = image.convert("RGB").getpixel((8, 8))
        assert isinstance(red, tuple)
        return {name: name == CAR or red[0] != self.draft for name in names}


def context_for(folder: Path, generator: SquareGenerator, *hits: str) -> Context:
    results = {f"a photo of a {BIRD}": [Hit(id=id, score=0.8) for id in hits]}
    return make_context(folder, lambda *_: "", results, generator)


def test_a_gap_is_a_draft_that_lacks_one_subject_but_shows_its_kind(tmp_path: Path) -> None:
    context = context_for(tmp_path, SquareGenerator(inpaint_slots=1), "bird.png")
    (gap,) = gaps([CASE], context, FakeDetector([CAR]))
    assert (gap.missing, gap.box, gap.reference.hit.id) == (BIRD, BOX, "bird.png")
    for detector in (
        FakeDetector([]),
        FakeDetector([BIRD, CAR]),
        FakeDetector([CAR], None),
        FakeDetector([CAR], (0, 0, 1, 1)),
    ):
        assert not list(gaps([CASE], context, detector))
    assert not list(gaps([CASE], context_for(tmp_path, SquareGenerator()), FakeDetector([CAR])))


def test_both_repairs_have_the_same_reference_and_noise(tmp_path: Path) -> None:
    generator = SquareGenerator(inpaint_slots=1)
    context = context_for(tmp_path, generator, "bird.png")
    (gap,) = gaps([CASE], context, FakeDetector([CAR]))
    trial = repair(gap, context, FakeJudge(draft=53))
    assert trial == Trial(inpainted=(True, True), regenerated=(True, True))
    draft, inpainted, regenerated = generator.requests
    assert (draft.references, draft.inpaint, regenerated.inpaint) == ((), None, None)
    assert inpainted.inpaint is not None and inpainted.inpaint.picture == gap.draft
    assert inpainted.model_copy(update={"inpaint": None}) == regenerated
    assert draft.seed == regenerated.seed == 3


def test_the_figures_have_intervals() -> None:
    trials = [
        Trial(inpainted=(False, True), regenerated=(True, True)),
        Trial(inpainted=(True, False), regenerated=(True, True)),
    ]
    head, inpainted, regenerated = lines(trials)
    assert head == "2 drafts that lack one of two subjects"
    assert "both right 0.0 % [0.0, 84.2], the missing one 50.0 % [1.3, 98.7]" in inpainted
    assert "both right 100.0 % [15.8, 100.0]" in regenerated
    _, empty, _ = lines([])
    assert empty == "box inpainted      both right –, the missing one –, the other one –"
