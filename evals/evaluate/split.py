"""Division of a library: images to score against, a true reference for each concept, and the pool.

An image that is scored against is never in the pool, nor is a near copy of it. With three or more images of a
concept its true reference is held out too; with two it is the other one, which stays in the pool. Neither a
file that cannot be read nor a near copy of an image that was chosen before is chosen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pleinair.evals.evaluate.concepts import Concept, Concepts, prompt_of
from pleinair.evals.reproduce.plan import Subject
from pleinair.evals.reproduce.records import Records, key_of
from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.reading import BadPicture
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.near_copies import Thumbnail

OnProgress = Callable[[int, int], None]
_CELLS = 8  # cells a side of the layouts that decide which pairs are compared
_ALIKE = 0.5  # correlation of two layouts from which the images are compared by their pixels
_SIDE = 128  # pixels to which images are read


@dataclass(frozen=True)
class Part:
    """One concept's images: those that are scored against, the true reference, and what is left."""

    concept: str
    scored: tuple[str, ...]
    reference: str
    pool: tuple[str, ...]  # may hold near copies, which `Split.excluded` has


@dataclass(frozen=True)
class Split:
    """Parts of a library, its prompts, and the images that are in no pool."""

    library: Library
    concepts: Concepts
    parts: tuple[Part, ...]
    subjects: tuple[Subject, ...]
    copies: tuple[str, ...]  # near copies of images that are held out

    @cached_property
    def excluded(self) -> frozenset[str]:
        """Return the ids that no retrieval may return."""
        return self.held_out | frozenset(self.copies)

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Return the ids of images to score against and of true references outside the pool."""
        return frozenset().union(*(_held(part) for part in self.parts))

    @cached_property
    def part(self) -> dict[str, Part]:
        """Return the parts by concept."""
        return {part.concept: part for part in self.parts}

    @property
    def identity(self) -> str:
        """Return what tells this split from others; near copies follow from it."""
        return _identity(self.library, sorted(self.held_out), [part.reference for part in self.parts])


def _held(part: Part) -> set[str]:
    return {*part.scored} | ({part.reference} - {*part.pool})


def _identity(library: Library, *facts: object) -> str:
    return key_of([(item.id, *item.stamp, item.caption) for item in library.items.values()], *facts)


def split_library(
    library: Library,
    concepts: Concepts,
    *,
    most: int,
    images: int,
    seeds: int,
    seed: int,
    on_progress: OnProgress = no_callback,
) -> Split:
    """Choose concepts at random and divide their images; near copies in the pool are not looked for yet.

    Args:
        library: opened.
        concepts: of it.
        most: concepts, at most.
        images: to score against, of each concept, at most.
        seeds: prompts of a concept, each with a seed of its own.
        seed: from which all choices derive.
        on_progress: receives the concepts that are done, and their number.

    Raises:
        BadInput: no concept has two images that can be read and are not nearly the same.
    """
    order = random.Random(f"{seed}/concepts").sample(concepts.usable, len(concepts.usable))
    parts, used = list[Part](), set[str]()
    for concept in order:
        if len(parts) < most and (part := _part(concept, concepts, used, images, seed, library)):
            parts.append(part)
            used |= {*part.scored, part.reference}  # a reference in the pool is held out by no other concept
            on_progress(len(parts), min(most, len(order)))
    if not parts:
        raise BadInput(
            f"{library.title}: no concept has two images that can be read and are not nearly the same.",
            "`pleinair doctor --library FOLDER` lists files that cannot be read.",
        )
    parts.sort(key=lambda part: part.concept)
    subjects = tuple(subject for part in parts for subject in _subjects(library, concepts, part, seeds, seed))
    return Split(library, concepts, tuple(parts), subjects, ())


def _part(
    concept: Concept, concepts: Concepts, used: set[str], images: int, seed: int, library: Library
) -> Part | None:
    """Divide one concept's images; those that show nothing else come first. None if too few are left."""
    ids = [id for id in concept.images if id not in used]
    random.Random(f"{seed}/{concept.name}").shuffle(ids)
    ids.sort(key=lambda id: len(concepts.of_image[id]))
    different = list(islice(_different(library, ids), images + 2))
    if len(different) < 2:
        return None
    count = min(images, max(len(different) - 2, 1))
    scored, reference = different[:count], different[count]
    held = {*scored} if len(different) == 2 else {*scored, reference}
    return Part(concept.name, tuple(scored), reference, tuple(id for id in ids if id not in held))


def _different(library: Library, ids: Sequence[str]) -> Iterator[str]:
    """Yield images that can be read and are no near copies of those before."""
    from pleinair.tools.retrieval.near_copies import is_near_copy

    before: list[Thumbnail] = []
    for id in ids:
        thumb = _thumbnail(library, id)
        if thumb is not None and not any(is_near_copy(thumb, other) for other in before):
            before.append(thumb)
            yield id


def _subjects(library: Library, concepts: Concepts, part: Part, seeds: int, seed: int) -> Iterator[Subject]:
    truth = tuple(library.path(id) for id in part.scored)
    for number in range(seeds):
        item = library.items[part.scored[number % len(part.scored)]]
        noise = random.Random(f"{seed}/{part.concept}/{number}").randrange(2**32)
        yield Subject(prompt_of(item, part.concept, concepts.origin), part.concept, noise, truth)


def without_copies(split: Split, records: Records, on_progress: OnProgress = no_callback) -> Split:
    """Return the split with the near copies of its held-out images, found once for all commands.

    A file that cannot be read is no copy. Memory holds one image of the pool at a time.
    """
    held = sorted(split.held_out)
    key = _identity(split.library, held, "copies")
    entry = records.get(key) or records.add(key, copies=[*_copies(split.library, held, on_progress)])
    return replace(split, copies=tuple(entry["copies"]))


def _copies(library: Library, held: Sequence[str], on_progress: OnProgress) -> Iterator[str]:
    from pleinair.tools.retrieval.near_copies import is_near_copy

    thumbs = [thumb for id in held if (thumb := _thumbnail(library, id)) is not None]
    layouts = np.stack([_layout(thumb) for thumb in thumbs]) if thumbs else np.zeros((0, 3 * _CELLS**2))
    others = [id for id in library.items if id not in set(held)]
    for done, id in enumerate(others, start=1):
        if (thumb := _thumbnail(library, id)) is not None:
            alike = np.flatnonzero(layouts @ _layout(thumb) > _ALIKE)
            if any(is_near_copy(thumb, thumbs[place]) for place in alike):
                yield id
        on_progress(done, len(others))


def _thumbnail(library: Library, id: str) -> Thumbnail | None:
    from pleinair.tools.retrieval.near_copies import thumbnail

    try:
        return thumbnail(library.picture(id, _SIDE))
    except BadPicture:
        return None


def _layout(thumb: Thumbnail) -> NDArray[np.float64]:
    """Return a thumbnail's coarse colours, less their mean, at unit length: [192]."""
    side = len(thumb) // _CELLS
    cells = thumb.reshape(_CELLS, side, _CELLS, side, 3).mean((1, 3))
    flat = (cells - cells.mean((0, 1))).ravel()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9))
