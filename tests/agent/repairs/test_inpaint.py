"""When a box is inpainted, when the whole image is generated again, and the request in either case."""

from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import SquareGenerator, make_context

from pleinair.agent.repairs.plan import (
    WHY_INPAINT,
    inpaint_of,
    obstacle,
    prefer_inpainting,
    require_possible,
    revise_repairs,
)
from pleinair.agent.select import select_references
from pleinair.agent.state import State
from pleinair.tools.types import (
    Action,
    Attempt,
    BadInput,
    Box,
    Capabilities,
    GenerateRequest,
    Hit,
    Inpaint,
    Ledger,
    Picture,
    Reference,
    Repair,
    Retrieval,
    Row,
)

PICTURE = Picture(sha256="0" * 64, width=16, height=16)
BOX: Box = (0.0, 0.0, 0.5, 0.5)
FINCH = Row(concept="finch", status="missing", confidence=0.9, box=BOX)
COUPE = Row(concept="coupe", status="present", confidence=0.9)
CAPABILITIES = Capabilities(
    id="inpainter",
    slots=2,
    inpaint=True,
    inpaint_slots=1,
    height=16,
    width=16,
    num_inference_steps=4,
    guidance_scale=1,
)


def attempt(number: int = 0, *used: str, rows: tuple[Row, ...] = (FINCH, COUPE), **fields: Any) -> Attempt:
    """Make an attempt with references as "concept=id"."""
    pairs = [pair.split("=") for pair in used]
    references = [Reference(concept=c, hit=Hit(id=id, score=0.8), picture=PICTURE) for c, id in pairs]
    defaults = {
        "prompt": "p",
        "height": 16,
        "width": 16,
        "num_inference_steps": 4,
        "guidance_scale": 1,
        "seed": 0,
    }
    request = GenerateRequest.model_validate({**defaults, "references": references, **fields})
    return Attempt(number=number, request=request, picture=PICTURE, seconds=0, ledger=Ledger(rows=rows))


def inpainted(number: int, *used: str) -> Attempt:
    return attempt(number, *used, inpaint=Inpaint(concept="finch", picture=PICTURE, box=BOX))


def retrieval(*ids: str) -> Retrieval:
    hits = tuple(Hit(id=id, score=0.8) for id in ids)
    return Retrieval(
        concept="finch", query="finch", hits=hits, abstained=not ids, reason="" if ids else "none"
    )


def action(
    planned: Action, *attempts: Attempt, retrievals: tuple[Retrieval, ...] = (), **capabilities: Any
) -> Action:
    repairs = [Repair(concept="finch", action=planned)]
    updated = CAPABILITIES.model_copy(update=capabilities)
    (repair,) = prefer_inpainting(repairs, attempts[0], attempts, retrievals, updated)
    return repair.action


def test_the_box_of_the_only_missing_concept_is_inpainted() -> None:
    repairs = [Repair(concept="finch", action="add_reference")]
    (repair,) = prefer_inpainting(repairs, attempt(), [attempt()], [], CAPABILITIES)
    assert repair == Repair(concept="finch", action="inpaint", why=WHY_INPAINT)
    unsure = FINCH.model_copy(update={"status": "unsure"})
    assert action("add_reference", attempt(rows=(unsure, COUPE))) == "inpaint"


@pytest.mark.parametrize(
    ("best", "capabilities", "why"),
    [
        (attempt(), {"inpaint": False}, "does not inpaint"),
        (attempt(rows=(FINCH, COUPE.model_copy(update={"status": "unsure"}))), {}, "only concept"),
        (attempt(rows=(FINCH,)), {}, "nothing else to keep"),
        (attempt(rows=(FINCH.model_copy(update={"box": None}), COUPE)), {}, "has no box for it"),
        (attempt(), {"height": 32}, "another size"),
        (attempt(num_inference_steps=2), {}, "fewer steps"),
        (attempt().model_copy(update={"ledger": None}), {}, "no image was judged"),
        (None, {}, "no image was judged"),
    ],
)
def test_otherwise_the_whole_image_is_generated(
    best: Attempt | None, capabilities: dict[str, Any], why: str
) -> None:
    updated = CAPABILITIES.model_copy(update=capabilities)
    assert why in obstacle("finch", best, updated)
    repairs = [Repair(concept="finch", action="add_reference")]
    if best and best.ledger:
        assert prefer_inpainting(repairs, best, [best], [], updated) == repairs


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((0.0, 0.0, 1.0, 0.75), "nearly the whole"),
        ((0.0, 0.0, 0.1, 0.5), "too small"),
        ((0.5, 0.0, 1.25, 0.5), "not inside"),
        ((0.5, 0.5, 0.5, 0.5), "not inside"),
    ],
)
def test_a_box_must_leave_something_to_keep_and_to_inpaint(box: Box, why: str) -> None:
    assert why in obstacle(
        "finch", attempt(rows=(FINCH.model_copy(update={"box": box}), COUPE)), CAPABILITIES
    )


