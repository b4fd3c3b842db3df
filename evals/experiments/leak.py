"""Validate the leak check on scenes whose leaks are known.

Run it by `python -m pleinair.evals.experiments.leak --each 300`. Every number is a species, a reference and
new pictures of it, in which the background, the pose or everything is the reference's or is not. Boxes are
off by up to 3 % of the side, as a critic's are. Two hashes of pictures stand beside the measure of copies
for comparison. Not covered: what generators draw, which is blurred and wrong in other ways, and photographs.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.evals.metrics import interval_of_share
from pleinair.tools.images import leak
from pleinair.tools.images.leak import View
from pleinair.tools.pocket.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.world import SPECIES, Scene, boxes, held_out_rng, random_scene, render
from pleinair.tools.types import Box

if TYPE_CHECKING:
    from pleinair.tools.images.leak import Bits

FIRST = 900_000  # held-out numbers of this measure
LIMITS = LeakOptions()
THRESHOLDS = {
    "background": LIMITS.background,
    "background, no boxes": LIMITS.background,
    "copied": LIMITS.copied,
    "pose": LIMITS.pose,
}
Mark = tuple[str, str, bool, float]  # measure, case, whether it is a leak, value


@dataclass(frozen=True, slots=True)
class Line:
    """Sum one measure up against one kind of picture that is no leak."""

    measure: str
    against: str
    n: int  # of either kind
    auc: float
    found: int  # leaks over the threshold
    alarms: int  # others over it


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.experiments.leak", description=__doc__)
    parser.add_argument("--each", type=int, default=300, help="pictures of each kind (300)")
    each = parser.parse_args(arguments).each
    lines = summarise([mark for number in range(each) for mark in marks(held_out_rng(FIRST + number))])
    rows = ["measure | against | n | AUC | leaks found | false alarms", *map(_row, lines)]
    rows += [f"{_milliseconds(side):.1f} ms a reference, {side} pixels a side" for side in (64, 1024)]
    sys.stdout.write("\n".join([*rows, ""]))
    return 0


def _row(one: Line) -> str:
    """Write a line of the table; a hash has no threshold of ours, and so no shares."""
    counts = (one.found, one.alarms) if one.measure in THRESHOLDS else ()
    shares = [_share(count, one.n) for count in counts]
    return " | ".join([one.measure, one.against, str(one.n), interval_of_auc(one.auc, one.n), *shares])


def marks(rng: random.Random) -> Iterator[Mark]:
    """Render one reference and what may come of it, and measure all."""
    scene = random_scene(rng, [rng.choice(SPECIES)])
    yield from _backgrounds(rng, scene)
    yield from _copies(rng, scene)
    yield from _poses(rng, scene)


def _backgrounds(rng: random.Random, scene: Scene) -> Iterator[Mark]:
    """Draw the species anew over the reference's background, or over others."""
    asked, other = rng.sample([name for name in BACKGROUNDS if name != scene.background], 2)
    species, own = [scene.subjects[0].species], scene.background
    draft = random_scene(rng, [rng.choice(SPECIES)], background=asked)
    as_asked = random_scene(rng, [rng.choice(SPECIES)], background=own)
    cases = (
        ("", own, draft),
        ("as asked", asked, draft),
        ("asked as the reference has it", own, as_asked),
        ("another one", other, draft),
    )
    for case, drawn, before in cases:
        new = random_scene(rng, species, background=drawn)
        new = new if case else replace(new, seed=scene.seed)
        for name, boxed in (("background", True), ("background, no boxes", False)):
            views = (_view(rng, new, boxed), _view(rng, scene, boxed))
            found = leak.background(*views, [render(before)])
            assert found is not None
            yield name, case, not case, found


def _copies(rng: random.Random, scene: Scene) -> Iterator[Mark]:
    """Damage the reference a little, or draw its species anew, over its own background and another."""
    picture, species = render(scene), [scene.subjects[0].species]
    other = rng.choice([name for name in BACKGROUNDS if name != scene.background])
    cases = {
        "": _damaged(rng, picture),
        "drawn anew, same background": render(random_scene(rng, species, background=scene.background)),
        "drawn anew, another background": render(random_scene(rng, species, background=other)),
    }
    for case, new in cases.items():
        yield "copied", case, not case, leak.copied(new, picture)
        mirrored = ImageOps.mirror(new)
        for name, bits in (("dHash", _dhash), ("DCT hash", _dct_hash)):
            there = bits(picture)
            yield name, case, not case, max(float((bits(one) == there).mean()) for one in (new, mirrored))


