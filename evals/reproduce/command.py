"""Make the tables of a paper anew on your own copy of its data, beside the published figures.

What is missing is named all at once, before anything is generated. The estimate comes first. Every image and
every score is appended to a file at once, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from pleinair.evals.reproduce import crossmodal, imagerag, realrag
from pleinair.evals.reproduce.experiment import Experiment, Options
from pleinair.evals.reproduce.run import reproduce
from pleinair.tools.types import BadInput, Cancelled

EXPERIMENTS = {
    "imagerag": (imagerag.EXPERIMENT, "make ImageRAG's tables on its data sets"),
    "crossmodal": (crossmodal.EXPERIMENT, "make Cross-modal RAG's tables on its data sets"),
    "realrag": (realrag.EXPERIMENT, "make RealRAG's tables on its data sets"),
}


def add(commands: Any) -> None:
    """Add the commands of the three papers and their options."""
    for name, (experiment, help) in EXPERIMENTS.items():
        parser = commands.add_parser(name, help=help, description=__doc__)
        _add_options(parser, experiment)
        parser.set_defaults(run=partial(_run, name))


def _add_options(parser: argparse.ArgumentParser, experiment: Experiment) -> None:
    numbers = ", ".join(experiment.numbers)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="a data set's folder, or one of several; repeatable",
    )
    add("--profile", default=None, help="profile of the engines (that of pleinair.toml, else pocket)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as in `pleinair draw`")
    add("--only", default="", metavar="TABLE[:ROW],ROW,…", help=f"tables and rows (all): {numbers}")
    add("--data-sets", default="", metavar="NAME,…", help="of those that the tables need (all)")
    add("--limit", type=_positive, metavar="N", help="the first N classes of a data set (the paper's number)")
    add("--images", type=_positive, metavar="N", help=f"images of a class or query ({experiment.images})")
    add("--seed", type=_seed, default=0, help="from which each prompt's seed derives (0)")
    add(
        "--scorer",
        action="append",
        default=[],
        metavar="TEXT",
        help=f"a score's model, repeatable, or none (the paper's: {', '.join(experiment.scorers)})",
    )
    add("--allow-same-encoder", action="store_true", help="score with the retrieval's own encoder, too")
    add(
        "--out",
        type=Path,
        default=Path(f"reports/{experiment.paper}"),
        help="folder of everything that is made",
    )
    add("--max-usd", type=_usd, metavar="USD", help="US dollars of all commands with this --out, at most")
    add("--estimate", action="store_true", help="print what it takes and what is missing, and stop")
    if experiment.paper == "imagerag":
        add(
            "--generic",
            type=Path,
            metavar="DIR",
            help="library of images of any kind, such as a part of LAION",
        )
        add("--pool-sizes", default="1000,10000,100000,350000", help="of figure 16, in images (%(default)s)")
    if experiment.paper == "realrag":
        add(
            "--train",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="an option of the retrievers' training, such as epochs=10",
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 1 or more")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 0 or more")
    return int(text)


def _usd(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = 0.0
    if not 0 < amount < inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an amount of US dollars above 0")
    return amount


def _run(name: str, options: argparse.Namespace) -> None:
    experiment, _ = EXPERIMENTS[name]
    try:
        reproduce(experiment, _read_options(options))
    except KeyboardInterrupt:
        raise Cancelled("Stopped.", "The same command goes on where it was.") from None


def _read_options(options: argparse.Namespace) -> Options:
    """Return the options of a parsed command line."""
    sizes = _listed(getattr(options, "pool_sizes", ""))
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise BadInput(f"--pool-sizes {options.pool_sizes!r}: must be numbers of images, such as 1000,10000")
    generic = getattr(options, "generic", None)
    if generic and not generic.is_dir():
        raise BadInput(f"--generic {str(generic)!r}: no such folder.")
    return Options(
        data=tuple(options.data),
        out=options.out,
        profile=options.profile,
        overrides=tuple(options.set),
        only=_listed(options.only),
        data_sets=_listed(options.data_sets),
        limit=options.limit,
        images=options.images,
        seed=options.seed,
        scorers=tuple(options.scorer),
        allow_same=options.allow_same_encoder,
        generic=generic,
        pool_sizes=tuple(map(int, sizes)),
        training=tuple(getattr(options, "train", ())),
        max_usd=options.max_usd,
        estimate=options.estimate,
        command=shlex.join(["python", "-m", "pleinair.evals", *options.words]),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
