"""Faults of a server, each with its outcome: an answer after another try, or an error that names the fault.

Cases 1 to 23 are about the transport, 24 to 32 about the reply's outer form, 33 to 47 about its content.
"""

import json
import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from PIL import Image
from support import fault_server as faults
from support.fault_server import Act, FaultServer, completion, error, playing, reply, says

from pleinair.agent.mllm.openai import chat
from pleinair.tools.errors import (
    BadReply,
    CutOff,
    EmptyAnswer,
    Filtered,
    InvalidAnswer,
    NoImages,
    TooLarge,
    Unavailable,
)
from pleinair.tools.http.openai_api import Server, TooLong, retry_after
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import PleinairError, Refused, Usage

KEY = "sk-secret-0123456789"
IMAGE = encode_png(Image.linear_gradient("L").resize((512, 512)))
YES = '{"match": true, "why": "as asked"}'
GOOD = says(YES)
TIMEOUT = 20.0  # seconds within which a busy machine answers
SLACK = 60.0  # seconds over a deadline, for a busy machine


class FakeClock:
    """Clock whose sleeps take no time but are added to it."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.waits, self.on_sleep = list[float](), on_sleep

    def now(self) -> float:
        return time.monotonic() + sum(self.waits)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_sleep()


@dataclass
class Call:
    """Outcome of one structured call."""

    answer: Decision | None
    error: PleinairError | None
    usage: Usage
    waits: list[float]
    seconds: float
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return str(self.error)


def call(
    url: str, patch: pytest.MonkeyPatch, clock: FakeClock | None = None, key: str = KEY, **settings: Any
) -> Call:
    clock = clock or FakeClock()
    patch.setenv("OPENAI_API_KEY", key)
    model = chat("m", base_url=url, **{"deadline": TIMEOUT, "silence": TIMEOUT} | settings)
    model.retry_policy = replace(model.retry_policy, clock=clock.now, sleep=clock.sleep)
    started, answer, fault = time.monotonic(), None, None
    try:
        answer, usage = ask(model, Decision, "Match?", {"prompt": "p"}, [IMAGE], calls=2)
    except PleinairError as error:
        fault, usage = error, error.spent
    return Call(answer, fault, usage, clock.waits, time.monotonic() - started)


@pytest.fixture
def ask_server(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[..., Call]:
    """Call a server that plays the acts, and check what every outcome must fulfil."""

    def ask_server(*acts: Act, deadline: float = TIMEOUT, silence: float = TIMEOUT) -> Call:
        with playing(*acts) as server, caplog.at_level(logging.DEBUG, "pleinair"):
            outcome = call(server.url, monkeypatch, deadline=deadline, silence=silence)
        assert (outcome.answer is None) is (outcome.error is not None)
        assert outcome.seconds < deadline + SLACK
        assert outcome.usage.tokens == server.tokens
        assert outcome.usage.mllm_calls in (1, 2)
        assert not [text for text in (*chain(outcome.error), caplog.text) if KEY in text]
        outcome.requests = [request.json for request in server.requests]
        return outcome

    return ask_server


def chain(error: BaseException | None) -> list[str]:
    """List the texts of an error and of all that a traceback shows with it."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return texts


POLICY = error(400, "Your request was rejected by our safety system.", "content_policy_violation")
QUOTA = error(429, "You exceeded your current quota.", "insufficient_quota")
HTML = b"<html><body>Bad gateway</body></html>"
BODY = json.dumps(completion(YES)).encode()
SHORT = faults.sends(faults.head(200, len(BODY) + 50) + BODY)
GIGABYTE = faults.sends(faults.head(200, 2**30) + b" " * 1000)

