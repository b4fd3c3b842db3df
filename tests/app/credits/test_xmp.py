"""XMP of generated images: IPTC's source type, the credit line, and well-formed XML whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

import defusedxml.ElementTree
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pleinair.app.api import draw, find, home
from pleinair.app.credits.xmp import COMPOSITE, GENERATED, KEY, MAX_TEXT, packet
from pleinair.app.runs.events import Ended, payloads, read
from pleinair.app.runs.request import ChatThread, DrawRequest, input_reference, read_request
from pleinair.app.runs.results import deliver
from pleinair.app.trace.view import view_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Inpaint, Picture

PROMPT = "two things"
NAMES = {
    "tool": "{http://ns.adobe.com/xap/1.0/}CreatorTool",
    "type": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType",
    "model": "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}AISystemUsed",
    "credit": "{http://ns.adobe.com/photoshop/1.0/}Credit",
}


def properties(text: str) -> dict[str, str | None]:
    """Parse a packet and return its properties by the names above."""
    tree = defusedxml.ElementTree.fromstring(text)
    (description,) = tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    values = {child.tag: child.text for child in description}
    return {name: values.get(tag) for name, tag in NAMES.items() if tag in values}


def test_the_source_types_are_those_of_iptcs_vocabulary() -> None:
    vocabulary = "http://cv.iptc.org/newscodes/digitalsourcetype/"
    assert vocabulary + "trainedAlgorithmicMedia" == GENERATED
    assert vocabulary + "compositeWithTrainedAlgorithmicMedia" == COMPOSITE
    assert properties(packet(tool="t", model=""))["type"] == GENERATED
    assert properties(packet(tool="t", model="", source_type=COMPOSITE))["type"] == COMPOSITE


@given(st.text(st.characters(), max_size=200))
def test_any_text_leaves_well_formed_xml(text: str) -> None:
    found = properties(packet(tool="t", model="m", credit=f"{text} ends"))
    assert str(found["credit"]).endswith(" ends") and found["type"] == GENERATED


@pytest.mark.parametrize(
    "text",
    ["\x00\x1b\x9f", "\ud800", "\ufffe\uffff", "]]>", "<!ENTITY a 'b'>&a;", '"?><x/>', "😀" * MAX_TEXT],
)
def test_hostile_texts_are_texts(text: str) -> None:
    found = properties(packet(tool=text, model=text, credit=text))
    assert set(found) == set(NAMES) and len(str(found["credit"])) <= MAX_TEXT
    assert len(packet(tool=text, model=text, credit=text).encode("utf-8")) < 6 * 4 * MAX_TEXT


def test_an_image_has_xmp_that_readers_read(place: Path) -> None:
    result = draw(PROMPT, seed=1)
    assert result.picture is not None and result.outcome.best is not None
    line = json.loads(result.sidecar.read_text("utf-8"))["credits"]["line"]
    with Image.open(result.picture) as image:
        found = properties(image.info[KEY])
        described = image.getxmp()["xmpmeta"]["RDF"]["Description"]
        pixels = image.tobytes()
    assert found == {"tool": "pleinair 0.1.0", "type": GENERATED, "model": "stripes", "credit": line}
    assert described["DigitalSourceType"] == GENERATED
    assert view_of(find(result.run_id), home()).digital_source_type == GENERATED
    store = ArtifactStore(home().pictures(result.run_id))
    assert store.open(result.outcome.best.picture).tobytes() == pixels
    assert KEY.encode() not in store.read(result.outcome.best.picture)


def test_an_image_in_an_image_of_the_user_is_a_composite(place: Path) -> None:
    run = find(draw(PROMPT, graph="direct", seed=1).run_id)
    request = read_request(run.request_json)
    (end,) = payloads(read(home().events(run.id)), Ended)
    store, (attempt,) = ArtifactStore(home().pictures(run.id)), end.attempts
    outside = Picture(sha256="0" * 64, width=16, height=16)

    def source_type(source: Picture, request: DrawRequest) -> str | None:
        inpaint = Inpaint(concept="thing", picture=source, box=(0, 0, 1, 1))
        changed = attempt.request.model_copy(update={"inpaint": inpaint})
        attempts = (attempt, attempt.model_copy(update={"number": 1, "request": changed}))
        path, *_ = deliver(run, request, end.model_copy(update={"attempts": attempts}), store, place / "x")
        with Image.open(path) as image:
            return properties(image.info[KEY])["type"]

    assert source_type(attempt.picture, request) == GENERATED
    assert source_type(outside, request) == COMPOSITE
    in_chat = request.model_copy(update={"thread": ChatThread(after="r")})
    assert source_type(outside, in_chat) == GENERATED
    given = ChatThread(given=(input_reference("me", outside, "me.png"),))
    assert source_type(outside, request.model_copy(update={"thread": given})) == COMPOSITE


def test_an_edit_with_a_mask_is_a_composite(place: Path) -> None:
    mine = Image.radial_gradient("L").convert("RGBA").resize((16, 16))
    mine.paste((0, 0, 0, 0), (4, 4, 12, 12))
    mine.save(place / "mine.png")
    options = {"generator.inpaint": True}
    result = draw(PROMPT, graph="direct", seed=1, base=place / "mine.png", overrides=options)
    assert result.picture is not None
    with Image.open(result.picture) as image:
        assert properties(image.info[KEY])["type"] == COMPOSITE
        assert "(the base image, changed in part)" in str(properties(image.info[KEY])["credit"])
    view = view_of(find(result.run_id), home())
    assert view.digital_source_type == COMPOSITE and view.credit_line.startswith("References: ")


def test_the_metadata_can_be_left_out(place: Path) -> None:
    result = draw(PROMPT, seed=1, strip_metadata=True)
    assert result.picture is not None
    assert b"xmp" not in result.picture.read_bytes()


def test_an_image_without_references_has_no_credit(place: Path) -> None:
    result = draw(PROMPT, graph="direct", seed=1)
    assert result.picture is not None
    with Image.open(result.picture) as image:
        assert set(properties(image.info[KEY])) == {"tool", "type", "model"}
