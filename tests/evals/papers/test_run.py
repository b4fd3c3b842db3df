"""The papers' claims with trivial engines, and the figures of invented measurements."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.fake_engines import SquareGenerator, decomposition, make_context, rows
from support.quick_engines import Hashes

from pleinair.agent.state import changed
from pleinair.evals.__main__ import main
from pleinair.evals.cases import make_cases
from pleinair.evals.papers import run as papers
from pleinair.evals.papers import sections
from pleinair.evals.papers.bench import Bench, CachedGenerator, Measures
from pleinair.evals.papers.cases import (
    DISTRACTORS,
    LOOK_ALIKES,
    RARE,
    UNKNOWN,
    Kind,
    items,
    open_labelled,
    species_groups,
)
from pleinair.evals.papers.report import (
    AT_AN_END,
    SECTIONS,
    Claim,
    Record,
    judge,
    measurements,
    plot,
    summarise,
    verdict,
    write_markdown,
)
from pleinair.evals.papers.run import Cache, choose_sections, over_all_tiers
from pleinair.evals.papers.sections import (
    CAPTIONS,
    LOOKS,
    MODES,
    RERANKERS,
    STAGES,
    DescribingChat,
    ReversedGenerator,
    Task,
    coverage,
    stage_options,
    tasks,
)
from pleinair.evals.realrag.run import summarise as summarise_realrag
from pleinair.evals.run import GRAPHS
from pleinair.graphs import crossmodal as wiring
from pleinair.tools.mllm.ask import human_message, read_answer
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.catalogue.sampling import VISIBLE, difference
from pleinair.tools.retrieval.compose import RetrievalOptions
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, GenerateRequest, Hit, ModelFault, Reference

SIZE = 40
crossmodal: Any = wiring.graph


def species_in(prompt: str) -> list[str]:
    """Return the species of a prompt."""
    return [mention.name for mention in read(prompt).request.mentions]


def policy(schema: str, payload: dict[str, Any], images: int) -> dict[str, Any] | str:
    """Read prompts as the pocket model does; nothing ever matches."""
    subjects = species_in(payload["prompt"]) if "prompt" in payload else []
    answers: dict[str, Callable[[], dict[str, Any]]] = {
        "Decision": lambda: {"match": False, "why": "never"},
        "MissingConcepts": lambda: {"concepts": subjects},
        "Captions": lambda: {
            "captions": [{"name": name, "caption": CAPTIONS[name]} for name in payload["concepts"]]
        },
        "Rephrasing": lambda: {"prompt": f"plainly {payload['prompt']}"},
        "Ranking": lambda: {"order": [payload["pictures"]]},
        "SubQueries": lambda: {"subqueries": subjects},
        "Decomposition": lambda: decomposition(*subjects),
        "Critique": lambda: rows(payload, lambda name: False),
    }
    return answers[schema]()


class EveryOther:
    """Judge that decides by the length of the species' name."""

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        return {name: len(name) % 2 == 0 for name in names}


@pytest.fixture
def generator() -> SquareGenerator:
    return SquareGenerator()


