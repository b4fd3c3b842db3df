"""The command line: output, exit codes, and no heavy imports at startup."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.api import home, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.trace.view import view_of
from pleinair.tools.types import PleinairError

HEAVY = (
    "torch",
    "langgraph",
    "langchain_core",
    "diffusers",
    "transformers",
    "faiss",
    "open_clip",
    "numpy",
    "PIL",
)
COMMANDS = [
    "draw",
    "batch",
    "chat",
    "index",
    "doctor",
    "runs",
    "trace",
    "runs list",
    "runs show",
    "runs resume",
    "runs cancel",
    "models",
    "models list",
    "models check",
    "models pull",
]


def call(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def test_draw_prints_paths_to_standard_output_and_steps_to_standard_error(place: Path) -> None:
    result = call("draw", "two things", "--seed", "7")
    assert result.exit_code == 0
    picture, sidecar = (Path(line) for line in result.stdout.splitlines())
    assert picture.suffix == ".png" and picture.exists()
    assert sidecar.suffix == ".json" and sidecar.exists()
    for words in (
        "seed 7",
        "second thing missing 90%",
        "Add reference for",
        "accepted: every concept is present",
    ):
        assert words in result.stderr
    assert "\x1b[" not in result.output


def test_draw_prints_its_result_as_json(place: Path) -> None:
    answer = json.loads(call("draw", "two things", "--seed", "7", "--json").stdout)
    assert (answer["ending"], answer["seed"]) == ("accepted", 7)
    assert Path(answer["picture"]).exists()


def test_a_dash_reads_the_prompt_from_standard_input(place: Path) -> None:
    assert call("draw", "-", stdin="two things").exit_code == 0
    assert json.loads(run_table().newest(1)[0].request_json)["prompt"] == "two things"


def test_a_remedy_is_on_a_line_of_its_own(place: Path) -> None:
    result = call("runs", "show", "none")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "pleinair: run 'none': there is none",
        "          `pleinair runs list` shows them.",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "mllm.satisfied=false", "--max-attempts", "1"], 3, "stopped: the limit of 1 attempt is"),
        (["--graph", "direct"], 0, "unchecked: this graph does not check its image"),
        (["--graph", "imagerag"], 0, "unchecked: this graph does not check its image"),
        (["--graph", "crossmodal"], 0, "unchecked: this graph does not check its image"),
        (["--graph", "realrag", "--set", "realrag.method=zero"], 0, "unchecked: this graph does not check"),
        (["--graph", "imagerag", "--max-attempts", "1"], 3, "stopped: the limit of 1 attempt is reached"),
        (["--set", "mllm.says=No."], 4, "refused: No."),
        (["--set", "generator.fault=boom"], 5, "failed: RuntimeError: boom"),
        (["--seed", "-1"], 2, "pleinair: seed -1: must be 0 to"),
        (["--graph", "none"], 2, "pleinair: graph 'none': unknown; accepted: "),
        (["--set", "retrieval.k=0"], 2, "pleinair: retrieval.k = 0"),
        (["--set", "nonsense"], 2, "must be key=value"),
        (["--max-attempts", "0"], 2, "no image could be generated"),
        (["--library", "/nowhere"], 2, "no such folder"),
        (["--paws", "4"], 2, "No such option"),
    ],
)
def test_each_ending_has_its_exit_code_and_message(
    place: Path, arguments: list[str], code: int, message: str
) -> None:
    result = call("draw", "two things", *arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [
        ("draw", "x"),
        ("index",),
        ("doctor",),
        ("chat",),
        ("settings",),
        ("models", "check", "pocket"),
        ("trace", "fork", "last", "--at", "begin"),
        ("train", "adaptor", "--library", "x", "--out", "y"),
    ],
)
def test_every_command_refuses_what_is_no_setting(place: Path, command: tuple[str, ...]) -> None:
    result = call(*command, "--set", "nonsense")
    assert (result.exit_code, "must be key=value" in result.stderr) == (2, True), result.output


def test_options_set_settings(place: Path) -> None:
    call(
        "draw",
        "x",
        "--max-attempts",
        "2",
        "--max-seconds",
        "60",
        "--library",
        str(place / "library"),
        "--out",
        "o",
    )
    request = json.loads(run_table().newest(1)[0].request_json)
    assert (request["settings"]["budget"]["attempts"], request["settings"]["budget"]["seconds"]) == (2, 60)
    assert request["out"] == str(place / "o")


def test_a_run_is_resumed_from_another_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = submit("two things", overrides={"library.folder": "library"}, out="pictures")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    result = call("runs", "resume", run.id)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(str(place / "pictures"))


def test_index_then_doctor(place: Path) -> None:
    result = call("index", str(place / "library"))
    assert result.exit_code == 0, result.output
    assert f"6 images of {place / 'library'} are indexed under hashes" in result.stdout
    assert call("index").stdout == result.stdout  # the configured library is that folder
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "6 images in" in result.stdout and "stripes" in result.stdout


def test_index_reports_files_of_other_kinds(place: Path) -> None:
    (place / "shelf").mkdir()
    (place / "library" / "0.png").rename(place / "shelf" / "0.png")
    for name in ("a.MP4", "b.mp4", "c.cr2", ".DS_Store", "metadata.jsonl"):
        (place / "shelf" / name).touch()
    lines = call("index", str(place / "shelf")).stdout.splitlines()
    assert lines == [
        f"1 image of {place / 'shelf'} is indexed under hashes",
        "1 image without a caption",
        "1 system or hidden item left out: .DS_Store",
        "2 files of other kinds left out: .mp4",
        "1 file in raw formats of cameras cannot be read: export them as JPEG",
    ]


def test_a_run_whose_files_cannot_be_written_names_the_stored_image(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PleinairError("The folder was closed meanwhile.")

    monkeypatch.setattr("pleinair.app.runs.results.write_whole", fail)
    result = call("draw", "two things")
    assert (result.exit_code, result.stdout) == (5, "")
    (path,) = re.findall(r"closed meanwhile. The best image is kept: (\S+\.png)", result.stderr)
    assert Path(path).exists()
    answer = json.loads(call("draw", "two things", "--json").stdout)
    shown = json.loads(call("runs", "show", "last", "--json").stdout)
    for facts in (answer, shown):
        assert (facts["picture"], facts["sidecar"]) == (None, None)


def test_doctor_prints_remedies(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", str(place / "nowhere"))
    result = call("doctor")
    assert result.exit_code == 5
    assert "!!  library: No folder" in result.stdout and "--set library.folder=FOLDER" in result.stdout


def test_an_empty_folder_cannot_be_indexed(place: Path) -> None:
    (place / "empty").mkdir()
    result = call("index", str(place / "empty"))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_runs_are_listed_shown_and_exported(place: Path) -> None:
    assert call("runs", "list").stdout == ""
    call("draw", "two things", "--seed", "7")
    run_id = run_table().newest(1)[0].id
    assert call("runs", "list").stdout.split() == [run_id, "accepted", "two", "things"]
    assert json.loads(call("runs", "list", "--json").stdout)[0]["run"] == run_id
    assert "every concept is present" in call("runs", "show", "last").stdout
    shown = json.loads(call("runs", "show", run_id, "--json").stdout)
    assert shown == view_of(run_table().get(run_id), home()).model_dump(mode="json") and shown["seed"] == 7
    assert call("trace", "export", run_id, str(place / "a.html")).exit_code == 0
    assert (place / "a.html").stat().st_size > 4000


def test_a_waiting_run_is_resumed_or_cancelled(place: Path) -> None:
    result = call("runs", "resume", submit("two things").id)
    assert result.exit_code == 0 and "accepted" in result.stderr
    run = submit("two things")
    assert "has ended: cancelled" in call("runs", "cancel", run.id).stdout
    assert call("runs", "resume", run.id).exit_code == 130


@pytest.mark.parametrize(
    "arguments", [("show", "last"), ("show", "../../etc"), ("resume", "x"), ("cancel", "x")]
)
def test_an_unknown_run_is_bad_input(place: Path, arguments: tuple[str, ...]) -> None:
    result = call("runs", *arguments)
    assert (result.exit_code, result.stderr.count("pleinair: ")) == (2, 1)
    assert result.stderr.count("\n") == (1 if arguments[1] == "last" else 2)


def test_an_idempotency_key_generates_once(place: Path) -> None:
    first = call("draw", "two things", "--idempotency-key", "k")
    assert call("draw", "two things", "--idempotency-key", "k").stdout == first.stdout
    assert call("draw", "three things", "--idempotency-key", "k").exit_code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = call(*command.split(), "--help")
    assert result.exit_code == 0 and "Usage" in result.stdout


def test_the_help_of_draw_lists_the_exit_codes() -> None:
    words = " ".join(call("draw", "--help").stdout.split())
    assert "0 accepted, or unchecked by a graph that checks no image; 2 bad input; 3 stopped" in words


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import pleinair.app.cli.main", HEAVY),
        ("from pleinair.app.api import submit; submit('two things')", ("openai", "torch", "faiss", "scipy")),
    ],
)
def test_startup_and_a_submission_import_no_heavy_library(code: str, heavy: tuple[str, ...]) -> None:
    code += f"; import sys; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_installed_command_prints_its_version() -> None:
    command = Path(sys.executable).with_name("pleinair")
    result = subprocess.run(
        [command, "--version"], env=os.environ, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.split()[0]) == (0, "pleinair")
