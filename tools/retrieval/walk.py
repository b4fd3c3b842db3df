"""Files of a library's folders: which may be images, which are other files, and which are left out.

A file is taken for an image by its ending or, with an ending that is not usual or without one, by its first
bytes. Left out are hidden files and folders, those that systems and programs keep for themselves (trash,
thumbnails, caches), and links out of the library. A folder or file that is in the library twice, by a link,
counts once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache
from pathlib import Path

from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.decoding import SUFFIXES
from pleinair.tools.images.signatures import HEAD, is_image
from pleinair.tools.retrieval.readers.folder import Problem, is_printable
from pleinair.tools.storage.files import stamp_of

_SYSTEM = (  # names of folders and files, in lower case
    *("#recycle", "$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
    *("lost+found", "#snapshot", "@*", "thumbs", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "*.lrdata", "*.cocatalogdb", "__pycache__", "node_modules"),
    *(".trash*", ".thumbnails", ".picasaoriginals", ".picasa.ini", ".dtrash", ".stversions"),
)
_IS_SYSTEM = re.compile("|".join(map(translate, _SYSTEM)))
RAW = frozenset(  # of cameras; they begin like TIFF but need a developer's program
    ".3fr .arw .cr2 .cr3 .crw .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf "
    ".raw .rw2 .rwl .sr2 .srf .srw .x3f".split()
)
_USUAL = frozenset((*SUFFIXES, ".pjpeg"))
_OTHER = frozenset(  # not opened to see whether they are images
    ".txt .caption .json .jsonl .csv .tsv .parquet .xmp .md .rst .html .htm .xml .yaml .yml .toml .ini "
    ".cfg .log .pdf .doc .docx .xls .xlsx .ods .odt .ppt .pptx .rtf .zip .tar .gz .tgz .bz2 .xz .zst "
    ".7z .rar .iso .mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .3gp .mts .mp3 .wav .flac .m4a .ogg .aac "
    ".opus .py .js .ts .css .sh .bat .exe .dll .so .db .sqlite .lrcat .pth .pt .ckpt .safetensors .bin "
    ".arrow .npy .npz .pkl .pickle .cls .h5 .onnx .gguf .ttf .otf .svg .psd .psb .ai .eps .xcf .kra .blend "
    ".aae .lnk .url .tmp .part .crdownload .download".split()
)

PAUSE = 1000  # entries of folders


@dataclass
class Listing:
    """Files below one folder, as relative paths in no order."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # system and hidden ones, a folder once
    problems: list[Problem] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)  # absolute path: mtime in ns before it was listed


def list_folders(roots: Sequence[Path], on_pause: Callable[[], None] = no_callback) -> list[Listing]:
    """List the files below each folder, all absolute and without links in their paths.

    `on_pause` is called after every `PAUSE` files or folders; it may raise to stop.
    """
    walk = Walk(roots, on_pause)
    for root, path in walk.files():
        images = walk.may_be_image(root, path)
        (walk.listings[root].images if images else walk.listings[root].others).append(path)
    return [walk.listings[root] for root in roots]


def has_image(roots: Sequence[Path]) -> bool:
    """Return whether any file below the folders may be an image; the walk ends at the first."""
    walk = Walk(roots)
    return any(walk.may_be_image(root, path) for root, path in walk.files())


def may_be_image(name: str, head: Callable[[], bytes]) -> bool:
    """Return whether a file is an image by its ending, or by its first bytes, which `head` reads."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _USUAL or suffix in _OTHER or suffix in RAW:
        return suffix in _USUAL
    try:
        return is_image(head())
    except OSError:
        return False


def is_left_out(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or of a system."""
    return name.startswith(".") or _is_system(name)


class Walk:
    """Walk through several folders, links last, so that a file counts under its own name."""

    def __init__(self, roots: Sequence[Path], on_pause: Callable[[], None] = no_callback) -> None:
        self._on_pause, self._seen = on_pause, 0
        self.listings = {root: Listing() for root in roots}
        self._links: list[tuple[Path, str]] = []  # root, path
        self._visited: set[str] = set()  # real paths of folders
        self._files: set[str] = set()  # real paths

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield the folder and the relative path of each usable file."""
        for root in self.listings:
            yield from self._below(root, "")
        while self._links:
            links, self._links = sorted(self._links), []
            for root, path in links:
                yield from self._follow(root, path)

    def may_be_image(self, root: Path, path: str) -> bool:
        """Return whether a file is an image by its ending or by its first bytes."""
        return may_be_image(path, lambda: _head(root / path))

    def _below(self, root: Path, start: str) -> Iterator[tuple[Path, str]]:
        """Walk through a folder without its links; not recursive, as paths may be very deep."""
        waiting = [start]
        while waiting:
            below = waiting.pop()
            self._visited.add(os.path.realpath(root / below))
            for entry in self._entries(root, below):
                self._seen += 1
                if self._seen % PAUSE == 0:
                    self._on_pause()
                path = f"{below}{entry.name}"
                if is_left_out(entry.name) or (root / path) == _hub_blobs(root):
                    self.listings[root].left_out.append(path)
                elif entry.is_symlink():
                    self._links.append((root, path))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                elif entry.is_file() and self._is_printable(root, path):  # and no pipe
                    full = os.path.join(root, path)
                    self._files.add(os.path.realpath(full) if start else full)
                    yield root, path

    def _entries(self, root: Path, below: str) -> list[os.DirEntry[str]]:
        stamp = stamp_of(root / below)
        self.listings[root].folders[os.path.join(root, below)] = stamp[1] if stamp else 0
        try:
            with os.scandir(root / below) as entries:
                return list(entries)
        except OSError:
            self.listings[root].problems.append(Problem(f"Folder {below or '.'}", "cannot be read"))
            return []

    def _follow(self, root: Path, path: str) -> Iterator[tuple[Path, str]]:
        """Walk through what a link leads to, unless it is outside, left out or in the library already."""
        real = os.path.realpath(root / path)
        places = (*self.listings, *filter(None, map(_hub_blobs, self.listings)))
        inside = next((place for place in places if Path(real).is_relative_to(place)), None)
        if not os.path.exists(real):
            self.listings[root].problems.append(Problem(path, "a link to what does not exist; left out"))
        elif inside is None:
            self.listings[root].problems.append(Problem(path, "a link out of the library; left out"))
        if inside is None or any(map(_is_system, Path(real).relative_to(inside).parts)):
            return
        if os.path.isdir(real) and real not in self._visited:
            yield from self._below(root, f"{path}/")
        elif os.path.isfile(real) and real not in self._files and self._is_printable(root, path):
            self._files.add(real)
            yield root, path

    def _is_printable(self, root: Path, path: str) -> bool:
        if is_printable(path):
            return True
        text = "a file name with control characters or not in UTF-8; left out"
        self.listings[root].problems.append(Problem(ascii(path), text))
        return False


@cache
def _hub_blobs(root: Path) -> Path | None:
    """Return where the files are that a data set's folder in the cache of Hugging Face's hub links to."""
    folders = (folder for folder in (root, *root.parents) if folder.name.startswith("datasets--"))
    return next((folder / "blobs" for folder in folders if (folder / "snapshots").is_dir()), None)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        # a file of the system without a size may never end, or wait
        return file.read(HEAD) if os.fstat(file.fileno()).st_size > 0 else b""


def _is_system(name: str) -> bool:
    return _IS_SYSTEM.match(name.lower()) is not None
