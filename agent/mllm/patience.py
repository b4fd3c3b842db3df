"""When a call is tried again: only after what passes by itself, and never beyond the call's deadline."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeVar

from pleinair.tools.faults import Unavailable
from pleinair.tools.punctual import REMAINING
from pleinair.tools.types import PleinairError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
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
class Patience:
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
