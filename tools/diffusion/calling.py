"""A call to an images server: who makes it, how often it is tried, and how it is stopped.

A call is repeated only where no picture can have been made and charged for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pleinair.tools.diffusion.refusals import Passing
from pleinair.tools.faults import Unavailable
from pleinair.tools.types import OnStep
from pleinair.tools.watching import Stopper

LARGEST = 64 * 2**20  # bytes of a reply: pictures of 4K in base64
MOMENT = 1.0  # seconds between two looks whether to stop

Result = TypeVar("Result")


def client(base_url: str, key: str) -> Any:
    """Make openai's client with our own way to the server, and no tries of its own."""
    import httpx2
    from openai import OpenAI

    from pleinair.tools.wire import Wire

    way = httpx2.Client(transport=Wire(LARGEST), headers={"accept-encoding": "identity"})
    return OpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=way)


def within(seconds: float, stopped: Callable[[], None], send: Callable[[], Result]) -> Result:
    """Send what is all over after so many seconds; what `stopped` raises, at any time, ends it too."""
    from pleinair.tools.punctual import REMAINING, STOPPED

    ends = time.monotonic() + seconds
    before, ear = REMAINING.set(lambda: ends - time.monotonic()), STOPPED.set(stopped)
    try:
        return send()
    finally:
        REMAINING.reset(before)
        STOPPED.reset(ear)


def persist(
    send: Callable[[], Result],
    *,
    tries: int,
    deadline: float,
    on_step: OnStep,
    sleep: Callable[[float], None],
) -> Result:
    """Call `send` until it gives a picture, within the tries and the deadline in seconds.

    `on_step` is told (0, 1) before each try, and asked every second of a wait, where it may raise to stop.
    Raises `Unavailable` after the last try, and what `send` raises besides `Passing`.
    """
    ask = on_step.check if isinstance(on_step, Stopper) else lambda: on_step(0, 1)
    ends = time.monotonic() + deadline
    for number in range(1, tries + 1):
        on_step(0, 1)
        try:
            return within(max(ends - time.monotonic(), 0.1), seldom(ask), send)
        except Passing as fault:
            pause = fault.wait if fault.wait is not None else 2.0 ** (number - 1)
            if number == tries or time.monotonic() + pause > ends:
                raise Unavailable(f"{fault} Tried {number} times.") from fault
        for moment in moments(pause):
            sleep(moment)
            ask()
    raise AssertionError("the last try returns or raises")


def moments(seconds: float) -> Iterator[float]:
    """Cut a pause into pieces of a second."""
    while seconds > 0:
        yield min(seconds, MOMENT)
        seconds -= MOMENT


def seldom(tell: Callable[[], None]) -> Callable[[], None]:
    """Make something that may be called often and tells only once a second."""
    last = time.monotonic()

    def heard() -> None:
        nonlocal last
        if time.monotonic() - last >= MOMENT:
            last = time.monotonic()
            tell()

    return heard
