"""The captions of `pleinair index --caption` on a terminal: estimate, confirmation, progress and report."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from pleinair.app.cli.terminal import leave, progress_bar, say
from pleinair.app.texts import printable
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from pleinair.app.settings import Settings


def caption_library(settings: Settings, *, confirmed: bool) -> bool:
    """Caption the images without a caption after an estimate; return whether a limit stopped it.

    Without `confirmed` the terminal is asked; raise `BadInput` where there is none.
    """
    from pleinair.app.captions import CaptionReport, plan_captions, write_captions

    plan = plan_captions(settings, progress_bar)
    if not plan.images:
        say("Every image has a caption already; none is generated.")
        return False
    _say_all(plan.lines())
    say("\n".join(plan.estimate.lines()), indent=12)
    if not confirmed:
        _confirm()
    report = CaptionReport(len(plan.images))
    try:
        with progress_bar("Writing captions") as on_caption:
            write_captions(plan, report, on_caption)
    except KeyboardInterrupt:
        _say_all(report.lines(settings))
        leave("cancelled")
    except PleinairError:
        _say_all(report.lines(settings))
        raise
    _say_all(report.lines(settings))
    return report.limit is not None


def _confirm() -> None:
    if not _has_terminal():
        raise BadInput(
            "captions need a confirmation, and there is no terminal", "Pass --yes to confirm them."
        )
    typer.confirm("Write these captions?", abort=True, err=True)


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        say(printable(line))