@pytest.fixture
def bench(tmp_path: Path, generator: SquareGenerator, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(sections, "SIZE", SIZE)
    monkeypatch.setattr(sections, "DOMAIN_SIZE", SIZE // 2)
    context = make_context(tmp_path, policy, generator=generator)
    return Bench(
        work=tmp_path,
        context=replace(context, generator=CachedGenerator(generator, context.store)),
        encoder=Hashes(),
        retrieval=RetrievalOptions(method="dense", threshold=-1.0),
        judge=EveryOther(),
    )


def list_tasks(bench: Bench, section: str, prompts: int = 2) -> list[Task]:
    return list(tasks(bench, section, 0, prompts, (10, 20)))


def generation(tasks: Sequence[Task], column: str, tier: str) -> Task:
    """Return the first task of a column and a tier that generates an image."""
    return next(
        task for task in tasks if (task.column, task.tier) == (column, tier) and "retrieve" not in task.case
    )


# libraries


@pytest.mark.parametrize("kind", ["even", "generic", "hard", "domain"])
def test_a_smaller_library_is_the_beginning_of_a_larger_one(kind: Any, tmp_path: Path) -> None:
    small, large = (open_labelled(tmp_path, kind, size, 3) for size in (8, 16))
    assert len(small.library.items) == 8
    assert list(small.labels.items()) == list(large.labels.items())[:8]
    for id, item in small.library.items.items():
        assert item.caption == large.library.items[id].caption
        assert small.library.picture(id).tobytes() == large.library.picture(id).tobytes()


def test_a_library_that_was_not_finished_is_written_again(tmp_path: Path) -> None:
    place = open_labelled(tmp_path, "even", 4, 0).library.folder.parent
    (place / "truth.json").unlink()
    (place / "pictures" / "00000.png").write_bytes(b"cut")
    assert open_labelled(tmp_path, "even", 4, 0).library.picture("00000.png").size == (96, 96)


def test_an_even_library_has_every_species_and_names_most(tmp_path: Path) -> None:
    labelled = open_labelled(tmp_path, "even", 240, 0)
    assert sum(labelled.has(species.name) for species in RARE) >= 45  # of 51, without some look-alikes
    assert not labelled.has("nobody")
    captions = {id: item.caption for id, item in labelled.library.items.items()}
    right = [all(name in captions[id] for name in names) for id, names in labelled.labels.items()]
    assert 0.5 < sum(right) / len(right) < 0.9  # the others are described, misnamed or empty


def test_a_generic_library_has_few_rare_species() -> None:
    rare = {species.name for species in RARE}
    firsts = [scene.subjects[0].species for scene, _ in islice(items("generic", random.Random(0)), 500)]
    assert 30 <= sum(species.name in rare for species in firsts) <= 72  # 51 are expected
    assert sum(species.name == "" for species in firsts) > 150


def test_a_domains_library_has_rare_species_alone(tmp_path: Path) -> None:
    labelled = open_labelled(tmp_path, "domain", 60, 0)
    rare = {species.name for species in RARE}
    assert {name for names in labelled.labels.values() for name in names} <= rare
    assert sum(map(labelled.has, rare)) >= 40


@pytest.fixture(scope="module")
def hard() -> list[list[tuple[Any, str]]]:
    """Return the items of a hard library in rounds of one species, the right image first."""
    size = 1 + LOOK_ALIKES + DISTRACTORS
    chosen = [
        (scene, text.words) for scene, text in islice(items("hard", random.Random(0)), size * len(UNKNOWN))
    ]
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def test_in_a_hard_library_half_of_the_right_images_are_named_and_half_are_plain_to_see(hard: Any) -> None:
    named = alone = 0
    for species, ((scene, text), *_) in zip(UNKNOWN, hard, strict=True):
        subjects = scene.subjects
        assert species.name in [subject.species.name for subject in subjects]
        named += species.name in text
        alone += len(subjects) == 1 and subjects[0].size != "small"
    assert 25 <= named <= 54 and 25 <= alone <= 54  # of 79


def test_in_a_hard_library_look_alikes_are_visibly_no_species_and_some_have_its_name(hard: Any) -> None:
    misnamed = 0
    for species, round in zip(UNKNOWN, hard, strict=True):
        for scene, text in round[1 : 1 + LOOK_ALIKES]:
            (look,) = [subject.species for subject in scene.subjects]
            assert (look.name, look.kind) == ("", species.kind)
            assert sum(look.looks[key] != species.looks[key] for key in species.looks) <= 2
            assert difference(look) >= VISIBLE
            misnamed += species.name in text
    assert 55 <= misnamed <= 103  # 79 are expected


def test_in_a_hard_library_distractors_show_no_species_of_the_queries(hard: Any) -> None:
    others = {item[0].subjects[0].species.name for round in hard for item in round[1 + LOOK_ALIKES :]}
    assert others.isdisjoint(species.name for species in UNKNOWN) and "" in others


def test_groups_are_of_every_size_and_of_different_species() -> None:
    groups = species_groups(3, 4, 0)
    assert [len(group) for group in groups] == [2] * 3 + [3] * 3 + [4] * 3
    assert all(len(set(group)) == len(group) for group in groups)


# engines


def request(store: ArtifactStore, score: float, colour: str = "red", seed: int = 1) -> GenerateRequest:
    hit = Hit(id=f"{score}.png", score=score)
    reference = Reference(concept="c", hit=hit, picture=store.put(Image.new("RGB", (8, 8), colour)))
    return GenerateRequest(
        prompt="p",
        references=(reference,),
        height=16,
        width=16,
        num_inference_steps=1,
        guidance_scale=1,
        seed=seed,
    )


def test_equal_requests_share_an_image_however_references_were_retrieved(tmp_path: Path) -> None:
    store, generator = ArtifactStore(tmp_path), SquareGenerator()
    for score in (0.5, 0.9):
        equal = request(store, score)
        images = [store.open(equal.references[0].picture)]
        for _ in range(2):  # in two processes
            CachedGenerator(generator, store).generate(equal, images, lambda *_: None)
    assert len(generator.requests) == 1


@pytest.mark.parametrize("other", [{"colour": "blue"}, {"seed": 2}])
def test_another_reference_or_noise_is_another_image(tmp_path: Path, other: dict[str, Any]) -> None:
    store, generator = ArtifactStore(tmp_path), SquareGenerator()
    for distinct in (request(store, 0.5), request(store, 0.5, **other)):
        CachedGenerator(generator, store).generate(distinct, [], lambda *_: None)
    assert len(generator.requests) == 2


def test_a_models_fault_is_a_wrong_image_and_a_users_error_raises(bench: Bench) -> None:
    for fault, raises in ((ModelFault("odd"), False), (BadInput("no such folder"), True)):
        raising = replace(bench.context, model=make_context(bench.work, failing_policy(fault)).model)
        task = generation(list_tasks(replace(bench, context=raising), "imagerag"), "captions", "two")
        if raises:
            with pytest.raises(BadInput, match="no such folder"):
                task.measure()
        else:
            assert task.measure() == {"right": 0.0, "shown": 0.0, "references": 0.0}


def failing_policy(fault: Exception) -> Any:
    def throw(*_: Any) -> str:
        raise fault

    return throw


# sections


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("imagerag", ["base", *MODES]),
        ("imagerag-hard", ["base", *MODES]),
        ("pool", ["10", "20", "0"]),
        ("rerank", list(RERANKERS)),
        ("crossmodal", ["Pareto", "BM25", "dense", *STAGES]),
        ("crossmodal-hard", ["Pareto", "BM25", "dense", *STAGES]),
        ("captions", ["concepts", "captions", "describing"]),
        ("domain", ["generic", "domain", "base"]),
        ("binding", ["all", "no dense", "no map"]),
    ],
)
def test_every_section_measures_its_columns_on_the_same_cases(
    bench: Bench, section: str, columns: list[str]
) -> None:
    listed = list_tasks(bench, section)
    assert list(dict.fromkeys(task.column for task in listed)) == columns
    assert len({task.key for task in listed}) == len(listed)
    cases = {column: frozenset(task.case for task in listed if task.column == column) for column in columns}
    assert len(set(cases.values())) <= 2  # retrievals and images
    measures = [name for task in listed for name, value in task.measure().items() if 0 <= value <= 4]
    assert {"imagerag": {"right", "shown", "references"}}.get(section, {"right"}) <= set(measures)


