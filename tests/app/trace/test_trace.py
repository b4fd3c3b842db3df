"""Traces: storyboards are single files that load nothing; the terminal and the JSON have the same facts."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from support.html_page import HARMLESS, Page
from typer.testing import CliRunner, Result

from pleinair.app.api import draw, find, finish, home, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Event
from pleinair.app.runs.row import Run
from pleinair.app.storyboard.export import export
from pleinair.app.trace.diff import differ
from pleinair.app.trace.fork import fork
from pleinair.app.trace.trace import spent
from pleinair.tools.types import BadInput, Usage

PROMPT = 'two things <script>alert("1")</script> & more'


def page(run: Run, file: Path) -> Page:
    export(run, home(), file)
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture
def run(place: Path) -> Run:
    return run_table().get(draw(PROMPT, seed=7).run_id)


def test_the_page_loads_nothing_from_outside(run: Run, place: Path) -> None:
    shown = page(run, place / "run.html")
    assert shown.loads and all(source.startswith("data:image/png;base64,") for source in shown.loads)
    assert "url(" not in (place / "run.html").read_text(encoding="utf-8")
    assert "@import" not in (place / "run.html").read_text(encoding="utf-8")


def test_everything_is_escaped(run: Run, place: Path) -> None:
    shown = page(run, place / "run.html")
    assert set(shown.tags) <= HARMLESS
    assert PROMPT in shown.text
    assert "first <b>thing</b>" in shown.text and "<i>Nobody</i>" in shown.text


def test_the_policy_allows_nothing_but_its_own_style(run: Run, place: Path) -> None:
    import base64
    import hashlib

    policy = page(run, place / "run.html").meta["Content-Security-Policy"]
    style = re.search("<style>(.*)</style>", (place / "run.html").read_text(encoding="utf-8"), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:")
    assert f"style-src 'sha256-{digest}'" in policy


def test_the_page_has_all_facts(run: Run, place: Path) -> None:
    shown = page(run, place / "run.html")
    words: tuple[str, ...] = ("accepted", "every concept is present", run.id, "stripes")
    words += ("Draft", "Attempt 1", "★ best")
    words += ("None: generated from the prompt alone.", "CC0-1.0", "rank 1 of 4", "Retrieved, not selected")
    words += ("Add reference for “second thing”", "missing 90%", "present 90%", "2 images, 3 MLLM calls")
    assert [word for word in words if word not in shown.text] == []
    assert shown.loads and len(shown.loads) == 2 + 1 + 3  # attempts, the reference, the ones not picked


def test_the_storyboard_is_exported_as_png_too(run: Run, place: Path) -> None:
    export(run, home(), place / "run.png")
    with Image.open(place / "run.png") as board:
        assert board.width > 1000 and board.height > 1000


def test_a_missing_library_leaves_gaps(run: Run, place: Path) -> None:
    (place / "library").rename(place / "elsewhere")
    assert len(page(run, place / "run.html").loads) == 3
    export(run, home(), place / "run.png")


@pytest.mark.parametrize("count", [1, 5, 8, 13, 17, 20])
def test_an_interrupted_run_is_shown_as_far_as_it_got(place: Path, count: int) -> None:
    run, events = submit(PROMPT, seed=7), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(run, on_event)
    assert "open" in page(run, place / "run.html").text


def test_a_resumed_run_shows_each_step_once(place: Path) -> None:
    run, events = submit(PROMPT, seed=7), list[Event]()

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(run, on_event)
    finish(run)
    shown = page(run_table().get(run.id), place / "run.html")
    assert len(shown.loads) == 6 and "2 images, 3 MLLM calls" in shown.text


def test_a_run_that_has_not_begun_has_no_storyboard(place: Path) -> None:
    with pytest.raises(BadInput, match="it has not begun"):
        export(submit(PROMPT), home(), place / "run.html")


def test_only_three_kinds_of_file(run: Run, place: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in \.html, \.png or \.json"):
        export(run, home(), place / "run.pdf")


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_show_prints_every_attempt(run: Run) -> None:
    output = call("trace", "show", "last").stdout
    for words in (
        f"Run {run.id}",
        "spent        2 images, 3 MLLM calls",
        "Draft\n",
        "Attempt 1 ★ best",
        "second thing ← 2.png, rank fusion 0.016, cosine 0.29, matched by similarity, rank 1 of 4; CC0-1.0, "
        "<i>Nobody</i>, https://example.org/2?a=1&b=2",
        "unselected   second thing ← 1.png",
        "○ second thing: missing 90%",
        "decision     Add reference for “second thing”: no reference was tried yet",
        "decision     Accepted: every concept is present",
        "decompose:1 draft:1 1 image, 1 MLLM call",
        "critique:2",
    ):
        assert words in output


def test_the_attempts_usage_is_the_runs(run: Run) -> None:
    output = json.loads(call("trace", "show", run.id, "--json").stdout)
    each = [attempt["usage"] for attempt in output["attempts"]]
    assert [sum(part["mllm_calls"] for part in usage) for usage in each] == [2, 1]
    assert sorted(map(str, sum(each, []))) == sorted(map(str, output["usage"]))


def test_show_as_json_has_the_same_facts(run: Run) -> None:
    output = json.loads(call("trace", "show", run.id, "--json").stdout)
    facts = [output[key] for key in ("run", "status", "graph", "seed")]
    assert facts == [run.id, "accepted", "pleinair", 7]
    draft, second = output["attempts"]
    assert (draft["best"], second["best"]) == (False, True)
    assert Path(second["file"]).exists()
    assert second["credits"][0]["license"] == "CC0-1.0" and len(second["not_picked"]) == 3
    assert output["steps"][1] == {"names": ["critique:1"], "attempt": 0}


def test_a_fork_shows_its_parent_and_the_retrievals_of_each_attempt(run: Run) -> None:
    fork(run.id, "critique:2", overrides={"mllm.satisfied": False})
    output = json.loads(call("trace", "show", "last", "--json").stdout)
    assert output["parent"] == {"run": run.id, "step": "critique:2"}
    assert [len(attempt["not_picked"]) for attempt in output["attempts"]] == [0, 3, 0]
    assert f"fork         of {run.id} at critique:2" in call("trace", "show", "last").stdout


def test_no_text_controls_the_terminal(place: Path) -> None:
    draw("two \x1b[2Jthings", seed=7)
    output = call("trace", "show", "last").stdout
    assert "\x1b" not in output and "two �[2Jthings" in output


def test_equal_runs_do_not_differ(run: Run) -> None:
    again = draw(PROMPT, seed=7, out="elsewhere")
    assert differ(run.id, again.run_id) == []
    done = call("trace", "diff", run.id, "last")
    assert (done.exit_code, done.stdout) == (0, "")


def test_differences_are_listed(run: Run) -> None:
    other = fork(run.id, "critique:1", seed=8, overrides={"mllm.satisfied": False, "budget.attempts": 2})
    done = call("trace", "diff", run.id, other.run_id)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    for line in (
        "seed: 7 → 8",
        "settings · mllm · satisfied: – → False",
        "settings · budget · attempts: 3 → 2",
        "attempt 1 · seed: 7 → 8",
        "attempt 1 · ledger · second thing: present 90% → missing 90%",
        "ending: accepted → stopped",
        "best: 1 → 0",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith(("prompt", "draft", "graph"))]
    output = json.loads(call("trace", "diff", run.id, other.run_id, "--json").stdout)
    assert {"what": "seed", "first": "7", "second": "8"} in output


def test_a_setting_without_effect_is_reported(run: Run) -> None:
    again = fork(run.id, "select:1", overrides={"retrieval.k": 8})
    done = call("trace", "diff", run.id, again.run_id)
    sentence = "Nothing else differs: settings · retrieval · k made no difference to the results."
    assert done.stdout.splitlines() == ["settings · retrieval · k: 4 → 8", sentence] and done.exit_code == 1
    assert len(json.loads(call("trace", "diff", run.id, again.run_id, "--json").stdout)) == 1


def test_another_retrieval_differs_also_with_the_same_image(run: Run) -> None:
    other = fork(run.id, "retrieve:1", overrides={"retrieval.k": 2})
    differences = {difference.what: difference for difference in differ(run.id, other.run_id)}
    assert [what for what in differences if not what.startswith("settings")] == ["retrieval · second thing"]
    retrieval = differences["retrieval · second thing"]
    assert retrieval.first.startswith(retrieval.second)
    assert "Nothing else" not in call("trace", "diff", run.id, other.run_id).stdout


def test_another_prompt_and_other_references_differ(run: Run, place: Path) -> None:
    (place / "library" / "2.png").unlink()
    other = draw("others", seed=7)
    differences = {change.what: (change.first, change.second) for change in differ(run.id, other.run_id)}
    assert differences["prompt"] == (PROMPT, "others")
    assert differences["attempt 1 · reference · second thing"][1].startswith("1.png ")
    assert "attempt 1 · image" in differences


def test_a_run_that_has_not_ended_is_compared_as_far_as_it_got(run: Run) -> None:
    differences = {change.what: change.second for change in differ(run.id, submit(PROMPT, seed=7).id)}
    assert (differences["ending"], differences["draft · image"]) == ("queued", "–")


def test_a_run_is_found_by_its_prefix_or_as_the_last(run: Run) -> None:
    assert find("last") == find(run.id[:-3]) == find(run.id) == run
    other = submit(PROMPT)
    shared = run.id[:8] if run.id[:8] == other.id[:8] else "2"
    for name, words in ((shared, "ambiguous"), ("", "there is none"), ("x", "there is none")):
        with pytest.raises(BadInput, match=words):
            find(name)
    assert find("last") == other


@pytest.mark.parametrize(
    "words", [("show", "x"), ("diff", "last", "x"), ("replay", "x"), ("export", "x", "a.png")]
)
def test_an_unknown_run_is_bad_input(place: Path, words: tuple[str, ...]) -> None:
    done = call("trace", *words)
    assert (done.exit_code, done.stderr.count("pleinair: ")) == (2, 1)


@pytest.mark.parametrize("command", ["show", "diff", "replay", "fork", "export"])
def test_every_command_has_help(command: str) -> None:
    done = call("trace", command, "--help")
    assert done.exit_code == 0 and "RUN" in done.stdout


def test_money_is_shown_if_some_was_spent() -> None:
    usage = [Usage(images=1, usd=0.04, seconds=2), Usage(mllm_calls=1, usd=0.0012)]
    assert spent(usage) == "1 image, 1 MLLM call, 0.0412 US dollars, 2.0 s"
    assert "dollars" not in spent([Usage(images=1)])
