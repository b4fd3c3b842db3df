"""Execution of runs with a live view; Ctrl-C and SIGTERM stop them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

import typer

from pleinair.app.cli.terminal import CODES, error_lines, has_terminal, leave, say
from pleinair.app.runs.ahead import Ahead
from pleinair.app.runs.at_once import results_of
from pleinair.app.runs.row import Run
from pleinair.app.runs.signals import handling
from pleinair.app.runs.store import Busy
from pleinair.app.texts import printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.cli.live import Board, LiveView
    from pleinair.app.runs.results import Result

STOPS = (signal.SIGINT, signal.SIGTERM)


def execute(
    runs: Sequence[Run], as_json: bool, *, reopen: bool = False, remark: Callable[[Run], str] = lambda run: ""
) -> NoReturn:
    """Execute runs, print each result and its remark in their order, and exit with the highest exit code.

    On several devices as many runs are at work at once, else one after the other. A run that another process
    works on is reported and skipped; Ctrl-C also cancels the runs that follow.
    """
    from pleinair.app.api import shared_runs

    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would break the live view
    devices, shares = shared_runs(runs)
    with stopping_on_interrupt(*(run.id for run in runs)) as stopped:
        if len(shares) == 1:
            endings = _execute_in_turn(runs, as_json, reopen, remark, stopped)
        else:
            endings = _execute_at_once(shares, devices, as_json, remark)
    leave(max(endings, key=CODES.__getitem__))


def _execute_in_turn(
    runs: Sequence[Run],
    as_json: bool,
    reopen: bool,
    remark: Callable[[Run], str],
    stopped: threading.Event,
) -> list[str]:
    endings, ahead = [], Ahead(runs) if len(runs) > 1 else None
    for run in runs:
        try:
            # reopening a run would drop the request to cancel it
            endings.append(_execute_one(run, as_json, reopen and not stopped.is_set(), remark, ahead))
        except Busy as error:
            say(error_lines(error), err=True, indent=10)
            endings.append("busy")
        except KeyboardInterrupt:
            _leave_at_once([run])
    return endings


def _execute_one(
    run: Run, as_json: bool, reopen: bool, remark: Callable[[Run], str], ahead: Ahead | None
) -> str:
    from pleinair.app.api import finish
    from pleinair.app.cli.live import LiveView

    with LiveView(run) as view:
        result = finish(run, view.event, view.on_preview, reopen=reopen, ahead=ahead)
    _print_end(run, result, as_json, remark)
    if answered := _answered(run, result, as_json):
        return _execute_one(answered, as_json, reopen, remark, ahead)
    return result.outcome.ending


def _execute_at_once(
    shares: Sequence[Sequence[Run]], devices: int, as_json: bool, remark: Callable[[Run], str]
) -> list[str]:
    """Execute the runs of each share in turn, and the shares at once; return the endings.

    What a run prints appears as one block, after those of the runs before it. Questions are asked once all
    runs have ended or wait; the runs that were answered are then at work at once, too.
    """
    endings: dict[str, str] = {}  # by run
    while shares:
        results = _results_at_once(shares, devices, as_json, remark)
        answers = [
            None if isinstance(result, Busy) else _answered(run, result, as_json) for run, result in results
        ]
        shares = [[run] for run in answers if run]
        for run, result in results:
            endings[run.id] = "busy" if isinstance(result, Busy) else result.outcome.ending
    return [*endings.values()]


def _results_at_once(
    shares: Sequence[Sequence[Run]], devices: int, as_json: bool, remark: Callable[[Run], str]
) -> list[tuple[Run, Result | Busy]]:
    """Execute runs until each has ended, waits or is busy; print and return their results in order."""
    from pleinair.app.cli.live import Board

    results: list[tuple[Run, Result | Busy]] = []
    with Board() as board:
        team = _Team(board)
        try:
            with closing(results_of(shares, team.execute, devices, team.stop)) as ends:
                for run, view, result in chain.from_iterable(ends):
                    results.append((run, result))
                    with board.paused():
                        view.flush()
                        if isinstance(result, Busy):
                            say(error_lines(result), err=True, indent=10)
                        else:
                            _print_end(run, result, as_json, remark)
        except KeyboardInterrupt:
            _leave_at_once([*team.at_work.values()])
    return results


class _Team:
    """Runs at work at once, on one board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.stop = threading.Event()  # for those at work
        self.at_work: dict[str, Run] = {}  # by id, also what was left when it was stopped

    def execute(self, share: Sequence[Run]) -> list[tuple[Run, LiveView, Result | Busy]]:
        """Execute runs in turn."""
        ahead = Ahead(share)
        return [(run, *self._execute(run, ahead)) for run in share]

    def _execute(self, run: Run, ahead: Ahead) -> tuple[LiveView, Result | Busy]:
        from pleinair.app.api import finish
        from pleinair.app.cli.live import LiveView

        self.at_work[run.id] = run
        result: Result | Busy
        with LiveView(run, board=self._board) as view:
            try:
                result = finish(run, view.event, ahead=ahead, stop=self.stop)
            except Busy as error:
                result = error
        del self.at_work[run.id]
        return view, result


def _print_end(run: Run, result: Result, as_json: bool, remark: Callable[[Run], str]) -> None:
    print_result(result, as_json)
    if text := remark(run):
        say(printable(text), err=True)


def _answered(run: Run, result: Result, as_json: bool) -> Run | None:
    """Return a run that has asked a question with the answer of the terminal, None without either."""
    if not result.question:
        return None
    from pleinair.app.api import answer
    from pleinair.app.cli.question import ask, how_to_answer

    if has_terminal() and not as_json:
        fields, files = ask(run, result.question)
        return answer(run.id, fields, input_images=files)
    say(how_to_answer(run), err=True)
    return None


def _leave_at_once(runs: Sequence[Run]) -> NoReturn:
    """Print how to continue the runs that were at work, and exit."""
    resume = ", ".join(f"`pleinair runs resume {run.id}`" for run in runs)
    text = f"; {resume} continues from the last step" if runs else ""
    say(f"pleinair: stopped at once{text}", err=True)
    leave("cancelled")


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
