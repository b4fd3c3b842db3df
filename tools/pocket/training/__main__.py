"""Train the pocket models and export them into a folder laid out as `tools/pocket/weights`.

`python -m pleinair.tools.pocket.training all --out weights` remakes every shipped model in about 320
minutes; with `--resume` a stopped training continues from its checkpoints. `--tiny` trains useless models of
small sizes in a minute, to test the way. Figures are measured and written into the model cards by
`python -m pleinair.evals.pocket.models --cards --folder weights`.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.training.course import Run

MINUTES = {
    "invented": {"encoder": 16.0, "detector": 34.0, "adaptor": 0.0, "autoencoder": 20.0, "generator": 250.0},
    "catalogue": {
        "encoder": 60.0,
        "detector": 120.0,
        "adaptor": 0.0,
        "autoencoder": 20.0,
        "generator": 480.0,
    },
}
PACKAGES = {
    "invented": "pleinair.tools.pocket.training",
    "catalogue": "pleinair.tools.pocket.training.catalogue",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and export one part, or all of them in the order of their dependence."""
    options = _read(arguments)
    work = options.work or user_cache_path("pleinair-training") / ("tiny" if options.tiny else "full")
    minutes = MINUTES[options.world]
    parts = list(minutes) if options.part == "all" else [options.part]
    scale = (options.minutes or 0.0) / (sum(minutes[part] for part in parts) or 1.0) or 1.0
    for number, part in enumerate(parts, start=1):
        run = Run(options.out, work, scale * minutes[part], options.resume, options.tiny)
        run.say(f"part {number} of {len(parts)}: {part}")
        importlib.import_module(f"{PACKAGES[options.world]}.{part}").train(run)
    print(f"The models are in {options.out}.")


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options; exit with status 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m pleinair.tools.pocket.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", help=f"all, {', '.join(MINUTES['invented'])}; `detector` needs `encoder`")
    parser.add_argument("--world", choices=MINUTES, default="invented", help="(%(default)s)")
    resume = "continue from the checkpoints in --work; a generator without one from the generator in --out"
    minutes = "training time of the part, or of all together, earlier runs included; default: as shipped"
    parser.add_argument("--minutes", type=float, help=minutes)
    parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models (%(default)s)")
    parser.add_argument("--work", type=Path, help="folder of checkpoints and data; default: the cache")
    parser.add_argument("--tiny", action="store_true", help="small sizes and two steps; needs --out")
    options = parser.parse_args(arguments)
    if fault := _fault(options):
        parser.error(fault)
    return options


def _fault(options: argparse.Namespace) -> str:
    """Return what is wrong with the options, or ''."""
    parts = ("all", *MINUTES[options.world])
    if options.part not in parts:
        return f"the world {options.world!r} has no part {options.part!r}; choose from {', '.join(parts)}"
    if options.out == SHIPPED and (options.tiny or options.world != "invented"):
        option = "--tiny" if options.tiny else f"--world {options.world}"
        return f"{option} would overwrite the shipped models; add --out FOLDER"
    if options.minutes is not None and not options.minutes > 0:
        return f"--minutes {options.minutes:g} is not above 0"
    return ""


if __name__ == "__main__":
    main()
