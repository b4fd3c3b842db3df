"""Commands for the library: search it, list duplicates, and report what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.options import Json, Library, Profile, Setting
from pleinair.app.cli.terminal import explained, progress_bar, say
from pleinair.app.texts import counted, printable, printable_json, short_caption
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.libraries import OnProgress
    from pleinair.app.library.gaps import Gap
    from pleinair.app.library.opened import OpenLibrary, SearchHit, SearchResult
    from pleinair.app.settings import Settings

library_app = typer.Typer(
    help="Search the library, list duplicates, and report what it lacks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
MOST_RUNS = 3  # of a gap that are named


@library_app.command()
def search(
    words: Annotated[str, typer.Argument(help="What the image should show.")] = "",
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="Search for images like this one.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="ID", help="Search for images like this one of the library.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, max=1000, help="How many; retrieval.k if unset.")
    ] = None,
    library: Library = None,
    profile: Profile = None,
    setting: Setting = None,
    as_json: Json = False,
) -> None:
    """Search the library for WORDS as a run would, or for images like another one.

    Exit codes: 0 found, 1 nothing fits, 2 bad input.
    """
    with explained():
        if sum(map(bool, (words.strip(), image, like))) != 1:
            raise BadInput("what to search for: must be one of WORDS, --image FILE and --like ID")
        settings = _settings(profile, setting, library)
        with progress_bar("Indexing images") as on_progress:
            result = _searched(settings, words, image, like, k, on_progress)
    if as_json:
        typer.echo(printable_json(result.model_dump(mode="json")))
    else:
        _print(result)
    if result.abstained or not result.hits:
        raise typer.Exit(1)


@library_app.command()
def duplicates(
    library: Library = None, profile: Profile = None, setting: Setting = None, as_json: Json = False
) -> None:
    """List groups of images that are the same: equal files and near copies. Nothing is deleted."""
    from pleinair.app.api import home
    from pleinair.app.index import open_indexed
    from pleinair.app.libraries import index_folder
    from pleinair.app.library.duplicates import find_duplicates, save_duplicates

    with explained():
        settings = _settings(profile, setting, library)
        images, _, index = open_indexed(settings, home(), progress_bar)
        with progress_bar("Comparing images") as on_progress:
            result = find_duplicates(images, index, on_progress)
        save_duplicates(index_folder(settings, home()), result)
    if as_json:
        typer.echo(printable_json([group.model_dump(mode="json") for group in result.groups]))
        return
    for group in result.groups:
        say(f"{'equal files' if group.kind == 'exact' else 'near copies'}, {len(group.copies)}:")
        for copy in group.copies:
            say(f"    {printable(copy.id)}  {copy.size:,} bytes", indent=8)
    say(f"{counted(len(result.groups), 'group')} in {counted(result.images, 'image')}")


@library_app.command()
def gaps(
    since: Annotated[
        str, typer.Option(metavar="DATE", help="Only runs that ended on this day or later.")
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Search again, and say which the library covers by now.")
    ] = False,
    library: Library = None,
    profile: Profile = None,
    setting: Setting = None,
    as_json: Json = False,
) -> None:
    """Report what the library lacks: the concepts for which retrieval abstained, over all runs."""
    from pleinair.app.api import home, run_table
    from pleinair.app.library.gaps import day, gaps_of, looked_for
    from pleinair.app.library.retrievals import RetrievedCache

    with explained():
        retrieved = RetrievedCache(run_table(), home()).all()
        rows = gaps_of(retrieved.runs, day(since))
        if check:
            with progress_bar("Indexing images") as on_progress:
                rows = looked_for(rows, _opened(_settings(profile, setting, library), on_progress))
    if as_json:
        facts = [gap.model_dump(mode="json") for gap in rows]
        typer.echo(
            printable_json({"gaps": facts, "runs": len(retrieved.runs), "unreadable": retrieved.damaged})
        )
        return
    for gap in rows:
        _print_gap(gap)
    say(f"{counted(len(rows), 'gap')} in {counted(len(retrieved.runs), 'run')}")
    if retrieved.damaged:
        say(f"{counted(retrieved.damaged, 'run')} cannot be read and left out", err=True)


def _settings(profile: str | None, setting: list[str] | None, library: list[str] | None) -> Settings:
    from pleinair.app.engines import check
    from pleinair.app.settings import assignments, load

    settings = load(profile, assignments(setting, {"library.folder": library}))
    check(settings)
    return settings


def _opened(settings: Settings, on_progress: OnProgress) -> OpenLibrary:
    from pleinair.app.library.opened import OpenLibrary
    from pleinair.app.settings import home_of

    return OpenLibrary(settings, home_of(settings), on_progress=on_progress)


def _searched(
    settings: Settings,
    words: str,
    image: str | None,
    like: str | None,
    k: int | None,
    on_progress: OnProgress,
) -> SearchResult:
    from pleinair.app.runs.request import read_input_image

    picture = read_input_image(image) if image else None
    library, count = _opened(settings, on_progress), k or settings.retrieval.k
    if picture:
        return library.search_image(picture, count)
    return library.search_like(like, count) if like else library.search(words, count)


def _print(result: SearchResult) -> None:
    if result.abstained:
        say(f"nothing fits: {printable(result.reason)}; a run would use none of these")
    elif not result.hits:
        say("nothing fits: no image in the library was found")
    is_over = True
    for rank, each in enumerate(result.hits, 1):
        if is_over and each.accepted is False:
            is_over = False
            say(f"--- a run uses no hit below this line (threshold {result.threshold:.2f})")
        say(f"{rank:>3}  {_score(each)}  {printable(each.hit.id)}", indent=5)
        for line in _facts(each):
            say(f"     {printable(line)}", indent=5)
    if result.searched < result.images:
        say(f"searched {result.searched:,} of {counted(result.images, 'image')}, which meet the conditions")


def _score(each: SearchHit) -> str:
    from pleinair.app.trace.trace import score_text

    return score_text(each.hit)


def _facts(each: SearchHit) -> list[str]:
    hit = each.hit
    credits = (("license", hit.license), ("author", hit.author), ("source", hit.source))
    facts = (
        short_caption(hit.caption),
        "; ".join(f"{name} {value}" for name, value in credits if value),
        each.file,
    )
    return list(filter(None, facts))


def _print_gap(gap: Gap) -> None:
    best = "no hits" if gap.best is None else f"best {gap.best:.2f}"
    threshold = "" if gap.threshold is None else f", threshold {gap.threshold:.2f}"
    covered = {None: "", True: "; covered by now", False: "; still lacking"}[gap.covered]
    more = f" and {len(gap.runs) - MOST_RUNS} more" if len(gap.runs) > MOST_RUNS else ""
    say(
        f"{printable(gap.concept)}: {counted(len(gap.runs), 'run')}, {best}{threshold}, last "
        f"{gap.last:%Y-%m-%d}{covered}",
        indent=4,
    )
    say(f"    {', '.join(gap.runs[:MOST_RUNS])}{more}", indent=4)
