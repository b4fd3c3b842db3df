"""Cross-modal RAG's experiments (Zhu et al. 2025, arXiv v2): tables 1 to 4 and figure 4.

Ours where the paper says nothing: seeds; the captions of a pool (title and artist; species and Reed's
captions; class); which of two nearly equal titles or captions is the query (the first); a row without
retrieval, which tells what retrieval adds to the generator. The Pareto set is found exactly, which gives the
same images as the published algorithm on a grid that is fine enough.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice

from pleinair.app.settings import Settings
from pleinair.evals.metrics import interval
from pleinair.evals.reproduce.experiment import Experiment, Extra, Options, Setup
from pleinair.evals.reproduce.generate import Work
from pleinair.evals.reproduce.plan import DOMAIN, Line, Queries, Sheet, Subject, Variant, sheet
from pleinair.evals.reproduce.recall import cost, recall, test_images
from pleinair.evals.reproduce.results import Measures
from pleinair.evals.scores.items import Score
from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction, words
from pleinair.tools.retrieval.lexical import score_captions
from pleinair.tools.types import Hit

WIKIART, CUB, IMAGENET_LT = "wikiart", "cub", "imagenet_lt"
TITLE_TOKENS = 3  # by which two titles of an artist differ at most
COVERAGE = "coverage"
DEPTHS = (1, 2, 3)  # of BM25 in figure 4
GENERATORS = {"gpt-image-1": ("gpt-image-1",)}
MEASURES: Measures = {
    "CLIP": (("CLIP-I",), 1),
    "DINO": (("DINOv2", "DINO"), 1),
    "SigLIP": (("SigLIP-I",), 1),
    "Style": (("style loss",), 1),
    "coverage": ((COVERAGE,), 1),
    **{f"BM25 top-{depth}": ((f"BM25 top-{depth}",), 1) for depth in DEPTHS},
}
_Key = tuple[str, tuple[str, ...]]  # what two captions have in common
_PUBLISHED = {"crossmodal.scored": "all"}  # S over all sub-queries, whatever a profile prefers


def sheets(settings: Settings, options: Options) -> list[Sheet]:
    """Return the tables of images, and figure 4 as one."""
    plain = Line("without retrieval (ours)", Variant("no-rag", "crossmodal", {"crossmodal.rag": False}))
    ours = Variant("crossmodal", "crossmodal", _PUBLISHED)
    bare = Variant("no-dense", "crossmodal", _PUBLISHED | {"crossmodal.dense": False})
    line = Line("Cross-modal RAG", ours, DOMAIN, {"gpt-image-1": "Ours"})
    measures = (COVERAGE, *(f"BM25 top-{depth}" for depth in DEPTHS))
    coverage = tuple(f"{name} {measure}" for name in (WIKIART, CUB) for measure in measures)
    return [
        sheet("crossmodal/2", (plain, line)),
        sheet(
            "crossmodal/4",
            (line, Line("without the dense stage", bare, DOMAIN, {"gpt-image-1": "w/o dense"})),
        ),
        Sheet(
            "crossmodal/F4",
            "Share of the sub-queries in the captions of what is retrieved",
            coverage,
            (line,),
        ),
    ]


def extras(settings: Settings, options: Options) -> Sequence[Extra]:
    """Return retrieval by the dense stage alone, and its cost."""
    return (recall(settings), cost(settings))


def query_test(data_set: DataSet, options: Options) -> Queries:
    """Return the queries of a data set as table 5 constructs them, and its pool."""
    builders = {WIKIART: _wikiart, CUB: _cub, IMAGENET_LT: _imagenet_lt}
    if build := builders.get(data_set.layout.name):
        return build(data_set, options)
    return Queries((), (), f"{len(test_images(data_set, options)):,} images")


def _wikiart(data_set: DataSet, options: Options) -> Queries:
    """Return of each two nearly equal titles of an artist the first as a query; all others are the pool."""
    by_artist: dict[str, list[Example]] = defaultdict(list)
    for example in data_set.examples:
        if example.facts.get("title") and example.facts.get("artist"):
            by_artist[example.facts["artist"]].append(example)
    chosen = dict(islice(by_artist.items(), options.limit))
    queries = [example for paintings in chosen.values() for example in _near_titles(paintings)]
    pairs = ((f"{each.facts['title']} in the style of {each.facts['artist']}", each) for each in queries)
    subjects = _subjects(data_set, ((prompt, each.facts["artist"], each) for prompt, each in pairs), options)
    paths = {each.path for each in queries}
    pool = tuple(each for paintings in chosen.values() for each in paintings if each.path not in paths)
    return Queries(
        subjects, pool, f"{len(queries):,} queries of {len(chosen):,} artists, {len(pool):,} others"
    )


def _near_titles(paintings: Sequence[Example]) -> Iterator[Example]:
    """Yield the first of each pair of titles that share a word and differ by few; both count no more."""
    titles = [Counter(words(each.facts["title"])) for each in paintings]
    by_word: dict[str, list[int]] = defaultdict(list)
    used: set[int] = set()
    for place, title in enumerate(titles):
        for word in title:
            by_word[word].append(place)
    for place, title in enumerate(titles):
        others = sorted({other for word in title for other in by_word[word] if other > place} - used)
        for other in others if place not in used else ():
            difference = (title - titles[other]).total() + (titles[other] - title).total()
            if 0 < difference <= TITLE_TOKENS:
                used |= {place, other}
                yield paintings[place]
                break


def _cub(data_set: DataSet, options: Options) -> Queries:
    """Return every image with a caption that differs by one token from another image's of its species."""
    species = data_set.classes(limit=options.limit)
    queries = [
        (f"Draw a {name}. {caption}", name, example)
        for name, birds in species
        for example, caption in _near_captions(birds)
    ]
    subjects = _subjects(data_set, queries, options, leave_out=True)
    pool = tuple(
        replace(example, captions=(name, *example.captions)) for name, birds in species for example in birds
    )
    return Queries(
        subjects,
        pool,
        f"{len(queries):,} queries of {len(species)} species, {len(pool):,} in the pool but one",
    )


