"""Syntax, commands and settings of the compose file and of that for Ray's launcher; no Docker runs here."""

import re
import shlex
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from support.command_help import lacking
from support.source_tree import ROOT

from pleinair.app.settings import load

COMPOSE = (ROOT / "docker" / "compose.cluster.yaml").read_text("utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
LAUNCHER = yaml.safe_load((ROOT / "docker" / "ray-cluster.yaml").read_text("utf-8"))


def words_of(service: dict[str, Any]) -> str:
    parts = [service.get(key, []) for key in ("entrypoint", "command")]
    return " ".join(word for part in parts for word in ([part] if isinstance(part, str) else part))


def ray_starts() -> list[str]:
    launched = [*LAUNCHER["head_start_ray_commands"], *LAUNCHER["worker_start_ray_commands"]]
    texts = [*map(words_of, SERVICES.values()), *launched]
    return [text for text in texts if "ray start" in text]


def test_settings_of_the_services_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in SERVICES["worker"]["environment"].items():
        if name.startswith("PLEINAIR_"):
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", text))
    settings = load()
    assert settings.cluster.ray == "ray-head:6379" and settings.cluster.database and settings.cluster.objects
    assert settings.ray_serve.generator and settings.ray_serve.generator.max_replicas == 2
    assert settings.ray_serve.encoder and settings.ray_serve.encoder.num_cpus == 0.5


def test_services_depend_on_services_and_mount_listed_volumes() -> None:
    volumes = yaml.safe_load(COMPOSE)["volumes"]
    for service in SERVICES.values():
        waits = service.get("depends_on", {})
        assert waits.keys() <= SERVICES.keys()
        healthy = [name for name, wait in waits.items() if wait["condition"] == "service_healthy"]
        assert all("healthcheck" in SERVICES[name] for name in healthy)
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= volumes.keys()


def test_commands_of_the_services_exist() -> None:
    commands = [words_of(service) for service in SERVICES.values() if service["image"] == "pleinair:cluster"]
    ours = [match for text in commands for match in re.findall(r"pleinair (?:\w+|--).*", text)]
    assert len(ours) == 3
    assert not [lack for command in ours for lack in lacking(command)]


def test_no_secret_has_a_default_and_only_the_page_is_reachable_from_this_machine() -> None:
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|KEY|TOKEN))(.*?)\}", COMPOSE)
    assert {name for name, _ in secrets} == {
        "POSTGRES_PASSWORD",
        "S3_ACCESS_KEY",
        "S3_SECRET_KEY",
        "PLEINAIR_SERVE_TOKEN",
        "RAY_AUTH_TOKEN",
    }
    assert all(rest.startswith(":?") for _, rest in secrets)
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"page": ["127.0.0.1:8800:8800"]}


def test_every_start_of_ray_turns_the_usage_statistics_off() -> None:
    assert len(ray_starts()) == 7
    assert all("--disable-usage-stats" in text for text in ray_starts())


def test_the_launcher_starts_what_the_page_says() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    documented = {word for line in page.splitlines() if "ray start" in line for word in shlex.split(line)}
    flags = {
        word.partition("=")[0] for text in ray_starts() for word in text.split() if word.startswith("--")
    }
    assert {"--head", "--port=6379", "--num-cpus=0", "--disable-usage-stats"} <= documented
    assert flags <= {
        "--head",
        "--block",
        "--port",
        "--address",
        "--num-cpus",
        "--include-dashboard",
        "--disable-usage-stats",
        "--autoscaling-config",
        "--host",
        "--workers",
    }
