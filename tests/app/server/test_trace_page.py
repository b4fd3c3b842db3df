"""Page of a run as its trace: attempts, messages of MLLM calls, comparison, forks, exports."""

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image
from starlette.testclient import TestClient
from support import quick_engines as quick
from support.html_form import Forms, described_faults

from pleinair.app.api import cancel, draw, find, finish, home, run_table
from pleinair.app.runs.calls import FOLDER, read_calls
from pleinair.app.runs.results import Result
from pleinair.app.runs.row import Run
from pleinair.app.server.app import create
from pleinair.app.server.decisions import hit_key
from pleinair.app.server.site import STATIC, Options
from pleinair.app.trace.fork import submit_fork
from pleinair.app.trace.trace import trace_begun

HERE = "http://127.0.0.1:8800"
PROMPT = 'two things <script>alert("1")</script>'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    """Draw with a hostile prompt and hostile captions, once for all tests."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PLEINAIR_")]:
            patch.delenv(name)
        for name, value in quick.install(place).items():
            patch.setenv(name, value)
        patch.syspath_prepend(place / "plugin")
        patch.chdir(place)
        yield draw(PROMPT, seed=7)


@pytest.fixture(scope="module")
def client(finished: Result) -> Iterator[TestClient]:
    with TestClient(create(Options(workers=0), home()), base_url=HERE) as client:
        client.headers |= {"accept": "text/html"}
        yield client


def page(client: TestClient, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, response.text[:500]
    assert "<script>alert" not in response.text and "<b>thing" not in response.text
    assert "style=" not in response.text and "onclick" not in response.text
    return response.text


def test_the_page_has_every_message_and_its_images(client: TestClient, finished: Result) -> None:
    text = page(client, f"/runs/{finished.run_id}")
    calls = read_calls(home().files(finished.run_id))
    assert len(calls) == 3
    for call in calls:
        assert f'id="call-{call.number}"' in text
        for messages, request in call.requests:
            parts = [part for message in messages for part in message.parts]
            assert parts and all(str(escape(part.image or part.text)) in text for part in parts)
            assert request.reply and all(str(escape(each.arguments)) in text for each in request.reply.calls)
    assert text.count('<div class="message sent"><p class="role">system</p>') == 3
    assert text.count('<div class="message reply">') == 3
    images = set(re.findall(r'src="(/runs/[^"]*/images/[0-9a-f]{64}\.png)"', text))
    assert len(images) >= 3
    for address in images:
        assert client.get(address).headers["content-type"] == "image/png"


def test_a_column_has_settings_cost_and_what_was_not_selected(client: TestClient, finished: Result) -> None:
    text = page(client, f"/runs/{finished.run_id}")
    assert text.count("<dt>Cost</dt>") == 2 and "1 image, 2 MLLM calls" in text
    assert text.count("<dt>Size</dt><dd>16 × 16</dd>") == 2
    assert "rank 2, after the selected one" in text and "below the threshold" not in text
    assert len(text.encode()) < 150_000


def test_each_step_has_a_fork(client: TestClient, finished: Result) -> None:
    text = page(client, f"/runs/{finished.run_id}")
    for step in ("decompose%3A1", "critique%3A1", "generate%3A1", "critique%3A2"):
        assert f'href="/runs/{finished.run_id}/fork?at={step}"' in text


def test_a_call_has_a_page_of_its_own(client: TestClient, finished: Result) -> None:
    text = page(client, f"/runs/{finished.run_id}/calls/2")
    assert "MLLM call 2: critique" in text and "&lt;b&gt;thing" in text
    assert client.get(f"/runs/{finished.run_id}/calls/99").status_code == 400


def test_only_images_of_calls_are_sent(client: TestClient, finished: Result) -> None:
    folder = home().run(finished.run_id) / FOLDER
    (folder / f"{'a' * 64}.png").write_bytes(b"not the image of this name")
    for name in ("a" * 64, "0001.json", "..%2f0001"):
        assert client.get(f"/runs/{finished.run_id}/images/{name}.png").status_code in (400, 404)


@pytest.mark.parametrize(
    ("crop", "status"),
    [("0,0,1,1", 200), ("0,0,inf,1", 404), ("1e308,0,1,1", 404), ("nan,0,1,1", 404), ("0", 404)],
)
def test_a_crop_outside_of_the_image_is_refused(
    client: TestClient, finished: Result, crop: str, status: int
) -> None:
    outcome = find(finished.run_id).outcome
    assert outcome and outcome.best
    address = f"/runs/{finished.run_id}/images/{outcome.best.picture.sha256}.png?crop={crop}"
    assert client.get(address).status_code == status


@pytest.mark.parametrize("kind", ["html", "png", "json"])
def test_the_exports_are_files(client: TestClient, finished: Result, kind: str) -> None:
    response = client.get(f"/runs/{finished.run_id}/export.{kind}")
    assert response.status_code == 200
    disposition = response.headers["content-disposition"]
    assert disposition == f'attachment; filename="two-things-script-alert-1-script-{finished.run_id}.{kind}"'
    if kind == "json":
        trace = json.loads(response.text)
        assert [call["number"] for call in trace["mllm_calls"]] == [1, 2, 3]
        assert trace["prompt"] == PROMPT
    elif kind == "png":
        assert response.content.startswith(b"\x89PNG")
    else:
        assert "data:image/png;base64," in response.text and "<script" not in response.text


def test_another_kind_of_export_is_refused(client: TestClient, finished: Result) -> None:
    response = client.get(f"/runs/{finished.run_id}/export.pdf")
    assert response.status_code == 400 and "html, png, json" in response.text


def test_without_stored_messages_the_page_has_the_steps(client: TestClient, finished: Result) -> None:
    silent = draw("two things", seed=7, overrides={"tracing.messages": False})
    text = page(client, f"/runs/{silent.run_id}")
    assert "Steps" in text and "critique:2" in text and "MLLM call 1" not in text
    assert find(silent.run_id).status == "accepted"


def test_a_damaged_call_is_left_out(client: TestClient, finished: Result, tmp_path: Path) -> None:
    path = home().run(finished.run_id) / FOLDER / "0001.json"
    before = path.read_bytes()
    path.write_bytes(before[:40])
    try:
        assert 'id="call-1"' not in page(client, f"/runs/{finished.run_id}")
    finally:
        path.write_bytes(before)


def test_two_attempts_are_compared(client: TestClient, finished: Result) -> None:
    text = page(client, f"/compare?left={finished.run_id}:0&right={finished.run_id}:1")
    assert "same seed" in text and text.count("<figure>") == 2 and 'type="range"' in text
    assert "reference · second thing" in text and "<th scope" in text
    assert f"/compare?left={finished.run_id}%3A1&amp;right={finished.run_id}%3A0" in text


def test_two_runs_are_compared_by_their_best_attempts(client: TestClient, finished: Result) -> None:
    other = draw("two other things", seed=8)
    text = page(client, f"/compare?left={finished.run_id}&right={other.run_id}")
    assert "different seeds or sizes" in text and "<ins>other </ins>" in text and "<del>" in text
    assert "<td>7</td><td>8</td>" in text


@pytest.mark.parametrize("right", ["last:9", "20200101-000000-00000000", "", "last:x", "../last"])
def test_a_comparison_of_nothing_is_refused(client: TestClient, finished: Result, right: str) -> None:
    response = client.get("/compare", params={"left": finished.run_id, "right": right})
    assert response.status_code in (400, 404), response.text


def test_the_scripts_of_all_pages_are_small() -> None:
    vendored = ("htmx.min.js", "hx-sse.min.js")
    scripts = [path for path in STATIC.glob("*.js") if path.name not in vendored]
    assert "compare.js" in [path.name for path in scripts]
    assert sum(len(path.read_text("utf-8").splitlines()) for path in scripts) <= 200


def forked(client: TestClient, address: str, fields: dict[str, str], **files: bytes) -> Run:
    """Send the form of a fork and return its row."""
    sent = {name: ("mine.png", data, "image/png") for name, data in files.items()}
    response = client.post(address, data=fields, files=sent or {"none": b""}, follow_redirects=False)
    assert response.status_code == 303, response.text
    return find(response.headers["location"].removeprefix("/runs/"))


def test_the_form_of_a_fork_has_what_the_step_has(client: TestClient, finished: Result) -> None:
    text = page(client, f"/runs/{finished.run_id}/fork")
    assert '<option value="generate:1" selected>' in text and str(escape(PROMPT)) in text
    assert text.count("<fieldset>") == 2 and text.count('type="file"') == 2
    assert '<select name="profile">' not in text
    other = page(client, f"/runs/{finished.run_id}/fork?at=critique:1")
    assert '<select name="profile">' in other and "<fieldset>" not in other
    response = client.get(f"/runs/{finished.run_id}/fork?at=nowhere:1")
    assert response.status_code == 400 and "no such step" in response.text


def test_a_fork_by_the_form_is_queued_and_shows_its_parent(client: TestClient, finished: Result) -> None:
    address = f"/runs/{finished.run_id}/fork"
    keys = re.findall(r'name="reference-0" value="([0-9a-f]{32})"', page(client, address))
    fields = {"at": "generate:1", "prompt": "other words", "seed": "9", "reference-0": keys[0]}
    run = forked(client, address, fields)
    assert (run.status, bool(run.client)) == ("queued", True)
    assert f'<a href="/runs/{finished.run_id}">' in page(client, f"/runs/{run.id}")
    assert finish(run).outcome.ending in ("accepted", "stopped")
    trace = trace_begun(find(run.id), home())
    request = trace.attempts[1].request
    assert (request.prompt, request.seed) == ("other words", 9)
    assert [hit_key(reference.hit) for reference in request.references] == [keys[0]]
    text = page(client, f"/runs/{run.id}")
    assert f"/compare?left={finished.run_id}&amp;right={run.id}" in text
    page(client, f"/compare?left={finished.run_id}&right={run.id}")


def test_a_fork_that_is_sent_twice_is_one(client: TestClient, finished: Result) -> None:
    address = f"/runs/{finished.run_id}/fork"
    (name,) = re.findall(r'name="form" value="([^"]+)"', page(client, address))
    fields = {"at": "critique:1", "prompt": PROMPT, "seed": "7", "form": name}
    first, again, other = (forked(client, address, fields | {"seed": seed}) for seed in ("7", "7", "8"))
    assert first.id == again.id != other.id


def test_an_uploaded_image_becomes_the_reference(client: TestClient, finished: Result) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, "PNG")
    fields = {"at": "generate:1", "prompt": PROMPT, "seed": "7", "reference-0": "upload"}
    run = forked(client, f"/runs/{finished.run_id}/fork", fields, **{"upload-0": file.getvalue()})
    finish(run)
    (reference,) = trace_begun(find(run.id), home()).attempts[1].request.references
    assert reference.hit.id == reference.picture.sha256
    without = fields | {"reference-0": "none"}
    finish(run := forked(client, f"/runs/{finished.run_id}/fork", without))
    assert trace_begun(find(run.id), home()).attempts[1].request.references == ()


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ({"seed": "1.5"}, "seed", "must be a whole number"),
        ({"seed": "9" * 30}, "seed", "must be 0 to"),
        ({"seed": "9" * 5000}, "seed", "must be a whole number"),
        ({"prompt": ""}, "prompt", "prompt"),
        ({"reference-0": "upload"}, "upload-0", "Choose a file first"),
        ({"reference-0": "<b>thing</b>"}, "", "is no hit of it"),
        ({"profile": "/etc/passwd"}, "profile", "no such profile"),
        ({"at": "critique:1", "profile": "<script>alert"}, "profile", "no such profile"),
    ],
)
def test_a_bad_value_is_told_beside_its_field_and_nothing_is_written(
    client: TestClient, finished: Result, fields: dict[str, str], field: str, fault: str
) -> None:
    before = run_table().newest(99)
    values = {"at": "generate:1", "prompt": "typed words", "seed": "7"} | fields
    response = client.post(f"/runs/{finished.run_id}/fork", data=values, files={"none": b""})
    assert response.status_code == 400
    assert "<script>alert" not in response.text and "<b>thing" not in response.text
    alert = re.search(rf'role="alert" id="fault-{field}">([^<]*)', response.text)
    assert alert and fault in alert[1], response.text
    assert ("typed words" in response.text) is ("prompt" not in fields)
    has_field = field not in ("", "profile") or "at" in fields  # the models are chosen at some steps only
    assert described_faults(response.text) == [f"fault-{field}"] * has_field
    assert run_table().newest(99) == before


def test_a_full_queue_gives_the_form_again_with_the_uploaded_image(finished: Result) -> None:
    with TestClient(create(Options(workers=0, queue=1), home()), base_url=HERE) as client:
        client.headers |= {"accept": "text/html"}
        address, fields = f"/runs/{finished.run_id}/fork", {"at": "generate:1", "reference-0": "upload"}
        submit_fork(finished.run_id, "generate:1", client="another one", seed=8)
        file = io.BytesIO()
        Image.new("RGB", (16, 16), "olive").save(file, "PNG")
        fields |= {"prompt": "typed words", "seed": "9"}
        files = {"upload-0": ("mine.png", file.getvalue(), "image/png")}
        response = client.post(address, data=fields, files=files)
        assert response.status_code == 429 and int(response.headers["retry-after"]) > 0
        form = next(form for form in Forms(response.text).forms if form.fields.get("at") == "generate:1")
        assert form.fields.items() >= fields.items() and "Try again in" in response.text
        assert client.get(f"/images/{form.fields['image-0']}.png").status_code == 200
        for run in run_table().queue():
            cancel(run.id)
        run = forked(client, address, form.fields | {"form": ""})
        finish(run)
        reference, *_ = trace_begun(find(run.id), home()).attempts[1].request.references
        assert reference.picture.sha256 == form.fields["image-0"]
