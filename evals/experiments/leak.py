"""Validate the leak check on scenes whose leaks are known: `python -m pleinair.evals.experiments.leak`.

Every number is a species, a reference and new images of it, in which the background, the pose or everything
is the reference's or is not. Boxes are off by up to 3 % of the side, as a critic's are. Two hashes of images
are compared with the measure of copies. Not covered: what generators produce, which is blurred and wrong in
other ways, and photographs.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import radians
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pleinair.agent.repairs.leaks import LeakOptions
from pleinair.evals.metrics import interval_of_share
from pleinair.evals.report import percent
from pleinair.tools.images import leak
from pleinair.tools.images.leak import View
from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.catalogue.scenes import Scene, Subject, boxes, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.types import Box

if TYPE_CHECKING:
    from pleinair.tools.images.leak import Bits

FIRST = 900_000  # first of the held-out numbers
LIMITS = LeakOptions()
THRESHOLDS = {
    "background": LIMITS.background,
    "background, no boxes": LIMITS.background,
    "copied": LIMITS.copied,
    "pose": LIMITS.pose,
}
Sample = tuple[str, str, float]  # measure, kind of image that is no leak or "" for a leak, value


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.experiments.leak", description=__doc__)
    parser.add_argument("--each", type=int, default=300, help="images of each kind (300)")
    each = parser.parse_args(arguments).each
    scores = summarise(sample for number in range(each) for sample in samples(held_out_rng(FIRST + number)))
    lines = ["measure | against | n | AUC | leaks detected | false alarms"]
    for score in scores.itertuples():
        # a hash has no threshold and therefore no shares
        counts = (score.detected, score.alarms) if score.measure in THRESHOLDS else ()
        shares = [percent(count / score.n, interval_of_share(count, score.n)) for count in counts]
        area = interval_of_auc(score.auc, score.n)
        lines.append(" | ".join([score.measure, score.against, str(score.n), area, *shares]))
    lines += [f"{_milliseconds(side):.1f} ms a reference, {side} pixels a side" for side in (96, 1024)]
    print(*lines, sep="\n")


def samples(rng: random.Random) -> Iterator[Sample]:
    """Render a reference and images with and without its leaks, and measure all."""
    scene = _scene(rng, rng.choice(SPECIES))
    yield from _backgrounds(rng, _scene(rng, scene.subjects[0].species, scene.background, "small"))
    yield from _copies(rng, scene)
    yield from _poses(rng, scene)


def _scene(rng: random.Random, species: Species, background: str = "", size: str = "") -> Scene:
    """Place one species by day and in clear weather; a background that is omitted is random."""
    return place_scene(rng, [Subject(species, size=size)], background=background)


def _backgrounds(rng: random.Random, scene: Scene) -> Iterator[Sample]:
    """Render the species over the reference's background, or over others; small, so that there is one."""
    requested, other = rng.sample([name for name in BACKGROUNDS if name != scene.background], 2)
    species, leaked = scene.subjects[0].species, scene.background
    draft = _scene(rng, rng.choice(SPECIES), requested)
    draft_like_reference = _scene(rng, rng.choice(SPECIES), leaked)
    cases = (
        ("", leaked, draft),
        ("as asked", requested, draft),
        ("asked as the reference has it", leaked, draft_like_reference),
        ("another one", other, draft),
    )
    for case, background, before in cases:
        image = _scene(rng, species, background, "small")
        image = image if case else replace(image, seed=scene.seed)
        for measure, boxed in (("background", True), ("background, no boxes", False)):
            views = (_view(rng, image, boxed), _view(rng, scene, boxed))
            value = leak.background(*views, [render(before)])
            assert value is not None
            yield measure, case, value


def _copies(rng: random.Random, scene: Scene) -> Iterator[Sample]:
    """Damage the reference slightly, or render its species again, over its own background and another."""
    reference, species = render(scene), scene.subjects[0].species
    other = rng.choice([name for name in BACKGROUNDS if name != scene.background])
    cases = {
        "": _damaged(rng, reference),
        "another image, same background": render(_scene(rng, species, scene.background)),
        "another image, another background": render(_scene(rng, species, other)),
    }
    for case, image in cases.items():
        yield "copied", case, leak.copied(image, reference)
        pair = (image, ImageOps.mirror(image))
        for measure, hash in (("dHash", _dhash), ("DCT hash", _dct_hash)):
            yield measure, case, max(float((hash(side) == hash(reference)).mean()) for side in pair)


