"""A generator with drafts of few steps: an accepted image was generated in full steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from support.fake_engines import SquareGenerator, call, decomposition, make_context, rows

from pleinair.agent.state import Output
from pleinair.graphs.direct import graph as direct
from pleinair.graphs.pleinair import graph
from pleinair.tools.types import Budget, GenerateRequest, Hit

HITS = {"coupe": [Hit(id="coupe.png", score=0.8)]}


class SteppedGenerator(SquareGenerator):
    """Generator whose images differ with the number of steps; equal images are judged once."""

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        image = super().generate(request, images, on_step)
        image.putpixel((0, 0), (request.num_inference_steps, 0, 0))
        return image


class Critic:
    """Critic that finds every concept, or none, in each image in turn."""

    def __init__(self, *verdicts: bool) -> None:
        self.verdicts = list(verdicts)

    def __call__(self, schema: str, question: dict[str, Any], images: int) -> dict[str, Any]:
        if schema == "Decomposition":
            return decomposition("coupe")
        present = self.verdicts.pop(0)
        return rows(question, lambda _: present)


def run(folder: Path, *verdicts: bool, **fields: Any) -> tuple[Output, list[tuple[int, int, int]]]:
    """Run the loop with drafts of two steps of four; return steps, seed and references of each image."""
    generator = SteppedGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"draft_steps": 2})
    output = call(graph, make_context(folder, Critic(*verdicts), HITS, generator), seed=7, **fields)
    images = [
        (request.num_inference_steps, request.seed, len(request.references)) for request in generator.requests
    ]
    return output, images


def ending(output: Output) -> tuple[str, int]:
    """Return the ending and the number of the best attempt."""
    assert output.outcome is not None and output.outcome.best is not None
    return output.outcome.ending, output.outcome.best.number


def test_a_draft_that_is_right_is_generated_in_full_with_the_same_noise(tmp_path: Path) -> None:
    output, images = run(tmp_path, True, True)
    assert images == [(2, 7, 0), (4, 7, 0)]
    assert ending(output) == ("accepted", 1)


def test_a_draft_that_is_not_right_is_repaired_in_full(tmp_path: Path) -> None:
    output, images = run(tmp_path, False, True)
    assert images == [(2, 7, 0), (4, 7, 1)]
    assert ending(output) == ("accepted", 1)


def test_a_draft_that_is_better_than_the_full_image_stays_the_best(tmp_path: Path) -> None:
    output, images = run(tmp_path, True, False)
    assert len(images) == 2
    assert ending(output) == ("accepted", 0)


def test_a_run_of_one_attempt_has_no_draft(tmp_path: Path) -> None:
    output, images = run(tmp_path, True, budget=Budget(attempts=1))
    assert images == [(4, 7, 0)]
    assert ending(output) == ("accepted", 0)


def test_a_budget_without_a_second_image_accepts_the_draft(tmp_path: Path) -> None:
    output, images = run(tmp_path, True, budget=Budget(images=1))
    assert images == [(2, 7, 0)]
    assert ending(output) == ("accepted", 0)


def test_a_graph_of_one_image_generates_it_in_full(tmp_path: Path) -> None:
    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"draft_steps": 2})
    call(direct, make_context(tmp_path, Critic(), {}, generator))
    assert [request.num_inference_steps for request in generator.requests] == [4]
