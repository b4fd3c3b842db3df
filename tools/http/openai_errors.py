"""What an images server's refusal means: what may pass by itself, and what to do about the rest."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import openai
from langchain_core.exceptions import ContextOverflowError

from pleinair.tools.errors import BadReply, Filtered, TooLarge, Unavailable
from pleinair.tools.http.addresses import pause_asked
from pleinair.tools.http.retry import Passing, Plan, Setback
from pleinair.tools.mllm.ask import UNFIT
from pleinair.tools.types import BadInput, ModelFault, PleinairError

if TYPE_CHECKING:
    from openai import APIConnectionError, OpenAIError


BLOCKED = ("moderation_blocked", "content_policy_violation", "content_filter")
SPENT = ("insufficient_quota", "billing_hard_limit_reached")
LONGEST = 120.0  # seconds that a server may ask us to wait
GATEWAY = (504, 524)  # a proxy gave up waiting for a server that may go on
MAYBE = "The picture may have been made and charged for, so it is not asked for again by itself."


def explain(error: OpenAIError, model: str, url: str, key_variable: str) -> PleinairError:
    """Turn an error of the client into ours: 429, 5xx and servers out of reach pass, all else lasts."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIConnectionError):
        return _image_server_unconnected(error, url)
    if not isinstance(error, APIStatusError):
        return BadReply(f"{url} sent a reply that cannot be read: {error}")
    said, code, status = str(error.message)[:300], str(error.code or ""), error.status_code
    if code in BLOCKED:
        return Filtered(f"The filter of {url} declined the picture: {said}")
    if status == 429 and code not in SPENT:
        return Passing(f"{url} asks for fewer requests: {said}", _seconds(error.response.headers))
    if status in GATEWAY:
        return Unavailable(f"{url} failed with {status}: {said} {MAYBE}")
    if status >= 500:
        return Passing(f"{url} failed with {status}: {said}", _seconds(error.response.headers))
    return _lasting(status, code, said, model, url, key_variable)


def _image_server_unconnected(error: APIConnectionError, url: str) -> PleinairError:
    """Tell a server that was never asked from one that may have heard the request, and fell silent."""
    import httpx2

    cause = error.__cause__
    if isinstance(cause, httpx2.ReadTimeout):
        return Unavailable(f"{url} did not answer within `generator.deadline`. {MAYBE}")
    if isinstance(cause, httpx2.ReadError | httpx2.RemoteProtocolError):
        return Unavailable(f"The connection to {url} broke: {cause}. {MAYBE}")
    if isinstance(cause, httpx2.TimeoutException):
        return Passing(f"{url} took no request in time.")
    why = cause or error
    return Passing(f"{url} cannot be reached: {why}. Is the server running, and generator.base_url right?")


def _lasting(status: int, code: str, said: str, model: str, url: str, key_variable: str) -> PleinairError:
    """Explain a refusal that no repetition would change."""
    if code in SPENT:
        return Unavailable(f"The account at {url} has no credit left: {said}")
    if status in (401, 403):
        return Unavailable(f"{url} took no key from {key_variable}, or it may not use {model!r}: {said}")
    if status == 404:
        return Unavailable(
            f"{url} knows no model {model!r} or has no images API; set generator.model: {said}"
        )
    return BadInput(f"{url} called the request wrong ({status}): {said}")


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After, as seconds or as a date: at most two minutes."""
    asked = pause_asked(headers)
    return None if asked is None else min(asked, LONGEST)


OFFICIAL = "https://api.openai.com/v1"
QUOTED = 300  # characters of a server's own words
SMALLER = 2  # by this a picture's side is divided when the question is too long
PASSING = {408, 409, 425, 429}  # and every 5xx
TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum context|prompt is too long|too many tokens", re.I
)
POLICY = re.compile(r"content.?(policy|filter|management)|safety system|moderation|usage polic", re.I)
QUOTA = re.compile(r"insufficient.?(quota|funds|balance)|billing", re.I)
SECRET = re.compile(r"\b(sk|pk|key|Bearer)([- ])[\w.*-]{6,}")
# What reading a reply of the wrong form may raise inside langchain-openai and openai.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, AssertionError)


@dataclass(frozen=True)
class Server:
    """Say who is asked for what; the key is there to be kept out of texts."""

    url: str
    model: str
    key_variable: str
    key: str = field(default="", repr=False)

    def quote(self, text: object) -> str:
        """Repeat a server's words: on one line, short, and without the key."""
        plain = UNFIT.sub("", " ".join(str(text).split()))
        plain = plain.replace(self.key, "***") if self.key else plain
        return SECRET.sub(r"\1\2***", plain)[:QUOTED]


