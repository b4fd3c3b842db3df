"""The papers' claims on engines that do next to nothing, and the figures of made-up measurements."""

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from support.fake_engines import SquareGenerator, make_context
from support.quick_engines import Hashes

from pleinair.agent.state import changed
from pleinair.evals.__main__ import main
from pleinair.evals.papers import harder as papers_harder
from pleinair.evals.papers import run as papers
from pleinair.evals.papers import sections as papers_sections
from pleinair.evals.papers.bench import Bench, Measures, Remembered
from pleinair.evals.papers.cases import (
    RARE,
    SOUGHT,
    bunches,
    in_turn,
    look_alike,
    near_pairs,
    open_stock,
    shots,
)
from pleinair.evals.papers.claims import CLAIMS, NOTES, TITLES, Claim
from pleinair.evals.papers.harder import Describing, Turned
from pleinair.evals.papers.plots import plot
from pleinair.evals.papers.report import (
    CRAMPED,
    Record,
    from_realrag,
    judged,
    summarise,
    verdict,
    write_markdown,
)
from pleinair.evals.papers.run import Records, chosen, overridden
from pleinair.evals.papers.sections import MODES, RERANKERS, STAGES, coverage, staged, tasks
from pleinair.evals.papers.tasks import Task
from pleinair.evals.realrag.report import summarise as summarise_realrag
from pleinair.graphs import crossmodal as wiring
from pleinair.tools.mllm.ask import human, read
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.pocket.prompts import describe, parse_prompt
from pleinair.tools.pocket.world import species_named
from pleinair.tools.retrieval.compose import RetrievalOptions
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, GenerateRequest, Hit, ModelFault, Reference

SIZE = 40
crossmodal: Any = wiring.graph


def policy(schema: str, card: dict[str, Any], images: int) -> dict[str, Any] | str:
    """Read prompts as the pocket model does and find that nothing matches."""
    subjects = list(parse_prompt(card["prompt"]).subjects) if "prompt" in card else []
    answers: dict[str, Callable[[], dict[str, Any]]] = {
        "Decision": lambda: {"match": False, "why": "never"},
        "MissingConcepts": lambda: {"concepts": subjects},
        "Captions": lambda: {
            "captions": [{"name": name, "caption": f"a photo of a {name}"} for name in card["concepts"]]
        },
        "Rephrasing": lambda: {"prompt": f"plainly {card['prompt']}"},
        "Ranking": lambda: {"order": [card["pictures"]]},
        "SubQueries": lambda: {"subqueries": subjects},
    }
    return answers[schema]()


class EveryOther:
    """See a species or not by the lengths of names, always the same."""

    def shows(self, image: Image.Image, names: Sequence[str]) -> dict[str, bool]:
        return {name: len(name) % 2 == 0 for name in names}


@pytest.fixture
def generator() -> SquareGenerator:
    return SquareGenerator()