RECOVERS: dict[str, Act] = {
    "1 retry-after in seconds": error(429, retry_after="1"),
    "2 retry-after as a date": faults.later(429, 5),
    "4 no retry-after": error(429),
    "4 an answer that the server could not read": error(400, "Failed to call", "tool_use_failed"),
    "35 an error at the end": says('{"match": tr', "error"),
    "6 server error": error(500),
    "7 a page for an overloaded server": reply(503, HTML, content_type="text/html"),
    "8 timeout of the server": error(408),
    "8 conflict": error(409),
    "17 reset before the head": faults.reset(),
    "18 reset in the body": faults.reset(faults.head(200, len(BODY)) + BODY[:20]),
    "19 short body": SHORT,
    "24 a page instead of JSON": reply(200, HTML, content_type="text/html"),
    "25 broken JSON": reply(200, BODY[:-5]),
    "26 no body": reply(200),
    "27 no choice": faults.without("choices", []),
    "28 null for choices": faults.without("choices"),
    "29 an error as an answer": reply(200, {"error": {"message": "overloaded"}}),
    "29 a choice without a message": faults.without("choices", [{"index": 0}]),
    "36 empty": says(""),
    "36 null": says(None),
    "37 cut off": says('{"match": tr', "length"),
}


@pytest.mark.parametrize("act", RECOVERS.values(), ids=RECOVERS)
def test_a_passing_fault_is_tried_again(act: Act, ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(act, GOOD)
    assert outcome.answer == Decision(match=True, why="as asked"), outcome.error
    assert len(outcome.requests) == 2
    assert outcome.usage.mllm_calls == 1


STOPS: dict[str, tuple[Act, int, type[PleinairError], str]] = {
    "3 retry-after beyond the deadline": (error(429, retry_after="3600"), 1, Unavailable, "in 3600 s"),
    "4 never ready": (error(429), 3, Unavailable, "asks for fewer requests.*try 3 of 3"),
    "5 nothing left to spend": (QUOTA, 1, Unavailable, "has no credit left"),
    "6 always broken": (error(500), 3, Unavailable, "failed with status 500"),
    "9 wrong key": (error(401, f"Incorrect API key {KEY}"), 1, Unavailable, "key in OPENAI_API_KEY is not"),
    "9 forbidden": (error(403), 1, Unavailable, "OPENAI_API_KEY may not use 'm' at http://127"),
    "10 rejected": (error(400, "Unknown parameter."), 1, Unavailable, r"rejects .* Unknown parameter"),
    "10 nothing is left": (
        error(400, "no such response_format or tools"),
        4,
        Unavailable,
        r"rejects the request \(status 400\): no such",
    ),
    "10 no images": (error(400, "image_url is not supported"), 1, NoImages, "'m' at .* takes no images"),
    "11 against the provider's policy": (
        POLICY,
        1,
        Filtered,
        "filter of .* refused the request: Your",
    ),
    "12 no such model": (error(404, "m?"), 1, Unavailable, "no model 'm' at .*Check `mllm.model`"),
    "12 no such page": (reply(404, HTML), 1, Unavailable, "lacks its /v1"),
    "13 too large": (error(413), 2, TooLong, "too long for 'm', even with smaller images"),
    "13 too long": (error(400, "x", "context_length_exceeded"), 2, TooLong, "too long for 'm'"),
    "17 reset again and again": (faults.reset(), 3, Unavailable, r"connection to .* broke.*try 3 of 3"),
    "19 short again and again": (SHORT, 3, Unavailable, "connection to .* broke: peer closed"),
    "22 redirect": (
        reply(302, location="http://192.0.2.1/"),
        1,
        BadReply,
        "redirects elsewhere, to http://192.0.2.1/, and",
    ),
    "23 a gigabyte": (GIGABYTE, 1, TooLarge, "larger than 4 MiB"),
    "23 no end": (faults.endless, 1, TooLarge, "larger than 4 MiB"),
    "23 compressed, it says": (reply(200, BODY, content_encoding="gzip"), 2, BadReply, "be decompressed"),
    "23 compressed by what": (reply(200, BODY, content_encoding="lzw"), 2, BadReply, "reply by 'lzw'"),
    "23 a bomb": (
        reply(200, zlib.compress(b" " * 10**8), content_encoding="deflate"),
        1,
        TooLarge,
        "larger than 4 MiB",
    ),
    "24 pages instead of JSON": (reply(200, HTML), 2, BadReply, "is no JSON: .*Check .*`mllm.base_url`"),
    "25 broken JSON": (reply(200, BODY[:-5]), 2, BadReply, "is no JSON"),
    "25 a list": (reply(200, [1]), 2, BadReply, "is no JSON object"),
    "26 no body": (reply(200), 2, BadReply, "is no JSON: b''"),
    "27 no choice": (faults.without("choices", []), 3, Unavailable, "its reply has no choices.*try 3 of 3"),
    "28 no choices": (faults.without("choices"), 2, BadReply, "has no choices"),
    "28 null for choices": (
        reply(200, completion(YES) | {"choices": None}),
        3,
        Unavailable,
        "its reply has no choices",
    ),
    "29 an error as an answer": (
        reply(200, {"error": f"bad {KEY}"}),
        3,
        Unavailable,
        r"error as if .*bad \*\*\*",
    ),
    "29 an error with a status": (
        reply(200, {"error": {"code": 402, "message": "top up"}}),
        1,
        Unavailable,
        "no credit left.*top up",
    ),
    "29 an error in the choice": (
        faults.without("choices", [{"error": {"message": "upstream died", "code": 502}, "message": {}}]),
        3,
        Unavailable,
        "upstream died.*try 3 of 3",
    ),
    "33 refusal": (says(None, refusal="I must not."), 1, Refused, "^I must not.$"),
    "33 refusal beside an answer": (says(YES, refusal="I must not."), 1, Refused, "^I must not.$"),
    "34 refusal in prose": (says("I'm sorry, I can't."), 2, Refused, "^I'm sorry, I can't.$"),
    "35 filter": (says("", "content_filter"), 1, Filtered, "filter withheld"),
    "35 filter in other words": (says("", "SAFETY"), 1, Filtered, "filter withheld"),
    "35 filter by its status": (error(403, "m requires moderation"), 1, Filtered, "filter of .* refused"),
    "37 cut off in other words": (says(YES[:-1], "MAX_TOKENS"), 2, CutOff, "raise `mllm.max_tokens`"),
    "9 Gemini's wrong key": (
        reply(400, {"error": {"code": 400, "message": "bad", "details": [{"reason": "API_KEY_INVALID"}]}}),
        1,
        Unavailable,
        "key in OPENAI_API_KEY is not accepted",
    ),
    "36 empty": (says(""), 2, EmptyAnswer, "empty answer, twice"),
    "37 cut off": (says(YES[:-1], "length"), 2, CutOff, "cut off .*raise `mllm.max_tokens`"),
    "39 two answers": (says(f"{YES} {{'match': False}}"), 2, InvalidAnswer, "2 different answers"),
    "40 NaN": (says('{"match": NaN}'), 2, InvalidAnswer, "Out of range float"),
    "40 Infinity": (says('{"match": Infinity}'), 2, InvalidAnswer, "Out of range float"),
    "41 a key twice": (says('{"match": false, "match": true}'), 2, InvalidAnswer, "'match' comes twice"),
    "42 wrong type": (
        says('{"match": "perhaps"}'),
        2,
        InvalidAnswer,
        "match: Input should be a valid boolean",
    ),
    "44 out of range": (says('{"match": 1000000000000}'), 2, InvalidAnswer, "match: Input should be"),
    "46 nested": (says('{"a":' * 20_000 + "1" + "}" * 20_000), 2, InvalidAnswer, "nested too deep"),
    "47 ten megabytes": (reply(200, completion("x" * 10_000_000)), 1, TooLarge, "larger than 4 MiB"),
}


@pytest.mark.parametrize(("act", "requests", "kind", "text"), STOPS.values(), ids=STOPS)
def test_a_lasting_fault_has_its_own_error(
    act: Act, requests: int, kind: type[PleinairError], text: str, ask_server: Callable[..., Call]
) -> None:
    outcome = ask_server(act)
    assert type(outcome.error) is kind, outcome.error
    assert re.search(text, outcome.text), outcome.text
    assert len(outcome.requests) == requests


ACCEPTED: dict[str, Act] = {
    "30 unknown reason to end": says(YES, "eos"),
    "31 no reason to end": says(YES, None),
    "45 characters unfit for text": says(json.dumps({"match": True, "why": "as\ud800 \u202eask\x00ed"})),
}


@pytest.mark.parametrize("act", ACCEPTED.values(), ids=ACCEPTED)
def test_a_harmless_fault_is_accepted_with_a_warning(
    act: Act, ask_server: Callable[..., Call], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = ask_server(act)
    assert outcome.answer == Decision(match=True, why="as asked"), outcome.error
    assert len(outcome.requests) == 1
    assert [record.levelname for record in caplog.records if record.name.startswith("pleinair")] == [
        "WARNING"
    ]


READ: dict[str, Act] = {
    "37 cut off after its end": says(YES, "length"),
    "38 fenced": says(f"```json\n{YES}\n```"),
    "39 prose around JSON": says(f"Sure! {YES}"),
    "40 single quotes": says("{'match': true, 'why': 'as asked'}"),
    "42 a word for a truth value": says('{"match": "yes", "why": "as asked"}'),
    "43 extra field": says('{"match": true, "why": "as asked", "k": 1}'),
}


@pytest.mark.parametrize("act", READ.values(), ids=READ)
def test_wrapping_is_read_without_a_word(
    act: Act, ask_server: Callable[..., Call], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = ask_server(act)
    assert outcome.answer == Decision(match=True, why="as asked"), outcome.error
    assert len(outcome.requests) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -3, "completion_tokens": -4, "total_tokens": -7}])
