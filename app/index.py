"""Indexing of a library before its first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from pleinair.app.engines import build_backend, check, fresh_index, open_library
from pleinair.app.paths import places
from pleinair.app.settings import Settings
from pleinair.app.trace.trace import counted
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
    library = open_library(settings, home)
    encoder = cast(Encoder, build_backend("encoder", settings.encoder))
    index = fresh_index(settings, home, library, encoder, on_index)
    are = "is" if len(index) == 1 else "are"
    yield f"{counted(len(index), 'image')} of {library.folder} {are} indexed under {encoder.id}"
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
    """Return a line with the best threshold for a library and its error rates."""
    from pleinair.tools.retrieval.calibrate import calibrate

    result = calibrate(dense)
    return (
        f"retrieval.threshold = {result.threshold:.3f} by {result.captions} captions: {result.recall:.0%} of "
        f"them find an image of their own on or over it, {result.false_accepts:.0%} an unrelated one"
    )