@pytest.fixture
def bench(tmp_path: Path, generator: SquareGenerator, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for module in (papers_sections, papers_harder):
        monkeypatch.setattr(module, "SIZE", SIZE)
    monkeypatch.setattr(papers_harder, "OF_DOMAIN", SIZE // 2)
    context = make_context(tmp_path, policy, generator=generator)
    return Bench(
        work=tmp_path,
        context=replace(context, generator=Remembered(generator, context.store)),
        encoder=Hashes(),
        retrieval=RetrievalOptions(threshold=-1.0),
        judge=EveryOther(),
    )


def listed(bench: Bench, section: str, prompts: int = 2) -> list[Task]:
    return list(tasks(bench, section, 0, prompts, (10, 20)))


def of(found: Sequence[Task], column: str, tier: str) -> Task:
    """Give the first task of a column and a tier that draws."""
    return next(
        one for one in found if one.column == column and one.tier == tier and "look-up" not in one.case
    )


# libraries


@pytest.mark.parametrize("kind", ["even", "generic", "hard", "domain"])
def test_a_smaller_library_is_the_beginning_of_a_larger_one(kind: Any, tmp_path: Path) -> None:
    small, large = (open_stock(tmp_path, kind, size, 3) for size in (8, 16))
    assert len(small.library.items) == 8
    assert list(small.truth.items()) == list(large.truth.items())[:8]
    for id, item in small.library.items.items():
        assert item.caption == large.library.items[id].caption
        assert small.library.picture(id).tobytes() == large.library.picture(id).tobytes()


def test_a_library_that_was_not_finished_is_written_again(tmp_path: Path) -> None:
    stock = open_stock(tmp_path, "even", 4, 0)
    place = stock.library.folder.parent
    (place / "truth.json").unlink()
    (place / "pictures" / "00000.png").write_bytes(b"cut")
    assert open_stock(tmp_path, "even", 4, 0).library.picture("00000.png").size == (64, 64)


def test_an_even_library_has_every_species_and_says_so(tmp_path: Path) -> None:
    stock = open_stock(tmp_path, "even", 90, 0)
    assert all(stock.has(species.name) for species in RARE)
    assert not stock.has("nobody")
    named = [
        all(name in item.caption for name in stock.truth[id]) for id, item in stock.library.items.items()
    ]
    assert 0.5 < sum(named) / len(named) < 0.9  # the others are described, misnamed or bare


def test_a_generic_library_has_few_rare_species() -> None:
    rare = {species.name for species in RARE}
    firsts = [scene.subjects[0].species for scene, _ in islice(shots("generic", random.Random(0)), 2000)]
    assert 30 <= sum(species.name in rare for species in firsts) <= 70  # 48 are expected
    assert sum(species.tier == "novel" for species in firsts) > 800


def test_a_domains_library_has_rare_species_alone() -> None:
    firsts = [scene.subjects[0].species for scene, _ in islice(shots("domain", random.Random(0)), 100)]
    assert {one.name for one in firsts} == {one.name for one in RARE}


def test_a_look_alike_differs_in_one_colour() -> None:
    rng = random.Random(0)
    for _ in range(50):
        twin, passed_for = look_alike(rng)
        near = [
            one for one in SOUGHT if one.kind == twin.kind and (twin.body, twin.accent) in near_pairs(one)
        ]
        assert near
        assert all((twin.body == one.body) != (twin.accent == one.accent) for one in near)
        assert passed_for is None or passed_for in near


def test_cases_are_those_of_fewer_and_more() -> None:
    few, many = (in_turn(("rare", "two"), prompts, 5) for prompts in (2, 4))
    assert {case.id for case in few} == {"rare-0", "two-0"}
    assert set(few) < set(many)
    with pytest.raises(BadInput, match="prompts = 3"):
        in_turn(("rare", "two"), 3, 0)


def test_groups_are_of_every_size_and_of_different_species() -> None:
    groups = bunches(3, 4, 0)
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


def test_a_picture_is_drawn_once_however_its_references_were_found(tmp_path: Path) -> None:
    store, generator = ArtifactStore(tmp_path), SquareGenerator()
    for again in range(2):
        remembered = Remembered(generator, store)
        for wanted in (request(store, 0.5), request(store, 0.9)):
            remembered.generate(wanted, [store.open(wanted.references[0].picture)], lambda *_: None)
        assert (len(generator.requests), remembered.drawn) == (1, 1 - again)


@pytest.mark.parametrize("other", [{"colour": "blue"}, {"seed": 2}])
def test_another_reference_or_noise_is_another_picture(tmp_path: Path, other: dict[str, Any]) -> None:
    store, generator = ArtifactStore(tmp_path), SquareGenerator()
    for wanted in (request(store, 0.5), request(store, 0.5, **other)):
        Remembered(generator, store).generate(wanted, [], lambda *_: None)
    assert len(generator.requests) == 2


def test_a_models_fault_is_a_wrong_picture_and_a_users_raises(bench: Bench) -> None:
    for fault, raises in ((ModelFault("odd"), False), (BadInput("no such folder"), True)):
        raising = replace(bench.context, model=make_context(bench.work, thrower(fault)).model)
        task = of(listed(replace(bench, context=raising), "imagerag"), "captions", "two")
        if raises:
            with pytest.raises(BadInput, match="no such folder"):
                task.measure()
        else:
            assert task.measure() == {"right": 0.0, "shown": 0.0, "references": 0.0}


def thrower(fault: Exception) -> Any:
    def throw(*_: Any) -> str:
        raise fault

    return throw


# sections


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("imagerag", ["base", *MODES]),
        ("pool", ["10", "20", "0"]),
        ("rerank", list(RERANKERS)),
        ("crossmodal", ["Pareto", "BM25", "dense", *STAGES]),
        ("captions", ["concepts", "captions", "describing"]),
        ("domain", ["generic", "domain", "base"]),
        ("binding", ["all", "no dense", "no map"]),
    ],
)
def test_every_section_measures_its_columns_on_the_same_cases(
    bench: Bench, section: str, columns: list[str]
) -> None:
    found = listed(bench, section)
    assert list(dict.fromkeys(task.column for task in found)) == columns
    assert len({task.key for task in found}) == len(found)
    drawn = {column: {task.case for task in found if task.column == column} for column in columns}
    assert len({frozenset(cases) for cases in drawn.values()}) <= 2  # look-ups and pictures
    measures = [name for task in found for name, value in task.measure().items() if 0 <= value <= 4]
    assert {"imagerag": {"right", "shown", "references"}}.get(section, {"right"}) <= set(measures)


