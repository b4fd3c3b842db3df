"""Commands that delete runs: those that are named, or by age, size and status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.runs import runs_app
from pleinair.app.cli.terminal import explained, has_terminal, say
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.runs.retention import Deletion

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Threads = Annotated[bool, typer.Option("--threads", help="Delete runs of chat threads too.")]


@runs_app.command()
def delete(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN…", help="Ids, beginnings of ids, or `last`.")],
    threads: Threads = False,
    yes: Yes = False,
) -> None:
    """Delete runs with their traces and images in the home folder; files in folders of results stay.

    A run stays if it has not ended, is in a chat thread (unless --threads), or is the parent of a fork.
    """
    from pleinair.app.api import find

    with explained():
        _delete(list(dict.fromkeys(find(name).id for name in run_ids)), threads, yes, dry_run=False)


@runs_app.command()
def prune(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Since its end, such as 12h, 30d, 4w.")] = "",
    larger_than: Annotated[
        str, typer.Option(metavar="SIZE", help="Delete the oldest until the others are under it: 500MB, 2GB.")
    ] = "",
    status: Annotated[str, typer.Option(help="Only runs with this status, such as failed.")] = "",
    threads: Threads = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be deleted.")] = False,
    yes: Yes = False,
) -> None:
    """Delete runs by age, size and status; files in folders of results stay.

    A run stays if it has not ended, is in a chat thread (unless --threads), or is the parent of a fork.
    """
    from pleinair.app.api import home, run_table
    from pleinair.app.runs.retention import bytes_of, prunable, seconds_of

    with explained():
        if not (older_than or larger_than or status):
            raise BadInput("nothing says which runs", "Add --older-than, --larger-than or --status.")
        ids = prunable(
            run_table(),
            home(),
            older_than=seconds_of(older_than) if older_than else None,
            larger_than=bytes_of(larger_than) if larger_than else None,
            status=status,
        )
        _delete(ids, threads, yes, dry_run)


def _delete(ids: list[str], threads: bool, yes: bool, dry_run: bool) -> None:
    from pleinair.app.api import home, run_table
    from pleinair.app.runs.retention import delete, planned

    plan = planned(run_table(), home(), ids, threads=threads)
    _report(plan, "would be deleted" if dry_run else "to be deleted")
    if dry_run or not plan.sizes:
        return
    if not yes:
        if not has_terminal():
            raise BadInput("nobody can be asked here", "Add --yes to delete them.")
        typer.confirm("Delete them for good? Files in folders of results stay.", abort=True, err=True)
    _report_sum(delete(run_table(), home(), list(plan.sizes), threads=threads), "deleted")


def _report(plan: Deletion, what: str) -> None:
    """Print the runs of a plan, and why others stay."""
    from pleinair.app.runs.retention import REASONS, size_text

    for id, size in plan.sizes.items():
        say(f"{id}  {size_text(size)}")
    for id, reason in plan.kept.items():
        say(f"{id} stays: {REASONS[reason]}")
    _report_sum(plan, what)


def _report_sum(deletion: Deletion, what: str) -> None:
    from pleinair.app.runs.retention import size_text

    count, size = len(deletion.sizes), size_text(sum(deletion.sizes.values()))
    say(f"{count} run{'s' * (count != 1)}, {size}, {what}")
