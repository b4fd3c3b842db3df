"""Images as OpenAI's clients request them: fields, formats, errors, and runs that are not lost."""

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from openai.types import ImagesResponse
from PIL import Image
from support.quick_engines import SIZE, colour, speckled

from pleinair.app import api
from pleinair.app.api import home, run_table
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.worker import work
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.tools.storage.folder import Folder

PROMPT = "first thing and second thing"
GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
DRAFT = {"prompt": PROMPT, "quality": "low"}
HERE = "http://127.0.0.1:8800"


def stored() -> list[Run]:
    return run_table().newest(200)


def error(answer: Any) -> tuple[int, str, str | None]:
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"} and body["message"] and body["type"]
    return answer.status_code, body["code"], body["param"]


def image_of(data: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data["b64_json"])))


def square(name: str) -> bytes:
    file = io.BytesIO()
    speckled(SIZE, colour(name)).save(file, "PNG")
    return file.getvalue()


def files(*names: str, part: str = "image[]") -> list[tuple[str, tuple[str, bytes]]]:
    return [(part, (f"{name}.png", square(name))) for name in names]


@pytest.mark.usefixtures("worker")
def test_an_image_with_its_run(client: TestClient) -> None:
    fields = {"prompt": PROMPT, "model": "gpt-image-1", "user": "ada", "pleinair": {"seed": 7}}
    answer = client.post(GENERATE, json=fields)
    response = ImagesResponse.model_validate(answer.json(), strict=True)
    (data,) = answer.json()["data"]
    (run,) = stored()
    view = data["pleinair"]
    assert (view["run"], view["status"], view["seed"]) == (run.id, "accepted", 7)
    assert answer.headers["x-request-id"] == run.id
    assert [row["status"] for row in view["attempts"][view["best"]]["ledger"]] == ["present", "present"]
    assert [reference["concept"] for reference in view["attempts"][1]["references"]] == ["second thing"]
    assert data["revised_prompt"] == view["attempts"][view["best"]]["prompt"]
    assert run.id in image_of(data).info["pleinair"]
    assert image_of(data).size == (SIZE, SIZE) and response.size == f"{SIZE}x{SIZE}"
    assert (response.quality, response.output_format, response.background) == ("high", "png", "opaque")
    assert response.usage and response.usage.total_tokens == view["usage"]["tokens"]
    assert "pleinair" not in answer.json()


@pytest.mark.usefixtures("worker")
def test_addresses_of_several_images(client: TestClient) -> None:
    fields = DRAFT | {"n": 2, "response_format": "url", "size": "24x32", "pleinair": {"seed": 3}}
    answer = client.post(GENERATE, json=fields, headers={"x-forwarded-proto": "https"}).json()
    assert [data["pleinair"]["seed"] for data in answer["data"]] == [3, 4]
    assert {read_request(run.request_json).graph for run in stored()} == {"direct"}
    for data in answer["data"]:
        assert data["url"].startswith("https://127.0.0.1:8800/v1/images/") and "b64_json" not in data
        image = client.get(data["url"].removeprefix("https://127.0.0.1:8800"))
        assert image.headers["content-type"] == "image/png"
        assert data["pleinair"]["run"] in Image.open(io.BytesIO(image.content)).info["pleinair"]
    size = read_request(stored()[0].request_json).settings.image
    assert (size.width, size.height, answer["quality"]) == (24, 32, "low")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("kind", "quality"), [("webp", 100), ("jpeg", 40)])
def test_formats(client: TestClient, kind: str, quality: int) -> None:
    answer = client.post(GENERATE, json=DRAFT | {"output_format": kind, "output_compression": quality})
    (data,) = answer.json()["data"]
    assert image_of(data).format == kind.upper()
    assert b"trainedAlgorithmicMedia" in image_of(data).info["xmp"]
    assert answer.json()["output_format"] == kind
    fields = DRAFT | {"output_format": kind, "output_compression": quality, "response_format": "url"}
    fields["pleinair"] = {"seed": data["pleinair"]["seed"]}
    image = client.get(client.post(GENERATE, json=fields).json()["data"][0]["url"])
    assert image.headers["content-type"] == f"image/{kind}"
    assert abs(len(image.content) - len(base64.b64decode(data["b64_json"]))) < 50  # they name different runs