def test_a_pool_is_reordered_for_the_species_that_it_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(papers_sections, "SIZE", 150)
    found, stock = listed(bench, "rerank-pool"), bench.shelf("generic", 150, 0).stock
    there = [f"look-up {one.name}" for one in RARE if stock.has(one.name)]
    assert 0 < len(there) < len(RARE)
    assert [(one.case, one.column) for one in found] == [
        (case, column) for case in there for column in ("none", "bm25", "mllm")
    ]
    assert all(one.measure()["in the library"] == 1.0 for one in found)


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
def test_each_mode_draws_from_what_it_looks_up(
    bench: Bench, generator: SquareGenerator, column: str, prompt: str | None, references: int
) -> None:
    task = of(listed(bench, "imagerag"), column, "two")
    assert task.measure()["references"] == references
    last = generator.requests[-1]
    assert len(last.references) == references
    assert last.prompt.startswith(prompt or task.case.split(" ", 1)[1])
    said = " ".join(reference.concept for reference in last.references)
    assert (said == last.prompt) == (column == "prompt")


def test_concepts_and_captions_are_looked_up_by_different_words(bench: Bench) -> None:
    asked: dict[str, list[str]] = {}
    shelf = bench.shelf("even", SIZE, 0)
    for column in ("concepts", "captions"):
        asked[column] = []
        heard: Any = Listening(shelf.dense, asked[column])
        bench.shelves["even", SIZE, 0] = replace(shelf, dense=heard)
        of(listed(bench, "imagerag"), column, "rare").measure()
    assert asked["captions"] == [f"a photo of a {name}" for name in asked["concepts"]]


class Listening:
    """Remember what is looked up."""

    def __init__(self, found: Any, asked: list[str]) -> None:
        self.found, self.asked = found, asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self.found, name)

    def search(self, query: str, k: int) -> list[Hit]:
        self.asked.append(query)
        hits: list[Hit] = self.found.search(query, k)
        return hits


def test_the_model_puts_the_last_hit_first(bench: Bench) -> None:
    shelf, found = bench.shelf("hard", SIZE, 0), listed(bench, "rerank")
    (case,) = {task.case for task in found if "look-up" not in task.case and task.tier == "rare"}
    text = f"a photo of a {parse_prompt(case.split(' ', 1)[1]).subjects[0]}"
    hits = shelf.dense.search(text, 6)
    for column, wanted in (("none", hits[0].id), ("mllm", hits[-1].id)):
        of(found, column, "rare").measure()
        inner = bench.context.generator._generator  # type: ignore[attr-defined]
        assert inner.requests[-1].references[0].hit.id == wanted


