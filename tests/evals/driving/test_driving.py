"""Comparison of driving models: the table of conversations, the engines, real runs and the measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from pleinair.evals.__main__ import main
from pleinair.evals.driving.conversations import Conversation, Fault, read_conversations
from pleinair.evals.driving.drivers import RulesDriver, build_driver
from pleinair.evals.driving.engines import Bench
from pleinair.evals.driving.measure import LineResult, run_conversation, summarise
from pleinair.tools.callbacks import no_callback
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.types import BadInput, GenerateRequest, ModelFault

TABLE = read_conversations()
BY_FAULT = {conversation.fault.kind: conversation for conversation in TABLE}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("driving"))


def run(name: str, conversation: Conversation, bench: Bench) -> list[LineResult]:
    return list(run_conversation(conversation, build_driver(name, bench.truth), bench))


def conversation(says: str, draws: str = "", fault: Fault | None = None) -> Conversation:
    line = {"says": says, "draws": draws, "calls": 3, "images": 1, "most_images": 2}
    return Conversation.model_validate({"id": says, "lines": [line], "fault": fault or Fault()})


def request(prompt: str) -> GenerateRequest:
    return GenerateRequest(
        prompt=prompt, height=96, width=96, num_inference_steps=1, guidance_scale=1, seed=3
    )


def test_table() -> None:
    assert len(TABLE) == len({conversation.id for conversation in TABLE}) == 100
    assert len(BY_FAULT) == 5
    lines = [line for conversation in TABLE for line in conversation.lines]
    for line in lines:
        mentions = read(line.draws).request.mentions if line.draws else ()
        assert {*line.lacks, *line.vetoes} <= {mention.name for mention in mentions}
        assert bool(line.draws) == (line.images > 0) and line.images <= line.most_images <= 3
    assert sum(not line.draws for line in lines) >= 15


@pytest.mark.parametrize(
    "chosen", [*BY_FAULT.values(), *TABLE[30:36], *TABLE[80:84]], ids=lambda item: item.id
)
def test_the_ideal_driver_takes_the_least_calls(chosen: Conversation, bench: Bench) -> None:
    results = run("ideal", chosen, bench)
    assert all(result.is_right and not result.invalid for result in results)
    least = [(line.calls, line.images) for line in chosen.lines]
    assert [(result.calls, result.images) for result in results] == least


def test_the_rules_recover(bench: Bench) -> None:
    for kind in ("generator error", "omission", "no hits", "few slots"):
        results = run("rules", BY_FAULT[kind], bench)
        assert all(result.is_right and result.has_fault for result in results)


def test_a_misread_line_is_not_right(bench: Bench) -> None:
    wrong = conversation("a robin on a beach", draws="a robin in a forest")
    (result,) = run("rules", wrong, bench)
    assert (result.is_right, result.images) == (False, 1)
    (result,) = run("rules", conversation("a robin"), bench)  # nothing was to be drawn
    assert not result.is_right
    (result,) = run("rules", conversation("a cat", draws="a dog"), bench)
    assert (result.is_right, result.ending) == (False, "refused")


def test_a_driver_without_critique_misses_what_needs_a_reference(bench: Bench) -> None:
    (known,) = run("never critiques", conversation("a robin", "a robin"), bench)
    (rare,) = run("never critiques", conversation("a hoopoe", "a hoopoe"), bench)
    assert known.is_right and not rare.is_right
    (rare,) = run("rules", conversation("a hoopoe", "a hoopoe"), bench)
    assert (rare.is_right, rare.wasted, rare.images) == (True, 3, 2)


def test_a_driver_that_always_retrieves_wastes_calls(bench: Bench) -> None:
    (result,) = run("retrieves everything", conversation("a robin", "a robin"), bench)
    assert (result.is_right, result.wasted, result.mllm_calls) == (True, 1, 2)


class SloppyDriver(RulesDriver):
    """Driver that judges an image which it was not shown."""

    def drive(self, messages: Sequence[BaseMessage]) -> AIMessage:
        reply = super().drive(messages)
        for call in reply.tool_calls:
            if call["name"] == "critique":
                call["args"]["picture"] = 7
        return reply


def test_calls_with_wrong_arguments_are_invalid(bench: Bench) -> None:
    driver = SloppyDriver(world="catalogue", truth=bench.truth)
    (result,) = run_conversation(conversation("a robin", "a robin"), driver, bench)
    assert result.invalid == 3 and result.calls == 5


def test_generator(bench: Bench) -> None:
    driver = build_driver("rules", bench.truth)
    _, generator = bench.context(driver, Fault())
    image = generator.generate(request("a red car beside a hoopoe"), [], no_callback)
    assert bench.truth.shows(image, "a red car")
    assert not bench.truth.shows(image, "hoopoe")  # without a reference
    assert not bench.truth.shows(image, "car") and not bench.truth.shows(image, "sofa")
    with pytest.raises(BadInput, match="cat"):
        generator.generate(request("a cat"), [], no_callback)
    _, generator = bench.context(driver, Fault(kind="generator error"))
    with pytest.raises(ModelFault):
        generator.generate(request("a robin"), [], no_callback)
    _, generator = bench.context(driver, Fault(kind="omission"))
    image = generator.generate(request("a robin and a crow"), [], no_callback)
    assert [bench.truth.shows(image, name) for name in ("robin", "crow")] == [True, False]


def test_measures() -> None:
    plain = LineResult("1", 0, False, True, calls=3, invalid=0, wasted=0, images=1, mllm_calls=2)
    bad = replace(plain, conversation="2", has_fault=True, calls=7, invalid=2, wasted=4, images=3)
    results = [plain, bad, replace(bad, line=1, is_right=False), replace(bad, conversation="3", invalid=0)]
    figures = summarise(results)
    assert figures["lines_right"]["mean"] == 0.75 and figures["lines_right"]["groups"] == 3
    assert (figures["calls_valid"]["mean"], figures["calls_valid"]["n"]) == (20 / 24, 24)
    assert (figures["recovered"]["mean"], figures["recovered"]["n"]) == (0.5, 2)
    assert figures["wasted_calls"]["mean"] == 3 and figures["images"]["mean"] == 2.5


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "driving.json"
    words = ["driving", "--drivers", "rules,never critiques", "--first", "12", "--json", str(path)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "| rules | 100 [" in table and "| never critiques |" in table
    report = json.loads(path.read_text("utf-8"))
    assert report["about"]["command"].startswith("python -m pleinair.evals driving")
    assert len(report["lines"]["rules"]) == 12
    assert main(["driving", "--drivers", "nobody"]) == 1
