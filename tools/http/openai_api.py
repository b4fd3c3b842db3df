"""Servers with an OpenAI interface: how they are reached, and what their errors mean for a call."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from langchain_core.exceptions import ContextOverflowError

from pleinair.tools.errors import BadReply, Filtered, NoImages, TooLarge, Unavailable
from pleinair.tools.http.prices import Where
from pleinair.tools.http.refusals import refusal_of
from pleinair.tools.http.retry import CallFailure, Failures, RetryPolicy
from pleinair.tools.http.support import SUPPORT, Request, Support, describe, stepped_down
from pleinair.tools.http.transport import STATED, http_client
from pleinair.tools.mllm.ask import UNPRINTABLE
from pleinair.tools.types import BadInput, ModelFault, PleinairError

NO_KEY = "none"  # sent to a server that needs no key
_QUOTED = 300  # characters of a server's own words
_LISTED = 8  # models of a server that are named
GREETING = 10.0  # seconds for a server's list of models
_NO_LIST = {400, 403, 404, 405, 406, 410, 422, 501}  # statuses of servers without a list of models
_OWN_REFUSALS = {401, 403, 404}  # statuses of a wrong key, model or address, which another server may accept
_TIMED_OUT = {408, 504, 524}  # somebody gave up waiting for a server that may go on
_PASSING = {*_TIMED_OUT, 409, 425, 429}  # and every 5xx
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum context|prompt is too long|too many tokens", re.I
)
_POLICY = re.compile(
    r"content.?(policy|filter|management)|safety system|moderation|usage polic|data.?inspection", re.I
)
_QUOTA = re.compile(r"insufficient.?(quota|funds|balance)|billing", re.I)
_LOADING = re.compile(
    r"load(ing)? (the )?model|model (is )?(currently |still )?load|warming up|model.?not.?ready", re.I
)
_SECONDS = r"\d{1,9}(?:\.\d+)?"
_WAIT = re.compile(rf"(?:again in|retry after|retryDelay\W{{1,5}}) ?({_SECONDS}) ?s(?:ec|\b)", re.I)
_UNFIT = ("json_validate_failed", "tool_use_failed")  # Groq's codes of an answer that it could not parse
_SECRET = re.compile(r"\b(sk|pk|key|Bearer)([- ])[\w.*-]{6,}")
_PARTS = {"answers": "answers of that form", "cap": "such a cap of tokens", "roles": "such roles"}
# What reading a reply of the wrong form may raise inside langchain-openai and openai.
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, AssertionError)

log = logging.getLogger(__name__)


class TooLong(ModelFault):
    """The request does not fit into the model's context."""


@dataclass(frozen=True)
class Server:
    """Address, model and key of a server; the key is kept out of texts."""

    url: str
    model: str
    key_variable: str
    key: str = field(default="", repr=False)
    section: Where = "mllm"  # of the settings that it is of
    query: Mapping[str, str] = field(default_factory=dict)  # of every request

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers beside OpenAI's own: Azure reads the key from another one."""
        return {"api-key": self.key} if self.query and self.key else {}

    @property
    def support(self) -> Support:
        """Return what is known of what the server takes."""
        return SUPPORT.get(self.url, self.model)

    def learn(self, **facts: Any) -> None:
        """Remember fields of what the server takes."""
        SUPPORT.set(self.url, self.model, self.support.model_copy(update=facts))

    def quote(self, text: object) -> str:
        """Return a server's words on one line, short, and without the key."""
        plain = UNPRINTABLE.sub("", " ".join(str(text).split()))
        plain = plain.replace(self.key, "***") if self.key else plain
        return _SECRET.sub(r"\1\2***", plain)[:_QUOTED]

    def client(self, max_reply: int) -> openai.OpenAI:
        """Build openai's client with our transport, and no retries of its own."""
        return openai.OpenAI(
            api_key=self.key or NO_KEY,
            base_url=self.url,
            max_retries=0,
            http_client=http_client(max_reply),
            default_query=dict(self.query),
            default_headers=self.headers,
        )


def greet(server: Server, client: openai.OpenAI) -> str:
    """Return the model and its address, and what the server lists if the model is not there.

    It costs nothing. A server without a list is no fault. Raise what a call would.
    """
    names = listed_models(server, client)
    hint = "" if server.model in names else _not_listed(server, names)
    return f"{server.model} at {server.url}{hint}"


def listed_models(server: Server, client: openai.OpenAI) -> tuple[str, ...]:
    """Return the names of a server's models, in order; none of a server without a list.

    It costs nothing and takes at most ten seconds. Raise what a call would.
    """

    def send(_: Failures) -> tuple[str, ...]:
        try:
            return tuple(sorted(str(model.id) for model in client.models.list().data))
        except _MALFORMED:
            return ()
        except Exception as error:
            if isinstance(error, openai.APIStatusError) and error.status_code in _NO_LIST:
                return ()
            raise failure_of(error, server) from error

    return RetryPolicy(section=server.section, deadline=GREETING, tries=1).call(send)


