"""Hostile files in the sandbox: whatever they do to its process, this process goes on.

FUZZ is the number of mutated files, SEED chooses them; ten thousand take some minutes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_decoders import MODULE, head
from support.hostile_files import BAD, BOMBS, GOOD, POLYGLOTS, mutate, rotated

from pleinair.tools.images import decoding, sandbox
from pleinair.tools.images.decoding import Unreadable, opened
from pleinair.tools.images.reading import BadPicture, read_picture
from pleinair.tools.images.sandbox import Decoder, Read
from pleinair.tools.images.sandbox_process import REASONS
from pleinair.tools.types import ModelFault

FUZZ = int(os.environ.get("FUZZ", "400"))
SEED = int(os.environ.get("SEED", "1"))
PNG = GOOD["png"]()
MAX_MEMORY = 512  # MiB that a decoder's process may ever have


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    shared = Decoder(threads=True)  # HEIC is among the files
    yield shared
    shared.close()


def peak(decoder: Decoder) -> int:
    """Return the peak memory of the idle process in MiB; `ru_maxrss` would count its parent's."""
    if sys.platform != "linux":
        return 0
    status = Path(f"/proc/{decoder._idle[-1].process.pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def pid(decoder: Decoder) -> int:
    return decoder._idle[-1].process.pid


def outcome(read: Any, data: bytes) -> str | tuple[str, tuple[int, int], bytes]:
    """Return the pixels, or the reason why there are none."""
    try:
        result = read(data)
    except BadPicture as error:
        return str(error)
    image = result.image if isinstance(result, Read) else result
    return image.mode, image.size, image.tobytes()


@pytest.mark.parametrize("name", [*GOOD, *BAD, *BOMBS, *POLYGLOTS])
def test_pixels_and_errors_are_those_of_this_process(decoder: Decoder, name: str) -> None:
    data = {**GOOD, **BAD, **BOMBS, **POLYGLOTS}[name]()
    assert outcome(decoder.read, data) == outcome(read_picture, data)


def test_files_of_one_request_have_the_results_of_single_ones(decoder: Decoder) -> None:
    files = [make() for make in (*GOOD.values(), *BAD.values(), *BOMBS.values())] * 2
    before = decoder._idle[-1]._decoded if decoder._idle else 0
    results = decoder.read_many(files)
    assert decoder._idle[-1]._decoded == before + sum(map(bool, files))  # nothing was tried again
    assert [outcome(lambda _, read=read: raised(read), b"") for read in results] == [
        outcome(read_picture, data) for data in files
    ]


def raised(read: Read | BadPicture) -> Read:
    if isinstance(read, BadPicture):
        raise read
    return read


def test_a_file_that_ends_the_process_costs_none_of_its_request() -> None:
    decoder = Decoder(MODULE + "die_at_text")
    results = decoder.read_many([PNG, b"text", PNG, PNG])
    assert [isinstance(read, Read) for read in results] == [True, False, True, True]
    assert str(results[1]) == "decoding it ends the decoder"
    decoder.close()


def test_many_small_files_go_in_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, decode = list[int](), sandbox._DecoderProcess.decode

    def count(process: Any, files: Any, *arguments: Any) -> Any:
        counts.append(len(files))
        return decode(process, files, *arguments)

    monkeypatch.setattr(sandbox._DecoderProcess, "decode", count)
    monkeypatch.setattr(sandbox, "_TOGETHER_BYTES", 5 * len(PNG))
    monkeypatch.setattr(sandbox, "TOGETHER", 4)
    decoder = Decoder()
    large = PNG + bytes(6 * len(PNG))
    assert len(decoder.read_many([PNG] * 6 + [large] + [PNG])) == 8
    assert counts == [4, 2, 1, 1]
    decoder.close()


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 20)), (6, (20, 40))])
@pytest.mark.parametrize("side", [0, 8])
def test_the_size_is_that_of_the_file_upright(
    decoder: Decoder, orientation: int, size: tuple[int, int], side: int
) -> None:
    assert decoder.read(rotated(orientation), side).size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(decoder: Decoder, orientation: int) -> None:
    assert outcome(decoder.read, rotated(orientation)) == outcome(read_picture, rotated(orientation))


@pytest.mark.parametrize("name", ["png", "png alpha", "png rotated", "jpeg cmyk", "png 16-bit"])
def test_an_image_sent_in_strips_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "STRIP", 3 * 48 * 5)
    whole = read_picture(GOOD[name]()).tobytes()
    strips = [strip.tobytes() for strip in opened(GOOD[name]()).strips()]
    assert len(strips) > 3
    assert b"".join(strips) == whole


def test_no_mutation_ends_or_outgrows_the_process() -> None:
    rng = random.Random(SEED)
    originals = [make() for make in (*GOOD.values(), *POLYGLOTS.values())]
    decoder, outcomes = Decoder(threads=True), Counter[str]()
    for number in range(FUZZ):
        result = outcome(decoder.read, mutate(originals[number % len(originals)], rng))
        outcomes[result if isinstance(result, str) else result[0]] += 1
        assert not decoder._idle or peak(decoder) < MAX_MEMORY
    decoder.close()
    assert set(outcomes) <= {"RGB", *REASONS}  # it neither died nor took too long
    assert FUZZ / 20 < outcomes["RGB"] < FUZZ


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_memory(name: str) -> None:
    decoder = Decoder()
    with pytest.raises(BadPicture):
        decoder.read(BOMBS[name]())
    assert peak(decoder) < MAX_MEMORY / 2
    decoder.close()


def refusal(opener: str, data: bytes = PNG, **limits: Any) -> str:
    """Return the reason that a fake decoder leads to."""
    decoder = Decoder(MODULE + opener, **limits)
    with pytest.raises(BadPicture) as caught:
        decoder.read(data)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert not decoder._idle or decoder._idle[-1].alive
    decoder.close()
    return str(caught.value)


