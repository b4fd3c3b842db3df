"""Index a library on its own, ahead of the first drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from pleinair.app.engines import check, engine, fresh_index, index_folder, library_folder
from pleinair.app.places import places
from pleinair.app.settings import Settings
from pleinair.tools.types import Encoder

SHOWN = 10  # problems told before the rest is only counted


def bring_up_to_date(settings: Settings, on_index: Callable[[int, int], None]) -> Iterator[str]:
    """Index what is new or changed, then tell what is there and what could not be used.

    Raises `BadInput` when there is no usable picture, `PleinairError` when the disk is full.
    """
    from pleinair.tools.retrieval.library import Library

    check(settings)
    home = places(settings.paths.home)
    library = Library.open(library_folder(settings, home))
    encoder = cast(Encoder, engine("encoder", settings.encoder))
    index = fresh_index(library, encoder, index_folder(settings, home), on_index)
    yield f"{len(index)} pictures of {library.folder} are indexed under {encoder.id}"
    problems = [*library.problems, *(f"{skipped.id}: {skipped.reason}" for skipped in index.skipped)]
    yield from problems[:SHOWN]
    if len(problems) > SHOWN:
        yield f"and {len(problems) - SHOWN} problems more"