def test_each_stage_is_left_out_where_its_column_says_so(bench: Bench) -> None:
    shelf, (case,) = bench.shelf("even", 200, 0), in_turn(("two",), 1, 0)
    joints, prompts = {}, {}
    for column, stage in STAGES.items():
        context = bench.over(shelf, crossmodal=staged(bench, stage))
        output = crossmodal.invoke(changed(prompt=case.prompt, seed=case.seed), context=context)
        joints[column] = output.get("joint")
        prompts[column] = output["outcome"]["best"]["request"]["prompt"]
    assert joints["no RAG"] is None
    kept = {column: joint["kept"] for column, joint in joints.items() if joint}
    assert kept["no sparse"] == 200 > kept["all"] == kept["no dense"] == kept["no Pareto"]
    bare = [column for column, joint in joints.items() if joint and not joint["members"][0]["cosines"]]
    assert bare == ["no dense"]
    said = {column for column, prompt in prompts.items() if "Use only" in prompt}
    assert said == {"instruction"}


def test_without_the_pareto_set_the_highest_means_are_taken(bench: Bench) -> None:
    shelf, (case,) = bench.shelf("even", 200, 0), in_turn(("two",), 1, 0)
    everything = bench.over(shelf, crossmodal=staged(bench, STAGES["no Pareto"] | {"scored": "satisfied"}))
    output = crossmodal.invoke(changed(prompt=case.prompt, seed=case.seed), context=everything)
    members = output["joint"]["members"]
    vectors = satisfaction([one.caption for one in shelf.dense.entries()], case.species)
    hits = [one.id for one, flags in zip(shelf.dense.entries(), vectors, strict=True) if any(flags)]
    flags = np.asarray([one for one in vectors if any(one)])
    cosines = IndexScorer(shelf.dense.vector, bench.encoder).score(case.species, hits)
    means = (cosines * flags).sum(axis=1) / flags.sum(axis=1)  # of what the caption says
    best = sorted(zip(means.tolist(), hits, strict=True), reverse=True)[:2]
    assert {one["hit"]["id"] for one in members} == {id for _, id in best}


def test_coverage_counts_what_the_library_has(bench: Bench) -> None:
    shelf = bench.shelf("even", 200, 0)
    pair = (RARE[0].name, RARE[1].name)
    full = coverage(bench, shelf, pair, "Pareto")
    assert full == {"coverage": 1.0, "pictures": 2.0}
    assert coverage(bench, shelf, (RARE[0].name, "stranger wren"), "Pareto")["coverage"] == 1.0
    assert coverage(bench, shelf, pair, "BM25")["pictures"] == 2.0


def test_a_describing_model_captions_a_species_by_its_looks_and_nothing_else(bench: Bench) -> None:
    asked: list[str] = []
    shelf = bench.shelf("hard", SIZE, 0)
    heard: Any = Listening(shelf.dense, asked)
    bench.shelves["hard", SIZE, 0] = replace(shelf, dense=heard)
    task = of(listed(bench, "captions"), "describing", "rare")
    task.measure()
    name = parse_prompt(task.case.split(" ", 1)[1]).subjects[0]
    looks = describe(species_named(name))
    assert asked == [f"a photo of a {looks}"] or asked == [f"a photo of an {looks}"]
    decision = Describing(inner=bench.context.model).with_structured_output(Decision, include_raw=True)
    said: Any = decision.invoke([human({"prompt": "a finch"}, [])])
    assert read(said, Decision).why == "never"


def test_without_the_map_the_same_pictures_come_in_the_other_order(
    bench: Bench, generator: SquareGenerator
) -> None:
    found, seen = listed(bench, "binding", 1), {}
    bench.shelf("hard", 400, 0)
    for column in ("all", "no map"):
        of(found, column, "two").measure()
        seen[column] = [one.hit.id for one in generator.requests[-1].references]
    assert len(seen["all"]) == 2
    assert seen["no map"] == seen["all"][::-1]