def test_there_is_no_image_of_what_has_not_ended(client: TestClient) -> None:
    run = api.enqueue(PROMPT, client="another")[0]
    assert error(client.get(f"/v1/images/{run.id}.png")) == (404, "queued", None)
    assert error(client.get("/v1/images/none.png"))[:2] == (404, "not_found")


BAD_FIELDS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({}, "missing_required_parameter", "prompt"),
    ({"prompt": None}, "missing_required_parameter", "prompt"),
    ({"n": 0}, "invalid_value", "n"),
    ({"n": 11}, "invalid_value", "n"),
    ({"n": "many"}, "invalid_value", "n"),
    ({"size": "big"}, "invalid_value", "size"),
    ({"size": "0x8"}, "invalid_value", "size"),
    ({"size": "9x9"}, None, "size"),
    ({"quality": "best"}, "unsupported_value", "quality"),
    ({"background": "transparent"}, "unsupported_value", "background"),
    ({"style": "oil"}, "unsupported_value", "style"),
    ({"output_format": "gif"}, "unsupported_value", "output_format"),
    ({"output_compression": 50, "response_format": "url"}, "unsupported_value", "output_compression"),
    ({"output_compression": 50}, "unsupported_value", "output_compression"),
    ({"stream": True, "response_format": "url"}, "unsupported_value", "response_format"),
    ({"partial_images": 4}, "invalid_value", "partial_images"),
    ({"steps": 30}, "unknown_parameter", "steps"),
    ({"input_fidelity": "low"}, "unknown_parameter", "input_fidelity"),
    ({"pleinair": {"approve": "draft"}}, "unknown_parameter", "pleinair.approve"),
    ({"pleinair": "seed"}, "invalid_value", "pleinair"),
    ({"pleinair": {"graph": "no such"}}, None, "pleinair.graph"),
    ({"pleinair": {"seed": -1}}, None, "pleinair.seed"),
    ({"pleinair": {"negative_prompt": "snow"}}, None, "pleinair.negative_prompt"),
    ({"pleinair": {"reference_strength": 2}}, None, "pleinair.reference_strength"),
    ({"prompt": "x" * 3000}, None, "prompt"),
    ({"prompt": " "}, None, "prompt"),
    ({"prompt": "a\0b"}, None, "prompt"),
    ({"prompt": f"{PROMPT} --ar 99:1"}, None, "prompt"),
    ({"pleinair": {"license": "gratis"}}, "unsupported_value", "pleinair.license"),
    ({"prompt": "\ud800"}, "invalid_value", None),
    ({"\ud800": 1}, "invalid_value", None),
    ({"pleinair": {"reference_strength": float("nan")}}, "invalid_value", None),
    ({"n": 4}, None, "n"),
]


def test_bad_input_is_explained_and_nothing_is_written(client: TestClient) -> None:
    for fields, code, param in BAD_FIELDS:
        body = json.dumps(({"prompt": PROMPT} if fields else {}) | fields)
        answer = client.post(GENERATE, content=body, headers={"content-type": "application/json"})
        status, *facts = error(answer)
        assert status == 400
        assert facts == [code or "invalid_value", param]
        assert stored() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"prompt": 3}', b"\xff", b"[" * 99999])
def test_what_is_no_request_is_refused(client: TestClient, body: bytes) -> None:
    for path in (GENERATE, EDIT):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert error(answer)[0] == 400
    assert stored() == []


