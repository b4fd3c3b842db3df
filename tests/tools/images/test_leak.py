"""Leaks of a reference, measured in rendered scenes, where they are known."""

import random
from dataclasses import replace

import pytest
from PIL import Image, ImageOps

from pleinair.tools.images.leak import View, background, copied, pose, shrunk
from pleinair.tools.pocket.invented.world import SPECIES, Scene, boxes, random_scene, render
from pleinair.tools.types import BadInput

FINCH, OTHER = SPECIES[0], SPECIES[30]


def scene(number: int, name: str = "snow", tilt: float | None = None, flip: bool = False) -> Scene:
    plain = random_scene(random.Random(number), [FINCH], background=name)
    if tilt is None:
        return plain
    return replace(plain, subjects=(replace(plain.subjects[0], tilt=tilt, flip=flip),))


def view(rendered: Scene, boxed: bool = True) -> View:
    return View(render(rendered), boxes(rendered)[0] if boxed else None)


def draft(name: str) -> Image.Image:
    return render(random_scene(random.Random(9), [OTHER], background=name))


@pytest.mark.parametrize("boxed", [True, False])
def test_a_copied_background_is_a_leak_and_a_requested_one_is_not(boxed: bool) -> None:
    reference = view(scene(1, "snow"), boxed)
    leaking, requested = view(scene(2, "snow"), boxed), view(scene(2, "night"), boxed)
    assert (background(leaking, reference, [draft("night")]) or 0) > 0.9
    assert background(requested, reference, [draft("night")]) == pytest.approx(0, abs=0.1)
    assert background(leaking, reference, [draft("snow")]) == pytest.approx(0, abs=0.2)  # the prompt's
    both = [draft("night"), draft("snow")]
    assert background(leaking, reference, both) == background(leaking, reference, both[1:])


def test_a_blended_background_is_half_a_leak() -> None:
    mixed = Image.blend(render(scene(2, "snow")), render(scene(2, "night")), 0.5)
    blended = View(mixed, boxes(scene(2))[0])
    assert 0.2 < (background(blended, view(scene(1, "snow")), [draft("night")]) or 0) < 0.8


def test_a_background_needs_another_image_and_free_cells() -> None:
    everything = (0.0, 0.0, 1.0, 1.0)
    reference, generated = view(scene(1)), view(scene(2))
    assert background(generated, reference, []) is None
    assert background(replace(generated, others=(everything,)), reference, [draft("night")]) is None


def test_other_things_are_no_background() -> None:
    reference, night = view(scene(1, "snow")), scene(2, "night")
    image = render(night)
    patch = render(scene(1, "snow")).crop((0, 0, 64, 24))
    image.paste(patch, (0, 0))
    box = boxes(night)[0]
    unboxed = background(View(image, box), reference, [draft("night")])
    boxed = background(View(image, box, ((0.0, 0.0, 1.0, 0.375),)), reference, [draft("night")])
    assert unboxed is not None and boxed is not None and boxed < 0.1 < unboxed


def test_a_copy_may_be_mirrored() -> None:
    image, similar = render(scene(1)), render(scene(2))
    assert copied(image, image) == pytest.approx(1)
    assert copied(ImageOps.mirror(image), image) == pytest.approx(1)
    assert copied(image.resize((200, 200)), image) > 0.98
    assert copied(similar, image) < 0.98
    assert copied(render(scene(2, "night")), image) < 0.9
    assert copied(Image.new("RGB", (9, 9), "red"), image) == 0


@pytest.mark.parametrize("flip", [False, True])
def test_a_pose_may_be_mirrored_and_another_is_none(flip: bool) -> None:
    reference = view(scene(1, "snow", tilt=30))
    same = view(scene(2, "meadow", tilt=-30 if flip else 30, flip=scene(1, tilt=30).subjects[0].flip != flip))
    other = view(scene(2, "meadow", tilt=-10))
    leak, none = pose(same, reference), pose(other, reference)
    assert leak is not None and none is not None
    assert leak > 0.3 and leak > none + 0.1


def test_a_pose_needs_both_boxes() -> None:
    assert pose(view(scene(1), boxed=False), view(scene(2))) is None
    assert pose(view(scene(1)), view(scene(2), boxed=False)) is None


def test_a_box_has_at_least_one_pixel() -> None:
    speck = View(render(scene(1)), (0.5, 0.5, 0.501, 0.501))
    assert pose(speck, view(scene(1))) == 0


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.5, 1), (0, 0.6, 1, 0.5), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, float("nan"), 1)]
)
def test_an_invalid_box_is_refused(box: tuple[float, float, float, float]) -> None:
    image = render(scene(1))
    with pytest.raises(BadInput, match="wanted x0, y0, x1, y1"):
        View(image, box)
    with pytest.raises(BadInput, match="wanted x0, y0, x1, y1"):
        View(image, None, (box,))


def test_only_large_images_are_shrunk() -> None:
    small = render(scene(1))
    assert shrunk(small) is small
    assert max(shrunk(Image.new("RGB", (1024, 700))).size) == 256
