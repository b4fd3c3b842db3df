"""Judging page: blind, one pair at a time, stored at once, for several judges."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient
from support.html_form import described_faults

from pleinair.app.comparison.study import open_study, shown_at
from pleinair.app.comparison.votes import Votes
from pleinair.app.paths import Paths
from pleinair.app.server.judge import Judging, create_judging
from pleinair.app.server.site import Options, Site

HERE = "http://127.0.0.1:8801"
ANSWERS = {"alignment": "left", "quality": "tie", "preference": "right"}


def client_of(place: Path, judge: str = "", token: str = "") -> TestClient:
    study = open_study(place / "study")
    options = Options(port=8801, token=token, workers=0, is_judging=True)
    places = Paths(place / "home")
    judging = Judging(study, Votes(place / "study", study), judge)
    app = create_judging(options, places, Site(options, places), judging=judging)
    return TestClient(app, base_url=HERE, headers={"accept": "text/html"})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Write a study of three pairs; the images have metadata that name their sources."""
    for name, colour in (("secret-a", "red"), ("secret-b", "blue")):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(3):
            info = PngInfo()
            info.add_text("parameters", f"Model: {name}")
            Image.new("RGB", (40, 30), colour).save(folder / f"{name}-{number}.png", pnginfo=info)
            order = {"prompt": f"<b>prompt</b> {number}"}
            sidecar = json.dumps({"format": 1, "run": "r", "order": order, "seed": number})
            (folder / f"{name}-{number}.json").write_text(sidecar, encoding="utf-8")
    open_study(tmp_path / "study", str(tmp_path / "secret-a"), str(tmp_path / "secret-b"), 5)
    return tmp_path


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    with client_of(place, "anna") as client:
        yield client


def pair_of(text: str) -> str:
    match = re.search(r'name="pair" value="([^"]+)"', text)
    assert match
    return match[1]


def test_a_pair_is_blind(client: TestClient, place: Path) -> None:
    study, response = open_study(place / "study"), client.get("/")
    text = response.text
    assert "Pair 1 of 3" in text and "&lt;b&gt;prompt" in text and "<b>prompt" not in text
    assert not re.search(
        r"secret|\.json|\bseed|\bred\b|\bblue\b|" + re.escape(str(place)), text.split("<main")[1]
    )
    addresses = re.findall(r'src="(/images/[0-9a-f]{32}\.png)"', text)
    assert len(set(addresses)) == 2
    pair = study.by_key[pair_of(text)]
    for address, side in zip(addresses, ("left", "right"), strict=True):
        image = client.get(address)
        assert image.headers["content-type"] == "image/png" and b"secret" not in image.content
        shown = shown_at(pair, side)  # type: ignore[arg-type]
        with Image.open(io.BytesIO(image.content)) as sent, Image.open(shown.file) as original:
            assert sent.getpixel((0, 0)) == original.getpixel((0, 0)) and not sent.info
    assert client.get(f"/images/{'0' * 32}.png").status_code == 404
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "style=" not in text and 'href="/runs"' not in text


