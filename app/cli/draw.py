"""`pleinair draw`: a request is checked, confirmed where it costs money, and run; or estimated."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from pleinair.app.cli.models import download_models
from pleinair.app.cli.options import Json, Library, License, Out, Profile, Setting
from pleinair.app.cli.run import execute
from pleinair.app.cli.terminal import explained, has_terminal, say
from pleinair.app.runs.row import Run
from pleinair.app.texts import printable
from pleinair.tools.types import Approve, BadInput

GRAPHS = "pleinair, react, imagerag, crossmodal, realrag, direct"

Prompt = Annotated[str, typer.Argument(help="What the image shows, up to 2,000 characters.")]
Graph = Annotated[str, typer.Option(help=f"The steps: {GRAPHS}.")]
Seed = Annotated[int | None, typer.Option(help="Random seed; chosen at random if omitted.")]
Number = Annotated[int | None, typer.Option(help="Number of images: a run for each, with consecutive seeds.")]
Pixels = Annotated[int | None, typer.Option(help="In pixels; default: the generator's.")]
Steps = Annotated[int | None, typer.Option(help="Diffusion steps; default: the generator's.")]
Guidance = Annotated[float | None, typer.Option(help="Weight of the prompt; default: the generator's.")]
Strength = Annotated[
    float | None, typer.Option(help="Strength of the references, 0 to 1; default: the generator's.")
]
Negative = Annotated[
    str | None, typer.Option(help="What the image must not show, for a generator that takes one.")
]
Attempts = Annotated[int | None, typer.Option(help="Maximum number of attempts of a run.")]
Seconds = Annotated[float | None, typer.Option(help="Maximum duration of a run, in seconds.")]
Key = Annotated[str | None, typer.Option(help="A second request with the same key returns the same runs.")]
Strip = Annotated[bool, typer.Option(help="Write no metadata into the PNG.")]
InputImages = Annotated[list[str] | None, typer.Option(metavar="FILE", help="An input image; repeatable.")]
Base = Annotated[
    str | None, typer.Option(metavar="FILE", help="An image of which a part changes, with --graph direct.")
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Transparent where the base changes; default: the base's own transparency."
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Confirm several images that the prompt asks for and that cost money.")
]
ApproveOption = Annotated[
    Approve,
    typer.Option(help="Ask you before the first image with references, or before the draft too."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate calls, time and cost; write nothing.")]


def draw(
    context: typer.Context,
    prompt: Prompt,
    graph: Graph = "pleinair",
    profile: Profile = None,
    library: Library = None,
    license: License = None,
    seed: Seed = None,
    num_images: Number = None,
    width: Pixels = None,
    height: Pixels = None,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    reference_strength: Strength = None,
    negative_prompt: Negative = None,
    max_attempts: Attempts = None,
    max_seconds: Seconds = None,
    out: Out = None,
    setting: Setting = None,
    idempotency_key: Key = None,
    strip_metadata: Strip = False,
    input_image: InputImages = None,
    base: Base = None,
    mask: Mask = None,
    approve: ApproveOption = "",
    picture: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Validate the request, write its row, and run it."""
    from pleinair.app.api import DrawOptions
    from pleinair.app.settings import Renamed, assignments

    if picture:
        warnings.warn("--picture is now called --input-image", Renamed, stacklevel=2)
    short: dict[str, Any] = {
        "library.folder": library,
        "budget.attempts": max_attempts,
        "budget.seconds": max_seconds,
    }
    short["approve"] = approve or None
    options = {name: context.params[name] for name in DrawOptions.__annotations__ if name in context.params}
    options["input_images"] = [*(input_image or ()), *(picture or ())]
    with explained():
        options["overrides"] = assignments(setting, short)
        text = _standard_input() if prompt == "-" else prompt
        if dry_run:
            _print_estimate(text, num_images, options, as_json)
        else:
            execute(_downloaded(text, num_images, options), as_json)


def _standard_input() -> str:
    try:
        return sys.stdin.read().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"prompt: standard input is not UTF-8 at byte {error.start}") from error


def _print_estimate(prompt: str, num_images: int | None, options: Any, as_json: bool) -> None:
    """Print what a request takes, the settings that are not the profile's, and what is missing."""
    from pleinair.app.api import estimate
    from pleinair.app.models.ready import find_missing
    from pleinair.app.settings import load, origins

    result = estimate(prompt, num_images=num_images, **options)
    if as_json:
        typer.echo(result.model_dump_json())
        return
    profile, overrides = options["profile"], options["overrides"]
    rows = [f"setting     {row}" for row in origins(profile, overrides)]
    rows += [f"missing     {fault}" for fault in find_missing(load(profile, overrides))]
    say("\n".join([*result.lines(), *map(printable, rows)]), indent=12)


def _downloaded(prompt: str, num_images: int | None, options: Any) -> list[Run]:
    """Write the rows of a request; a terminal is asked whether to download models that are missing."""
    from pleinair.app.settings import load
    from pleinair.tools.model_files.hub import NotDownloaded

    try:
        return _confirmed(prompt, num_images, options)
    except NotDownloaded as error:
        if not has_terminal():
            raise
        say(f"{printable(error.message)}.", err=True)
        overrides = options["overrides"]
        download_models(load(options["profile"], overrides).profile, overrides, yes=False, err=True)
        return _confirmed(prompt, num_images, options)


def _confirmed(prompt: str, num_images: int | None, options: Any) -> list[Run]:
    """Write the rows of a request; a number of images that costs money is asked about on a terminal."""
    from pleinair.app.api import submit_images
    from pleinair.app.runs.prompts import Unconfirmed

    try:
        return submit_images(prompt, num_images=num_images, **options)
    except Unconfirmed as error:
        if not has_terminal():
            raise
        typer.confirm(f"{printable(error.message)}. Go on?", abort=True, err=True)
        return submit_images(prompt, num_images=error.num_images, **options)
