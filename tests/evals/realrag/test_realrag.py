"""The comparison of RealRAG's retrievers: its queries, its figures and the verdicts on the paper's order."""

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from support.fake_engines import SquareGenerator, make_context

from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.realrag.bench import (
    COLUMNS,
    ENCODER,
    LOSSES,
    TIERS,
    Bench,
    Trained,
    names_of,
    pairs_of,
    queries,
    recalls,
    species_in_turn,
    train_retriever,
    write_library,
)
from pleinair.evals.realrag.run import read_options, summarise, write_markdown
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.registry import resolve
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions
from pleinair.tools.types import GenerateRequest

ABOUT: dict[str, Any] = {
    "command": "python …",
    "seeds": 3,
    "each": 6,
    "look_alikes": 4,
    "choices": {"epochs": 4, "collisions": "class"},
}
DISTANCES = dict.fromkeys((*COLUMNS, "real"), 0.125)
RIGHT = {"zero": 0, "normal": 3, "reflective": 6}  # of ten
LIBRARIES = ("R@1, library seen", "R@1, library held out")


def retrieved(seeds: int = 1) -> list[dict[str, Any]]:
    """Return ten queries a tier and library: reflective starts behind normal and ends before it."""
    records = []
    for seed, measure, tier, number in itertools.product(range(seeds), LIBRARIES, TIERS, range(10)):
        case = {"seed": seed, "tier": tier, "name": f"{tier} {number}", "case": f"{tier} {number}"}
        records.append(case | {"column": "zero", "epoch": 0, "measures": {measure: 0.0}})
        for column, epoch in itertools.product(("normal", "reflective"), (2, 4)):
            share = RIGHT[column] if epoch == 4 else 2 * (column == "normal")
            measures = {measure: float(number < share)}
            records.append(case | {"column": column, "epoch": epoch, "measures": measures})
    return records


def generated() -> list[dict[str, Any]]:
    return [
        {
            "seed": 0,
            "tier": tier,
            "name": tier,
            "case": tier,
            "column": column,
            "measures": {"right": float(column == "reflective"), "CLIP-T": 0.25, "looks": 0.5},
        }
        for tier, column in itertools.product(TIERS, COLUMNS)
    ]


def page_of(figures: dict[str, Any]) -> str:
    return write_markdown(ABOUT | figures)


def test_the_last_epoch_counts() -> None:
    figures = summarise(retrieved(), generated(), DISTANCES)
    for measure in LIBRARIES:
        shares = {column: score["mean"] for column, score in figures["measures"][measure]["all"].items()}
        assert shares == pytest.approx({"zero": 0, "normal": 0.3, "reflective": 0.6})
        assert figures["measures"][measure]["rare"]["zero"]["n"] == 10


def test_the_curve_has_every_checkpoint() -> None:
    curve = summarise(retrieved(), generated(), DISTANCES)["curve"]["R@1, library held out"]
    assert curve["normal"] == pytest.approx({"2": 0.2, "4": 0.3})
    assert curve["reflective"] == pytest.approx({"2": 0.0, "4": 0.6})


def test_gains_are_of_the_same_queries() -> None:
    claims = summarise(retrieved(), generated(), DISTANCES)["claims"]
    (claim,) = [
        claim
        for claim in claims
        if (claim["claim"], claim["measure"], claim["tier"]) == ("reflective ≥ normal", LIBRARIES[0], "all")
    ]
    assert claim["gain"] == pytest.approx(0.3)
    assert (claim["n"], claim["verdict"]) == (30, "reproduced")
    low, high = claim["ci"]
    assert 0 < low < 0.3 < high


def test_every_step_is_judged_on_every_tier() -> None:
    claims = summarise(retrieved(), generated(), DISTANCES)["claims"]
    assert len({(claim["claim"], claim["measure"], claim["tier"]) for claim in claims}) == 3 * 3 * 4


def test_seeds_and_wordings_of_a_species_are_one_value() -> None:
    once, thrice = (summarise(retrieved(seeds), generated(), DISTANCES) for seeds in (1, 3))
    assert thrice["claims"] == once["claims"]
    for measure in LIBRARIES:
        for column, score in thrice["measures"][measure]["all"].items():
            expected = once["measures"][measure]["all"][column]
            assert (score["mean"], score["ci"], score["n"]) == (expected["mean"], expected["ci"], 30)


