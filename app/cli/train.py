"""Commands that train an adaptor or a retriever on a library."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from pleinair.app.cli.options import Profile, Setting
from pleinair.app.cli.terminal import explained, leave, progress_bar, say

train_app = typer.Typer(help="Train an adaptor or a retriever on your library.", no_args_is_help=True)

Library = Annotated[
    list[str], typer.Option(metavar="FOLDER", help="A folder of training images with captions; repeatable.")
]
Out = Annotated[Path, typer.Option(help="The folder for the trained weights.")]
Classes = Annotated[
    str,
    typer.Option(
        help="captions, folders, pocket, or a file: a name a line, or a folder, a tab and its name a line. "
        "Unset: the classes of a known data set, else captions."
    ),
]
Loss = Annotated[
    Literal["reflective", "normal"],
    typer.Option(help="reflective: with generated negatives; normal: without."),
]


@train_app.command()
def adaptor(
    library: Library,
    out: Out,
    profile: Profile = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over all images.")] = 12,
    learning_rate: Annotated[
        float, typer.Option(min=1e-9, help="Learning rate of Adam; 5e-5 in the paper.")
    ] = 5e-5,
    batch: Annotated[int, typer.Option(min=2, help="Images per batch.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial weights and the order.")] = 0,
    device: Annotated[str, typer.Option(help="A torch device; auto: a GPU if there is one.")] = "auto",
    at_once: Annotated[int, typer.Option(min=1, max=64, help="MLLM calls beside each other.")] = 8,
    restart: Annotated[bool, typer.Option(help="Replace another training's adaptor in --out.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show the estimate only.")] = False,
    setting: Setting = None,
) -> None:
    """Train Cross-modal RAG's dense adaptor on a library; the MLLM decomposes its captions.

    The same command goes on after a stop: the MLLM's answers are stored one by one, weights every epoch. Of a
    folder with a known data set, such as COCO or CUB, the images to train on are used, with its own captions.
    """
    from pleinair.app.settings import assignments, load
    from pleinair.app.trainings.adaptor import OverBudget, train_adaptor
    from pleinair.tools.retrieval.crossmodal.adaptor_training import AdaptorOptions

    with explained():
        settings = load(profile, assignments(setting, {"library.folder": library}))
        options = AdaptorOptions(
            epochs=epochs, learning_rate=learning_rate, batch=batch, seed=seed, device=device
        )
        lines = train_adaptor(
            settings, out, options, progress_bar, at_once=at_once, restart=restart, dry_run=dry_run
        )
        try:
            for line in lines:
                typer.echo(line)
        except OverBudget as error:
            say(str(error), err=True)
            leave("stopped")


@train_app.command()
def retriever(
    library: Library,
    out: Out,
    profile: Profile = None,
    classes: Classes = "",
    loss: Loss = "reflective",
    samples: Annotated[int, typer.Option(min=1, help="Images generated per prompt.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, max=999, help="Passes over all pairs.")] = 10,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Learning rate of Adam.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=2, help="Pairs per batch.")] = 64,
    tau: Annotated[float, typer.Option(min=1e-3, help="Temperature of the loss.")] = 0.07,
    as_printed: Annotated[bool, typer.Option(help="No temperature in the reflective term.")] = False,
    collisions: Annotated[
        Literal["class", "image"],
        typer.Option(help="What is never a negative: images of the positive's class, or only its copies."),
    ] = "class",
    not_of_class: Annotated[
        bool, typer.Option(hidden=True, help="Deprecated: --collisions class, the default.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the initial weights and the order.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option(help="Show the estimate only.")] = False,
    setting: Setting = None,
) -> None:
    """Train RealRAG's retriever: close to the prompt, far from images generated without references.

    It is for the generator, size, steps and guidance of the profile. The same command goes on after a stop.
    A library folder with a known data set, such as CUB or ImageNet, is trained on by its own class names and
    split. The estimate comes first.
    """
    from pleinair.app.settings import Renamed, assignments, load
    from pleinair.app.trainings.retriever import train_retriever
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions

    with explained():
        if not_of_class:
            warnings.warn("--not-of-class is the default now: --collisions class", Renamed, stacklevel=2)
        settings = load(profile, assignments(setting, {"library.folder": library}))
        options = ReflectiveOptions(
            loss=loss,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            tau=tau,
            tau_on_reflective=not as_printed,
            collisions="class" if not_of_class else collisions,
            samples=samples,
            seed=seed,
        )
        for line in train_retriever(settings, out, options, classes, progress_bar, dry_run=dry_run):
            typer.echo(line)
