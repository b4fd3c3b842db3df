"""The reflective retriever: its exact loss, its training set, its checkpoints and its index."""

from collections.abc import Callable
from math import e, exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.colour_encoder import COLOURS, paint, write_squares
from support.retriever_trainings import LOOKS, Bench, BlueGenerator, WordEncoder
from torch.nn import functional

from pleinair.tools.realrag import Sampling
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag import reflective
from pleinair.tools.retrieval.realrag.data import (
    build_training_set,
    describe_pairs,
    find_negatives,
    generate_samples,
)
from pleinair.tools.retrieval.realrag.head import Head
from pleinair.tools.retrieval.realrag.pairs import Pair, pairs_by_folder
from pleinair.tools.retrieval.realrag.reflective import (
    ReflectiveEncoder,
    ReflectiveOptions,
    epochs_done,
    load_head,
)
from pleinair.tools.retrieval.realrag.training import PairTensors, reflective_logits, reflective_loss, train
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    pass

TEXTS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
IMAGES = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
NEGATIVES = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
OTHERS = ~torch.eye(2, dtype=torch.bool)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(reflective, "resolve", lambda kind, name: {"words": WordEncoder}[name])
    return Bench(tmp_path)


def loss(*, negatives: torch.Tensor | None = NEGATIVES, **options: Any) -> float:
    arguments: dict[str, Any] = {"others": OTHERS, "tau": 0.5, **options}
    return float(reflective_loss(TEXTS, IMAGES, negatives, **arguments))


def test_the_loss_is_equation_8() -> None:
    first = -log(exp(1 / 0.5) / (exp(1 / 0.5) + exp(0.6 / 0.5) + exp(0.6 / 0.5)))
    second = -log(exp(0.8 / 0.5) / (exp(0.8 / 0.5) + exp(0 / 0.5) + exp(0 / 0.5)))
    assert loss() == pytest.approx((first + second) / 2, abs=1e-6)


def test_as_printed_the_reflective_term_has_no_temperature() -> None:
    first = -log(exp(1 / 0.5) / (exp(1 / 0.5) + exp(0.6 / 0.5) + exp(0.6)))
    second = -log(exp(0.8 / 0.5) / (exp(0.8 / 0.5) + 1 + 1))
    assert loss(tau_on_reflective=False) == pytest.approx((first + second) / 2, abs=1e-6)


