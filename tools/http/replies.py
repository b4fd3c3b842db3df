"""Replies of servers with OpenAI's interface, in the form that openai's client and langchain-openai expect.

Read are compressed bodies, event streams and blanks that nobody asked for, a list around an error, missing
roles and ids, content that is no text, arguments of tool calls as objects or lists, and counts of tokens that
are partial, null or negative. An error object in a reply of status 200 becomes an error with its own status.
The answer's text stays as it is.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from pleinair.tools.errors import BadReply, TooLarge

Json = dict[str, Any]

_REQUIRED_FIELDS = {  # by the end of the path
    "/chat/completions": "choices",
    "/responses": "output",
    "/images/generations": "data",
    "/images/edits": "data",
}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_OTHER_COUNTS = ("input_tokens", "output_tokens", "total_tokens")  # Anthropic's
# beside OpenAI's `prompt_tokens_details.cached_tokens`: DeepSeek's and Moonshot's
_OTHER_CACHED = ("prompt_cache_hit_tokens", "cached_tokens")
_BROKEN_GATEWAY = 502  # status of an error object that has none of its own


def decompressed(body: bytes, encodings: str, limit: int) -> bytes:
    """Undo the content encodings, the last first.

    Raises:
        TooLarge: there are more than `limit` bytes.
        BadReply: the body is damaged, or its encoding needs a package that is not installed.
    """
    encodings = encodings or ("gzip" if body.startswith(b"\x1f\x8b") else "")
    names = [name.strip().lower() for name in encodings.split(",")]
    for name in reversed([name for name in names if name not in ("", "identity")]):
        read = _DECODERS.get(name.removeprefix("x-"))
        if read is None:
            raise BadReply(f"The server compressed its reply by {name[:20]!r}, though it was asked not to.")
        try:
            body = read(body, limit + 1)
        except ImportError as error:
            reason = f"The server compressed its reply by {name!r}"
            raise BadReply(f"{reason}, which needs the package {error.name}.") from None
        except (zlib.error, ValueError, EOFError, OSError, RuntimeError) as error:
            raise BadReply(f"The server's reply cannot be decompressed: {str(error)[:80]}.") from None
        if len(body) > limit:
            raise too_large(limit)
    return body


def too_large(limit: int) -> TooLarge:
    """Return the error of a reply of more than `limit` bytes."""
    return TooLarge(f"The server's reply is larger than {limit / 2**20:.0f} MiB: not read further.")


def _inflate(data: bytes, limit: int) -> bytes:
    """Read gzip and zlib by their heads; without one it is raw deflate, which some servers send."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, limit)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)


def _zstandard(data: bytes, limit: int) -> bytes:
    library = import_module("zstandard")
    try:
        return bytes(library.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(limit))
    except library.ZstdError as error:
        raise ValueError(str(error)) from error


def _brotli(data: bytes, limit: int) -> bytes:
    library = import_module("brotli")
    try:
        return bytes(library.Decompressor().process(data, output_buffer_limit=limit))
    except library.error as error:
        raise ValueError(str(error)) from error


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _inflate,
    "deflate": _inflate,
    "zstd": _zstandard,
    "br": _brotli,
}


def normalised(path: str, status: int, body: bytes) -> tuple[int, bytes]:
    """Return status and body in the form that openai's client expects.

    Raises:
        BadReply: a reply of status 200 is none of the interface at `path`.
    """
    if status != 200:
        return status, _error_body(body)
    name = next((name for end, name in _REQUIRED_FIELDS.items() if path.endswith(end)), "")
    if not name:
        return status, body
    reply = _read(body, name)
    if error := _error_of(reply, name):
        return _status_of(error), json.dumps({"error": error}).encode()
    _check_items(reply, name, body)
    if name == "choices":
        _complete(reply)
    return status, json.dumps(reply).encode()


