"""Commands for existing runs: list, show, credits, resume, cancel."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pleinair.app.cli.options import Json, RunId
from pleinair.app.cli.run import execute
from pleinair.app.cli.terminal import explained, say
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN
from pleinair.app.texts import printable, printable_json
from pleinair.tools.types import BadInput

runs_app = typer.Typer(help="List, show, credit, resume and cancel runs.", no_args_is_help=True)

INTERRUPTED = "interrupted"  # its process has died or released its lease before the end
PROGRAM_ONLY = "by program"  # interrupted, and made with objects of a Python program

Group = Annotated[bool, typer.Option("--group", help="All images of the run's request.")]


@runs_app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20, as_json: Json = False
) -> None:
    """List the newest runs."""
    from pleinair.app.api import run_table
    from pleinair.app.runs.facts import summary_of

    with explained():
        rows = [summary_of(run) for run in run_table().newest(limit)]
    if as_json:
        typer.echo(printable_json(rows))
        return
    for row in rows:
        image = f"[image {row['image']} of group {row['group']}]  " if "group" in row else ""
        say(f"{row['run']}  {_standing(row):<11}  {image}{printable(row['prompt'])[:70]}", indent=4)
    by_program = {row["by_program"] for row in rows if row["interrupted"]}
    if False in by_program:
        say(f"{INTERRUPTED}: `pleinair runs resume RUN` continues from the last step", err=True)
    if True in by_program:
        say(f"{PROGRAM_ONLY}: its Python program continues it, by `resume` with its objects", err=True)


@runs_app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """Show the request, status and outcome of a run."""
    from pleinair.app.api import home
    from pleinair.app.cli.question import how_to_answer
    from pleinair.app.runs.facts import details_of
    from pleinair.app.runs.question import lines_of
    from pleinair.app.trace.view import view_of

    with explained():
        (run,) = _find_all(run_id, group=False)
        facts = details_of(run)
        if as_json:
            typer.echo(printable_json(facts if run.damage else view_of(run, home()).model_dump(mode="json")))
            return
    facts["status"] = _standing(facts)
    del facts["interrupted"], facts["by_program"]
    for key, value in facts.items():
        if value is not None:
            say(f"{key:<10} {printable(str(value))}", indent=11)
    if run.question:
        for line in (*lines_of(run.question), how_to_answer(run)):
            say(printable(line))


@runs_app.command()
def credits(
    run_id: RunId,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the images as CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Show whose images a run used, under which licenses, and a credit line for its image."""
    from pleinair.app.api import find, home
    from pleinair.app.credits.formats import csv_of, markdown_of, text_of
    from pleinair.app.runs.request import read_request
    from pleinair.app.runs.results import chosen_by
    from pleinair.app.trace.trace import credits_of, trace_begun

    with explained():
        if as_markdown + as_csv + as_json > 1:
            raise BadInput("--markdown, --csv, --json: only one of them can be used")
        run = find(run_id)
        sheet = credits_of(trace_begun(run, home()), chosen_by(read_request(run.request_json)))
    if as_json:
        typer.echo(printable_json(sheet.model_dump(mode="json")))
    else:
        typer.echo((markdown_of if as_markdown else csv_of if as_csv else text_of)(sheet), nl=False)


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


def _standing(facts: dict[str, Any]) -> str:
    if not facts["interrupted"]:
        return str(facts["status"])
    return PROGRAM_ONLY if facts["by_program"] else INTERRUPTED
