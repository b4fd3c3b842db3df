"""The library of the settings and its index: where they are, opened, compared and brought up to date."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.paths import Paths
from pleinair.app.pocket import world_of
from pleinair.app.settings import POCKET, Settings
from pleinair.tools.callbacks import no_callback
from pleinair.tools.deadline import check_deadline
from pleinair.tools.pocket.worlds import cached_library
from pleinair.tools.storage.postgres import repeated
from pleinair.tools.types import BadInput, Encoder, PleinairError

if TYPE_CHECKING:
    from pleinair.tools.retrieval.build import Embed
    from pleinair.tools.retrieval.catalogue import Catalogue
    from pleinair.tools.retrieval.changes import IndexAge, LibraryChanges
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.shards import Embedded

OnProgress = Callable[[int, int], None]  # images done, images in total
_POLL_SECONDS = 0.2  # between two checks of an index that another run builds


def fresh_index(
    settings: Settings,
    places: Paths,
    library: Library,
    encoder: Encoder,
    on_index: OnProgress,
    joined: Embedded | None = None,
    embed: Embed | None = None,
) -> Index:
    """Open this machine's index, after updating it where it is missing, damaged or older than the library.

    Vectors that `joined` has are not computed again, nor those of a published index where there is none here;
    the others are by `embed`, as of `build_index`. If another run is building it, this waits; `on_index` is
    then called with 0 and may raise to stop.
    """
    from pleinair.tools.retrieval.build import BeingBuilt, build_index
    from pleinair.tools.retrieval.changes import save_stamps
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.spelling import save_vocabulary, vocabulary_of

    folder = build_folder(settings, places)
    if library.part_name:
        folder = folder.with_name(f"{folder.name}-{library.part_name}")
    while True:
        with suppress(BadInput):
            index = Index.open(folder, encoder)
            if is_replaced(library, index) or (index.describes(library) and not index.is_stale(library)):
                break
        if joined is None and places.vectors and not (folder / "manifest.json").is_file():
            joined = _published_vectors(settings, places, encoder, on_index)
        with suppress(BeingBuilt):
            index = build_index(
                library, encoder, folder, on_index, others=folder.parent, joined=joined, embed=embed
            )
            save_vocabulary(folder, vocabulary_of(item.caption for item in library.items.values()))
            break
        on_index(0, len(library.items))
        time.sleep(_POLL_SECONDS)
    if library.catalogue is None:
        save_stamps(folder, index.manifest.catalogue, library.stamps)
    return index


def is_replaced(library: Library, index: Index) -> bool:
    """Return whether an index is a newer one than that from whose catalogue a library was opened."""
    catalogue = library.catalogue
    return bool(
        catalogue and catalogue.path.parent == index.folder and catalogue.path != index.catalogue.path
    )


def index_fault(folder: Path) -> str:
    """Return why the index in a folder cannot be read, "" if it can or if there is none."""
    from pleinair.tools.retrieval.manifest import load_manifest

    if not (folder / "manifest.json").is_file():
        return ""
    try:
        load_manifest(folder)
    except BadInput as error:
        return str(error.args[0])
    return ""


def open_library(settings: Settings, places: Paths, on_progress: OnProgress = no_callback) -> Library:
    """Open the library of the settings: from its catalogue, or where it has changed by `read_library`.

    One that machines share is as it was published. Raise `BadInput` if none is set, it has no images, or it
    is not published; `DatabaseAway` if that cannot be found out.
    """
    if places.vectors:
        repeated(lambda: fetch_published(settings, places), check=check_deadline)
        return stored_library(settings, places)
    return _current_library(settings, places) or read_library(settings, places, on_progress)


def fetch_published(settings: Settings, places: Paths) -> None:
    """Update this machine's copy of a library that machines share; raise as `fetch`."""
    from pleinair.tools.retrieval.publication import fetch

    folder = index_folder(settings, places)
    fetch(places.vectors, folder.name, folder)


def look_for_publication(settings: Settings, places: Paths) -> None:
    """Update the copy, if the library is shared and there is something newer that can be read."""
    if places.vectors:
        with suppress(PleinairError):
            fetch_published(settings, places)


def open_index(
    settings: Settings, places: Paths, library: Library, encoder: Encoder, on_index: OnProgress
) -> Index:
    """Open the index that is searched: of a shared library the published one, else as `fresh_index`."""
    from pleinair.tools.retrieval.publication import open_published

    if places.vectors:
        repeated(lambda: fetch_published(settings, places), check=check_deadline)
        return open_published(index_folder(settings, places), encoder, places.vectors)
    return fresh_index(settings, places, library, encoder, on_index)


def _published_vectors(
    settings: Settings, places: Paths, encoder: Encoder, on_index: OnProgress
) -> Embedded | None:
    """Return the vectors that another machine has published, None without a publication that can be used."""
    from pleinair.tools.retrieval.publication import embedded_of, open_published

    with suppress(BadInput):
        fetch_published(settings, places)
        index = open_published(index_folder(settings, places), encoder, places.vectors)
        return embedded_of(index, places.vectors, on_index)
    return None


