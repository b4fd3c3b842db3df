"""Images that a server has signed: the received file stays beside ours, after a crash, until deletion."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.fault_server import FaultServer, reply
from support.signed_files import encoded, signed

from pleinair.app.api import draw, find, home, resume, run_table
from pleinair.app.runs.download import zip_of
from pleinair.app.runs.events import Event, StepFinished
from pleinair.app.runs.results import Result
from pleinair.app.runs.retention import delete
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import replay
from pleinair.app.trace.view import view_of

IMAGE = Image.radial_gradient("L").convert("RGB").resize((16, 16))
Draw = Callable[..., Result]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = FaultServer()
    yield server
    server.close()


@pytest.fixture
def hosted(place: Path, server: FaultServer) -> Draw:
    """Return what draws one image by the server."""
    generator = {
        "backend": "openai_images", "model": "m", "base_url": server.url, "slots": 0,
        "height": 16, "width": 16, "price_per_picture": 0.0,
    }  # fmt: skip

    def draw_hosted(data: bytes, **options: Any) -> Result:
        encoded = base64.b64encode(data).decode()
        server.acts = [reply(200, {"created": 1, "data": [{"b64_json": encoded}]})]
        overrides = {"generator": generator} | options.pop("overrides", {})
        result: Result = draw("a thing", seed=1, overrides=overrides, **{"graph": "direct"} | options)
        return result

    return draw_hosted


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
def test_the_received_file_is_beside_the_image(hosted: Draw, kind: str, suffix: str) -> None:
    data = signed(IMAGE, kind)
    result = hosted(data)
    assert result.picture is not None and result.original is not None
    assert result.original == result.picture.with_name(f"{result.picture.stem}-original{suffix}")
    assert result.original.read_bytes() == data
    stated = json.loads(result.sidecar.read_text("utf-8"))["original"]
    mime = f"image/{kind.lower()}"
    assert stated == {"file": result.original.name, "sha256": sha256(data).hexdigest(), "mime": mime}
    assert view_of(find(result.run_id), home()).original == str(result.original)
    assert result.plain()["original"] == str(result.original)


def test_an_unsigned_file_is_not_kept(hosted: Draw, place: Path) -> None:
    result = hosted(encoded(IMAGE, "JPEG"))
    assert result.original is None and "original" not in json.loads(result.sidecar.read_text("utf-8"))
    assert not list(place.rglob("*-original*"))
    assert view_of(find(result.run_id), home()).original is None


def test_a_worker_process_hands_it_over(hosted: Draw) -> None:
    data = signed(IMAGE, "JPEG")
    result = hosted(data, overrides={"worker.process": True})
    assert result.original is not None and result.original.read_bytes() == data


def test_a_crash_after_the_image_loses_nothing_and_pays_once(hosted: Draw, server: FaultServer) -> None:
    def crash(event: Event) -> None:
        if isinstance(event.data, StepFinished) and event.data.attempts:
            raise KeyboardInterrupt

    data = signed(IMAGE, "JPEG")
    with pytest.raises(KeyboardInterrupt):
        hosted(data, on_event=crash)
    requests = len(server.requests)
    result = resume(run_table().newest(1)[0].id)
    assert result.original is not None and result.original.read_bytes() == data
    assert len(server.requests) == requests == 1


def test_a_fork_has_the_originals_of_its_parent(hosted: Draw, server: FaultServer) -> None:
    data = signed(IMAGE, "PNG")
    parent = hosted(data, graph="pleinair", overrides={"budget.attempts": 1})
    result = fork(parent.run_id, "critique:1")
    assert result.original is not None and result.original.read_bytes() == data
    assert result.original != parent.original and len(server.requests) == 1


def test_replay_and_download_have_it_and_deletion_removes_it(hosted: Draw, tmp_path: Path) -> None:
    data = signed(IMAGE, "WEBP")
    result = hosted(data)
    again = replay(result.run_id, str(tmp_path / "again"))
    assert again.original is not None and again.original.read_bytes() == data
    assert len(list((tmp_path / "again").glob("*-original.webp"))) == 2  # with that of the attempt
    file = BytesIO()
    zip_of([find(result.run_id)], home(), file)
    names = {name: ZipFile(file).read(name) for name in ZipFile(file).namelist()}
    assert data in names.values() and len(names) == 4
    folder = home().run(result.run_id)
    assert list(folder.rglob("*-original.webp"))
    delete(run_table(), home(), [result.run_id])
    assert not list(home().home.rglob("*-original*"))


def test_the_page_of_a_run_offers_it(hosted: Draw) -> None:
    data = signed(IMAGE, "JPEG")
    result, plain = hosted(data), hosted(encoded(IMAGE, "JPEG"))
    with TestClient(create(Options(workers=0), home()), base_url="http://127.0.0.1:8800") as client:
        client.headers |= {"accept": "text/html"}
        text = client.get(f"/runs/{result.run_id}").text
        (address,) = re.findall(r'href="(/runs/[^"]+/originals/[0-9a-f]{64})" download', text)
        response = client.get(address)
        assert response.content == data and response.headers["content-type"] == "image/jpeg"
        assert '-original.jpg"' in response.headers["content-disposition"]
        assert client.get(address[:-1] + "g").status_code == 404
        assert "originals" not in client.get(f"/runs/{plain.run_id}").text
