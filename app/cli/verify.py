"""`pleinair verify`: measure this machine, and write a report that can be sent back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Json
from pleinair.app.cli.terminal import explained, leave, quiet, say
from pleinair.app.texts import counted, printable
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.verify.session import Report

OUT = "pleinair-verify"


def verify(
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Measure only this: machine, doctor, faiss, encoder, images, times, or a part of the report "
            "such as times-klein; repeatable.",
        ),
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A profile to time and to draw with; repeatable, or with commas. By default klein, "
            "klein_kv, sdxl, kontext and qwen_edit.",
        ),
    ] = None,
    library: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Your images with captions and licenses, whose captions are drawn; the report then shows "
            "them. By default the pocket library.",
        ),
    ] = None,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the report.")] = OUT,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Run the same code with tiny sizes on the CPU; times nothing.")
    ] = False,
    limit: Annotated[
        float, typer.Option(metavar="MINUTES", min=0.05, help="Stop after so many minutes.")
    ] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="Images to time for each line.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure this machine's GPU with pleinair's models, and write a report that can be sent back.

    Versions, FAISS on the GPU against the CPU, seconds and memory of an image with 0 to 4 references, the
    encoder, ten fixed prompts, and the findings of `pleinair doctor`, which asks a configured MLLM server one
    small question. Models that are not downloaded are timed with random weights of their sizes; nothing is
    downloaded. The same command goes on after an interruption. The report has no names, paths or keys.
    """
    quiet()
    with explained():
        report = _measure(only, _names(profiles), library, out, tiny, limit, repeats)
        if as_json:
            typer.echo((report.folder / "verify.json").read_text("utf-8"), nl=False)
        else:
            _summarize(report)
        endings = {result.ending for result in report.results.values()}
        if endings & {"failed", "crashed"}:
            leave("failed")
        if "stopped" in endings:
            leave("stopped")


def _names(texts: list[str] | None) -> tuple[str, ...]:
    names = (name.strip() for text in texts or () for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _measure(
    only: list[str] | None,
    profiles: tuple[str, ...],
    library: str | None,
    out: str,
    tiny: bool,
    limit: float,
    repeats: int,
) -> Report:
    from pleinair.app.settings import load
    from pleinair.app.verify.plan import PROFILES, Plan, make_parts
    from pleinair.app.verify.privacy import Scrubber
    from pleinair.app.verify.session import measure_parts, opened

    folder, library = _folder(out), _library(library)
    plan = Plan(
        work=str(folder / "work"),
        out=str(folder),
        profiles=profiles or PROFILES,
        library=library,
        tiny=tiny,
        repeats=repeats,
    )
    parts = make_parts(plan, only or ())
    configured = load().library.folders
    scrubber = Scrubber([folder, *configured, *filter(None, [library])])
    with opened(folder, plan, _command(only, profiles, tiny), scrubber) as report:
        numbers = {part.name: number for number, part in enumerate(parts, 1)}

        def show(name: str, text: str) -> None:
            say(f"{numbers[name]}/{len(parts)} {name}: {printable(text)}", err=True, indent=4)

        try:
            measure_parts(report, parts, 60 * limit, show)
        except KeyboardInterrupt:
            report.save()
            say(f"pleinair: stopped; {folder} has the results, and the same command goes on", err=True)
            leave("cancelled")
        return report


def _folder(out: str) -> Path:
    from pleinair.tools.storage.files import checked_path, require_writable

    if not out.strip():
        raise BadInput("--out: it is blank", "Name a folder for the report, or leave it out.")
    folder = checked_path(out, "--out").absolute()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {out!r}: it is a file; must be a folder")
    require_writable(folder)
    return folder


def _library(folder: str | None) -> str:
    from pleinair.tools.storage.files import checked_path

    if folder is None:
        return ""
    path = checked_path(folder, "--library").absolute()
    if not path.is_dir():
        raise BadInput(f"--library {folder!r}: no such folder")
    return str(path)


def _command(only: list[str] | None, profiles: tuple[str, ...], tiny: bool) -> str:
    """Return the command without folders, which are private."""
    words = ["pleinair verify", *(f"--only {each}" for each in only or ())]
    return " ".join([*words, *(f"--profiles {each}" for each in profiles), *(["--tiny"] if tiny else [])])


def _summarize(report: Report) -> None:
    endings = Counter(result.ending for result in report.results.values())
    counts = ", ".join(f"{count} {ending}" for ending, count in endings.items())
    say(f"{counted(len(report.results), 'part')}: {counts}")
    say(f"The report: {printable(str(report.folder / 'verify.md'))}")
    say(f"To send: {printable(str(report.folder / 'verify.zip'))}, after you have read the report")
