"""Free prompts that are drawn, and the judge of what an image shows of them."""

from pathlib import Path

import pytest

from pleinair.app.settings import load
from pleinair.evals.pocket.oracle import STRANGER, Finding, Oracle
from pleinair.evals.pocket.prompts import judge_rows, main, refusal, report_inside
from pleinair.evals.pocket.scene_judge import Verdicts, judge, judgeable, true_render
from pleinair.tools.pocket.catalogue.language.reading import read

TABLES = Path(__file__).parents[3] / "evals" / "data" / "prompts"
LEFT, RIGHT = (0.05, 0.3, 0.45, 0.8), (0.55, 0.3, 0.95, 0.8)
MIDDLE = (0.15, 0.15, 0.85, 0.85)


def judged(prompt: str, *findings: tuple[str, tuple[float, float, float, float]]) -> Verdicts:
    """Judge a true render of a prompt in which these subjects are found."""
    request = read(prompt).request
    found_in = [Finding(name, 0.9, box) for name, box in findings]
    return judge(true_render(request, 1), request, found_in)


def wrong(verdicts: Verdicts) -> list[str]:
    return [item for item, right in verdicts.items() if not right]


def test_species_and_relations() -> None:
    prompt = "a puffin left of a taxi on a beach"
    right = judged(prompt, ("puffin", LEFT), ("taxi", RIGHT))
    assert sorted(right) == [
        "count of puffin",
        "count of taxi",
        "relation left of",
        "subject puffin",
        "subject taxi",
    ]
    assert not wrong(right)
    assert wrong(judged(prompt, ("puffin", RIGHT), ("taxi", LEFT))) == ["relation left of"]
    assert wrong(judged(prompt, ("puffin", LEFT), ("crow", RIGHT))) == [
        "subject taxi",
        "count of taxi",
        "relation left of",
    ]


@pytest.mark.parametrize(("relation", "is_right"), [("above", True), ("under", False), ("behind", None)])
def test_relations_of_height(relation: str, is_right: bool | None) -> None:
    high, low = (0.3, 0.0, 0.7, 0.45), (0.3, 0.5, 0.7, 1.0)
    verdicts = judged(f"a puffin {relation} a taxi", ("puffin", high), ("taxi", low))
    assert verdicts.get(f"relation {relation}") is is_right


def test_numbers() -> None:
    assert not wrong(judged("two crows", ("crow", LEFT), ("crow", RIGHT)))
    assert wrong(judged("two crows", ("crow", MIDDLE))) == ["count of crow"]


def test_kinds() -> None:
    assert not wrong(judged("a dog and a taxi", (STRANGER, LEFT), ("taxi", RIGHT)))
    assert not wrong(judged("a dog and a taxi", ("pug", LEFT), ("taxi", RIGHT)))
    assert wrong(judged("a dog and a taxi", ("crow", LEFT), ("taxi", RIGHT))) == [
        "subject dog",
        "count of dog",
    ]
    named = judged("a car beside a taxi", ("taxi", RIGHT))  # the taxi is not the other car as well
    assert wrong(named) == ["subject car", "count of car"]


def test_colours_of_kinds_by_day() -> None:
    red, blue = (read(f"a {colour} car on a road").request for colour in ("red", "blue"))
    image, findings = true_render(red, 1), [Finding(STRANGER, 0.9, MIDDLE)]
    assert judge(image, red, findings)["colour of red car"]
    assert not judge(image, blue, findings)["colour of blue car"]
    assert "colour of red car" not in judged("a red car at night", (STRANGER, MIDDLE))


def test_without_an_image_all_that_can_be_judged_is_wrong() -> None:
    oracle, subject = Oracle(), {"name": "puffin", "count": 1, "size": "", "colour": ""}
    row = {"prompt": "a puffin", "subjects": [subject], "relation": "", "background": "beach"}
    row |= {"light": "", "weather": ""}
    (verdicts,) = judge_rows([row], lambda _, seed: None, oracle)
    assert verdicts == dict.fromkeys(judgeable(read("a puffin on a beach").request, oracle), False)


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "a bee-eater and a crow", "subjects": [{"name": "bee-eater"}, {"name": "crow"}]},
        {"prompt": "a crow", "subjects": [{"name": "crow"}]},
        {"prompt": "a bird", "subjects": [{"name": "bird"}]},
    ]
    verdicts = [{"subject crow": True, "count of crow": False}, {}, {"subject crow": True}]
    report_inside("table", rows, verdicts)
    output = capsys.readouterr().out
    assert "table: drawn as meant: 1 of 2" in output and "subject: 2 of 2" in output
    assert "with a novel species: 0 of 1" in output and "nothing can be judged: 1" in output
    assert "a bee-eater" not in output
    report_inside("table", rows, verdicts, show=True)
    assert "a bee-eater and a crow\n      not right: count of crow\n" in capsys.readouterr().out


def test_refusals() -> None:
    settings = load("pocket")
    reason = refusal(settings, {"prompt": "an osprey"})
    assert "bald eagle" in reason and "\n" not in reason
    assert refusal(settings, {"prompt": "a hoopoe"}) == ""


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(TABLES / "first.jsonl"), str(TABLES / "first_outside.jsonl"), "--first", "3"]
    main([*words, "--renders"])
    output = capsys.readouterr().out
    assert "first.jsonl: drawn as meant: " in output and "outside" not in output
    main([words[1], "--first", "20"])
    output = capsys.readouterr().out
    assert "refused before an image: 20 of 20" in output and "in one line: 20 of 20" in output
