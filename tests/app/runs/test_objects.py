"""Runs with images and files in a storage of fsspec, here in memory; `tests/outside` has a real server."""

import errno
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

import pytest
from fastapi.testclient import TestClient
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pleinair.app import api
from pleinair.app.api import draw, home, run_table
from pleinair.app.comparison.sources import read_source
from pleinair.app.doctor.doctor import Finding, examine
from pleinair.app.runs.calls import call_image, read_calls
from pleinair.app.runs.download import zip_of
from pleinair.app.runs.events import Event
from pleinair.app.runs.images import stored_image
from pleinair.app.runs.results import Result
from pleinair.app.runs.retention import delete, planned, prunable, sizes_of
from pleinair.app.runs.worker import PREVIEW, work
from pleinair.app.server.app import create
from pleinair.app.server.site import Options, Site
from pleinair.app.trace.replay import replay
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.folder import Folder, StorageAway, read_file
from pleinair.tools.types import BadInput, NotFound, Picture

PROMPT = "first thing and second thing"
URL = "memory://bucket/shared"


@pytest.fixture(autouse=True)
def storage(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.setenv("PLEINAIR_CLUSTER__OBJECTS", URL)
    yield Folder(URL)
    MemoryFileSystem.store.clear()


def best(result: Result) -> Picture:
    assert result.outcome.best
    return result.outcome.best.picture


def image_at(sha256: str) -> str:
    return f"pictures/sha256/{sha256[:2]}/{sha256}.png"


def test_nothing_but_the_log_and_the_checkpoints_is_in_the_home(place: Path, storage: Folder) -> None:
    result = draw(PROMPT, seed=1)
    here = {path.name for path in (place / "home" / "runs" / result.run_id).rglob("*") if path.is_file()}
    assert here == {"checkpoints.sqlite", "events.jsonl"}
    files = home().files(result.run_id)
    assert image_at(best(result).sha256) in files.sizes()
    assert [call.number for call in read_calls(files)] == list(range(1, len(read_calls(files)) + 1))
    assert call_image(files, best(result).sha256) is None, "an image of the run is stored once"
    assert not [name for name in storage.sizes() if ".check-" in name]
    assert result.picture
    assert result.picture.is_file()
    row = run_table().get(result.run_id)
    assert "memory:" not in row.request_json
    assert "cluster" not in json.loads(row.request_json)["settings"]


def test_a_worker_shows_previews_and_removes_them(place: Path) -> None:
    (run,) = api.enqueue(PROMPT, seed=1, client="test")
    page = TestClient(create(Options(workers=0), home()), "http://127.0.0.1:8800")
    home().files(run.id).write(PREVIEW, b"\x89PNG")
    assert page.get(f"/runs/{run.id}/preview.png").content == b"\x89PNG"
    assert Site(Options(), home()).preview_stamp(run.id) == home().files(run.id).stamp(PREVIEW)
    work(run_table(), home(), threading.Event(), idle=0.3)
    assert run_table().get(run.id).outcome
    assert PREVIEW not in home().files(run.id).sizes()
    assert page.get(f"/runs/{run.id}/preview.png").status_code == 204


def test_the_page_serves_images_which_are_found_by_their_content(place: Path) -> None:
    result = draw(PROMPT, seed=1)
    page = TestClient(create(Options(workers=0), home()), "http://127.0.0.1:8800")
    sha256, run = best(result).sha256, result.run_id
    answer = page.get(f"/runs/{run}/images/{sha256}.png")
    assert answer.content == ArtifactStore(home().pictures(run)).read(best(result))
    assert "immutable" in answer.headers["cache-control"]
    assert page.get(f"/runs/{run}/thumbnails/{sha256}.webp").status_code == 200
    assert page.get(f"/runs/{run}").status_code == 200
    assert stored_image(sha256, home()) == answer.content
    with pytest.raises(NotFound):
        stored_image("0" * 64, home())


def test_earlier_runs_come_along_by_a_copy(place: Path, storage: Folder) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PLEINAIR_CLUSTER__OBJECTS")
        result = draw(PROMPT, seed=1)
    page = TestClient(create(Options(workers=0), home()), "http://127.0.0.1:8800")
    address = f"/runs/{result.run_id}/images/{best(result).sha256}.png"
    assert page.get(address).status_code == 404
    for path in (place / "home" / "runs").rglob("*.png"):
        storage.write(path.relative_to(place / "home").as_posix(), path.read_bytes())
    assert page.get(address).status_code == 200


def test_a_run_is_compared_downloaded_and_replayed(place: Path, tmp_path: Path) -> None:
    result = draw(PROMPT, seed=1)
    (entry,) = read_source(result.run_id)
    assert entry.file.startswith("memory://")
    assert read_file(entry.file) == ArtifactStore(home().pictures(result.run_id)).read(best(result))
    file = io.BytesIO()
    zip_of([api.find(result.run_id)], home(), file)
    assert len(ZipFile(file).namelist()) == 3
    again = replay(result.run_id, out=str(tmp_path / "again"))
    assert again.picture
    assert result.picture
    assert again.picture.read_bytes() == result.picture.read_bytes()


def test_deletion_removes_what_is_stored_elsewhere(place: Path, storage: Folder) -> None:
    file = place / "own.png"
    Image.new("RGB", (16, 16), "red").save(file)
    first = draw(PROMPT, seed=1, graph="imagerag", input_images=[file]).run_id
    second = draw(PROMPT, seed=2).run_id
    here = {run: sum(Folder(home().run(run)).sizes().values()) for run in (first, second)}
    there = {run: sum(home().files(run).sizes().values()) for run in (first, second)}
    sizes = {run: here[run] + there[run] for run in (first, second)}
    assert sizes_of([first, second], home()) == sizes == sizes_of([first, second] * 20, home())
    assert prunable(run_table(), home(), larger_than=sum(sizes.values()) - 1) == [first]
    assert planned(run_table(), home(), [first]).sizes == {first: sizes[first]}
    delete(run_table(), home(), [first])
    assert home().files(first).sizes() == {}
    assert Folder(home().input_images).sizes() == {}
    assert sum(home().files(second).sizes().values()) == there[second]
    delete(run_table(), home(), [second])
    assert storage.sizes() == {}


class Flaky(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Storage that gives no answer while `is_away`."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    is_away = False

    def cat_file(self, path: str, *rest: Any, **options: Any) -> bytes:
        self._answer()
        return bytes(super().cat_file(path, *rest, **options))

    def pipe_file(self, path: str, value: bytes, *rest: Any, **options: Any) -> None:
        self._answer()
        super().pipe_file(path, value, *rest, **options)

    def _answer(self) -> None:
        if self.is_away:
            raise OSError(errno.EIO, "connection refused")


register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture
def flaky(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Flaky]]:
    monkeypatch.setenv("PLEINAIR_CLUSTER__OBJECTS", "flaky://bucket")
    yield Flaky
    Flaky.is_away = False
    Flaky.store.clear()


def test_a_run_goes_on_once_its_storage_is_back(flaky: type[Flaky]) -> None:
    undisturbed = draw(PROMPT, seed=1)

    def cut(event: Event) -> None:
        flaky.is_away = flaky.is_away or event.kind == "step_finished"

    run = api.submit(PROMPT, seed=1)
    with pytest.raises(StorageAway, match="connection refused") as error:
        api.finish(run, cut)
    assert f"`pleinair runs resume {run.id}`" in error.value.remedy
    assert (run_table().get(run.id).status, run_table().get(run.id).outcome) == ("queued", None)
    page = TestClient(create(Options(workers=0), home()), "http://127.0.0.1:8800")
    address = f"/runs/{run.id}/images/{best(undisturbed).sha256}.png"
    answer = page.get(address)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    asked = page.post("/v1/images/generations", json={"prompt": PROMPT})
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "server_unavailable")
    flaky.is_away = False
    assert best(api.resume(run.id)) == best(undisturbed)
    assert page.get(address).status_code == 200


