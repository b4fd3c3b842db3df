"""Index a folder of your own pictures and draw from it: `python examples/own_library.py FOLDER PROMPT`.

A `metadata.jsonl` in the folder may give each picture its `text`, `license`, `source` and `author`. Without a
folder a small one of the miniature world is made.
"""

import sys
from pathlib import Path

from pleinair.app.api import draw
from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import load
from pleinair.tools.pocket.library import write_library


def main(folder: str = "out/pictures", prompt: str = "a saverel wren in the snow") -> None:
    """Index what is new in the folder, then draw."""
    if not Path(folder).exists():
        write_library(Path(folder), size=120, tiers=("rare",))
    chosen = {"library.folder": folder, "budget.attempts": 2}
    for line in bring_up_to_date(load(overrides=chosen), lambda done, total: None):
        print(line)
    result = draw(prompt, seed=1, overrides=chosen)
    print(f"{result.outcome.ending}: {result.outcome.reason}")
    print(result.picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