def test_graphs_are_compared_on_the_same_cases_and_ours_retrieves_its_own_way(
    bench: Bench, generator: SquareGenerator
) -> None:
    listed = list_tasks(bench, "graphs-hard")
    assert [task.column for task in listed] == [*GRAPHS] * 2
    assert len({task.case for task in listed}) == 2
    kinds = {}
    for column in ("imagerag", "pleinair"):
        generation(listed, column, "hard").measure()
        kinds[column] = {reference.hit.score_kind for reference in generator.requests[-1].references}
    assert kinds == {"imagerag": {"cosine"}, "pleinair": {"rrf"}}


def test_a_pool_is_reordered_for_the_species_that_it_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "SIZE", 150)
    listed, labelled = list_tasks(bench, "rerank-pool"), bench.pool("generic", 150, 0).labelled
    cases = [f"retrieve {species.name}" for species in RARE if labelled.has(species.name)]
    assert 0 < len(cases) < len(RARE)
    assert [(task.case, task.column) for task in listed] == [
        (case, column) for case in cases for column in ("none", "bm25", "mllm")
    ]
    assert all(task.measure()["in the library"] == 1.0 for task in listed)


@pytest.mark.parametrize(
    ("column", "prompt", "references"),
    [
        ("base", None, 0),
        ("rephrase", "plainly", 0),
        ("prompt", None, 1),
        ("concepts", None, 2),
        ("captions", None, 2),
    ],
)
def test_each_mode_generates_from_what_it_retrieves(
    bench: Bench, generator: SquareGenerator, column: str, prompt: str | None, references: int
) -> None:
    task = generation(list_tasks(bench, "imagerag"), column, "two")
    assert task.measure()["references"] == references
    last = generator.requests[-1]
    assert len(last.references) == references
    assert last.prompt.startswith(prompt or task.case.split(" ", 1)[1])
    concepts = " ".join(reference.concept for reference in last.references)
    assert (concepts == last.prompt) == (column == "prompt")


