"""A library that machines share: hits of Postgres equal those of the local index, and nothing is embedded."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image
from support.colour_encoder import ColourEncoder, build, paint
from support.postgres import PostgresServer

from pleinair.app.api import draw
from pleinair.app.engines import build_encoder, require_published
from pleinair.app.index import bring_up_to_date
from pleinair.app.libraries import build_folder, has_changed, index_age, index_folder, open_library
from pleinair.app.library.opened import OpenLibrary
from pleinair.app.paths import Paths
from pleinair.app.runs.results import Result
from pleinair.app.settings import home_of, load
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.pgvector import (
    Outdated,
    PgVectors,
    require_extension,
    set_hnsw,
    write_table,
)
from pleinair.tools.retrieval.publication import NotPublished, embedded_of, fetch, open_published, publish
from pleinair.tools.storage.postgres import DatabaseAway, close_connections, connection
from pleinair.tools.types import BadInput, PleinairError

QUERIES = ("a kestrel", "a red bird with long legs", "zubrin", "a flower beside a mushroom")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server
        close_connections()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    yield server.fresh_database()
    close_connections()


@pytest.fixture(scope="module")
def pocket_url(server: PostgresServer) -> str:
    return server.fresh_database()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, pocket_url: str) -> Path:
    """Return the home of a machine that has indexed and published the pocket library."""
    home = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLEINAIR_HOME", str(home))
        patch.setenv("PLEINAIR_CLUSTER__VECTORS", pocket_url)
        lines = list(bring_up_to_date(load()))
    assert lines[-1].startswith("2000 vectors of ") and pocket_url in lines[-1]
    return home


@pytest.fixture
def second(first: Path, tmp_path: Path, pocket_url: str, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Return the home of another machine, in use, which has the images with other times and no index."""
    (library,) = (first / "cache").glob("pocket-catalogue-*[!k]")
    shutil.copytree(library, tmp_path / "cache" / library.name, copy_function=shutil.copyfile)
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path))
    monkeypatch.setenv("PLEINAIR_CLUSTER__VECTORS", pocket_url)
    return home_of(load())


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Return a folder of 60 squares of ten colours, six of each, so that there are many ties."""
    folder = tmp_path / "squares"
    folder.mkdir()
    for number in range(60):
        paint(folder, f"{number:02d}.png", (25 * (number % 10), 200, 10))
    return folder


def test_hits_and_scores_equal_those_of_the_local_index(first: Path, second: Paths) -> None:
    settings = load()
    encoder = build_encoder(settings)
    local = Index.open(first / "cache" / "indexes" / build_folder(settings, second).name, encoder)
    fetch(second.vectors, index_folder(settings, second).name, index_folder(settings, second))
    shared = open_published(index_folder(settings, second), encoder, second.vectors)
    assert shared.ids == local.ids and len(shared) == 2000
    images = [Image.effect_noise((64, 64), 50 + 10 * n).convert("RGB") for n in range(3)]
    queries = np.concatenate([encoder.encode_text(QUERIES), encoder.encode_images(images)])
    rng = np.random.default_rng(0)
    few = Selection(np.sort(rng.choice(2000, 30, replace=False)), 2000)
    most = Selection(np.sort(rng.choice(2000, 1900, replace=False)), 2000)
    for k in (1, 10, 200):
        for selection in (None, few, most):
            assert shared.search(queries, k, selection) == local.search(queries, k, selection)
    assert all((shared.vector(id) == local.vector(id)).all() for id in local.ids[::400])


def test_ties_are_ordered_as_in_the_local_index(url: str, squares: Path, tmp_path: Path) -> None:
    encoder, local = ColourEncoder(), build(squares, tmp_path / "index")
    publish(url, "squares", local)
    fetch(url, "squares", tmp_path / "copy")
    shared = open_published(tmp_path / "copy", encoder, url)
    queries = np.stack([local.vector_at(row) for row in (0, 7)])
    for k in (1, 4, 6, 20, 60):
        assert shared.search(queries, k) == local.search(queries, k)
    assert shared.search(queries, 3, Selection(np.array([10, 20, 30]), 60)) == local.search(
        queries, 3, Selection(np.array([10, 20, 30]), 60)
    )


def test_another_machine_draws_the_same_without_embedding(
    first: Path, second: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "a hoopoe in the snow"
    shared = sidecar(draw(prompt, seed=1, out=tmp_path / "shared"))
    assert not (second.cache / "indexes").exists()
    assert not list(index_folder(load(), second).glob("*.faiss"))
    monkeypatch.setenv("PLEINAIR_HOME", str(first))
    monkeypatch.delenv("PLEINAIR_CLUSTER__VECTORS")
    local = sidecar(draw(prompt, seed=1, out=tmp_path / "local"))
    assert shared["retrievals"] and shared["references"]
    for key in ("retrievals", "references", "credits"):
        assert shared[key] == local[key]
    assert images(shared) == images(local) and len(images(local)) > 1
    assert shared["library"]["images"] == 2000 and not shared["library"]["compared"]


def test_methods_by_words_and_conditions_work_from_the_copy(second: Paths) -> None:
    for options in ({"method": "lexical"}, {"method": "hybrid"}, {"min_side": 64}):
        settings = load(overrides={f"retrieval.{key}": value for key, value in options.items()})
        library = OpenLibrary(settings, second)
        found = library.search("hoopoe", 4)
        assert found.hits and found.images == 2000, options
        assert library.library.picture(found.hits[0].hit.id).size == (96, 96)


def test_a_run_is_refused_before_anything_is_stored(
    first: Path, url: str, server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path))
    monkeypatch.setenv("PLEINAIR_CLUSTER__VECTORS", url)
    with pytest.raises(NotPublished, match=url) as error:
        draw("a hoopoe", seed=1)
    assert "pleinair index" in error.value.remedy
    away = url.replace(str(server.port), "1")
    monkeypatch.setenv("PLEINAIR_CLUSTER__VECTORS", away)
    with pytest.raises(DatabaseAway, match="refused"):
        draw("a hoopoe", seed=1)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "runs.sqlite").exists()


@pytest.fixture
def published(url: str, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish the squares from a first machine."""
    monkeypatch.setenv("PLEINAIR_CLUSTER__VECTORS", url)
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", str(squares))
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "first"))
    assert list(bring_up_to_date(load()))[-1].startswith("60 vectors")


