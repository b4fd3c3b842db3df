"""Generate an image from Python: `python examples/draw.py "a hoopoe in the snow"`."""

import sys

from pleinair.app.api import draw


def main(prompt: str = "a hoopoe in the snow") -> None:
    """Generate an image and print the ending, the references and their authors."""
    result = draw(prompt, seed=1, overrides={"budget.attempts": 2})
    print(f"{result.outcome.ending}: {result.outcome.reason}")
    best = result.outcome.best
    for reference in best.request.references if best else ():
        hit = reference.hit
        print(f"{reference.concept} was generated from {hit.id} ({hit.license}, {hit.author})")
    print(result.picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