def _not_listed(server: Server, names: Sequence[str]) -> str:
    """Return what a server lists instead of the model, near names if there are some; "" without a list."""
    if near := get_close_matches(server.model, names, n=3, cutoff=0.5):
        return f", which does not list it, but {server.quote(', '.join(near))}"
    listed = server.quote(", ".join(names[:_LISTED])) + (" …" if len(names) > _LISTED else "")
    return f", which lists only {listed}" if names else ""


def failure_of(error: Exception, server: Server, sent: Request | None = None) -> CallFailure:
    """Return what an error means for the call; raise again one of neither the client nor the server.

    Where the server refuses a part of what was `sent`, the server's support is changed for the next try.
    """
    if isinstance(error, PleinairError):  # of our transport
        again = isinstance(error, BadReply) and not isinstance(error, TooLarge)
        fault = error.reworded(server.quote(error.message))
        if again and not fault.remedy:
            fault.remedy = f"Check whether `{server.section}.base_url` is the address of OpenAI's interface."
        done = isinstance(error, BadReply)
        return CallFailure(fault, "once" if again else "never", may_be_done=done, of_server=again)
    if isinstance(error, ContextOverflowError) and not isinstance(error, openai.APIStatusError):
        return _too_long(server)
    if isinstance(error, openai.APIStatusError):
        return (sent and _refused_part(error, server, sent)) or _by_status(error, server)
    if isinstance(error, openai.APIConnectionError):
        return _unconnected(error, server)
    if isinstance(error, (openai.OpenAIError, *_MALFORMED)):
        reason = f"The reply of {server.url} cannot be read: {server.quote(error)}."
        return CallFailure(BadReply(reason), "once", may_be_done=True)
    raise error


def _refused_part(error: openai.APIStatusError, server: Server, sent: Request) -> CallFailure | None:
    """Step down from what the server refuses; None for another error, or where nothing is left to change."""
    words = _words(error, server)
    if error.code in _UNFIT:
        return CallFailure(BadReply(f"{server.url} could not read the model's answer: {words}"), "tries")
    refusal = refusal_of(error.status_code, error.body, sent, words)
    if refusal is None or (refusal.part != "cap" and _TOO_LONG.search(f"{error.code} {words}")):
        return None
    current = server.support
    if refusal.part == "images":
        server.learn(images=False)
        return CallFailure(no_images(server, words), of_server=True)
    support = stepped_down(current, refusal, sent)
    if support is None:
        return CallFailure(_no_tools(words, server)) if refusal.part == "tools" else None
    if support != current:
        server.learn(**dict(support))
        part = _PARTS.get(refusal.part, refusal.part)
        log.warning("%s takes no %s (%s); from now on: %s.", server.url, part, words, describe(support))
    return CallFailure(Unavailable(f"{server.url} rejects the request: {words}"), "changed", wait=0.0)


def no_images(server: Server, words: str = "") -> NoImages:
    """Return the error of a model that takes no images."""
    return NoImages(
        f"The model {server.model!r} at {server.url} takes no images{f' ({words})' if words else ''}",
        f"Choose one that does, by `{server.section}.model`: images are judged by it.",
    )


def _no_tools(words: str, server: Server) -> PleinairError:
    return Unavailable(
        f"The model {server.model!r} at {server.url} takes no tools: {words}",
        "Choose another model, or a graph that needs none, such as `pleinair`.",
    )


def _by_status(error: openai.APIStatusError, server: Server) -> CallFailure:
    """Read the status and the error object that came with it."""
    status, words, code = error.status_code, _words(error, server), f"{error.code} {error.type}"
    if _POLICY.search(code) or (status in (400, 403) and _POLICY.search(words)):
        return CallFailure(Filtered(f"The filter of {server.url} refused the request: {words}"))
    too_long = isinstance(error, ContextOverflowError) or status == 413
    too_long = too_long or bool(status in (400, 422) and _TOO_LONG.search(f"{code} {words}"))
    if too_long and server.section == "mllm":  # smaller images may fit
        return _too_long(server)
    if _QUOTA.search(code) or status == 402:
        return CallFailure(
            Unavailable(f"The account at {server.url} has no credit left: {words}"), of_server=True
        )
    if status in _PASSING or status >= 500:
        wait, late = retry_after(error.response.headers, words=str(error.body)), status in _TIMED_OUT
        loads = status == 503 and (wait is not None or _LOADING.search(f"{code} {words}"))
        fault = Unavailable(f"{server.url} {_trouble(error)}: {words}")
        return CallFailure(fault, "ready" if loads else "tries", wait=wait, may_be_done=late, of_server=True)
    rejected = _rejected(error, words, server)
    return CallFailure(rejected, of_server=status in _OWN_REFUSALS or 300 <= status < 400)


