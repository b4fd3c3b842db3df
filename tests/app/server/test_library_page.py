"""Pages of the library: contents, search, images, index, duplicates, gaps; hostile texts stay texts."""

import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest
from starlette.testclient import TestClient
from support import quick_engines as quick
from support.html_form import described_faults
from support.library_place import CAPTION, HOSTILE, library_place

from pleinair.app.api import draw, home
from pleinair.app.chat.threads import Threads
from pleinair.app.library.opened import OpenLibrary
from pleinair.app.runs.results import Result
from pleinair.app.server.app import create
from pleinair.app.server.library import _changes, is_own_machine
from pleinair.app.server.site import Options, Site
from pleinair.app.settings import load

HERE = "http://127.0.0.1:8800"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with library_place(tmp_path_factory.mktemp("shelf")) as folder:
        yield folder


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    with TestClient(create(Options(workers=0), home()), base_url=HERE, follow_redirects=False) as client:
        client.headers |= {"accept": "text/html"}
        yield client


@pytest.fixture(scope="module")
def indexed(shelf: Path) -> None:
    OpenLibrary(load(), home()).search("kestrel", 1)


@pytest.fixture(scope="module")
def drawn(indexed: None) -> Result:
    return draw("two things", seed=1)


def page(client: TestClient, address: str, status: int = 200) -> str:
    response = client.get(address)
    assert response.status_code == status, response.text[:500]
    text = response.text
    assert "<script>alert" not in text and "<img src=x>" not in text and "<b>x" not in text
    assert "style=" not in text and text.count("<main") == 1 and len(text) < 150_000
    return text


def test_the_library_is_listed_before_it_is_indexed(client: TestClient) -> None:
    text = page(client, "/library")
    assert "9 images, 9 with captions" in text and "Not indexed yet" in text
    assert CAPTION in unescape(text)
    fault = page(client, "/library/search?words=kestrel", 400)
    assert "is not indexed yet" in fault and 'role="alert"' in fault and 'value="kestrel"' in fault


def test_filters_and_pages(client: TestClient) -> None:
    assert "1 of 9 images" in page(client, "/library?words=KESTREL")
    assert "6 of 9 images" in page(client, "/library?licenses=free")
    assert "The list ends with page 1" in page(client, "/library?page=9")
    for address in ("/library?licenses=stolen", "/library?page=0", "/library?page=x"):
        assert client.get(address).status_code == 422


def test_changes_since_the_index_are_shown(client: TestClient, shelf: Path, indexed: None) -> None:
    new = shelf / "library" / "new <b>x.png"
    quick.speckled(16, (1, 222, 3)).save(new)
    try:
        assert client.post("/library/read").headers["location"] == "/library"
        text = page(client, "/library")
        assert "<b" in text and "1 new</b> since; not indexed yet." in text and "9 images" in text
        chat = page(client, client.get("/").headers["location"])
        assert "1 new since the library was indexed; not indexed yet" in chat

        async def first(shown: str) -> str:
            return str((await anext(_changes(site, shown, ""))).data)

        site = Site(Options(workers=0), home())
        site.monitor.look(indexes=False)

        assert "1 new</b> since" in anyio.run(first, "another.sqlite")
        assert "as they are now" in anyio.run(first, "another.sqlite")
    finally:
        new.unlink()
    client.post("/library/read")
    text = page(client, "/library")  # the folder has another time now
    assert "1 new" not in text and "captions may have changed</b> since" in text


def test_thumbnails_are_immutable_and_of_a_fixed_type(client: TestClient) -> None:
    addresses = re.findall(r"/library/images/small/[0-9a-f]{64}\.webp", page(client, "/library"))
    assert len(set(addresses)) == 9
    for address in set(addresses):
        response = client.get(address)
        assert response.headers["content-type"] == "image/webp" and response.content[8:12] == b"WEBP"
        assert "immutable" in response.headers["cache-control"]
    assert client.get(addresses[0].replace("small", "large")).status_code == 200
    assert client.get(addresses[0].replace("small", "huge")).status_code == 422
    for key in ("0" * 64, "..%2f..%2fmetadata", "1.png"):
        assert client.get(f"/library/images/small/{key}.webp").status_code == 404


@pytest.mark.parametrize("id", ["../metadata.jsonl", "/etc/passwd", "..%2F..%2Fruns.sqlite", "0.png%00", ""])
def test_an_id_that_is_no_image_is_refused(client: TestClient, indexed: None, id: str) -> None:
    assert "No image" in page(client, f"/library/image?id={id}", 404)
    if id:
        assert "No image" in page(client, f"/library/search?like={id}", 404)


def test_search_shows_hits_and_the_threshold(client: TestClient, indexed: None) -> None:
    text = page(client, "/library/search?words=kestrel")
    assert text.index("a kestrel over a field (+1 caption)") < text.index(
        "Threshold 0.90: a run uses none of the following"
    )
    assert "1 of 4 at or over the threshold of 0.90" in text and "More like this" in text
    assert 'name="id" value="unlicensed.png"' in text
    assert "Nothing fits." in page(client, "/library/search?words=zubrin")
    hostile = page(client, f"/library/search?words={quote('<script>alert(1)</script>')}&k=9")
    assert HOSTILE in unescape(hostile.replace("<wbr>", ""))


