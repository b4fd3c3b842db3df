"""A job on the library in a process of its own, one at a time: index a folder, or look for duplicates.

What lasts is on disk: a job that a person has started goes on when the page is closed or the server stops,
and is shown again after. The process holds a file lock, by which others see that it lives.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from pleinair.app.engines import Watch
from pleinair.app.paths import Paths
from pleinair.app.runs.store import Busy
from pleinair.app.settings import Settings, load
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Cancelled, PleinairError, Value

T = TypeVar("T", bound=Value)
Kind = Literal["index", "duplicates"]
STEP = 0.2  # seconds between two writes of the progress
_NICE = 10  # of a job that nobody waits for
MOST_SKIPPED = 500  # files that are listed
FOLDER, LOCK, REQUEST, PROGRESS, RESULT, STOP = (
    "library-job", "lock", "request.json", "progress.json", "result.json", "stop"
)  # fmt: skip


class JobRequest(Value):
    """What a job does."""

    kind: Kind
    folder: str = ""  # to index; "": the configured library
    started: float  # seconds since the epoch
    is_automatic: bool = False  # started by the server, with less of the processor's time


class Progress(Value):
    """How far a job is."""

    title: str = "Starting"
    done: int = 0
    total: int = 0  # 0: unknown


class SkippedFile(Value):
    """File that is not a usable image."""

    id: str
    reason: str


class JobResult(Value):
    """How a job ended."""

    ending: Literal["done", "stopped", "failed"]
    message: str = ""  # of an error
    remedy: str = ""
    lines: tuple[str, ...] = ()  # what was indexed, for people
    images: int = 0
    skipped: tuple[SkippedFile, ...] = ()  # at most `MOST_SKIPPED`
    skipped_count: int = 0
    groups: int = 0  # of duplicates
    ended: float = 0.0


class Job(Value):
    """A job as it is now; without a result and not running its process has died."""

    request: JobRequest
    is_running: bool
    progress: Progress = Progress()
    result: JobResult | None = None


def current(places: Paths) -> Job | None:
    """Return the job that is running, or else the last one; None if there was none."""
    folder = places.home / FOLDER
    is_running = _is_locked(folder)  # before the result is read, which is written before the end
    request = _read(folder / REQUEST, JobRequest)
    if request is None:
        return None
    progress, result = _read(folder / PROGRESS, Progress), _read(folder / RESULT, JobResult)
    return Job(request=request, is_running=is_running, progress=progress or Progress(), result=result)


def start(
    places: Paths, kind: Kind, folder: str = "", *, is_automatic: bool = False
) -> subprocess.Popen[bytes]:
    """Start a job and return its process; raise `Busy` if one runs, `BadInput` for a folder that is none."""
    path = str(_checked_folder(folder)) if folder.strip() else ""
    home = places.home / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("A job on the library is running.", "Wait for it, or stop it.") from None
        for name in (PROGRESS, RESULT, STOP):
            (home / name).unlink(missing_ok=True)
        request = JobRequest(kind=kind, folder=path, started=time.time(), is_automatic=is_automatic)
        write_whole(home / REQUEST, request.model_dump_json().encode())
        process = subprocess.Popen(
            [sys.executable, "-m", "pleinair.app.library.job", str(places.home)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=(lock.fileno(),),  # the lock is held as long as the process lives
            start_new_session=True,  # Ctrl-C in the server's terminal does not end it
        )
    threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie stays
    return process


def stop(places: Paths) -> None:
    """Request the end of the job that is running; what it has indexed stays."""
    if _is_locked(places.home / FOLDER):
        (places.home / FOLDER / STOP).touch()


def _checked_folder(text: str) -> Path:
    """Return the folder that a person means; raise `BadInput` unless it is one, by an absolute path."""
    try:
        path = Path(text.strip()).expanduser()
        is_usable = path.is_absolute() and path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    except (RuntimeError, ValueError, OSError):  # such as of a NUL, or of a name that is too long
        is_usable = False
    if not is_usable:
        raise BadInput(
            f"folder {text.strip()[:300]!r}: must be the whole path of a folder on this machine, and readable"
        )
    return path


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


class _Report:
    """Progress of a part of a job in a file: a `StopCallback` that raises `Cancelled` when it is to stop."""

    def __init__(self, folder: Path, title: str) -> None:
        self._folder, self._title, self._last = folder, title, 0.0
        self._write(Progress(title=title))

    def __call__(self, done: int, total: int) -> None:
        self.check()
        now = time.monotonic()
        if now - self._last >= STEP or done in (0, total):
            self._write(Progress(title=self._title, done=done, total=total))
            self._last = now

    def check(self) -> None:
        if (self._folder / STOP).exists():
            raise Cancelled("stopped")

    def _write(self, progress: Progress) -> None:
        with suppress(PleinairError):  # of a full disk, which the index reports
            write_whole(self._folder / PROGRESS, progress.model_dump_json().encode(), durable=False)


def perform(places: Paths) -> None:
    """Execute the job that was requested, in the process that holds the lock."""
    folder = places.home / FOLDER
    try:
        request = JobRequest.model_validate_json((folder / REQUEST).read_bytes())
        if request.is_automatic:
            os.nice(_NICE)
        settings = load(overrides={"library.folder": request.folder} if request.folder else None)
        do = _index if request.kind == "index" else _look_for_duplicates
        result = do(settings, places, lambda title: nullcontext(_Report(folder, title)))
    except Cancelled:
        result = JobResult(ending="stopped")
    except PleinairError as error:
        result = JobResult(ending="failed", message=error.message, remedy=error.remedy)
    except Exception as error:
        result = JobResult(ending="failed", message=f"{type(error).__name__}: {error}"[:2000])
    ended = result.model_copy(update={"ended": time.time()})
    write_whole(folder / RESULT, ended.model_dump_json().encode())


def _index(settings: Settings, places: Paths, watch: Watch) -> JobResult:
    from pleinair.app.index import bring_up_to_date
    from pleinair.app.libraries import index_folder
    from pleinair.tools.retrieval.catalogue import open_catalogue
    from pleinair.tools.retrieval.manifest import load_manifest

    lines = tuple(bring_up_to_date(settings, watch))
    folder = index_folder(settings, places)
    manifest = load_manifest(folder)
    files = open_catalogue(folder / manifest.catalogue).skipped()
    skipped = [SkippedFile(id=file.id, reason=file.reason) for file in files]
    return JobResult(
        ending="done",
        lines=lines,
        images=manifest.count,
        skipped=tuple(skipped[:MOST_SKIPPED]),
        skipped_count=len(skipped),
    )


def _look_for_duplicates(settings: Settings, places: Paths, watch: Watch) -> JobResult:
    from pleinair.app.index import open_indexed
    from pleinair.app.libraries import index_folder
    from pleinair.app.library.duplicates import find_duplicates, save_duplicates

    library, _, index = open_indexed(settings, places, watch)
    with watch("Comparing images") as on_progress:
        duplicates = find_duplicates(library, index, on_progress)
    shared = replace(places, vectors=settings.cluster.vectors_url)
    save_duplicates(index_folder(settings, shared), duplicates)
    return JobResult(ending="done", images=len(index), groups=len(duplicates.groups))


if __name__ == "__main__":
    perform(Paths(Path(sys.argv[1])))
