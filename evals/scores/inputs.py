"""Generated images and the real ones they are compared with, from folders on the disk.

Generated images come from the folder of `pleinair draw --out` or `pleinair batch`, whose sidecars hold the
prompts, or from a library whose captions are the prompts. Real images come from a published data set or a
library; those of a prompt are the ones with that very caption, or the ones of the class that the prompt
names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pleinair.app.runs.results import read_sidecars
from pleinair.evals.scores.items import Generated
from pleinair.tools.data_sets.data_set import DataSet, Split
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.data_sets.recognise import layouts_of, recognise
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput

Match = Literal["auto", "caption", "class"]
MATCHES: tuple[Match, ...] = get_args(Match)
_WORD = re.compile(r"\w+")
_MOST_WORDS = 12  # of a class name


@dataclass(frozen=True, slots=True)
class GeneratedImages:
    """Generated images with their prompts, and what retrieved their references."""

    items: tuple[Generated, ...]
    retrievers: tuple[str, ...] = ()  # ids of encoders, of the runs that retrieved
    skipped: int = 0  # sidecars without an image, such as those of runs that failed


@dataclass(frozen=True, slots=True)
class Real:
    """Real image with its class and its captions."""

    image: Path
    class_name: str = ""
    captions: tuple[str, ...] = ()


def read_generated(folder: Path) -> GeneratedImages:
    """Return the generated images in a folder.

    Raises:
        BadInput: there is no folder, or no image with a prompt in it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder.", "Name the folder of `pleinair draw --out` or `batch`.")
    if sidecars := list(read_sidecars(folder)):
        return _of_runs(sidecars)
    library = Library.open(folder)
    items = tuple(
        Generated(library.path(id), item.caption.partition("\n")[0]) for id, item in library.items.items()
    )
    without = [item.image for item in items if not item.prompt]
    if without:
        raise BadInput(
            f"{len(without)} of {len(items)} images in {folder} have no prompt, such as {without[0].name}: "
            "there are no sidecars of pleinair, and no captions.",
            "Write a metadata.jsonl with `file_name` and `text`, or name a folder that pleinair has written.",
        )
    return GeneratedImages(items)


def _of_runs(sidecars: Sequence[tuple[Path, Mapping[str, Any]]]) -> GeneratedImages:
    items, retrievers = [], dict[str, None]()
    for path, content in sidecars:
        image = path.with_suffix(".png")
        if image.is_file():
            items.append(Generated(image, str(content["order"]["prompt"])))
            if content.get("retrievals") and (encoder := content.get("models", {}).get("encoder")):
                retrievers[str(encoder)] = None
    if not items:
        raise BadInput(f"None of {len(sidecars)} runs in {sidecars[0][0].parent} has an image.")
    return GeneratedImages(tuple(items), tuple(retrievers), len(sidecars) - len(items))


