"""The test of a critic: the same pictures for all, passed by those who see, failed by those who do not."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.fake_engines import ScriptedChat, rows
from support.openai_server import KEY, MODEL, served
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.doctor.critic_test import ENOUGH, PICTURES, accept, cases, judge
from pleinair.tools.pocket.prompts import describe
from pleinair.tools.pocket.world import species_named
from pleinair.tools.types import PleinairError

TRUTH = [set(case.there) for case in cases()]


class Judge:
    """Know the truth, but say it of only so many pictures; after that say of all that it is there."""

    def __init__(self, right: int) -> None:
        self.right, self.looks = right, 0

    def __call__(self, schema: str, card: dict[str, Any], images: int) -> dict[str, Any]:
        truth, looks = TRUTH[self.looks], self.looks
        self.looks += 1
        wrong = looks >= self.right
        return rows(card, lambda name: (name in truth) is not wrong)


def chat(policy: Any) -> ScriptedChat:
    return ScriptedChat(policy=policy, asked=[])


def test_the_pictures_are_always_the_same_and_ask_for_all_three_things() -> None:
    first, second = list(cases()), list(cases())
    assert first == second
    assert len(first) == PICTURES
    assert {(len(case.there), len(case.absent)) for case in first} == {(1, 0), (1, 1), (0, 1)}


def test_what_is_absent_looks_like_nothing_that_is_there() -> None:
    for case in cases():
        (there, absent) = ([species_named(name) for name in names] for names in (case.there, case.absent))
        assert not [one for one in there for two in absent if one.kind == two.kind or one.body == two.body]


def test_the_prompt_says_what_the_names_mean() -> None:
    for case in cases():
        for name in case.there + case.absent:
            assert f"{name}, which is a" in case.prompt
            assert describe(species_named(name)) in case.prompt


def test_who_sees_everything_passes() -> None:
    score = judge(chat(Judge(PICTURES)))
    assert (score.pictures, score.there, score.absent) == (20, (14, 14), (13, 13))
    assert score.usage.mllm_calls == PICTURES
    assert "20 of 20 pictures judged right" in accept(chat(Judge(PICTURES)))


@pytest.mark.parametrize(("right", "passes"), [(ENOUGH, True), (ENOUGH - 1, False)])
def test_the_bar_is_where_it_is_said_to_be(right: int, passes: bool) -> None:
    if passes:
        assert accept(chat(Judge(right))).startswith(f"{right} of 20")
    else:
        with pytest.raises(PleinairError, match=f"^{right} of 20 .*wanted {ENOUGH}"):
            accept(chat(Judge(right)))


@pytest.mark.parametrize("answer", [True, False])
def test_who_says_the_same_to_everything_fails(answer: bool) -> None:
    score = judge(chat(lambda _, card, __: rows(card, lambda name: answer)))
    assert score.pictures == (7 if answer else 6)


def test_a_verdict_that_cannot_be_read_is_not_right() -> None:
    score = judge(chat(lambda *_: {"score": 10}))
    assert (score.pictures, score.usage.mllm_calls) == (0, 2 * PICTURES)


@pytest.mark.parametrize(("right", "mark"), [(PICTURES, "ok"), (3, "!!")])
def test_doctor_asks_the_model_behind_the_wire(
    place: Path, monkeypatch: pytest.MonkeyPatch, right: int, mark: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PLEINAIR_MLLM__BACKEND")
    with served(chat(Judge(right))) as service:
        settings = ["mllm.backend=openai", f"mllm.model={MODEL}", f"mllm.base_url={service.url}"]
        given = [word for setting in settings for word in ("--set", setting)]
        output = CliRunner().invoke(app, ["doctor", "--mllm", *given]).output
    assert f"ok  mllm: {MODEL} at {service.url}" in output
    assert f"{mark}  critic: {right} of 20 pictures judged right" in output
    assert len(service.heard) == PICTURES


def test_doctor_says_what_to_do_about_a_wrong_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
    monkeypatch.delenv("PLEINAIR_MLLM__BACKEND")
    with served(chat(Judge(0))) as service:
        settings = ["mllm.backend=openai", f"mllm.model={MODEL}", f"mllm.base_url={service.url}"]
        given = [word for setting in settings for word in ("--set", setting)]
        result = CliRunner().invoke(app, ["doctor", "--mllm", *given])
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