def test_concepts_and_captions_are_different_queries(bench: Bench) -> None:
    queries, pool = {}, bench.pool("even", SIZE, 0)
    for column in ("concepts", "captions"):
        bench.pools["even", SIZE, 0] = pool
        queries[column] = record_queries(bench, "even")
        generation(list_tasks(bench, "imagerag"), column, "rare").measure()
    assert queries["captions"] == [CAPTIONS[name] for name in queries["concepts"]]


def record_queries(bench: Bench, kind: Kind) -> list[str]:
    """Return a list to which every query of a pool will be appended."""
    queries: list[str] = []
    pool = bench.pool(kind, SIZE, 0)
    dense: Any = RecordingRetriever(pool.dense, queries)
    bench.pools[kind, SIZE, 0] = replace(pool, dense=dense)
    return queries


class RecordingRetriever:
    """Retriever that records its queries."""

    def __init__(self, inner: Any, queries: list[str]) -> None:
        self.inner, self.queries = inner, queries

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def search(self, query: str, k: int) -> list[Hit]:
        self.queries.append(query)
        hits: list[Hit] = self.inner.search(query, k)
        return hits


def test_the_model_puts_the_last_hit_first(bench: Bench) -> None:
    pool, listed = bench.pool("hard", SIZE, 0), list_tasks(bench, "rerank")
    case = generation(listed, "none", "hard").case
    text = CAPTIONS[species_in(case.split(" ", 1)[1])[0]]
    hits = pool.dense.search(text, 6)
    for column, id in (("none", hits[0].id), ("mllm", hits[-1].id)):
        generation(listed, column, "hard").measure()
        inner = bench.context.generator._generator  # type: ignore[attr-defined]
        assert inner.requests[-1].references[0].hit.id == id


def test_each_column_leaves_its_stage_out(bench: Bench) -> None:
    pool, (case,) = bench.pool("even", 200, 0), make_cases(1, 0, ("two",))
    joints, prompts = {}, {}
    for column, stage in STAGES.items():
        context = bench.over(pool, crossmodal=stage_options(bench, stage))
        output = crossmodal.invoke(changed(prompt=case.prompt, seed=case.seed), context=context)
        joints[column] = output.get("joint")
        prompts[column] = output["outcome"]["best"]["request"]["prompt"]
    assert joints["no RAG"] is None
    sizes = {column: joint["kept"] for column, joint in joints.items() if joint}
    assert sizes["no sparse"] == 200 > sizes["all"] == sizes["no dense"] == sizes["no Pareto"]
    no_cosines = [column for column, joint in joints.items() if joint and not joint["members"][0]["cosines"]]
    assert no_cosines == ["no dense"]
    assert {column for column, prompt in prompts.items() if "Use only" in prompt} == {"instruction"}