def test_models(client: TestClient) -> None:
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert {"pleinair", "dall-e-3", "pocket", "klein"} <= set(names) and len(set(names)) == len(names)
    for name in (*names, "gpt-image-99", "klein+ollama"):
        assert client.get(f"/v1/models/{name}").json()["id"] == name
    for name in ("nothing", "klein+nothing", "gpt-3", "+"):
        assert error(client.get(f"/v1/models/{name}")) == (404, "model_not_found", "model")
    assert error(client.get("/v1/models/..%2fpocket"))[0] == 404


@pytest.mark.parametrize("name", ["nothing", "/etc/passwd.toml", "pocket.toml", "", "x" * 9999])
def test_an_unknown_model(client: TestClient, name: str) -> None:
    assert error(client.post(GENERATE, json=DRAFT | {"model": name})) == (404, "model_not_found", "model")
    assert stored() == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("quality", ["low", "auto"])
def test_input_images_are_references_in_their_order(client: TestClient, quality: str) -> None:
    fields = {"prompt": PROMPT, "quality": quality, "pleinair[seed]": "5", "n": "1", "model": ""}
    parts = [*files("one", part="image"), *files("two", part="image[1]")]
    fields |= {"pleinair[license]": "free"}
    answer = client.post(EDIT, data=fields, files=parts)
    (data,) = answer.json()["data"]
    references = data["pleinair"]["attempts"][0]["references"]
    pictures = read_request(stored()[0].request_json).pictures
    assert [reference["sha256"] for reference in references] == [picture.sha256 for picture in pictures]
    images = [client.get(f"/images/{picture.sha256}.png").content for picture in pictures]
    colours = [Image.open(io.BytesIO(image)).getpixel((0, 0)) for image in images]
    assert colours == [colour("one"), colour("two")]
    assert data["pleinair"]["seed"] == 5
    assert read_request(stored()[0].request_json).settings.retrieval.licenses == ("free",)
    assert len(data["pleinair"]["attempts"]) == 1 or quality == "auto"


def test_more_input_images_than_slots_are_refused_by_number(client: TestClient) -> None:
    answer = client.post(EDIT, data={"prompt": PROMPT}, files=files("one", "two", "three"))
    assert error(answer) == (400, "invalid_value", "image")
    message = answer.json()["error"]["message"]
    assert "3" in message and "takes 2 references" in message
    assert stored() == [] and not Folder(home().input_images).sizes()


BAD_PARTS: list[tuple[list[Any], str | None, str | None]] = [
    ([], "missing_required_parameter", "image"),
    ([("image", (None, "https://example.org/a.png"))], "invalid_value", "image"),
    ([("image[0]", (None, "a text"))], "invalid_value", "image"),
    ([("image", ("a.png", b"no image"))], None, "image"),
    ([*files("one"), ("mask", (None, "text"))], "invalid_value", "mask"),
    ([*files("one"), *files("two", "three", part="mask")], "invalid_value", "mask"),
    ([*files("one"), ("mask", ("mask.png", square("mask")))], None, "image"),
    ([*files("one"), ("markup", ("m.png", square("mask")))], "unknown_parameter", "markup"),
    ([*files("one"), ("input_fidelity", (None, "full"))], "unsupported_value", "input_fidelity"),
    ([*files("one"), ("n", (None, "0"))], "invalid_value", "n"),
    ([*files("one"), ("svg[model]", (None, "x"))], "unknown_parameter", "svg[model]"),
    ([*files("one"), ("pleinair", (None, "{"))], "invalid_value", "pleinair"),
    ([*files("one"), ("pleinair[graph][x]", (None, "direct"))], "unknown_parameter", "pleinair.graph][x"),
]


def test_bad_edits(client: TestClient) -> None:
    for parts, code, param in BAD_PARTS:
        answer = client.post(EDIT, files=[("prompt", (None, PROMPT)), *parts])
        assert error(answer) == (400, code or "invalid_value", param)
        assert stored() == []


