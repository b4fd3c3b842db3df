"""Examples for the adaptor's training: images with the sub-queries that an MLLM lists of their captions.

An image's captions are lines; each is a call of its own, several at once. Every answer is a line of
`subqueries.jsonl` as soon as it is paid for, and no caption is asked about twice, so a stopped run continues.
A caption that the model declines, or that it gives no usable answer for, has no sub-queries; delete its line
to ask again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pleinair.tools.callbacks import no_callback
from pleinair.tools.crossmodal import Decomposition, list_subqueries
from pleinair.tools.types import ModelFault, PleinairError, Refused, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

MOST_FAULTS = 20  # unusable answers in a row, after which the model is at fault and not the captions
_FILE = "subqueries.jsonl"


@dataclass(frozen=True, slots=True)
class Example:
    """Image with its captions, one a line, and the sub-queries of all of them."""

    id: str
    caption: str
    subqueries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Sub-queries of one caption; without any, `fault` is the reason."""

    subqueries: tuple[str, ...]
    fault: str = ""


def _captions_of(caption: str) -> list[str]:
    """Return an image's captions: the lines of its caption with a text."""
    return [line.strip() for line in caption.splitlines() if line.strip()]


@dataclass
class AnswerBook:
    """Answers in a folder, by caption, in one style of sub-queries."""

    folder: Path
    decomposition: Decomposition = "published"
    answers: dict[str, Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the stored answers; those of the other style and truncated lines are ignored."""
        path = self.folder / _FILE
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            try:
                record = json.loads(line)
                if record["decomposition"] == self.decomposition:
                    answer = Answer(tuple(record["subqueries"]), record.get("fault", ""))
                    self.answers[record["caption"]] = answer
            except (ValueError, LookupError, TypeError):
                continue

    @property
    def empty(self) -> int:
        """Return the number of captions without sub-queries."""
        return sum(not answer.subqueries for answer in self.answers.values())

    def missing(self, captions: Mapping[str, str]) -> list[str]:
        """Return the different captions, of images by id, that were not asked about yet."""
        lines = dict.fromkeys(line for caption in captions.values() for line in _captions_of(caption))
        return [line for line in lines if line not in self.answers]

    def examples(self, captions: Mapping[str, str]) -> list[Example]:
        """Return the images, by id, that have sub-queries: each caption's are the image's."""
        examples = []
        for id, caption in captions.items():
            answers = [self.answers[line] for line in _captions_of(caption) if line in self.answers]
            names = dict.fromkeys(name for answer in answers for name in answer.subqueries)
            if names:
                examples.append(Example(id, caption, tuple(names)))
        return examples

    def ask_all(
        self,
        captions: Sequence[str],
        model: BaseChatModel,
        *,
        at_once: int = 1,
        may_call: Callable[[Usage], bool] = lambda usage: True,
        on_progress: Callable[[int, int], None] = no_callback,
    ) -> Usage:
        """Ask about captions, some at once, and store every answer; return what was spent.

        Args:
            captions: different ones, without an answer.
            model: lists the sub-queries; a repair of an invalid answer is a second call.
            at_once: calls beside each other, at least 1.
            may_call: whether a call may follow the usage so far, with the calls under way counted as made.
            on_progress: receives captions done and in total; may raise to stop.

        Raises:
            PleinairError: the model cannot be called, or gives `MOST_FAULTS` unusable answers in a row;
                answers under way are stored first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _FILE).open("a", encoding="utf-8") as file:
            file.write("\n")  # ends a truncated line
            with ThreadPoolExecutor(at_once) as pool:
                return _Round(self, model, pool, file, may_call).run(captions, at_once, on_progress)


@dataclass
class _Round:
    """One use of `AnswerBook.ask_all`."""

    book: AnswerBook
    model: BaseChatModel
    pool: ThreadPoolExecutor
    file: IO[str]
    may_call: Callable[[Usage], bool]
    running: dict[Future[tuple[Answer, Usage]], tuple[str, int]] = field(default_factory=dict)
    spent: Usage = field(default_factory=Usage)
    faults: int = 0  # in a row

    def run(self, captions: Sequence[str], at_once: int, on_progress: Callable[[int, int], None]) -> Usage:
        done = 0
        try:
            for caption in captions:
                while self.running and (len(self.running) >= at_once or not self._calls_left()):
                    done += self._store_finished()
                    on_progress(done, len(captions))
                if not (calls := self._calls_left()):
                    break
                context = copy_context()  # with the deadline
                style = self.book.decomposition
                future = self.pool.submit(context.run, _ask, caption, self.model, calls, style)
                self.running[future] = caption, calls
        finally:
            while self.running:  # paid for, also where an error ends the round
                done += self._store_finished()
        on_progress(done, len(captions))
        return self.spent

    def _calls_left(self) -> int:
        """Return how many calls the next caption may take: 2 with a repair, or 0."""
        under_way = sum(calls for _, calls in self.running.values())
        for calls in (2, 1):
            made = self.spent.mllm_calls + under_way + calls - 1
            if self.may_call(self.spent.model_copy(update={"mllm_calls": made})):
                return calls
        return 0

    def _store_finished(self) -> int:
        return self._store(wait(self.running, return_when=FIRST_COMPLETED).done)

    def _store(self, done: set[Future[tuple[Answer, Usage]]]) -> int:
        """Store finished answers and return their number; raise the error of a call that has none."""
        errors = []
        for future in done:
            caption, _ = self.running.pop(future)
            try:
                answer, usage = future.result()
            except PleinairError as error:
                self.spent = Usage.total([self.spent, error.spent])
                errors.append(error)
                continue
            self.spent = Usage.total([self.spent, usage])
            self.book.answers[caption] = answer
            record: dict[str, object] = {"caption": caption, "decomposition": self.book.decomposition}
            record |= {"subqueries": answer.subqueries} | ({"fault": answer.fault} if answer.fault else {})
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
            self.faults = self.faults + 1 if answer.fault else 0
        if errors:
            raise errors[0]
        if self.faults >= MOST_FAULTS:
            raise PleinairError(
                f"The model gave {self.faults} captions in a row no sub-queries; the last: {answer.fault}",
                "Check it with `pleinair doctor --mllm`, or choose another one.",
            )
        return len(done)


def _ask(
    caption: str, model: BaseChatModel, calls: int, decomposition: Decomposition
) -> tuple[Answer, Usage]:
    try:
        names, usage = list_subqueries(caption, model=model, calls=calls, decomposition=decomposition)
    except (Refused, ModelFault) as error:
        return Answer((), error.message or type(error).__name__), error.spent
    return Answer(tuple(names)), usage
