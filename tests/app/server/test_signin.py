"""Sign-in with the server's token, and pages of errors."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pleinair.app.api import home, submit
from pleinair.app.runs.store import Busy
from pleinair.app.server.app import create
from pleinair.app.server.security import MOST_WRONG, Guard
from pleinair.app.server.site import Options

TOKEN = "a-secret-of-this-test"
PAGE = {"accept": "text/html"}
HERE = "http://127.0.0.1:8800"


def client(options: Options, base: str = HERE) -> TestClient:
    guard = create(options, home())
    return TestClient(guard, base_url=base, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def browser(place: Path) -> TestClient:
    options = Options(workers=0, host="0.0.0.0", token=TOKEN, names=("box.example",))
    return client(options, "http://box.example")


def test_a_browser_signs_in_and_out(browser: TestClient) -> None:
    run = submit("first thing and second thing").id
    answer = browser.get(f"/runs/{run}", headers=PAGE)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/token?next=/runs/{run}")
    asked = browser.get("/compare?left=a%26b&right=ü", headers=PAGE).headers["location"]
    assert 'value="/compare?left=a%26b&amp;right=%C3%BC"' in browser.get(asked, headers=PAGE).text
    form = browser.get(answer.headers["location"], headers=PAGE)
    assert f'value="/runs/{run}"' in form.text and 'type="password"' in form.text
    assert "Sign out" not in form.text
    wrong = browser.post("/token", data={"token": "other", "next": f"/runs/{run}"}, headers=PAGE)
    assert wrong.status_code == 401 and 'role="alert"' in wrong.text and "set-cookie" not in wrong.headers
    right = browser.post("/token", data={"token": TOKEN, "next": f"/runs/{run}"}, headers=PAGE)
    assert (right.status_code, right.headers["location"]) == (303, f"/runs/{run}")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
    assert TOKEN not in cookie
    assert "Sign out" in browser.get(f"/runs/{run}", headers=PAGE).text
    assert browser.get("/token?next=/runs").headers["location"] == "/runs"
    browser.post("/sign-out")
    assert browser.get(f"/runs/{run}", headers=PAGE).status_code == 303


def test_the_cookie_is_secure_behind_a_proxy(browser: TestClient) -> None:
    headers = {"origin": "https://box.example"}
    assert "Secure" in browser.post("/token", data={"token": TOKEN}, headers=headers).headers["set-cookie"]


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example", "https://evil.example", "/\\evil.example", "evil", "\t//evil.example",
        "javascript:1", "//[x", "//a\u2100b", "/\t/evil.example",
    ],
)  # fmt: skip
def test_sign_in_leads_to_no_other_site(browser: TestClient, address: str) -> None:
    form = browser.post("/token", data={"token": TOKEN, "next": address})
    link = browser.get("/token", params={"next": address})
    assert form.headers["location"] == link.headers["location"] == "/"


def test_no_large_request_is_read_without_a_token(browser: TestClient) -> None:
    assert browser.post("/token", data={"token": "x" * 20_000}, headers=PAGE).status_code == 413


def test_tokens_cannot_be_tried_without_end(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleinair.app.server.signin.PAUSE", 0)
    for number in range(MOST_WRONG):
        header = {"authorization": f"Bearer {number}"}
        wrong = browser.get("/runs", headers=header) if number % 2 else browser.post("/token", data=header)
        assert wrong.status_code == 401
    assert browser.post("/token", data={"token": TOKEN}).status_code == 429
    assert browser.get("/runs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 429


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404), ("GET", "/runs/20260101-000000-00000000", 404), ("GET", "/runs/none", 404),
        ("PUT", "/runs", 405), ("GET", "/runs?page=many", 422), ("GET", "/broken", 500),
        ("GET", "/busy", 409),
        ("GET", f"/runs?page={10**19}", 422), ("GET", f"/threads?search={'+'.join('a' * 1200)}", 422),
    ],
)  # fmt: skip
def test_an_error_is_a_page_or_json(place: Path, method: str, path: str, status: int) -> None:
    browser = client(Options(workers=0))
    assert isinstance(browser.app, Guard)

    def broken() -> None:
        raise ZeroDivisionError("a secret of the code")

    def busy() -> None:
        raise Busy("another session is changing it")

    browser.app.app.get("/busy")(busy)  # type: ignore[attr-defined]
    browser.app.app.get("/broken")(broken)  # type: ignore[attr-defined]
    page, reply = browser.request(method, path, headers=PAGE), browser.request(method, path)
    assert page.status_code == reply.status_code == status
    assert "<h1>" in page.text and 'role="alert"' in page.text and 'aria-label="Pages"' in page.text
    assert reply.json()["error"]["message"]
    for text in (page.text, reply.text):
        assert "Traceback" not in text and "secret" not in text


def test_a_refusal_is_a_page_for_a_browser(place: Path) -> None:
    page = client(Options(workers=0), "http://evil.example").get("/runs", headers=PAGE)
    assert page.status_code == 421
    assert "--host-name" in page.text and "<h1>" in page.text
