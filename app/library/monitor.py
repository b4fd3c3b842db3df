"""Changes of the configured library, noticed in the background by a server and indexed by a job.

The folders are walked through now and then, and every file's size and time compared with the index: the walk
is needed at the start in any case, works on network drives and needs no limits of the system raised, as
notifications do. A walk is followed by a pause of `_SHARE` times its length at least, so that it costs a
twentieth of one core at most. Changes are indexed when two looks in a row saw the same ones, so that a folder
that is being copied is indexed once. Not covered: libraries at URLs, and libraries that were never indexed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from subprocess import Popen, TimeoutExpired

from pleinair.app.libraries import index_folder, library_changes
from pleinair.app.library import job as jobs
from pleinair.app.paths import Paths
from pleinair.app.runs.store import Busy
from pleinair.app.settings import Settings, load
from pleinair.tools.retrieval.changes import LibraryChanges, stored_catalogue
from pleinair.tools.retrieval.roots.addresses import is_url
from pleinair.tools.types import Cancelled, NoLibrary, PleinairError, Value

_SHARE = 20  # times the length of a walk that the next one waits at least
_SHARE_UNSETTLED = 4  # the same while there are changes
_PATIENCE = 600.0  # seconds after which a library is indexed that does not come to rest
_RETRY = 600.0  # seconds after which a failed job is started again for the same changes
_OFF = 10.0  # seconds between two looks at the settings where nothing is watched
_GRACE = 5.0  # seconds that a job has to stop when the server does
_YIELD = 0.005  # seconds of a walk's pauses, in which requests are answered
_MOST_LOST = 0.5  # share of the images that may vanish without somebody's confirmation,
_FEW = 10  # or so many
_MOUNT = "If a disk is missing, mount it; until then the index keeps its images."
log = logging.getLogger(__name__)


class LibraryState(Value):
    """How a library's folders differ from its index, as a server has seen them last."""

    looked: float = 0.0  # seconds since the epoch; 0: not yet
    changes: LibraryChanges = LibraryChanges()
    message: str = ""  # of what keeps the library from being watched or indexed
    remedy: str = ""


def _start_job(places: Paths) -> Popen[bytes]:
    return jobs.start(places, "index", is_automatic=True)


class Monitor:
    """Thread that watches the library of the settings, which are read anew for each look.

    Args:
        places: of the home.
        settings: returns the settings.
        start: starts the job that indexes the library.
        clock: returns seconds, such as `time.monotonic`.
    """

    def __init__(
        self,
        places: Paths,
        settings: Callable[[], Settings] = load,
        start: Callable[[Paths], Popen[bytes]] = _start_job,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places, self._settings, self._start, self._clock = places, settings, start, clock
        self.state = LibraryState()
        self._looking = threading.Lock()
        self._closed, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._process: Popen[bytes] | None = None
        self._last, self._first_at = "", 0.0  # mark of the last changes, and when the first of them came
        self._tried, self._tried_at = "", 0.0  # mark of the changes for which a job was started

    @property
    def is_running(self) -> bool:
        """Return whether changes are noticed without a request."""
        return self._thread is not None and not self._closed.is_set()

    @property
    def note(self) -> str:
        """Return what is short of the library's index, and what is done about it; "" if nothing is."""
        state = self.state
        if not state.changes:
            return state.message
        job = jobs.current(self._places)
        goes_on = "indexing" if job and job.is_running and job.request.kind == "index" else "not indexed yet"
        return f"{state.changes.summary} since the library was indexed; {goes_on}"

    def start(self) -> None:
        """Begin to watch; the thread ends with `close`."""
        self._thread = threading.Thread(target=self._watch, name="library monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Request the end of the thread and of the job that it has started; what has been indexed stays."""
        self._closed.set()
        self._wake.set()
        if self._process and self._process.poll() is None:
            jobs.stop(self._places)

    def close(self) -> None:
        """Stop, and wait for the end of both; a job that does not end soon is terminated."""
        self.stop()
        if self._thread:
            self._thread.join()
        self.stop()  # a job that was started meanwhile
        if self._process and self._process.poll() is None:
            try:
                self._process.wait(_GRACE)
            except TimeoutExpired:
                self._process.terminate()

    def _watch(self) -> None:
        while not self._closed.is_set():
            pause = _OFF
            try:
                pause = self.look()
            except Cancelled:
                return
            except Exception:  # of a full disk or a broken plug-in, which may recover
                log.exception("The library cannot be watched.")
            self._wake.wait(pause)
            self._wake.clear()

    def look(self, *, indexes: bool = True) -> float:
        """Compare the library with its index, and start a job if it has changed and come to rest.

        Return the seconds until the next look. Without `indexes` no job is started.
        """
        with self._looking:
            started = time.monotonic()
            interval = 0.0
            try:
                settings = self._settings()
                interval = settings.library.watch
                if not (self._is_watched(settings) and (interval or not indexes)):
                    self.state = LibraryState()
                    return _OFF
                changes = library_changes(settings, self._places, self._pause)
                fault = self._index(settings, changes) if indexes else None
            except Cancelled:
                raise
            except NoLibrary as error:
                changes, fault = LibraryChanges(), PleinairError(error.message, error.remedy or _MOUNT)
            except PleinairError as error:
                changes, fault = LibraryChanges(), error
            message, remedy = (fault.message, fault.remedy) if fault else ("", "")
            self.state = LibraryState(looked=time.time(), changes=changes, message=message, remedy=remedy)
            share = _SHARE_UNSETTLED if changes else _SHARE
            return max(interval or _OFF, share * (time.monotonic() - started))

    def _is_watched(self, settings: Settings) -> bool:
        folders = settings.library.folders
        is_local = any(not is_url(folder) for folder in folders)
        return is_local and stored_catalogue(index_folder(settings, self._places)) is not None

    def _pause(self) -> None:
        if self._closed.is_set():
            raise Cancelled("stopped")
        time.sleep(_YIELD)

    def _index(self, settings: Settings, changes: LibraryChanges) -> PleinairError | None:
        """Start a job for changes that have come to rest; return what keeps it from that, or its failure."""
        now = self._clock()
        is_same, self._last = changes.mark == self._last, changes.mark
        if not changes:
            self._first_at, self._tried = now, ""
            return None
        if fault := self._loss(settings, changes):
            return fault
        if (job := jobs.current(self._places)) and job.is_running:
            return None
        if changes.mark == self._tried:
            result = job.result if job else None
            if result is None or result.ending != "failed":
                return None
            if now - self._tried_at < _RETRY:
                return PleinairError(result.message, result.remedy)
        elif not is_same and now - self._first_at < _PATIENCE:
            return None
        self._tried, self._tried_at, self._first_at = changes.mark, now, now
        with suppress(Busy):  # another server with this home was first
            self._process = self._start(self._places)
        return None

    def _loss(self, settings: Settings, changes: LibraryChanges) -> PleinairError | None:
        """Return the error of images that seem to be lost with their disk, None if there are few or none."""
        if changes.emptied:
            remedy = f"{_MOUNT} If they were deleted on purpose, leave the folder out of library.folder."
            return PleinairError(f"{changes.emptied} has no images any more.", remedy)
        catalogue = stored_catalogue(index_folder(settings, self._places))
        if catalogue and changes.removed > max(_FEW, _MOST_LOST * catalogue.count):
            removed = f"{changes.removed:,} of {catalogue.count:,} images"
            remedy = f"{_MOUNT} If they were deleted on purpose, index the library under Library → Index."
            return PleinairError(f"{removed} are no longer in the library's folders.", remedy)
        return None
