"""Spans of a run from its log: what each event becomes, and that they never change."""

from collections.abc import Sequence
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.chats import Chat

from pleinair.agent.approval.types import Approval, ApprovalRequest
from pleinair.app.api import answer, draw, finish, home, resume, run_table, submit
from pleinair.app.otel.export import readable, run_spans
from pleinair.app.otel.images import ImageLinks
from pleinair.app.otel.span import MOST_SPANS, Span, plain, span_id, trace_id
from pleinair.app.otel.spans import ROOT, Source, spans_of
from pleinair.app.runs.calls import CallRecord, Message, Part, Try, read_calls
from pleinair.app.runs.events import (
    Answered,
    Asked,
    Call,
    Ended,
    Event,
    Payload,
    Progress,
    Resumed,
    Snapshot,
    Started,
    StepFinished,
    StepStarted,
    read,
)
from pleinair.app.runs.lease import Released
from pleinair.app.runs.request import read_request
from pleinair.app.runs.runner import perform
from pleinair.app.trace.fork import fork
from pleinair.app.trace.trace import trace_begun
from pleinair.tools.types import Attempt, Hit, Ledger, Outcome, Picture, Retrieval, Row

PROMPT = "first thing and second thing"
SHA = "ab" * 32


def spans(run_id: str) -> list[Span]:
    """Return a run's spans; the beginning of the log must give the first ones of them."""
    run = run_table().get(run_id)
    all_spans, source = run_spans(run, home()), source_of(run_id)
    for count in range(1, len(source.events), 3):
        shown = spans_of(replaced(source, source.events[:count]))
        assert shown == all_spans[: len(shown)]
    return all_spans


def source_of(run_id: str) -> Source:
    run, places = run_table().get(run_id), home()
    return Source(
        run_id=run_id,
        request=read_request(run.request_json),
        events=read(places.events(run_id)),
        calls=read_calls(places.files(run_id)),
        links=ImageLinks(run_id, places),
    )


def replaced(source: Source, events: Sequence[Event]) -> Source:
    return Source(source.run_id, source.request, events, source.calls, source.links)


def named(shown: Sequence[Span], name: str) -> list[Span]:
    return [span for span in shown if span.name.split()[0] == name]


def require_tree(shown: Sequence[Span]) -> Span:
    """Return the first span of a run, under which all others are, in their parents' time."""
    by_key = {span.key: span for span in shown}
    assert len(by_key) == len(shown)
    root = by_key[ROOT]
    for span in shown:
        assert span.start <= span.end
        if span is not root and span.parent != ROOT:
            parent = by_key[span.parent]
            assert parent.start <= span.start <= span.end <= parent.end + 1e-6
    assert [span for span in shown if not span.parent] == [root]
    return root


def kinds(shown: Sequence[Span]) -> set[Any]:
    return {span.attributes["openinference.span.kind"] for span in shown}


def test_a_run_is_one_tree_of_what_it_did(place: Path) -> None:
    run = draw(PROMPT, seed=1)
    shown, trace = spans(run.run_id), trace_begun(run_table().get(run.run_id), home())
    root = require_tree(shown)
    assert kinds(shown) == {"AGENT", "CHAIN", "LLM", "RETRIEVER", "EVALUATOR"}
    assert (root.name, root.status, root.attributes["input.value"]) == ("invoke_agent pleinair", "ok", PROMPT)
    best = run.outcome.best
    assert best and root.attributes["output.value"] == f"accepted: sha256:{best.picture.sha256}"
    steps = [event.step for event in read(home().events(run.run_id)) if isinstance(event.data, StepFinished)]
    assert [span.name for span in shown if span.parent == ROOT] == steps
    images = [span.attributes["output.value"] for span in named(shown, "generate_content")]
    assert images == [f"sha256:{attempt.picture.sha256}" for attempt in trace.attempts.values()]
    assert len(named(shown, "evaluate")) == len(images) == 2
    assert len(named(shown, "retrieval")) == len(trace.retrievals)
    calls = read_calls(home().files(run.run_id))
    assert [span.attributes["pleinair.call"] for span in named(shown, "chat")] == [
        call.number for call in calls
    ]


