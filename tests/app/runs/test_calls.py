"""Messages of MLLM calls in a run's folder: exactly what was sent, without secrets, whatever happens."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from PIL import Image
from support.fake_engines import decomposition
from support.fault_server import FaultServer, error, playing, says
from support.openai_server import proven

from pleinair.app.api import draw, find, home, submit
from pleinair.app.runs.calls import FOLDER, MOST_TEXT, CallLog, CallRecord, Message, call_image, read_calls
from pleinair.app.runs.events import StepFinished, payloads, read
from pleinair.app.runs.results import Result
from pleinair.app.trace.steps import steps_of
from pleinair.tools.mllm.ask import human_message
from pleinair.tools.storage.folder import Folder

KEY = "sk-secret-0123456789"
DECOMPOSED = says(json.dumps(decomposition("first", "second")))
JUDGED = says(
    json.dumps(
        {"rows": [{"concept": name, "status": "present", "confidence": 1} for name in ("first", "second")]}
    )
)


def run_with(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PLEINAIR_MLLM__BACKEND")
    proven(server.url, "m")
    settings = {"mllm.backend": "openai", "mllm.model": "m", "mllm.base_url": server.url, "mllm.deadline": 20}
    return draw("two things", seed=7, overrides=settings)


def calls_of(run_id: str) -> list[CallRecord]:
    return read_calls(home().files(run_id))


def sent(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield role and content of what a server received: texts, and images by the SHA-256 of their bytes."""
    for message in body["messages"]:
        content: Any = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                yield message["role"], part["text"]
            else:
                data = part["image_url"]["url"].partition(";base64,")[2]
                yield message["role"], hashlib.sha256(base64.b64decode(data)).hexdigest()


def answer_of(call: CallRecord) -> Any:
    reply = call.tries[-1].reply
    return json.loads(reply.parts[0].text) if reply else None


