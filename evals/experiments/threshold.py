"""Compare thresholds of retrieval on unknown concepts: `python -m pleinair.evals.experiments.threshold`.

By vectors, in the pocket library: a concept is known with all images, and unknown in the library without its
own. Other unknown concepts are the class names of COCO and ImageNet, without the words of the pocket world;
torchvision lists them. Thresholds are calibrated by captions alone. Half of the species and COCO's names are
for the choice of a statistic, the other half and ImageNet's for the report.

By captions, with `--openmoji openmoji.json` of the npm package `openmoji`: queries are names and tags of
drawings, which are unknown once all drawings with their words are removed. Not covered: photographs,
published encoders, and synonyms.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from pleinair.evals.metrics import interval
from pleinair.tools.pocket.catalogue.captions import describe
from pleinair.tools.pocket.catalogue.library import shown_species, write_library
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.retrieval import caption_index
from pleinair.tools.retrieval.calibrate import calibrate, choose, scores_of
from pleinair.tools.retrieval.caption_index import CaptionIndex, words
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.threshold import sample_of
from pleinair.tools.types import Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

    Flags = NDArray[np.bool_]

Usual = Callable[["Vectors", "Vectors"], float]  # of a sample and a query, what is subtracted from a cosine


def _share_of(share: float, statistic: Callable[[Any], Any]) -> Usual:
    return lambda sample, query: share * float(statistic(sample @ query[0]))


_STATISTICS: dict[str, Callable[[Any], Any]] = {
    "mean": np.mean,
    "median": np.median,
    "mean + deviation": lambda scores: np.mean(scores) + np.std(scores),
}
STATISTICS: dict[str, Usual] = {
    "flat": lambda sample, query: 0.0,
    **{
        f"{share} of {name}": _share_of(share, statistic)
        for share in (0.25, 0.5, 1.0)
        for name, statistic in _STATISTICS.items()
    },
}
FLAT = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)  # cosines
PREVALENCES = (0.05, 0.1, 0.3, 0.6)  # of one concept in a library
LOOKS = {s.name: describe(random.Random(s.name), s).words for s in SPECIES}
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the words' weight


class Pocket:
    """Dense retriever of the pocket library in memory, with the species that each image shows."""

    def __init__(self, folder: Path, seed: int) -> None:
        write_library(folder, seed=seed)
        library, shown = Library.open(folder), shown_species(seed=seed)
        self.encoder = OpenClipEncoder(model="local-dir:pocket/catalogue/encoder", device="cpu")
        ids = list(library.items)
        batches = [ids[start : start + 64] for start in range(0, len(ids), 64)]
        rows = [self.encoder.encode_images([library.picture(id) for id in batch]) for batch in batches]
        self.vectors: Vectors = np.concatenate(rows)
        self.shows = {
            species.name: np.array([species.name in shown[id] for id in ids]) for species in SPECIES
        }
        self.names = {species.name: self.encoder.encode_text([species.name]) for species in SPECIES}
        self._hits = [library.items[id].hit() for id in ids]
        self._rows = {id: row for row, id in enumerate(ids)}

    def part(self, chosen: Flags) -> Pocket:
        """Return the library of some of the images."""
        part = copy.copy(self)
        part.vectors, part._hits = self.vectors[chosen], list(compress(self._hits, chosen))
        part._rows = {hit.id: row for row, hit in enumerate(part._hits)}
        part.shows = {name: shows[chosen] for name, shows in self.shows.items()}
        return part

    def search(self, query: str, k: int) -> list[Hit]:
        """Return the best `k` images."""
        scores = self.vectors @ self.encoder.encode_text([query])[0]
        order = np.argsort(-scores, kind="stable")[:k]
        return [self._hits[row].model_copy(update={"score": float(scores[row])}) for row in order]

    def entries(self) -> list[Hit]:
        """List the images."""
        return self._hits

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts."""
        return self.encoder.encode_text(texts)

    def vector(self, id: str) -> Vectors:
        """Return an image's vector."""
        row: Vectors = self.vectors[self._rows[id]]
        return row

    def open(self, id: str) -> Image:
        """Refuse: only vectors are compared."""
        raise NotImplementedError