def test_without_the_pareto_set_the_highest_means_count(bench: Bench) -> None:
    pool, (case,) = bench.pool("even", 200, 0), make_cases(1, 0, ("two",))
    options = stage_options(bench, STAGES["no Pareto"] | {"scored": "satisfied"})
    context = bench.over(pool, crossmodal=options)
    output = crossmodal.invoke(changed(prompt=case.prompt, seed=case.seed), context=context)
    entries = pool.dense.entries()
    vectors = np.asarray(satisfaction([entry.caption for entry in entries], case.species))
    ids = [entry.id for entry, flags in zip(entries, vectors, strict=True) if any(flags)]
    flags = vectors[vectors.any(axis=1)]
    cosines = IndexScorer(pool.dense.vector, bench.encoder).score(case.species, ids)
    means = (cosines * flags).sum(axis=1) / flags.sum(axis=1)  # over the satisfied sub-queries
    best = sorted(zip(means.tolist(), ids, strict=True), reverse=True)[:2]
    assert {member["hit"]["id"] for member in output["joint"]["members"]} == {id for _, id in best}


def test_coverage_counts_what_the_library_has(bench: Bench) -> None:
    pool = bench.pool("even", 200, 0)
    pair = (RARE[0].name, RARE[1].name)
    full = coverage(bench, pool, pair, "Pareto")
    assert full == {"coverage": 1.0, "pictures": 2.0}
    assert coverage(bench, pool, (RARE[0].name, "unicorn"), "Pareto")["coverage"] == 1.0
    assert coverage(bench, pool, pair, "BM25")["pictures"] == 2.0


def test_a_describing_model_changes_captions_and_nothing_else(bench: Bench) -> None:
    queries = record_queries(bench, "hard")
    task = generation(list_tasks(bench, "captions"), "describing", "hard")
    task.measure()
    (name,) = species_in(task.case.split(" ", 1)[1])
    assert queries == [LOOKS[name]] and name not in LOOKS[name]
    decision = DescribingChat(inner=bench.context.model).with_structured_output(Decision, include_raw=True)
    reply: Any = decision.invoke([human_message({"prompt": "a robin"}, [])])
    assert read_answer(reply, Decision).why == "never"


def test_without_the_map_the_same_images_come_in_reverse_order(
    bench: Bench, generator: SquareGenerator
) -> None:
    listed, ids = list_tasks(bench, "binding", 1), {}
    for column in ("all", "no map"):
        generation(listed, column, "two").measure()
        ids[column] = [reference.hit.id for reference in generator.requests[-1].references]
    assert len(ids["all"]) == 2
    assert ids["no map"] == ids["all"][::-1]


def test_reversed_images_stay_with_their_references(tmp_path: Path) -> None:
    store, generator = ArtifactStore(tmp_path), SquareGenerator()
    first, second = request(store, 0.5), request(store, 0.1, "blue")
    pair = first.model_copy(update={"references": (*first.references, *second.references)})
    images = [store.open(reference.picture) for reference in pair.references]
    calls: list[Any] = []
    inner: Any = SimpleNamespace(
        capabilities=generator.capabilities, generate=lambda *arguments: calls.extend(arguments)
    )
    ReversedGenerator(inner).generate(pair, images, lambda *_: None)
    turned, turned_images, _ = calls
    assert [reference.hit.score for reference in turned.references] == [0.1, 0.5]
    assert [image.getpixel((0, 0)) for image in turned_images] == [(0, 0, 255), (255, 0, 0)]


# cached measurements


