"""A generator in its own process: the same images, and a clear error for every way to end."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support import faulty_generator
from support.generator_requests import LINEAR, RADIAL, draw, make_request, stop_after
from support.worker_process import generate, is_running, running

from pleinair.tools.types import BadInput, Cancelled, ModelFault, Refused, Usage
from pleinair.tools.worker.process import pack, unpack
from pleinair.tools.worker.worker import GeneratorWorker, WorkerProcess


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(faulty_generator.install(tmp_path_factory.mktemp("faulty")))
        yield


@pytest.fixture(scope="module")
def worker(plugin: None) -> Iterator[GeneratorWorker]:
    """One shared worker: whatever a test does to it, it generates the next image."""
    shared = GeneratorWorker("faulty", {}, grace=0.5)
    yield shared
    shared.close()


def test_no_process_starts_before_the_first_use() -> None:
    assert GeneratorWorker("faulty", {}).pid is None


def test_the_capabilities_come_from_another_process(worker: GeneratorWorker) -> None:
    assert worker.capabilities == faulty_generator.FaultyGenerator().capabilities
    assert running(worker) != os.getpid()


@pytest.mark.parametrize("images", [(), (RADIAL,), (RADIAL, LINEAR)])
def test_the_pixels_are_those_of_this_process(worker: GeneratorWorker, images: tuple[()]) -> None:
    assert (draw(worker, images, seed=7) == draw(faulty_generator.FaultyGenerator(), images, seed=7)).all()


def test_one_process_generates_all_images(worker: GeneratorWorker) -> None:
    generate(worker, "one")
    first = worker.pid
    generate(worker, "two")
    assert worker.pid == first


def test_every_step_is_reported(worker: GeneratorWorker) -> None:
    steps: list[tuple[int, int]] = []
    worker.generate(make_request(), (), lambda done, total: steps.append((done, total)))
    assert steps == [(done, faulty_generator.STEPS) for done in range(1, faulty_generator.STEPS + 1)]


class Previews:
    """`PreviewCallback` that records its calls and stops at a preview."""

    def __init__(self, stop_at: int = 99) -> None:
        self.calls: list[object] = []
        self._stop_at = stop_at

    def __call__(self, done: int, total: int) -> None:
        self.calls.append(done)

    def show(self, preview: Image.Image) -> None:
        self.calls.append((preview.size, preview.getpixel((0, 0))))
        if len(self.calls) == 2 * self._stop_at:
            raise Cancelled("seen enough")


def test_each_preview_follows_its_step(worker: GeneratorWorker) -> None:
    callback = Previews()
    worker.generate(make_request(), (), callback)
    shown = [((4, 2), (step, 0, 0)) for step in range(faulty_generator.STEPS)]
    steps = range(faulty_generator.STEPS)
    assert callback.calls == [call for step in steps for call in (step + 1, shown[step])]


def test_no_previews_without_a_preview_callback(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = GeneratorWorker("faulty", {"log": str(log)})
    generate(worker, "unseen")
    assert "show" not in log.read_text("utf-8")
    worker.generate(make_request(), (), Previews())
    assert log.read_text("utf-8").count("show") == faulty_generator.STEPS
    worker.close()


def test_a_preview_callback_may_stop_the_image(worker: GeneratorWorker) -> None:
    before, callback = running(worker), Previews(stop_at=2)
    with pytest.raises(Cancelled, match="^seen enough$"):
        worker.generate(make_request(), (), callback)
    assert len(callback.calls) == 4
    generate(worker, "next")
    assert worker.pid == before


def test_the_offload_levels_come_with_the_image() -> None:
    worker = GeneratorWorker("faulty", {})
    assert list(worker.offload_levels) == []
    generate(worker, "small")
    assert list(worker.offload_levels) == ["whole"]
    generate(worker, "large")
    assert list(worker.offload_levels) == ["whole", "vae_tiling"]
    worker.close()


@pytest.mark.parametrize("number", range(len(faulty_generator.ERRORS)))
def test_an_error_keeps_class_text_and_remedy_and_the_process(worker: GeneratorWorker, number: int) -> None:
    expected, before = faulty_generator.ERRORS[number], running(worker)
    with pytest.raises(type(expected)) as error:
        generate(worker, str(number))
    assert (type(error.value), str(error.value)) == (type(expected), str(expected))
    assert getattr(error.value, "remedy", "") == getattr(expected, "remedy", "")
    assert "in fail" in error.value.__notes__[0]  # the traceback of the other process
    assert worker.pid == before


def test_the_cost_of_a_refusal_comes_with_it(worker: GeneratorWorker) -> None:
    with pytest.raises(Refused) as error:
        generate(worker, "paid")
    assert error.value.spent == Usage(images=1, usd=0.25)


@pytest.mark.parametrize(
    "prompt, text", [("unpicklable", "Unpicklable: two, arguments"), ("foreign", "Foreign: unknown class")]
)
def test_an_unpicklable_error_becomes_its_name_and_text(
    worker: GeneratorWorker, prompt: str, text: str
) -> None:
    with pytest.raises(RuntimeError) as error:
        generate(worker, prompt)
    assert str(error.value) == text


def test_a_stop_ends_the_image_at_that_step(worker: GeneratorWorker) -> None:
    before, steps = running(worker), list[tuple[int, int]]()
    with pytest.raises(Cancelled, match="^stop$"):
        worker.generate(make_request(), (), stop_after(2, steps))
    assert steps == [(1, 4), (2, 4)]
    generate(worker, "next")
    assert worker.pid == before


def test_an_error_of_the_callback_is_raised(worker: GeneratorWorker) -> None:
    def fail(done: int, total: int) -> None:
        raise EOFError("mine")  # what a broken pipe raises too

    before = running(worker)
    with pytest.raises(EOFError, match="mine"):
        worker.generate(make_request(), (), fail)
    assert worker.pid == before


@pytest.mark.parametrize("prompt", ["deaf", "lost"])
def test_a_generator_that_does_not_stop_is_killed(worker: GeneratorWorker, prompt: str) -> None:
    before, steps = running(worker), list[tuple[int, int]]()
    with pytest.raises(Cancelled, match="^stop$"):
        worker.generate(make_request(prompt=prompt), (), stop_after(2, steps))
    assert not is_running(before)
    generate(worker, "next")


@pytest.mark.parametrize(
    "prompt, text",
    [
        ("SIGKILL", "was ended by SIGKILL, as a system does that runs out of memory"),
        ("SIGTERM", "was ended by SIGTERM"),
        ("segfault", "was ended by SIGSEGV"),
        ("exit", "ended by itself, with exit status 5"),
    ],
)
def test_a_crash_fails_one_image_only(worker: GeneratorWorker, prompt: str, text: str) -> None:
    crashed = running(worker)
    with pytest.raises(ModelFault, match=f"^The process of `faulty:1` died while generating: it {text}.$"):
        generate(worker, prompt)
    generate(worker, "next")
    assert worker.pid != crashed
    assert not is_running(crashed)


def test_a_process_killed_amid_an_image(worker: GeneratorWorker) -> None:
    pid = running(worker)
    with pytest.raises(ModelFault, match="died while generating: it was ended by SIGKILL"):
        worker.generate(make_request(), (), lambda done, total: os.kill(pid, signal.SIGKILL))
    generate(worker, "next")


def test_a_process_killed_between_two_images(
    worker: GeneratorWorker, caplog: pytest.LogCaptureFixture
) -> None:
    running(worker)
    process = worker._process
    assert process is not None
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.wait()
    generate(worker, "next")
    assert "is started again: it was ended by SIGKILL" in caplog.text


def test_a_request_that_crashed_twice_is_refused() -> None:
    worker = GeneratorWorker("faulty", {})
    for _ in range(2):
        with pytest.raises(ModelFault, match="died while generating"):
            generate(worker, "SIGABRT")
    with pytest.raises(ModelFault, match="died 2 times of this request: it is not tried again"):
        generate(worker, "SIGABRT")
    assert worker.pid is None
    generate(worker, "another")
    worker.close()


def test_bad_arguments_are_reported() -> None:
    worker = GeneratorWorker("faulty", {"fault": "none such"})
    for _ in range(2):
        with pytest.raises(BadInput, match=r"^generator.fault = 'none such': wanted none"):
            _ = worker.capabilities
        assert worker.pid is None


def test_a_crash_at_the_start_is_reported() -> None:
    worker = GeneratorWorker("faulty", {"fault": "exit"})
    with pytest.raises(ModelFault, match="of `faulty` died while starting: it ended by itself, .* status 3"):
        generate(worker, "a finch")


def test_two_callers_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = GeneratorWorker("faulty", {"log": str(log), "pause": 0.01})
    threads = [threading.Thread(target=generate, args=(worker, f"{number} finches")) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = [line.split() for line in log.read_text("utf-8").splitlines()]
    assert [word for word, _ in entries] == ["begin", "end"] * 2
    assert Counter(pid for _, pid in entries) == {str(worker.pid): 4}
    worker.close()


def test_a_closed_worker_leaves_no_process_and_starts_again() -> None:
    worker = GeneratorWorker("faulty", {})
    generate(worker, "one")
    first = running(worker)
    worker.close()
    assert worker.pid is None
    assert not is_running(first)
    generate(worker, "two")
    worker.close()


def test_a_collected_worker_leaves_no_process() -> None:
    worker = GeneratorWorker("faulty", {})
    generate(worker, "one")
    pid = running(worker)
    del worker
    assert not is_running(pid)


def test_a_parent_that_vanishes_ends_its_child() -> None:
    process = WorkerProcess()
    process.call("generator", "faulty", {})
    process.pipe.close()
    assert process.exit_code(10) == 0
    process.close()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_images_are_packed_losslessly(mode: str) -> None:
    image = RADIAL.convert("L").convert(mode) if mode != "LA" else RADIAL.convert("RGBA").convert("LA")
    copy = unpack(pack(image))
    assert (copy.mode, copy.size, copy.tobytes()) == (mode, image.size, image.tobytes())


def test_a_palette_becomes_rgb() -> None:
    assert unpack(pack(LINEAR.convert("P"))).mode == "RGB"
