"""What a drawing will take, told before anything is spent."""

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
from pleinair.app.runs.request import LOCAL_BACKENDS, new_request
from pleinair.app.settings import BackendChoice, load, profiles
from pleinair.tools import registry
from pleinair.tools.critique import critique
from pleinair.tools.decompose import decompose
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput

LOCAL = {"generator__backend": "in_context", "generator__folder": "pocket/generator"}


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["draw", *words, "--dry-run"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def ends(one: Range) -> tuple[float | None, float | None]:
    return one.low, one.high


def told(graph: str = "pleinair", **overrides: Any) -> Estimate:
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return estimate("two things", graph=graph, overrides=keys)


def test_nothing_is_written_and_nothing_built_before_the_first_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "build_backend", lambda *names: pytest.fail(f"{names} is built"))
    monkeypatch.setattr(engines, "build_generator", lambda *names: pytest.fail(f"{names} is built"))
    before = files(place)
    done = call("two things")
    assert done.exit_code == 0, done.output
    assert files(place) == before and not (place / "home").exists() and not (place / "out").exists()
    words = " ".join(done.stdout.split())
    assert "images 1 to 3" in words and "MLLM calls 2 to 8" in words
    assert "tokens unknown no finished run" in words and "seconds unknown no finished run" in words


def memory_of(*words: str) -> str:
    (line,) = [line for line in call("two things", *words).stdout.splitlines() if "memory GiB" in line]
    return " ".join(line.split()[2:])


@pytest.mark.usefixtures("place")
def test_memory_is_told_where_somebody_has_measured_it() -> None:
    assert memory_of() == "unknown not predicted for the backend 'quick'"
    here = ("--set", "generator.backend=in_context", "--set", "generator.folder=pocket/generator")
    low, _, high, note = memory_of(*here).split(maxsplit=3)
    assert 0 < float(low) < float(high)
    assert note.startswith("an estimate: ") and note.endswith(
        "of weights in float32, offload level whole, without decoding"
    )
    assert "over generator.memory_limit: a lower" in memory_of(*here, "--set", "generator.memory_limit=0.01")


@pytest.mark.usefixtures("place")
def test_of_a_class_that_nobody_measured_the_weights_are_told(tmp_path: Path) -> None:
    folder = tiny.save(tiny.sd15, tmp_path / "sd15")
    engine = {"backend": "text_only", "pipeline": "StableDiffusionPipeline", "folder": str(folder)}
    words = [word for key, value in engine.items() for word in ("--set", f"generator.{key}={value}")]
    said, least, size, note = memory_of(*words).split(maxsplit=3)
    assert (said, least) == ("at", "least") and float(size) > 0
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
def test_memory_that_is_not_known_is_said_to_be(
    profile: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLEINAIR_GENERATOR__BACKEND")
    assert memory_of("--profile", profile) == f"unknown {why}"


def test_past_runs_give_seconds_and_leave_the_table_alone(place: Path) -> None:
    for seed in (7, 8):
        draw("two things", seed=seed)
    before = files(place)
    assert not [path for path in before if path.endswith("-wal")]
    quote = told()
    assert files(place) == before
    runs = past_of(quote)
    assert quote.past_runs == 2 == len(runs)
    drawn = [seconds for run in runs for seconds in run.image_seconds]
    least = min(drawn) + 2 * min(run.other_seconds / run.calls for run in runs)
    most = 3 * max(drawn) + 8 * max(run.other_seconds / run.calls for run in runs)
    assert ends(quote.seconds) == pytest.approx((least, most), abs=0.01)
    assert quote.seconds.note == "by 2 past runs"


def past_of(quote: Estimate) -> list[PastRun]:
    return past_runs(new_request(prompt="x", graph=quote.graph, seed=None, settings=load()), home())


def test_an_estimate_holds_what_the_run_then_takes(place: Path) -> None:
    draw("two things", seed=7)
    quote = told()
    (run,) = past_of(quote)
    assert quote.pictures.low is not None and quote.pictures.high is not None
    assert quote.calls.low is not None and quote.calls.high is not None
    assert quote.pictures.low <= len(run.image_seconds) <= quote.pictures.high
    assert quote.calls.low <= run.calls <= quote.calls.high


@pytest.mark.parametrize(
    "change", [{"graph": "direct"}, {"generator__pause": 0.001}, {"mllm__pause": 0.001}], ids=str
)
def test_runs_of_another_sort_do_not_count(place: Path, change: dict[str, Any]) -> None:
    draw("two things", seed=7)
    assert told().past_runs == 1
    assert told(**change).past_runs == 0


def test_a_run_that_failed_or_whose_log_is_damaged_does_not_count(place: Path) -> None:
    draw("two things", seed=7)
    home().events(run_table().newest(1)[0].id).write_text("{}\n")
    assert told().past_runs == 0
    draw("two things", overrides={"budget.attempts": 1, "mllm.says": "No."})
    assert told(mllm__says="No.").past_runs == 0


def test_a_table_in_use_is_read_with_its_newest_rows(place: Path) -> None:
    with run_table() as table:  # stays open, with its log beside it
        draw("two things", seed=7)
        assert table.newest(1) and home().table.with_name("runs.sqlite-wal").exists()
        assert told().past_runs == 1


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
        ("imagerag", {"imagerag__rounds": 4}, (1, 3), (1, None)),
        ("imagerag", {"imagerag__mode": "generation"}, (1, 1), (None, None)),
        ("react", {"budget__mllm_calls": 9}, (1, 3), (None, 9)),
    ],
)
def test_each_graph_counts_its_own(
    place: Path, graph: str, overrides: dict[str, Any], pictures: tuple[int, int], calls: tuple[int, int]
) -> None:
    quote = told(graph, **overrides)
    assert (ends(quote.pictures), ends(quote.calls)) == (pictures, calls)


