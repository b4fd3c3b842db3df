"""Rows that are not asked again after an inpainting: those whose pixels are the same, and no others."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from support.fake_engines import SquareGenerator, decomposition, make_context

from pleinair.agent.state import Output, changed
from pleinair.graphs.pleinair import graph
from pleinair.tools.types import Attempt, GenerateRequest, Hit

LEFT, RIGHT = [0.0, 0.25, 0.375, 0.75], [0.5625, 0.25, 0.9375, 0.75]
HITS = {"coupe": [Hit(id="a", score=0.9), Hit(id="b", score=0.8)]}


class InpaintingGenerator(SquareGenerator):
    """Generator that paints the box to inpaint white, and `spot` in another colour with each image."""

    spot = (15, 0)  # outside of both boxes

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        image = super().generate(request, images, on_step)
        if inpaint := request.inpaint:
            image = images[-1].convert("RGB")
            box = [round(edge * 16) for edge in inpaint.box]
            ImageDraw.Draw(image).rectangle(box, fill="white")
        image.putpixel(self.spot, (len(self.requests), 0, 0))
        return image


def run(
    folder: Path, generator: SquareGenerator, verdicts: dict[str, list[str]]
) -> tuple[Output, list[list[str]]]:
    """Run the loop with a critic that has a verdict for each time it is asked about a concept."""
    asked: list[list[str]] = []

    def policy(schema: str, payload: dict[str, Any], _: int) -> dict[str, Any]:
        if schema == "Decomposition":
            return decomposition("finch", "coupe")
        asked.append(payload["concepts"])
        boxes = {"finch": LEFT, "coupe": RIGHT}
        return {
            "rows": [
                {"concept": name, "status": verdicts[name].pop(0), "confidence": 0.9, "box": boxes[name]}
                for name in payload["concepts"]
            ]
        }

    context = make_context(folder, policy, HITS, generator)
    return Output.model_validate(graph.invoke(changed(prompt="finch and coupe"), context=context)), asked


def bases(attempt: Attempt) -> dict[str, tuple[str, str]]:
    assert attempt.ledger
    return {row.concept: (row.status, row.basis) for row in attempt.ledger.rows}


def test_after_an_inpainting_only_what_may_have_changed_is_asked(tmp_path: Path) -> None:
    verdicts = {"finch": ["present"], "coupe": ["missing", "present"]}
    output, asked = run(tmp_path, InpaintingGenerator(inpaint_slots=1), verdicts)
    assert asked == [["finch", "coupe"], ["coupe"]]
    draft, inpainted = output.attempts
    assert inpainted.request.inpaint
    assert bases(draft) == {"finch": ("present", ""), "coupe": ("missing", "")}
    assert bases(inpainted) == {"finch": ("present", "unchanged"), "coupe": ("present", "")}
    assert output.outcome and output.outcome.ending == "accepted"


@pytest.mark.parametrize("spot", [(2, 5), (6, 12)])  # in the finch's box, and in its margin
def test_one_changed_pixel_is_a_reason_to_ask(tmp_path: Path, spot: tuple[int, int]) -> None:
    generator = InpaintingGenerator(inpaint_slots=1)
    generator.spot = spot
    verdicts = {"finch": ["present", "present"], "coupe": ["missing", "present"]}
    output, asked = run(tmp_path, generator, verdicts)
    assert output.attempts[1].request.inpaint
    assert asked == [["finch", "coupe"]] * 2


def test_a_new_image_is_judged_in_full(tmp_path: Path) -> None:
    verdicts = {"finch": ["present", "present"], "coupe": ["missing", "present"]}
    output, asked = run(tmp_path, SquareGenerator(), verdicts)
    assert asked == [["finch", "coupe"]] * 2
    assert not any(basis for attempt in output.attempts for _, basis in bases(attempt).values())


class SameGenerator(SquareGenerator):
    """Generator of the same image, whatever the request."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        return super().generate(request.model_copy(update={"seed": 1}), (), on_step)


def test_an_image_that_was_judged_before_costs_no_call_but_for_what_is_unsure(tmp_path: Path) -> None:
    verdicts = {"finch": ["missing"], "coupe": ["unsure", "present", "present"]}
    output, asked = run(tmp_path, SameGenerator(), verdicts)
    assert asked == [["finch", "coupe"], ["coupe"]]
    assert [len(attempt.ledger.rows) for attempt in output.attempts if attempt.ledger] == [2, 2, 2]
    assert bases(output.attempts[2]) == {"finch": ("missing", "unchanged"), "coupe": ("present", "unchanged")}
    assert sum(usage.mllm_calls for usage in output.usage) == 3
