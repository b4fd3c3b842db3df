"""List of runs in a browser: search, paging, download, deletion."""

import io
import json
import sqlite3
from datetime import date
from pathlib import Path
from zipfile import ZipFile

import pytest
from fastapi.testclient import TestClient
from support.html_form import described_faults

from pleinair.app.api import draw, home, run_table, submit
from pleinair.app.chat.thread import Message, Thread
from pleinair.app.chat.threads import Threads
from pleinair.app.server import run_list
from pleinair.app.server.app import create
from pleinair.app.server.site import Options

PAGE = {"accept": "text/html"}
PROMPT = "first thing and second thing"


@pytest.fixture
def browser(place: Path) -> TestClient:
    return TestClient(
        create(Options(workers=0), home()),
        base_url="http://127.0.0.1:8800",
        headers=PAGE,
        follow_redirects=False,
    )


def listed(browser: TestClient, query: str = "") -> list[str]:
    page = browser.get(f"/runs{query}")
    assert page.status_code == 200
    return [part.partition('"')[0] for part in page.text.split('name="run" value="')[1:]]


def test_runs_are_searched_and_filtered(browser: TestClient) -> None:
    wren, fish = submit("a Wren in the snow", graph="direct").id, submit("a FISH & <wren>").id
    draw(PROMPT, seed=1, graph="direct")
    assert listed(browser, "?search=WREN")[:2] == [fish, wren]
    assert listed(browser, "?search=wren+snow&graph=direct") == [wren]
    assert listed(browser, f"?search={fish}") == [fish]
    assert listed(browser, "?status=queued&graph=pleinair") == [fish]
    today = date.today().isoformat()
    assert len(listed(browser, f"?since={today}&until={today}")) == 3
    assert listed(browser, "?until=2020-01-01") == []
    page = browser.get("/runs?search=%3Cwren%3E").text
    assert "a FISH &amp; &lt;wren&gt;" in page and "<wren>" not in page
    assert "1 attempt" in browser.get("/runs?status=unchecked").text


def test_a_wrong_date_is_told_beside_the_field(browser: TestClient) -> None:
    page = browser.get("/runs?since=yesterday&search=wren")
    assert page.status_code == 400
    assert 'role="alert"' in page.text and 'value="yesterday"' in page.text and 'value="wren"' in page.text
    assert described_faults(page.text) == ["since-fault"]
    both = browser.get("/runs?since=yesterday&until=2026-99-99").text
    assert described_faults(both) == ["since-fault", "until-fault"]


def test_the_list_has_pages(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "PAGE", 2)
    runs = [submit(PROMPT).id for _ in range(5)][::-1]
    assert listed(browser) == runs[:2]
    assert listed(browser, "?page=2") == runs[2:4]
    assert listed(browser, "?page=9&search=thing") == runs[4:]
    text = browser.get("/runs?page=2&search=thing").text
    assert (
        'href="/runs?search=thing&amp;page=3"' in text and 'aria-current="page" aria-label="Page 2"' in text
    )
    assert browser.get("/runs?selected=all").text.count(" checked") == 2


def test_a_damaged_row_is_listed(browser: TestClient) -> None:
    run = submit(PROMPT).id
    db = sqlite3.connect(home().table_file)
    db.execute("UPDATE runs SET order_json = '{'")
    db.commit()
    db.close()
    assert listed(browser) == [run]


def test_selected_runs_are_downloaded(browser: TestClient) -> None:
    first, second = (draw("two things", seed=seed) for seed in (1, 2))
    waiting = submit(PROMPT).id
    answer = browser.get(f"/runs/download.zip?run={first.run_id}&run={second.run_id}&run={waiting}")
    assert answer.headers["content-type"] == "application/zip"
    archive = ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert first.picture and second.picture
    names = {path.name for result in (first, second) for path in (result.picture, result.sidecar) if path}
    assert set(archive.namelist()) == names | {"credits.txt"}
    assert archive.read(first.picture.name) == first.picture.read_bytes()
    references = json.loads(archive.read(first.sidecar.name))["references"]
    credits = archive.read("credits.txt").decode()
    assert references and all(each["id"] in credits and each["license"] in credits for each in references)
    single = browser.get(f"/runs/download.zip?run={first.run_id}")
    assert len(ZipFile(io.BytesIO(single.content)).namelist()) == 3


@pytest.mark.parametrize("path", ["/runs/download.zip", "/runs/delete"])
def test_nothing_selected_is_told(browser: TestClient, path: str) -> None:
    page = browser.get(path)
    assert page.status_code == 400 and "no run is selected" in page.text


def test_a_run_without_an_end_has_no_download(browser: TestClient) -> None:
    assert browser.get(f"/runs/download.zip?run={submit(PROMPT).id}").status_code == 400
    assert browser.get("/runs/download.zip?run=../../etc").status_code == 404


def test_deletion_is_confirmed_and_says_what_stays(browser: TestClient) -> None:
    gone, chat, queued = (
        draw(PROMPT, seed=1, graph="direct").run_id, draw(PROMPT, seed=2, graph="direct").run_id,
        submit(PROMPT).id,
    )  # fmt: skip
    with Threads().opened(Thread.begin()) as session:
        session.thread = session.thread.model_copy(update={"turns": (Message(prompt="x", runs=(chat,)),)})
    query = "&".join(f"run={run}" for run in (gone, chat, queued))
    page = browser.get(f"/runs/delete?{query}").text
    assert "Delete 1 run (" in page and "it has not ended" in page and 'name="threads"' in page
    assert len(run_table().newest(9)) == 3
    answer = browser.post("/runs/delete", data={"run": [gone, chat, queued]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?deleted=1&kept=2")
    assert "1 run deleted; 2 kept" in browser.get(answer.headers["location"]).text
    assert {run.id for run in run_table().newest(9)} == {chat, queued}
    assert "These runs have been deleted already" in browser.get(f"/runs/delete?run={gone}").text
    browser.post("/runs/delete", data={"run": [chat], "threads": "true"})
    assert {run.id for run in run_table().newest(9)} == {queued}


def test_thumbnails_are_small_and_of_the_run_only(browser: TestClient) -> None:
    result = draw(PROMPT, seed=1, graph="direct")
    assert result.outcome.best
    name = result.outcome.best.picture.sha256
    answer = browser.get(f"/runs/{result.run_id}/thumbnails/{name}.webp")
    assert answer.headers["content-type"] == "image/webp" and "immutable" in answer.headers["cache-control"]
    for other in ("0" * 64, "..%2f..%2fruns"):
        assert browser.get(f"/runs/{result.run_id}/thumbnails/{other}.webp").status_code == 404
