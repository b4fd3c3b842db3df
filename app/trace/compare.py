"""Comparison of two attempts, of one run or of two."""

from __future__ import annotations

from dataclasses import dataclass

from pleinair.app.api import find, home
from pleinair.app.runs.row import Run
from pleinair.app.trace.diff import Difference, attempt_facts, differences, run_facts
from pleinair.app.trace.prompts import Piece, word_changes
from pleinair.app.trace.trace import AttemptTrace, trace_begun
from pleinair.tools.types import BadInput


@dataclass(frozen=True)
class Side:
    """Attempt of a run."""

    run: Run
    attempt: AttemptTrace

    @property
    def name(self) -> str:
        """The run's id and the attempt's number, as `_find_attempt` takes them."""
        return f"{self.run.id}:{self.attempt.attempt.number}"

    @property
    def prompt(self) -> str:
        """The prompt as sent."""
        return self.attempt.attempt.request.prompt


@dataclass(frozen=True)
class Comparison:
    """Two attempts with what differs."""

    left: Side
    right: Side
    differences: list[Difference]
    prompts: list[Piece]  # words of both

    @property
    def same_run(self) -> bool:
        """Whether both are of one run."""
        return self.left.run.id == self.right.run.id

    @property
    def same_seed(self) -> bool:
        """Whether both began with the same noise: equal seed and size."""
        first, second = (side.attempt.attempt.request for side in (self.left, self.right))
        return (first.seed, first.width, first.height) == (second.seed, second.width, second.height)


def _find_attempt(name: str) -> Side:
    """Return an attempt by "RUN:NUMBER", or the best or else last one by "RUN"; runs as `find` takes them.

    Raises `BadInput` for a run that is unknown or has no such attempt.
    """
    run_name, colon, number = name.strip().partition(":")
    run = find(run_name)
    attempts = trace_begun(run, home()).attempt_traces
    if not attempts:
        raise BadInput(f"run {run.id}: it has no image yet (status: {run.status})")
    if not colon:
        return Side(run, next((attempt for attempt in attempts if attempt.best), attempts[-1]))
    numbers = [str(attempt.attempt.number) for attempt in attempts]
    if number not in numbers:
        raise BadInput(f"run {run.id}: attempt {number!r}: there is none; accepted: {', '.join(numbers)}")
    return Side(run, attempts[numbers.index(number)])


def compare(first: str, second: str) -> Comparison:
    """Compare two attempts, each as `_find_attempt` takes it: what was sent, references, ledger, image.

    Of two runs also graph, settings and models. Raises `BadInput`.
    """
    left, right = _find_attempt(first), _find_attempt(second)
    facts = []
    for side in (left, right):
        shared = {} if left.run.id == right.run.id else run_facts(side.run)
        facts.append({**attempt_facts(side.attempt), **shared})
    return Comparison(left, right, differences(*facts), word_changes(left.prompt, right.prompt))
