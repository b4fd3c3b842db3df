"""Compare RealRAG's retrievers in the miniature world: `python -m pleinair.evals.realrag.run`.

zero is the frozen encoder, normal and reflective are the MLP trained without and with the generator's own
images, self_contrast is ours and untrained, base generates without references. Every seed has a library, a
training and noise of its own. With `--collisions image` a negative may be of the positive's class, which it
mostly is if the generator knows the class. What is in the work folder is not computed again, so a stopped run
continues. Not covered: FID, which needs Inception's features and thousands of images, and CLIP by other
weights than the retrieval's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pleinair.evals.papers.report import SHARES, Claim, Record, judge, measurements, scores, section
from pleinair.evals.report import Figures, decimal, table, versions, write_report
from pleinair.tools.types import PleinairError

STEPS = ("normal ≥ zero", "reflective ≥ normal", "reflective ≥ zero")  # the paper's order


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write JSON and Markdown; return 1 for an error the user can act on, else 0."""
    options = read_options(arguments)
    try:
        figures = measure(options)
    except PleinairError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    page = write_markdown(figures)
    write_report(figures, page, options.out / "realrag.json", options.out / "realrag.md")
    sys.stdout.write(page)
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.realrag.run", description=__doc__)
    parser.add_argument("--prompts", type=int, default=36, help="images in each seed and column (36)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (3)")
    parser.add_argument("--each", type=int, default=6, help="images of a species in a library (6)")
    parser.add_argument("--look-alikes", type=int, default=0, help="look-alikes in a library (0)")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of every training (40)")
    parser.add_argument(
        "--collisions",
        choices=("image", "class"),
        default="class",
        help="what is never a negative: the positive's image or its class (class)",
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder for figures and page")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("reports/realrag-work"),
        help="folder for libraries, trainings, images",
    )
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, overrides: Mapping[str, Any] | None = None) -> Figures:
    """Run every seed with the pocket profile, some settings changed, and compute the figures."""
    from pleinair.evals.pocket.oracle import Oracle
    from pleinair.evals.realrag import bench as steps
    from pleinair.evals.run import pocket_context
    from pleinair.tools.registry import resolve
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions

    bench = steps.Bench(
        work=options.work.absolute(),
        choices=ReflectiveOptions(epochs=options.epochs, collisions=options.collisions),
        each=options.each,
        look_alikes=options.look_alikes,
        context=pocket_context(options.work, overrides),
        encoder=resolve("encoder", "open_clip")(**steps.ENCODER),
        oracle=Oracle(),
    )
    retrieved: list[Record] = []
    generated: list[Record] = []
    for seed in range(options.seeds):
        library = bench.library(seed)
        index = bench.index(library, bench.encoder)
        trained = [steps.train_retriever(bench, library, index, loss, seed) for loss in steps.LOSSES]
        retrieved += steps.retrievals(bench, seed, trained)
        if options.prompts:
            contexts = steps.make_contexts(bench, seed, trained)
            generated += steps.generations(bench, seed, contexts, options.prompts)
    names = ("prompts", "seeds", "each", "look_alikes", "epochs", "collisions")
    words = (f"--{name.replace('_', '-')} {getattr(options, name)}" for name in names)
    about = {
        "command": " ".join(("python -m pleinair.evals.realrag.run", *words)),
        **{name: getattr(options, name) for name in names[:4]},
        "choices": bench.choices.model_dump(),
        "generator": bench.context.generator.capabilities.id,
        "encoder": bench.encoder.id,
    }
    return about | summarise(retrieved, generated, steps.distances(bench, generated) if generated else {})


def summarise(
    retrieved: Sequence[Record], generated: Sequence[Record], distances: Mapping[str, float]
) -> Figures:
    """Compute every figure; shares are in 0..1, intervals cover 95 %, over species.

    A species counts by its mean over seeds, wordings and images, which depend on each other.
    """
    last = max(record["epoch"] for record in retrieved)
    final = [record for record in retrieved if record["epoch"] in (0, last)]
    frame = measurements([*generated, *final])
    shares = [measure for measure in frame["measure"].unique() if measure.startswith(SHARES)]
    claims = [
        Claim(step, measure, tier)
        for measure in shares
        for tier in (*frame["tier"].unique(), "all")
        for step in STEPS
    ]
    real = {"seed": None, "tier": "all", "case": "", "name": ""}
    distance = [
        {**real, "column": column, "measures": {"Fréchet distance × 100": 100 * value}}
        for column, value in distances.items()
    ]
    return {
        "measures": scores(measurements([*generated, *final, *distance])),
        "claims": [
            *judge([claim for claim in claims if claim.tier != "all"], frame),
            *judge([claim for claim in claims if claim.tier == "all"], frame.assign(tier="all")),
        ],
        "curve": _curve(retrieved),
        "versions": versions(),
    }


def _curve(retrieved: Sequence[Record]) -> Figures:
    """Return R@1 by library, retriever and epoch, over all tiers (the paper's figure 7)."""
    shares = measurements(retrieved).groupby(["measure", "column", "epoch"], sort=False)["value"].mean()
    curve: Figures = {}
    for (measure, column, epoch), share in shares.items():
        curve.setdefault(measure, {}).setdefault(column, {})[str(epoch)] = share
    return curve


def write_markdown(figures: Figures) -> str:
    """Return the page: what was measured, each figure with its interval, and what does not reproduce."""
    return "\n".join((*_opening(figures), *section(figures), *_curves(figures)))


def _opening(figures: Figures) -> Iterator[str]:
    choices = figures["choices"]
    others = f" and {figures['look_alikes']} look-alikes" if figures["look_alikes"] else ""
    yield "# RealRAG's retrievers in the miniature world\n"
    yield f"```sh\n{figures['command']}\n```\n"
    yield f"{figures['seeds']} seeds, each with a library, a training and noise of its own."
    yield f"{figures['each']} clean images of a species{others}, {choices['epochs']} epochs, "
    yield f"no negative of the positive's {choices['collisions']}."
    yield "Novel names are unknown to the frozen encoder, rare and novel ones to the generator."
    yield "Right means that the generated image is of the species, R@1 that the first hit is. A share is the"
    yield "mean over n species, each its mean over seeds, wordings and images; brackets are 95 % bootstrap"
    yield "intervals over species. CLIP-T and CLIP-I are by the encoder that also did the retrieval. By the"
    yield "oracle's layers are looks, a cosine to real images in DINO's place, style loss, and a Fréchet"
    yield "distance in FID's; real is as many other real images, as few never have distance 0. FID itself is"
    yield "not measured.\n"


def _curves(figures: Figures) -> Iterator[str]:
    for measure, columns in figures["curve"].items():
        yield f"## {measure}, all tiers, by epoch\n"
        yield from table(
            {"epoch": column, **{epoch: decimal(share) for epoch, share in curve.items()}}
            for column, curve in columns.items()
            if column != "zero"
        )
        yield ""


if __name__ == "__main__":
    sys.exit(main())
