"""The critic test: the same images for every model, passed by a correct critic, failed by others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import ScriptedChat, rows
from support.openai_server import KEY, MODEL, served
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.doctor.critic_test import ENOUGH, IMAGES, accept, cases, judge
from pleinair.tools.pocket.catalogue.species import BY_NAME
from pleinair.tools.types import PleinairError

TRUTH = [set(case.present) for case in cases()]


class Judge:
    """Scripted critic that is correct for a number of images, and then wrong in every row."""

    def __init__(self, right: int) -> None:
        self.right, self.looks = right, 0

    def __call__(self, schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        if schema != "Critique":  # one of the small calls before the test
            return {"match": True, "why": ""}
        truth, looks = TRUTH[self.looks], self.looks
        self.looks += 1
        wrong = looks >= self.right
        return rows(card, lambda name: (name in truth) is not wrong)


def chat(policy: Any) -> ScriptedChat:
    return ScriptedChat(policy=policy, schemas=[])


def test_the_cases_are_always_the_same_and_of_all_three_kinds() -> None:
    first, second = list(cases()), list(cases())
    assert first == second
    assert len(first) == IMAGES
    assert {(len(case.present), len(case.absent)) for case in first} == {(1, 0), (1, 1), (0, 1)}


def test_what_is_absent_looks_like_nothing_that_is_present() -> None:
    for case in cases():
        present, absent = ({BY_NAME[name].kind for name in names} for names in (case.present, case.absent))
        assert not present & absent


def test_the_prompt_describes_the_names() -> None:
    for case in cases():
        for name in case.present + case.absent:
            assert re.search(rf"{name}, which is an? .+ {BY_NAME[name].kind}\b", case.prompt)


def test_a_correct_critic_passes() -> None:
    score = judge(chat(Judge(IMAGES)))
    assert (score.images, score.present, score.absent) == (20, (14, 14), (13, 13))
    assert score.usage.mllm_calls == IMAGES
    assert "20 of 20 images judged correctly" in accept(chat(Judge(IMAGES)))


@pytest.mark.parametrize(("right", "passes"), [(ENOUGH, True), (ENOUGH - 1, False)])
def test_the_bar_is_at_enough(right: int, passes: bool) -> None:
    if passes:
        assert accept(chat(Judge(right))).startswith(f"{right} of 20")
    else:
        with pytest.raises(PleinairError, match=f"^{right} of 20 .*at least {ENOUGH}"):
            accept(chat(Judge(right)))


@pytest.mark.parametrize("answer", [True, False])
def test_the_same_answer_to_everything_fails(answer: bool) -> None:
    score = judge(chat(lambda _, card, __: rows(card, lambda name: answer)))
    assert score.images == (7 if answer else 6)


def test_an_unreadable_verdict_is_not_correct() -> None:
    score = judge(chat(lambda *_: {"score": 10}))
    assert (score.images, score.usage.mllm_calls) == (0, 2 * IMAGES)


@pytest.mark.parametrize(("right", "mark"), [(IMAGES, "ok"), (3, "!!")])
def test_doctor_tests_the_model_behind_a_server(
    place: Path, monkeypatch: pytest.MonkeyPatch, right: int, mark: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PLEINAIR_MLLM__BACKEND")
    with served(chat(Judge(right))) as service:
        settings = ["mllm.backend=openai", f"mllm.model={MODEL}", f"mllm.base_url={service.url}"]
        words = [word for setting in settings for word in ("--set", setting)]
        output = CliRunner().invoke(app, ["doctor", "--mllm", *words]).output
    assert f"ok  mllm: {MODEL} at {service.url}" in output
    assert f"{mark}  critic: {right} of 20 images judged correctly" in output
    assert len(service.requests) == IMAGES + 4  # a small question, and three to try the server


def test_doctor_gives_the_remedy_for_a_wrong_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
    monkeypatch.delenv("PLEINAIR_MLLM__BACKEND")
    with served(chat(Judge(0))) as service:
        settings = ["mllm.backend=openai", f"mllm.model={MODEL}", f"mllm.base_url={service.url}"]
        words = [word for setting in settings for word in ("--set", setting)]
        result = CliRunner().invoke(app, ["doctor", "--mllm", *words])
    assert result.exit_code == 5
    assert "!!  critic: The key in OPENAI_API_KEY is not accepted at http://127.0.0.1" in result.output
    assert "sk-another" not in result.output


@pytest.mark.parametrize(
    "setting", ["mllm.api_key=sk-1234567890", "mllm.base_url=http://me:sk-1234567890@h/v1"]
)
def test_a_secret_in_settings_is_refused_before_anything_is_written(place: Path, setting: str) -> None:
    result = CliRunner().invoke(app, ["draw", "a finch", "--set", "mllm.backend=openai", "--set", setting])
    assert result.exit_code == 2
    assert "not accepted in settings" in result.output
    assert "sk-1234567890" not in result.output
    written = [path for path in (place / "home").rglob("*") if path.is_file()]
    assert not [path for path in written if b"sk-1234567890" in path.read_bytes()]


def test_the_profile_is_pocket_with_another_model() -> None:
    from pleinair.app.settings import read_profile

    pocket, openai = read_profile("pocket"), read_profile("openai")
    assert openai["mllm"]["backend"] == "openai"
    assert openai | {"mllm": 0} == pocket | {"mllm": 0}
    assert json.dumps(openai)
