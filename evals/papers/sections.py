"""Measurements for each of the papers' claims: a task is one column, one case and one seed.

A seed has prompts, noise and libraries of its own; within it all columns share them. The sections "captions",
"domain", "binding", "rerank" and "rerank-pool" test a claim where the plain libraries cannot show it, as do
those whose names end in "-hard": the same measurements on hard prompts in a hard library. Their settings were
fixed before any of them was run. Not covered: the words of Cross-modal RAG's instruction, which the
miniature generator cannot read; what is measured is their purpose, the map from images to sub-queries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from PIL.Image import Image

from pleinair.agent.context import Context
from pleinair.evals.cases import Case, Tier, make_cases
from pleinair.evals.papers.bench import Bench, Measures, Pool
from pleinair.evals.papers.cases import RARE, UNKNOWN, Kind, species_groups
from pleinair.evals.run import context_of, load_graphs
from pleinair.graphs import crossmodal, direct, imagerag
from pleinair.tools.crossmodal import CrossmodalOptions
from pleinair.tools.imagerag import ImageRAGOptions
from pleinair.tools.pocket.catalogue.captions import describe, with_article
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.retrieval.compose import PAPERS, RetrievalOptions
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer
from pleinair.tools.retrieval.crossmodal.joint import retrieve_jointly
from pleinair.tools.retrieval.lexical import Lexical
from pleinair.tools.retrieval.rerank import EACH, rerank
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Capabilities, GenerateRequest, Generator, Retriever

SIZE = 1000  # images of a library unless stated otherwise
DOMAIN_SIZE = 400  # images of a domain's own pool
GROUP_SIZE = 4  # sub-queries of the largest group in retrieval
HITS = 2 * EACH  # per query
CAPTIONS = {s.name: f"a photo of {with_article(s.name)}" for s in SPECIES}  # the pocket model's
LOOKS = {s.name: f"a photo of {with_article(describe(random.Random(s.name), s).words)}" for s in SPECIES}

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

Step = tuple[str, str, str, Callable[[], Measures]]  # column, tier, case, measurement


@dataclass(frozen=True, slots=True)
class Task:
    """Measurement of one column on one case; a case with the same name in another seed is the same one."""

    section: str
    column: str
    seed: int
    tier: str
    case: str
    measure: Callable[[], Measures]

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Return what identifies the task among all others of one set of engines."""
        return self.section, self.column, self.seed, self.case


class DescribingChat(BaseChatModel):
    """Chat model that captions species by their looks, as a large model does, and else is the inner model."""

    inner: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return "describing"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Runnable[Any, AIMessage]:
        """Bind the tools to the inner model and replace its captions."""
        return self.inner.bind_tools(tools, **options) | RunnableLambda(_describe)

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        return self.inner._generate(messages, *rest, **options)


def _describe(reply: AIMessage) -> AIMessage:
    for call in reply.tool_calls:
        for item in call["args"].get("captions", ()):
            item["caption"] = LOOKS.get(item["name"], item["caption"])
    return reply


