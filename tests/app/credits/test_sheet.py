"""Credit sheets: who made which reference, under which license, in every form and place."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from pleinair.agent.react.schemas import Pin
from pleinair.app.api import draw, find, home, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.credits.formats import csv_of, markdown_of, text_of
from pleinair.app.credits.sheet import (
    MAX_LINE,
    NOTHING,
    Chosen,
    ImageCredit,
    Sheet,
    credit_line,
    credit_of,
    sheet_of,
)
from pleinair.app.runs.request import ChatThread, input_reference, read_request
from pleinair.app.runs.results import chosen_by
from pleinair.app.storyboard.export import exported
from pleinair.app.trace.view import view_of
from pleinair.tools.model_files.licenses import license_of
from pleinair.tools.types import Hit, Picture, Reference

PROMPT, NEVER = "two things", {"mllm.satisfied": False}


def image(number: int) -> Picture:
    return Picture(sha256=f"{number:064x}", width=8, height=8)


def reference(number: int = 1, concept: str = "wren", **facts: str) -> Reference:
    hit = Hit(id=facts.pop("id", f"birds/{number}.png"), score=0.9, **facts)  # type: ignore[arg-type]
    return Reference(concept=concept, hit=hit, picture=image(number))


def line_of(*references: Reference, chosen: Chosen = NOTHING) -> str:
    return credit_line([credit_of(each, chosen) for each in references])


def test_the_credit_line_has_title_author_license_and_source() -> None:
    stated = reference(
        caption="Saverel wren", author="A. Author", license="CC-BY-4.0", source="https://example.org/1"
    )
    terms = "CC-BY-4.0 https://creativecommons.org/licenses/by/4.0/, https://example.org/1"
    assert line_of(stated) == f'References: "Saverel wren" by A. Author ({terms}).'
    assert line_of(reference(license="N/A")) == line_of(reference())
    mine = input_reference("me", image(3), "")
    assert line_of(mine) == 'References: "000000000000…" (an input image).'
    assert line_of(reference()) == 'References: "1.png" by unknown author (license not stated).'
    assert line_of(input_reference("me", image(3), "me.jpg")) == 'References: "me.jpg" (an input image).'
    assert line_of() == "No references."


def test_an_image_is_credited_once_whatever_it_shows() -> None:
    same = [reference(1, "wren", author="A"), reference(1, "bird", author="A"), reference(2, author="B")]
    assert line_of(*same).count(" by ") == 2


def test_a_generated_caption_and_a_long_one_are_no_titles() -> None:
    assert credit_of(reference(caption="a bird", caption_model="vlm")).title == "1.png"
    assert credit_of(reference(caption="wren " * 30)).title == "1.png"


@given(st.lists(st.text(max_size=400), min_size=3, max_size=3), st.integers(1, 60))
def test_hostile_texts_leave_one_printable_line_of_a_limited_length(texts: list[str], count: int) -> None:
    caption, author, source = texts
    line = line_of(
        *(reference(n, caption=f"{n} {caption}", author=author, source=source) for n in range(count))
    )
    assert len(line) <= MAX_LINE + 20 and line.isprintable()


def test_the_role_is_that_which_the_user_gave_it() -> None:
    chosen = Chosen(frozenset({image(2).sha256}), frozenset({("wren", "birds/3.png")}))
    roles = [credit_of(reference(number), chosen).role for number in (1, 2, 3)]
    assert roles == ["retrieved", "input", "pinned"]
    assert credit_of(input_reference("me", image(9), "me.jpg"), chosen).role == "input"


def test_a_chat_tells_pins_and_input_images(place: Path) -> None:
    request = read_request(submit(PROMPT).request_json)
    assert chosen_by(request) == Chosen()
    pin = Pin(concept="wren", hit=Hit(id="birds/3.png", score=1))
    thread = ChatThread(pins=(pin,), given=(reference(2),))
    chosen = chosen_by(request.model_copy(update={"thread": thread}))
    assert chosen == Chosen(frozenset({image(2).sha256}), frozenset({("wren", "birds/3.png")}))


@pytest.mark.parametrize(
    ("label", "license"),
    [
        ("in_context:black-forest-labs/FLUX.2-klein-4B@0123456", "Apache-2.0"),
        ("ip_adapter:stabilityai/stable-diffusion-xl-base-1.0@1+h94/IP-Adapter@2", "openrail++, Apache-2.0"),
        ("ip_adapter:someone/model@1+h94/IP-Adapter@2", ""),
        ("openai_images:gpt-image-1@https://api.openai.com/v1", ""),
        ("in_context:pocket/generator@f7115224fd47", "Apache-2.0"),
        ("pocket", "Apache-2.0"),
        ("", ""),
    ],
)
def test_models_have_the_licenses_that_are_known(label: str, license: str) -> None:
    assert license_of(label) == license


HOSTILE = Sheet(
    run="r",
    prompt="a [wren](javascript:x)",
    references=(
        ImageCredit(
            concept="<b>", id="1.png", sha256="0", title="=HYPERLINK(1)", author="| a |\x1b[31m",
            source="javascript:alert(1)", license="<script>",
        ),
    ),
)  # fmt: skip


def test_what_others_wrote_is_escaped_in_every_format() -> None:
    text, markdown = text_of(HOSTILE), markdown_of(HOSTILE)
    (row,) = csv.DictReader(io.StringIO(csv_of(HOSTILE)))
    assert "\x1b" not in text + markdown + csv_of(HOSTILE)
    assert "\\<script\\>" in markdown and "\\[wren\\]" in markdown and "[wren](java" not in markdown
    assert row["title"] == "'=HYPERLINK(1)" and row["license"] == "<script>"


def test_the_references_of_other_attempts_are_listed_apart(place: Path) -> None:
    (place / "mine.png").write_bytes((place / "library" / "0.png").read_bytes())
    result = draw(PROMPT, graph="imagerag", seed=1, input_images=[place / "mine.png"], overrides=NEVER)
    attempts = list(map(json.dumps, json.loads(result.sidecar.read_text("utf-8"))["attempts"]))
    assert len(attempts) == 2
    sheet = Sheet.model_validate_json(run("credits", result.run_id, "--json"))
    best = result.outcome.best
    assert best is not None
    assert [credit.sha256 for credit in sheet.references] == [
        reference.picture.sha256 for reference in best.request.references
    ]
    assert sheet.references[0].role == "input"
    others = {credit.id for credit in sheet.others}
    assert others.isdisjoint(credit.id for credit in sheet.references)
    everything = {*others, *(credit.id for credit in sheet.references)}
    assert all(any(id in attempt for attempt in attempts) for id in everything)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["runs", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_sheet_is_on_the_command_line_in_the_files_and_on_the_storyboard(place: Path) -> None:
    result = draw(PROMPT, seed=1)
    assert result.picture is not None
    sidecar = json.loads(result.sidecar.read_text("utf-8"))
    line = sidecar["credits"]["line"]
    assert line.startswith('References: "') and "publicdomain/zero/1.0/, https://example.org/" in line
    view = view_of(find(result.run_id), home())
    assert view.credit_line == line and view.best_attempt is not None
    assert list(view.best_attempt.references) == sidecar["references"]
    assert sidecar["references"][0]["license_url"] == "https://creativecommons.org/publicdomain/zero/1.0/"
    assert line in run("credits", result.run_id)
    assert "[CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/)" in run(
        "credits", result.run_id, "--markdown"
    )
    assert run("credits", result.run_id, "--csv").startswith("image,concept,role,title,")
    assert CliRunner().invoke(app, ["runs", "credits", "last", "--csv", "--json"]).exit_code == 2
    page = exported(find(result.run_id), home(), ".html").decode()
    assert 'class="line"' in page and "creativecommons.org/publicdomain/zero/1.0/" in page
    with Image.open(result.picture) as picture:
        assert json.loads(picture.info["pleinair"])["references"] == sidecar["references"]


def test_a_run_without_references_says_so(place: Path) -> None:
    result = draw(PROMPT, graph="direct", seed=1)
    assert "No references." in run("credits", result.run_id)
    assert "No references." in exported(find(result.run_id), home(), ".html").decode()
    waiting = submit(PROMPT)
    assert CliRunner().invoke(app, ["runs", "credits", waiting.id]).exit_code == 2
    assert view_of(run_table().get(waiting.id), home()).credit_line == ""


def test_a_sheet_of_no_image_is_empty() -> None:
    sheet = sheet_of("r", "p", (), None, {"generator": "pocket"})
    assert (sheet.references, sheet.others, sheet.line) == ((), (), "No references.")