def test_a_generated_image_has_its_request_with_its_references(place: Path) -> None:
    run = draw(PROMPT, seed=1)
    last = named(spans(run.run_id), "generate_content")[-1]
    best = run.outcome.best
    assert best and best.request.references
    place_of = "llm.input_messages.0.message.contents"
    assert last.attributes[f"{place_of}.0.message_content.text"] == best.request.prompt
    for number, reference in enumerate(best.request.references, 1):
        url = last.attributes[f"{place_of}.{number}.message_content.image.image.url"]
        assert url == f"sha256:{reference.picture.sha256}"
    assert last.attributes["gen_ai.request.seed"] == best.request.seed
    assert last.attributes["gen_ai.output.type"] == "image"


def test_the_same_run_gives_the_same_spans_to_any_exporter(place: Path) -> None:
    run = run_table().get(draw(PROMPT, seed=1).run_id)
    texts = []
    for _ in range(2):
        exporter = InMemorySpanExporter()
        exporter.export(readable(run_spans(run, home())))
        texts.append([span.to_json() for span in exporter.get_finished_spans()])
    assert texts[0] == texts[1] != []
    first = exporter.get_finished_spans()[-1].context
    assert first and (first.trace_id, first.span_id) == (trace_id(run.id), span_id(run.id, ROOT))
    assert len({trace_id(f"20260101-000000-{number:08x}") for number in range(1000)}) == 1000


def test_a_run_that_waits_has_its_steps_and_then_the_approval(place: Path) -> None:
    run = draw(PROMPT, seed=1, overrides={"approve": "references"})
    before = spans(run.run_id)
    assert before and not [span for span in before if span.key == ROOT]
    finish(answer(run.run_id))
    after = spans(run.run_id)
    assert after[: len(before)] == before
    root = require_tree(after)
    (approval,) = named(after, "approval")
    assert (approval.parent, approval.attributes["output.value"]) == (ROOT, "answered")
    assert [event.name for event in root.events] == ["resumed"]


def test_a_released_run_goes_on_in_the_same_trace(place: Path) -> None:
    run, stop = submit(PROMPT, seed=1), Flag()

    def after_draft(event: Event) -> None:
        if event.step == "draft" and isinstance(event.data, StepFinished):
            stop.set()

    with pytest.raises(Released):
        perform(run_table(), run, home(), after_draft, stop=stop)
    before = spans(run.id)
    perform(run_table(), run_table().get(run.id), home())
    after = spans(run.id)
    root = require_tree(after)
    assert after[: len(before)] == before and named(before, "draft")
    assert [event.name for event in root.events] == ["resumed"]
    assert len(named(after, "generate_content")) == 2


def test_a_step_in_which_the_process_died_is_not_finished(place: Path) -> None:
    source = source_of(draw(PROMPT, seed=1).run_id)
    at = next(
        number
        for number, event in enumerate(source.events)
        if event.step == "critique" and isinstance(event.data, StepStarted)
    )
    start = source.events[0].data
    assert isinstance(start, Snapshot)
    again = Resumed.model_validate(start.model_dump())
    events = [
        *source.events[: at + 1],
        Event(seq=at + 1, at=source.events[at].at + 60, kind="resumed", data=again),
        *(
            event.model_copy(update={"seq": event.seq + 2, "at": event.at + 61})
            for event in source.events[at:]
        ),
    ]
    shown = spans_of(replaced(source, events))
    died, again_run, _ = named(shown, "critique")
    assert (died.status, died.attributes["pleinair.finished"]) == ("", False)
    assert died.end == source.events[at].at  # not the time at which it was resumed
    assert (again_run.status, again_run.attributes["pleinair.finished"]) == ("ok", True)
    assert [event.name for event in require_tree(shown).events] == ["resumed"]


