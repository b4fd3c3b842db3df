"""Tools of the MCP server, called by its own client in both generations of the protocol."""

import asyncio
import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client, advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp_types import CallToolResult, TextResourceContents
from PIL import Image, ImageChops
from support.mcp_clients import (
    BEFORE,
    LATEST,
    call,
    client_of,
    images_of,
    links_of,
    text_of,
    values_of,
)

from pleinair.app import api
from pleinair.app.mcp.access import Access
from pleinair.app.mcp.arguments import MOST_HITS, MOST_RUNS
from pleinair.app.mcp.content import MOST_CHARACTERS, MOST_SMALL, SIDE, preview, small_preview
from pleinair.app.mcp.server import TOOLS, new_server
from pleinair.app.mcp.shown import MOST_SHOWN, standing
from pleinair.app.runs.question import hits_of
from pleinair.app.settings import profiles
from pleinair.app.trace.view import view_of
from pleinair.tools import registry

PROMPT = "first thing and second thing"
LOCAL = Access(files=True)
REMOTE = Access(client="elsewhere", address="http://127.0.0.1:8800")


def finished(**arguments: Any) -> str:
    """Start a run, execute it here, and return its id."""
    (run,) = values_of(call(LOCAL, "start", prompt=PROMPT, seed=1, **arguments))["runs"]
    api.finish(api.run_table().get(run))
    return str(run)


