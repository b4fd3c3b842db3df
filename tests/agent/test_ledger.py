"""Which image is best, and when one may be accepted."""

import pytest

from pleinair.agent.ledger import best, is_complete, latest, missing
from pleinair.tools.types import (
    Attempt,
    Concept,
    GenerateRequest,
    Hit,
    Leak,
    Ledger,
    Picture,
    Reference,
    Row,
    Status,
)

REQUEST = GenerateRequest(prompt="p", height=16, width=16, num_inference_steps=1, guidance_scale=1, seed=0)
PICTURE = Picture(sha256="0" * 64, width=16, height=16)


def row(concept: str, status: Status, confidence: float = 0.9) -> Row:
    return Row(concept=concept, status=status, confidence=confidence)


def attempt(number: int, *rows: Row, judged: bool = True) -> Attempt:
    ledger = Ledger(rows=rows) if judged else None
    return Attempt(number=number, request=REQUEST, picture=PICTURE, seconds=1, ledger=ledger)


CONCEPTS = [Concept(name="finch", caption="finch"), Concept(name="coupe", caption="coupe")]


@pytest.mark.parametrize(
    ("rows", "complete"),
    [
        ((row("finch", "present"), row("coupe", "present")), True),
        ((row("finch", "present"), row("coupe", "unsure")), False),
        ((row("finch", "present"), row("coupe", "missing")), False),
        ((row("finch", "present"),), False),
        ((), False),
    ],
)
def test_only_a_present_row_for_every_concept_is_complete(rows: tuple[Row, ...], complete: bool) -> None:
    assert is_complete(Ledger(rows=rows), CONCEPTS) is complete


def test_nothing_is_complete_without_concepts_or_without_a_ledger() -> None:
    assert not is_complete(Ledger(rows=()), [])
    assert not is_complete(None, CONCEPTS)


def test_unsure_rows_are_not_present() -> None:
    ledger = Ledger(rows=(row("a", "present"), row("b", "unsure"), row("c", "missing")))
    assert [row.concept for row in missing(ledger)] == ["b", "c"]


def test_the_best_has_more_present_rows_then_more_belief_then_came_earlier() -> None:
    weak = attempt(0, row("finch", "present", 0.6), row("coupe", "missing", 0.9))
    strong = attempt(1, row("finch", "present", 0.9), row("coupe", "missing", 0.9))
    worse = attempt(2, row("finch", "missing"), row("coupe", "missing"))
    unjudged = attempt(3, judged=False)
    assert best([weak, strong, worse, unjudged]) is strong
    assert best([weak, weak.model_copy(update={"number": 4})]) is weak


def test_of_images_that_the_critic_is_unsure_of_the_one_with_a_reference_is_best() -> None:
    rows = (row("finch", "present"), row("coupe", "unsure"))
    reference = Reference(concept="coupe", hit=Hit(id="coupe.png", score=0.9), picture=PICTURE)
    request = REQUEST.model_copy(update={"references": (reference,)})
    draft, second = attempt(0, *rows), attempt(1, *rows).model_copy(update={"request": request})
    assert best([draft, second]) is second
    of_other = reference.model_copy(update={"concept": "finch"})
    other = second.model_copy(update={"request": REQUEST.model_copy(update={"references": (of_other,)})})
    assert best([draft, other]) is draft
    seen = attempt(2, row("finch", "present"), row("coupe", "present", 0.5))
    assert best([draft, second, seen]) is seen


def test_of_equal_ledgers_the_one_with_less_of_the_references_background_is_best() -> None:
    def leaky(number: int, background: float | None, copied: float) -> Attempt:
        leak = Leak(concept="finch", id="finch.png", background=background, copied=copied)
        return attempt(number, row("finch", "unsure")).model_copy(update={"leaks": (leak,)})

    like_reference, unlike = leaky(1, 0.02, 0.9), leaky(2, 0.03, 0.2)
    assert best([like_reference, unlike]) is like_reference  # the more of the finch, the more alike
    assert best([leaky(1, 0.6, 0.9), unlike]) is unlike
    assert best([leaky(1, None, 0.9), unlike]).number == 1  # type: ignore[union-attr]


def test_a_confident_absence_counts_for_less_than_a_doubtful_one() -> None:
    sure, doubtful = attempt(0, row("finch", "missing", 0.95)), attempt(1, row("finch", "missing", 0.6))
    assert best([sure, doubtful]) is doubtful


def test_without_attempts_there_is_no_best() -> None:
    assert best([]) is None
    assert latest([]) is None
