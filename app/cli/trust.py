"""Commands about settings: where each comes from, and trust in those of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleinair.app.cli.options import Json, Profile, Setting
from pleinair.app.cli.terminal import explained
from pleinair.app.texts import printable, printable_json


def trust(
    folder: Annotated[Path, typer.Argument(help="A folder with a pleinair.toml.")] = Path(),
    remove: Annotated[bool, typer.Option("--remove", help="Trust it no longer.")] = False,
) -> None:
    """Obey all keys of FOLDER's pleinair.toml as it is now: servers, paths, limits on costs."""
    from pleinair.app.toml.trees import read_toml
    from pleinair.app.toml.trust import FILE, distrust, guarded_keys
    from pleinair.app.toml.trust import trust as store

    path = folder / FILE
    with explained():
        if remove:
            distrust(path)
        else:
            store(path)
            for key in guarded_keys(read_toml(path)):
                typer.echo(printable(key))
    typer.echo(printable(f"{path.absolute()}: {'not ' * remove}trusted"))


def settings(profile: Profile = None, setting: Setting = None, as_json: Json = False) -> None:
    """Print each setting that differs from the profile's, and where it was set."""
    from pleinair.app.settings import assignments, origins

    with explained():
        rows = origins(profile, assignments(setting))
    if as_json:
        typer.echo(printable_json([row._asdict() for row in rows]))
        return
    for row in rows:
        typer.echo(printable(str(row)))
