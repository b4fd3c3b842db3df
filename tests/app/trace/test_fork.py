"""Forks: the history before the step is shared and not paid again, one thing changes, the rest is redone."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.source_tree import ROOT
from typer.testing import CliRunner

from pleinair.app.api import draw, find, finish, home, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Ended, Event, Started, payloads, read
from pleinair.app.runs.queue import QueueFull
from pleinair.app.runs.request import read_request, store_input_images
from pleinair.app.runs.results import Result
from pleinair.app.trace.diff import differ
from pleinair.app.trace.fork import fork, submit_fork
from pleinair.app.trace.references import hits_of
from pleinair.app.trace.steps import Step, find_step, steps_of
from pleinair.app.trace.trace import trace_begun
from pleinair.tools.types import Attempt, BadInput, Picture

PROMPT = "two things"
NEVER = {"mllm.satisfied": False}
WHOLE = (
    "decompose:1",
    "draft:1",
    "critique:1",
    "plan:1",
    "retrieve:1",
    "select:1",
    "generate:1",
    "critique:2",
)


@pytest.fixture
def parent(place: Path) -> Result:
    return draw(PROMPT, seed=7)


def names(run_id: str) -> list[str]:
    return [name for step in steps_of(find(run_id), home()) for name in step.names]


def attempts(run_id: str) -> list[Attempt]:
    """Return the attempts of the event that ends a run's log."""
    return list(payloads(read(home().events(run_id)), Ended)[-1].attempts)


def effects(place: Path) -> list[str]:
    """Return and clear what was paid for: images with their seed, MLLM calls."""
    log = place / "effects.log"
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("", encoding="utf-8")
    return lines


def test_steps_have_names(parent: Result) -> None:
    assert names(parent.run_id) == [*WHOLE, "finish:1"]


def test_a_step_has_its_usage_and_its_attempt(parent: Result) -> None:
    steps = steps_of(find(parent.run_id), home())
    calls = [sum(part.mllm_calls for part in step.usage) for step in steps]
    assert calls == [1, 1, 0, 0, 0, 0, 1, 0]
    assert [step.attempt for step in steps] == [0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("at", "paid"),
    [
        ("decompose:1", ["picture 7 0", "picture 7 1", "question", "question", "question"]),
        ("draft", ["picture 7 0", "picture 7 1", "question", "question", "question"]),
        ("critique:1", ["picture 7 1", "question", "question"]),
        ("plan", ["picture 7 1", "question"]),
        ("retrieve:1", ["picture 7 1", "question"]),
        ("generate:1", ["picture 7 1", "question"]),
        ("critique:2", ["question"]),
        ("finish:1", []),
    ],
)
def test_only_what_follows_is_paid_for(parent: Result, place: Path, at: str, paid: list[str]) -> None:
    effects(place)
    branch = fork(parent.run_id, at)
    assert sorted(effects(place)) == paid
    assert branch.outcome.best is not None and parent.outcome.best is not None
    assert branch.outcome.best.picture == parent.outcome.best.picture
    assert names(branch.run_id) == names(parent.run_id)
    assert branch.run_id != parent.run_id


@pytest.mark.parametrize("graph", ["crossmodal", "direct", "imagerag", "react"])
def test_forking_any_graph_at_any_step_changes_nothing_by_itself(place: Path, graph: str) -> None:
    model = {"mllm.backend": "talker"} if graph == "react" else {}
    calm = draw("a barn owl and a blue jay", seed=7, graph=graph, overrides=model)
    assert calm.outcome.best is not None, calm.outcome
    for name in names(calm.run_id):
        branch = fork(calm.run_id, name)
        assert branch.outcome.reason == calm.outcome.reason, name
        assert pictures(branch.run_id) == pictures(calm.run_id), name
        assert names(branch.run_id) == names(calm.run_id), name


def pictures(run_id: str) -> list[str]:
    return [attempt.picture.sha256 for attempt in attempts(run_id)]


def test_the_parent_stays_as_it_was(parent: Result, place: Path) -> None:
    def files() -> dict[str, bytes]:
        paths = [path for path in home().run(parent.run_id).rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in paths if "sqlite" not in path.name}

    before, row, steps = files(), find(parent.run_id), names(parent.run_id)
    fork(parent.run_id, "critique:1", seed=8, overrides=NEVER)
    assert (files(), find(parent.run_id), names(parent.run_id)) == (before, row, steps)