@pytest.mark.usefixtures("worker")
def test_a_mask_keeps_the_rest_of_the_first_image(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, file = Image.new("RGBA", (SIZE, SIZE), "black"), io.BytesIO()
    mask.paste((0, 0, 0, 0), (0, 0, SIZE // 2, SIZE // 2))
    mask.save(file, "PNG")
    parts = [*files("one", "two"), ("mask", ("mask.png", file.getvalue()))]
    refused = client.post(EDIT, data={"prompt": PROMPT}, files=parts)
    assert "gpt_image" in refused.json()["error"]["message"]
    monkeypatch.setenv("PLEINAIR_GENERATOR__INPAINT", "true")
    answer = client.post(EDIT, data={"prompt": PROMPT}, files=parts).json()
    assert "data" in answer, answer
    (data,) = answer["data"]
    (attempt,) = data["pleinair"]["attempts"]
    assert len(attempt["references"]) == 1
    image = image_of(data)
    assert image.getpixel((SIZE - 2, SIZE - 1)) == colour("one")
    assert image.getpixel((0, 0)) == colour("two")


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


EMBEDDED = {"image_url": data_url(square("one"))}
ELSEWHERE = {"image_url": "http://127.0.0.1:1/a.png"}
BAD_IMAGES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "missing_required_parameter", "image"),
    ({"images": []}, "missing_required_parameter", "image"),
    ({"images": [ELSEWHERE]}, "unsupported_value", "images[0]"),
    ({"images": [EMBEDDED, {"file_id": "file-1"}]}, "unsupported_value", "images[1]"),
    ({"image": "/etc/passwd"}, "unsupported_value", "image"),
    ({"image": {"url": "file:///etc/passwd"}}, "unsupported_value", "image"),
    ({"images": [7]}, "unsupported_value", "images[0]"),
    ({"images": [{"image_url": "data:image/png,abc"}]}, "invalid_value", "images[0]"),
    ({"images": [{"image_url": "data:image/png;base64,???"}]}, "invalid_value", "images[0]"),
    ({"image": data_url(b"no image")}, "invalid_value", "image"),
    ({"image": EMBEDDED, "mask": ELSEWHERE}, "unsupported_value", "mask"),
]


def test_nothing_is_retrieved_from_an_address(client: TestClient) -> None:
    for fields, code, param in BAD_IMAGES:
        assert error(client.post(EDIT, json={"prompt": PROMPT} | fields)) == (400, code, param)
        assert stored() == []


@pytest.mark.usefixtures("worker")
def test_images_in_json(client: TestClient) -> None:
    images = [{"image_url": data_url(square(name), "image/jpeg")} for name in ("one", "two")]
    answer = client.post(EDIT, json=DRAFT | {"images": images, "mask": None, "size": "auto"})
    (data,) = answer.json()["data"]
    assert len(data["pleinair"]["attempts"][0]["references"]) == 2
    alone = client.post(EDIT, json=DRAFT | {"image": data_url(square("one"))})
    assert len(alone.json()["data"][0]["pleinair"]["attempts"][0]["references"]) == 1


LIBRECHAT = {"model": "dall-e-3", "quality": "standard", "style": "natural", "size": "1792x1024", "n": 1}
LANGCHAIN = {"model": "dall-e-2", "quality": "standard", "size": "1024x1024", "n": 1}
OPEN_WEBUI = {"model": "dall-e-3", "size": "512x512", "n": 1, "response_format": "b64_json"}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("fields", "kind", "size"),
    [(LIBRECHAT, "url", (32, 16)), (LANGCHAIN, "url", (16, 16)), (OPEN_WEBUI, "b64_json", (16, 16))],
)
def test_what_clients_have_built_in(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    kind: str,
    size: tuple[int, int],
) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__MAX_PIXELS", "600")
    answer = client.post(GENERATE, json=fields | {"prompt": PROMPT})
    assert kind in answer.json()["data"][0]
    options = read_request(stored()[0].request_json).settings.image
    assert (options.width, options.height) == size
    by_profile = client.post(GENERATE, json=DRAFT | {"model": "pocket", "size": "1024x1024"})
    assert error(by_profile)[::2] == (400, "size")