def size_of(data: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return image.size


def test_a_client_of_each_generation_sees_eight_tools(place: Path) -> None:
    async def listed(mode: str) -> tuple[str, Any, Any]:
        async with client_of(LOCAL, mode) as client:
            templates = await client.list_resource_templates()
            return client.session.protocol_version or "", await client.list_tools(), templates

    for mode, version in ((LATEST, "2026-07-28"), (BEFORE, "2025-11-25")):
        negotiated, tools, templates = asyncio.run(listed(mode))
        assert (negotiated, [tool.name for tool in tools.tools]) == (version, list(TOOLS))
        assert [template.uri_template for template in templates.resource_templates] == [
            "pleinair://images/{sha256}",
            "ui://pleinair/runs/{run}/storyboard",
        ]
    by_name = {tool.name: tool for tool in tools.tools}
    assert len(by_name) == 8
    start = by_name["start"].input_schema
    assert start["properties"]["graph"]["enum"] == registry.names("graph")
    assert start["properties"]["profile"]["enum"] == list(profiles())
    assert (start["required"], start["additionalProperties"]) == (["prompt"], False)
    assert '"null"' not in json.dumps([tool.input_schema for tool in tools.tools])
    assert all(tool.description and tool.annotations for tool in tools.tools)
    told = [[tool.name, tool.description, tool.input_schema] for tool in tools.tools]
    assert len(json.dumps(told)) < 9_000, "which models pay for with every request: about 2,200 tokens"
    reading = {name for name, tool in by_name.items() if tool.annotations.read_only_hint}
    assert reading == {"wait", "show", "search_library", "list_runs", "critique"}
    assert [name for name, tool in by_name.items() if tool.annotations.destructive_hint] == ["cancel"]
    calling = {name for name, tool in by_name.items() if tool.annotations.open_world_hint}
    assert calling == {"start", "answer", "critique"}


@pytest.mark.parametrize("mode", [LATEST, BEFORE])
def test_a_run_is_shown_with_text_image_link_and_values(place: Path, mode: str) -> None:
    run = finished(profile="pocket", size="64x32")
    result = call(LOCAL, "show", mode, run=run)
    view = view_of(api.find(run), api.home())
    assert view.best_attempt
    assert values_of(result) == view.model_dump(mode="json")
    assert result.structured_content is None, "many clients show a model nothing else, so no image"
    assert f"Run {run}: accepted" in text_of(result)
    assert f"File: {view.picture}" in text_of(result)
    assert f"Credit line: {view.credit_line}" in text_of(result)
    assert Path(view.picture or "").is_relative_to(place / "out")
    (image,), (link,) = images_of(result), links_of(result)
    assert size_of(image.data) == (view.best_attempt.image.width, view.best_attempt.image.height)
    assert link.uri == f"pleinair://images/{view.best_attempt.image.sha256}"

    async def read() -> Any:
        async with client_of(LOCAL, mode) as client:
            return (await client.read_resource(link.uri)).contents[0]

    assert size_of(asyncio.run(read()).blob) == size_of(image.data)
    first = call(LOCAL, "show", mode, run=run, attempt=0)
    assert "Image of attempt 0" in text_of(first)


def test_a_client_elsewhere_gets_addresses_and_no_paths(place: Path) -> None:
    result = call(REMOTE, "show", run=finished())
    assert [link.uri.split("://")[0] for link in links_of(result)] == ["pleinair", "http"]
    assert "Page for the user: http://127.0.0.1:8800/runs/" in text_of(result)
    assert str(place) not in text_of(result)


def test_a_relative_folder_for_results_is_one_in_the_home(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_PATHS__OUT", "results")
    monkeypatch.chdir("/")  # where some programs start their servers
    run = finished()
    assert [file.suffix for file in sorted((api.home().home / "results").glob(f"{run}*"))] == [
        ".json",
        ".png",
    ]


def test_a_key_returns_the_same_runs(place: Path) -> None:
    arguments: dict[str, Any] = {"prompt": PROMPT, "n": 2, "idempotency_key": "k", "graph": "direct"}
    first, second = (values_of(call(LOCAL, "start", **arguments)) for _ in range(2))
    assert first == second
    assert len(first["runs"]) == len(api.run_table().newest(9)) == 2
    assert {run.client for run in api.run_table().newest(9)} == {"local"}


def test_waiting_sends_notices_by_time_and_ends_with_the_time(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleinair.app.mcp.tools.PERIOD", 0.05)
    monkeypatch.setattr("pleinair.app.mcp.tools.POLL", 0.01)
    woken = list[bool]()
    access = replace(LOCAL, wake=lambda: woken.append(True))
    run = values_of(call(access, "start", prompt=PROMPT))["runs"][0]
    notices = list[tuple[float, float | None, str | None]]()

    async def notice(progress: float, total: float | None, message: str | None) -> None:
        notices.append((progress, total, message))

    async def wait(mode: str) -> CallToolResult:
        async with client_of(access, mode) as client:
            arguments = {"run": run, "seconds": 0.4}
            return await client.call_tool("wait", arguments, progress_callback=notice)

    for mode in (LATEST, BEFORE):
        result = asyncio.run(wait(mode))
        assert f'Next: wait(run="{run}") again.' in text_of(result)
        assert values_of(result)["status"] == "queued"
        assert len(notices) > 2, "nothing happens, and it is reported all the same"
        assert notices[-1][1:] == (0.4, "queued, 0 runs before it")
        assert [done for done, *_ in notices] == sorted(done for done, *_ in notices)
        notices.clear()
    assert len(woken) > 2, "a run without a worker gets one"


def test_what_a_run_does_is_said_with_its_attempt(place: Path) -> None:
    lines = list[str]()

    def look(run_id: str) -> None:
        lines.append(standing(api.run_table().get(run_id), api.home()))

    run = values_of(call(LOCAL, "start", prompt=PROMPT, seed=1))["runs"][0]
    api.finish(api.find(run), lambda event: look(run))
    for line in (
        "draft: Reading the prompt",
        "draft: Generating 2/3",
        "draft: Judging the image",
        "attempt 1: Generating 1/3",
        "attempt 1: Judging the image",
        "Ending",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith("attempt 2")]


def test_waiting_ends_with_the_run_or_the_server(place: Path) -> None:
    run = finished()
    assert images_of(call(LOCAL, "wait", run=run, seconds=60))
    first, second = values_of(call(LOCAL, "start", prompt=PROMPT, n=2, graph="direct"))["runs"]
    stopped = call(replace(LOCAL, is_closing=lambda: True), "wait", run=first, seconds=60)
    assert "again" in text_of(stopped)
    api.finish(api.find(first))
    assert f'wait(run="{second}"), another image' in text_of(call(LOCAL, "wait", run=first))


def test_an_approval_is_asked_shown_and_answered_by_number(place: Path) -> None:
    run = finished(approve="references")
    result = call(LOCAL, "wait", run=run)
    question = api.find(run).question
    assert question
    hits = hits_of(question)
    assert "waiting" in text_of(result) and f'question="{question.key}"' in text_of(result)
    assert all(f"{number}: {hit.id}" in text_of(result) for number, hit in enumerate(hits, 1))
    assert len(images_of(result)) == 1 + len(hits)
    assert values_of(result)["question"]["concepts"]
    stale = call(LOCAL, "answer", run=run, question="0" * 16)
    assert stale.is_error and "asks another one now" in text_of(stale)
    concept, other = question.references[0].concept, hits[-1]
    chosen = call(LOCAL, "answer", run=run, hits=json.dumps({concept: str(len(hits))}), question=question.key)
    assert values_of(chosen) == {"run": run}
    api.finish(api.find(run))
    shown = values_of(call(LOCAL, "show", run=run))
    assert shown["has_ended"]
    assert [reference["id"] for reference in shown["attempts"][-1]["references"]] == [other.id]
    again = call(LOCAL, "answer", run=run)
    assert again.is_error and "Error" in text_of(again)


def test_an_answer_has_an_image_of_the_home(place: Path) -> None:
    own = finished(graph="direct")
    sha256 = values_of(call(LOCAL, "show", run=own))["attempts"][0]["image"]["sha256"]
    run = finished(approve="references")
    question = api.find(run).question
    assert question
    answer = call(REMOTE, "answer", run=run, input_images={question.references[0].concept: sha256})
    assert values_of(answer) == {"run": run}
    api.finish(api.find(run))
    (reference,) = values_of(call(LOCAL, "show", run=run))["attempts"][1]["references"]
    assert reference["sha256"] == sha256


def test_a_run_is_cancelled_accepted_and_listed(place: Path) -> None:
    first, second = values_of(call(LOCAL, "start", prompt=PROMPT, n=2))["runs"]
    assert values_of(call(LOCAL, "cancel", run=first))["status"] == "cancelled"
    assert values_of(call(LOCAL, "cancel", run=first))["status"] == "cancelled"
    early = call(LOCAL, "cancel", run=second, accept=True)
    assert early.is_error and "no image yet" in text_of(early)
    waiting = finished(approve="references")
    assert values_of(call(LOCAL, "cancel", run=waiting, accept=True))["status"] == "accepted"
    page = values_of(call(LOCAL, "list_runs", search="second THING", limit=2))
    assert (page["total"], [row["run"] for row in page["runs"]]) == (3, [waiting, second])
    assert values_of(call(LOCAL, "list_runs", status="cancelled"))["total"] == 1


def test_the_library_is_searched_as_a_run_does(place: Path) -> None:
    api.finish(api.find(finished()))  # which indexes the library
    for access in (LOCAL, REMOTE):
        result = call(access, "search_library", query="picture 3", k=2)
        hits = values_of(result)["hits"]
        assert [("file" in hit) for hit in hits] == [access.files] * 2
        assert len(images_of(result)) == 2 and result.structured_content is None
        assert f"1: {hits[0]['hit']['id']}" in text_of(result)
    Path(values_of(call(LOCAL, "search_library", query="picture 3", k=2))["hits"][0]["file"]).write_bytes(b"")
    assert "indexed" in text_of(call(LOCAL, "search_library", query="picture 3", k=2))


def test_an_image_is_judged_by_run_by_content_and_by_path(place: Path) -> None:
    run = finished()
    shown = values_of(call(LOCAL, "show", run=run))
    sha256 = shown["attempts"][shown["best"]]["image"]["sha256"]
    by_run = values_of(call(REMOTE, "critique", image=run))
    assert by_run["shows_all"] and by_run["prompt"] == PROMPT
    by_content = values_of(call(REMOTE, "critique", image=sha256, prompt=PROMPT))
    by_uri = values_of(call(REMOTE, "critique", image=f"pleinair://images/{sha256}", prompt=PROMPT))
    by_path = values_of(call(LOCAL, "critique", image=shown["picture"], prompt=PROMPT))
    assert by_run["ledger"] == by_content["ledger"] == by_uri["ledger"] == by_path["ledger"]
    draft = shown["attempts"][0]["image"]["sha256"]
    concepts = ["first thing", "second thing"]
    lacking = call(LOCAL, "critique", image=draft, prompt=PROMPT, concepts=concepts)
    assert "missing" in text_of(lacking) and not values_of(lacking)["shows_all"]


def test_a_large_image_has_a_preview_under_the_limit() -> None:
    noise = Image.effect_noise((3000, 2000), 200).convert("RGB")
    image = preview(noise)
    width, height = size_of(image.data)
    assert len(image.data) < MOST_CHARACTERS
    assert max(width, height) <= SIDE and abs(width / height - 1.5) < 0.01
    assert len(small_preview(noise).data) < MOST_SMALL
    assert MOST_CHARACTERS + MOST_SHOWN * MOST_SMALL < 900_000, "a client may refuse a result of 1 MB"
    assert MOST_HITS * MOST_SMALL < 900_000


NO_IMAGE = "f" * 64
BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown tool": ("draw", {}, "unknown; accepted: start, wait"),
    "no prompt": ("start", {}, "prompt: required"),
    "an empty prompt": ("start", {"prompt": " "}, "prompt: it is empty"),
    "a prompt of another type": ("start", {"prompt": 7}, "must be a text"),
    "a misspelt argument": ("start", {"prompt": PROMPT, "sead": 1}, "Did you mean `seed`?"),
    "no images": ("start", {"prompt": PROMPT, "n": 0}, "must be at least 1"),
    "a negative seed": ("start", {"prompt": PROMPT, "seed": -1}, "must be at least 0"),
    "an unknown graph": ("start", {"prompt": PROMPT, "graph": "plainair"}, "Did you mean `pleinair`?"),
    "an unknown profile": ("start", {"prompt": PROMPT, "profile": "none"}, "no such profile; accepted:"),
    "a file as profile": ("start", {"prompt": PROMPT, "profile": "/tmp/a.toml"}, "no such profile"),
    "an odd size": ("start", {"prompt": PROMPT, "size": "large"}, "must be WIDTHxHEIGHT"),
    "an impossible size": ("start", {"prompt": PROMPT, "size": "63x63"}, "multiple of 8"),
    "a graph that asks nobody": (
        "start",
        {"prompt": PROMPT, "graph": "direct", "approve": "draft"},
        "asks nobody; these do",
    ),
    "an image that is no file": ("start", {"prompt": PROMPT, "input_images": ["a\0b"]}, "Error: "),
    "an image that is not there": ("start", {"prompt": PROMPT, "input_images": [NO_IMAGE]}, "no run has it"),
    "an image in the call": (
        "start",
        {"prompt": PROMPT, "input_images": ["data:image/png;base64,AA"]},
        "no SHA-256",
    ),
    "an image of the web": (
        "critique",
        {"image": "https://example.com/a.png", "prompt": PROMPT},
        "no SHA-256",
    ),
    "a relative path": ("critique", {"image": "a.png", "prompt": PROMPT}, "an absolute path"),
    "no name of an image": ("critique", {"image": "", "prompt": PROMPT}, "an absolute path"),
    "an edit by a graph that does none": (
        "start",
        {"prompt": PROMPT, "base": "last", "graph": "pleinair"},
        "takes no base image",
    ),
    "an edit by a generator that does none": ("start", {"prompt": PROMPT, "base": "last"}, "cannot inpaint"),
    "an unknown status": ("list_runs", {"status": "broken"}, "'accepted'"),
    "images in broken JSON": ("start", {"prompt": PROMPT, "input_images": "[1"}, "must be a list"),
    "an unknown run": ("wait", {"run": "20991231"}, "there is none\nWhat to do: list_runs shows them."),
    "a path as run": ("show", {"run": "../../etc/passwd"}, "there is none"),
    "an endless wait": ("wait", {"run": "last", "seconds": 1e9}, "must be at most 300"),
    "no number of seconds": ("wait", {"run": "last", "seconds": "NaN"}, "seconds"),
    "no such attempt": ("show", {"run": "last", "attempt": 99}, "there are: 0"),
    "an answer to nothing": ("answer", {"run": "last"}, "Error: "),
    "hits as a list": ("answer", {"run": "last", "hits": [1]}, "must be a table"),
    "an ended run": ("cancel", {"run": "last", "accept": True}, "ended already"),
    "a search for nothing": ("search_library", {"query": " "}, "nothing to search for"),
    "a list without end": ("list_runs", {"limit": MOST_RUNS + 1}, "must be at most 50"),
    "no image to judge": ("critique", {"image": NO_IMAGE, "prompt": PROMPT}, "no run has it"),
    "no prompt to judge by": ("critique", {"image": __file__}, "Error: "),
    "no image file": ("critique", {"image": __file__, "prompt": PROMPT}, "not an image of a kind"),
    "concepts twice": (
        "critique",
        {"image": "last", "prompt": PROMPT, "concepts": ["a", "A"]},
        "different names",
    ),
}


def test_bad_arguments_are_explained_and_nothing_is_written(place: Path) -> None:
    run = finished(graph="direct")

    async def answers() -> dict[str, CallToolResult]:
        async with client_of(LOCAL) as client:
            return {kind: await client.call_tool(name, given) for kind, (name, given, _) in BAD.items()}

    for kind, result in asyncio.run(answers()).items():
        text = text_of(result)
        assert result.is_error and BAD[kind][2] in text, (kind, text)
        assert text.startswith("Error: ") and "Traceback" not in text and "unexpected" not in text, kind
    assert [row.id for row in api.run_table().newest(9)] == [run]


def test_a_part_of_a_run_s_image_is_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__INPAINT", "true")
    first = finished(graph="direct")
    view = view_of(api.find(first), api.home())
    assert view.best_attempt
    mask = Image.new("RGBA", (view.best_attempt.image.width, view.best_attempt.image.height), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 8, 8))
    mask.save(place / "mask.png")
    edit: dict[str, Any] = {
        "base": first,
        "mask": str(place / "mask.png"),
        "input_images": [str(place / "library" / "0.png")],
    }
    run = finished(**edit)
    with (
        Image.open(view.picture or "") as before,
        Image.open(view_of(api.find(run), api.home()).picture or "") as after,
    ):
        assert ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox() == (0, 0, 8, 8)
    refused = call(REMOTE, "start", prompt=PROMPT, **edit)
    assert refused.is_error and "cannot name files of this machine" in text_of(refused)


def test_a_home_that_cannot_be_written_to_is_an_error_with_its_path(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv("PLEINAIR_PATHS__HOME", str(place / "file"))
    monkeypatch.setenv("PLEINAIR_HOME", str(place / "file"))
    monkeypatch.setenv("PLEINAIR_LIBRARY__FOLDER", "pocket")
    for name, given in (
        ("start", {"prompt": PROMPT}),
        ("search_library", {"query": "wren"}),
        ("list_runs", {}),
    ):
        result = call(LOCAL, name, **given)
        assert result.is_error and str(place / "file") in text_of(result), name
        assert "unexpected" not in text_of(result)


def test_a_client_elsewhere_names_no_files(place: Path) -> None:
    finished()
    file = str(place / "library" / "0.png")
    for name, given in (
        ("start", {"prompt": PROMPT, "input_images": [file]}),
        ("critique", {"image": file, "prompt": PROMPT}),
        ("critique", {"image": str(place / "nothing.png"), "prompt": PROMPT}),
    ):
        result = call(REMOTE, name, **given)
        assert result.is_error and "cannot name files of this machine" in text_of(result)


def test_an_unknown_resource_is_an_error_of_the_protocol(place: Path) -> None:
    async def read(uri: str) -> str:
        async with client_of(LOCAL) as client:
            with pytest.raises(Exception) as caught:
                await client.read_resource(uri)
            return str(caught.value)

    for uri, words in {
        f"pleinair://images/{NO_IMAGE}": "no run has it",
        "pleinair://images/../x": "must be a SHA-256",
        "pleinair://images/": "there is none; accepted",
        "file:///etc/passwd": "there is none; accepted",
        "ui://pleinair/runs/../storyboard": "there is none",
    }.items():
        assert words in asyncio.run(read(uri))


def test_a_client_that_shows_pages_gets_the_storyboard(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished()
    assert len(links_of(call(LOCAL, "show", run=run))) == 1
    extensions = [advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})]

    async def page() -> str:
        async with Client(new_server(lambda context: LOCAL), mode=LATEST, extensions=extensions) as client:
            *_, link = links_of(await client.call_tool("show", {"run": run}))
            (content,) = (await client.read_resource(link.uri)).contents
            assert isinstance(content, TextResourceContents)
            assert link.mime_type == content.mime_type == APP_MIME_TYPE
            return content.text

    whole = asyncio.run(page())
    assert "data:image/" in whole and "<script" not in whole
    monkeypatch.setattr("pleinair.app.mcp.resources.MOST_BYTES", len(whole) // 2)
    short = asyncio.run(page())
    assert "data:image/" not in short and "second thing" in short


def test_a_fault_of_our_own_is_no_traceback_for_the_client(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(run: str) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("pleinair.app.api.find", broken)
    result = call(LOCAL, "show", run="last")
    assert result.is_error and "unexpected error" in text_of(result) and "secret" not in text_of(result)
    output = capsys.readouterr()
    assert "ZeroDivisionError: secret" in output.err and not output.out
