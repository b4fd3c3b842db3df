import json
from collections import deque
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.container_files import arrow, parquet, png, table

from pleinair.tools.deadline import OutOfTime, deadline
from pleinair.tools.retrieval.containers import rows
from pleinair.tools.retrieval.containers.container import BadContainer, Fault, LocalFile, Stored
from pleinair.tools.retrieval.containers.rows import Rows

COLOURS = ("red", "lime", "blue", "gold", "pink")
IMAGES = [png(colour) for colour in COLOURS]
PATHS = [None, "b.png", "C:\\data\\finches\\c.png", "/srv/data/wrens/d.png", "../../.b.png"]
NAMES = ["000001.png", "b.png", "finches/c.png", "wrens/d.png", "000005.png"]
TEXTS = [f"a {colour} wren" for colour in COLOURS]


def write(folder: Path, kind: str, content: pa.Table, size: int = 2) -> Path:
    if kind == "parquet":
        return parquet(folder / "a.parquet", content, size)
    return arrow(folder / "a.arrow", content, size, getattr(pa.ipc, f"new_{kind}"))


def listed(path: Path) -> tuple[Rows, list[Stored], list[str]]:
    container = Rows(LocalFile(path))
    files = list(container.files())
    stored = [file for file in files if isinstance(file, Stored)]
    return container, stored, [file.text for file in files if isinstance(file, Fault)]


KINDS = pytest.mark.parametrize("kind", ["parquet", "stream", "file"])


@KINDS
def test_images_are_listed_with_their_records_and_read(tmp_path: Path, kind: str) -> None:
    columns: dict[str, list[Any]] = {"text": TEXTS, "label": [0, 1, 0, 1, 9], "rating": [1, 2, 3, 4, 5]}
    container, stored, faults = listed(write(tmp_path, kind, table(IMAGES, PATHS, **columns)))
    assert ([file.name for file in stored], faults) == (NAMES, [])
    assert [file.size for file in stored] == list(map(len, IMAGES))
    assert [file.line for file in stored] == [1, 2, 3, 4, 5]
    assert stored[1].record == {"text": "a lime wren", "label": "finch"}
    assert [container.read(file.place, 10**6) for file in stored] == IMAGES
    assert [container.read(file.place, 10**6) for file in reversed(stored)] == IMAGES[::-1]
    assert container.read(stored[3].place, 8) == IMAGES[3][:8]


@KINDS
def test_nulls_paths_and_other_data_are_counted(tmp_path: Path, kind: str) -> None:
    images = [None, None, None, b"RIFF1234WAVE", IMAGES[0]]
    _, stored, faults = listed(write(tmp_path, kind, table(images, [None, "a.png", "b.png"])))
    assert [file.line for file in stored] == [5]
    assert faults == [
        "`image`: 1 row without an image",
        "`image`: 2 rows with the path of a file only, which is not read",
        "`image`: 1 row with other data than an image",
    ]


def test_lists_of_images_and_plain_bytes_are_read(tmp_path: Path) -> None:
    lists = pa.table({"images": pa.array([[IMAGES[0], IMAGES[1]], [], None, [IMAGES[2]]])})
    container, stored, _ = listed(write(tmp_path, "stream", lists))
    assert [file.name for file in stored] == ["000001-0.png", "000001-1.png", "000004-0.png"]
    assert [container.read(file.place, 10**6) for file in stored] == IMAGES[:3]
    plain = pa.table({"jpg": IMAGES, "file_name": ["wren.png"] * 5, "caption": [TEXTS[:2]] * 5})
    container, stored, _ = listed(write(tmp_path, "parquet", plain))
    assert [file.name for file in stored][:2] == ["wren.png", "wren-000002.png"]
    assert stored[0].record["caption"] == TEXTS[:2]
    assert container.read(stored[4].place, 10**6) == IMAGES[4]


def test_one_column_of_images_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    content = (
        table(IMAGES).append_column("mask", pa.array(IMAGES)).append_column("audio", pa.array([b"RIFF"] * 5))
    )
    container, stored, faults = listed(write(tmp_path, "parquet", content))
    assert len(stored) == 5
    assert faults == ["`image` is read; other columns with images are not: `mask`"]


