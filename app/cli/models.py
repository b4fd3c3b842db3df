"""The commands for models: which there are, bring them here, see whether they are whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.exit_codes import explained, leave
from pleinair.app.cli.terminal import printable, printable_json, quiet

if TYPE_CHECKING:
    from pleinair.app.models.download import Wanted
    from pleinair.app.models.inventory import Piece

models_app = typer.Typer(
    help="See which models a profile needs, and bring them here.", no_args_is_help=True, callback=quiet
)

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name, or a .toml file.")]
Setting = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key.")]


@models_app.command("list")
def list_models(
    profile: Annotated[str | None, typer.Option(help="Only this profile.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every profile's models: where from, at which commit, under which licence, what is here."""
    from pleinair.app.settings import profiles

    names = [profile] if profile else sorted(profiles())
    with explained():
        listed = {name: [_row(piece) for piece in _pieces_of(name)] for name in names}
    if as_json:
        typer.echo(printable_json(listed))
        return
    for name, rows in listed.items():
        typer.echo(name)
        for one in rows:
            words = (one["model"], one["revision"][:12], one["licence"], one["state"])
            typer.echo(f"  {one['role']:<10}  {'  '.join(printable(word) for word in words if word)}")


@models_app.command()
def check(
    profile: Name,
    setting: Setting = None,
    checksums: Annotated[bool, typer.Option("--checksums", help="Read every byte too.")] = False,
) -> None:
    """See whether all files of PROFILE's models are here and whole, and say what to do; loads nothing."""
    from pleinair.app.models.inventory import faults

    well = True
    with explained():
        for piece in _pieces_of(profile, setting):
            found = list(faults(piece, checksums))
            well = well and not found
            mark = typer.style(*("!!", typer.colors.RED) if found else ("ok", typer.colors.GREEN))
            typer.echo(f"{mark}  {piece.role}: {printable(piece.model)}, {_row(piece)['state']}")
            for fault in found:
                typer.echo(f"      {printable(fault)}")
            if found and piece.on_hub:
                typer.echo(f"      `pleinair models pull {profile}` brings what is missing")
    if not well:
        leave("failed")


@models_app.command()
def pull(
    profile: Name,
    setting: Setting = None,
    yes: Annotated[bool, typer.Option("--yes", help="Download without asking.")] = False,
) -> None:
    """Download what PROFILE's models lack, after telling the sizes and licences.

    A model that PROFILE names without a commit is taken at the present one, which later runs keep to.
    """
    from pleinair.app.models.download import at_commit, fetch, require_room, wanted

    with explained():
        named = [piece for piece in _pieces_of(profile, setting) if piece.on_hub]
        plans = [wanted(at_commit(piece)) for piece in named]
        for plan in plans:
            typer.echo(printable(plan.text))
        require_room(plans)
        lacking = any(plan.files for plan in plans)
        if lacking and not (yes or _agreed(sum(plan.size for plan in plans))):
            typer.echo("Nothing was downloaded; --yes downloads it.", err=True)
            leave("bad input")
        _keep_commits(profile, setting, named, plans)
        for plan in plans:  # also where all is here: a lost link of the cache is set again
            typer.echo(str(fetch(plan)))
        typer.echo("Downloaded." if lacking else "Nothing was to be downloaded.")


def _keep_commits(
    profile: str, setting: list[str] | None, named: Sequence[Piece], plans: Sequence[Wanted]
) -> None:
    """Write down the commits that the settings leave open, so that later runs load the same ones."""
    from pleinair.app.models.pins import keep
    from pleinair.app.paths import places
    from pleinair.app.settings import assignments, load

    pairs = [(before, plan.piece) for before, plan in zip(named, plans, strict=True) if not before.revision]
    if pairs:
        home = places(load(profile, assignments(setting or [])).paths.home)
        file = keep(home, {before.kept_as or before.model: after.revision for before, after in pairs})
        typer.echo(
            f"{printable(profile)} names no commit for {len(pairs)} of them: kept in {printable(str(file))}"
        )


def _agreed(size: int) -> bool:
    """Ask the user, if there is one."""
    from pleinair.app.models.inventory import in_words

    return sys.stdin.isatty() and typer.confirm(f"Download {in_words(size)}?")


def _pieces_of(profile: str, setting: list[str] | None = None) -> list[Piece]:
    """List the models of a profile."""
    from pleinair.app.models.inventory import pieces
    from pleinair.app.settings import assignments, load

    return pieces(load(profile, assignments(setting or [])))


def _row(piece: Piece) -> dict[str, str]:
    """Give what is told of a model."""
    from pleinair.app.models.inventory import state

    return {
        "role": piece.role,
        "model": piece.model,
        "revision": piece.revision,
        "licence": piece.licence,
        "state": state(piece),
    }
