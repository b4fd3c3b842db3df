"""Concepts of libraries: classes, boxes, captions; and which images are held out of the pool."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pleinair.evals.evaluate.concepts import Concepts, concepts_of, prompt_of
from pleinair.evals.evaluate.split import split_library, without_copies
from pleinair.evals.reproduce.records import Records
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput


def paint(path: Path, number: int) -> None:
    """Save an image of noise that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 30), 20 + number).convert("RGB").save(path)


def captioned(folder: Path, *captions: str) -> Library:
    for number, _ in enumerate(captions):
        paint(folder / f"{number}.png", number)
    lines = [{"file_name": f"{number}.png", "text": text} for number, text in enumerate(captions)]
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return Library.open(folder)


def test_captions_give_concepts_and_their_prompts(tmp_path: Path) -> None:
    texts = ("A white cat on a mat.", "The white cat sleeps.", "A white cat\nMy cat", "a red bus by the sea")
    library = captioned(tmp_path, *texts)
    concepts = concepts_of(library)
    assert concepts.origin == "captions"
    assert {concept.name: len(concept.images) for concept in concepts.usable} == {"white cat": 3}
    assert "red bus" in {concept.name for concept in concepts.too_small}
    assert prompt_of(library.items["0.png"], "white cat", "captions") == "A white cat on a mat."


def test_names_are_looked_for_as_words(tmp_path: Path) -> None:
    library = captioned(tmp_path, "a catalogue", "a Cat", "my cat on a bus", "a bus")
    concepts = concepts_of(library, ["cat", "bus"])
    assert {c.name: c.images for c in concepts.usable} == {
        "bus": ("2.png", "3.png"),
        "cat": ("1.png", "2.png"),
    }


@pytest.mark.parametrize(
    ("captions", "name"),
    [
        (("一只猫在屋顶上", "黑猫", "狗"), "猫"),
        (("Eine  graue\tKatze schläft", "Graue Katze"), "graue Katze"),
        (("กับแมวสีดำ", "แมว"), "แมว"),
    ],
)
def test_names_are_looked_for_in_any_language(tmp_path: Path, captions: tuple[str, ...], name: str) -> None:
    concepts = concepts_of(captioned(tmp_path, *captions), [name, name.upper()])
    assert [concept.images for concept in concepts.usable] == [("0.png", "1.png")]


def test_a_blank_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--concept"):
        concepts_of(captioned(tmp_path, "a cat", "a cat"), [" "])


def test_prompts_as_captions_are_concepts_of_what_they_ask_for(tmp_path: Path) -> None:
    texts = (
        "draw a fox",
        "paint a fox at night",
        "a photo of a fox",
        "please show me an oak",
        "Draw an oak.",
    )
    library = captioned(tmp_path, *texts)
    concepts = concepts_of(library)
    assert {c.name: len(c.images) for c in concepts.usable} == {"fox": 3, "oak": 2}
    assert prompt_of(library.items["1.png"], "fox", "captions") == "paint a fox at night"


def test_class_folders_are_concepts_and_prompts_name_the_class(tmp_path: Path) -> None:
    for number in range(6):
        paint(tmp_path / ("saverel wren" if number % 2 else "oak") / f"{number}.png", number)
    library = Library.open(tmp_path)
    concepts = concepts_of(library)
    assert concepts.origin == "class folders"
    assert [concept.name for concept in concepts.usable] == ["oak", "saverel wren"]
    subject = split_library(library, concepts, most=9, images=1, seeds=1, seed=0).subjects[0]
    assert (subject.prompt, subject.group) == ("a photo of an oak", "oak")


def test_a_library_without_concepts_of_two_images_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no concept has 2 images") as error:
        concepts_of(captioned(tmp_path, "a cat", "a bus"))
    assert "--concept" in error.value.remedy


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, Concepts]:
    folder = tmp_path_factory.mktemp("library") / "pocket"
    write_library(folder, size=200)
    library = Library.open(folder)
    return library, concepts_of(library)


def test_what_is_scored_against_is_never_in_the_pool(pocket: tuple[Library, Concepts]) -> None:
    library, concepts = pocket
    split = split_library(library, concepts, most=20, images=2, seeds=2, seed=1)
    for part in split.parts:
        images = next(c.images for c in concepts.usable if c.name == part.concept)
        assert part.scored and part.reference not in part.scored
        assert not {*part.scored} & {*part.pool}
        assert {*part.scored, part.reference, *part.pool} <= {*images}
        assert (part.reference in part.pool) == (part.reference not in split.held_out)
        assert {*part.scored} <= split.excluded
    assert len(split.subjects) == 2 * len(split.parts)
    assert len({subject.seed for subject in split.subjects}) == len(split.subjects)


def test_a_concept_of_two_images_has_its_only_reference_in_the_pool(tmp_path: Path) -> None:
    library = captioned(tmp_path, "a cat", "a cat")
    (part,) = split_library(library, concepts_of(library), most=1, images=3, seeds=1, seed=0).parts
    assert part.pool == (part.reference,)
    assert len(part.scored) == 1


def test_near_copies_of_held_out_images_leave_the_pool(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_library(source, size=120, tiers=("rare",))
    library = Library.open(source)
    before = split_library(library, concepts_of(library), most=5, images=1, seeds=1, seed=0)
    scored = before.parts[0].scored[0]
    with Image.open(source / scored) as image:
        image.crop((3, 2, 94, 93)).resize((128, 128)).save(source / "copy.jpg", quality=80)
    library = Library.open(source)
    split = split_library(library, concepts_of(library), most=5, images=1, seeds=1, seed=0)
    records = Records(tmp_path / "copies.jsonl")
    found = without_copies(split, records)
    assert scored in split.held_out and "copy.jpg" not in split.excluded
    assert "copy.jpg" in found.excluded
    assert without_copies(split, Records(tmp_path / "copies.jsonl")).copies == found.copies


def test_unreadable_files_and_copies_of_each_other_are_not_chosen(tmp_path: Path) -> None:
    library = captioned(tmp_path, *["a cat"] * 7)
    for number in (0, 1, 2):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    for number in (4, 5):
        (tmp_path / f"{number}.png").write_bytes((tmp_path / "3.png").read_bytes())
    for seed in range(5):
        (part,) = split_library(library, concepts_of(library), most=9, images=3, seeds=1, seed=seed).parts
        copies = {"3.png", "4.png", "5.png"}
        assert {"6.png"} == {*part.scored, part.reference} - copies
        assert len({*part.scored, part.reference}) == 2
        assert len(part.pool) == 6  # the library's retriever leaves out what cannot be read


def test_concepts_of_equal_images_are_refused_or_make_room_for_others(tmp_path: Path) -> None:
    library = captioned(tmp_path, "a cat", "a cat", "an oak", "an oak")
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    parts = split_library(library, concepts_of(library), most=1, images=1, seeds=1, seed=0).parts
    assert [part.concept for part in parts] == ["oak"]
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match="no concept has two images that can be read"):
        split_library(library, concepts_of(library), most=1, images=1, seeds=1, seed=0)