def test_a_present_concept_is_not_inpainted() -> None:
    assert "only concept" in obstacle("coupe", attempt(), CAPABILITIES)


def test_a_box_is_not_inpainted_twice_with_the_same_reference() -> None:
    retrievals = (retrieval("a", "b"),)
    assert action("swap_reference", attempt(), inpainted(1, "finch=a"), retrievals=retrievals) == "inpaint"
    both = (inpainted(1, "finch=a"), inpainted(2, "finch=b"))
    assert action("new_seed", attempt(), *both, retrievals=retrievals) == "inpaint"  # by the prompt alone
    done = (*both, inpainted(3))
    assert action("new_seed", attempt(), *done, retrievals=retrievals) == "new_seed"


def test_a_reference_that_failed_in_a_whole_image_is_tried_in_a_box() -> None:
    full = attempt(1, "finch=a")
    assert action("new_seed", full, retrievals=(retrieval("a"),)) == "inpaint"
    assert action("new_seed", full, inpainted(2, "finch=a"), retrievals=(retrieval("a"),)) == "new_seed"


def test_a_generator_without_references_beside_the_image_inpaints_last() -> None:
    assert action("add_reference", attempt(), inpaint_slots=0) == "add_reference"
    assert action("swap_reference", attempt(), inpaint_slots=0) == "swap_reference"
    assert action("new_seed", attempt(), retrievals=(retrieval("a"),), inpaint_slots=0) == "inpaint"
    assert action("reword", attempt(), inpainted(1), inpaint_slots=0) == "reword"


def test_several_repairs_and_none_stay_as_they_are() -> None:
    pair = [Repair(concept=name, action="add_reference") for name in ("finch", "coupe")]
    missing = attempt(rows=(FINCH, COUPE.model_copy(update={"status": "missing"})))
    assert prefer_inpainting(pair, missing, [missing], [], CAPABILITIES) == pair
    assert prefer_inpainting([], attempt(), [attempt()], [], CAPABILITIES) == []


INPAINT = [Repair(concept="finch", action="inpaint")]


def test_the_best_image_is_inpainted_at_the_box_of_the_row() -> None:
    assert inpaint_of(INPAINT, attempt()) == Inpaint(concept="finch", picture=PICTURE, box=BOX)
    assert inpaint_of([Repair(concept="finch", action="new_seed")], attempt()) is None
    assert inpaint_of(INPAINT, None) is None


@pytest.mark.parametrize(
    ("hits", "inpaint_slots", "used"), [("ab", 1, ["b"]), ("a", 1, ["a"]), ("a", 0, []), ("ab", 0, [])]
)
def test_the_current_reference_stays_where_no_other_is_left(
    tmp_path: Path, hits: str, inpaint_slots: int, used: list[str]
) -> None:
    context = make_context(tmp_path, lambda *_: "", generator=SquareGenerator(inpaint_slots=inpaint_slots))
    state = State(prompt="p", attempts=[attempt(0, "finch=a")], retrievals=[retrieval(*hits)])
    references = select_references(state, context, INPAINT)
    assert [reference.hit.id for reference in references] == used


def test_a_retrieval_that_abstains_leaves_the_box_to_the_prompt() -> None:
    assert revise_repairs(INPAINT, [FINCH], [retrieval()]) == INPAINT


def test_an_impossible_inpainting_is_an_error_for_the_driving_model() -> None:
    require_possible(INPAINT, attempt(), CAPABILITIES)
    with pytest.raises(BadInput, match="The box of 'finch' cannot be inpainted: it must be the only repair"):
        require_possible(
            [*INPAINT, Repair(concept="coupe", action="swap_reference")], attempt(), CAPABILITIES
        )
    with pytest.raises(BadInput, match="does not inpaint"):
        require_possible(INPAINT, attempt(), CAPABILITIES.model_copy(update={"inpaint": False}))
    require_possible([Repair(concept="finch", action="new_seed")], None, CAPABILITIES)