def _poses(rng: random.Random, scene: Scene) -> Iterator[Mark]:
    """Tilt the subject as the reference has it, mirrored or not, or by 20 to 60 degrees more or less."""
    tilt = rng.uniform(-45, 45)
    first = replace(scene.subjects[0], tilt=tilt)
    reference = _view(rng, replace(scene, subjects=(first,)))
    turned = tilt + rng.uniform(20, 60) * (-1 if tilt > 0 else 1)
    while abs(abs(turned) - abs(tilt)) < 15:  # as a mirror image it would be the same pose
        turned = tilt + rng.uniform(20, 60) * rng.choice((-1, 1))
    for case, angle in (("", tilt + rng.uniform(-3, 3)), ("20 to 60 degrees off", turned)):
        flipped = rng.random() < 0.5
        again = random_scene(rng, [first.species]).subjects[0]
        again = replace(again, flip=first.flip != flipped, tilt=-angle if flipped else angle)
        new = Scene((again,), rng.choice(BACKGROUNDS), rng.randrange(2**31))
        found = leak.pose(_view(rng, new), reference)
        assert found is not None
        yield "pose", case, not case, found


def _view(rng: random.Random, scene: Scene, boxed: bool = True) -> View:
    """Render a scene, with its subject's box as a critic would give it, or without."""
    return View(render(scene), _shaken(rng, boxes(scene)[0]) if boxed else None)


def _shaken(rng: random.Random, box: Box) -> Box:
    """Move a box's edges by up to 3 % of the side."""
    x0, y0, x1, y1 = (min(max(edge + rng.uniform(-0.03, 0.03), 0.0), 1.0) for edge in box)
    return x0, y0, x1, y1


def _damaged(rng: random.Random, picture: Image.Image) -> Image.Image:
    """Give a copy that is not the same bytes: compressed, blurred, noisy, brighter, cut or mirrored."""
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 12, (*picture.size, 3))
    edge, file = rng.randint(1, 3), io.BytesIO()
    picture.save(file, "JPEG", quality=rng.randint(40, 80))
    width, height = picture.size
    return rng.choice(
        (
            Image.open(file).convert("RGB"),
            picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))),
            Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)),
            ImageEnhance.Brightness(picture).enhance(rng.uniform(0.85, 1.15)),
            picture.crop((edge, edge, width - edge, height - edge)).resize(picture.size),
            ImageOps.mirror(picture),
        )
    )


def _dhash(image: Image.Image) -> Bits:
    """Compare each of 8 × 9 grey pixels with its neighbour on the right."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int64)
    return np.asarray(grey[:, 1:] > grey[:, :-1]).ravel()


def _dct_hash(image: Image.Image) -> Bits:
    """Compare the 63 lowest cosines of 32 × 32 grey pixels, but for the mean, with their median."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    steps = np.arange(32)
    cosines = np.cos(np.pi * (steps[None] + 0.5) * steps[:, None] / 32)
    low = (cosines @ grey @ cosines.T)[:8, :8].ravel()[1:]
    return np.asarray(low > np.median(low))


def summarise(found: Sequence[Mark]) -> list[Line]:
    """Compare each measure's leaks with each kind of its other pictures."""
    by_kind: dict[tuple[str, str], list[float]] = {}
    for measure, case, _, value in found:
        by_kind.setdefault((measure, case), []).append(value)
    return [
        Line(measure, case, len(values), auc(by_kind[measure, ""], values), *_over(measure, by_kind, case))
        for (measure, case), values in by_kind.items()
        if case
    ]


def _over(measure: str, by_kind: dict[tuple[str, str], list[float]], case: str) -> tuple[int, int]:
    """Count the leaks and the others over the measure's threshold; hashes have none of ours."""
    limit = THRESHOLDS.get(measure, 2.0)
    leaks, others = (sum(value >= limit for value in by_kind[measure, kind]) for kind in ("", case))
    return leaks, others


def auc(leaks: Sequence[float], others: Sequence[float]) -> float:
    """Give the probability that a leak has the higher value, ties by half."""
    gaps = np.subtract.outer(np.asarray(leaks), np.asarray(others))
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def interval_of_auc(value: float, n: int) -> str:
    """Write an AUC of n against n with its 95 % interval (Hanley and McNeil, 1982)."""
    twice, square = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value) + (n - 1) * (twice + square - 2 * value**2)
    half = 1.96 * max(spread, 0.0) ** 0.5 / n
    return f"{value:.3f} [{max(value - half, 0):.3f}, {min(value + half, 1):.3f}]"


def _share(count: int, n: int) -> str:
    """Write a share with its interval."""
    low, high = interval_of_share(count, n) or (0.0, 1.0)
    return f"{count / n:.0%} [{low:.0%}, {high:.0%}]"


def _milliseconds(side: int, times: int = 10) -> float:
    """Time all measures of one reference against two pictures without it."""
    rng = held_out_rng(FIRST)
    scenes = [random_scene(rng, [rng.choice(SPECIES)]) for _ in range(4)]
    views = [View(render(one).resize((side, side)), _shaken(rng, boxes(one)[0])) for one in scenes]
    began = time.perf_counter()
    for _ in range(times):
        new, reference, *without = [View(leak.shrunk(one.image), one.own) for one in views]
        leak.background(new, reference, [one.image for one in without])
        leak.copied(new.image, reference.image)
        leak.pose(new, reference)
    return (time.perf_counter() - began) / times * 1000


if __name__ == "__main__":
    sys.exit(main())
