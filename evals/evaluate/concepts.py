"""Concepts of a library: classes of a data set or of class folders, names of boxes, or subjects of captions.

Not covered: concepts that stand later in a caption, and what `subjects` does not cover.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pleinair.app.texts import counted
from pleinair.evals.evaluate.subjects import subject_of
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.retrieval.item import Item
    from pleinair.tools.retrieval.library import Library

Origin = Literal["data set", "class folders", "boxes", "captions", "names"]  # names: the user's own
LEAST = 2  # images of a concept: one to score against, one to be a reference


@dataclass(frozen=True, slots=True)
class Concept:
    """What images of a library have in common; `images` are their ids, sorted."""

    name: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Concepts:
    """Concepts of a library, sorted by name, and those of too few images."""

    origin: Origin
    usable: tuple[Concept, ...]
    too_small: tuple[Concept, ...] = ()
    of_image: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)  # names, by image


def concepts_of(library: Library, names: Sequence[str] = ()) -> Concepts:
    """Return the concepts of a library.

    Args:
        library: opened.
        names: concepts to look for in the captions instead, in any language.

    Raises:
        BadInput: a name is blank, or no concept has two images.
    """
    if not all(map(str.strip, names)):
        raise BadInput("--concept: it is blank", "Name what captions contain, or leave it out.")
    names = list({" ".join(name.split()).casefold(): " ".join(name.split()) for name in names}.values())
    origin, by_image = _named(library, names) if names else _found(library)
    images: dict[str, list[str]] = {name: [] for name in names}
    for id in sorted(by_image):
        for name in sorted(by_image[id]):
            images.setdefault(name, []).append(id)
    every = [Concept(name, tuple(ids)) for name, ids in sorted(images.items())]
    usable = tuple(concept for concept in every if len(concept.images) >= LEAST)
    if not usable:
        raise BadInput(
            f"{library.title}: no concept has {LEAST} images, of {counted(len(library.items), 'image')} "
            f"and {counted(len(every), 'concept')} by {origin}.",
            "Sort the images into folders by class, caption them in English (`pleinair index --caption`), or "
            "name what their captions contain, in any language: --concept NAME.",
        )
    return Concepts(origin, usable, tuple(c for c in every if len(c.images) < LEAST), by_image)


def _found(library: Library) -> tuple[Origin, dict[str, frozenset[str]]]:
    """Return the best source of concepts, and the names of each image."""
    if classes := _classes(library):
        return "data set", classes
    items = library.items.values()
    captioned = [item for item in items if item.caption]
    of_folders = [item for item in captioned if item.captioned_by == "class_folders"]
    if of_folders and 2 * len(of_folders) > len(captioned):
        return "class folders", {item.id: frozenset([item.caption.lower()]) for item in of_folders}
    boxed = [item for item in items if item.boxes]
    if boxed and 2 * len(boxed) > len(captioned):
        return "boxes", {item.id: frozenset(map(str.lower, item.boxes)) for item in boxed}
    subjects = {item.id: _subjects(item) for item in captioned}
    return "captions", _merged({id: names for id, names in subjects.items() if names})


def _classes(library: Library) -> dict[str, frozenset[str]]:
    """Return the classes of a data set in one of the published layouts, nothing for other folders."""
    from pleinair.tools.data_sets.recognise import layouts_of, recognise

    if len(library.folders) != 1 or not layouts_of(library.folder):
        return {}
    data_set = recognise(library.folder)
    return {
        example.path: frozenset([example.class_name])
        for example in data_set.examples
        if example.class_name and example.path in library.items
    }


def _named(library: Library, names: Sequence[str]) -> tuple[Origin, dict[str, frozenset[str]]]:
    patterns = {name: _pattern(name) for name in names}
    shown = {
        item.id: frozenset(name for name, pattern in patterns.items() if _line(item, pattern))
        for item in library.items.values()
    }
    return "names", {id: found for id, found in shown.items() if found}


def _subjects(item: Item) -> frozenset[str]:
    return frozenset(filter(None, map(subject_of, item.caption.splitlines())))


def _merged(by_image: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return subjects of one image under a shorter subject of others: "white cat sleeps" is a "white cat"."""
    counts = Counter(name for names in by_image.values() for name in names)

    def merge(name: str) -> str:
        words = name.split()
        shorter = [words[:end] for end in range(len(words) - 1, 0, -1)]
        shorter += [words[start:] for start in range(1, len(words))]
        known = (" ".join(part) for part in shorter if " ".join(part) in counts)
        return name if counts[name] >= LEAST else next(known, name)

    return {id: frozenset(map(merge, names)) for id, names in by_image.items()}


def prompt_of(item: Item, concept: str, origin: Origin) -> str:
    """Return the prompt for an image: its caption that names the concept, else "a photo of a …"."""
    if origin in ("captions", "boxes", "names"):
        if line := _line(item, _pattern(concept)):
            return line
    return f"a photo of {'an' if concept[:1].lower() in 'aeiou' else 'a'} {concept}"


def _pattern(name: str) -> re.Pattern[str]:
    """Return the pattern of a name as words; as a part of words in scripts that write none apart."""
    before, after = (
        "" if _joins(char) else edge for char, edge in ((name[0], r"(?<!\w)"), (name[-1], r"(?!\w)"))
    )
    return re.compile(before + r"\s+".join(map(re.escape, name.split())) + after, re.IGNORECASE)


def _joins(char: str) -> bool:
    return char >= "\u2e80" or "\u0e00" <= char < "\u1100"  # Chinese, Japanese, Korean; Thai, Lao, Burmese


def _line(item: Item, pattern: re.Pattern[str]) -> str:
    return next((line.strip() for line in item.caption.splitlines() if pattern.search(line)), "")
