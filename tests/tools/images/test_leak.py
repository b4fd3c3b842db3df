"""What came across from a reference: seen in rendered scenes, where it is known."""

import random
from dataclasses import replace

import pytest
from PIL import Image, ImageOps

from pleinair.tools.images.leak import View, background, copied, pose, shrunk
from pleinair.tools.pocket.world import SPECIES, Scene, boxes, random_scene, render
from pleinair.tools.types import BadInput

FINCH, OTHER = SPECIES[0], SPECIES[30]


def scene(number: int, name: str = "snow", tilt: float | None = None, flip: bool = False) -> Scene:
    made = random_scene(random.Random(number), [FINCH], background=name)
    if tilt is None:
        return made
    return replace(made, subjects=(replace(made.subjects[0], tilt=tilt, flip=flip),))


def view(shown: Scene, boxed: bool = True) -> View:
    return View(render(shown), boxes(shown)[0] if boxed else None)


def draft(name: str) -> Image.Image:
    return render(random_scene(random.Random(9), [OTHER], background=name))


@pytest.mark.parametrize("boxed", [True, False])
def test_a_copied_background_is_found_and_an_asked_one_is_not(boxed: bool) -> None:
    reference = view(scene(1, "snow"), boxed)
    came_across, as_asked = view(scene(2, "snow"), boxed), view(scene(2, "night"), boxed)
    assert (background(came_across, reference, [draft("night")]) or 0) > 0.9
    assert background(as_asked, reference, [draft("night")]) == pytest.approx(0, abs=0.1)
    assert background(came_across, reference, [draft("snow")]) == pytest.approx(0, abs=0.2)  # asked for
    both = [draft("night"), draft("snow")]
    assert background(came_across, reference, both) == background(came_across, reference, both[1:])


def test_a_half_way_background_is_half_a_leak() -> None:
    mixed = Image.blend(render(scene(2, "snow")), render(scene(2, "night")), 0.5)
    new = View(mixed, boxes(scene(2))[0])
    assert 0.2 < (background(new, view(scene(1, "snow")), [draft("night")]) or 0) < 0.8


def test_a_background_cannot_be_told_without_another_picture_or_without_a_place() -> None:
    whole = (0.0, 0.0, 1.0, 1.0)
    reference, new = view(scene(1)), view(scene(2))
    assert background(new, reference, []) is None
    assert background(replace(new, others=(whole,)), reference, [draft("night")]) is None


def test_other_things_are_no_background() -> None:
    reference, asked = view(scene(1, "snow")), scene(2, "night")
    picture = render(asked)
    patch = render(scene(1, "snow")).crop((0, 0, 64, 24))
    picture.paste(patch, (0, 0))
    own = boxes(asked)[0]
    found = background(View(picture, own), reference, [draft("night")])
    told = background(View(picture, own, ((0.0, 0.0, 1.0, 0.375),)), reference, [draft("night")])
    assert found is not None and told is not None and told < 0.1 < found


def test_the_same_picture_is_found_mirrored_too() -> None:
    picture, again = render(scene(1)), render(scene(2))
    assert copied(picture, picture) == pytest.approx(1)
    assert copied(ImageOps.mirror(picture), picture) == pytest.approx(1)
    assert copied(picture.resize((200, 200)), picture) > 0.98
    assert copied(again, picture) < 0.98
    assert copied(render(scene(2, "night")), picture) < 0.9
    assert copied(Image.new("RGB", (9, 9), "red"), picture) == 0


@pytest.mark.parametrize("flip", [False, True])
def test_a_pose_is_found_mirrored_too_and_another_is_not(flip: bool) -> None:
    reference = view(scene(1, "snow", tilt=30))
    same = view(scene(2, "meadow", tilt=-30 if flip else 30, flip=scene(1, tilt=30).subjects[0].flip != flip))
    other = view(scene(2, "meadow", tilt=-10))
    found, not_found = pose(same, reference), pose(other, reference)
    assert found is not None and not_found is not None
    assert found > 0.3 and found > not_found + 0.1


def test_a_pose_cannot_be_told_without_both_boxes() -> None:
    assert pose(view(scene(1), boxed=False), view(scene(2))) is None
    assert pose(view(scene(1)), view(scene(2), boxed=False)) is None


def test_a_box_of_less_than_a_pixel_still_has_one() -> None:
    speck = View(render(scene(1)), (0.5, 0.5, 0.501, 0.501))
    assert pose(speck, view(scene(1))) == 0


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.5, 1), (0, 0.6, 1, 0.5), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, float("nan"), 1)]
)
def test_a_box_that_is_none_is_refused(box: tuple[float, float, float, float]) -> None:
    picture = render(scene(1))
    with pytest.raises(BadInput, match="wanted x0, y0, x1, y1"):
        View(picture, box)
    with pytest.raises(BadInput, match="wanted x0, y0, x1, y1"):
        View(picture, None, (box,))


def test_large_pictures_are_shrunk_and_small_ones_kept() -> None:
    small = render(scene(1))
    assert shrunk(small) is small
    assert max(shrunk(Image.new("RGB", (1024, 700))).size) == 256
