"""Lists of servers with one model: which of them a call goes to, and which are left alone for a while.

Each attempt goes to the server with the fewest calls in flight; equal ones take turns, of which a server
that takes n times as long has every n-th (weighted round robin). A server that fails is down for a while,
doubled with each further failure, and longer where it asks for more. After that its list of models is asked
for in the background, at most every ten seconds and only while there are calls; once it answers, the server
is up again. If all are down, the one that has been longest is tried in spite of it.

The calls in flight and the state of a server belong to this process: every list of a process that contains
it shares them, other processes count their own. Not covered: weights of servers, and keys of their own.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pleinair.tools.errors import Unavailable
from pleinair.tools.http.openai_api import GREETING, Server, listed_models
from pleinair.tools.http.retry import CallFailure
from pleinair.tools.http.transport import MAX_REPLY, TICK, call_seconds_left
from pleinair.tools.types import PleinairError

COOL_DOWN = 10.0  # seconds that a server is down after a failure, and between two checks of it
_DOUBLINGS = 5  # of the cool-down
_EQUAL = 2.0  # seconds; what answers faster counts as equally fast
_GRACE = 1.0  # seconds that the first call waits for the other servers' lists of models

_RANDOM = random.SystemRandom()  # a seed of the program must not make its processes alike

log = logging.getLogger(__name__)


@dataclass
class _State:
    """What this process knows of a server; read and changed under `_changed` only."""

    in_flight: int = 0
    turns: int = 0  # that it has had; one of a slow server counts as several
    fastest: float = math.inf  # seconds of an answer
    order: float = field(default_factory=_RANDOM.random)  # among equals: processes begin at different servers
    answered: bool = False  # ever
    models: tuple[str, ...] | None = None  # None: not known yet; empty: the server has no list
    trouble: str = ""  # why it is down
    failures: int = 0  # one after the other
    failed_at: float = 0.0  # by `time.monotonic`, like the next
    until: float = 0.0  # end of the cool-down
    check_at: float = 0.0  # earliest time of the next check
    is_passed_over: bool = False  # because it lacks the model, which has been logged

    @property
    def is_new(self) -> bool:
        return not (self.answered or self.trouble)

    @property
    def is_up(self) -> bool:
        return self.answered and not self.trouble

    def lacks(self, model: str) -> bool:
        return bool(self.models) and model not in (self.models or ())

    def is_due(self, model: str, now: float) -> bool:
        """Return whether the server is to be checked: it does not answer, or does not list the model."""
        is_in_doubt = self.models is None or bool(self.trouble) or self.lacks(model)
        return is_in_doubt and max(self.until, self.check_at) <= now


_states: dict[tuple[str, str], _State] = {}  # by URL and model
_changed = threading.Condition()


def forget() -> None:
    """Forget the states of all servers; a forked process begins so, without the calls of its parent."""
    global _changed
    _changed = threading.Condition()
    _states.clear()


os.register_at_fork(after_in_child=forget)


@dataclass(frozen=True)
class ServerList:
    """Servers that have the same model, in the order of their URLs.

    A server that does not list the model is passed over, with a warning, if another one lists it. If none
    does but all list the same, their name for it is another and all are used. A list of one server is
    called as it is: it is neither checked nor ever down.

    Args:
        servers: with one model, key and section of the settings.
        cool_down: seconds that a server is down after its first failure, and between two checks of it.
        equal: seconds of an answer below which servers count as equally fast.
    """

    servers: tuple[Server, ...]
    cool_down: float = COOL_DOWN
    equal: float = _EQUAL

    @contextmanager
    def attempt(self) -> Iterator[Server]:
        """Yield the server for one attempt; it has a call more in flight until the block ends, however.

        A `CallFailure` of the block that is the server's own trouble takes it down. It then asks for another
        attempt at once if another server is up, and otherwise says what is wrong with each.

        Raises:
            CallFailure: that of the block, changed as above.
            Unavailable: the servers have different models, and none lists the one of the settings.
        """
        if len(self.servers) == 1:
            yield self.servers[0]
            return
        self._check()
        server, state = self._choose()
        started, turns = time.monotonic(), 1
        try:
            yield server
            self._answered(state, started, time.monotonic() - started)
        except CallFailure as failure:
            turns = int(failure.again != "changed")  # with a request in another form it is its turn again
            if not failure.of_server:
                self._answered(state, started, math.inf)
                raise
            raise self._failed(server, state, failure) from None
        finally:
            with _changed:
                state.in_flight -= 1
                self._count(state, turns)

    def _check(self) -> None:
        """Check servers in the background; before the first call, wait for what they list."""
        now = time.monotonic()
        with _changed:
            due = [server for server in self.servers if _state(server).is_due(server.model, now)]
            for server in due:
                _state(server).check_at = now + self.cool_down
        for server in due:
            threading.Thread(target=_check_server, args=(server,), daemon=True, name="server check").start()
        ends = now + GREETING
        while True:
            remaining = min(ends - time.monotonic(), call_seconds_left())
            with _changed:
                states = [_state(server) for server in self.servers]
                if not any(state.is_new for state in states):
                    return
                if remaining <= 0:
                    self._give_up_waiting()
                    return
                if any(state.is_up for state in states):
                    ends = min(ends, time.monotonic() + _GRACE)
                _changed.wait(max(min(remaining, ends - time.monotonic(), TICK), 0))

    def _give_up_waiting(self) -> None:
        for server in self.servers:
            if (state := _state(server)).is_new:
                state.trouble = f"{server.url} has not answered yet"

    def _choose(self) -> tuple[Server, _State]:
        with _changed:
            fitting = self._fitting()
            if up := [pair for pair in fitting if pair[1].is_up]:
                server, state = min(up, key=lambda pair: (pair[1].in_flight, pair[1].turns, pair[1].order))
            else:
                server, state = min(fitting, key=lambda pair: (pair[1].until, pair[1].turns))
            state.in_flight += 1
        return server, state

    def _count(self, state: _State, turns: int) -> None:
        """Count turns by the speed of a server; one that was down for a while does not catch up."""
        states = [_state(server) for server in self.servers]
        seconds = [max(each.fastest, self.equal) for each in states if each.fastest < math.inf]
        slowness = max(state.fastest, self.equal) / min(seconds) if state.fastest < math.inf else 1.0
        least = min((each.turns for each in states if each.is_up), default=0)
        state.turns = max(state.turns, least) + turns * round(slowness)

    def _fitting(self) -> list[tuple[Server, _State]]:
        """Return the servers that may have the model, as far as their lists tell."""
        pairs = [(server, _state(server)) for server in self.servers]
        lists = {state.models for _, state in pairs if state.models}
        if all(not state.models or state.lacks(server.model) for server, state in pairs):
            if len(lists) > 1:
                raise self._different()
            return pairs
        fitting = []
        for server, state in pairs:
            lacks = state.lacks(server.model)
            if lacks and not state.is_passed_over:
                log.warning("%s does not list %r and is passed over.", server.url, server.model)
            state.is_passed_over = lacks
            if not lacks:
                fitting.append((server, state))
        return fitting

    def _different(self) -> Unavailable:
        model, section = self.servers[0].model, self.servers[0].section
        lists = [(server, _state(server).models) for server in self.servers]
        texts = [f"{server.url} lists {server.quote(', '.join(names))}" for server, names in lists if names]
        return Unavailable(
            f"The servers of `{section}.base_url` have different models, and none lists {model!r}: "
            f"{'; '.join(texts)}.",
            f"Set `{section}.model` to a name that they list.",
        )

    def _answered(self, state: _State, started: float, seconds: float) -> None:
        """Mark a server as up; a request from before its last failure does not end its cool-down."""
        with _changed:
            state.answered = True
            state.fastest = min(state.fastest, seconds)
            if state.failed_at <= started:
                state.trouble, state.failures, state.until = "", 0, 0.0

    def _failed(self, server: Server, state: _State, failure: CallFailure) -> CallFailure:
        """Mark a server as down; return the failure as it is for the list."""
        now = time.monotonic()
        with _changed:
            state.failures += not state.trouble  # several calls may fail by one trouble
            cool_down = self.cool_down * 2 ** min(max(state.failures - 1, 0), _DOUBLINGS)
            state.failed_at = now
            state.until = max(state.until, now + max(cool_down, failure.wait or 0.0))
            state.trouble = failure.error.message
            others = [pair for pair in self._fitting() if pair[1] is not state]
            if any(other.is_up for _, other in others):
                return CallFailure(failure.error, "elsewhere", wait=0.0, may_be_done=failure.may_be_done)
            earliest = min((other.until for _, other in others), default=state.until) - now
            texts = [_trouble_of(other) for other in self.servers if other is not server]
        wait = None if failure.wait is None else min(failure.wait, max(earliest, 0.0))
        error = failure.error.reworded(
            f"{failure.error.message.removesuffix('.')}. The other servers of `{server.section}.base_url` "
            f"cannot answer either: {'; '.join(texts)}."
        )
        return CallFailure(error, failure.again, wait=wait, may_be_done=failure.may_be_done)


def _state(server: Server) -> _State:
    return _states.setdefault((server.url, server.model), _State())


def _trouble_of(server: Server) -> str:
    state = _state(server)
    return state.trouble.removesuffix(".") or f"{server.url} does not list {server.model!r}"


def _check_server(server: Server) -> None:
    """Ask a server for its list of models; an answer after the cool-down ends its trouble."""
    models, trouble = None, ""
    try:
        models = listed_models(server, server.client(MAX_REPLY))
    except PleinairError as error:
        trouble = error.message
    with _changed:
        state = _state(server)
        if models is None:
            state.trouble = state.trouble or ("" if state.answered else trouble)
        else:
            state.models, state.answered = models, True
            if state.until <= time.monotonic():
                state.trouble = ""
        _changed.notify_all()