def counting_task(calls: list[str], column: str = "c", case: str = "x") -> Task:
    def measure() -> Measures:
        calls.append(case)
        return {"right": 1.0}

    return Task("imagerag", column, 0, "rare", case, measure)


def test_no_task_is_measured_twice(tmp_path: Path) -> None:
    calls: list[str] = []
    for _ in range(2):
        (record,) = Cache(tmp_path / "r.jsonl", "s").measure([counting_task(calls)])
        assert record["measures"] == {"right": 1.0}
    assert len(calls) == 1
    list(Cache(tmp_path / "r.jsonl", "other engines").measure([counting_task(calls)]))
    assert len(calls) == 2


def test_a_cut_line_is_measured_again_and_spoils_no_other(tmp_path: Path) -> None:
    calls: list[str] = []
    path, pair = tmp_path / "r.jsonl", [counting_task(calls), counting_task(calls, case="y")]
    list(Cache(path, "s").measure(pair))
    path.write_text(path.read_text("utf-8")[:-9], encoding="utf-8")
    list(Cache(path, "s").measure(pair))
    assert calls == ["x", "y", "y"]
    assert [record["case"] for record in Cache(path, "s").measure(pair)] == ["x", "y"]
    assert len(calls) == 3


# figures


def record(column: str, case: str, right: float, seed: int = 0, tier: str = "rare") -> Record:
    return {
        "setup": "s",
        "section": "imagerag",
        "column": column,
        "seed": seed,
        "tier": tier,
        "case": case,
        "measures": {"right": right},
        "seconds": 0.5,
    }


def records(**share: int) -> list[Record]:
    """Return twenty cases of each column, of which `share` are right."""
    return [
        record(column, f"case {n}", float(n < right)) for column, right in share.items() for n in range(20)
    ]


@pytest.mark.parametrize(
    ("sign", "ci", "expected"),
    [
        ("≥", (0.01, 0.3), "reproduced"),
        ("≥", (-0.1, 0.3), "not reproduced: no difference shown"),
        ("≥", (-0.3, -0.1), "not reproduced: reversed"),
        ("≈", (-0.05, 0.1), "reproduced"),
        ("≈", (-0.05, 0.2), "not reproduced: the interval is too wide"),
        ("≈", (0.02, 0.2), "not reproduced: they differ"),
        ("≈", None, "not measured"),
    ],
)
def test_a_claim_needs_its_whole_interval(sign: str, ci: tuple[float, float] | None, expected: str) -> None:
    assert verdict(sign, ci) == expected


@pytest.mark.parametrize("sign", ["≥", "≈"])
def test_without_room_to_differ_there_is_no_verdict(sign: str) -> None:
    assert verdict(sign, (-0.05, 0.05), at_an_end=True).startswith("cannot tell: both are at the ceiling or")
    assert verdict("≥", (0.01, 0.08), at_an_end=True) == "reproduced"
    assert verdict(sign, (-0.08, -0.01), at_an_end=True) != verdict(sign, (-0.05, 0.05), at_an_end=True)


@pytest.mark.parametrize(
    ("bm25", "none", "at_an_end"),
    [
        ({"rare": 1.0, "novel": 0.0}, {"rare": 1.0, "novel": 0.0}, True),
        ({"rare": 0.95, "novel": 0.05}, {"rare": 1.0, "novel": 0.1}, False),  # some cases differ
        ({"rare": 0.95, "novel": 0.05}, {"rare": 0.95, "novel": 0.05}, True),
        ({"rare": 1.0, "novel": 0.4}, {"rare": 1.0, "novel": 0.4}, False),
        ({"rare": 1.0, "novel": 0.0}, {"rare": 1.0, "novel": 1.0}, False),
    ],
)
def test_columns_at_the_ends_of_every_tier_have_no_verdict(
    bm25: dict[str, float], none: dict[str, float], at_an_end: bool
) -> None:
    cases = [
        record(name, f"{tier} {number}", float(number < 20 * shares[tier]), tier=tier)
        for name, shares in (("bm25", bm25), ("none", none))
        for tier in shares
        for number in range(20)
    ]
    about = judge_records(Claim("bm25 ≈ none", "right"), cases)
    assert (about["verdict"] == AT_AN_END) == at_an_end
    gain = judge_records(Claim("bm25 ≥ none", "right", "rare"), cases)  # no room for one
    assert gain["verdict"] == AT_AN_END


