"""Votes of a study: one line for each, on disk before the next pair is shown, of several judges at once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock
from pydantic import ValidationError

from pleinair.app.comparison.study import Pair, Study
from pleinair.tools.storage.files import explain
from pleinair.tools.types import Value

FILE = "votes.jsonl"
Answer = Literal["left", "right", "tie"]
Question = Literal["alignment", "quality", "preference"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
ANSWERS: tuple[Answer, ...] = get_args(Answer)


class Entry(Value):
    """One line: what a judge has answered, skipped, or taken back."""

    v: Literal[1] = 1
    at: float  # seconds since the epoch
    judge: str
    pair: str
    kind: Literal["vote", "skip", "undo"]
    alignment: Answer | None = None
    quality: Answer | None = None
    preference: Answer | None = None

    def answer(self, question: Question) -> Answer | None:
        """Return the answer to a question."""
        answer: Answer | None = getattr(self, question)
        return answer


@dataclass
class Progress:
    """What one judge has done."""

    votes: dict[str, Entry] = field(default_factory=dict)  # by the key of the pair
    skipped: list[str] = field(default_factory=list)  # the last one last
    history: list[str] = field(default_factory=list)  # pairs that can be taken back, the last one last

    def add(self, entry: Entry) -> None:
        """Add a line."""
        pair = entry.pair
        self.history = [each for each in self.history if each != pair]
        self.skipped = [each for each in self.skipped if each != pair]
        self.votes.pop(pair, None)
        if entry.kind == "undo":
            return
        self.history.append(pair)
        if entry.kind == "vote":
            self.votes[pair] = entry
        else:
            self.skipped.append(pair)

    def next(self, pairs: Sequence[Pair], again: str = "") -> Pair | None:
        """Return the pair to judge: one taken back, else the first new one, else one skipped; or None."""
        rest = [pair for pair in pairs if pair.key not in self.votes]
        back = [pair for pair in rest if pair.key == again]
        new = [pair for pair in rest if pair.key not in self.skipped]
        later = sorted(
            (pair for pair in rest if pair.key in self.skipped), key=lambda pair: self.skipped.index(pair.key)
        )
        return next(iter([*back, *new, *later]), None)


class Votes:
    """File of the votes of a study, which several processes may append to."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._path, self._study = folder / FILE, study
        self._lock = FileLock(folder / "votes.lock")

    def read(self) -> list[Entry]:
        """Return all lines; one that a crash has cut off, or of no pair of the study, is left out."""
        text = self._path.read_bytes() if self._path.exists() else b""
        entries = (_entry(line) for line in text.split(b"\n"))
        return [entry for entry in entries if entry and entry.pair in self._study.by_key]

    def progress(self, judge: str) -> Progress:
        """Return what a judge has done."""
        progress = Progress()
        for entry in self.read():
            if entry.judge == judge:
                progress.add(entry)
        return progress

    def vote(self, judge: str, pair: str, answers: dict[Question, Answer]) -> bool:
        """Add a vote; return False, and add nothing, for a pair on which the judge has already voted."""
        with self._lock:
            if pair in self.progress(judge).votes:
                return False
            fields: dict[str, Any] = {
                "at": time.time(),
                "judge": judge,
                "pair": pair,
                "kind": "vote",
            }
            self._append(Entry.model_validate(fields | dict[str, Any](answers.items())))
        return True

    def skip(self, judge: str, pair: str) -> None:
        """Move a pair behind the others, unless it has a vote."""
        with self._lock:
            if pair not in self.progress(judge).votes:
                self._append(Entry(at=time.time(), judge=judge, pair=pair, kind="skip"))

    def undo(self, judge: str) -> str:
        """Undo the last vote or skip of a judge, and return its pair; "" if there is none."""
        with self._lock:
            history = self.progress(judge).history
            if not history:
                return ""
            self._append(Entry(at=time.time(), judge=judge, pair=history[-1], kind="undo"))
            return history[-1]

    def current(self) -> list[Entry]:
        """Return the votes that count: the last of each judge for each pair, if it was not taken back."""
        by_judge: dict[str, Progress] = {}
        for entry in self.read():
            by_judge.setdefault(entry.judge, Progress()).add(entry)
        return [vote for progress in by_judge.values() for vote in progress.votes.values()]

    def _append(self, entry: Entry) -> None:
        """Append a line, which is on disk on return; raises `PleinairError`."""
        line = entry.model_dump_json(exclude_none=True).encode() + b"\n"
        try:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                end = os.fstat(file).st_size
                if end and os.pread(file, 1, end - 1) != b"\n":
                    line = b"\n" + line  # after a line that a crash has cut off
                os.write(file, line)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise explain(error, self._path) from error


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line) if line.strip() else None
    except ValidationError:
        return None
