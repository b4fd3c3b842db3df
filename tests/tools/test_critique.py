"""A second look at unsure concepts: at their boxes, in a large image, while a call is left."""

import io
from typing import Any

import pytest
from PIL import Image
from support.openai_server import over_the_wire
from support.recording_chat import RecordingChat, images_of, payloads, recording

from pleinair.tools.critique import CLOSE_UP_INSTRUCTION, critique
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Concept, Ledger

BOX = [0.5, 0.25, 0.7, 0.45]


def image_with_red_box(side: int) -> bytes:
    image = Image.new("RGB", (side, side))
    image.paste((255, 0, 0), (side // 2, side // 4, round(side * 0.7), round(side * 0.45)))
    return encode_png(image)


def row(concept: str, status: str, box: list[float] | None = None) -> dict[str, Any]:
    return {"concept": concept, "status": status, "confidence": 0.6, "evidence": status, "box": box}


def judge(side: int, *answers: list[dict[str, Any]], calls: int = 2) -> tuple[Ledger, RecordingChat]:
    """Judge "finch" and "coupe" by the scripted rows."""
    script = [{"rows": rows} for rows in answers]
    model = recording(lambda *_: script.pop(0))
    concepts = [Concept(name=name, caption=name) for name in ("finch", "coupe")]
    ledger, usage = critique(image_with_red_box(side), "p", concepts, model=model, calls=calls)
    assert usage.mllm_calls == len(model.calls)
    return ledger, model


def statuses(ledger: Ledger) -> list[str]:
    return [row.status for row in ledger.rows]


UNSURE = [row("finch", "present"), row("coupe", "unsure", BOX)]
SURE = [row("coupe", "present", [0.0, 0.0, 1.0, 1.0])]


def test_an_unsure_concept_is_judged_again_on_a_cut_out() -> None:
    ledger, model = judge(1000, UNSURE, SURE)
    assert statuses(ledger) == ["present", "present"]
    assert ledger.rows[1].box == tuple(BOX)
    messages = model.conversation("Critique")
    assert messages[0].content == CLOSE_UP_INSTRUCTION
    assert payloads(messages)[-1] == {"concepts": ["coupe"]}
    ((png,),) = images_of(messages)
    with Image.open(io.BytesIO(png)) as cut_out:
        assert cut_out.size == (260, 260)  # 200 pixels and 15 % on each side
        assert cut_out.getpixel((130, 130)) == (255, 0, 0)
        assert cut_out.getpixel((5, 5)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("side", "rows", "calls"),
    [
        (512, UNSURE, 2),  # it was seen in full
        (1000, UNSURE, 1),  # no call is left
        (1000, [row("finch", "present"), row("coupe", "missing", BOX)], 2),  # not unsure
        (1000, [row("finch", "present"), row("coupe", "unsure")], 2),  # no box
        (1000, [row("finch", "present"), row("coupe", "unsure", [0.5, 0.5, 0.5, 0.5])], 2),  # no extent
        (1000, [row("finch", "present"), row("coupe", "unsure", [2.0, 2.0, 3.0, 3.0])], 2),  # outside
    ],
)
def test_no_second_call_without_more_to_see(side: int, rows: list[dict[str, Any]], calls: int) -> None:
    ledger, model = judge(side, rows, calls=calls)
    assert statuses(ledger) == [row["status"] for row in rows]
    assert len(model.calls) == 1


SMALL = [0.5, 0.5, 0.55, 0.7]  # 50 pixels of 1,000, of which the model sees 25.6


@pytest.mark.parametrize("status", ["present", "missing"])
def test_a_concept_in_a_small_box_is_judged_on_a_cut_out(status: str) -> None:
    ledger, model = judge(1000, [row("finch", "present", BOX), row("coupe", status, SMALL)], SURE)
    assert payloads(model.conversation("Critique"))[-1] == {"concepts": ["coupe"]}
    assert [(row.status, row.basis) for row in ledger.rows] == [("present", ""), ("present", "cut_out")]


def test_what_is_small_depends_on_the_size_that_was_sent() -> None:
    served_model = recording(lambda *_: {"rows": [row("coupe", "present", SMALL)]})
    for side, calls in ((1000, 1), (800, 1), (600, 2)):
        with over_the_wire(served_model, side=side) as model:
            concepts = [Concept(name="coupe", caption="coupe")]
            _, usage = critique(image_with_red_box(1000), "p", concepts, model=model, calls=2)
        assert usage.mllm_calls == calls, side


@pytest.mark.parametrize("second", [[], [row("finch", "present")], [row("coupe", "perhaps")]])
def test_an_invalid_second_answer_changes_nothing(second: list[dict[str, Any]]) -> None:
    assert statuses(judge(1000, UNSURE, second)[0]) == ["present", "unsure"]


def test_a_repair_leaves_no_call_for_a_second_look() -> None:
    assert statuses(judge(1000, [], UNSURE)[0]) == ["present", "unsure"]
