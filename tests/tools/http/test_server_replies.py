"""Replies in other forms than asked for: each is read as the plain one would be."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from pleinair.tools.errors import BadReply, TooLarge
from pleinair.tools.http.replies import decompressed, normalised

CHAT = "/v1/chat/completions"
TEXT = "Übung ✓"
DONE = {"choices": [{"index": 0, "message": {"content": TEXT}, "finish_reason": "stop"}]}


def read(body: bytes | Any, path: str = CHAT) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, text = normalised(path, 200, data)
    return status, json.loads(text)


def message(body: bytes | Any) -> dict[str, Any]:
    status, reply = read(body)
    assert status == 200
    return dict(reply["choices"][0]["message"])


def events(*deltas: dict[str, Any], last: str = "[DONE]") -> bytes:
    parts: list[dict[str, Any]] = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    parts.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    lines = [f"data: {json.dumps(part)}\n\n" for part in parts]
    return (": keep-alive\n\n" + "".join(lines) + f"data: {last}\n\n").encode()


PLAIN = json.dumps(DONE).encode()
WRAPPED: dict[str, bytes] = {
    "plain": PLAIN,
    "blanks before it": b"\n\n  \r\n" * 50 + PLAIN,
    "comments before it": b": PROCESSING\n\n: PROCESSING\n\n" + PLAIN,
    "a byte-order mark": b"\xef\xbb\xbf" + PLAIN,
    "a list around it": b"[" + PLAIN + b"]",
    "a text completion": json.dumps({"choices": [{"text": TEXT, "finish_reason": "stop"}]}).encode(),
    "a delta": json.dumps(
        {"choices": [{"message": None, "delta": {"content": TEXT}, "finish_reason": "stop"}]}
    ).encode(),
    "a stream": events({"role": "assistant"}, {"content": TEXT[:3]}, {"content": TEXT[3:]}),
    "a stream with carriage returns": events({"content": TEXT}).replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("body", WRAPPED.values(), ids=WRAPPED)
def test_the_wrapping_is_taken_off(body: bytes) -> None:
    status, reply = read(body)
    assert status == 200
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": TEXT}
    assert reply["choices"][0]["finish_reason"] == "stop"


def test_a_streams_tool_calls_and_usage_are_joined() -> None:
    first = {"index": 0, "id": "a", "function": {"name": "generate", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"re', 'pairs": []}')]
    other = {"index": 1, "id": "b", "function": {"name": "finish", "arguments": "{}"}}
    calls = [{"tool_calls": [call]} for call in (first, *rest, other)]
    _, reply = read(events(*calls, {"reasoning_content": "hm"}))
    joined = reply["choices"][0]["message"]
    assert [(call["id"], call["function"]) for call in joined["tool_calls"]] == [
        ("a", {"name": "generate", "arguments": '{"repairs": []}'}),
        ("b", {"name": "finish", "arguments": "{}"}),
    ]
    assert joined["reasoning_content"] == "hm"
    assert reply["usage"]["total_tokens"] == 5


@pytest.mark.parametrize(
    ("call", "function"),
    [
        ({"function": {"name": "f", "arguments": {"a": 1}}}, {"name": "f", "arguments": '{"a": 1}'}),
        ({"id": None, "name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": '{"a": 1}'}),
        ({"function": {"name": "f", "parameters": {"a": 1}}}, {"name": "f", "arguments": '{"a": 1}'}),
        (
            {"function": {"name": "f", "arguments": json.dumps('{"a": 1}')}},
            {"name": "f", "arguments": '{"a": 1}'},
        ),
        ({"function": {"name": "f", "arguments": None}}, {"name": "f", "arguments": "{}"}),
        ({"function": {"name": None, "arguments": "{"}}, {"name": "", "arguments": "{"}),
    ],
)
def test_a_tool_call_has_one_form(call: dict[str, Any], function: dict[str, str]) -> None:
    (read_call,) = message({"choices": [{"message": {"content": None, "tool_calls": [call]}}]})["tool_calls"]
    assert read_call == {"id": "", "type": "function", "function": function}


def test_the_older_function_call_is_a_tool_call() -> None:
    old = {"choices": [{"message": {"function_call": {"name": "f", "arguments": "{}"}}}]}
    assert message(old)["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, None),
        ("many", None),
        ({"prompt_tokens": -3, "completion_tokens": None, "total_tokens": "7"}, None),
        ({"prompt_tokens": 3, "completion_tokens": -4, "total_tokens": -1}, (3, 0, 3)),
        ({"total_tokens": 7}, (7, 0, 7)),
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2, 5)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 0}, (3, 2, 5)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9}, (3, 2, 9)),
        ({"prompt_tokens": True, "completion_tokens": 2.5}, None),
    ],
)
def test_counts_are_never_negative(usage: Any, counts: tuple[int, int, int] | None) -> None:
    reply = read(DONE | {"usage": usage})[1]["usage"]
    assert (tuple(reply.values()) if reply else reply) == counts


@pytest.mark.parametrize(
    ("stated", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 3}}, 3),
        ({"input_tokens_details": {"cached_tokens": 3}}, 3),
        ({"prompt_cache_hit_tokens": 3}, 3),
        ({"cached_tokens": 3}, 3),
        ({"prompt_tokens_details": {"cached_tokens": 99}}, 5),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, 0),
        ({"prompt_tokens_details": {"cached_tokens": "3"}}, 0),
        ({"prompt_tokens_details": None}, 0),
        ({"prompt_tokens_details": [3]}, 0),
    ],
)
def test_cached_tokens_are_read_in_every_dialect(stated: dict[str, Any], cached: int) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6} | stated
    reply = read(DONE | {"usage": usage})[1]["usage"]
    assert reply.get("prompt_tokens_details", {}).get("cached_tokens", 0) == cached


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"error": {"message": "busy", "code": 429}}, 429, "busy"),
        ({"error": {"message": "busy", "code": "rate_limit"}}, 502, "busy"),
        ({"error": "busy"}, 502, "busy"),
        ([{"error": {"message": "busy", "code": 400, "status": "INVALID_ARGUMENT"}}], 400, "busy"),
        ({"choices": [{"error": {"message": "busy", "code": 503}, "finish_reason": "error"}]}, 503, "busy"),
        ({"choices": [{"finish_reason": "error"}]}, 502, "without a reason"),
        ({"choices": []}, 502, "no choices"),
        ({"choices": None}, 502, "no choices"),
        ({"object": "error", "message": "busy", "code": 400}, 400, "busy"),
        (b'data: {"error": {"message": "busy", "code": 529}}\n\n', 529, "busy"),
    ],
)
def test_an_error_as_an_answer_gets_its_status(body: Any, status: int, words: str) -> None:
    found, reply = read(body)
    assert found == status
    assert words in reply["error"]["message"]


def test_an_error_in_a_list_is_taken_out() -> None:
    assert normalised(CHAT, 400, b'[{"error": {"code": 400}}]') == (400, b'{"error": {"code": 400}}')
    assert normalised(CHAT, 500, b"<html>") == (500, b"<html>")


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"data: {\n\n", {"choices": 3}, {"choices": [{}]}])
def test_what_is_no_reply_is_told(body: Any) -> None:
    with pytest.raises(BadReply):
        read(body)


def _raw_deflate(data: bytes) -> bytes:
    work = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return work.compress(data) + work.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "gzip, unsaid": ("", gzip.compress),
    "older name": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", _raw_deflate),
    "zstd": ("zstd", lambda data: zstandard.ZstdCompressor().compress(data)),
    "twice": ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
}


@pytest.mark.parametrize(("encoding", "pack"), PACKED.values(), ids=PACKED)
def test_a_compressed_body_is_read_up_to_the_limit(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert decompressed(pack(PLAIN), encoding, 1000) == PLAIN
    if encoding not in ("identity", ""):
        with pytest.raises(TooLarge):
            decompressed(pack(b" " * 10**7), encoding, 10**6)
        with pytest.raises(BadReply, match="decompressed"):
            decompressed(b"no such data" * 9, encoding, 1000)


def test_brotli_is_read_where_its_package_is_installed() -> None:
    try:
        import brotli  # type: ignore[import-not-found]
    except ImportError:
        with pytest.raises(BadReply, match="which needs the package brotli"):
            decompressed(b"x", "br", 1000)
    else:
        assert decompressed(brotli.compress(PLAIN), "br", 1000) == PLAIN
