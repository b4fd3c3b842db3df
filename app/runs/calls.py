"""Messages of a run's MLLM calls as they were sent, and the replies: a file a call, in the run's folder.

A file is written before a call and again after each request and reply, so a call that a crash ended is there
too. Images are stored by their SHA-256, once, and not in base64. What cannot be written, on a full disk, is
left out: no run fails by it. Not covered: calls of tools that make their own, outside of LangChain.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import ValidationError

from pleinair.agent.mllm.observer import RequestObserver
from pleinair.tools.mllm.ask import cached_tokens
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import PleinairError, Usage, Value

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import LLMResult

FOLDER = "calls"  # of a run's folder
MOST_TEXT = 100_000  # characters of one text
MOST_BYTES = 256 * 2**20  # of a run's calls, with their images
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIXES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}  # by the first bytes of an image
_DATA = re.compile(r"data:[\w/+.-]*;base64,")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET = re.compile(
    r"(?i)(\bbearer\s+|[?&][\w.-]*(?:key|token|secret|password|signature|sig)=)[^\s&\"'<>]+"
)  # in the words of an error, such as the address of a request
_ROLES = {"human": "user", "ai": "assistant"}  # LangChain's names, and those of everybody else
_THOUGHTS = ("refusal", "reasoning_content", "reasoning")  # fields of a message beside its content
log = logging.getLogger(__name__)


class Part(Value):
    """Text or image of a message."""

    text: str = ""
    image: str = ""  # SHA-256 of its bytes
    width: int = 0  # pixels
    height: int = 0


class ToolCall(Value):
    """Tool call in a message."""

    name: str
    arguments: str  # JSON, or what the model wrote in its place
    id: str = ""


class Message(Value):
    """One message of a call."""

    role: str  # system, user, assistant, tool …
    parts: tuple[Part, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""  # of the tool call that it answers
    thoughts: str = ""  # of the model, beside its answer


class Try(Value):
    """One request of a call, and its reply or why it failed."""

    messages: tuple[Message, ...] | None = None  # None: those of the request before
    options: dict[str, Any] = {}  # the rest of the body, as far as the model shows it
    reply: Message | None = None
    error: str = ""
    seconds: float = 0.0
    server: str = ""  # its base URL


class CallRecord(Value):
    """One call of the MLLM, with all its requests."""

    v: Literal[1] = 1
    number: int  # from 1, in the order of their starts
    at: float  # seconds since the epoch
    step: str = ""  # node of the graph
    task: str = ""  # LangGraph's id of the execution of the node
    attempt: int = 0  # images before it
    model: str = ""
    tries: tuple[Try, ...] = ()
    usage: Usage = Usage()
    input_tokens: int = 0  # of `usage.tokens`, where the model says so
    output_tokens: int = 0
    error: str = ""  # why it failed, "" where there is a reply
    finished: bool = False  # False: it is going on, or its process died

    @property
    def requests(self) -> list[tuple[tuple[Message, ...], Try]]:
        """The messages of each request, with the request."""
        pairs, messages = list[tuple[tuple[Message, ...], Try]](), tuple[Message, ...]()
        for request in self.tries:
            messages = messages if request.messages is None else request.messages
            pairs.append((messages, request))
        return pairs


def read_calls(files: Folder) -> list[CallRecord]:
    """Read the calls of a run from its files, in their order; a damaged file is left out."""
    folder, records = files.below(FOLDER), []
    names = [name for name in folder.sizes() if name.endswith(".json")]
    for name, data in folder.read_all(sorted(names)).items():
        try:
            records.append(CallRecord.model_validate_json(data))
        except ValidationError:
            log.warning("%s cannot be read; it is left out.", folder.path(name))
    return records


def call_image(files: Folder, sha256: str) -> bytes | None:
    """Return an image of a call that is not in the run's store; None if it is missing or damaged."""
    names = [f"{FOLDER}/{sha256}{suffix}" for suffix in _SUFFIXES.values() if _SHA256.fullmatch(sha256)]
    data = next(filter(None, map(files.read, names)), b"")
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


@dataclass
class _Open:
    """Call that is going on."""

    record: CallRecord
    started: float
    tries: list[Try] = field(default_factory=list)
    begun: float = 0.0  # start of the newest request
    observed: bool = False  # whether the model itself reports its requests


