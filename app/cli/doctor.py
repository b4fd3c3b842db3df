"""`pleinair doctor`: the findings about what a run needs, each with a mark and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Library, Profile, Setting
from pleinair.app.cli.terminal import explained, leave, quiet, say
from pleinair.app.texts import printable

if TYPE_CHECKING:
    from pleinair.app.doctor.doctor import Finding


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
    from pleinair.app.settings import assignments

    quiet()
    with explained():
        overrides = assignments(setting, {"library.folder": library})
        if not print_findings(examine(profile, overrides, mllm=mllm, report=print_progress)):
            leave("failed")


def print_findings(findings: Iterable[Finding]) -> bool:
    """Print each finding as it comes; return whether all are in order."""
    in_order = True
    for finding in findings:
        in_order = in_order and finding.ok
        mark, colour = ("ok", typer.colors.GREEN) if finding.ok else ("!!", typer.colors.RED)
        say(f"{typer.style(mark, fg=colour)}  {finding.name}: {printable(finding.text)}", indent=4)
        if finding.remedy:
            say(f"      {printable(finding.remedy)}", indent=6)
    return in_order


def print_progress(text: str) -> None:
    """Print on standard error what is being checked, where that may take seconds."""
    say(f"..  {printable(text)}", err=True, indent=4)
