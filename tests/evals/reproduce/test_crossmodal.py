"""Cross-modal RAG on tiny data sets with the pocket engines: queries, pools, recall, cost, coverage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.data_set_folders import write_data_set
from support.openai_server import KEY, MODEL, proven, served
from support.paper_data import CLASSES, draw, save_scorers, write_data

from pleinair.app.settings import altered, load
from pleinair.evals.__main__ import main
from pleinair.evals.reproduce import crossmodal, pools
from pleinair.evals.reproduce.experiment import Options, Setup
from pleinair.evals.reproduce.generate import Studio, work_of
from pleinair.evals.reproduce.plan import DOMAIN, Arm, Queries
from pleinair.evals.reproduce.recall import rank_of
from pleinair.evals.reproduce.records import Records
from pleinair.tools.crossmodal import WHOLE_PHRASES
from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.data_sets.recognise import LAYOUTS, recognise
from pleinair.tools.model_files.folders import locate
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.types import BadInput

CAPTIONS = ("a {} that looks left", "a {} that looks right", "one small bird")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("data"), "imagenet_lt", "coco:karpathy", classes=CLASSES[:2])
    write_data_set("cub", folder / "cub", CLASSES, draw=draw, captions=CAPTIONS)
    return folder


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make tables 1, 3 and 4 once for all tests that read them."""
    out = tmp_path_factory.mktemp("out")
    scorers = save_scorers(tmp_path_factory.mktemp("weights"))
    words = [
        "--only",
        "1,2:no-rag,3,4",
        "--data-sets",
        "coco,imagenet_lt",
        "--set",
        "crossmodal.adaptor=''",
        *scorers,
    ]
    assert main(["crossmodal", "--data", str(data), "--profile", "pocket", "--out", str(out), *words]) == 0
    return out


def cells(made: Path, table: str) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    figures = json.loads((made / "crossmodal.json").read_text("utf-8"))
    rows = figures["tables"][f"crossmodal/{table}"]
    return {(cell["row"], cell["data_set"], cell["measure"]): cell for cell in rows}


def test_the_ablation_is_measured_against_the_true_image_of_each_class(made: Path) -> None:
    table = cells(made, "4")
    for row in ("Cross-modal RAG (domain pool)", "without the dense stage (domain pool)"):
        cell = table[row, "imagenet_lt", "CLIP"]
        assert cell["n"] == cell["groups"] == 2 and -1 <= cell["mean"] <= 1
        assert table[row, "imagenet_lt", "SigLIP"]["why"] == "no scorer of SigLIP-I"
    entries = [entry for entry in Records(made / "records.jsonl") if entry["arm"].startswith("imagenet_lt")]
    assert {entry["prompt"] for entry in entries} == {f"A photo of {name}" for name in CLASSES[:2]}
    plain = [entry for entry in entries if "no-rag" in entry["arm"]]
    assert len(plain) == 2 and not any(entry["references"] or entry["queries"] for entry in plain)
    assert all(entry["references"] for entry in entries if entry["arm"] == "imagenet_lt/crossmodal/domain")


def test_recall_counts_each_caption_and_by_the_authors_script_the_longest(made: Path) -> None:
    table = cells(made, "1")
    every, longest = (
        table[f"encoder, {kind}", "coco", "R@1"] for kind in ("each caption", "longest caption")
    )
    assert every["n"] == 5 * longest["n"] and every["groups"] == longest["n"]
    recalls = [table["encoder, each caption", "coco", f"R@{depth}"]["mean"] for depth in (1, 5, 10)]
    assert recalls == sorted(recalls) and 0 < recalls[0] < 100 and recalls[-1] == 100
    assert "crossmodal.adaptor" in table["adaptor, longest caption", "coco", "R@1"]["why"]
    assert table["adaptor, longest caption", "coco", "R@1"]["published"]["value"] == 80.78


