"""Measure which images count as near copies: `python -m pleinair.evals.experiments.near_copies FOLDER`.

Each of some images is changed in several ways, and the share that is still recognised is printed; then how
many of the pairs of different images that look most alike are taken for near copies, by name. Not covered:
copies that are changed in other ways.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
from PIL import Image

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.near_copies import Thumbnail, differences, is_near_copy, thumbnail

Change = Callable[[Image.Image], Image.Image]
NEIGHBOURS = 5  # most similar other images of each
CELLS = 16  # a side, by which they are found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shares and the pairs of a library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=80, help="images of each change (80)")
    options = parser.parse_args(arguments)
    pictures = _pictures(Library.open(options.folder))
    thumbnails = {id: thumbnail(image) for id, image in pictures.items()}
    chance, started, count = random.Random(0), perf_counter(), 0
    for name, change in CHANGES.items():
        ids = chance.sample(sorted(pictures), min(options.images, len(pictures)))
        right = sum(is_near_copy(thumbnails[id], thumbnail(change(pictures[id]))) for id in ids)
        count += len(ids)
        print(f"{name}: {right / len(ids):.0%} of {len(ids)}")
    print(f"{1000 * (perf_counter() - started) / count:.1f} ms a pair, the change included")
    pairs = _most_similar(thumbnails)
    taken = [pair for pair in pairs if is_near_copy(*(thumbnails[id] for id in pair))]
    print(f"{len(taken)} of the {len(pairs)} most similar pairs are near copies")
    for first, second in taken:
        overall, block = differences(thumbnails[first], thumbnails[second])
        print(f"  {overall:.3f} {block:.3f} {first} {second}")


def _pictures(library: Library) -> dict[str, Image.Image]:
    pictures = {}
    for id in library.items:
        try:
            pictures[id] = library.picture(id)
        except BadPicture as error:
            print(error)
    return pictures


def _most_similar(thumbnails: dict[str, Thumbnail]) -> list[tuple[str, str]]:
    ids = sorted(thumbnails)
    size = next(iter(thumbnails.values())).shape[0] // CELLS
    rows = [
        thumbnails[id].astype(np.float32).reshape(CELLS, size, CELLS, size, 3).mean((1, 3)).ravel()
        for id in ids
    ]
    table = np.stack(rows)
    squares = (table**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * table @ table.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row}
    return [(ids[i], ids[j]) for i, j in sorted(pairs)]


def _scaled(factor: float) -> Change:
    return lambda image: image.resize(
        (max(1, round(factor * image.width)), max(1, round(factor * image.height)))
    )


def _encoded(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def _cropped(left: float, top: float, right: float, bottom: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        edges = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        x0, y0, x1, y1 = map(round, edges)
        return image.crop((x0, y0, x1, y1))

    return change


CHANGES: dict[str, Change] = {
    "halved": _scaled(1 / 2),
    "a third": _scaled(1 / 3),
    "JPEG, quality 30": _encoded(30),
    "cropped by 2 % a side": _cropped(0.02, 0.02, 0.02, 0.02),
    "cropped by 4 % a side": _cropped(0.04, 0.04, 0.04, 0.04),
    "cropped by 8 % a side": _cropped(0.08, 0.08, 0.08, 0.08),
    "cropped by 8 % below": _cropped(0, 0, 0, 0.08),
    "cropped, halved, JPEG 40": lambda image: _encoded(40)(
        _scaled(1 / 2)(_cropped(0.05, 0.02, 0.03, 0.06)(image))
    ),
}

if __name__ == "__main__":
    main()
