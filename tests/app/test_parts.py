"""Objects of a program in place of backends: chat models, generators, pipelines, retrievers."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from PIL import Image
from support import tiny_pipelines
from support.fake_engines import ListRetriever
from support.quick_engines import Stripes, critic, speckled
from typer.testing import CliRunner

from pleinair.app.api import answer, cancel, draw, enqueue, estimate, finish, home, resume, run_table, submit
from pleinair.app.chat.threads import Threads
from pleinair.app.cli.main import app
from pleinair.app.runs.edits import read_base
from pleinair.app.runs.facts import details_of
from pleinair.app.runs.row import Run
from pleinair.app.runs.worker import work
from pleinair.app.server.decisions import decisions_of
from pleinair.app.streams import adraw, start, stream
from pleinair.app.trace.fork import fork, submit_fork
from pleinair.app.trace.replay import redraw
from pleinair.app.trace.view import view_of
from pleinair.tools.types import BadInput, Hit

PROMPT = "first thing and second thing"
HITS = [Hit(id="mine.png", score=0.9, caption="mine", license="CC0-1.0")]
ASKS = {"approve": "references"}


class Counting(Stripes):
    """Generator of a program, which counts its images."""

    images = 0

    def generate(self, *args: Any) -> Image.Image:
        self.images += 1
        return super().generate(*args)


class Album(ListRetriever):
    """Retriever of a program: one image for every query."""

    def __init__(self) -> None:
        super().__init__({"": HITS})

    def search(self, query: str, k: int) -> list[Hit]:
        return HITS[:k]

    def open(self, id: str) -> Image.Image:
        return speckled(16, (9, 9, 9))


def sidecar_of(result: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(result.sidecar.read_text("utf-8"))
    return content


def test_a_run_has_the_parts_that_it_was_handed(place: Path) -> None:
    generator, model = Counting(), critic()
    result = draw(PROMPT, seed=1, model=model, generator=generator, retriever=Album())
    assert result.outcome.ending == "accepted"
    assert generator.images == 2
    assert model.schemas
    sidecar = sidecar_of(result)
    assert [reference["id"] for reference in sidecar["references"]] == ["mine.png"]
    assert sidecar["models"] == {
        "generator": "stripes",
        "mllm": "program:Critic",
        "retriever": "program:Album",
    }
    settings = sidecar["order"]["settings"]
    assert (settings["generator"]["backend"], settings["generator"]["class"]) == ("program", "Counting")
    assert (settings["retrieval"]["method"], settings["retrieval"]["arguments"]) == (
        "program",
        {"class": "Album"},
    )


def test_parts_of_a_program_generate_as_backends_of_the_same_kind_do(place: Path) -> None:
    by_name, by_hand = draw(PROMPT, seed=1), draw(PROMPT, seed=1, generator=Stripes(), model=critic())
    pictures = [result.outcome.best.picture for result in (by_name, by_hand) if result.outcome.best]
    assert len(set(pictures)) == 1


def test_two_runs_at_once_have_their_own_objects(place: Path) -> None:
    generators = [Counting(pause=0.02) for _ in range(2)]

    async def both() -> list[Any]:
        return await asyncio.gather(
            *(adraw(PROMPT, seed=seed, generator=each) for seed, each in enumerate(generators))
        )

    assert [result.outcome.ending for result in asyncio.run(both())] == ["accepted"] * 2
    assert [generator.images for generator in generators] == [2, 2]


def test_a_stream_and_an_estimate_take_parts(place: Path) -> None:
    generator = Counting()
    assert estimate(PROMPT, generator=generator).generator == "program:Counting"
    *_, last = stream(PROMPT, seed=1, generator=generator)
    assert (last.kind, generator.images) == ("ended", 2)


class NoSearch:
    """Retriever without a search."""

    def open(self, id: str) -> Image.Image: ...  # type: ignore[empty-body]
    def entries(self) -> list[Hit]: ...  # type: ignore[empty-body]


class Documents(BaseRetriever):
    """Retriever of LangChain, whose documents are texts."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return []


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [  # parts, overrides, message
    ({"model": "gpt-5"}, {}, "model: str is no chat model; wanted a LangChain chat model"),
    ({"generator": "klein"}, {}, "generator: str has no method `generate`; wanted .*or a loaded pipeline"),
    ({"generator": Stripes}, {}, "generator: Stripes is a class; pass an instance"),
    ({"retriever": NoSearch()}, {}, "retriever: NoSearch has no method `search`; wanted a Retriever"),
    ({"retriever": Documents()}, {}, "retriever: Documents has no method `search`; wanted a Retriever"),
    ({"generator": Stripes()}, {"generator.fault": "x"}, r"generator\.fault: set beside generator="),
    ({"model": critic()}, {"mllm.pause": 1}, r"mllm\.pause: set beside model="),
    ({"retriever": Album()}, {"retrieval.method": "dense"}, r"retrieval\.method: set beside retriever="),
    ({}, {"generator.backend": "program"}, "object of the Python program"),
    ({"generator": Stripes()}, {"image.reference_strength": 1}, "does not take it"),
]


