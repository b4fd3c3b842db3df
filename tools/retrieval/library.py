"""Folders of images as a library: the files, what readers know about them, and the problems with either.

The images are found below `roots`: folders, containers of images in them or by themselves, and URLs. They
are described by the readers of the entry point group `pleinair.reader`: from tables, rows, files beside the
images, the files themselves, and names. Not covered: compressed archives, and data sets by name.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pleinair.tools import registry
from pleinair.tools.callbacks import no_callback, stop_check
from pleinair.tools.images.decoding import FULL, MAX_SIDE, ReadOptions
from pleinair.tools.images.limits import MAX_PIXELS
from pleinair.tools.images.reading import BadPicture, file_bytes, read_bytes
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.retrieval.catalogue import VERSION, Catalogue, Items
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.readers.folder import MAX_PROBLEMS, Description, Folder, Problem, Reader
from pleinair.tools.retrieval.roots.local import LocalRoot
from pleinair.tools.retrieval.roots.opening import (
    WANTED,
    Folders,
    addresses_of,
    by_prefix,
    contents_of,
    root_of,
)
from pleinair.tools.retrieval.roots.root import Containers, Contents, Root
from pleinair.tools.retrieval.walk import RAW
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.types import BadInput, NoLibrary, PleinairError

if TYPE_CHECKING:
    from PIL.Image import Image

REFERENCE_SIDE = 1024  # pixels; generators work at about this size
_KINDS = {  # of facts, as `Source` counts them
    "caption": "captions",
    **dict.fromkeys(("license", "source", "author"), "credits"),
    "boxes": "boxes",
    "tags": "tags",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What one reader supplied to a library, in images: captions, credits, boxes, tags; and its problems."""

    reader: str
    captions: int = 0
    credits: int = 0  # images with a license, source or author by it
    boxes: int = 0
    tags: int = 0
    problems: int = 0


@dataclass(frozen=True, slots=True)
class Stamps:
    """What tells whether a library's folders have changed since they were walked, by absolute path.

    The images' own stamps are in `Item`.
    """

    folders: dict[str, int]  # mtime in nanoseconds before it was listed
    files: dict[str, tuple[int, int] | None]  # of those that a reader has read; None: it did not exist
    walked: int = 0  # when the walk began, nanoseconds since the epoch


