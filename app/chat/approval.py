"""Answer of a chat to a run that waits for approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app import api
from pleinair.app.chat.options import ThreadOptions
from pleinair.app.chat.thread import Thread
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN
from pleinair.tools.types import BadInput, Reference, concept_key


class ThreadApproval(ThreadOptions):
    """Answers to the question of the last message; the thread's vetoes, pins and tray are part of them."""

    def question(self) -> ApprovalRequest | None:
        """Return the question that the current version of the last message waits with, None without one."""
        return self.message().version.question if self.thread.turns else None

    def answer(
        self, *, prompt: str = "", concepts: Mapping[str, str] | None = None, stop: bool = False
    ) -> Run:
        """Answer the question with what the thread has vetoed, pinned and in use, and return the run's row.

        Args:
            prompt: another prompt; "" for the one of the question.
            concepts: other names for concepts, which are retrieved anew, and asked about again.
            stop: end the run with its images so far.

        Raises:
            BadInput: no run waits, or a value is unusable; the run still waits then.
        """
        question = self.question()
        if question is None:
            raise BadInput("no run of this chat waits for an answer")
        run = self.thread.runs[-1]
        if stop:
            return api.answer(run, False)
        edits = {"prompt": prompt, "concepts": dict(concepts or {})}
        return api.answer(run, _changes(question, self.thread) | edits)

    def stop(self, run: str = "") -> list[Run]:
        """End all versions of a run's message, or of the last one, and return the rows that were open.

        They end as by `api.cancel`. Raises `BadInput` if there is no message.
        """
        runs = next((turn.runs for turn in self.thread.turns if run in turn.runs), ()) if run else ()
        rows = self._runs.get_some(runs or self._turn(len(self.thread.turns)).runs).values()
        return [api.cancel(row.id) for row in rows if row.status in OPEN]


def _changes(question: ApprovalRequest, thread: Thread) -> dict[str, Any]:
    """Return the vetoes, hits and input images in which a thread differs from the plan of a question."""
    planned = {reference.concept: reference.hit.id for reference in question.references}
    shown = {concept_key(concept.name): concept.name for concept in question.concepts}
    ids = {retrieval.concept: {hit.id for hit in retrieval.hits} for retrieval in question.retrievals}
    candidates = set(planned.values()).union(*ids.values())
    pins = {pin.concept: pin.hit.id for pin in thread.pins}
    given = [
        image.reference.model_copy(update={"concept": shown[key]})
        for image in thread.tray
        if image.used and (key := concept_key(image.concept)) in shown
    ]
    return {
        "vetoes": [id for id in thread.vetoes if id in candidates],
        "hits": {
            concept: id
            for concept, id in pins.items()
            if id in ids.get(concept, ()) and planned.get(concept) != id and concept in shown.values()
        },
        "given": [reference for reference in given if _is_new(reference, planned)],
    }


def _is_new(reference: Reference, planned: Mapping[str, str]) -> bool:
    return planned.get(reference.concept) != reference.hit.id
