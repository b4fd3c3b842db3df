"""The commands for how a picture came about: show, diff, replay, fork, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleinair.app.cli.exit_codes import EXITS, explained
from pleinair.app.cli.run import print_result, work_on
from pleinair.app.cli.terminal import printable, printable_json

trace_app = typer.Typer(
    help="See how a picture came about, and branch off.", no_args_is_help=True, rich_markup_mode=None
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[str | None, typer.Option(help="The folder for results; the run's own if unset.")]
WIDTH = 12  # characters of a label


@trace_app.command()
def show(run: RunId, as_json: Json = False) -> None:
    """Show a run attempt by attempt: sent, retrieved, critiqued, decided, spent; then its steps by name."""
    from pleinair.app.trace.show import Report

    with explained():
        report = Report(run)
    if as_json:
        typer.echo(printable_json(report.plain()))
        return
    for label, text in report.lines():
        if text:
            typer.echo(f"  {printable(label):<{WIDTH}} {printable(text)}")
        else:
            typer.echo(typer.style(printable(label), bold=True))


@trace_app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="RUN1", help="A run's id, its beginning, or `last`.")],
    second: Annotated[str, typer.Argument(metavar="RUN2", help="Another one.")],
    as_json: Json = False,
) -> None:
    """Show the differences between two runs. Exit codes: 0 nothing, 1 something, 2 bad input."""
    from pleinair.app.trace.diff import differ, without_effect

    with explained():
        differences = differ(first, second)
    if as_json:
        keys = ("what", "first", "second")
        typer.echo(printable_json([{key: getattr(one, key) for key in keys} for one in differences]))
    else:
        for one in differences:
            typer.echo(f"{printable(one.what)}: {printable(one.first)} → {printable(one.second)}")
        if given := without_effect(differences):
            typer.echo(f"Nothing else differs: {printable(given)} made no difference to the results.")
    if differences:
        raise typer.Exit(1)


@trace_app.command()
def replay(run: RunId, out: Out = None, as_json: Json = False) -> None:
    """Write a finished run's pictures and record again from what is stored; no model is called."""
    from pleinair.app.trace.replay import replay as write

    with explained():
        result = write(run, out)
    print_result(result, as_json)


@trace_app.command(help=f"Run step STEP of RUN again, with what follows, as a new run.\n\n{EXITS}")
def fork(
    run: RunId,
    at: Annotated[str, typer.Option(metavar="STEP", help="A step that `trace show` names.")],
    prompt: Annotated[str | None, typer.Option(help="Another prompt from there on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed from there on.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Check the fork, note it, and draw."""
    from pleinair.app.settings import assignments
    from pleinair.app.trace.diff import fork_without_effect
    from pleinair.app.trace.fork import submit_fork

    with explained():
        overrides = assignments(setting or [])
        branch = submit_fork(run, at, prompt=prompt, seed=seed, overrides=overrides, out=out)
        work_on([branch], as_json, remark=fork_without_effect)


@trace_app.command()
def export(
    run: RunId, file: Annotated[Path, typer.Argument(help="Where to, ending in .html or .png.")]
) -> None:
    """Write a run's storyboard to one file that needs nothing else."""
    from pleinair.app.api import find, home
    from pleinair.app.storyboard.export import export as write

    with explained():
        write(find(run), home(), file)
    typer.echo(str(file))