class CallLog(RequestObserver):
    """Writer of a run's calls; a callback handler of LangChain, for any thread of the run.

    Args:
        files: of the run.
        attempt: returns the number of images so far.
    """

    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(self, files: Folder, attempt: Callable[[], int]) -> None:
        self._files, self._attempt = files, attempt
        self._lock = threading.Lock()
        self._open: dict[UUID, _Open] = {}
        self._done: list[tuple[str, int]] = []  # step and number of finished calls
        sizes = files.below(FOLDER).sizes()
        numbers = (name.removesuffix(".json") for name in sizes)
        self._number = max((int(number) for number in numbers if number.isdecimal()), default=0)
        self._bytes = sum(sizes.values())
        self._images = set[str]()  # that are stored with the run
        self._full = False

    def finished(self, step: str) -> tuple[int, ...]:
        """Return the numbers of the calls of a step that have ended since it was asked last."""
        with self._lock:
            numbers = tuple(number for name, number in self._done if name == step)
            self._done = [pair for pair in self._done if pair[0] != step]
        return numbers

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a call with its messages as LangChain has them, until its model reports what it sends."""
        facts = metadata or {}
        task = str(facts.get("langgraph_checkpoint_ns", "")).partition("|")[0]
        step, _, task_id = task.rpartition(":")
        with self._lock:
            self._number += 1
            record = CallRecord(
                number=self._number,
                at=time.time(),
                step=step or str(facts.get("langgraph_node", "")),
                task=task_id,
                attempt=self._attempt(),
                model=str(facts.get("ls_model_name") or (serialized or {}).get("name") or ""),
            )
        call = _Open(record, time.perf_counter(), begun=time.perf_counter())
        call.tries.append(Try(messages=tuple(map(self._message, messages[0]))))
        self._open[run_id] = call
        self._write(call)

    def on_request(self, payload: Mapping[str, Any], *, run_id: UUID, server: str = "") -> None:
        """Write a request as its model sends it."""
        if call := self._open.get(run_id):
            options = {key: value for key, value in payload.items() if key not in ("messages", "input")}
            sent = payload.get("messages", payload.get("input", ()))
            messages = tuple(map(self._message, sent if isinstance(sent, list) else [{"content": sent}]))
            tries = call.tries if call.observed else []
            before = next((each.messages for each in reversed(tries) if each.messages is not None), None)
            request = Try(
                messages=None if messages == before else messages,
                options=_short(options),
                server=_text(server),
            )
            call.tries, call.observed, call.begun = [*tries, request], True, time.perf_counter()
            self._write(call)

    def on_reply(self, reply: AIMessage, *, run_id: UUID) -> None:
        """Write the reply to the newest request."""
        if call := self._open.get(run_id):
            self._update(call, reply=self._message(reply))

    def on_failure(self, error: str, *, run_id: UUID) -> None:
        """Write why the newest request failed."""
        if call := self._open.get(run_id):
            self._update(call, error=_fault(error))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Write the end of a call and what it cost."""
        if call := self._open.pop(run_id, None):
            message: Any = getattr(response.generations[0][0], "message", None)
            if message is not None and not call.observed:
                self._update(call, reply=self._message(message))
            self._end(call, _usage(message), tokens=_tokens(message))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Write why a call failed and what it cost."""
        if call := self._open.pop(run_id, None):
            if isinstance(error, PleinairError):
                self._end(call, error.spent, _fault(error.message))
            else:
                self._end(call, Usage(), _fault(f"{type(error).__name__}: {error}"))

    def _end(
        self, call: _Open, usage: Usage, error: str = "", tokens: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        seconds = time.perf_counter() - call.started
        usage = usage.model_copy(update={"seconds": seconds, "mllm_calls": 1, "images": 0})
        facts = {"usage": usage, "error": error, "finished": True, **tokens}
        call.record = call.record.model_copy(update=facts)
        self._write(call)
        with self._lock:
            self._done.append((call.record.step, call.record.number))

    def _update(self, call: _Open, **fields: Any) -> None:
        fields["seconds"] = time.perf_counter() - call.begun
        call.tries[-1] = call.tries[-1].model_copy(update=fields)
        self._write(call)

    def _write(self, call: _Open) -> None:
        record = call.record.model_copy(update={"tries": tuple(call.tries)})
        name = f"{record.number:04}.json"
        self._store(name, record.model_dump_json(exclude_defaults=True).encode())

    def _store(self, name: str, data: bytes) -> None:
        """Write a file, unless there is no room for it."""
        if self._full:
            return
        try:
            if self._bytes + len(data) > MOST_BYTES:
                raise PleinairError(f"The messages of MLLM calls take more than {MOST_BYTES} bytes.")
            self._files.write(f"{FOLDER}/{name}", data, durable=False)
            self._bytes += len(data)
        except PleinairError as error:
            self._full = True
            log.warning("%s Further messages of this run's MLLM calls are not stored.", error.message)

    def _message(self, message: BaseMessage | Mapping[str, Any]) -> Message:
        """Return a message of LangChain, of Chat Completions or of the Responses API."""
        source: Mapping[str, Any] = message if isinstance(message, Mapping) else _fields(message)
        content = source.get("content") or source.get("output") or ""
        beside = (str(source[key]) for key in _THOUGHTS if source.get(key) and isinstance(source[key], str))
        return Message(
            role=_text(str(source.get("role") or source.get("type") or "user")),
            parts=tuple(map(self._part, content if isinstance(content, list) else [content] * bool(content))),
            calls=_tool_calls(source),
            call_id=_text(str(source.get("tool_call_id") or source.get("call_id") or "")),
            thoughts=_text("\n".join(beside)),
        )

    def _part(self, block: Any) -> Part:
        if not isinstance(block, Mapping):
            return Part(text=_text(str(block)))
        if "text" in block:
            return Part(text=_text(str(block["text"])))
        link = block.get("image_url", "")
        link = str(link.get("url", "")) if isinstance(link, Mapping) else str(link)
        data = block.get("base64") or (link[start.end() :] if (start := _DATA.match(link)) else "")
        if data:
            with suppress(ValueError, TypeError):  # a reply can have anything
                return self._image(base64.b64decode(data))
        link = "" if _DATA.match(link) else link
        return Part(text=_text(link or json.dumps(_short(dict(block)), default=str)))

    def _image(self, data: bytes) -> Part:
        """Return an image by its name, after storing it unless the run has it."""
        name = hashlib.sha256(data).hexdigest()
        suffix = next((suffix for first, suffix in _SUFFIXES.items() if data.startswith(first)), "")
        width, height = _size(data) if suffix else (0, 0)
        if width and name not in self._images and not self._is_stored(name, suffix):
            self._store(f"{name}{suffix}", data)
        self._images.add(name)
        return Part(image=name, width=width, height=height)

    def _is_stored(self, name: str, suffix: str) -> bool:
        """Return whether the run has an image already; True where its storage does not answer."""
        try:
            places = (f"pictures/sha256/{name[:2]}/{name}.png", f"{FOLDER}/{name}{suffix}")
            return any(map(self._files.stamp, places))
        except PleinairError:
            return True


def _size(data: bytes) -> tuple[int, int]:
    """Return width and height of an image in pixels, 0 of one that cannot be opened."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0, 0


