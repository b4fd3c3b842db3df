"""Requests from prompts with options: the same from every interface; notes before a run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.chats import Chat
from typer.testing import CliRunner, Result

from pleinair.app.api import draw, estimate, home, run_table, submit, submit_images
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Started, payloads, read
from pleinair.app.runs.prompts import Unconfirmed, size_of_ratio
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.tools.types import BadInput, Capabilities

PAID: dict[str, Any] = {
    "generator.backend": "openai_images",
    "generator.model": "m",
    "budget.usd": None,
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")  # hosted models are requested, and none is called


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def request_of(prompt: str, **options: Any) -> DrawRequest:
    return read_request(submit(prompt, **options).request_json)


@pytest.fixture
def pocket(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PLEINAIR_") and "__" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLEINAIR_PATHS__OUT", str(place / "out"))
    return place


def test_options_of_a_prompt_are_options_of_the_request(place: Path) -> None:
    request = request_of("two things --ar 2:1 --seed 7 --steps 2 --v 6 --no ice")
    assert request.prompt == "two things"
    assert request.seed == 7
    image = request.settings.image
    assert (image.width, image.height, image.num_inference_steps) == (16, 8, 2)
    used = {option.option: option.used for option in request.prompt_options}
    assert used == {
        "ratio": True,
        "seed": True,
        "num_inference_steps": True,
        "unsupported": False,
        "negative_prompt": False,
    }
    negative = next(option for option in request.prompt_options if option.option == "negative_prompt")
    assert negative.note == "`stripes` has no negative prompt; left out"


def test_all_interfaces_read_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "two things --size 24x32 --seed 7"
    python = request_of(prompt)
    assert call("draw", prompt).exit_code == 0
    command = read_request(run_table().newest(1)[0].request_json)
    assert command == python
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    run = Chat().submit(prompt)
    chat = read_request(run.request_json)
    assert (chat.prompt, chat.settings.image, run.seed) == (python.prompt, python.settings.image, 7)
    assert chat.prompt_options == python.prompt_options


def test_what_the_caller_sets_comes_before_the_prompt(place: Path) -> None:
    request = request_of("two things --ar 2:1 --seed 7 --steps 2", width=24, seed=8)
    assert request.seed == 8
    assert (request.settings.image.width, request.settings.image.height) == (24, None)
    assert [option.used for option in request.prompt_options] == [False, False, True]
    request = request_of("two things --size 24x32", overrides={"image.height": 8})
    assert request.settings.image.height == 8 and not request.prompt_options[0].used


def test_the_plan_and_the_terminal_tell_what_was_read(place: Path) -> None:
    prompt = "two things --ar 2:1 --v 6"
    plan = call("draw", prompt, "--dry-run").stdout
    words = "from the prompt: “--ar 2:1”: width 16, height 8"
    assert words in plan and "“--v 6”: not an option of this program; left out" in plan
    assert words in call("draw", prompt).stderr
    assert [option.option for option in estimate(prompt).prompt_options] == ["ratio", "unsupported"]
    (started,) = payloads(read(home().events(run_table().newest(1)[0].id)), Started)
    assert [option.value for option in started.prompt_options if option.used] == ["2:1"]


def test_a_prompt_without_options_is_stored_as_before(place: Path) -> None:
    run = submit("two (rare) things")
    assert not {"prompt_options", "notes"} & set(json.loads(run.request_json))
    assert read_request(run.request_json).prompt == "two (rare) things"


def test_a_negative_prompt_is_used_where_the_generator_has_one(place: Path) -> None:
    overrides = {**PAID, "generator.diffusion": True, "generator.negative_prompt": True}
    request = request_of("two things. Negative prompt: ice --no snow", overrides=overrides)
    assert request.settings.image.negative_prompt == "ice, snow"
    request = request_of("two things --no ice", overrides=overrides, negative_prompt="fog")
    assert request.settings.image.negative_prompt == "fog" and not request.prompt_options[0].used


def test_a_number_in_the_prompt_is_a_number_of_images(place: Path) -> None:
    assert len(submit_images("3 pictures of two things", num_images=None)) == 3
    assert len(submit_images("3 pictures of two things", num_images=2)) == 2
    assert call("draw", "two pictures of two things").stdout.count(".png") == 2
    assert draw("3 pictures of two things").picture  # one Result by its type
    assert estimate("3 pictures of two things").runs == 3


def test_several_images_that_cost_money_are_confirmed(place: Path) -> None:
    before = len(run_table().newest(9))
    with pytest.raises(Unconfirmed) as caught:
        submit_images("4 pictures of two things", num_images=None, overrides=PAID)
    assert caught.value.num_images == 4 and "--yes" in caught.value.remedy
    result = call("draw", "4 pictures of two things", "--profile", "gpt_image", "--dry-run")
    assert result.exit_code == 0, result.output
    words = [f"--set={key}={value}" for key, value in PAID.items() if value]
    result = call("draw", "4 pictures of two things", *words)
    assert result.exit_code == 2 and "costs money" in result.stderr
    assert len(run_table().newest(9)) == before
    assert len(submit_images("4 pictures of two things", num_images=None, overrides=PAID, yes=True)) == 4
    assert len(submit_images("two things", num_images=4, overrides=PAID)) == 4


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("two things 1023x768", "'1023x768' in the prompt: .* the nearest is 1024 × 768"),
        ("two things --w 4", "'--w 4' in the prompt: .* the nearest is 8"),
        ("two things --size 99999x64", "the nearest is 8192 × 64"),
        ("two things --ar 100:1", "'--ar 100:1' in the prompt: a ratio must be 1:8 to 8:1"),
        ("two things --seed 99999999999999999999", "seed 99999999999999999999: must be 0 to"),
        ("two things --seed 1.5", "'--seed 1.5' in the prompt: must be a whole number"),
        ("100 pictures of two things", "num_images = 100"),
        ("two things --steps 0", "num_inference_steps = 0 in the prompt"),
        ("--ar 16:9", "prompt: it is empty"),
    ],
)
def test_an_impossible_option_is_refused_before_anything_is_written(
    place: Path, prompt: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        submit_images(prompt, num_images=None)
    assert call("draw", prompt).exit_code == 2
    assert not run_table().newest(1)


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("16:9", (1360, 768)), ("9:16", (768, 1360)), ("1:1", (1024, 1024)), ("2:3", (832, 1248))],
)
def test_a_ratio_keeps_the_number_of_pixels(ratio: str, size: tuple[int, int]) -> None:
    capabilities = Capabilities(
        id="g", slots=0, height=1024, width=1024, multiple_of=16, num_inference_steps=1, guidance_scale=1
    )
    assert size_of_ratio(ratio, capabilities, "x") == size
    assert abs(size[0] * size[1] / 1024**2 - 1) < 0.02


@pytest.mark.parametrize("graph", ["pleinair", "imagerag", "crossmodal"])
def test_the_pocket_models_refuse_what_they_cannot_read_before_an_image(pocket: Path, graph: str) -> None:
    with pytest.raises(BadInput, match="I cannot draw cats; what comes nearest is dog"):
        submit("two cats", graph=graph)
    result = call("draw", "two cats", "--graph", graph)
    assert result.exit_code == 2 and "--profile NAME" in result.stderr, result.output
    assert not (pocket / "out").exists() and not run_table().newest(1)
    assert submit("two cats", graph="direct").id


@pytest.mark.parametrize(
    "prompt",
    [
        "A Blue Jay In The Snow",
        "a blue jay in the snow, please",
        "Please draw me a blue jay in the snow, thanks!",
        "could you paint a blue jay in the snow",
    ],
)
def test_capitals_and_polite_words_are_no_part_of_a_pocket_prompt(pocket: Path, prompt: str) -> None:
    assert request_of(prompt).prompt == "a blue jay in the snow"
    assert request_of("a blue jay in the snow").prompt == "a blue jay in the snow"


def test_photographs_under_the_pocket_profile_bring_one_plain_warning(pocket: Path) -> None:
    (pocket / "photos").mkdir()
    Image.new("RGB", (40, 30), "brown").save(pocket / "photos" / "dog.jpg")
    folder = str(pocket / "photos")
    plan = call("draw", "a dog", "--library", folder, "--dry-run")
    assert plan.stdout.count("their miniature world") == 1 and plan.exit_code == 0
    request = request_of("a dog", overrides={"library.folder": folder})
    assert [note.kind for note in request.notes] == ["library"]
    assert "--profile NAME" in request.notes[0].text
    assert not request_of("a blue jay").notes


def test_a_misspelt_name_of_an_indexed_library_is_a_note_and_stops_nothing(place: Path) -> None:
    assert not request_of("a pictrue 3").notes
    assert call("index").exit_code == 0
    (note,) = request_of("a pictrue 3").notes
    assert (note.kind, note.about) == ("spelling", "picture")
    result = call("draw", "a pictrue 3", "--graph", "direct")
    assert result.exit_code == 0 and result.stderr.count("did you mean “picture”?") == 1
    assert not request_of("a picture 3").notes
