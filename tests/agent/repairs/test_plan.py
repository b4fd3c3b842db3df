"""Repairs of a concept in order of cost, and their revision after the retrieval."""

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.agent.repairs.plan import plan_repairs, revise_repairs
from pleinair.agent.select import unused_hits
from pleinair.tools.types import (
    Attempt,
    Capabilities,
    GenerateRequest,
    Hit,
    Ledger,
    Picture,
    Reference,
    Repair,
    Retrieval,
    Row,
)

PICTURE = Picture(sha256="0" * 64, width=8, height=8)
ROW = Row(concept="finch", status="missing", confidence=0.9, advice="Show the finch.")


def retrieval(*ids: str, threshold: float = 0.2, abstained: bool = False) -> Retrieval:
    hits = tuple(Hit(id=id, score=1 - 0.3 * n) for n, id in enumerate(ids))
    return Retrieval(
        concept="finch", query="finch", hits=hits, threshold=threshold, abstained=abstained, reason="too far"
    )


def attempt(number: int, *ids: str, row: Row = ROW) -> Attempt:
    references = tuple(Reference(concept="finch", hit=Hit(id=id, score=1), picture=PICTURE) for id in ids)
    request = GenerateRequest(
        prompt="p", references=references, height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0
    )
    return Attempt(number=number, request=request, picture=PICTURE, seconds=1, ledger=Ledger(rows=(row,)))


def actions(attempts: list[Attempt], retrievals: list[Retrieval], slots: int = 2) -> list[str]:
    capabilities = Capabilities(
        id="g", slots=slots, height=8, width=8, num_inference_steps=1, guidance_scale=1
    )
    repairs = plan_repairs(attempts[0], attempts, retrievals, capabilities, LeakOptions())
    return [repair.action for repair in repairs]


def test_first_a_reference_then_another_then_a_new_seed() -> None:
    retrievals = [retrieval("a", "b")]
    assert actions([attempt(0)], []) == ["add_reference"]
    assert actions([attempt(0), attempt(1, "a")], retrievals) == ["swap_reference"]
    assert actions([attempt(0), attempt(1, "a"), attempt(2, "b")], retrievals) == ["new_seed"]


def test_the_prompt_is_reworded_where_references_cannot_help() -> None:
    assert actions([attempt(0)], [], slots=0) == ["reword"]
    assert actions([attempt(0)], [retrieval("a", abstained=True)]) == ["reword"]


def test_without_advice_the_seed_is_changed() -> None:
    silent = ROW.model_copy(update={"advice": ""})
    assert actions([attempt(0, row=silent)], [], slots=0) == ["new_seed"]


def test_hits_under_the_threshold_are_never_used() -> None:
    hits = unused_hits(retrieval("a", "b", "c", threshold=0.5), [])
    assert [hit.id for hit in hits] == ["a", "b"]


def test_a_retrieval_that_abstains_turns_into_rewording_at_once() -> None:
    repair = Repair(concept="finch", action="add_reference")
    [revised] = revise_repairs([repair], [ROW], [retrieval(abstained=True)])
    assert (revised.action, revised.why) == ("reword", "too far")
    assert revise_repairs([repair], [ROW], [retrieval("a")]) == [repair]