def test_the_cost_of_the_encoder_and_of_the_sparse_stage_is_measured(made: Path) -> None:
    table = cells(made, "3")
    assert (
        table["encoder", "coco", "parameters"]["mean"]
        > table["sparse (CPU)", "coco", "parameters"]["mean"]
        == 0
    )
    assert table["encoder", "coco", "latency"]["mean"] > 0 < table["sparse (CPU)", "coco", "latency"]["mean"]


def test_the_adaptor_ranks_by_the_sub_queries_of_each_caption(data: Path, tmp_path: Path) -> None:
    words = ["--only", "1", "--data-sets", "coco", "--limit", "3", "--scorer", "none"]
    setting = ["--set", "crossmodal.adaptor=pocket/catalogue/adaptor", "--out", str(tmp_path)]
    command = ["crossmodal", "--data", str(data), "--profile", "pocket", *words, *setting]
    assert main(command) == 0
    cell = cells(tmp_path, "1")["adaptor, longest caption", "coco", "R@10"]
    assert (cell["mean"], cell["n"]) == (100, 3)
    lines = (tmp_path / "records.jsonl").read_text("utf-8")
    assert lines.count('"arm": "sub-queries"') == lines.count('"arm": "recall"') == 3
    assert main(command) == 0  # nothing is asked or ranked again
    assert (tmp_path / "records.jsonl").read_text("utf-8") == lines


def test_other_sub_queries_or_weights_are_measured_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaptor, out = tmp_path / "adaptor", tmp_path / "out"
    shutil.copytree(locate("pocket/catalogue/adaptor"), adaptor)
    words = ["--only", "1", "--data-sets", "coco", "--limit", "2", "--scorer", "none", "--out", str(out)]
    command = ["crossmodal", "--data", str(data), "--profile", "pocket", *words]
    command += ["--set", f"crossmodal.adaptor={adaptor}"]

    def entries(*setting: str) -> tuple[int, int]:
        assert main([*command, *setting]) == 0
        arms = [entry["arm"] for entry in Records(out / "records.jsonl")]
        return arms.count("sub-queries"), arms.count("recall")

    assert entries() == (2, 2)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(PocketChat()) as service:
        proven(service.url, MODEL)
        options = {"backend": "openai", "model": MODEL, "base_url": service.url}
        setting = [f"--set=mllm.{name}={value}" for name, value in options.items()]
        assert entries(*setting, "--set=crossmodal.decomposition=whole_phrases") == (4, 2)  # the same texts
        assert all(WHOLE_PHRASES[:60] in json.dumps(request) for request in service.requests)
    weights = load_file(adaptor / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, adaptor / "model.safetensors")
    assert entries() == (4, 4)


def test_equal_scores_do_not_make_the_true_image_the_first() -> None:
    scores = np.array([0.5, 0.5, 0.9], dtype=np.float32)
    assert [rank_of(scores, place) for place in range(3)] == [2, 2, 0]


def test_a_query_of_cub_hides_its_own_image_and_no_other(data: Path) -> None:
    birds = recognise(data / "cub")
    test = crossmodal.query_test(birds, Options((data,), Path("out")))
    assert len(test.pool) == len(birds.examples)
    assert all(example.captions[0] == example.class_name for example in test.pool)
    assert {subject.prompt for subject in test.subjects} == {
        f"Draw a {name.capitalize()}. a {name} that looks left" for name in CLASSES
    }
    for subject in test.subjects:
        assert [str(birds.folder / subject.left_out)] == [str(path) for path in subject.truth]
    pools.require_apart(birds, test.subjects, test.pool)
    shown = [replace(subject, left_out="") for subject in test.subjects]
    with pytest.raises(BadInput, match="is in the pool that it searches"):
        pools.require_apart(birds, shown, test.pool)


