"""The skill file has the form that agents read, its commands exist, and its installation loses nothing."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.cli.main import app
from pleinair.app.skill.skill import NAME, skill_text

GROUPS = ("library", "runs", "trace", "models")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def front_matter() -> dict[str, str]:
    """Return the fields of the front matter; a folded text is one line."""
    head = skill_text().split("---\n")[1]
    fields = re.findall(r"^(\w+): (?:>-\n((?:  .*\n)+)|(.*)\n)", head, re.MULTILINE)
    return {name: " ".join(folded.split()) or text for name, folded, text in fields}


def test_the_front_matter_is_that_of_agent_skills() -> None:
    fields = front_matter()
    assert fields["name"] == NAME and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", NAME)
    assert 100 < len(fields["description"]) <= 1024 and "Use it" in fields["description"]
    assert len(skill_text().splitlines()) < 200


@cache
def help_of(*command: str) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command, "--help"])
    assert result.exit_code == 0, result.output
    return result.output


COMMANDS = re.findall(r"^.*?(pleinair [a-z].*)$", "\n".join(skill_text().split("```")[1::2]), re.MULTILINE)
NAMED = re.findall(r"`(pleinair [^`]+)`", skill_text())


@pytest.mark.parametrize("line", [*COMMANDS, *NAMED])
def test_a_command_and_its_options_exist(line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    text = help_of(*arguments[: 2 if arguments[0] in GROUPS else 1])
    assert not [option for option in arguments if option.startswith("--") and option not in text]


def test_options_that_the_text_names_exist() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", skill_text()))
    commands = (("draw",), ("batch",), ("chat",), ("trace", "fork"), ("runs", "answer"))
    assert not [option for option in named if not any(option in help_of(*words) for words in commands)]


def test_it_is_printed_and_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("skill").stdout == skill_text()
    for folder, path in (
        ((), ".claude/skills/pleinair/SKILL.md"),
        ((".agents/skills",), ".agents/skills/pleinair/SKILL.md"),
        (("mine/pleinair",), "mine/pleinair/SKILL.md"),
    ):
        result = call("skill", "--install", *folder)
        assert (result.exit_code, result.stdout) == (0, f"{path}\n")
        assert Path(path).read_text("utf-8") == skill_text()
        assert call("skill", "--install", *folder).exit_code == 0


def test_a_changed_file_is_overwritten_with_force_only(tmp_path: Path) -> None:
    path = tmp_path / NAME / "SKILL.md"
    path.parent.mkdir()
    path.write_text("mine", encoding="utf-8")
    result = call("skill", "--install", str(tmp_path))
    assert result.exit_code == 2 and "--force" in result.stderr
    assert path.read_text("utf-8") == "mine"
    assert call("skill", "--install", str(tmp_path), "--force").exit_code == 0
    assert path.read_text("utf-8") == skill_text()
    assert call("skill", str(tmp_path)).exit_code == 2
