"""The real client against a server on this machine that speaks the OpenAI images API."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import fault_server as faults
from support.fault_server import Act, FaultServer, error, reply
from support.generator_requests import LINEAR, RADIAL, REFERENCES, draw, make_reference, make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.openai_images import OpenAIImages
from pleinair.tools.diffusion.references import scale_reference
from pleinair.tools.errors import BadReply, Filtered, TooLarge, Unavailable
from pleinair.tools.http.support import SUPPORT, Support
from pleinair.tools.storage.artifacts import spent_on
from pleinair.tools.types import BadInput, Cancelled, Inpaint, Picture, PleinairError

INPAINT = Inpaint(
    concept="finch", picture=Picture(sha256="0" * 64, width=32, height=32), box=(0.5, 0.25, 1, 0.75)
)


def picture(image: Image.Image = RADIAL, **more: Any) -> Act:
    file = io.BytesIO()
    image.save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    return reply(200, {"created": 1, "data": [{"b64_json": encoded}], **more})


def models(*names: str) -> Act:
    return reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


class ImagesServer(FaultServer):
    """Server of the images API, and the generator that calls it without real pauses."""

    waits: list[float]

    def generator(self, **settings: Any) -> OpenAIImages:
        generator = OpenAIImages("m", base_url=self.url, height=32, width=32, **settings)
        self.waits = []
        SUPPORT.set(self.url, "m", Support(edits=True))
        generator.retry_policy = replace(generator.retry_policy, sleep=self.waits.append)
        return generator

    def fields(self) -> dict[str, Any]:
        """Return the fields of the last request, a form's files as images."""
        request = self.requests[-1]
        if request.headers.get_content_type() == "application/json":
            return request.json
        kind = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
        fields: dict[str, Any] = {}
        for part in message_from_bytes(kind + request.body).walk():
            if name := part.get_param("name", header="Content-Disposition"):
                data = part.get_payload(decode=True)
                assert isinstance(data, bytes)
                value = Image.open(io.BytesIO(data)) if part.get_filename() else data.decode()
                fields.setdefault(str(name), []).append(value)
        return fields


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImagesServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = ImagesServer()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("act", "hint"),
    [
        (models("m", "other"), ""),
        (models("other", "another"), ", which lists only another, other"),
        (models(*"abcdefghij"), ", which lists only a, b, c, d, e, f, g, h …"),
        (error(404), ""),
    ],
)
def test_greet_lists_the_models_only(server: ImagesServer, act: Act, hint: str) -> None:
    server.acts = [act]
    assert server.generator().greet() == f"m at {server.url}{hint}"
    assert [request.path for request in server.requests] == ["/v1/models"]


