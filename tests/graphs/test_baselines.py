"""`direct` and `imagerag` with scripted engines."""

from pathlib import Path
from typing import Any

import pytest
from doubles import SquareGenerator, call, make_context

from pleinair.agent.state import Output
from pleinair.graphs import direct, imagerag
from pleinair.tools.types import Budget, Hit, Outcome

HITS = {"a photo of a finch": [Hit(id="finch.png", score=0.1), Hit(id="finch-2.png", score=0.05)]}


class Judge:
    """Answer ImageRAG's three questions."""

    def __init__(self, *, match: bool, missing: list[str]) -> None:
        self.match, self.missing = match, missing

    def __call__(self, schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        answers: dict[str, dict[str, Any]] = {
            "Decision": {"match": self.match, "why": "as asked"},
            "MissingConcepts": {"concepts": self.missing},
            "Captions": {
                "captions": [
                    {"name": name, "caption": f"a photo of a {name}"} for name in card.get("concepts", [])
                ]
            },
        }
        return answers[schema]


def ended(output: Output) -> Outcome:
    assert output.outcome is not None
    return output.outcome


def test_direct_draws_once_and_claims_nothing(tmp_path: Path) -> None:
    generator = SquareGenerator()
    context = make_context(tmp_path, Judge(match=True, missing=[]), generator=generator)
    outcome = ended(call(direct.graph, context, "a finch"))
    assert outcome.ending == "stopped"
    assert outcome.best is not None
    assert len(generator.requests) == 1


def test_a_matching_draft_is_imagerags_answer(tmp_path: Path) -> None:
    context = make_context(tmp_path, Judge(match=True, missing=[]), HITS)
    output = call(imagerag.graph, context, "a finch")
    assert output.outcome is not None and output.outcome.ending == "accepted"
    assert len(output.attempts) == 1 and output.retrievals == []


def test_imagerag_takes_the_top_hit_however_far_and_keeps_the_seed(tmp_path: Path) -> None:
    generator = SquareGenerator()
    context = make_context(tmp_path, Judge(match=False, missing=["finch"]), HITS, generator, floor=0.9)
    output = call(imagerag.graph, context, "a finch")
    draft, final = generator.requests
    assert [reference.hit.id for reference in final.references] == ["finch.png"]
    assert draft.seed == final.seed
    assert output.outcome is not None and output.outcome.best is not None
    assert output.outcome.best.number == 1
    assert output.outcome.ending == "stopped"  # the paper's method does not look at its result


def test_with_nothing_named_the_prompt_is_the_caption(tmp_path: Path) -> None:
    context = make_context(tmp_path, Judge(match=False, missing=[]), {"a finch": HITS["a photo of a finch"]})
    output = call(imagerag.graph, context, "a finch")
    assert [one.query for one in output.retrievals] == ["a finch"]


@pytest.mark.parametrize(
    ("budget", "pictures"), [(Budget(attempts=1), 1), (Budget(mllm_calls=2), 1), (Budget(attempts=0), 0)]
)
def test_imagerag_keeps_its_budget(tmp_path: Path, budget: Budget, pictures: int) -> None:
    context = make_context(tmp_path, Judge(match=False, missing=["finch"]), HITS)
    output = call(imagerag.graph, context, "a finch", budget=budget)
    assert len(output.attempts) == pictures
    assert ended(output).ending == "stopped"
