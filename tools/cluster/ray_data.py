"""Vectors of a library's images, computed by Ray Data on the nodes of a cluster.

A row of the data set is a share: `_BLOCKS` blocks of items, so that its batches, and its vectors to the bit,
are those of one process with as many threads. Actors, which load the encoder once, return the shares' vectors
to this process, which writes them beside the index. So the nodes need no folder of their own; but they read
the images: a library has to be at the same path on every node, or at a URL, as do the encoder's files.

A share whose node dies is computed on another one. If this process is stopped or killed, the next call goes
on with the shares that are missing. Not covered: an image that occurs in two shares is embedded in both, and
the vector of either counts; they differ by rounding at most.
"""

from __future__ import annotations

import logging
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Any

from pleinair.tools.arguments import checked
from pleinair.tools.cluster.ray_link import connect
from pleinair.tools.deadline import check_deadline
from pleinair.tools.retrieval.embedding import embed_library
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import READING
from pleinair.tools.retrieval.roots.addresses import is_url
from pleinair.tools.retrieval.shards import Embedded, parse_shard, shard_bytes, store_shard
from pleinair.tools.types import BadInput, Encoder, PleinairError

_BLOCKS = 4  # of a share, which is what a killed node or process loses at most
_AT_ONCE = 4000  # shares in one data set: a million images, 300 MB in the object stores
_POLL = 0.5  # seconds between two looks at whether to stop
_PATIENCE = 120.0  # seconds without a result after which an actor must be alive
_REMEDY = "Free or add nodes, or lower cluster.index_cpus or cluster.index_gpus."
_SHARED = "Put the library at the same path on every node (NFS), or at a URL such as s3://…"


@dataclass(frozen=True)
class EncoderChoice:
    """Backend of an encoder, which an actor builds in its own process."""

    backend: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShareTask:
    """What an actor has to know."""

    encoder: EncoderChoice
    encoder_id: str
    addresses: Mapping[str, str]
    max_pixels: int
    batch_size: int
    reading: int = READING


