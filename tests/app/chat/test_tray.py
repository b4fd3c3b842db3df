"""Tray of a chat thread: handles, mentions, use, and what requests make of it."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.chats import Chat
from support.plugins import install_bare_graph

from pleinair.app.api import answer, finish, home, run_table
from pleinair.app.chat.session import ChatSession
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.request import read_request, store_input_images
from pleinair.tools.types import BadInput, Reference

PROMPT = "a barn owl and a blue jay"
JAY = "blue jay"
COLOURS = ((9, 200, 9), (200, 9, 9), (9, 9, 200))


@pytest.fixture(autouse=True)
def chat_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    return place


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file.getvalue()


def chat_with_tray(*concepts: str) -> Chat:
    """Return a chat with an image for each concept, the first of which is @1."""
    chat = Chat()
    with Threads().opened(chat.thread) as session:
        for colour, concept in zip(COLOURS, concepts, strict=False):
            session.add_image(png(colour), f"{concept or 'mood'}.png", concept)
    chat.thread = session.thread
    return chat


def change(chat: Chat, action: Callable[[ChatSession], object]) -> None:
    with Threads().opened(chat.thread.id) as session:
        action(session)
    chat.thread = session.thread


def references(run_id: str) -> list[tuple[str, str]]:
    outcome = run_table().get(run_id).outcome
    assert outcome and outcome.best
    return [(each.concept, each.picture.sha256) for each in outcome.best.request.references]


def test_handles_are_never_used_twice() -> None:
    chat = chat_with_tray(JAY, "", "red car")
    assert [image.handle for image in chat.thread.tray] == ["@1", "@2", "@3"]
    change(chat, lambda session: session.remove("@3"))
    change(chat, lambda session: session.remove("1"))
    change(chat, lambda session: session.add_image(png(COLOURS[0]), "again.png"))
    assert [image.handle for image in chat.thread.tray] == ["@2", "@4"]
    with pytest.raises(BadInput, match="@3: no image of this thread has this handle"):
        change(chat, lambda session: session.use("@3"))


@pytest.mark.parametrize(
    ("line", "prompt", "used"),
    [
        ("a @1 in the snow", f"a {JAY} in the snow", {"@1"}),
        ("a @1 and a @3", f"a {JAY} and a barn owl", {"@1", "@3"}),
        ("a @1, @1!", f"a {JAY}, {JAY}!", {"@1"}),
        ("a barn owl", "a barn owl", set()),
        ("write to me@2 or @home or @1x or @@1", "write to me@2 or @home or @1x or @@1", set()),
        ("a @2", BadInput, "@2: it is not said what this image shows"),
        ("a @7", BadInput, "@7: no image of this thread has this handle"),
        ("a @0", BadInput, "@0: no image of this thread has this handle"),
        ("a @1 and a @9", BadInput, "There are: @1, @2, @3"),
    ],
)
def test_a_mention_is_the_concept_of_its_image(line: str, prompt: object, used: object) -> None:
    chat = chat_with_tray(JAY, "", "barn owl")
    for handle in ("@1", "@2", "@3"):
        change(chat, lambda session, handle=handle: session.use(handle, used=False))  # type: ignore[misc]
    before = chat.thread
    if prompt is BadInput:
        with pytest.raises(BadInput, match=str(used)):
            chat.submit(line)
        assert Threads().get(before.id) == before
        return
    run = chat.submit(line)
    assert read_request(run.request_json).prompt == prompt
    assert {image.handle for image in chat.thread.tray if image.used} == used
    assert chat.thread.turns[-1].prompt == line


def test_a_mentioned_image_is_used_and_sent() -> None:
    chat = chat_with_tray(JAY)
    run = chat.submit("a @1 and a barn owl").id
    finish(run_table().get(run))
    assert (JAY, chat.thread.tray[0].picture.sha256) in references(run)
    following = chat.submit("now make it night").id
    finish(run_table().get(following))
    assert references(following) == references(run)


@pytest.mark.parametrize("concept", ["a blue jay", "Blue Jay", "the  blue jay"])
def test_a_concept_is_the_same_in_each_writing(concept: str) -> None:
    chat = chat_with_tray(concept)
    run = chat.submit(PROMPT).id
    finish(run_table().get(run))
    assert references(run)[-1] == (JAY, chat.thread.tray[0].picture.sha256)
    change(chat, lambda session: session.add_image(png(COLOURS[1]), concept=JAY))
    assert [image.used for image in chat.thread.tray] == [False, True]


@pytest.mark.parametrize("line", ["@1 in the snow", "a @1 in the snow"])
def test_a_mention_has_one_article(line: str) -> None:
    chat = chat_with_tray("a blue jay")
    assert read_request(chat.submit(line).request_json).prompt == "a blue jay in the snow"


def test_one_image_shows_a_concept() -> None:
    chat = Chat()
    finish(chat.submit(PROMPT))
    change(chat, lambda session: session.add_image(png(COLOURS[0]), concept=JAY))
    change(chat, lambda session: session.add_image(png(COLOURS[1]), concept=JAY))
    assert [image.used for image in chat.thread.tray] == [False, True]
    change(chat, lambda session: session.use("@1"))
    assert [image.used for image in chat.thread.tray] == [True, False]
    hits = [each for each in chat.references() if each.concept == JAY and not each.handle]
    number = chat.references().index(hits[0]) + 1
    change(chat, lambda session: session.pin(number))
    assert not any(image.used for image in chat.thread.tray) and len(chat.thread.tray) == 2
    change(chat, lambda session: session.use("@2"))
    assert not chat.thread.pins


def test_nothing_drops_an_image() -> None:
    chat = chat_with_tray(JAY, "")
    tray = chat.thread.tray
    change(chat, lambda session: session.use("@2", used=False))
    tray = chat.thread.tray
    finish(chat.submit(PROMPT))
    chat.set(overrides={"generator.fault": "boom"})
    assert finish(chat.submit("now make it night")).outcome.ending == "failed"
    chat.set(overrides={})
    change(chat, lambda session: session.undo())
    change(chat, lambda session: session.undo())
    change(chat, lambda session: session.redo())
    with pytest.raises(BadInput):
        chat.submit("x" * 3000)
    assert Threads().get(chat.thread.id).tray == tray
    finish(chat.submit("not that bird"))
    change(chat, lambda session: None)
    assert [image.handle for image in chat.thread.tray] == ["@1", "@2"]


def test_an_image_removed_while_a_run_is_at_work_stays_removed() -> None:
    chat = chat_with_tray(JAY)
    run = chat.submit(PROMPT)
    change(chat, lambda session: session.remove("@1"))
    finish(run)
    change(chat, lambda session: None)
    assert chat.thread.tray == () and (JAY, "") not in references(run.id)


def test_images_without_a_concept_are_input_images_of_the_request() -> None:
    chat = chat_with_tray("")
    run = chat.submit(PROMPT)
    assert read_request(run.request_json).pictures == (chat.thread.tray[0].picture,)
    finish(run)
    assert chat.thread.tray[0].picture.sha256 in dict(references(run.id)).values()


def test_another_graph_gets_the_images_in_use(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = chat_with_tray(JAY)
    quick = {"mllm.backend": "quick"}
    run = chat.submit(PROMPT, graph="pleinair", overrides=quick)
    assert read_request(run.request_json).pictures == (chat.thread.tray[0].picture,)
    finish(run)
    monkeypatch.syspath_prepend(install_bare_graph(place / "bare"))
    with pytest.raises(BadInput, match="graph 'bare' takes no input images, and the tray has 1 in use"):
        chat.submit(PROMPT, graph="bare", overrides=quick)
    change(chat, lambda session: session.use("@1", used=False))
    assert not read_request(chat.submit(PROMPT, graph="bare", overrides=quick).request_json).pictures
    with pytest.raises(BadInput, match="graph 'pleinaire'"):
        Chat().submit(PROMPT, graph="pleinaire")


def test_more_images_than_references_are_refused() -> None:
    chat = chat_with_tray(JAY, "", "barn owl")
    with pytest.raises(BadInput, match="@1, @2, @3: 3 images of the tray; generator .* takes 2 references"):
        chat.submit(PROMPT)
    assert finish(chat.submit("a barn owl")).outcome.best


def test_results_and_hits_come_into_the_tray() -> None:
    chat = Chat()
    run = chat.submit(PROMPT)
    with pytest.raises(BadInput, match="it has no image"):
        change(chat, lambda session: session.reuse(run.id))
    finish(run)
    change(chat, lambda session: session.reuse(run.id))
    number = next(n for n, each in enumerate(chat.references(), 1) if "used" not in each.marks)
    hit = chat.references()[number - 1]
    change(chat, lambda session: session.keep(number))
    result, kept = chat.thread.tray
    best = run_table().get(run.id).outcome.best  # type: ignore[union-attr]
    assert best and result.picture == best.picture and result.name == PROMPT and not result.concept
    assert (kept.handle, kept.concept, kept.hit) == ("@2", hit.concept, hit.hit)
    change(chat, lambda session: session.remove("@1"))
    following = chat.submit("again")
    finish(following)
    assert (kept.concept, kept.picture.sha256) in references(following.id)


def test_images_of_an_answer_come_into_the_tray() -> None:
    chat = Chat(overrides={"approve": "references"})
    waiting = finish(chat.submit(PROMPT))
    with Threads().opened(chat.thread.id) as session:
        session.add_image(png(COLOURS[1]), "mine.png", JAY)
        finish(session.answer())
    assert (JAY, session.tray[0].picture.sha256) in references(waiting.run_id)
    change(chat, lambda session: None)
    assert [image.handle for image in chat.thread.tray] == ["@1"]


def test_images_of_an_answer_from_elsewhere_come_into_the_tray() -> None:
    from pleinair.tools.storage.artifacts import ArtifactStore

    chat = Chat(overrides={"approve": "references"})
    waiting = finish(chat.submit(PROMPT))
    image = Image.new("RGB", (16, 16), COLOURS[2])
    (picture,) = store_input_images([image], home())
    ArtifactStore(home().pictures(waiting.run_id)).put(image)
    hit = {"id": picture.sha256, "score": 1.0, "caption": "theirs.png"}
    given = Reference.model_validate({"concept": JAY, "hit": hit, "picture": picture})
    finish(answer(waiting.run_id, {"given": [given]}))
    change(chat, lambda session: None)
    assert [(image.handle, image.name, image.concept) for image in chat.thread.tray] == [
        ("@1", "theirs.png", JAY)
    ]


def test_a_file_that_is_no_image_is_refused(chat_place: Path) -> None:
    (chat_place / "x.png").write_bytes(b"no image")
    chat = chat_with_tray(JAY)
    for source in (str(chat_place / "x.png"), b"no image", "missing.png"):
        with pytest.raises(BadInput, match="input image"):
            change(chat, lambda session, source=source: session.add_image(source))  # type: ignore[misc]
    assert len(chat.thread.tray) == 1


def test_texts_that_cannot_be_stored_are_refused_or_replaced() -> None:
    chat = chat_with_tray(JAY)
    for concept in ("half \ud800 a wren", "a\x1b[2J", "x" * 201, "a @1"):
        with pytest.raises(BadInput, match="concept "):
            change(chat, lambda session, text=concept: session.set_concept("@1", text))  # type: ignore[misc]
    with pytest.raises(BadInput, match="half a character"):
        chat.submit("half \ud800 a wren")
    change(chat, lambda session: session.add_image(png(COLOURS[1]), "half \ud800.png"))
    change(chat, lambda session: session.rename("two \x1b birds"))
    assert (chat.thread.tray[1].name, chat.thread.title) == ("half �.png", "two � birds")
    assert Threads().get(chat.thread.id) == chat.thread
