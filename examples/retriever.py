"""Add a retrieval method in one file: `python examples/retriever.py PROMPT`.

A package makes it available to every run with three lines in its `pyproject.toml`, which `main` imitates
here:

    [project.entry-points."pleinair.retriever"]
    varied = "retriever:Varied"

Then `pleinair draw PROMPT --set retrieval.method=varied --set retrieval.arguments.shared=2` retrieves by it.
"""

import random
import sys
from pathlib import Path

from pleinair.app.api import draw
from pleinair.tools.retrieval.compose import Corpus
from pleinair.tools.types import Hit


class Varied:
    """Search for images whose captions share words with the query, ties in an order from the run's seed."""

    def __init__(self, corpus: Corpus, shared: int = 1) -> None:
        """Search the captions of `corpus` for images with at least `shared` words of the query."""
        self.corpus, self.shared = corpus, shared

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Return up to `k` hits, scored by the number of shared words."""
        words, hits = set(query.casefold().split()), []
        for entry in self.corpus.entries():
            score = len(words & set(entry.caption.casefold().split()))
            if score >= self.shared:
                hits.append(entry.model_copy(update={"score": float(score)}))
        random.Random(f"{seed} {query}").shuffle(hits)
        return sorted(hits, key=lambda hit: -hit.score)[:k]


def main(prompt: str = "a hoopoe in the snow", folder: str = "out/plugin") -> None:
    """Install the entry point into a folder on the path, as pip does, and generate an image."""
    info = Path(folder, "varied-1.0.dist-info")
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: varied\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[pleinair.retriever]\nvaried = retriever:Varied\n", encoding="utf-8"
    )
    sys.path[:0] = [str(info.parent), str(Path(__file__).parent)]
    for seed in (1, 2):
        overrides = {"retrieval.method": "varied", "retrieval.arguments.shared": 2, "budget.attempts": 2}
        result = draw(prompt, seed=seed, overrides=overrides)
        best = result.outcome.best
        for reference in best.request.references if best else ():
            print(f"seed {seed}: {reference.concept} from {reference.hit.id} ({reference.hit.caption})")


if __name__ == "__main__":
    main(*sys.argv[1:])