def test_a_worker_waits_for_the_storage(flaky: type[Flaky], caplog: pytest.LogCaptureFixture) -> None:
    (run,) = api.enqueue(PROMPT, seed=1, client="test")
    flaky.is_away = True
    work(run_table(), home(), threading.Event(), idle=0.5)
    assert run_table().get(run.id).status == "queued", "an outage is no outcome, however often it is tried"
    assert "connection refused" in caplog.text
    flaky.is_away = False
    work(run_table(), home(), threading.Event(), idle=0.5)
    assert run_table().get(run.id).outcome


def test_doctor_writes_reads_and_removes_a_file(flaky: type[Flaky]) -> None:
    def finding() -> Finding:
        return next(each for each in examine(None, {}) if each.name == "object storage")

    assert (finding().ok, finding().text) == (True, "flaky://bucket can be written to")
    assert flaky.store == {}
    flaky.is_away = True
    assert (finding().ok, "connection refused" in finding().text) == (False, True)
    assert "can be reached from here" in finding().remedy


def test_a_storage_that_cannot_be_used_is_named_before_a_run_begins(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_CLUSTER__OBJECTS", "carrierpigeon://coop/runs")
    with pytest.raises(BadInput, match="carrierpigeon"):
        draw(PROMPT, seed=1)
    assert run_table().newest(10) == []