@pytest.mark.usefixtures("worker")
def test_one_key_is_one_run(client: TestClient) -> None:
    headers = {"idempotency-key": "a key"}
    answers = [client.post(GENERATE, json=DRAFT, headers=headers).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] and len(stored()) == 1
    other = client.post(GENERATE, json=DRAFT | {"prompt": "second thing"}, headers=headers)
    assert error(other) == (400, "invalid_value", "Idempotency-Key")
    for key in ("a#image-2", "k" * 201, "\x7f"):
        answer = client.post(GENERATE, json=DRAFT, headers={"idempotency-key": key})
        assert error(answer) == (400, "invalid_value", "Idempotency-Key")
    assert len(stored()) == 1


@pytest.mark.usefixtures("worker")
def test_a_run_that_ends_without_an_image(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__FAULT", "out of paint")
    answer = client.post(GENERATE, json=DRAFT)
    assert error(answer) == (500, "failed", None)
    assert "out of paint" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    events = sent(client.post(GENERATE, json=DRAFT | {"stream": True, "n": 2}).text)
    assert [(name, data["error"]["code"]) for name, data in events] == [("error", "failed")]


def sent(text: str) -> list[tuple[str, Any]]:
    """Return the names and data of a stream's events."""
    blocks = [block.split("\r\n") for block in text.split("\r\n\r\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


@pytest.mark.usefixtures("worker")
def test_a_stream_ends_with_each_image(client: TestClient) -> None:
    answer = client.post(GENERATE, json=DRAFT | {"stream": True, "n": 2, "output_format": "webp"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = sent(answer.text)
    assert [name for name, _ in events] == ["image_generation.completed"] * 2
    assert {data["pleinair"]["run"] for _, data in events} == {run.id for run in stored()}
    assert {image_of(data).format for _, data in events} == {"WEBP"}
    edited = client.post(EDIT, data=DRAFT | {"stream": "true"}, files=files("one"))
    assert [name for name, _ in sent(edited.text)] == ["image_edit.completed"]


def test_a_full_queue_says_when_there_is_room(client: TestClient) -> None:
    for _ in range(3):
        api.enqueue(PROMPT, client="another")
    answer = client.post(GENERATE, json=DRAFT)
    assert error(answer) == (429, "rate_limit_exceeded", None)
    assert int(answer.headers["retry-after"]) >= 1


REFUSED: list[tuple[str, str, dict[str, str], int, str]] = [
    ("GET", "/v1/nothing", {"accept": "text/html"}, 404, "not_found"),
    ("GET", "/v1", {}, 404, "not_found"),
    ("DELETE", "/v1/models", {}, 405, "method_not_allowed"),
    ("GET", "/v1/models", {"host": "evil.example", "accept": "text/html"}, 421, "misdirected_request"),
    ("GET", "/v1/models", {"origin": "http://evil.example"}, 403, "forbidden"),
    ("POST", GENERATE, {"content-length": str(2**40)}, 413, "request_too_large"),
    ("POST", "/v1/chat/completions", {"content-type": "application/json"}, 404, "not_found"),
    ("POST", EDIT, {"content-type": "multipart/form-data"}, 400, "invalid_value"),
    ("POST", GENERATE, {"content-type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
]


def test_errors_have_one_form(client: TestClient) -> None:
    for method, path, headers, status, code in REFUSED:
        assert error(client.request(method, path, headers=headers)) == (status, code, None)
    for path in (GENERATE, EDIT):
        answer = client.post(path, content="prompt=x", headers={"content-type": "text/plain"})
        assert error(answer) == (415, "unsupported_media_type", "Content-Type")
    served = client.get("/v1/nothing").json()["error"]["message"]
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        assert not path.startswith("/v1") or f"{next(iter(methods)).upper()} {path}" in served


def test_a_token_is_the_key(place: Path) -> None:
    app = create(Options(workers=0, token="a long token"), home())
    with TestClient(app, HERE) as client:
        for headers in ({"accept": "text/html"}, {"authorization": "Bearer another"}):
            assert error(client.get("/v1/models", headers=headers)) == (401, "invalid_api_key", None)
        assert client.get("/v1/models", headers={"authorization": "Bearer a long token"}).status_code == 200
        assert client.get("/openapi.json").status_code == 401


@pytest.mark.usefixtures("worker")
def test_an_address_can_be_passed_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create(Options(workers=0, token="a long token"), home())
    with TestClient(app, HERE) as client:
        headers = {"authorization": "Bearer a long token"}
        fields = DRAFT | {"response_format": "url"}
        url = client.post(GENERATE, json=fields, headers=headers).json()["data"][0]["url"]
        assert client.get(url).headers["content-type"] == "image/png"
        path, _, query = url.removeprefix(HERE).partition("?")
        assert error_status(client, path) == error_status(client, f"{path}?{query}0") == 401
        assert error_status(client, f"{path}?{query.replace('expires=', 'expires=1')}") == 401
        assert error_status(client, f"/v1/models?{query}") == client.post(url).status_code == 401
        monkeypatch.setattr("pleinair.app.server.security.LINK_SECONDS", -1)
        url = client.post(GENERATE, json=fields, headers=headers).json()["data"][0]["url"]
        assert error_status(client, url) == 401


def error_status(client: TestClient, path: str) -> int:
    return int(client.get(path).status_code)


def test_an_unexpected_error_has_that_form(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "enqueue", lambda *_, **__: 1 / 0)
    assert error(client.post(GENERATE, json=DRAFT)) == (500, "server_error", None)


def test_what_programs_use_is_described(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) >= {GENERATE, EDIT, "/v1/models", "/v1/models/{name}", "/runs"}
    assert not [path for path in description["paths"] if path.startswith(("/static", "/threads"))]
    body = description["paths"][EDIT]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"image", "prompt"} == set(body["required"])
    body = description["paths"][EDIT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"images", "prompt"} == set(body["required"])


Send = Callable[[httpx.AsyncClient], Any]


def with_client(send: Send, queue: int = 64) -> Any:
    """Call a server in this event loop."""
    app = create(Options(workers=0, queue=queue), home())

    async def call() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE, timeout=60) as client:
            return await asyncio.wait_for(send(client), 60)

    return asyncio.run(call())


async def until(condition: Callable[[], Iterable[Any] | bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("place")
def test_many_wait_and_the_server_serves() -> None:
    async def send(client: httpx.AsyncClient) -> list[Any]:
        waiting = [asyncio.create_task(client.post(GENERATE, json=DRAFT)) for _ in range(60)]
        await until(lambda: run_table().unfinished() == 60)
        assert (await client.get("/v1/models")).status_code == 200
        assert not [task for task in waiting if task.done()]
        for run in stored():
            api.cancel(run.id)
        return await asyncio.gather(*waiting)

    answers = with_client(send, queue=60)
    assert {error(answer)[:2] for answer in answers} == {(400, "cancelled")}


@pytest.mark.usefixtures("place")
def test_a_client_that_leaves_loses_nothing() -> None:
    async def send(client: httpx.AsyncClient) -> Any:
        headers = {"idempotency-key": "a key"}
        first = asyncio.create_task(client.post(GENERATE, json=DRAFT, headers=headers))
        await until(stored)
        first.cancel()
        stop = threading.Event()
        thread = threading.Thread(target=work, args=(run_table(), home(), stop))
        thread.start()
        try:
            return await client.post(GENERATE, json=DRAFT, headers=headers)
        finally:
            stop.set()
            thread.join()

    answer = with_client(send)
    assert answer.json()["data"][0]["pleinair"]["run"] == stored()[0].id
    assert len(stored()) == 1
