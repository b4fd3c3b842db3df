"""The commands for models: list them, check their files, download them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleinair.app.cli.options import Json, Setting
from pleinair.app.cli.terminal import explained, leave, quiet, say
from pleinair.app.texts import printable, printable_json

if TYPE_CHECKING:
    from pleinair.app.models.inventory import ProfileModel

models_app = typer.Typer(
    help="List, check and download the models of a profile.", no_args_is_help=True, callback=quiet
)

Name = Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name, or a .toml file.")]


@models_app.command("list")
def list_models(
    profile: Annotated[str | None, typer.Option(help="Only this profile.")] = None,
    as_json: Json = False,
) -> None:
    """List every profile's models: origin, commit, license, and whether they are downloaded."""
    from pleinair.app.settings import profiles

    names = [profile] if profile else sorted(profiles())
    with explained():
        tables = {name: [_row(model) for model in _models_of(name)] for name in names}
    if as_json:
        typer.echo(printable_json(tables))
        return
    for name, rows in tables.items():
        typer.echo(name)
        for row in rows:
            words = (row["model"], row["revision"][:12], row["license"], row["state"])
            typer.echo(f"  {row['role']:<10}  {'  '.join(printable(word) for word in words if word)}")


@models_app.command()
def check(
    profile: Name,
    setting: Setting = None,
    checksums: Annotated[bool, typer.Option("--checksums", help="Read every byte too.")] = False,
) -> None:
    """Check that all files of PROFILE's models are downloaded and complete; loads nothing."""
    from pleinair.app.models.inventory import find_faults
    from pleinair.app.settings import assignments

    complete = True
    with explained():
        for model in _models_of(profile, assignments(setting)):
            faults = list(find_faults(model, checksums))
            complete = complete and not faults
            mark = typer.style(*("!!", typer.colors.RED) if faults else ("ok", typer.colors.GREEN))
            say(f"{mark}  {model.role}: {printable(model.model)}, {_row(model)['state']}")
            for fault in faults:
                say(f"      {printable(fault)}", indent=6)
            if faults and model.on_hub:
                typer.echo(f"      `pleinair models pull {profile}` downloads what is missing")
    if not complete:
        leave("failed")


@models_app.command()
def pull(
    profile: Name,
    setting: Setting = None,
    yes: Annotated[bool, typer.Option("--yes", help="Download without asking.")] = False,
) -> None:
    """Download the missing files of PROFILE's models, after printing their sizes and licenses.

    A model for which PROFILE sets no commit is pinned to the current one, which later runs load.
    """
    from pleinair.app.settings import assignments

    with explained():
        download_models(profile, assignments(setting), yes)


def download_models(profile: str, overrides: Mapping[str, Any], yes: bool, *, err: bool = False) -> None:
    """Print sizes and licenses of what PROFILE's models lack, ask, and download; exit if it is declined.

    All but the progress bars goes to the standard output, or with `err` to the error output.
    """
    from pleinair.app.models.download import at_commit, plan_download, require_disk_space
    from pleinair.app.models.inventory import format_size

    models = [model for model in _models_of(profile, overrides) if model.on_hub]
    plans = [plan_download(at_commit(model)) for model in models]
    for plan in plans:
        say(printable(plan.text), err=err)
    require_disk_space(plans)
    size, missing = sum(plan.size for plan in plans), any(plan.files for plan in plans)
    if missing and not yes:
        if not (sys.stdin.isatty() and typer.confirm(f"Download {format_size(size)}?", err=err)):
            typer.echo("Nothing was downloaded; `pleinair models pull --yes` does not ask.", err=True)
            leave("bad input")
    pairs = [pair for pair in zip(models, plans, strict=True) if not pair[0].revision]
    commits = {model.pin_name or model.model: plan.model.revision for model, plan in pairs}
    _pin(profile, overrides, commits, err)
    for plan in plans:  # also if all files are there: a broken link of the cache is restored
        typer.echo(str(plan.download()), err=err)
    typer.echo("Downloaded." if missing else "All files were there already.", err=err)


def _pin(profile: str, overrides: Mapping[str, Any], commits: dict[str, str], err: bool) -> None:
    """Store the commits that the settings leave open, so that later runs load the same ones."""
    from pleinair.app.models.pins import add_pins
    from pleinair.app.paths import places
    from pleinair.app.settings import load

    if commits:
        home = places(load(profile, overrides).paths.home)
        file = printable(str(add_pins(home, commits)))
        typer.echo(
            f"{printable(profile)} sets no commit for {len(commits)} of them: pinned in {file}", err=err
        )


def _models_of(profile: str, overrides: Mapping[str, Any] | None = None) -> list[ProfileModel]:
    from pleinair.app.models.inventory import profile_models
    from pleinair.app.settings import load

    return profile_models(load(profile, overrides))


def _row(model: ProfileModel) -> dict[str, str]:
    from pleinair.app.models.inventory import describe_state

    return {
        "role": model.role,
        "model": model.model,
        "revision": model.revision,
        "license": model.license,
        "state": describe_state(model),
    }