@pytest.mark.usefixtures("published")
def test_a_changed_library_is_noticed_and_indexed_by_another_machine(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "second"))
    settings, home = load(), home_of(load())
    assert len(open_library(settings, home).items) == 60
    age = index_age(settings, home)
    assert age and age.images == 60 and age.walked and not age.compared
    assert not has_changed(settings, home)
    paint(squares, "new.png", (3, 200, 90))
    assert has_changed(settings, home) and len(open_library(settings, home).items) == 60
    assert list(bring_up_to_date(settings))[-1].startswith("61 vectors")
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "first"))
    assert len(open_library(load(), home_of(load())).items) == 61


@pytest.mark.usefixtures("published")
def test_a_second_encoder_is_published_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = {"backend": "open_clip", "model": "local-dir:pocket/encoder", "device": "cpu"}
    settings = load(overrides={"retrieval.method": "both", "retrieval.second": second})
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "second"))
    with pytest.raises(NotPublished):
        require_published(settings, home_of(settings))
    assert len(list(bring_up_to_date(settings))) == 4
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "third"))
    require_published(settings, home_of(settings))
    assert len(OpenLibrary(settings, home_of(settings)).search("a red bird", 3).hits) == 3
    assert not (tmp_path / "third" / "cache" / "indexes").exists()


