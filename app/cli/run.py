"""Execution of runs with a live view; Ctrl-C and SIGTERM stop them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from pleinair.app.cli.terminal import CODES, error_lines, has_terminal, leave, say
from pleinair.app.runs.ahead import Ahead
from pleinair.app.runs.signals import handling
from pleinair.app.runs.store import Busy, Run
from pleinair.app.texts import printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.runs.results import Result

STOPS = (signal.SIGINT, signal.SIGTERM)


def execute(
    runs: Sequence[Run], as_json: bool, *, reopen: bool = False, remark: Callable[[Run], str] = lambda run: ""
) -> NoReturn:
    """Execute runs in turn, print each result and its remark, and exit with the highest exit code.

    A run that another process works on is reported and skipped; Ctrl-C also cancels the runs that follow.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would break the live view
    endings, ahead = [], Ahead(runs) if len(runs) > 1 else None
    with stopping_on_interrupt(*(run.id for run in runs)) as stopped:
        for run in runs:
            try:
                # reopening a run would drop the request to cancel it
                endings.append(_execute_one(run, as_json, reopen and not stopped.is_set(), remark, ahead))
            except Busy as error:
                say(error_lines(error), err=True, indent=10)
                endings.append("busy")
            except KeyboardInterrupt:
                hint = f"`pleinair runs resume {run.id}` continues from the last step"
                say(f"pleinair: stopped at once; {hint}", err=True)
                leave("cancelled")
    leave(max(endings, key=CODES.__getitem__))


def _execute_one(
    run: Run, as_json: bool, reopen: bool, remark: Callable[[Run], str], ahead: Ahead | None
) -> str:
    from pleinair.app.api import answer, finish
    from pleinair.app.cli.live import LiveView
    from pleinair.app.cli.question import ask, how_to_answer

    with LiveView(run) as view:
        result = finish(run, view.event, view.on_preview, reopen=reopen, ahead=ahead)
    print_result(result, as_json)
    if text := remark(run):
        say(printable(text), err=True)
    if result.question and has_terminal() and not as_json:
        fields, files = ask(run, result.question)
        return _execute_one(answer(run.id, fields, input_images=files), as_json, reopen, remark, ahead)
    if result.question:
        say(how_to_answer(run), err=True)
    return result.outcome.ending


def print_result(result: Result, as_json: bool) -> None:
    """Print the paths of the image and the sidecar, or the whole result as JSON."""
    if as_json:
        typer.echo(printable_json(result.plain()))
    else:
        for path in (result.picture, result.sidecar):
            if path and path.exists():
                typer.echo(str(path))


@contextmanager
def stopping_on_interrupt(*run_ids: str) -> Iterator[threading.Event]:
    """Cancel runs at the first Ctrl-C or SIGTERM, and raise `KeyboardInterrupt` at the second.

    The first sets the event that is yielded; a cancelled run ends after its current step.
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
        say("Stopping after this step; once more to stop at once.", err=True)
        # in a thread, since this handler may interrupt code that holds the lock of the run table
        threading.Thread(target=cancel).start()

    with handling(STOPS, stop):
        yield stopped