def _near_captions(birds: Sequence[Example]) -> Iterator[tuple[Example, str]]:
    """Yield each image with its first caption that differs by one token at most from another image's."""
    split = [(place, text, tuple(words(text))) for place, bird in enumerate(birds) for text in bird.captions]
    owners: dict[_Key, set[int]] = defaultdict(set)
    for place, _, tokens in split:
        for key in ("all", tokens), *(("less", rest) for _, rest in _shortened(tokens)), *_masked(tokens):
            owners[key].add(place)
    done: set[int] = set()
    for place, text, tokens in split:
        keys = (
            ("all", tokens),  # the same
            ("less", tokens),  # of one that has a token more
            *(("all", rest) for _, rest in _shortened(tokens)),
            *_masked(tokens),
        )
        if place not in done and any(owners.get(key, set()) - {place} for key in keys):
            done.add(place)
            yield birds[place], text


def _shortened(tokens: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield each place with the tokens without that one."""
    for place in range(len(tokens)):
        yield place, tokens[:place] + tokens[place + 1 :]


def _masked(tokens: tuple[str, ...]) -> Iterator[_Key]:
    """Yield keys that captions share which differ in the token of one place."""
    return ((f"changed {place}", rest) for place, rest in _shortened(tokens))


def _imagenet_lt(data_set: DataSet, options: Options) -> Queries:
    """Return the first image of each class of the balanced split as a query; the others are the pool."""
    classes = data_set.classes("test", limit=options.limit) or data_set.classes(limit=options.limit)
    queries = [(f"A photo of {name}", name, images[0]) for name, images in classes]
    pool = tuple(example for _, images in classes for example in images[1:])
    return Queries(
        _subjects(data_set, queries, options), pool, f"{len(queries):,} classes, {len(pool):,} in the pool"
    )


def _subjects(
    data_set: DataSet, queries: Iterable[tuple[str, str, Example]], options: Options, leave_out: bool = False
) -> tuple[Subject, ...]:
    """Return each query as often as there are images of it, with its own image to compare with."""
    return tuple(
        Subject(
            prompt,
            group,
            options.seed + 1000 * place + number,
            (data_set.file(example),),
            example.path if leave_out else "",
        )
        for place, (prompt, group, example) in enumerate(queries)
        for number in range(options.images or 1)
    )


def coverage_scores(setup: Setup, work: Work) -> dict[str, Score]:
    """Return the share of sub-queries that the Pareto set covers, and that of BM25's first captions."""
    if work.arm.variant != "crossmodal" or work.arm.data_set not in (WIKIART, CUB):
        return {}
    titles = (COVERAGE, *(f"BM25 top-{depth}" for depth in DEPTHS))
    values: dict[str, list[float]] = {title: [] for title in titles}
    groups: list[str] = []
    for subject, entry in setup.studio.entries(work):
        subqueries, joint = entry["queries"], entry["joint"]
        if not (joint and subqueries):
            continue
        groups.append(subject.group)
        served = {name for member in joint["members"] for name in member["satisfied"]}
        values[COVERAGE].append(len(served & {*subqueries}) / len(subqueries))
        for depth in DEPTHS:
            values[f"BM25 top-{depth}"].append(_share_by_words(setup, work, subject, subqueries, depth))
    seed = setup.options.seed
    return {title: _score(title, shares, groups, seed) for title, shares in values.items() if shares}


def _score(title: str, shares: Sequence[float], groups: Sequence[str], seed: int) -> Score:
    ends = interval(shares, 0, 1, seed, groups)
    return Score(title, title, sum(shares) / len(shares), ends, len(shares), tuple(shares))


def _share_by_words(
    setup: Setup, work: Work, subject: Subject, subqueries: Sequence[str], depth: int
) -> float:
    """Return the share of sub-queries in the captions of the first `depth` images by BM25 of the prompt."""
    entries = _captions(setup.tests[work.arm.data_set].pool)
    scores = score_captions(entries, subject.prompt)
    ranked = sorted(range(len(entries)), key=lambda row: -scores[row])
    first = [entries[row].caption for row in ranked[: depth + 1] if entries[row].id != subject.left_out][
        :depth
    ]
    vectors = satisfaction(first, subqueries)
    return sum(map(any, zip(*vectors, strict=True))) / len(subqueries)


@cache
def _captions(pool: tuple[Example, ...]) -> tuple[Hit, ...]:
    return tuple(
        Hit(id=each.path, score=0, caption="\n".join(each.captions or (each.class_name,))) for each in pool
    )


EXPERIMENT = Experiment(
    paper="crossmodal",
    title="Cross-modal RAG",
    sheets=sheets,
    test=query_test,
    measures=MEASURES,
    scorers={
        "clip:ViT-L-14=openai": "timm/vit_large_patch14_clip_224.openai, 1.7 GB; license: Apache-2.0",
        "siglip:ViT-SO400M-14-SigLIP-384=webli": "timm/ViT-SO400M-14-SigLIP-384, 3.5 GB; license: Apache-2.0",
        "dinov2:FOLDER": "facebook/dinov2-large, 1.2 GB; license: Apache-2.0",
        "style:WEIGHTS.pth": "torchvision's vgg19-dcbb9e9d.pth, 575 MB; license: BSD-3-Clause",
    },
    generators=GENERATORS,
    numbers=("1", "2", "3", "4", "F4"),
    extras=extras,
    own_scores=coverage_scores,
)
