"""Train the pocket models and export them into a folder laid out as `tools/pocket/weights/catalogue`.

`python -m pleinair.tools.pocket.training all --out weights` remakes every model in some 680 minutes; with
`--resume` a stopped training continues from its checkpoints. `--tiny` trains useless models of small sizes in
a minute, to test the way. Figures are measured and written into the model cards by
`python -m pleinair.evals.pocket.models --cards --folder weights`. Not covered: the models of the first world
("invented"), which are shipped as weights only.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.training.course import Run

OUT = SHIPPED / "catalogue"
MINUTES = {"encoder": 60.0, "detector": 120.0, "adaptor": 0.0, "autoencoder": 20.0, "generator": 480.0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and export one part, or all of them in the order of their dependence."""
    options = _read(arguments)
    work = options.work or user_cache_path("pleinair-training") / ("tiny" if options.tiny else "catalogue")
    parts = list(MINUTES) if options.part == "all" else [options.part]
    scale = (options.minutes or 0.0) / (sum(MINUTES[part] for part in parts) or 1.0) or 1.0
    for number, part in enumerate(parts, start=1):
        run = Run(options.out, work, scale * MINUTES[part], options.resume, options.tiny)
        run.say(f"part {number} of {len(parts)}: {part}")
        importlib.import_module(f"pleinair.tools.pocket.training.{part}").train(run)
    print(f"The models are in {options.out}.")


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options; exit with status 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m pleinair.tools.pocket.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=("all", *MINUTES), help="`detector` needs `encoder`")
    resume = "continue from the checkpoints in --work; a generator without one from the generator in --out"
    minutes = "training time of the part, or of all together, earlier runs included; default: as shipped"
    parser.add_argument("--minutes", type=float, help=minutes)
    parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the models (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder of checkpoints and data; default: the cache")
    parser.add_argument("--tiny", action="store_true", help="small sizes and two steps; needs --out")
    options = parser.parse_args(arguments)
    if options.tiny and options.out == OUT:
        parser.error("--tiny would overwrite the shipped models; add --out FOLDER")
    if options.minutes is not None and not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g} is not above 0")
    return options


if __name__ == "__main__":
    main()