def test_search_by_an_upload_and_by_images_of_the_library_and_of_runs(
    client: TestClient, drawn: Result, shelf: Path
) -> None:
    data = (shelf / "library" / "3.png").read_bytes()
    response = client.post("/library/search", files={"image": ("x.png", io.BytesIO(data), "text/html")})
    assert response.status_code == 303
    text = page(client, response.headers["location"])
    assert text.index("3.png") and "cosine 1.00" in text and "Like this image" in text
    assert "copy of 1.png" in page(client, "/library/search?like=1.png").replace("<wbr>", "")
    assert drawn.outcome and drawn.outcome.best
    image = drawn.outcome.best.picture.sha256
    assert "cosine" in page(client, f"/library/search?run={drawn.run_id}&image={image}")
    assert "missing" in page(client, f"/library/search?run={drawn.run_id}&image={'0' * 64}", 404)
    refused = client.post("/library/search", files={"image": ("x.png", io.BytesIO(b"<svg/>"), "image/png")})
    assert refused.status_code == 400 and "not an image" in refused.text


def test_the_page_of_an_image_has_its_facts_and_runs(client: TestClient, drawn: Result) -> None:
    text = page(client, f"/library/image?id={quote(HOSTILE)}")
    assert "&lt;i&gt;mine&lt;/i&gt;" in text and "None that has ended" in text
    assert f'name="id" value="{HOSTILE}"' in unescape(text)
    text = page(client, "/library/image?id=unlicensed.png")
    assert "a kestrel over a field<br>a falcon in the wind" in text


def test_the_gap_report_links_to_runs_and_searches(client: TestClient, drawn: Result) -> None:
    text = page(client, "/library/gaps")
    assert "second thing" in text and f'href="/runs/{drawn.run_id}"' in text
    assert re.search(r'"/library/search\?words=[\w%]*second%20thing', text) and "still lacking" not in text
    assert "still lacking" in page(client, "/library/gaps?check=true")
    assert "No run has missed anything since then" in page(client, "/library/gaps?since=2999-01-01")
    soon = page(client, "/library/gaps?since=soon", 400)
    assert "must be a date" in soon and described_faults(soon) == ["fault"]


def test_a_folder_is_indexed_in_the_background(client: TestClient, shelf: Path, indexed: None) -> None:
    refused = client.post("/library/index", data={"folder": "no/such <b>folder"})
    assert refused.status_code == 400 and 'role="alert"' in refused.text
    assert 'value="no/such &lt;b&gt;folder"' in refused.text and described_faults(refused.text) == ["fault"]
    assert client.post("/library/duplicates").headers["location"] == "/library/index"
    busy = client.post("/library/index", data={"folder": ""})
    assert busy.status_code in (303, 409)  # the first job may have ended
    feed = client.get("/library/index/feed").text
    assert feed.rstrip().endswith("event: ended\r\ndata:") or "event: ended" in feed
    last = feed.rpartition("event: ended")[0].rpartition("\r\n\r\n\r\n")[2] or feed
    assert ">Done</hx-partial>" in last and "<button>Stop" not in last.rpartition("Done.")[2]
    while "<button>Stop" in page(client, "/library/index"):
        time.sleep(0.05)
    assert "Done." in page(client, "/library/index")
    assert "2 equal files" in page(client, "/library/duplicates")


def test_only_on_ones_own_machine_another_folder_is_indexed(shelf: Path) -> None:
    assert is_own_machine(Options())
    options = Options(names=("images.example.org",), workers=0)
    assert not is_own_machine(options) and not is_own_machine(Options(host="0.0.0.0"))
    with TestClient(create(options, home()), base_url=HERE) as client:
        response = client.post("/library/index", data={"folder": str(shelf)})
        assert response.status_code == 400 and "can be reached from other machines" in response.text
        assert 'name="folder"' not in client.get("/library/index").text


def test_a_missing_library_is_explained(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", "/no/such/folder")
    for address, status in (
        ("/library", 200),
        ("/library/search?words=x", 400),
        ("/library/duplicates", 200),
    ):
        assert "/no/such/folder" in page(client, address, status)
    monkeypatch.delenv("PLEINAIR_LIBRARY__FOLDER")
    monkeypatch.setenv("PLEINAIR_PROFILE", "sdxl")
    text = page(client, "/library")
    assert "library.folder" in text and "pleinair.toml" in text


PROGRAM = """
import sys
from starlette.testclient import TestClient
from pleinair.app.api import home
from pleinair.app.server.app import create
from pleinair.app.server.site import Options, Site
with TestClient(create(Options(workers=0), home()), base_url="http://127.0.0.1:8800") as client:
    for address in ("/library", "/library/search", "/library/index", "/library/gaps", "/library/duplicates"):
        assert client.get(address).status_code == 200, address
heavy = {"torch", "open_clip", "diffusers", "faiss", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_pages_without_a_search_import_no_model_library(shelf: Path) -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_an_image_is_put_into_the_tray_of_the_chat(client: TestClient, indexed: None) -> None:
    address = re.search(r'href="(/library/image[^"]+)"', page(client, "/library"))
    assert address
    form = re.search(
        r'action="(/library/use)"><input type="hidden" name="id" value="([^"]+)"',
        page(client, unescape(address[1])),
    )
    assert form
    answer = client.post(form[1], data={"id": unescape(form[2])})
    (thread,) = Threads().newest(9)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/threads/{thread.id}#composer")
    (image,) = thread.tray
    assert image.hit.id == unescape(form[2]) and image.hit.license
    client.post(form[1], data={"id": image.hit.id})
    assert [len(thread.tray) for thread in Threads().newest(9)] == [2]
    assert client.post(form[1], data={"id": "no such.png"}).status_code == 404
    Threads().delete(thread.id)
