"""The real client against a server on this machine that speaks the OpenAI images API."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import fault_server as faults
from support.fault_server import FaultServer
from support.generator_requests import (
    LINEAR,
    RADIAL,
    REFERENCES,
    draw,
    make_reference,
    make_request,
)

from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.call import scaled
from pleinair.tools.diffusion.openai_images import OpenAIImages
from pleinair.tools.errors import BadReply, Filtered, TooLarge, Unavailable
from pleinair.tools.storage.artifacts import spent_on
from pleinair.tools.types import BadInput, Cancelled, Inpaint, Picture, PleinairError

Answer = tuple[int, dict[str, Any], dict[str, str]]
REPAINT = Inpaint(
    concept="finch", picture=Picture(sha256="0" * 64, width=32, height=32), box=(0.5, 0.25, 1, 0.75)
)


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def picture(image: Image.Image = RADIAL, **more: Any) -> Answer:
    return 200, {"created": 1, "data": [{"b64_json": encoded(image)}], **more}, {}


def refusal(status: int, code: str = "", headers: dict[str, str] | None = None) -> Answer:
    return status, {"error": {"message": "because", "code": code}}, headers or {}


@dataclass
class Server:
    """Hold what is answered next, and what was asked."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, bytes, Message]] = field(default_factory=list)

    def engine(self, **settings: Any) -> OpenAIImages:
        made = OpenAIImages("m", base_url=self.url, height=32, width=32, **settings)
        made.retry_policy = replace(made.retry_policy, sleep=self.slept.append)
        return made

    def __post_init__(self) -> None:
        self.slept: list[float] = []

    def sent(self) -> dict[str, Any]:
        """Read the fields of the last request, a form's files as pictures."""
        _, _, body, headers = self.asked[-1]
        if headers.get_content_type() == "application/json":
            return dict(json.loads(body))
        kind = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        parts: dict[str, Any] = {}
        for part in message_from_bytes(kind + body).walk():
            if name := part.get_param("name", header="Content-Disposition"):
                data = part.get_payload(decode=True)
                assert isinstance(data, bytes)
                value = Image.open(io.BytesIO(data)) if part.get_filename() else data.decode()
                parts.setdefault(str(name), []).append(value)
        return parts


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append((self.path, self.headers["Authorization"], body, self.headers))
            self.answer()

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers["Authorization"], b"", self.headers))
            self.answer()

        def answer(self) -> None:
            status, reply, headers = state.answers.pop(0)
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield state
        http.shutdown()
        thread.join()


def models(*names: str) -> Answer:
    return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}, {}


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (models("m", "other"), ""),
        (models("other", "another"), ", which lists only another, other"),
        (models(*"abcdefghij"), ", which lists only a, b, c, d, e, f, g, h …"),
        (refusal(404), ""),
    ],
)
def test_a_greeting_asks_for_no_picture(server: Server, answer: Answer, hint: str) -> None:
    server.answers = [answer]
    assert server.engine().greet() == f"m at {server.url}{hint}"
    assert [path for path, *_ in server.asked] == ["/v1/models"]


