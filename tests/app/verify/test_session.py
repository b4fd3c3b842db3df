"""The command: results are stored as they come, a second call goes on, and faults are results."""

from __future__ import annotations

import json
import os
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.verify.child import measure
from pleinair.app.verify.plan import CannotMeasure, Part, Plan, make_parts
from pleinair.app.verify.privacy import Scrubber
from pleinair.app.verify.session import Report, Result, measure_parts, opened
from pleinair.tools.callbacks import no_callback
from pleinair.tools.types import BadInput, PleinairError

MACHINE, FAISS = Part("machine", "machine"), Part("faiss", "faiss")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.fixture
def new_children() -> Callable[[], list[psutil.Process]]:
    """Return a function that lists the children since now: earlier tests may have left an image decoder."""
    earlier = set(psutil.Process().children())
    return lambda: [child for child in psutil.Process().children() if child not in earlier]


def run(*words: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["verify", "--out", "report", *words])
    path = Path("report/verify.json")
    return done.exit_code, json.loads(path.read_text("utf-8"))["results"] if path.is_file() else {}


def make_report(folder: Path, **options: Any) -> Report:
    work = folder / "work"
    work.mkdir(exist_ok=True, parents=True)
    plan = Plan(work=str(work), out=str(folder), **{"tiny": True, "repeats": 1, **options})
    return Report(folder, plan, "pleinair verify", scrubber=Scrubber())


def test_the_command_writes_a_report_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--tiny", "--repeats", "1", "--only", "faiss", "--only", "times-omnigen"]
    words += ["--profiles", "omnigen"]
    monkeypatch.setenv("MY_TOKEN", "tiny sizes on the")  # a secret that a text of the report has
    code, results = run(*words)
    endings = {name: result["ending"] for name, result in results.items()}
    assert (code, endings) == (0, {"machine": "done", "faiss": "done", "times-omnigen": "skipped"})
    assert [row["batch"] for row in results["faiss"]["rows"]] == [1, 32]
    assert all(row["equal_ids"] == row["recall_at_10"] == 1 for row in results["faiss"]["rows"])
    assert {"torch", "diffusers", "faiss_build", "memory_gib"} <= results["machine"]["rows"][0].keys()
    page = Path("report/verify.md").read_text("utf-8")
    assert "Shitao/OmniGen" in page
    with zipfile.ZipFile("report/verify.zip") as archive:
        assert sorted(archive.namelist()) == ["verify.json", "verify.md"]
        assert archive.read("verify.md").decode() == page
    assert str(folder) not in page + json.dumps(results)
    before = results["faiss"]["seconds"]
    _, results = run(*words)
    assert results["faiss"]["seconds"] == before  # not measured again


@pytest.mark.parametrize("part", [FAISS, Part("times-klein", "times", "klein")])
def test_without_a_gpu_what_needs_one_cannot_be_measured(folder: Path, part: Part) -> None:
    plan = make_report(folder, tiny=False).plan
    with pytest.raises(CannotMeasure, match="no CUDA GPU"):
        list(measure(part, plan, no_callback))


def test_results_of_other_sizes_are_not_continued(folder: Path) -> None:
    make_report(Path("report").absolute(), tiny=False).save()
    assert run("--tiny", "--only", "faiss")[0] == 2


@pytest.mark.parametrize(
    "words",
    [["--only", "nonsense"], ["--profiles", "gpt_image"], ["--library", "nowhere"], ["--out", " "]],
    ids=" ".join,
)
def test_invalid_options_write_nothing(words: list[str]) -> None:
    assert run(*words)[0] == 2
    assert not list(Path().iterdir())


def test_a_process_that_is_killed_is_a_result_and_the_next_part_begins(
    folder: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    report = make_report(folder)

    def kill(name: str, text: str) -> None:
        if (name, text) == ("faiss", "32 queries a call"):
            (child,) = new_children()
            child.send_signal(signal.SIGKILL)

    measure_parts(report, [FAISS, Part("times-omnigen", "times", "omnigen")], 600, kill)
    killed = report.results["faiss"]
    assert killed.ending == "crashed" and "SIGKILL" in killed.reason
    assert [row["batch"] for row in killed.rows] in ([1], [1, 32])
    assert report.results["times-omnigen"].ending == "skipped"
    assert not report.is_kept(FAISS)


def test_an_interruption_keeps_what_is_there(
    folder: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    report = make_report(folder)

    def interrupt(name: str, text: str) -> None:
        if (name, text) == ("faiss", "32 queries a call"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_parts(report, [MACHINE, FAISS], 600, interrupt)
    assert not new_children()
    stopped = report.results["faiss"]
    assert (stopped.ending, stopped.reason, len(stopped.rows)) == ("stopped", "interrupted", 1)
    stored = json.loads((folder / "verify.json").read_text("utf-8"))["results"]
    assert stored["machine"]["ending"] == "done"


def test_a_part_in_progress_ends_with_the_time_limit(
    folder: Path, new_children: Callable[[], list[psutil.Process]]
) -> None:
    report = make_report(folder)
    measure_parts(report, [MACHINE, FAISS], 0.2, lambda name, text: None)
    assert {result.ending for result in report.results.values()} == {"stopped"}
    assert "time limit" in report.results["machine"].reason
    assert not new_children()
    with opened(folder, report.plan, "", Scrubber()) as again:
        assert not any(map(again.is_kept, make_parts(report.plan)))


def test_lack_of_memory_is_kept_and_a_fault_is_not(folder: Path) -> None:
    report = make_report(folder)
    report.results["faiss"] = Result("out of memory", "would not fit")
    measure_parts(report, [FAISS], 600, lambda name, text: None)
    assert report.results["faiss"].ending == "out of memory"
    report.results["faiss"] = Result("failed")
    assert not report.is_kept(FAISS)


def test_results_of_another_machine_are_not_continued(folder: Path) -> None:
    report = make_report(folder)
    report.results["machine"] = Result("done", rows=[{"gpu": "NVIDIA H100", "torch": "1.0"}])
    with pytest.raises(BadInput, match="NVIDIA H100"):
        measure_parts(report, [MACHINE], 600, lambda name, text: None)


def test_two_processes_do_not_share_a_folder(folder: Path) -> None:
    plan = make_report(folder).plan
    with opened(folder, plan, "", Scrubber()), pytest.raises(PleinairError, match="another"):
        with opened(folder, plan, "", Scrubber()):
            pass


@pytest.mark.parametrize("text", ["", "[]", '{"results": {"faiss": 1}}', '{"format": 9, "results": {}}'])
def test_a_file_that_is_no_report_is_refused(folder: Path, text: str) -> None:
    (folder / "verify.json").write_text(text, "utf-8")
    with pytest.raises(BadInput, match=r"verify\.json"):
        with opened(folder, make_report(folder).plan, "", Scrubber()):
            pass
    assert os.listdir(folder) == ["verify.json", "work"] or set(os.listdir(folder)) == {"verify.json", "work"}
