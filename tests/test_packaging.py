"""What is listed, locked and shipped agrees with the folders."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from support.source_tree import FILES, LAYERS, ROOT, module, name
from support.wheel import build_wheel

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUP = PROJECT["tool"]["setuptools"]
NOT_DATA = {".py", ".pyc", ".md"}
LOCKS = ("requirements.lock", "requirements-cpu.lock", "requirements-gpu.lock", "requirements-outside.lock")
PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==[0-9a-z.]+( ; sys_platform == \"linux\")?")


def locked(lock: str) -> dict[str, str]:
    """Give the lines of a lock by package; comments and the included lock are left out."""
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    return {line.partition("==")[0]: line for line in lines if not line.startswith(("#", "-r "))}


def wanted(extra: str = "") -> set[str]:
    """Give the packages that the project, or one extra of it, asks for."""
    project = PROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    names = {re.split(r"[<>=\[ ]", line)[0].replace("_", "-").lower() for line in lines}
    return names - {"pleinair"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names in the wheel."""
    return ZipFile(build_wheel(tmp_path_factory.mktemp("build"))).namelist()


def test_every_folder_with_code_is_a_listed_package() -> None:
    folders = {module(path) for path in FILES if path.name == "__init__.py"}
    assert set(SETUP["packages"]) == folders
    assert {path.parent for path in FILES} == {p.parent for p in FILES if p.name == "__init__.py"}


def test_every_folder_is_mapped_and_linked_for_the_type_checker() -> None:
    assert SETUP["package-dir"] == {f"pleinair.{layer}": layer for layer in LAYERS}
    links = {link.name: link.resolve() for link in (ROOT / ".types" / "pleinair").iterdir()}
    assert links == {layer: ROOT / layer for layer in LAYERS}


def test_wheel_puts_one_name_at_the_top_level(shipped: list[str]) -> None:
    assert {file.split("/")[0] for file in shipped} == {"pleinair", "pleinair-0.1.0.dist-info"}


def test_wheel_holds_every_source_file(shipped: list[str]) -> None:
    assert {f"pleinair/{name(path)}" for path in FILES} <= set(shipped)


def test_wheel_holds_weights_profiles_and_pages(shipped: list[str]) -> None:
    files = [path for layer in LAYERS for path in (ROOT / layer).rglob("*.*") if path.is_file()]
    data = {f"pleinair/{name(path)}" for path in files if path.suffix not in NOT_DATA}
    assert data <= set(shipped)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_exactly_and_names_no_host(lock: str) -> None:
    assert not [line for line in locked(lock).values() if not PIN.fullmatch(line)]


def test_lock_holds_all_that_the_project_asks_for() -> None:
    assert wanted() | wanted("evals") | wanted("dev") <= set(locked("requirements.lock"))
    both = {**locked("requirements.lock"), **locked("requirements-outside.lock")}
    assert wanted("outside") <= set(both)


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_each_lock_holds_one_faiss(extra: str) -> None:
    pins = {**locked("requirements.lock"), **locked(f"requirements-{extra}.lock")}
    assert {package for package in pins if package.startswith("faiss")} == wanted(extra)


def test_license_is_the_whole_apache_license() -> None:
    text = Path(ROOT / "LICENSE").read_text("utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("dockerfile", sorted(path.name for path in (ROOT / "docker").glob("*.Dockerfile")))
def test_dockerfile_copies_what_exists_and_installs_a_listed_extra(dockerfile: str) -> None:
    text = (ROOT / "docker" / dockerfile).read_text("utf-8")
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for name in line.split()]
    included = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE))
    assert {*LAYERS, "pyproject.toml"} <= set(copied)
    assert all(
        (ROOT / name).exists() and any(fnmatch(name, pattern) for pattern in included) for name in copied
    )
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    assert re.findall(r"--constraint (\S+)", text)[0] in copied