@dataclass(frozen=True)
class RayEmbedding:
    """Computation of missing vectors on a cluster, for `build_index(embed=…)`.

    Args:
        address: of the cluster, as `ray_link.connect` takes it.
        encoder: that which the index is of.
        actors: processes that embed, 0: as many as the cluster has room for.
        cpus: of the cluster's CPUs, for each actor; also its number of threads, at least one.
        gpus: of the cluster's GPUs, for each actor; a fraction shares one.
        patience: seconds without a result after which an actor must be alive.
    """

    address: str
    encoder: EncoderChoice
    actors: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    patience: float = _PATIENCE

    def __call__(
        self,
        library: Library,
        encoder: Encoder,
        embedded: Embedded,
        shards: Path,
        *,
        batch_size: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Complete `embedded` as `embed_library` does, and write a shard into `shards` for each share.

        Files that a node cannot read are read by this process.

        Raises:
            BadInput: no cluster answers, or a node has not the library or the encoder.
            PleinairError: Ray is missing, or has had no process for the index for some time.
        """
        task = ShareTask(self.encoder, encoder.id, library.addresses, library.max_pixels, batch_size)
        rows = _new_shares(library, embedded, task)
        progress = _Progress(len(library.items), on_progress)
        while segment := list(islice(rows, _AT_ONCE)):
            progress.waiting += sum(row["count"] for row in segment)
            with closing(self._results(segment)) as results:
                for result in results:
                    if result is not None:
                        _store(result, embedded, shards, library.max_pixels)
                    progress.show(result["count"] if result else 0)
        embed_library(library, encoder, embedded, shards, batch_size=batch_size, on_progress=on_progress)

    def _results(self, rows: list[dict[str, Any]]) -> Generator[dict[str, Any] | None, None, None]:
        """Yield the results of shares in any order, and None while none comes; raise what failed."""
        ray, last = connect(self.address), time.monotonic()
        for result in _polled(lambda: self._data(ray, rows).iter_rows()):
            if result is None:
                self._require_actor(time.monotonic() - last)
            else:
                last = time.monotonic()
                if result["fault"]:
                    raise BadInput(result["fault"], result["remedy"])
            yield result

    def _data(self, ray: Any, rows: list[dict[str, Any]]) -> Any:
        """Return the data set of the results; computed when it is iterated."""
        import ray.data as ray_data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray_data.DataContext.get_current().enable_progress_bars = False
        count = min(self.actors or self._room(ray), len(rows))
        return ray_data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ShareActor,
            batch_size=1,
            compute=ray_data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
            num_cpus=self.cpus,
            num_gpus=self.gpus or None,
        )

    def _room(self, ray: Any) -> int:
        """Return how many actors the cluster has room for, at least one: it may be growing."""
        resources, needs = ray.cluster_resources(), {"CPU": self.cpus, "GPU": self.gpus}
        return max(1, min(int(resources.get(name, 0) / need) for name, need in needs.items() if need))

    def _require_actor(self, waited: float) -> None:
        """Raise `PleinairError` if no actor is alive after a long wait: Ray itself waits for ever."""
        if waited < self.patience:
            return
        import ray
        from ray._private.state import actors

        job = ray.get_runtime_context().get_job_id()
        ours = [
            actor
            for actor in actors().values()
            if actor["JobID"] == job and ShareActor.__name__ in actor["ActorClassName"]
        ]
        if any(actor["State"] == "ALIVE" for actor in ours):
            return
        has = ", ".join(f"{amount:g} {name}" for name, amount in self._amounts(ray))
        needs = f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
        text = f"Ray has had no process for the index for {waited:.0f} s"
        raise PleinairError(f"{text}: one needs {needs}, the cluster has {has}.", _REMEDY)

    @staticmethod
    def _amounts(ray: Any) -> Iterator[tuple[str, float]]:
        resources = ray.cluster_resources()
        return ((name, resources.get(name, 0)) for name in ("CPU", "GPU"))


class _Progress:
    """Progress in images: those with a vector, those that are computed, and the total."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._total, self._on_progress, self.waiting = total, on_progress, 0

    def show(self, done: int) -> None:
        """Count images that are done; the callback may raise to stop."""
        check_deadline()
        self.waiting -= done
        self._on_progress(self._total - self.waiting, self._total)


def _new_shares(library: Library, embedded: Embedded, task: ShareTask) -> Iterator[dict[str, Any]]:
    """Yield a row for each share of which some items have no vector, with the task and those items."""
    items, size = iter(library.items.values()), _BLOCKS * task.batch_size
    while share := list(islice(items, size)):
        if new := [item for item in share if embedded.file(item) is None]:
            yield {"count": len(new), "share": pickle.dumps((task, new))}


def _store(result: Mapping[str, Any], embedded: Embedded, shards: Path, max_pixels: int) -> None:
    """Write the shard of a result, and add what it has."""
    shard = parse_shard(result["shard"])
    if shard is None:
        raise PleinairError("A node returned vectors that cannot be read.", "Run the command again.")
    store_shard(shards, result["shard"])
    embedded.add(shard, max_pixels)


def _polled(rows: Callable[[], Any]) -> Generator[Any, None, None]:
    """Yield the rows of an iterator, which a thread reads, and None after each wait of `_POLL` seconds.

    Whoever closes it stops the thread after its next row.
    """
    results, is_closed = SimpleQueue[tuple[Any, BaseException | None]](), threading.Event()
    threading.Thread(target=_read, args=(rows, results, is_closed), name="ray-data", daemon=True).start()
    try:
        while True:
            try:
                row, error = results.get(timeout=_POLL)
            except Empty:
                yield None
                continue
            if error is not None:
                raise _explained(error) from error
            if row is None:
                return
            yield row
    finally:
        is_closed.set()


def _read(rows: Callable[[], Any], results: SimpleQueue[Any], is_closed: threading.Event) -> None:
    """Queue rows, each with None, and at the end None or an error."""
    try:
        for row in rows():
            results.put((row, None))
            if is_closed.is_set():
                return
        results.put((None, None))
    except BaseException as error:  # raised by the thread that reads the queue
        results.put((None, error))


def _explained(error: BaseException) -> BaseException:
    """Return an error of Ray as a `PleinairError`, any other as it is."""
    if "ray" not in sys.modules:
        return error
    from ray.exceptions import RayError

    cause = error.__cause__ if isinstance(error.__cause__, RayError) else error
    if not isinstance(cause, RayError):
        return error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return PleinairError(
        f"The index stopped on the cluster: {lines[-1][:400]}", "Run the command again: it goes on."
    )


class ShareActor:
    """Process of the cluster that embeds shares, with an encoder that it loads once."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the shard of a share, or what this node lacks."""
        result = {"count": int(batch["count"][0]), "shard": b"", "fault": "", "remedy": ""}
        try:
            result["shard"] = self._embed(*pickle.loads(batch["share"][0]))
        except PleinairError as error:
            text = f"On the node {socket.gethostname()}: {error.message}"
            result |= {"fault": text, "remedy": error.remedy}
        return {name: [value] for name, value in result.items()}

    def _embed(self, task: ShareTask, items: list[Item]) -> bytes:
        if self._encoder is None:
            _require_present(task)
            self._encoder = checked("encoder", task.encoder.backend, task.encoder.arguments)(
                **task.encoder.arguments
            )
        if self._encoder.id != task.encoder_id:
            text = f"the encoder is {self._encoder.id}, not {task.encoder_id}."
            raise BadInput(text, "Copy the same weights to the same path on every node.")
        library, embedded = Library(task.addresses, task.max_pixels), Embedded()
        library.items = MappingProxyType({item.id: item for item in items})
        embed_library(
            library, self._encoder, embedded, None, batch_size=task.batch_size, on_progress=lambda *_: None
        )
        files = [file for file in embedded.files.values() if file.sha256]
        if not files and len(items) >= task.batch_size:
            text = f"none of {len(items)} images can be opened, such as `{items[0].id}`."
            raise BadInput(text, _SHARED)
        return shard_bytes(task.encoder_id, task.max_pixels, files, embedded.vectors)


def _require_present(task: ShareTask) -> None:
    """Raise `BadInput` if this node has not the library's folders, or reads images otherwise."""
    for address in task.addresses.values():
        if not is_url(address) and not Path(address).exists():
            raise BadInput(f"there is no {address}.", _SHARED)
    if task.reading != READING:
        raise BadInput(
            "its version of pleinair reads images otherwise.", "Install the same one on every node."
        )