class ReversedGenerator:
    """Generator that receives its references in reverse order; implements `Generator`."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def capabilities(self) -> Capabilities:
        """Return the generator's capabilities under another id, since its images differ."""
        capabilities = self._generator.capabilities
        return capabilities.model_copy(update={"id": f"{capabilities.id}, references turned"})

    def generate(
        self, request: GenerateRequest, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Generate an image; zero or one reference makes no difference."""
        request = request.model_copy(update={"references": request.references[::-1]})
        return self._generator.generate(request, images[::-1], on_step)


def tasks(bench: Bench, section: str, seed: int, prompts: int, sizes: tuple[int, ...]) -> Iterator[Task]:
    """List a section's tasks of one seed, a case's columns one after another; `sizes` are those of "pool"."""
    sections: dict[str, Callable[[Bench, int, int], Iterator[Step]]] = {
        "imagerag": partial(_modes, kind="even", tiers=("rare", "two")),
        "imagerag-hard": partial(_modes, kind="hard", tiers=("hard",)),
        "captions": _captions,
        "pool": partial(_sizes, sizes=sizes),
        "domain": _domain,
        "rerank": _rerankers,
        "rerank-pool": _rerankers_of_pool,
        "crossmodal": partial(_stages, kind="even", tiers=("two",)),
        "crossmodal-hard": partial(_stages, kind="hard", tiers=("hard",)),
        "binding": _binding,
        "graphs-hard": _graphs,
    }
    for column, tier, case, measure in sections[section](bench, seed, prompts):
        yield Task(section, column, seed, tier, case, measure)


def _modes(bench: Bench, seed: int, prompts: int, kind: Kind, tiers: Sequence[Tier]) -> Iterator[Step]:
    """Measure ImageRAG's ablation: what is retrieved by, and whether anything is."""
    pool = bench.pool(kind, SIZE, seed)
    contexts = {name: bench.over(pool, imagerag=ImageRAGOptions(**mode)) for name, mode in MODES.items()}
    return _images(bench, make_cases(prompts, seed, tiers), imagerag.graph, contexts, base="base")


def _captions(bench: Bench, seed: int, prompts: int) -> Iterator[Step]:
    """Measure ImageRAG's captions against names, by a model that knows more than the encoder."""
    pool, model = bench.pool("hard", SIZE, seed), bench.context.model
    for species in UNKNOWN:
        name = species.name
        texts = {"concepts": name, "captions": CAPTIONS[name], "describing": LOOKS[name]}
        for column, text in texts.items():
            yield column, *_retrieval(species, pool, bench.retriever(pool), text=text)
    contexts = {
        "concepts": bench.over(pool, imagerag=ImageRAGOptions(retrieve_by="concepts")),
        "captions": bench.over(pool, imagerag=ImageRAGOptions()),
        "describing": bench.over(pool, imagerag=ImageRAGOptions(), model=DescribingChat(inner=model)),
    }
    yield from _images(bench, make_cases(prompts, seed, ("hard",)), imagerag.graph, contexts)


def _sizes(bench: Bench, seed: int, prompts: int, sizes: tuple[int, ...]) -> Iterator[Step]:
    """Measure ImageRAG's figure 16: the same prompts over larger and larger libraries."""
    return _over_pools(
        bench, {str(size): bench.pool("generic", size, seed) for size in sizes}, seed, prompts, "0"
    )


def _domain(bench: Bench, seed: int, prompts: int) -> Iterator[Step]:
    """Measure ImageRAG's tables 6 and 7: a generic pool, and a smaller one of the domain."""
    generic, domain = bench.pool("generic", SIZE, seed), bench.pool("domain", DOMAIN_SIZE, seed)
    return _over_pools(bench, {"generic": generic, "domain": domain}, seed, prompts, "base")


def _over_pools(
    bench: Bench, pools: Mapping[str, Pool], seed: int, prompts: int, base: str
) -> Iterator[Step]:
    """Retrieve rare species and generate prompts over each pool, and without one as the column `base`."""
    for species in RARE:
        for name, pool in pools.items():
            yield name, *_retrieval(species, pool, bench.retriever(pool))
    contexts = {name: bench.over(pool, imagerag=ImageRAGOptions()) for name, pool in pools.items()}
    yield from _images(bench, make_cases(prompts, seed, ("rare", "two")), imagerag.graph, contexts, base)


def _rerankers(bench: Bench, seed: int, prompts: int) -> Iterator[Step]:
    """Measure ImageRAG's table 4 and hybrid retrieval on look-alikes; novel names are unknown."""
    pool = bench.pool("hard", SIZE, seed)
    yield from _reranked(bench, pool, UNKNOWN, RERANKERS)
    contexts = {
        name: bench.over(pool, options, imagerag=ImageRAGOptions(rerank=name == "mllm"))
        for name, options in RERANKERS.items()
    }
    yield from _images(bench, make_cases(prompts, seed, ("hard",)), imagerag.graph, contexts)


def _rerankers_of_pool(bench: Bench, seed: int, prompts: int) -> Iterator[Step]:
    """Measure ImageRAG's table 4 where it can fail: rare species of a generic pool, not always first.

    Retrieval alone, of all species that the pool has; the number of prompts has no effect.
    """
    pool = bench.pool("generic", SIZE, seed)
    columns = {name: options for name, options in RERANKERS.items() if name != "hybrid"}
    return _reranked(bench, pool, [species for species in RARE if pool.labelled.has(species.name)], columns)


def _reranked(
    bench: Bench, pool: Pool, queries: Iterable[Species], columns: Mapping[str, dict[str, Any]]
) -> Iterator[Step]:
    for species in queries:
        for name, options in columns.items():
            model = bench.context.model if name == "mllm" else None
            yield name, *_retrieval(species, pool, bench.retriever(pool, **options), model)


def _stages(bench: Bench, seed: int, prompts: int, kind: Kind, tiers: Sequence[Tier]) -> Iterator[Step]:
    """Measure Cross-modal RAG's coverage as in its figure 4, and images without each of its stages."""
    pool = bench.pool(kind, SIZE, seed)
    for species in species_groups(prompts, GROUP_SIZE, seed):
        for name in ("Pareto", "BM25", "dense"):
            measure = partial(coverage, bench, pool, species, name)
            yield name, f"{len(species)} sub-queries", ", ".join(species), measure
    contexts = {
        name: bench.over(pool, crossmodal=stage_options(bench, stage)) for name, stage in STAGES.items()
    }
    yield from _images(bench, make_cases(prompts, seed, tiers), crossmodal.graph, contexts)


def _binding(bench: Bench, seed: int, prompts: int) -> Iterator[Step]:
    """Measure Cross-modal RAG with misleading captions: without its dense stage, and without its map."""
    pool, options = bench.pool("hard", SIZE, seed), stage_options(bench, {})
    contexts = {
        "all": bench.over(pool, crossmodal=options),
        "no dense": bench.over(pool, crossmodal=stage_options(bench, STAGES["no dense"])),
        "no map": bench.over(pool, crossmodal=options, generator=ReversedGenerator(bench.context.generator)),
    }
    return _images(bench, make_cases(prompts, seed, ("two",)), crossmodal.graph, contexts)


def _graphs(bench: Bench, seed: int, prompts: int) -> Iterator[Step]:
    """Measure the graphs of the pocket benchmark, the papers' with their retrieval and ours with its own."""
    pool = bench.pool("hard", SIZE, seed)
    ours = RetrievalOptions().model_dump(include=set(PAPERS))
    context = replace(bench.over(pool, ours), paper_retriever=bench.retriever(pool))
    for case in make_cases(prompts, seed, ("hard",)):
        for column, graph in load_graphs().items():
            measure = partial(bench.run, graph, case, context_of(column, context))
            yield column, case.tier, f"{case.id} {case.prompt}", measure


def stage_options(bench: Bench, stage: dict[str, Any]) -> CrossmodalOptions:
    """Return the settings' method with one stage changed; the order of references is what binds them."""
    options = bench.context.crossmodal.model_dump() | {"template": "plain"}
    return CrossmodalOptions.model_validate(options | stage)


def _images(
    bench: Bench, cases: Iterable[Case], graph: Any, contexts: Mapping[str, Context], base: str = ""
) -> Iterator[Step]:
    """Generate and judge each case in each context, and without references as the column `base`."""
    columns = {name: (graph, context) for name, context in contexts.items()}
    if base:
        columns = {base: (direct.graph, bench.context)} | columns
    for case in cases:
        for column, (wiring, context) in columns.items():
            measure = partial(bench.run, wiring, case, context)
            yield column, case.tier, f"{case.id} {case.prompt}", measure


def _retrieval(
    species: Species, pool: Pool, retriever: Retriever, model: BaseChatModel | None = None, text: str = ""
) -> tuple[str, str, Callable[[], Measures]]:
    """Return the step that retrieves a species, by default by the pocket model's caption of it.

    A `model` re-ranks the hits. R@1 is 1 if the first hit shows the species.
    """
    name = species.name

    def measure() -> Measures:
        query = text or CAPTIONS[name]
        hits = retriever.search(query, HITS)
        if model and hits:
            images = [encode_png(retriever.open(hit.id)) for hit in hits]
            hits, _ = rerank(query, hits, images, model=model)
        right = bool(hits) and pool.labelled.shows(hits[0].id, name)
        return {"R@1": float(right), "in the library": float(pool.labelled.has(name))}

    return species.tier, f"retrieve {name}", measure


def coverage(bench: Bench, pool: Pool, species: tuple[str, ...], method: str) -> Measures:
    """Return the share of the species in the library that the method's images show.

    Each method has as many images as the Pareto set; the others retrieve by the whole prompt.
    """
    pareto = retrieve_jointly(
        pool.dense.entries(),
        species,
        scorer=IndexScorer(pool.dense.vector, bench.encoder),
        options=bench.context.crossmodal,
        k=bench.context.generator.capabilities.slots,
        seed=0,
    )
    ids = [member.hit.id for member in pareto.members]
    if method != "Pareto" and ids:
        dense = bench.retriever(pool)
        retriever = Lexical(dense) if method == "BM25" else dense
        prompt = " and ".join(map(with_article, species))
        ids = [hit.id for hit in retriever.search(prompt, len(ids))]
    in_library = [name for name in species if pool.labelled.has(name)]
    covered = [name for name in in_library if any(pool.labelled.shows(id, name) for id in ids)]
    return {"coverage": len(covered) / len(in_library) if in_library else 1.0, "pictures": float(len(ids))}
