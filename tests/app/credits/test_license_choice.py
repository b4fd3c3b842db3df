"""`--license`: of which licenses references are retrieved, in draws, chats and on the page's form."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pleinair.app.api import draw, find, home, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.request import read_request
from pleinair.app.trace.view import RunView, view_of
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import BadInput

PROMPT = "two things"


def license_all(place: Path, *licenses: str) -> None:
    """Give the six images of the library these licenses in turn."""
    metadata = place / "library" / "metadata.jsonl"
    lines = [json.loads(line) for line in metadata.read_text("utf-8").splitlines()]
    for number, line in enumerate(lines):
        line["license"] = licenses[number % len(licenses)]
    metadata.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def used(view: RunView) -> set[str]:
    return {str(credit["license"]) for attempt in view.attempts for credit in attempt.references}


@pytest.mark.parametrize(
    ("license", "accepted"), [("free", {"CC-BY-4.0"}), ("known", {"CC-BY-NC-4.0", "CC-BY-4.0"})]
)
def test_references_have_licenses_of_the_chosen_kind(
    place: Path, license: Licenses, accepted: set[str]
) -> None:
    license_all(place, "", "CC BY-NC 4.0", "CC BY 4.0")
    options = {"mllm.satisfied": False, "retrieval.licenses": ["MIT"]}
    result = draw(PROMPT, license=license, seed=1, overrides=options)
    view = view_of(find(result.run_id), home())
    assert used(view) and used(view) <= accepted and view.abstentions == ()


FREE_MISS = ("CC BY-NC-SA 4.0", "", "", "CC BY 4.0", "CC BY-NC 4.0", "")  # only 3.png is free,
THRESHOLD = 0.05  # which is under this one for the missing concept, and four others are over it


def test_a_run_says_that_licenses_excluded_what_matches(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_RETRIEVAL__THRESHOLD", str(THRESHOLD))
    license_all(place, *FREE_MISS)
    view = view_of(find(draw(PROMPT, license="free", seed=1).run_id), home())
    (abstention,) = view.abstentions
    assert len(abstention.excluded_by_license) == 4 and used(view) == set()
    everything = view_of(find(draw(PROMPT, license="any", seed=1).run_id), home())
    assert everything.abstentions == () and used(everything)


def test_the_choice_is_a_setting_and_outranks_the_settings(place: Path) -> None:
    def licenses(**options: object) -> tuple[str, ...]:
        run = submit(PROMPT, overrides={"retrieval.licenses": ["known"]}, **options)  # type: ignore[arg-type]
        return read_request(run.request_json).settings.retrieval.licenses

    assert licenses() == licenses(license=None) == ("known",)
    assert (licenses(license="free"), licenses(license="any")) == (("free",), ())
    with pytest.raises(BadInput, match="license = 'gratis': accepted: any, known, free"):
        licenses(license="gratis")


def test_the_command_line_draws_with_free_licenses(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_RETRIEVAL__THRESHOLD", str(THRESHOLD))
    license_all(place, *FREE_MISS)
    result = CliRunner().invoke(app, ["draw", PROMPT, "--license", "free", "--seed", "1", "--json"])
    assert result.exit_code == 3, result.output  # after all attempts
    assert view_of(find("last"), home()).abstentions[0].excluded_by_license
    assert CliRunner().invoke(app, ["draw", PROMPT, "--license", "gratis"]).exit_code == 2
    gaps = CliRunner().invoke(app, ["library", "gaps", "--json"])
    assert json.loads(gaps.stdout)["gaps"] == []  # the library has it, under another license


def licenses_of(run_id: str) -> tuple[str, ...]:
    return read_request(find(run_id).request_json).settings.retrieval.licenses


def test_a_chat_and_a_batch_take_the_choice(place: Path) -> None:
    license_all(place, "CC BY 4.0", "CC BY-NC 4.0")
    options = ["--license", "free", "--set", "mllm.backend=talker"]
    result = CliRunner().invoke(app, ["chat", *options], input=f"{PROMPT}\n/quit\n")
    assert result.exit_code == 0, result.output
    assert licenses_of("last") == ("free",)
    rows = [{"prompt": "one thing"}, {"prompt": PROMPT, "license": "any"}]
    (place / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = [
        "batch",
        "prompts.jsonl",
        "--out",
        "results",
        "--license",
        "free",
        "--set",
        "budget.attempts=1",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code in (0, 3), result.output
    first, second = sorted(run_table().newest(2), key=lambda run: run.created)
    assert (licenses_of(first.id), licenses_of(second.id)) == (("free",), ())
    refused = CliRunner().invoke(app, [*command, "--license", "gratis"])
    assert refused.exit_code == 2
