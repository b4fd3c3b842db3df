"""Tray of a thread: images with handles, which are used as references until a person says otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.app.chat.thread import INPUT_IMAGE, Thread, TrayImage
from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_input_image, read_request, require_input_images, store_input_images
from pleinair.app.runs.store import Runs
from pleinair.app.texts import printable
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Hit, Picture, concept_key, without_article

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library

MAX_IMAGES = 64  # of one tray
MAX_NAME = 200  # characters of a name or a concept
_DETERMINER = re.compile(r"\b(?:an?|the|this|that|my|your|our|their|his|her|its|one)\s+$", re.IGNORECASE)
_MENTION = re.compile(r"(?<![\w@])@([0-9]{1,9})\b")


@dataclass
class ThreadTray:
    """Changes of a thread's tray; each of them is made as a whole or refused."""

    thread: Thread
    places: Paths

    @cached_property
    def _runs(self) -> Runs:
        return Runs(self.places.table)

    def _set(self, **changes: Any) -> None:
        self.thread = self.thread.model_copy(update=changes)

    @property
    def tray(self) -> tuple[TrayImage, ...]:
        """The images, in the order of their handles."""
        return self.thread.tray

    def image(self, handle: str) -> TrayImage:
        """Return an image by its handle, with or without @; raises `BadInput`."""
        handle = f"@{handle.removeprefix('@')}"
        image = next((image for image in self.tray if image.handle == handle), None)
        if image is None:
            handles = ", ".join(image.handle for image in self.tray)
            remedy = f"There are: {handles}." if handles else "Add an image to the tray first."
            raise BadInput(f"{handle[:40]}: no image of this thread has this handle", remedy)
        return image

    def add_image(self, source: str | Path | bytes, name: str = "", concept: str = "") -> TrayImage:
        """Add the image of a file or of a file's bytes; raises `BadInput` for one that is not an image."""
        self.check_room()
        image = read_input_image(source, name)
        (picture,) = store_input_images([image], self.places)
        name = name or ("image" if isinstance(source, bytes) else Path(source).name)
        return self.add_picture(picture, name, concept)

    def add_picture(self, picture: Picture, name: str, concept: str = "") -> TrayImage:
        """Add an image that is in the home's store of input images already; raises `BadInput`."""
        hit = Hit(id=picture.sha256, score=1.0, caption=printable(name)[:MAX_NAME], source=INPUT_IMAGE)
        return self._add(picture, hit, concept)

    def add_hit(self, hit: Hit, picture: Picture, concept: str = "") -> TrayImage:
        """Add an image of a library, which is in the home's store of input images already."""
        return self._add(picture, hit, concept)

    def add_library_image(self, id: str, library: Library) -> TrayImage:
        """Add an image of a library with its license and source; raises `BadInput` for an unknown one."""
        self.check_room()
        picture = library.picture(id)
        (stored,) = store_input_images([picture], self.places)
        return self.add_hit(library.items[id].hit(score=1.0), stored)

    def reuse(self, run_id: str) -> TrayImage:
        """Add the best image of a run; raises `BadInput` for a run without an image."""
        run = self._runs.get(run_id)
        run.require_intact()
        best = run.outcome.best if run.outcome else None
        if best is None:
            raise BadInput(f"run {run_id}: it has no image ({run.status})")
        self.check_room()
        store = ArtifactStore(self.places.input_images)
        store.adopt(best.picture, ArtifactStore(self.places.pictures(run_id)))
        caption = read_request(run.request_json).prompt[:MAX_NAME]
        hit = Hit(id=best.picture.sha256, score=1.0, caption=caption, source=f"run {run_id}")
        return self._add(best.picture, hit, "")

    def _add(self, picture: Picture, hit: Hit, concept: str) -> TrayImage:
        self.check_room()
        require_input_images([picture], self.places)
        number = self.thread.handles + 1
        image = TrayImage(handle=f"@{number}", picture=picture, hit=hit, concept=_concept(concept))
        self._set(handles=number)
        return self._put(image)

    def check_room(self, count: int = 1) -> None:
        """Raise `BadInput` unless the tray takes more images, of which nothing needs to be read yet."""
        if len(self.tray) + count > MAX_IMAGES:
            has = f"the tray has {len(self.tray)} images, and takes at most {MAX_IMAGES}"
            raise BadInput(has, "Remove some first.")

    def set_concept(self, handle: str, concept: str) -> TrayImage:
        """Set what an image shows, "" for nothing; another image with this concept is no longer used."""
        return self._put(self.image(handle).model_copy(update={"concept": _concept(concept)}))

    def use(self, handle: str, used: bool = True) -> TrayImage:
        """Use an image in the next requests, or keep it in the tray only."""
        return self._put(self.image(handle).model_copy(update={"used": used}))

    def remove(self, handle: str) -> TrayImage:
        """Remove an image from the tray and return it; its handle is not used again."""
        image = self.image(handle)
        self._set(tray=tuple(other for other in self.tray if other != image))
        return image

    def _put(self, image: TrayImage) -> TrayImage:
        self.thread = with_image(self.thread, image)
        return image

    def _mentioned(self, line: str) -> tuple[str, Thread]:
        """Return a line with concepts in place of handles, and the thread with these images in use."""
        thread = self.thread
        for match in _MENTION.finditer(line):
            image = self.image(match[1])
            if not image.concept:
                raise BadInput(
                    f"{image.handle}: it is not said what this image shows, so a prompt cannot mention it",
                    f"Give it a concept, such as: /concept {image.handle} red car",
                )
            thread = with_image(thread, image.model_copy(update={"used": True}))
        return _MENTION.sub(lambda match: self._name(line[: match.start()], match[1]), line), thread

    def _name(self, before: str, handle: str) -> str:
        """Return the concept of an image as a line goes on with it: "a @1" has one article."""
        concept = self.image(handle).concept
        return without_article(concept) if _DETERMINER.search(before) else concept


def with_image(thread: Thread, image: TrayImage) -> Thread:
    """Return a thread with an image in its tray; if it is used, nothing else shows its concept."""
    tray = {other.handle: other for other in thread.tray} | {image.handle: image}
    changes: dict[str, Any] = {}
    if image.used and (key := concept_key(image.concept)):
        for other in tray.values():
            if other.handle != image.handle and concept_key(other.concept) == key:
                tray[other.handle] = other.model_copy(update={"used": False})
        changes["pins"] = tuple(pin for pin in thread.pins if concept_key(pin.concept) != key)
        changes["vetoes"] = tuple(id for id in thread.vetoes if id != image.hit.id)
    return thread.model_copy(update=changes | {"tray": tuple(tray.values())})


def without_pinned(thread: Thread) -> Thread:
    """Return a thread in whose tray no image is used for a concept that is pinned to another one."""
    pins = {concept_key(pin.concept): pin.hit.id for pin in thread.pins}
    tray = (
        image.model_copy(
            update={"used": image.used and pins.get(concept_key(image.concept), image.hit.id) == image.hit.id}
        )
        for image in thread.tray
    )
    return thread.model_copy(update={"tray": tuple(tray)})


def _concept(text: str) -> str:
    concept = " ".join(text.split())
    if len(concept) > MAX_NAME or "@" in concept or not concept.isprintable():
        accepted = f"must be at most {MAX_NAME} characters, without @ and control characters"
        raise BadInput(f"concept {printable(concept[:80])!r}: {accepted}")
    return concept
