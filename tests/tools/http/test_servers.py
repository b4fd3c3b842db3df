"""Lists of servers: who is asked, who is left alone, and that nothing that may be paid is asked twice."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from support import fault_server as faults
from support.fake_engines import ScriptedChat
from support.fault_server import Act, error, reply, says
from support.generator_requests import make_request
from support.model_servers import (
    ModelServer,
    Respond,
    after,
    always,
    fields_of,
    first_asked,
    in_turn,
    listing,
    model_servers,
    painted,
    refused_address,
    restarted,
)
from support.quick_engines import colour
from support.quirky_servers import SERVERS, serving

from pleinair.agent.mllm.openai import OpenAIChat, chat
from pleinair.tools.callbacks import no_callback
from pleinair.tools.diffusion.openai_images import OpenAIImages
from pleinair.tools.errors import Unavailable
from pleinair.tools.http.openai_api import Server
from pleinair.tools.http.retry import CallFailure
from pleinair.tools.http.servers import ServerList
from pleinair.tools.http.support import SUPPORT, Support
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput, Cancelled, PleinairError

KILLS = 50  # of servers
YES = '{"match": true, "why": ""}'


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


def counted(servers: Sequence[ModelServer]) -> list[int]:
    """Return the numbers of calls, sorted: which server is asked first is left to chance."""
    return sorted(len(server.calls) for server in servers)


def urls_of(servers: Sequence[ModelServer]) -> list[str]:
    return [server.url for server in servers]


def images_of(urls: Sequence[str], waits: list[float] | None = None, **settings: Any) -> OpenAIImages:
    """Build a generator of a list, whose pauses are listed instead of waited for."""
    for url in urls:
        SUPPORT.set(url, "m", Support(edits=True))
    fields = {"height": 16, "width": 16, "slots": 0, "diffusion": True}
    generator = OpenAIImages("m", base_url=tuple(urls), **fields | settings)
    sleep = (waits if waits is not None else []).append
    generator.retry_policy = replace(generator.retry_policy, sleep=sleep)
    return generator


def make(generator: OpenAIImages, seed: int = 1) -> Image.Image:
    return generator.generate(make_request(seed=seed, width=16, height=16), (), no_callback)


def chat_of(urls: Sequence[str], **settings: Any) -> OpenAIChat:
    for url in urls:
        SUPPORT.set(url, "m", Support(answered=True, images=True, keeps_schema=True))
    return chat("m", base_url=tuple(urls), **settings)


def judge(model: OpenAIChat) -> Decision:
    image = encode_png(Image.new("RGB", (8, 8)))
    decision: Decision = ask(model, Decision, "Match?", {"prompt": "p"}, [image])[0]
    return decision


@contextmanager
def attempted(servers: ServerList) -> Iterator[str]:
    with servers.attempt() as server:
        yield server.url


def server_list(urls: Sequence[str], cool_down: float = 10.0) -> ServerList:
    return ServerList(tuple(Server(url, "m", "KEY", section="generator") for url in urls), cool_down)


FAILS = {
    "too many requests": error(429),
    "asks for more time": error(429, retry_after="900"),
    "server error": error(500),
    "loads": error(503, "loading the model"),
    "another key": error(401),
    "no such model": error(404, "no m", "model_not_found"),
    "moved": reply(302, b"", location="http://elsewhere.example/v1"),
}


@pytest.mark.parametrize("act", FAILS.values(), ids=FAILS)
def test_an_image_goes_on_to_another_server_at_once(act: Act) -> None:
    waits = list[float]()
    with model_servers(*[first_asked(always(act), painted)] * 3) as servers:
        generator = images_of(urls_of(servers), waits)
        for seed in range(5):
            make(generator, seed)
        assert counted(servers) == [1, 2, 3] and waits == []


@pytest.mark.parametrize("act", [error(429), error(500), faults.reset(), error(401)])
def test_an_answer_goes_on_to_another_server_at_once(act: Act) -> None:
    with model_servers(*[first_asked(always(act), always(says(YES)))] * 3) as servers:
        model = chat_of(urls_of(servers))
        assert all(judge(model).match for _ in range(5))
        assert counted(servers) == [1, 2, 3]


def test_a_server_that_is_refused_from_the_start_is_never_called() -> None:
    with refused_address() as away, model_servers(painted, painted) as servers:
        generator = images_of([away, *urls_of(servers)])
        for seed in range(4):
            make(generator, seed)
        assert [len(server.calls) for server in servers] == [2, 2]


def test_a_server_that_does_not_answer_the_first_check_is_not_waited_for() -> None:
    with model_servers(painted, painted) as servers:
        servers[0].lists = faults.hang
        generator = images_of(urls_of(servers), deadline=60.0)
        for seed in range(3):
            make(generator, seed)
        assert [len(server.calls) for server in servers] == [0, 3]


@pytest.mark.parametrize("act", [faults.reset(), faults.hang, error(504)], ids=["dies", "hangs", "504"])
def test_an_image_that_may_be_charged_is_not_asked_of_another_server(act: Act) -> None:
    with model_servers(*[first_asked(always(act), painted)] * 3) as servers:
        generator = images_of(urls_of(servers), deadline=6.0 if act is faults.hang else 30.0)
        with pytest.raises(Unavailable, match="may have done it and charged for it"):
            make(generator)
        assert counted(servers) == [0, 0, 1]
        for seed in range(4):  # and the server is down
            make(generator, seed)
        assert counted(servers) == [1, 2, 2]


def test_an_image_that_costs_nothing_is_asked_of_another_server_when_its_server_died() -> None:
    with model_servers(*[first_asked(always(faults.reset()), painted)] * 3) as servers:
        make(images_of(urls_of(servers), price_per_picture=0.0))
        assert counted(servers) == [0, 1, 1]


def test_an_image_that_costs_nothing_is_asked_of_another_server_after_a_silence() -> None:
    with model_servers(*[first_asked(always(faults.hang), painted)] * 3) as servers:
        make(images_of(urls_of(servers), price_per_picture=0.0, silence=5.0))
        assert counted(servers) == [0, 1, 1]


def test_a_page_of_another_server_does_not_count_as_a_second_one() -> None:
    page = always(reply(200, b"<html>Bad gateway</html>"))
    with model_servers(*(in_turn(page, always(says(YES))) for _ in range(2))) as servers:
        assert judge(chat_of(urls_of(servers))).match
        assert counted(servers) == [1, 2]


def test_a_chat_server_that_hangs_is_left_for_another_one() -> None:
    with model_servers(*[first_asked(always(faults.hang), always(says(YES)))] * 2) as servers:
        model = chat_of(urls_of(servers), silence=5.0, deadline=50.0)
        assert judge(model).match and judge(model).match
        assert counted(servers) == [1, 2]


def test_what_a_request_itself_does_wrong_is_asked_of_nobody_else() -> None:
    with model_servers(always(error(400, "bad size")), always(error(400, "bad size"))) as servers:
        generator = images_of(urls_of(servers))
        for _ in range(2):
            with pytest.raises(BadInput, match="bad size"):
                make(generator)
        assert [len(server.calls) for server in servers] == [1, 1]  # and both are still up


def test_the_error_names_every_server() -> None:
    waits = list[float]()
    with refused_address() as away, model_servers(always(error(500)), always(error(429))) as servers:
        with pytest.raises(Unavailable) as raised:
            make(images_of([*urls_of(servers), away], waits))
        assert all(url in str(raised.value) for url in (away, *urls_of(servers))), raised.value
        assert "Nothing answers at" in str(raised.value) and "try 3 of 3" in str(raised.value)
        assert sum(len(server.calls) for server in servers) == 3 and waits  # the tries are limited as ever


def test_the_shortest_wait_of_all_servers_counts() -> None:
    waits = list[float]()
    busy, later = error(429, retry_after="20"), error(429, retry_after="900")
    first = in_turn(always(busy), always(error(500)))
    with model_servers(*[first_asked(first, always(later))] * 2) as servers:
        with pytest.raises(Unavailable):
            make(images_of(urls_of(servers), waits, deadline=60.0, tries=2))
        assert counted(servers) == [1, 2]
        assert 15 < sum(waits) <= 20


def test_a_slow_server_gets_less_work() -> None:
    with model_servers(after(0.4, painted), after(0.02, painted)) as (slow, fast):
        generators = [images_of([slow.url, fast.url]), images_of([fast.url, slow.url])]
        with ThreadPoolExecutor(4) as pool:  # two lists of the same servers share what is in flight
            list(pool.map(lambda seed: make(generators[seed % 2], seed), range(24)))
        assert len(slow.calls) + len(fast.calls) == 24
        assert 1 <= len(slow.calls) < len(fast.calls)


def test_equal_servers_take_turns() -> None:
    with model_servers(painted, painted, painted) as servers:
        generator = images_of(urls_of(servers))
        for seed in range(6):
            make(generator, seed)
        assert [len(server.calls) for server in servers] == [2, 2, 2]


def test_a_slow_server_has_fewer_turns_also_of_one_call_after_the_other() -> None:
    with model_servers(painted, painted) as servers:
        calls, used = replace(server_list(urls_of(servers)), equal=0.05), Counter[str]()
        for _ in range(15):
            with attempted(calls) as url:
                used[url] += 1
                time.sleep(0.4 * (url == servers[0].url))
        assert 1 <= used[servers[0].url] <= 5 and used.total() == 15


def test_refusals_do_not_make_a_server_fast() -> None:
    with model_servers(painted, painted) as servers:
        calls, used = replace(server_list(urls_of(servers)), equal=0.001), Counter[str]()
        for _ in range(8):
            with suppress(CallFailure), attempted(calls) as url:
                used[url] += 1
                if url == servers[0].url:
                    raise CallFailure(BadInput("a size that it does not take"))
                time.sleep(0.1)
        assert set(used.values()) == {4}


@pytest.mark.parametrize("stop", [Cancelled("stop"), KeyboardInterrupt(), ValueError()])
def test_a_call_that_ends_is_no_longer_in_flight_however_it_ends(stop: BaseException) -> None:
    with model_servers(painted, painted) as servers:
        calls = server_list(urls_of(servers))
        for _ in range(2):
            with pytest.raises(type(stop)), calls.attempt():
                raise stop
        used = Counter[str]()
        for _ in range(4):
            with attempted(calls) as url:
                used[url] += 1
        assert set(used.values()) == {2}


def test_a_server_with_calls_in_flight_is_chosen_last() -> None:
    with model_servers(painted, painted) as servers:
        calls = server_list(urls_of(servers))
        with attempted(calls) as busy:
            for _ in range(3):
                with attempted(server_list(urls_of(servers))) as url:
                    assert url != busy


def error_of(words: str, wait: float | None = None) -> CallFailure:
    return CallFailure(Unavailable(words), "tries", wait=wait, of_server=True)


def fail(calls: ServerList) -> str:
    with pytest.raises(CallFailure), calls.attempt() as server:
        raise error_of(f"{server.url} is ill")
    return server.url


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_server_comes_back_once_it_answers() -> None:
    with model_servers(painted, painted) as servers:
        calls = server_list(urls_of(servers), cool_down=0.1)
        ill = fail(calls)
        (server,) = [server for server in servers if server.url == ill]
        server.lists = error(500)

        def chosen() -> str:
            with attempted(calls) as url:
                return url

        checks = server.checks
        assert eventually(lambda: chosen() != ill and server.checks > checks + 1)
        assert chosen() != ill  # it was checked twice, and did not answer
        server.lists = listing("m")
        assert eventually(lambda: chosen() == ill)


def test_a_server_that_restarts_is_used_again() -> None:
    with model_servers(painted, painted) as servers:
        calls, url = server_list(urls_of(servers), cool_down=0.1), servers[0].url
        servers[0].close()

        def ask() -> str:
            with attempted(calls) as chosen:
                return chosen

        assert ask() == servers[1].url == ask()
        again = restarted(url, painted)
        try:
            assert eventually(lambda: ask() == url)
        finally:
            again.close()


@pytest.mark.parametrize("price", [None, 0.0], ids=["may be charged", "costs nothing"])
def test_kills_lose_no_image_and_charge_for_none_twice(price: float | None) -> None:
    slowly = after(0.02, painted)
    with killed_servers(slowly, slowly, slowly) as servers:
        generator = images_of([server.url for server in servers], tries=50, price_per_picture=price)

        def work(first: int) -> tuple[list[int], list[int]]:
            made, lost = list[int](), list[int]()
            for seed in itertools.count(first, 4):
                if sum(server.kills for server in servers) >= KILLS:
                    return made, lost
                try:
                    image = make(generator, seed)
                except Unavailable as error:
                    assert "may have done it" in str(error) and price is None
                    lost.append(seed)
                else:
                    assert image.getpixel((15, 15)) == colour(str(seed))
                    made.append(seed)
            raise AssertionError

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(work, range(4)))
    made, lost = (sorted(itertools.chain(*lists)) for lists in zip(*results, strict=True))
    answers = Counter(seed for server in servers for seed in server.answered)
    assert len(made) == len(set(made)) > KILLS and set(made) <= answers.keys()
    if price is None:
        assert lost and set(answers.values()) == {1}
    else:
        assert not lost


class KilledServer:
    """Server that is killed and started again at the same port."""

    def __init__(self, respond: Respond) -> None:
        self.kills, self.answered, self._respond = 0, list[int](), respond
        self._server, self._calls = ModelServer(respond), 0
        self.url = self._server.url

    @property
    def calls(self) -> int:
        return self._calls + len(self._server.calls)

    def kill(self) -> None:
        self.close()
        self._server = restarted(self.url, self._respond)
        self.kills += 1

    def close(self) -> None:
        self._server.close()
        self._calls += len(self._server.calls)
        self._server.calls.clear()
        self.answered += [int(fields_of(call)["seed"][0]) for call in self._server.answered]
        self._server.answered.clear()


@contextmanager
def killed_servers(*responses: Respond) -> Iterator[list[KilledServer]]:
    """Start servers, and kill the next one after every sixth call."""
    servers, done = [KilledServer(respond) for respond in responses], threading.Event()

    def kill() -> None:
        for number, server in enumerate(itertools.cycle(servers), start=1):
            while sum(server.calls for server in servers) < 6 * number:
                if done.wait(0.002):
                    return
            server.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield servers
    finally:
        done.set()
        killer.join()
        for server in servers:
            server.close()


def test_checks_are_rare_and_come_with_calls_only() -> None:
    with model_servers(painted, painted) as servers:
        calls = server_list(urls_of(servers), cool_down=60.0)
        fail(calls)
        for _ in range(20):
            with calls.attempt():
                pass
        assert [server.checks for server in servers] == [1, 1]


def test_a_single_server_is_called_as_it_is() -> None:
    with model_servers(in_turn(always(error(500)), painted)) as (server,):
        make(images_of([server.url]))
        assert (len(server.calls), server.checks) == (2, 0)


def test_a_server_without_the_model_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    with model_servers(painted, painted) as servers:
        servers[0].lists = listing("other")
        generator = images_of(urls_of(servers))
        for seed in range(3):
            make(generator, seed)
        assert [len(server.calls) for server in servers] == [0, 3]
        assert caplog.text.count(f"{servers[0].url} does not list 'm' and is passed over.") == 1


def test_a_server_that_got_the_model_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with model_servers(painted, painted) as servers:
        servers[0].lists = listing("other")
        calls, used = server_list(urls_of(servers), cool_down=0.1), Counter[str]()

        def ask() -> Counter[str]:
            with attempted(calls) as url:
                used[url] += 1
            return used

        assert ask() == Counter([servers[1].url]) and ask().total() == 2
        servers[0].lists = listing("m")
        assert eventually(lambda: ask()[servers[0].url] > 0)


def test_an_answer_to_an_earlier_request_does_not_end_a_wait_that_the_server_asked_for() -> None:
    with model_servers(painted, painted) as servers:
        calls, waits = server_list(urls_of(servers)), error_of("later", wait=900.0)
        with attempted(calls) as first, attempted(calls) as second:
            with pytest.raises(CallFailure), calls.attempt() as third:
                raise waits
        for _ in range(4):
            with attempted(calls) as url:
                assert url != third.url and url in (first, second)


def test_servers_with_different_models_are_refused() -> None:
    with model_servers(painted, painted) as servers:
        servers[0].lists, servers[1].lists = listing("one"), listing("two", "three")
        with pytest.raises(Unavailable, match=r"none lists 'm': .*lists one; .*lists three, two.*model"):
            make(images_of(urls_of(servers)))
        assert not any(server.calls for server in servers)


@pytest.mark.parametrize("lists", [listing("alias"), error(404)], ids=["another name", "no list"])
def test_servers_that_list_the_same_are_all_used(lists: Act) -> None:
    with model_servers(painted, painted) as servers:
        for server in servers:
            server.lists = lists
        generator = images_of(urls_of(servers))
        for seed in range(4):
            make(generator, seed)
        assert [len(server.calls) for server in servers] == [2, 2]


def test_a_server_without_edits_is_left_for_another_one() -> None:
    with model_servers(painted, painted) as servers:
        generator = images_of(urls_of(servers), slots=1)
        SUPPORT.set(servers[0].url, "m", Support(edits=False))
        for seed in range(3):
            make(generator, seed)
        assert [len(server.calls) for server in servers] == [0, 3]
        SUPPORT.set(servers[1].url, "m", Support(edits=False))
        with pytest.raises(Unavailable, match="has no edits") as raised:
            make(generator)
        assert all(url in str(raised.value) for url in urls_of(servers))


def test_the_identity_of_a_list_is_that_of_its_first_server_in_any_order() -> None:
    urls = ["http://b.example/v1", "http://a.example/v1", "http://127.0.0.1:9/v1"]
    ids = {OpenAIImages("m", base_url=tuple(order)).capabilities.id for order in (urls, urls[::-1])}
    assert ids == {"openai_images:m@http://127.0.0.1:9/v1"}
    assert OpenAIImages("m", base_url=tuple(urls)).capabilities.charged  # one of them is no machine of ours
    assert chat("m", base_url=tuple(urls)).server.url == "http://127.0.0.1:9/v1"


BAD = {
    "empty": ((), r"base_url = \[\]: wanted an address"),
    "twice": (("http://a:1/v1", "http://a:1"), r"base_url = .*http://a:1/v1 is in it twice"),
    "no address": (("http://a:1/v1", "ftp://b/v1"), "base_url = 'ftp://b/v1': wanted"),
    "empty text": (("http://a:1/v1", ""), "base_url = '': wanted"),
    "number": (("http://a:1/v1", 5), "base_url = .*must be a text"),
    "password": (("http://a:1/v1", "http://me:secret@b/v1"), "base_url = '…@b/v1'"),
}


@pytest.mark.parametrize(("value", "text"), BAD.values(), ids=BAD)
def test_an_unusable_list_is_refused(value: Any, text: str) -> None:
    with pytest.raises(BadInput, match=f"generator.{text}") as raised:
        OpenAIImages("m", base_url=value)
    assert "secret" not in str(raised.value)
    with pytest.raises(BadInput, match=f"mllm.{text}"):
        chat("m", base_url=value)


def test_openai_in_a_list_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    urls = ("http://127.0.0.1:9/v1", "https://api.openai.com/v1")
    with pytest.raises(BadInput, match="needs a key"):
        chat("m", base_url=urls)
    with pytest.raises(PleinairError, match="needs a key"):
        make(OpenAIImages("m", base_url=urls, height=16, width=16))


def test_what_each_chat_server_takes_is_learnt_for_itself() -> None:
    plain, strict = (replace(SERVERS[name], model="m") for name in ("vllm", "lm studio"))
    critic = ScriptedChat(policy=lambda *_: {"match": True, "why": ""}, schemas=[])
    with serving(critic, plain) as first, serving(critic, strict) as second:
        model = chat("m", base_url=(first.url, second.url))
        for _ in range(4):
            judge(model)
        assert first.answered == second.answered == 2
        assert SUPPORT.get(first.url, "m").answers is None
        assert SUPPORT.get(second.url, "m").answers == "function_calling"


def test_a_list_greets_every_server() -> None:
    with model_servers(always(says(YES)), always(says(YES))) as servers:
        text = chat_of(urls_of(servers)).greet()
        assert all(f"m at {server.url}" in text for server in servers)
        assert [len(server.calls) for server in servers] == [1, 1]
        text = images_of(urls_of(servers)).greet()
        assert all(f"m at {server.url}" in text for server in servers)


def test_a_forked_process_begins_without_the_calls_of_its_parent() -> None:
    with model_servers(painted, painted) as servers:
        calls = server_list(urls_of(servers))
        with attempted(calls) as busy:
            read, write = os.pipe()
            if (child := os.fork()) == 0:
                try:
                    for _ in range(2):
                        with attempted(calls) as url:
                            os.write(write, f"{url}\n".encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            os.close(write)
            with os.fdopen(read) as lines:
                assert busy in lines.read().split()
