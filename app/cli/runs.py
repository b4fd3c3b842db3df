"""Commands for existing runs: list, show, resume, cancel."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from pleinair.app.cli.options import Json, RunId
from pleinair.app.cli.run import execute
from pleinair.app.cli.terminal import explained, say
from pleinair.app.runs.store import OPEN, Run
from pleinair.app.texts import printable, printable_json

runs_app = typer.Typer(help="List, show, resume and cancel runs.", no_args_is_help=True)

INTERRUPTED = "interrupted"  # its process has died or released its lease before the end

Group = Annotated[bool, typer.Option("--group", help="All images of the run's request.")]


@runs_app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20, as_json: Json = False
) -> None:
    """List the newest runs."""
    from pleinair.app.api import run_table

    with explained():
        rows = [_summary(run) for run in run_table().newest(limit)]
    if as_json:
        typer.echo(printable_json(rows))
        return
    for row in rows:
        image = f"[image {row['image']} of group {row['group']}]  " if "group" in row else ""
        say(f"{row['run']}  {_standing(row):<11}  {image}{printable(row['prompt'])[:70]}", indent=4)
    if any(row["interrupted"] for row in rows):
        say(f"{INTERRUPTED}: `pleinair runs resume RUN` continues from the last step", err=True)


@runs_app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """Show the request, status and outcome of a run."""
    with explained():
        (run,) = _find_all(run_id, group=False)
        facts = _details(run)
    if as_json:
        typer.echo(printable_json(facts))
        return
    facts["status"] = _standing(facts)
    del facts["interrupted"]
    for key, value in facts.items():
        if value is not None:
            say(f"{key:<10} {printable(str(value))}", indent=11)


@runs_app.command()
def resume(run_id: RunId, group: Group = False, as_json: Json = False) -> None:
    """Resume an interrupted, waiting or failed run from its last step."""
    with explained():
        runs = _find_all(run_id, group)
        for run in runs:
            if run.status not in (*OPEN, "failed"):
                branch = f"`pleinair trace fork {run.id} --at STEP` branches off"
                typer.echo(f"{run.id} has ended: {run.status}; {branch}", err=True)
        execute(runs, as_json, reopen=True)


@runs_app.command()
def cancel(run_id: RunId, group: Group = False) -> None:
    """Cancel a run at its next step; the best image so far is stored."""
    from pleinair.app.api import cancel as cancel_run

    with explained():
        for run in [cancel_run(run.id) for run in _find_all(run_id, group)]:
            status = "stops at its next step" if run.status in OPEN else f"has ended: {run.status}"
            typer.echo(f"{run.id} {status}")


def _find_all(name: str, group: bool) -> list[Run]:
    """Return the run of this name, or with `group` all of its request."""
    from pleinair.app.api import find, run_table

    run = find(name)
    return run_table().group(run.id) if group else [run]


def _summary(run: Run) -> dict[str, Any]:
    if run.damage:
        facts = {"run": run.id, "status": run.status, "interrupted": False, "created": _when(run.created)}
        return facts | {"prompt": f"(column {run.damage} of its row cannot be read)"}
    request = json.loads(run.request_json)
    count = request.get("num_images", 1)
    return {
        "run": run.id,
        "status": run.status,
        "interrupted": _interrupted(run),
        "prompt": str(request.get("prompt", "")),
        "created": _when(run.created),
        **({"group": run.group, "image": f"{request.get('number', 1)} of {count}"} if count > 1 else {}),
    }


def _interrupted(run: Run) -> bool:
    """Return whether a run has begun and no process works on it."""
    return run.status in OPEN and run.fence > 0 and run.owner is None


def _standing(facts: dict[str, Any]) -> str:
    return INTERRUPTED if facts["interrupted"] else str(facts["status"])


def _details(run: Run) -> dict[str, Any]:
    if run.damage:
        return _summary(run)
    request = json.loads(run.request_json)
    facts = _summary(run) | {
        "graph": request.get("graph", ""),
        "profile": request.get("settings", {}).get("profile", ""),
        "seed": run.seed,
    }
    if run.owner:
        facts["owner"] = f"{run.owner}, until {_when(run.lease_until)}"
    if facts["interrupted"]:
        facts["resume"] = f"`pleinair runs resume {run.id}` continues from the last step"
    if run.outcome is None:
        return facts
    from pleinair.app.runs.results import result_of

    result = result_of(run)
    return facts | {
        "reason": run.outcome.reason,
        "limit": run.outcome.limit,
        "picture": str(result.picture),
        "sidecar": str(result.sidecar if result.sidecar.exists() else None),
    }


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
