"""A replica of Ray Serve: one part of the registry, in a process of its own on a node of the cluster."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pleinair.tools import registry
from pleinair.tools.callbacks import ReportsOffloadLevels
from pleinair.tools.cluster.ray_serve import Part
from pleinair.tools.types import BadInput, BatchGenerator, Cancelled, GenerateRequest
from pleinair.tools.worker.process import PackedImage, facts_of, pack, sendable, unpack

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Message = tuple[str, Any]  # "step", "preview", and at last "answer" or "error"


class Replica:
    """Part that answers calls one after the other.

    Args:
        part: what to build; a call for anything else is answered with `BadInput`.
        batch: calls of `encode` that may be answered together.
        batch_wait: seconds that one of them waits for others.
    """

    def __init__(self, part: Part, batch: int = 1, batch_wait: float = 0.0) -> None:
        self._part = part
        self._built = registry.resolve(part.kind, part.backend)(**json.loads(part.arguments))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=part.kind)  # health is checked meanwhile
        self._together = self._batched(batch, batch_wait) if batch > 1 else None

    async def call(self, part: Part, method: str, *values: Any) -> AsyncGenerator[Message, None]:
        """Yield the steps and previews of a call, and at last its answer or its error.

        A caller that cancels ends an image at its next step.
        """
        messages: asyncio.Queue[Message] = asyncio.Queue()
        relay = _Relay(asyncio.get_running_loop(), messages)
        work = asyncio.create_task(self._answered(part, method, values, relay))
        try:
            while (message := await messages.get())[0] in ("step", "preview"):
                yield message
            yield message
        finally:
            relay.stopped.set()
            work.cancel()

    async def _answered(self, part: Part, method: str, values: Sequence[Any], relay: _Relay) -> None:
        try:
            if part != self._part:
                raise _mismatch(self._part, part)
            answer = await getattr(self, f"_{method}")(*values, relay)
        except Exception as error:  # the caller handles every error
            relay.messages.put_nowait(("error", sendable(error)))
        else:
            relay.messages.put_nowait(("answer", answer))

    async def _facts(self, _: _Relay) -> Any:
        if self._part.kind == "encoder":
            return await self._run(facts_of, self._built)
        return await self._run(lambda: self._built.capabilities)

    async def _generate(
        self,
        request: GenerateRequest,
        images: Sequence[PackedImage],
        previews: bool,
        seeds: Sequence[int],
        relay: _Relay,
    ) -> tuple[list[PackedImage], tuple[str, ...]]:
        """Return an image, perhaps those of further seeds, and the offload levels."""
        on_step = _PreviewRelay(relay) if previews else relay

        def generate() -> tuple[list[PackedImage], tuple[str, ...]]:
            relay.check()
            if seeds and isinstance(self._built, BatchGenerator):
                results = self._built.generate_batch(request, seeds, on_step)
            else:
                results = [self._built.generate(request, [*map(unpack, images)], on_step)]
            has_levels = isinstance(self._built, ReportsOffloadLevels)
            return [*map(pack, results)], tuple(self._built.offload_levels) if has_levels else ()

        results: tuple[list[PackedImage], tuple[str, ...]] = await self._run(generate)
        return results

    async def _encode(self, method: str, items: list[Any], relay: _Relay) -> Any:
        if self._together and items:
            return await self._together((method, items))
        return await self._run(self._rows, method, items)

    def _batched(self, batch: int, batch_wait: float) -> Any:
        """Return `_encode_together` as a function of one call, which waits for others."""
        from ray import serve

        async def encode_together(calls: list[tuple[str, list[Any]]]) -> list[Any]:
            return await self._encode_together(calls)

        return serve.batch(max_batch_size=batch, batch_wait_timeout_s=batch_wait)(encode_together)

    async def _encode_together(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        """Return the rows of several calls, those of one method from one pass."""
        rows: dict[str, Any] = {}
        for method in dict.fromkeys(method for method, _ in calls):
            items = [item for name, part in calls if name == method for item in part]
            rows[method] = await self._run(self._rows, method, items)
        answers = []
        for method, items in calls:
            answers.append(rows[method][: len(items)])
            rows[method] = rows[method][len(items) :]
        return answers

    def _rows(self, method: str, items: Sequence[Any]) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = getattr(self._built, method)(
            items if method == "encode_text" else [*map(unpack, items)]
        )
        return rows

    async def _run(self, work: Callable[..., Any], *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)


class _Relay:
    """Step callback of the thread that generates: it hands steps to the event loop, and stops the image."""

    def __init__(self, loop: asyncio.AbstractEventLoop, messages: asyncio.Queue[Message]) -> None:
        self.messages = messages
        self.stopped = threading.Event()
        self._loop = loop

    def __call__(self, done: int, total: int) -> None:
        self.send("step", (done, total))

    def check(self) -> None:
        if self.stopped.is_set():
            raise Cancelled("The image was stopped.")

    def send(self, kind: str, value: Any) -> None:
        self.check()
        self._loop.call_soon_threadsafe(self.messages.put_nowait, (kind, value))


class _PreviewRelay:
    """Step callback that hands previews on, too."""

    def __init__(self, relay: _Relay) -> None:
        self._relay = relay
        self.check = relay.check

    def __call__(self, done: int, total: int) -> None:
        self._relay(done, total)

    def show(self, preview: Image) -> None:
        self._relay.send("preview", pack(preview))


def _mismatch(held: Part, wanted: Part) -> BadInput:
    """Return the error about a call for another part than an application holds."""
    if held.version != wanted.version:
        text = f"pleinair {held.version}, this process has {wanted.version}"
    elif held.backend != wanted.backend:
        text = f"the {held.kind} {held.backend!r}, the settings have {wanted.backend!r}"
    else:
        mine, theirs = json.loads(held.arguments), json.loads(wanted.arguments)
        keys = sorted(key for key in mine | theirs if mine.get(key) != theirs.get(key))
        values = (f"{key} = {mine.get(key)!r}, the settings have {theirs.get(key)!r}" for key in keys)
        text = f"{held.backend} with {'; '.join(values)}"
    return BadInput(
        f"ray_serve.{held.kind}: the cluster's application holds {text}",
        f"Run `pleinair cluster deploy` with these settings, or set another ray_serve.{held.kind}.app.",
    )
