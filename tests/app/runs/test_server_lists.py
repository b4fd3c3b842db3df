"""Runs on lists of image and chat servers, of which one is killed while they are at work."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import ScriptedChat
from support.fault_server import Act, FaultServer, Request
from support.model_servers import ModelServer, Respond, after, fields_of, first_asked, model_servers, painted
from support.openai_server import KEY, MODEL, proven, running
from support.openai_server import Service as ChatService
from support.quick_engines import answer

from pleinair.app.api import draw, home, resume
from pleinair.app.models.inventory import profile_models
from pleinair.app.models.ready import find_missing_keys
from pleinair.app.runs.calls import read_calls
from pleinair.app.runs.prices import is_hosted
from pleinair.app.runs.results import Result
from pleinair.app.settings import BackendChoice, load
from pleinair.tools.http.support import SUPPORT, Support
from pleinair.tools.types import BadInput

RUNS = 12  # of two images each
Json = dict[str, Any]


def generator_of(servers: Sequence[ModelServer], **settings: Any) -> Json:
    for server in servers:
        SUPPORT.set(server.url, "m", Support(edits=True))
    urls = [server.url for server in servers]
    table = {"backend": "openai_images", "model": "m", "base_url": urls, "diffusion": True, "slots": 2}
    return {"generator": table | {"height": 16, "width": 16, "price_per_picture": 0.0} | settings}


def killed(request: Request) -> Act:
    """End the server in the middle of a request."""

    def act(server: FaultServer, connection: socket.socket) -> None:
        threading.Thread(target=server.close).start()
        after(60, painted)(request)(server, connection)

    return act


def run(overrides: Json, seed: int) -> Result:
    return draw("a thing beside another", seed=seed, overrides=overrides)


def asked(server: ModelServer) -> list[tuple[str, str]]:
    """Return what was answered: the seed, and the interface, which differs with references."""
    return [(str(fields_of(call)["seed"][0]), call.path) for call in server.answered]


def test_runs_on_three_servers_end_with_each_image_once_though_one_is_killed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    slowly: Respond = after(0.1, painted)
    with model_servers(slowly, slowly, slowly) as servers, ThreadPoolExecutor(4) as pool:
        overrides = generator_of(servers)

        def kill_in_the_third_call(request: Request) -> Act:
            if len(servers[0].calls) < 3:
                return slowly(request)
            return killed(request)

        servers[0].respond = kill_in_the_third_call
        results = list(pool.map(lambda seed: run(overrides, seed), range(RUNS)))
        assert [result.outcome.ending for result in results] == ["accepted"] * RUNS
        assert len({result.picture for result in results}) == RUNS
        answered = [call for server in servers for call in asked(server)]
        assert len(answered) == 2 * RUNS and set(Counter(answered).values()) == {1}
        assert len(servers[0].calls) >= 3 and len(servers[0].answered) < len(servers[0].calls)
        assert all(server.answered for server in servers)


def test_an_image_that_may_be_paid_fails_its_run_which_goes_on_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with model_servers(*[first_asked(killed, painted)] * 3) as servers:
        overrides = generator_of(servers, price_per_picture=0.04)
        failed = run(overrides, 7)
        assert failed.outcome.ending == "failed" and "may have done it" in failed.outcome.reason
        assert sorted(len(server.calls) for server in servers) == [0, 0, 1]
        result = resume(failed.run_id)
        assert result.outcome.ending == "accepted"
        assert sorted(len(server.calls) for server in servers) == [1, 1, 1]


def test_a_run_judged_by_two_chat_servers_is_accepted_though_one_stops(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def service() -> ChatService:
        policy = lambda schema, payload, images: answer(schema, payload, True)  # noqa: E731
        return ChatService(ScriptedChat(policy=policy, schemas=[]))

    with running(service()) as first:
        with running(service()) as second:
            urls = [first.url, second.url]
            for url in urls:
                proven(url, MODEL)
            overrides: Json = {"mllm": {"backend": "openai", "model": MODEL, "base_url": urls}}
            result = run(overrides, 1)
            assert result.outcome.ending == "accepted"
            assert first.requests and second.requests
            calls = read_calls(home().files(result.run_id))
            assert {request.server for call in calls for request in call.tries} == set(urls)
        assert run(overrides, 2).outcome.ending == "accepted"


def test_a_list_is_hosted_unless_every_server_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    here, away = "http://127.0.0.1:9/v1", "http://images.example/v1"
    for backend in ("openai", "openai_images"):
        lists = ([here], [here, "http://localhost:8/v1"], [here, away])
        choices = [BackendChoice.model_validate({"backend": backend, "base_url": urls}) for urls in lists]
        assert [is_hosted(choice) for choice in choices] == [False, False, True]


def test_a_list_with_openai_needs_its_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    urls = ["http://127.0.0.1:9/v1", "https://api.openai.com/v1"]
    table = {"backend": "openai_images", "model": "m", "base_url": urls}
    assert [error.field for error in find_missing_keys(load(overrides={"generator": table}))] == ["generator"]
    (model,) = [m for m in profile_models(load(overrides={"generator": table})) if m.role == "generator"]
    assert model.address == ", ".join(urls)


@pytest.mark.parametrize("urls", [[], ["http://a:1", "http://a:1/v1"], ["http://a:1", "a b"], 5])
def test_an_unusable_list_is_refused_before_anything_is_written(urls: Any, place: Path) -> None:
    table = {"backend": "openai_images", "model": "m", "base_url": urls}
    for overrides in ({"generator": table}, {"mllm": {**table, "backend": "openai"}}):
        with pytest.raises(BadInput, match="base_url"):
            run(overrides, 1)
    assert not (place / "home").exists()
