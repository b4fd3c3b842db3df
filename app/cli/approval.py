"""Commands of a person's decisions on runs: answer what one asks, accept its image early."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pleinair.app.cli.options import Json, RunId
from pleinair.app.cli.run import execute
from pleinair.app.cli.runs import runs_app
from pleinair.app.cli.terminal import explained
from pleinair.app.runs.store import OPEN
from pleinair.tools.types import BadInput


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
    veto: Annotated[list[str] | None, typer.Option(help="Id of an image that is not to be used.")] = None,
    use: Annotated[
        list[str] | None,
        typer.Option(metavar="CONCEPT=ID", help="Another hit that is to show a concept."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="CONCEPT=FILE", help="An image of your own that is to show a concept."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="CONCEPT=NAME", help="Another name of a concept, which is retrieved anew."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="A prompt in place of the run's.")] = "",
    stop: Annotated[bool, typer.Option("--stop", help="End the run with its images so far.")] = False,
    as_json: Json = False,
) -> None:
    """Answer a run that waits for your approval, and go on with it; without options it is approved."""
    from pleinair.app.api import answer as answer_run
    from pleinair.app.api import find

    with explained():
        run = find(run_id)
        fields: dict[str, Any] = {
            "vetoes": veto or [],
            "hits": _pairs("--use", use),
            "concepts": _pairs("--rename", rename),
            "prompt": prompt,
            "stop": stop,
        }
        run = answer_run(run.id, fields, input_images=_pairs("--image", image))
    if run.client:  # workers would take it from this process
        typer.echo(f"{run.id} is answered; a worker of `pleinair serve` goes on with it")
    else:
        with explained():
            execute([run], as_json)


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    """Return the concept and the value of each `CONCEPT=VALUE`."""
    pairs = {}
    for value in values or []:
        concept, equals, rest = value.partition("=")
        if not (equals and concept.strip() and rest.strip()):
            raise BadInput(f"{option} {value!r}: must be CONCEPT=VALUE")
        pairs[concept.strip()] = rest.strip()
    return pairs
