"""`pleinair judge`: people compare images of two sources in a browser, blind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Json
from pleinair.app.cli.serve import Host, Names, Open, Port
from pleinair.app.cli.terminal import explained, progress_bar, say, say_all
from pleinair.app.texts import counted, printable_json
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.comparison.study import Study
    from pleinair.app.comparison.votes import Votes

SUFFIXES = (".csv", ".jsonl")
First = Annotated[
    str,
    typer.Argument(
        metavar="[A]", help="A folder of `draw --out` or `batch`, a library, or runs: ID, or ID,ID,…"
    ),
]
Second = Annotated[str, typer.Argument(metavar="[B]", help="What A is compared with.")]
Folder = Annotated[str, typer.Option("--out", metavar="DIR", help="The folder of the study.")]
Judge = Annotated[str, typer.Option(help="Name of the only judge; without it, each browser asks for one.")]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Of the random sides and order; chosen at random if unset.")
]
Results = Annotated[
    str, typer.Option("--results", metavar="DIR", help="Print the results of a study instead.")
]
Export = Annotated[
    str, typer.Option("--export", metavar="FILE", help="With --results, write the votes: .csv or .jsonl.")
]


def judge(
    a: First = "",
    b: Second = "",
    out: Folder = "pleinair-judging",
    judge: Judge = "",
    seed: Seed = None,
    host: Host = "127.0.0.1",
    port: Port = 8801,
    host_name: Names = None,
    open_page: Open = False,
    results: Results = "",
    export: Export = "",
    as_json: Json = False,
) -> None:
    """Let people compare the images of A and B in a browser: blind, one pair of a prompt at a time.

    Images of equal prompts are paired, those of equal seeds first, and shown in random order. Three
    questions are asked: fit to the prompt, quality, preference. Each answer is stored in the study's folder
    at once; the same command, or one without A and B, goes on. Several judges may work at once. Ctrl-C stops
    the server.

    `pleinair judge --results DIR` prints who wins how often, with 95 % intervals.
    """
    with explained():
        if results or export:
            _print_results(results or out, export, as_json)
            return
        _serve(_opened(out, a, b, seed), judge, host, port, host_name or [], open_page)


def _opened(out: str, a: str = "", b: str = "", seed: int | None = None) -> tuple[Study, Votes]:
    from pleinair.app.comparison.study import open_study
    from pleinair.app.comparison.votes import Votes

    with progress_bar("Reading images") as progress:
        study = open_study(out, a, b, seed, progress)
    return study, Votes(Path(out).expanduser().absolute(), study)


def _serve(
    opened: tuple[Study, Votes], judge: str, host: str, port: int, names: list[str], open_page: bool
) -> None:
    from functools import partial

    from pleinair.app.api import home
    from pleinair.app.cli.serve import greet
    from pleinair.app.server.judge import Judging, create_judging, require_judge
    from pleinair.app.server.serve import TOKEN, serve
    from pleinair.app.server.site import Options

    study, votes = opened
    judging = Judging(study, votes, require_judge(judge))
    token = os.environ.pop(TOKEN, "")
    options = Options(host, port, token, tuple(names), workers=0, is_judging=True)
    say(f"{counted(len(study.pairs), 'pair')}, {counted(len(votes.current()), 'vote')} so far")
    say_all(study.remarks())
    serve(
        options,
        home(),
        lambda options: greet(options, open_page),
        application=partial(create_judging, judging=judging),
    )


def _print_results(folder: str, export: str, as_json: bool) -> None:
    from pleinair.app.comparison.results import results_of, votes_file
    from pleinair.tools.storage.files import write_whole

    if export and Path(export).suffix not in SUFFIXES:
        raise BadInput(f"--export {export!r}: must end in {' or '.join(SUFFIXES)}")
    study, votes = _opened(folder)
    current = votes.current()
    results = results_of(study, current)
    if export:
        write_whole(Path(export).absolute(), votes_file(study, current, Path(export).suffix))
    if as_json:
        typer.echo(printable_json(results.model_dump(mode="json")))
    else:
        say_all([*results.lines(), *study.remarks()])