def test_a_failed_run_is_an_error_and_goes_on_under_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = draw(PROMPT, seed=1, overrides={"generator.fault": "no paint"})
    assert run.outcome.ending == "failed"
    before = spans(run.run_id)
    root = require_tree(before)
    assert (root.status, root.attributes["error.type"]) == ("error", "failed")
    assert "no paint" in root.reason
    draft = named(before, "draft")[0]
    assert (draft.status, draft.attributes["pleinair.finished"]) == ("error", False)
    resume(run.run_id)
    after = spans(run.run_id)
    require_tree(after)
    assert after[: len(before)] == before
    (part,) = [span for span in after if span.name.startswith("invoke_agent") and span.key != ROOT]
    assert part.parent == ROOT
    assert [span for span in after if span.parent == part.key]


def test_a_fork_links_to_its_parent_and_repeats_none_of_its_images(place: Path) -> None:
    first = draw(PROMPT, seed=1, overrides={"budget.attempts": 1})
    branch = fork(first.run_id, "critique:1", overrides={"budget.attempts": 2})
    shown = spans(branch.run_id)
    root = require_tree(shown)
    (link,) = root.links
    assert (link.run, dict(link.attributes)) == (
        first.run_id,
        {"pleinair.link": "fork", "pleinair.step": "critique:1"},
    )
    exported = readable([root])[0].links[0].context
    assert (exported.trace_id, exported.span_id) == (trace_id(first.run_id), span_id(first.run_id, ROOT))
    assert len(named(shown, "generate_content")) == 1


def test_requests_of_a_chat_have_its_id_and_link_to_the_one_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    chat = Chat()
    for line in ("a barn owl", "add a blue jay"):
        with chat.threads.opened(chat.thread) as session:
            (run,) = session.submit(line)
        finish(run)
        chat.thread = session.thread
    first, second = (require_tree(spans(run)) for run in chat.runs)
    assert first.attributes["session.id"] == second.attributes["session.id"] == chat.runs[0]
    assert [link.run for link in second.links] == [chat.runs[0]] and not first.links
    calls = named(spans(chat.runs[0]), "execute_tool")
    assert calls and kinds(calls) == {"TOOL"}
    assert {span.attributes["gen_ai.tool.name"] for span in calls} >= {"generate", "critique"}


ATTEMPT = {
    "number": 0,
    "request": {"prompt": PROMPT, "height": 8, "width": 8, "num_inference_steps": 1}
    | {"guidance_scale": 1.0, "seed": 1},
    "picture": {"sha256": SHA, "width": 8, "height": 8},
    "seconds": 0.5,
}


def events_of(*payloads: tuple[Payload, str]) -> list[Event]:
    kinds = {
        Started: "started",
        Resumed: "resumed",
        StepStarted: "step_started",
        StepFinished: "step_finished",
    }
    kinds |= {Progress: "progress", Asked: "asked", Answered: "answered", Ended: "ended"}
    return [
        Event.model_validate(
            {"seq": seq, "at": 100.0 + seq, "kind": kinds[type(data)], "step": step, "data": data}
        )
        for seq, (data, step) in enumerate(payloads)
    ]


