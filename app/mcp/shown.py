"""A run as a model and its user see it: text, its image, its question, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from mcp_types import CallToolResult, ContentBlock

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.api import home, run_table
from pleinair.app.mcp.access import Access
from pleinair.app.mcp.content import links, preview, shown_result, small_preview, text_block
from pleinair.app.mcp.resources import storyboard_link
from pleinair.app.paths import Paths
from pleinair.app.runs.events import Progress, StepStarted, read_readable
from pleinair.app.runs.question import hits_of, lines_of
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN, QUEUED, WAITING
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.texts import counted
from pleinair.app.trace.activity import activity
from pleinair.app.trace.view import AttemptView, RunView, view_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, PleinairError, Row

MOST_SHOWN = 8  # references of a question that are shown


def shown(run: Run, access: Access, attempt: int | None = None) -> CallToolResult:
    """Return a run with the image of an attempt, the best one if None.

    Raises `BadInput` for an attempt that there is not, or a damaged row.
    """
    view = view_of(run, home())
    looked_at = _attempt(view, attempt)
    content: list[ContentBlock] = []
    lines = [*_standing(run, view), *_lines(view, looked_at, access)]
    if looked_at:
        content += _image(run, looked_at, access)
        content += [storyboard_link(run.id)] if access.apps else []
    if run.question:
        lines += ["The user must decide. Question:", *lines_of(run.question)]
        content += _hit_images(run, run.question)
    return shown_result([*lines, _next_step(run, view)], view.model_dump(mode="json"), content)


def standing(run: Run, places: Paths) -> str:
    """Return in one line what a run does at the moment."""
    if run.status == WAITING:
        return "waiting for an approval"
    if run.status not in OPEN:
        return run.status
    if run.status == QUEUED:
        ids = [queued.id for queued in run_table().queue()]
        return f"queued, {counted(ids.index(run.id), 'run')} before it" if run.id in ids else "queued"
    events = reversed(read_readable(places.events(run.id)).events)
    step = next((event for event in events if isinstance(event.data, StepStarted | Progress)), None)
    if step is None:
        return run.status
    number = step.attempt - (step.step == "critique")  # the image that is judged has been counted
    subject = "" if step.step == "finish" else "draft: " if number == 0 else f"attempt {number}: "
    return f"{subject}{activity(step)}"


def _next_step(run: Run, view: RunView) -> str:
    """Return what to call next."""
    if run.question:
        key = run.question.key
        return (
            f'Next: show the user the references and ask; then answer(run="{run.id}", question="{key}", …). '
            "Without further arguments it approves what is proposed (*)."
        )
    if run.status in OPEN:
        return f'Next: wait(run="{run.id}").'
    others = [other.id for other in run_table().group(run.id) if other.status in OPEN]
    if others:
        return f'Next: wait(run="{others[0]}"), another image of the same request.'
    if view.status in ("stopped", "refused"):
        return "The run has ended; another seed or a clearer prompt may do better."
    return "The run has ended."


def _attempt(view: RunView, number: int | None) -> AttemptView | None:
    if number is None:
        return view.best_attempt
    for attempt in view.attempts:
        if attempt.number == number:
            return attempt
    numbers = ", ".join(str(attempt.number) for attempt in view.attempts) or "none"
    raise BadInput(f"attempt {number}: run {view.run} has no such attempt; there are: {numbers}")


def _standing(run: Run, view: RunView) -> Iterator[str]:
    yield f"Run {run.id}: {standing(run, home())}" + (f" ({view.reason})" if view.reason else "")
    yield f"Prompt: {view.prompt}"
    yield f"Graph {view.graph}, profile {view.profile}, seed {view.seed}"


def _lines(view: RunView, attempt: AttemptView | None, access: Access) -> Iterator[str]:
    for abstention in view.abstentions:
        yield f"The library has nothing for {abstention.concept!r}: {abstention.reason}"
    if attempt:
        count = len(view.attempts)
        best = ", the best one" if attempt.number == view.best else ""
        yield f"Image of attempt {attempt.number} ({count} so far{best}), SHA-256 {attempt.image.sha256}"
        yield from map(row_line, attempt.ledger or ())
        for reference in attempt.references:
            credit = f"license {reference['license']}, author {reference['author'] or 'unknown'}"
            yield f"Reference for {reference['concept']!r}: {reference['id']} ({credit})"
        if view.credit_line and attempt.number == view.best:
            yield f"Credit line: {view.credit_line}"
    elif view.has_ended:
        yield "There is no image."
    if access.files and view.picture:
        yield f"File: {view.picture}"
    if access.address:
        yield f"Page for the user: {access.address}/runs/{view.run}"


def row_line(row: Row) -> str:
    """Return a row of a ledger in words."""
    evidence = f": {row.evidence}" if row.evidence else ""
    return f"{row.status} ({row.confidence:.0%}) {row.concept!r}{evidence}"


def _image(run: Run, attempt: AttemptView, access: Access) -> list[ContentBlock]:
    store = ArtifactStore(home().pictures(run.id))
    try:
        image = store.open(attempt.image)
    except PleinairError as error:
        return [text_block(f"The image cannot be shown: {error}")]
    name = f"{run.id}-{attempt.number}"
    return [preview(image), *links(attempt.image, name, run.id, access.address)]


def _hit_images(run: Run, question: ApprovalRequest) -> list[ContentBlock]:
    """Return small images of the references that may be chosen, each after its number."""
    gallery, content = Gallery(run.id, read_request(run.request_json), home()), list[ContentBlock]()
    for number, hit in enumerate(hits_of(question)[:MOST_SHOWN], 1):
        if image := gallery.thumbnail(hit):
            content += [text_block(f"{number}: {hit.id}"), small_preview(image.image)]
    return content
