"""A device is held by one process at a time, in the order of asking."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pleinair.app.runs.device import device_held, device_of
from pleinair.app.settings import load

HOLD = """
import sys, time
from pathlib import Path
from pleinair.app.runs.device import device_held
with device_held(Path(sys.argv[1]), "cuda:0", lambda ahead: None):
    print("held", flush=True)
    time.sleep(60)
"""


def ignore(ahead: int) -> None:
    """Wait without a sign."""


def test_holders_come_one_after_the_other_in_order(tmp_path: Path) -> None:
    holding, most, order = 0, 0, []
    counted = threading.Lock()

    def hold(number: int) -> None:
        nonlocal holding, most
        with device_held(tmp_path, "cuda:0", ignore):
            with counted:
                holding += 1
                most = max(most, holding)
                order.append(number)
            time.sleep(0.02)
            with counted:
                holding -= 1

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(6)]
    with device_held(tmp_path, "cuda:0", ignore):
        for number, thread in enumerate(threads, 2):
            thread.start()
            while len(list((tmp_path / "cuda-0").glob("*.ticket"))) < number:
                time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert (most, sorted(order)) == (1, order)


def test_two_devices_are_held_at_once(tmp_path: Path) -> None:
    with device_held(tmp_path, "cuda:0", ignore), device_held(tmp_path, "cuda:1", ignore):
        pass


def test_a_killed_holder_frees_its_device(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=os.environ)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    waits = []

    def wait(ahead: int) -> None:
        waits.append(ahead)
        holder.send_signal(signal.SIGKILL)

    with device_held(tmp_path, "cuda:0", wait):
        assert set(waits) == {1}
    holder.communicate()


def test_only_models_in_a_process_on_this_machine_need_a_device() -> None:
    devices = {name: device_of(load(name)) for name in ("pocket", "klein", "openai", "gpt_image")}
    assert devices == {"pocket": "", "klein": "auto", "openai": "", "gpt_image": ""}