def test_a_greeting_tells_what_is_wrong(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [refusal(401)]
    with pytest.raises(Unavailable, match="key in OPENAI_API_KEY is not accepted"):
        server.engine().greet()
    with pytest.raises(PleinairError, match="Nothing answers at .*Check that the server is running"):
        OpenAIImages("m", base_url="http://127.0.0.1:9/v1").greet()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(Unavailable, match="Set the environment variable OPENAI_API_KEY"):
        OpenAIImages("m").greet()


def test_text_alone_asks_for_a_generation(server: Server) -> None:
    server.answers = [picture()]
    drawn = server.engine(options={"quality": "low"}).generate(make_request(), (), no_callback)
    assert drawn.tobytes() == RADIAL.tobytes()
    path, key, _, _ = server.asked[0]
    assert (path, key) == ("/v1/images/generations", "Bearer secret")
    assert server.sent() == {"model": "m", "prompt": "a finch", "n": 1, "size": "32x32", "quality": "low"}


def test_references_ask_for_an_edit_with_all_of_them_in_order(server: Server) -> None:
    server.answers = [picture()]
    engine = server.engine(slots=2, reference_size=64)
    asked = make_request(references=tuple(map(make_reference, ("finch", "coupe"))))
    engine.generate(asked, [RADIAL, LINEAR], no_callback)
    assert server.asked[0][0] == "/v1/images/edits"
    sent = server.sent()
    assert sent["prompt"] == ["a finch. Image 1 shows finch. Image 2 shows coupe."]
    first, second = sent["image[]"]
    assert first.tobytes() == scaled(RADIAL, 64).tobytes()
    assert second.tobytes() == scaled(LINEAR, 64).tobytes()


def test_a_box_asks_for_an_edit_with_a_mask_and_keeps_what_is_outside(server: Server) -> None:
    server.answers = [picture(LINEAR.rotate(90))]
    engine = server.engine(slots=1, inpaint=True)
    assert (engine.capabilities.inpaint, engine.capabilities.inpaint_slots) == (True, 1)
    old, names = RADIAL.resize((32, 32)), ("coupe", "finch")
    asked = make_request(references=tuple(map(make_reference, names)), inpaint=REPAINT)
    drawn = np.asarray(engine.generate(asked, [RADIAL, LINEAR, old], no_callback))
    sent = server.sent()
    assert server.asked[0][0] == "/v1/images/edits"
    assert sent["prompt"] == ["a finch. Image 2 shows finch."]
    first, second = sent["image[]"]
    assert first.tobytes() == old.tobytes()
    assert second.tobytes() == LINEAR.tobytes()  # the other's picture is what is kept
    (mask,) = sent["mask"]
    clear = np.asarray(mask)[..., 3] == 0
    assert clear[8:24, 16:].all() and not clear[:, :13].any()
    before = np.asarray(old)
    assert np.array_equal(drawn[~clear], before[~clear])
    assert (drawn[clear] != before[clear]).any()


def test_a_box_is_refused_where_the_model_has_no_masks(server: Server) -> None:
    with pytest.raises(BadInput, match="cannot paint a box of a picture anew"):
        server.engine().generate(make_request(inpaint=REPAINT), [RADIAL], no_callback)
    assert not server.asked


def test_diffusion_servers_are_told_seed_steps_and_guidance(server: Server) -> None:
    server.answers = [picture(), picture()]
    engine = server.engine(diffusion=True, negative_prompt=True, options={"response_format": "b64_json"})
    draw(engine, seed=7, negative_prompt="ice")
    sent = server.sent()
    assert (sent["seed"], sent["num_inference_steps"], sent["guidance_scale"]) == (7, 2, 2.0)
    assert (sent["negative_prompt"], sent["response_format"]) == ("ice", "b64_json")
    draw(engine, REFERENCES[:1], seed=8)
    assert server.sent()["seed"] == ["8"]


@pytest.mark.parametrize(
    ("status", "code", "error", "text"),
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
def test_a_lasting_refusal_is_told_at_once(
    server: Server, status: int, code: str, error: type[Exception], text: str
) -> None:
    server.answers = [refusal(status, code)]
    with pytest.raises(error, match=text):
        draw(server.engine())
    assert (len(server.asked), server.slept) == (1, [])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(server: Server, status: int) -> None:
    server.answers = [refusal(status), refusal(status, headers={"Retry-After": "7"}), picture()]
    assert draw(server.engine()).shape == (256, 256, 3)
    assert sum(server.slept) == 1.0 + 7.0 and max(server.slept) == 1.0


def test_a_date_is_a_wait(server: Server) -> None:
    then = formatdate(time.time() + 20, usegmt=True)
    server.answers = [refusal(503, headers={"Retry-After": then}), picture()]
    draw(server.engine())
    assert 15 < sum(server.slept) <= 20


def test_a_stop_is_heard_in_a_pause(server: Server) -> None:
    server.answers = [refusal(429, headers={"Retry-After": "60"}), picture()]

    def stop_after_a_nap(done: int, total: int) -> None:
        if server.slept:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        server.engine().generate(make_request(), (), stop_after_a_nap)
    assert (len(server.asked), server.slept) == (1, [1.0])


def asked_of(faulty: FaultServer, on_step: Any = no_callback, **settings: Any) -> OpenAIImages:
    """Ask a faulty server for a picture, without pauses between tries."""
    engine = OpenAIImages("m", base_url=faulty.url, height=32, width=32, **settings)
    engine.retry_policy = replace(engine.retry_policy, sleep=lambda seconds: None)
    engine.generate(make_request(), (), on_step)
    return engine


BROKEN = {
    "silence": (faults.hang, Unavailable, "did not answer in time; `generator.deadline` .*may have done it"),
    "drips": (
        faults.drip_body,
        Unavailable,
        "did not answer in time; `generator.deadline` .*may have done it",
    ),
    "reset": (faults.reset(), Unavailable, "broke: .*may have done it"),
    "half": (faults.sends(faults.head(200, 999) + b"{"), Unavailable, "broke: .*may have done it"),
    "gateway": (faults.error(504), Unavailable, "failed with status 504.*may have done it"),
    "endless": (faults.endless, TooLarge, "larger than 64 MiB"),
    "a gigabyte": (faults.sends(faults.head(200, 2**30)), TooLarge, "larger than 64 MiB"),
    "a page": (faults.reply(200, b"<html>"), BadReply, "is no JSON"),
}


@pytest.mark.parametrize(("act", "kind", "text"), BROKEN.values(), ids=BROKEN)
def test_a_picture_that_may_be_paid_for_is_not_asked_for_twice(
    act: faults.Act, kind: type[Exception], text: str, server: Server
) -> None:
    began = time.monotonic()
    with faults.playing(act) as faulty:
        with pytest.raises(kind, match=text):
            asked_of(faulty, deadline=1.5 if act in (faults.hang, faults.drip_body) else 30.0)
        assert len(faulty.requests) == 1
    assert time.monotonic() - began < 20


def test_a_stop_is_heard_while_a_server_draws(server: Server) -> None:
    seen: list[tuple[int, int]] = []

    def stop_at_the_second(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise Cancelled("stop")

    began = time.monotonic()
    with faults.playing(faults.hang) as faulty, pytest.raises(Cancelled):
        asked_of(faulty, stop_at_the_second, deadline=60.0)
    assert seen == [(0, 1)] * 2 and time.monotonic() - began < 20


def test_a_proxy_of_the_environment_is_used_for_other_machines_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.answers = [picture(), picture()]
    draw(OpenAIImages("m", base_url="http://pictures.example/v1", height=32, width=32))
    draw(server.engine())
    assert [path for path, *_ in server.asked] == [
        "http://pictures.example/v1/images/generations",
        "/v1/images/generations",
    ]


USED = {
    "input_tokens": 1100,
    "input_tokens_details": {"image_tokens": 1000, "text_tokens": 100},
    "output_tokens": 2000,
    "total_tokens": 3100,
}
OWN = {"prices": {"m": {"read": 5.0, "read_images": 8.0, "written": 30.0}}}


@pytest.mark.parametrize(
    ("settings", "usage", "usd"),
    [
        (OWN, USED, (100 * 5 + 1000 * 8 + 2000 * 30) / 1e6),
        (OWN, None, 0.0),
        (OWN, {"input_tokens": "many"}, 0.0),
        (OWN, {"output_tokens": 10}, 300 / 1e6),
        ({}, USED, 0.0),
        ({**OWN, "price_per_picture": 0.04}, USED, 0.04),
    ],
)
def test_a_picture_says_what_it_cost(server: Server, settings: Any, usage: Any, usd: float) -> None:
    server.answers = [picture(usage=usage)]
    drawn = server.engine(**settings).generate(make_request(), (), no_callback)
    assert spent_on(drawn).usd == pytest.approx(usd)


def test_a_reply_that_is_paid_for_and_no_picture_says_what_it_cost(server: Server) -> None:
    server.answers = [(200, {"created": 1, "data": [{"b64_json": "no base64"}]}, {})]
    with pytest.raises(BadReply) as fault:
        draw(server.engine(price_per_picture=0.04))
    assert fault.value.spent.usd == 0.04


def test_tries_end(server: Server) -> None:
    server.answers = [refusal(500)] * 3
    with pytest.raises(Unavailable, match="failed with status 500.*try 3 of 3"):
        draw(server.engine())
    assert len(server.asked) == 3


def test_a_wait_beyond_the_deadline_is_not_begun(server: Server) -> None:
    server.answers = [refusal(429, headers={"Retry-After": "100"})]
    with pytest.raises(Unavailable, match="asks for fewer requests"):
        draw(server.engine(deadline=50.0))
    assert server.slept == []


def test_a_run_that_is_stopped_pays_for_no_other_try(server: Server) -> None:
    server.answers = [refusal(500), picture()]
    seen: list[tuple[int, int]] = []

    def stop_at_the_second(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        server.engine().generate(make_request(), (), stop_at_the_second)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "reply",
    [
        {"created": 1, "data": []},
        {"created": 1},
        {"created": 1, "data": [{"url": "http://192.0.2.1/picture.png"}]},
        {"created": 1, "data": [{"b64_json": "no base64"}]},
        {"created": 1, "data": [{"b64_json": base64.b64encode(b"no picture").decode()}]},
    ],
)
def test_a_reply_without_a_picture_is_a_fault(server: Server, reply: dict[str, Any]) -> None:
    server.answers = [(200, reply, {})]
    with pytest.raises(BadReply):
        draw(server.engine())
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_named(server: Server) -> None:
    engine = OpenAIImages("m", base_url="http://127.0.0.1:9/v1", tries=1)
    with pytest.raises(Unavailable, match=r"Nothing answers at http://127\.0\.0\.1:9/v1"):
        draw(engine)


def test_openai_is_not_asked_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Unavailable, match="Set the environment variable OPENAI_API_KEY"):
        draw(OpenAIImages("gpt-image-2.5-flare"))


def test_an_over_full_plan_is_refused_before_anything_is_sent(server: Server) -> None:
    with pytest.raises(BadInput, match="takes 2 references, got 3"):
        draw(server.engine(slots=2), REFERENCES[:3])
    for settings in ({}, {"diffusion": True}):
        with pytest.raises(BadInput, match="no negative prompt"):
            draw(server.engine(**settings), negative_prompt="ice")
    assert not server.asked


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(BadInput, match="slots = 17: wanted 0 to 16"):
        OpenAIImages("m", slots=17)
    with pytest.raises(BadInput, match="base_url = 'localhost'"):
        OpenAIImages("m", base_url="localhost")
    with pytest.raises(BadInput, match="price_per_picture = -1"):
        OpenAIImages("m", price_per_picture=-1)
    with pytest.raises(BadInput, match=r"generator\.prices\.m = 3: wanted"):
        OpenAIImages("m", prices={"m": 3})
