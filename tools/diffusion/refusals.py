"""What an images server's refusal means: what may pass by itself, and what to do about the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.tools.faults import BadReply, Filtered, Unavailable
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from openai import OpenAIError

BLOCKED = ("moderation_blocked", "content_policy_violation", "content_filter")
SPENT = ("insufficient_quota", "billing_hard_limit_reached")
LONGEST = 120.0  # seconds that a server may ask us to wait


class Passing(PleinairError):
    """A fault that may pass by itself; `wait` is how long the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def explain(error: OpenAIError, model: str, url: str, key_variable: str) -> PleinairError:
    """Turn an error of the client into ours: 429, 5xx and lost connections pass, all else is told at once."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return Passing(f"{url} did not answer in time.")
    if isinstance(error, APIConnectionError):
        return Passing(
            f"{url} cannot be reached: {error}. Is the server running, and generator.base_url right?"
        )
    if not isinstance(error, APIStatusError):
        return BadReply(f"{url} sent a reply that cannot be read: {error}")
    said, code, status = str(error.message)[:300], str(error.code or ""), error.status_code
    if code in BLOCKED:
        return Filtered(f"The filter of {url} declined the picture: {said}")
    if status == 429 and code not in SPENT:
        return Passing(f"{url} asks for fewer requests: {said}", seconds(error.response.headers))
    if status >= 500:
        return Passing(f"{url} failed with {status}: {said}", seconds(error.response.headers))
    return lasting(status, code, said, model, url, key_variable)


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


def seconds(headers: object) -> float | None:
    """Read Retry-After in seconds, at most two minutes; a date is not read."""
    text = getattr(headers, "get", lambda _: None)("retry-after")
    try:
        return min(max(float(text), 0.0), LONGEST) if text else None
    except ValueError:
        return None
