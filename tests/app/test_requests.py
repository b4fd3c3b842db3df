"""Requests: what every interface refuses before anything is written, image options, and groups of runs."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from support import quick_engines as quick
from typer.testing import CliRunner, Result

from pleinair.agent import state as agent_state
from pleinair.app import api
from pleinair.app.api import draw, estimate, finish, run_table, submit, submit_images
from pleinair.app.cli.main import app
from pleinair.app.settings import Renamed
from pleinair.app.trace.replay import redraw
from pleinair.tools.types import BadInput, GenerateRequest

PROMPT = "two things"
OPTIONS: dict[str, Any] = {"width": 24, "height": 32, "num_inference_steps": 2, "guidance_scale": 2.5}
GRAPHS: list[tuple[str, dict[str, Any]]] = [
    ("crossmodal", {}),
    ("direct", {}),
    ("imagerag", {}),
    ("pleinair", {}),
    ("react", {"mllm.backend": "talker"}),
    ("realrag", {"realrag.method": "zero"}),
]


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


BAD: list[tuple[str, Any, str]] = [
    (
        "generator.nope",
        1,
        "generator.nope = 1: generator 'quick' has no such argument; accepted: pause, fault",
    ),
    ("encoder.nope", 1, "encoder.nope = 1: encoder 'quick' has no such argument"),
    ("mllm.nope", 1, "mllm.nope = 1: mllm 'quick' has no such argument"),
    ("generator.pause", "long", "generator.pause = 'long': must be a number"),
    ("generator.inpaint", 3, "generator.inpaint = 3: must be true or false"),
    ("generator.backend", "quikc", "generator.backend = 'quikc': unknown; accepted: .* Did you mean `quick`"),
    ("mllm.box", [1, "x"], "mllm.box"),
    ("generator.api_key", "sk", "generator.api_key: secrets are not accepted"),
    ("retrieval.method", "lexcal", "lexcal"),
    ("retrieval.k", 2.5, "retrieval.k = 2.5"),
    ("retrieval.threshold", float("nan"), "retrieval.threshold = nan: must be a finite number"),
    ("worker.grace", float("inf"), "worker.grace = inf: must be a finite number"),
    ("worker.grace", 0, "worker.grace = 0"),
    ("worker.process", "yes", "worker.process = 'yes'"),
    ("budget.seconds", float("inf"), "budget.seconds = inf: must be a finite number"),
    ("budget.usd", float("nan"), "budget.usd = nan"),
    ("budget.attempts", 0, "budget.attempts = 0: no image could be generated"),
    ("budget.attempt", 2, "budget.attempt = 2 .*Did you mean `attempts`"),
    ("library.folder", 3, "library.folder = 3"),
    ("crops.least", -1, "crops"),
    ("leak.copied", 2, "leak.copied = 2"),
    ("imagerag.rounds", 0, "imagerag.rounds = 0"),
    ("realrag.weight", float("inf"), "realrag.weight = inf"),
    ("crossmodal.alpha_", 1, "crossmodal"),
    ("crossmodal.grid_steps", -1, "crossmodal.grid_steps = -1.*must be at least 0"),
    ("crossmodal.grid_steps", 22, "crossmodal.grid_steps = 22.*must be at most 21"),
    ("output.previews", 1, "output.previews = 1"),
    ("paths.out", "", "paths.out = ''"),
    ("image.width", 63, "image.width = 63"),
    ("image.height", 0, "image.height = 0"),
    ("image.guidance_scale", float("nan"), "image.guidance_scale = nan: must be a finite number"),
    ("image.num_inference_steps", 0, "image.num_inference_steps = 0"),
    ("image.num_inference_steps", 1001, "image.num_inference_steps = 1001"),
    ("image.reference_strength", 1.5, "image.reference_strength = 1.5"),
    ("image.reference_strength", 0.5, "image.reference_strength = 0.5: generator `stripes` does not take it"),
    ("image.widht", 64, "image.widht = 64 .*Did you mean `width`"),
    ("imgae.width", 64, "imgae = .*Did you mean `image`"),
]
POCKET: list[tuple[str, Any, str]] = [
    ("generator.height", 63, "generator.height = 63: must be a multiple of 8"),
    ("generator.guidance_scale", float("nan"), "generator.guidance_scale = nan: must be a finite number"),
    ("generator.num_inference_steps", 0, "generator.num_inference_steps = 0"),
    ("generator.slots", 9, "generator.slots = 9"),
    ("generator.nope", 1, "generator.nope = 1"),
    ("encoder.nope", 1, "encoder.nope = 1"),
    ("encoder.batch", 0, "encoder.batch = 0"),
    ("mllm.nope", 1, "mllm.nope = 1"),
    ("mllm.error_rate", 2, "mllm.error_rate = 2"),
]


def toml(value: Any) -> str:
    """Write a value as TOML does."""
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def refuse_everywhere(place: Path, key: str, value: Any, words: str, *options: str) -> None:
    """Check that the command line, `draw` and `estimate` refuse a value and write nothing."""
    before = files(place)
    done = call("draw", PROMPT, *options, "--set", f"{key}={toml(value)}")
    assert done.exit_code == 2, done.output
    assert call("draw", PROMPT, "--dry-run", *options, "--set", f"{key}={toml(value)}").exit_code == 2
    profile = options[1] if options else None
    for function in (draw, estimate, submit):
        with pytest.raises(BadInput, match=words):
            function(PROMPT, profile=profile, overrides={key: value})
    assert files(place) == before


@pytest.mark.parametrize(("key", "value", "words"), BAD)
def test_a_bad_value_is_refused_everywhere_and_nothing_is_written(
    place: Path, key: str, value: Any, words: str
) -> None:
    refuse_everywhere(place, key, value, words)


@pytest.mark.parametrize(("key", "value", "words"), POCKET)
def test_a_bad_value_of_the_pocket_profile_is_refused_everywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, words: str
) -> None:
    for name in [name for name in os.environ if name.startswith("PLEINAIR_") and "__" in name]:
        monkeypatch.delenv(name)
    refuse_everywhere(place, key, value, words, "--profile", "pocket")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 63}, "image.width = 63"),
        ({"height": "tall"}, "image.height = 'tall'"),
        ({"guidance_scale": float("inf")}, "image.guidance_scale = inf"),
        ({"num_inference_steps": 0}, "image.num_inference_steps = 0"),
        ({"reference_strength": 0.5}, "image.reference_strength = 0.5: generator `stripes` does not take it"),
        ({"negative_prompt": "ice"}, "image.negative_prompt = 'ice': generator `stripes` does not take it"),
        ({"num_images": 0}, "num_images = 0"),
        ({"num_images": 65}, "num_images = 65"),
        ({"num_images": 2, "seed": 2**63 - 1}, "seed 9223372036854775807: must be 0 to 9223372036854775806"),
        ({"seed": "x"}, "seed = 'x'"),
        ({"nonsense": 1}, "nonsense = 1"),
    ],
)
def test_a_bad_option_is_refused_from_python(place: Path, options: dict[str, Any], words: str) -> None:
    before = files(place)
    for function in (draw, estimate):
        with pytest.raises(BadInput, match=words):
            function(PROMPT, **options)
    assert files(place) == before


@pytest.mark.parametrize(
    "words",
    [
        ("--width", "63"),
        ("--height", "0"),
        ("--guidance-scale", "nan"),
        ("--num-inference-steps", "0"),
        ("--reference-strength", "0.5"),
        ("--negative-prompt", "ice"),
        ("--num-images", "0"),
        ("--max-seconds", "inf"),
    ],
)
def test_a_bad_option_of_the_command_line_exits_2(place: Path, words: tuple[str, str]) -> None:
    before = files(place)
    done = call("draw", PROMPT, *words)
    assert done.exit_code == 2 and "Traceback" not in done.output
    assert files(place) == before


def test_a_third_party_backend_without_a_declaration_accepts_the_options_of_its_capabilities(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Narrow(quick.Stripes):
        def __init__(self, pause: float = 0.0) -> None:
            super().__init__(pause)
            self.capabilities = self.capabilities.model_copy(update={"accepts": ("width",)})

    monkeypatch.setattr(quick, "Stripes", Narrow)
    with pytest.raises(
        BadInput, match="image.height = 24: generator `stripes` does not take it; accepted: width"
    ):
        draw(PROMPT, height=24, overrides={"generator.pause": 0.00017})
    assert not (place / "home").exists()


def generate_requests(run_id: str) -> list[GenerateRequest]:
    """Return the requests of a run to the generator."""
    result = finish(run_table().get(run_id))
    attempts = json.loads(result.sidecar.read_text("utf-8"))["attempts"]
    return [GenerateRequest.model_validate(attempt["request"]) for attempt in attempts]


@pytest.mark.parametrize(("graph", "overrides"), GRAPHS)
def test_options_reach_every_request_of_every_graph_from_python(
    place: Path, graph: str, overrides: dict[str, Any]
) -> None:
    prompt = "a barn owl and a blue jay" if graph == "react" else PROMPT
    result = draw(prompt, graph=graph, seed=7, overrides=overrides, **OPTIONS)
    requested = [request.model_dump(include=set(OPTIONS)) for request in generate_requests(result.run_id)]
    assert requested and all(options == OPTIONS for options in requested), result.outcome


def test_options_of_the_command_line_and_of_a_profile(place: Path) -> None:
    flags = [word for key, value in OPTIONS.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    answer = json.loads(call("draw", PROMPT, "--json", *flags).stdout)
    assert all(
        request.model_dump(include=set(OPTIONS)) == OPTIONS for request in generate_requests(answer["run_id"])
    )
    lines = "\n".join(f"{key} = {value}" for key, value in OPTIONS.items())
    (place / "pleinair.toml").write_text(f"[image]\n{lines}", encoding="utf-8")
    (request, *_) = generate_requests(draw(PROMPT, graph="direct", width=40).run_id)
    assert request.model_dump(include=set(OPTIONS)) == OPTIONS | {"width": 40}


def test_a_request_without_options_has_no_image_table(place: Path) -> None:
    stored = json.loads(submit(PROMPT).request_json)
    assert set(stored) == {
        *("prompt", "graph", "seed", "settings", "out", "strip_metadata", "parent", "pictures", "thread")
    }
    assert "image" not in stored["settings"]


def test_the_prompt_is_validated_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, check_prompt = list[str](), agent_state.check_prompt

    def count(prompt: str) -> None:
        prompts.append(prompt)
        check_prompt(prompt)

    for module in ("pleinair.app.runs.request", "pleinair.agent.inputs"):
        monkeypatch.setattr(f"{module}.check_prompt", count)
    draw(PROMPT)
    assert prompts == [PROMPT]


def test_an_estimate_is_of_all_images(place: Path) -> None:
    single, four = estimate(PROMPT), estimate(PROMPT, num_images=4)
    assert (single.pictures.low, single.pictures.high) == (1, 3)
    assert (four.runs, four.pictures.low, four.pictures.high) == (4, 4, 12)
    assert four.calls.high == 4 * (single.calls.high or 0)
    done = call("draw", PROMPT, "--dry-run", "--num-images", "4")
    assert "4 runs, one an image" in done.stdout and not (place / "home").exists()


def test_several_images_are_runs_of_one_group_with_consecutive_seeds(place: Path) -> None:
    results = draw(PROMPT, num_images=3, seed=7)
    assert [result.seed for result in results] == [7, 8, 9]
    assert len({result.picture for result in results}) == 3
    assert [result.outcome.ending for result in results] == ["accepted"] * 3
    group = run_table().group(results[1].run_id)
    assert [run.id for run in group] == [result.run_id for result in results]
    assert {run.group for run in group} == {results[0].run_id}
    alone = draw(PROMPT, seed=8)
    assert alone.outcome.best is not None and results[1].outcome.best is not None
    assert alone.outcome.best.picture == results[1].outcome.best.picture
    assert (
        isinstance(draw(PROMPT, num_images=1), list) and run_table().group(alone.run_id)[0].id == alone.run_id
    )


def test_a_random_seed_is_chosen_once_for_a_group(place: Path) -> None:
    first, second = submit_images(PROMPT, num_images=2)
    assert second.seed == first.seed + 1


def test_one_key_gives_the_same_group_again(place: Path) -> None:
    first = draw(PROMPT, num_images=3, idempotency_key="k")
    assert draw(PROMPT, num_images=3, idempotency_key="k") == first
    assert len(run_table().newest(9)) == 3
    for options in ({"num_images": 2}, {"num_images": 4}, {}):
        with pytest.raises(BadInput, match="whose request is another one .num_images"):
            draw(PROMPT, idempotency_key="k", **options)  # type: ignore[call-overload]
    with pytest.raises(BadInput, match="whose request is another one .settings"):
        draw(PROMPT, num_images=3, idempotency_key="k", width=24)
    assert len(run_table().newest(9)) == 3


def test_a_killed_group_is_resumed_by_its_key(place: Path) -> None:
    undisturbed = draw(PROMPT, num_images=3, seed=7)
    code = f"""
