"""Shares that actors of a cluster embed, without a cluster; with one: `tests/outside`."""

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny_images import write_library, write_profile

from pleinair.app.cluster import ClusterOptions
from pleinair.app.engines import build_encoder
from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import Settings, load
from pleinair.tools.cluster import ray_data
from pleinair.tools.cluster.ray_data import EncoderChoice, ShareActor, ShareTask
from pleinair.tools.retrieval.build import BATCH, build_index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.shards import Embedded, store_shard
from pleinair.tools.types import PleinairError

COUNT = 330  # images: a share of 256, one of 74 with a last batch of few


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("library")
    library = write_library(folder / "library", COUNT)
    return load(str(write_profile(folder)), {"library.folder": str(library)})


def library_of(settings: Settings) -> Library:
    return Library.open(settings.library.folders)


def task_of(settings: Settings, library: Library, **changes: Any) -> ShareTask:
    choice = EncoderChoice(settings.encoder.backend, settings.encoder.arguments)
    facts = {"encoder_id": build_encoder(settings).id, "addresses": library.addresses, **changes}
    return ShareTask(choice, max_pixels=library.max_pixels, batch_size=BATCH, **facts)


def results_of(task: ShareTask, library: Library) -> list[dict[str, Any]]:
    actor = ShareActor()
    rows = ray_data._new_shares(library, Embedded(), task)
    batches = [{name: [value] for name, value in row.items()} for row in rows]
    return [{name: value for name, (value,) in actor(batch).items()} for batch in batches]


def test_shares_that_actors_return_make_the_index_of_one_process(settings: Settings, tmp_path: Path) -> None:
    library = library_of(settings)
    results = results_of(task_of(settings, library), library)
    assert [result["count"] for result in results] == [256, len(library.items) - 256]
    for result in results:
        store_shard(tmp_path / "index" / "shards", result["shard"])
    encoder = build_encoder(settings)
    joined = build_index(library, encoder, tmp_path / "index")
    assert joined.manifest == build_index(library, encoder, tmp_path / "one").manifest
    assert (len(joined), len(joined.skipped)) == (COUNT - 1, 2)


def test_what_a_node_lacks_is_returned_as_a_fault_with_a_remedy(settings: Settings) -> None:
    library = library_of(settings)
    (folder,) = library.addresses.values()
    faults: dict[str, dict[str, Any]] = {
        "there is no /nowhere": {"addresses": {"": "/nowhere"}},
        "none of 256 images can be opened, such as `00.tar": {"addresses": {"": str(Path(folder).parent)}},
        "the encoder is open_clip:clip@.*, not other": {"encoder_id": "other"},
        "reads images otherwise": {"reading": 1},
    }
    for fault, changes in faults.items():
        result = results_of(task_of(settings, library, **changes), library)[0]
        assert not result["shard"]
        assert result["fault"].startswith("On the node ")
        assert re.search(fault, result["fault"]), result["fault"]
        assert result["remedy"]


def test_only_new_items_are_sent(settings: Settings, tmp_path: Path) -> None:
    library, encoder = library_of(settings), build_encoder(settings)
    task, embedded = task_of(settings, library), Embedded()
    for result in results_of(task, library)[:1]:
        store_shard(tmp_path, result["shard"])
        ray_data._store(result, embedded, tmp_path, library.max_pixels)
    (row,) = ray_data._new_shares(library, embedded, task)
    assert [item.id for item in pickle.loads(row["share"])[1]] == [*library.items][256:]
    assert encoder.id == task.encoder_id


def test_without_a_cluster_in_the_settings_ray_is_not_imported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ray", "grpc"):
        monkeypatch.setitem(sys.modules, name, None)  # so that its import fails
    assert list(bring_up_to_date(settings))
    clustered = settings.model_copy(update={"cluster": ClusterOptions(ray="local")})
    with pytest.raises(PleinairError, match=r"pip install 'pleinair\[cluster\]'"):
        list(bring_up_to_date(clustered))


def test_a_stopped_reader_ends_after_its_next_row() -> None:
    rows = ray_data._polled(lambda: iter(range(1, 10**9)))
    assert [next(rows) for _ in range(3)] == [1, 2, 3]
    rows.close()


def test_an_error_of_the_reading_thread_is_raised() -> None:
    def rows() -> Any:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(ray_data._polled(rows))
