"""Runs with their images on a real S3 server: drawn, shown, served, forked, replayed, deleted, cut off."""

import asyncio
import base64
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from support.mcp_clients import LATEST, call, client_of, images_of, links_of
from support.s3_server import BUCKET, S3Server, s3_server

from pleinair.app import api
from pleinair.app.api import draw, home, run_table
from pleinair.app.mcp.access import Access
from pleinair.app.runs.calls import read_calls
from pleinair.app.runs.download import zip_of
from pleinair.app.runs.images import stored_image
from pleinair.app.runs.results import Result
from pleinair.app.runs.retention import delete, sizes_of
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import replay
from pleinair.tools.retrieval.roots.opening import root_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.folder import Folder, StorageAway
from pleinair.tools.types import Picture

PROMPT = "a barn owl and a hoopoe"
LOCAL = Access(files=True)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def place(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set a home whose images are on the server."""
    folder = tmp_path_factory.mktemp("place")
    variables = {
        "PLEINAIR_HOME": str(folder / "home"),
        "PLEINAIR_PATHS__OUT": str(folder / "out"),
        "PLEINAIR_CLUSTER__OBJECTS": f"s3://{BUCKET}/shared",
        "PLEINAIR_BUDGET__ATTEMPTS": "1",
        **server.environment,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def result(place: Path) -> Result:
    return draw(PROMPT, seed=1)


@pytest.fixture(scope="module")
def page(place: Path) -> TestClient:
    return TestClient(create(Options(workers=0), home()), "http://127.0.0.1:8800")


def best(result: Result) -> Picture:
    assert result.outcome.best
    return result.outcome.best.picture


def run_program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "pleinair.app.cli.main", *arguments]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)


def test_what_a_run_leaves_is_on_the_server_and_not_here(place: Path, result: Result) -> None:
    stored = Folder(f"s3://{BUCKET}/shared/runs/{result.run_id}").sizes()
    sha256 = best(result).sha256
    assert stored[f"pictures/sha256/{sha256[:2]}/{sha256}.png"] > 0
    assert len(read_calls(home().files(result.run_id))) == len([name for name in stored if "calls/0" in name])
    assert "calls/0001.json" in stored
    assert not list((place / "home" / "runs").rglob("*.png"))
    assert not list((place / "home" / "runs").rglob("calls"))
    assert result.picture
    assert result.picture.is_file()


def test_the_page_serves_images_with_their_headers(page: TestClient, result: Result) -> None:
    sha256, run = best(result).sha256, result.run_id
    assert f"/runs/{run}/images/{sha256}.png" in page.get(f"/runs/{run}").text
    image = page.get(f"/runs/{run}/images/{sha256}.png")
    assert image.headers["content-type"] == "image/png"
    assert "immutable" in image.headers["cache-control"]
    assert image.content == ArtifactStore(home().pictures(run)).read(best(result))
    assert page.get(f"/runs/{run}/images/{sha256}.png?crop=0,0,0.5,0.5").status_code == 200
    assert page.get(f"/runs/{run}/thumbnails/{sha256}.webp").headers["content-type"] == "image/webp"
    assert page.get(f"/runs/{run}/images/{'0' * 64}.png").status_code == 404
    assert page.get(f"/runs/{run}/preview.png").status_code == 204


def test_mcp_and_the_home_find_an_image_by_its_content(result: Result) -> None:
    shown = call(LOCAL, "show", run=result.run_id)
    assert images_of(shown)
    (link,) = links_of(shown)

    async def read() -> Any:
        async with client_of(LOCAL, LATEST) as client:
            return (await client.read_resource(link.uri)).contents[0]

    data = base64.b64decode(asyncio.run(read()).blob)
    assert Image.open(io.BytesIO(data)).size == (best(result).width, best(result).height)
    assert stored_image(best(result).sha256, home()) == ArtifactStore(home().pictures(result.run_id)).read(
        best(result)
    )


def test_images_of_the_openai_interface(page: TestClient, place: Path) -> None:
    from pleinair.app.runs.worker import work

    stop = threading.Event()
    worker = threading.Thread(target=work, args=(run_table(), home(), stop))
    worker.start()
    try:
        answer = page.post("/v1/images/generations", json={"prompt": PROMPT, "quality": "low"})
        assert answer.status_code == 200, answer.text
        Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).load()
        kept = next(iter(run_table().newest(1)))
        assert "preview.png" not in home().files(kept.id).sizes()
    finally:
        stop.set()
        worker.join()


def test_a_run_is_shown_and_exported(result: Result, tmp_path: Path) -> None:
    sha256 = best(result).sha256
    shown = run_program("trace", "show", result.run_id)
    assert f"/runs/{result.run_id}/pictures/sha256/{sha256[:2]}/{sha256}.png" in shown.stdout, shown.stderr
    board = tmp_path / "board.html"
    exported = run_program("trace", "export", result.run_id, str(board))
    assert exported.returncode == 0, exported.stderr
    assert "data:image/png;base64," in board.read_text(encoding="utf-8")
    file = io.BytesIO()
    zip_of([api.find(result.run_id)], home(), file)
    assert [name for name in ZipFile(file).namelist() if name.endswith(".png")]


def test_a_run_is_forked_and_replayed(result: Result, tmp_path: Path) -> None:
    child = fork(result.run_id, at="critique:1", overrides={"budget.attempts": 2})
    assert child.outcome.best
    first = f"pictures/sha256/{best(result).sha256[:2]}/{best(result).sha256}.png"
    assert first in home().files(child.run_id).sizes()
    again = replay(result.run_id, out=str(tmp_path))
    assert again.picture
    assert result.picture
    assert again.picture.read_bytes() == result.picture.read_bytes()


def test_input_images_are_on_the_server(place: Path, result: Result) -> None:
    assert result.picture
    before = home().input_images
    second = draw(PROMPT, seed=2, input_images=[result.picture], graph="imagerag")
    assert len(Folder(before).sizes()) == 1
    assert delete(run_table(), home(), [second.run_id]).sizes
    assert Folder(before).sizes() == {}


def test_a_run_asks_the_storage_seldom(place: Path, server: S3Server) -> None:
    before = server.requests()
    drawn = draw(PROMPT, seed=10)
    assert best(drawn)
    counts = {method: count - before.get(method, 0) for method, count in server.requests().items()}
    assert sum(counts.values()) <= 60, counts


def test_deletion_counts_and_removes_the_objects(place: Path) -> None:
    run = draw(PROMPT, seed=3).run_id
    stored = sum(home().files(run).sizes().values())
    assert stored > 1000
    assert sizes_of([run], home())[run] > stored, "the files of this machine count too"
    assert sizes_of([run], home()) == sizes_of([run] * 40, home()), "one by one, and in one listing"
    delete(run_table(), home(), [run])
    assert home().files(run).sizes() == {}
    assert not (place / "home" / "runs" / run).exists()


def test_a_run_goes_on_after_an_outage(place: Path, server: S3Server) -> None:
    whole = draw(PROMPT, seed=5, overrides={"budget.attempts": 2})
    stopped = threading.Event()

    def stop_once(event: Any) -> None:
        if event.kind == "step_finished" and not stopped.is_set():
            server.stop()
            stopped.set()

    run = api.submit(PROMPT, seed=5, overrides={"budget.attempts": 2})
    try:
        with pytest.raises(StorageAway, match=f"s3://{BUCKET}/shared/runs/{run.id}") as error:
            api.finish(run, stop_once)
        assert f"pleinair runs resume {run.id}" in error.value.remedy
        assert run_table().get(run.id).outcome is None, "an outage is no outcome"
    finally:
        server.start()
    resumed = api.resume(run.id)
    assert resumed.outcome.ending == whole.outcome.ending
    assert best(resumed) == best(whole)


def test_refused_credentials_are_named_before_anything_is_drawn(place: Path) -> None:
    before = len(run_table().newest(200))
    answer = run_program("draw", PROMPT, AWS_SECRET_ACCESS_KEY="wrong")
    assert answer.returncode != 0
    assert "the credentials were refused" in answer.stderr
    assert "Check the credentials of the storage" in answer.stderr
    assert len(run_table().newest(200)) == before


def test_a_library_on_the_server_is_listed_with_stamps_that_stay(result: Result) -> None:
    root = root_of(f"s3://{BUCKET}/shared/runs/{result.run_id}/pictures")
    listing = root.list()  # type: ignore[attr-defined]
    path = next(path for path in listing.images if path.endswith(".png"))
    stamp = root.stamp(path)
    assert stamp
    assert stamp == root_of(root.address).stamp(path), "asked alone it has the same stamp as in the list"
    assert root.read(path, 8) == b"\x89PNG\r\n\x1a\n"
    alone = root_of(f"{root.address}/{path}")
    assert alone.list().images == [""], "a file of its own, such as a container"  # type: ignore[attr-defined]
    assert alone.read("", 8) == b"\x89PNG\r\n\x1a\n"
