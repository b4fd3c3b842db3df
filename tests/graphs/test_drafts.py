"""A generator with few-step drafts: the draft is a first look, and what is accepted was drawn in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.fake_engines import SquareGenerator, call, decomposition, make_context, rows

from pleinair.agent.state import Output
from pleinair.graphs.direct import graph as direct
from pleinair.graphs.pleinair import graph
from pleinair.tools.types import Budget, Hit

HITS = {"coupe": [Hit(id="coupe.png", score=0.8)]}


class Critic:
    """See each concept or not, look by look."""

    def __init__(self, *looks: bool) -> None:
        self.looks = list(looks)

    def __call__(self, schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        if schema == "Decomposition":
            return decomposition("coupe")
        seen = self.looks.pop(0)
        return rows(card, lambda _: seen)


def run(folder: Path, *looks: bool, **fields: Any) -> tuple[Output, list[tuple[int, int, int]]]:
    """Run the loop with drafts of two steps out of four; give steps, seed and references of each picture."""
    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"draft_steps": 2})
    output = call(graph, make_context(folder, Critic(*looks), HITS, generator), seed=7, **fields)
    drawn = [(one.num_inference_steps, one.seed, len(one.references)) for one in generator.requests]
    return output, drawn


def ending(output: Output) -> tuple[str, int]:
    """Give how it ended, and with which picture."""
    assert output.outcome is not None and output.outcome.best is not None
    return output.outcome.ending, output.outcome.best.number


def test_a_draft_that_is_right_is_drawn_in_full_with_the_same_noise(tmp_path: Path) -> None:
    output, drawn = run(tmp_path, True, True)
    assert drawn == [(2, 7, 0), (4, 7, 0)]
    assert ending(output) == ("accepted", 1)


def test_a_draft_that_is_not_right_is_repaired_in_full(tmp_path: Path) -> None:
    output, drawn = run(tmp_path, False, True)
    assert drawn == [(2, 7, 0), (4, 7, 1)]
    assert ending(output) == ("accepted", 1)


def test_a_draft_that_the_full_picture_does_not_reach_stays_the_best(tmp_path: Path) -> None:
    output, drawn = run(tmp_path, True, False)
    assert len(drawn) == 2
    assert ending(output) == ("accepted", 0)


def test_a_run_of_one_picture_has_no_draft(tmp_path: Path) -> None:
    output, drawn = run(tmp_path, True, budget=Budget(attempts=1))
    assert drawn == [(4, 7, 0)]
    assert ending(output) == ("accepted", 0)


def test_a_budget_without_a_second_picture_accepts_the_draft(tmp_path: Path) -> None:
    output, drawn = run(tmp_path, True, budget=Budget(images=1))
    assert drawn == [(2, 7, 0)]
    assert ending(output) == ("accepted", 0)


def test_a_graph_of_one_picture_draws_it_in_full(tmp_path: Path) -> None:
    generator = SquareGenerator()
    generator.capabilities = generator.capabilities.model_copy(update={"draft_steps": 2})
    call(direct, make_context(tmp_path, Critic(), {}, generator))
    assert [one.num_inference_steps for one in generator.requests] == [4]
