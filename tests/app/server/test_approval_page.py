"""The form of an approval: what it shows, what each field changes, and how it comes back."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from support.html_form import Form, Forms, described_faults

from pleinair.app.api import accept, answer, draw, finish, home, run_table, submit
from pleinair.app.chat.thread import MessageOptions
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.row import Run
from pleinair.app.server.app import create
from pleinair.app.server.decisions import approval_form
from pleinair.app.server.site import Options, Site
from pleinair.tools.types import Attempt, Concept

PROMPT = "first thing and second thing"
ODD = "first <b>thing</b>"  # name of the first concept


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    server, address = create(Options(workers=0), home()), "http://127.0.0.1:8800"
    with TestClient(server, address, follow_redirects=False, headers={"accept": "text/html"}) as client:
        yield client


def waiting(approve: str = "references", **overrides: Any) -> Run:
    return run_table().get(draw(PROMPT, seed=1, overrides={"approve": approve, **overrides}).run_id)


def form_in(page: str) -> Form:
    return next(form for form in Forms(page).forms if form.action.endswith("/answer"))


def form_of(client: TestClient, run: Run) -> Form:
    return form_in(client.get(f"/runs/{run.id}").text)


def sent(client: TestClient, form: Form, **changes: Any) -> Any:
    """Send a form as multipart, with changes; a file is a name with bytes."""
    files = {name: value for name, value in changes.items() if isinstance(value, tuple)}
    files |= {name: ("", b"") for name in form.files if name not in files}
    fields = form.fields | {name: value for name, value in changes.items() if name not in files}
    fields = {name: value for name, value in fields.items() if value is not None}
    return client.post(form.action, data=fields, files=files or {"no": ("", b"")})


def ended(run: Run) -> Attempt:
    best = finish(run_table().get(run.id)).outcome.best
    assert best
    return best


def used(attempt: Attempt) -> dict[str, str]:
    return {reference.concept: reference.hit.id for reference in attempt.request.references}


def encoded() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "PNG")
    return file.getvalue()


def test_the_form_shows_what_may_be_chosen(client: TestClient) -> None:
    run = waiting()
    page, form = client.get(f"/runs/{run.id}").text, form_of(client, run)
    assert run.question
    hits = run.question.retrievals[0].hits
    assert form.choices["use-1"] == [*(f"hit:{hit.id}" for hit in hits), "none"]
    assert form.fields["use-1"] == f"hit:{run.question.references[0].hit.id}"
    assert (form.fields["prompt"], form.fields["name-0"]) == (PROMPT, ODD)
    assert "No reference is planned for it." in page and "CC0-1.0" in page and "cosine" in page
    assert "Waits for your approval." in page and "<b>thing</b>" not in page
    assert "keep-1" not in form.boxes and not re.search("<script>|style=", page)
    for address in re.findall(rf'src="(/runs/{run.id}/hits/[^"]+)"', page):
        assert client.get(address).headers["content-type"] == "image/webp"


def test_an_answer_as_proposed_changes_nothing(client: TestClient) -> None:
    run, free = waiting(), draw(PROMPT, seed=1)
    answered = sent(client, form_of(client, run), decision="continue")
    assert (answered.status_code, answered.headers["location"]) == (303, f"/runs/{run.id}")
    row = run_table().get(run.id)
    assert row.client, "a worker goes on with a run of the terminal"
    assert row.answer_json and '"hits":{}' in row.answer_json and '"without":[]' in row.answer_json
    assert free.outcome.best and ended(run).picture == free.outcome.best.picture


def test_another_hit_is_chosen_and_one_is_vetoed(client: TestClient) -> None:
    run = waiting()
    form = form_of(client, run)
    proposed, other = form.choices["use-1"][:2]
    veto = next(name for name, value in form.boxes.items() if f"hit:{value}" == proposed)
    sent(client, form, **{"use-1": other, veto: form.boxes[veto]})
    assert used(ended(run)) == {"second thing": other.removeprefix("hit:")}


def test_a_veto_changes_the_reference(client: TestClient) -> None:
    run = waiting()
    form = form_of(client, run)
    (veto,) = [name for name, value in form.boxes.items() if f"hit:{value}" == form.fields["use-1"]]
    sent(client, form, **{veto: form.boxes[veto]})
    reference = used(ended(run))["second thing"]
    assert reference != form.boxes[veto] and f"hit:{reference}" in form.choices["use-1"]


def test_a_concept_goes_without_a_reference(client: TestClient) -> None:
    run = waiting()
    sent(client, form_of(client, run), **{"use-1": "none"})
    ended(run)
    outcome = run_table().get(run.id).outcome
    assert outcome and outcome.best and outcome.best.request.references == ()


def test_an_image_of_ones_own_is_used_and_survives_a_fault_elsewhere(client: TestClient) -> None:
    run = waiting()
    form = form_of(client, run)
    again = sent(client, form, **{"file-1": ("my <wren>.png", encoded()), "prompt": " "})
    assert again.status_code == 422 and run_table().get(run.id).status == "waiting"
    assert 'role="alert" id=' in again.text and "my &lt;wren&gt;.png" in again.text
    form = form_in(again.text)
    assert client.get(f"/images/{form.fields['image-1']}.png").status_code == 200
    assert sent(client, form, prompt="a second thing").status_code == 303
    (reference,) = ended(run).request.references
    assert (reference.concept, reference.hit.caption) == ("second thing", "my <wren>.png")
    assert reference.picture.sha256 == form.fields["image-1"]


FAULTS: dict[str, dict[str, Any]] = {
    "3,000 characters": {"prompt": "x" * 3000},
    "concept has no name": {"name-0": ""},
    "another concept has this name": {"name-0": "second thing"},
    "../../x": {"use-1": "hit:../../x"},
    "input image &#39;x.png&#39;": {"file-1": ("x.png", b"no image")},
    "hit &#39;0.png&#39;": {"use-0": "hit:0.png"},
}


def test_a_fault_comes_back_with_what_was_typed(client: TestClient) -> None:
    run = waiting()
    form = form_of(client, run)
    _, other, third, *_ = form.choices["use-1"]
    veto = next(name for name, value in form.boxes.items() if f"hit:{value}" == third)
    typed = {"prompt": "another prompt", "use-1": other, veto: form.boxes[veto]}
    for fault, changes in FAULTS.items():
        again = sent(client, form, **(typed | changes))
        assert again.status_code == 422 and fault in again.text and "Accept the image so far" in again.text
        is_of_a_hit = next(iter(changes)).startswith("use-")  # which is told above the form
        assert len(described_faults(again.text)) == (not is_of_a_hit)
        fields = form_in(again.text).fields
        for name, value in (typed | changes).items():
            assert name.startswith(("use-", "file-")) or fields[name] == value
        assert "use-1" in changes or fields["use-1"] == other
        row = run_table().get(run.id)
        assert (row.status, row.answer_json) == ("waiting", None)


def test_a_renamed_concept_asks_again_and_the_form_before_is_refused(client: TestClient) -> None:
    run = waiting()
    form = form_of(client, run)
    assert sent(client, form, **{"name-1": "зимородок “x” & 'y'"}).status_code == 303
    late = sent(client, form)
    assert late.status_code == 400 and "has been answered already" in late.text
    assert finish(run_table().get(run.id)).question
    stale = sent(client, form)
    assert stale.status_code == 409 and "another one than you answered" in stale.text
    new = form_in(stale.text)
    assert new.fields["name-1"] == "зимородок “x” & 'y'" and new.fields["question"] != form.fields["question"]
    assert sent(client, new).status_code == 303
    assert list(used(ended(run))) == ["зимородок “x” & 'y'"]


def test_the_form_of_a_draft_has_no_references(client: TestClient) -> None:
    run = waiting("draft")
    form = form_of(client, run)
    assert not (form.choices or form.boxes or form.files)
    assert client.post(f"/runs/{run.id}/accept").status_code == 400
    assert sent(client, form, decision="stop").status_code == 303
    assert finish(run_table().get(run.id)).outcome.ending == "cancelled"


def test_a_library_without_a_match_says_so(client: TestClient) -> None:
    run = waiting()
    assert run.question
    (found,) = run.question.retrievals
    for changes, note in (
        ({"abstained": True}, "Your library has nothing above the threshold for it."),
        ({"abstained": True, "hits": ()}, "Your library has nothing for it."),
        ({"hits": ()}, "Your library has nothing for it."),
    ):
        retrieval = found.model_copy(update=changes)
        question = run.question.model_copy(update={"retrievals": (retrieval,), "references": ()})
        fields = approval_form(run, question, home()).concepts[1]
        assert (fields.note, fields.choice, len(fields.cards)) == (note, "none", len(retrieval.hits))


def test_an_image_is_accepted_by_a_button(client: TestClient) -> None:
    run = waiting()
    assert client.post(f"/runs/{run.id}/accept", data={"back": "//evil.example"}).headers["location"] == (
        f"/runs/{run.id}"
    )
    outcome = run_table().get(run.id).outcome
    assert outcome and outcome.accepted_by == "person"
    assert client.post(f"/runs/{run.id}/accept").status_code == 400
    queued = submit(PROMPT, seed=1)
    page = client.get(f"/runs/{queued.id}").text
    assert "Stop</button>" in page and "Accept the image so far" not in page
    assert f"<h1>{PROMPT}</h1>" in page
    client.post(f"/runs/{queued.id}/stop")
    assert run_table().get(queued.id).status == "cancelled"


def test_a_program_answers_in_json(client: TestClient) -> None:
    run = waiting()
    refused = client.post(f"/runs/{run.id}/answer", json={"hits": {"second thing": "no.png"}})
    assert refused.status_code == 400 and "no.png" in refused.json()["error"]["message"]
    for body in (b"{", b"[1]", b'"yes"', b'{"prompt": "\\ud800"}', b"[" * 100_000):
        headers = {"content-type": "application/json"}
        assert client.post(f"/runs/{run.id}/answer", content=body, headers=headers).status_code == 400
    assert client.post(f"/runs/{run.id}/answer", json=True).json() == {"run": run.id, "status": "queued"}
    assert client.post(f"/runs/{run.id}/answer", json=True).status_code == 400


def test_a_page_is_told_of_each_question_once(client: TestClient) -> None:
    run = waiting()
    site = Site(Options(workers=0), home())
    shown, key = site.rendered(run.id), run.question and run.question.key
    assert f"#approval-{run.id}:not(:has([data-key='{key}']))" in shown and 'class="approval"' in shown
    assert site.rendered(run.id) == shown
    assert "Continue with this run" not in shown
    answer(run.id)
    assert f"#approval-{run.id}:not(:has([data-key='none']))" in site.rendered(run.id)
    assert "Your answer has been received" in site.rendered(run.id)
    accept(run.id)
    assert "Ended: accepted." in site.rendered(run.id) and "Continue with this run" in site.rendered(run.id)


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_choice_is_of_the_run_and_a_pin_of_its_thread(client: TestClient, is_kept: bool) -> None:
    threads = Threads(home())
    thread = threads.create(overrides={"approve": "references", "mllm.backend": "talker"})
    with threads.opened(thread.id) as session:
        (run,) = session.submit("a barn owl and a blue jay", MessageOptions(seed=1))
    assert finish(run).question
    form, back = form_of(client, run), f"/threads/{thread.id}"
    (number,) = [name.removeprefix("use-") for name in form.choices]
    name, other = form.fields[f"name-{number}"], form.choices[f"use-{number}"][-1]
    assert form.boxes[f"keep-{number}"] == "on" and other.startswith("hit:")
    changes = {f"use-{number}": other, f"keep-{number}": "on" if is_kept else None, "back": back}
    assert sent(client, form, **changes).headers["location"] == back
    hits = {name: other.removeprefix("hit:")}
    assert used(ended(run)) == hits
    pins = {pin.concept: pin.hit.id for pin in threads.viewed(thread.id).thread.pins}
    assert pins == (hits if is_kept else {})


def test_files_with_odd_names_are_chosen_and_vetoed(client: TestClient, place: Path) -> None:
    odd = ['a"b.png', "c'<d>&amp;.png", "été 🐦.png", "e;f,g=h.png", "hit:none.png", " i  j.png"]
    lines = []
    for number, name in enumerate(odd):
        (place / "library" / f"{number}.png").rename(place / "library" / name)
        lines.append(json.dumps({"file_name": name, "text": f"<img src=x> {number}"}))
    (place / "library" / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    run = waiting()
    assert run.question
    form, page = form_of(client, run), client.get(f"/runs/{run.id}").text
    assert [f"hit:{hit.id}" for hit in run.question.retrievals[0].hits] == form.choices["use-1"][:-1]
    assert "<img src=x>" not in page
    *_, last, _ = form.choices["use-1"]
    vetoes = {name: value for name, value in form.boxes.items() if f"hit:{value}" != last}
    assert sent(client, form, **vetoes, **{"use-1": last}).status_code == 303
    assert used(ended(run)) == {"second thing": last.removeprefix("hit:")}


def test_twenty_concepts_have_fields_of_their_own(client: TestClient) -> None:
    row = waiting()
    assert row.question
    concepts = tuple(Concept(name=f"thing “{n}” <i>", caption="x") for n in range(20))
    question = row.question.model_copy(update={"concepts": concepts, "references": ()})
    text = question.model_dump_json()
    with run_table().transaction() as db:
        db.execute("UPDATE runs SET question_json=? WHERE id=?", (text, row.id))
    form = form_of(client, row)
    assert [form.fields[f"name-{n}"] for n in range(20)] == [concept.name for concept in concepts]
    again = sent(client, form, **{"name-7": form.fields["name-3"]})
    assert again.status_code == 422 and again.text.count('role="alert"') == 1
    assert 'aria-describedby="' + f'{row.id}-name-7-fault"' in again.text