def test_turned_pictures_stay_beside_their_references(tmp_path: Path) -> None:
    store, generator = ArtifactStore(tmp_path), SquareGenerator()
    wanted = request(store, 0.5)
    pair = wanted.model_copy(
        update={"references": (*wanted.references, *request(store, 0.1, "blue").references)}
    )
    images = [store.open(one.picture) for one in pair.references]
    shown: list[Any] = []
    inner: Any = SimpleNamespace(
        capabilities=generator.capabilities, generate=lambda asked, given, _: shown.extend((asked, given))
    )
    Turned(inner).generate(pair, images, lambda *_: None)
    asked, given = shown
    assert [one.hit.score for one in asked.references] == [0.1, 0.5]
    assert [image.getpixel((0, 0)) for image in given] == [(0, 0, 255), (255, 0, 0)]


# records


def counting(calls: list[str], column: str = "c", case: str = "x") -> Task:
    def measure() -> Measures:
        calls.append(case)
        return {"right": 1.0}

    return Task("imagerag", column, 0, "rare", case, measure)


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    calls: list[str] = []
    for _ in range(2):
        (record,) = Records(tmp_path / "r.jsonl", "s").make([counting(calls)])
        assert record["measures"] == {"right": 1.0}
    assert len(calls) == 1
    list(Records(tmp_path / "r.jsonl", "other engines").make([counting(calls)]))
    assert len(calls) == 2


def test_a_cut_line_is_made_again_and_spoils_no_other(tmp_path: Path) -> None:
    calls: list[str] = []
    path = tmp_path / "r.jsonl"
    list(Records(path, "s").make([counting(calls), counting(calls, case="y")]))
    path.write_text(path.read_text("utf-8")[:-9], encoding="utf-8")
    list(Records(path, "s").make([counting(calls), counting(calls, case="y")]))
    assert calls == ["x", "y", "y"]
    assert [one["case"] for one in Records(path, "s").make([counting(calls), counting(calls, case="y")])] == [
        "x",
        "y",
    ]
    assert len(calls) == 3


# figures


KINDS: tuple[Literal["better", "about"], ...] = ("better", "about")


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
    """Make twenty cases of each column, of which so many are right."""
    return [
        record(column, f"case {n}", float(n < right)) for column, right in share.items() for n in range(20)
    ]


@pytest.mark.parametrize(
    ("kind", "ci", "said"),
    [
        ("better", (0.01, 0.3), "reproduced"),
        ("better", (-0.1, 0.3), "not reproduced: no difference shown"),
        ("better", (-0.3, -0.1), "not reproduced: reversed"),
        ("about", (-0.05, 0.1), "reproduced"),
        ("about", (-0.05, 0.2), "not reproduced: the interval is too wide"),
        ("about", (0.02, 0.2), "not reproduced: they differ"),
        ("about", None, "not measured"),
    ],
)
def test_a_claim_needs_its_whole_interval(kind: str, ci: tuple[float, float] | None, said: str) -> None:
    assert verdict(kind, ci) == said


@pytest.mark.parametrize("kind", ["better", "about"])
def test_without_room_to_differ_nothing_can_be_told(kind: str) -> None:
    assert verdict(kind, (-0.05, 0.05), cramped=True).startswith("cannot tell: both are at the ceiling or")
    assert verdict("better", (0.01, 0.08), cramped=True) == "reproduced"
    assert verdict(kind, (-0.08, -0.01), cramped=True) != verdict(kind, (-0.05, 0.05), cramped=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "cramped"),
    [
        ({"rare": 1.0, "novel": 0.0}, {"rare": 1.0, "novel": 0.0}, True),
        ({"rare": 0.95, "novel": 0.05}, {"rare": 1.0, "novel": 0.1}, False),  # some cases differ
        ({"rare": 0.95, "novel": 0.05}, {"rare": 0.95, "novel": 0.05}, True),
        ({"rare": 1.0, "novel": 0.4}, {"rare": 1.0, "novel": 0.4}, False),
        ({"rare": 1.0, "novel": 0.0}, {"rare": 1.0, "novel": 1.0}, False),
    ],
)
def test_columns_at_the_ends_of_every_tier_are_told_as_such(
    ours: dict[str, float], theirs: dict[str, float], cramped: bool
) -> None:
    made = [
        record(name, f"{tier} {number}", float(number < 20 * shares[tier]), tier=tier)
        for name, shares in (("bm25", ours), ("none", theirs))
        for tier in shares
        for number in range(20)
    ]
    found = judged(Claim("bm25", "none", "right", kind="about"), made)
    assert (found["verdict"] == CRAMPED) == cramped
    gain = judged(Claim("bm25", "none", "right", "rare"), made)  # no room for one
    assert gain["verdict"] == CRAMPED