def test_a_fork_names_its_parent(parent: Result) -> None:
    branch = fork(parent.run_id, "select")
    origin = read_request(find(branch.run_id).request_json).parent
    assert origin is not None and (origin.run, origin.step) == (parent.run_id, "select:1")
    sidecar = json.loads(branch.sidecar.read_text(encoding="utf-8"))
    assert sidecar["order"]["parent"]["run"] == parent.run_id
    (started,) = payloads(read(home().events(branch.run_id)), Started)
    assert started.parent is not None and started.parent.step == "select:1"


def test_another_seed_from_the_start(parent: Result) -> None:
    branch = fork(parent.run_id, "draft:1", seed=8)
    assert [attempt.request.seed for attempt in attempts(branch.run_id)] == [8, 8]
    assert find(branch.run_id).seed == 8


def test_another_seed_for_one_image(parent: Result) -> None:
    branch = fork(parent.run_id, "generate:1", seed=8)
    assert [attempt.request.seed for attempt in attempts(branch.run_id)] == [7, 8]
    assert find(branch.run_id).seed == 7


def test_another_prompt_for_one_image_and_for_the_rest(parent: Result) -> None:
    once = attempts(fork(parent.run_id, "generate:1", prompt="other words").run_id)
    assert [attempt.request.prompt for attempt in once] == [PROMPT, "other words"]
    branch = fork(parent.run_id, "select:1", prompt="other words")
    assert [attempt.request.prompt for attempt in attempts(branch.run_id)] == [PROMPT, "other words"]
    assert read_request(find(branch.run_id).request_json).prompt == "other words"


def test_a_stopped_run_goes_on_with_a_larger_budget(place: Path) -> None:
    stopped = draw(PROMPT, seed=7, overrides=NEVER | {"budget.attempts": 2})
    branch = fork(stopped.run_id, "critique:2", overrides={"budget.attempts": 4})
    assert (branch.outcome.ending, branch.outcome.limit) == ("stopped", "attempts")
    pairs = zip(attempts(branch.run_id), attempts(stopped.run_id), strict=False)
    assert [first.picture == second.picture for first, second in pairs] == [True, True]
    assert len(attempts(branch.run_id)) == 4


def test_a_failed_step_is_run_again_with_other_settings(place: Path) -> None:
    failed = draw(PROMPT, seed=7, overrides={"generator.fault": "boom"})
    assert fork(failed.run_id, "draft", overrides={"generator.fault": ""}).outcome.ending == "accepted"


def test_a_fork_of_a_fork(parent: Result, place: Path) -> None:
    first = fork(parent.run_id, "critique:2", overrides=NEVER)
    effects(place)
    second = fork(first.run_id, "critique:3", overrides={"mllm.satisfied": True})
    assert effects(place) == ["question"]
    assert (second.outcome.ending, len(attempts(second.run_id))) == ("accepted", 3)


@pytest.mark.parametrize("count", range(1, 9))
def test_a_fork_that_was_cut_short_is_resumed(parent: Result, place: Path, count: int) -> None:
    calm = fork(parent.run_id, "critique:1", overrides=NEVER)
    effects(place)
    run, events = submit_fork(parent.run_id, "critique:1", overrides=NEVER), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(run, on_event)
    after = finish(run)
    assert "picture 7 0" not in effects(place)
    assert pictures(run.id) == pictures(calm.run_id)
    assert names(run.id) == names(calm.run_id)
    assert after.outcome.reason == calm.outcome.reason