def judge_records(claim: Claim, records: Sequence[Record]) -> dict[str, Any]:
    (judgement,) = judge([claim], measurements(records))
    return judgement


def test_columns_near_the_ceiling_are_about_equal_where_cases_differ() -> None:
    bm25 = [record("bm25", f"case {number}", float(number != 3)) for number in range(60)]
    none = [record("none", f"case {number}", float(number not in (7, 9))) for number in range(60)]
    claims = [Claim(f"bm25 {sign} none", "right") for sign in ("≈", "≥")]
    verdicts = [judge_records(claim, [*bm25, *none])["verdict"] for claim in claims]
    assert verdicts == ["reproduced", AT_AN_END]


def test_realrags_steps_at_an_end_have_no_verdict() -> None:
    claims = {(item["claim"], item["measure"]): item["verdict"] for item in realrag_figures()["claims"]}
    assert claims["reflective ≥ normal", "R@1, library seen"] == AT_AN_END  # all are right
    assert claims["reflective ≥ normal", "right"] == "not reproduced: no difference shown"


def test_gains_are_on_the_same_cases() -> None:
    claim = judge_records(Claim("captions ≥ base", "right"), records(captions=18, base=2))
    assert (claim["gain"], claim["n"], claim["verdict"]) == (0.8, 20, "reproduced")
    low, high = claim["ci"]
    assert 0.5 < low < 0.8 < high <= 1


def test_every_seed_has_its_own_mean() -> None:
    twice = [record("captions", "x", right, seed) for seed, right in enumerate((1.0, 0.0, 1.0))]
    (score,) = summarise("imagerag", twice)["measures"]["right"]["all"].values()
    assert (score["n"], score["by_seed"]) == (3, [1.0, 0.0, 1.0])
    assert score["mean"] == pytest.approx(2 / 3)


def test_a_case_is_compared_within_its_seed() -> None:
    captions = [record("captions", "x", 1.0, seed) for seed in range(3)]
    claim = judge_records(Claim("captions ≥ base", "right"), [*captions, record("base", "x", 0.0, 2)])
    assert (claim["gain"], claim["n"]) == (1.0, 1)


def test_a_claim_of_a_column_that_was_not_measured_is_left_out() -> None:
    claims = [item["claim"] for item in summarise("imagerag", records(captions=18, base=2))["claims"]]
    assert claims == ["captions ≥ base", "captions ≥ base"]  # rare, all


def test_every_claim_is_of_columns_that_are_measured() -> None:
    columns = {
        "imagerag": {"base", *MODES},
        "imagerag-hard": {"base", *MODES},
        "pool": {"0", "100", "1000", "10000"},
        "rerank": set(RERANKERS),
        "rerank-pool": {"none", "bm25", "mllm"},
        "crossmodal": {"Pareto", "BM25", "dense", *STAGES},
        "crossmodal-hard": {"Pareto", "BM25", "dense", *STAGES},
        "captions": {"concepts", "describing"},
        "domain": {"generic", "domain", "base"},
        "binding": {"all", "no dense", "no map"},
        "graphs-hard": set(GRAPHS),
    }
    assert {*columns, *papers.COMPARISONS} == set(SECTIONS)
    for section in columns:
        sides = [Claim(*claim).sides for claim in SECTIONS[section]["claims"]]
        assert {name for better, _, worse in sides for name in (better, worse)} <= columns[section]


