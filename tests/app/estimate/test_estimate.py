"""Estimates of a run before anything is spent."""

import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import tiny_pipelines as tiny
from support.fake_engines import ScriptedChat, decomposition, rows
from support.openai_server import KEY, MODEL, served
from typer.testing import CliRunner, Result

from pleinair.agent.mllm.openai import chat
from pleinair.app import engines
from pleinair.app.api import draw, estimate, home, run_table
from pleinair.app.cli.main import app
from pleinair.app.estimate.cost import Range
from pleinair.app.estimate.estimate import Estimate
from pleinair.app.estimate.history import PastRun, past_runs
from pleinair.app.estimate.tokens import tokens_of_call
from pleinair.app.models.pins import HUB_GENERATORS
from pleinair.app.runs.request import new_request
from pleinair.app.settings import BackendChoice, load, profiles
from pleinair.tools import registry
from pleinair.tools.critique import critique
from pleinair.tools.decompose import decompose
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput

LOCAL = {"generator__backend": "in_context", "generator__folder": "pocket/generator"}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["draw", *arguments, "--dry-run"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bounds(part: Range) -> tuple[float | None, float | None]:
    return part.low, part.high


def estimate_with(graph: str = "pleinair", **overrides: Any) -> Estimate:
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return estimate("a puffin", graph=graph, overrides=keys)


def test_without_past_runs_nothing_is_written_or_built(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "build_backend", lambda *names: pytest.fail(f"{names} is built"))
    monkeypatch.setattr(engines, "build_generator", lambda *names: pytest.fail(f"{names} is built"))
    before = files(place)
    result = call("two things")
    assert result.exit_code == 0, result.output
    assert files(place) == before and not (place / "home").exists() and not (place / "out").exists()
    words = " ".join(result.stdout.split())
    assert "images 1 to 3" in words and "MLLM calls 2 to 8" in words
    assert "tokens unknown no finished run" in words and "seconds unknown no finished run" in words


def memory_of(*arguments: str) -> str:
    (line,) = [line for line in call("two things", *arguments).stdout.splitlines() if "memory GiB" in line]
    return " ".join(line.split()[2:])


@pytest.mark.usefixtures("place")
def test_memory_of_measured_classes_is_estimated() -> None:
    assert memory_of() == "unknown not predicted for the backend 'quick'"
    local = ("--set", "generator.backend=in_context", "--set", "generator.folder=pocket/generator")
    low, _, high, note = memory_of(*local).split(maxsplit=3)
    assert 0 < float(low) < float(high)
    assert note.startswith("an estimate: ") and note.endswith(
        "of weights in float32, offload level whole, without decoding"
    )
    assert "over generator.memory_limit: a lower" in memory_of(*local, "--set", "generator.memory_limit=0.01")


@pytest.mark.usefixtures("place")
def test_memory_of_other_classes_is_at_least_the_weights(tmp_path: Path) -> None:
    folder = tiny.save(tiny.sd15, tmp_path / "sd15")
    engine = {"backend": "text_only", "pipeline": "StableDiffusionPipeline", "folder": str(folder)}
    arguments = [word for key, value in engine.items() for word in ("--set", f"generator.{key}={value}")]
    memory = memory_of(*arguments)
    assert memory.startswith("at least ")
    size, note = memory.removeprefix("at least ").split(maxsplit=1)
    assert float(size) > 0
    assert note.startswith("the weights alone, in float32 at offload level whole: the steps of ")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ("klein", "the model is not downloaded"),
        ("qwen_edit", "the model is not downloaded"),
        ("sdxl", "the model is not downloaded"),
        ("gpt_image", "not predicted for the backend 'openai_images'"),
    ],
)
def test_unknown_memory_has_a_reason(profile: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLEINAIR_GENERATOR__BACKEND")
    assert memory_of("--profile", profile) == f"unknown {why}"


def test_seconds_are_estimated_from_past_runs_without_writing(place: Path) -> None:
    for seed in (7, 8):
        draw("two things", seed=seed)
    before = files(place)
    assert not [path for path in before if path.endswith("-wal")]
    result = estimate_with()
    assert files(place) == before
    runs = similar_runs(result)
    assert result.past_runs == 2 == len(runs)
    image_seconds = [seconds for run in runs for seconds in run.image_seconds]
    least = min(image_seconds) + 2 * min(run.other_seconds / run.calls for run in runs)
    most = 3 * max(image_seconds) + 8 * max(run.other_seconds / run.calls for run in runs)
    assert bounds(result.seconds) == pytest.approx((least, most), abs=0.01)
    assert result.seconds.note == "by 2 past runs"


def similar_runs(result: Estimate) -> list[PastRun]:
    return past_runs(new_request(prompt="x", graph=result.graph, seed=None, settings=load()), home())


def test_an_estimate_bounds_the_run(place: Path) -> None:
    draw("two things", seed=7)
    result = estimate_with()
    (run,) = similar_runs(result)
    assert result.pictures.low is not None and result.pictures.high is not None
    assert result.calls.low is not None and result.calls.high is not None
    assert result.pictures.low <= len(run.image_seconds) <= result.pictures.high
    assert result.calls.low <= run.calls <= result.calls.high


@pytest.mark.parametrize(
    "change", [{"graph": "direct"}, {"generator__pause": 0.001}, {"mllm__pause": 0.001}], ids=str
)
def test_runs_with_other_settings_do_not_count(place: Path, change: dict[str, Any]) -> None:
    draw("two things", seed=7)
    assert estimate_with().past_runs == 1
    assert estimate_with(**change).past_runs == 0


def test_failed_runs_and_damaged_logs_do_not_count(place: Path) -> None:
    draw("two things", seed=7)
    home().events_file(run_table().newest(1)[0].id).write_text("{}\n")
    assert estimate_with().past_runs == 0
    draw("two things", overrides={"budget.attempts": 1, "mllm.says": "No."})
    assert estimate_with(mllm__says="No.").past_runs == 0


def test_a_table_in_use_is_read_with_its_newest_rows(place: Path) -> None:
    with run_table() as table:  # stays open, with its log beside it
        draw("two things", seed=7)
        assert table.newest(1) and home().table_file.with_name("runs.sqlite-wal").exists()
        assert estimate_with().past_runs == 1


@pytest.mark.parametrize(
    ("graph", "overrides", "pictures", "calls"),
    [
        ("direct", {}, (1, 1), (0, 0)),
        ("pleinair", {"budget__attempts": 1}, (1, 1), (2, 4)),
        ("pleinair", LOCAL | {"generator__draft_steps": 2}, (2, 3), (3, 8)),
        ("pleinair", {"budget__mllm_calls": 3, "budget__images": 2}, (1, 2), (2, 3)),
        ("crossmodal", {"crossmodal__captions": 5}, (1, 1), (1, 7)),
        ("crossmodal", {"crossmodal__rag": False}, (1, 1), (0, 0)),
        ("realrag", {"realrag__method": "self_contrast"}, (2, 2), (0, 0)),
        ("imagerag", {}, (1, 2), (1, 7)),
        ("imagerag", {"imagerag__rounds": 4}, (1, 3), (1, 16)),
        ("imagerag", {"imagerag__mode": "generation"}, (1, 1), (2, 5)),
        ("imagerag", {"imagerag__mode": "generation", "imagerag__tries": 1}, (1, 1), (1, 3)),
        ("imagerag", {"imagerag__retrieve_by": "prompt"}, (1, 2), (1, 2)),
        ("imagerag", {"imagerag__rephrase_only": True, "imagerag__rerank": True}, (1, 2), (1, 4)),
        ("imagerag", {"imagerag__rerank": True}, (1, 2), (1, 9)),
        ("imagerag", {"imagerag__rerank": True, "imagerag__template": "image"}, (1, 2), (1, 8)),
        ("imagerag", {"imagerag__rerank": "captions"}, (1, 2), (1, 19)),
        ("imagerag", {"budget__attempts": 1}, (1, 1), (1, 2)),
        ("imagerag", {"budget__mllm_calls": 4}, (1, 2), (1, 4)),
        ("react", {"budget__mllm_calls": 9}, (1, 3), (None, 9)),
    ],
)
def test_images_and_calls_of_each_graph(
    place: Path, graph: str, overrides: dict[str, Any], pictures: tuple[int, int], calls: tuple[int, int]
) -> None:
    result = estimate_with(graph, **overrides)
    assert (bounds(result.pictures), bounds(result.calls)) == (pictures, calls)


def test_a_graph_without_a_bound_is_estimated_from_past_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    draw("a hoopoe", graph="react", seed=7)
    result = estimate_with("react")
    assert result.calls.high == similar_runs(result)[0].calls > 1
    assert "1 past run took" in result.calls.note


def test_limits_bound_the_estimate(place: Path) -> None:
    draw("two things", seed=7)
    result = estimate_with(budget__seconds=0.0001, budget__usd=0.5, budget__tokens=10)
    assert (result.seconds.high, result.usd.high, result.tokens.high) == (0.0001, 0.5, 10)
    assert "at most budget.seconds" in result.seconds.note


def test_tokens_that_no_run_reported_are_unknown(place: Path) -> None:
    draw("two things", seed=7)
    result = estimate_with()
    assert bounds(result.tokens) == (None, None) and "reported none" in result.tokens.note
    assert bounds(result.usd) == (None, None)


def with_log(model: str) -> dict[str, Any]:
    """Run with the quick critic, then change row and log as if a hosted model had answered."""
    draw("two things", seed=7)
    run, table = run_table().newest(1)[0], home().table_file
    request = json.loads(run.request_json)
    request["settings"]["mllm"] = {"backend": "openai", "model": model}
    with closing(sqlite3.connect(table)) as db, db:
        db.execute("UPDATE runs SET order_json=?", (json.dumps(request),))
    log = home().events_file(run.id)
    log.write_text(log.read_text("utf-8").replace('"tokens":0', '"tokens":1000'), "utf-8")
    return {"mllm__backend": "openai", "mllm__model": model}


def test_cost_is_estimated_by_the_price_table(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = with_log("gpt-5.4-mini")
    monkeypatch.setattr(
        "pleinair.app.estimate.history.is_alike", lambda run, request: True
    )  # but for the generator
    monkeypatch.setenv("PLEINAIR_GENERATOR__BACKEND", "in_context")
    result = estimate_with(**overrides)
    assert result.tokens.low and result.tokens.high
    assert result.usd.low == pytest.approx(result.tokens.low * 0.75e-6)
    assert result.usd.high == pytest.approx(result.tokens.high * 4.5e-6)


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ({"mllm__backend": "openai", "mllm__model": "nobody-knows"}, "no price is known for 'nobody-knows'"),
        ({"mllm__backend": "openai", "mllm__model": "gpt-5.4", "mllm__max_tokens": 0}, ""),
        (
            {"generator__backend": "openai_images", "generator__model": "nobody's"},
            "no price is known for the images of openai_images:nobody's",
        ),
        (
            {"generator__backend": "openai_images", "generator__model": "gpt-image-2.5-flare"},
            "images: unknown (priced by their tokens, which no past run has reported)",
        ),
    ],
)
def test_an_unknown_price_has_a_reason(
    place: Path, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], note: str
) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__BACKEND", "in_context")
    result = estimate_with(**overrides)
    assert result.usd.high is None
    assert note in result.usd.note


