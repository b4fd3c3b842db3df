"""The ladder of repairs."""

from pleinair.agent.repairs.plan import after_retrieval, plan, untried
from pleinair.tools.types import Attempt, GenerateRequest, Hit, Picture, Reference, Repair, Retrieval, Row

PICTURE = Picture(sha256="0" * 64, width=8, height=8)
ROW = Row(concept="finch", status="missing", confidence=0.9, advice="Show the finch.")


def retrieval(*ids: str, threshold: float = 0.2, abstained: bool = False) -> Retrieval:
    hits = tuple(Hit(id=id, score=1 - 0.3 * n) for n, id in enumerate(ids))
    return Retrieval(
        concept="finch", query="finch", hits=hits, threshold=threshold, abstained=abstained, reason="too far"
    )


def attempt(number: int, *ids: str) -> Attempt:
    references = tuple(Reference(concept="finch", hit=Hit(id=id, score=1), picture=PICTURE) for id in ids)
    request = GenerateRequest(
        prompt="p", references=references, height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0
    )
    return Attempt(number=number, request=request, picture=PICTURE, seconds=1)


def actions(attempts: list[Attempt], retrievals: list[Retrieval], slots: int = 2) -> list[str]:
    return [one.action for one in plan([ROW], attempts, retrievals, slots)]


def test_first_a_reference_then_another_then_a_new_seed() -> None:
    found = [retrieval("a", "b")]
    assert actions([attempt(0)], []) == ["add_reference"]
    assert actions([attempt(0), attempt(1, "a")], found) == ["swap_reference"]
    assert actions([attempt(0), attempt(1, "a"), attempt(2, "b")], found) == ["new_seed"]


def test_words_help_where_references_cannot() -> None:
    assert actions([attempt(0)], [], slots=0) == ["reword"]
    assert actions([attempt(0)], [retrieval("a", abstained=True)]) == ["reword"]


def test_without_advice_there_are_no_words() -> None:
    silent = ROW.model_copy(update={"advice": ""})
    assert [one.action for one in plan([silent], [], [], slots=0)] == ["new_seed"]


def test_hits_under_the_floor_are_never_tried() -> None:
    assert untried(retrieval("a", "b", "c", threshold=0.5), []) == ["a", "b"]


def test_an_abstained_look_up_turns_into_words_at_once() -> None:
    asked = Repair(concept="finch", action="add_reference")
    [revised] = after_retrieval([asked], [ROW], [retrieval(abstained=True)])
    assert (revised.action, revised.why) == ("reword", "too far")
    assert after_retrieval([asked], [ROW], [retrieval("a")]) == [asked]