def test_greet_raises_what_is_wrong(server: ImagesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.acts = [error(401)]
    with pytest.raises(Unavailable, match="key in OPENAI_API_KEY is not accepted"):
        server.generator().greet()
    with pytest.raises(PleinairError, match="Nothing answers at .*Check that the server is running"):
        OpenAIImages("m", base_url="http://127.0.0.1:9/v1").greet()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(Unavailable, match="Set the environment variable OPENAI_API_KEY"):
        OpenAIImages("m").greet()


def test_text_alone_is_a_generation(server: ImagesServer) -> None:
    server.acts = [picture()]
    image = server.generator(options={"quality": "low"}).generate(make_request(), (), no_callback)
    assert image.tobytes() == RADIAL.tobytes()
    request = server.requests[0]
    assert (request.path, request.headers["Authorization"]) == ("/v1/images/generations", "Bearer secret")
    assert server.fields() == {"model": "m", "prompt": "a finch", "n": 1, "size": "32x32", "quality": "low"}


def test_references_are_an_edit_with_all_of_them_in_order(server: ImagesServer) -> None:
    server.acts = [picture()]
    generator = server.generator(slots=2, reference_size=64)
    request = make_request(references=tuple(map(make_reference, ("finch", "coupe"))))
    generator.generate(request, [RADIAL, LINEAR], no_callback)
    assert server.requests[0].path == "/v1/images/edits"
    sent = server.fields()
    assert sent["prompt"] == ["a finch. Image 1 shows finch. Image 2 shows coupe."]
    first, second = sent["image[]"]
    assert first.tobytes() == scale_reference(RADIAL, 64).tobytes()
    assert second.tobytes() == scale_reference(LINEAR, 64).tobytes()


def test_a_prompt_that_says_what_the_references_show_gets_no_sentences(server: ImagesServer) -> None:
    server.acts = [picture()]
    request = make_request(references=(make_reference(),), announced=True)
    server.generator(slots=1).generate(request, [RADIAL], no_callback)
    assert server.fields()["prompt"] == ["a finch"]


def test_a_box_is_an_edit_with_a_mask_and_changes_nothing_outside(server: ImagesServer) -> None:
    server.acts = [picture(LINEAR.rotate(90))]
    generator = server.generator(slots=1, inpaint=True)
    assert (generator.capabilities.inpaint, generator.capabilities.inpaint_slots) == (True, 1)
    before, names = RADIAL.resize((32, 32)), ("coupe", "finch")
    request = make_request(references=tuple(map(make_reference, names)), inpaint=INPAINT)
    after = np.asarray(generator.generate(request, [RADIAL, LINEAR, before], no_callback))
    sent = server.fields()
    assert server.requests[0].path == "/v1/images/edits"
    assert sent["prompt"] == ["a finch. Image 2 shows finch."]
    first, second = sent["image[]"]
    assert first.tobytes() == before.tobytes()
    assert second.tobytes() == LINEAR.tobytes()  # a reference of another concept is left out
    (mask,) = sent["mask"]
    clear = np.asarray(mask)[..., 3] == 0
    assert clear[8:24, 16:].all() and not clear[:, :13].any()
    assert np.array_equal(after[~clear], np.asarray(before)[~clear])
    assert (after[clear] != np.asarray(before)[clear]).any()


def test_a_box_is_refused_where_the_model_has_no_masks(server: ImagesServer) -> None:
    with pytest.raises(BadInput, match="cannot inpaint"):
        server.generator().generate(make_request(inpaint=INPAINT), [RADIAL], no_callback)
    assert not server.requests


def test_diffusion_servers_receive_seed_steps_and_guidance(server: ImagesServer) -> None:
    server.acts = [picture(), picture()]
    generator = server.generator(
        diffusion=True, negative_prompt=True, options={"response_format": "b64_json"}
    )
    draw(generator, seed=7, negative_prompt="ice")
    sent = server.fields()
    assert (sent["seed"], sent["num_inference_steps"], sent["guidance_scale"]) == (7, 2, 2.0)
    assert (sent["negative_prompt"], sent["response_format"]) == ("ice", "b64_json")
    draw(generator, REFERENCES[:1], seed=8)
    assert server.fields()["seed"] == ["8"]


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (401, "invalid_api_key", Unavailable, "key in OPENAI_API_KEY is not accepted"),
        (403, "", Unavailable, "may not use 'm'"),
        (404, "model_not_found", Unavailable, "no model 'm'"),
        (400, "invalid_value", BadInput, r"rejects the request \(status 400\): .*because"),
        (422, "", BadInput, "because"),
        (400, "moderation_blocked", Filtered, "refused the request"),
        (400, "content_policy_violation", Filtered, "because"),
        (429, "insufficient_quota", Unavailable, "no credit left"),
    ],
)
def test_a_lasting_error_is_raised_at_once(
    server: ImagesServer, status: int, code: str, kind: type[Exception], text: str
) -> None:
    server.acts = [error(status, "because", code)]
    with pytest.raises(kind, match=text):
        draw(server.generator())
    assert (len(server.requests), server.waits) == (1, [])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_error_is_tried_again(server: ImagesServer, status: int) -> None:
    server.acts = [error(status), error(status, retry_after="7"), picture()]
    assert draw(server.generator()).shape == (256, 256, 3)
    assert sum(server.waits) == 1.0 + 7.0 and max(server.waits) == 1.0


def test_retry_after_may_be_a_date(server: ImagesServer) -> None:
    server.acts = [faults.later(503, 20), picture()]
    draw(server.generator())
    assert 15 < sum(server.waits) <= 20


def test_a_stop_in_a_pause(server: ImagesServer) -> None:
    server.acts = [error(429, retry_after="60"), picture()]

    def stop_after_a_wait(done: int, total: int) -> None:
        if server.waits:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        server.generator().generate(make_request(), (), stop_after_a_wait)
    assert (len(server.requests), server.waits) == (1, [1.0])


