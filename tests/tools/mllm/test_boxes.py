"""Box conventions: by the name of a model's family, and never guessed."""

from types import SimpleNamespace
from typing import Any

import pytest

from pleinair.tools.critique import read_ledger
from pleinair.tools.mllm.boxes import Frame, convention_of
from pleinair.tools.types import ModelFault


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        ("qwen2.5vl:7b", "pixels"),
        ("Qwen/Qwen2.5-VL-72B-Instruct-AWQ", "pixels"),
        ("qwen3-vl:8b", "thousandths"),
        ("Qwen/Qwen3-VL-8B-Instruct-GGUF", "thousandths"),
        ("Qwen2-VL-7B-Instruct", "thousandths"),
        ("google/gemini-3-pro", "thousandths_yxyx"),
        ("zai-org/GLM-4.5V", "thousandths"),
        ("OpenGVLab/InternVL3_5-8B", "thousandths"),
        ("minicpm-v:8b", "thousandths"),
        ("moonshotai/Kimi-VL-A3B-Thinking", "fractions"),
        *((name, "auto") for name in ("gpt-5.4-mini", "qwen-vl-max", "gemma3:4b", "llama3.2-vision", "")),
    ],
)
def test_a_family_has_its_convention(name: str, convention: str) -> None:
    assert convention_of(SimpleNamespace(model_name=name)) == convention


def test_a_setting_is_stronger_than_the_family() -> None:
    class Model:
        model_name = "qwen3-vl:8b"
        boxes = "percent"

    assert convention_of(Model()) == "percent"


SIZE = (800, 400)


@pytest.mark.parametrize(
    ("convention", "boxes", "expected"),
    [
        ("pixels", [[200, 100, 400, 300]], [(0.25, 0.25, 0.5, 0.75)]),
        ("thousandths_yxyx", [[250, 100, 750, 500]], [(0.1, 0.25, 0.5, 0.75)]),
        ("auto", [[200, 100, 400, 300]], [None]),  # pixels or thousandths
        (
            "auto",
            [{"x1": 250, "y1": 250, "x2": 900, "y2": 750}],
            [(0.25, 0.25, 0.9, 0.75)],
        ),  # beyond the pixels
        ("auto", [[1200, 100, 1400, 300]], [None]),  # beyond everything
        ("none", [[0.1, 0.1, 0.5, 0.5]], [None]),
        ("fractions", [[0.1, 0.1, 1.01, 0.5], [0.1, 0.1, 1.2, 0.5]], [(0.1, 0.1, 1.0, 0.5), None]),
        ("fractions", [{"x": 0.1, "y": 0.1, "w": 0.25, "h": 0.5}], [(0.1, 0.1, 0.35, 0.6)]),
        ("fractions", [None, "", [], {}, "none", [0, 0, 0, 0], [1], True, [float("nan")] * 4], [None] * 9),
    ],
)
def test_boxes_are_converted_or_left_out(convention: Any, boxes: list[Any], expected: list[Any]) -> None:
    read = Frame(convention, SIZE).read([("box", box) for box in boxes])
    assert read == [box and pytest.approx(box) for box in expected]


def test_pixels_of_an_image_of_unknown_size_are_no_box() -> None:
    assert Frame("pixels").read([("box", [1, 2, 30, 40])]) == [None]


def test_rows_of_a_tool_call_are_put_in_order_and_their_boxes_converted() -> None:
    rows: list[dict[str, Any]] = [
        {"concept": "The Coupe", "status": "Missing", "confidence": "90%"},
        {"concept": "wrens", "status": "present", "confidence": "high", "bbox": [100, 200, 500, 600]},
    ]
    first, second = read_ledger({"rows": rows}, ["wren", "coupe"], Frame("thousandths")).rows
    assert (first.concept, first.status, first.box) == ("wren", "present", (0.1, 0.2, 0.5, 0.6))
    assert (second.concept, second.status, second.box) == ("coupe", "missing", None)
    unread = {"concept": "wren", "status": "perhaps so", "confidence": 0.9}
    for incomplete in ([], rows[:1], [rows[0], {**rows[0], "concept": "kite"}], [rows[0], unread]):
        with pytest.raises(ModelFault, match="must have the rows"):
            read_ledger({"rows": incomplete}, ["wren", "coupe"], Frame())
