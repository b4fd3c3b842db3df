"""Commands of other packages: listed and called by entry points; a broken one is a line, never a crash."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.plugins import install_package
from typer.testing import CliRunner

from pleinair.app.cli.main import app

SOURCE = """
import typer
def greet(name: str = "you") -> None:
    '''Greet somebody.'''
    typer.echo(f"hello {name}")
tools = typer.Typer(help="Two tools.")
@tools.command()
def first() -> None:
    typer.echo("the first")
@tools.command()
def second() -> None:
    typer.echo("the second")
number = 3
def odd(values: int | str) -> None:
    pass
def draw() -> None:
    typer.echo("not the built-in one")
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    commands = "greet = greet_plugin:greet\ntools = greet_plugin:tools\nnumber = greet_plugin:number\n"
    commands += "odd = greet_plugin:odd\nmissing = no_such_plugin:run\ndraw = greet_plugin:draw\n"
    install_package(tmp_path, "greet_plugin", f"[pleinair.command]\n{commands}")
    (tmp_path / "greet_plugin.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return CliRunner()


def test_commands_of_plugins_are_listed_with_their_help_and_called(runner: CliRunner) -> None:
    listing = runner.invoke(app, ["--help"])
    assert listing.exit_code == 0
    assert "Greet somebody." in listing.stdout and "Two tools." in listing.stdout
    assert runner.invoke(app, ["greet", "--name", "Ada"]).stdout == "hello Ada\n"
    assert runner.invoke(app, ["tools", "second"]).stdout == "the second\n"


@pytest.mark.parametrize("name", ["number", "odd", "missing"])
def test_a_broken_plugin_is_one_line_with_its_name(runner: CliRunner, name: str) -> None:
    listing = runner.invoke(app, ["--help"])
    assert listing.exit_code == 0 and "Greet somebody." in listing.stdout
    assert sum(f"`{name}`" in line for line in listing.stderr.splitlines()) == 1
    assert f"\n  {name} " not in listing.stdout
    result = runner.invoke(app, [name])
    assert result.exit_code == 5
    assert f"`{name}`" in result.stderr and "Traceback" not in result.output


def test_a_plugin_replaces_no_built_in_command(runner: CliRunner) -> None:
    assert "PROMPT" in runner.invoke(app, ["draw", "--help"]).stdout


def test_an_unknown_command_is_refused(runner: CliRunner) -> None:
    assert runner.invoke(app, ["no-such-command"]).exit_code == 2


def test_built_in_commands_load_no_plugin_and_the_list_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom pleinair.app.cli.main import app\n"
        "assert CliRunner().invoke(app, ['runs', '--help']).exit_code == 0\n"
        "assert 'pleinair.evals.evaluate.command' not in sys.modules\n"
        "assert 'evaluate' in CliRunner().invoke(app, ['--help']).stdout\n"
        "assert 'pleinair.evals.evaluate.command' in sys.modules\n"
        "print([name for name in ('torch', 'numpy', 'langgraph', 'PIL') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (shown.stdout, shown.stderr) == ("[]\n", "")