def _poses(rng: random.Random, scene: Scene) -> Iterator[Sample]:
    """Tilt the subject as the reference has it, mirrored or not, or by 20 to 60 degrees more or less."""
    tilt = rng.uniform(-45, 45)
    first = replace(scene.figures[0], tilt=radians(tilt))
    reference = _view(rng, replace(scene, figures=(first,)))
    turned = tilt + rng.uniform(20, 60) * (-1 if tilt > 0 else 1)
    while abs(abs(turned) - abs(tilt)) < 15:  # as a mirror image it would be the same pose
        turned = tilt + rng.uniform(20, 60) * rng.choice((-1, 1))
    for case, angle in (("", tilt + rng.uniform(-3, 3)), ("20 to 60 degrees off", turned)):
        flipped = rng.random() < 0.5
        image = _scene(rng, first.species)
        turn = radians(-angle if flipped else angle)
        figure = replace(image.figures[0], flip=first.flip != flipped, tilt=turn)
        image = replace(image, figures=(figure,))
        value = leak.pose(_view(rng, image), reference)
        assert value is not None
        yield "pose", case, value


def _view(rng: random.Random, scene: Scene, boxed: bool = True) -> View:
    """Render a scene, with its subject's box as a critic would give it, or without."""
    return View(render(scene), _shaken(rng, boxes(scene)[0]) if boxed else None)


def _shaken(rng: random.Random, box: Box) -> Box:
    """Move a box's edges by up to 3 % of the side."""
    x0, y0, x1, y1 = (min(max(edge + rng.uniform(-0.03, 0.03), 0.0), 1.0) for edge in box)
    return x0, y0, x1, y1


def _damaged(rng: random.Random, image: Image.Image) -> Image.Image:
    """Return a copy that is not the same bytes: compressed, blurred, noisy, brighter, cropped or mirrored."""
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 12, (*image.size, 3))
    edge, file = rng.randint(1, 3), io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(40, 80))
    width, height = image.size
    return rng.choice(
        (
            Image.open(file).convert("RGB"),
            image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))),
            Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)),
            ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.15)),
            image.crop((edge, edge, width - edge, height - edge)).resize(image.size),
            ImageOps.mirror(image),
        )
    )


def _dhash(image: Image.Image) -> Bits:
    """Compare each of 8 × 9 grey pixels with its neighbour on the right."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int64)
    return np.asarray(grey[:, 1:] > grey[:, :-1]).ravel()


def _dct_hash(image: Image.Image) -> Bits:
    """Compare the 63 lowest cosines of 32 × 32 grey pixels, except for the mean, with their median."""
    from scipy.fft import dctn

    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    low = dctn(grey)[:8, :8].ravel()[1:]
    return np.asarray(low > np.median(low))


def summarise(samples: Iterable[Sample]) -> pd.DataFrame:
    """Compare each measure's leaks with each kind of its other images.

    The columns are measure, against, n (of either kind), auc, and the numbers of leaks (`detected`) and of
    others (`alarms`) above the measure's threshold.
    """
    frame = pd.DataFrame(samples, columns=["measure", "against", "value"])
    values = {key: rows["value"] for key, rows in frame.groupby(["measure", "against"], sort=False)}
    rows = []
    for (measure, against), others in values.items():
        if against:
            leaks, limit = values[measure, ""], THRESHOLDS.get(measure, 2.0)
            counts = int((leaks >= limit).sum()), int((others >= limit).sum())
            rows.append((measure, against, len(others), auc(leaks, others), *counts))
    return pd.DataFrame(rows, columns=["measure", "against", "n", "auc", "detected", "alarms"])


def auc(leaks: Sequence[float], others: Sequence[float]) -> float:
    """Return the probability that a leak has the higher value, ties by half."""
    gaps = np.subtract.outer(np.asarray(leaks), np.asarray(others))
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def interval_of_auc(value: float, n: int) -> str:
    """Format an AUC of n against n with its 95 % interval (Hanley and McNeil, 1982)."""
    twice, square = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value) + (n - 1) * (twice + square - 2 * value**2)
    half = 1.96 * max(spread, 0.0) ** 0.5 / n
    return f"{value:.3f} [{max(value - half, 0):.3f}, {min(value + half, 1):.3f}]"


def _milliseconds(side: int, times: int = 10) -> float:
    """Time all measures of one reference against two images without it."""
    rng = held_out_rng(FIRST)
    scenes = [_scene(rng, rng.choice(SPECIES), size="small") for _ in range(4)]
    views = [View(render(scene).resize((side, side)), _shaken(rng, boxes(scene)[0])) for scene in scenes]
    started = time.perf_counter()
    for _ in range(times):
        image, reference, *others = [View(leak.shrunk(view.image), view.box) for view in views]
        leak.background(image, reference, [view.image for view in others])
        leak.copied(image.image, reference.image)
        leak.pose(image, reference)
    return (time.perf_counter() - started) / times * 1000


if __name__ == "__main__":
    main()
