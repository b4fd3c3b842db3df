"""`pleinair evaluate`: does retrieval help on your library, with your generator?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Json, Profile, Setting
from pleinair.app.cli.terminal import error_lines, explained, leave, progress_bar, quiet, say, say_all
from pleinair.app.texts import counted, printable
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.settings import Settings
    from pleinair.evals.evaluate.columns import LibraryStudio
    from pleinair.evals.evaluate.findings import Findings
    from pleinair.evals.evaluate.report import Facts
    from pleinair.evals.evaluate.split import Split
    from pleinair.evals.reproduce.estimates import Forecast
    from pleinair.evals.reproduce.generate import Work
    from pleinair.evals.scores.items import Scorer
    from pleinair.tools.retrieval.library import Library


Folders = Annotated[
    list[str] | None,
    typer.Option(metavar="FOLDER", help="Your images; the configured library if omitted; repeatable."),
]
MostConcepts = Annotated[int, typer.Option(min=1, help="Concepts to evaluate, at most.")]
Names = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A concept that captions name; repeatable; found in them if omitted."),
]
Images = Annotated[int, typer.Option(min=1, help="True images to score against, of each concept.")]
Seeds = Annotated[int, typer.Option(min=1, help="Prompts of each concept, each with its own seed.")]
Seed = Annotated[int, typer.Option(help="From which the choice of images and all seeds derive.")]
Scores = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A score, such as dinov2:FOLDER; the first decides; repeatable."),
]
AllowSameEncoder = Annotated[
    bool, typer.Option("--allow-same-encoder", help="Score with retrieval's own encoder, too.")
]
Out = Annotated[str, typer.Option(metavar="DIR", help="Folder of all results.")]
MaxUsd = Annotated[
    float | None, typer.Option(metavar="USD", min=0, help="US dollars for all commands with this --out.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show concepts and estimate; generate nothing.")]


def evaluate(
    library: Folders = None,
    profile: Profile = None,
    setting: Setting = None,
    concepts: MostConcepts = 40,
    concept: Names = None,
    images: Images = 3,
    seeds: Seeds = 3,
    seed: Seed = 0,
    scorer: Scores = None,
    allow_same_encoder: AllowSameEncoder = False,
    out: Out = "pleinair-evaluate",
    max_usd: MaxUsd = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Measure whether retrieval helps on your library, with your generator.

    Images of each concept are held out. Equal prompts and seeds are generated without a reference, with the
    retrieved image, with a true image, and by the loop, and scored by a model that retrieval does not use.
    The same command goes on where it was stopped.
    """
    from pleinair.evals.evaluate.columns import LibraryStudio
    from pleinair.evals.evaluate.judges import open_scorers
    from pleinair.evals.reproduce.estimates import require_budget
    from pleinair.evals.reproduce.records import alone

    quiet()
    with explained():
        settings, folder = _settings(profile, setting, library), _folder(out)
        if scorer or not dry_run:  # a wrong one is refused before anything is read
            open_scorers(scorer or (), settings, allow_same_encoder)
        opened = _open(settings)
        _require_outside(folder, opened)
        split = _split(opened, concept or (), concepts, images, seeds, seed)
        plan = _plan(split, settings, LibraryStudio(folder, max_usd, split=split), scorer or ())
        if dry_run:  # without the weights of the default, too, what they are is said last
            open_scorers(scorer or (), settings, allow_same_encoder)
            return
        require_budget(plan, settings, max_usd)
        with alone(folder):
            studio = LibraryStudio(folder, max_usd, split=_without_copies(split, folder))
            works, findings = _evaluate(studio, scorer or (), settings, allow_same_encoder, seed)
            _finish(findings, _facts(studio, settings, seed), studio, works, as_json)


def _settings(profile: str | None, setting: list[str] | None, library: list[str] | None) -> Settings:
    from pleinair.app.engines import check
    from pleinair.app.settings import assignments, load

    settings = load(profile, assignments(setting, {"library.folder": library}))
    check(settings)
    return settings


def _folder(out: str) -> Path:
    from pleinair.evals.reproduce.records import checked_out
    from pleinair.tools.storage.files import checked_path

    if not out.strip():
        raise BadInput("--out: it is blank", "Name a folder for the results, or leave it out.")
    return checked_out(checked_path(out, "--out"))


def _require_outside(folder: Path, library: Library) -> None:
    """Raise `BadInput` for a folder of results in the library, of which its images would become a part."""
    for root in library.folders:
        if folder.resolve().is_relative_to(root):
            raise BadInput(
                f"--out {str(folder)!r}: it is in the library {root}, which would grow by the results",
                "Choose a folder outside of the library by --out.",
            )


