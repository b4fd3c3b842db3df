"""The configured library of a process: opened once, searched as a run searches it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pleinair.app.engines import open_corpus
from pleinair.app.libraries import (
    OnProgress,
    index_folder,
    look_for_publication,
    open_library,
    stored_library,
)
from pleinair.app.library.image_list import ImageList
from pleinair.app.paths import Paths
from pleinair.app.settings import Settings
from pleinair.tools.callbacks import no_callback
from pleinair.tools.locks import Once
from pleinair.tools.retrieval.compose import LEXICAL, compose, threshold_of
from pleinair.tools.retrieve import retrieve
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.types import BadInput, Concept, Hit, Retrieval, Retriever, Value, is_match

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.library import Library

By = Literal["words", "image", "like"]
MAX_QUERY = 2000  # characters
MOST_OPEN = 4  # libraries that a server remembers
REMEDY = "Index it under Library → Index, or with `pleinair index`."


class NotIndexed(BadInput):
    """There is no index, and a page does not build it by itself."""


class SearchHit(Value):
    """Library image of a search."""

    hit: Hit
    accepted: bool | None  # whether a run would use it; None: there is no threshold for it
    file: str  # path on this machine


class SearchResult(Value):
    """Hits of a search, best first.

    A search by words retrieves as the loop does, and `abstained` means the same. Hits of images are compared
    with no threshold, since it is one of cosines between words and images.
    """

    by: By
    query: str  # words, or the id of a library image; "" for any other image
    threshold: float | None  # cosine
    abstained: bool
    reason: str
    hits: tuple[SearchHit, ...]
    excluded_by_license: tuple[str, ...] = ()  # ids of images that match, where none with a license does
    searched: int  # images that meet the conditions on retrieval
    images: int  # of the library
    near_copies: dict[str, str]  # by id of an image that was left out: the better hit of which it is a copy


class OpenLibrary:
    """Library of settings, opened when first used; all methods may be called from any thread.

    Args:
        settings: with the library, the encoder and the retrieval.
        places: of the home.
        builds_index: whether the index is brought up to date first; if not, the library is as it was when it
            was indexed, and a search raises `NotIndexed` where it never was.
        on_progress: receives images read or indexed, and their number.
    """

    def __init__(
        self,
        settings: Settings,
        places: Paths,
        *,
        builds_index: bool = True,
        on_progress: OnProgress = no_callback,
    ) -> None:
        self.settings, self._places, self._builds_index = settings, places, builds_index
        opened = open_library if builds_index else stored_library
        self._library = Once(lambda: opened(settings, places, on_progress))
        self._list = Once(lambda: ImageList(self.library))
        self._corpus = open_corpus(settings, places, on_progress, lambda: self.library)
        self._retriever = Once[Retriever](lambda: compose(self._corpus.options, self._corpus))

    @property
    def library(self) -> Library:
        """Return the library; raise `BadInput` where none is set, or it has no images."""
        return self._library()

    @property
    def images(self) -> ImageList:
        """Return the list of the images; raise as `library` does."""
        return self._list()

    @property
    def index(self) -> Path:
        """Return the folder of the index."""
        return index_folder(self.settings, self._places)

    @property
    def is_indexed(self) -> bool:
        """Return whether the library was opened from its index; raise as `library` does."""
        return self.library.catalogue is not None

    def search(self, words: str, k: int) -> SearchResult:
        """Search by words, as the loop searches for a concept; raise `BadInput` for unusable ones."""
        if len(words) > MAX_QUERY:
            raise BadInput(f"words: {len(words)} characters; accepted: {MAX_QUERY}")
        if not words.strip():
            raise BadInput("words: nothing to search for", "Describe what the image should show.")
        self._require_index()
        threshold = threshold_of(self.settings.retrieval)
        concept = Concept(name=words.strip(), caption=words.strip())
        retrieval = retrieve(concept, retriever=self._retriever(), k=k, threshold=threshold, with_name=True)
        return self._result("words", concept.name, retrieval)

    def search_image(self, image: Image, k: int) -> SearchResult:
        """Search for images like one from elsewhere."""
        return self._images("image", "", lambda: self._dense().search_image(image, k))

    def search_like(self, id: str, k: int) -> SearchResult:
        """Search for images like one of the library; raise `NotFound` for an unknown id."""
        self.images.get(id)

        def search() -> Sequence[Hit]:
            try:
                return self._dense().search_like(id, k)
            except KeyError:
                raise BadInput(f"{id!r} is not indexed: it could not be read", REMEDY) from None

        return self._images("like", id, search)

    def _dense(self) -> IndexRetriever:
        return cast("IndexRetriever", self._corpus.dense)

    def _images(self, by: By, query: str, search: Callable[[], Sequence[Hit]]) -> SearchResult:
        self._require_index(by_words=False)
        retrieval = Retrieval(concept=query, query=query, hits=tuple(search()))
        if not retrieval.hits and (empty := self._corpus.empty):  # the search has indexed the library
            raise empty
        return self._result(by, query, retrieval)

    def _result(self, by: By, query: str, retrieval: Retrieval) -> SearchResult:
        threshold = None if retrieval.threshold is None or retrieval.threshold <= -1 else retrieval.threshold
        hits = tuple(
            SearchHit(
                hit=hit,
                accepted=None if threshold is None else is_match(hit, threshold),
                file=self.library.location(hit.id),
            )
            for hit in retrieval.hits
        )
        return SearchResult(
            by=by,
            query=query,
            threshold=threshold,
            abstained=retrieval.abstained,
            reason=retrieval.reason,
            hits=hits,
            excluded_by_license=retrieval.excluded_by_license,
            searched=self._corpus.searched,
            images=self._corpus.images,
            near_copies=retrieval.near_copies,
        )

    def _require_index(self, *, by_words: bool = True) -> None:
        """Raise `NotIndexed` where a search would have to index first, `EmptySelection` without images."""
        is_lexical = by_words and self.settings.retrieval.method == LEXICAL
        if not (self._builds_index or is_lexical or self.is_indexed):
            raise NotIndexed(f"The library {self.library.title} is not indexed yet.", REMEDY)
        if empty := self._corpus.empty:
            raise empty


class Libraries:
    """Libraries that a server shows, those used last; opened again when their index has changed."""

    def __init__(self, places: Paths) -> None:
        self._places, self._lock = places, threading.Lock()
        self._opened: dict[str, tuple[OpenLibrary, tuple[int, int] | None]] = {}  # with the index's stamp

    def of(self, settings: Settings) -> OpenLibrary:
        """Return the library of settings; the same one as long as nothing has changed."""
        look_for_publication(settings, self._places)
        stamp = stamp_of(index_folder(settings, self._places) / "manifest.json")
        parts = (settings.library.absolute(), settings.encoder, settings.retrieval, settings.worker)
        key = "\n".join(part.model_dump_json() for part in parts)
        with self._lock:
            library, opened_at = self._opened.pop(key, (None, None))
            if library is None or opened_at != stamp:
                library = OpenLibrary(settings, self._places, builds_index=False)
            self._opened[key] = library, stamp
            for oldest in list(self._opened)[:-MOST_OPEN]:
                del self._opened[oldest]
            return library

    def forget(self) -> None:
        """Read the folders again of a library that is not indexed when it is next used."""
        with self._lock:
            self._opened.clear()
