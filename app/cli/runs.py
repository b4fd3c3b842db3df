"""The commands for runs that exist already: list, show, resume, cancel."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleinair.app.cli.exit_codes import explained
from pleinair.app.cli.run import work_on
from pleinair.app.cli.terminal import printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.runs.store import Run

runs_app = typer.Typer(help="Look at runs, go on with them, stop them.", no_args_is_help=True)

INTERRUPTED = "interrupted"  # its process has died or let go before the end

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
        typer.echo(f"{row['run']}  {_standing(row):<11}  {printable(row['prompt'])[:70]}")
    if any(row["interrupted"] for row in rows):
        typer.echo(f"{INTERRUPTED}: `pleinair runs resume RUN` goes on from the last step", err=True)


@runs_app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """Show one run: what was asked, where it stands, how it ended."""
    with explained():
        facts = _details(_find(run_id))
    if as_json:
        typer.echo(printable_json(facts))
        return
    facts["status"] = _standing(facts)
    del facts["interrupted"]
    for key, value in facts.items():
        if value is not None:
            typer.echo(f"{key:<10} {printable(str(value))}")


@runs_app.command()
def resume(run_id: RunId, as_json: Json = False) -> None:
    """Go on with a run whose process has died, or try a failed one again from its last step."""
    from pleinair.app.runs.store import OPEN

    with explained():
        run = _find(run_id)
        if run.status not in (*OPEN, "failed"):
            branch = f"`pleinair trace fork {run.id} --at STEP` branches off"
            typer.echo(f"{run.id} has ended: {run.status}; {branch}", err=True)
        work_on(run, as_json, reopen=True)


@runs_app.command()
def cancel(run_id: RunId) -> None:
    """Stop a run at its next step; the best picture so far is kept."""
    from pleinair.app.api import cancel as ask
    from pleinair.app.runs.store import OPEN

    with explained():
        run = ask(_find(run_id).id)
    typer.echo(
        f"{run.id} stops at its next step" if run.status in OPEN else f"{run.id} has ended: {run.status}"
    )


def _find(name: str) -> Run:
    """Read a run's row."""
    from pleinair.app.api import find as look_up

    return look_up(name)


def _summary(run: Run) -> dict[str, Any]:
    """Give what a list shows of a run."""
    order = json.loads(run.order_json)
    return {
        "run": run.id,
        "status": run.status,
        "interrupted": _interrupted(run),
        "prompt": order["prompt"],
        "created": _when(run.created),
    }


def _interrupted(run: Run) -> bool:
    """Tell whether somebody has begun a run and nobody works on it any more."""
    from pleinair.app.runs.store import OPEN

    return run.status in OPEN and run.fence > 0 and run.owner is None


def _standing(facts: dict[str, Any]) -> str:
    """Say in a word where a run stands."""
    return INTERRUPTED if facts["interrupted"] else str(facts["status"])


def _details(run: Run) -> dict[str, Any]:
    """Give everything that the row says."""
    order = json.loads(run.order_json)
    facts = _summary(run) | {
        "graph": order["graph"],
        "profile": order["settings"]["profile"],
        "seed": run.seed,
    }
    if run.owner:
        facts["owner"] = f"{run.owner}, until {_when(run.lease_until)}"
    if facts["interrupted"]:
        facts["resume"] = f"`pleinair runs resume {run.id}` goes on from the last step"
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
    """Give a moment in local time."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
