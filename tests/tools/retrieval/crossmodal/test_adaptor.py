"""The dense adaptor on a toy encoder: training from images, scores, checkpoints and cached tokens."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from pleinair.tools.retrieval.crossmodal import adaptor
from pleinair.tools.retrieval.crossmodal.adaptor import AdaptorNet, AdaptorScorer, Shape, load, open_scorer
from pleinair.tools.retrieval.crossmodal.adaptor_training import (
    CHECKPOINT,
    AdaptorOptions,
    contrastive_loss,
    positives,
    train,
)
from pleinair.tools.retrieval.crossmodal.examples import Example
from pleinair.tools.retrieval.crossmodal.token_cache import TokenCache
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import BadInput

Numbers = NDArray[np.float32]
THINGS = [f"thing{letter}" for letter in "abcdefgh"]
PATCHES, DIM = 4, 32


class Toy:
    """Tower that sees two things, each in its own patch; a text's vector is unrelated to its thing's."""

    def __init__(self, id: str = "toy") -> None:
        rng = np.random.default_rng(0)
        self.id = id
        self.things = rng.normal(size=(len(THINGS), DIM)).astype(np.float32)
        self.words = rng.normal(size=(len(THINGS), DIM)).astype(np.float32)
        self.words /= np.linalg.norm(self.words, axis=1, keepdims=True)
        self.encoded = 0

    def encode_text(self, texts: Sequence[str]) -> Numbers:
        rows = [self.words[THINGS.index(text)] if text in THINGS else self.words[0] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), DIM)

    def encode_patches(self, images: Sequence[Image.Image]) -> Numbers:
        self.encoded += len(images)
        return np.stack([self.patches(image) for image in images])

    def patches(self, image: Image.Image) -> Numbers:
        first, second, seed = image.getpixel((0, 0))  # type: ignore[misc]
        rng = np.random.default_rng((first, second, seed))
        patches = rng.normal(size=(PATCHES, DIM)).astype(np.float32) * 0.2
        for thing, place in zip((first, second), rng.permutation(PATCHES)[:2], strict=True):
            patches[place] += self.things[thing]
        return patches


class Rounding(Toy):
    """Tower whose rows depend a little on what is encoded beside them, as those of real ones do."""

    def encode_text(self, texts: Sequence[str]) -> Numbers:
        return super().encode_text(texts) + np.float32(len(texts) / 100)

    def encode_patches(self, images: Sequence[Image.Image]) -> Numbers:
        return super().encode_patches(images) + np.float32(len(images) / 100)


def open_image(id: str) -> Image.Image:
    """Return the image of `1-5-7`: things 1 and 5, and a seed."""
    return Image.new("RGB", (1, 1), tuple(map(int, id.split("-"))))


def examples(count: int, seed: int) -> list[Example]:
    """Return examples of two different things each."""
    rng = Random(seed)
    ids = [(*rng.sample(range(len(THINGS)), 2), rng.randrange(256)) for _ in range(count)]
    return [
        Example(f"{a}-{b}-{n}", f"a {THINGS[a]} and a {THINGS[b]}", (THINGS[a], THINGS[b])) for a, b, n in ids
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """Train on 256 images once."""
    folder = tmp_path_factory.mktemp("adaptor")
    options = AdaptorOptions(epochs=12, learning_rate=2e-3, batch=32)
    epochs = list(train(examples(256, 1), folder, tower=Toy(), open=open_image, options=options))
    assert [epoch for epoch, _ in epochs] == list(range(1, 13))
    return folder, [loss for _, loss in epochs]


def held_out(folder: Path) -> tuple[list[Example], Numbers]:
    """Score held-out images for all eight things."""
    images = examples(64, 2)
    scorer = open_scorer(str(folder), Toy(), open_image)
    return images, scorer.score(THINGS, [example.id for example in images])


def test_training_beats_the_loss_of_copying_the_text(trained: tuple[Path, list[float]]) -> None:
    _, losses = trained
    copying = math.log(32 / 8)  # a thing is in 8 of 32 pictures
    assert losses[0] > 0.5 * copying and losses[-1] < 0.2 * copying


def test_an_image_without_the_thing_scores_lower(trained: tuple[Path, list[float]]) -> None:
    images, scores = held_out(trained[0])
    wins = [
        scores[row, THINGS.index(text)] > scores[other, THINGS.index(text)]
        for row, example in enumerate(images)
        for text in example.subqueries
        for other in range(len(images))
        if text not in images[other].subqueries
    ]
    assert np.mean(wins) > 0.95  # by copying the text: none, as all would tie


def test_the_loss_of_copying_the_text_is_the_full_logarithm() -> None:
    same = torch.ones(6, 2)
    positive = torch.tensor([[True, True], *[[False, True]] * 2, *[[False, False]] * 3])
    assert contrastive_loss(same, positive) == pytest.approx((math.log(6) + math.log(2)) / 2)


def test_the_loss_is_the_papers_with_positives_inside_the_logarithm() -> None:
    cosines = torch.tensor([[0.2], [0.1], [0.15]])
    positive = torch.tensor([[True], [True], [False]])
    parts = [math.exp(cosine / 0.07) for cosine in (0.2, 0.1, 0.15)]
    assert contrastive_loss(cosines, positive) == pytest.approx(
        -math.log(sum(parts[:2]) / sum(parts)), rel=1e-4
    )


def test_an_image_is_positive_for_what_its_caption_contains() -> None:
    batch = [Example("1", "a red cat", ("red cat",)), Example("2", "two things", ("a cat", "red cat"))]
    assert positives(batch, ["red cat", "a cat", "dog"]).tolist() == [
        [True, True, False],
        [True, True, False],
    ]


def test_the_score_is_cos_of_v_and_t_and_depends_on_both(trained: tuple[Path, list[float]]) -> None:
    net, _ = load(trained[0])
    toy = Toy()
    features = torch.from_numpy(toy.encode_patches([open_image("0-1-0"), open_image("2-3-0")]))
    texts = torch.from_numpy(toy.encode_text(THINGS[:3]))
    with torch.no_grad():
        tokens = net.gather(features)
        v = net(tokens, texts)
        assert v.shape == (2, 3, DIM)
        by_hand = (v / v.norm(dim=-1, keepdim=True) * texts).sum(dim=-1)
        assert net.cosines(tokens, texts).numpy() == pytest.approx(by_hand.numpy(), abs=1e-5)
        assert not torch.allclose(v[0, 0], v[1, 0]) and not torch.allclose(v[0, 0], v[0, 1])


def test_v_is_the_output_of_a_layer_norm(trained: tuple[Path, list[float]]) -> None:
    net, _ = load(trained[0])
    toy = Toy()
    with torch.no_grad():
        tokens = net.gather(torch.from_numpy(toy.encode_patches([open_image("0-1-0"), open_image("2-3-0")])))
        v = net(tokens, torch.from_numpy(toy.encode_text(THINGS)))
        normalised = (v - net.norm.bias) / net.norm.weight
    assert normalised.mean(dim=-1).abs().max() < 1e-4
    assert normalised.var(dim=-1, unbiased=False).numpy() == pytest.approx(1, abs=1e-2)


def test_a_head_can_look_away_from_the_text() -> None:
    """Attention to the text alone would be 1 whatever its key is, and the key would have no gradient."""
    torch.manual_seed(0)
    net = AdaptorNet(Shape.of(DIM, DIM))
    net(net.gather(torch.randn(2, PATCHES, DIM)), torch.randn(3, DIM)).square().sum().backward()
    gradient = net.text.in_proj_weight.grad
    assert gradient is not None
    assert gradient[DIM : 2 * DIM].abs().max() > 1e-6


def test_over_vit_l_14_it_has_the_number_of_parameters_that_is_documented() -> None:
    with torch.device("meta"):
        net = AdaptorNet(Shape.of(768, 768))
    assert sum(weights.numel() for weights in net.parameters()) == 7_684_608
    assert "7.68 million parameters" in (adaptor.__doc__ or "")


def test_scores_do_not_depend_on_the_batch_and_an_image_is_encoded_once(
    trained: tuple[Path, list[float]],
) -> None:
    toy, ids = Toy(), [example.id for example in examples(70, 3)]
    scorer = AdaptorScorer(load(trained[0])[0], toy, open_image)
    together = scorer.score(THINGS[:2], ids)
    assert toy.encoded == len(ids)
    single = [scorer.score([text], [id])[0, 0] for id in ids[::23] for text in THINGS[:2]]
    assert toy.encoded == len(ids)
    assert together[::23].ravel() == pytest.approx(single, abs=1e-5)
    assert scorer.score(THINGS[:2], []).shape == (0, 2)


def test_the_checkpoint_records_its_training(trained: tuple[Path, list[float]]) -> None:
    folder, losses = trained
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["encoder"] == "toy"
    assert config["shape"]["tokens"] == 4
    facts = config["training"]
    assert (facts["tau"], facts["step"], facts["gamma"], facts["epochs"]) == (0.07, 3, 0.6, 12)
    assert facts["losses"] == [round(loss, 4) for loss in losses]
    assert set(load_file(folder / "model.safetensors")) == set(AdaptorNet(Shape.of(DIM, DIM)).state_dict())


def test_the_papers_rate_is_the_default_and_falls_every_three_epochs(
    tmp_path: Path, monkeypatch: Any
) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def record(self: torch.optim.Adam, *rest: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    list(train(examples(4, 1), tmp_path, tower=Toy(), open=open_image, options=AdaptorOptions(epochs=7)))
    assert rates == pytest.approx([5e-5] * 3 + [3e-5] * 3 + [1.8e-5])


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    options = AdaptorOptions(epochs=2, batch=3)
    for name in ("a", "b"):
        list(train(examples(8, 1), tmp_path / name, tower=Toy(), open=open_image, options=options))
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_another_encoders_adaptor_is_refused(trained: tuple[Path, list[float]]) -> None:
    with pytest.raises(BadInput, match="of encoder `toy`, not of `other`"):
        open_scorer(str(trained[0]), Toy("other"), open_image)


def test_a_folder_without_a_checkpoint_and_an_encoder_without_patches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No adaptor in"):
        open_scorer(str(tmp_path), Toy(), open_image)
    with pytest.raises(BadInput, match="has no patch features"):
        open_scorer(str(tmp_path), object(), open_image)


def test_a_single_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="1 images have sub-queries"):
        list(train(examples(1, 1), tmp_path, tower=Toy(), open=open_image))


class Stop(Exception):
    """What a progress callback raises to stop a training."""


def run(folder: Path, stop_at: int = 0, epochs: int = 4, **options: Any) -> tuple[list[int], int]:
    """Train on eight images in three batches; return the epochs that were yielded, and the images encoded."""
    toy, yielded = Rounding(), list[int]()

    def stop(done: int, total: int) -> None:
        assert total == 3 * epochs
        if stop_at and done == stop_at:
            raise Stop

    restart = options.pop("restart", False)
    chosen = AdaptorOptions(epochs=epochs, batch=3, **options)
    arguments: Any = {"tower": toy, "open": open_image, "restart": restart, "on_progress": stop}
    try:
        for epoch, _ in train(examples(8, 1), folder, options=chosen, **arguments):
            yielded.append(epoch)
    except Stop:
        pass
    return yielded, toy.encoded


@pytest.mark.parametrize("stop_at", [3, 5, 10])
def test_a_stopped_training_ends_byte_for_byte_as_an_uninterrupted_one(stop_at: int, tmp_path: Path) -> None:
    assert run(tmp_path / "once") == ([1, 2, 3, 4], 9)  # eight images, and one for the sizes
    done = stop_at // 3
    assert run(tmp_path / "twice", stop_at)[0] == list(range(1, done + 1))
    assert run(tmp_path / "twice")[0] == list(range(done + 1, 5))
    for name in ("config.json", "model.safetensors", CHECKPOINT):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_a_training_killed_between_checkpoint_and_adaptor_writes_the_adaptor_again(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(b"of the epoch before")
    assert run(tmp_path)[0] == []
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_finished_training_goes_on_to_more_epochs(tmp_path: Path) -> None:
    run(tmp_path / "once", epochs=5)
    run(tmp_path / "twice", epochs=4)
    assert run(tmp_path / "twice", epochs=5)[0] == [5]
    once, twice = (load_file(tmp_path / name / "model.safetensors") for name in ("once", "twice"))
    assert all(torch.equal(once[key], twice[key]) for key in once)


def test_another_trainings_folder_is_refused_unless_it_is_replaced(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(BadInput, match=r"has an adaptor of another training: .* or seed.*--restart"):
        run(tmp_path, seed=1)
    (tmp_path / CHECKPOINT).unlink()  # an adaptor alone, such as the shipped one
    with pytest.raises(BadInput, match="another training"):
        run(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert run(tmp_path, seed=1, restart=True)[0] == [1, 2, 3, 4]


def test_a_damaged_checkpoint_and_an_unknown_device_are_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"{")
    with pytest.raises(BadInput, match="checkpoint in .* is damaged"):
        run(tmp_path)
    with pytest.raises(BadInput, match="device = 'gpu9'"):
        run(tmp_path, device="gpu9")


def test_training_and_scores_are_computed_on_the_device(tmp_path: Path) -> None:
    """A device without numbers: a training that stayed on the CPU would not notice it."""
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        run(tmp_path, device="meta")
    scorer = AdaptorScorer(AdaptorNet(Shape.of(DIM, DIM)), Toy(), open_image, device="meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        scorer.score(THINGS[:1], ["0-1-0"])


def stamped(folder: Path, cache: Path, toy: Toy, stamp: str = "1") -> AdaptorScorer:
    return open_scorer(str(folder), toy, open_image, cache, lambda id: f"{id} {stamp}")


def test_an_image_is_encoded_once_for_all_processes(
    trained: tuple[Path, list[float]], tmp_path: Path
) -> None:
    toy, ids = Toy(), [example.id for example in examples(40, 3)]
    cache = tmp_path / "cache" / "tokens.sqlite"
    first = stamped(trained[0], cache, toy).score(THINGS, ids)
    assert toy.encoded == len(ids)
    again = stamped(trained[0], cache, toy).score(THINGS[:3], ids[::-1])
    assert toy.encoded == len(ids)
    assert np.array_equal(again[::-1], first[:, :3])


def test_a_changed_image_or_adaptor_is_encoded_again(
    trained: tuple[Path, list[float]], tmp_path: Path
) -> None:
    toy, cache = Toy(), tmp_path / "tokens.sqlite"
    stamped(trained[0], cache, toy).score(THINGS, ["0-1-0"])
    stamped(trained[0], cache, toy, stamp="2").score(THINGS, ["0-1-0"])
    assert toy.encoded == 2
    run(tmp_path / "other")
    other = stamped(tmp_path / "other", cache, toy).score(THINGS, ["0-1-0"])
    assert toy.encoded == 3
    assert other == pytest.approx(
        open_scorer(str(tmp_path / "other"), toy, open_image).score(THINGS, ["0-1-0"]), abs=1e-6
    )


def test_the_cache_drops_the_oldest_tokens_over_its_limit(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "tokens.sqlite", "toy", str, most_bytes=3 * 2 * 4)
    for number in range(5):
        cache.write({str(number): torch.full((1, 2), float(number))})
    stored = cache.read([str(number) for number in range(5)], (1, 2))
    assert {id: tokens.tolist() for id, tokens in stored.items()} == {
        "2": [[2.0, 2.0]],
        "3": [[3.0, 3.0]],
        "4": [[4.0, 4.0]],
    }


def test_without_a_usable_cache_images_are_scored_and_it_is_logged_once(
    trained: tuple[Path, list[float]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokens.sqlite").write_bytes(b"no database" * 100)
    scorer = stamped(trained[0], tmp_path / "tokens.sqlite", Toy())
    assert scorer.score(THINGS, ["0-1-0", "2-3-0"]).shape == (2, 8)
    assert [record.message.split(" in ")[0] for record in caplog.records] == [
        "tokens of images are not cached"
    ]


def test_the_pocket_encoder_has_a_feature_for_each_patch() -> None:
    encoder = OpenClipEncoder("local-dir:pocket/encoder")
    red, blue = (Image.new("RGB", (90, 50), colour) for colour in ("red", "blue"))
    features = encoder.encode_patches([red, blue])
    assert features.shape == (2, 64, 128)
    assert encoder.encode_patches([blue])[0] == pytest.approx(features[1], abs=1e-4)
