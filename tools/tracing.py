"""Traces that LangChain sends to LangSmith where its environment variables say so, without the images.

An image in base64, of an MLLM call or in an output, is replaced by its size. LangSmith's own warnings become
one sentence. Not covered: a tracer of another product; and what a program sends by LangSmith's client
itself.
"""

from __future__ import annotations

import logging
import re
import sys
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langsmith import Client

# a PNG, JPEG, WebP or GIF of any length, and anything else of a length that no word has
_BASE64 = re.compile(
    r"(?:(?:iVBORw0KGgo|(?:/9j/|UklGR|R0lGOD)[A-Za-z0-9+/]{32})[A-Za-z0-9+/]*|[A-Za-z0-9+/]{256,})={0,2}"
)
_WARNING = "LangSmith does not take all traces of this program; its runs are not affected."


def without_images(config: RunnableConfig | None) -> RunnableConfig:
    """Return a config whose LangSmith tracer, where tracing is on, leaves images out, as its children do."""
    from langchain_core.callbacks import CallbackManager
    from langchain_core.runnables.config import ensure_config
    from langchain_core.tracers.langchain import LangChainTracer

    manager = CallbackManager.configure(inheritable_callbacks=ensure_config(config).get("callbacks"))
    if not any(isinstance(handler, LangChainTracer) for handler in manager.handlers):
        return config or {}
    _quiet()
    for handler in [*manager.handlers]:
        if isinstance(handler, LangChainTracer) and not isinstance(handler.client, _ImagelessClient):
            tracer = handler.copy_with_metadata_defaults()  # with the same runs
            tracer.client = cast("Client", _ImagelessClient(tracer.client))
            manager.remove_handler(handler)
            manager.add_handler(tracer)
    return {**(config or {}), "callbacks": manager}


def send_remaining_traces(seconds: float = 2.0) -> None:
    """Wait for traces that are not sent yet, at most some seconds; nothing is imported for it."""
    if "langchain_core.tracers.langchain" not in sys.modules:
        return
    from langchain_core.tracers.langchain import wait_for_all_tracers

    sending = Thread(target=wait_for_all_tracers, daemon=True)
    sending.start()
    sending.join(seconds)


class _ImagelessClient:
    """LangSmith's client, but for the images in what it is to send."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_run(self, name: str, inputs: Any, *args: Any, outputs: Any = None, **fields: Any) -> None:
        self._client.create_run(name, redacted(inputs), *args, outputs=redacted(outputs), **fields)

    def update_run(self, run_id: Any, *, inputs: Any = None, outputs: Any = None, **fields: Any) -> None:
        self._client.update_run(run_id, inputs=redacted(inputs), outputs=redacted(outputs), **fields)


def redacted(value: Any) -> Any:
    """Return a copy of nested values with the size instead of images and other data in base64."""
    from langchain_core.messages import BaseMessage
    from pydantic import BaseModel

    if isinstance(value, str):
        return _BASE64.sub(lambda text: f"[{len(text[0]) * 3 // 4} bytes, not sent: tracing.images]", value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    if isinstance(value, bytes):
        return f"[{len(value)} bytes, not sent: tracing.images]"
    if isinstance(value, BaseMessage):
        return value.model_copy(update={"content": redacted(value.content)})
    if isinstance(value, BaseModel):
        return redacted(value.model_dump(mode="json"))
    if hasattr(value, "to_messages"):  # a prompt value
        return redacted(value.to_messages())
    return value


@cache
def _quiet() -> None:
    """Pass one sentence instead of LangSmith's warnings, which contain addresses and parts of keys."""
    is_first = True

    def replace_first(record: logging.LogRecord) -> bool:
        nonlocal is_first
        if record.levelno < logging.WARNING:
            return True
        record.msg, record.args, record.exc_info = _WARNING, (), None
        passes, is_first = is_first, False
        return passes

    for name in ("langsmith.client", "langsmith._internal._background_thread", "langsmith.utils"):
        logging.getLogger(name).addFilter(replace_first)