from pleinair.app.api import draw
draw({PROMPT!r}, num_images=3, seed=7, idempotency_key="k", overrides={{"generator.pause": 0.02}})
"""
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ) as process:
        log = place / "effects.log"
        before = log.read_text("utf-8").count("picture")
        while log.read_text("utf-8").count("picture") < before + 3:  # in the second of the runs
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    statuses = [run.status for run in run_table().newest(3)[::-1]]
    assert statuses == ["accepted", "running", "queued"]
    done = call(
        *("draw", PROMPT, "--num-images", "3", "--seed", "7", "--idempotency-key", "k"),
        *("--set", "generator.pause=0.02", "--json"),
    )
    assert done.exit_code == 0, done.output
    results = [json.loads(line) for line in done.stdout.splitlines()]
    pictures = [result["outcome"]["best"]["picture"]["sha256"] for result in results]
    assert pictures == [result.outcome.best and result.outcome.best.picture.sha256 for result in undisturbed]
    assert len(run_table().newest(9)) == 6


def test_a_group_is_resumed_cancelled_and_listed_by_its_runs(place: Path) -> None:
    first, second = submit_images(PROMPT, num_images=2, seed=7)
    rows = json.loads(call("runs", "list", "--json").stdout)
    assert [(row["group"], row["image"]) for row in rows] == [(first.id, "2 of 2"), (first.id, "1 of 2")]
    assert f"[image 2 of 2 of group {first.id}]" in call("runs", "list").stdout
    assert call("runs", "resume", second.id).exit_code == 0
    assert run_table().get(first.id).status == "queued"
    done = call("runs", "resume", second.id, "--group")
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 4
    assert run_table().get(first.id).status == "accepted"
    waiting, _ = submit_images(PROMPT, num_images=2)
    call("runs", "cancel", waiting.id, "--group")
    assert {run.status for run in run_table().group(waiting.id)} == {"cancelled"}


def test_the_exit_code_of_a_group_is_the_worst(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = quick.Stripes.generate

    def fail(self: quick.Stripes, request: GenerateRequest, *rest: Any) -> Any:
        if request.seed == 8:
            raise RuntimeError("boom")
        return generate(self, request, *rest)

    monkeypatch.setattr(quick.Stripes, "generate", fail)
    done = call("draw", PROMPT, "--graph", "direct", "--num-images", "3", "--seed", "7")
    assert done.exit_code == 5, done.output
    assert [run.status for run in run_table().newest(3)[::-1]] == ["unchecked", "failed", "unchecked"]
    assert len([line for line in done.stdout.splitlines() if line.endswith(".png")]) == 2


def test_an_image_of_a_group_is_redrawn_alone(place: Path) -> None:
    results = draw(PROMPT, num_images=2, seed=7, graph="direct")
    again = redraw(results[1].sidecar)
    assert again.seed == 8 and run_table().get(again.run_id).group == again.run_id
    assert again.outcome.best is not None and results[1].outcome.best is not None
    assert again.outcome.best.picture == results[1].outcome.best.picture


def test_an_interrupt_stops_all_runs_of_a_group(place: Path) -> None:
    command = [sys.executable, "-m", "pleinair.app.cli.main", "draw", PROMPT, "--num-images", "3"]
    slow = ["--set", "generator.pause=0.3", "--set", "mllm.satisfied=false", "--max-attempts", "50"]
    with subprocess.Popen([*command, *slow], env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "missing" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 130
    assert [run.status for run in run_table().newest(3)] == ["cancelled"] * 3


def test_renamed_arguments_and_flags_still_work(place: Path) -> None:
    from PIL import Image

    file = place / "mine.png"
    Image.new("RGB", (16, 16), "red").save(file)
    with pytest.warns(Renamed, match="pictures is now called input_images"):
        run = submit(PROMPT, graph="imagerag", pictures=[file])
    assert len(json.loads(run.request_json)["pictures"]) == 1
    with pytest.warns(DeprecationWarning, match=r"pleinair.app.draw is now called pleinair.app.api"):
        from pleinair.app.draw import draw as renamed
        from pleinair.app.draw import resume
    assert renamed is draw and resume is api.resume


@pytest.mark.usefixtures("place")
def test_the_command_line_reports_a_renamed_name_once_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pleinair.app.cli import main

    monkeypatch.setattr(sys, "argv", ["pleinair", "draw", PROMPT, "--set", "retrieval.floor=-1"])
    with pytest.raises(SystemExit, match="^0$"):
        main.main()
    stderr = capsys.readouterr().err
    lines = [line for line in stderr.splitlines() if "deprecated" in line]
    assert lines == [
        "pleinair: deprecated: retrieval.floor is now called retrieval.threshold (set in: the request)"
    ]
    assert "DeprecationWarning" not in stderr and ".py" not in stderr


def test_the_command_line_does_not_change_other_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pleinair.app.cli import main

    def warn() -> None:
        warnings.warn("old", Renamed, stacklevel=1)
        warnings.warn("old", Renamed, stacklevel=1)
        warnings.warn("other", UserWarning, stacklevel=1)

    monkeypatch.setattr(main, "app", warn)
    with pytest.warns(UserWarning, match="other"):
        main.main()
    assert capsys.readouterr().err == "pleinair: deprecated: old\n"