class Decisions:
    """Queries with the best cosine, the concept and the kind of each."""

    def __init__(self) -> None:
        self.queries: list[Vectors] = []
        self.best: list[float] = []
        self.concepts: list[str] = []
        self.kinds: list[str] = []

    def add(self, kind: str, concept: str, query: Vectors, vectors: Vectors) -> None:
        """Add a query, [1, dim], of a library."""
        self.queries.append(query)
        self.best.append(float((vectors @ query[0]).max()))
        self.concepts.append(concept)
        self.kinds.append(kind)

    def abstains(self, usual: Usual, sample: Vectors, margin: float) -> Flags:
        """Return for each query whether it is under its threshold."""
        shares = np.array([usual(sample, query) for query in self.queries])
        under: Flags = np.asarray(self.best) - shares < margin
        return under


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the pocket library and of samples (1)")
    parser.add_argument("--openmoji", type=Path, help="data/openmoji.json of the npm package openmoji")
    parser.add_argument("--queries", type=int, default=600, help="names, and tags, of openmoji (600)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        pocket = Pocket(Path(folder) / "library", options.seed)
    _by_name(pocket)
    _by_vectors(pocket)
    _by_prevalence(pocket, options.seed)
    if options.openmoji:
        by_captions(json.loads(options.openmoji.read_text("utf-8")), options.queries, options.seed)


def _by_name(pocket: Pocket) -> None:
    """Print the shares of names that flat thresholds keep; only those that the library shows should be."""
    best = defaultdict[str, list[float]](list)
    for name, query in pocket.names.items():
        cosines, shows = pocket.vectors @ query[0], pocket.shows[name]
        best["in the library" if shows.any() else "novel"].append(float(cosines.max()))
        if shows.any():
            best["left out"].append(float(cosines[~shows].max()))
    for name in chain.from_iterable(map(_foreign_names, (0, 1))):
        best["foreign"].append(float((pocket.vectors @ pocket.encoder.encode_text([name])[0]).max()))
    for kind, scores in best.items():
        shares = ", ".join(f"{flat}: {np.mean(np.array(scores) >= flat):.3f}" for flat in FLAT)
        print(
            f"{len(scores)} names {kind}, least {min(scores):.3f}, most {max(scores):.3f}; kept from {shares}"
        )


def _by_vectors(pocket: Pocket) -> None:
    """Print the statistics on the first half, then the flat and the shipped threshold on the other."""
    sample = sample_of(pocket)
    calibration = calibrate(pocket, sample)
    queries, own, unrelated = scores_of(pocket)
    halves = [_decisions(pocket, half) for half in (0, 1)]
    print(f"{calibration.captions} captions; flat {calibration.flat}; relative {calibration.relative}")
    for name, usual in STATISTICS.items():
        shares = np.array([usual(sample, query) for query in queries])
        margin = choose((own - shares).tolist(), (unrelated - shares).tolist()).threshold
        for half, decisions in enumerate(halves):
            abstains, kinds = decisions.abstains(usual, sample, margin), np.array(decisions.kinds)
            rates = {kind: abstains[kinds == kind].mean() for kind in dict.fromkeys(decisions.kinds)}
            known, unknown = rates.pop("known"), float(np.mean(list(rates.values())))
            figures = ", ".join(f"{kind} {rate:.3f}" for kind, rate in rates.items())
            title = "choice" if half == 0 else "report"
            print(f"{title} {name}: margin {margin:.3f}, abstains on known {known:.3f}, {figures}", end="; ")
            print(f"balanced {(1 - known + unknown) / 2:.4f}, AUC {_auc(decisions, usual, sample):.4f}")
    _report(halves[1], sample, calibration.flat.threshold, calibration.relative.threshold)


def _by_prevalence(pocket: Pocket, seed: int) -> None:
    """Print how often a concept is accepted that much of a library shows, for every eighth species.

    Each library has all images of one species and as many others as make it that share; thresholds are
    calibrated by its own captions.
    """
    chance = np.random.default_rng(seed)
    for share in PREVALENCES:
        accepted, others = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list)
        for species in list(filter(lambda species: pocket.shows[species.name].any(), SPECIES))[::8]:
            own, rest = (np.flatnonzero(pocket.shows[species.name] == shown) for shown in (True, False))
            count = min(len(rest), int(len(own) / share) - len(own))
            chosen = np.zeros(len(pocket.vectors), bool)
            chosen[[*own, *chance.choice(rest, count, replace=False)]] = True
            part = pocket.part(chosen)
            sample, (queries, best, unrelated) = sample_of(part), scores_of(part)
            for name, usual in STATISTICS.items():
                shares = np.array([usual(sample, query) for query in queries])
                margin = choose((best - shares).tolist(), (unrelated - shares).tolist()).threshold
                for each in SPECIES:
                    if part.shows[each.name].any():
                        decisions = Decisions()
                        decisions.add("known", each.name, part.names[each.name], part.vectors)
                        is_kept = not decisions.abstains(usual, sample, margin)[0]
                        (accepted if each is species else others)[name].append(is_kept)
        for name in STATISTICS:
            figures = f"{sum(accepted[name])} of {len(accepted[name])}, others {np.mean(others[name]):.3f}"
            print(f"a concept of {share:.0%} of the images, {name}: accepted {figures}")


