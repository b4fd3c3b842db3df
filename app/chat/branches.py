"""Messages of a thread: their versions, undo and redo, and forks."""

from __future__ import annotations

from pathlib import Path

from pleinair.app.chat.messages import ChatMessage, message_of
from pleinair.app.chat.references import ThreadReferences
from pleinair.app.chat.settled import settled
from pleinair.app.chat.thread import MAX_TITLE, Message, Thread, Undone
from pleinair.app.texts import printable
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput


class ThreadMessages(ThreadReferences):
    """Messages of a thread; each change is made as a whole or refused."""

    def settle(self) -> None:
        """Copy what the run of the last message has decided, if it has ended."""
        self.thread = settled(self.thread, self._runs, self.places)

    def messages(self) -> list[ChatMessage]:
        """List the messages, the oldest first."""
        with self._runs:
            return [
                message_of(number, message, self._runs) for number, message in enumerate(self.thread.turns, 1)
            ]

    def message(self, number: int | None = None) -> ChatMessage:
        """Return a message by its number from 1, or the last one; raises `BadInput` if there is none."""
        number = len(self.thread.turns) if number is None else number
        return message_of(number, self._turn(number), self._runs)

    def _turn(self, number: int) -> Message:
        turns = self.thread.turns
        if not turns:
            raise BadInput("there is no request yet")
        if not 1 <= number <= len(turns):
            raise BadInput(f"request {number}: must be 1 to {len(turns)}, the number of a request")
        return turns[number - 1]

    def select_version(self, number: int, version: int) -> None:
        """Continue from another version, by its number from 1, of the last message.

        Raises `BadInput` for an earlier message, whose following ones continue from another version.
        """
        message = self._turn(number)
        _check_version(message, version)
        if number < len(self.thread.turns):
            raise BadInput(
                f"message {number}: later messages continue from its present version",
                "Fork the thread from this version instead.",
            )
        self.thread = self._with_version(message, version - 1)
        self.settle()

    def _with_version(self, message: Message, current: int) -> Thread:
        changed = message.model_copy(update={"current": current})
        return self.thread.model_copy(update={"turns": (*self.thread.turns[:-1], changed)})

    def undo(self) -> str:
        """Continue from before the last message, and return its prompt; its images stay in their runs.

        Vetoes, pins and options of the image are those from before it; the tray stays as it is. Raises
        `BadInput` if there is no message.
        """
        if not self.thread.turns:
            raise BadInput("nothing to undo: there is no request yet")
        *earlier, message = self.thread.turns
        undone = Undone(message=message, decisions=self.thread.decisions)
        thread = self.thread.with_decisions(message.before)
        changes = {"turns": tuple(earlier), "undone": (*self.thread.undone, undone)}
        self.thread = thread.model_copy(update=changes)
        return message.prompt

    def redo(self) -> str:
        """Continue from the message that was undone last, and return its prompt; or raise `BadInput`."""
        if not self.thread.undone:
            raise BadInput("nothing to redo: nothing was undone since the last request")
        *rest, last = self.thread.undone
        thread = self.thread.with_decisions(last.decisions)
        changes = {"turns": (*thread.turns, last.message), "undone": tuple(rest)}
        self.thread = thread.model_copy(update=changes)
        self.settle()
        return last.message.prompt

    def fork(self, number: int, version: int | None = None) -> Thread:
        """Store a new thread with the messages up to one, and this tray; this thread stays as it is.

        Args:
            number: of the last message of the new thread, from 1; 0 for none.
            version: of that message, from 1; the current one by default.
        """
        turns = self.thread.turns[:number]
        if number:
            message = self._turn(number)
            if version is not None:
                _check_version(message, version)
                turns = (*turns[:-1], message.model_copy(update={"current": version - 1}))
        following = self.thread.turns[number].before if number < len(self.thread.turns) else None
        thread = self.thread.with_decisions(following) if following else self.thread
        changes = {"turns": turns, "undone": (), "title": self.thread.title if turns else ""}
        fresh = Thread.begin().model_dump(include={"id", "created", "updated"})
        fork = settled(thread.model_copy(update=changes | fresh), self._runs, self.places)
        with self._runs.transaction() as db:
            return fork.write(db)

    def rename(self, title: str) -> None:
        """Set the title; raises `BadInput` for an empty one."""
        title = printable(title)[:MAX_TITLE]
        if not title:
            raise BadInput("title: must not be empty")
        self._set(title=title)

    def save(self, file: str) -> Path:
        """Copy the newest image to a new .png file or into a folder; raises `BadInput` for another name."""
        pictures = [message.version.picture for message in self.messages() if message.version.picture]
        if not pictures:
            raise BadInput("there is no image to save yet")
        target = Path(file).expanduser().absolute()
        target = target / pictures[-1].name if target.is_dir() else target
        if target.suffix != ".png":
            raise BadInput(f"{file!r}: must be a folder or a file that ends in .png")
        if target.exists():
            raise BadInput(f"{str(target)!r}: it exists already", "Choose another name.")
        write_whole(target, pictures[-1].read_bytes())
        return target


def _check_version(message: Message, version: int) -> None:
    if not 1 <= version <= len(message.runs):
        raise BadInput(f"version {version}: must be 1 to {len(message.runs)}, the number of a version")