DONE = "did not answer in time; `generator.deadline` .*may have done it"
BROKEN = {
    "silence": (faults.hang, Unavailable, DONE),
    "drips": (faults.drip_body, Unavailable, DONE),
    "reset": (faults.reset(), Unavailable, "broke: .*may have done it"),
    "half": (faults.sends(faults.head(200, 999) + b"{"), Unavailable, "broke: .*may have done it"),
    "gateway": (error(504), Unavailable, "failed with status 504.*may have done it"),
    "endless": (faults.endless, TooLarge, "larger than 64 MiB"),
    "a gigabyte": (faults.sends(faults.head(200, 2**30)), TooLarge, "larger than 64 MiB"),
    "a page": (reply(200, b"<html>"), BadReply, "is no JSON"),
}


@pytest.mark.parametrize(("act", "kind", "text"), BROKEN.values(), ids=BROKEN)
def test_an_image_that_may_be_charged_is_not_requested_twice(
    act: Act, kind: type[Exception], text: str, server: ImagesServer
) -> None:
    server.acts, started = [act], time.monotonic()
    with pytest.raises(kind, match=text):
        draw(server.generator(deadline=1.5 if act in (faults.hang, faults.drip_body) else 30.0))
    assert len(server.requests) == 1
    assert time.monotonic() - started < 55


@pytest.mark.parametrize("act", [faults.hang, error(500)])
def test_a_stop_ends_a_wait_and_all_tries(act: Act, server: ImagesServer) -> None:
    steps: list[tuple[int, int]] = []

    def stop_at_the_second(done: int, total: int) -> None:
        steps.append((done, total))
        if len(steps) == 2:
            raise Cancelled("stop")

    server.acts, started = [act, picture()], time.monotonic()
    with pytest.raises(Cancelled):
        server.generator(deadline=60.0).generate(make_request(), (), stop_at_the_second)
    assert (steps, len(server.requests)) == ([(0, 1)] * 2, 1)
    assert time.monotonic() - started < 55


def test_a_proxy_of_the_environment_is_used_for_other_machines_only(
    server: ImagesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.acts = [picture(), picture()]
    SUPPORT.set("http://pictures.example/v1", "m", Support(edits=True))
    draw(OpenAIImages("m", base_url="http://pictures.example/v1", height=32, width=32))
    draw(server.generator())
    assert [request.path for request in server.requests] == [
        "http://pictures.example/v1/images/generations",
        "/v1/images/generations",
    ]


USED = {
    "input_tokens": 1100,
    "input_tokens_details": {"image_tokens": 1000, "text_tokens": 100},
    "output_tokens": 2000,
    "total_tokens": 3100,
}
PRICES = {"prices": {"m": {"read": 5.0, "read_images": 8.0, "written": 30.0}}}


@pytest.mark.parametrize(
    ("settings", "usage", "usd"),
    [
        (PRICES, USED, (100 * 5 + 1000 * 8 + 2000 * 30) / 1e6),
        (PRICES, None, 0.0),
        (PRICES, {"input_tokens": "many"}, 0.0),
        (PRICES, {"output_tokens": 10}, 300 / 1e6),
        ({}, USED, 0.0),
        ({**PRICES, "price_per_picture": 0.04}, USED, 0.04),
    ],
)
def test_an_image_carries_its_cost(server: ImagesServer, settings: Any, usage: Any, usd: float) -> None:
    server.acts = [picture(usage=usage)]
    image = server.generator(**settings).generate(make_request(), (), no_callback)
    assert spent_on(image).usd == pytest.approx(usd)


def test_a_charged_reply_without_an_image_carries_its_cost(server: ImagesServer) -> None:
    server.acts = [reply(200, {"created": 1, "data": [{"b64_json": "no base64"}]})]
    with pytest.raises(BadReply) as raised:
        draw(server.generator(price_per_picture=0.04))
    assert raised.value.spent.usd == 0.04


def test_tries_are_limited(server: ImagesServer) -> None:
    server.acts = [error(500)] * 3
    with pytest.raises(Unavailable, match="failed with status 500.*try 3 of 3"):
        draw(server.generator())
    assert len(server.requests) == 3


def test_a_wait_beyond_the_deadline_is_an_error(server: ImagesServer) -> None:
    server.acts = [error(429, retry_after="100")]
    with pytest.raises(Unavailable, match="asks for fewer requests"):
        draw(server.generator(deadline=50.0))
    assert server.waits == []


@pytest.mark.parametrize(
    "body",
    [
        {"created": 1, "data": []},
        {"created": 1},
        {"created": 1, "data": [{"url": "http://192.0.2.1/picture.png"}]},
        {"created": 1, "data": [{"b64_json": "no base64"}]},
        {"created": 1, "data": [{"b64_json": base64.b64encode(b"no picture").decode()}]},
    ],
)
def test_a_reply_without_an_image_is_an_error(server: ImagesServer, body: dict[str, Any]) -> None:
    server.acts = [reply(200, body)]
    with pytest.raises(BadReply):
        draw(server.generator())
    assert len(server.requests) == 1


def test_a_missing_server_is_named(server: ImagesServer) -> None:
    with pytest.raises(Unavailable, match=r"Nothing answers at http://127\.0\.0\.1:9/v1"):
        draw(OpenAIImages("m", base_url="http://127.0.0.1:9/v1", tries=1))


def test_openai_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Unavailable, match="Set the environment variable OPENAI_API_KEY"):
        draw(OpenAIImages("gpt-image-2.5-flare"))


