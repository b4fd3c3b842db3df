"""Commands of a chat for its threads, versions and approvals."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app import api
from pleinair.app.chat.references import ChatReference
from pleinair.app.chat.reply import Command, Part, Reply, optional_number, read_number, usage
from pleinair.app.chat.thread import MessageOptions, Thread
from pleinair.app.runs.tables import OPEN
from pleinair.app.texts import counted, printable
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.chat.session import ChatSession
    from pleinair.app.runs.row import Run

LISTED = 20  # threads of a list
_NUMBER_DIGITS = 3  # at most, of a thread's number in a list; ids are longer
_NO = ("no", "stop")


def _threads(session: ChatSession, rest: str) -> str:
    from pleinair.app.chat.threads import Threads

    threads = Threads(session.places).newest(LISTED, rest)
    numbered = enumerate(threads, 1)  # as `/thread` counts them
    lines = [_thread_line("" if rest else str(number), thread, session) for number, thread in numbered]
    return "\n".join(lines) or ("No thread has these words." if rest else "There is no thread yet.")


def _thread_line(number: str, thread: Thread, session: ChatSession) -> str:
    when = datetime.fromtimestamp(thread.updated).astimezone()
    mark = ", this one" if thread.id == session.thread.id else ""
    facts = f"{counted(len(thread.turns), 'request')}, {when:%d %b %Y %H:%M}{mark}"
    return f"{number:>3}  {printable(thread.title or 'no request yet')} ({facts})  {thread.id}"


def _thread(session: ChatSession, rest: str) -> Reply:
    from pleinair.app.chat.threads import Threads

    threads = Threads(session.places)
    if not rest:
        raise BadInput(f"{usage('thread')}: needs the number or the id of a thread")
    if rest.isdecimal() and len(rest) <= _NUMBER_DIGITS:
        newest = threads.newest(LISTED)
        if not 1 <= int(rest) <= len(newest):
            raise BadInput(f"thread {rest}: must be 1 to {len(newest)}", "`/threads` lists them.")
        thread = newest[int(rest) - 1]
    else:
        thread = threads.find(rest)
    return Reply([printable(f"Going on with {thread.title or thread.id}.")], thread=thread)


def _new(session: ChatSession, rest: str) -> Reply:
    thread = session.thread
    begun = Thread.begin(profile=thread.profile, out=thread.out, overrides=thread.overrides)
    return Reply(["A new thread."], thread=begun)


def _title(session: ChatSession, rest: str) -> str:
    session.rename(rest)
    return printable(f"This thread is called {session.thread.title}.")


def _fork(session: ChatSession, rest: str) -> Reply:
    number = read_number("fork", rest)
    session.message(number)
    thread = session.fork(number)
    text = f"Continuing from request {number} in a new thread; {session.thread.id} stays as it is."
    return Reply([text], thread=thread)


def _redraw(session: ChatSession, rest: str) -> Reply:
    return Reply(runs=[session.redraw(optional_number("redraw", rest))])


def _version(session: ChatSession, rest: str) -> str:
    number = read_number("version", rest)
    session.select_version(len(session.thread.turns), number)
    return f"Continuing from version {number} of request {len(session.thread.turns)}."


def _graph(session: ChatSession, rest: str) -> Reply:
    name, _, prompt = rest.partition(" ")
    if not prompt.strip():
        raise BadInput(f"{usage('graph')}: needs a graph and a prompt")
    return Reply(line=prompt.strip(), options=MessageOptions(graph=name))


def _ask(session: ChatSession, rest: str) -> str:
    if rest not in ("references", "draft", "never"):
        raise BadInput(f"{usage('ask')}: must be references, draft or never, got {rest[:40]!r}")
    session.set_approve("" if rest == "never" else rest)
    return {"never": "Requests ask for no approval."}.get(rest, f"Requests ask for approval: {rest}.")


def _approve(session: ChatSession, rest: str) -> str | Reply:
    """Answer the question of the run that waits; without one pin the references of the last image."""
    question = session.question()
    if question is not None:
        return Reply(runs=[_answered(session, question, rest)])
    if rest:
        raise BadInput(f"/approve {rest[:40]}: no run of this chat waits for your approval")
    lines = [f"{reference.concept} is shown by {reference.hit.id}." for reference in session.approve()]
    return "\n".join(map(printable, lines)) or "The last image was generated without references."


def _accept(session: ChatSession, rest: str) -> list[Part]:
    """Accept the image so far of the last request."""
    return _end(session, api.accept(session.message().version.run))


def _stop(session: ChatSession, rest: str) -> list[Part]:
    """End the last request with its images so far."""
    session.message()  # raises where there is none
    stopped = session.stop()
    if not stopped:
        raise BadInput(f"request {len(session.thread.turns)} has ended already")
    return _end(session, stopped[-1])


def _end(session: ChatSession, run: Run) -> list[Part]:
    if run.status in OPEN:
        return ["It ends at its next step, with its best image."]
    version = session.message().version
    return [printable(f"{version.status}: {version.reason}"), *([version.picture] if version.picture else [])]


def _answered(session: ChatSession, question: ApprovalRequest, rest: str) -> Run:
    word, _, text = rest.partition(" ")
    before, is_renaming, after = (part.strip() for part in rest.partition("="))
    if rest.lower() in _NO:
        return session.answer(stop=True)
    if word == "prompt" and text.strip():
        return session.answer(prompt=text.strip())
    if is_renaming and before and after:
        prompt = question.prompt.replace(before, after)
        return session.answer(concepts={before: after}, prompt="" if prompt == question.prompt else prompt)
    if rest.lower() in ("", "yes"):
        return session.answer()
    raise BadInput(f"/approve {rest[:40]}: must be yes, no, prompt TEXT, or OLD = NEW")


def plan(question: ApprovalRequest, session: ChatSession) -> str:
    """Return the plan that a run waits with, and how it is answered."""
    before = "the draft" if question.before == "draft" else "the first image with references"
    shown = {reference.concept for reference in question.references}
    others = [concept.name for concept in question.concepts if concept.name not in shown]
    return "\n".join(
        [
            printable(f"Waiting for your approval before {before}: {question.prompt}"),
            *([printable(question.fault)] if question.fault else []),
            *(printable(f"{name}: no reference") for name in others if question.before != "draft"),
            *numbered_references(session),
            "/approve draws it, /approve no stops. /veto N, /pin N and /give FILE CONCEPT change it first;",
            "/approve prompt TEXT and /approve OLD = NEW draw something else.",
        ]
    )


def numbered_references(session: ChatSession) -> list[str]:
    """Return the list of references as lines."""
    return [f"{number:>3}  {_reference_line(each)}" for number, each in enumerate(session.references(), 1)]


def _reference_line(reference: ChatReference) -> str:
    """Return a reference as a line: its concept, id, score, caption and marks."""
    from pleinair.app.trace.trace import score_text

    marks = f"  [{', '.join(reference.marks)}]" if reference.marks else ""
    hit = reference.hit
    by = f" (by {hit.caption_model})" if hit.caption_model else ""
    place = reference.handle or f"{hit.id} {score_text(hit)}"
    return printable(f"{reference.concept}: {place} {hit.caption[:60]}{by}") + marks


THREAD_COMMANDS: dict[str, Command] = {
    "threads": _threads,
    "thread": _thread,
    "new": _new,
    "title": _title,
    "fork": _fork,
    "redraw": _redraw,
    "version": _version,
    "graph": _graph,
    "ask": _ask,
    "approve": _approve,
    "accept": _accept,
    "stop": _stop,
}
