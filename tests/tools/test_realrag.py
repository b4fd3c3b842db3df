"""RealRAG's options, the generator of a trained retriever, and searching far from an image."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from support.colour_encoder import ColourEncoder, build, write_squares
from support.fake_engines import ListRetriever

from pleinair.tools.realrag import (
    RealRAGOptions,
    Sampling,
    Training,
    require,
    require_generator,
    search_away,
    training_of,
)
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput, Capabilities

RED = Image.new("RGB", (8, 8), (255, 0, 0))


def capabilities(slots: int = 2) -> Capabilities:
    return Capabilities(
        id="square@1", slots=slots, height=16, width=16, num_inference_steps=1, guidance_scale=1
    )


TRAINING = Training(loss="reflective", generator="square@1", sampling=Sampling.of(capabilities()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares") / "library")


@pytest.fixture(scope="module")
def retriever(folder: Path) -> IndexRetriever:
    return IndexRetriever(Library.open(folder), build(folder, folder.parent / "index"), ColourEncoder())


def test_the_defaults_are_the_papers() -> None:
    assert RealRAGOptions().model_dump(exclude={"weight"}) == {"method": "reflective", "references": 1}


@pytest.mark.parametrize(("key", "value"), [("method", "best"), ("references", 0), ("weight", -0.1)])
def test_other_values_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        RealRAGOptions.model_validate({key: value})


def test_a_retriever_is_accepted_for_its_own_generator() -> None:
    require_generator(TRAINING, capabilities())
    require_generator(None, capabilities())


def test_a_generator_with_other_weights_is_another_one() -> None:
    other = capabilities().model_copy(update={"id": "square@2"})
    for training in (TRAINING, TRAINING.model_copy(update={"sampling": None})):
        with pytest.raises(BadInput, match=r"`square@1`, the run has `square@2`.*any_generator = true"):
            require_generator(training, other)
        require_generator(training.model_copy(update={"any_generator": True}), other)


@pytest.mark.parametrize(
    ("name", "value", "is_accepted"),
    [
        ("width", 32, False),
        ("height", 32, False),
        ("num_inference_steps", 2, False),
        ("guidance_scale", 3.0, False),
        ("sampler", "other", False),
        ("slots", 0, True),
        ("boxes", True, True),
        ("draft_steps", 1, True),
        ("id", "square@1+branch:0.7", True),
    ],
)
def test_a_retriever_is_for_what_changes_its_samples(name: str, value: object, is_accepted: bool) -> None:
    made = capabilities().model_copy(update={"sampler": "square@1"})
    training = Training(loss="reflective", generator=made.id, sampling=Sampling.of(made))
    changed = made.model_copy(update={name: value})
    if is_accepted:
        require_generator(training, changed)
        return
    with pytest.raises(BadInput, match=rf"trained for {name} `.*`, the run has `{value}`"):
        require_generator(training, changed)


def test_a_negative_prompt_is_part_of_the_samples() -> None:
    training = Training(loss="reflective", generator="", sampling=Sampling.of(capabilities(), "blur"))
    require_generator(training, capabilities(), "blur")
    with pytest.raises(BadInput, match="negative_prompt `blur`, the run has ``"):
        require_generator(training, capabilities())


def test_a_training_without_samples_is_for_any_generator() -> None:
    training = TRAINING.model_copy(update={"loss": "normal", "sampling": None, "generator": "circle"})
    require_generator(training, capabilities())


def test_a_method_without_its_retriever_is_refused_with_the_remedy() -> None:
    with pytest.raises(BadInput, match=r"realrag.method = 'reflective'.*pleinair train retriever"):
        require(RealRAGOptions(), None, capabilities())


def test_self_contrast_takes_any_retriever() -> None:
    for training in (None, TRAINING, TRAINING.model_copy(update={"loss": "normal"})):
        require(RealRAGOptions(method="self_contrast"), training, capabilities())


def test_an_encoder_without_a_training_has_none(retriever: IndexRetriever) -> None:
    assert training_of(ColourEncoder()) is None
    assert retriever.training is None


def test_a_retriever_has_the_training_of_its_encoder(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    encoder.training = TRAINING  # type: ignore[attr-defined]
    folder = write_squares(tmp_path / "library")
    retriever = IndexRetriever(Library.open(folder), build(folder, tmp_path / "index", encoder), encoder)
    assert training_of(retriever) == TRAINING


@given(weight=st.floats(0, 4))
def test_the_score_is_the_difference_of_the_cosines(retriever: IndexRetriever, weight: float) -> None:
    encoder = ColourEncoder()
    (query,), (away,) = encoder.encode_text(["white"]), encoder.encode_images([RED])
    hits = search_away(retriever, "white", RED, weight=weight, k=4)
    for hit in hits:
        (image,) = encoder.encode_images([retriever.open(hit.id)])
        assert hit.score == pytest.approx(float(image @ query - weight * (image @ away)), abs=1e-5)
    scores = [hit.score for hit in hits]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)


def test_without_weight_the_hits_are_those_of_a_plain_search(retriever: IndexRetriever) -> None:
    assert search_away(retriever, "blue", RED, weight=0, k=4) == retriever.search("blue", 4)


def test_weight_moves_the_generators_own_image_down(retriever: IndexRetriever) -> None:
    plain = [hit.id for hit in retriever.search("red", 4)]
    away = [hit.id for hit in search_away(retriever, "red", RED, weight=2, k=4)]
    assert (plain[0], away[-1]) == ("red.png", "red.png")


@pytest.mark.parametrize(("query", "k"), [("", 1), ("red", 0)])
def test_invalid_queries_are_refused_as_in_a_search(retriever: IndexRetriever, query: str, k: int) -> None:
    with pytest.raises(BadInput):
        search_away(retriever, query, RED, weight=1, k=k)


def test_a_retriever_that_cannot_compare_images_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot compare with an image"):
        search_away(ListRetriever({}), "red", RED, weight=1, k=1)


def test_scores_of_a_plain_search_are_cosines(retriever: IndexRetriever) -> None:
    assert all(-1 <= hit.score <= 1 for hit in retriever.search("white", 4))
