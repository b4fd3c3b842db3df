"""Store of finished images by content, in a folder or any fsspec location, one for each step.

Layout: `sha256/ab/abcd….png` for images, `sha256/ab/abcd…-original.jpg` for the bytes of one that its server
signed, and `steps/….json` for the step that made one. Not covered: two
callers that make the same step at once (the run's lease prevents that), and equal names from other versions
of zlib.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from pydantic import ValidationError

from pleinair.tools.images.decoding import ReadOptions
from pleinair.tools.images.reading import read_picture, to_rgb
from pleinair.tools.images.signed import SUFFIXES, signed_suffix
from pleinair.tools.storage.files import PART_AGE, RESERVE, sweep_parts
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import BadInput, Picture, PleinairError, Usage, Value

SPENT_KEY = "pleinair.spent"  # of an image's `info`, which no file can fill with a `Usage`
ORIGINAL_KEY = "pleinair.original"  # likewise, with bytes
_PARTS = "parts"  # folder of unfinished files in a folder store


def charged(image: Image.Image, spent: Usage) -> Image.Image:
    """Attach to an image what it cost."""
    image.info[SPENT_KEY] = spent
    return image


def spent_on(image: Image.Image) -> Usage:
    """Return what an image cost; nothing where its generator attached nothing."""
    spent = image.info.get(SPENT_KEY)
    return spent if isinstance(spent, Usage) else Usage()


def with_original(image: Image.Image, data: bytes) -> Image.Image:
    """Attach to an image the bytes in which it was received, if they are signed."""
    if signed_suffix(data):
        image.info[ORIGINAL_KEY] = data
    return image


def original_of(image: Image.Image) -> bytes:
    """Return the signed bytes in which an image was received, b"" for none."""
    data = image.info.get(ORIGINAL_KEY)
    return data if isinstance(data, bytes) else b""


class Original(NamedTuple):
    """Signed file in which an image was received, unchanged."""

    suffix: str  # one of `SUFFIXES`
    data: bytes


class BadArtifact(PleinairError):
    """A stored image is missing or has changed."""


class Step(Value):
    """Step of a run and the image that it made."""

    key: str
    picture: Picture
    spent: Usage = Usage()  # as far as the generator states it


class ArtifactStore:
    """Store of images under the SHA-256 of their PNG bytes.

    `url` is a folder or an fsspec URL (`memory://`, `s3://…` with its driver installed). `reserve` bytes are
    left free on local disks. Every failed write raises `PleinairError`, a full disk its kind `DiskFull`.
    """

    def __init__(self, url: str | Path, *, reserve: int = RESERVE) -> None:
        self._folder = Folder(url, reserve=reserve, parts=_PARTS)
        self.sweep(PART_AGE)

    def sweep(self, older_than: float = 0.0) -> None:
        """Remove what killed writers have left in a folder, `older_than` seconds or more of age."""
        if self._folder.local:
            sweep_parts(self._folder.local / _PARTS, older_than)

    def has(self, picture: Picture) -> bool:
        """Return whether there is an image of this name, intact or not."""
        return self._folder.stamp(_place(picture)) is not None

    def put(self, image: Image.Image, *, alpha: bool = False) -> Picture:
        """Store an image as RGB, or RGBA with `alpha`, and return its name; an intact copy is left alone.

        The signed bytes in which it was received are stored beside it.
        """
        data, received = encode_png(image, alpha=alpha), original_of(image)
        picture = Picture(sha256=_digest(data), width=image.width, height=image.height)
        if (suffix := signed_suffix(received)) and not self.original(picture):
            self._folder.write(_place(picture, f"-original{suffix}"), received)
        if not self._intact(picture):
            self._folder.write(_place(picture), data)
        return picture

    def read(self, picture: Picture) -> bytes:
        """Return the stored PNG bytes; raise `BadArtifact` when they are missing or changed."""
        data = self._folder.read(_place(picture))
        if data is None:
            raise BadArtifact(f"Image {picture.sha256} is not in the store {self._folder}.")
        if _digest(data) != picture.sha256:
            raise BadArtifact(f"Image {picture.sha256} in {self._folder} has changed since it was stored.")
        return data

    def open(self, picture: Picture, *, alpha: bool = False) -> Image.Image:
        """Return the stored image as RGB, or RGBA with `alpha`; raise as `read` does."""
        return read_picture(self.read(picture), ReadOptions(alpha=alpha))

    def original(self, picture: Picture) -> Original | None:
        """Return the signed file in which an image was received; None if there was none."""
        for suffix in SUFFIXES:
            data = self._folder.read(_place(picture, f"-original{suffix}"))
            if data is not None:
                return Original(suffix, data)
        return None

    def remove(self, picture: Picture) -> None:
        """Remove an image and the file in which it was received, as far as they are there."""
        for ending in (".png", *(f"-original{suffix}" for suffix in SUFFIXES)):
            self._folder.remove_file(_place(picture, ending))

    def adopt(self, picture: Picture, other: ArtifactStore) -> None:
        """Copy an image from another store, byte for byte, with its original; raise as `read` does."""
        if (original := other.original(picture)) and not self.original(picture):
            self._folder.write(_place(picture, f"-original{original.suffix}"), original.data)
        if not self._intact(picture):
            self._folder.write(_place(picture), other.read(picture))

    def path(self, picture: Picture) -> str:
        """Return where the image is: a path in a folder store, else a URL."""
        return self._folder.path(_place(picture))

    def once(self, key: str, make: Callable[[], Image.Image]) -> Picture:
        """Return the image of step `key`, calling `make` only when no intact one is stored.

        The step is noted after its image, so a note never points at an image that was not yet written; a
        crash between the two repeats `make`, which finds its own file again if it is deterministic.
        """
        if not key:
            raise BadInput("A step key is empty; name the run, the step and the number.")
        step = self._step(key)
        if step is None:
            image = make()
            step = Step(key=key, picture=self.put(image), spent=spent_on(image))
            self._folder.write(_note(key), step.model_dump_json().encode())
        return step.picture

    def spent(self, key: str) -> Usage:
        """Return what the image of step `key` cost; nothing where there is none."""
        step = self._step(key)
        return step.spent if step else Usage()

    def _step(self, key: str) -> Step | None:
        data = self._folder.read(_note(key))
        if data is None:
            return None
        try:
            step = Step.model_validate_json(data)
        except ValidationError:
            return None
        return step if self._intact(step.picture) else None

    def _intact(self, picture: Picture) -> bool:
        with suppress(BadArtifact):
            return bool(self.read(picture))
        return False


def encode_png(image: Image.Image, *, alpha: bool = False) -> bytes:
    """Encode pixels as PNG without metadata: the same pixels give the same bytes on one machine.

    They are RGB, with `alpha` those of an RGBA image as they are.
    """
    file = io.BytesIO()
    plain = Image.frombytes("RGBA", image.size, image.tobytes()) if alpha else to_rgb(image)
    plain.save(file, "PNG", compress_level=6, optimize=False)
    return file.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _place(picture: Picture, ending: str = ".png") -> str:
    return f"sha256/{picture.sha256[:2]}/{picture.sha256}{ending}"


def _note(key: str) -> str:
    return f"steps/{_digest(key.encode())}.json"
