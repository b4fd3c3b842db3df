"""Train one part of the pocket set: `python -m pleinair.tools.pocket.training generator --minutes 90`."""

import argparse
import importlib
import sys
import time

PARTS = ("generator", "autoencoder", "encoder", "detector")


def _say(line: str) -> None:
    """Print a line with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def main() -> None:
    """Read the arguments and call the part's `train(minutes, resume, say)`."""
    parser = argparse.ArgumentParser(prog="python -m pleinair.tools.pocket.training", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument(
        "--minutes", type=float, required=True, help="training time in all, earlier runs included"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in the cache folder"
    )
    options = parser.parse_args()
    part = importlib.import_module(f"pleinair.tools.pocket.training.{options.part}")
    part.train(options.minutes, options.resume, _say)


if __name__ == "__main__":
    main()
