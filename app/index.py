"""Index a library on its own, ahead of the first drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from pleinair.app.engines import check, engine, fresh_index, index_folder, library_folder
from pleinair.app.paths import places
from pleinair.app.settings import Settings
from pleinair.app.trace.trace import counted
from pleinair.tools.types import Encoder, Retriever

SHOWN = 10  # problems told before the rest is only counted


def bring_up_to_date(
    settings: Settings, on_index: Callable[[int, int], None], *, calibrated: bool = False
) -> Iterator[str]:
    """Index what is new or changed, then tell what is there and what could not be used.

    With `calibrated` also suggest a threshold from the captions; nothing is set by it. Raises `BadInput` when
    there is no usable image, or no caption for a suggestion, `PleinairError` when the disk is full.
    """
    from pleinair.tools.retrieval.index import IndexRetriever
    from pleinair.tools.retrieval.library import Library

    check(settings)
    home = places(settings.paths.home)
    library = Library.open(library_folder(settings, home))
    encoder = cast(Encoder, engine("encoder", settings.encoder))
    index = fresh_index(library, encoder, index_folder(settings, home), on_index)
    are = "is" if len(index) == 1 else "are"
    yield f"{counted(len(index), 'picture')} of {library.folder} {are} indexed under {encoder.id}"
    if library.others:
        kinds = ", ".join(sorted(set(library.others)))
        yield f"{counted(len(library.others), 'file')} of other kinds left out: {kinds}"
    problems = [*library.problems, *(f"{skipped.id}: {skipped.reason}" for skipped in index.skipped)]
    yield from problems[:SHOWN]
    if len(problems) > SHOWN:
        yield f"and {counted(len(problems) - SHOWN, 'problem')} more"
    if calibrated:
        yield _suggested_threshold(IndexRetriever(library, index, encoder))


def _suggested_threshold(dense: Retriever) -> str:
    """Return the threshold that fits a library, and how often it would be wrong, in words."""
    from pleinair.tools.retrieval.calibrate import calibrate

    result = calibrate(dense)
    return (
        f"retrieval.threshold = {result.threshold:.3f} by {result.captions} captions: {result.recall:.0%} of "
        f"them find an image of their own on or over it, {result.false_accepts:.0%} an unrelated one"
    )
