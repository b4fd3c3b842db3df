"""Compare RealRAG's retrievers in the miniature world: `python -m pleinair.evals.realrag.run`.

zero is the frozen encoder, normal and reflective are the MLP trained without and with the generator's own
pictures, self_contrast is ours and untrained, base draws without references. Every seed has a library, a
training and noise of its own. With `--collisions image` a negative may be of the positive's class, which it
mostly is where the generator knows the class. What is in the work folder is not made again, so a stopped run
goes on. Not covered: FID, which needs Inception's features and thousands of pictures, and CLIP by other
weights than the look-up's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.realrag.measure import (
    ENCODER,
    LOSSES,
    Bench,
    Drawn,
    Found,
    contexts,
    distances,
    draw_all,
    find_with,
    teach,
)
from pleinair.evals.realrag.report import summarise, write_markdown
from pleinair.evals.report import Figures
from pleinair.evals.run import pocket_context
from pleinair.tools.registry import resolve
from pleinair.tools.retrieval.realrag.reflective import Choices
from pleinair.tools.types import PleinairError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write JSON and Markdown; 1 where the user has to act, 0 otherwise."""
    options = read_options(arguments)
    try:
        figures = measure(options)
    except PleinairError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    page = write_markdown(figures)
    (options.out / "realrag.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (options.out / "realrag.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.evals.realrag.run", description=__doc__)
    parser.add_argument("--prompts", type=int, default=36, help="drawn in each seed and column (36)")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 (3)")
    parser.add_argument("--each", type=int, default=6, help="pictures of a species in a library (6)")
    parser.add_argument("--look-alikes", type=int, default=0, help="besides, in a library (0)")
    parser.add_argument("--epochs", type=int, default=40, help="of every training (40)")
    parser.add_argument(
        "--collisions", choices=("image", "class"), default="class", help="what is no negative (class)"
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), help="where figures and page go")
    parser.add_argument("--work", type=Path, default=Path("reports/realrag-work"), help="what is kept")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Figures:
    """Run every seed and sum it up."""
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        work=options.work.absolute(),
        choices=Choices(epochs=options.epochs, collisions=options.collisions),
        each=options.each,
        look_alikes=options.look_alikes,
        context=pocket_context(options.work),
        encoder=resolve("encoder", "open_clip")(**ENCODER),
        oracle=Oracle(),
    )
    found: list[Found] = []
    drawn: list[Drawn] = []
    for seed in range(options.seeds):
        library = bench.library(seed)
        index = bench.index(library, bench.encoder)
        taught = [teach(bench, library, index, loss, seed) for loss in LOSSES]
        found += find_with(bench, seed, taught)
        if options.prompts:
            drawn += draw_all(bench, seed, contexts(bench, seed, taught), options.prompts)
    about = {
        "command": _command(options),
        "prompts": options.prompts,
        "seeds": options.seeds,
        "each": options.each,
        "look_alikes": options.look_alikes,
        "choices": bench.choices.model_dump(),
        "generator": bench.context.generator.capabilities.id,
        "encoder": bench.encoder.id,
        "distance": distances(bench, drawn) if drawn else {},
    }
    return summarise([asdict(one) for one in found], [asdict(one) for one in drawn], about)


def _command(options: argparse.Namespace) -> str:
    """Give the command that repeats the figures."""
    names = ("prompts", "seeds", "each", "look_alikes", "epochs", "collisions")
    given = (f"--{name.replace('_', '-')} {getattr(options, name)}" for name in names)
    return " ".join(("python -m pleinair.evals.realrag.run", *given))


if __name__ == "__main__":
    sys.exit(main())
