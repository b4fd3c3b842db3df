"""The retry policy of HTTP calls: when a call that failed is sent again, and when it is given up."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from pleinair.tools.callbacks import no_callback
from pleinair.tools.deadline import OutOfTime, check_deadline, seconds_left
from pleinair.tools.errors import Unavailable
from pleinair.tools.http.transport import TICK, CallLimits, limited
from pleinair.tools.types import PleinairError

Result = TypeVar("Result")
Again = Literal["never", "once", "tries", "ready", "changed", "elsewhere"]
Failures = Counter[type[PleinairError]]  # failed attempts of a call by the class of their error
_LOADING_PAUSE = 5.0  # seconds at most between two looks at a server that loads its model
_MAX_CHANGES = 20  # of a request's form in one call
_MAY_BE_CHARGED = "The server may have done it and charged for it, so it is not asked again by itself."

log = logging.getLogger(__name__)


class CallFailure(Exception):
    """Failure of one attempt of a call.

    Args:
        error: raised when no attempt follows.
        again: whether another attempt may help: one for each class of error, or as many as the policy allows;
            "ready" waits until the deadline for a server that loads its model, "changed" sends a request in
            another form, "elsewhere" at once to another server of a list. None of these counts as a try.
        wait: seconds until then; None leaves them to the policy.
        may_be_done: whether the server may have done what was asked, and charged for it.
        of_server: whether it is the server's own trouble, so that another one may answer.
    """

    def __init__(
        self,
        error: PleinairError,
        again: Again = "never",
        *,
        wait: float | None = None,
        may_be_done: bool = False,
        of_server: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.error, self.again, self.wait = error, again, wait
        self.may_be_done, self.of_server = may_be_done, of_server


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Limits of a call with all its attempts.

    Args:
        section: of the settings, for messages.
        deadline: seconds for all attempts and pauses.
        tries: attempts at most, where the trouble may pass by itself.
        pause: seconds after the first attempt, doubled with each further one; a random half of it is waited.
        repeat_done: whether a call that the server may have done and charged for is sent again.
    """

    section: str = "mllm"
    deadline: float = 180.0
    tries: int = 3
    pause: float = 0.5
    repeat_done: bool = True
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random  # 0 to 1

    def call(self, send: Callable[[Failures], Result], check: Callable[[], None] = no_callback) -> Result:
        """Return what `send` returns, after as many attempts as it takes.

        Args:
            send: makes one attempt, from the failures so far; raises `CallFailure`, or what ends the call.
            check: called every second of a wait; what it raises ends the call.

        Raises:
            PleinairError: the error of the last attempt, or `Unavailable` when the time is up.
            OutOfTime: the run's seconds are used up, or the server asks for more than are left.
        """
        ends, failures, counts = self.clock() + self.deadline, Failures(), Counter[Again]()
        while True:
            try:
                with limited(CallLimits(lambda: ends - self.clock(), check)):
                    return send(failures)
            except CallFailure as failure:
                check_deadline()
                counts[failure.again] += 1
                if failure.again not in ("ready", "changed", "elsewhere"):
                    failures[type(failure.error)] += 1
                wait = self._wait(failure, counts, failures, ends - self.clock())
                _report(failure, counts, wait)
            while wait > 0:
                self.sleep(min(wait, TICK))
                check()
                check_deadline()
                wait -= TICK

    # Errors are raised `from None`: what caused them may repeat a server's words, and those the key.
    def _wait(
        self, failure: CallFailure, counts: Counter[Again], failures: Failures, remaining: float
    ) -> float:
        error, again = failure.error, failure.again
        number = counts["never"] + counts["once"] + counts["tries"]
        message = f"{error.message.removesuffix('.')}."  # a server's words may end without a full stop
        if failure.may_be_done and not self.repeat_done:
            raise error.reworded(f"{message} {_MAY_BE_CHARGED}") from None
        is_second = again == "once" and failures[type(error)] > 1
        if again == "never" or is_second or counts["changed"] > _MAX_CHANGES:
            raise error from None
        pause = min(_LOADING_PAUSE, self._backoff(counts["ready"]))
        if remaining <= (pause if again == "ready" else 0):
            raise Unavailable(
                f"No answer within the {self.deadline:g} s of `{self.section}.deadline`: {message}",
                error.remedy,
            ) from None
        if again == "tries" and number >= self.tries:
            suffix = f" That was try {number} of {self.tries}." if number > 1 else ""
            raise error.reworded(f"{message}{suffix}") from None
        if again == "ready" and failure.wait is None:
            return pause
        wait = self._backoff(number) if failure.wait is None else failure.wait
        if wait >= seconds_left():
            raise OutOfTime from None
        if wait >= remaining:
            raise Unavailable(
                f"{message} `{self.section}.deadline` gives a call {self.deadline:g} s.",
                f"Ask again in {wait:.0f} s.",
            ) from None
        return wait

    def _backoff(self, number: int) -> float:
        """Return the seconds after attempt `number`, from 1."""
        return float(self.pause * 2 ** min(number - 1, 10) * (1 + self.chance()) / 2)


def _report(failure: CallFailure, counts: Counter[Again], wait: float) -> None:
    """Log a failure; of a server that loads its model once a call, of a changed form where it is changed."""
    text = failure.error.message.removesuffix(".")
    if failure.again == "ready":
        if counts["ready"] == 1:
            log.warning("%s: loading, waited for", text)
    elif failure.again == "elsewhere":
        log.warning("%s: on to another server", text)
    elif failure.again != "changed":
        log.warning("%s: next try in %.1f s", text, wait)
