"""The tools: each takes its arguments and the access of its caller, and returns a result."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from mcp_types import CallToolResult, ContentBlock

from pleinair.app import api
from pleinair.app.engines import check
from pleinair.app.libraries import has_changed
from pleinair.app.library.opened import OpenLibrary, SearchResult
from pleinair.app.mcp import arguments
from pleinair.app.mcp.access import Access
from pleinair.app.mcp.content import SMALL, TEMPLATE, result, shown_result, small_preview, text_block
from pleinair.app.mcp.judging import judge
from pleinair.app.mcp.shown import row_line, shown, standing
from pleinair.app.runs.facts import summary_of
from pleinair.app.runs.follow import Follower
from pleinair.app.runs.images import is_sha256, stored_image
from pleinair.app.runs.listing import RunFilter, page_of
from pleinair.app.runs.question import hit_id
from pleinair.app.runs.request import DIRECT, read_input_image
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN, WAITING
from pleinair.app.settings import POCKET, load, require_profile
from pleinair.app.texts import counted, short_caption
from pleinair.app.trace.trace import license_text, score_text
from pleinair.app.trace.view import view_of
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput, NotFound, PleinairError

OnProgress = Callable[[float, float, str], Awaitable[None]]  # seconds, of how many, what the run does
POLL = 0.2  # seconds between two looks at a run
PERIOD = 2.0  # seconds between two notices, also when nothing has happened
PLEINAIR = "pleinair"  # the graph, if none is named
_REMEDY = "Pass the SHA-256 that show prints, a run id or, as a local client, an absolute path."
_RUN = re.compile(r"[0-9a-f-]+|last")  # the id of a run, or its beginning
_URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


def start(call: arguments.Start, access: Access) -> CallToolResult:
    """Queue runs and return their ids at once."""
    _require_profile(call.profile)
    width, height = map(int, call.size.split("x")) if call.size else (None, None)
    base, mask = (_file(image, access) if image else None for image in (call.base, call.mask))
    runs = api.enqueue(
        call.prompt,
        client=access.client,
        most=access.most,
        num_images=call.n,
        graph=call.graph or (DIRECT if base or mask else PLEINAIR),
        profile=call.profile,
        seed=call.seed,
        width=width,
        height=height,
        negative_prompt=call.negative_prompt,
        license=call.license,
        out=access.out(call.profile),
        overrides={"approve": call.approve} if call.approve else None,
        idempotency_key=call.idempotency_key,
        input_images=[_file(image, access) for image in call.input_images],
        base=base,
        mask=mask,
    )
    access.wake()
    ids = [run.id for run in runs]
    lines = [f"Queued {counted(len(ids), 'run')}: {', '.join(ids)}", f'Next: wait(run="{ids[0]}").']
    return result(lines, {"runs": ids})


async def wait(call: arguments.Wait, access: Access, on_progress: OnProgress) -> CallToolResult:
    """Wait until a run ends or asks, and report what it does meanwhile, by time."""
    run = await asyncio.to_thread(_find, call.run)
    follower = Follower(api.run_table(), api.home(), run.id)
    begin, reported = time.monotonic(), -PERIOD
    while True:
        _, is_final = await asyncio.to_thread(follower.look)
        seconds = time.monotonic() - begin
        if is_final:
            return await asyncio.to_thread(lambda: shown(_find(run.id), access))
        if seconds >= call.seconds or access.is_closing():
            return await asyncio.to_thread(_still_open, run.id)
        if seconds - reported >= PERIOD:
            reported = seconds
            text = await asyncio.to_thread(_report, run.id, access)
            await on_progress(seconds, call.seconds, text)
        await asyncio.sleep(POLL)


def _report(run_id: str, access: Access) -> str:
    """Return what a run does; a run whose worker has died gets another one."""
    run = api.run_table().get(run_id)
    if run.client and run.owner is None:
        access.wake()
    return standing(run, api.home())


def _still_open(run_id: str) -> CallToolResult:
    run = api.run_table().get(run_id)
    lines = [f"Run {run.id}: {standing(run, api.home())}", f'Next: wait(run="{run.id}") again.']
    return shown_result(lines, view_of(run, api.home()).model_dump(mode="json"))


def show(call: arguments.Show, access: Access) -> CallToolResult:
    """Show a run."""
    return shown(_find(call.run), access, call.attempt)


def answer(call: arguments.Answer, access: Access) -> CallToolResult:
    """Answer the question of a run, which a worker then continues."""
    run = _find(call.run)
    fields = call.model_dump(include={"stop", "without", "concepts", "prompt"})
    if run.question:
        fields["vetoes"] = [hit_id(run.question, value) for value in call.vetoes]
        fields["hits"] = {name: hit_id(run.question, value) for name, value in call.hits.items()}
    images = {name: _file(image, access) for name, image in call.input_images.items()}
    run = api.answer(run.id, fields, input_images=images, question=call.question, client=access.client)
    access.wake()
    return result([f"Run {run.id} goes on as answered.", f'Next: wait(run="{run.id}").'], {"run": run.id})


def cancel(call: arguments.Cancel, access: Access) -> CallToolResult:
    """End a run: cancelled or, with its best image, accepted."""
    run = _find(call.run)
    if call.accept:
        run = api.accept(run.id)
    elif run.status in OPEN:
        run = api.cancel(run.id)
    if run.status in OPEN:
        lines = [f"Run {run.id} ends at its next step.", f'Next: wait(run="{run.id}").']
        return shown_result(lines, view_of(run, api.home()).model_dump(mode="json"))
    return shown(run, access)


def search_library(call: arguments.SearchLibrary, access: Access) -> CallToolResult:
    """Search the library as a run would, with small images."""
    _require_profile(call.profile)
    settings = load(call.profile)
    check(settings)
    library = OpenLibrary(settings, api.home(), builds_index=settings.library.folder == POCKET)
    found = library.search(call.query, call.k)
    content: list[ContentBlock] = []
    for number, each in enumerate(found.hits, 1):
        with suppress(PleinairError):  # a file that has been moved or damaged
            image = library.library.picture(each.hit.id, SMALL)
            content += [text_block(f"{number}: {each.hit.id}"), small_preview(image)]
    values = found.model_dump(mode="json")
    if not access.files:
        for hit in values["hits"]:
            del hit["file"]
    lines = _search_lines(found)
    if has_changed(settings, api.home()):
        lines.append("The library has changed since it was indexed; `pleinair index` brings it up to date.")
    return shown_result(lines, values, content)


def _search_lines(found: SearchResult) -> list[str]:
    if not found.hits:
        return [f"Nothing in the library fits {found.query!r}."]
    lines = [f"{counted(len(found.hits), 'image')} for {found.query!r}, best first:"]
    if found.abstained:
        lines = [f"Nothing fits {found.query!r}: {found.reason}. A run would use none of these:"]
    for number, each in enumerate(found.hits, 1):
        use = " (a run would not use it)" if each.accepted is False and not found.abstained else ""
        caption = f" {short_caption(each.hit.caption)!r}" if each.hit.caption else ""
        lines.append(
            f"{number}: {each.hit.id}{caption}, {score_text(each.hit)}, {license_text(each.hit)}{use}"
        )
    if found.searched < found.images:
        lines.append(
            f"Searched {found.searched} of {found.images} images, which meet the conditions on retrieval."
        )
    return lines


def list_runs(call: arguments.ListRuns, access: Access) -> CallToolResult:
    """List runs, newest first."""
    which = RunFilter(search=call.search, status=call.status or "")
    page = page_of(api.run_table(), which, call.limit, call.offset)
    rows = [summary_of(run) for run in page.runs]
    lines = [f"{counted(page.total, 'run')}; {len(rows)} shown, newest first:"]
    lines += [f"{row['run']}  {row['status']}  {row['prompt'][:100]}" for row in rows]
    if any(row["status"] == WAITING for row in rows):
        lines.append("A run with the status waiting needs an answer of the user: show(run=…).")
    return result(lines, {"runs": rows, "total": page.total})


def critique(call: arguments.Critique, access: Access) -> CallToolResult:
    """Judge an image against a prompt."""
    _require_profile(call.profile)
    image = read_input_image(_file(call.image, access))
    prompt = call.prompt or (view_of(_find(call.image), api.home()).prompt if _is_run(call.image) else "")
    judgement = judge(encode_png(image), prompt, concepts=call.concepts, profile=call.profile)
    rows = [row_line(row) + (f" Advice: {row.advice}" if row.advice else "") for row in judgement.ledger]
    verdict = "The image shows everything." if judgement.shows_all else "The image does not show everything."
    return result([verdict, *rows], judgement.model_dump(mode="json") | {"shows_all": judgement.shows_all})


def _file(name: str, access: Access) -> Path | bytes:
    """Return an image by its SHA-256, resource or run, or the file of a path; raises `BadInput`."""
    sha256 = name.removeprefix(TEMPLATE.partition("{")[0])
    if is_sha256(sha256):
        return stored_image(sha256, api.home())
    if _is_run(name):
        return _best_image(_find(name))
    is_path = Path(name).is_absolute() or name.startswith("~/")
    if not is_path and (access.files or _URL.match(name)):
        raise BadInput(f"image {name[:80]!r}: no SHA-256, run id or absolute path", _REMEDY)
    if not access.files:
        raise BadInput(
            f"image {name[:80]!r}: a client over HTTP cannot name files of this machine",
            _REMEDY,
        )
    return Path(name)


def _is_run(name: str) -> bool:
    return bool(_RUN.fullmatch(name))


def _best_image(run: Run) -> bytes:
    view = view_of(run, api.home())
    if view.best_attempt:
        return stored_image(view.best_attempt.image.sha256, api.home())
    remedy = "" if view.has_ended else f'Call wait(run="{run.id}").'
    raise BadInput(f"run {run.id}: it has no image", remedy)


def _find(name: str) -> Run:
    """Return a run by its id, its beginning, or as `last`; raises `BadInput`."""
    try:
        return api.find(name)
    except NotFound as error:
        raise NotFound(error.message, "list_runs shows them.") from error


def _require_profile(name: str | None) -> None:
    if name is not None:
        require_profile(name)
