"""The commands that train a part on the user's own pictures. Heavy libraries are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleinair.app.ending import explained

train_app = typer.Typer(help="Train a part on your own pictures.", no_args_is_help=True)

Library = Annotated[str, typer.Option(help="The folder of pictures with captions to learn from.")]
Out = Annotated[Path, typer.Option(help="The folder for the trained part.")]
Profile = Annotated[str | None, typer.Option(help="The engines to use; `pocket` needs nothing.")]
Setting = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key.")]


@train_app.command()
def adaptor(
    library: Library,
    out: Out,
    profile: Profile = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that every picture is seen.")] = 12,
    learning_rate: Annotated[float, typer.Option(help="Of Adam; the paper's is 5e-5.")] = 5e-5,
    batch: Annotated[int, typer.Option(min=2, help="Pictures compared at a time.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and the order.")] = 0,
    setting: Setting = None,
) -> None:
    """Train Cross-modal RAG's dense adaptor on a library; its captions are broken down by the chat model."""
    from pleinair.app.settings import assignments, load
    from pleinair.app.train_adaptor import train_adaptor

    with explained():
        settings = load(profile, assignments(setting or []) | {"library.folder": library})
        for line in train_adaptor(
            settings, out, epochs=epochs, learning_rate=learning_rate, batch=batch, seed=seed
        ):
            typer.echo(line)