def realrag_figures() -> dict[str, Any]:
    columns = ("base", "zero", "normal", "reflective", "self_contrast")
    cases = [{"seed": 0, "tier": tier, "case": tier} for tier in ("known", "rare", "novel")]
    generated = [
        case
        | {"column": column, "case": f"{case['tier']} {n}", "measures": {"right": n % 3 > 0, "looks": 0.2}}
        for case in cases
        for column in columns
        for n in range(6)
    ]
    retrieved = [
        case | {"column": column, "epoch": 2 * (column != "zero"), "measures": {"R@1, library seen": 1.0}}
        for case in cases
        for column in columns[1:4]
    ]
    realrag = summarise_realrag(retrieved, generated, {"base": 0.05, "real": 0.01})
    return over_all_tiers(realrag | {"command": "python -m pleinair.evals.realrag.run"})


def figures() -> dict[str, Any]:
    about = {"command": "python -m pleinair.evals papers", "prompts": 20, "seeds": 1}
    return {
        "imagerag": summarise("imagerag", records(captions=18, concepts=12, prompt=12, rephrase=2, base=2)),
        "realrag": realrag_figures(),
        "about": about,
    }


def test_the_page_has_every_claim_and_verdict() -> None:
    page = write_markdown(figures())
    assert "| captions ≥ concepts | right | rare | 30.0 % [" in page
    assert "| concepts ≥ prompt | right | rare | 0.0 % [" in page
    assert page.count("not reproduced: no difference shown") >= 2
    assert "| reflective ≥ zero | right | all | 0.0 % [" in page
    assert "| R@1, library seen | zero | normal | reflective | n |" in page
    assert "looks, on average: base 0.20, zero 0.20" in page
    assert "Fréchet distance × 100, on average: base 5.00, real 1.00." in page
    assert SECTIONS["pool"]["title"] not in page


def test_plain_means_are_a_line_and_shares_a_table() -> None:
    pairs = [record("Pareto", "x", 1.0), record("BM25", "x", 0.0)]
    for pair in pairs:
        pair["measures"] = {"coverage": pair["measures"]["right"], "pictures": 2.0}
    about = {"command": "c", "prompts": 1, "seeds": 1}
    page = write_markdown({"crossmodal": summarise("crossmodal", pairs), "about": about})
    assert "| coverage | Pareto | BM25 | n |" in page
    assert "pictures, on average: Pareto 2.00, BM25 2.00." in page


def test_each_section_has_a_plot(tmp_path: Path) -> None:
    paths = plot(figures(), tmp_path)
    assert [path.name for path in paths] == ["papers-imagerag.png", "papers-realrag.png"]
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 500


# command line


def test_sections_are_returned_in_their_order() -> None:
    assert choose_sections("realrag, imagerag") == ["imagerag", "realrag"]
    with pytest.raises(BadInput, match="'imagrag'"):
        choose_sections("imagrag")


def test_the_command_writes_figures_page_and_plots(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: list[Any] = []

    def quick_bench(work: Path, overrides: Any) -> tuple[Bench, str]:
        settings.append(overrides)
        return bench, "quick"

    monkeypatch.setattr(papers, "pocket_bench", quick_bench)
    out = tmp_path / "report"
    words = ["papers", "--only", "imagerag", "--prompts", "2", "--seeds", "2", "--set", "retrieval.k=2"]
    places = ["--out", str(out), "--json", str(tmp_path / "f.json"), "--work", str(tmp_path)]
    assert main([*words, *places]) == 0
    section = json.loads((tmp_path / "f.json").read_text("utf-8"))["imagerag"]
    assert section["measures"]["right"]["all"]["captions"]["n"] == 4
    assert len((out / "papers.jsonl").read_text("utf-8").splitlines()) == section["records"] == 20
    assert settings == [{"retrieval.k": 2}]
    assert {path.name for path in out.iterdir()} == {"papers.jsonl", "papers.md", "papers-imagerag.png"}
    assert "--only imagerag --prompts 2 --seeds 2 --set retrieval.k=2" in capsys.readouterr().out
    assert main(["papers", "--only", "nothing"]) == 1
    assert main([*words, "--set", "retrieval.k", *places]) == 1