def test_as_printed_the_reflective_term_is_at_most_e() -> None:
    rows = functional.normalize(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    printed = reflective_logits(rows, rows.roll(1, 0), 1.0).exp()
    assert float(printed.max()) <= e
    assert float(reflective_logits(rows, rows, 1.0).exp().max()) == pytest.approx(e, rel=1e-5)
    assert float(reflective_logits(rows, rows, 0.07).exp().min()) > 1e6


def test_without_negatives_it_is_plain_infonce() -> None:
    expected = functional.cross_entropy(TEXTS @ IMAGES.T / 0.5, torch.arange(2))
    assert loss(negatives=None) == pytest.approx(float(expected), abs=1e-6)


def test_a_pair_without_a_negative_has_no_reflective_term() -> None:
    assert loss(present=torch.tensor([False, False])) == pytest.approx(loss(negatives=None), abs=1e-6)
    assert loss(negatives=None) < loss(present=torch.tensor([True, False])) < loss()


def test_the_reflective_term_pushes_the_prompt_away_from_its_negative() -> None:
    negatives = NEGATIVES.clone().requires_grad_()
    reflective_loss(TEXTS, IMAGES, negatives, others=OTHERS, tau=0.5).backward()  # type: ignore[no-untyped-call]
    assert negatives.grad is not None
    assert bool(((TEXTS * negatives.grad).sum(1) > 0).all())  # descent lowers the cosine


def test_an_untrained_head_changes_nothing() -> None:
    rows = functional.normalize(torch.randn(9, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    torch.testing.assert_close(Head(8, 16, seed=3)(rows), rows)


POOL = np.asarray([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
COPIES = np.asarray([0, 0, 1, 2])  # the first two are the same file
CLASSES = np.asarray([0, 0, 0, 1])


@pytest.mark.parametrize(("collisions", "expected"), [("image", 2), ("class", 3)])
def test_neither_the_positive_nor_a_copy_nor_optionally_its_class_is_a_negative(
    collisions: str, expected: int
) -> None:
    samples, rows = POOL[:1], np.asarray([0])
    assert find_negatives(samples, rows, rows, POOL, COPIES, CLASSES, collisions).tolist() == [expected]


def test_the_negative_is_the_nearest_image_to_the_sample() -> None:
    samples = np.asarray([[0.6, 0.8], [1, 0]], dtype=np.float32)
    numbers, rows = np.asarray([0, 1]), np.asarray([0, 3])
    assert find_negatives(samples, numbers, rows, POOL, COPIES, CLASSES, "image").tolist() == [2, 0]


def test_a_pair_has_no_negative_if_every_image_collides() -> None:
    rows, one_class = np.asarray([0]), np.zeros(4, dtype=np.int64)
    assert find_negatives(POOL[:1], rows, rows, POOL, COPIES, one_class, "class").tolist() == [-1]


@pytest.mark.parametrize("collisions", ["image", "class"])
@pytest.mark.parametrize("cells", [1, 100, 2**26])
def test_negatives_are_those_of_a_search_pair_by_pair(
    collisions: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleinair.tools.retrieval.realrag.data.CELLS", cells)
    rng = np.random.default_rng(0)
    pool, samples = rng.normal(size=(40, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    contents, labels = rng.integers(0, 25, 40), rng.integers(-1, 4, 40)
    numbers, rows = rng.integers(0, 5, 30), rng.integers(0, 40, 30)
    expected = []
    for number, row in zip(numbers, rows, strict=True):
        excluded = contents == contents[row]
        if collisions == "class":
            excluded |= labels == labels[row]
        expected.append(int(np.where(excluded, -np.inf, pool @ samples[number]).argmax()))
    negatives = find_negatives(samples, numbers, rows, pool, contents, labels, collisions)
    assert negatives.tolist() == expected


@pytest.mark.parametrize(
    ("collisions", "allowed"),
    [("image", [[0, 0, 1], [0, 0, 1], [1, 1, 0]]), ("class", [[0, 0, 0], [0, 0, 0], [0, 0, 0]])],
)
def test_the_same_rule_holds_within_a_batch(bench: Bench, collisions: str, allowed: list[list[int]]) -> None:
    training_set, size = bench.training_set(), len(bench.index)
    object.__setattr__(training_set, "contents", np.resize([0, 0, 1], size))
    object.__setattr__(training_set, "labels", np.zeros(size, dtype=np.int64))
    others = PairTensors(training_set, reflective=True).others(torch.tensor([0, 1, 2]), collisions)
    assert others.int().tolist() == allowed


def test_samples_are_generated_once_for_all_trainings(bench: Bench) -> None:
    bench.training_set()
    generated = len(bench.generator.requests)
    assert generated == len(LOOKS)
    bench.training_set(seed=5, loss="reflective")
    assert len(bench.generator.requests) == generated
    bench.training_set(samples=2)
    assert [request.seed for request in bench.generator.requests[generated:]] == [1] * len(LOOKS)


def test_a_sample_is_generated_with_all_that_the_retriever_is_tied_to(bench: Bench) -> None:
    values = {"width": 32, "height": 16, "num_inference_steps": 3, "guidance_scale": 2.5}
    sampling = Sampling(sampler="s", negative_prompt="snow", **values)  # type: ignore[arg-type]
    able = bench.generator.capabilities.model_copy(update={"negative_prompt": True})
    bench.generator.capabilities = able
    generate_samples(
        ["a bird"],
        generator=bench.generator,
        sampling=sampling,
        store=bench.store,
        each=1,
        on_progress=lambda done, total: None,
    )
    (request,) = bench.generator.requests
    assert request.model_dump(include={*values, "negative_prompt"}) == values | {"negative_prompt": "snow"}
    assert not request.references


def test_samples_of_another_generator_are_not_used(bench: Bench) -> None:
    bench.training_set()
    bench.generator = BlueGenerator()
    bench.generator.capabilities = bench.generator.capabilities.model_copy(update={"id": "square@2"})
    bench.training_set()
    assert len(bench.generator.requests) == len(LOOKS)


def test_a_lost_sample_is_generated_again(bench: Bench) -> None:
    bench.training_set()
    before = len(bench.generator.requests)
    for path in (bench.folder / "samples" / "sha256").rglob("*.png"):
        path.unlink()
    bench.training_set()
    assert len(bench.generator.requests) == before + len(LOOKS)


def test_the_generators_fault_is_the_negative(bench: Bench) -> None:
    pairs = describe_pairs(bench.training_set(collisions="image"), Library.open(bench.library))
    assert {pair["class"] for pair in pairs} == set(LOOKS)
    assert {str(pair["negative"]).split("/")[0] for pair in pairs} == {"azure"}
    assert all(pair["negative"] != pair["picture"] for pair in pairs)
    assert {pair["license"] for pair in pairs} == {"unknown"}


def test_the_class_rule_excludes_the_pairs_own_class(bench: Bench) -> None:
    training_set = bench.training_set(collisions="class")
    pairs = describe_pairs(training_set, Library.open(bench.library))
    assert all(str(pair["negative"]).split("/")[0] != pair["class"] for pair in pairs)


def test_a_library_of_one_class_is_refused(bench: Bench) -> None:
    pairs = [Pair("azure/0.png", "p", "azure"), Pair("gone.png", "q", "other")]
    with pytest.raises(BadInput, match="images of 1 classes"):
        parts: dict[str, Any] = {"index": bench.index, "encoder": bench.encoder, "store": bench.store}
        build_training_set(pairs, [], **parts, options=ReflectiveOptions())


def first_for(encoder: Any, index: Index, name: str) -> str:
    ((id, _),) = index.search(encoder.encode_text([f"A photo of a {name}"]), 1)[0]
    return id.split("/")[0]


@pytest.mark.parametrize("method", ["normal", "reflective"])
def test_training_teaches_names_that_the_frozen_encoder_lacks(bench: Bench, method: str) -> None:
    assert all(first_for(bench.encoder, bench.index, name) != name for name in LOOKS)
    encoder = ReflectiveEncoder(str(bench.train("out", loss=method, epochs=40, learning_rate=1e-2)))
    index = build_index(Library.open(bench.library), encoder, bench.folder / "trained")
    assert [first_for(encoder, index, name) for name in LOOKS] == list(LOOKS)


def test_the_text_tower_stays_frozen(bench: Bench) -> None:
    encoder = ReflectiveEncoder(str(bench.train("out", epochs=4)))
    np.testing.assert_array_equal(encoder.encode_text(["red"]), bench.encoder.encode_text(["red"]))
    images = [Image.new("RGB", (8, 8), "red")]
    changed = encoder.encode_images(images)
    assert np.abs(changed - bench.encoder.encode_images(images)).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(changed, axis=1), 1, atol=1e-5)
    assert changed.dtype == np.float32


def test_the_normal_loss_has_no_negatives(bench: Bench) -> None:
    assert set(bench.training_set(loss="normal").negatives.tolist()) == {-1}


def test_checkpoints_are_written_every_second_epoch_and_last(bench: Bench) -> None:
    assert epochs_done(bench.train("out", epochs=5)) == [2, 4, 5]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_stopped_training_ends_as_an_uninterrupted_one(bench: Bench, stop: int) -> None:
    changes: dict[str, Any] = {"epochs": 5, "batch": 4, "seed": 1}
    uninterrupted, training_set = bench.train("uninterrupted", **changes), bench.training_set(**changes)
    config, folder = bench.config(training_set, **changes), bench.folder / "stopped"
    running = train(training_set, config, folder)
    assert [next(running)[0] for _ in range(stop)] == list(range(1, stop + 1))
    epochs = [epoch for epoch, _ in train(training_set, config, folder)]
    assert epochs == list(range(stop // 2 * 2 + 1, 6))
    last = "epoch-005.safetensors"
    assert (folder / last).read_bytes() == (uninterrupted / last).read_bytes()


def test_a_finished_training_is_not_repeated(bench: Bench) -> None:
    folder, training_set = bench.train("out", epochs=2), bench.training_set()
    assert list(train(training_set, bench.config(training_set, epochs=2), folder)) == []


@pytest.mark.parametrize(
    ("change", "fields"),
    [({"tau": 0.1}, "choices"), ({"loss": "normal"}, "choices, lesson"), ({"seed": 1}, "choices")],
)
def test_a_folder_has_one_training(bench: Bench, change: dict[str, Any], fields: str) -> None:
    bench.train("out", epochs=2)
    with pytest.raises(BadInput, match=rf"another training \(other {fields}\)"):
        bench.train("out", epochs=2, **change)


def test_a_grown_library_is_another_training_set(bench: Bench) -> None:
    bench.train("out", epochs=2)
    paint(bench.library / "azure", "new.png", (10, 10, 240))
    with pytest.raises(BadInput, match=r"other lesson\)"):
        bench.train("out", epochs=2)


def test_the_training_of_another_generator_has_its_own_folder_and_id(bench: Bench) -> None:
    first = ReflectiveEncoder(str(bench.train("out", epochs=2)))
    bench.generator.capabilities = bench.generator.capabilities.model_copy(update={"id": "square@2"})
    with pytest.raises(BadInput, match=r"other sampling\)"):
        bench.train("out", epochs=2)
    second = ReflectiveEncoder(str(bench.train("other", epochs=2)))
    assert (first.training.generator, second.training.generator) == ("square", "square@2")
    assert first.id != second.id


def test_an_unfinished_training_is_opened_only_by_epoch(bench: Bench) -> None:
    training_set, folder = bench.training_set(), bench.folder / "out"
    running = train(training_set, bench.config(training_set, epochs=6), folder)
    for _ in range(3):
        next(running)
    with pytest.raises(BadInput, match=r"no checkpoint of epoch 6 \(there are: 2\)"):
        ReflectiveEncoder(str(folder))
    assert ReflectiveEncoder(str(folder), epoch=2).training.loss == "reflective"


def test_every_checkpoint_has_its_own_id(bench: Bench) -> None:
    folder = str(bench.train("out", epochs=4))
    ids = [ReflectiveEncoder(folder, epoch=epoch).id for epoch in (2, 4, 0)]
    assert ids[0] != ids[1] == ids[2]
    assert all(id.startswith("reflective:") and id.endswith("+colour-1") for id in ids)


def test_an_index_of_another_checkpoint_is_refused(bench: Bench) -> None:
    folder, library = str(bench.train("out", epochs=4)), Library.open(bench.library)
    second, fourth = (ReflectiveEncoder(folder, epoch=epoch) for epoch in (2, 4))
    index = build_index(library, second, bench.folder / "trained")
    with pytest.raises(BadInput, match=r"is of encoder `reflective:"):
        Index.open(bench.folder / "trained", fourth)
    with pytest.raises(BadInput, match=r"is of encoder `reflective:"):
        IndexRetriever(library, index, fourth)
    assert build_index(library, fourth, bench.folder / "trained").manifest.encoder == fourth.id


def test_a_new_image_is_retrieved_without_training(bench: Bench) -> None:
    folder = bench.train("out", epochs=4)
    encoder, before = ReflectiveEncoder(str(folder)), sorted(folder.iterdir())
    build_index(Library.open(bench.library), encoder, bench.folder / "trained")
    (bench.library / "novel").mkdir()
    paint(bench.library / "novel", "0.png", COLOURS["white"])
    encoder._frozen = frozen = WordEncoder()
    library = Library.open(bench.library)
    index = build_index(library, encoder, bench.folder / "trained")
    assert frozen.batches == [1]
    best = IndexRetriever(library, index, encoder).search("white", 1)
    assert [hit.id for hit in best] == ["novel/0.png"]
    assert sorted(folder.iterdir()) == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def change_width(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace('"width": 256', '"width": 8'), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("epoch-002.safetensors", truncate, "is damaged"),
        ("retriever.json", change_width, "does not fit"),
        ("retriever.json", Path.unlink, "No trained retriever"),
        ("retriever.json", truncate, "retriever.json is damaged"),
    ],
)
def test_a_damaged_training_is_refused(
    bench: Bench, name: str, damage: Callable[[Path], None], message: str
) -> None:
    folder = bench.train("out", epochs=2)
    damage(folder / name)
    with pytest.raises(BadInput, match=message):
        ReflectiveEncoder(str(folder))


def test_a_changed_base_encoder_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.train("out", epochs=2)
    monkeypatch.setattr(reflective, "resolve", lambda kind, name: lambda: WordEncoder("colour-2"))
    with pytest.raises(BadInput, match="trained on `colour-1`, which is now `colour-2`"):
        ReflectiveEncoder(str(folder))


def test_a_seed_determines_the_head(bench: Bench) -> None:
    paths = [bench.train(out, epochs=2) / "epoch-002.safetensors" for out in ("first", "second")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert isinstance(load_head(paths[0], bench.config(bench.training_set(), epochs=2)), Head)


def test_a_library_without_folders_has_no_classes(tmp_path: Path) -> None:
    assert pairs_by_folder(Library.open(write_squares(tmp_path / "flat")).items.values()) == []
