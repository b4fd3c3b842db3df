"""Detection of local chat servers, the proposal, and the settings file of `pleinair setup`."""

import json
import socket
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from pleinair.app.cli.main import app
from pleinair.app.settings import chat_servers, load, profiles
from pleinair.app.setup import ChatServer, Machine, inspect_machine, propose, settings_text, write_settings
from pleinair.tools.types import BadInput

LOCAL = sorted(name for name in profiles() if name not in ("pocket", "openai"))


@contextmanager
def serving(answers: dict[str, Any]) -> Iterator[str]:
    """Serve JSON by path on this machine; a callable takes the body of a POST."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
            answer = answers.get(self.path)
            data = json.dumps(answer(body) if callable(answer) else answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def models(*names: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def detected(name: str, answers: dict[str, Any]) -> tuple[ChatServer, ...]:
    with serving(answers) as url:
        return inspect_machine({name: url}).servers


def test_ollama_says_which_models_accept_images() -> None:
    sees = {"bakllava:7b": ["completion", "vision"], "qwen3-vl:8b": ["vision"], "llama3:8b": ["completion"]}
    answers = {"/v1/models": models(*sees), "/api/show": lambda body: {"capabilities": sees[body["model"]]}}
    (server,) = detected("ollama", answers)
    assert server.seeing == ("qwen3-vl:8b", "bakllava:7b")  # the profile's own model first
    assert server.certain


@pytest.mark.parametrize(("vision", "seeing"), [(True, ("local.gguf",)), (False, ())])
def test_llama_cpp_says_whether_its_model_accepts_images(vision: bool, seeing: tuple[str, ...]) -> None:
    answers = {"/v1/models": models("local.gguf"), "/props": {"modalities": {"vision": vision}}}
    (server,) = detected("llama_cpp", answers)
    assert server.seeing == seeing


def test_lm_studio_says_which_models_accept_images() -> None:
    kinds = {"data": [{"id": "a", "type": "vlm"}, {"id": "b", "type": "llm"}]}
    (server,) = detected("lm_studio", {"/v1/models": models("a", "b"), "/api/v0/models": kinds})
    assert server.seeing == ("a",)


def test_other_models_are_judged_by_their_names() -> None:
    names = ("Qwen/Qwen3-VL-8B-Instruct", "meta-llama/Llama-3.1-8B", "google/gemma-3-12b-it", "gpt-oss:20b")
    (server,) = detected("vllm", {"/v1/models": models(*names)})
    assert (server.seeing, server.certain) == ((names[0], names[2]), False)


@pytest.mark.parametrize(
    "answer", [None, [], "ready", {"data": 3}, {"data": [1, {"name": "x"}]}, {"data": []}]
)
def test_something_else_at_the_address_is_no_chat_server(answer: Any) -> None:
    assert detected("vllm", {"/v1/models": answer}) == ()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x03\x00\x02\x02\x50",  # TLS
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe\x00",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nno gzip",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nlocation: http://[\r\n\r\n",
        b'HTTP/1.1 200 OK\r\n\r\n{"data": ' + b"9" * 10_000 + b"}",
    ],
)
def test_whatever_else_listens_at_the_address_is_no_chat_server(reply: bytes) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=answer, daemon=True).start()
        assert inspect_machine({"vllm": f"http://127.0.0.1:{listener.getsockname()[1]}/v1"}).servers == ()


def test_nothing_at_the_address_is_no_chat_server() -> None:
    assert inspect_machine({"ollama": "http://127.0.0.1:9/v1"}).servers == ()


SERVER = ChatServer(
    name="ollama", base_url="http://127.0.0.1:11434/v1", models=("m",), seeing=("m",), certain=True
)


@pytest.mark.parametrize(
    ("gpu_memory", "servers", "key", "profile"),
    [
        (24.0, (SERVER,), False, "klein+ollama"),
        (24.0, (SERVER,), True, "klein+ollama"),
        (8.0, (SERVER,), False, "sdxl+ollama"),
        (4.0, (SERVER,), False, "sd15+ollama"),
        (24.0, (), True, "klein"),
        (24.0, (SERVER.model_copy(update={"seeing": ()}),), False, "pocket"),
        (0.0, (SERVER,), False, "pocket"),
        (0.0, (SERVER,), True, "gpt_image"),
        (0.0, (), True, "gpt_image"),
        (24.0, (), False, "pocket"),
        (0.0, (), False, "pocket"),
    ],
)
def test_the_proposal_fits_the_machine(
    gpu_memory: float, servers: tuple[ChatServer, ...], key: bool, profile: str
) -> None:
    machine = Machine(gpu="GPU", gpu_memory=gpu_memory, memory=32, servers=servers, key=key)
    proposal = propose(machine)
    assert proposal.profile == profile
    assert proposal.reasons
    assert load(proposal.profile).generator


@pytest.mark.parametrize("profile", LOCAL)
@pytest.mark.parametrize("server", sorted(chat_servers()))
def test_every_generator_pairs_with_every_local_chat_server(profile: str, server: str) -> None:
    settings, alone = load(f"{profile}+{server}"), load(profile)
    assert settings.generator == alone.generator
    assert settings.mllm.arguments["base_url"].startswith("http://127.0.0.1:")
    assert settings.mllm.arguments["key_variable"] != "OPENAI_API_KEY"  # the key stays with OpenAI


@pytest.mark.parametrize(
    ("name", "accepted"), [("klein+gpt4all", "lm_studio"), ("nope+ollama", "klein"), ("klein+", "ollama")]
)
def test_an_unknown_pair_is_refused_with_what_is_accepted(name: str, accepted: str) -> None:
    with pytest.raises(BadInput, match=f"accepted: .*{accepted}"):
        load(name)


def test_other_keys_and_comments_of_the_settings_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "pleinair.toml"
    path.write_text('# mine\nprofile = "sdxl"\n\n[library]\nfolder = "/a"  # old\n\n[retrieval]\nk = 8\n')
    proposal = propose(Machine(gpu="GPU", gpu_memory=24, memory=32, servers=(SERVER,)), "/b")
    write_settings(path, settings_text(proposal, path))
    text = path.read_text("utf-8")
    assert "# mine" in text
    assert tomllib.loads(text) == {
        "profile": "klein+ollama",
        "library": {"folder": "/b"},
        "retrieval": {"k": 8},
        "mllm": {"model": "m"},
    }
    assert 'profile = "sdxl"' in path.with_suffix(".toml.bak").read_text("utf-8")


def test_a_damaged_settings_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "pleinair.toml"
    path.write_text("profile = ")
    with pytest.raises(BadInput, match="invalid TOML"):
        settings_text(propose(Machine(memory=1)), path)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty folder of settings, no key, and a machine without chat servers."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("pleinair.app.setup.chat_servers", dict)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pleinair" / "pleinair.toml"


def test_setup_writes_checks_and_generates_a_first_image(config: Path) -> None:
    result = CliRunner().invoke(app, ["setup", "--yes"])
    assert result.exit_code in (0, 3), result.output
    assert tomllib.loads(config.read_text("utf-8")) == {"profile": "pocket"}
    assert list((config.parent.parent / "pleinair-out").glob("*.png"))


@pytest.mark.parametrize(("flags", "code"), [(["--dry-run"], 0), ([], 2), (["--profile", "nope"], 2)])
def test_setup_writes_nothing_without_a_yes(config: Path, flags: list[str], code: int) -> None:
    result = CliRunner().invoke(app, ["setup", *flags])
    assert result.exit_code == code, result.output
    assert not config.exists()


def test_setup_reports_what_is_missing_of_a_profile_after_writing_it(config: Path) -> None:
    result = CliRunner().invoke(app, ["setup", "--yes", "--no-image", "--profile", "gpt_image"])
    assert result.exit_code == 5, result.output
    assert "OPENAI_API_KEY" in result.output
    assert tomllib.loads(config.read_text("utf-8"))["profile"] == "gpt_image"


def test_a_folder_that_does_not_exist_is_refused_before_anything_is_proposed(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["setup", "--library", str(tmp_path / "absent"), "--dry-run"])
    assert result.exit_code == 2 and "No folder" in result.output and "profile" not in result.stdout


def test_the_folder_of_the_command_is_the_one_reported_and_written(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    result = CliRunner().invoke(app, ["setup", "--library", str(folder), "--dry-run"])
    assert f"images       {folder}" in result.stdout
    assert f'folder = "{folder}"' in result.stdout