def _decisions(pocket: Pocket, half: int) -> Decisions:
    decisions, encode = Decisions(), pocket.encoder.encode_text
    for number, species in enumerate(SPECIES):
        if number // 2 % 2 != half:
            continue
        shows = pocket.shows[species.name]
        for text in (species.name, LOOKS[species.name]):
            query = encode([text])
            if shows.any():
                decisions.add("known", species.name, query, pocket.vectors)
            if shows.any() or text == species.name:
                decisions.add("left out", species.name, query, pocket.vectors[~shows])
    for name in _foreign_names(half):
        decisions.add("foreign", name, encode([name]), pocket.vectors)
    return decisions


def _foreign_names(half: int) -> list[str]:
    """Return the class names of COCO, or of ImageNet, that share no word with the pocket world."""
    from torchvision.models._meta import _COCO_CATEGORIES, _IMAGENET_CATEGORIES

    ours = set(words(" ".join(f"{name} {look}" for name, look in LOOKS.items())))
    coco = [name for name in _COCO_CATEGORIES if name not in ("__background__", "N/A")]
    names = [name for name in _IMAGENET_CATEGORIES if name.lower() not in coco] if half else coco
    return [name for name in names if ours.isdisjoint(words(name))]


def _auc(decisions: Decisions, usual: Usual, sample: Vectors) -> float:
    from scipy.stats import mannwhitneyu

    shares = np.array([usual(sample, query) for query in decisions.queries])
    scores, known = np.asarray(decisions.best) - shares, np.array(decisions.kinds) == "known"
    return float(mannwhitneyu(scores[known], scores[~known]).statistic / known.sum() / (~known).sum())


def _report(decisions: Decisions, sample: Vectors, flat: float, margin: float) -> None:
    """Print precision and recall of abstaining with intervals over concepts, foreign ones apart and all."""
    from pleinair.tools.retrieval.threshold import SHARE

    kinds, concepts = np.array(decisions.kinds), np.array(decisions.concepts)
    cases = {
        "flat": decisions.abstains(STATISTICS["flat"], sample, flat),
        "relative": decisions.abstains(STATISTICS[f"{SHARE} of mean"], sample, margin),
    }
    for unknown in (("left out",), ("foreign",), ("left out", "foreign")):
        counted = np.isin(kinds, ("known", *unknown))
        for name, abstains in cases.items():
            chosen, present = abstains & counted, np.isin(kinds, unknown)
            print(" + ".join(unknown), name, end=": ")
            print("precision", _estimate(present[chosen], concepts[chosen]), end=", ")
            print("recall", _estimate(abstains[present], concepts[present]))
        gain = cases["relative"].astype(float) - cases["flat"]
        present = np.isin(kinds, unknown)
        print(" ", "recall gained", _estimate(gain[present], concepts[present], -1))
    known = kinds == "known"
    gain = cases["relative"].astype(float) - cases["flat"]
    print("known concepts lost more", _estimate(gain[known], concepts[known], -1))