def _error_body(body: bytes) -> bytes:
    """Return the error in a list around it, as Gemini sends it."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return body
    first = error[0] if isinstance(error, list) and error else None
    return json.dumps(first).encode() if isinstance(first, dict) else body


def _read(body: bytes, name: str) -> Json:
    """Read the JSON object or the events of a stream, without blanks and the byte-order mark."""
    text = body.decode("utf-8-sig", errors="surrogateescape").strip("\0 \t\r\n")
    if name == "choices" and text.startswith((":", "data:", "event:", "id:", "retry:")):
        text = "\n".join(line for line in text.splitlines() if not line.startswith(":")).strip()
        if not text.startswith("{"):
            return _assembled(text)
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        raise BadReply(f"The server's reply is no JSON: {body[:60]!r}.") from None
    if isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    if not isinstance(reply, dict):
        raise BadReply(f"The server's reply is no JSON object: {body[:60]!r}.")
    return reply


def _assembled(text: str) -> Json:
    """Join the deltas of an event stream into one completion."""
    reply: Json = {}
    message: Json = {}
    finish = None
    for event in _events(text):
        if event.get("error"):
            return event
        reply |= {
            key: event[key] for key in ("id", "model", "created", "usage") if event.get(key) is not None
        }
        for choice in _dicts(event.get("choices"))[:1]:
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or choice.get("message")
            _add_delta(message, delta if isinstance(delta, dict) else {})
    choices = [{"index": 0, "message": message, "finish_reason": finish}] if message or finish else []
    return reply | {"choices": choices}


def _events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data in ("", "[DONE]"):
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise BadReply(f"An event of the server's reply is no JSON: {data[:60]!r}.") from None
        if isinstance(event, dict):
            yield event


def _add_delta(message: Json, delta: Json) -> None:
    """Append a delta: texts are joined, tool calls by their index, everything else is replaced."""
    for key, value in delta.items():
        if key == "tool_calls":
            _add_calls(message.setdefault(key, []), _dicts(value))
        elif isinstance(value, str) and key != "role":
            message[key] = (message.get(key) or "") + value
        elif isinstance(value, list):
            message[key] = [*(message.get(key) or []), *value]
        elif value is not None:
            message[key] = value


def _add_calls(calls: list[Json], deltas: list[Json]) -> None:
    for delta in deltas:
        index = delta.get("index")
        number = index if isinstance(index, int) and 0 <= index <= len(calls) else len(calls)
        if number == len(calls):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call, function = calls[number], delta.get("function")
        call["id"] = call["id"] or delta.get("id") or ""
        if isinstance(function, dict):
            joined, arguments = call["function"], function.get("arguments")
            joined["name"] = joined["name"] or function.get("name") or ""
            joined["arguments"] = joined["arguments"] + arguments if isinstance(arguments, str) else arguments


def _error_of(reply: Json, name: str) -> Json | None:
    """Return the error object of a reply or of its first choice, None where there is none."""
    choices = _dicts(reply.get("choices"))[:1]
    for part in (reply, *choices):
        if error := part.get("error"):
            return dict(error) if isinstance(error, dict) else {"message": str(error)}
    if choices and str(choices[0].get("finish_reason")) == "error" and not choices[0].get("message"):
        return {"message": "the provider ended the answer with an error and without a reason"}
    if name == "choices" and not choices and (reply.get("detail") or reply.get("object") == "error"):
        return {"message": str(reply.get("message") or reply.get("detail")), "code": reply.get("code")}
    if name == "choices" and "choices" in reply and not reply["choices"]:
        return {"message": "its reply has no choices"}
    return None


def _status_of(error: Json) -> int:
    """Return the HTTP status that an error object states in `code` or `status`, else 502."""
    for key in ("code", "status", "status_code"):
        text = str(error.get(key))
        if text.isdecimal() and 400 <= int(text) <= 599:
            return int(text)
    return _BROKEN_GATEWAY


def _check_items(reply: Json, name: str, body: bytes) -> None:
    items = reply.get(name)
    for choice in _dicts(items) if name == "choices" else []:
        # a stream's form, or that of text completions
        if not isinstance(choice.get("message"), dict) and (choice.get("delta") or choice.get("text")):
            choice["message"] = choice.get("delta") or {"content": choice.get("text")}
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadReply(f"The server's reply has no {name}: {body[:60]!r}.")
    if name == "choices" and not isinstance(items[0].get("message"), dict):
        raise BadReply(f"The server's reply has no choice with a message: {body[:60]!r}.")


def _complete(reply: Json) -> None:
    """Add what a completion lacks, and correct what openai's client could not read."""
    for key, default in (("id", ""), ("object", "chat.completion"), ("created", 0), ("model", "")):
        if reply.get(key) is None:
            reply[key] = default
    reply["usage"] = _usage(reply.get("usage"))
    for choice in reply["choices"]:
        message = choice.get("message")
        if isinstance(message, dict):
            message["role"] = "assistant"
            message["content"] = _content(message.get("content"))
            _complete_calls(message)


