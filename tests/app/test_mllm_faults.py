"""Runs with a faulty model server: ending, reason and usage, and no API key on disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fake_engines import decomposition
from support.fault_server import Act, FaultServer, error, playing, reply, says
from support.openai_server import proven

from pleinair.app.api import draw, home
from pleinair.app.runs.events import Ended, payloads, read
from pleinair.app.runs.results import Result

KEY = "sk-secret-0123456789"
DECOMPOSED = says(json.dumps(decomposition("first", "second")))
JUDGED = says(
    json.dumps(
        {"rows": [{"concept": name, "status": "present", "confidence": 1} for name in ("first", "second")]}
    )
)


def run(server: FaultServer, monkeypatch: pytest.MonkeyPatch, **budget: Any) -> Result:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PLEINAIR_MLLM__BACKEND")
    proven(server.url, "m")
    settings: dict[str, Any] = {
        "mllm.backend": "openai",
        "mllm.model": "m",
        "mllm.base_url": server.url,
        "mllm.deadline": 20,
        "mllm.prices": {"m": {"read": 0, "written": 1_000_000}},
    }
    return draw(
        "two things", seed=7, overrides=settings | {f"budget.{key}": limit for key, limit in budget.items()}
    )


def usage(result: Result) -> dict[str, float]:
    """Sum the usage of a run from its last event."""
    (end,) = payloads(read(home().events(result.run_id)), Ended)
    return {name: sum(getattr(part, name) for part in end.usage) for name in ("mllm_calls", "tokens", "usd")}


def files(place: Path) -> Iterator[bytes]:
    for path in place.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


ENDINGS: dict[str, tuple[list[Act], str, str, int]] = {
    "valid": ([DECOMPOSED, JUDGED], "accepted", "every concept is present", 2),
    "wrong key": ([error(401, f"Incorrect API key {KEY}")], "failed", "The key in OPENAI_API_KEY is not", 1),
    "no such model": ([error(404, "no m")], "failed", "There is no model 'm' at http://127.0.0.1", 1),
    "no reply of a model": ([reply(200, b"<html>")], "failed", "The server's reply is no JSON", 1),
    "refused": ([says(None, refusal="I must not.")], "refused", "I must not.", 1),
    "filtered": ([DECOMPOSED, says(None, "content_filter")], "refused", "The provider's content filter", 2),
    "cut off": ([DECOMPOSED, says("{", "length")], "failed", "The model's answer was cut off", 2),
    "empty": ([DECOMPOSED, says("")], "failed", "The model gave an empty answer, twice", 2),
    "no list": ([says("{}")], "failed", "The model's answer is not a Decomposition", 2),
    "no verdict": ([DECOMPOSED, says("{}")], "stopped", "the limit of 1 attempt is reached", 3),
}


@pytest.mark.parametrize(("acts", "ending", "reason", "calls"), ENDINGS.values(), ids=ENDINGS)
def test_a_run_ends_once_with_its_reason(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    acts: list[Act],
    ending: str,
    reason: str,
    calls: int,
) -> None:
    with playing(*acts) as server:
        result = run(server, monkeypatch, attempts=1)
    assert (result.outcome.ending, result.outcome.reason[: len(reason)]) == (ending, reason)
    assert [event.kind for event in read(home().events(result.run_id))].count("ended") == 1
    spent = usage(result)
    assert (spent["mllm_calls"], spent["tokens"]) == (calls, server.tokens)
    assert spent["usd"] == pytest.approx(server.tokens / 3)  # 5 of 15 tokens are written, each for a dollar
    assert not [data for data in files(place) if KEY.encode() in data]


def test_the_draft_survives_a_critic_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with playing(DECOMPOSED, error(500, retry_after="900")) as server:
        result = run(server, monkeypatch)
    assert result.outcome.ending == "failed"
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        assert picture.size == (16, 16)


def test_the_budget_in_dollars_stops_a_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with playing(DECOMPOSED, JUDGED) as server:
        result = run(server, monkeypatch, usd=4.0)
    assert (result.outcome.ending, result.outcome.limit) == ("stopped", "usd")
    assert len(server.requests) == 1
