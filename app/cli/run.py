"""Work on runs with a live view; Ctrl-C and SIGTERM stop them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from pleinair.app.cli.terminal import CODES, error_lines, leave, printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.runs.results import Result
    from pleinair.app.runs.store import Run

STOPS = (signal.SIGINT, signal.SIGTERM)


def work_on(
    runs: Sequence[Run], as_json: bool, *, reopen: bool = False, remark: Callable[[Run], str] = lambda run: ""
) -> NoReturn:
    """Work on runs in turn, print their results with a remark, and exit with the worst code.

    A run that another process works on is reported and skipped; Ctrl-C cancels the runs that follow too.
    """
    from pleinair.app.runs.store import Busy

    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would break the live view
    endings = []
    with stopping_on_interrupt(*(run.id for run in runs)) as stopped:
        for run in runs:
            try:
                # reopening a run would drop the request to cancel it
                endings.append(_work_on_one(run, as_json, reopen and not stopped.is_set(), remark))
            except Busy as error:
                typer.echo(error_lines(error), err=True)
                endings.append("busy")
            except KeyboardInterrupt:
                again = f"`pleinair runs resume {run.id}` continues from the last step"
                typer.echo(f"pleinair: stopped at once; {again}", err=True)
                leave("cancelled")
    leave(max(endings, key=CODES.__getitem__))


def _work_on_one(run: Run, as_json: bool, reopen: bool, remark: Callable[[Run], str]) -> str:
    from pleinair.app.api import finish
    from pleinair.app.cli.live import LiveView

    with LiveView(run) as view:
        result = finish(run, view.event, view.on_preview, reopen=reopen)
    print_result(result, as_json)
    if text := remark(run):
        typer.echo(printable(text), err=True)
    return result.outcome.ending


def print_result(result: Result, as_json: bool) -> None:
    """Print the paths of a result, or all of it as JSON."""
    if as_json:
        typer.echo(printable_json(result.plain()))
    else:
        for path in (result.picture, result.sidecar):
            if path and path.exists():
                typer.echo(str(path))


@contextmanager
def stopping_on_interrupt(*run_ids: str) -> Iterator[threading.Event]:
    """Cancel runs at the first Ctrl-C or SIGTERM, which sets the event, and raise at the second.

    A cancelled run ends after its current step.
    """
    from pleinair.app.api import run_table

    def cancel() -> None:
        for run_id in run_ids:
            run_table().request_cancel(run_id)

    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        for kind in STOPS:
            signal.signal(kind, signal.default_int_handler)
        typer.echo("Stopping after this step; once more to stop at once.", err=True)
        # a thread, since the table may be in use by the very code that this handler interrupts
        threading.Thread(target=cancel).start()

    before = {kind: signal.signal(kind, stop) for kind in STOPS}
    try:
        yield stopped
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
