"""Which part of a reference is sent: without the other boxes, and never too small."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleinair.tools.images.crops import CropOptions, choose_crop, cut, own_names, pixels
from pleinair.tools.pocket.catalogue.scenes import Subject, boxes, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME
from pleinair.tools.types import Box

LEFT, RIGHT = (0.1, 0.2, 0.4, 0.8), (0.6, 0.2, 0.9, 0.8)  # squares of 60 pixels
PAIR = {"blue jay": LEFT, "police car": RIGHT}
SIZE = (200, 100)
CLOSE = CropOptions(margin=0, least=1)


def test_a_crop_removes_the_other_box() -> None:
    assert choose_crop(["blue jay"], PAIR, SIZE, CLOSE) == LEFT
    assert choose_crop(["police car"], PAIR, SIZE, CLOSE) == RIGHT


def test_the_whole_image_is_sent_where_a_crop_removes_nothing() -> None:
    alone, rider = {"finch": LEFT}, {"rider": (0.2, 0.1, 0.8, 0.9), "horse": (0.2, 0.4, 0.8, 1.0)}
    assert choose_crop(["finch"], alone, SIZE, CLOSE) is None
    assert choose_crop(["horse"], rider, SIZE, CLOSE) is None
    assert choose_crop(["finch"], alone, SIZE, CLOSE.model_copy(update={"when": "always"})) == LEFT
    assert choose_crop(["finch"], PAIR, SIZE, CLOSE.model_copy(update={"when": "never"})) is None


@pytest.mark.parametrize(
    ("concept", "names"),
    [
        ("Blue  JAY", ["blue jay"]),
        ("a blue jay in the snow", ["blue jay"]),
        ("a blue jay beside a police car", ["blue jay", "police car"]),
        ("blue jays", []),
        ("finch", []),
    ],
)
def test_names_are_whole_words_within_the_concept(concept: str, names: list[str]) -> None:
    assert own_names(concept, PAIR) == names


def test_the_longest_name_counts() -> None:
    assert own_names("a blue jay", {"finch": LEFT, "blue jay": RIGHT, "!": LEFT}) == ["blue jay"]


def test_a_crop_for_several_concepts_contains_all_of_them() -> None:
    three = PAIR | {"rainbow trout": (0.0, 0.8, 0.2, 1.0)}
    both = choose_crop(["blue jay", "police car"], three, SIZE, CLOSE)
    assert both == (0.1, 0.0, 0.9, 1.0)  # as square as the image allows
    assert choose_crop(["blue jay", "rainbow trout"], PAIR, SIZE, CLOSE) is None


def test_the_margin_is_of_the_longer_side_and_ends_at_the_edge() -> None:
    crop = choose_crop(["blue jay"], PAIR, SIZE, CropOptions(margin=0.25, least=1))
    assert crop == pytest.approx((0.025, 0.05, 0.475, 0.95))  # 15 of 60 pixels on every side
    assert choose_crop(["blue jay"], PAIR, SIZE, CropOptions(margin=1, least=1))[0] == 0  # type: ignore[index]


def test_a_crop_is_square_unless_that_includes_the_other_box() -> None:
    flat, beside, below = (0.1, 0.4, 0.4, 0.6), (0.6, 0.4, 0.9, 0.6), (0.1, 0.6, 0.4, 0.7)
    square = choose_crop(["cod"], {"cod": flat, "tetra": beside}, SIZE, CLOSE)
    assert square == pytest.approx((0.1, 0.2, 0.4, 0.8))
    assert choose_crop(["cod"], {"cod": flat, "tetra": below}, SIZE, CLOSE) == flat
    edge = choose_crop(["cod"], {"cod": (0.0, 0.0, 0.3, 0.2), "tetra": beside}, SIZE, CLOSE)
    assert edge == pytest.approx((0.0, 0.0, 0.3, 0.6))


def test_a_crop_has_a_least_size() -> None:
    assert choose_crop(["blue jay"], PAIR, SIZE, CropOptions(margin=0, least=60)) == LEFT
    assert choose_crop(["blue jay"], PAIR, SIZE, CropOptions(margin=0, least=61)) is None


def corners() -> st.SearchStrategy[Box]:
    side = st.tuples(st.integers(0, 99), st.integers(1, 100)).filter(lambda ends: ends[0] < ends[1])
    return st.tuples(side, side).map(
        lambda xy: (xy[0][0] / 100, xy[1][0] / 100, xy[0][1] / 100, xy[1][1] / 100)
    )


def test_a_crop_that_would_be_the_whole_image_is_none() -> None:
    options = CropOptions(when="always", margin=1, least=1)
    assert choose_crop(["finch"], {"finch": (0.2, 0.2, 0.8, 0.8)}, SIZE, options) is None


@given(box=corners(), other=corners(), margin=st.floats(0, 1), least=st.integers(1, 60))
def test_a_crop_contains_the_concept_and_lies_in_the_image(
    box: Box, other: Box, margin: float, least: int
) -> None:
    options = CropOptions(margin=margin, least=least)
    crop = choose_crop(["finch"], {"finch": box, "cod": other}, SIZE, options)
    if crop:
        x0, y0, x1, y1 = pixels(crop, SIZE)
        assert 0 <= x0 < x1 <= SIZE[0] and 0 <= y0 < y1 <= SIZE[1]
        assert min(x1 - x0, y1 - y0) >= least
        assert crop[0] <= box[0] and crop[1] <= box[1] and crop[2] >= box[2] and crop[3] >= box[3]


def test_a_cropped_image_shows_one_subject_only() -> None:
    subjects = [Subject(BY_NAME[name]) for name in ("blue jay", "police car")]
    scene = place_scene(random.Random(1), subjects, ["left of"], background="meadow")
    crop = choose_crop(["police car"], dict(zip(PAIR, boxes(scene), strict=True)), (96, 96), CLOSE)
    assert crop
    alone = render(replace(scene, figures=scene.figures[1:]))
    assert cut(render(scene), crop).tobytes() == cut(alone, crop).tobytes()
    assert cut(alone, None) is alone