@pytest.mark.parametrize(("parts", "overrides", "message"), WRONG)
def test_what_is_no_part_is_refused_before_anything_is_written(
    place: Path, parts: dict[str, Any], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        draw(PROMPT, seed=1, overrides=overrides, **parts)
    assert not run_table().newest(1)


def test_arguments_of_another_type_are_refused_before_anything_is_written(place: Path) -> None:
    for options, message in (
        ({"sede": 1}, "sede = 1: unknown option; accepted: .* Did you mean `seed`"),
        ({"overrides": ["retrieval.k=8"]}, "overrides = .*must be a table"),
        ({"overrides": {1: 2}}, "overrides = .*must be a table"),
        ({"profile": 3}, "profile = 3: must be the name or the file"),
        ({"out": 3}, "out = 3: must be the path"),
        ({"input_images": "wren.png"}, "input_images: str; must be a list of files"),
        ({"input_images": [speckled(16, (9, 9, 9))]}, "input image: Image; must be the path of a file"),
    ):
        with pytest.raises(BadInput, match=message):
            draw(PROMPT, **options)
    with pytest.raises(BadInput, match="base: Image; must be the path of a file"):
        read_base(speckled(16, (9, 9, 9)), None)  # type: ignore[arg-type]
    assert not run_table().newest(1)


def test_results_are_written_to_a_path_object(place: Path) -> None:
    result = draw(PROMPT, seed=1, out=place / "elsewhere")
    assert Path(result.picture or "").parent == place / "elsewhere"


class Answers(Album):
    """Retriever that answers with what a test hands it."""

    def __init__(self, hits: Any = HITS, image: Any = None) -> None:
        super().__init__()
        self._answer, self._image = hits, image

    def search(self, query: str, k: int) -> list[Hit]:
        answer: list[Hit] = self._answer
        return answer

    def open(self, id: str) -> Image.Image:
        return Image.open(id) if self._image is None else self._image


@pytest.mark.parametrize(
    ("retriever", "reason"),
    [
        (Answers(hits=None), "`search` of Answers returned a NoneType. It has to return a list of"),
        (Answers(hits=[{"id": "mine.png"}]), "`search` of Answers returned a list with a dict"),
        (Answers(image="https://example.org/mine.png"), "`open` of Answers returned a str for 'mine.png'"),
    ],
)
def test_what_a_retriever_returns_is_checked(place: Path, retriever: Answers, reason: str) -> None:
    outcome = draw(PROMPT, seed=1, retriever=retriever, model=critic(satisfied=False)).outcome
    assert (outcome.ending, reason in outcome.reason) == ("failed", True), outcome.reason
    assert outcome.best  # the draft is not lost


def test_images_of_a_retriever_that_are_missing_are_left_out(place: Path) -> None:
    result = draw(PROMPT, seed=1, retriever=Answers(), model=critic(satisfied=False))
    assert result.outcome.ending != "failed"
    assert not sidecar_of(result)["references"]


class Asynchronous(BaseChatModel):
    """Chat model without a synchronous call."""

    def _generate(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    @property
    def _llm_type(self) -> str:
        return "asynchronous"


@pytest.mark.parametrize("graph", ["pleinair", "react"])
def test_a_model_that_is_asynchronous_only_is_reported(place: Path, graph: str) -> None:
    outcome = draw(PROMPT, seed=1, graph=graph, model=Asynchronous()).outcome
    assert outcome.ending == "failed"
    assert "Asynchronous cannot be called synchronously. Give it a `_generate`" in outcome.reason


@pytest.mark.parametrize("queue", [start, lambda *args, **options: enqueue(*args, client="c", **options)])
def test_no_worker_is_sent_an_object(place: Path, queue: Any) -> None:
    with pytest.raises(BadInput, match="an object of this program, which no worker has"):
        queue(PROMPT, seed=1, generator=Stripes())
    assert not run_table().newest(1)


def test_a_run_goes_on_with_parts_of_the_same_kind_only(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKS, generator=Counting())
    run = answer(waiting.run_id, client="page")
    assert run.client is None  # so that no worker takes it
    work(run_table(), home(), threading.Event(), idle=0.0)
    assert decisions_of(run, home()).text == "The Python program that started this run goes on with it."
    for parts, message in (
        ({}, "its generator is an object of the Python program that started it .Counting.*generator=…"),
        ({"generator": Stripes()}, "generator: Stripes; run .* was started with Counting"),
        ({"generator": Counting(), "model": critic()}, "model: run .* was started with `quick`"),
    ):
        with pytest.raises(BadInput, match=message):
            finish(run, **parts)
        with pytest.raises(BadInput, match=message):
            resume(run.id, **parts)
    assert run_table().get(run.id).status == "queued"
    assert finish(run, generator=Counting()).outcome.ending == "accepted"


def test_the_command_line_leaves_a_run_to_its_program(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides=ASKS, generator=Counting())
    for command in (["answer", waiting.run_id], ["resume", waiting.run_id]):
        shown = CliRunner().invoke(app, ["runs", *command])
        assert shown.exit_code == 2
        assert "object of the Python program" in " ".join(shown.output.split())
        assert run_table().get(waiting.run_id).status == "queued"
    assert resume(waiting.run_id, generator=Counting()).outcome.ending == "accepted"


def test_a_run_can_be_cancelled_without_its_parts(place: Path) -> None:
    waiting = draw(PROMPT, seed=1, overrides={"approve": "references"}, generator=Counting())
    assert cancel(waiting.run_id).status == "cancelled"
    assert cancel(submit(PROMPT, seed=1, model=critic()).id).status == "cancelled"


def test_an_interrupted_run_says_who_can_resume_it(place: Path) -> None:
    by_program, by_command = submit(PROMPT, seed=1, generator=Counting()), submit(PROMPT, seed=1)

    def interrupt(*runs: Run) -> None:
        with run_table().transaction() as db:
            for run in runs:
                db.execute("UPDATE runs SET status='running', fence=1 WHERE id=?", (run.id,))

    interrupt(by_program)
    view = view_of(run_table().get(by_program.id), home())
    assert (view.interrupted, view.by_program) == (True, True)
    assert details_of(run_table().get(by_program.id))["resume"].startswith("its program, by `resume`")
    listed = CliRunner().invoke(app, ["runs", "list"]).output
    assert "by program: its Python program continues it" in " ".join(listed.split())
    assert "pleinair runs resume" not in listed
    interrupt(by_program, by_command)
    listed = CliRunner().invoke(app, ["runs", "list"]).output
    assert "by program:" in listed
    assert "interrupted: `pleinair runs resume RUN`" in " ".join(listed.split())
    rows = json.loads(CliRunner().invoke(app, ["runs", "list", "--json"]).stdout)
    assert {row["run"]: row["by_program"] for row in rows} == {by_program.id: True, by_command.id: False}


def test_a_fork_has_the_parts_handed_over_again_or_other_backends(place: Path) -> None:
    result = draw(PROMPT, seed=1, generator=Counting())
    count = len(run_table().newest(9))
    for options in ({}, {"client": "page"}):
        with pytest.raises(BadInput, match="the fork: its generator is an object"):
            submit_fork(result.run_id, "critique:1", **options)  # type: ignore[arg-type]
    assert len(run_table().newest(9)) == count
    generator = Counting()
    assert fork(result.run_id, "retrieve:1", generator=generator).outcome.ending == "accepted"
    assert generator.images == 1
    other = fork(result.run_id, "retrieve:1", overrides={"generator.backend": "quick"})
    assert sidecar_of(other)["order"]["settings"]["generator"] == {"backend": "quick"}
    with pytest.raises(BadInput, match="its generator is an object"):
        redraw(result.sidecar)
    again = redraw(result.sidecar, generator=Counting()).outcome
    assert again.best and result.outcome.best
    assert again.best.picture == result.outcome.best.picture


def test_a_chat_takes_parts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_MLLM__BACKEND", "talker")
    threads, generator = Threads(), Counting()
    thread = threads.create()
    for line in ("a blue jay", "now make it night"):
        with threads.opened(thread.id) as session:
            (run,) = session.submit(line, generator=generator)
        assert finish(run, generator=generator).picture
    with threads.opened(thread.id) as session:
        with pytest.raises(BadInput, match="its generator is an object"):
            session.redraw(client="page")
        assert finish(session.redraw(generator=generator), generator=generator).picture
        (run,) = session.submit("now make it day")  # with the backends of the thread's settings
    assert sidecar_of(finish(run))["models"]["generator"] == "stripes"
    assert generator.images >= 3


SMALL = {"generator.num_inference_steps": 2, "generator.height": 32, "generator.width": 32}
PIPELINES: list[tuple[Any, str, dict[str, Any], int]] = [  # its maker, the engine, options of its call, slots
    (tiny_pipelines.klein, "in_context", tiny_pipelines.FLUX2, 4),
    (tiny_pipelines.sd15, "text_only", {}, 0),
]


@pytest.mark.parametrize(("make", "engine", "options", "slots"), PIPELINES)
def test_a_pipeline_is_called_by_the_engine_of_its_class(
    place: Path, make: Any, engine: str, options: dict[str, Any], slots: int
) -> None:
    pipeline = make()
    scheduler, image_processor = pipeline.scheduler, pipeline.image_processor
    overrides = SMALL | {"generator.options": options, "budget.attempts": 2, "mllm.satisfied": False}
    result = draw(PROMPT, seed=1, generator=pipeline, overrides=overrides)
    assert result.outcome.best
    assert result.outcome.best.request.num_inference_steps == 2
    with Image.open(result.picture or "") as image:
        assert image.size == (32, 32)
    sidecar = sidecar_of(result)
    name = type(pipeline).__name__
    assert sidecar["models"]["generator"] == f"{engine}:{name}"
    table = sidecar["order"]["settings"]["generator"]
    assert (table["backend"], table["class"], table["capabilities"]["slots"]) == ("program", name, slots)
    references = [attempt["request"]["references"] for attempt in sidecar["attempts"]]
    assert any(references) == bool(slots)
    assert (pipeline.scheduler, pipeline.image_processor) == (scheduler, image_processor)
    again = redraw(result.sidecar, generator=make())
    assert sidecar_of(again)["order"]["settings"]["generator"] == table
    forked = fork(result.run_id, "critique:1", generator=pipeline, overrides={"generator.width": 64})
    assert sidecar_of(forked)["order"]["settings"]["generator"]["width"] == 64
    widths = [attempt["request"]["width"] for attempt in sidecar_of(forked)["attempts"]]
    assert widths == [32, 64][: len(widths)]


@pytest.mark.parametrize("graph", ["imagerag", "crossmodal", "realrag"])
def test_the_papers_graphs_search_the_retriever_of_the_program(place: Path, graph: str) -> None:
    overrides = {"realrag.method": "zero"} if graph == "realrag" else {}
    model = critic(satisfied=False)
    result = draw(PROMPT, seed=1, graph=graph, retriever=Album(), model=model, overrides=overrides)
    assert [reference["id"] for reference in sidecar_of(result)["references"]] == ["mine.png"]


def test_a_retriever_needs_no_library_and_its_hits_are_filtered_by_license(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLEINAIR_LIBRARY__FOLDER")
    (place / "mine.toml").write_text('generator.backend = "quick"\nencoder.backend = "quick"\n')
    for accepted, ids in (("CC0-1.0", {"mine.png"}), ("MIT", set())):
        overrides = {"retrieval.licenses": [accepted], "mllm.satisfied": False}
        result = draw(PROMPT, seed=1, profile="mine.toml", retriever=Album(), overrides=overrides)
        attempts = sidecar_of(result)["attempts"]
        assert {each["hit"]["id"] for a in attempts for each in a["request"]["references"]} == ids
