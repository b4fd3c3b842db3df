"""The command line; heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer

from pleinair.app.cli.chat import chat
from pleinair.app.cli.models import download_models, models_app
from pleinair.app.cli.options import Library, Out, Profile, Setting
from pleinair.app.cli.run import execute
from pleinair.app.cli.runs import runs_app
from pleinair.app.cli.setup import setup
from pleinair.app.cli.terminal import (
    EXITS,
    explained,
    leave,
    logging_notes,
    print_findings,
    print_progress,
    progress_bar,
    quiet,
    say,
)
from pleinair.app.cli.trace import trace_app
from pleinair.app.cli.train import train_app
from pleinair.app.cli.trust import settings as show_settings
from pleinair.app.cli.trust import trust
from pleinair.app.runs.store import Run
from pleinair.app.texts import printable
from pleinair.tools.types import BadInput

HELP = (
    f"Generate images from reference images: critique, retrieve what is missing, generate again.\n\n{EXITS}"
)
GRAPHS = "pleinair, react, imagerag, crossmodal, realrag, direct"
app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(runs_app, name="runs")
app.add_typer(trace_app, name="trace")
app.add_typer(models_app, name="models")
app.add_typer(train_app, name="train")
app.command()(chat)
app.command()(trust)
app.command("settings")(show_settings)
app.command()(setup)


def main() -> None:
    """Run the command line; a deprecated name is reported once, in one line."""
    from pleinair.app.settings import Renamed
    from pleinair.tools.tracing import send_remaining_traces

    os.environ.setdefault("LANGSMITH_USE_DAEMON", "true")  # otherwise a dead trace server delays the exit
    shown, show_other = set[str](), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **others: Any) -> None:
        if not issubclass(category, Renamed):
            show_other(message, category, *rest, **others)
        elif str(message) not in shown:
            shown.add(str(message))
            say(f"pleinair: deprecated: {printable(str(message))}", err=True)

    with warnings.catch_warnings(), logging_notes():
        warnings.simplefilter("always", Renamed)
        warnings.showwarning = show
        try:
            app()
        except SystemExit as end:
            send_remaining_traces()
            _exit_at_once_if_blocked(end.code)
            raise


def _exit_at_once_if_blocked(code: object) -> None:
    """Exit without waiting for the blocked thread of a run that ended before it: everything is stored."""
    from pleinair.tools.deadline import is_blocked

    if is_blocked():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"pleinair {version('pleinair')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Parse the options before a command."""