def test_every_kind_of_event_has_its_place(place: Path) -> None:
    run = submit(PROMPT, seed=1)
    snapshot = {"run": run.id, "prompt": PROMPT, "graph": "pleinair", "seed": 1}
    attempt = Attempt.model_validate(ATTEMPT)
    ledger = Ledger(rows=(Row(concept="a", status="missing", confidence=0.9, evidence="not there"),))
    judged = attempt.model_copy(update={"ledger": ledger})
    hit = Hit(id="a/1.png", score=0.5, caption="a thing", license="CC0-1.0")
    retrieval = Retrieval(concept="a", query="a thing", hits=(hit,), threshold=0.4)
    abstained = Retrieval(concept="b", query="b", hits=(), abstained=True, reason="nothing is similar")
    question = ApprovalRequest(before="references", attempt=1, prompt=PROMPT, concepts=())
    events = events_of(
        (Started.model_validate(snapshot), ""),
        (StepStarted(call=Call(name="draw", about="a")), "act"),
        (Progress(done=1, total=8), "act"),
        (Progress(text="hm"), "act"),
        (Progress(error="too many"), "act"),
        (StepFinished(attempts=(attempt,), retrievals=(retrieval, abstained)), "act"),
        (StepStarted(), "critique"),
        (StepFinished(attempts=(judged,)), "critique"),
        (StepStarted(), "select"),
        (Asked(question=question), ""),
        (Resumed.model_validate(snapshot), ""),
        (Answered(answer=Approval(stop=True)), ""),
        (StepFinished(), "lost"),
        (Ended.model_validate(snapshot | {"outcome": Outcome(ending="stopped", reason="you stopped")}), ""),
    )
    source = Source(run.id, read_request(run.request_json), events, (), ImageLinks(run.id, home()))
    shown = spans_of(source)
    require_tree(shown)
    assert kinds(shown) == {"AGENT", "TOOL", "LLM", "RETRIEVER", "EVALUATOR", "CHAIN"}
    act = named(shown, "execute_tool")[0]
    assert [(event.name, dict(event.attributes)) for event in act.events] == [
        ("text", {"pleinair.text": "hm"}),
        ("error", {"pleinair.error": "too many"}),
    ]
    hits, nothing = named(shown, "retrieval")
    assert hits.attributes["retrieval.documents.0.document.id"] == "a/1.png"
    assert hits.attributes["retrieval.documents.0.document.score"] == 0.5
    assert hits.attributes["gen_ai.retrieval.documents"] == '[{"id": "a/1.png", "score": 0.5}]'
    assert (nothing.attributes["output.value"], nothing.attributes["pleinair.retrieval.abstained"]) == (
        "nothing is similar",
        True,
    )
    (image,) = named(shown, "generate_content")
    assert (image.start, image.end) == (104.5, 105.0)
    (result,) = named(shown, "evaluate")[0].events
    assert result.name == "gen_ai.evaluation.result"
    assert result.attributes["gen_ai.evaluation.score.label"] == "missing"
    assert result.attributes["gen_ai.evaluation.score.value"] == pytest.approx(0.1)
    assert named(shown, "select")[0].attributes["pleinair.finished"] is False
    assert named(shown, "approval")[0].attributes["output.value"] == "stopped"
    assert named(shown, "lost")[0].parent == ROOT  # its start could not be read


def test_a_call_has_its_messages_tokens_and_image_addresses(place: Path) -> None:
    run = submit(PROMPT, seed=1)
    message = Message(role="user", parts=(Part(text="what is it?"), Part(image=SHA, width=8, height=8)))
    reply = Message(role="assistant", parts=(Part(text="a thing"),))
    call = CallRecord.model_validate(
        {"number": 1, "at": 101.5, "step": "critique", "model": "some-model", "finished": True}
        | {"usage": {"tokens": 30, "seconds": 0.2, "usd": 0.01}, "input_tokens": 20, "output_tokens": 10}
        | {"tries": [Try(messages=(message,), reply=reply, options={"temperature": 0})]}
    )
    events = events_of(
        (Started(run=run.id, prompt=PROMPT, graph="pleinair", seed=1), ""),
        (StepStarted(), "critique"),
        (StepFinished(calls=(1,)), "critique"),
    )
    links = ImageLinks(run.id, home(), "https://images.example.org/")
    source = Source(run.id, read_request(run.request_json), events, (call,), links)
    (shown,) = named(spans_of(source), "chat")
    values, contents = shown.attributes, "llm.input_messages.0.message.contents"
    assert shown.name == "chat some-model" and shown.is_call
    assert (shown.start, shown.end) == (101.5, 101.7)
    assert values[f"{contents}.0.message_content.text"] == "what is it?"
    address = f"https://images.example.org/runs/{run.id}/images/{SHA}.png"
    assert values[f"{contents}.1.message_content.image.image.url"] == address
    assert values["llm.output_messages.0.message.contents.0.message_content.text"] == "a thing"
    assert (values["gen_ai.usage.input_tokens"], values["llm.token_count.completion"]) == (20, 10)
    assert (values["llm.token_count.total"], values["llm.cost.total"]) == (30, 0.01)


