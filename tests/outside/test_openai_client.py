"""OpenAI's package and curl, as others use them, against a server with the pocket models."""

import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import ImagesResponse
from PIL import Image, ImageChops
from support.servers import Server, own_folders, serving
from support.source_tree import ROOT

from pleinair.app.api import run_table

HOOPOE, TWO = "a hoopoe in the snow", "a barn owl and a hoopoe"
PAGE = (ROOT / "docs" / "openai.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:8800"  # in the page
TOKEN = "a-long-token"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set the folders of this process and the servers."""
    with own_folders(tmp_path_factory.mktemp("place")) as folder:
        yield folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def birds(client: OpenAI) -> list[bytes]:
    """Return two images of the pocket world."""
    answer = client.images.generate(prompt=HOOPOE, n=2, extra_body={"pleinair": {"seed": 1}})
    return images_of(answer)


def images_of(answer: ImagesResponse) -> list[bytes]:
    assert answer.data
    return [base64.b64decode(image.b64_json or "") for image in answer.data]


def runs_of(answer: ImagesResponse) -> list[Any]:
    assert answer.data
    return [(image.model_extra or {})["pleinair"] for image in answer.data]


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


def test_generate(client: OpenAI) -> None:
    answer = client.images.generate(prompt=HOOPOE, model="gpt-image-1", quality="high", user="ada")
    (data,), (run,) = images_of(answer), runs_of(answer)
    assert size(data) == (96, 96) and answer.size == "96x96"
    assert run["status"] == run_table().get(run["run"]).status == "accepted"
    assert run["attempts"][run["best"]]["references"][0]["concept"] == "hoopoe"
    assert answer.data and answer.data[0].revised_prompt == run["attempts"][run["best"]]["prompt"]


def test_several_images_by_address(client: OpenAI) -> None:
    options: Any = {"extra_body": {"pleinair": {"seed": 11, "graph": "direct"}}}
    answer = client.images.generate(prompt=HOOPOE, n=2, response_format="url", size="96x64", **options)
    assert answer.data and [run["seed"] for run in runs_of(answer)] == [11, 12]
    images = [httpx.get(str(image.url), timeout=300) for image in answer.data]
    assert [size(image.content) for image in images] == [(96, 64)] * 2
    again = client.images.generate(prompt=HOOPOE, size="96x64", **options)
    with (
        Image.open(io.BytesIO(images_of(again)[0])) as one,
        Image.open(io.BytesIO(images[0].content)) as other,
    ):
        assert one.tobytes() == other.tobytes()


BUILT_IN: list[dict[str, Any]] = [  # what tools of LangChain and LibreChat send, which read `url`
    {"model": "dall-e-2", "size": "1024x1024", "quality": "standard", "n": 1},
    {"model": "dall-e-3", "size": "1792x1024", "quality": "hd", "style": "natural", "n": 1},
]


@pytest.mark.parametrize("fields", BUILT_IN)
def test_what_clients_have_built_in(client: OpenAI, fields: dict[str, Any]) -> None:
    answer = client.images.generate(prompt=HOOPOE, **fields)
    assert answer.data and answer.data[0].url
    width, height = size(httpx.get(answer.data[0].url, timeout=300).content)
    assert answer.size == f"{width}x{height}" and width * height < 10_000
    assert (width > height) == (fields["size"] == "1792x1024")


def test_edit_with_data_urls(server: Server, birds: list[bytes]) -> None:
    images = [{"image_url": f"data:image/png;base64,{base64.b64encode(bird).decode()}"} for bird in birds]
    body = {"model": "gpt-image-2", "prompt": TWO, "images": images, "quality": "low"}
    answer = httpx.post(f"{server.address}/v1/images/edits", json=body, timeout=300).json()
    assert len(answer["data"][0]["pleinair"]["attempts"][0]["references"]) == 2


def test_edit_with_two_images(client: OpenAI, birds: list[bytes]) -> None:
    answer = client.images.edit(prompt=TWO, image=[("a.png", birds[0]), ("b.png", birds[1])])
    (run,) = runs_of(answer)
    references = run["attempts"][0]["references"]
    assert [reference["concept"][-1] for reference in references] == ["1", "2"]
    assert len({reference["sha256"] for reference in references}) == 2
    assert size(images_of(answer)[0]) == (96, 96)


@pytest.mark.usefixtures("server")  # whose worker executes the runs of both
def test_edit_with_a_mask(client: OpenAI, birds: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    mask, file = Image.new("RGBA", (96, 96), "black"), io.BytesIO()
    mask.paste((0, 0, 0, 0), (24, 24, 72, 72))
    mask.save(file, "PNG")
    with pytest.raises(openai.BadRequestError, match=r"cannot inpaint; profiles that can: .*klein"):
        client.images.edit(prompt=HOOPOE, image=birds[0], mask=file.getvalue())
    monkeypatch.setenv("PLEINAIR_GENERATOR__INPAINT", "true")  # which the pocket models were not trained for
    with serving(workers=0) as server:
        painter = OpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0)
        answer = painter.images.edit(prompt=HOOPOE, image=birds, mask=file.getvalue())
    with Image.open(io.BytesIO(birds[0])) as base, Image.open(io.BytesIO(images_of(answer)[0])) as edited:
        difference = ImageChops.difference(base.convert("RGB"), edited.convert("RGB")).getbbox()
    assert difference and difference[0] >= 24 and difference[2] <= 72
    (attempt,) = runs_of(answer)[0]["attempts"]
    assert [reference["concept"][-1] for reference in attempt["references"]] == ["1"]


def test_more_images_than_slots(client: OpenAI, birds: list[bytes]) -> None:
    with pytest.raises(openai.BadRequestError, match="input images: 4; .* takes 3 references"):
        client.images.edit(prompt=TWO, image=[*birds, *birds])


def test_stream_with_partial_images(client: OpenAI, birds: list[bytes]) -> None:
    options: Any = {"extra_body": {"pleinair": {"seed": 3}}}
    generated = list(client.images.generate(prompt=HOOPOE, stream=True, partial_images=2, **options))
    edited = list(client.images.edit(prompt=HOOPOE, image=birds[0], stream=True, partial_images=1))
    streams: dict[str, list[Any]] = {"image_generation": generated, "image_edit": edited}
    for name, events in streams.items():
        *partial, completed = events
        assert completed.type == f"{name}.completed" and completed.usage.total_tokens >= 0
        assert {event.type for event in partial} == {f"{name}.partial_image"}
        assert [event.partial_image_index for event in partial] == list(range(len(partial)))
        assert all(size(base64.b64decode(event.b64_json)) for event in events)
    assert len(generated) == 3 and len(edited) == 2


def test_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"pleinair", "pocket", "klein", "gpt-image-1"} <= set(names)
    assert client.models.retrieve("pocket").owned_by == "pleinair"


def test_errors(client: OpenAI, birds: list[bytes]) -> None:
    count = len(run_table().newest(999))
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt=HOOPOE, model="nothing")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt=HOOPOE, background="transparent")
    assert (refused.value.code, refused.value.param) == ("unsupported_value", "background")
    with pytest.raises(openai.BadRequestError, match="I cannot draw") as unread:
        client.images.generate(prompt="Quarterly results as a chart")
    assert unread.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="not an image"):
        client.images.edit(prompt=HOOPOE, image=b"no image")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="pocket", messages=[])
    assert len(run_table().newest(999)) == count


def test_a_retry_with_the_same_key_gets_the_same_run(client: OpenAI) -> None:
    options: Any = {"prompt": HOOPOE, "extra_headers": {"Idempotency-Key": "a key of one request"}}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.4).images.generate(**options)
    first, second = (client.images.generate(**options) for _ in range(2))
    assert first == second
    with pytest.raises(openai.BadRequestError, match="whose request is another one"):
        client.images.generate(**options | {"prompt": TWO})


def test_many_clients_at_once(server: Server) -> None:
    async def generate() -> list[ImagesResponse]:
        async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key="any") as client:
            calls = (client.images.generate(prompt=HOOPOE, quality="low") for _ in range(8))
            answers: list[ImagesResponse] = await asyncio.gather(*calls)
            return answers

    assert len({runs_of(answer)[0]["run"] for answer in asyncio.run(generate())}) == 8


def test_a_full_queue_and_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path))  # whose runs no other server executes
    with serving(workers=0, queue=1, token=TOKEN) as server:
        url = f"{server.address}/v1"
        with pytest.raises(openai.AuthenticationError):
            OpenAI(base_url=url, api_key="another", max_retries=0).models.list()
        client = OpenAI(base_url=url, api_key=TOKEN, max_retries=0)
        headers = {"authorization": f"Bearer {TOKEN}"}
        queued = httpx.post(f"{server.address}/runs", json={"prompt": HOOPOE}, headers=headers, timeout=300)
        with pytest.raises(openai.RateLimitError) as full:
            client.images.generate(prompt=HOOPOE)
        assert int(full.value.response.headers["retry-after"]) >= 1
        httpx.post(f"{server.address}/runs/{queued.json()['run']}/stop", headers=headers, timeout=300)
        assert client.models.list().data


def blocks(language: str, server: Server) -> list[str]:
    fenced = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block).replace(ADDRESS, server.address) for block in fenced]


def run(command: list[str], folder: Path) -> str:
    answer = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_commands_of_the_page(server: Server, tmp_path: Path) -> None:
    (block,) = blocks("bash", server)
    by_address, to_file, edited, streamed, models = block.splitlines()
    (image,) = json.loads(run(["bash", "-c", by_address], tmp_path))["data"]
    assert size(httpx.get(image["url"], timeout=300).content) == (96, 96)
    assert run(["bash", "-c", to_file], tmp_path) == ""
    assert size((tmp_path / "hoopoe.png").read_bytes()) == (96, 96)
    (image,) = json.loads(run(["bash", "-c", edited], tmp_path))["data"]
    assert image["pleinair"]["seed"] == 7
    names = re.findall("^event: (.*)$", run(["bash", "-c", streamed], tmp_path), re.MULTILINE)
    assert [name.strip() for name in names][-1] == "image_generation.completed" and len(names) == 3
    assert json.loads(run(["bash", "-c", models], tmp_path))["object"] == "list"


def test_the_program_of_the_page(server: Server, tmp_path: Path) -> None:
    (block,) = blocks("python", server)
    lines = run([sys.executable, "-c", block], tmp_path).splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["accepted"] * 2
    assert lines[2:-1] == ["image_generation.partial_image auto"] * 2
    assert lines[-1] == "image_generation.completed 96x96"
    assert len(list(tmp_path.glob("*.png"))) == 2