@app.command(help=f"Generate an image of PROMPT; `-` reads it from standard input.\n\n{EXITS}")
def draw(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the image shows, up to 2,000 characters.")],
    graph: Annotated[str, typer.Option(help=f"The steps: {GRAPHS}.")] = "pleinair",
    profile: Profile = None,
    library: Library = None,
    seed: Annotated[int | None, typer.Option(help="Random seed; chosen at random if omitted.")] = None,
    num_images: Annotated[
        int | None, typer.Option(help="Number of images: a run for each, with consecutive seeds.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="In pixels; default: the generator's.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels; default: the generator's.")] = None,
    num_inference_steps: Annotated[
        int | None, typer.Option(help="Diffusion steps; default: the generator's.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Weight of the prompt; default: the generator's.")
    ] = None,
    reference_strength: Annotated[
        float | None, typer.Option(help="Strength of the references, 0 to 1; default: the generator's.")
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the image must not show, for a generator that takes one.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Maximum number of attempts of a run.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Maximum duration of a run, in seconds.")] = None,
    out: Out = None,
    setting: Setting = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second request with the same key returns the same runs.")
    ] = None,
    strip_metadata: Annotated[bool, typer.Option(help="Write no metadata into the PNG.")] = False,
    input_image: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="An input image; repeatable.")
    ] = None,
    picture: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Confirm several images that the prompt asks for and that cost money."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate calls, time and cost; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Validate the request, write its row, and run it."""
    from pleinair.app.api import DrawOptions, estimate
    from pleinair.app.models.ready import find_missing
    from pleinair.app.settings import Renamed, load, origins

    if picture:
        warnings.warn("--picture is now called --input-image", Renamed, stacklevel=2)
    short = {
        "library.folder": library or None,
        "budget.attempts": max_attempts,
        "budget.seconds": max_seconds,
    }
    options = {name: context.params[name] for name in DrawOptions.__annotations__ if name in context.params}
    options["input_images"] = [*(input_image or ()), *(picture or ())]
    with explained():
        options["overrides"] = _overrides(setting, short)
        text = _standard_input() if prompt == "-" else prompt
        if dry_run:
            result = estimate(text, num_images=num_images, **options)
            if as_json:
                typer.echo(result.model_dump_json())
                return
            origin_lines = [f"setting     {row}" for row in origins(options["profile"], options["overrides"])]
            missing = find_missing(load(options["profile"], options["overrides"]))
            lines = [*origin_lines, *(f"missing     {fault}" for fault in missing)]
            say("\n".join([*result.lines(), *map(printable, lines)]), indent=12)
        else:
            execute(_downloaded(text, num_images, options), as_json)


def _downloaded(prompt: str, num_images: int | None, options: Any) -> list[Run]:
    """Write the rows of a request; a terminal is asked whether to download models that are missing."""
    from pleinair.app.settings import load
    from pleinair.tools.model_files.hub import NotDownloaded

    try:
        return _confirmed(prompt, num_images, options)
    except NotDownloaded as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        say(f"{printable(error.message)}.", err=True)
        profile, overrides = load(options["profile"], options["overrides"]).profile, options["overrides"]
        download_models(profile, overrides, yes=False, err=True)
        return _confirmed(prompt, num_images, options)


def _confirmed(prompt: str, num_images: int | None, options: Any) -> list[Run]:
    """Write the rows of a request; a number of images that costs money is asked about on a terminal."""
    from pleinair.app.api import submit_images
    from pleinair.app.runs.prompts import Unconfirmed

    try:
        return submit_images(prompt, num_images=num_images, **options)
    except Unconfirmed as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        typer.confirm(f"{printable(error.message)}. Go on?", abort=True, err=True)
        return submit_images(prompt, num_images=error.num_images, **options)


def _standard_input() -> str:
    try:
        return sys.stdin.read().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"prompt: standard input is not UTF-8 at byte {error.start}") from error


def _overrides(setting: list[str] | None, short: dict[str, Any]) -> dict[str, Any]:
    """Return the overrides of `--set` and of the options that set one key; the options win."""
    from pleinair.app.settings import assignments

    return assignments(setting or []) | {key: value for key, value in short.items() if value is not None}


@app.command()
def index(
    folder: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of images, with or without captions; the configured library if omitted."
        ),
    ] = None,
    profile: Profile = None,
    setting: Setting = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Suggest a retrieval threshold from the captions.")
    ] = False,
    problems: Annotated[
        bool, typer.Option("--problems", help="List every problem, not only the first ones.")
    ] = False,
    caption: Annotated[
        bool,
        typer.Option("--caption", help="Let the MLLM caption images without a caption, after an estimate."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the estimate of --caption.")] = False,
) -> None:
    """Index FOLDER for retrieval; only changed files are read, and an interrupted index continues."""
    from pleinair.app.cli.captions import caption_library
    from pleinair.app.index import bring_up_to_date
    from pleinair.app.settings import load

    with explained():
        settings = load(profile, _overrides(setting, {"library.folder": folder or None}))
        is_stopped = caption and caption_library(settings, confirmed=yes)
        for line in bring_up_to_date(settings, progress_bar, calibrated=calibrate, every_problem=problems):
            say(printable(line))
    if is_stopped:
        leave("stopped")


@app.command()
def doctor(
    profile: Profile = None,
    library: Library = None,
    setting: Setting = None,
    mllm: Annotated[
        bool,
        typer.Option("--mllm", help="Try what the MLLM's server takes, and test the critic on 20 images."),
    ] = False,
) -> None:
    """Check the settings, models and library that `draw` needs, and print a remedy for each problem."""
    from pleinair.app.doctor.doctor import examine

    quiet()
    if not print_findings(
        examine(
            profile,
            _overrides(setting, {"library.folder": library or None}),
            mllm=mllm,
            report=print_progress,
        )
    ):
        leave("failed")


if __name__ == "__main__":
    main()
