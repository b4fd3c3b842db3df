"""List what is measured for each paper's claims: one task a column, a case and a seed.

A seed has prompts, noise and libraries of its own; within it all columns have the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pleinair.evals.papers.bench import Bench, Measures, Shelf
from pleinair.evals.papers.cases import RARE, SOUGHT, bunches, in_turn
from pleinair.evals.papers.harder import bound, compared, over_shelves, worded
from pleinair.evals.papers.tasks import SIZE, Task, drawn, first_is_right
from pleinair.graphs import crossmodal, direct, imagerag
from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.pocket.world import Species
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer
from pleinair.tools.retrieval.crossmodal.joint import retrieve_jointly
from pleinair.tools.retrieval.lexical import Lexical

MOST = 4  # sub-queries of a group that only look-ups are measured for

MODES: dict[str, dict[str, Any]] = {
    "rephrase": {"rephrase_only": True},
    "prompt": {"retrieve_by": "prompt"},
    "concepts": {"retrieve_by": "concepts"},
    "captions": {},
}
RERANKERS: dict[str, dict[str, Any]] = {
    "none": {},
    "bm25": {"rerank": "bm25"},
    "mllm": {},
    "hybrid": {"method": "hybrid"},
}
STAGES: dict[str, dict[str, Any]] = {
    "all": {},
    "S over all": {"scored": "all"},
    "no RAG": {"rag": False},
    "no sparse": {"sparse": False},
    "no dense": {"dense": False},
    "no Pareto": {"pareto": "top_k"},
    "instruction": {"template": "use_only"},
}


def tasks(bench: Bench, section: str, seed: int, prompts: int, pools: tuple[int, ...]) -> Iterator[Task]:
    """List a section's tasks of one seed, a case's columns one after another."""
    if section == "pool":
        return _pool(bench, seed, prompts, pools)
    plain = {"imagerag": _modes, "rerank": rerankers, "crossmodal": _stages}
    ours = {"captions": worded, "domain": compared, "binding": bound, "rerank-pool": _first_of_pool}
    return (plain | ours)[section](bench, seed, prompts)


def _modes(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """ImageRAG's ablation: what is looked up, or whether anything is."""
    shelf = bench.shelf("even", SIZE, seed)
    contexts = {name: bench.over(shelf, imagerag=ImageRAGOptions(**mode)) for name, mode in MODES.items()}
    for case in in_turn(("rare", "two"), prompts, seed):
        yield drawn(bench, "imagerag", "base", seed, case, direct.graph, bench.context)
        for name, context in contexts.items():
            yield drawn(bench, "imagerag", name, seed, case, imagerag.graph, context)


def _pool(bench: Bench, seed: int, prompts: int, sizes: tuple[int, ...]) -> Iterator[Task]:
    """ImageRAG's figure 16: the same prompts over larger and larger libraries."""
    shelves = {str(size): bench.shelf("generic", size, seed) for size in sizes}
    return over_shelves(bench, "pool", "0", shelves, seed, prompts)


def rerankers(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """ImageRAG's table 4 and hybrid retrieval, on a library of look-alikes; novel names are unknown."""
    shelf = bench.shelf("hard", SIZE, seed)
    for species in SOUGHT:
        yield from _looked_up(bench, "rerank", RERANKERS, shelf, seed, species)
    for case in in_turn(("rare", "novel"), prompts, seed):
        for name, knobs in RERANKERS.items():
            context = bench.over(shelf, knobs, imagerag=ImageRAGOptions(rerank=name == "mllm"))
            yield drawn(bench, "rerank", name, seed, case, imagerag.graph, context)


def _first_of_pool(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """ImageRAG's table 4 where it can fail: rare species of a generic pool, found but not always first.

    Only look-ups, of all species that the pool has; the number of prompts says nothing.
    """
    shelf = bench.shelf("generic", SIZE, seed)
    papers = {name: knobs for name, knobs in RERANKERS.items() if name != "hybrid"}
    for species in RARE:
        if shelf.stock.has(species.name):
            yield from _looked_up(bench, "rerank-pool", papers, shelf, seed, species)


def _looked_up(
    bench: Bench,
    section: str,
    rerankers: Mapping[str, dict[str, Any]],
    shelf: Shelf,
    seed: int,
    species: Species,
) -> Iterator[Task]:
    """Look a species up with each re-ranker."""
    for name, knobs in rerankers.items():
        found = bench.retriever(shelf, **knobs)
        look = partial(first_is_right, shelf, found, species.name, bench if name == "mllm" else None)
        yield Task(section, name, seed, species.tier, f"look-up {species.name}", look)


def _stages(bench: Bench, seed: int, prompts: int) -> Iterator[Task]:
    """Cross-modal RAG: coverage as in its figure 4, and pictures without each of its stages."""
    shelf = bench.shelf("even", SIZE, seed)
    for species in bunches(prompts, MOST, seed):
        for name in ("Pareto", "BM25", "dense"):
            look = partial(coverage, bench, shelf, species, name)
            yield Task("crossmodal", name, seed, f"{len(species)} sub-queries", ", ".join(species), look)
    contexts = {name: bench.over(shelf, crossmodal=staged(bench, stage)) for name, stage in STAGES.items()}
    for case in in_turn(("two",), prompts, seed):
        for name, context in contexts.items():
            yield drawn(bench, "crossmodal", name, seed, case, crossmodal.graph, context)


def staged(bench: Bench, stage: dict[str, Any]) -> CrossmodalOptions:
    """Give the settings' method with one stage changed; what binds a reference is its place in the order."""
    plain = bench.context.crossmodal.model_dump() | {"template": "plain"}
    return CrossmodalOptions.model_validate(plain | stage)


def coverage(bench: Bench, shelf: Shelf, species: tuple[str, ...], method: str) -> Measures:
    """Give the share of the species in the library that the method's pictures show.

    Each method has as many pictures as the Pareto set; the others look the whole prompt up.
    """
    found = retrieve_jointly(
        shelf.dense.entries(),
        species,
        scorer=IndexScorer(shelf.dense.vector, bench.encoder),
        options=bench.context.crossmodal,
        k=bench.context.generator.capabilities.slots,
        seed=0,
    )
    ids = [one.hit.id for one in found.members]
    if method != "Pareto" and ids:
        retriever = bench.retriever(shelf)
        searched = Lexical(retriever) if method == "BM25" else retriever
        ids = [hit.id for hit in searched.search(_prompt_of(species), len(ids))]
    there = [name for name in species if shelf.stock.has(name)]
    covered = [name for name in there if any(shelf.stock.shows(id, name) for id in ids)]
    return {"coverage": len(covered) / len(there) if there else 1.0, "pictures": float(len(ids))}


def _prompt_of(species: tuple[str, ...]) -> str:
    """Write a prompt of any number of species."""
    return " and ".join(f"a {name}" for name in species)
