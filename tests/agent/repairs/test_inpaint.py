"""When a box is painted anew, when the whole picture is drawn, and what is asked for then."""

from typing import Any

import pytest

from pleinair.agent.repairs.inpaint import WHY, instead, obstacle, repaint, replaced, require
from pleinair.agent.repairs.plan import after_retrieval
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
ABLE = Capabilities(
    id="able",
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
    pairs = [one.split("=") for one in used]
    references = [Reference(concept=c, hit=Hit(id=id, score=0.8), picture=PICTURE) for c, id in pairs]
    given = {
        "prompt": "p",
        "height": 16,
        "width": 16,
        "num_inference_steps": 4,
        "guidance_scale": 1,
        "seed": 0,
    }
    request = GenerateRequest.model_validate({**given, "references": references, **fields})
    return Attempt(number=number, request=request, picture=PICTURE, seconds=0, ledger=Ledger(rows=rows))


def painted(number: int, *used: str) -> Attempt:
    return attempt(number, *used, inpaint=Inpaint(concept="finch", picture=PICTURE, box=BOX))


def found(*ids: str) -> Retrieval:
    hits = tuple(Hit(id=id, score=0.8) for id in ids)
    return Retrieval(
        concept="finch", query="finch", hits=hits, abstained=not ids, reason="" if ids else "none"
    )


def action(
    planned: Action,
    *attempts: Attempt,
    retrievals: tuple[Retrieval, ...] = (),
    **able: Any,
) -> Action:
    repairs = [Repair(concept="finch", action=planned)]
    (one,) = instead(repairs, attempts[0], attempts, retrievals, ABLE.model_copy(update=able))
    return one.action


def test_the_box_of_the_only_missing_concept_is_painted_anew() -> None:
    (one,) = instead([Repair(concept="finch", action="add_reference")], attempt(), [attempt()], [], ABLE)
    assert one == Repair(concept="finch", action="inpaint", why=WHY)
    unsure = FINCH.model_copy(update={"status": "unsure"})
    assert action("add_reference", attempt(rows=(unsure, COUPE))) == "inpaint"


@pytest.mark.parametrize(
    ("good", "able", "why"),
    [
        (attempt(), {"inpaint": False}, "paints no box"),
        (attempt(rows=(FINCH, COUPE.model_copy(update={"status": "unsure"}))), {}, "only concept"),
        (attempt(rows=(FINCH,)), {}, "nothing else to keep"),
        (attempt(rows=(FINCH.model_copy(update={"box": None}), COUPE)), {}, "nobody said where"),
        (attempt(), {"height": 32}, "another size"),
        (attempt(num_inference_steps=2), {}, "a sketch"),
        (attempt().model_copy(update={"ledger": None}), {}, "no picture was judged"),
        (None, {}, "no picture was judged"),
    ],
)
def test_elsewhere_the_whole_picture_is_drawn(good: Attempt | None, able: dict[str, Any], why: str) -> None:
    can = ABLE.model_copy(update=able)
    assert why in obstacle("finch", good, can)
    asked = [Repair(concept="finch", action="add_reference")]
    if good and good.ledger:
        assert instead(asked, good, [good], [], can) == asked


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((0.0, 0.0, 1.0, 0.75), "nearly the whole"),
        ((0.0, 0.0, 0.1, 0.5), "too small"),
        ((0.5, 0.0, 1.25, 0.5), "not inside"),
        ((0.5, 0.5, 0.5, 0.5), "not inside"),
    ],
)
def test_a_box_must_leave_something_to_keep_and_to_paint(box: Box, why: str) -> None:
    assert why in obstacle("finch", attempt(rows=(FINCH.model_copy(update={"box": box}), COUPE)), ABLE)


def test_a_concept_that_is_there_is_not_painted_over() -> None:
    assert "only concept" in obstacle("coupe", attempt(), ABLE)


def test_the_same_reference_is_not_painted_twice() -> None:
    looked_up = (found("a", "b"),)
    assert action("swap_reference", attempt(), painted(1, "finch=a"), retrievals=looked_up) == "inpaint"
    both = (painted(1, "finch=a"), painted(2, "finch=b"))
    assert action("new_seed", attempt(), *both, retrievals=looked_up) == "inpaint"  # in words alone
    done = (*both, painted(3))
    assert action("new_seed", attempt(), *done, retrievals=looked_up) == "new_seed"


def test_a_reference_that_failed_in_a_whole_picture_may_do_in_a_box() -> None:
    drawn = attempt(1, "finch=a")
    assert action("new_seed", drawn, retrievals=(found("a"),)) == "inpaint"
    assert action("new_seed", drawn, painted(2, "finch=a"), retrievals=(found("a"),)) == "new_seed"


def test_a_class_that_shows_no_reference_beside_the_picture_paints_last() -> None:
    assert action("add_reference", attempt(), inpaint_slots=0) == "add_reference"
    assert action("swap_reference", attempt(), inpaint_slots=0) == "swap_reference"
    assert action("new_seed", attempt(), retrievals=(found("a"),), inpaint_slots=0) == "inpaint"
    assert action("reword", attempt(), painted(1), inpaint_slots=0) == "reword"


def test_several_repairs_and_none_stay_as_they_are() -> None:
    pair = [Repair(concept=name, action="add_reference") for name in ("finch", "coupe")]
    missing = attempt(rows=(FINCH, COUPE.model_copy(update={"status": "missing"})))
    assert instead(pair, missing, [missing], [], ABLE) == pair
    assert instead([], attempt(), [attempt()], [], ABLE) == []


INPAINT = [Repair(concept="finch", action="inpaint")]


def test_what_is_painted_in_is_the_best_picture_at_the_rows_box() -> None:
    assert repaint(INPAINT, attempt()) == Inpaint(concept="finch", picture=PICTURE, box=BOX)
    assert repaint([Repair(concept="finch", action="new_seed")], attempt()) is None
    assert repaint(INPAINT, None) is None


def test_the_old_reference_stays_where_no_other_is_left() -> None:
    fresh = {"finch": [Hit(id="b", score=0.8)]}
    assert replaced(INPAINT, fresh, ABLE) == {"finch"}
    assert replaced(INPAINT, {"finch": []}, ABLE) == set()
    assert replaced(INPAINT, {"finch": []}, ABLE.model_copy(update={"inpaint_slots": 0})) == {"finch"}


def test_a_look_up_that_abstained_leaves_the_box_to_words() -> None:
    assert after_retrieval(INPAINT, [FINCH], [found()]) == INPAINT


def test_a_driving_model_is_told_why_not() -> None:
    require(INPAINT, attempt(), ABLE)
    with pytest.raises(
        BadInput, match="The box of 'finch' cannot be painted anew: it must be the only repair"
    ):
        require([*INPAINT, Repair(concept="coupe", action="swap_reference")], attempt(), ABLE)
    with pytest.raises(BadInput, match="paints no box anew"):
        require(INPAINT, attempt(), ABLE.model_copy(update={"inpaint": False}))
    require([Repair(concept="finch", action="new_seed")], None, ABLE)
