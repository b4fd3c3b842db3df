"""Indexes by Ray Data on a real cluster of three nodes: those of one process, also when killed on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest
from support.ray_cluster import ENVIRONMENT, RayCluster, ray_cluster
from support.tiny_images import write_library, write_profile

from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import load
from pleinair.tools.retrieval.shards import read_shard
from pleinair.tools.types import BadInput

MANY, FEW = 50_000, 5_000  # images
SOON = 600.0  # seconds that a test waits for what must come
BUILD = """
import contextlib, json, sys
from pleinair.app.index import bring_up_to_date
from pleinair.app.settings import load

@contextlib.contextmanager
def watch(title):
    def show(done, total):
        if title == "Indexing images":
            sys.stderr.write(f"progress: [{done}, {total}]\\n")
            sys.stderr.flush()
    yield show

for line in bring_up_to_date(load(sys.argv[1], json.loads(sys.argv[2])), watch):
    print(line)
"""


class Place:
    """Folder with a profile, libraries, and a home for each way to build an index."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.profile = folder, write_profile(folder)

    def start(self, library: Path, home: str, address: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start a build, whose progress is on its standard error."""
        choice = {"library.folder": str(library), "cluster.ray": address, **options}
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, str(self.profile), json.dumps(choice)],
            env=os.environ | ENVIRONMENT | {"PLEINAIR_HOME": str(self.folder / home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, library: Path, home: str, address: str = "", **options: Any) -> None:
        """Build an index to its end."""
        output, errors = (process := self.start(library, home, address, **options)).communicate(timeout=SOON)
        assert process.returncode == 0, errors[-3000:]
        assert "are indexed" in output

    def index(self, home: str) -> Path:
        (manifest,) = (self.folder / home).rglob("manifest.json")
        return manifest.parent

    def shards(self, home: str) -> list[Path]:
        return list((self.folder / home).rglob("shards/*.npz"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2, cpus=1) as cluster:
        yield cluster


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_many_images_have_the_index_of_one_process_byte_for_byte(place: Place, cluster: RayCluster) -> None:
    library = write_library(place.folder / "many", MANY)
    place.build(library, "one")
    place.build(library, "ray", cluster.address)
    one, ray = place.index("one"), place.index("ray")
    assert (one / "manifest.json").read_bytes() == (ray / "manifest.json").read_bytes()
    manifest = json.loads((one / "manifest.json").read_text())
    assert (manifest["count"], manifest["skipped"]) == (MANY - 1, 2)
    for name in manifest["files"]:
        assert (one / name).read_bytes() == (ray / name).read_bytes()
    assert not place.shards("ray")


def test_a_killed_build_goes_on_without_a_node_and_computes_nothing_again(
    place: Place, cluster: RayCluster
) -> None:
    library = write_library(place.folder / "few", FEW)
    place.build(library, "alone")
    process = place.start(library, "killed", cluster.address)
    until(lambda: len(place.shards("killed")) >= 3 or process.poll() is not None)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    ids = [
        file.id
        for path in place.shards("killed")
        if (shard := read_shard(path))
        for file in [*(file for file, _ in shard.files), *shard.skipped]
    ]
    assert 0 < len(ids) == len(set(ids)) < FEW
    process = place.start(library, "killed", cluster.address)
    stderr = cast(IO[str], process.stderr)  # Ray writes lines of its own there
    first = next(line for line in stderr if line.startswith("progress: ")).removeprefix("progress: ")
    before = len(place.shards("killed"))
    until(lambda: len(place.shards("killed")) > before or process.poll() is not None)
    assert process.poll() is None
    cluster.kill_node(0)
    try:
        output, errors = process.communicate(timeout=SOON)
    finally:
        cluster.add_node()
    assert process.returncode == 0, errors[-3000:]
    assert json.loads(first) == [len(ids), FEW + 1]
    alone, killed = place.index("alone"), place.index("killed")
    assert (alone / "manifest.json").read_bytes() == (killed / "manifest.json").read_bytes()


HOPELESS = """
import sys
from pathlib import Path
from pleinair.app.engines import build_encoder
from pleinair.app.settings import load
from pleinair.tools.cluster.ray_data import EncoderChoice, RayEmbedding
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.shards import Embedded

settings = load(sys.argv[1])
choice = EncoderChoice(settings.encoder.backend, settings.encoder.arguments)
embed = RayEmbedding(sys.argv[3], choice, cpus=8, patience=3)
library = Library.open(sys.argv[2])
embed(library, build_encoder(settings), Embedded(), Path(sys.argv[4]), batch_size=64, on_progress=print)
"""


def test_a_cluster_without_room_is_named_instead_of_waited_for(place: Place, cluster: RayCluster) -> None:
    library = write_library(place.folder / "small", 100)
    arguments = [str(place.profile), str(library), cluster.address, str(place.folder)]
    environment = os.environ | ENVIRONMENT
    process = subprocess.run(
        [sys.executable, "-c", HOPELESS, *arguments], env=environment, capture_output=True, text=True
    )
    reason = "Ray has had no process for the index for .* s: one needs 8 CPU, the cluster has 2 CPU, 0 GPU"
    assert re.search(reason, process.stderr), process.stderr[-2000:]


def test_no_cluster_is_refused_within_seconds_and_nothing_is_written(place: Place) -> None:
    settings = load(str(place.profile), {"library.folder": str(place.folder), "cluster.ray": "127.0.0.1:1"})
    start = time.monotonic()
    with pytest.raises(BadInput, match=r"cluster\.ray: no Ray cluster answers at 127\.0\.0\.1:1"):
        list(bring_up_to_date(settings))
    assert time.monotonic() - start < 50  # Ray itself waits for a minute, and then ends the process
