"""Indexing of a library before its first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import cast

from pleinair.app.engines import build_backend, check, fresh_index, index_fault, open_library
from pleinair.app.paths import places
from pleinair.app.settings import Settings
from pleinair.app.trace.trace import counted
from pleinair.tools.retrieval.library import Library, raw_files
from pleinair.tools.types import Encoder, Retriever

SHOWN = 10  # problems listed; the others are counted


def bring_up_to_date(
    settings: Settings, on_index: Callable[[int, int], None], *, calibrated: bool = False
) -> Iterator[str]:
    """Index new and changed images; yield lines about the index and the files that could not be used.

    With `calibrated` also suggest a threshold from the captions, without setting it. Raises `BadInput` if no
    image is usable, or no caption for a suggestion, `PleinairError` if the disk is full.
    """
    from pleinair.tools.retrieval.index import IndexRetriever

    check(settings)
    home = places(settings.paths.home)
    library = open_library(settings, home, on_index)
    encoder = cast(Encoder, build_backend("encoder", settings.encoder))
    unusable = index_fault(settings, home)
    index = fresh_index(settings, home, library, encoder, on_index)
    if unusable:
        yield f"The index was built anew. {unusable}"
    are = "is" if len(index) == 1 else "are"
    yield f"{counted(len(index), 'image')} of {library.title} {are} indexed under {encoder.id}"
    yield from describe(library)
    problems = [
        *map(str, library.problems),
        *(f"{skipped.id}: {skipped.reason}" for skipped in index.skipped),
    ]
    notes = [f"{file.id}: {note}" for file in index.noted for note in file.notes]
    problems += notes
    yield from problems[:SHOWN]
    if (count := library.problem_count + len(index.skipped) + len(notes)) > SHOWN:
        yield f"and {counted(count - SHOWN, 'problem')} more"
    if calibrated:
        yield _suggested_threshold(IndexRetriever(library, index, encoder))


def describe(library: Library) -> Iterator[str]:
    """Yield lines about where a library's captions and credits come from, and what was left out."""
    for source in library.sources:
        facts = [
            counted(source.captions, "caption"),
            f"{counted(source.credits, 'image')} with credits" if source.credits else "",
            f"{counted(source.boxes, 'image')} with boxes" if source.boxes else "",
            counted(source.problems, "problem") if source.problems else "",
        ]
        yield f"{source.reader}: {', '.join(fact for fact in facts if fact)}"
    if without := sum(not item.caption for item in library.items.values()):
        yield f"{counted(without, 'image')} without a caption"
    if paths := library.left_out:
        yield f"{counted(len(paths), 'system or hidden item')} left out: {_some(paths)}"
    if library.others:
        yield f"{counted(len(library.others), 'file')} of other kinds left out: {_some(library.others)}"
    if raw := raw_files(library):
        yield f"{counted(raw, 'file')} in raw formats of cameras cannot be read: export them as JPEG"


def _some(paths: Iterable[str]) -> str:
    """Return the last parts of paths, each once, and only so many."""
    names = sorted({PurePosixPath(path).name for path in paths})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _suggested_threshold(dense: Retriever) -> str:
    """Return a line with the best threshold for a library and its error rates."""
    from pleinair.tools.retrieval.calibrate import calibrate

    result = calibrate(dense)
    return (
        f"retrieval.threshold = {result.threshold:.3f} by {result.captions} captions: {result.recall:.0%} of "
        f"them find an image of their own on or over it, {result.false_accepts:.0%} an unrelated one"
    )