def stored(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    for message in messages:
        for part in message.parts:
            yield message.role, part.image or part.text


def test_what_is_stored_is_what_the_server_received(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = [error(500, f"broken, {KEY}"), DECOMPOSED, error(429, "slowly"), JUDGED]
    with playing(*acts) as server:
        result = run_with(server, monkeypatch)
        received = [list(sent(request.json)) for request in server.requests]
        bodies = [request.json for request in server.requests]
    calls = calls_of(result.run_id)
    requests = [request for call in calls for request in call.requests]
    assert [list(stored(messages)) for messages, _ in requests] == received
    assert len(received) == 4 and [len(call.tries) for call in calls] == [2, 2]
    assert [bool(request.error) for _, request in requests] == [True, False, True, False]
    for body, (_, request) in zip(bodies, requests, strict=True):
        options = {key: value for key, value in body.items() if key not in ("messages", "response_format")}
        assert options.items() <= request.options.items()
    assert [call.usage.tokens for call in calls] == [15, 15]
    replies = [call.tries[-1].reply for call in calls]
    assert [json.loads(reply.parts[0].text) for reply in replies if reply][0] == decomposition(
        "first", "second"
    )


def test_a_key_is_in_no_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server repeats it in an error and in a reply."""
    echo = says(json.dumps(decomposition("first", f"second {KEY}")))
    acts = [error(500, f"no: Bearer {KEY}"), echo, error(401, f"Incorrect {KEY}")]
    with playing(*acts) as server:
        result = run_with(server, monkeypatch)
    folder = home().run(result.run_id) / FOLDER
    texts = [path.read_bytes() for path in folder.glob("*.json")]
    assert len(texts) == 2 and any(b"second ***" in text for text in texts)
    assert not [text for text in texts if KEY.encode() in text]


@pytest.mark.parametrize("graph", ["pleinair", "imagerag", "crossmodal", "react"])
def test_every_counted_call_is_stored_and_belongs_to_a_step(place: Path, graph: str) -> None:
    model = {"mllm.backend": "talker"} if graph == "react" else {}
    result = draw("a barn owl and a blue jay", seed=7, graph=graph, overrides=model)
    calls, steps = calls_of(result.run_id), steps_of(find(result.run_id), home())
    assert [call.number for call in calls] == list(range(1, len(calls) + 1))
    for step in steps:
        mine = [call for call in calls if call.task in step.tasks]
        assert len(mine) == sum(part.mllm_calls for part in step.usage), step.names
        assert {call.step for call in mine} <= {name.partition(":")[0] for name in step.names}
        assert sum(call.usage.tokens for call in mine) == sum(part.tokens for part in step.usage)
    assert all(call.finished and call.tries[0].reply for call in calls)
    finished = payloads(read(home().events(result.run_id)), StepFinished)
    assert sorted(number for step in finished for number in step.calls) == [call.number for call in calls]


def test_the_images_of_calls_can_be_read(place: Path) -> None:
    result = draw("two things", seed=7)
    folder = home().run(result.run_id)
    parts = [
        part
        for call in calls_of(result.run_id)
        for messages, _ in call.requests
        for message in messages
        for part in message.parts
        if part.image
    ]
    assert parts
    for part in parts:
        stored = folder / "pictures/sha256" / part.image[:2] / f"{part.image}.png"
        data = call_image(Folder(folder), part.image) or b""
        assert stored.exists() is not bool(data) and part.width == part.height == 16
        assert hashlib.sha256(data or stored.read_bytes()).hexdigest() == part.image


def test_nothing_is_stored_where_it_is_switched_off(place: Path) -> None:
    result = draw("two things", seed=7, overrides={"tracing.messages": False})
    assert not (home().run(result.run_id) / FOLDER).exists()
    assert calls_of(result.run_id) == []


def test_a_run_goes_on_where_nothing_can_be_stored(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = submit("two things", seed=7)
    home().run(run.id).mkdir(parents=True)
    (home().run(run.id) / FOLDER).write_text("in the way")
    with caplog.at_level("WARNING"):
        from pleinair.app.api import finish

        assert finish(run).outcome.ending == "accepted"
    assert [text for text in caplog.messages if "are not stored" in text][1:] == []
    assert calls_of(run.id) == []


def test_a_call_whose_process_died_is_there_and_its_number_is_not_used_again(tmp_path: Path) -> None:
    log = CallLog(Folder(tmp_path), lambda: 2)
    request = [
        SystemMessage("Look."),
        HumanMessage("é\ud800 http://user:word@example.org/x " + "y" * MOST_TEXT),
    ]
    log.on_chat_model_start({"name": "M"}, [request], run_id=uuid4())
    (call,) = read_calls(Folder(tmp_path))
    assert not call.finished and call.attempt == 2 and call.model == "M"
    ((messages, _),) = call.requests
    text = messages[1].parts[0].text
    assert (
        "word" not in text and text.startswith("é? http://***@example.org/x") and len(text) < MOST_TEXT + 99
    )
    again = CallLog(Folder(tmp_path), lambda: 2)
    again.on_chat_model_start({}, [request], run_id=uuid4())
    assert [call.number for call in read_calls(Folder(tmp_path))] == [1, 2]


def test_an_image_is_stored_in_the_form_in_which_it_was_sent(tmp_path: Path) -> None:
    log, id = CallLog(Folder(tmp_path), lambda: 0), uuid4()
    log.on_chat_model_start({}, [[HumanMessage("Look.")]], run_id=id)
    for form, suffix in (("JPEG", "jpg"), ("PNG", "png")):
        file = io.BytesIO()
        Image.new("RGB", (24, 16), "red").save(file, form)
        url = f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
        image = {"type": "image_url", "image_url": {"url": url}}
        log.on_request({"messages": [{"role": "user", "content": [image]}]}, run_id=id)
        ((messages, _), *_) = read_calls(Folder(tmp_path))[0].requests[::-1]
        (part,) = messages[0].parts
        assert (part.width, part.height) == (24, 16)
        assert call_image(Folder(tmp_path), part.image) == file.getvalue()
        assert (tmp_path / FOLDER / f"{part.image}.{suffix}").is_file()


def test_a_hostile_reply_is_stored_and_its_failure_has_no_key(tmp_path: Path) -> None:
    log, id = CallLog(Folder(tmp_path), lambda: 0), uuid4()
    log.on_chat_model_start({}, [[HumanMessage("Look.")]], run_id=id)
    log.on_request({"messages": [{"content": "Look."}]}, run_id=id)
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}
    call = {"name": "\ud800", "args": {"a": "\ud800"}, "id": "\ud800", "type": "tool_call"}
    log.on_reply(AIMessage([broken, {"base64": 1}], tool_calls=[call]), run_id=id)
    address = "https://host.example/v1?api-key=word&n=1 with Authorization: Bearer word"
    log.on_llm_error(OSError(address), run_id=id)
    (stored,) = read_calls(Folder(tmp_path))
    assert stored.tries[-1].reply and stored.tries[-1].reply.calls[0].name == "?"
    assert stored.error.endswith("?api-key=***&n=1 with Authorization: Bearer ***")


def test_a_damaged_file_and_one_of_another_version_are_left_out(tmp_path: Path) -> None:
    log = CallLog(Folder(tmp_path), lambda: 0)
    for _ in range(3):
        log.on_chat_model_start({}, [[human_message({"prompt": "x"}, [])]], run_id=uuid4())
    files = sorted((tmp_path / FOLDER).glob("*.json"))
    files[0].write_bytes(b"{")
    files[1].write_bytes(files[1].read_bytes().replace(b'{"number"', b'{"v":2,"number"'))
    assert [call.number for call in read_calls(Folder(tmp_path))] == [3]