def _estimate(values: NDArray[Any], groups: NDArray[Any], low: float = 0.0) -> str:
    numbers = values.astype(float).tolist()
    ends = interval(numbers, low, 1.0, groups=groups.tolist())
    return f"{np.mean(numbers):.3f} [{ends[0]:.3f}, {ends[1]:.3f}] (n {len(numbers)})" if ends else "-"


def by_captions(drawings: Sequence[dict[str, str]], count: int, seed: int) -> None:
    """Print precision and recall of abstaining by shares of the words' weight, in halves of the queries."""
    drawings = [drawing for drawing in drawings if not drawing["skintone"]]
    names = [drawing["annotation"] for drawing in drawings]
    tags = [", ".join(_tags(drawing)) for drawing in drawings]
    meant = [frozenset(words(f"{name} {tag}")) for name, tag in zip(names, tags, strict=True)]
    chance = random.Random(seed)
    asked = {
        "name": chance.sample(sorted({name for name in names if words(name)}), count),
        "tag": chance.sample(sorted({tag for each in drawings for tag in _tags(each) if words(tag)}), count),
    }
    both = [[name, tag] if tag else [name] for name, tag in zip(names, tags, strict=True)]
    cases = {
        "name, by names and tags": (asked["name"], both),
        "tag, by names and tags": (asked["tag"], both),
        "name, by tags": (asked["name"], [[tag] for tag in tags]),
        "tag, by names": (asked["tag"], [[name] for name in names]),
    }
    for title, (queries, captions) in cases.items():
        for share in SHARES:
            halves = [_by_rule(queries[half::2], captions, meant, share) for half in (0, 1)]
            print(f"{title}, share {share}: choice {halves[0]}; report {halves[1]}")


def _tags(drawing: dict[str, str]) -> list[str]:
    tags = f"{drawing['tags']},{drawing['openmoji_tags']}".split(",")
    return list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))


def _by_rule(
    queries: Sequence[str], captions: Sequence[list[str]], meant: Sequence[frozenset[str]], share: float
) -> str:
    """Return how often the rule abstains on known and on unknown queries.

    A query is unknown without the drawings that have all of its words, and `generic` are the unknown queries
    of which a remaining caption has words only: "umbrella" for "closed umbrella".
    """
    texts = [[words(line) for line in lines] for lines in captions]
    rows = defaultdict(set)
    for row, lines in enumerate(texts):
        for word in chain.from_iterable(lines):
            rows[word].add(row)
    known, unknown, generic = list[bool](), list[bool](), list[bool]()
    with patch.object(caption_index, "_SHARE", share - 1e-9):
        for query in queries:
            terms = frozenset(words(query))
            present = {row for row, every in enumerate(meant) if terms <= every}
            near = set[int]().union(*(rows[word] for word in terms))
            for removed, decisions in ((set[int](), known), (present, unknown)):
                index = _Left.of([lines for row, lines in enumerate(texts) if row not in removed])
                nearest = ("\n".join(captions[row]) for row in near - removed)
                decisions.append(not any(index.is_match(caption, query) for caption in nearest))
            left = chain.from_iterable(texts[row] for row in near - present)
            generic.append(any(line and set(line) <= terms for line in left))
    abstained = [True] * sum(unknown) + [False] * sum(known)
    strict = [wrong for wrong, is_generic in zip(unknown, generic, strict=True) if not is_generic]
    figures = {"precision": abstained, "recall": unknown, "recall without generic": strict}
    line = ", ".join(
        f"{name} {_estimate(np.array(values), np.arange(len(values)))}" for name, values in figures.items()
    )
    return f"{line}, known kept {1 - np.mean(known):.3f}"


@dataclass(frozen=True)
class _Left(CaptionIndex):
    """Counts of the words of captions, without the scores of BM25."""

    counts: Counter[str]

    @classmethod
    def of(cls, texts: Sequence[list[list[str]]]) -> _Left:
        lines = list(chain.from_iterable(texts))
        counts = Counter(word for line in lines for word in set(line))
        return cls(np.zeros(0, np.int64), len(lines), None, counts)

    def _count(self, term: str) -> int:
        return self.counts[term]


if __name__ == "__main__":
    main()