def setback(error: Exception, server: Server) -> Setback:
    """Say what an error means for the call; one that is none of the service's is raised again."""
    if isinstance(error, PleinairError):
        return _passed(error, server)
    if isinstance(error, ContextOverflowError):
        return _too_long(server)
    if isinstance(error, openai.APIStatusError):
        return _by_status(error, server)
    if isinstance(error, openai.APITimeoutError):
        return Setback(Unavailable(f"{server.url} did not answer in time."), "tries")
    if isinstance(error, openai.APIConnectionError):
        return _unconnected(error, server)
    if isinstance(error, MALFORMED):
        reason = f"The reply of {server.url} cannot be read: {server.quote(error)}."
        return Setback(BadReply(reason), "once")
    raise error


def _passed(error: PleinairError, server: Server) -> Setback:
    """Take a fault that the wire has named; a malformed reply may come out well the second time."""
    again = isinstance(error, BadReply) and not isinstance(error, TooLarge)
    return Setback(type(error)(server.quote(error)), "once" if again else "never")


def _by_status(error: openai.APIStatusError, server: Server) -> Setback:
    """Read the status and the error object that came with it."""
    status, words, code = error.status_code, said(error, server), f"{error.code} {error.type}"
    if status in (401, 403):
        return Setback(_unwelcome(status, words, server))
    if POLICY.search(code) or (status == 400 and POLICY.search(words)):
        return Setback(Filtered(f"The provider refused the question: {words}"))
    if status == 413 or (status in (400, 422) and TOO_LONG.search(f"{code} {words}")):
        return _too_long(server)
    if QUOTA.search(code) or status == 402:
        return Setback(Unavailable(f"The account at {server.url} has nothing left to spend: {words}"))
    if status in PASSING or status >= 500:
        name = "takes no more questions just now" if status == 429 else f"has trouble (status {status})"
        return Setback(
            Unavailable(f"{server.url} {name}: {words}"), "tries", wait=pause_asked(error.response.headers)
        )
    return Setback(_turned_down(status, words, server))


def _unwelcome(status: int, words: str, server: Server) -> PleinairError:
    """Say what is wrong with the key."""
    if not server.key:
        return Unavailable(f"{server.url} wants a key: set the environment variable {server.key_variable}.")
    may = "is not accepted" if status == 401 else f"may not use {server.model!r}"
    return Unavailable(f"The key in {server.key_variable} {may} at {server.url}: check it. {words}".strip())


def _turned_down(status: int, words: str, server: Server) -> PleinairError:
    """Say what no second try would change."""
    if status == 404:
        return Unavailable(
            f"There is no model {server.model!r} at {server.url}: check `mllm.model`, and whether "
            f"`mllm.base_url` lacks its /v1. {words}"
        )
    if 300 <= status < 400:
        return BadReply(f"{server.url} redirects elsewhere, and is not followed: check `mllm.base_url`.")
    hints = {
        "response_format": " Try `mllm.answers = function_calling`.",
        "temperature": " Try `mllm.sends_temperature = false`.",
    }
    hint = next((hint for word, hint in hints.items() if word in words), "")
    return Unavailable(f"{server.url} rejects the question (status {status}): {words}{hint}")


def _too_long(server: Server) -> Setback:
    """Shrink the pictures once; what is then still too long is given up."""

    def shrink(plan: Plan) -> Plan:
        return replace(plan, side=max(plan.side // SMALLER, 1))

    fault = TooLong(f"The question is too long for {server.model!r}, even with smaller pictures.")
    return Setback(fault, "once", change=shrink)


class TooLong(ModelFault):
    """The question does not fit into the model's context."""


def _unconnected(error: openai.APIConnectionError, server: Server) -> Setback:
    """Find out why there is no connection; a broken certificate mends itself by no waiting."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            why = server.quote(cause.reason or cause)
            return Setback(
                Unavailable(
                    f"No safe connection to {server.url}: {why}. Check the address and its certificate."
                )
            )
        if isinstance(cause, socket.gaierror):
            text = f"The name in {server.url} cannot be looked up: check `mllm.base_url` and the network."
            return Setback(Unavailable(text), "tries")
        if isinstance(cause, ConnectionRefusedError):
            text = f"Nothing answers at {server.url}: is the server running there?"
            return Setback(Unavailable(text), "tries")
    why = server.quote(error.__cause__ or error)
    return Setback(Unavailable(f"The connection to {server.url} broke: {why}."), "tries")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give what an error came from, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def said(error: openai.APIStatusError, server: Server) -> str:
    """Give the server's own words; a page of HTML has none."""
    body: Any = error.body
    words = body.get("message") if isinstance(body, dict) else body
    if isinstance(words, bytes | type(None)) or "<html" in str(words).lower():
        return "it gave no reason."
    return server.quote(words)