def _current_library(settings: Settings, places: Paths) -> Library | None:
    from pleinair.tools.retrieval.changes import current_library

    return current_library(
        index_folder(settings, places),
        library_folders(settings, places),
        readers=settings.library.readers,
        cache=places.cache / "libraries",
        captions=places.captions,
        max_pixels=settings.library.max_pixels,
    )


def has_changed(settings: Settings, places: Paths) -> bool:
    """Return whether a library was indexed and has changed since, as far as a run notices."""
    if not index_exists(settings, places):
        return False
    if not places.vectors and _current_library(settings, places):
        return False
    return bool(library_changes(settings, places))


def library_changes(
    settings: Settings, places: Paths, on_pause: Callable[[], None] = no_callback
) -> LibraryChanges:
    """Compare the library of the settings with its index, as `find_changes` does; raise as that does.

    Not covered: a shared library that has other addresses on the machine that published it.
    """
    from pleinair.tools.retrieval.changes import LibraryChanges, find_changes, stored_catalogue

    folders, folder = library_folders(settings, places), index_folder(settings, places)
    if places.vectors and (catalogue := stored_catalogue(folder)):
        if catalogue.facts["folders"] != _addresses(settings, places):
            return LibraryChanges()
    return find_changes(folder, folders, captions=places.captions, on_pause=on_pause)


def index_age(settings: Settings, places: Paths) -> IndexAge | None:
    """Return how old the index is that is searched, None without one; a shared one is not compared."""
    from pleinair.tools.retrieval.changes import age_of

    age = age_of(index_folder(settings, places))
    return age.model_copy(update={"compared": False}) if age and places.vectors else age


def stored_library(settings: Settings, places: Paths, on_progress: OnProgress = no_callback) -> Library:
    """Open the library as it was when it was indexed, in constant time; one that never was by `read_library`.

    Raise as `open_library`.
    """
    from pleinair.tools.retrieval.changes import stored_catalogue

    library_folders(settings, places)
    catalogue = stored_catalogue(index_folder(settings, places))
    if catalogue is None:
        return read_library(settings, places, on_progress)
    return library_of(catalogue, settings, places)


def library_of(catalogue: Catalogue, settings: Settings, places: Paths) -> Library:
    """Return the library of a catalogue; that of a shared one has the addresses of this machine."""
    from pleinair.tools.retrieval.library import Library

    addresses = _addresses(settings, places) if places.vectors else None
    if addresses and addresses.keys() != catalogue.facts["folders"].keys():
        published, here = " and ".join(catalogue.facts["folders"].values()), " and ".join(addresses.values())
        raise BadInput(f"library.folder: {here} on this machine, and {published} where it was published")
    return Library.of_catalogue(catalogue, places.cache / "libraries", addresses)


def _addresses(settings: Settings, places: Paths) -> dict[str, str]:
    """Return the addresses of the library on this machine, by the beginnings of ids."""
    from pleinair.tools.retrieval.roots.opening import addresses_of, by_prefix

    return by_prefix(addresses_of(library_folders(settings, places)))


def read_library(settings: Settings, places: Paths, on_progress: OnProgress = no_callback) -> Library:
    """Walk through the folders of the library and read its metadata; raise as `open_library`."""
    from pleinair.tools.retrieval.library import Library

    return Library.open(
        library_folders(settings, places),
        readers=settings.library.readers,
        cache=places.cache / "libraries",
        captions=places.captions,
        max_pixels=settings.library.max_pixels,
        on_progress=on_progress,
    )


def library_folders(settings: Settings, places: Paths) -> tuple[str, ...]:
    """Return the library's folders and URLs; the pocket library is written to the cache on first use.

    Raise `BadInput` where no library is set.
    """
    if settings.library.folder == POCKET:
        return (str(cached_library(world_of(settings), places.cache)),)
    require_library(settings)
    return settings.library.absolute().folders


def require_library(settings: Settings) -> None:
    """Raise `BadInput` if no library is set: references of another world would be worse than none."""
    if settings.library.folder is None:
        raise BadInput(
            f"library.folder: not set; the profile {settings.profile!r} needs a folder of your own images",
            "Pass --library FOLDER, or set it in pleinair.toml; `--graph direct` needs none.",
        )


def index_exists(settings: Settings, places: Paths) -> bool:
    """Return whether there is an index of the library under the encoder, current or not."""
    return (index_folder(settings, places) / "manifest.json").is_file()


def index_folder(settings: Settings, places: Paths) -> Path:
    """Return the folder of the index that is searched: a copy of what is published, or `build_folder`.

    Its name is that of library and encoder.
    """
    built = build_folder(settings, places)
    return places.cache / "published" / built.name if places.vectors else built


def build_folder(settings: Settings, places: Paths) -> Path:
    """Return the folder of the index that this machine builds of a library under an encoder, in the cache."""
    choice = settings.encoder.model_dump_json()
    library = settings.library.absolute()
    folder = "\n".join(sorted(library.folders)) or library.folder
    name = hashlib.sha256(f"{folder}\n{choice}".encode()).hexdigest()[:16]
    return places.cache / "indexes" / name
