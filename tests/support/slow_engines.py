"""Engines that block for ten minutes at one place, or are slow, installed by entry points as plug-ins are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from PIL import Image
from support.plugins import install_package
from support.quick_engines import Critic, Hashes, Stripes

from pleinair.tools.types import GenerateRequest, Retriever

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

ENTRY_POINTS = """
[pleinair.generator]
slow = support.slow_engines:SlowGenerator
[pleinair.encoder]
slow = support.slow_engines:SlowEncoder
[pleinair.mllm]
slow = support.slow_engines:slow_critic
[pleinair.retriever]
slow = support.slow_engines:slow_retriever
"""
released = threading.Event()  # set by a test at its end, so that no thread stays blocked


def block() -> None:
    """Block like a file on a dead disk: nothing is called back."""
    released.wait(600)


class SlowGenerator(Stripes):
    """Generator that blocks while it is built ("load"), at a step ("step") or with references ("edit")."""

    def __init__(self, at: str = "", name: str = "") -> None:
        super().__init__()
        self.at, self.name = at, name
        if at == "load":
            block()

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        if self.at == "step" or (self.at == "edit" and images):
            block()
        return super().generate(request, images, on_step)


class SlowEncoder(Hashes):
    """Encoder that blocks while it is built ("load"), at images or at texts."""

    def __init__(self, at: str = "", name: str = "") -> None:
        super().__init__(at + name)
        self.at = at
        if at == "load":
            block()

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if self.at == "images":
            block()
        return super().encode_images(images)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        if self.at == "texts":
            block()
        return super().encode_text(texts)


class SlowCritic(Critic):
    """Critic that blocks at every call, as a client without a time limit may."""

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        block()
        return super()._generate(messages)


def slow_critic(at: str = "") -> Critic:
    """Build a critic that blocks while it is built ("load") or at a call."""
    if at == "load":
        block()
    return SlowCritic(policy=lambda *_: "", schemas=[])


def slow_retriever(corpus: Any) -> Retriever:
    """Block instead of opening a library."""
    block()
    raise AssertionError(corpus)


def install(folder: Path) -> Path:
    """Install the plug-in; return the folder that must be on `sys.path`."""
    return install_package(folder / "plugin", "slow", ENTRY_POINTS)
