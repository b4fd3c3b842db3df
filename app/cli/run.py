"""Work on a run in sight of the user, who may stop it with Ctrl-C, as others may with SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from pleinair.app.cli.exit_codes import leave
from pleinair.app.cli.terminal import printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.runs.results import Result
    from pleinair.app.runs.store import Run

STOPS = (signal.SIGINT, signal.SIGTERM)


def work_on(
    run: Run, as_json: bool, *, reopen: bool = False, remark: Callable[[Run], str] = lambda run: ""
) -> None:
    """Work on a run, print where its results are, remark on it, and leave with its exit code."""
    from pleinair.app.api import finish
    from pleinair.app.cli.live import LiveView

    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the model libraries would run through our lines
    try:
        with stopping_on_interrupt(run.id), LiveView(run) as view:
            result = finish(run, view.event, view.on_preview, reopen=reopen)
    except KeyboardInterrupt:
        again = f"`pleinair runs resume {run.id}` goes on from the last step"
        typer.echo(f"pleinair: stopped at once; {again}", err=True)
        leave("cancelled")
    print_result(result, as_json)
    if words := remark(run):
        typer.echo(printable(words), err=True)
    leave(result.outcome.ending)


def print_result(result: Result, as_json: bool) -> None:
    """Print paths for people, or everything for programs."""
    if as_json:
        typer.echo(printable_json(result.plain()))
    else:
        for path in (result.picture, result.sidecar):
            if path and path.exists():
                typer.echo(str(path))


@contextmanager
def stopping_on_interrupt(run_id: str) -> Iterator[None]:
    """Take the first Ctrl-C or SIGTERM as the wish to stop after this step, and the second as an order."""
    from pleinair.app.api import run_table

    def stop(*_: object) -> None:
        for kind in STOPS:
            signal.signal(kind, signal.default_int_handler)
        typer.echo("Stopping after this step; once more to stop at once.", err=True)
        # a thread, since the table may be in use by the very code that this handler interrupts
        threading.Thread(target=lambda: run_table().request_cancel(run_id)).start()

    before = {kind: signal.signal(kind, stop) for kind in STOPS}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