def _trouble(error: openai.APIStatusError) -> str:
    if error.status_code == 429:
        return "asks for fewer requests"
    if error.response.extensions.get(STATED):
        return "reports an error as if it were an answer"
    return f"failed with status {error.status_code}"


def _rejected(error: openai.APIStatusError, words: str, server: Server) -> PleinairError:
    """Return the error of a status that no other attempt would change."""
    status = 401 if "API_KEY_INVALID" in str(error.body) else error.status_code  # Gemini has 400
    url, section, variable = server.url, server.section, server.key_variable
    if status in (401, 403) and not server.key:
        return Unavailable(f"{url} needs a key.", f"Set the environment variable {variable}.")
    if status in (401, 403):
        trouble = "is not accepted" if status == 401 else f"may not use {server.model!r}"
        return Unavailable(f"The key in {variable} {trouble} at {url}: {words}", f"Check {variable}.")
    if status == 404:
        return Unavailable(
            f"There is no model {server.model!r} at {url}, or no such interface: {words}",
            f"Check `{section}.model`, and whether `{section}.base_url` lacks its /v1.",
        )
    if 300 <= status < 400:
        remedy = f"Check `{section}.base_url`."
        return BadReply(f"{url} redirects elsewhere{_target(error, server)}, and is not followed.", remedy)
    rejected = Unavailable if section == "mllm" else BadInput
    return rejected(f"{url} rejects the request (status {status}): {words}")


def _target(error: openai.APIStatusError, server: Server) -> str:
    location = error.response.headers.get("location", "")
    return f", to {server.quote(location)}" if location else ""


def _too_long(server: Server) -> CallFailure:
    error = TooLong(f"The request is too long for {server.model!r}, even with smaller images.")
    return CallFailure(error, "once", wait=0.0)


def _unconnected(error: openai.APIConnectionError, server: Server) -> CallFailure:
    """Return why there is no connection, and whether the server may have received the request."""
    url, section, cause = server.url, server.section, error.__cause__
    may_be_done = isinstance(cause, httpx2.ReadTimeout | httpx2.ReadError | httpx2.RemoteProtocolError)
    broken = server.quote(next((e for e in _causes(error) if not isinstance(e, openai.OpenAIError)), error))
    message, remedy = f"The connection to {url} broke: {broken.removesuffix('.')}.", ""
    if isinstance(error, openai.APITimeoutError):
        message = f"{url} did not answer in time; `{section}.deadline` limits a call."
    for source in _causes(error):
        if isinstance(source, ssl.SSLError):  # waiting does not help
            reason = server.quote(source.reason or source)
            remedy = "Check the address and its certificate."
            return CallFailure(Unavailable(f"No safe connection to {url}: {reason}.", remedy), of_server=True)
        if isinstance(source, socket.gaierror):
            message = f"The name in {url} cannot be resolved."
            remedy = f"Check `{section}.base_url` and the network."
        if isinstance(source, ConnectionRefusedError):
            message = f"Nothing answers at {url}."
            remedy = f"Check that the server is running and that `{section}.base_url` is right."
    return CallFailure(Unavailable(message, remedy), "tries", may_be_done=may_be_done, of_server=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _words(error: openai.APIStatusError, server: Server) -> str:
    """Return the server's own words; a page of HTML has none."""
    body: Any = error.body
    words = body
    if isinstance(body, dict):
        keys = ("message", "detail", "error", "msg", "errors")
        words = next((body[key] for key in keys if body.get(key)), None)
        metadata = body.get("metadata")
        if isinstance(metadata, dict) and metadata.get("raw"):  # of the provider behind OpenRouter
            words = f"{words}: {metadata['raw']}"
    if isinstance(words, bytes | type(None)) or "<html" in str(words).lower():
        return "it gave no reason."
    return server.quote(words)


def retry_after(headers: Mapping[str, str], now: float | None = None, words: str = "") -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where there are none.

    Also read are `retry-after-ms` and, without a header, the words of OpenAI, Groq, Azure and Gemini.
    """
    text, milliseconds = (headers.get(name, "").strip() for name in ("retry-after", "retry-after-ms"))
    if re.fullmatch(_SECONDS, milliseconds):
        return float(milliseconds) / 1000
    if re.fullmatch(_SECONDS, text):
        return float(text)
    if not text and (match := _WAIT.search(words)):
        return float(match[1])
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(then - (time.time() if now is None else now), 0.0)
