"""Two repairs of one gap, with engines whose answers are known."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from support.fake_engines import SquareGenerator, make_context

from pleinair.agent.context import Context
from pleinair.evals.cases import Case
from pleinair.evals.experiments.inpaint import Trial, gaps, kind_of, lines, trial
from pleinair.tools.pocket.detector import ConceptDetector, Detection
from pleinair.tools.pocket.world import SPECIES
from pleinair.tools.types import Box, Hit

BIRD, CAR = (next(one.name for one in SPECIES if one.kind == kind) for kind in ("bird", "car"))
CASE = Case("two-0", "two", f"a {BIRD} beside a {CAR}", (BIRD, CAR), seed=3)
BOX: Box = (0.0, 0.0, 0.5, 0.5)


class FakeDetector(ConceptDetector):
    """Concept detector whose answers each test sets."""

    def __init__(self, seen: Sequence[str], box: Box | None = BOX) -> None:
        self.seen, self.box = seen, box

    def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        return [Detection(0.9 if one in self.seen else 0.1, self.box) for one in phrases]


class KnownJudge:
    """Find the bird in a brighter picture than the draft, and the car always."""

    def __init__(self, draft: int) -> None:
        self.draft = draft

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        red = image.convert("RGB").getpixel((8, 8))
        assert isinstance(red, tuple)
        return {name: name == CAR or red[0] != self.draft for name in names}


def context_for(folder: Path, generator: SquareGenerator, *hits: str) -> Context:
    found = {f"a photo of a {BIRD}": [Hit(id=id, score=0.8) for id in hits]}
    return make_context(folder, lambda *_: "", found, generator)


def test_a_gap_is_a_draft_that_lacks_one_subject_where_its_kind_is(tmp_path: Path) -> None:
    context = context_for(tmp_path, SquareGenerator(inpaint_slots=1), "bird.png")
    (gap,) = gaps([CASE], context, FakeDetector([CAR]))
    assert (gap.lacking, gap.box, gap.reference.hit.id) == (BIRD, BOX, "bird.png")
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
    assert trial(gap, context, KnownJudge(draft=53)) == Trial(painted=(True, True), drawn=(True, True))
    draft, painted, drawn = generator.requests
    assert (draft.references, draft.inpaint, drawn.inpaint) == ((), None, None)
    assert painted.inpaint is not None and painted.inpaint.picture == gap.draft
    assert painted.model_copy(update={"inpaint": None}) == drawn
    assert draft.seed == drawn.seed == 3


def test_the_figures_have_intervals() -> None:
    trials = [
        Trial(painted=(False, True), drawn=(True, True)),
        Trial(painted=(True, False), drawn=(True, True)),
    ]
    head, painted, drawn = lines(trials)
    assert head == "2 drafts that lack one of two subjects"
    assert painted == (
        "box painted anew   both right 0% [0, 84], the lacking one 50% [1, 99], the other one 50% [1, 99]"
    )
    assert "both right 100% [16, 100]" in drawn
    assert (
        list(lines([]))[1] == "box painted anew   both right none, the lacking one none, the other one none"
    )


def test_a_species_has_a_kind() -> None:
    assert (kind_of(BIRD), kind_of(CAR)) == ("bird", "car")