MLLM = {"mllm__backend": "openai", "mllm__model": "gpt-5.4-mini"}
PRICED = MLLM | LOCAL


def test_without_past_runs_tokens_and_cost_are_estimated(place: Path) -> None:
    result = estimate_with(**PRICED)
    assert result.tokens.low and result.tokens.high and result.usd.low and result.usd.high
    assert 2 * 50 < result.tokens.low < 2 * 1000
    assert 8 * 2048 < result.tokens.high < 8 * 8000  # every answer as long as it may be
    assert result.tokens.low * 0.75e-6 <= result.usd.low < result.usd.high <= result.tokens.high * 4.5e-6
    assert "an estimate" in result.tokens.note and "an estimate" in result.usd.note
    assert bounds(result.seconds) == (None, None)


@pytest.mark.parametrize("prompt", ["a finch", "a finch beside a coupe, " * 40])
def test_the_estimate_bounds_the_tokens_that_the_client_sends(
    prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def policy(schema: str, payload: dict[str, Any], images: int) -> dict[str, Any]:
        if schema != "Critique":
            return decomposition("finch", "coupe", "aster", "guppy")
        answer = rows(payload, lambda name: True)
        if images == 1:  # the first look is unsure of everything, so that a second one follows
            unsure = {"status": "unsure", "box": [0.0, 0.0, 1.0, 1.0]}
            answer["rows"] = [row | unsure for row in answer["rows"]]
        return answer

    choice = BackendChoice.model_validate({"backend": "openai", "model": MODEL})
    tokens = tokens_of_call("pleinair", prompt, choice)
    assert tokens is not None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(ScriptedChat(policy=policy, schemas=[])) as service:
        model = chat(MODEL, base_url=service.url)
        concepts, _ = decompose(prompt, model=model)
        png = encode_png(Image.radial_gradient("L").resize((640, 640)))
        critique(png, prompt, concepts, model=model, calls=2)
    images = []
    for request in service.requests:
        texts = re.sub(r"data:image/\w+;base64,[^\"]*", "", json.dumps(request["messages"]))
        length, count = len(texts + json.dumps(request["response_format"])), texts.count('"image_url":')
        assert tokens.read[0] <= length / 4 + count * 70  # at low detail
        assert length / 2 + count * 2.46 * 16**2 <= tokens.read[1]  # by patches, the worst case
        images.append(count)
    assert images == [0, 1, 4]


@pytest.mark.parametrize("graph", ["imagerag", "crossmodal"])
def test_tokens_of_other_graphs_are_estimated_too(place: Path, graph: str) -> None:
    result = estimate_with(graph, budget__mllm_calls=10, **PRICED)
    assert result.tokens.low and result.tokens.high and result.usd.high


def test_a_re_ranking_sends_the_tokens_of_six_images(place: Path) -> None:
    without, ranked = (
        estimate_with("imagerag", **PRICED, imagerag__rerank=value, budget__mllm_calls=1)
        for value in (False, True)
    )
    assert without.tokens.high and ranked.tokens.high
    side = 512  # pixels, to which images are scaled by default
    assert ranked.tokens.high - without.tokens.high > 3 * 2.46 * (side / 32) ** 2


def test_the_price_of_images_is_in_the_sum(place: Path) -> None:
    painter = {"generator__backend": "openai_images", "generator__model": "m"}
    local = estimate_with(**PRICED)
    result = estimate_with(**MLLM | painter, generator__price_per_picture=0.04)
    assert local.usd.low and local.usd.high
    assert bounds(result.usd) == pytest.approx((local.usd.low + 0.04, local.usd.high + 3 * 0.04))


def test_past_costs_of_images_and_mllm_calls_are_separate(place: Path) -> None:
    draw("two things", seed=7)
    log = home().events_file(run_table().newest(1)[0].id)
    paid = re.sub(r'("images":1,"mllm_calls":0,"tokens":0,"usd":)0.0', r"\g<1>0.04", log.read_text("utf-8"))
    log.write_text(paid, "utf-8")
    (run,) = similar_runs(estimate_with())
    assert run.image_usd == pytest.approx(0.04 * len(run.image_seconds)) and run.mllm_usd == 0


UNKNOWN = "no price is known for {}.model = 'm', so money could not stop the run. Set \"m\" = "


@pytest.mark.parametrize(
    ("table", "backend", "price"),
    [
        ("mllm", "openai", {"mllm.prices": {"m": {"read": 1, "written": 2}}}),
        ("mllm", "openai", {"mllm.base_url": "http://127.0.0.1:8000/v1"}),
        ("mllm", "openai", {"mllm.model": "gpt-5.4-mini-2026-03-17"}),
        ("generator", "openai_images", {"generator.prices": {"m": {"read": 1, "written": 2}}}),
        ("generator", "openai_images", {"generator.price_per_picture": 0.04}),
        ("generator", "openai_images", {"generator.base_url": "http://127.0.0.1:8000/v1"}),
        ("generator", "openai_images", {"generator.model": "gpt-image-2.5-flare"}),
    ],
)
def test_a_limit_in_usd_needs_a_price(place: Path, table: str, backend: str, price: dict[str, Any]) -> None:
    unpriced = {f"{table}.backend": backend, f"{table}.model": "m"}
    limited = unpriced | {"budget.usd": 0.5}
    with pytest.raises(BadInput, match=re.escape(UNKNOWN.format(table))):
        draw("two things", overrides=limited)
    assert not (place / "home").exists()
    estimate("two things", overrides=unpriced)
    estimate("two things", overrides=limited | price)


def test_pocket_models_and_local_servers_cost_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__BACKEND", "in_context")
    server = {"mllm__model": "llama", "mllm__base_url": "http://127.0.0.1:8000/v1"}
    assert bounds(estimate_with(mllm__backend="pocket").usd) == (0, 0)
    assert bounds(estimate_with(mllm__backend="openai", **server).usd) == (0, 0)


def test_json_has_the_same_values(place: Path) -> None:
    answer = json.loads(call("two things", "--json").stdout)
    assert answer["pictures"] == {"low": 1, "high": 3, "note": ""}
    assert answer["usd"]["low"] is None and answer["past_runs"] == 0
    assert answer["mllm"] == "quick" and answer["limits"]["attempts"] == 3


def test_invalid_requests_are_not_estimated(place: Path) -> None:
    result = call("two things", "--max-attempts", "0")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    with pytest.raises(BadInput, match="input image"):
        estimate("two things", input_images=["none.png"])


def test_every_packaged_profile_is_estimated(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PLEINAIR_") and "BACKEND" in name]:
        monkeypatch.delenv(name)
    for name in profiles():
        result = estimate("a puffin", profile=name)
        assert result.profile == name and result.pictures.high == 3
        assert result.past_runs == 0 and bounds(result.seconds) == (None, None)
    assert set(HUB_GENERATORS) < set(registry.names("generator"))
