"""A stop that is heard while nothing is said: a model that loads for ever, a step that hangs, a queue."""

import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest
from support import faulty_generator as perils
from support.generator_requests import make_request
from support.worker_process import ask, is_running, running

from pleinair.tools.callbacks import StopCallback, StopCheck, no_callback
from pleinair.tools.types import Cancelled
from pleinair.tools.worker.worker import DeviceLock, Worker

GRACE = 0.5  # seconds
PATIENCE = (
    60.0  # seconds that a machine under load may take for what takes one; the engines sleep ten minutes
)


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(perils.install(tmp_path_factory.mktemp("perils")))
        yield


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("perils", {}, grace=GRACE)
    yield made
    made.close()


class RetryPolicy(StopCheck):
    """Count the steps, and stop at the second question between them."""

    def __init__(self, questions: int = 2) -> None:
        super().__init__(self.lose)
        self.left, self.steps = questions, 0

    def __call__(self, done: int, total: int) -> None:
        self.steps += 1

    def lose(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cancelled("enough")


def stopped(worker: Worker, prompt: str, on_step: StopCallback) -> None:
    """Ask for a picture that must end by a stop and not by the engine's waking up."""
    begun = monotonic()
    with pytest.raises(Cancelled, match="^enough$"):
        worker.generate(make_request(prompt=prompt), (), on_step)
    assert monotonic() - begun < PATIENCE


@pytest.mark.parametrize("prompt, steps", [("loads for ever", 0), ("hangs", 1)])
def test_an_engine_that_says_nothing_is_killed_at_a_stop(worker: Worker, prompt: str, steps: int) -> None:
    before, patience = running(worker), RetryPolicy()
    stopped(worker, prompt, patience)
    assert patience.steps == steps  # a question is no step
    assert not is_running(before)
    ask(worker, "next")
    assert worker.pid != before


def test_an_engine_that_hears_of_it_within_the_grace_lives_on() -> None:
    worker = Worker("perils", {"pause": 0.4}, grace=PATIENCE)
    before = running(worker)
    stopped(worker, "slow", RetryPolicy(1))
    assert worker.pid == before
    ask(worker, "next")  # no word of the stop is left over
    assert worker.pid == before
    worker.close()


def test_a_process_that_starts_for_ever_is_killed_at_a_stop() -> None:
    worker = Worker("perils", {"fault": "asleep"}, grace=GRACE)
    for begin in (worker.start, lambda asked: worker.generate(make_request(), (), asked)):
        with pytest.raises(Cancelled, match="^enough$"):
            begin(RetryPolicy())
        assert worker.pid is None


def test_what_the_question_raises_comes_back_as_it_is(worker: Worker) -> None:
    def lose() -> None:
        raise EOFError("mine")  # what a broken pipe raises too

    with pytest.raises(EOFError, match="mine"):
        worker.generate(make_request(prompt="hangs"), (), StopCheck(lose))


def aside(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_who_waits_for_his_turn_hears_a_stop_too(worker: Worker) -> None:
    pid, at_it, go_on = running(worker), threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        at_it.set()
        assert go_on.wait(PATIENCE)

    first = aside(lambda: worker.generate(make_request(), (), hold))
    assert at_it.wait(PATIENCE)
    stopped(worker, "second", RetryPolicy())
    assert first.is_alive()
    go_on.set()
    first.join()
    assert worker.pid == pid
    ask(worker, "next")


@pytest.fixture
def pair() -> Iterator[tuple[Worker, Worker]]:
    """Give two workers of one seat."""
    seat = DeviceLock()
    one, two = (Worker("perils", {"pause": pause}, GRACE, seat) for pause in (0.0, 0.001))
    yield one, two
    one.close()
    two.close()


def test_of_workers_that_share_a_seat_one_has_a_process(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    first = running(one)
    ask(one, "large")
    assert list(one.offload_levels) == ["whole", "vae_tiling"]
    ask(two, "another")
    assert (one.pid, is_running(first)) == (None, False)
    assert two.pid is not None
    ask(one, "small")
    assert list(one.offload_levels) == ["whole"]  # a new process begins on the first rung
    assert two.pid is None


def test_what_a_worker_can_do_is_known_after_its_process_is_gone(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    able = one.capabilities
    ask(two, "another")
    assert one.capabilities == able
    assert one.pid is None and two.pid is not None


def test_a_picture_is_waited_for_before_its_process_makes_room(pair: tuple[Worker, Worker]) -> None:
    one, two = pair
    at_it, seen, alive = threading.Event(), list[int](), list[bool]()

    def note(done: int, total: int) -> None:
        at_it.set()
        seen.append(done)
        alive.append(two.pid is None)

    first = aside(lambda: one.generate(make_request(), (), note))
    assert at_it.wait(PATIENCE)
    two.generate(make_request(), (), no_callback)
    first.join()
    assert seen == list(range(1, perils.STEPS + 1)) and all(alive)
    assert one.pid is None


def test_a_worker_that_is_gone_leaves_its_seat() -> None:
    seat = DeviceLock()
    gone, next_one = (Worker("perils", {}, GRACE, seat) for _ in range(2))
    pid = running(gone)
    del gone
    ask(next_one, "a finch")
    assert not is_running(pid)
    next_one.close()
