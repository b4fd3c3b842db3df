"""What a run does at the moment, in words, for any live view."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.app.runs.events import Event, Progress, StepStarted
from pleinair.app.texts import counted

ACTIVITIES = {
    "decompose": "Reading the prompt",
    "draft": "Generating a draft",
    "critique": "Judging the image",
    "plan": "Planning repairs",
    "retrieve": "Retrieving references",
    "select": "Selecting references",
    "approve": "Reading your answer",
    "generate": "Generating",
    "drive": "Thinking",
    "act": "Working",
    "begin": "Reading the request",
    "veto": "Excluding images",
    "pin": "Pinning an image",
    "finish": "Ending",
    "index": "Indexing the library",
}
WITHOUT_ARGUMENT = ("critique", "finish")  # calls of which only the activity is shown


def activity(event: Event, counts: bool = True) -> str:
    """Return what a step does; with `counts` also its progress, if it counts any."""
    if isinstance(event.data, Progress) and event.data.ahead is not None:
        return f"Waiting for the device: {counted(event.data.ahead, 'run')} before it"
    call = event.data.call if isinstance(event.data, StepStarted) else None
    name, about = (call.name, call.about) if call else (event.step, "")
    parts = (ACTIVITIES.get(name, name), "" if name in WITHOUT_ARGUMENT else about)
    text = ": ".join(filter(None, parts))
    progress = event.data if isinstance(event.data, Progress) else Progress()
    return text if progress.total is None or not counts else f"{text} {progress.done}/{progress.total}"


def current_activity(events: Sequence[Event], counts: bool = True) -> str:
    """Return the `activity` of a run by its newest event of a step, "" before the first."""
    steps = (event for event in reversed(events) if isinstance(event.data, StepStarted | Progress))
    return next((text for event in steps if (text := activity(event, counts))), "")
