"""A job on the library: in a process of its own, one at a time, stopped on request, visible to all."""

import fcntl
import time
from pathlib import Path

import pytest

from pleinair.app.api import home
from pleinair.app.library import job as jobs
from pleinair.app.runs.store import Busy
from pleinair.tools.types import BadInput


def ended() -> jobs.Job:
    """Wait for the end of the job."""
    while not (job := jobs.current(home())) or job.is_running:
        time.sleep(0.05)
    return job


def test_a_folder_is_indexed_by_a_process(shelf: Path) -> None:
    assert jobs.current(home()) is None
    folder = shelf / "a folder"
    folder.mkdir()
    (folder / "1.png").write_bytes((shelf / "library" / "1.png").read_bytes())
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    jobs.start(home(), "index", f" {folder} ")
    job = ended()
    assert job.request.folder == str(folder) and job.result
    assert (job.result.ending, job.result.images, job.result.skipped_count) == ("done", 1, 1)
    assert job.result.skipped[0].id == "damaged.png" and job.result.skipped[0].reason
    assert any(line.startswith("1 image of ") for line in job.result.lines)


def test_one_job_at_a_time(shelf: Path) -> None:
    folder = home().home / jobs.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / jobs.LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="running"):
            jobs.start(home(), "duplicates")


def test_a_job_stops_on_request_and_explains_faults(shelf: Path) -> None:
    def requested(kind: jobs.Kind, folder: str = "") -> jobs.JobResult:
        place = home().home / jobs.FOLDER
        request = jobs.JobRequest(kind=kind, folder=folder, started=0.0)
        (place / jobs.REQUEST).write_text(request.model_dump_json(), "utf-8")
        (place / jobs.RESULT).unlink(missing_ok=True)
        jobs.perform(home())
        job = jobs.current(home())
        assert job and job.result and not job.is_running
        return job.result

    (shelf / "empty").mkdir()
    fault = requested("index", str(shelf / "empty"))
    assert fault.ending == "failed" and "No images in" in fault.message
    done = requested("duplicates")
    assert (done.ending, done.images, done.groups) == ("done", 9, 1)
    (home().home / jobs.FOLDER / jobs.STOP).touch()
    assert requested("duplicates").ending == "stopped"


def test_a_process_that_died_is_shown_as_interrupted(shelf: Path) -> None:
    (home().home / jobs.FOLDER / jobs.RESULT).unlink(missing_ok=True)
    job = jobs.current(home())
    assert job and not job.is_running and job.result is None


@pytest.mark.parametrize(
    "text",
    ["library", "../library", "{}/absent", "{}/library/1.png", "{}\0", "/" + "x" * 5000, "~nobody-here/x"],
)
def test_what_is_no_folder_is_refused(shelf: Path, text: str) -> None:
    before = jobs.current(home())
    with pytest.raises(BadInput, match="must be the whole path of a folder"):
        jobs.start(home(), "index", text.format(shelf))
    assert jobs.current(home()) == before