def test_columns_near_the_ceiling_are_about_equal_where_cases_differ() -> None:
    ours = [record("bm25", f"case {number}", float(number != 3)) for number in range(60)]
    theirs = [record("none", f"case {number}", float(number not in (7, 9))) for number in range(60)]
    said = {kind: judged(Claim("bm25", "none", "right", kind=kind), [*ours, *theirs]) for kind in KINDS}
    assert {kind: one["verdict"] for kind, one in said.items()} == {"about": "reproduced", "better": CRAMPED}


def test_realrags_steps_at_an_end_are_told_as_such() -> None:
    claims = {
        (one["claim"], one["measure"]): one["verdict"] for one in from_realrag(realrag_figures())["claims"]
    }
    assert claims["reflective ≥ normal", "R@1, library seen"] == CRAMPED  # all are right
    assert claims["reflective ≥ normal", "right"] == "not reproduced: no difference shown"


def test_gains_are_on_the_same_cases() -> None:
    found = judged(Claim("captions", "base", "right"), records(captions=18, base=2))
    assert (found["gain"], found["n"], found["verdict"]) == (0.8, 20, "reproduced")
    low, high = found["ci"]
    assert 0.5 < low < 0.8 < high <= 1


def test_every_seed_has_its_own_mean() -> None:
    twice = [record("captions", "x", right, seed) for seed, right in enumerate((1.0, 0.0, 1.0))]
    (score,) = summarise("imagerag", twice)["measures"]["right"]["all"].values()
    assert (score["n"], score["by_seed"]) == (3, [1.0, 0.0, 1.0])
    assert score["mean"] == pytest.approx(2 / 3)


def test_a_case_is_compared_within_its_seed() -> None:
    ours = [record("captions", "x", 1.0, seed) for seed in range(3)]
    found = judged(Claim("captions", "base", "right"), [*ours, record("base", "x", 0.0, 2)])
    assert (found["gain"], found["n"]) == (1.0, 1)


def test_a_claim_of_a_column_that_was_not_measured_is_left_out() -> None:
    said = [one["claim"] for one in summarise("imagerag", records(captions=18, base=2))["claims"]]
    assert said == ["captions ≥ base", "captions ≥ base"]  # rare, all


def test_every_claim_is_of_columns_that_are_measured() -> None:
    columns = {
        "imagerag": {"base", *MODES},
        "pool": {"0", "100", "1000", "10000"},
        "rerank": set(RERANKERS),
        "rerank-pool": {"none", "bm25", "mllm"},
        "crossmodal": {"Pareto", "BM25", "dense", *STAGES},
        "captions": {"concepts", "describing"},
        "domain": {"generic", "domain", "base"},
        "binding": {"all", "no dense", "no map"},
    }
    assert {*columns, *papers.COMPARISONS} == set(papers.SECTIONS) == set(TITLES) == set(NOTES)
    for section, claims in CLAIMS.items():
        assert {name for claim in claims for name in (claim.better, claim.worse)} <= columns[section]


