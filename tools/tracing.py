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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

# a PNG, JPEG, WebP or GIF of any length, and anything else of a length that no word has
_BASE64 = re.compile(
    r"(?:(?:iVBORw0KGgo|(?:/9j/|UklGR|R0lGOD)[A-Za-z0-9+/]{32})[A-Za-z0-9+/]*|[A-Za-z0-9+/]{256,})={0,2}"
)
_WARNING = "LangSmith does not take all traces of this program; its runs are not affected."


def without_images(config: RunnableConfig | None) -> RunnableConfig:
    """Return a config whose LangSmith tracer, where tracing is on, leaves images out, as its children do."""
    from langchain_core.callbacks import BaseCallbackManager
    from langchain_core.runnables.config import ensure_config
    from langchain_core.tracers.langchain import LangChainTracer
    from langsmith.utils import tracing_is_enabled

    callbacks = ensure_config(config).get("callbacks")
    handlers = callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else [*(callbacks or ())]
    tracers = [handler for handler in handlers if isinstance(handler, LangChainTracer)]
    if not tracers and not tracing_is_enabled():
        return config or {}
    _quiet()
    quiet = _tracer_class()
    if not tracers:
        added: Any = quiet.of_environment()
        callbacks = _with(callbacks, added)
    elif isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        for name in ("handlers", "inheritable_handlers"):
            setattr(callbacks, name, [quiet.of(handler) for handler in getattr(callbacks, name)])
    else:
        callbacks = [quiet.of(handler) for handler in handlers]
    return {**(config or {}), "callbacks": callbacks}


def send_remaining_traces(seconds: float = 2.0) -> None:
    """Wait for traces that are not sent yet, at most some seconds; nothing is imported for it."""
    if "langchain_core.tracers.langchain" not in sys.modules:
        return
    from langchain_core.tracers.langchain import wait_for_all_tracers

    sending = Thread(target=wait_for_all_tracers, daemon=True)
    sending.start()
    sending.join(seconds)


def _with(callbacks: Any, tracer: Any) -> Any:
    if callbacks is None or isinstance(callbacks, list):
        return [*(callbacks or ()), tracer]
    manager = callbacks.copy()
    manager.add_handler(tracer, True)
    return manager


@cache
def _tracer_class() -> Any:
    from langchain_core.tracers.context import _get_tracer_kwargs
    from langchain_core.tracers.langchain import LangChainTracer

    class ImagelessTracer(LangChainTracer):
        """LangSmith's tracer without images; it shares the runs of the tracer that it stands for."""

        @classmethod
        def of_environment(cls) -> Any:
            return cls(**_get_tracer_kwargs())

        @classmethod
        def of(cls, handler: Any) -> Any:
            if type(handler) is not LangChainTracer:
                return handler
            copy = cls.__new__(cls)
            vars(copy).update(vars(handler))
            return copy

        def _persist_run_single(self, run: Any) -> None:
            run.inputs = redacted(run.inputs)
            run.outputs = redacted(run.outputs)
            super()._persist_run_single(run)

        @staticmethod
        def _update_run_single(run: Any) -> None:
            run.inputs, run.outputs = redacted(run.inputs), redacted(run.outputs)
            LangChainTracer._update_run_single(run)

    return ImagelessTracer


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


class _OneSentence(logging.Filter):
    """Filter that passes one sentence instead of all warnings, which contain addresses and parts of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.is_first = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the first warning, and drop the others."""
        if record.levelno < logging.WARNING:
            return True
        record.msg, record.args, record.exc_info = _WARNING, (), None
        is_first, self.is_first = self.is_first, False
        return is_first


@cache
def _quiet() -> None:
    sentence = _OneSentence()
    for name in ("langsmith.client", "langsmith._internal._background_thread", "langsmith.utils"):
        logging.getLogger(name).addFilter(sentence)
