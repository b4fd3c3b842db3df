"""The command that finds out what a machine can run, writes the settings and generates a first image."""

from __future__ import annotations

import sys
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.doctor import print_findings, print_progress
from pleinair.app.cli.models import download_models
from pleinair.app.cli.run import execute
from pleinair.app.cli.terminal import explained, leave, quiet
from pleinair.app.texts import printable

if TYPE_CHECKING:
    from pleinair.app.setup import Proposal

_POCKET_PROMPT = "a hoopoe in the snow"


def setup(
    profile: Annotated[
        str | None,
        typer.Option(help="A profile, or PROFILE+SERVER such as klein+ollama; proposed if omitted."),
    ] = None,
    library: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The folder of reference images.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt of the first image.")] = None,
    image: Annotated[bool, typer.Option("--image/--no-image", help="Generate a first image.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Write, download and generate without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the proposal; write nothing.")] = False,
) -> None:
    """Detect GPU, memory, chat servers, a key and a folder of images; write the settings that fit; try them.

    Only servers on this machine are contacted. Models are downloaded after their sizes and licenses are
    shown.
    """
    from pleinair.app.settings import load
    from pleinair.app.setup import settings_path, settings_text, write_settings
    from pleinair.tools.retrieval.roots.opening import addresses_of

    quiet()
    with explained():
        if profile:
            load(profile)  # an unknown profile is an error before anything is written
        if library:
            addresses_of(library)  # and so is a folder that does not exist
        proposal, path = _proposal(profile, library or ""), settings_path()
        text = settings_text(proposal, path)
        typer.echo(f"\n{path}:\n\n{indent(text, '    ')}")
        if dry_run:
            return
        _confirm("Write this file?", yes)
        write_settings(path, text)
        download_models(proposal.profile, {}, yes)
        typer.echo("")
        _check_everything(proposal)
        if image:
            _first_image(proposal, prompt, yes)


def _proposal(profile: str | None, library: str) -> Proposal:
    """Print what was detected and return what is proposed, or the user's own choice of a profile."""
    from pleinair.app.setup import inspect_machine, propose

    typer.echo("Checking this machine …", err=True)
    machine = inspect_machine()
    machine = machine.model_copy(update={"library": library or machine.library})
    for label, text in machine.parts():
        typer.echo(f"{label:<12} {printable(text)}")
    proposal = propose(machine, library, profile or "")
    typer.echo(f"\nprofile      {proposal.profile}")
    for reason in proposal.reasons:
        typer.echo(f"             {printable(reason)}")
    return proposal


def _confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; exit if the answer is no, or if there is nobody to ask."""
    if yes or (sys.stdin.isatty() and typer.confirm(question, default=True)):
        return
    typer.echo("Nothing further was done; --yes answers every question with yes.", err=True)
    leave("bad input")


def _check_everything(proposal: Proposal) -> None:
    from pleinair.app.doctor.doctor import examine

    if not print_findings(examine(proposal.profile, {}, report=print_progress)):
        typer.echo("\nThe settings are written. After these remedies, run `pleinair doctor`.", err=True)
        leave("failed")


def _first_image(proposal: Proposal, prompt: str | None, yes: bool) -> None:
    """Generate one image after its estimate, and report what to do next."""
    from pleinair.app.api import estimate, submit_images

    pocket = proposal.profile == "pocket"
    if not prompt and not pocket and sys.stdin.isatty() and not yes:
        prompt = typer.prompt("Prompt of the first image, about something in your library")
    if not prompt and not pocket:
        typer.echo('Next: pleinair draw "…" about something in your library.')
        return
    text = prompt or _POCKET_PROMPT
    typer.echo(f"\nFirst image: {printable(text)}")
    typer.echo("\n".join(estimate(text).lines()))
    _confirm("Generate it?", yes)
    execute(submit_images(text), as_json=False, remark=lambda run: "Next: pleinair trace show last")
