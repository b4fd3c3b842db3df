"""A closer look: at the place of a doubt, of a picture larger than was seen, with a call that is left."""

import io
from typing import Any

import pytest
from PIL import Image
from support.recording_chat import cards, hearing, shown

from pleinair.tools.critique import critique
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Concept

BOX = [0.5, 0.25, 0.7, 0.45]


def picture(side: int) -> bytes:
    """Draw a black square picture with a red square at the place of the doubt."""
    image = Image.new("RGB", (side, side))
    image.paste((255, 0, 0), (side // 2, side // 4, round(side * 0.7), round(side * 0.45)))
    return encode_png(image)


def row(concept: str, status: str, box: list[float] | None = None) -> dict[str, Any]:
    return {"concept": concept, "status": status, "confidence": 0.6, "evidence": status, "box": box}


def judged(side: int, *answers: list[dict[str, Any]], calls: int = 2) -> tuple[Any, list[str], Any]:
    """Judge "finch" and "coupe"; give the ledger, the statuses and the model."""
    script = [{"rows": rows} for rows in answers]
    model = hearing(lambda *_: script.pop(0))
    concepts = [Concept(name=name, caption=name) for name in ("finch", "coupe")]
    ledger, usage = critique(picture(side), "p", concepts, model=model, calls=calls)
    assert usage.mllm_calls == len(model.heard)
    return ledger, [one.status for one in ledger.rows], model


DOUBT = [row("finch", "present"), row("coupe", "unsure", BOX)]
SURE = [row("coupe", "present", [0.0, 0.0, 1.0, 1.0])]


def test_a_doubt_is_looked_at_closely() -> None:
    ledger, statuses, model = judged(1000, DOUBT, SURE)
    assert statuses == ["present", "present"]
    assert ledger.rows[1].box == tuple(BOX)
    heard = model.conversation("Critique")
    assert cards(heard)[-1] == {"concepts": ["coupe"]}
    ((cut,),) = shown(heard)
    with Image.open(io.BytesIO(cut)) as close:
        assert close.size == (260, 260)  # 200 pixels and 15 % on each side
        assert close.getpixel((130, 130)) == (255, 0, 0)
        assert close.getpixel((5, 5)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("side", "rows", "calls"),
    [
        (512, DOUBT, 2),  # it was seen in full
        (1000, DOUBT, 1),  # no call is left
        (1000, [row("finch", "present"), row("coupe", "missing", BOX)], 2),  # no doubt
        (1000, [row("finch", "present"), row("coupe", "unsure")], 2),  # no place
        (1000, [row("finch", "present"), row("coupe", "unsure", [0.5, 0.5, 0.5, 0.5])], 2),  # no extent
        (1000, [row("finch", "present"), row("coupe", "unsure", [2.0, 2.0, 3.0, 3.0])], 2),  # outside
    ],
)
def test_without_more_to_see_nothing_is_asked(side: int, rows: list[dict[str, Any]], calls: int) -> None:
    statuses, model = judged(side, rows, calls=calls)[1:]
    assert statuses == [one["status"] for one in rows]
    assert len(model.heard) == 1


@pytest.mark.parametrize("second", [[], [row("finch", "present")], [row("coupe", "perhaps")]])
def test_a_second_verdict_that_does_not_fit_changes_nothing(second: list[dict[str, Any]]) -> None:
    assert judged(1000, DOUBT, second)[1] == ["present", "unsure"]


def test_a_repeated_question_leaves_no_call_for_a_closer_look() -> None:
    assert judged(1000, [], DOUBT)[1] == ["present", "unsure"]