def test_32_an_invalid_count_is_0(usage: Any, ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(faults.without("usage", usage))
    assert outcome.answer is not None
    assert outcome.usage.tokens == 0


INVALID = {name: act for name, (act, _, kind, _) in STOPS.items() if kind is InvalidAnswer or "prose" in name}


@pytest.mark.parametrize("act", INVALID.values(), ids=INVALID)
def test_an_invalid_answer_is_repaired_once(act: Act, ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(act, GOOD)
    assert outcome.answer == Decision(match=True, why="as asked")
    assert outcome.usage.mllm_calls == 2
    first, second = (request["messages"] for request in outcome.requests)
    *same, repair = second[-1]["content"]
    assert [*second[:-1], {**second[-1], "content": same}] == first  # so that a cache has all but the repair
    assert '"what_is_wrong_with_it"' in repair["text"]


def test_1_retry_after_is_obeyed(ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(error(429, retry_after="7"), error(503, retry_after="2.5"), GOOD)
    assert outcome.waits == [*[1] * 7, 1, 1, 0.5]


def test_2_retry_after_may_be_a_date(ask_server: Callable[..., Call]) -> None:
    assert 0 <= sum(ask_server(faults.later(429, 5), GOOD).waits) <= 5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header}, now=10) == seconds


@pytest.mark.parametrize(
    ("headers", "words", "seconds"),
    [
        ({"retry-after-ms": "300", "retry-after": "1"}, "", 0.3),
        ({}, "Rate limit reached. Please try again in 1.2s.", 1.2),
        ({}, "Please retry after 7 seconds.", 7),
        ({}, "{'retryDelay': '2s'}", 2),
        ({}, "try again in 6m0s", None),
        ({"retry-after": "5"}, "try again in 9s", 5),
    ],
)
def test_a_wait_may_be_in_other_places(headers: dict[str, str], words: str, seconds: float | None) -> None:
    assert retry_after(headers, words=words) == seconds


def test_4_pauses_grow_and_are_random(ask_server: Callable[..., Call]) -> None:
    first, second = ask_server(error(429), error(429), GOOD).waits
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_13_smaller_images_are_sent(ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(error(413), GOOD)
    assert outcome.answer is not None
    sizes = [len(request["messages"][-1]["content"][1]["image_url"]["url"]) for request in outcome.requests]
    assert sizes[1] < sizes[0] / 2


def test_14_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    outcome = call("http://models.example/v1", monkeypatch)
    assert type(outcome.error) is Unavailable
    assert "models.example/v1 cannot be resolved" in outcome.text
    assert len(outcome.waits) == 2


def test_a_proxy_of_the_environment_is_used_for_other_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with playing(GOOD) as proxy, playing(GOOD) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        outcome = call("http://models.example/v1", monkeypatch)
        assert outcome.answer == Decision(match=True, why="as asked") and len(proxy.requests) == 1
        assert call(server.url, monkeypatch).answer and len(proxy.requests) == 1
        monkeypatch.setenv("http_proxy", "socks5://me:secret@127.0.0.1:1")
        refused = call("http://models.example/v1", monkeypatch).error
    assert "the proxy '127.0.0.1:1': wanted http://" in str(refused) and "secret" not in str(refused)


def test_14_resolving_a_name_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(100))
    outcome = call("http://models.example/v1", monkeypatch, deadline=1)
    assert type(outcome.error) is Unavailable
    assert "within the 1 s of `mllm.deadline`" in outcome.text
    assert outcome.seconds < 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_15_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = call(f"http://127.0.0.1:{free_port()}/v1", monkeypatch)
    assert type(outcome.error) is Unavailable
    assert "Check that the server is running and that `mllm.base_url` is right." in outcome.text
    assert len(outcome.waits) == 2


def test_15_a_server_that_starts_between_two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    port, servers = free_port(), list[FaultServer]()
    clock = FakeClock(on_sleep=lambda: servers.append(FaultServer([GOOD], port)))
    try:
        outcome = call(f"http://127.0.0.1:{port}/v1", monkeypatch, clock)
        assert outcome.answer is not None
    finally:
        for server in servers:
            server.close()


def test_16_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=plain_answer, args=(listener,), daemon=True).start()
        outcome = call(f"https://127.0.0.1:{port}/v1", monkeypatch)
    assert type(outcome.error) is Unavailable
    assert "No safe connection to https://127.0.0.1" in outcome.text
    assert outcome.waits == []


