"""Chat page: every button keeps what is typed, errors write nothing, texts of users are data."""

import asyncio
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image
from support.html_form import described_faults

from pleinair.app.api import answer, find, finish, home, run_table
from pleinair.app.chat import tray
from pleinair.app.chat.thread import Thread
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.server import chat, chats, messages
from pleinair.app.server.app import create
from pleinair.app.server.chats import Chats
from pleinair.app.server.composer import FIELDS
from pleinair.app.server.site import Options, Site
from pleinair.tools.storage.folder import Folder

PROMPT = "a barn owl and a blue jay"
NO_FILE = {"images": ("", b"")}
HOSTILE = '"><img src=x onerror=alert(1)>{{ 7*7 }}'
OPTIONS = {
    "width": "32", "height": "24", "seed": "7", "num_images": "2", "approve": "references",
    "license": "free",
    "attempts": "2", "images": "5", "mllm_calls": "9", "tokens": "1000", "seconds": "60.5", "usd": "0.25",
}  # fmt: skip


class Page:
    """Browser without scripts at the chat page, and the thread that it shows."""

    def __init__(self, client: TestClient) -> None:
        self.client, self.id = client, "new"
        self.answer: Response | None = None

    def press(self, action: str, files: Any = (), **fields: str | list[str]) -> Response:
        """Send the composer's form by a button, with `f-` before the names of its own fields."""
        data = {
            f"f-{name}" if name in FIELDS else name.replace("_", "-"): value for name, value in fields.items()
        }
        self.answer = self.client.post(f"/threads/{self.id}/{action}", data=data, files=files or NO_FILE)
        if self.answer.status_code == 303 and (match := re.search(r"/threads/([0-9a-f-]+)", self.location)):
            self.id = match[1]
        return self.answer

    @property
    def location(self) -> str:
        assert self.answer is not None
        return self.answer.headers["location"]

    @property
    def text(self) -> str:
        response = self.client.get(f"/threads/{self.id}")
        assert response.status_code == 200
        return response.text

    @property
    def thread(self) -> Thread:
        return Threads().get(self.id)

    def send(self, prompt: str = PROMPT, **fields: str | list[str]) -> Response:
        """Send a prompt, and work on its runs as a worker does."""
        response = self.press("send", prompt=prompt, **fields)
        self.work()
        return response

    def work(self) -> None:
        for run in run_table().queue():
            finish(run)