def test_an_unsupported_request_is_refused_before_anything_is_sent(server: ImagesServer) -> None:
    with pytest.raises(BadInput, match="takes 2 references, got 3"):
        draw(server.generator(slots=2), REFERENCES[:3])
    for settings in ({}, {"diffusion": True}):
        with pytest.raises(BadInput, match="no negative prompt"):
            draw(server.generator(**settings), negative_prompt="ice")
    assert not server.requests


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="generator.slots = 17: must be at most 16"):
        OpenAIImages("m", slots=17)
    with pytest.raises(BadInput, match="base_url = 'ftp://localhost'"):
        OpenAIImages("m", base_url="ftp://localhost")
    with pytest.raises(BadInput, match="price_per_picture = -1"):
        OpenAIImages("m", price_per_picture=-1)
    with pytest.raises(BadInput, match=r"generator\.prices\.m = 3: wanted"):
        OpenAIImages("m", prices={"m": 3})


def _lines(text: str) -> str:
    return "\n".join(text[start : start + 76] for start in range(0, len(text), 76))


WRAPPINGS = {
    "a data URL": lambda text: f"data:image/png;base64,{text}",
    "lines": _lines,
    "the alphabet of URLs": lambda text: text.replace("+", "-").replace("/", "_"),
    "no padding": lambda text: text.rstrip("="),
    "all of them": lambda text: (
        "DATA:image/png;base64," + _lines(text.translate(str.maketrans("+/", "-_")).rstrip("="))
    ),
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_base64_is_read_in_every_usual_form(server: ImagesServer, wrap: Any) -> None:
    for side in (255, 256, 257):  # one of them is padded
        file = io.BytesIO()
        LINEAR.resize((side, 256)).convert("RGB").save(file, "PNG")
        server.acts = [reply(200, {"data": [{"b64_json": wrap(base64.b64encode(file.getvalue()).decode())}]})]
        assert draw(server.generator()).shape == (256, side, 3)


def test_another_size_than_asked_for_is_told(server: ImagesServer, caplog: pytest.LogCaptureFixture) -> None:
    server.acts = [picture()]
    draw(server.generator())
    assert "was asked for 32 x 32 pixels and sent 256 x 256." in caplog.text


@pytest.mark.parametrize(
    ("act", "has_edits"),
    [
        (error(404, "Not Found"), False),
        (error(405), False),
        (error(501), False),
        (error(422), True),
        (error(400), True),
        (error(404, "no m", "model_not_found"), None),
        (error(500), None),
    ],
)
def test_a_server_without_edits_is_found_before_an_image_is_paid_for(
    server: ImagesServer, act: Act, has_edits: bool | None
) -> None:
    generator = server.generator(slots=2)
    SUPPORT.set(server.url, "m", Support())
    server.acts = [act, picture()]
    if has_edits is False:
        for _ in range(2):
            with pytest.raises(Unavailable, match="has no edits.*generator.slots = 0"):
                draw(generator)
        assert [request.path for request in server.requests] == ["/v1/images/edits"]
    else:
        draw(generator)
        assert [request.path for request in server.requests] == ["/v1/images/edits", "/v1/images/generations"]
    assert SUPPORT.get(server.url, "m").edits is has_edits
    draw(server.generator(slots=0)) if has_edits is False else None
