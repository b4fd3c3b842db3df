"""Differences between two runs, leaving out what always differs: ids, folders, durations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pleinair.app.api import find, home
from pleinair.app.runs.events import read
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.trace.trace import AttemptTrace, crop_text, trace_of
from pleinair.tools.types import Reference, Retrieval

DIGITS = 12  # of a SHA-256
ABSENT = "–"
GIVEN = ("prompt", "graph", "seed", "settings", "models")  # the facts that a run begins with


@dataclass(frozen=True)
class Difference:
    """One fact that two runs have otherwise, in words; "–" where a run lacks it."""

    path: tuple[str, ...]  # such as "attempt 1", "ledger", "second thing"
    first: str
    second: str

    @property
    def what(self) -> str:
        """The path in one line."""
        return " · ".join(self.path)


def differ(first: str, second: str) -> list[Difference]:
    """Compare two runs by id, beginning of an id or "last"; an empty list means that they are the same.

    Compared are prompt, graph, seed, settings and models, the last retrieval for every concept, and of every
    attempt the prompt as sent, the seed, size and steps, the inpainted box, the references, the ledger and
    the image itself; then the outcome. Raises `BadInput`.
    """
    return differences(_facts(first), _facts(second))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Return the leaves of two trees that differ."""
    before, after = dict(_flat(first)), dict(_flat(second))
    paths = dict.fromkeys([*before, *after])
    pairs = ((path, before.get(path, ABSENT), after.get(path, ABSENT)) for path in paths)
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def without_effect(changes: Sequence[Difference]) -> str:
    """Return what two runs were given otherwise if the results are the same, else ""."""
    causes = [difference.what for difference in changes if difference.path[0] in GIVEN]
    return ", ".join(causes) if len(causes) == len(changes) else ""


def fork_without_effect(branch: Run) -> str:
    """Return a sentence where a fork that was given something else has its parent's results, else ""."""
    parent = read_request(branch.request_json).parent
    causes = without_effect(differ(parent.run, branch.id)) if parent else ""
    if not parent or not causes:
        return ""
    return f"The results are those of {parent.run}: {causes} made no difference from {parent.step} on."


def _facts(name: str) -> dict[str, Any]:
    run = find(name)
    trace, outcome = trace_of(read(home().events(run.id))), run.outcome
    return {
        **run_facts(run),
        "retrieval": {
            retrieval.concept: _retrieval(retrieval)
            for retrieval in (trace.retrievals.values() if trace else ())
        },
        **{each.title.lower(): attempt_facts(each) for each in (trace.attempt_traces if trace else ())},
        "ending": outcome.ending if outcome else run.status,
        "reason": outcome.reason if outcome else "",
        "best": outcome.best.number if outcome and outcome.best else ABSENT,
    }


def run_facts(run: Run) -> dict[str, Any]:
    """Return what a run began with: prompt, graph, seed, settings and models."""
    request, trace = read_request(run.request_json), trace_of(read(home().events(run.id)))
    return {
        "prompt": request.prompt,
        "graph": request.graph,
        "seed": run.seed,
        "settings": request.settings.model_dump(mode="json", exclude={"paths"}),
        "models": trace.run.models if trace else {},
    }


def attempt_facts(trace: AttemptTrace) -> dict[str, Any]:
    """Return what of an attempt is compared, by its names."""
    request = trace.attempt.request
    return {
        **request.model_dump(include={"prompt", "negative_prompt", "seed", "guidance_scale"}),
        "size": f"{request.width}×{request.height}",
        "steps": request.num_inference_steps,
        **({"inpainted": trace.inpainted, "box": str(request.inpaint.box)} if request.inpaint else {}),
        "reference": {reference.concept: _reference(reference) for reference in request.references},
        "ledger": {row.concept: f"{row.status} {row.confidence:.0%}" for row in trace.rows},
        "image": trace.attempt.picture.sha256[:DIGITS],
    }


def _retrieval(retrieval: Retrieval) -> str:
    if retrieval.abstained:
        return f"abstained, {retrieval.reason}"
    return " ".join(hit.id for hit in retrieval.hits)


def _reference(reference: Reference) -> str:
    parts = (reference.hit.id, reference.picture.sha256[:DIGITS], crop_text(reference))
    return " ".join(filter(None, parts))


def _flat(value: Any, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every leaf of a tree with its path."""
    if not isinstance(value, Mapping):
        yield path, str(value)
        return
    for key, inner in value.items():
        yield from _flat(inner, *path, str(key))