def read_real(folder: Path, split: str, cache: Path) -> list[Real]:
    """Return the real images in a folder: a data set's, of one split, or a library's.

    Args:
        folder: of a published data set as it was unpacked, or of images with captions or folders of classes.
        split: "train", "val", "test", or "" for all.
        cache: folder for copies of images whose banner is no part of them.

    Raises:
        BadInput: there is no folder, no image, or no such split.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder.", "Name a data set's folder or a library.")
    if layouts_of(folder):
        return _of_data_set(recognise(folder), split, cache)
    if split:
        raise BadInput(f"--split {split}: {folder} is a library, which has no splits.", "Leave --split out.")
    library = Library.open(folder)
    return [
        Real(library.path(id), captions=tuple(filter(None, item.caption.split("\n"))))
        for id, item in library.items.items()
    ]


def _of_data_set(data_set: DataSet, split: str, cache: Path) -> list[Real]:
    splits = dict.fromkeys(example.split for example in data_set.examples)
    chosen: Sequence[Split] = [name for name in splits if name == split or not split]
    if not chosen:
        names = ", ".join(filter(None, splits)) or "none"
        raise BadInput(f"--split {split}: {data_set.layout.title} in {data_set.folder} has {names}.")
    examples = data_set.split(*chosen)
    root = data_set.folder
    if data_set.layout.banner:
        root = write_library(data_set, examples, cache / f"{data_set.layout.name}-{split or 'all'}")
    return [Real(root / example.path, example.class_name, example.captions) for example in examples]


def pair(items: Sequence[Generated], real: Sequence[Real], match: Match = "auto") -> list[Generated]:
    """Return the generated images with their real ones, and with groups for the intervals.

    Args:
        items: with prompts.
        real: with captions or classes.
        match: by "caption", equal but for case and punctuation, by "class", whose name the prompt contains,
            or "auto": by caption if every prompt is one.

    Raises:
        BadInput: a prompt has no real image, or names several classes.
    """
    captions = _by_key((line, image.image) for image in real for line in image.captions)
    if match != "class":
        unmatched = [item for item in items if _key(item.prompt) not in captions]
        if not unmatched:
            return _by_caption(items, captions)
        if match == "caption":
            raise _unmatched(items, unmatched, "caption")
    texts = _class_texts(real)
    classes = _by_key((text, image.image) for image, own in zip(real, texts, strict=True) for text in own)
    keys = [_class_of(item.prompt, classes) for item in items]
    if unmatched := [item for item, key in zip(items, keys, strict=True) if not key]:
        raise _unmatched(items, unmatched, "caption or class" if match == "auto" else "class")
    titles = {_key(name): name for name in class_names(real)}
    return [
        replace(item, truth=classes[key], group=titles[key]) for item, key in zip(items, keys, strict=True)
    ]


def class_names(real: Sequence[Real]) -> tuple[str, ...]:
    """Return the different names of classes; captions, such as folders' names, stand for missing ones."""
    names = dict[tuple[str, ...], str]()
    for own in _class_texts(real):
        for text in own:
            names.setdefault(_key(text), text)
    return tuple(names.values())


def _class_texts(real: Sequence[Real]) -> list[tuple[str, ...]]:
    """Return the names of each image's class."""
    if any(image.class_name for image in real):
        return [(image.class_name,) if image.class_name else () for image in real]
    return [image.captions for image in real]


def _by_caption(
    items: Sequence[Generated], captions: Mapping[tuple[str, ...], tuple[Path, ...]]
) -> list[Generated]:
    keys = [_key(item.prompt) for item in items]
    repeated = len(set(keys)) < len(keys)
    return [
        replace(item, truth=captions[key], group=item.prompt if repeated else "")
        for item, key in zip(items, keys, strict=True)
    ]


def _by_key(pairs: Iterable[tuple[str, Path]]) -> dict[tuple[str, ...], tuple[Path, ...]]:
    """Return the different files of each text's words, in their order."""
    files: dict[tuple[str, ...], dict[Path, None]] = defaultdict(dict)
    for text, path in pairs:
        files[_key(text)][path] = None
    return {key: tuple(paths) for key, paths in files.items() if key}


def _key(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _class_of(prompt: str, classes: Mapping[tuple[str, ...], Any]) -> tuple[str, ...]:
    """Return the class that a prompt names, the longest of several that contain each other; () for none."""
    words = _key(prompt)
    spans = [
        (start, end)
        for start in range(len(words))
        for end in range(start + 1, min(start + _MOST_WORDS, len(words)) + 1)
        if words[start:end] in classes
    ]
    outer = [
        span
        for span in spans
        if not any(other != span and other[0] <= span[0] and span[1] <= other[1] for other in spans)
    ]
    names = {words[start:end] for start, end in outer}
    if len(names) > 1:
        listed = ", ".join(sorted(repr(" ".join(name)) for name in names))
        raise BadInput(
            f"The prompt {prompt!r} names several classes: {listed}.",
            "Compare by caption, or score prompts of one class.",
        )
    return names.pop() if names else ()


def _unmatched(items: Sequence[Generated], unmatched: Sequence[Generated], by: str) -> BadInput:
    first = unmatched[0]
    return BadInput(
        f"{len(unmatched)} of {len(items)} prompts have no real image by {by}, such as {first.prompt!r} "
        f"({first.image.name}).",
        "Add real images with that caption or of that class, or leave REAL out and score by prompts alone.",
    )
