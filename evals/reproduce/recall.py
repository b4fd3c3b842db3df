"""Retrieval by Cross-modal RAG's dense stage alone (table 1), and what a query costs (table 3).

The true image of a caption is its own; recall is the share of captions whose image is among the first k of
all images. By the usual protocol each caption of an image is a query; the authors' script takes the longest.
The adaptor scores every image with the query's own sub-queries, as at run time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.app.engines import build_backend, build_encoder
from pleinair.app.libraries import fresh_index
from pleinair.app.paths import places
from pleinair.app.settings import Settings, altered
from pleinair.evals.metrics import interval
from pleinair.evals.reproduce.experiment import Extra, Measured, Options, Setup
from pleinair.evals.reproduce.plan import Line, Sheet, Variant, sheet
from pleinair.evals.reproduce.records import key_of
from pleinair.evals.reproduce.results import LEFT_OUT, Cell
from pleinair.evals.run import show_progress
from pleinair.evals.scores.recall import ranks
from pleinair.tools.crossmodal import ADAPTOR_FILES, list_subqueries
from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.model_files.folders import locate
from pleinair.tools.registry import Kind
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.types import ModelFault, Refused, Usage

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.types import Encoder, Vectors

DATA_SETS = ("coco", "flickr30k")
QUERIES = 50  # that a latency is the median of
_ROWS = {
    "every": "encoder, each caption",
    "longest": "encoder, longest caption",
    "adaptor": "adaptor, longest caption",
}
_ENCODERS = {"vit-l-14": "CLIP ViT-L/14", "so400m-14-siglip-384": "SigLIP SO400M/14@384"}


def recall(settings: Settings) -> Extra:
    """Return the measurement of table 1; `--limit` is the number of images."""
    engines: tuple[Kind, ...] = ("encoder", "mllm") if _adaptor(settings) else ("encoder",)
    return Extra((_recall_sheet(settings),), DATA_SETS, engines, _answers, _measure_recall)


def cost(settings: Settings) -> Extra:
    """Return the measurement of table 3."""
    return Extra((_cost_sheet(settings),), DATA_SETS[:1], ("encoder",), lambda setup: 0, _measure_cost)


def _encoder_row(settings: Settings) -> str:
    label = settings.encoder.label.lower()
    return next((row for part, row in _ENCODERS.items() if part in label), "")


def _recall_sheet(settings: Settings) -> Sheet:
    rows = {"every": _encoder_row(settings), "longest": _encoder_row(settings), "adaptor": "Ours"}
    lines = [
        Line(title, Variant(f"recall-{name}", ""), published={"": rows[name]})
        for name, title in _ROWS.items()
    ]
    return sheet("crossmodal/1", lines)


def test_images(data_set: DataSet, options: Options) -> list[Example]:
    """Return the test images of a data set, of Karpathy's split where it is there."""
    return list(data_set.split("test") or data_set.split("val"))[: options.limit]


def _images(setup: Setup, name: str) -> list[Example]:
    return test_images(setup.data_sets[name], setup.options)


def _adaptor(settings: Settings) -> str:
    return settings.crossmodal.adaptor


def _answers(setup: Setup) -> int:
    """Return the answers that break queries down: only the adaptor needs sub-queries."""
    if not _adaptor(setup.settings):
        return 0
    queries = [query for name in DATA_SETS if name in setup.data_sets for query in _longest(setup, name)]
    return sum(_query_key(setup, text) not in setup.studio.records for _, text in queries)


def _longest(setup: Setup, name: str) -> list[tuple[int, str]]:
    """Return for each image, by its place, its longest caption."""
    return [
        (place, max(each.captions, key=len))
        for place, each in enumerate(_images(setup, name))
        if each.captions
    ]


def _every(setup: Setup, name: str) -> list[tuple[int, str]]:
    return [(place, text) for place, each in enumerate(_images(setup, name)) for text in each.captions]


def _query_key(setup: Setup, text: str) -> str:
    settings = setup.settings
    return key_of(
        "subqueries", settings.mllm.model_dump(mode="json"), settings.crossmodal.decomposition, text
    )