def test_votes_are_stored_and_the_page_goes_on(client: TestClient, place: Path) -> None:
    seen = []
    for number in range(3):
        text = client.get("/").text
        assert f"Pair {number + 1} of 3" in text
        seen.append(pair_of(text))
        response = client.post("/vote", data={"pair": seen[-1], **ANSWERS}, follow_redirects=False)
        assert response.status_code == 303
        lines = (place / "study" / "votes.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == number + 1 and json.loads(lines[-1])["alignment"] == "left"
    assert len(set(seen)) == 3 and "You have judged all 3 pairs" in client.get("/").text
    with client_of(place, "anna") as again:
        assert "all 3 pairs" in again.get("/").text
        assert "Pair 3 of 3" in again.post("/undo").text
        assert pair_of(again.get("/").text) == seen[-1]


def test_a_double_click_counts_once(client: TestClient, place: Path) -> None:
    pair = pair_of(client.get("/").text)
    for answer in ("left", "right"):
        assert client.post("/vote", data={"pair": pair, **ANSWERS, "alignment": answer}).status_code == 200
    study = open_study(place / "study")
    (vote,) = Votes(place / "study", study).current()
    assert vote.alignment == "left"


def test_an_incomplete_answer_is_asked_for(client: TestClient, place: Path) -> None:
    pair = pair_of(client.get("/").text)
    response = client.post("/vote", data={"pair": pair, "alignment": "left", "quality": "nonsense"})
    assert response.status_code == 422 and pair_of(response.text) == pair
    assert "Answer all three questions" in response.text
    assert re.search(r'name="alignment" value="left" required checked', response.text)
    assert not (place / "study" / "votes.jsonl").exists()
    assert client.post("/vote", data={"pair": "pair-99", **ANSWERS}).status_code == 404


def test_skip_and_undo(client: TestClient) -> None:
    first = pair_of(client.get("/").text)
    second = pair_of(client.post("/vote", data={"pair": first, "action": "skip"}).text)
    assert second != first
    assert pair_of(client.post("/undo").text) == first
    client.post("/vote", data={"pair": first, "action": "skip"})
    for _ in range(2):
        client.post("/vote", data={"pair": pair_of(client.get("/").text), **ANSWERS})
    text = client.get("/").text
    assert pair_of(text) == first and "which you skipped before" in text


def test_judges_give_a_name_and_do_not_collide(place: Path) -> None:
    with client_of(place) as anna, client_of(place) as ben, client_of(place) as nobody:
        assert "Your name" in anna.get("/").text
        assert described_faults(anna.post("/start", data={"name": "x" * 100}).text)
        for client, name in ((anna, "Änna B"), (ben, "ben"), (nobody, "")):
            text = client.post("/start", data={"name": name}).text
            assert "Pair 1 of 3" in text and name in text
            client.post("/vote", data={"pair": pair_of(text), **ANSWERS})
        votes = Votes(place / "study", open_study(place / "study")).current()
        names = sorted(vote.judge for vote in votes)
        assert names[0] == "ben" and names[1].startswith("judge-") and names[2] == "Änna B"
        assert "Pair 2 of 3" in anna.get("/").text
        assert "Your name" in anna.post("/leave").text


def test_foreign_requests_are_refused(client: TestClient, place: Path) -> None:
    pair = pair_of(client.get("/").text)
    hostile = [{"origin": "http://evil.example"}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}]
    for headers in hostile:
        for address in ("/vote", "/undo", "/start", "/leave"):
            data = {"pair": pair, **ANSWERS}
            assert client.post(address, data=data, headers=headers).status_code in (403, 421)
    assert not (place / "study" / "votes.jsonl").exists()
    with client_of(place, "anna", token="long enough a token".replace(" ", "-")) as guarded:
        assert guarded.get("/", headers={"accept": "image/png"}).status_code == 401
        assert guarded.get("/", follow_redirects=False).headers["location"].startswith("/token")
        assert "Pair 1" in guarded.get("/", headers={"authorization": "Bearer long-enough-a-token"}).text


def test_an_image_that_has_changed_is_not_shown(client: TestClient, place: Path) -> None:
    address = re.findall(r'src="(/images/[^"]+)"', client.get("/").text)[0]
    for path in place.glob("secret-*/*.png"):
        Image.new("RGB", (40, 30), "green").save(path)
    assert client.get(address).status_code == 404
    for path in place.glob("secret-*/*.png"):
        path.unlink()
    assert client.get(address).status_code == 404 and client.get("/").status_code == 200


def test_the_form_works_without_a_script(client: TestClient) -> None:
    text = client.get("/").text
    form = text.split('<form id="votes"')[1].split("</form>")[0]
    assert form.count('type="radio"') == 9 and form.count("<legend>") == 3 and form.count("required") == 9
    assert 'value="vote"' in form and 'value="skip" formnovalidate' in form
    assert text.count("alt=") == 2 and '<label for="progress">' in text
