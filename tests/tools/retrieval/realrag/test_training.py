"""Training of a reflective retriever from samples to weights: which negatives it has, and what they do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.retriever_trainings import LOOKS, Bench, ConfusedGenerator
from torch.nn import functional

from pleinair.tools.realrag import Sampling
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag.data import TrainingSet, describe_pairs
from pleinair.tools.retrieval.realrag.head import Head
from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions
from pleinair.tools.retrieval.realrag.training import PairTensors, train

NAMES = list(LOOKS)
EPOCHS = 3


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.generator = ConfusedGenerator()
    return bench


def weights(bench: Bench, training_set: TrainingSet, out: str, **changes: Any) -> dict[str, torch.Tensor]:
    """Train, and return the weights of the MLP."""
    changes = {"epochs": EPOCHS, **changes}
    list(train(training_set, bench.config(training_set, **changes), bench.folder / out))
    tensors = load_file(bench.folder / out / f"epoch-{EPOCHS:03d}.safetensors")
    return {name.removeprefix("head."): value for name, value in tensors.items() if name.startswith("head.")}


def differ(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return any(not torch.allclose(value, second[name], atol=1e-5) for name, value in first.items())


def test_the_declared_defaults() -> None:
    assert ReflectiveOptions().model_dump() == {
        "loss": "reflective",
        "epochs": 10,
        "batch": 64,
        "learning_rate": 1e-3,
        "tau": 0.07,
        "tau_on_reflective": True,
        "collisions": "class",
        "width": 256,
        "samples": 1,
        "seed": 0,
    }


def test_the_negative_of_each_class_is_what_the_generator_draws_for_it(bench: Bench) -> None:
    pairs = describe_pairs(bench.training_set(), Library.open(bench.library))
    faults = {pair["class"]: str(pair["negative"]).split("/")[0] for pair in pairs}
    assert faults == {name: NAMES[(place + 1) % len(NAMES)] for place, name in enumerate(NAMES)}


def test_the_images_of_a_class_share_its_samples_in_turn(bench: Bench) -> None:
    bench.training_set(samples=2)
    assert [(request.prompt.split()[-1], request.seed) for request in bench.generator.requests] == [
        (name, seed) for name in sorted(NAMES) for seed in (0, 1)
    ]


def test_reflective_negatives_change_the_weights(bench: Bench) -> None:
    training_set = bench.training_set()
    without = replace(training_set, negatives=np.full_like(training_set.negatives, -1))
    reflective, normal = (weights(bench, training_set, loss, loss=loss) for loss in ("reflective", "normal"))
    assert differ(reflective, normal)
    assert not differ(weights(bench, without, "without"), normal)


def test_another_negative_for_each_class_changes_the_weights(bench: Bench) -> None:
    training_set = bench.training_set()
    first = replace(training_set, negatives=np.full_like(training_set.negatives, training_set.negatives[0]))
    assert differ(weights(bench, training_set, "own"), weights(bench, first, "first"))


@pytest.mark.parametrize("tau_on_reflective", [True, False])
def test_a_training_is_equation_8_with_the_negatives_through_the_mlp(
    bench: Bench, tau_on_reflective: bool
) -> None:
    training_set, options = bench.training_set(), ReflectiveOptions(tau=0.2)
    changes = {"tau": 0.2, "tau_on_reflective": tau_on_reflective, "learning_rate": 0.01}
    trained = weights(bench, training_set, "out", **changes)
    head = Head(training_set.pool.shape[1], options.width)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
    pool = torch.from_numpy(training_set.pool)
    texts = torch.from_numpy(training_set.texts[training_set.prompts])
    rows, labels = torch.from_numpy(training_set.rows), torch.from_numpy(training_set.labels)
    others = labels[rows][:, None] != labels[rows][None]
    for _ in range(EPOCHS):  # one batch each, so that the order does not matter
        images, negatives = head(pool[rows]), head(pool[torch.from_numpy(training_set.negatives)])
        positive = ((texts * images).sum(1) / 0.2).exp()
        normal = ((texts @ images.T / 0.2).exp() * others).sum(1)
        reflective = ((texts * negatives).sum(1) / (0.2 if tau_on_reflective else 1.0)).exp()
        loss = -(positive / (positive + normal + reflective)).log().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert not differ(trained, dict(head.state_dict()))


def test_the_loss_is_computed_where_the_mlp_is(bench: Bench) -> None:
    training_set = bench.training_set()
    pairs = PairTensors(training_set, reflective=True)
    head = Head(training_set.pool.shape[1], 8).to("meta")
    assert pairs.loss(head, torch.tensor([0, 1, 4]), ReflectiveOptions()).device.type == "meta"


def test_the_device_of_a_training_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = list[str]()

    def record(head: Head, device: str) -> Head:
        devices.append(device)
        return head

    monkeypatch.setattr(Head, "to", record)
    training_set = bench.training_set()
    config = bench.config(training_set, epochs=1)
    list(train(training_set, config, bench.folder / "out", "cuda:1"))
    assert devices == ["cuda:1"]


def test_samples_are_embedded_in_batches_and_prompts_once(bench: Bench) -> None:
    training_set = bench.training_set(samples=30)
    assert bench.encoder.batches[-2:] == [64, 26]
    assert training_set.texts.shape == (3, 4)
    embedded = functional.normalize(torch.from_numpy(training_set.texts[training_set.prompts]), dim=1)
    expected = bench.encoder.encode_text([pair.prompt for pair in training_set.pairs])
    np.testing.assert_allclose(embedded.numpy(), expected, atol=1e-6)


def test_what_only_acts_on_references_does_not_change_the_samples(bench: Bench) -> None:
    made = bench.generator.capabilities.model_copy(update={"sampler": "square"})
    bench.generator.capabilities = made
    bench.training_set()
    bench.generator.capabilities = made.model_copy(update={"id": "square+branch×0.7", "slots": 0})
    bench.training_set()
    assert len(bench.generator.requests) == len(LOOKS)
    bench.generator.capabilities = made.model_copy(update={"num_inference_steps": 9})
    bench.training_set()
    assert len(bench.generator.requests) == 2 * len(LOOKS)


def test_a_training_continues_with_another_use_of_references_and_on_another_device(bench: Bench) -> None:
    training_set = bench.training_set()
    config = bench.config(training_set, epochs=2)
    list(train(training_set, config, bench.folder / "out"))
    changed = config.model_copy(update={"generator": "square×0.7", "arguments": {"device": "cuda"}})
    assert list(train(training_set, changed, bench.folder / "out")) == []
    assert changed.sampling == Sampling.of(bench.generator.capabilities)
