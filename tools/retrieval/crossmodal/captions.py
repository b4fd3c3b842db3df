"""Captions that an MLLM writes for images without one: ours, as all libraries of the paper have captions.

A caption is stored in a file of its own under the image's pixels, the model and the instruction, as soon as
it is paid for; a changed image is captioned again. Each image without a caption is opened once a run to read
its pixels. Not covered: a model whose weights change under one name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.tools.crossmodal import CAPTION
from pleinair.tools.images.reading import BadPicture
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import Hit, Retriever

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


class CaptionBook:
    """Captions in a folder, or in memory only without one; of one library and one model."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._captions: dict[str, str] = {}  # by key
        self._keys: dict[str, str] = {}  # by image id

    def key(self, id: str, retriever: Retriever, model: BaseChatModel) -> str:
        """Return the key of an image's caption: a digest of its pixels, the model and the instruction.

        It is "" for an image that cannot be read.
        """
        from pleinair.tools.storage.artifacts import encode_png  # here, as every graph imports this module

        if id not in self._keys:
            try:
                digest = hashlib.sha256(encode_png(retriever.open(id)))
            except (BadPicture, OSError):
                return ""
            digest.update(f"{model._llm_type}\n{getattr(model, 'model_name', '')}\n{CAPTION}".encode())
            self._keys[id] = digest.hexdigest()
        return self._keys[id]

    def get(self, key: str) -> str | None:
        """Return a caption, empty if the model declined; None if it was never requested."""
        if self._folder and key and key not in self._captions:
            with suppress(FileNotFoundError):
                content = json.loads(self._path(self._folder, key).read_text("utf-8"))
                self._captions[key] = str(content["caption"])
        return self._captions.get(key)

    def lacks(self, hit: Hit, retriever: Retriever, model: BaseChatModel) -> bool:
        """Return whether a readable image has no caption, and none was requested for it."""
        key = "" if hit.caption else self.key(hit.id, retriever, model)
        return bool(key) and self.get(key) is None

    def put(self, key: str, caption: str) -> None:
        """Store a caption; raise as `write_whole` does."""
        if self._folder:
            write_whole(self._path(self._folder, key), json.dumps({"caption": caption}).encode())
        self._captions[key] = caption

    def filled(self, entries: Sequence[Hit], retriever: Retriever, model: BaseChatModel) -> list[Hit]:
        """Return the entries with stored captions for those without their own."""

        def stored(id: str) -> dict[str, str]:
            return {"caption": self.get(self.key(id, retriever, model)) or ""}

        return [entry if entry.caption else entry.model_copy(update=stored(entry.id)) for entry in entries]

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"
