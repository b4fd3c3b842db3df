"""Commands for the trace of a run: show, diff, replay, fork, attribute, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Json, RunId, Setting
from pleinair.app.cli.run import execute, print_result
from pleinair.app.cli.terminal import EXITS, explained, say
from pleinair.app.texts import printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.trace.attribute import Plan
    from pleinair.app.trace.attribution import Attribution
    from pleinair.app.trace.references import Choice

trace_app = typer.Typer(
    help="Show, compare, replay, fork, attribute and export traces of runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[str | None, typer.Option(help="The folder for results; that of the run if unset.")]
WIDTH = 12  # characters of a label


@trace_app.command()
def show(
    run: RunId,
    messages: Annotated[
        bool, typer.Option("--messages", help="Show the messages of each MLLM call, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the attempts of a run with their references, ledgers, decisions and costs, and its steps."""
    from pleinair.app.api import find, home
    from pleinair.app.trace.show import Report

    with explained():
        report = Report(find(run), home())
    if as_json:
        typer.echo(printable_json(report.plain(messages=messages)))
        return
    for label, text in report.lines(messages=messages):
        if text:
            say(f"  {printable(label):<{WIDTH}} {printable(text)}", indent=WIDTH + 3)
        else:
            say(typer.style(printable(label), bold=True))


@trace_app.command()
def diff(
    first: Annotated[
        str,
        typer.Argument(
            metavar="RUN1", help="A run's id, its beginning, or `last`; RUN:NUMBER for an attempt."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="RUN2", help="The run to compare with.")],
    as_json: Json = False,
) -> None:
    """Show the differences between two runs, or two attempts (RUN:NUMBER).

    Exit codes: 0 no difference, 1 differences, 2 bad input.
    """
    from pleinair.app.trace.compare import compare
    from pleinair.app.trace.diff import differ, without_effect

    of_attempts = ":" in first or ":" in second
    with explained():
        differences = compare(first, second).differences if of_attempts else differ(first, second)
    if as_json:
        keys = ("what", "first", "second")
        typer.echo(printable_json([{key: getattr(line, key) for key in keys} for line in differences]))
    else:
        for line in differences:
            say(f"{printable(line.what)}: {printable(line.first)} → {printable(line.second)}")
        if settings := "" if of_attempts else without_effect(differences):
            say(f"Nothing else differs: {printable(settings)} made no difference to the results.")
    if differences:
        raise typer.Exit(1)


@trace_app.command()
def replay(run: RunId, out: Out = None, as_json: Json = False) -> None:
    """Write the images and sidecar of a finished run again from stored data; no model is called."""
    from pleinair.app.trace.replay import replay as write

    with explained():
        result = write(run, out)
    print_result(result, as_json)


