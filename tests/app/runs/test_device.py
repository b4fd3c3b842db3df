"""A device is held by one process at a time, in the order of asking."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pleinair.app.api import answer, cancel, enqueue, finish, home, run_table
from pleinair.app.cli.live import activity_text
from pleinair.app.runs import runner
from pleinair.app.runs.device import device_held, needed_devices
from pleinair.app.runs.events import Event, Progress
from pleinair.app.server.site import Options, Site
from pleinair.app.settings import load
from pleinair.tools.types import Cancelled

HOLD = """
import sys, time
from pathlib import Path
from pleinair.app.runs.device import device_held
with device_held(Path(sys.argv[1]), sys.argv[2:], lambda ahead: None):
    print("held", flush=True)
    time.sleep(600)
"""


def ignore(ahead: int) -> None:
    """Wait without a sign."""


def holding_process(folder: Path, *devices: str) -> subprocess.Popen[bytes]:
    """Start a process that holds a device, by default the first, until it is killed."""
    arguments = [sys.executable, "-c", HOLD, str(folder), *(devices or ("cuda:0",))]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_holders_come_one_after_the_other_in_order(tmp_path: Path) -> None:
    holding, most, order = 0, 0, []
    counted = threading.Lock()

    def hold(number: int) -> None:
        nonlocal holding, most
        with device_held(tmp_path, ["cuda:0"], ignore):
            with counted:
                holding += 1
                most = max(most, holding)
                order.append(number)
            time.sleep(0.02)
            with counted:
                holding -= 1

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(6)]
    with device_held(tmp_path, ["cuda:0"], ignore):
        for number, thread in enumerate(threads, 2):
            thread.start()
            while len(list((tmp_path / "cuda-0").glob("*.ticket"))) < number:
                time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert (most, sorted(order)) == (1, order)


def test_several_devices_of_one_run_are_named_in_the_settings() -> None:
    """The generator has a process on each, whatever `worker.process` is."""
    settings = load("pocket", {"generator.devices": "cpu:0,cpu:1"})
    assert needed_devices(settings) == ("cpu:0", "cpu:1")
    assert needed_devices(load("pocket")) == ()


def test_runs_take_the_first_device_that_is_free(tmp_path: Path) -> None:
    both = ["cuda:0", "cuda:1"]
    with device_held(tmp_path, both, ignore) as first, device_held(tmp_path, both, ignore) as second:
        assert {first, second} == set(both)
        asked = list[int]()

        def wait(ahead: int) -> None:
            asked.append(len(list(tmp_path.glob("*/*.ticket"))))
            if asked[-1] == 4:  # at both devices
                raise Cancelled("enough")

        with pytest.raises(Cancelled), device_held(tmp_path, both, wait):
            raise AssertionError
        assert asked[0] == 3 and asked[-1] == 4
        assert len(list(tmp_path.glob("*/*.ticket"))) == 2
    other = holding_process(tmp_path, "cuda:0")
    with device_held(tmp_path, both, ignore) as device:
        assert device == "cuda:1"
    end(other)


def test_a_run_that_waits_takes_a_device_that_its_own_process_frees(tmp_path: Path) -> None:
    other, got = holding_process(tmp_path, "cuda:0"), list[str]()

    def hold() -> None:
        with device_held(tmp_path, ["cuda:0", "cuda:1"], lambda ahead: waits.set()) as device:
            got.append(device)

    waits, thread = threading.Event(), threading.Thread(target=hold)
    with device_held(tmp_path, ["cuda:1"], ignore):
        thread.start()
        waits.wait()
    thread.join()
    end(other)
    assert got == ["cuda:1"]


def test_auto_is_the_first_device(tmp_path: Path) -> None:
    with device_held(tmp_path, ["auto"], ignore) as device:
        assert device == "auto"
        assert [path.name for path in tmp_path.iterdir()] == ["cuda-0"]


def test_two_devices_are_held_at_once(tmp_path: Path) -> None:
    with device_held(tmp_path, ["cuda:0"], ignore), device_held(tmp_path, ["cuda:1"], ignore):
        pass


def test_a_killed_holder_frees_its_device(tmp_path: Path) -> None:
    holder = holding_process(tmp_path)
    waits = []

    def wait(ahead: int) -> None:
        waits.append(ahead)
        holder.send_signal(signal.SIGKILL)

    with device_held(tmp_path, ["cuda:0"], wait):
        assert set(waits) == {1}
    holder.communicate()


def test_only_models_in_a_process_on_this_machine_need_a_device() -> None:
    devices = {name: needed_devices(load(name)) for name in ("pocket", "klein", "openai", "gpt_image")}
    assert devices == {"pocket": (), "klein": ("auto",), "openai": (), "gpt_image": ()}


def test_the_next_run_of_a_process_keeps_the_model(tmp_path: Path) -> None:
    unloaded: list[int] = []
    for number in range(2):
        with device_held(tmp_path, ["cuda:0"], ignore, lambda _, number=number: unloaded.append(number)):  # type: ignore[misc]
            pass
    assert unloaded == []


def test_an_idle_process_frees_the_device_for_another_one(tmp_path: Path) -> None:
    unloaded: list[str] = []
    with device_held(tmp_path, ["cuda:0"], ignore, unloaded.append):
        pass
    process = holding_process(tmp_path)
    assert unloaded == ["cuda:0"]
    end(process)


PROMPT = "first thing and second thing"


@pytest.fixture
def one_device(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the quick generator need a device, and return the folder of its tickets."""
    monkeypatch.setattr(runner, "needed_devices", lambda settings: ("cuda:0",))
    return home().home / "devices"


def test_a_run_shows_how_many_have_the_device_before_it_and_is_not_charged(one_device: Path) -> None:
    (run,) = enqueue(PROMPT, client="a", graph="direct", overrides={"budget.seconds": 1.0})
    other, events = holding_process(one_device), list[Event]()
    site = Site(Options(), home())

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event.data, Progress) and event.data.ahead:
            assert "1 run before it" in site.render_run(run_table().get(run.id))
            threading.Timer(1.5, end, [other]).start()

    result = finish(run, on_event)
    assert result.outcome.ending == "unchecked"
    assert activity_text(events[0]) == "Waiting for the device: 1 run before it"
    assert "before it" not in site.render_run(run_table().get(run.id))


def test_a_run_that_is_cancelled_gives_up_its_place(one_device: Path) -> None:
    (run,) = enqueue(PROMPT, client="a", graph="direct")
    other = holding_process(one_device)

    def on_event(event: Event) -> None:
        if event.kind == "progress":
            threading.Thread(target=cancel, args=[run.id]).start()

    result = finish(run, on_event)
    assert result.outcome.ending == "cancelled"
    assert len(list((one_device / "cuda-0").glob("*.ticket"))) == 1
    end(other)


def test_a_run_that_waits_for_an_approval_leaves_the_device_to_others(one_device: Path) -> None:
    (run,) = enqueue(PROMPT, client="a", overrides={"approve": "references"})
    assert finish(run).outcome.ending == "waiting"
    other = holding_process(one_device)
    end(other)
    answer(run.id)
    assert finish(run_table().get(run.id)).outcome.ending == "accepted"