def test_a_graph_without_a_bound_is_told_by_what_it_took(place: Path) -> None:
    draw("two things", graph="imagerag", seed=7)
    quote = told("imagerag")
    assert quote.calls.high == past_of(quote)[0].calls > 1
    assert "1 past run took" in quote.calls.note


def test_limits_hold_what_is_told(place: Path) -> None:
    draw("two things", seed=7)
    quote = told(budget__seconds=0.0001, budget__usd=0.5, budget__tokens=10)
    assert (quote.seconds.high, quote.usd.high, quote.tokens.high) == (0.0001, 0.5, 10)
    assert "at most budget.seconds" in quote.seconds.note


def test_tokens_that_no_run_reported_are_not_made_up(place: Path) -> None:
    draw("two things", seed=7)
    quote = told()
    assert ends(quote.tokens) == (None, None) and "reported none" in quote.tokens.note
    assert ends(quote.usd) == (None, None)


def with_log(model: str) -> dict[str, Any]:
    """Draw with the quick critic, and then say in row and log that a hosted model answered."""
    draw("two things", seed=7)
    run, table = run_table().newest(1)[0], home().table
    order = json.loads(run.request_json)
    order["settings"]["mllm"] = {"backend": "openai", "model": model}
    with closing(sqlite3.connect(table)) as db, db:
        db.execute("UPDATE runs SET order_json=?", (json.dumps(order),))
    log = home().events(run.id)
    log.write_text(log.read_text("utf-8").replace('"tokens":0', '"tokens":1000'), "utf-8")
    return {"mllm__backend": "openai", "mllm__model": model}


