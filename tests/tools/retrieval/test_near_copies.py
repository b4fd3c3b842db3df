"""Near copies: which images are the same after all, and that retrieval leaves them out and says which."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw, ImageOps
from support.colour_encoder import Reddish
from support.drawings import drawing

from pleinair.app.trace.trace import near_copies_text
from pleinair.tools.pocket.invented.world import SPECIES, random_scene, render
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, compose
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.near_copies import differences, is_near_copy, thumbnail
from pleinair.tools.retrieve import retrieve
from pleinair.tools.types import Concept, Hit, Retrieval

if TYPE_CHECKING:
    pass

Change = Callable[[Image.Image], Image.Image]


def scaled(factor: float) -> Change:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop(
            (
                round(left * width),
                round(top * height),
                round((1 - right) * width),
                round((1 - bottom) * height),
            )
        )

    return change


def encoded(kind: str, quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, kind, quality=quality)
        return Image.open(file).convert("RGB")

    return change


COPIES: dict[str, Change] = {
    "equal": lambda image: image,
    "halved": scaled(0.5),
    "third": scaled(1 / 3),
    "doubled": scaled(2),
    "jpeg": encoded("JPEG", 30),
    "webp": encoded("WEBP", 30),
    "cropped by 2 %": cropped(0.02, 0.02, 0.02, 0.02),
    "cropped by 4 %": cropped(0.04, 0.04, 0.04, 0.04),
    "cropped by 8 %": cropped(0.08, 0.08, 0.08, 0.08),
    "cropped below": cropped(0, 0, 0, 0.09),
    "cropped at a corner": cropped(0.07, 0.05, 0, 0),
    "all": lambda image: encoded("JPEG", 50)(scaled(0.6)(cropped(0.03, 0.05, 0.02, 0.01)(image))),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_a_near_copy_in_either_order(name: str) -> None:
    for seed in range(4):
        image = drawing(seed)
        original, copy = thumbnail(image), thumbnail(COPIES[name](image))
        assert is_near_copy(original, copy), (seed, differences(original, copy))
        assert is_near_copy(copy, original), (seed, differences(copy, original))


def test_two_parts_of_one_image_are_near_copies() -> None:
    image = drawing(5)
    assert is_near_copy(
        *(thumbnail(cropped(*edges)(image)) for edges in ((0.05, 0, 0, 0.05), (0, 0.05, 0.05, 0)))
    )


def with_spot(image: Image.Image) -> Image.Image:
    """Return the image with another object, a ninth of its width."""
    other = image.copy()
    ImageDraw.Draw(other).ellipse((160, 110, 200, 150), fill=(255, 0, 255), outline=(0, 0, 0))
    return other


@pytest.mark.parametrize(
    "change",
    [
        ImageOps.mirror,
        ImageOps.flip,
        ImageOps.invert,
        with_spot,
        cropped(0.25, 0.25, 0, 0),
        lambda image: Image.merge("RGB", image.split()[::-1]),
    ],
    ids=["mirrored", "upside down", "inverted", "one object more", "a detail", "other colours"],
)
def test_another_image_of_the_same_things_is_no_near_copy(change: Change) -> None:
    for seed in range(4):
        assert not is_near_copy(thumbnail(drawing(seed)), thumbnail(change(drawing(seed))))


def test_flat_images_are_compared_by_their_colour() -> None:
    flat = [thumbnail(Image.new("RGB", (9, 9), colour)) for colour in ("#800000", "#000080", "#000080")]
    assert not is_near_copy(flat[0], flat[1])
    assert is_near_copy(flat[1], flat[2])


def test_images_of_one_species_are_no_near_copies() -> None:
    """The rate on the whole pocket library, whose drawings repeat, is in evals/LOG.md."""
    chance = random.Random(2)
    for species in SPECIES[::4]:
        first, second = (thumbnail(render(random_scene(chance, [species]))) for _ in range(2))
        assert not is_near_copy(first, second), (species.name, differences(first, second))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three images, copies of the first and of the second, and captions of which all say "finch"."""
    library = tmp_path_factory.mktemp("library")
    images = {
        "a0": drawing(0),
        "a1": scaled(0.5)(drawing(0)),
        "a2": cropped(0.04, 0.04, 0.04, 0.04)(drawing(0)),
        "b0": drawing(1),
        "b1": encoded("JPEG", 30)(drawing(1)),
        "c0": drawing(2),
    }
    for name, image in images.items():
        image.save(library / f"{name}.png")
    lines = [json.dumps({"file_name": f"{name}.png", "text": "a finch"}) for name in images]
    (library / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return library


@pytest.fixture(scope="module")
def dense(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> IndexRetriever:
    library, encoder = Library.open(folder), Reddish()
    index = build_index(library, encoder, tmp_path_factory.mktemp("index"))
    return IndexRetriever(library, index, encoder)


def retrieval(folder: Path, dense: IndexRetriever, k: int, **options: Any) -> Retrieval:
    composed = RetrievalOptions(**{"deduplicate": 1.0} | options)
    corpus = Corpus(composed, lambda: Library.open(folder), lambda: dense, lambda: dense)
    concept = Concept(name="finch", caption="a red finch")
    return retrieve(concept, retriever=compose(composed, corpus), k=k, threshold=-1.0, with_name=True)


@pytest.mark.parametrize("method", ["dense", "lexical", "hybrid", "both"])
def test_near_copies_of_better_hits_are_left_out_and_recorded(
    folder: Path, dense: IndexRetriever, method: str
) -> None:
    result = retrieval(folder, dense, 9, method=method)
    first_letters = [hit.id[0] for hit in result.hits]
    assert len(set(first_letters)) == len(first_letters)
    assert all(id[0] == hit[0] for id, hit in result.near_copies.items())
    assert not {hit.id for hit in result.hits} & result.near_copies.keys()
    assert not any(hit.near_copies for hit in result.hits)  # they are recorded once
    if method != "both":  # which looks at three hits of either encoder
        assert sorted(first_letters) == ["a", "b", "c"]
        assert len(result.near_copies) == 3
        assert len(retrieval(folder, dense, 3, method=method).hits) == 3


@pytest.mark.parametrize("options", [{"drop_near_copies": False}, {"deduplicate": 0.0}])
@pytest.mark.parametrize("method", ["dense", "lexical", "hybrid"])
def test_near_copies_are_hits_if_they_are_to_be(
    folder: Path, dense: IndexRetriever, method: str, options: dict[str, Any]
) -> None:
    result = retrieval(folder, dense, 9, method=method, **options)
    assert len(result.hits) == 6
    assert not result.near_copies


def test_only_copies_of_hits_before_the_last_one_are_recorded(folder: Path, dense: IndexRetriever) -> None:
    everything = retrieval(folder, dense, 9, method="dense", deduplicate=0.0)
    first = everything.hits[0].id
    assert [hit.id for hit in retrieval(folder, dense, 1, method="dense").hits] == [first]
    assert not retrieval(folder, dense, 1, method="dense").near_copies


def test_what_a_search_by_name_finds_again_is_left_out() -> None:
    class Shelf:
        """Retriever of which each query leaves out the better hit of the other one."""

        def search(self, query: str, k: int) -> list[Hit]:
            kept, copy = ("a", "b") if query == "finch" else ("b", "a")
            fields: dict[str, Any] = {"score": 0.5, "score_kind": "rrf", "matched_by": "caption"}
            return [Hit(id=kept, near_copies=(copy,), **fields), Hit(id=f"{kept} too", **fields)]

        def open(self, id: str) -> Image.Image:
            raise AssertionError(id)

        def entries(self) -> list[Hit]:
            return []

    concept = Concept(name="finch", caption="a red finch")
    result = retrieve(concept, retriever=Shelf(), k=4, threshold=0, with_name=True)
    assert [hit.id for hit in result.hits] == ["b", "b too", "a too"]
    assert result.near_copies == {"a": "b"}


def test_near_copies_are_told_in_a_few_words() -> None:
    def text(count: int) -> str:
        hits = (Hit(id="a.png", score=1, near_copies=tuple(f"{n}.png" for n in range(count))),)
        return near_copies_text(Retrieval(concept="wren", query="wren", hits=hits))

    assert text(1) == "1 near copy: 0.png (of a.png)"
    assert text(2) == "2 near copies: 0.png (of a.png), 1.png (of a.png)"
    assert text(4) == "4 near copies: 0.png (of a.png), 1.png (of a.png), 2.png (of a.png), …"