class Library:
    """Contents of one or more folders when they were opened; images are read on demand.

    With several folders an image's id begins with its folder's name, or with as much of the folder's path as
    tells it from the others.
    """

    def __init__(
        self, addresses: Mapping[str, str], max_pixels: int = MAX_PIXELS, cache: Path | None = None
    ) -> None:
        """Store folders, containers and URLs by the beginnings of the ids of their images.

        `open` fills in the contents; `cache` is the folder for what is slow to read.
        """
        self._addresses = dict(addresses)
        self._roots: dict[str, Root] = {
            prefix: root_of(address, cache) for prefix, address in addresses.items()
        }
        self._containers = {prefix: Containers(root) for prefix, root in self._roots.items()}
        self.max_pixels = max_pixels  # of an image, as `ReadOptions.max_pixels`
        self.folders = tuple(  # those on this machine, without files that are containers
            root.path
            for root in self._roots.values()
            if isinstance(root, LocalRoot) and not root.path.is_file()
        )
        self.items: Mapping[str, Item] = MappingProxyType({})  # by id, in their order
        self.problems: tuple[Problem, ...] = ()  # at most `MAX_PROBLEMS`
        self.problem_count = 0
        self.readers: tuple[str, ...] = ()  # names, in their precedence
        self.sources: tuple[Source, ...] = ()  # of readers that found something, in their precedence
        self.part_name = ""  # of the images of a larger library that this one has; "": all
        # paths of system and hidden files and folders, sorted; at most `MAX_PROBLEMS`
        self.left_out: tuple[str, ...] = ()
        self.left_out_count = 0
        # by ending: number of the files that are no images and that nobody read
        self.others: Counter[str] = Counter()
        self.catalogue: Catalogue | None = None  # from which the items are read
        self.stamps = Stamps({}, {})  # of a library whose folders were walked

    @classmethod
    def open(
        cls,
        folders: Folders,
        *,
        readers: Sequence[str] = (),
        cache: Path | None = None,
        captions: Path | None = None,
        max_pixels: int = MAX_PIXELS,
        on_progress: Callable[[int, int], None] = no_callback,
    ) -> Library:
        """List the images below one or several folders and what is known about them.

        Args:
            folders: folders, containers and URLs, one or more; one inside another counts once.
            readers: their names, the first takes precedence; empty: all installed ones by their ranks.
            cache: folder for what is slow to read from the images themselves.
            captions: file of the captions that an MLLM has written.
            max_pixels: of an image, as `ReadOptions.max_pixels`.
            on_progress: receives containers listed, then images read, and their totals; may raise to
                stop, as may the `check` of a `StopCallback` while the folders are listed.

        Raises:
            NoLibrary: a folder does not exist or has no images, or a URL cannot be listed.
            BadInput: a reader is unknown, or a URL is not accepted.
            BrokenPlugin: a reader fails.
        """
        library = cls(by_prefix(addresses_of(folders)), max_pixels, cache)
        library.stamps = Stamps({}, {}, time.time_ns())
        contents = contents_of(library._roots, cache, stop_check(on_progress), on_progress)
        for content in contents.values():  # an empty one of several is rather a disk that is missing
            if not content.listing.images:
                raise NoLibrary(f"No images in {content.root.address}; accepted: {WANTED}.")
        by_name = _readers(readers)
        counts = {name: Counter[str]() for name in by_name}
        for prefix, content in contents.items():
            root, listing = Path(content.root.address), content.listing
            folder = Folder(root, listing.images, listing.others, cache, on_progress, captions, content)
            for problem in sorted(listing.problems, key=str):
                folder.report(problem)
            library._add(prefix, folder, _describe(folder, by_name, counts), content)
        library._require_present()
        library.items = MappingProxyType(dict(sorted(library.items.items())))
        library.readers = tuple(by_name)
        sources = (Source(name, **count) for name, count in counts.items())
        library.sources = tuple(source for source in sources if source != Source(source.reader))
        if captions:
            library.stamps.files[str(captions)] = stamp_of(captions)
        return library

    @classmethod
    def of_catalogue(
        cls, catalogue: Catalogue, cache: Path | None = None, addresses: Mapping[str, str] | None = None
    ) -> Library:
        """Return the library that a catalogue was written of, without reading its folders.

        `addresses` are those of this machine, by the same beginnings of ids, where another has written it.
        """
        facts = catalogue.facts
        library = cls(addresses or facts["folders"], facts["max_pixels"], cache)
        library.catalogue, library.items = catalogue, Items(catalogue)
        library.problems = tuple(Problem(**problem) for problem in facts["problems"])
        library.sources = tuple(Source(**source) for source in facts["sources"])
        library.readers, library.left_out = tuple(facts["readers"]), tuple(facts["left_out"])
        library.problem_count, library.left_out_count = facts["problem_count"], facts["left_out_count"]
        library.others, library.part_name = Counter(facts["others"]), facts["part_name"]
        return library

    def as_catalogue(self) -> Catalogue:
        """Return the catalogue, a temporary one of a library that is not indexed."""
        return self.catalogue or Catalogue.temporary(self.items.values(), self.facts())

    def facts(self) -> dict[str, Any]:
        """Return what a catalogue states of the library as a whole; `of_catalogue` reads it."""
        return {
            "folders": self._addresses,
            "max_pixels": self.max_pixels,
            "problems": [asdict(problem) for problem in self.problems],
            "problem_count": self.problem_count,
            "readers": self.readers,
            "sources": [asdict(source) for source in self.sources],
            "part_name": self.part_name,
            "left_out": self.left_out,
            "left_out_count": self.left_out_count,
            "others": dict(sorted(self.others.items())),
            "digest": self.digest,
        }

    @cached_property
    def digest(self) -> str:
        """Return a checksum of the images' names, sizes, times and metadata, and of the problems.

        Other tables of the catalogue are another checksum.
        """
        if self.catalogue:
            return str(self.catalogue.facts["digest"])
        facts = (VERSION, self._addresses, self.part_name, self.max_pixels)
        digest = hashlib.sha256(repr(facts).encode())
        digest.update(repr((self.problems, self.problem_count, self.sources, self.readers)).encode())
        digest.update(repr((self.left_out, self.left_out_count, sorted(self.others.items()))).encode())
        for item in self.items.values():
            digest.update(repr(item).encode())
        return digest.hexdigest()

    @property
    def addresses(self) -> Mapping[str, str]:
        """Return folders, containers and URLs by the beginnings of the ids of their images."""
        return self._addresses

    @property
    def folder(self) -> Path:
        """Return the first folder on this machine."""
        return self.folders[0]

    @property
    def title(self) -> str:
        """Return the folders for a message."""
        return " and ".join(self._addresses.values())

    def part(self, ids: Iterable[str], name: str) -> Library:
        """Return the library of some of the images, under a name for its index; unknown ids are ignored."""
        library, chosen = copy(self), frozenset(ids)
        items = {id: item for id, item in self.items.items() if id in chosen}
        library.items, library.part_name, library.catalogue = MappingProxyType(items), name, None
        library.__dict__.pop("digest", None)
        return library

    def picture(self, id: str, side: int = REFERENCE_SIDE) -> Image:
        """Read an image as RGB; raise `BadInput` for an unknown id, `BadPicture` for a damaged file.

        A large image is reduced as far as its shorter side stays `side` pixels or more, and that of its
        smallest box too. 0: not reduced.
        """
        item = self.item(id)
        smallest = min((min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in item.boxes.values()), default=1)
        options = ReadOptions(min(round(side / smallest), MAX_SIDE), self.max_pixels)
        try:
            return read_untrusted(self.read(item, options), options)
        except BadPicture as error:
            raise BadPicture(f"`{id}`: {error}") from error

    def item(self, id: str) -> Item:
        """Return an image with its metadata; raise `BadInput` for an id that is not in the library."""
        try:
            return self.items[id]
        except KeyError:
            raise BadInput(f"No image `{id}` in the library {self.title}.") from None

    def read(self, item: Item, options: ReadOptions = FULL) -> bytes:
        """Return an image's file, wherever it is; raise `BadPicture` as `read_bytes` does."""
        prefix, path = self._place_of(item.id)
        if self.is_local(item):
            return read_bytes(Path(self.location(item.id)), options)
        limit = options.max_bytes + 1
        try:
            if item.place:
                data = self._containers[prefix].read(path, item.place, limit)
            else:
                data = self._roots[prefix].read(path, limit)
        except OSError:
            raise BadPicture("the file cannot be opened") from None
        return file_bytes(data, options) if len(data) == limit else data

    def location(self, id: str) -> str:
        """Return the path or URL of an image; inside a container it goes on with the name there."""
        prefix, path = self._place_of(id)
        return f"{self._addresses[prefix]}/{path}"

    def path(self, id: str) -> Path:
        """Return an image's file; raise `BadInput` for an unknown id, and if there is no such file."""
        if not self.is_local(self.item(id)):
            raise BadInput(f"`{id}` of {self.title} is no file of its own on this machine.")
        return Path(self.location(id))

    def is_current(self, item: Item) -> bool:
        """Return whether an image's file, or its container, still has the size and the time that it had."""
        prefix, path = self._place_of(item.id)
        if not item.place:
            return self._roots[prefix].stamp(path) == item.stamp
        stamp = self._containers[prefix].stamp(path, item.place)
        return stamp is not None and stamp[1] == item.mtime_ns

    def is_local(self, item: Item) -> bool:
        """Return whether an image is a file of its own on this machine."""
        return not item.place and isinstance(self._roots[self._place_of(item.id)[0]], LocalRoot)

    def _require_present(self) -> None:
        """Raise `NoLibrary` if a folder is gone since it was listed: an index would drop its images."""
        for root in self._roots.values():
            if isinstance(root, LocalRoot) and not root.path.exists():
                raise NoLibrary(f"{root.address} is gone since its files were listed.")
        if not self.items:
            raise NoLibrary(f"The images in {self.title} are gone since they were listed.")

    def _place_of(self, id: str) -> tuple[str, str]:
        """Return the prefix of an image's root and its path there."""
        prefix = next(prefix for prefix in self._roots if id.startswith(prefix))
        return prefix, id.removeprefix(prefix)

    def _add(
        self, prefix: str, folder: Folder, facts: Mapping[str, dict[str, Any]], content: Contents
    ) -> None:
        """Add the contents of a folder under the ids that they have in the library."""
        listing = content.listing
        stamps = {image: content.stamp(image) for image in folder.images}
        new = [
            Item(f"{prefix}{image}", *stamp, **facts[image], place=content.place(image))
            for image, stamp in stamps.items()
            if stamp
        ]
        self.items = {**self.items, **{item.id: item for item in new}}
        problems = (replace(problem, file=f"{prefix}{problem.file}") for problem in folder.problems)
        self.problems = (*self.problems, *problems)[:MAX_PROBLEMS]
        self.problem_count += folder.problem_count
        left_out = sorted((*self.left_out, *(f"{prefix}{path}" for path in listing.left_out)))
        self.left_out, self.left_out_count = (
            tuple(left_out[:MAX_PROBLEMS]),
            self.left_out_count + len(listing.left_out),
        )
        unread = [PurePosixPath(file) for file in folder.files if file not in folder.used]
        self.others.update(path.suffix.lower() or path.name for path in unread)
        self.stamps.folders.update(listing.folders)
        if isinstance(content.root, LocalRoot):
            used = [file for file in folder.files if file in folder.used and not content.place(file)]
            paths = [f"{folder.root}/{file}".rstrip("/") for file in (*used, *content.stamps)]
            self.stamps.files.update({path: stamp_of(path) for path in paths})


