"""Other people's images as a library: Debian's `tuxpaint-stamps-default`, with a description beside each.

The figures are shown by --log-cli-level=INFO.
"""

from __future__ import annotations

import io
import json
import logging
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.html_page import Page

from pleinair.app.api import draw, run_table
from pleinair.app.engines import build
from pleinair.app.libraries import open_library
from pleinair.app.paths import Paths, places
from pleinair.app.settings import Settings, load
from pleinair.app.storyboard.export import export
from pleinair.tools.retrieval.caption_index import words
from pleinair.tools.retrieval.compose import threshold_of
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieve import retrieve
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Concept, Retriever

log = logging.getLogger(__name__)
STAMPS = Path("/usr/share/tuxpaint/stamps")
INSTALL = "apt-get install --no-install-recommends tuxpaint-stamps-default"
REWORDINGS = 100
ADDED = ("old", "small", "beautiful", "big", "single")


@pytest.fixture(scope="module")
def settings() -> Settings:
    assert STAMPS.is_dir(), f"The stamps are missing: {INSTALL}"
    return load("pocket", {"library.folder": str(STAMPS)})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return Paths(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def library(settings: Settings, home: Paths) -> Library:
    return open_library(settings, home)


@pytest.fixture(scope="module")
def retriever(settings: Settings, home: Paths, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    return build(settings, home, ArtifactStore(tmp_path_factory.mktemp("store"))).retriever


def sidecar(id: str) -> str:
    """Return the description of a stamp: the first line of the text beside it."""
    path = (STAMPS / id).with_suffix(".txt")
    return path.read_text("utf-8").split("\n")[0].strip() if path.is_file() else ""


def test_every_readable_image_is_indexed_with_its_caption(library: Library, retriever: Retriever) -> None:
    described = {hit.id: hit.caption for hit in retriever.entries() if sidecar(hit.id)}
    right = [id for id, caption in described.items() if caption == sidecar(id)]
    log.info("%d of %d images are indexed", len(retriever.entries()), len(library.items))
    log.info("%d of %d captions are read", len(right), len(described))
    assert len(described) > 700
    assert len(right) >= 0.99 * len(described)
    assert len(retriever.entries()) >= 0.99 * len(library.items)


def test_files_of_other_kinds_are_reported(library: Library) -> None:
    drawings = [*STAMPS.rglob("*.svg")]
    assert drawings and not set(library.items) & {str(path.relative_to(STAMPS)) for path in drawings}
    assert library.others[".svg"] == len(drawings)


@pytest.fixture(scope="module")
def credited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the vehicles, and credit them in a table, which their packager has not done."""
    folder = tmp_path_factory.mktemp("credited") / "vehicles"
    shutil.copytree(STAMPS / "vehicles", folder)
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.png"))]
    facts = [{"file_name": name, "source": address(name), "license": "Public Domain"} for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    return folder


def address(id: str) -> str:
    return f"https://example.org/stamps?file={id}&size=1"


def differences(shown: bytes, path: Path) -> float:
    """Return the mean difference of an image in a page from a stamp on white, in levels."""
    with Image.open(io.BytesIO(shown)) as image, Image.open(path) as stamp:
        white = Image.new("RGBA", stamp.size, "white")
        white.alpha_composite(stamp.convert("RGBA"))
        expected = white.convert("RGB").resize(image.size)
        return float(np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(expected, int)).mean())


@pytest.mark.parametrize(
    ("method", "kind"), [("auto", "rank fusion"), ("dense", "cosine"), ("lexical", "BM25")]
)
def test_a_storyboard_shows_the_stamps_that_were_retrieved(
    credited: Path, tmp_path: Path, method: str, kind: str
) -> None:
    overrides = {"library.folder": str(credited), "retrieval.method": method, "retrieval.threshold": 0.2}
    prompt = "a mountain rescue car"
    result = draw(prompt, seed=1, overrides=overrides, out=str(tmp_path))
    for name in ("run.html", "run.png"):
        export(run_table().get(result.run_id), places(""), tmp_path / name)
    assert (tmp_path / "run.png").stat().st_size > 10_000
    page = Page((tmp_path / "run.html").read_text("utf-8"))
    told = json.loads(result.sidecar.read_text("utf-8"))
    used = [reference for attempt in told["attempts"] for reference in attempt["request"]["references"]]
    assert used and len(page.texts["reference"]) == len(used)
    for reference, text in zip(used, page.texts["reference"], strict=True):
        hit = reference["hit"]
        assert hit["caption"] == (sidecar(f"vehicles/{hit['id']}") or Path(hit["id"]).parent.name)
        facts = (reference["concept"], Path(hit["id"]).name, kind, "CC-PDM-1.0", address(hit["id"]))
        assert [fact for fact in facts if fact not in text] == []
        assert address(hit["id"]) in page.links
        assert any(differences(data, credited / hit["id"]) < 8 for data in page.images[hit["caption"]])
    (retrieval,) = told["retrievals"]
    rest = [hit for hit in retrieval["hits"] if hit["id"] not in {item["hit"]["id"] for item in used[:1]}]
    assert len(page.texts["unselected"]) == 1 and rest
    for rank, hit in enumerate(retrieval["hits"], start=1):
        alternative = f"{retrieval['concept']}, rank {rank}: {hit['caption']}"
        if hit in rest:
            assert Path(hit["id"]).name in page.texts["unselected"][0]
            assert any(differences(data, credited / hit["id"]) < 8 for data in page.images[alternative])


def reworded(caption: str, random: random.Random) -> str:
    """Return a caption in another order, with other articles, in the plural and with another word."""
    parts = [word for word in caption.rstrip(".!").split() if word.lower() not in ("a", "an", "the")]
    match random.choice(("order", "article", "plural", "added", "photo")):
        case "order":
            random.shuffle(parts)
        case "article":
            parts = [random.choice(("a", "the", "some")), *parts]
        case "plural":
            parts = [
                *parts[:-1],
                f"{parts[-1]}es" if parts[-1].endswith(("s", "x", "ch")) else f"{parts[-1]}s",
            ]
        case "added":
            parts = ["a", random.choice(ADDED), *parts]
        case "photo":
            parts = ["a photo of a", *parts, "in the garden"]
    return " ".join(parts).lower()


def test_rewordings_of_unique_captions_find_their_image(
    settings: Settings, library: Library, retriever: Retriever
) -> None:
    texts = {id: tuple(sorted(set(words(item.caption)))) for id, item in library.items.items()}
    counts = Counter(texts.values())
    unique = [entry for entry in retriever.entries() if texts[entry.id] and counts[texts[entry.id]] == 1]
    chance, missed = random.Random(0), []
    for entry in chance.sample(unique, REWORDINGS):
        query = reworded(entry.caption, chance)
        concept = Concept(name=query, caption=query)
        threshold = threshold_of(settings.retrieval)
        retrieval = retrieve(concept, retriever=retriever, k=settings.retrieval.k, threshold=threshold)
        accepted = [hit.id for hit in retrieval.hits[:3] if retrieval.accepts(hit)]
        if retrieval.abstained or entry.id not in accepted:
            missed.append(f"{query!r} for {entry.caption!r}: {[hit.caption for hit in retrieval.hits[:3]]}")
    log.info("%d of %d rewordings find their image", REWORDINGS - len(missed), REWORDINGS)
    assert len(missed) <= 0.05 * REWORDINGS, "\n".join(missed)
