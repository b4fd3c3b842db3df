import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.container_files import png, tar

from pleinair.tools.retrieval.containers.container import BadContainer, Fault, LocalFile, Stored
from pleinair.tools.retrieval.containers.tar import Tar


class InMemory:
    def __init__(self, data: bytes) -> None:
        self._data, self.size, self.bytes_read = data, len(data), 0

    def read(self, offset: int, length: int) -> bytes:
        self.bytes_read += length
        return self._data[offset : offset + length]

    def close(self) -> None:
        pass


def listed(data: bytes) -> tuple[dict[str, bytes], list[str]]:
    container = Tar(InMemory(data))
    files = list(container.files())
    contents = {file.name: container.read(file.place, 10**6) for file in files if isinstance(file, Stored)}
    return contents, [file.text for file in files if isinstance(file, Fault)]


LONG = "birds/" + "a" * 150 + ".png"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_read_at_their_places(kind: int) -> None:
    names = ["./a.png", "birds/b.png", "a.json", "empty.txt"]
    names += [LONG, "müller.png"] if kind != tarfile.USTAR_FORMAT else []
    files = {name: b"" if name == "empty.txt" else png() + name.encode() for name in names}
    assert listed(tar(files, kind)) == ({name.removeprefix("./"): data for name, data in files.items()}, [])


def test_a_tar_on_the_disk_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar({"a.png": png("red"), "b.png": png("blue")}))
    container = Tar(LocalFile(tmp_path / "a.tar"))
    _, second = container.files()
    assert isinstance(second, Stored)
    assert container.read(second.place, 10**6) == png("blue")
    assert container.read(second.place, 8) == png("blue")[:8]
    os.truncate(tmp_path / "a.tar", 1024)
    with pytest.raises(BadContainer, match="has changed"):
        container.read(second.place, 10**6)


def test_only_headers_are_read_to_list_a_tar() -> None:
    file = InMemory(tar({f"{n}.png": bytes(100_000) for n in range(20)}))
    assert len(list(Tar(file).files())) == 20
    assert file.bytes_read < 20 * 1024


def test_a_pax_header_gives_name_and_size() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("short.png")
        member.pax_headers = {"path": "long/wren.png", "comment": "a\nb"}
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    assert listed(data.getvalue()) == ({"long/wren.png": b"abc"}, [])


def linked() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return data.getvalue() + tar({"a.png": b"a"})


def sparse() -> bytes:
    """Build a GNU sparse file with one more block of its map, and a usual file behind it."""
    member = tarfile.TarInfo("sparse.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512) + b"x" * 512 + tar({"a.png": b"a"})


def huge(size: int) -> bytes:
    member = tarfile.TarInfo("huge.png")
    member.size = size
    return tar({"a.png": b"a"})[:1024] + member.tobuf(tarfile.GNU_FORMAT)


def endless_name() -> bytes:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**40
    return tar({"a.png": b"a"})[:1024] + member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        (
            linked()[: 4 * 512] + tar({"a.png": b"a"}),
            ["'2.png': a link", "'1.png': a link", "'6.png': a link"],
        ),
        (sparse(), ["'sparse.png': a sparse file"]),
        (
            tar([("../a.png", b"b"), ("/a.png", b"c"), ("a.png", b"a")]),
            ["'../a.png': leaves", "'/a.png': leaves"],
        ),
        (tar([("a.png", b"a"), ("a.png", b"b")]), ["'a.png': a second file of that name"]),
        (tar({"a\n.png": b"b", "a.png": b"a"}), ["'a\\n.png': a name of over"]),
        (huge(2**40), ["'huge.png': the tar ends in the middle of it"]),
        (huge(-5), ["damaged, or not a tar; the rest"]),
        (endless_name(), ["damaged, or not a tar; the rest"]),
        (tar({"a.png": b"a"})[:1024] + b"x" * 1024, ["damaged, or not a tar; the rest"]),
        (tar({"a.png": b"a", "b.png": b"b" * 600})[:2100], ["'b.png': the tar ends in the middle of it"]),
    ],
)
def test_what_cannot_be_used_is_a_fault_and_the_rest_counts(data: bytes, faults: list[str]) -> None:
    contents, texts = listed(data)
    assert contents == {"a.png": b"a"}
    assert [text[: len(fault)] for text, fault in zip(texts, faults, strict=True)] == faults


def test_what_is_no_tar_is_a_fault() -> None:
    assert listed(png() * 20) == ({}, ["not a tar, or damaged"])
    assert listed(b"") == ({}, [])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=30), st.integers(600, 4600))
def test_damage_ends_in_faults_only(offset: int, damage: bytes, end: int) -> None:
    data = bytearray(tar({"a.png": b"a", LONG: b"b", "c.png": b"c" * 700}, tarfile.PAX_FORMAT))
    data[offset : offset + len(damage)] = damage
    container = Tar(InMemory(bytes(data[:end])))
    for file in container.files():
        if isinstance(file, Stored):
            assert len(container.read(file.place, 10**6)) == file.size