@pytest.fixture
def page(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    client = TestClient(
        create(Options(workers=0, queue=3), home()),
        base_url="http://127.0.0.1:8800",
        follow_redirects=False,
        headers={"accept": "text/html"},
    )
    yield Page(client)


def png(colour: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file.getvalue()


def typed(html: str) -> dict[str, str]:
    """Return the values of the composer's fields in a page."""
    values = dict(re.findall(r'<input name="f-([a-z_]+)" value="([^"]*)"', html))
    values |= dict(re.findall(r'<textarea [^>]*name="f-([a-z_]+)"[^>]*>([^<]*)<', html))
    for name, options in re.findall(r'<select name="f-([a-z_]+)"[^>]*>(.*?)</select>', html):
        values[name] = "".join(re.findall(r'value="([^"]*)" selected', options))
    return {name: unescape(value) for name, value in values.items() if value}


def request_of(run_id: str) -> DrawRequest:
    return read_request(find(run_id).request_json)


def test_a_new_chat_writes_nothing_until_something_is_typed(page: Page) -> None:
    assert page.client.get("/").headers["location"] == "/threads/new"
    assert "What do you want to see?" in page.text
    assert Threads().newest(9) == []


def test_a_message_is_queued_and_shown_and_the_composer_is_empty_again(page: Page) -> None:
    response = page.press("send", prompt=PROMPT, seed="7")
    assert (response.status_code, page.location) == (303, f"/threads/{page.id}#end")
    (run,) = run_table().queue()
    assert (run.seed, run.client is not None) == (7, True)
    assert "Next in the queue" in page.text
    assert "Stop" in page.text
    assert typed(page.text) == {}
    page.work()
    assert PROMPT in page.text
    assert '<ul class="references"' in page.text
    assert re.findall(r'class="ending (\w+)"', page.text) == ["accepted"]
    assert f"/runs/{run.id}/images/" in page.text
    assert page.client.get("/").headers["location"] == f"/threads/{page.id}#end"


@pytest.mark.parametrize("action", ["keep", "images", "estimate"])
def test_every_field_is_kept(page: Page, action: str) -> None:
    response = page.press(action, prompt=PROMPT, **OPTIONS)
    assert typed(page.text if response.status_code == 303 else response.text) == {"prompt": PROMPT} | OPTIONS


def test_options_reach_the_run_and_stay_for_the_next_message(page: Page) -> None:
    fields = OPTIONS | {"approve": ""}
    page.press("send", prompt=PROMPT, **fields)
    first, second = (request_of(run.id) for run in run_table().queue())
    settings = first.settings
    assert (settings.image.width, settings.image.height, first.seed, second.seed) == (32, 24, 7, 8)
    budget = {name: fields[name] for name in ("attempts", "images", "mllm_calls", "tokens", "seconds", "usd")}
    assert settings.retrieval.licenses == ("free",)
    assert settings.budget.model_dump() == {name: float(text) for name, text in budget.items()}
    assert typed(page.text) == {name: text for name, text in fields.items() if text and name != "seed"}
    assert [len(message.runs) for message in page.thread.turns] == [2]


BAD = [
    ("width", "wide"), ("width", "-3"), ("height", "99999999"), ("seed", "1.5"), ("num_images", "many"),
    ("attempts", "0"), ("attempts", "9" * 5000), ("seconds", "nan"), ("usd", "inf"), ("usd", "-1"),
    ("profile", "/etc/passwd"), ("profile", "../x.toml"), ("graph", HOSTILE), ("approve", "yes"),
    ("license", "gratis"),
    ("negative_prompt", HOSTILE), ("prompt", ""), ("prompt", "x" * 3000),
]  # fmt: skip


def test_a_bad_value_is_explained_and_nothing_is_drawn(page: Page) -> None:
    for field, text in BAD:
        for action in ("send", "estimate"):
            response = page.press(action, **{"prompt": PROMPT, "tokens": "77", field: text})
            assert response.status_code == 400, (field, text)
            assert 'role="alert"' in response.text
            shown = typed(response.text)
            assert shown["tokens"] == "77"
            if field not in ("profile", "graph", "approve", "license"):
                assert shown.get(field, "") == text
            assert "<img src=x" not in response.text
    assert run_table().newest(9) == []


def test_too_many_files_are_refused_on_the_page(page: Page) -> None:
    files = [("images", (f"{number}.png", png())) for number in range(tray.MAX_IMAGES + 20)]
    response = page.press("images", files, prompt=PROMPT)
    assert (response.status_code, typed(response.text)) == (400, {"prompt": PROMPT})
    assert f"takes at most {tray.MAX_IMAGES}" in response.text
    assert [thread.tray for thread in Threads().newest(9)] in ([], [()])


def test_a_page_that_is_gone_leads_to_other_pages(page: Page) -> None:
    for path in ("/threads/20200101-000000-00000000", "/runs/none", "/runs/none/fork"):
        response = page.client.get(path)
        assert response.status_code == 404 and "The chats are listed under Chat" in response.text


def test_a_bad_number_is_explained_at_its_field(page: Page) -> None:
    for field, text in (
        ("width", "wide"),
        ("width", "-3"),
        ("seconds", "-1"),
        ("seed", "x"),
        ("width", "9" * 400),
    ):
        response = page.press("send", prompt=PROMPT, **{field: text})
        assert re.search(f'name="f-{field}"[^>]*aria-invalid="true" aria-describedby="fault"', response.text)
        assert response.text.count('id="fault"') == 1 and described_faults(response.text) == ["fault"]
        assert '<details class="options" open>' in response.text


def test_uploads_stay_in_the_tray_until_they_are_removed(page: Page) -> None:
    files = [("images", (name, png(), "text/html")) for name in ("../a wren.png", HOSTILE)]
    page.press("images", prompt=PROMPT, files=files)
    names = ["a wren.png", HOSTILE.replace('"', "%22")]  # as browsers send it
    assert [image.name for image in page.thread.tray] == names
    assert [image.handle for image in page.thread.tray] == ["@1", "@2"]
    assert typed(page.text)["prompt"] == PROMPT
    assert "<img src=x" not in page.text
    page.press("remove", remove="@1", tray=["@1", "@2"], **{"use-2": "on", "concept-2": "barn owl"})
    (image,) = page.thread.tray
    assert (image.handle, image.concept, image.used) == ("@2", "barn owl", True)
    page.send("a @2 and a blue jay", tray="@2", **{"use-2": "on", "concept-2": "barn owl"})
    run = request_of(page.thread.runs[0])
    assert (run.prompt, run.thread and run.thread.given[0].concept) == (PROMPT, "barn owl")
    page.send("make it night", tray="@2", **{"concept-2": "barn owl"})
    (image,) = page.thread.tray
    assert not image.used
    page.press("images", files=[("images", ("again.png", png("red")))])
    assert [image.handle for image in page.thread.tray] == ["@2", "@3"]


def test_what_is_typed_in_the_tray_stays_with_a_fault(page: Page) -> None:
    page.press("images", files=[("images", (f"{colour}.png", png(colour))) for colour in ("teal", "red")])
    fields = {"concept-1": "barn owl", "use-1": "on", "prompt": PROMPT}
    for concept, files in (("@1", ()), ("a finch", [("images", ("no.png", b"no image"))])):
        html = page.press("keep", files=files, tray=["@1", "@2"], **fields, **{"concept-2": concept}).text
        assert 'value="barn owl"' in html and f'name="concept-2" value="{concept}"' in html
        assert 'name="use-1" checked' in html and 'name="use-2" aria-label' in html
        assert described_faults(html) == ["fault"] * (not files)


def test_more_images_than_the_tray_takes_are_not_stored(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tray, "MAX_IMAGES", 2)
    files = [("images", (f"{colour}.png", png(colour))) for colour in ("teal", "red", "blue")]
    response = page.press("images", files=files, prompt=PROMPT)
    assert response.status_code == 400 and "at most 2" in response.text and PROMPT in response.text
    assert not Folder(home().input_images).sizes()


def test_what_is_no_image_is_refused_and_the_typed_values_stay(page: Page) -> None:
    files = [("images", ("a.png", png())), ("images", (HOSTILE, b"<svg onload=alert(1)>"))]
    response = page.press("images", prompt=PROMPT, files=files)
    assert response.status_code == 400
    assert typed(response.text)["prompt"] == PROMPT
    assert "<img src=x" not in response.text
    assert "<svg onload" not in response.text
    assert Threads().newest(1)[0].tray == ()


def test_versions_undo_redo_and_fork(page: Page) -> None:
    page.send()
    page.press("again")
    page.work()
    assert [(len(turn.runs), turn.current) for turn in page.thread.turns] == [(2, 1)]
    page.press("version", version="1 1")
    assert page.thread.turns[0].current == 0
    assert page.text.count('aria-pressed="true"') == 1
    page.press("undo")
    assert (page.thread.turns, typed(page.text)) == ((), {"prompt": PROMPT})
    page.press("redo", prompt=PROMPT)
    assert (len(page.thread.turns), typed(page.text)) == (1, {})
    first = page.id
    page.press("fork", message="1", prompt="unsent")
    assert page.id != first
    assert (page.thread.turns, typed(page.text)) == ((), {"prompt": PROMPT})
    page.id = first
    assert typed(page.text) == {"prompt": "unsent"}


def test_a_result_becomes_a_reference(page: Page) -> None:
    page.send()
    run = page.thread.runs[0]
    page.press("reuse", run=run)
    (image,) = page.thread.tray
    assert image.picture.sha256 in page.text
    assert page.client.get(f"/images/{image.picture.sha256}.png").status_code == 200
    assert page.press("reuse", run="20260101-000000-00000000").status_code == 400


def test_a_run_is_stopped_accepted_and_approved_in_its_thread(page: Page) -> None:
    page.press("send", prompt=PROMPT, num_images="2")
    run = page.thread.runs[0]
    assert page.press("accept", run=run).status_code == 400  # there is no image yet
    response = page.press("send", prompt="unsent")
    assert response.status_code == 400
    assert "has not ended" in response.text
    page.press("stop", run=run)
    assert [find(run).status for run in page.thread.turns[0].runs] == ["cancelled", "cancelled"]
    page.send(approve="references")
    run = page.thread.runs[1]
    assert find(run).status == "waiting"
    assert "Waiting for your approval" in page.text
    assert f'action="/runs/{run}/answer"' in page.text
    finish(answer(run))
    assert find(run).status not in ("waiting", "queued")
    assert f'action="/runs/{run}/answer"' not in page.text


def test_an_image_of_an_approval_is_shown_in_the_tray(page: Page) -> None:
    page.send(approve="references")
    (run,) = page.thread.runs
    (question,) = re.findall(r'name="question" value="([^"]+)"', page.text)
    data = {"question": question, "decision": "continue", "prompt": PROMPT, "use-0": "image:"}
    sent = page.client.post(f"/runs/{run}/answer", data=data, files={"file-0": ("mine.png", png())})
    assert sent.status_code == 303
    finish(find(run))
    assert 'aria-label="Use @1"' in page.text and "mine.png" in page.text


def test_a_full_queue_says_when_to_try_again(page: Page) -> None:
    page.send()
    first = page.id
    page.id = "new"
    page.press("send", prompt=PROMPT, num_images="3")
    page.id = first
    again = page.press("again", prompt="typed words", seed="9")
    assert again.status_code == 429 and int(again.headers["retry-after"]) > 0
    assert typed(again.text) == {"prompt": "typed words", "seed": "9"} and len(page.thread.turns[0].runs) == 1
    page.id = "new"
    response = page.press("send", prompt=PROMPT, num_images="2")
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert typed(response.text) == {"prompt": PROMPT, "num_images": "2"}
    assert len(run_table().newest(9)) == 4


def test_hostile_prompts_are_text(page: Page) -> None:
    page.send(HOSTILE)
    assert "<img src=x" not in page.text
    assert HOSTILE in unescape(page.text)
    assert "<img src=x" not in page.client.get("/threads?search=img").text


def test_a_double_click_counts_once(page: Page) -> None:
    def form(address: str) -> dict[str, str]:
        (name,) = re.findall(r'name="form" value="([^"]+)"', page.client.get(address).text)
        return {"form": name}

    def places(address: str, fields: dict[str, str], files: Any = None) -> set[str]:
        answers = [page.client.post(address, data=fields, files=files or NO_FILE) for _ in range(2)]
        return {answer.headers["location"] for answer in answers}

    fields = form("/threads/new") | {"f-prompt": PROMPT}
    assert len(places("/threads/new/send", fields)) == len(run_table().newest(9)) == 1
    (thread,) = Threads().newest(9)
    page.id = thread.id
    page.work()
    address = f"/threads/{thread.id}"
    assert len(places(f"{address}/again", form(address))) == 1 and len(page.thread.turns[0].runs) == 2
    page.work()
    assert len(places(f"{address}/again", {})) == 1 and len(page.thread.turns[0].runs) == 4  # of a program
    page.work()
    fields = form(address)
    for colour in ("teal", "red"):
        places(f"{address}/images", fields, [("images", ("image.png", png(colour)))])
    assert len(page.thread.tray) == 2
    assert len(places(f"{address}/fork", form(address) | {"message": "1"})) == 1
    assert len(Threads().newest(9)) == 2
    fields = form("/threads/new")
    for prompt in (PROMPT, "a blue jay"):  # as after the browser's Back
        places("/threads/new/send", fields | {"f-prompt": prompt})
    assert [thread.title for thread in Threads().newest(2)] == ["a blue jay", PROMPT]


def test_an_estimate_draws_nothing(page: Page) -> None:
    response = page.press("estimate", prompt=PROMPT, attempts="2")
    for word in ("Images", "MLLM calls", "Seconds", "US dollars"):
        assert f"<dt>{word}</dt>" in response.text
    assert typed(response.text) == {"prompt": PROMPT, "attempts": "2"}
    assert run_table().newest(9) == []


def test_chats_are_searched_and_deleted(page: Page) -> None:
    for prompt in (PROMPT, "a third thing"):
        page.id = "new"
        page.press("send", prompt=prompt)
    listed = page.client.get("/threads?search=THIRD").text
    assert "a third thing" in listed
    assert PROMPT not in listed
    page.press("delete")
    assert page.client.get(f"/threads/{page.id}").status_code == 404
    assert len(Threads().newest(9)) == 1
    assert len(run_table().newest(9)) == 2


def test_unknown_threads_and_buttons_are_refused(page: Page) -> None:
    for thread in ("20260101-000000-00000000", "x" * 500):
        assert page.client.get(f"/threads/{thread}").status_code == 404
        assert page.client.post(f"/threads/{thread}/send", data={"f-prompt": PROMPT}).status_code == 404
    assert page.press("destroy", prompt=PROMPT).status_code == 404
    for action in ("stop", "accept", "reuse"):
        assert page.press(action, run="20260101-000000-00000000").status_code == 400
    for numbers in ("one", "1", "", "1 2 3", "-1 -1", "1 " + "9" * 5000):
        assert page.press("version", version=numbers).status_code == 400
        assert page.press("fork", message=f"0 {numbers}").status_code == 400
    assert run_table().newest(9) == []


def test_undo_is_typed_too_and_questions_are_answered_without_a_run(page: Page) -> None:
    page.send()
    page.press("send", prompt="undo")
    assert (page.thread.turns, typed(page.text)) == ((), {})
    response = page.press("send", prompt="what can you draw?")
    assert "I generate images with" in unescape(response.text)
    assert page.press("send", prompt="/save /tmp/x.png").status_code == 400
    assert len(run_table().newest(9)) == 1


def test_the_feed_sends_what_the_page_has_not(page: Page) -> None:
    page.press("send", prompt=PROMPT)
    (after,) = re.findall(r"/feed\?after=([0-9a-f]+)", page.text)
    page.work()
    text = _message(page, after)
    assert "accepted: every concept is present" in text
    assert 'id="message-1"' in text
    (after,) = re.findall(r"/feed\?after=([0-9a-f]+)", page.text)
    assert _message(page, after, seconds=0.5) == ""
    page.press("undo")
    text = _message(page, after)
    assert '/undo" formnovalidate disabled' in text and '/redo" formnovalidate>' in text
    with Threads().opened(page.id) as session:
        session.rename("Wrens & finches")
    text = _message(page, after)
    assert text.count("Wrens &amp; finches") == 3  # heading, list of chats, title of the window
    page.press("delete")
    assert _message(page, after, seconds=0.5) == ""


def _message(page: Page, after: str, seconds: float = 300.0) -> str:
    """Return the first message that a feed sends within `seconds`, "" if there is none."""

    async def first() -> str:
        stream = Chats(Site(Options(), home())).messages(page.id, after)
        with suppress(TimeoutError, StopAsyncIteration):
            return str((await asyncio.wait_for(anext(stream), seconds)).data)
        return ""

    return asyncio.run(first())


def test_a_long_thread_shows_its_latest_messages(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chat, chats, messages):
        monkeypatch.setattr(module, "LATEST", 1)
    page.send()
    page.send("now make it night")
    assert re.findall(r'id="message-(\d+)"', page.text) == ["2"]
    assert "Show 1 earlier" in page.text
    every = page.client.get(f"/threads/{page.id}?earlier=true").text
    assert re.findall(r'id="message-(\d+)"', every) == ["1", "2"]
    assert every.count("Draw again") == 1


def test_references_are_vetoed_pinned_and_put_into_the_tray(page: Page) -> None:
    page.send()
    listed = f"/threads/{page.id}/references"
    html = page.client.get(listed).text
    (concept, hit), *_ = re.findall(
        r'name="concept" value="([^"]+)"><input type="hidden" name="hit" value="(\w+)"', html
    )
    assert page.client.get(re.findall(r'src="(/runs/[^"]+/hits/[^"]+)"', html)[0]).status_code == 200
    for decision, field in (("pin", "pins"), ("veto", "vetoes"), ("keep", "tray")):
        fields = {"concept": concept, "hit": hit, "decision": decision}
        assert page.client.post(listed, data=fields).headers["location"] == listed
        assert len(getattr(page.thread, field)) == 1
    html = page.client.get(listed).text
    assert page.client.get(re.findall(r'src="(/images/[^"]+)"', html)[0]).status_code == 200
    assert page.client.post(listed, data=fields | {"hit": "0" * 32}).status_code == 400
    assert page.client.post(listed, data=fields | {"decision": "burn"}).status_code == 422
