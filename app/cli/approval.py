"""Commands of a person's decisions on runs: answer what one asks, accept its image early."""

from __future__ import annotations

from typing import Annotated

import typer

from pleinair.app.cli.options import Json, RunId
from pleinair.app.cli.run import execute
from pleinair.app.cli.runs import runs_app
from pleinair.app.cli.terminal import explained
from pleinair.app.runs.tables import OPEN
from pleinair.tools.types import BadInput

TERMINAL = "terminal"  # client of runs that a terminal leaves to the workers


@runs_app.command()
def accept(run_id: RunId) -> None:
    """Accept the best image so far of a run; it ends at its next step."""
    from pleinair.app.api import accept as accept_run
    from pleinair.app.api import find

    with explained():
        run = accept_run(find(run_id).id)
        status = "ends with its best image" if run.status in OPEN else f"has ended: {run.status}"
        typer.echo(f"{run.id} {status}")


@runs_app.command()
def answer(
    run_id: RunId,
    veto: Annotated[
        list[str] | None, typer.Option(metavar="ID|N", help="A reference that is never used; repeatable.")
    ] = None,
    use: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONCEPT=ID|N|FILE", help="Another reference of a concept, or your own image; repeatable."
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="CONCEPT=NAME", help="Another name, which is retrieved anew; repeatable."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="A prompt in place of the run's.")] = "",
    stop: Annotated[bool, typer.Option("--stop", help="End the run with its images so far.")] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Leave the rest of the run to the workers of `pleinair serve`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer a run that waits for your approval, and go on with it; without options as it is proposed.

    `pleinair runs show RUN` prints the question with the numbers (N) of the references.
    """
    from pleinair.app.api import answer as answer_run
    from pleinair.app.api import find
    from pleinair.app.cli.question import approval_of

    with explained():
        run = find(run_id)
        if run.question is None:
            raise BadInput(f"run {run.id}: it waits for no approval (status: {run.status})")
        fields, files = approval_of(run.question, veto or (), use or (), rename or (), prompt, stop)
        run = answer_run(run.id, fields, input_images=files, client=TERMINAL if queue else None)
    if run.client:  # workers would take it from this process
        typer.echo(
            f"{run.id} is answered; it goes on when a worker takes it (`pleinair serve`, `pleinair worker`)"
        )
    else:
        with explained():
            execute([run], as_json)