def test_a_decoder_out_of_cpu_time_is_ended_by_the_system() -> None:
    assert refusal("spin", seconds=0.1) == "decoding it takes over 0.1 s"


def test_a_decoder_that_sleeps_is_ended_by_the_parent() -> None:
    assert refusal("sleep", timeout=0.3) == "decoding it takes over 0.3 s"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such bound")
def test_memory_is_limited() -> None:
    assert refusal("hoard", memory=64 * 2**20, seconds=60) == Unreadable.COSTLY


@pytest.mark.parametrize("opener", ["segfault", "leave", "raise_foreign"])
def test_a_crash_refuses_the_file(opener: str) -> None:
    assert refusal(opener) == "decoding it ends the decoder"


IMPLAUSIBLE = {
    "unknown reason": head(200, 0, 0),
    "too wide": head(0, 10**9, 1),
    "too many": head(0, 8192, 8192),
    "empty": head(0, 0, 5),
    "of too large a file": head(0, 5, 5, full=(10**6, 5)),
    "unknown notes": head(0, 5, 5, note=200),
    "too much text": head(0, 5, 5, texts=2**30),
    "text that is no JSON": head(0, 5, 5, texts=3) + b"{}}",
    "text that is no object": head(0, 5, 5, texts=3) + b"[1]",
    "text of other kinds": head(0, 5, 5, texts=7) + b'{"a":1}',
    "a pickle": b"\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system",
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_implausible_answers_are_refused(name: str) -> None:
    assert refusal("send", IMPLAUSIBLE[name]) == "decoding it ends the decoder"


@pytest.mark.parametrize("answer", [head(0, 100, 100), head(0, 100, 100) + bytes(500)])
def test_missing_pixels_time_out(answer: bytes) -> None:
    assert refusal("send", answer, timeout=0.3) == "decoding it takes over 0.3 s"


def test_a_decoder_reaches_no_file_network_program_or_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_TEST_KEY", "sk-1234567890")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    decoder = Decoder(MODULE + "reach")
    assert decoder.read(PNG).image.size == (1, 1)
    assert not list(tmp_path.iterdir())
    decoder.close()


def test_files_written_beside_the_modules_cost_no_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    decoder = Decoder(threads=True)
    for name in ("heic", "avif", "webp", "heic alpha"):
        assert decoder.read(GOOD[name]()).image.size == read_picture(GOOD[name]()).size
        (tmp_path / name).touch()
    decoder.close()


def test_a_file_is_tried_again_after_one_crash(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    decoder = Decoder(MODULE + "die_once")
    assert decoder.read(json.dumps({"flag": str(flag)}).encode()).image.size == (2, 2)
    assert not flag.exists()
    decoder.close()


def test_a_process_that_dies_idle_is_replaced(decoder: Decoder) -> None:
    decoder.read(PNG)
    process = decoder._idle[-1].process
    process.kill()
    process.wait()
    assert decoder.read(PNG).image.size == (48, 32)
    assert pid(decoder) != process.pid


def test_a_process_is_replaced_after_some_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "FILES", 3)
    decoder, pids = Decoder(), list[int]()
    for _ in range(5):
        decoder.read(PNG)
        pids += [pid(decoder)] if decoder._idle else []
    assert len(pids) == 4  # after the third file there is none
    assert pids[0] == pids[1] != pids[2] == pids[3]
    decoder.close()


def test_concurrent_callers_have_their_own_processes() -> None:
    decoder, pids = Decoder(), set[int]()
    both = threading.Barrier(2)

    def borrow() -> None:
        process = decoder._borrow()
        both.wait()
        pids.add(process.process.pid)
        process.close()

    threads = [threading.Thread(target=borrow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 2


def test_a_process_that_does_not_start_is_a_model_fault() -> None:
    with pytest.raises(ModelFault, match=r"does not start \(exit status 1\)"):
        Decoder("support.fake_decoders:none_such").read(PNG)


def test_a_parent_that_vanishes_ends_its_child() -> None:
    decoder = Decoder()
    decoder.read(PNG)
    process = decoder._idle.pop()
    process._socket.close()
    assert process.exit_code(10) == 0
    process.close()


def test_unreadable_sources_start_no_process(tmp_path: Path) -> None:
    decoder = Decoder()
    for source in (b"", tmp_path, tmp_path / "absent.png"):
        with pytest.raises(BadPicture):
            decoder.read(source)
    assert not decoder._idle


def test_an_interrupt_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder()
    decoder.read(PNG)
    process = decoder._idle[-1]

    def interrupt(size: int, deadline: float) -> bytearray:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decoder.read(PNG)
    assert not process.alive
    assert decoder.read(GOOD["jpeg"]()).image.size == (48, 32)
    decoder.close()


def test_no_more_processes_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    decoder, idle = Decoder(), list[int]()

    def read() -> None:
        decoder.read(PNG)
        idle.append(len(decoder._idle))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(idle) == 6 and max(idle) == 1
    decoder.close()


FORK = """
import os, sys
from pleinair.tools.images.sandbox import Decoder, Read
decoder, data = Decoder(), sys.stdin.buffer.read()
decoder.read(data)
mine = decoder._idle[-1].process.pid
if not (child := os.fork()):
    try:
        decoder.read(data)
        os._exit(decoder._idle[-1].process.pid == mine)
    finally:
        os._exit(2)
assert os.waitpid(child, 0)[1] == 0
decoder.read(data)
assert decoder._idle[-1].process.pid == mine
"""


def test_a_forked_process_has_its_own_decoders() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    subprocess.run(command, input=PNG, env=os.environ, check=True, timeout=300)
