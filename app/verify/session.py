"""A measurement in a folder: its results, stored as they come, and the process that measures.

A second call with the same folder goes on: parts that are done, or ran out of memory, are not measured again.
Not covered: results of two machines in one folder, which is refused.
"""

from __future__ import annotations

import json
import signal
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from multiprocessing.connection import Pipe
from pathlib import Path
from time import monotonic
from typing import Any

from filelock import FileLock, Timeout

from pleinair.app.runs.store import Busy
from pleinair.app.verify.machine import SAME
from pleinair.app.verify.plan import Part, Plan, Row
from pleinair.app.verify.privacy import Scrubber
from pleinair.app.verify.report import write_page
from pleinair.tools.child_process import ChannelClosed, ChildProcess
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

FORMAT = 1
DATA, PAGE, ARCHIVE = "verify.json", "verify.md", "verify.zip"
KEPT = ("done", "out of memory")  # endings that are not measured again
_POLL = 0.5  # seconds
_EXIT_TIME = 10.0  # seconds between the end of the pipe and the end of the process

OnProgress = Callable[[str, str], None]  # receives a part's name, and what is being done or how it ended


@dataclass
class Result:
    """What is known about a part: how it ended, why, its rows, and the seconds that it took."""

    ending: str = "stopped"  # "done", "out of memory", "skipped", "failed", "crashed" or "stopped"
    reason: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


@dataclass
class Report:
    """The results in a folder, by part."""

    folder: Path
    plan: Plan
    command: str
    results: dict[str, Result] = field(default_factory=dict)
    scrubber: Scrubber = field(default_factory=Scrubber)

    def save(self) -> None:
        """Write `verify.json`, `verify.md` and, with the images, `verify.zip`, without private data."""
        data = {
            "format": FORMAT,
            "command": self.command,
            "date": datetime.now(UTC).date().isoformat(),
            "tiny": self.plan.tiny,
            "results": {name: asdict(result) for name, result in self.results.items()},
        }
        clean = self.scrubber.clean(data)
        files = {
            DATA: (json.dumps(clean, indent=1, ensure_ascii=False) + "\n").encode(),
            PAGE: write_page(clean).encode(),
        }
        for name, content in files.items():
            write_whole(self.folder / name, content)
        files |= {path.name: path.read_bytes() for path in sorted(self.folder.glob("images-*.png"))}
        write_whole(self.folder / ARCHIVE, _archive(files))

    def is_kept(self, part: Part) -> bool:
        """Return whether a part need not be measured again; the machine always is."""
        result = self.results.get(part.name)
        return part.kind != "machine" and result is not None and result.ending in KEPT

    @property
    def machine(self) -> Row:
        """Return the facts of the machine; none before they are measured."""
        rows = self.results["machine"].rows if "machine" in self.results else []
        return rows[0] if rows else {}


def _archive(files: Mapping[str, bytes]) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()


@contextmanager
def opened(folder: Path, plan: Plan, command: str, scrubber: Scrubber) -> Iterator[Report]:
    """Yield the report in a folder, which no other process may use meanwhile.

    Raises:
        BadInput: the folder has other files of that name, or results of tiny sizes and this call's are not.
        Busy: another process measures there.
    """
    Path(plan.work).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(plan.work) / "lock", timeout=0):
            yield Report(folder, plan, command, _read(folder / DATA, plan), scrubber)
    except Timeout:
        raise Busy(f"another `pleinair verify` measures in {folder}") from None


def _read(path: Path, plan: Plan) -> dict[str, Result]:
    if not path.is_file():
        return {}
    remedy = "Choose another folder by --out, or delete this one."
    try:
        data = json.loads(path.read_text("utf-8"))
        results = {name: Result(**result) for name, result in data["results"].items()}
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path}: not a report of `pleinair verify`", remedy) from error
    if data.get("format") != FORMAT or data.get("tiny") != plan.tiny:
        raise BadInput(f"{path}: of another version, or of other sizes (--tiny)", remedy)
    return results


def measure_parts(report: Report, parts: Sequence[Part], seconds: float, on_progress: OnProgress) -> None:
    """Measure the parts that are not known yet, and store each as it ends.

    Args:
        report: what is known; changed and saved.
        parts: the machine first.
        seconds: after which no part is begun, and the one in progress is stopped.
        on_progress: receives notes.

    Raises:
        BadInput: the folder has results of another machine or other versions.
        KeyboardInterrupt: what was measured until then is stored.
    """
    deadline, before, child = monotonic() + seconds, report.machine, None
    try:
        for part in parts:
            if report.is_kept(part):
                on_progress(part.name, f"{report.results[part.name].ending} before")
                continue
            result = Result(reason=f"the time limit of {seconds / 60:.0f} minutes")
            report.results[part.name] = result
            if monotonic() < deadline:
                child = child if child and child.alive else _Child(report.plan)
                _measure(child, part, result, deadline, on_progress)
            report.save()
            on_progress(part.name, f"{result.ending}{f': {result.reason}' if result.reason else ''}")
            if child and (result.ending != "done" or not report.plan.tiny):
                child.close()  # a fault may have spoiled its CUDA context; else memory is measured from zero
            if part.kind == "machine":
                _require_same(before, report.machine)
    finally:
        if child:
            child.close()


def _measure(child: _Child, part: Part, result: Result, deadline: float, on_progress: OnProgress) -> None:
    """Measure a part in the child process and fill in its result; an interrupted part keeps its rows."""
    started, reason = monotonic(), result.reason
    result.reason = "interrupted"
    try:
        for kind, *values in child.messages(part, deadline):
            if kind == "row":
                result.rows.append(values[0])
            elif kind == "note":
                on_progress(part.name, values[0])
            else:
                result.ending, result.reason = values
                return
        result.reason = reason
    except ChannelClosed:
        result.ending, result.reason = "crashed", child.exit_cause()
    finally:
        result.seconds = round(monotonic() - started, 3)


def _require_same(before: Row, now: Row) -> None:
    if changed := [name for name in SAME if before and now and before.get(name) != now.get(name)]:
        texts = (f"{name} {before.get(name)} before, {now.get(name)} now" for name in changed)
        raise BadInput(
            f"The report is of another machine or of other versions: {'; '.join(texts)}",
            "Choose another folder by --out.",
        )


class _Child(ChildProcess):
    """The process that measures, and the pipe to it; it prints into `log.txt` of the work folder."""

    def __init__(self, plan: Plan) -> None:
        self._pipe, theirs = Pipe()
        with (Path(plan.work) / "log.txt").open("ab") as log:
            super().__init__(
                "pleinair.app.verify.child", self._pipe, theirs, asdict(plan), stdout=log, stderr=log
            )

    def messages(self, part: Part, deadline: float) -> Iterator[tuple[Any, ...]]:
        """Yield what the process sends about a part, until the deadline; raise `ChannelClosed` if it dies."""
        try:
            self._pipe.send(asdict(part))
            while monotonic() < deadline:
                if self._pipe.poll(min(_POLL, max(0.0, deadline - monotonic()))):
                    yield self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ChannelClosed from error

    def exit_cause(self) -> str:
        """Describe how the process ended."""
        code = self.exit_code(_EXIT_TIME)
        if code is None or code >= 0:
            return f"its process ended with status {code}"
        name = signal.Signals(-code).name
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{memory}"
