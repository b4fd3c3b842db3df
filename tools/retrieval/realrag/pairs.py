"""Prompts and classes of a library's images, by which a reflective retriever is trained.

RealRAG (Lyu et al., ICML 2025, section 4): an image's prompt is "A photo of a [CLASS NAME]", always with this
article. Not covered: classes in other languages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pleinair.tools.data_sets.data_set import MARK, DataSet, Example
from pleinair.tools.data_sets.library import TABLE
from pleinair.tools.retrieval.readers.names import without_code
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.retrieval.item import Item
    from pleinair.tools.retrieval.library import Library
USE_FILE = "Use --classes FILE with a line for each folder: its name, a tab, and the name of its class"


@dataclass(frozen=True, slots=True)
class Pair:
    """Library image with the prompt that it answers and its class."""

    id: str
    prompt: str
    label: str


def require_classes(pairs: Iterable[Pair]) -> None:
    """Raise `BadInput` for fewer than two classes, which have no negatives of each other."""
    if (count := len({pair.label for pair in pairs})) < 2:
        raise BadInput(
            f"The library has images of {count} classes with a prompt; accepted: 2 or more.",
            "--classes says where the classes are: captions, folders, or FILE with their names.",
        )


def prompt_for(label: str) -> str:
    """Return the paper's prompt for a class (section 4)."""
    return f"A photo of a {label}"


def pairs_by_caption(items: Iterable[Item]) -> list[Pair]:
    """Use every caption as a prompt, and an image's captions as its class; images without are dropped."""
    return [pair for item in items for pair in _by_captions(item.id, item.caption.splitlines())]


def pairs_by_name(items: Iterable[Item], names: Sequence[str]) -> list[Pair]:
    """Use the name in an image's caption as its class; captions with none or with several are dropped.

    A name within a longer one, such as "orange" in "blood orange", does not count.
    """
    written = {name.casefold(): name for name in names}
    longest_first = sorted(filter(None, written), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})(?!\w)")
    matches = ((item.id, set(pattern.findall(item.caption.casefold()))) for item in items)
    return [_of_class(id, written[match.pop()]) for id, match in matches if len(match) == 1]


def pairs_by_folder(items: Iterable[Item], names: Mapping[str, str] | None = None) -> list[Pair]:
    """Use the name of an image's folder as its class; images in the library's own folder are dropped.

    Args:
        items: images of a library.
        names: a name for each folder; None uses the folders' own without a code before it.

    Raises:
        BadInput: a folder's name is only a code, such as n01440764, or `names` does not have it.
    """
    folders = {item.id: PurePosixPath(item.id).parent.name for item in items}
    labels = {folder: _label(folder, names) for folder in sorted(set(folders.values())) if folder}
    return [_of_class(id, labels[folder]) for id, folder in folders.items() if folder]


def _label(folder: str, names: Mapping[str, str] | None) -> str:
    if names is not None:
        if folder not in names:
            raise BadInput(
                f"The file of names has no line for the folder {folder!r}.",
                "A line is a folder's name, a tab, and the name of its class.",
            )
        return names[folder]
    if not (name := without_code(folder)):
        raise BadInput(
            f"The class folder {folder!r} is named by a code, and no known data set was recognised; the "
            f"prompt would be {prompt_for(folder)!r}.",
            f"{USE_FILE}; or name the folder with the data set's own lists.",
        )
    return name


def pairs_of_data_set(data_set: DataSet, captions: bool) -> list[Pair]:
    """Use the classes of a data set's own list, or its captions; only its images to train on, if it has some.

    Raises:
        BadInput: it has no classes, or no captions.
    """
    examples = data_set.split("train") or data_set.examples
    if captions:
        pairs = [pair for example in examples for pair in _by_captions(example.path, example.captions)]
    else:
        pairs = [_of_class(example.path, example.class_name) for example in examples if example.class_name]
    if not pairs:
        kind, other = ("captions", "folders") if captions else ("classes", "captions")
        raise BadInput(f"{data_set.layout.title} has no {kind}.", f"Use --classes {other}.")
    return pairs


def has_classes(examples: Iterable[Example]) -> bool:
    """Return whether examples of a data set have classes."""
    return any(example.class_name for example in examples)


def has_captions(examples: Iterable[Example]) -> bool:
    """Return whether examples of a data set have captions."""
    return any(example.captions for example in examples)


def pairs_by_table(library: Library) -> list[Pair]:
    """Use the classes in the tables of a library written from a data set; [] for any other library."""
    if len(library.folders) != 1 or not (library.folder / MARK).is_file():
        return []
    folder = library.folder
    pairs = list[Pair]()
    for table in sorted(folder.rglob(TABLE)):
        below = table.parent.relative_to(folder).as_posix()
        for row in map(json.loads, table.read_text("utf-8").splitlines()):
            path = row["file_name"] if below == "." else f"{below}/{row['file_name']}"
            if label := row.get("class"):
                pairs.append(_of_class(path, label))
    return pairs


def _of_class(id: str, label: str) -> Pair:
    return Pair(id, prompt_for(label), label)


def _by_captions(id: str, captions: Sequence[str]) -> list[Pair]:
    """Return a pair for each caption of an image; together they are its class."""
    texts = [text.strip() for text in captions if text.strip()]
    label = "\n".join(texts).casefold()
    return [Pair(id, text, label) for text in dict.fromkeys(texts)]
