"""`pleinair index`: the index of a library, and captions for images that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Profile, Setting
from pleinair.app.cli.terminal import explained, has_terminal, leave, progress_bar, say, say_all
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from pleinair.app.settings import Settings


Folders = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folders of images, .tar, .parquet or .arrow files with images, or URLs; "
        "the configured library if omitted."
    ),
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Calibrate retrieval thresholds by the captions.")
]
Problems = Annotated[bool, typer.Option("--problems", help="List every problem, not only the first ones.")]
Caption = Annotated[
    bool,
    typer.Option("--caption", help="Let the MLLM caption images without a caption, after an estimate."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Confirm the estimate of --caption.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Compare the stored index with its checksums, and change nothing.")
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only embed share I of N, such as 1/4, while other processes or machines embed the others; "
        "the same command continues an interrupted share.",
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for the vectors of --shard, which all may share; the home folder if omitted, "
        "where `pleinair index FOLDER` joins them.",
    ),
]
Merge = Annotated[
    list[str] | None,
    typer.Option(
        "--merge",
        metavar="DIR",
        help="Join the vectors of shards in DIR to the index, and embed what is missing. Repeatable.",
    ),
]


def index(
    folder: Folders = None,
    profile: Profile = None,
    setting: Setting = None,
    calibrate: Calibrate = False,
    problems: Problems = False,
    caption: Caption = False,
    yes: Yes = False,
    verify: Verify = False,
    shard: Shard = None,
    out: Out = None,
    merge: Merge = None,
) -> None:
    """Index FOLDER for retrieval; only changed files are read, and an interrupted index continues."""
    from pleinair.app.index import bring_up_to_date, embed_shard, verify_index
    from pleinair.app.settings import assignments, load
    from pleinair.tools.storage.files import checked_path

    with explained():
        settings = load(profile, assignments(setting, {"library.folder": folder}))
        _check_combination(verify, shard, out, merge, changes=calibrate or problems or caption)
        if verify:
            say_all(verify_index(settings, progress_bar))
            return
        if shard:
            say_all(embed_shard(settings, shard, out, progress_bar))
            return
        folders = [checked_path(each, "--merge").absolute() for each in merge or ()]
        is_stopped = caption and _write_captions(settings, confirmed=yes)
        say_all(
            bring_up_to_date(
                settings, progress_bar, calibrated=calibrate, every_problem=problems, merge=folders
            )
        )
    if is_stopped:
        leave("stopped")


def _check_combination(
    verify: bool, shard: str | None, out: str | None, merge: list[str] | None, *, changes: bool
) -> None:
    """Raise `BadInput` for options that exclude each other; `changes`: one of the other three is set."""
    if verify and (changes or shard or merge):
        others = "--calibrate, --problems, --caption, --shard or --merge"
        raise BadInput(f"--verify changes nothing, so it takes no {others}")
    if shard and (changes or merge):
        raise BadInput(
            "--shard only embeds, so it takes no --calibrate, --problems, --caption or --merge",
            "Pass them to the `pleinair index` that joins the shards.",
        )
    if out and not shard:
        raise BadInput(f"--out {out!r}: needs --shard I/N", "--merge DIR reads shards.")


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
