"""Write examples of a data set as a library's folder: links to their images, captions and credits.

The images are hard links, which take no space; on another disk than the data set's they are copies. Images
with a banner (FGVC-Aircraft's) are written without it. A repeated call brings the folder up to date and
changes nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pleinair.tools.callbacks import no_callback
from pleinair.tools.data_sets.data_set import MARK, DataSet, Example
from pleinair.tools.images.decoding import ReadOptions
from pleinair.tools.images.limits import MAX_PIXELS
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.storage.files import RESERVE, write_whole
from pleinair.tools.types import BadInput

TABLE = "metadata.jsonl"  # in every folder of images: one of all of ImageNet would be over a table's limit
_PAUSE = 1000  # images between two calls of `on_progress`


def write_library(
    data_set: DataSet,
    examples: Iterable[Example],
    folder: Path,
    on_progress: Callable[[int, int], None] = no_callback,
) -> Path:
    """Write a folder that `Library.open` reads, with an image for each example, and return it.

    The captions are the example's, or the name of its class where it has none. License and source are the
    image's own where its data set states them, else the data set's.

    Args:
        data_set: whose images are linked.
        examples: some of its examples; images of other ones that an earlier call wrote are removed.
        folder: a new or empty folder, or one that this function wrote.
        on_progress: receives images linked and in total; may raise to stop, and the next call goes on.

    Raises:
        BadInput: there is no example, the folder has other files, or its disk no space for copies.
        PleinairError: a file cannot be written.
    """
    by_path = {example.path: example for example in examples}
    if not by_path:
        raise BadInput(f"{data_set.layout.title}: no example for {folder}.", "Choose another split.")
    root = Path(os.path.realpath(folder.expanduser()))
    _check(data_set, root)
    write_whole(root / MARK, json.dumps({"data_set": data_set.layout.name}).encode(), durable=False)
    _link_all(data_set, by_path, root, on_progress)
    tables = _tables(data_set, by_path.values())
    for path, table in tables.items():
        if not _has(root / path, table):
            write_whole(root / path, table, durable=False)
    _remove_others(root, {MARK, *by_path, *tables})
    return root


def _check(data_set: DataSet, root: Path) -> None:
    """Raise `BadInput` for a folder that may hold somebody's files, or that holds the data set."""
    source = Path(os.path.realpath(data_set.folder))
    if root == source or root in source.parents or source in root.parents:
        raise BadInput(
            f"{root} holds the data set in {source}, or lies in it.",
            "Name a folder beside it for the library.",
        )
    if root.exists() and not root.is_dir():
        raise BadInput(f"{root} is no folder.", "Name a new or empty folder for the library.")
    if root.is_dir() and any(root.iterdir()) and not (root / MARK).is_file():
        raise BadInput(
            f"{root} has files of its own; a library of a data set replaces what is in its folder.",
            "Name a new or empty folder.",
        )


def _link_all(
    data_set: DataSet, by_path: Mapping[str, Example], root: Path, on_progress: Callable[[int, int], None]
) -> None:
    folders, copies, banner = set[str](), False, data_set.layout.banner
    for done, path in enumerate(sorted(by_path), start=1):
        source, target = os.path.realpath(data_set.folder / path), f"{root}/{path}"
        if (parent := os.path.dirname(target)) not in folders:
            folders.add(parent)
            os.makedirs(parent, exist_ok=True)
        if not _is_current(source, target, banner):
            _remove(target)
            if banner:
                _cut(source, target, banner)
            elif copies or not _link(source, target):
                if not copies:
                    _announce_copies(data_set, by_path, root)
                copies = True
                _copy(source, target)
        if done % _PAUSE == 0 or done == len(by_path):
            on_progress(done, len(by_path))


def _is_current(source: str, target: str, banner: int = 0) -> bool:
    """Return whether a file is the link, a copy or a cut of another; raise `BadInput` if that one is gone."""
    try:
        original = os.stat(source)
    except OSError:
        raise BadInput(f"{source} is gone since its data set was read.", "Read the data set again.") from None
    try:
        current = os.stat(target)
    except OSError:
        return False
    is_same_size = bool(banner) or original.st_size == current.st_size
    return os.path.samestat(original, current) or (
        is_same_size and original.st_mtime_ns == current.st_mtime_ns
    )


def _link(source: str, target: str) -> bool:
    """Return whether a hard link could be made; not to another disk, nor on some file systems."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _announce_copies(data_set: DataSet, by_path: Mapping[str, Example], root: Path) -> None:
    """Warn that images are copied; raise `BadInput` where they do not fit on the disk."""
    pairs = ((os.path.realpath(data_set.folder / path), f"{root}/{path}") for path in by_path)
    size = sum(os.path.getsize(source) for source, target in pairs if not _is_current(source, target))
    remedy = f"A folder on the same disk as {data_set.folder} takes no space."
    if size + RESERVE > shutil.disk_usage(root).free:
        raise BadInput(f"{root} needs {size:,} bytes: no hard links are possible there.", remedy)
    logging.getLogger(__name__).warning(
        "%s: no hard links are possible there; %s bytes of images are copied. %s", root, f"{size:,}", remedy
    )


def _copy(source: str, target: str) -> None:
    part = f"{target}.part"
    shutil.copy2(source, part)
    os.replace(part, target)


def _cut(source: str, target: str, banner: int) -> None:
    """Write an image, with the time of its file, without the rows at its bottom that are no part of it."""
    image = read_untrusted(Path(source), ReadOptions(0, MAX_PIXELS))
    part = f"{target}.part"
    image.crop((0, 0, image.width, max(1, image.height - banner))).save(part, "JPEG", quality=95)
    times = os.stat(source)
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(part, target)


def _tables(data_set: DataSet, examples: Iterable[Example]) -> dict[str, bytes]:
    """Return the table of each folder of images by its path, a line an image, sorted."""
    lines: dict[str, list[str]] = defaultdict(list)
    for example in sorted(examples, key=lambda example: example.path):
        below, _, name = example.path.rpartition("/")
        lines[f"{below}/{TABLE}" if below else TABLE].append(_line(data_set, example, name))
    return {path: "".join(of_folder).encode() for path, of_folder in lines.items()}


def _line(data_set: DataSet, example: Example, name: str) -> str:
    facts, layout = example.facts, data_set.layout
    fields = {
        "file_name": name,
        "captions": [*example.captions] or [*filter(None, [example.class_name])],
        "class": example.class_name,
        "license": facts.get("license") or layout.license,
        "source": facts.get("source") or ", ".join(filter(None, (layout.title, layout.source))),
        "author": facts.get("author") or facts.get("artist"),
    }
    return f"{json.dumps({key: value for key, value in fields.items() if value}, ensure_ascii=False)}\n"


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _remove_others(root: Path, wanted: set[str]) -> None:
    """Remove the files that are not wanted, and the folders that are empty then."""
    for below, _, files in os.walk(root, topdown=False):
        for name in files:
            if os.path.relpath(f"{below}/{name}", root) not in wanted:
                _remove(f"{below}/{name}")
        if not os.listdir(below):
            os.rmdir(below)


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