class _Corpus:
    """Images of a data set as a library with its index."""

    def __init__(self, setup: Setup, name: str) -> None:
        from pleinair.tools.retrieval.library import Library

        images, data_set = _images(setup, name), setup.data_sets[name]
        folder = _folder(setup, data_set, images)
        write_library(data_set, images, folder)
        changes = {"library.folder": str(folder), "worker.encoder": False}
        self.settings = altered(setup.settings, changes)
        self.encoder: Encoder = build_encoder(self.settings)
        self.library: Library = Library.open(folder)
        self.ids = [each.path for each in images]
        home = places(self.settings.paths.home)
        index = fresh_index(
            self.settings,
            home,
            self.library,
            self.encoder,
            lambda done, total: show_progress(f"{name}: {done}/{total}"),
        )
        self.vectors: Vectors = np.stack([index.vector(id) for id in self.ids])

    def scorer(self) -> Any:
        """Return the trained adaptor of the settings."""
        from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer

        return open_scorer(_adaptor(self.settings), self.encoder, self.library.picture)


def _folder(setup: Setup, data_set: DataSet, images: Sequence[Example]) -> Path:
    digest = key_of([each.path for each in images])
    return setup.studio.out / "pools" / f"recall-{data_set.layout.name}-{digest}"


def _measure_recall(setup: Setup) -> list[Measured]:
    each = _recall_sheet(setup.settings)
    cells: list[Cell] = []
    by_name: dict[str, dict[str, tuple[list[int], list[str]]]] = {}
    for name in DATA_SETS:
        if name in setup.data_sets:
            by_name[name] = _ranks(setup, name)
    for line in each.lines:
        kind = line.variant.name.removeprefix("recall-")
        for column in each.columns:
            name, _, measure = column.partition(" ")
            cell = Cell(line.title, name, measure, published=each.figure(line, column, ""))
            if name not in by_name or kind not in by_name[name]:
                why = "needs --set crossmodal.adaptor=FOLDER" if name in by_name else LEFT_OUT
                cells.append(replace(cell, why=why))
                continue
            ranks, groups = by_name[name][kind]
            depth = int(measure.partition("@")[2])
            values = [100.0 * (rank < depth) for rank in ranks]
            ends = interval(values, 0, 100, setup.options.seed, groups)
            cells.append(
                replace(
                    cell, mean=sum(values) / len(values), interval=ends, n=len(values), groups=len({*groups})
                )
            )
    return [(each, cells)]


def _ranks(setup: Setup, name: str) -> dict[str, tuple[list[int], list[str]]]:
    """Return for each row the rank of every query's own image, from 0, and the images as groups."""
    corpus = _Corpus(setup, name)
    results = {}
    for kind, queries in (("every", _every(setup, name)), ("longest", _longest(setup, name))):
        found = ranks(corpus.encoder.encode_text, corpus.vectors, [(text, place) for place, text in queries])
        results[kind] = (found.tolist(), [corpus.ids[place] for place, _ in queries])
    if _adaptor(setup.settings):
        queries = _longest(setup, name)
        ranked = [*_by_adaptor(setup, corpus, name, queries)]
        results["adaptor"] = ([rank for rank, _ in ranked], [corpus.ids[place] for _, place in ranked])
    return results


def rank_of(scores: Vectors, place: int) -> int:
    """Return how many other images score at least as high as that of a place."""
    return int((scores >= scores[place]).sum()) - 1


def _by_adaptor(
    setup: Setup, corpus: _Corpus, name: str, queries: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, int]]:
    """Yield the rank and the place of each query's image; without sub-queries its text is the only one."""
    scorer, records = corpus.scorer(), setup.studio.records
    weights = sha256((locate(_adaptor(setup.settings)) / ADAPTOR_FILES[1]).read_bytes()).hexdigest()
    for done, (place, text) in enumerate(queries, start=1):
        subqueries = _subqueries(setup, text) or [text]
        key = key_of("rank", weights, corpus.encoder.id, corpus.ids, place, subqueries)
        entry = records.get(key)
        if entry is None:
            cosines = scorer.score(subqueries, corpus.ids).mean(axis=1)
            entry = records.add(key, arm="recall", rank=rank_of(cosines, place), usage=Usage().model_dump())
            show_progress(f"{name}: query {done}/{len(queries)} by the adaptor")
        yield entry["rank"], place


