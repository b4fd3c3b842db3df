"""Stops without a step: while a model loads for ever, a step hangs, or another worker has the device."""

import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest
from support import faulty_generator
from support.generator_requests import make_request
from support.worker_process import generate, is_running, running

from pleinair.tools.callbacks import StopCallback, StopCheck, no_callback
from pleinair.tools.types import Cancelled
from pleinair.tools.worker.worker import DeviceLock, GeneratorWorker

GRACE = 0.5  # seconds
TIMEOUT = 300.0  # seconds: a machine under load takes longer; a hanging generator sleeps ten minutes


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(faulty_generator.install(tmp_path_factory.mktemp("faulty")))
        yield


@pytest.fixture
def worker() -> Iterator[GeneratorWorker]:
    with_grace = GeneratorWorker("faulty", {}, grace=GRACE)
    yield with_grace
    with_grace.close()


class StopAfter(StopCheck):
    """`StopCallback` that stops at the second check and counts the steps."""

    def __init__(self, checks: int = 2) -> None:
        super().__init__(self.count_down)
        self.remaining, self.steps = checks, 0

    def __call__(self, done: int, total: int) -> None:
        self.steps += 1

    def count_down(self) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            raise Cancelled("enough")


def stopped(worker: GeneratorWorker, prompt: str, on_step: StopCallback) -> None:
    """Generate an image that must end by the stop and not when the generator wakes up."""
    started = monotonic()
    with pytest.raises(Cancelled, match="^enough$"):
        worker.generate(make_request(prompt=prompt), (), on_step)
    assert monotonic() - started < TIMEOUT


@pytest.mark.parametrize("prompt, steps", [("loads for ever", 0), ("hangs", 1)])
def test_a_silent_generator_is_killed_at_a_stop(worker: GeneratorWorker, prompt: str, steps: int) -> None:
    before, callback = running(worker), StopAfter()
    stopped(worker, prompt, callback)
    assert callback.steps == steps  # a check is no step
    assert not is_running(before)
    generate(worker, "next")
    assert worker.pid != before


def test_a_generator_that_stops_within_the_grace_is_kept() -> None:
    worker = GeneratorWorker("faulty", {"pause": 0.4}, grace=TIMEOUT)
    before = running(worker)
    stopped(worker, "slow", StopAfter(1))
    assert worker.pid == before
    generate(worker, "next")  # the stop is over
    assert worker.pid == before
    worker.close()


def test_a_process_that_hangs_at_the_start_is_killed() -> None:
    worker = GeneratorWorker("faulty", {"fault": "asleep"}, grace=GRACE)
    for begin in (worker.start, lambda callback: worker.generate(make_request(), (), callback)):
        with pytest.raises(Cancelled, match="^enough$"):
            begin(StopAfter())
        assert worker.pid is None


def test_an_error_of_the_check_is_raised(worker: GeneratorWorker) -> None:
    def fail() -> None:
        raise EOFError("mine")  # what a broken pipe raises too

    with pytest.raises(EOFError, match="mine"):
        worker.generate(make_request(prompt="hangs"), (), StopCheck(fail))


def in_thread(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_stop_while_another_image_is_generated(worker: GeneratorWorker) -> None:
    pid, generating, resume = running(worker), threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        generating.set()
        assert resume.wait(TIMEOUT)

    first = in_thread(lambda: worker.generate(make_request(), (), hold))
    assert generating.wait(TIMEOUT)
    stopped(worker, "second", StopAfter())
    assert first.is_alive()
    resume.set()
    first.join()
    assert worker.pid == pid
    generate(worker, "next")


@pytest.fixture
def pair() -> Iterator[tuple[GeneratorWorker, GeneratorWorker]]:
    """Two workers with one device lock."""
    lock = DeviceLock()
    first, second = (GeneratorWorker("faulty", {"pause": pause}, GRACE, lock) for pause in (0.0, 0.001))
    yield first, second
    first.close()
    second.close()


def test_one_of_two_workers_on_a_device_has_a_process(pair: tuple[GeneratorWorker, GeneratorWorker]) -> None:
    first, second = pair
    pid = running(first)
    generate(first, "large")
    assert list(first.offload_levels) == ["whole", "vae_tiling"]
    generate(second, "another")
    assert (first.pid, is_running(pid)) == (None, False)
    assert second.pid is not None
    generate(first, "small")
    assert list(first.offload_levels) == ["whole"]  # a new process begins at the first level
    assert second.pid is None


def test_capabilities_outlive_the_process(pair: tuple[GeneratorWorker, GeneratorWorker]) -> None:
    first, second = pair
    capabilities = first.capabilities
    generate(second, "another")
    assert first.capabilities == capabilities
    assert first.pid is None and second.pid is not None


def test_an_image_is_finished_before_its_process_ends(pair: tuple[GeneratorWorker, GeneratorWorker]) -> None:
    first, second = pair
    generating, steps, alone = threading.Event(), list[int](), list[bool]()

    def record(done: int, total: int) -> None:
        generating.set()
        steps.append(done)
        alone.append(second.pid is None)

    thread = in_thread(lambda: first.generate(make_request(), (), record))
    assert generating.wait(TIMEOUT)
    second.generate(make_request(), (), no_callback)
    thread.join()
    assert steps == list(range(1, faulty_generator.STEPS + 1)) and all(alone)
    assert first.pid is None


def test_a_collected_worker_frees_the_device() -> None:
    lock = DeviceLock()
    first, second = (GeneratorWorker("faulty", {}, GRACE, lock) for _ in range(2))
    pid = running(first)
    del first
    generate(second, "a finch")
    assert not is_running(pid)
    second.close()
