"""The command line. Heavy libraries are imported inside the commands that need them.

Exit codes: 0 accepted or unchecked, 2 bad input, 3 stopped short, 4 refused, 5 failed, 6 busy, 130 cancelled.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pleinair.app.cli.chat import chat
from pleinair.app.cli.exit_codes import EXITS, explained, leave
from pleinair.app.cli.models import models_app
from pleinair.app.cli.run import work_on
from pleinair.app.cli.runs import runs_app
from pleinair.app.cli.terminal import printable, progress_bar, quiet
from pleinair.app.cli.trace import trace_app
from pleinair.app.cli.train import train_app

HELP = f"Draw pictures from references: look at what is missing, look it up, draw again.\n\n{EXITS}"
GRAPHS = "pleinair, react, imagerag, crossmodal, realrag, direct"
app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(runs_app, name="runs")
app.add_typer(trace_app, name="trace")
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")
app.command()(chat)

Setting = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key.")]
Profile = Annotated[str | None, typer.Option(help="The engines to use; `pocket` needs nothing.")]
Pictures = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="A picture of yours to draw from; repeatable.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what it would take; draw and write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def main() -> None:
    """Run the command line."""
    app()


def _show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pleinair {version('pleinair')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


@app.command(help=f"Draw PROMPT; `-` reads it from standard input.\n\n{EXITS}")
def draw(
    prompt: Annotated[str, typer.Argument(help="What to draw, up to 2,000 characters.")],
    graph: Annotated[str, typer.Option(help=f"The steps to take: {GRAPHS}.")] = "pleinair",
    profile: Profile = None,
    library: Annotated[str | None, typer.Option(help="The folder of pictures to look into.")] = None,
    seed: Annotated[int | None, typer.Option(help="Repeat a drawing; drawn if left out.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Pictures to draw at most.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds of work at most.")] = None,
    out: Annotated[str | None, typer.Option(help="The folder for results; ./pleinair-out if unset.")] = None,
    setting: Setting = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Asking twice draws once.")] = None,
    strip_metadata: Annotated[bool, typer.Option(help="Leave the story out of the PNG.")] = False,
    picture: Pictures = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Check the request, note it, and draw."""
    from pleinair.app.api import estimate, submit

    short = {"library.folder": library, "budget.attempts": max_attempts, "budget.seconds": max_seconds}
    with explained():
        text = _standard_input() if prompt == "-" else prompt
        request: dict[str, Any] = {
            "graph": graph,
            "profile": profile,
            "seed": seed,
            "out": out,
            "overrides": _chosen(setting, short),
            "pictures": picture or (),
        }
        if dry_run:
            told = estimate(text, **request)
            typer.echo(told.model_dump_json() if as_json else "\n".join(told.lines()))
            return
        work_on(
            submit(text, idempotency_key=idempotency_key, strip_metadata=strip_metadata, **request), as_json
        )


def _standard_input() -> str:
    """Read the prompt that is piped in."""
    from pleinair.tools.types import BadInput

    try:
        return sys.stdin.read().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"prompt: standard input is no UTF-8 at byte {error.start}") from error


def _chosen(setting: list[str] | None, short: dict[str, Any]) -> dict[str, Any]:
    """Join `--set` with the options that are short for settings; the latter win."""
    from pleinair.app.settings import assignments

    return assignments(setting or []) | {key: value for key, value in short.items() if value is not None}


@app.command()
def index(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="A folder of pictures, with or without a metadata.jsonl; the configured library if left out."
        ),
    ] = None,
    profile: Profile = None,
    setting: Setting = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Suggest a threshold, by the captions.")
    ] = False,
) -> None:
    """Index FOLDER for look-ups; only what changed is read again, and a stopped index goes on."""
    from pleinair.app.index import bring_up_to_date
    from pleinair.app.settings import load

    with explained():
        settings = load(profile, _chosen(setting, {"library.folder": folder}))
        with progress_bar("Looking at pictures") as on_index:
            for line in bring_up_to_date(settings, on_index, calibrated=calibrate):
                typer.echo(printable(line))


@app.command()
def doctor(
    profile: Profile = None,
    setting: Setting = None,
    mllm: Annotated[bool, typer.Option("--mllm", help="Let the language model judge 20 pictures.")] = False,
) -> None:
    """Look at everything a drawing needs, and say what to do where something is wrong."""
    from pleinair.app.doctor.doctor import examine

    quiet()
    findings = list(examine(profile, _chosen(setting, {}), mllm=mllm))
    for finding in findings:
        mark, colour = ("ok", typer.colors.GREEN) if finding.ok else ("!!", typer.colors.RED)
        typer.echo(f"{typer.style(mark, fg=colour)}  {finding.name}: {finding.text}")
        if finding.remedy:
            typer.echo(f"      {finding.remedy}")
    if not all(finding.ok for finding in findings):
        leave("failed")


if __name__ == "__main__":
    main()