def test_images_are_named_by_address_path_or_hash(place: Path) -> None:
    run, hit = "20260101-000000-00000000", Hit(id="a/1.png", score=1.0)

    def links(setting: str) -> ImageLinks:
        return ImageLinks(run, home(), setting)

    assert (links("").image(SHA), links("").hit(hit)) == (f"sha256:{SHA}", "")
    served = links("http://127.0.0.1:8765")
    assert served.image(SHA) == f"http://127.0.0.1:8765/runs/{run}/images/{SHA}.png"
    assert served.hit(hit).startswith(f"http://127.0.0.1:8765/runs/{run}/hits/")
    files = links("http://127.0.0.1:8790/{file}")
    assert files.image(SHA) == f"http://127.0.0.1:8790/{run}/calls/{SHA}.png"
    stored = home().run(run) / "pictures" / "sha256" / SHA[:2]
    stored.mkdir(parents=True)
    (stored / f"{SHA}.png").write_bytes(b"")
    assert files.image(SHA) == f"http://127.0.0.1:8790/{run}/pictures/sha256/ab/{SHA}.png"
    assert files.hit(hit) == ""


def test_a_hostile_run_of_many_attempts_stays_below_200_kb(place: Path) -> None:
    run = submit(PROMPT, seed=1)
    data, words = "data:image/png;base64," + "iVBORw0KGgo" * 2000, "𝔴 " * 5000
    message = Message(role="user", parts=tuple(Part(text=words + data) for _ in range(30)))
    calls, payloads = [], list[tuple[Payload, str]]()
    payloads.append((Started(run=run.id, prompt=words, graph="pleinair", seed=1), ""))
    for number in range(60):
        fields = ATTEMPT | {"number": number, "picture": Picture(sha256=f"{number:064x}", width=8, height=8)}
        fields |= {"request": ATTEMPT["request"] | {"prompt": words + data}}  # type: ignore[operator]
        ledger = Ledger(
            rows=tuple(Row(concept=words, status="unsure", confidence=0.5, evidence=data) for _ in range(20))
        )
        hits = tuple(Hit(id=f"{words}{at}", score=1.0, caption=data, source=words) for at in range(30))
        retrieval = Retrieval(concept=f"{number}", query=words, hits=hits)
        calls.append(
            CallRecord(
                number=number + 1,
                at=100.0,
                step="act",
                model=words,
                finished=True,
                tries=(Try(messages=(message,) * 20, reply=message, options={"body": data}),),
            )
        )
        attempt = Attempt.model_validate(fields | {"ledger": ledger})
        payloads.append((StepStarted(call=Call(name=words, about=words)), "act"))
        payloads += [(Progress(text=words, error=data), "act")] * 30
        finished = StepFinished(attempts=(attempt,), retrievals=(retrieval,), calls=(number + 1,))
        payloads.append((finished, "act"))
    outcome = Outcome(ending="failed", reason=words + data)
    payloads.append(
        (
            Ended(run=run.id, prompt=words, graph="pleinair", seed=1, outcome=outcome, models={"mllm": data}),
            "",
        )
    )
    links = ImageLinks(run.id, home(), "https://a-rather-long-name-of-a-host.images.example.org/some/path")
    shown = spans_of(Source(run.id, read_request(run.request_json), events_of(*payloads), calls, links))
    encoded = encode_spans(readable(shown)).SerializeToString()
    assert len(encoded) < 200_000
    assert b"base64," not in encoded and b"iVBORw0KGgoiVBORw0KGgo" not in encoded
    assert shown[-1].attributes["pleinair.spans_left_out"] == 60 * 5 - MOST_SPANS
    urls = [value for span in shown for name, value in span.attributes.items() if name.endswith(".url")]
    assert urls and all(str(url).endswith(".png") for url in urls)  # none is cut


def test_data_in_texts_is_replaced_by_its_length() -> None:
    assert plain("see data:image/png;base64,AAAA ok") == "see [26 characters of data] ok"
    assert plain("A" * 300) == "[300 characters of data]"
    assert plain("half \ud800") == "half ?"