def _fields(message: BaseMessage) -> dict[str, Any]:
    """Return a message of LangChain in the form of Chat Completions."""
    calls = [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]
    return {
        **message.additional_kwargs,
        "role": _ROLES.get(message.type, message.type),
        "content": message.content,
        "tool_calls": [{"id": call["id"], "function": {**call, "arguments": call["args"]}} for call in calls],
        "tool_call_id": getattr(message, "tool_call_id", ""),
    }


def _tool_calls(source: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    calls = list(source.get("tool_calls") or ())
    if source.get("type") == "function_call":
        calls.append({"id": source.get("call_id"), "function": source})
    return tuple(
        ToolCall(
            name=_text(str(call["function"].get("name") or "")),
            arguments=_arguments(call["function"].get("arguments")),
            id=_text(str(call.get("id") or "")),
        )
        for call in calls
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
    )


def _arguments(arguments: Any) -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    return _text(text)


def _text(text: str) -> str:
    """Return a text of bounded length that JSON can hold, without the user of an address."""
    text = _CREDENTIALS.sub("***@", text).encode(errors="replace").decode()
    return (
        text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}… ({len(text) - MOST_TEXT} characters more)"
    )


def _fault(error: str) -> str:
    """Return the words of an error without keys and tokens."""
    return _text(_SECRET.sub(r"\1***", error))


def _short(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as JSON values, with bounded texts and without images."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return _text(_DATA.split(value)[0] + "…" if _DATA.match(value) else value)
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value if isinstance(value, bool | int | float | None) else str(value)

    return {key: plain(value) for key, value in options.items()}


def _usage(message: AIMessage | None) -> Usage:
    """Return tokens and price of a reply, as far as they are stated."""
    tokens = message.usage_metadata["total_tokens"] if message and message.usage_metadata else 0
    usd = message.response_metadata.get("usd", 0.0) if message else 0.0
    cached = cached_tokens(message.usage_metadata if message else None)
    return Usage(tokens=max(tokens, 0), cached_tokens=cached, usd=usd)


def _tokens(message: AIMessage | None) -> dict[str, int]:
    """Return the tokens of the input and the output, as far as they are stated."""
    stated = message.usage_metadata if message else None
    if not stated:
        return {}
    counts = {"input_tokens": stated["input_tokens"], "output_tokens": stated["output_tokens"]}
    return {name: max(count, 0) for name, count in counts.items()}
