"""An encoder in its own process: the same vectors, and a clear error for every way to end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import faulty_encoder
from support.faulty_generator import ERRORS
from support.tiny_clip import CLIP, save
from support.worker_process import is_running

from pleinair.tools.callbacks import StopCheck
from pleinair.tools.deadline import OutOfTime, deadline
from pleinair.tools.realrag import training_of
from pleinair.tools.retrieval.crossmodal.adaptor import require_tower
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import BadInput, Cancelled, ModelFault
from pleinair.tools.worker.worker import EncoderWorker, started

SQUARE, DEADLY = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, faulty_encoder.DEADLY))


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(faulty_encoder.install(tmp_path_factory.mktemp("faulty")))
        yield


@pytest.fixture(scope="module")
def worker(plugin: None) -> Iterator[EncoderWorker]:
    """One shared worker: whatever a test does to it, it encodes the next text."""
    shared = EncoderWorker("faulty", {})
    yield shared
    shared.close()


def running(worker: EncoderWorker) -> int:
    """Return the process id; start the process if an earlier test has ended it."""
    assert np.array_equal(worker.encode_text(["a"]), faulty_encoder.FaultyEncoder().encode_text(["a"]))
    assert worker.pid is not None
    return worker.pid


def test_vectors_and_facts_are_those_of_this_process(tmp_path: Path) -> None:
    save(tmp_path, CLIP, "CLIP")
    arguments: dict[str, Any] = {"model": f"local-dir:{tmp_path}", "device": "cpu", "batch": 2}
    apart, within = EncoderWorker("open_clip", arguments), OpenClipEncoder(**arguments)
    assert (apart.id, apart.image_side, apart.training, require_tower(apart)) == (within.id, 64, None, apart)
    texts = ["a red car", "", "a blue fish \N{FISH}"]
    noise = Image.effect_noise((90, 70), 80)
    images = [SQUARE, noise, noise.convert("P"), noise.convert("RGBA"), noise.convert("RGB")]
    for method, items in (("encode_text", texts), ("encode_images", images), ("encode_patches", images)):
        for part in (items, []) if method != "encode_patches" else (items,):
            rows, same = (getattr(encoder, method)(part) for encoder in (apart, within))
            assert (rows.dtype, rows.shape) == (same.dtype, same.shape) and rows.tobytes() == same.tobytes()
    assert apart.pid not in (None, os.getpid())
    apart.close()


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_an_error_keeps_class_text_and_remedy_and_the_process(worker: EncoderWorker, number: int) -> None:
    expected, before = ERRORS[number], running(worker)
    with pytest.raises(type(expected)) as error:
        worker.encode_text([str(number)])
    assert (type(error.value), str(error.value)) == (type(expected), str(expected))
    assert getattr(error.value, "remedy", "") == getattr(expected, "remedy", "")
    assert running(worker) == before


def test_a_crash_fails_one_call_only(worker: EncoderWorker) -> None:
    crashed = running(worker)
    with pytest.raises(ModelFault, match="^The process of `hashesfaulty` died while encoding.*SIGSEGV"):
        worker.encode_images([SQUARE, DEADLY])
    assert worker.pid is None
    assert worker.encode_images([SQUARE]).shape == (1, 64)
    assert not is_running(crashed) and running(worker) != crashed


def test_a_warning_is_logged_in_this_process(worker: EncoderWorker, caplog: pytest.LogCaptureFixture) -> None:
    worker.encode_text(["warns"])
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("pleinair.tools.faulty", "truncated: warns")
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_the_deadline_kills_a_call_that_hangs(worker: EncoderWorker) -> None:
    before = running(worker)
    with deadline(0.5), pytest.raises(OutOfTime):
        worker.encode_text(["hangs"])
    assert not is_running(before)
    running(worker)


def test_a_stop_kills_a_load(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def stop() -> None:
        if log.exists() and log.read_text():
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="^enough$"):
        started(EncoderWorker("faulty", {"asleep": True, "log": str(log)}), StopCheck(stop))
    assert not is_running(int(log.read_text()))


def test_a_second_caller_waits_until_its_own_deadline(worker: EncoderWorker) -> None:
    running(worker)

    def hang() -> None:
        with deadline(1.0), pytest.raises(OutOfTime):
            worker.encode_text(["hangs"])

    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(hang)
        while not worker._device_lock.lock.locked():
            time.sleep(0.01)
        with deadline(0.3), pytest.raises(OutOfTime):
            worker.encode_text(["a"])
        assert not hanging.done()
        pool.submit(running, worker).result()
        hanging.result()


def test_facts_of_encoders_with_and_without_patches(worker: EncoderWorker) -> None:
    assert require_tower(worker).encode_patches([Image.new("RGB", (16, 16))]).shape == (1, 4, 64)
    plain = EncoderWorker("plain", {})
    with pytest.raises(BadInput, match="no patch features"):
        require_tower(plain)
    assert (plain.image_side, training_of(plain)) == (0, faulty_encoder.Plain.training)
    plain.close()