def test_two_machines_may_publish_at_the_same_time(url: str, squares: Path, tmp_path: Path) -> None:
    index, faults = build(squares, tmp_path / "index"), list[PleinairError]()

    def act(name: str) -> None:
        try:
            publish(url, name, index)
        except PleinairError as error:
            faults.append(error)

    threads = [threading.Thread(target=act, args=[name]) for name in ("one", "two", "one")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert [fetch(url, name, tmp_path / name).images for name in ("one", "two")] == [60, 60]


def test_published_vectors_are_not_computed_again(url: str, squares: Path, tmp_path: Path) -> None:
    local, encoder = build(squares, tmp_path / "index"), ColourEncoder()
    publish(url, "squares", local)
    fetch(url, "squares", tmp_path / "copy")
    shared = open_published(tmp_path / "copy", encoder, url)
    paint(squares, "new.png", (3, 200, 90))
    library = Library.open(squares)
    built = build_index(library, encoder, tmp_path / "other", joined=embedded_of(shared, url))
    assert encoder.batches == [1] and len(built) == 61
    assert (built.vector("07.png") == local.vector("07.png")).all()


def test_an_interrupted_publication_leaves_the_earlier_one(
    url: str, server: PostgresServer, squares: Path, tmp_path: Path
) -> None:
    before = publish(url, "squares", build(squares, tmp_path / "index"))
    paint(squares, "new.png", (3, 200, 90))
    changed = build(squares, tmp_path / "index")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def kill(done: int, total: int) -> None:
        server.kill()

    with pytest.raises(KeyboardInterrupt):
        publish(url, "squares", changed, on_progress=stop)
    with pytest.raises(DatabaseAway):
        publish(url, "squares", changed, on_progress=kill)
    server.start()
    assert fetch(url, "squares", tmp_path / "copy") == before
    assert (
        len(
            open_published(tmp_path / "copy", ColourEncoder(), url).search(
                np.eye(4, dtype=np.float32)[:1], 99
            )[0]
        )
        == 60
    )
    with psycopg.connect(url) as direct:
        assert direct.execute("SELECT count(*) FROM pleinair_vector_tables").fetchone() == (1,)
    assert publish(url, "squares", changed).images == 61


def test_readers_see_the_old_state_or_the_new(url: str, squares: Path, tmp_path: Path) -> None:
    query = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
    publish(url, "squares", build(squares, tmp_path / "index"))
    fetch(url, "squares", tmp_path / "copy")
    old = open_published(tmp_path / "copy", ColourEncoder(), url)
    expected = old.search(query, 60)
    for number in range(5):
        (squares / f"{number:02d}.png").unlink()
    publish(url, "squares", build(squares, tmp_path / "index"))
    fetch(url, "squares", tmp_path / "copy")
    new = open_published(tmp_path / "copy", ColourEncoder(), url)
    assert old.search(query, 60) == expected and len(new.search(query, 60)[0]) == 55
    paint(squares, "new.png", (3, 200, 90))
    with psycopg.connect(url) as direct:  # as if a day had passed
        direct.execute("UPDATE pleinair_vector_tables SET replaced = replaced - interval '1 day'")
    publish(url, "squares", build(squares, tmp_path / "index"))
    assert len(new.search(query, 60)[0]) == 55
    with pytest.raises(Outdated, match="no longer in"):
        old.search(query, 60)


def test_searches_wait_for_a_server_that_restarts(
    url: str, server: PostgresServer, squares: Path, tmp_path: Path
) -> None:
    publish(url, "squares", build(squares, tmp_path / "index"))
    fetch(url, "squares", tmp_path / "copy")
    shared = open_published(tmp_path / "copy", ColourEncoder(), url)
    query = shared.vector_at(3)[None]
    expected = shared.search(query, 5)
    server.terminate_backends()
    assert shared.search(query, 5) == expected
    server.restart()
    assert shared.search(query, 5) == expected
    server.kill()
    starter = threading.Timer(1.0, server.start)
    starter.start()
    assert shared.search(query, 5) == expected
    starter.join()


def test_a_changed_vector_is_noticed(url: str, squares: Path, tmp_path: Path) -> None:
    publish(url, "squares", build(squares, tmp_path / "index"))
    fetch(url, "squares", tmp_path / "copy")
    with psycopg.connect(url) as direct:
        ((table,),) = direct.execute("SELECT name FROM pleinair_vector_tables").fetchall()
        direct.execute(f"UPDATE {table} SET vector = '[1, 0, 0, 0]' WHERE row = 7".encode())
    shared = open_published(tmp_path / "copy", ColourEncoder(), url)
    with pytest.raises(BadInput, match=r"`07\.png` .* damaged"):
        shared.search(np.array([[1, 0, 0, 0]], np.float32), 1)


def test_a_damaged_copy_is_fetched_again(url: str, squares: Path, tmp_path: Path) -> None:
    local, copy = build(squares, tmp_path / "index"), tmp_path / "copy"
    publish(url, "squares", local)
    fetch(url, "squares", copy)
    (copy / local.manifest.catalogue).write_bytes(b"")
    fetch(url, "squares", copy)
    assert open_published(copy, ColourEncoder(), url).ids == local.ids


def test_a_server_without_the_extension_is_refused(url: str, squares: Path, tmp_path: Path) -> None:
    with psycopg.connect(url) as direct:  # hides the extensions that the server has
        direct.execute("CREATE TABLE pg_available_extensions (name text)")
    hidden = f"{url}?options=-csearch_path%3Dpublic,pg_catalog"
    with pytest.raises(BadInput, match="extension `vector`") as error:
        publish(hidden, "squares", build(squares, tmp_path / "index"))
    assert "pgvector" in error.value.remedy


@pytest.mark.parametrize("dim", [32, 2100])
def test_an_index_by_hnsw_finds_nearly_all_with_exact_scores(url: str, dim: int) -> None:
    rng = np.random.default_rng(0)
    count = 3000 if dim < 100 else 300
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with connection(url) as lent:
        require_extension(lent, url)
        with lent.transaction():
            write_table(lent, "vectors", dim, vectors)
            set_hnsw(lent, "vectors", dim, True)
    exact = PgVectors(url, "vectors", count, dim, exact=True).search(vectors[:20], 10, None)
    scores, rows = PgVectors(url, "vectors", count, dim).search(vectors[:20], 10, None)
    shared = [len({*a} & {*b}) for a, b in zip(rows.tolist(), exact[1].tolist(), strict=True)]
    assert sum(shared) >= 190 and (rows[:, 0] == np.arange(20)).all()
    assert np.abs(scores - np.einsum("nd,nkd->nk", vectors[:20], vectors[rows])).max() < 1e-6


def sidecar(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(result.sidecar.read_text("utf-8"))
    return content


def images(content: dict[str, Any]) -> list[str]:
    return [attempt["picture"]["sha256"] for attempt in content["attempts"]]