def test_a_table_without_images_is_an_empty_container(tmp_path: Path) -> None:
    content = pa.table({"file_name": ["a.png"], "text": TEXTS[:1], "sound": [b"RIFF"]})
    for kind in ("parquet", "stream"):
        assert listed(write(tmp_path, kind, content))[1:] == ([], [])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"PAR1 damaged"),
        ("a.arrow", b"ARROW1 damaged" * 20),
        ("b.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 20),
        ("c.arrow", b""),
    ],
)
def test_damage_is_a_fault(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    _, stored, faults = listed(tmp_path / name)
    assert (stored, len(faults)) == ([], 1)
    with pytest.raises(BadContainer):
        Rows(LocalFile(tmp_path / name)).read("0:0:0:0:-1", 100)


@KINDS
def test_a_cut_file_ends_in_a_fault(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, table(IMAGES, text=TEXTS))
    path.write_bytes(path.read_bytes()[:-300])
    assert listed(path)[2] == ["damaged, or of a kind that is not read"]


def test_a_parser_that_ends_or_lies_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "parquet", table(IMAGES))
    monkeypatch.syspath_prepend(tmp_path)
    start = "import socket, struct\ndef serve(descriptor):\n"
    start += "    channel = socket.socket(fileno=descriptor)\n    channel.recv(9)\n"
    line = {"name": "../a.png", "size": 1, "place": "", "record": {}, "line": 1}
    data = json.dumps(line).encode()
    lies = {
        "ends": "",
        "escapes": f"    channel.sendall(struct.pack('>cQ', b'r', {len(data)}) + {data!r})",
        "floods": "    channel.sendall(struct.pack('>cQ', b'r', 2 ** 60))",
        "reads_on": "    channel.sendall(struct.pack('>cQQQ', b'n', 16, 2 ** 50, 100))\n    channel.recv(1)",
    }
    for name, body in lies.items():
        (tmp_path / f"{name}.py").write_text(f"{start}{body}\n")
        monkeypatch.setattr(rows, "_MODULE", name)
        monkeypatch.setattr(rows, "_idle", deque())
        _, stored, faults = listed(path)
        assert (name, stored, len(faults)) == (name, [], 1)


def test_the_deadline_ends_a_parser_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text("import time\ndef serve(descriptor):\n    time.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rows, "_MODULE", "hanging")
    monkeypatch.setattr(rows, "_idle", deque())
    container = Rows(LocalFile(write(tmp_path, "parquet", table(IMAGES))))
    with deadline(0.2), pytest.raises(OutOfTime):
        container.read("0:0:0:0:-1", 100)


def test_the_parser_has_no_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that is taken over can open and start nothing."""
    module = """
import struct
from pleinair.tools.retrieval.containers import rows_process
def taken_over(stream, kind, payload):
    reasons = []
    for attempt in (lambda: open('/etc/hostname'), lambda: __import__('os').open('/tmp', 0)):
        try:
            attempt()
        except OSError as error:
            reasons.append(error.errno)
    text = repr(reasons).encode()
    stream.write(struct.pack('>cQ', b'f', len(text)) + text)
    stream.flush()
rows_process._send = taken_over
serve = rows_process.serve
"""
    (tmp_path / "taken_over.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(rows, "_MODULE", "taken_over")
    monkeypatch.setattr(rows, "_idle", deque())
    _, stored, faults = listed(write(tmp_path, "stream", table(IMAGES)))
    assert (stored, faults) == ([], ["[24, 24]"])  # EMFILE


def test_processes_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[Any]()

    class Counted(rows._Parser):
        def __init__(self) -> None:
            started.append(self)
            super().__init__()

    monkeypatch.setattr(rows, "_Parser", Counted)
    monkeypatch.setattr(rows, "_idle", deque())
    for n in range(3):
        container, stored, _ = listed(write(tmp_path / str(n), "stream", table(IMAGES)))
        assert container.read(stored[0].place, 10**6) == IMAGES[0]
    assert len(started) == 1