def test_the_hidden_image_is_never_a_reference_though_it_is_the_best(data: Path, tmp_path: Path) -> None:
    birds = recognise(data / "cub")
    options = Options((data,), tmp_path)
    test = crossmodal.query_test(birds, options)
    pools.write_domain(birds, test, tmp_path)
    # a prompt of the pocket models' grammar, and of the three images of its species the first one hidden
    name = CLASSES[0]
    own = [example.path for example in test.pool if example.class_name.lower() == name]
    subjects = tuple(replace(test.subjects[0], prompt=f"a photo of a {name}", left_out=path) for path in own)
    line = crossmodal.sheets(load("pocket"), options)[0].lines[1]
    folder = pools.domain_folder(birds, test, tmp_path)
    work = work_of(Arm("cub", "crossmodal", DOMAIN), line, load("pocket"), {}, [folder], "", subjects)
    studio = Studio(tmp_path)
    studio.run(work, 0, len(subjects))
    for subject, entry in studio.entries(work):
        (reference,) = entry["references"]
        assert reference["id"] in own and reference["id"] != subject.left_out
    scores = crossmodal.coverage_scores(Setup(options, load("pocket"), {}, {"cub": test}, studio), work)
    assert scores["coverage"].mean == 1 and scores["BM25 top-1"].mean == 1 and scores["coverage"].n == 3
    alone = tuple(
        example if example.path == own[0] else replace(example, captions=("a",)) for example in test.pool
    )
    setup = Setup(options, load("pocket"), {}, {"cub": replace(test, pool=alone)}, studio)
    shares = crossmodal.coverage_scores(setup, work)["BM25 top-1"].values
    assert shares == (0, 1, 1)  # only the first image's captions name the species; its own prompt lacks it


def paintings(*titles: str) -> DataSet:
    examples = tuple(
        Example(f"{number}.jpg", "Cubism", (), "", {"title": title, "artist": "A. Painter"})
        for number, title in enumerate(titles)
    )
    return DataSet(LAYOUTS["wikiart"], Path("art"), ("Cubism",), examples)


def test_of_two_nearly_equal_titles_the_first_is_the_query_and_the_other_in_the_pool() -> None:
    art = paintings(
        "View of the harbour at dawn",
        "View of the harbour at dusk",
        "Portrait",
        "Still life with four green pears",
    )
    test: Queries = crossmodal.query_test(art, Options((), Path("out")))
    assert [subject.prompt for subject in test.subjects] == [
        "View of the harbour at dawn in the style of A. Painter"
    ]
    assert [example.path for example in test.pool] == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize(("words", "queries"), [("in a storm", 1), ("in a great storm", 0)])
def test_titles_are_near_up_to_three_words(words: str, queries: int) -> None:
    art = paintings("Boats", f"Boats {words}")
    assert len(crossmodal.query_test(art, Options((), Path("out"))).subjects) == queries


def test_every_row_of_the_tables_has_the_published_settings_but_for_its_own() -> None:
    settings = load("pocket", {"crossmodal.scored": "satisfied"})
    lines = [line for sheet in crossmodal.sheets(settings, Options((), Path("out"))) for line in sheet.lines]
    rows = {line.variant.name: altered(settings, line.variant.settings).crossmodal for line in lines}
    assert {name: (row.rag, row.dense) for name, row in rows.items()} == {
        "no-rag": (False, True),
        "crossmodal": (True, True),
        "no-dense": (True, False),
    }
    assert {row.scored for row in rows.values() if row.rag} == {"all"}


@pytest.mark.parametrize(
    ("first", "other", "is_near"),
    [
        ("a red bird", "a blue bird", True),
        ("a red bird", "a red", True),
        ("a red bird", "a small blue bird", False),
        ("a red bird", "bird red a", False),
        ("a red bird", "red bird blue", False),
        ("a red bird", "a red bird", True),
    ],
)
def test_captions_are_near_if_one_token_is_changed_more_or_less(
    first: str, other: str, is_near: bool
) -> None:
    birds = tuple(Example(f"{n}.jpg", "Tern", (text,)) for n, text in enumerate((first, other)))
    data_set = DataSet(LAYOUTS["cub"], Path("cub"), ("Tern",), birds)
    assert len(crossmodal.query_test(data_set, Options((), Path("out"))).subjects) == 2 * is_near