def plain_answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_20_silence_is_tried_again(ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(faults.hang, GOOD, silence=1.0)
    assert outcome.answer is not None, outcome.error
    assert len(outcome.requests) == 2


def test_20_endless_silence_ends(ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(faults.hang, deadline=1.0, silence=0.3)
    assert type(outcome.error) is Unavailable


DRIPS = {
    "in the head": faults.drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "in the body": faults.drip_body,
    "in empty lines": faults.drip(b"\r\n"),
}


@pytest.mark.parametrize("act", DRIPS.values(), ids=DRIPS)
def test_21_a_drip_ends_at_the_deadline(act: Act, ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(act, deadline=1.0)
    assert type(outcome.error) in (Unavailable, BadReply)
    assert len(outcome.requests) <= 3


def test_37_the_second_answer_may_be_longer(ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(says("{", "length"), GOOD)
    assert outcome.answer is not None
    assert [request["max_tokens"] for request in outcome.requests] == [2048, 8192]


def response(*content: dict[str, Any], status: str = "completed", reason: str = "") -> Act:
    """Act: send a reply of the Responses API."""
    message = {"type": "message", "id": "m", "role": "assistant", "status": status, "content": content}
    body = {
        "id": "r",
        "object": "response",
        "created_at": 0,
        "model": "m",
        "status": status,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [message] if content else [],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }
    return reply(200, body)


PART = {"type": "output_text", "text": YES, "annotations": []}
RESPONSES: dict[str, tuple[Act, int, type[PleinairError] | None]] = {
    "an answer": (response(PART), 1, None),
    "a refusal": (response({"type": "refusal", "refusal": "I must not."}), 1, Refused),
    "cut off": (
        response(PART | {"text": YES[:-1]}, status="incomplete", reason="max_output_tokens"),
        2,
        CutOff,
    ),
    "cut off after its end": (response(PART, status="incomplete", reason="max_output_tokens"), 1, None),
    "cut off in thought": (response(status="incomplete", reason="max_output_tokens"), 2, CutOff),
    "filtered": (response(PART, status="incomplete", reason="content_filter"), 1, Filtered),
    "empty": (response(), 2, EmptyAnswer),
    "no output": (reply(200, {"id": "r", "object": "response"}), 2, BadReply),
    "prose around it": (response(PART | {"text": f"Sure! {YES}"}), 1, None),
    "no answer": (response(PART | {"text": "{}"}), 2, InvalidAnswer),
}


@pytest.mark.parametrize(("act", "requests", "kind"), RESPONSES.values(), ids=RESPONSES)
def test_the_responses_api_has_the_same_outcomes(
    act: Act, requests: int, kind: type[PleinairError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with playing(act) as server:
        outcome = call(server.url, monkeypatch, responses_api=True)
    assert (type(outcome.error) if outcome.error else None) is kind, outcome.error
    assert len(server.requests) == requests
    caps = [request.json["max_output_tokens"] for request in server.requests]
    assert caps == ([2048, 8192] if kind is CutOff else [2048] * requests)


def test_a_key_that_a_server_repeats_is_removed() -> None:
    server = Server("http://h/v1", "m", "OPENAI_API_KEY", "abc123def")
    quoted = server.quote("Bearer abcdef123 is bad;\n key abc123def, sk-proj-12345678 \u202e" + "x" * 900)
    assert "abc123def" not in quoted and "12345678" not in quoted and "abcdef123" not in quoted
    assert len(quoted) <= 300 and "\n" not in quoted and "\u202e" not in quoted
    assert "abc123def" not in repr(server)


def test_without_a_key_the_advice_is_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with playing(error(401, "Missing key")) as server:
        outcome = call(server.url, monkeypatch, key="")
    assert "needs a key. Set the environment variable OPENAI_API_KEY" in outcome.text


LOADING = error(503, "Loading model", code="503")


@pytest.mark.parametrize(
    "act", [LOADING, error(503, retry_after="4"), error(503, "The model is loading", "model_not_ready")]
)
def test_a_server_that_loads_its_model_is_waited_for(
    act: Act, ask_server: Callable[..., Call], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = ask_server(*[act] * 9, GOOD, deadline=180.0)
    assert outcome.answer is not None, outcome.error
    assert 10 < sum(outcome.waits) < 60 and outcome.usage.mllm_calls == 1
    assert len([record for record in caplog.records if "loading, waited for" in record.message]) == 1


def test_loading_without_an_end_ends_at_the_deadline(ask_server: Callable[..., Call]) -> None:
    outcome = ask_server(LOADING, deadline=20.0)
    assert type(outcome.error) is Unavailable
    assert 10 < sum(outcome.waits) < 30
    assert "within the 20 s of `mllm.deadline`" in outcome.text and "Loading model" in outcome.text


REFUSED: dict[str, list[Act]] = {
    "schemas": [error(400, "response_format is not supported")],
    "schemas and functions": [error(400, "response_format?"), error(400, "tools are not supported")],
    "all forms": [error(400, "response_format?"), error(400, "tools?"), error(400, "response_format?")],
    "the cap": [error(400, "Use max_completion_tokens instead of max_tokens")],
    "the size of the cap": [
        error(400, "max_tokens must be at most 512"),
        error(400, "max_tokens: at most 100"),
    ],
    "details": [
        reply(422, {"detail": [{"loc": ["body", "messages", 1, "image_url", "detail"], "msg": "x"}]})
    ],
    "strict": [reply(422, {"detail": [{"loc": ["body", "response_format", "json_schema", "strict"]}]})],
    "a system role": [error(400, "System role not supported")],
    "after a fault": [error(500), error(400, "response_format?"), error(429)],
}


@pytest.mark.parametrize("acts", REFUSED.values(), ids=REFUSED)
def test_what_a_server_refuses_is_left_out_for_good(
    acts: list[Act], ask_server: Callable[..., Call], caplog: pytest.LogCaptureFixture
) -> None:
    outcome = ask_server(*acts, GOOD)
    assert outcome.answer is not None, outcome.error
    assert len(outcome.requests) == len(acts) + 1
    assert outcome.usage.mllm_calls == 1 and not [wait for wait in outcome.waits if wait > 1]
    first, last = outcome.requests[0], outcome.requests[-1]
    assert first != last
    if "System role" in caplog.text:
        assert [message["role"] for message in last["messages"]] == ["user"]


def test_images_that_are_refused_are_told_at_once_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with playing(error(400, "m is not a multimodal model"), GOOD) as server:
        first, second = (call(server.url, monkeypatch) for _ in range(2))
    assert type(first.error) is type(second.error) is NoImages
    assert "The model 'm' at" in second.text and "takes no images" in second.text
    assert len(server.requests) == 1
