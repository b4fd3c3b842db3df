"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from pleinair.tools.retrieval.licenses import Licenses

RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `last`.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a setting, such as retrieval.k=8; repeatable."),
]
Profile = Annotated[str | None, typer.Option(help="The backends to use; `pocket` runs without any setup.")]
Library = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FOLDER", help="A folder, .tar, .parquet, .arrow or URL of reference images; repeatable."
    ),
]
License = Annotated[
    Licenses | None,
    typer.Option(help="Retrieve references of any, of known or of free licenses; as set if omitted."),
]
Out = Annotated[str | None, typer.Option(help="The folder for results; ./pleinair-out if unset.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