def test_a_species_counts_by_its_mean() -> None:
    records = [
        {
            "seed": 0,
            "tier": "rare",
            "name": name,
            "case": str(number),
            "column": "zero",
            "measures": {"right": right},
        }
        for number, (name, right) in enumerate(zip("aab", (1.0, 0.0, 1.0), strict=True))
    ]
    score = summarise(retrieved(), records, {})["measures"]["right"]["all"]["zero"]
    assert (score["mean"], score["n"]) == (0.75, 2)


def test_the_page_has_every_step_and_names_what_was_not_measured() -> None:
    page = page_of(summarise(retrieved(), generated(), DISTANCES))
    assert "images of a species and 4 look-alikes, 4 epochs" in page
    assert "FID itself is\nnot measured" in page
    assert "Fréchet distance × 100, on average: base 12.50, zero 12.50" in page
    assert "| reflective ≥ normal | R@1, library held out | all | 30.0 % [" in page
    assert "CLIP-T, on average: base 0.25, zero 0.25" in page
    assert "| reflective | 0.00 | 0.60 |" in page


def test_without_images_the_rest_is_reported() -> None:
    page = page_of(summarise(retrieved(), [], {}))
    assert "| reflective ≥ zero | R@1, library seen | all |" in page
    assert "| right |" not in page


def test_species_are_of_the_tiers_in_turn_and_the_same_for_more() -> None:
    few, more = list(species_in_turn(9)), list(species_in_turn(36))
    assert few == more[:9]
    assert Counter(species.tier for species in more) == dict.fromkeys(TIERS, 12)
    assert len({species.name for species in more if species.tier == "rare"}) == 12


def test_a_query_is_right_if_the_first_image_is_of_the_species() -> None:
    units = np.eye(len(SPECIES), dtype=np.float32)
    texts = np.stack([units[SPECIES.index(species)] for species, _ in queries()])
    names = [species.name for species in SPECIES]
    for order, right in ((names, 1.0), (names[1:] + names[:1], 0.0)):
        records = recalls({"seed": 0, "measure": "R@1", "column": "zero"}, units, order, texts)
        assert {record["measures"]["R@1"] for record in records} == {right}


def test_look_alikes_have_no_name_and_come_last(tmp_path: Path) -> None:
    for count in (0, 5):
        write_library(tmp_path / str(count), seed=1, each=1, look_alikes=count)
    without, library = Library.open(tmp_path / "0"), Library.open(tmp_path / "5")
    assert names_of(without, without.items) == names_of(library, library.items)[: len(SPECIES)]
    assert [*names_of(library, library.items)][len(SPECIES) :] == [""] * 5
    assert {item.license for item in library.items.values()} == {"CC0-1.0"}
    assert not library.problems
    assert [pair.label for pair in pairs_of(library)] == [species.name for species in SPECIES]


def test_the_defaults_are_three_seeds() -> None:
    options = read_options([])
    assert (options.seeds, options.prompts, options.collisions) == (3, 36, "class")


class TintGenerator(SquareGenerator):
    """Generator of one colour for each prompt."""

    def generate(self, request: GenerateRequest, *rest: Any) -> Image.Image:
        tint = tuple(hashlib.sha256(request.prompt.encode()).digest()[:3])
        return Image.blend(super().generate(request, *rest), Image.new("RGB", (16, 16), tint), 0.9)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Train both retrievers of the comparison for two epochs, on the miniature world's encoder."""
    work = tmp_path_factory.mktemp("realrag")
    context = make_context(work, lambda *_: "", generator=TintGenerator())
    encoder = resolve("encoder", "open_clip")(**ENCODER)
    choices = ReflectiveOptions(epochs=2, learning_rate=1e-2)
    bench = Bench(
        work=work,
        choices=choices,
        each=1,
        look_alikes=0,
        context=context,
        encoder=encoder,
        oracle=cast(Oracle, None),
    )
    library = bench.library(0)
    index = bench.index(library, encoder)
    return {loss: train_retriever(bench, library, index, loss, seed=0) for loss in LOSSES}


def test_the_comparison_trains_each_column_with_its_own_loss(trainings: dict[str, Trained]) -> None:
    assert {column: config.choices.loss for column, (config, _) in trainings.items()} == {
        "normal": "normal",
        "reflective": "reflective",
    }
    weights = [(folder / "epoch-002.safetensors").read_bytes() for _, folder in trainings.values()]
    assert weights[0] != weights[1]


def test_only_the_reflective_retriever_is_tied_to_samples(trainings: dict[str, Trained]) -> None:
    samplings = {column: config.sampling for column, (config, _) in trainings.items()}
    assert samplings["normal"] is None
    assert samplings["reflective"] is not None and samplings["reflective"].sampler == "square"