def _usage(usage: object) -> Json | None:
    """Return the counts that are whole numbers from 0, the total at least their sum; None where none is."""
    counts = usage if isinstance(usage, Mapping) else {}
    valid = {
        name: count
        for name, other in zip(_COUNTS, _OTHER_COUNTS, strict=True)
        if type(count := counts.get(name, counts.get(other))) is int and count >= 0
    }
    if not valid:
        return None
    read, written = valid.get("prompt_tokens", 0), valid.get("completion_tokens", 0)
    total = max(valid.get("total_tokens", 0), read + written)
    read = read if "prompt_tokens" in valid else total - written
    normal: Json = dict(zip(_COUNTS, (read, written, total), strict=True))
    cached = min(_cached(counts), read)
    return normal | ({"prompt_tokens_details": {"cached_tokens": cached}} if cached else {})


def _cached(counts: Mapping[str, Any]) -> int:
    """Return the tokens that were read from a cache; 0 where none are stated, or no whole number."""
    details = counts.get("prompt_tokens_details") or counts.get("input_tokens_details")
    stated = [details.get("cached_tokens")] if isinstance(details, Mapping) else []
    stated += [counts.get(name) for name in _OTHER_CACHED]
    return next((count for count in stated if type(count) is int and count > 0), 0)


def _content(content: Any) -> Any:
    """Return a content that langchain-openai can read: a text, or parts that have a type."""
    if isinstance(content, list):
        return [_part(part) for part in content if part is not None]
    return content if isinstance(content, str | None) else json.dumps(content)


def _part(part: Any) -> Any:
    text = part.get("text") if isinstance(part, dict) else None
    if isinstance(text, str) and part.get("type") in (None, "output_text"):
        return {"type": "text", "text": text}
    return part if isinstance(part, str | dict) else json.dumps(part)


def _complete_calls(message: Json) -> None:
    """Convert tool calls to one form: the name and the arguments, as text, under `function`."""
    calls = _dicts(message.get("tool_calls"))
    if not calls and isinstance(message.get("function_call"), dict):
        calls = [{"function": message["function_call"]}]
    message.pop("function_call", None)
    message.pop("tool_calls", None)
    calls = [_complete_call(call) for call in calls]
    if any(map(_has_list, calls)):
        message["content"] = json.dumps([call["function"] for call in calls])
    elif calls:
        message["tool_calls"] = calls


def _complete_call(call: Json) -> Json:
    function = call.get("function")
    function = function if isinstance(function, dict) else call
    arguments = function.get("arguments", function.get("parameters"))
    text = arguments if isinstance(arguments, str) else json.dumps({} if arguments is None else arguments)
    with suppress(ValueError, RecursionError):
        inner = json.loads(text)
        text = inner if isinstance(inner, str) else text  # encoded twice
    name, id = function.get("name"), call.get("id")
    return {
        "id": str(id) if id is not None else "",
        "type": "function",
        "function": {"name": str(name) if name is not None else "", "arguments": text},
    }


def _has_list(call: Json) -> bool:
    """Return whether the arguments of a tool call are a list, which no message of LangChain can hold."""
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(call["function"]["arguments"]), list)
    return False


def _dicts(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
