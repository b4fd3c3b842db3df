"""Replies of real servers' and models' formats, over HTTP and langchain-openai: read, or refused by name."""

import io
import json
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fault_server import playing, reply

from pleinair.agent.mllm.openai import OpenAIChat, chat
from pleinair.tools.critique import critique
from pleinair.tools.mllm import schemas
from pleinair.tools.mllm.ask import ask
from pleinair.tools.types import Concept, Ledger, PleinairError, Value

FOLDER = Path(__file__).with_name("replies")
TEXTS: dict[str, str] = tomllib.loads((FOLDER / "answers.toml").read_text("utf-8"))["texts"]
SCHEMAS = {
    **{
        name: name.capitalize() for name in ("critique", "decision", "decomposition", "ranking", "rephrasing")
    },
    **{"missing": "MissingConcepts", "subqueries": "SubQueries", "captions": "Captions"},
    **{"caption": "PictureCaption", "rows": "Critique"},
}
PROMPT = "a red wren beside a glass coupe"
Case = dict[str, Any]


def _cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.toml")):
        family = tomllib.loads(path.read_text("utf-8"))
        for case in family.get("reply", []):
            yield pytest.param(
                {"model": family["model"], "envelope": family["envelope"]} | case,
                id=f"{path.stem}: {case['id']}",
            )


CASES = list(_cases())


def _filled(value: Any) -> Any:
    """Insert the right answers into every text."""
    if isinstance(value, str):
        for name, text in TEXTS.items():
            value = value.replace(f"<<{name}>>", text).replace(f"<<{name}|json>>", json.dumps(text))
        assert "<<" not in value
        return value
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def body_of(case: Case) -> dict[str, Any]:
    """Build the response body; an empty text stands for null, which TOML has not."""
    envelope = dict(case["envelope"])
    extra = envelope.pop("choices_extra", {})
    message = {"role": "assistant"} | _filled(case["message"])
    message |= {key: None for key in ("content", "refusal") if message.get(key) == ""}
    finish = case.get("finish_reason", "stop") or None
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish, **extra}
    body: dict[str, Any] = envelope | {"choices": [choice]} | case.get("body", {})
    return body


class Server:
    """Server that sends the body of the case that is on."""

    body: dict[str, Any]

    def __init__(self) -> None:
        self.body = {}


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Server, OpenAIChat]]:
    """Serve any body; one client for all cases, because building one takes longer than a call."""
    served = Server()
    with playing(lambda *where: reply(200, served.body)(*where)) as server:
        yield served, chat("some-model", base_url=server.url, tries=1)


def _png(size: list[int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size[0], size[1])).save(buffer, "PNG")
    return buffer.getvalue()


def _call(case: Case, model: OpenAIChat) -> Value:
    """Make the call that the case answers."""
    schema = case.get("schema") or ("Critique" if "rows" in case else SCHEMAS[case["gives"]])
    png = _png(case.get("image", [512, 512]))
    if schema == "Critique":
        names = case.get("concepts", ["red wren", "glass coupe"])
        concepts = [Concept(name=name, caption=name) for name in names]
        return critique(png, PROMPT, concepts, model=model)[0]
    answer: Value = ask(model, getattr(schemas, schema), "Answer.", {"prompt": PROMPT}, [png])[0]
    return answer


@pytest.mark.parametrize("case", CASES)
def test_a_reply_gives_its_answer_or_its_fault(case: Case, service: tuple[Server, OpenAIChat]) -> None:
    served, client = service
    served.body = body_of(case)
    fields = {"model_name": case["model"], "boxes": case.get("boxes", "auto")}
    model = client.model_copy(update=fields | {"image_side": case.get("side", 512)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if "fault" in case:
            with pytest.raises(PleinairError) as fault:
                _call(case, model)
            assert type(fault.value).__name__ == case["fault"], fault.value
            return
        answer = _call(case, model)
    if "rows" in case:
        assert isinstance(answer, Ledger)
        check_rows(answer, case)
    else:
        expected = case.get("answer") or json.loads(TEXTS[case["gives"]])
        assert json.loads(answer.model_dump_json()) == _complete(expected)


def _complete(expected: dict[str, Any]) -> dict[str, Any]:
    return {"why": "", **expected} if "match" in expected else expected


def check_rows(ledger: Ledger, case: Case) -> None:
    """Check each row's status, confidence and box, and that the others are unsure with a reason."""
    rows = {row.concept: row for row in ledger.rows}
    assert list(rows) == case.get("concepts", ["red wren", "glass coupe"])
    unread = case.get("unread", [])
    for name, status, confidence, *box in case["rows"]:
        if name in unread:
            continue
        assert rows[name].status == status
        assert rows[name].confidence == pytest.approx(confidence)
        assert rows[name].box == (pytest.approx(box) if box else None)
        assert "no verdict" not in rows[name].evidence
    for name in unread:
        assert (rows[name].status, rows[name].confidence) == ("unsure", 0)
        assert rows[name].evidence.startswith("no verdict: ")
    assert {name for name, *_ in case["rows"]} | set(unread) == set(rows)


def test_the_corpus_is_large_and_a_quarter_of_it_is_wrong() -> None:
    wrong = [case for case in CASES if "WRONG" in str(case.id)]
    assert len(CASES) >= 120 and len(wrong) >= 30
    assert len({case.id for case in CASES}) == len(CASES)
    for case in wrong:
        (values,) = case.values
        assert "fault" in values or values["unread"]
