"""Index a folder of your own images and generate from it: `python examples/own_library.py FOLDER PROMPT`.

Captions and credits are read from the layouts in docs/library.md. If the folder does not exist, a small
library of the miniature world is written to it.
"""

import sys
from pathlib import Path

from pleinair.app.api import draw
from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import load
from pleinair.tools.pocket.catalogue.library import write_library


def main(folder: str = "out/images", prompt: str = "a hoopoe in the snow") -> None:
    """Index the changed files of the folder, then generate an image."""
    if not Path(folder).exists():
        write_library(Path(folder), size=120, tiers=("rare",))
    overrides = {"library.folder": folder, "budget.attempts": 2}
    for line in bring_up_to_date(load(overrides=overrides)):
        print(line)
    result = draw(prompt, seed=1, overrides=overrides)
    print(f"{result.outcome.ending}: {result.outcome.reason}")
    print(result.picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
