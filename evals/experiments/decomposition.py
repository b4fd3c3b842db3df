"""Measure how often the sparse stage of Cross-modal RAG lets the image that a caption describes through.

Each image has two captions: one is the library's, the other the query. `evals/data/photo_captions.jsonl` has
66 such pairs, written by ourselves in the style of photo captions, with the query's sub-queries by the
published rule (objects without number and state, what a person wears apart) and in whole phrases (our other
style). With `--mllm` a profile's MLLM lists the sub-queries too, in both styles; with `--library`, which
needs it, the pairs are those of a library whose images have several captions: the first is the query. Not
covered: other captioners' wordings, and how far the shares of a real collection are from these.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pleinair.evals.metrics import interval, interval_of_share
from pleinair.evals.report import percent, table
from pleinair.evals.run import show_progress
from pleinair.tools.crossmodal import DECOMPOSITIONS, Decomposition, list_subqueries
from pleinair.tools.retrieval.crossmodal.sparse import needle, satisfaction
from pleinair.tools.types import BadInput, ModelFault, PleinairError, Refused

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

CAPTIONS = Path(__file__).parents[1] / "data" / "photo_captions.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two captions of an image, and the query's sub-queries by style, where a person wrote them."""

    caption: str  # the library's
    query: str
    gold: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Passed:
    """What the sparse stage lets through for one query; all False without a sub-query."""

    own: bool  # the image that the query describes
    images: int
    literal: float  # share of the sub-queries that stand in the query; 0 without one

    @property
    def nothing(self) -> bool:
        """Return whether no image is let through, so that only looks are left."""
        return not self.images


def read_pairs(path: Path = CAPTIONS) -> list[Pair]:
    """Read pairs with gold sub-queries, a JSON object a line."""
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return [
        Pair(line["caption"], line["query"], {style: tuple(line[style]) for style in DECOMPOSITIONS})
        for line in lines
    ]


def pairs_of(captions: Sequence[str]) -> list[Pair]:
    """Split images' captions, one a line: the first is the query, the others are the library's.

    Raises:
        BadInput: fewer than two images have several captions.
    """
    lines = [[line for line in caption.splitlines() if line.strip()] for caption in captions]
    pairs = [Pair("\n".join(rest), first, {}) for first, *rest in filter(None, lines) if rest]
    if len(pairs) < 2:
        raise BadInput(
            f"{len(pairs)} images have several captions; accepted: 2 or more.",
            "Give an image several lines or a list of captions in the library's table (docs/library.md).",
        )
    return pairs


def measure(pairs: Sequence[Pair], subqueries: Sequence[Sequence[str]]) -> list[Passed]:
    """Match each query's sub-queries with the captions of all pairs."""
    captions = [pair.caption for pair in pairs]
    return [
        _measure(number, pair.query, captions, names)
        for number, (pair, names) in enumerate(zip(pairs, subqueries, strict=True))
    ]


def _measure(number: int, query: str, captions: Sequence[str], names: Sequence[str]) -> Passed:
    if not names:
        return Passed(own=False, images=0, literal=0.0)
    passed = [any(flags) for flags in satisfaction(captions, names)]
    (literal,) = satisfaction([query], names)
    return Passed(own=passed[number], images=sum(passed), literal=sum(literal) / len(literal))


def agreement(gold: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> float:
    """Return the mean overlap |A ∩ G| / |A ∪ G| of the sub-queries of each query, by the match rule."""
    overlaps = []
    for expected, answer in zip(gold, answers, strict=True):
        a, b = {needle(name) for name in expected}, {needle(name) for name in answer}
        overlaps.append(len(a & b) / len(a | b))
    return sum(overlaps) / len(overlaps)


def ask_all(pairs: Sequence[Pair], model: BaseChatModel, style: Decomposition) -> list[tuple[str, ...]]:
    """List every query's sub-queries by the model, two calls at most each; none if it declines or fails."""
    answers = []
    for number, pair in enumerate(pairs, 1):
        show_progress(f"{style}: {number} of {len(pairs)} queries")
        try:
            names, _ = list_subqueries(pair.query, model=model, calls=2, decomposition=style)
        except (Refused, ModelFault):
            names = []
        answers.append(tuple(names))
    return answers


def _row(by: str, style: str, passed: Sequence[Passed], agreed: float | None) -> dict[str, object]:
    own, nothing = sum(result.own for result in passed), sum(result.nothing for result in passed)
    return {
        "sub-queries": f"{style}, by {by}",
        "own image let through": percent(own / len(passed), interval_of_share(own, len(passed))),
        "nothing let through": percent(nothing / len(passed), interval_of_share(nothing, len(passed))),
        "images let through, median": median(result.images for result in passed),
        "stand in the query": f"{sum(result.literal for result in passed) / len(passed):.3f}",
        "agree with gold": "–" if agreed is None else f"{agreed:.3f}",
        "n": len(passed),
    }


def report(pairs: Sequence[Pair], model: BaseChatModel | None, by: str = "") -> Iterator[str]:
    """Yield a table with a row for each source of sub-queries, and the gain of the published style."""
    rows, own = [], {}
    for style in DECOMPOSITIONS:
        gold = [pair.gold.get(style, ()) for pair in pairs]
        sources = {"gold": gold} if all(gold) else {}
        if model is not None:
            sources[by] = ask_all(pairs, model, style)
        for source, names in sources.items():
            passed = measure(pairs, names)
            agreed = agreement(gold, names) if source != "gold" and all(gold) else None
            rows.append(_row(source, style, passed, agreed))
            own[source, style] = [float(result.own) for result in passed]
    yield from table(iter(rows))
    for source in dict.fromkeys(source for source, _ in own):
        pairs_of_hits = zip(own[source, "published"], own[source, "whole_phrases"], strict=True)
        gains = [a - b for a, b in pairs_of_hits]
        yield (
            f"own image let through, published − whole phrases, by {source}: "
            f"{percent(sum(gains) / len(gains), interval(gains, -1, 1))}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 for an error that the user can act on."""
    name = "python -m pleinair.evals.experiments.decomposition"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--mllm", default="", metavar="PROFILE", help="whose MLLM lists the sub-queries too")
    parser.add_argument("--library", default="", metavar="FOLDER", help="of images with several captions")
    parser.add_argument("--count", type=int, default=200, help="images of the library at most (200)")
    options = parser.parse_args(arguments)
    try:
        model = _open_model(options.mllm)
        if options.library and model is None:
            raise BadInput("--library without --mllm: its captions have no sub-queries written by a person")
        pairs = _library_pairs(options.library, options.count) if options.library else read_pairs()
        for line in report(pairs, model, options.mllm):
            print(line)
    except PleinairError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _open_model(profile: str) -> BaseChatModel | None:
    if not profile:
        return None
    from pleinair.app.engines import build_backend
    from pleinair.app.settings import load

    model: BaseChatModel = build_backend("mllm", load(profile).mllm)
    return model


def _library_pairs(folder: str, count: int) -> list[Pair]:
    from pleinair.tools.retrieval.library import Library

    items = Library.open(folder).items.values()
    return pairs_of([item.caption for item in items])[:count]


if __name__ == "__main__":
    sys.exit(main())