def realrag_figures() -> dict[str, Any]:
    columns = ("base", "zero", "normal", "reflective", "self_contrast")
    drawn = [
        {"seed": 0, "tier": tier, "column": column, "right": n % 3 > 0, "likeness": {"looks": 0.2}}
        for tier in ("known", "rare", "novel")
        for column in columns
        for n in range(6)
    ]
    found = [
        {
            "seed": 0,
            "tier": tier,
            "library": "seen",
            "method": method,
            "epoch": 2 * (method != "zero"),
            "right": True,
        }
        for tier in ("known", "rare", "novel")
        for method in columns[1:4]
    ]
    return summarise_realrag(
        found,
        drawn,
        {"command": "python -m pleinair.evals.realrag.run", "distance": {"base": 0.05, "real": 0.01}},
    )


def figures() -> dict[str, Any]:
    about = {"command": "python -m pleinair.evals papers", "prompts": 20, "seeds": 1}
    return {
        "imagerag": summarise("imagerag", records(captions=18, concepts=12, prompt=12, rephrase=2, base=2)),
        "realrag": from_realrag(realrag_figures()),
        "about": about,
    }


def test_the_page_says_every_claim_and_what_became_of_it() -> None:
    page = write_markdown(figures())
    assert "| captions ≥ concepts | right | rare | 30.0 % [" in page
    assert "| concepts ≥ prompt | right | rare | 0.0 % [" in page
    assert page.count("not reproduced: no difference shown") >= 2
    assert "| reflective ≥ zero | right | all | 0.0 % [" in page
    assert "| R@1, library seen | zero | normal | reflective | n |" in page
    assert "looks, on average: base 0.20, zero 0.20" in page
    assert "Fréchet distance × 100, on average: base 5.00, real 1.00." in page
    assert TITLES["pool"] not in page


def test_plain_means_are_a_line_and_shares_a_table() -> None:
    pairs = [record("Pareto", "x", 1.0), record("BM25", "x", 0.0)]
    for one in pairs:
        one["measures"] = {"coverage": one["measures"]["right"], "pictures": 2.0}
    about = {"command": "c", "prompts": 1, "seeds": 1}
    page = write_markdown({"crossmodal": summarise("crossmodal", pairs), "about": about})
    assert "| coverage | Pareto | BM25 | n |" in page
    assert "pictures, on average: Pareto 2.00, BM25 2.00." in page


def test_a_picture_for_each_section(tmp_path: Path) -> None:
    paths = plot(figures(), tmp_path)
    assert [path.name for path in paths] == ["papers-imagerag.png", "papers-realrag.png"]
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 500


# command line


def test_sections_are_chosen_in_their_order() -> None:
    assert chosen("realrag, imagerag") == ["imagerag", "realrag"]
    with pytest.raises(BadInput, match="'imagrag'"):
        chosen("imagrag")


def test_settings_count_while_it_runs_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__FOLDER", "before")
    with overridden(["generator.folder=there", "retrieval.k=2"]):
        assert os.environ["PLEINAIR_GENERATOR__FOLDER"] == "there"
        assert os.environ["PLEINAIR_RETRIEVAL__K"] == "2"
    assert os.environ["PLEINAIR_GENERATOR__FOLDER"] == "before"
    assert "PLEINAIR_RETRIEVAL__K" not in os.environ
    with pytest.raises(BadInput, match="key=value"), overridden(["generator.folder"]):
        pass


def test_the_command_writes_figures_page_and_plots(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(papers, "pocket_bench", lambda work: (bench, "quick"))
    out = tmp_path / "report"
    words = ["papers", "--only", "imagerag", "--prompts", "2", "--seeds", "2", "--out", str(out)]
    assert main([*words, "--json", str(tmp_path / "f.json"), "--work", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert found["imagerag"]["measures"]["right"]["all"]["captions"]["n"] == 4
    assert len((out / "papers.jsonl").read_text("utf-8").splitlines()) == found["imagerag"]["records"] == 20
    assert {path.name for path in out.iterdir()} == {"papers.jsonl", "papers.md", "papers-imagerag.png"}
    assert "--only imagerag --prompts 2 --seeds 2" in capsys.readouterr().out
    assert main(["papers", "--only", "nothing"]) == 1
