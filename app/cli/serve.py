"""`pleinair serve` and `pleinair worker`: the page in a browser, and processes that execute its runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.terminal import explained, say
from pleinair.tools.types import PleinairError

if TYPE_CHECKING:
    from pleinair.app.runs.row import Run
    from pleinair.app.server.site import Options

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all, which needs a token.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--host-name", metavar="NAME", help="A further name of this server; repeatable."),
]
Queue = Annotated[int, typer.Option(min=1, help="Runs that may wait; more are refused until there is room.")]
Count = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that execute runs; 0 where `pleinair worker` does.")
]
Open = Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")]
Idle = Annotated[float | None, typer.Option(min=0, help="Exit after so many seconds without a queued run.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8800,
    host_name: Names = None,
    queue: Queue = 64,
    workers: Count = 1,
    open_page: Open = False,
) -> None:
    """Serve chat, traces and the library to a browser.

    The address is printed. Ctrl-C or SIGTERM stops the server after the current step of the runs at work,
    which go on at the next start; a second Ctrl-C stops it at once. Other machines need the token that the
    environment variable PLEINAIR_SERVE_TOKEN holds. docs/serve.md: phones, proxies, services.
    """
    with explained():
        from pleinair.app.api import home
        from pleinair.app.server.serve import TOKEN, serve
        from pleinair.app.server.site import Options

        token = os.environ.pop(TOKEN, "")  # the workers' environment has none
        options = Options(host, port, token, tuple(host_name or ()), queue, workers)
        serve(options, home(), lambda options: greet(options, open_page), _say_what_goes_on)


def greet(options: Options, open_page: bool) -> None:
    """Print the addresses, with port and how to stop."""
    from pleinair.app.server.serve import is_open

    others = [name for name in options.names if ":" not in name.rpartition("]")[2]]
    hosts = ["127.0.0.1", *others] if is_open(options.host) else [options.host]
    addresses = [f"http://{_bracketed(name)}:{options.port}" for name in hosts]
    say(f"pleinair is at {addresses[0]} (Ctrl-C stops it)")
    for address in addresses[1:]:
        say(f"               {address}")
    if options.token:
        say("A browser asks for the token once; programs send it as a bearer token.")
    if not (options.workers or options.is_judging):
        say("Without workers: `pleinair worker` executes the runs.")
    if open_page:
        import webbrowser

        webbrowser.open(addresses[0])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _say_what_goes_on() -> None:
    """Print at a stop how many runs are not finished."""
    from pleinair.app.api import run_table

    try:
        count = run_table().unfinished()
    except PleinairError:
        count = 0
    rest = f" {count} run{'s' * (count != 1)} will go on at the next start." if count else ""
    say(f"Stopping.{rest} Once more to stop at once.", err=True)


def worker(idle: Idle = None) -> None:
    """Execute queued runs, one after the other, or one on each device of generator.devices.

    Several workers may share a home.

    Ctrl-C or SIGTERM stops the worker after its current step, and the run goes on with the next worker; a
    second one stops it at once.
    """
    with explained():
        from pleinair.app.api import home, run_table
        from pleinair.app.runs.worker import SIGNALS, runs_at_once, stopped_by_signals, work

        with stopped_by_signals(*SIGNALS) as stop:
            say("Waiting for queued runs (Ctrl-C stops it).", err=True)
            work(run_table(), home(), stop, idle, _report, at_once=runs_at_once())


def _report(run: Run) -> None:
    say(f"{run.id}  {run.status}")
