"""Attribution: an image is drawn again without its references, and what carries a concept is named."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from starlette.testclient import TestClient
from support.fake_engines import ScriptedChat, decomposition, rows
from typer.testing import CliRunner

from pleinair.app.api import draw, find, home
from pleinair.app.cli.main import app
from pleinair.app.runs.results import Result
from pleinair.app.runs.store import Busy
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.trace.attribute import attribute, plan_attribution
from pleinair.app.trace.attribution import (
    FILE,
    Attribution,
    Redrawn,
    planned_subsets,
    read_attribution,
)
from pleinair.tools.prompt_options import renumbered
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Hit, Picture, Reference, Row

PROMPT = "two things"
SECOND = "second thing"


@pytest.fixture
def parent(place: Path) -> Result:
    result = draw(PROMPT, seed=7)
    effects(place)
    return result


def effects(place: Path) -> list[str]:
    """Return and clear what was paid for: images with their seed and number of references, MLLM calls."""
    log = place / "effects.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    log.write_text("", encoding="utf-8")
    return lines


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["trace", "attribute", *arguments])
    return result.exit_code, result.output


def test_the_reference_that_carries_a_concept_is_named(parent: Result, place: Path) -> None:
    attribution = attribute(parent.run_id)
    assert effects(place) == ["picture 7 1", "picture 7 0", "question"]
    assert attribution.finished and attribution.repeated == 0
    assert [each.references for each in attribution.redrawn] == [()]
    assert attribution.carrier(SECOND) == 0
    first = attribution.concepts[0]
    assert attribution.carrier(first) is None and "as well" in attribution.verdict(first)
    drops = {each.concept: each.drop for each in attribution.contributions}
    assert drops[SECOND] > 0.5 and drops[first] == 0
    assert attribution.redrawn[0].difference > 0
    best = parent.outcome.best
    assert best and attribution.rows == best.ledger.rows and attribution.picture == best.picture  # type: ignore[union-attr]


def test_a_second_call_costs_nothing(parent: Result, place: Path) -> None:
    before = attribute(parent.run_id)
    effects(place)
    assert attribute(parent.run_id) == before
    assert effects(place) == []


@pytest.mark.parametrize("stop", range(3))
def test_a_stopped_attribution_goes_on(parent: Result, place: Path, stop: int) -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        assert total == 3
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute(parent.run_id, on_progress=interrupt)
    paid = effects(place)
    assert len(paid) == stop
    assert attribute(parent.run_id).finished
    assert paid + effects(place) == ["picture 7 1", "picture 7 0", "question"]


def test_an_estimate_writes_nothing(parent: Result, place: Path) -> None:
    folder = home().run(parent.run_id)
    before = sorted(folder.rglob("*"))
    code, text = command("last", "--dry-run")
    assert code == 0 and "images 2" in text and "MLLM calls 1 to 2" in text
    code, text = command("last", "--dry-run", "--json")
    assert code == 0 and json.loads(text)["pictures"]["high"] == 2
    assert sorted(folder.rglob("*")) == before and effects(place) == []
    attribute(parent.run_id)
    parts = json.loads(command("last", "--dry-run", "--json")[1])
    assert {name: part["high"] for name, part in parts.items()} == dict.fromkeys(parts, 0)


def test_the_budget_stops_it_and_it_goes_on(parent: Result, place: Path) -> None:
    code, text = command(parent.run_id, "--set", "budget.images=1")
    assert code == 3 and "limit on images" in text
    assert effects(place) == ["picture 7 1"]
    code, text = command(parent.run_id, "--set", "budget.images=2", "--set", "budget.mllm_calls=0")
    assert code == 3 and effects(place) == ["picture 7 0"]
    code, text = command(parent.run_id)
    assert code == 0 and "is lost without reference 1" in text
    assert effects(place) == ["question"]


def test_seconds_count_for_the_attribution(parent: Result) -> None:
    assert attribute(parent.run_id, overrides={"budget.seconds": 1e-9}).limit == "seconds"


def test_what_cannot_be_attributed_is_refused(parent: Result, place: Path) -> None:
    with pytest.raises(BadInput, match="limits of the budget"):
        attribute(parent.run_id, overrides={"generator.pause": 1})
    bare = draw(PROMPT, seed=7, graph="direct")
    with pytest.raises(BadInput, match="without references"):
        attribute(bare.run_id)
    effects(place)
    store = ArtifactStore(home().pictures(parent.run_id))
    best = parent.outcome.best
    assert best
    store.remove(best.request.references[0].picture)
    with pytest.raises(BadInput, match="is gone") as fault:
        attribute(parent.run_id)
    assert fault.value.remedy and effects(place) == []
    assert command("nonsense")[0] == 2
    assert command(parent.run_id, "--out", "strip.gif")[0] == 2


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_drawn(
    parent: Result, place: Path
) -> None:
    (place / "folder.png").mkdir()
    (place / "file").write_text("mine", encoding="utf-8")
    for out in ("folder.png", "file/strip.png", f"{'x' * 300}.png", "strip.gif"):
        code, text = command(parent.run_id, "--out", out)
        assert code in (2, 5) and text
    assert effects(place) == [] and read_attribution(home().files(parent.run_id)) is None
    assert command(parent.run_id, "--out", "new/folders/strip.png")[0] == 0
    assert height_of(Path("new/folders/strip.png")) > 100


def test_another_generator_is_refused(parent: Result, place: Path) -> None:
    path = home().events_file(parent.run_id)
    path.write_text(path.read_text(encoding="utf-8").replace('"stripes"', '"dots"'), encoding="utf-8")
    with pytest.raises(BadInput, match="'dots'.*'stripes'"):
        attribute(parent.run_id)
    assert effects(place) == []


def test_two_processes_do_not_pay_twice(parent: Result, place: Path) -> None:
    with (
        FileLock(home().run(parent.run_id) / "attribution.lock"),
        pytest.raises(Busy, match="another process"),
    ):
        attribute(parent.run_id)
    assert effects(place) == []


def test_a_damaged_file_is_reported(parent: Result) -> None:
    (home().run(parent.run_id) / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be read"):
        attribute(parent.run_id)


def test_a_graph_that_judges_nothing_is_judged_here(place: Path) -> None:
    run = draw("picture 1 and picture 2", seed=7, graph="crossmodal").run_id
    effects(place)
    attribution = attribute(run)
    assert attribution.concepts == ("picture 1", "picture 2")
    assert len(attribution.rows) == 2 and attribution.finished
    assert effects(place).count("question") == 4  # the accepted image, and three without references


@pytest.mark.parametrize("template", ["use_only", "plain"])
def test_crossmodal_prompts_are_built_again(place: Path, template: str) -> None:
    overrides = {"crossmodal.template": template}
    prompt = "picture 1 and picture 2"
    run = draw(prompt, seed=7, graph="crossmodal", overrides=overrides).run_id
    prompts = {each.references: each.prompt for each in attribute(run).redrawn}
    instructed = [f"{prompt}\nUse only picture {number} in the 1st retrieved image." for number in (2, 1)]
    expected = instructed if template == "use_only" else [prompt, prompt]
    assert [prompts[1,], prompts[0,], prompts[()]] == [*expected, prompt]


@pytest.mark.parametrize("template", ["examples", "images"])
@pytest.mark.parametrize("placeholders", [False, True])
def test_imagerag_prompts_are_built_again(
    place: Path, template: str, placeholders: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import quick_engines

    def answer(schema: str, payload: dict[str, Any], *rest: Any) -> dict[str, Any]:
        concepts = {"MissingConcepts": {"concepts": ["one thing", SECOND]}}
        return concepts.get(schema) or original(schema, payload, *rest)

    original = quick_engines.answer
    monkeypatch.setattr(quick_engines, "answer", answer)
    overrides = {"imagerag.template": template, "generator.placeholders": placeholders}
    run = draw(PROMPT, seed=7, graph="imagerag", overrides=overrides).run_id
    best = find(run).outcome.best  # type: ignore[union-attr]
    assert best and len(best.request.references) == 2 and best.request.prompt != PROMPT
    prompts = {each.references: each.prompt for each in attribute(run).redrawn}
    for number, name in enumerate(("one thing", SECOND)):
        other = ("one thing", SECOND)[1 - number]
        assert f"a photo of {name}: " in prompts[number,] and other not in prompts[number,]
        assert "2" not in prompts[number,] and "1" in prompts[number,]
        assert ("<|image_1|>" in prompts[number,]) == placeholders
    assert prompts[()] == PROMPT


def test_a_prompt_that_cannot_be_built_again_is_refused(place: Path) -> None:
    from pleinair.app.trace.fork import fork

    overrides = {"crossmodal.template": "use_only"}
    run = draw("picture 1 and picture 2", seed=7, graph="crossmodal", overrides=overrides).run_id
    branch = fork(run, "generate", prompt="Use only this in the 1st and that in the 2nd retrieved image.")
    effects(place)
    with pytest.raises(BadInput, match="cannot be built again"):
        plan_attribution(branch.run_id)


def test_placeholders_are_renumbered() -> None:
    prompt = "<img><|image_1|></img> beside <|image_2|> under <|image_3|>"
    assert renumbered(prompt, {1: 1, 3: 2}) == "<img><|image_1|></img> beside under <|image_2|>"
    assert renumbered("a  finch", {}) == "a  finch"


def test_an_inpainted_image_is_drawn_from_its_beginning(place: Path) -> None:
    overrides = {
        "generator.inpaint": True,
        "mllm.box": [0.0, 0.0, 0.5, 0.5],
        "budget.attempts": 2,
    }
    run = draw(PROMPT, seed=7, overrides=overrides).run_id
    best = find(run).outcome.best  # type: ignore[union-attr]
    assert best and best.request.inpaint
    effects(place)
    attribution = attribute(run)
    # the draft had no reference, so it stays; only the box is painted again, without its reference
    assert [line for line in effects(place) if line.startswith("picture")] == ["picture 7 2", "picture 7 1"]
    assert attribution.carrier(SECOND) == 0


def test_the_strip_is_in_the_storyboard_and_on_the_page(parent: Result, place: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["trace", "export", "last", "before.html"]).exit_code == 0
    assert runner.invoke(app, ["trace", "export", "last", "before.png"]).exit_code == 0
    assert "attribution" not in Path("before.html").read_text(encoding="utf-8").split("</style>")[1]
    code, text = command("last", "--out", "strip.png", "--json")
    assert code == 0 and json.loads(text)["carriers"][SECOND] == 0
    for name in ("strip.html", "strip.json"):
        assert command("last", "--out", name)[0] == 0
    for name in ("after.html", "after.png"):
        assert runner.invoke(app, ["trace", "export", "last", name]).exit_code == 0
    assert json.loads(Path("strip.json").read_text(encoding="utf-8"))["finished"]
    heights = [height_of(Path(name)) for name in ("before.png", "after.png", "strip.png")]
    assert heights[1] > heights[0] and heights[2] > 100
    with TestClient(create(Options(workers=0), home()), base_url="http://127.0.0.1:8800") as client:
        page = client.get(f"/runs/{parent.run_id}", headers={"accept": "text/html"}).text
        image = attribute(parent.run_id).redrawn[0].picture.sha256
        sent = client.get(f"/runs/{parent.run_id}/images/{image}.png").content
        assert f"{image}.png" in page and decode(sent).size == (16, 16)
    texts = [page, *(Path(name).read_text(encoding="utf-8") for name in ("strip.html", "after.html"))]
    for text in texts:
        assert "Without its reference" in text and "What each reference contributed" in text
        assert "<b>thing" not in text and "is lost without reference 1" in text


def height_of(file: Path) -> int:
    return decode(file.read_bytes()).height


def decode(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def references(count: int) -> tuple[Reference, ...]:
    picture = Picture(sha256="0" * 64, width=8, height=8)
    return tuple(
        Reference(concept=f"thing {number}", hit=Hit(id=f"{number}.png", score=1), picture=picture)
        for number in range(count)
    )


Beliefs = dict[tuple[int, ...], float]


def attribution_of(beliefs: Beliefs, count: int, regions: Beliefs | None = None) -> Attribution:
    """Return an attribution of one concept with these beliefs, and changes in its box, by the references."""

    def ledger(share: float) -> tuple[Row, ...]:
        return (Row(concept="finch", status="present", confidence=share),)

    picture = Picture(sha256="0" * 64, width=8, height=8)
    return Attribution(
        run="run",
        attempt=1,
        prompt="a finch",
        picture=picture,
        references=references(count),
        concepts=("finch",),
        rows=ledger(beliefs[tuple(range(count))]),
        redrawn=tuple(
            Redrawn(
                references=each,
                prompt="a",
                picture=picture,
                difference=0,
                regions={"finch": regions[each]} if regions else {},
                rows=ledger(beliefs[each]),
            )
            for each in planned_subsets(count)
        ),
    )


def test_planned_subsets() -> None:
    assert planned_subsets(1) == [()]
    assert planned_subsets(2) == [(1,), (0,), ()]
    assert planned_subsets(3) == [(1, 2), (0, 2), (0, 1), (), (0,), (1,), (2,)]
    assert len(planned_subsets(5)) == 6 and () in planned_subsets(5)


def test_shapley_values_divide_what_the_references_bring() -> None:
    beliefs = {(0, 1): 0.9, (0,): 0.7, (1,): 0.3, (): 0.1}
    shares = [each.shapley for each in attribution_of(beliefs, 2).contributions]
    assert shares == pytest.approx([0.6, 0.2])  # (0.7 - 0.1 + 0.9 - 0.3) / 2 and so on
    assert attribution_of(beliefs, 2).carrier("finch") == 0


def test_of_two_references_that_are_both_needed_the_one_that_brings_more_carries() -> None:
    attribution = attribution_of({(0, 1): 1.0, (0,): 0.0, (1,): 0.4, (): 0.0}, 2)
    drops = [each.drop for each in attribution.contributions]
    assert drops == pytest.approx([0.6, 1.0]) and attribution.carrier("finch") == 1


def test_of_two_references_that_both_lose_a_concept_the_pixels_decide() -> None:
    beliefs = {(0, 1): 1.0, (0,): 0.0, (1,): 0.4, (): 0.0}  # by the critic alone it is the second
    regions = {(1,): 0.2, (0,): 0.1, (): 0.2}
    assert attribution_of(beliefs, 2, regions).carrier("finch") == 0
    assert [each.region for each in attribution_of(beliefs, 2, regions).contributions] == [0.2, 0.1]


def test_a_concept_that_hardly_changes_is_not_lost() -> None:
    beliefs = {(0, 1): 1.0, (0,): 1.0, (1,): 0.5, (): 0.5}
    doubted = attribution_of(beliefs, 2, {(1,): 0.01, (0,): 0.01, (): 0.01})
    assert doubted.carrier("finch") is None and "doubts it" in doubted.verdict("finch")
    assert attribution_of(beliefs, 2, {(1,): 0.1, (0,): 0.01, (): 0.1}).carrier("finch") == 0


def test_what_the_image_does_not_show_is_said_to_be_missing() -> None:
    missing = attribution_of({(0, 1): 0.03, (0,): 0.0, (1,): 0.5, (): 0.0}, 2)
    assert missing.carrier("finch") is None and "all of them does not show it" in missing.verdict("finch")
    shown = attribution_of({(0, 1): 0.9, (0,): 0.9, (1,): 0.9, (): 0.9}, 2)
    assert "without any shows it as well" in shown.verdict("finch")


def test_what_the_critic_misses_the_pixels_show() -> None:
    beliefs = {(0, 1): 1.0, (0,): 1.0, (1,): 1.0, (): 0.0}
    changed = attribution_of(beliefs, 2, {(1,): 0.05, (0,): 0.2, (): 0.2})
    assert changed.carrier("finch") == 1 and "accepts both" in changed.verdict("finch")
    assert attribution_of(beliefs, 2, {(1,): 0.15, (0,): 0.2, (): 0.2}).carrier("finch") is None
    unneeded = beliefs | {(): 1.0}
    assert attribution_of(unneeded, 2, {(1,): 0.0, (0,): 0.2, (): 0.2}).carrier("finch") is None


def test_no_reference_alone_carries_what_each_of_two_shows() -> None:
    redundant = attribution_of({(0, 1): 1.0, (0,): 1.0, (1,): 0.9, (): 0.0}, 2)
    assert redundant.carrier("finch") is None and "alone" in redundant.verdict("finch")
    unneeded = attribution_of({(0, 1): 1.0, (0,): 1.0, (1,): 1.0, (): 0.9}, 2)
    assert unneeded.carrier("finch") is None and "as well" in unneeded.verdict("finch")


def test_more_than_three_references_have_no_shapley_value() -> None:
    beliefs = {subset: 1.0 for subset in [(0, 1, 2, 3), *planned_subsets(4)]} | {(0, 2, 3): 0.0}
    attribution = attribution_of(beliefs, 4)
    assert attribution.carrier("finch") == 1
    assert all(each.shapley is None for each in attribution.contributions)


def test_a_generator_that_does_not_repeat_itself_is_told() -> None:
    attribution = attribution_of({(0,): 1.0, (): 0.0}, 1).model_copy(update={"repeated": 0.03})
    assert "3.0%" in attribution.note and attribution.note in list(attribution.lines())


def test_concepts_are_listed_where_the_run_has_none(place: Path) -> None:
    def policy(schema: str, payload: dict[str, Any], images: int) -> Any:
        if schema == "Decomposition":
            return decomposition(SECOND)
        judged = rows(payload, lambda name: True)
        for row in judged["rows"]:
            row |= {"box": [0.0, 0.0, 0.5, 0.5]}
        return judged

    model = ScriptedChat(policy=policy, schemas=[])
    result = draw(PROMPT, seed=7, graph="realrag", model=model, overrides={"realrag.method": "self_contrast"})
    attribution = attribute(result.run_id, model=model)
    assert attribution.concepts == (SECOND,) and attribution.finished
    # only that quarter of the image depends on the references
    (bare,) = [each for each in attribution.redrawn if not each.references]
    assert bare.difference > 0 and bare.regions == {SECOND: pytest.approx(4 * bare.difference)}
    with pytest.raises(BadInput, match="model"):
        attribute(
            draw(
                PROMPT, seed=8, graph="realrag", model=model, overrides={"realrag.method": "self_contrast"}
            ).run_id
        )
    assert read_attribution(home().files(result.run_id)) == attribution
