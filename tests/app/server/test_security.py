"""Hostile requests to every route: refused, and nothing is changed."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from pleinair.app.api import home, run_table, submit
from pleinair.app.chat.threads import Threads
from pleinair.app.server.app import create
from pleinair.app.server.security import Guard, Rules, allowed_hosts
from pleinair.app.server.site import Options

HERE = "http://127.0.0.1:8800"
Headers = list[tuple[str, str]]
HOSTILE: dict[str, Headers] = {
    "another name": [("host", "evil.example")],
    "another name with the port": [("host", "evil.example:8800")],
    "another port": [("host", "127.0.0.1:80")],
    "a name that begins alike": [("host", "127.0.0.1:8800.evil.example")],
    "a name that ends alike": [("host", "evil.example/127.0.0.1:8800")],
    "a user before the name": [("host", "evil@127.0.0.1:8800")],
    "two ports": [("host", "127.0.0.1:8800:8800")],
    "words for a port": [("host", "127.0.0.1:8800:evil")],
    "the open address": [("host", "0.0.0.0:8800")],
    "no name": [("host", "")],
    "two names": [("host", "127.0.0.1:8800"), ("host", "evil.example")],
    "another origin": [("origin", "http://evil.example")],
    "no origin of its own": [("origin", "null")],
    "an empty origin": [("origin", "")],
    "another port's origin": [("origin", "http://127.0.0.1:8000")],
    "another scheme's origin": [("origin", "file://127.0.0.1:8800")],
    "an origin that begins alike": [("origin", "http://127.0.0.1:8800.evil.example")],
    "an origin with a user": [("origin", "http://127.0.0.1:8800@evil.example")],
    "two origins": [("origin", HERE), ("origin", "http://evil.example")],
    "an extension": [("origin", "chrome-extension://abcdefgh")],
    "a foreign fetch": [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
    "a sibling's fetch": [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")],
    "a foreign frame": [
        ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"),
    ],
    "a proxied name": [("host", "evil.example"), ("x-forwarded-host", "127.0.0.1:8800")],
}  # fmt: skip
CHANGING: dict[str, Headers] = {
    "a foreign form": [("referer", "http://evil.example/page")],
    "a foreign form without a referrer": [
        ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"),
    ],
}  # fmt: skip


@pytest.fixture
def app(place: Path) -> Guard:
    guard = create(Options(workers=0), home())
    assert isinstance(guard, Guard)
    return guard


def routes(guard: Guard) -> Iterator[tuple[str, str]]:
    app = guard.app
    assert isinstance(app, FastAPI)
    run, thread = submit("first thing and second thing").id, Threads().create().id
    names = {"run_id": run, "thread_id": thread, "action": "send", "name": "0" * 64}
    for route in app.routes:
        for method in getattr(route, "methods", None) or ("GET",):
            path = getattr(route, "path", "/")
            yield method, re.sub(r"\{(\w+)\}", lambda match: names[match[1]], path)


@dataclass
class Answer:
    """Response to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


def send(guard: Guard, method: str, path: str, headers: Headers, body: bytes = b"") -> Answer:
    """Send a request whose headers are exactly these, and `Host` where they have none."""
    names = [name for name, _ in headers]
    every = headers if "host" in names else [("host", "127.0.0.1:8800"), *headers]
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 9),
        "server": ("127.0.0.1", 8800), "headers": [(name.encode(), value.encode()) for name, value in every],
    }  # fmt: skip
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    async def keep(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, keep))
    start, *parts = sent
    fields = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], fields, b"".join(part.get("body", b"") for part in parts))


def table() -> list[Any]:
    return run_table().newest(99)


@pytest.mark.parametrize("kind", [*HOSTILE, *CHANGING])
def test_a_hostile_request_is_refused_on_every_route(app: Guard, kind: str) -> None:
    headers = (HOSTILE | CHANGING)[kind]
    for method, path in list(routes(app)):
        if kind in CHANGING and method in ("GET", "HEAD"):
            continue
        before = table()
        response = send(app, method, path, headers)
        assert response.status in (400, 403, 421), (method, path, response.status)
        assert table() == before


@pytest.mark.parametrize("name", ["127.0.0.1:8800", "localhost:8800", "[::1]:8800", "LOCALHOST:8800"])
def test_this_machine_is_served_by_its_names(app: Guard, name: str) -> None:
    response = send(app, "GET", "/static/page.css", [("host", name), ("origin", f"http://{name.lower()}")])
    assert response.status == 200
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("name", ["192.0.2.7", "192.0.2.7:8800", "[2001:db8::7]:80", "box.example:443"])
def test_names_without_a_port_are_served_at_any(place: Path, name: str) -> None:
    names = ("192.0.2.7", "[2001:db8::7]", "box.example")
    guard = create(Options(workers=0, names=names), home())
    assert isinstance(guard, Guard)
    assert send(guard, "GET", "/static/page.css", [("host", name)]).status == 200
    assert send(guard, "GET", "/static/page.css", [("host", f"{name}:x")]).status == 421


def test_a_link_on_another_page_may_be_followed(app: Guard) -> None:
    headers = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ]
    assert send(app, "GET", "/static/page.css", [*headers, ("referer", "http://evil.example/")]).status == 200


def test_a_web_socket_is_closed(app: Guard) -> None:
    sent: list[Any] = []

    async def connect() -> None:
        async def send_message(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await app({"type": "websocket", "headers": [], "path": "/"}, receive, send_message)

    asyncio.run(connect())
    assert sent == [{"type": "websocket.close", "code": 1008}]


TOKEN = "a token"


@pytest.fixture
def open_app(place: Path) -> Guard:
    guard = create(Options(workers=0, host="0.0.0.0", token=TOKEN, names=("box.example",)), home())
    assert isinstance(guard, Guard)
    return guard


@pytest.mark.parametrize(
    "headers",
    [
        [], [("authorization", "Bearer other")], [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer")], [("cookie", f"pleinair_token={TOKEN}")],
        [("cookie", "pleinair_token=")], [("cookie", "\x01=;;=")], [("authorization", "Bearer \xff")],
    ],
)  # fmt: skip
def test_an_open_server_needs_its_token(open_app: Guard, headers: Headers) -> None:
    for method, path in list(routes(open_app)):
        if not path.startswith("/static"):
            response = send(open_app, method, path, [("host", "box.example"), *headers])
            assert response.status in (303, 401, 429), (method, path, response.status)  # 429: many wrong ones


def test_an_open_server_serves_who_has_its_token(open_app: Guard) -> None:
    cookie = Rules(allowed_hosts("0.0.0.0", 1), TOKEN).cookie
    run = submit("first thing and second thing").id
    for header in (("authorization", f"Bearer {TOKEN}"), ("cookie", f"pleinair_token={cookie}")):
        assert send(open_app, "GET", f"/runs/{run}", [("host", "box.example"), header]).status == 200


@pytest.mark.parametrize("charset", ["raw_unicode_escape", "utf-7", "utf-16", "idna", "none"])
def test_texts_in_other_charsets_are_refused(app: Guard, charset: str) -> None:
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    assert send(app, "POST", "/threads/new/keep", [("content-type", kind)]).status == 415


@pytest.mark.parametrize("length", ["99999999999999999999", str(2**40), "-1", "1e3", "١"])
def test_a_body_that_claims_too_much_is_refused(app: Guard, length: str) -> None:
    path = f"/runs/{submit('first thing and second thing').id}/stop"
    response = send(app, "POST", path, [("content-length", length)])
    assert response.status in (400, 413)
    assert not table()[0].cancel_requested
