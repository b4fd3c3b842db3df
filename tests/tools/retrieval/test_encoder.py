import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.prompts import describe
from pleinair.tools.pocket.world import SPECIES, Species, held_out_rng, random_scene, render
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import BadInput

MODEL = "local-dir:pocket/encoder"


@pytest.fixture(scope="module")
def encoder() -> OpenClipEncoder:
    return OpenClipEncoder(MODEL, device="cpu", batch=32)


@pytest.fixture(scope="module")
def crowd() -> list[tuple[Species, Image.Image]]:
    """Two held-out pictures of every species."""
    species = [s for s in SPECIES for _ in range(2)]
    scenes = [random_scene(held_out_rng(50_000 + i), [s]) for i, s in enumerate(species)]
    return [(s, render(scene)) for s, scene in zip(species, scenes, strict=True)]


def best_for(
    encoder: OpenClipEncoder, texts: list[str], crowd: list[tuple[Species, Image.Image]]
) -> list[str]:
    pictures = encoder.encode_images([picture for _, picture in crowd])
    return [crowd[i][0].name for i in (encoder.encode_text(texts) @ pictures.T).argmax(1)]


@pytest.mark.parametrize("tier", ["known", "rare"])
def test_a_name_finds_its_picture(
    encoder: OpenClipEncoder, crowd: list[tuple[Species, Image.Image]], tier: str
) -> None:
    names = [s.name for s in SPECIES if s.tier == tier]
    found = best_for(encoder, [f"a photo of a {name}" for name in names], crowd)
    assert np.mean([one == name for one, name in zip(found, names, strict=True)]) >= 0.95


def test_a_description_finds_a_novel_species_more_often_than_not(
    encoder: OpenClipEncoder, crowd: list[tuple[Species, Image.Image]]
) -> None:
    novel = [s for s in SPECIES if s.tier == "novel"]
    found = best_for(encoder, [describe(s) for s in novel], crowd)
    assert np.mean([one == s.name for one, s in zip(found, novel, strict=True)]) > 0.5


def test_rows_are_unit_vectors_of_float32(encoder: OpenClipEncoder) -> None:
    rows = encoder.encode_text(["velmora finch", "a red car"])
    pictures = encoder.encode_images([Image.new("RGB", (64, 64), "red"), Image.new("L", (200, 90))])
    for vectors in (rows, pictures):
        assert vectors.shape == (2, 128)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_gives_no_rows(encoder: OpenClipEncoder) -> None:
    assert encoder.encode_text([]).shape == (0, 128)
    assert encoder.encode_images([]).shape == (0, 128)


def test_batches_and_memory_change_nothing(encoder: OpenClipEncoder) -> None:
    small = OpenClipEncoder(MODEL, device="cpu", batch=1)
    texts = ["a red car", "a blue fish", "a red car"]
    first = encoder.encode_text(texts)
    np.testing.assert_allclose(small.encode_text(texts), first, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_text(texts), first)
    np.testing.assert_array_equal(first[0], first[2])


def test_more_texts_than_it_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleinair.tools.retrieval.encoder.REMEMBERED", 2)
    encoder = OpenClipEncoder(MODEL, device="cpu")
    texts = ["one", "two", "three"]
    np.testing.assert_allclose(encoder.encode_text(texts), encoder.encode_text(texts), atol=1e-5)


@pytest.mark.usefixtures("hasty")
def test_threads_share_it(encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleinair.tools.retrieval.encoder.REMEMBERED", 4)
    texts = [f"a {colour} bird {place}" for colour in ("red", "teal") for place in "abcdefgh"] * 6
    alone = {text: encoder.encode_text([text])[0] for text in texts}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: encoder.encode_text([text])[0], texts))
    np.testing.assert_allclose(found, [alone[text] for text in texts], atol=1e-5)


@pytest.mark.usefixtures("hasty")
def test_threads_that_ask_for_nothing_and_for_known_texts_wait_for_nobody() -> None:
    encoder, gate = OpenClipEncoder(MODEL), threading.Barrier(2)
    encoder.encode_text(["a red bird"])

    def begin(ask: Callable[[], object]) -> None:
        gate.wait()
        ask()

    asks = [lambda: encoder.encode_images([]), lambda: encoder.encode_text(["a red bird"])]
    threads = [threading.Thread(target=begin, args=(ask,), daemon=True) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_a_long_text_is_said_once_even_when_it_was_forgotten(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleinair.tools.retrieval.encoder.REMEMBERED", 1)
    encoder, long = OpenClipEncoder(MODEL, device="cpu"), "a blue fish " * 30
    with caplog.at_level(logging.WARNING):
        for text in (long, "a red car", long):
            encoder.encode_text([text])
    assert len([one for one in caplog.messages if "truncated to the encoder's" in one]) == 1


def test_a_long_text_is_cut_and_said(encoder: OpenClipEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoder.encode_text(["a red car " * 30])
    assert "truncated to the encoder's 40 tokens: 'a red car a red car" in caplog.text


def test_a_text_that_fits_is_not_said(encoder: OpenClipEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoder.encode_text(["a striped teal bird with violet wings to the left of a red car"])
    assert not caplog.records


def test_the_id_names_model_and_weights_and_no_place(encoder: OpenClipEncoder) -> None:
    assert encoder.id.startswith("open_clip:encoder@")
    assert str(SHIPPED) not in encoder.id
    assert encoder.id == OpenClipEncoder(f"local-dir:{SHIPPED / 'encoder'}", device="cpu").id


@pytest.mark.parametrize(
    ("model", "revision", "says"),
    [
        ("local-dir:nowhere", "", "nowhere"),
        (MODEL, "openai", "weights of its own; leave it empty"),
        ("ViT-B-32", "", "Set revision to one of"),
        ("ViT-B-32", "no-such-tag", "no-such-tag"),
        ("no-such-model", "", "no-such-model"),
    ],
)
def test_what_cannot_be_loaded_is_refused(model: str, revision: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        OpenClipEncoder(model, revision)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    config = json.loads((SHIPPED / "encoder" / "open_clip_config.json").read_text(encoding="utf-8"))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BadInput, match="cannot load"):
        OpenClipEncoder(f"local-dir:{tmp_path}")


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="encoder.batch = 0"):
        OpenClipEncoder(MODEL, batch=0)
