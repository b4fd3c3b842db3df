"""Facts about a run for lists and pages of any interface, read from its row."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pleinair.app.parts import has_parts
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import result_of
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import QUEUED, RUNNING
from pleinair.tools.types import BadInput


def summary_of(run: Run) -> dict[str, Any]:
    """Return what a list of runs shows of one, as JSON values; a damaged row has its column in the prompt."""
    if run.damage:
        prompt = f"(column {run.damage} of its row cannot be read)"
        facts = {"run": run.id, "status": run.status, "interrupted": False, "by_program": False}
        return facts | {"prompt": prompt, "created": _when(run.created)}
    request = json.loads(run.request_json)
    count = request.get("num_images", 1)
    return {
        "run": run.id,
        "status": run.status,
        "interrupted": _interrupted(run),
        "by_program": is_by_program(run),
        "prompt": str(request.get("prompt", "")),
        "created": _when(run.created),
        **({"group": run.group, "image": f"{request.get('number', 1)} of {count}"} if count > 1 else {}),
    }


def _interrupted(run: Run) -> bool:
    """Return whether a run has begun and no process works on it."""
    return run.status in (QUEUED, RUNNING) and run.fence > 0 and run.owner is None


def details_of(run: Run) -> dict[str, Any]:
    """Return what is known of a run, as JSON values: the request, the holder, the outcome, the files."""
    if run.damage:
        return summary_of(run)
    request = json.loads(run.request_json)
    facts = summary_of(run) | {
        "graph": request.get("graph", ""),
        "profile": request.get("settings", {}).get("profile", ""),
        "seed": run.seed,
    }
    if run.owner:
        facts["owner"] = f"{run.owner}, until {_when(run.lease_until)}"
    if facts["interrupted"]:
        command = "its program, by `resume`," if facts["by_program"] else f"`pleinair runs resume {run.id}`"
        facts["resume"] = f"{command} continues from the last step"
    if run.outcome is None:
        return facts
    result = result_of(run).plain()
    return facts | {key: result[key] for key in ("reason", "limit", "picture", "sidecar", "original")}


def is_by_program(run: Run) -> bool:
    """Return whether a program has handed over parts of a run; False for a request that cannot be read."""
    try:
        return has_parts(read_request(run.request_json).settings)
    except BadInput:
        return False


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
