"""Observers of a chat model's requests: what is sent and what comes back, try by try, without the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from pleinair.tools.http.retry import CallFailure

if TYPE_CHECKING:
    from langchain_core.callbacks.base import BaseCallbackManager
    from langchain_core.callbacks.manager import BaseRunManager
    from langchain_core.messages import AIMessage

HIDDEN = "***"  # in place of the key
_NOT_OF_THE_BODY = ("extra_headers", "extra_query", "timeout")  # arguments of openai's client


class RequestObserver(BaseCallbackHandler):
    """Callback handler that receives every request of a call too, retries included.

    LangChain's own callbacks have one request for a call, before it is brought into the form that is sent.
    """

    def on_request(self, payload: Mapping[str, Any], *, run_id: UUID, server: str = "") -> None:
        """Receive the body of a request, and the base URL of the server that it goes to."""

    def on_reply(self, reply: AIMessage, *, run_id: UUID) -> None:
        """Receive the reply to the last request, before it is checked."""

    def on_failure(self, error: str, *, run_id: UUID) -> None:
        """Receive why the last request failed, or why its reply is not used."""


@dataclass(frozen=True)
class Watch:
    """Observers of one call, and the key that they must not see."""

    observers: Sequence[RequestObserver] = ()
    run_id: UUID = UUID(int=0)
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, manager: BaseRunManager | BaseCallbackManager | None, key: str) -> Watch:
        """Return the watch of a call by the callback manager that LangChain hands to it."""
        handlers = manager.handlers if manager else ()
        observers = [handler for handler in handlers if isinstance(handler, RequestObserver)]
        return cls(observers, getattr(manager, "run_id", cls.run_id), key)

    def request(self, payload: Mapping[str, Any], server: str) -> None:
        """Report the body of a request to a server."""
        if self.observers:
            body = {name: value for name, value in payload.items() if name not in _NOT_OF_THE_BODY}
            clean = _without(body, self.key)
            for observer in self.observers:
                observer.on_request(clean, run_id=self.run_id, server=server)

    def reply(self, message: AIMessage) -> None:
        """Report a reply."""
        if self.observers:
            fields = ("content", "tool_calls", "invalid_tool_calls", "additional_kwargs")
            clean = {name: _without(getattr(message, name), self.key) for name in fields}
            for observer in self.observers:
                observer.on_reply(message.model_copy(update=clean), run_id=self.run_id)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Report the failure of the block; its words are checked already."""
        try:
            yield
        except CallFailure as failure:
            for observer in self.observers:
                observer.on_failure(_without(failure.error.message, self.key), run_id=self.run_id)
            raise


def _without(value: Any, key: str) -> Any:
    """Return a copy of nested values with asterisks in place of the key."""
    if isinstance(value, str):
        return value.replace(key, HIDDEN) if key else value
    if isinstance(value, Mapping):
        return {name: _without(item, key) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without(item, key) for item in value]
    return value
