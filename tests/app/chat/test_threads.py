"""Chat threads on disk: sessions of several processes, undo, redo, forks, versions, and stored homes."""

import sqlite3
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.chats import Chat

from pleinair.app.api import answer, cancel, finish, home, run_table
from pleinair.app.chat.thread import MessageOptions, Thread
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.history import state_of
from pleinair.app.runs.queue import QueueFull
from pleinair.app.runs.request import read_request
from pleinair.app.runs.worker import work
from pleinair.tools.types import BadInput, PleinairError

PROMPT = "a barn owl and a blue jay"
HOMES = Path(__file__).parents[1] / "runs" / "data"


@pytest.fixture(autouse=True)
def chat_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    return place


def drawn(chat: Chat, *lines: str, **options: Any) -> list[str]:
    """Submit lines, draw each, and return the ids of the first runs."""
    runs = []
    for line in lines:
        runs.append(chat.submit(line, **options).id)
        for run in run_table().group(runs[-1]):
            finish(run)
    return runs


def sent(run_id: str) -> str:
    return read_request(run_table().get(run_id).request_json).prompt


def best_prompt(run_id: str) -> str:
    outcome = run_table().get(run_id).outcome
    assert outcome and outcome.best
    return outcome.best.request.prompt


def test_a_thread_is_continued_by_another_process() -> None:
    chat = Chat()
    drawn(chat, PROMPT)
    program = (
        "from pleinair.app.chat.threads import Threads\n"
        f"with Threads().opened({chat.thread.id!r}) as session:\n"
        "    session.submit('now make it night', client='page')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    thread = Threads().get(chat.thread.id)
    assert [message.prompt for message in thread.turns] == [PROMPT, "now make it night"]
    assert run_table().queue()[0].id == thread.runs[1]


def test_what_a_worker_decided_is_settled_when_the_thread_is_opened() -> None:
    chat = Chat()
    (first,) = drawn(chat, PROMPT)
    with Threads().opened(chat.thread.id) as session:
        (run,) = session.submit("not that bird", client="page")
    stop = threading.Event()
    work(run_table(), home(), stop, idle=0.1)
    with Threads().opened(chat.thread.id) as session:
        state = state_of(run.id, home())
        assert state and session.thread.vetoes == tuple(state.vetoes) != ()
        assert session.message().version.status == "accepted"
    assert Threads().get(chat.thread.id).vetoes == session.thread.vetoes
    assert first != run.id


def test_a_veto_while_a_run_is_at_work_stays() -> None:
    chat = Chat()
    drawn(chat, PROMPT)
    others = [number for number, each in enumerate(chat.references(), 1) if "used" not in each.marks]
    with Threads().opened(chat.thread.id) as session:
        (run,) = session.submit("not that bird")
    with Threads().opened(chat.thread.id) as session:
        (vetoed,) = session.veto(others[0])
    finish(run)
    state = state_of(run.id, home())
    with Threads().opened(chat.thread.id) as session:
        assert state and set(session.thread.vetoes) == {vetoed.hit.id, *state.vetoes}
        session.veto(others[0])
    with Threads().opened(chat.thread.id) as session:
        assert set(session.thread.vetoes) == set(state.vetoes)


def test_two_sessions_at_once_lose_no_update() -> None:
    chat = Chat()
    drawn(chat, PROMPT)
    (wide,) = Threads().newest(1)
    gate = threading.Barrier(6)

    def add(number: int) -> None:
        gate.wait()
        with Threads().opened(wide.id) as session:
            session.reuse(wide.runs[0])
            session.set_image_options({"num_inference_steps": number + 1})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    thread = Threads().get(wide.id)
    assert [image.handle for image in thread.tray] == [f"@{number}" for number in range(1, 7)]


def test_a_message_waits_for_the_one_before() -> None:
    chat = Chat()
    run = chat.submit(PROMPT)
    with pytest.raises(BadInput, match="message 1 has not ended: its run is queued"):
        chat.submit("now make it night")
    assert cancel(run.id).status == "cancelled"
    following = chat.submit("a barn owl")
    request = read_request(following.request_json)
    assert request.thread and request.thread.after in ("", run.id)
    assert finish(following).outcome.ending == "accepted"


def test_a_refused_message_changes_nothing() -> None:
    chat = Chat()
    drawn(chat, PROMPT)
    with Threads().opened(chat.thread.id) as session:
        pass
    before = session.thread
    with pytest.raises(BadInput), Threads().opened(before.id) as session:
        session.submit("add a red car", MessageOptions(overrides={"image.width": 63}))
    with pytest.raises(BadInput), Threads().opened(before.id) as session:
        session.submit("make it 20:1")
    other = Chat().submit(PROMPT, client="page")
    with pytest.raises(QueueFull), Threads().opened(before.id) as session:
        session.submit("bigger", client="page", most=1)
    assert Threads().get(before.id) == before
    assert [run.id for run in run_table().newest(9)] == [other.id, *before.runs]


def test_undo_and_redo_outlast_a_restart_and_leave_the_tray() -> None:
    chat = Chat()
    runs = drawn(chat, PROMPT, "not that bird", "make it 2:1")
    with Threads().opened(chat.thread.id) as session:
        session.reuse(runs[0])
        vetoes, overrides = session.thread.vetoes, session.thread.overrides
        session.undo()
        session.undo()
    with Threads().opened(chat.thread.id) as session:
        thread = session.thread
        assert thread.runs == (runs[0],) and not thread.vetoes and not thread.overrides
        assert [image.handle for image in thread.tray] == ["@1"]
        assert session.redo() == "not that bird"
    with Threads().opened(chat.thread.id) as session:
        assert session.redo() == "make it 2:1"
        assert session.thread.runs == tuple(runs)
        assert (session.thread.vetoes, session.thread.overrides) == (vetoes, overrides)
        with pytest.raises(BadInput, match="nothing to redo"):
            session.redo()


def test_a_fork_leaves_its_thread_whole() -> None:
    chat = Chat()
    runs = drawn(chat, PROMPT, "now make it night", "not that bird")
    with Threads().opened(chat.thread.id) as session:
        session.reuse(runs[0])
        fork = session.fork(2)
    assert fork.runs == tuple(runs[:2]) and not fork.vetoes and fork.tray == session.thread.tray
    assert Threads().get(chat.thread.id).runs == tuple(runs)
    other = Chat(fork)
    (last,) = drawn(other, "now in the snow")
    assert best_prompt(last) == f"{PROMPT} in the snow at night"
    with Threads().opened(fork.id) as session:
        assert session.reuse(last).handle == "@2"
        assert not session.fork(0).turns
    assert Threads().of_run(runs[0]) == Threads().get(chat.thread.id)
    assert Threads().of_run(last) == Threads().get(fork.id)


def test_versions_are_the_images_of_a_message_and_repetitions() -> None:
    chat = Chat()
    (first,) = drawn(chat, PROMPT, num_images=2, seed=7)
    with Threads().opened(chat.thread.id) as session:
        (message,) = session.messages()
        assert [version.seed for version in message.versions] == [7, 8] and message.current == 0
        finish(session.redraw(seed=20))
        assert [version.seed for version in session.message().versions] == [7, 8, 20]
        assert session.message().version.run != first
        for seed in (-1, 2**63):
            with pytest.raises(BadInput, match="seed"):
                session.redraw(seed=seed)
        session.select_version(1, 2)
    (night,) = drawn(chat, "now make it night")
    request = read_request(run_table().get(night).request_json)
    assert request.thread and request.thread.after == message.versions[1].run
    with Threads().opened(chat.thread.id) as session:
        with pytest.raises(BadInput, match="later messages continue from its present version"):
            session.select_version(1, 1)
        assert session.fork(1, version=3).runs == (session.messages()[0].versions[2].run,)
        with pytest.raises(BadInput, match="version 9: must be 1 to 1"):
            session.select_version(2, 9)


def test_a_version_brings_its_own_vetoes() -> None:
    chat = Chat()
    drawn(chat, PROMPT)
    (second,) = drawn(chat, "not that bird", num_images=2)
    with Threads().opened(chat.thread.id) as session:
        (own,) = session.thread.vetoes
        session.select_version(2, 2)
        assert session.thread.vetoes == (own,)  # both versions veto the same image
        session.undo()
        assert not session.thread.vetoes


def test_another_graph_is_a_message_from_which_the_chat_goes_on() -> None:
    chat = Chat()
    drawn(chat, PROMPT)
    (other,) = drawn(chat, "a barn owl", graph="pleinair", overrides={"mllm.backend": "quick"})
    assert read_request(run_table().get(other).request_json).thread is None
    (night,) = drawn(chat, "now make it night")
    request = read_request(run_table().get(night).request_json)
    assert request.thread and request.thread.between == (other,)
    assert best_prompt(night) == "a barn owl at night"
    state = state_of(night, home())
    assert state and [turn.wish for turn in state.turns] == ["a barn owl"]  # the last one


def test_an_approval_is_answered_with_the_decisions_of_the_thread() -> None:
    chat = Chat(overrides={"approve": "references"})
    run = chat.submit(PROMPT)
    assert finish(run).outcome.ending == "waiting"
    with Threads().opened(chat.thread.id) as session:
        question = session.question()
        assert question and question.references
        used = [number for number, each in enumerate(session.references(), 1) if "used" in each.marks]
        (vetoed,) = session.veto(used[0])
        with pytest.raises(BadInput, match="message 1 waits for your approval"):
            session.submit("a barn owl")
        row = session.answer()
    result = finish(row)
    assert result.outcome.best
    assert vetoed.hit.id not in {each.hit.id for each in result.outcome.best.request.references}
    with Threads().opened(chat.thread.id) as session:
        assert session.thread.vetoes == (vetoed.hit.id,) and session.question() is None
        with pytest.raises(BadInput, match="no run of this chat waits"):
            session.answer()


def test_threads_are_listed_searched_renamed_and_deleted() -> None:
    threads, chat, other = Threads(), Chat(), Chat()
    assert threads.newest(9) == []
    drawn(chat, PROMPT)
    drawn(other, "a barn owl", "now make it night")
    assert [thread.title for thread in threads.newest(9)] == ["a barn owl", PROMPT]
    assert [thread.id for thread in threads.newest(9, "NIGHT owl")] == [other.thread.id]
    assert threads.newest(9, "nothing") == []
    with threads.opened(chat.thread.id) as session:
        session.rename("two  birds")
    assert threads.newest(1, "birds")[0].id == chat.thread.id == threads.find("last").id
    threads.delete(chat.thread.id)
    with pytest.raises(BadInput, match="there is none"), threads.opened(chat.thread.id):
        pass
    assert run_table().get(chat.runs[0]).status == "accepted"
    with pytest.raises(BadInput, match="there is none"), threads.opened("../x"):
        pass


def test_a_message_whose_run_was_deleted_is_shown_and_passed_over() -> None:
    chat = Chat()
    runs = drawn(chat, PROMPT, "now make it night")
    with closing(sqlite3.connect(home().table_file)) as db, db:
        db.execute("DELETE FROM runs WHERE id=?", (runs[1],))
    with Threads().opened(chat.thread.id) as session:
        assert [message.version.status for message in session.messages()] == ["accepted", "deleted"]
    request = read_request(chat.submit("now make it snow").request_json)
    assert request.thread and request.thread.after == runs[0]


def test_an_unstored_thread_is_stored_once_it_changes() -> None:
    thread = Thread.begin()
    with Threads().opened(thread) as session:
        assert session.messages() == []
    assert Threads().newest(9) == []
    with Threads().opened(thread) as session:
        session.set_approve("draft")
    assert [stored.overrides for stored in Threads().newest(9)] == [{"approve": "draft"}]


@pytest.fixture(params=["home-0.1", "home-0.1-unchecked"])
def stored(request: pytest.FixtureRequest, place: Path) -> Iterator[Path]:
    with zipfile.ZipFile(HOMES / f"{request.param}.zip") as archive:
        archive.extractall(place)
    with closing(sqlite3.connect(place / "home" / "runs.sqlite")) as db, db:
        db.execute("UPDATE runs SET order_json = replace(order_json, ?, ?)", ("/tmp/stored", str(place)))
    yield place


def test_a_home_of_an_earlier_version_gains_threads(stored: Path) -> None:
    count = len(run_table().newest(99))
    assert Threads().newest(9) == [] and count
    thread = Threads().create()
    assert Threads().get(thread.id) == thread and len(run_table().newest(99)) == count


def test_a_chat_of_an_earlier_version_becomes_a_thread() -> None:
    chat = Chat()
    runs = drawn(chat, PROMPT, "not that bird")
    with closing(sqlite3.connect(home().table_file)) as db, db:
        db.execute("DELETE FROM threads")
    thread = Threads().from_run("last")
    assert thread.runs == tuple(runs) and thread.title == PROMPT
    assert thread.vetoes == chat.session.thread.vetoes != ()
    assert Threads().from_run(runs[1]) == thread
    middle = Threads().from_run(runs[0])
    assert middle.id != thread.id and middle.runs == (runs[0],)


def test_a_message_and_its_runs_are_stored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = Threads().create()

    def fail(self: Thread, db: sqlite3.Connection) -> Thread:
        raise sqlite3.OperationalError("killed in between")

    with monkeypatch.context() as patch, pytest.raises(PleinairError), Threads().opened(thread.id) as session:
        patch.setattr(Thread, "write", fail)
        session.submit(PROMPT, client="page")
    assert run_table().newest(9) == [] and Threads().get(thread.id) == thread


def test_an_answer_of_another_interface_is_taken_over() -> None:
    chat = Chat(overrides={"approve": "references"})
    waiting = finish(chat.submit(PROMPT))
    assert waiting.question
    (reference, *_) = waiting.question.references
    finish(answer(waiting.run_id, {"vetoes": [reference.hit.id]}))
    with Threads().opened(chat.thread.id) as session:
        assert session.thread.vetoes == (reference.hit.id,)