def _open(settings: Settings) -> Library:
    """Open the library of the settings."""
    from pleinair.app.libraries import open_library
    from pleinair.app.paths import places

    with progress_bar("Reading the library") as show:
        return open_library(settings, places(settings.paths.home), show)


def _split(library: Library, names: Sequence[str], most: int, images: int, seeds: int, seed: int) -> Split:
    from pleinair.evals.evaluate.concepts import concepts_of
    from pleinair.evals.evaluate.split import split_library

    every = concepts_of(library, names)
    with progress_bar("Choosing images") as show:
        return split_library(
            library, every, most=most, images=images, seeds=seeds, seed=seed, on_progress=show
        )


def _without_copies(split: Split, folder: Path) -> Split:
    from pleinair.evals.evaluate.split import without_copies
    from pleinair.evals.reproduce.records import Records

    with progress_bar("Looking for copies of held-out images") as show:
        return without_copies(split, Records(folder / "copies.jsonl"), show)


def _plan(split: Split, settings: Settings, studio: LibraryStudio, texts: Sequence[str]) -> Forecast:
    """Print what would be done, and return the estimate of it."""
    from pleinair.evals.evaluate.columns import works_of
    from pleinair.evals.evaluate.report import cautions
    from pleinair.evals.reproduce.estimates import forecast, ratings

    works = works_of(split, settings)
    expected = forecast(studio, works, settings, answers=ratings(len(split.subjects) * len(works), texts))
    parts, every = split.parts, split.concepts
    say(
        printable(
            f"{len(parts)} of {counted(len(every.usable), 'concept')} by {every.origin}, such as "
            f"{', '.join(part.concept for part in parts[:4])}; {len(every.too_small)} more have one image"
        ),
        err=True,
    )
    for line in (*cautions(len(parts), len(split.subjects) // len(parts)), *expected.lines()):
        say(line, err=True)
    return expected


def _evaluate(
    studio: LibraryStudio, texts: Sequence[str], settings: Settings, allow_same: bool, seed: int
) -> tuple[list[Work], Findings]:
    """Generate and score what is left; exit with the code of a limit if the money is used up."""
    from pleinair.evals.evaluate.columns import works_of
    from pleinair.evals.evaluate.judges import open_scorers
    from pleinair.evals.reproduce.generate import UsedUp, generate_all

    assert studio.split is not None
    works = works_of(studio.split, settings)
    try:
        generate_all(studio, works, lambda work: None)
        scorers = open_scorers(texts, settings, allow_same, studio)
        return works, _find(studio, works, scorers, settings, seed)
    except UsedUp as error:
        say(f"\n{error_lines(error)}", err=True, indent=10)
        leave("stopped")


def _find(
    studio: LibraryStudio, works: list[Work], scorers: list[Scorer], settings: Settings, seed: int
) -> Findings:
    from pleinair.evals.evaluate.findings import find
    from pleinair.evals.evaluate.judges import is_independent
    from pleinair.evals.reproduce.results import measure_all

    say("", err=True)
    with progress_bar("Scoring") as show:
        by_arm = measure_all(studio, works, scorers, seed, lambda name, done, total: show(done, total))
    return find(
        studio,
        works,
        scorers,
        {arm.variant: scores for arm, scores in by_arm.items()},
        seed=seed,
        copied=settings.leak.copied,
        independent=is_independent(scorers[0]),
    )


def _facts(studio: LibraryStudio, settings: Settings, seed: int) -> Facts:
    from pleinair.evals.evaluate.report import Facts
    from pleinair.evals.report import versions

    split = studio.split
    concepts, library = split.concepts, split.library
    return Facts(
        command=shlex.join(["pleinair", *sys.argv[1:]]),
        library=library.title,
        images=len(library.items),
        origin=concepts.origin,
        too_small=tuple(concept.name for concept in concepts.too_small),
        not_chosen=len(concepts.usable) - len(split.parts),
        held_out=len(split.held_out),
        copies=len(split.copies),
        generator=settings.generator.label,
        encoder=settings.encoder.label,
        mllm=settings.mllm.label,
        profile=settings.profile,
        seed=seed,
        versions=versions(),
    )


def _finish(
    findings: Findings, facts: Facts, studio: LibraryStudio, works: list[Work], as_json: bool
) -> None:
    from pleinair.evals.evaluate.report import write_all, write_text

    text, page, data = write_all(findings, facts, studio, works, studio.out)
    if as_json:
        typer.echo(data.read_text("utf-8"), nl=False)
    else:
        say_all(write_text(findings, facts).splitlines())
        say_all(["", str(page), str(data), str(text)])
