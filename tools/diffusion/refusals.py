"""What an images server's refusal means: what may pass by itself, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pleinair.tools.addresses import pause_asked
from pleinair.tools.faults import BadReply, Filtered, Unavailable
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from openai import APIConnectionError, OpenAIError

BLOCKED = ("moderation_blocked", "content_policy_violation", "content_filter")
SPENT = ("insufficient_quota", "billing_hard_limit_reached")
LONGEST = 120.0  # seconds that a server may ask us to wait
GATEWAY = (504, 524)  # a proxy gave up waiting for a server that may go on
MAYBE = "The picture may have been made and charged for, so it is not asked for again by itself."


class Passing(PleinairError):
    """A fault that may pass by itself; `wait` is how long the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def explain(error: OpenAIError, model: str, url: str, key_variable: str) -> PleinairError:
    """Turn an error of the client into ours: 429, 5xx and servers out of reach pass, all else lasts."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIConnectionError):
        return unconnected(error, url)
    if not isinstance(error, APIStatusError):
        return BadReply(f"{url} sent a reply that cannot be read: {error}")
    said, code, status = str(error.message)[:300], str(error.code or ""), error.status_code
    if code in BLOCKED:
        return Filtered(f"The filter of {url} declined the picture: {said}")
    if status == 429 and code not in SPENT:
        return Passing(f"{url} asks for fewer requests: {said}", seconds(error.response.headers))
    if status in GATEWAY:
        return Unavailable(f"{url} failed with {status}: {said} {MAYBE}")
    if status >= 500:
        return Passing(f"{url} failed with {status}: {said}", seconds(error.response.headers))
    return lasting(status, code, said, model, url, key_variable)


def unconnected(error: APIConnectionError, url: str) -> PleinairError:
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


def lasting(status: int, code: str, said: str, model: str, url: str, key_variable: str) -> PleinairError:
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


def seconds(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After, as seconds or as a date: at most two minutes."""
    asked = pause_asked(headers)
    return None if asked is None else min(asked, LONGEST)
