"""Input images: first among the references, independent of their files, refused by graphs without them."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.plugins import install_bare_graph

from pleinair.app.api import draw, finish, home, run_table, submit
from pleinair.app.runs.events import Event
from pleinair.app.runs.request import MAX_INPUT_IMAGES, takes_input_images
from pleinair.app.runs.results import Result
from pleinair.app.runs.store import LeaseLost
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import redraw
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Attempt, BadInput

PROMPT, RED = "two things", (200, 10, 10)
SOURCE = "given with the prompt"


@pytest.fixture
def image(place: Path) -> Path:
    Image.new("RGB", (20, 12), RED).save(place / "mine.png")
    return place / "mine.png"


def sidecar(result: Result) -> dict[str, Any]:
    text: dict[str, Any] = json.loads(result.sidecar.read_text(encoding="utf-8"))
    return text


def used(result: Result) -> list[list[Any]]:
    """Return the colour of every reference of every attempt, from the run's own store."""
    store = ArtifactStore(home().pictures(result.run_id))
    attempts = map(Attempt.model_validate, sidecar(result)["attempts"])
    return [
        [store.open(reference.picture).getpixel((0, 0)) for reference in attempt.request.references]
        for attempt in attempts
    ]


def test_an_input_image_is_the_drafts_reference(image: Path) -> None:
    result = draw(PROMPT, graph="imagerag", seed=7, input_images=[image])
    assert result.outcome.reason == "the draft matches, so nothing was retrieved: a reference shows"
    assert used(result) == [[RED]]
    (credit,) = sidecar(result)["references"]
    assert (credit["source"], credit["license"]) == (SOURCE, "unknown")
    assert [picture["width"] for picture in sidecar(result)["order"]["pictures"]] == [20]


def test_input_images_come_before_retrieved_ones(image: Path) -> None:
    result = draw(PROMPT, graph="imagerag", input_images=[image], overrides={"mllm.satisfied": False})
    assert [len(colours) for colours in used(result)] == [1, 2]
    assert used(result)[1][0] == RED


@pytest.mark.parametrize("graph", ["imagerag", "pleinair"])
def test_more_input_images_than_slots_are_refused_with_both_numbers(image: Path, graph: str) -> None:
    with pytest.raises(BadInput, match="input images: 3; generator `stripes` takes 2 references"):
        draw(PROMPT, graph=graph, input_images=[image] * 3)
    assert not home().home.exists()


@pytest.mark.parametrize(
    ("graph", "overrides", "counts"),
    [
        ("pleinair", {"mllm.satisfied": False}, [1, 2, 2]),
        ("react", {"mllm.backend": "talker", "mllm.satisfied": False}, [1, 2, 2]),
        ("crossmodal", {}, [2]),
        ("direct", {}, [1]),
        ("realrag", {"realrag.method": "zero"}, [2]),
    ],
)
def test_every_graph_with_references_uses_input_images_first(
    image: Path, graph: str, overrides: dict[str, Any], counts: list[int]
) -> None:
    prompt = "a barn owl and a blue jay"
    result = draw(prompt, graph=graph, seed=7, input_images=[image], overrides=overrides)
    assert [len(colours) for colours in used(result)] == counts, result.outcome.reason
    assert all(colours[0] == RED for colours in used(result))


def test_the_file_may_be_deleted_once_the_run_is_submitted(image: Path) -> None:
    run = submit(PROMPT, graph="imagerag", input_images=[image])
    image.unlink()
    assert used(finish(run)) == [[RED]]


@pytest.mark.parametrize("count", [2, 5, 8])
def test_an_interrupted_run_continues_with_its_input_images(image: Path, count: int) -> None:
    run, events = submit(PROMPT, graph="imagerag", seed=7, input_images=[image]), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:  # as if another process had taken over the run
            with closing(sqlite3.connect(home().table_file)) as db, db:
                db.execute("UPDATE runs SET fence = fence + 1, lease_until = 0 WHERE id = ?", (run.id,))

    with pytest.raises(LeaseLost):
        finish(run, on_event)
    image.unlink()
    assert used(finish(run)) == [[RED]]


def test_a_fork_and_a_redraw_have_them_too(image: Path) -> None:
    first = draw(PROMPT, graph="imagerag", seed=7, input_images=[image], overrides={"mllm.satisfied": False})
    branch = fork(first.run_id, "decide:1", overrides={"mllm.satisfied": True})
    assert used(branch) == [[RED]]
    again = redraw(first.sidecar)
    assert used(again) == used(first)
    shutil.rmtree(home().input_images)
    with pytest.raises(BadInput, match="it is not on this machine"):
        redraw(first.sidecar)


def test_the_same_key_needs_the_same_input_images(image: Path) -> None:
    run = submit(PROMPT, graph="imagerag", seed=7, input_images=[image], idempotency_key="k")
    shutil.copy(image, image.with_name("copy.png"))
    again = submit(
        PROMPT, graph="imagerag", seed=7, input_images=[image.with_name("copy.png")], idempotency_key="k"
    )
    assert again.id == run.id
    with pytest.raises(BadInput, match="pictures"):
        submit(PROMPT, graph="imagerag", seed=7, idempotency_key="k")


def test_a_graph_without_references_refuses_input_images(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install_bare_graph(image.parent / "site"))
    assert not takes_input_images("bare")
    with pytest.raises(BadInput, match="graph 'bare' takes none; these do: .*direct, imagerag, pleinair"):
        submit(PROMPT, graph="bare", input_images=[image])
    assert not home().home.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"no picture", "not an image of a kind"),
        (None, "the file cannot be opened"),
    ],
)
def test_an_unusable_file_is_refused_before_anything_is_written(
    place: Path, content: bytes | None, words: str
) -> None:
    path = place / "mine.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=f"mine.png': {words}"):
        submit(PROMPT, graph="imagerag", input_images=[path])
    assert not home().home.exists()


@pytest.mark.parametrize("graph", ["imagerag", "pleinair", "direct"])
def test_a_placeholder_without_its_image_is_refused_before_anything_is_written(
    image: Path, graph: str
) -> None:
    with pytest.raises(BadInput, match=r"<\|image_2\|> names an image that does not exist; 1 input image"):
        submit("my cat <|image_2|> riding a finch", graph=graph, input_images=[image])
    assert not home().home.exists()


def test_too_many_are_refused(image: Path) -> None:
    with pytest.raises(BadInput, match=f"input images: 17; must be at most {MAX_INPUT_IMAGES}"):
        submit(PROMPT, graph="imagerag", input_images=[image] * 17)


def test_the_command_line_takes_several(image: Path) -> None:
    from typer.testing import CliRunner

    from pleinair.app.cli.main import app

    words = ["draw", PROMPT, "--graph", "imagerag", "--input-image", str(image), "--input-image", str(image)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (run,) = run_table().newest(1)
    assert len(json.loads(run.request_json)["pictures"]) == 2