def _subqueries(setup: Setup, text: str) -> list[str]:
    key = _query_key(setup, text)
    entry = setup.studio.records.get(key)
    if entry is None:
        setup.studio.require_money()
        model = build_backend("mllm", setup.settings.mllm)
        try:
            subqueries, usage = list_subqueries(
                text, model=model, calls=2, decomposition=setup.settings.crossmodal.decomposition
            )
        except (Refused, ModelFault) as error:
            subqueries, usage = [], error.spent
        entry = setup.studio.records.add(
            key, arm="sub-queries", prompt=text, subqueries=subqueries, usage=usage.model_dump()
        )
    return list(entry["subqueries"])


def _cost_sheet(settings: Settings) -> Sheet:
    rows = {
        "encoder": _encoder_row(settings) if "CLIP" in _encoder_row(settings) else "",
        "dense (all)": "dense (all)",
        "dense (adaptor only)": "dense (adaptor only)",
        "sparse (CPU)": "sparse (CPU)",
    }
    lines = [
        Line(name, Variant(f"cost-{name.partition(' ')[0]}", ""), published={"": row})
        for name, row in rows.items()
    ]
    return sheet("crossmodal/3", lines)


def _measure_cost(setup: Setup) -> list[Measured]:
    """Measure a query over all images whose vectors, or features, are there already."""
    each = _cost_sheet(setup.settings)
    if DATA_SETS[0] not in setup.data_sets:
        return []
    figures = _costs(setup, DATA_SETS[0])
    cells = []
    for line in each.lines:
        for column in each.columns:
            name, _, measure = column.partition(" ")
            published, value = each.figure(line, column, ""), figures.get(line.title, {}).get(measure)
            why = (
                ""
                if value is not None
                else "no GPU"
                if measure == "memory"
                else "needs --set crossmodal.adaptor=FOLDER"
            )
            cells.append(
                Cell(
                    line.title,
                    name,
                    measure,
                    mean=value,
                    n=QUERIES if value else 0,
                    published=published,
                    why=why,
                )
            )
    return [(each, cells)]


def _costs(setup: Setup, name: str) -> dict[str, dict[str, float]]:
    corpus = _Corpus(setup, name)
    texts = [text for _, text in _longest(setup, name)][:QUERIES]
    captions = ["\n".join(each.captions) for each in _images(setup, name)]
    encode = corpus.encoder.encode_text
    new = [f"{text} " for text in texts]  # the same tokens, but no text whose vector is cached
    figures = {
        "encoder": _cost_of(new, lambda text: encode([text]) @ corpus.vectors.T, corpus.encoder),
        "sparse (CPU)": _cost_of(texts, lambda text: satisfaction(captions, [text])) | {"memory": 0.0},
    }
    if _adaptor(setup.settings):
        scorer = corpus.scorer()
        scorer.score(texts[:1], corpus.ids)  # reads the features of all images once
        new = [f"{text} " for text in new]
        figures["dense (all)"] = _cost_of(
            new, lambda text: scorer.score([text], corpus.ids), corpus.encoder, scorer
        )
        for text in texts:  # the encoder caches the vectors of texts
            encode([text])
        figures["dense (adaptor only)"] = _cost_of(
            texts, lambda text: scorer.score([text], corpus.ids), scorer
        )
    return figures


def _cost_of(texts: Sequence[str], run: Callable[[str], object], *parts: object) -> dict[str, float]:
    """Return millions of parameters, the median latency in ms, and MB of GPU memory where there is one."""
    import torch

    if has_gpu := torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for text in texts:
        started = time.perf_counter()
        run(text)
        seconds.append(time.perf_counter() - started)
    figures = {"parameters": sum(map(_parameters, parts)) / 1e6, "latency": 1000 * median(seconds)}
    return figures | ({"memory": torch.cuda.max_memory_allocated() / 1e6} if has_gpu else {})


def _parameters(part: object) -> int:
    """Return the parameters of the networks that an object holds itself."""
    import torch

    networks = [value for value in vars(part).values() if isinstance(value, torch.nn.Module)]
    return sum(weight.numel() for network in networks for weight in network.parameters())
