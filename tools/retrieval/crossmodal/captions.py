"""Keep the captions that a model wrote for pictures without one: ours, as all of the paper's pools have them.

A caption is filed under the picture's pixels, the model and the question, one file each, and written as soon
as it is paid for; a picture that changes is captioned anew. Each picture without a caption is opened once a
run, to know its pixels. Not covered: a model whose weights change under one name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.tools.crossmodal import CAPTION
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import Hit, Retriever

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


class CaptionBook:
    """Hold captions in a folder, or without one for as long as it lives; one library and one model a book."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._captions: dict[str, str] = {}  # by key
        self._keys: dict[str, str] = {}  # by picture id

    def key(self, id: str, retriever: Retriever, model: BaseChatModel) -> str:
        """Name a picture's caption by its pixels, the model and the question."""
        from pleinair.tools.storage.artifacts import encode_png  # here, as every graph imports this module

        if id not in self._keys:
            digest = hashlib.sha256(encode_png(retriever.open(id)))
            digest.update(f"{model._llm_type}\n{getattr(model, 'model_name', '')}\n{CAPTION}".encode())
            self._keys[id] = digest.hexdigest()
        return self._keys[id]

    def get(self, key: str) -> str | None:
        """Return a caption, empty where the model declined; None where nobody has asked yet."""
        if key not in self._captions and self._folder and (path := self._path(key)).is_file():
            self._captions[key] = str(json.loads(path.read_text("utf-8"))["caption"])
        return self._captions.get(key)

    def put(self, key: str, caption: str) -> None:
        """Keep a caption; raise as `write_whole` does."""
        if self._folder:
            write_whole(self._path(key), json.dumps({"caption": caption}).encode())
        self._captions[key] = caption

    def filled(self, entries: Sequence[Hit], retriever: Retriever, model: BaseChatModel) -> list[Hit]:
        """Give the entries with the captions that are known for those without."""
        return [
            one if one.caption else one.model_copy(update={"caption": self._known(one.id, retriever, model)})
            for one in entries
        ]

    def _known(self, id: str, retriever: Retriever, model: BaseChatModel) -> str:
        return self.get(self.key(id, retriever, model)) or ""

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / f"{key}.json"