def raw_files(library: Library) -> int:
    """Return the number of files of cameras' raw formats, which are not read."""
    return sum(count for ending, count in library.others.items() if ending in RAW)


def _readers(names: Sequence[str]) -> dict[str, Reader]:
    readers = {name: registry.resolve("reader", name)() for name in names or registry.names("reader")}
    return readers if names else dict(sorted(readers.items(), key=lambda pair: (pair[1].rank, pair[0])))


def _describe(
    folder: Folder, readers: Mapping[str, Reader], counts: Mapping[str, Counter[str]]
) -> dict[str, dict[str, Any]]:
    """Return what the readers say about each image of a folder; count what each of them supplies."""
    facts: dict[str, dict[str, Any]] = {image: {} for image in folder.images}
    for name, reader in readers.items():
        before = folder.problem_count
        for description in _descriptions(name, reader, folder):
            counts[name].update(_supply(facts[description.image], description, name))
        counts[name]["problems"] += folder.problem_count - before
    return facts


def _descriptions(name: str, reader: Reader, folder: Folder) -> list[Description]:
    """Return what a reader found; raise `BrokenPlugin` if it fails or describes other files."""
    try:
        descriptions = list(reader.read(folder))
        images = set(folder.images)
        for description in descriptions:
            if description.image not in images:
                raise ValueError(f"no image {description.image!r} in {folder.root}")
    except PleinairError:
        raise
    except Exception as error:  # third-party code may raise anything
        raise registry.BrokenPlugin(f"The reader `{name}` failed: {type(error).__name__}: {error}") from error
    return descriptions


def _supply(facts: dict[str, Any], description: Description, reader: str) -> set[str]:
    """Add to an image's facts those that it lacks; return what they are, in the words of `Source`."""
    values = {name: getattr(description, name) for name in _KINDS}
    missing = {name: value for name, value in values.items() if value and name not in facts}
    facts.update(missing)
    if "caption" in missing:
        facts.update(captioned_by=reader, caption_model=description.caption_model)
    return {_KINDS[name] for name in missing}
