"""Store of chat threads in the run database, for any number of processes and requests at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from pydantic import ValidationError

from pleinair.app import api
from pleinair.app.chat.messages import row_of
from pleinair.app.chat.session import ChatSession
from pleinair.app.chat.settled import decisions_of, with_given
from pleinair.app.chat.thread import MAX_TITLE, Decisions, Message, Thread
from pleinair.app.paths import Paths
from pleinair.app.runs.history import state_of
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy, Runs
from pleinair.app.settings import checked_overrides
from pleinair.tools.types import BadInput, NotFound

LOCK_SECONDS = 30.0  # that a session waits for another one at the same thread


class Threads:
    """Chat threads of a home, the configured one by default."""

    def __init__(self, places: Paths | None = None) -> None:
        self.places = places or api.home()
        self._runs = Runs(self.places.table)

    def create(
        self,
        profile: str | None = None,
        out: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        id: str = "",
    ) -> Thread:
        """Store an empty thread and return it; with the id of a thread that there is, return that one."""
        thread = Thread.begin(profile=profile, out=out, overrides=checked_overrides(overrides))
        thread = thread.model_copy(update={"id": id or thread.id})
        with self._locked(thread.id):
            if id and (stored := self._read(id)):
                return stored
            with self._runs.transaction() as db:
                return thread.write(db)

    def get(self, thread_id: str) -> Thread:
        """Return a thread; raises `BadInput` for an unknown id, or one that cannot be read."""
        if thread := self._read(thread_id):
            return thread
        raise NotFound(f"thread {thread_id[:40]!r}: there is none", "`/threads` lists them.")

    def find(self, name: str) -> Thread:
        """Return a thread by its id, an unambiguous beginning of it, or as "last"; raises `BadInput`."""
        threads = self.newest(1) if name == "last" else self._beginning(name)
        if len(threads) > 1:
            raise BadInput(f"thread {name!r}: ambiguous", "Give more characters of its id.")
        return threads[0] if threads else self.get(name)

    def newest(self, limit: int, search: str = "") -> list[Thread]:
        """Return the threads that changed last, whose title and prompts have all words of a search."""
        words = search.casefold().split()
        where = " AND ".join("instr(words, ?) > 0" for _ in words) or "1 = 1"
        return self._query(f"WHERE {where} ORDER BY updated DESC, id DESC LIMIT ?", (*words, limit))

    def of_run(self, run_id: str) -> Thread | None:
        """Return the first thread with a run, None if there is none."""
        threads = self._query("WHERE instr(thread_json, ?) > 0 ORDER BY id", (f'"{run_id}"',))
        threads.sort(key=lambda thread: thread.created)
        return next((thread for thread in threads if thread.has_run(run_id)), None)

    def delete(self, thread_id: str) -> None:
        """Delete a thread; its runs and their images stay."""
        with self._locked(thread_id), self._runs.transaction() as db:
            db.execute("DELETE FROM threads WHERE id=?", (thread_id,))

    @contextmanager
    def opened(self, thread: str | Thread) -> Iterator[ChatSession]:
        """Lock a thread, settle it, yield a session, and store what the block changed.

        A `Thread` that is not stored is stored once it is changed. Work on a run is for after the block.

        Raises:
            BadInput: there is no such thread.
            Busy: another session did not release it in time.
        """
        id = thread if isinstance(thread, str) else thread.id
        with self._locked(id):
            stored = self.get(id) if isinstance(thread, str) else self._read(id)
            session = ChatSession(stored or thread, self.places)  # type: ignore[arg-type]
            before = session.thread
            session.settle()
            try:
                yield session
            finally:
                if session.thread != before:
                    with self._runs.transaction() as db:
                        session.thread = session.thread.write(db)

    def viewed(self, thread: str | Thread) -> ChatSession:
        """Return a settled session without a lock, for reading: nothing of it is stored."""
        if isinstance(thread, str):
            thread = self.get(thread)
        session = ChatSession(thread, self.places)
        session.settle()
        return session

    @contextmanager
    def _locked(self, thread_id: str) -> Iterator[None]:
        if not thread_id.replace("-", "").isalnum() or not thread_id.isascii():
            raise NotFound(f"thread {thread_id[:40]!r}: there is none", "`/threads` lists them.")
        with ExitStack() as stack:
            try:
                stack.enter_context(self._runs.locked(thread_id, LOCK_SECONDS))
            except TimeoutError as error:
                raise Busy(f"thread {thread_id}: another session is changing it") from error
            yield

    def from_run(self, name: str, begun: Thread | None = None) -> Thread:
        """Return the thread that ends with a run; a new one, with the options of `begun`, if there is none.

        A run in the midst of a thread makes a fork. Raises `BadInput` for a run of no chat.
        """
        run = api.find(name)
        thread = self.of_run(run.id)
        if thread and thread.runs[-1] == run.id:
            return thread
        if thread:
            number, version = next(
                (number, message.runs.index(run.id) + 1)
                for number, message in enumerate(thread.turns, 1)
                if run.id in message.runs
            )
            return self.viewed(thread).fork(number, version)
        thread = _from_chain(begun or Thread.begin(), self._chain(run), self.places)
        with self._runs.transaction() as db:
            return thread.write(db)

    def _chain(self, run: Run) -> list[Run]:
        """Return the requests of a chat up to a run, the oldest first, as far as they exist."""
        if read_request(run.request_json).thread is None or state_of(run.id, self.places) is None:
            raise BadInput(f"run {run.id}: not a request of a chat, or never started")
        chain = [run]
        while (before := read_request(chain[-1].request_json).thread) and before.after:
            row = row_of(before.after, self._runs)
            if row is None or row.damage:
                break
            chain.append(row)
        return chain[::-1]

    def _read(self, thread_id: str) -> Thread | None:
        return next(iter(self._query("WHERE id = ?", (thread_id,))), None)

    def _beginning(self, prefix: str) -> list[Thread]:
        return self._query("WHERE substr(id, 1, ?) = ? ORDER BY id LIMIT 2", (len(prefix), prefix))

    def _query(self, rest: str, values: tuple[Any, ...]) -> list[Thread]:
        if not self._runs.exists():
            return []
        with self._runs.readable() as db:
            if not self._runs.has_threads(db):
                return []  # of an earlier version, on a read-only disk
            rows = db.execute(f"SELECT id, thread_json FROM threads {rest}", values).fetchall()
        return [_thread(row["id"], row["thread_json"]) for row in rows]


def _thread(thread_id: str, text: str) -> Thread:
    try:
        return Thread.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(f"thread {thread_id}: its row in the run database is damaged") from error


def _from_chain(thread: Thread, chain: list[Run], places: Paths) -> Thread:
    """Return a thread with the messages of a chat that was not stored as a thread."""
    turns = []
    for run in chain:
        request = read_request(run.request_json)
        sent = request.thread
        before = Decisions(vetoes=sent.vetoes, pins=sent.pins) if sent else Decisions()
        message = Message(prompt=request.prompt, runs=(run.id,), before=before, base=before, settled=run.id)
        turns.append(message)
    title = " ".join(turns[0].prompt.split())[:MAX_TITLE]
    thread = thread.model_copy(update={"turns": tuple(turns), "title": title})
    if state := state_of(chain[-1].id, places):
        thread = thread.with_decisions(
            decisions_of(state).model_copy(update={"overrides": thread.decisions.overrides})
        )
        thread = with_given(thread, state.given, chain[-1].id, places)
    return thread
