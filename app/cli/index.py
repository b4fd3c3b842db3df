"""`pleinair index`: the index of a library, and captions for images that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Profile, Setting
from pleinair.app.cli.terminal import explained, has_terminal, leave, progress_bar, say, say_all
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from pleinair.app.settings import Settings


def index(
    folder: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of images, .tar, .parquet or .arrow files with images, or URLs; "
            "the configured library if omitted."
        ),
    ] = None,
    profile: Profile = None,
    setting: Setting = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Calibrate retrieval thresholds by the captions.")
    ] = False,
    problems: Annotated[
        bool, typer.Option("--problems", help="List every problem, not only the first ones.")
    ] = False,
    caption: Annotated[
        bool,
        typer.Option("--caption", help="Let the MLLM caption images without a caption, after an estimate."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the estimate of --caption.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare the stored index with its checksums, and change nothing."),
    ] = False,
) -> None:
    """Index FOLDER for retrieval; only changed files are read, and an interrupted index continues."""
    from pleinair.app.index import bring_up_to_date, verify_index
    from pleinair.app.settings import assignments, load

    with explained():
        settings = load(profile, assignments(setting, {"library.folder": folder}))
        if verify and (calibrate or problems or caption):
            raise BadInput("--verify changes nothing, so it takes no --calibrate, --problems or --caption")
        if verify:
            say_all(verify_index(settings, progress_bar))
            return
        is_stopped = caption and _write_captions(settings, confirmed=yes)
        say_all(bring_up_to_date(settings, progress_bar, calibrated=calibrate, every_problem=problems))
    if is_stopped:
        leave("stopped")


def _write_captions(settings: Settings, *, confirmed: bool) -> bool:
    """Caption the images without a caption after an estimate; return whether a limit stopped it.

    Without `confirmed` the terminal is asked; raise `BadInput` where there is none.
    """
    from pleinair.app.captions import CaptionReport, plan_captions, write_captions

    plan = plan_captions(settings, progress_bar)
    if not plan.images:
        say("Every image has a caption already; none is generated.")
        return False
    say_all(plan.lines())
    say("\n".join(plan.estimate.lines()), indent=12)
    if not confirmed and not has_terminal():
        raise BadInput(
            "captions need a confirmation, and there is no terminal", "Pass --yes to confirm them."
        )
    if not confirmed:
        typer.confirm("Write these captions?", abort=True, err=True)
    report = CaptionReport(len(plan.images))
    try:
        with progress_bar("Writing captions") as on_caption:
            write_captions(plan, report, on_caption)
    except KeyboardInterrupt:
        say_all(report.lines(settings))
        leave("cancelled")
    except PleinairError:
        say_all(report.lines(settings))
        raise
    say_all(report.lines(settings))
    return report.limit is not None
