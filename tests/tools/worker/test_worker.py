"""The generator's own process: the same pictures, and every end of it a told one."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support import faulty_generator as perils
from support.generator_requests import LINEAR, RADIAL, draw, make_request, stop_after
from support.worker_process import ask, is_running, running

from pleinair.tools.types import BadInput, Cancelled, ModelFault, Refused, Usage
from pleinair.tools.worker.process import pack, unpack
from pleinair.tools.worker.worker import Worker, WorkerProcess


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(perils.install(tmp_path_factory.mktemp("perils")))
        yield


@pytest.fixture(scope="module")
def worker(plugin: None) -> Iterator[Worker]:
    """Share one worker: whatever a test does to it, the next picture must come."""
    shared = Worker("perils", {}, grace=0.5)
    yield shared
    shared.close()


def test_nothing_is_started_before_the_first_use() -> None:
    assert Worker("perils", {}).pid is None


def test_the_engine_declares_itself_and_lives_elsewhere(worker: Worker) -> None:
    assert worker.capabilities == perils.Perils().capabilities
    assert running(worker) != os.getpid()


@pytest.mark.parametrize("images", [(), (RADIAL,), (RADIAL, LINEAR)])
def test_the_picture_is_the_one_drawn_in_this_process(worker: Worker, images: tuple[()]) -> None:
    assert (draw(worker, images, seed=7) == draw(perils.Perils(), images, seed=7)).all()


def test_one_process_draws_all_pictures(worker: Worker) -> None:
    ask(worker, "one")
    first = worker.pid
    ask(worker, "two")
    assert worker.pid == first


def test_every_step_is_told(worker: Worker) -> None:
    seen: list[tuple[int, int]] = []
    worker.generate(make_request(), (), lambda done, total: seen.append((done, total)))
    assert seen == [(done, perils.STEPS) for done in range(1, perils.STEPS + 1)]


class Watcher:
    """Note what is shown, and raise at a preview when asked to."""

    def __init__(self, patience: int = 99) -> None:
        self.told: list[object] = []
        self._patience = patience

    def __call__(self, done: int, total: int) -> None:
        self.told.append(done)

    def show(self, preview: Image.Image) -> None:
        self.told.append((preview.size, preview.getpixel((0, 0))))
        if len(self.told) == 2 * self._patience:
            raise Cancelled("seen enough")


def test_a_viewer_is_shown_each_preview_after_its_step(worker: Worker) -> None:
    watcher = Watcher()
    worker.generate(make_request(), (), watcher)
    shown = [((4, 2), (step, 0, 0)) for step in range(perils.STEPS)]
    assert watcher.told == [word for step in range(perils.STEPS) for word in (step + 1, shown[step])]


def test_who_wants_no_previews_causes_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = Worker("perils", {"log": str(log)})
    ask(worker, "unseen")
    assert "show" not in log.read_text("utf-8")
    worker.generate(make_request(), (), Watcher())
    assert log.read_text("utf-8").count("show") == perils.STEPS
    worker.close()


def test_a_viewer_may_stop_the_picture_at_a_preview(worker: Worker) -> None:
    before, watcher = running(worker), Watcher(patience=2)
    with pytest.raises(Cancelled, match="^seen enough$"):
        worker.generate(make_request(), (), watcher)
    assert len(watcher.told) == 4
    ask(worker, "next")
    assert worker.pid == before


def test_how_the_model_was_placed_is_told_with_the_picture() -> None:
    worker = Worker("perils", {})
    assert list(worker.offload_levels) == []
    ask(worker, "small")
    assert list(worker.offload_levels) == ["whole"]
    ask(worker, "large")
    assert list(worker.offload_levels) == ["whole", "vae_tiling"]
    worker.close()


@pytest.mark.parametrize("number", range(len(perils.FAULTS)))
def test_an_error_keeps_class_text_and_remedy_and_the_process(worker: Worker, number: int) -> None:
    fault, before = perils.FAULTS[number], running(worker)
    with pytest.raises(type(fault)) as caught:
        ask(worker, str(number))
    assert (type(caught.value), str(caught.value)) == (type(fault), str(fault))
    assert getattr(caught.value, "remedy", "") == getattr(fault, "remedy", "")
    assert "in happen" in caught.value.__notes__[0]  # the traceback of the other process
    assert worker.pid == before


def test_what_a_refusal_cost_comes_with_it(worker: Worker) -> None:
    with pytest.raises(Refused) as caught:
        ask(worker, "paid")
    assert caught.value.spent == Usage(images=1, usd=0.25)


@pytest.mark.parametrize("prompt, text", [("odd", "Odd: odd, as told"), ("foreign", "Foreign: unheard of")])
def test_an_error_that_cannot_cross_is_told_by_name(worker: Worker, prompt: str, text: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        ask(worker, prompt)
    assert str(caught.value) == text


def test_a_stop_ends_the_picture_at_that_step(worker: Worker) -> None:
    before, seen = running(worker), list[tuple[int, int]]()
    with pytest.raises(Cancelled, match="^stop$"):
        worker.generate(make_request(), (), stop_after(2, seen))
    assert seen == [(1, 4), (2, 4)]
    ask(worker, "next")
    assert worker.pid == before


def test_whatever_the_caller_raises_comes_back_to_him(worker: Worker) -> None:
    def lose(done: int, total: int) -> None:
        raise EOFError("mine")  # what a broken pipe raises too

    before = running(worker)
    with pytest.raises(EOFError, match="mine"):
        worker.generate(make_request(), (), lose)
    assert worker.pid == before


@pytest.mark.parametrize("prompt", ["deaf", "lost"])
def test_an_engine_that_does_not_stop_is_killed(worker: Worker, prompt: str) -> None:
    before, seen = running(worker), list[tuple[int, int]]()
    with pytest.raises(Cancelled, match="^stop$"):
        worker.generate(make_request(prompt=prompt), (), stop_after(2, seen))
    assert not is_running(before)
    ask(worker, "next")


@pytest.mark.parametrize(
    "prompt, text",
    [
        ("SIGKILL", "was ended by SIGKILL, as a system does that runs out of memory"),
        ("SIGTERM", "was ended by SIGTERM"),
        ("segfault", "was ended by SIGSEGV"),
        ("exit", "ended by itself, with exit status 5"),
    ],
)
def test_a_death_is_a_fault_of_this_picture_only(worker: Worker, prompt: str, text: str) -> None:
    dead = running(worker)
    with pytest.raises(ModelFault, match=f"^The process of `perils:1` died while generating: it {text}.$"):
        ask(worker, prompt)
    ask(worker, "next")
    assert worker.pid != dead
    assert not is_running(dead)


def test_a_death_from_outside_in_the_middle(worker: Worker) -> None:
    pid = running(worker)
    with pytest.raises(ModelFault, match="died while generating: it was ended by SIGKILL"):
        worker.generate(make_request(), (), lambda done, total: os.kill(pid, signal.SIGKILL))
    ask(worker, "next")


def test_a_death_between_two_pictures_costs_none(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    running(worker)
    child = worker._process
    assert child is not None
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    ask(worker, "next")
    assert "is started again: it was ended by SIGKILL" in caplog.text


def test_a_request_that_killed_twice_is_not_tried_again() -> None:
    worker = Worker("perils", {})
    for _ in range(2):
        with pytest.raises(ModelFault, match="died while generating"):
            ask(worker, "SIGABRT")
    with pytest.raises(ModelFault, match="died 2 times of this request: it is not tried again"):
        ask(worker, "SIGABRT")
    assert worker.pid is None
    ask(worker, "another")
    worker.close()


def test_an_engine_that_refuses_its_arguments_says_so() -> None:
    worker = Worker("perils", {"fault": "none such"})
    for _ in range(2):
        with pytest.raises(BadInput, match=r"^generator.fault = 'none such': wanted none"):
            _ = worker.capabilities
        assert worker.pid is None


def test_a_death_at_the_start_is_told() -> None:
    worker = Worker("perils", {"fault": "exit"})
    with pytest.raises(ModelFault, match="of `perils` died while starting: it ended by itself, .* status 3"):
        ask(worker, "a finch")


def test_two_callers_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = Worker("perils", {"log": str(log), "pause": 0.01})
    threads = [threading.Thread(target=ask, args=(worker, f"{number} finches")) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words = [line.split() for line in log.read_text("utf-8").splitlines()]
    assert [word for word, _ in words] == ["begin", "end"] * 2
    assert Counter(pid for _, pid in words) == {str(worker.pid): 4}
    worker.close()


def test_a_closed_worker_leaves_no_process_and_starts_again() -> None:
    worker = Worker("perils", {})
    ask(worker, "one")
    first = running(worker)
    worker.close()
    assert worker.pid is None
    assert not is_running(first)
    ask(worker, "two")
    worker.close()


def test_a_worker_that_nobody_holds_leaves_no_process() -> None:
    worker = Worker("perils", {})
    ask(worker, "one")
    pid = running(worker)
    del worker
    assert not is_running(pid)


def test_a_parent_that_vanishes_ends_its_child() -> None:
    child = WorkerProcess()
    child.load("perils", {})
    child.pipe.close()
    assert child.process.wait(10) == 0
    child.close()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_pixels_cross_as_they_are(mode: str) -> None:
    picture = RADIAL.convert("L").convert(mode) if mode != "LA" else RADIAL.convert("RGBA").convert("LA")
    again = unpack(pack(picture))
    assert (again.mode, again.size, again.tobytes()) == (mode, picture.size, picture.tobytes())


def test_a_palette_is_looked_up() -> None:
    assert unpack(pack(LINEAR.convert("P"))).mode == "RGB"
