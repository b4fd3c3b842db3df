"""Requests for images: on disk before the answer, a client of its own each, refused by a full queue."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient

from pleinair.app.api import enqueue, finish, home, run_table
from pleinair.app.runs.queue import QueueFull
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.trace.view import view_of

PROMPT = "first thing and second thing"
PAGE = {"accept": "text/html"}


@pytest.fixture
def browser(place: Path) -> TestClient:
    return TestClient(
        create(Options(workers=0, queue=3), home()),
        base_url="http://127.0.0.1:8800",
        follow_redirects=False,
        raise_server_exceptions=False,
    )


def stored() -> list[Any]:
    return run_table().newest(99)


def test_a_form_queues_a_run_and_leads_to_its_page(browser: TestClient) -> None:
    fields = {"prompt": PROMPT, "seed": "7", "width": "", "graph": "direct", "approve": ""}
    answer = browser.post("/runs", data=fields, headers=PAGE)
    (run,) = stored()
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run.id}")
    assert (run.seed, json.loads(run.request_json)["graph"]) == (7, "direct")
    assert [queued.id for queued in run_table().queue()] == [run.id]
    assert (
        "In the queue" in browser.get(f"/runs/{run.id}").text or "Next" in browser.get(f"/runs/{run.id}").text
    )


def test_a_program_gets_the_ids(browser: TestClient) -> None:
    answer = browser.post("/runs", json={"prompt": PROMPT, "num_images": 2, "approve": "references"})
    assert answer.status_code == 202
    assert answer.json()["runs"] == [run.id for run in reversed(stored())]
    assert json.loads(stored()[0].request_json)["settings"]["approve"] == "references"


def test_a_program_gets_a_run_as_json(browser: TestClient) -> None:
    run = browser.post("/runs", json={"prompt": PROMPT, "seed": 1}).json()["run"]
    for is_ended in (False, True):
        answer = browser.get(f"/runs/{run}", headers={"accept": "application/json"})
        assert answer.json() == view_of(run_table().get(run), home()).model_dump(mode="json")
        assert answer.json()["has_ended"] == is_ended
        finish(run_table().get(run))
    assert browser.get("/runs/none", headers={"accept": "application/json"}).json()["error"]


def test_one_key_is_one_run(browser: TestClient) -> None:
    body = {"prompt": PROMPT, "idempotency_key": "a key", "seed": 1}
    ids = {browser.post("/runs", json=body).json()["run"] for _ in range(5)}
    assert len(ids) == len(stored()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"prompt": ""}, {"prompt": "x" * 3000}, {"prompt": PROMPT, "seed": "many"},
        {"prompt": PROMPT, "graph": "no such"}, {"prompt": PROMPT, "profile": "no such"},
        {"prompt": PROMPT, "profile": "../secret.toml"}, {"prompt": PROMPT, "profile": "/etc/hostname"},
        {"prompt": PROMPT, "out": "/tmp"}, {"prompt": PROMPT, "num_images": "0"},
        {"prompt": PROMPT, "num_images": "65"}, {"prompt": PROMPT, "num_images": "4"},
        {"prompt": PROMPT, "width": "-8"}, {"prompt": PROMPT, "approve": "perhaps"},
        {"prompt": PROMPT, "negative_prompt": "snow"},
        {"prompt": PROMPT, "idempotency_key": "20260101-000000-00000000#image-2"},
        {"prompt": PROMPT, "idempotency_key": "k" * 201}, {"prompt": PROMPT, "idempotency_key": "\0"},
    ],
)  # fmt: skip
def test_bad_input_is_explained_and_nothing_is_written(browser: TestClient, fields: dict[str, str]) -> None:
    page = browser.post("/runs", data=fields, headers=PAGE)
    reply = browser.post("/runs", json=fields)
    assert page.status_code == reply.status_code == 400
    assert 'role="alert"' in page.text
    assert reply.json()["error"]["message"]
    assert stored() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"prompt": 3}', b"\xff"])
def test_what_is_no_request_is_refused(browser: TestClient, body: bytes) -> None:
    answer = browser.post("/runs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert stored() == []


def test_a_full_queue_says_when_there_is_room(browser: TestClient) -> None:
    for _ in range(3):
        assert browser.post("/runs", json={"prompt": PROMPT}).status_code == 202
    reply = browser.post("/runs", json={"prompt": PROMPT})
    page = browser.post("/runs", data={"prompt": PROMPT}, headers=PAGE)
    assert reply.status_code == page.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert page.headers["retry-after"] in page.text
    assert "3 runs are waiting" in reply.json()["error"]["message"]
    assert len(stored()) == 3


def test_the_wait_follows_from_recent_runs(place: Path) -> None:
    for _ in range(2):
        (run,) = enqueue(PROMPT, client="a", graph="direct")
        _end(run.id, seconds=30.0)
    enqueue(PROMPT, client="a")
    for count in (1, 2):
        with pytest.raises(QueueFull) as full:
            enqueue(PROMPT, client="b", most=2 if count == 2 else 1, num_images=count)
        assert full.value.retry_after == 30


def _end(run_id: str, seconds: float) -> None:
    """End a run as if it had taken so long."""
    import sqlite3

    from pleinair.tools.types import Outcome

    outcome = Outcome(ending="unchecked", reason="").model_dump_json()
    db = sqlite3.connect(home().table_file)
    db.execute(
        "UPDATE runs SET status='unchecked', outcome_json=?, created=?, updated=? WHERE id=?",
        (outcome, 1000.0, 1000.0 + seconds * len(stored()), run_id),
    )
    db.commit()
    db.close()


def test_a_key_is_answered_even_when_the_queue_is_full(browser: TestClient) -> None:
    body = {"prompt": PROMPT, "idempotency_key": "a key"}
    first = browser.post("/runs", json=body).json()
    browser.post("/runs", json={"prompt": PROMPT, "num_images": 2})
    assert browser.post("/runs", json={"prompt": PROMPT}).status_code == 429
    assert browser.post("/runs", json=body).json() == first


def test_browsers_are_clients_of_their_own(browser: TestClient) -> None:
    for _ in range(2):
        browser.cookies.clear()
        cookie = browser.get("/runs", headers=PAGE).headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
        assert "set-cookie" not in browser.get("/runs", headers=PAGE).headers
        browser.post("/runs", data={"prompt": PROMPT}, headers=PAGE)
    browser.cookies.clear()
    assert len({run.client for run in stored()}) == 2


def test_a_program_is_one_client(browser: TestClient) -> None:
    for _ in range(2):
        browser.post("/runs", json={"prompt": PROMPT})
    browser.post("/runs", json={"prompt": PROMPT}, headers={"authorization": "Bearer other"})
    first, second, other = reversed(stored())
    assert first.client == second.client != other.client


def test_of_many_clients_at_once_none_is_accepted_and_lost(place: Path) -> None:
    guard = create(Options(workers=0, queue=16), home())

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8800") as client:
            cookies = [{"cookie": f"pleinair_client={number:032x}"} for number in range(200)]
            body = {"prompt": PROMPT, "graph": "direct"}
            return await asyncio.gather(*(client.post("/runs", json=body, headers=own) for own in cookies))

    answers = asyncio.run(ask())
    accepted = {answer.json()["run"] for answer in answers if answer.status_code == 202}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(accepted) == 16 and accepted == {run.id for run in stored()}
    assert len(refused) == 184 and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