def test_money_is_told_by_the_price_table(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = with_log("gpt-5.4-mini")
    monkeypatch.setattr(
        "pleinair.app.estimate.history.is_alike", lambda run, order: True
    )  # but for the generator
    monkeypatch.setenv("PLEINAIR_GENERATOR__BACKEND", "in_context")
    quote = told(**overrides)
    assert quote.tokens.low and quote.tokens.high
    assert quote.usd.low == pytest.approx(quote.tokens.low * 0.75e-6)
    assert quote.usd.high == pytest.approx(quote.tokens.high * 4.5e-6)


@pytest.mark.parametrize(
    ("overrides", "said"),
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
def test_a_price_that_is_not_known_is_said_to_be(
    place: Path, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__BACKEND", "in_context")
    quote = told(**overrides)
    assert quote.usd.high is None
    assert said in quote.usd.note


MLLM = {"mllm__backend": "openai", "mllm__model": "gpt-5.4-mini"}
PRICED = MLLM | LOCAL


def test_before_the_first_run_tokens_and_money_are_estimated(place: Path) -> None:
    quote = told(**PRICED)
    assert quote.tokens.low and quote.tokens.high and quote.usd.low and quote.usd.high
    assert 2 * 50 < quote.tokens.low < 2 * 1000
    assert 8 * 2048 < quote.tokens.high < 8 * 8000  # every answer as long as it may be
    assert quote.tokens.low * 0.75e-6 <= quote.usd.low < quote.usd.high <= quote.tokens.high * 4.5e-6
    assert "an estimate" in quote.tokens.note and "an estimate" in quote.usd.note
    assert ends(quote.seconds) == (None, None)


@pytest.mark.parametrize("prompt", ["a finch", "a finch beside a coupe, " * 40])
def test_the_estimate_holds_what_the_client_sends(prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def policy(schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        return rows(card, lambda name: True) if schema == "Critique" else decomposition("finch", "coupe")

    choice = BackendChoice.model_validate({"backend": "openai", "model": MODEL})
    one = tokens_of_call("pleinair", prompt, choice)
    assert one is not None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with served(ScriptedChat(policy=policy, schemas=[])) as service:
        model = chat(MODEL, base_url=service.url)
        concepts, _ = decompose(prompt, model=model)
        critique(encode_png(Image.radial_gradient("L")), prompt, concepts, model=model)
    assert len(service.requests) == 2
    for asked in service.requests:
        texts = re.sub(r"data:image/png;base64,[^\"]*", "", json.dumps(asked["messages"]))
        text = len(texts + json.dumps(asked["response_format"])) / 4
        seen = (70, 1.2 * 16**2) if "image_url" in texts else (0, 0)  # at low detail, or by patches
        assert one.read[0] <= text + seen[0] and text + seen[1] <= one.read[1]


@pytest.mark.parametrize("graph", ["imagerag", "crossmodal"])
def test_other_graphs_with_questions_of_their_own_are_estimated_too(place: Path, graph: str) -> None:
    quote = told(graph, budget__mllm_calls=10, **PRICED)
    assert quote.tokens.low and quote.tokens.high and quote.usd.high


def test_pictures_with_a_price_are_in_the_sum(place: Path) -> None:
    painter = {"generator__backend": "openai_images", "generator__model": "m"}
    words, quote = told(**PRICED), told(**MLLM | painter, generator__price_per_picture=0.04)
    assert words.usd.low and words.usd.high
    assert ends(quote.usd) == pytest.approx((words.usd.low + 0.04, words.usd.high + 3 * 0.04))


def test_what_pictures_cost_in_past_runs_is_told_apart_from_the_questions(place: Path) -> None:
    draw("two things", seed=7)
    log = home().events(run_table().newest(1)[0].id)
    paid = re.sub(r'("images":1,"mllm_calls":0,"tokens":0,"usd":)0.0', r"\g<1>0.04", log.read_text("utf-8"))
    log.write_text(paid, "utf-8")
    (run,) = past_of(told())
    assert run.image_usd == pytest.approx(0.04 * len(run.image_seconds)) and run.mllm_usd == 0


UNKNOWN = "no price is known for {}.model = 'm', so money could not stop the run. Set \"m\" = "


@pytest.mark.parametrize(
    ("table", "engine", "known"),
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
def test_a_budget_of_money_wants_a_price(place: Path, table: str, engine: str, known: dict[str, Any]) -> None:
    unpriced = {f"{table}.backend": engine, f"{table}.model": "m"}
    limited = unpriced | {"budget.usd": 0.5}
    with pytest.raises(BadInput, match=re.escape(UNKNOWN.format(table))):
        draw("two things", overrides=limited)
    assert not (place / "home").exists()
    estimate("two things", overrides=unpriced)
    estimate("two things", overrides=limited | known)


def test_the_pocket_world_and_a_server_of_ones_own_cost_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__BACKEND", "in_context")
    here = {"mllm__model": "llama", "mllm__base_url": "http://127.0.0.1:8000/v1"}
    assert ends(told(mllm__backend="pocket").usd) == (0, 0)
    assert ends(told(mllm__backend="openai", **here).usd) == (0, 0)


def test_json_says_the_same(place: Path) -> None:
    answer = json.loads(call("two things", "--json").stdout)
    assert answer["pictures"] == {"low": 1, "high": 3, "note": ""}
    assert answer["usd"]["low"] is None and answer["past_runs"] == 0
    assert answer["mllm"] == "quick" and answer["limits"]["attempts"] == 3


def test_what_cannot_be_drawn_is_not_quoted(place: Path) -> None:
    done = call("two things", "--max-attempts", "0")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    with pytest.raises(BadInput, match="input image"):
        estimate("two things", input_images=["none.png"])


def test_every_packaged_profile_is_quoted(place: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PLEINAIR_") and "ENGINE" in name]:
        os.environ.pop(name)
    for name in profiles():
        quote = estimate("two things", profile=name)
        assert quote.profile == name and quote.pictures.high == 3
        assert quote.past_runs == 0 and ends(quote.seconds) == (None, None)
    assert set(LOCAL_BACKENDS) < set(registry.names("generator"))