def test_a_crash_while_the_history_is_copied_repeats_nothing(
    parent: Result, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pleinair.app.runs import history

    copy, copied = history.copy_checkpoint, list[str]()

    def dying(*arguments: Any) -> None:
        if len(copied) == 2:
            raise KeyboardInterrupt
        copy(*arguments)
        copied.append(arguments[1])

    run = submit_fork(parent.run_id, "critique:2")
    effects(place)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(history, "copy_checkpoint", dying)
        finish(run)
    assert finish(run).outcome.ending == "accepted"
    assert effects(place) == ["question"]


def test_a_missing_image_fails_by_name(parent: Result) -> None:
    assert parent.outcome.best is not None
    digest = parent.outcome.best.picture.sha256
    next(home().run(parent.run_id).rglob(f"{digest}.png")).unlink()
    branch = fork(parent.run_id, "critique:2")
    assert branch.outcome.ending == "failed"
    assert digest in branch.outcome.reason and "is not in the store" in branch.outcome.reason


@pytest.mark.parametrize(
    ("at", "arguments", "words"),
    [
        ("critique", {}, "it ran more than once; wanted one of: critique:1, critique:2"),
        ("critique:9", {}, "no such step; wanted one of: decompose:1, draft:1"),
        ("", {}, "no such step"),
        ("generate:1", {"seed": -1}, "seed -1: must be 0 to"),
        ("generate:1", {"prompt": " "}, "prompt: it is empty"),
        ("draft", {"prompt": "x" * 2001}, "2,001 characters"),
        ("draft", {"overrides": {"nonsense": 1}}, r"nonsense = 1 \(set in: the request\): unknown key"),
        ("draft", {"overrides": {"generator.backend": "none"}}, "generator.backend = 'none': unknown"),
        ("draft", {"out": "/dev/null"}, "it is a file"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(
    parent: Result, at: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        fork(parent.run_id, at, **arguments)
    assert len(run_table().newest(9)) == 1


def test_a_run_that_has_not_begun_has_no_steps(place: Path) -> None:
    with pytest.raises(BadInput, match="none has run"):
        fork(submit(PROMPT).id, "draft")


def test_a_run_whose_checkpoints_are_gone_has_no_steps(parent: Result) -> None:
    run = submit_fork(parent.run_id, "draft")
    (home().run(parent.run_id) / "checkpoints.sqlite").unlink()
    assert steps_of(find(parent.run_id), home()) == []
    assert "checkpoint before draft:1 is missing" in finish(run).outcome.reason


def test_a_node_that_ran_once_needs_no_number() -> None:
    steps = [Step(("a:1",), "x", 0, ()), Step(("ab:1",), "y", 0, ()), Step(("a:2",), "z", 0, ())]
    assert find_step(steps, "ab") == ("ab:1", steps[1])
    assert find_step(steps, "a:2") == ("a:2", steps[2])


def test_the_command_reports_a_fork_without_effect(parent: Result) -> None:
    words = ["trace", "fork", parent.run_id, "--set", "retrieval.k=3", "--at"]
    done = CliRunner().invoke(app, [*words, "select:1"])
    sentence = "settings · retrieval · k made no difference from select:1 on."
    assert done.exit_code == 0 and f"The results are those of {parent.run_id}: {sentence}" in done.stderr
    for other in (["retrieve:1"], ["generate:1", "--seed", "8"]):
        assert "made no difference" not in CliRunner().invoke(app, [*words, *other]).stderr
    assert "made no difference" not in CliRunner().invoke(app, [*words[:3], "--at", "select:1"]).stderr


def test_the_fork_of_the_readme_has_an_effect(place: Path) -> None:
    captions = place / "library" / "metadata.jsonl"
    captions.write_text(captions.read_text("utf-8").replace("picture 5", "the second thing"), "utf-8")
    parent = draw(PROMPT, seed=7, overrides={"retrieval.method": "dense"})  # as in the pocket world
    (line,) = re.findall(
        r"^pleinair (trace fork last .*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0 and "made no difference" not in done.stderr
    paths = [difference.what for difference in differ(parent.run_id, "last")]
    assert {"attempt 1 · reference · second thing", "attempt 1 · image"} <= set(paths)


def test_the_command_takes_a_prefix_and_has_the_exit_code_of_a_run(parent: Result, place: Path) -> None:
    words = ["trace", "fork", parent.run_id[:-2], "--at", "critique:1", "--set", "mllm.satisfied=false"]
    done = CliRunner().invoke(app, [*words, "--set", "budget.attempts=2", "--out", str(place / "other")])
    assert done.exit_code == 3, done.output
    assert str(place / "other") in done.stdout
    assert "stopped: the limit of 2 attempts is reached" in done.stderr
    done = CliRunner().invoke(app, ["trace", "fork", "last", "--at", "nowhere"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def reference_ids(run_id: str) -> list[list[str]]:
    return [[item.hit.id for item in attempt.request.references] for attempt in attempts(run_id)]


def test_another_hit_for_one_image(parent: Result) -> None:
    (before,) = attempts(parent.run_id)[1].request.references
    trace = trace_begun(find(parent.run_id), home())
    other = next(hit for hit in hits_of(trace)[before.concept] if hit.id != before.hit.id)
    branch = fork(parent.run_id, "generate:1", references={before.concept: other.id})
    (reference,) = attempts(branch.run_id)[1].request.references
    assert reference.hit == other and reference.picture != before.picture
    assert reference_ids(parent.run_id) == [[], [before.hit.id]]
    again = fork(branch.run_id, "generate:1", seed=9)
    assert reference_ids(again.run_id) == [[], [other.id]]


def test_no_reference_for_one_image(parent: Result, place: Path) -> None:
    (before,) = attempts(parent.run_id)[1].request.references
    effects(place)
    branch = fork(parent.run_id, "generate:1", references={before.concept: ""})
    assert reference_ids(branch.run_id)[1] == []
    assert "picture 7 0" in effects(place)


def test_an_input_image_as_the_reference_by_the_command(parent: Result, place: Path) -> None:
    concept = attempts(parent.run_id)[1].request.references[0].concept
    Image.new("RGB", (16, 16), "teal").save(place / "mine.png")
    command = ["trace", "fork", parent.run_id, "--at", "generate:1", "--reference", f"{concept}=@mine.png"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code in (0, 3), result.output
    (reference,) = attempts(find("last").id)[1].request.references
    assert reference.hit.id == reference.picture.sha256 and reference.concept == concept
    stored = home().run(find("last").id) / "pictures/sha256" / reference.hit.id[:2]
    assert [path.stem for path in stored.iterdir()] == [reference.hit.id]


@pytest.mark.parametrize("own", [False, True])
def test_another_reference_for_a_driving_model(place: Path, own: bool) -> None:
    prompt = "a barn owl and a blue jay"
    driven = draw(prompt, seed=7, graph="react", overrides={"mllm.backend": "talker"})
    *_, step = [step for step in steps_of(find(driven.run_id), home()) if step.driven]
    assert step.image is not None
    (before, *_) = step.image.references
    hits = hits_of(trace_begun(find(driven.run_id), home()))[before.concept]
    mine = store_input_images([Image.new("RGB", (8, 8), "red")], home())[0]
    choice = mine if own else next(hit.id for hit in hits if hit.id != before.hit.id)
    branch = fork(driven.run_id, step.names[0], references={before.concept: choice})
    references = attempts(branch.run_id)[step.attempt].request.references
    assert [each.hit.id for each in references if each.concept == before.concept] == [
        mine.sha256 if own else choice
    ]
    assert len(pictures(branch.run_id)) == len(pictures(driven.run_id))
    again = fork(branch.run_id, step.names[0], seed=9)
    assert attempts(again.run_id)[step.attempt].request.references == references
    seeds = [attempts(run)[step.attempt].request.seed for run in (again.run_id, branch.run_id)]
    assert seeds[0] != seeds[1]
    with pytest.raises(BadInput, match="cannot be told to use none"):
        fork(driven.run_id, step.names[0], references={before.concept: ""})


def test_two_references_where_one_concept_had_none(parent: Result) -> None:
    trace = trace_begun(find(parent.run_id), home())
    first, second = (concept.name for concept in trace.concepts)
    picture = store_input_images([Image.new("RGB", (8, 8), "red")], home())[0]
    branch = fork(parent.run_id, "generate:1", references={first: picture})
    assert [item.concept for item in attempts(branch.run_id)[1].request.references] == [second, first]


@pytest.mark.parametrize(
    ("at", "references", "fault"),
    [
        ("critique:1", {"second thing": ""}, "changed at a step of `generate`, not at critique:1"),
        ("generate:1", {"third": ""}, "reference 'third': no such concept"),
        ("generate:1", {"second thing": "../x.png"}, "is no hit of it"),
        ("generate:1", {"second thing": Picture(sha256="0" * 64, width=1, height=1)}, "not on this machine"),
    ],
)
def test_a_reference_that_is_not_there_is_refused(
    parent: Result, at: str, references: dict[str, Any], fault: str
) -> None:
    before = run_table().newest(9)
    with pytest.raises(BadInput, match=re.escape(fault)):
        fork(parent.run_id, at, references=references)
    assert run_table().newest(9) == before


def test_the_models_of_another_profile(parent: Result, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['[generator]\nbackend = "quick"', '[encoder]\nbackend = "quick"', '[mllm]\nbackend = "quick"']
    (place / "calm.toml").write_text("\n".join([*lines, "satisfied = false", "[budget]\nattempts = 9"]))
    for variable in ("GENERATOR", "ENCODER", "MLLM"):
        monkeypatch.delenv(f"PLEINAIR_{variable}__BACKEND", raising=False)
    branch = fork(parent.run_id, "critique:2", profile=str(place / "calm.toml"))
    settings = read_request(find(branch.run_id).request_json).settings
    assert settings.mllm.arguments["satisfied"] is False and settings.budget.attempts == 3
    assert branch.outcome.ending == "stopped" and settings.profile.endswith("calm.toml")
    with pytest.raises(BadInput, match="Fork at an earlier step"):
        fork(parent.run_id, "generate:1", profile="pocket")


def test_a_fork_for_a_worker_is_queued(parent: Result) -> None:
    run = submit_fork(parent.run_id, "critique:1", client="a", most=1)
    assert [queued.id for queued in run_table().queue()] == [run.id]
    with pytest.raises(QueueFull):
        submit_fork(parent.run_id, "critique:1", client="a", most=1)
