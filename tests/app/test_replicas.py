"""What the settings have Ray Serve hold, before any cluster is asked."""

import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.engines import build_encoder, build_generator, check, declared_capabilities, with_second
from pleinair.app.models.inventory import local_models
from pleinair.app.replicas import applications
from pleinair.app.runs.device import needed_devices
from pleinair.app.settings import BackendChoice, Settings, load
from pleinair.tools.cluster.ray_serve import RayEncoder, RayGenerator
from pleinair.tools.types import BadInput


def served(**overrides: Any) -> Settings:
    return load("pocket", {"ray_serve": {"generator": {}, "encoder": {}}} | overrides)


def test_generator_and_encoder_of_the_settings_are_those_of_ray_serve() -> None:
    generator, encoder = build_generator(served()), build_encoder(served())
    assert isinstance(generator, RayGenerator) and isinstance(encoder, RayEncoder)
    assert generator is build_generator(served())
    assert (generator.app, encoder.app) == ("pleinair-generator", "pleinair-encoder")


def test_capabilities_are_declared_without_a_cluster_as_those_of_the_same_backend_here() -> None:
    assert declared_capabilities(served()) == declared_capabilities(load("pocket"))


def test_the_address_is_the_machines_and_never_a_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_CLUSTER__RAY", "10.0.0.10:6379")
    settings = served(**{"cluster.ray": "10.9.9.9:6379"})
    generator = build_generator(settings)
    assert isinstance(generator, RayGenerator) and generator.address == "10.0.0.10:6379"


def test_applications_have_the_backends_with_their_arguments_and_the_second_encoder() -> None:
    second: dict[str, Any] = {
        "backend": "open_clip",
        "model": "local-dir:pocket/catalogue/encoder",
        "batch": 8,
    }
    generator, encoder, other = applications(served(**{"retrieval.second": second}))
    assert (generator.part.kind, generator.part.backend) == ("generator", "in_context")
    assert '"folder": "pocket/catalogue/generator"' in generator.part.arguments
    assert (encoder.name, other.name) == ("pleinair-encoder", "pleinair-encoder-second")
    assert '"batch": 8' in other.part.arguments and '"batch"' not in encoder.part.arguments
    built = build_encoder(with_second(served(), BackendChoice(**second)))
    assert isinstance(built, RayEncoder) and (built.app, built.part) == (other.name, other.part)


def test_models_of_replicas_are_not_needed_here_nor_a_device() -> None:
    klein = load("klein", {"ray_serve": {"generator": {}, "encoder": {}}})
    assert {model.role for model in local_models(load("klein"))} == {"generator", "encoder", "mllm"}
    assert {model.role for model in local_models(klein)} == {"mllm"}
    assert needed_devices(load("klein")) == ("auto",)
    assert needed_devices(klein) == ()


def test_several_devices_and_ray_serve_exclude_each_other() -> None:
    with pytest.raises(BadInput, match=r"generator\.devices = 'cpu:0,cpu:1'") as error:
        check(served(**{"generator.devices": "cpu:0,cpu:1"}))
    assert "max_replicas" in error.value.remedy


def test_nothing_to_deploy_is_refused_with_the_tables_that_are_missing() -> None:
    with pytest.raises(BadInput, match="nothing to deploy") as error:
        applications(load("pocket"))
    assert "[ray_serve.generator]" in error.value.remedy


@pytest.mark.parametrize("command", ["deploy", "status", "remove"])
def test_commands_without_a_cluster_say_what_to_set(command: str) -> None:
    setting = "ray_serve.generator.max_replicas=2"
    result = CliRunner().invoke(app, ["cluster", command, "--set", setting])
    assert result.exit_code == 2 and "cluster.ray is not set" in result.stderr


def test_nothing_is_deployed_on_a_cluster_that_ends_with_the_command() -> None:
    settings = ["ray_serve.generator.max_replicas=2", "cluster.ray=local"]
    words = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["cluster", "deploy", *words])
    assert result.exit_code == 2 and "would end with the command" in " ".join(result.stderr.split())


def test_a_run_without_a_table_imports_no_ray() -> None:
    program = (
        "import sys; from pleinair.app.engines import build_generator\n"
        "from pleinair.app.settings import load\n"
        "build_generator(load('pocket')).capabilities; import pleinair.app.cli.main\n"
        "assert not {'ray', 'grpc', 'obstore', 'psycopg'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