@trace_app.command(help=f"Run RUN again from step STEP on, as a new run.\n\n{EXITS}")
def fork(
    run: RunId,
    at: Annotated[str, typer.Option(metavar="STEP", help="A step listed by `trace show`.")],
    prompt: Annotated[str | None, typer.Option(help="New prompt from this step on.")] = None,
    seed: Annotated[int | None, typer.Option(help="New seed from this step on.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile whose models run from this step on.")] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONCEPT=ID",
            help="Another hit for a concept, or @FILE, or nothing for none; at a step of `generate`.",
        ),
    ] = None,
    setting: Setting = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Validate the fork, write its row, and run it."""
    from pleinair.app.settings import assignments
    from pleinair.app.trace.diff import fork_without_effect
    from pleinair.app.trace.fork import submit_fork

    with explained():
        branch = submit_fork(
            run,
            at,
            prompt=prompt,
            seed=seed,
            profile=profile,
            references=_choices(reference or []),
            overrides=assignments(setting),
            out=out,
        )
        execute([branch], as_json, remark=fork_without_effect)


def _choices(texts: list[str]) -> dict[str, Choice]:
    """Return the references that are chosen by CONCEPT=ID, CONCEPT=@FILE or CONCEPT=; raises `BadInput`."""
    from pleinair.app.api import home
    from pleinair.app.runs.request import read_input_images, store_input_images
    from pleinair.tools.types import BadInput

    choices: dict[str, Choice] = {}
    for text in texts:
        concept, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise BadInput(f"--reference {text!r}: wanted CONCEPT=ID, CONCEPT=@FILE or CONCEPT=")
        if value.startswith("@"):
            (choices[concept],) = store_input_images(read_input_images([value[1:]], "pleinair"), home())
        else:
            choices[concept] = value
    return choices


@trace_app.command()
def attribute(
    run: RunId,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate images, calls, time and cost; write nothing.")
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A limit, such as budget.images=8; repeatable."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write the strip to a .png, .html or .json file; missing folders are made."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what each reference contributed to the best image of a finished run.

    The image is drawn again without each of its references, without any, and up to three also from each
    alone, with the same seed, prompt and settings, and judged by the run's own MLLM. All of it is stored
    with the run: a second call costs nothing, one that was stopped goes on, and the storyboard shows the
    strip. The limits of the run's budget count for it by itself.

    Exit codes: 0 done; 2 bad input; 3 stopped by a limit; 5 failed; 6 another process attributes the run; 130
    stopped by you.
    """
    from pleinair.app.api import home
    from pleinair.app.cli.terminal import leave, progress_bar, quiet
    from pleinair.app.settings import assignments
    from pleinair.app.storyboard.export import export_strip
    from pleinair.app.trace.attribute import attribute as attribute_run
    from pleinair.app.trace.attribute import plan_attribution
    from pleinair.tools.types import limit_reached

    quiet()
    with explained():
        file = _strip_file(out) if out else None
        plan = plan_attribution(run, assignments(setting))
        if dry_run:
            _print_estimate(plan, as_json)
            return
        with progress_bar("Attribution") as progress:
            result = attribute_run(
                plan.run.id,
                overrides=assignments(setting),
                on_progress=lambda done, total, text: progress(done, total),
            )
        if file:
            export_strip(result, plan.run, home(), file)
    _print_attribution(result, out, as_json)
    if result.limit:
        say(f"pleinair: {limit_reached(result.limit)}; the same command with a larger one goes on", err=True)
        leave("stopped")


def _strip_file(out: str) -> Path:
    """Return the file of a strip; raises `PleinairError` before anything is paid if it cannot be written."""
    from pleinair.app.storyboard.export import require_kind
    from pleinair.tools.storage.files import checked_path, require_writable

    file = checked_path(out, "--out").absolute()
    require_kind(file)
    require_writable(file.parent)
    return file


def _print_estimate(plan: Plan, as_json: bool) -> None:
    from pleinair.app.cli.terminal import say_all
    from pleinair.app.estimate.attribution import attribution_lines, estimate_attribution

    if as_json:
        parts = estimate_attribution(plan)
        typer.echo(printable_json({name: part.model_dump() for name, part in parts.items()}))
    else:
        say_all(attribution_lines(plan))


def _print_attribution(result: Attribution, out: str | None, as_json: bool) -> None:
    from pleinair.app.cli.terminal import say_all

    if as_json:
        typer.echo(printable_json(result.plain()))
        return
    say_all(result.lines())
    say(printable(out) if out else f"`pleinair trace export {result.run} FILE` shows the images.")


@trace_app.command()
def export(
    run: RunId,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE | ADDRESS]",
            help="The file to write, ending in .html, .png or .json; with --otlp the address of a collector.",
        ),
    ] = None,
    otlp: Annotated[
        bool,
        typer.Option("--otlp", help="Send the trace to an OpenTelemetry collector; needs the extra `otel`."),
    ] = False,
) -> None:
    """Write the storyboard of a run to one self-contained file, or its trace with all messages as JSON.

    With --otlp the trace is sent to ADDRESS, or to where tracing.otlp or OTEL_EXPORTER_OTLP_ENDPOINT say.
    """
    from pleinair.app.api import find, home
    from pleinair.tools.types import BadInput

    with explained():
        if otlp:
            from pleinair.app.otel.export import export_run

            say(f"{export_run(find(run), home(), target or '')} spans sent")
            return
        if target is None:
            raise BadInput("FILE is missing", "Name a .html, .png or .json file, or use --otlp.")
        from pleinair.app.storyboard.export import export as write

        write(find(run), home(), Path(target))
    typer.echo(target)
