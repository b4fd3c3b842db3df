"""A call to an images server: who makes it, how often it is tried, and how it is stopped.

A call is repeated only where no picture can have been made and charged for.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeVar

from pleinair.tools.callbacks import StopCallback
from pleinair.tools.errors import Unavailable
from pleinair.tools.http.deadline import REMAINING
from pleinair.tools.types import OnStep, PleinairError

LARGEST = 64 * 2**20  # bytes of a reply: pictures of 4K in base64
MOMENT = 1.0  # seconds between two looks whether to stop

Result = TypeVar("Result")


class Passing(PleinairError):
    """A fault that may pass by itself; `wait` is how long the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def client(base_url: str, key: str) -> Any:
    """Make openai's client with our own way to the server, and no tries of its own."""
    import httpx2
    from openai import OpenAI

    from pleinair.tools.http.transport import Wire

    way = httpx2.Client(transport=Wire(LARGEST), headers={"accept-encoding": "identity"})
    return OpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=way)


def within(seconds: float, stopped: Callable[[], None], send: Callable[[], Result]) -> Result:
    """Send what is all over after so many seconds; what `stopped` raises, at any time, ends it too."""
    from pleinair.tools.http.deadline import REMAINING, STOPPED

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
    ask = on_step.check if isinstance(on_step, StopCallback) else lambda: on_step(0, 1)
    ends = time.monotonic() + deadline
    for number in range(1, tries + 1):
        on_step(0, 1)
        try:
            return within(max(ends - time.monotonic(), 0.1), _seldom(ask), send)
        except Passing as fault:
            pause = fault.wait if fault.wait is not None else 2.0 ** (number - 1)
            if number == tries or time.monotonic() + pause > ends:
                raise Unavailable(f"{fault} Tried {number} times.") from fault
        for moment in _moments(pause):
            sleep(moment)
            ask()
    raise AssertionError("the last try returns or raises")


def _moments(seconds: float) -> Iterator[float]:
    """Cut a pause into pieces of a second."""
    while seconds > 0:
        yield min(seconds, MOMENT)
        seconds -= MOMENT


def _seldom(tell: Callable[[], None]) -> Callable[[], None]:
    """Make something that may be called often and tells only once a second."""
    last = time.monotonic()

    def heard() -> None:
        nonlocal last
        if time.monotonic() - last >= MOMENT:
            last = time.monotonic()
            tell()

    return heard


log = logging.getLogger(__name__)

Again = Literal["never", "once", "tries"]

FIRST_PAUSE = 0.5  # seconds; doubled with each try, of which a random half is waited


@dataclass(frozen=True)
class Plan:
    """Say how the next try is made."""

    cap: int  # tokens of the answer; 0 leaves it to the server
    side: int  # pixels of a picture's longer side


class Setback(Exception):
    """A try has failed: with what fault, and whether another one may help."""

    def __init__(
        self,
        fault: PleinairError,
        again: Again = "never",
        *,
        wait: float | None = None,
        change: Callable[[Plan], Plan] | None = None,
    ) -> None:
        super().__init__(str(fault))
        self.fault, self.again, self.wait, self.change = fault, again, wait, change


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Try a call until it works, no other try may help, or its time is up."""

    deadline: float = 180.0  # seconds for a call with all its tries and pauses
    tries: int = 3
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random  # 0 to 1; how long a pause is changes no answer

    def ask(self, send: Callable[[Plan], Result], plan: Plan) -> Result:
        """Call `send`; raises the fault of the last try, or `Unavailable` when the time is up."""
        ends = self.clock() + self.deadline
        before = REMAINING.set(lambda: ends - self.clock())
        try:
            return self._ask(send, plan, ends)
        finally:
            REMAINING.reset(before)

    def _ask(self, send: Callable[[Plan], Result], plan: Plan, ends: float) -> Result:
        seen: Counter[type[PleinairError]] = Counter()
        for number in count(1):
            try:
                return send(plan)
            except Setback as setback:
                pause = self._pause(setback, number, seen, ends)
                plan = setback.change(plan) if setback.change else plan
                log.warning("%s Trying again in %.1f s.", setback.fault, pause)
            self.sleep(pause)
        raise AssertionError("counting does not end")

    # Faults are raised `from None`: what caused them may repeat a server's words, and those the key.
    def _pause(self, setback: Setback, number: int, seen: Counter[type[PleinairError]], ends: float) -> float:
        fault, rest = setback.fault, ends - self.clock()
        seen[type(fault)] += 1
        if setback.again == "never" or (setback.again == "once" and seen[type(fault)] > 1):
            raise fault from None
        if rest <= 0:
            raise Unavailable(
                f"No answer within the {self.deadline:g} s of `mllm.deadline`: {fault}"
            ) from None
        if setback.again == "tries" and number >= self.tries:
            raise type(fault)(f"{fault} That was try {number} of {self.tries}.") from None
        pause = self._backoff(number) if setback.wait is None else setback.wait
        if setback.change is not None:
            pause = 0.0
        if pause >= rest:
            raise Unavailable(
                f"{fault} Ask again in {pause:.0f} s: `mllm.deadline` gives a call {self.deadline:g} s."
            ) from None
        return pause

    def _backoff(self, number: int) -> float:
        return float(FIRST_PAUSE * 2 ** (number - 1) * (1 + self.chance()) / 2)
