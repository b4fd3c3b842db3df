"""Base addresses as people write them."""

import pytest

from pleinair.tools.http.addresses import Address, base_address
from pleinair.tools.types import BadInput

ACCEPTED = {
    "https://api.openai.com/v1": "https://api.openai.com/v1",
    "https://api.openai.com": "https://api.openai.com/v1",
    " 'https://api.openai.com/v1/' ": "https://api.openai.com/v1",
    "https://h.example/v1/chat/completions": "https://h.example/v1",
    "https://h.example/v1/images/generations/": "https://h.example/v1",
    "https://h.example/v1/images/edits": "https://h.example/v1",
    "https://h.example/v1/responses": "https://h.example/v1",
    "https://h.example/v1/models": "https://h.example/v1",
    "https://openrouter.ai/api/v1": "https://openrouter.ai/api/v1",
    "https://generativelanguage.googleapis.com/v1beta/openai/": (
        "https://generativelanguage.googleapis.com/v1beta/openai"
    ),
    "localhost:11434": "http://localhost:11434/v1",
    "http://localhost:11434/api/chat": "http://localhost:11434/v1",
    "127.0.0.1:8000/v1": "http://127.0.0.1:8000/v1",
    "0.0.0.0:8000": "http://127.0.0.1:8000/v1",
    "192.168.1.5:1234": "http://192.168.1.5:1234/v1",
    "[::1]:8080/v1": "http://[::1]:8080/v1",
    "box.local:8080": "http://box.local:8080/v1",
    "ollama:11434/": "http://ollama:11434/v1",
    "models.example": "https://models.example/v1",
    "HTTPS://models.example/v1": "https://models.example/v1",
}


@pytest.mark.parametrize(("text", "url"), ACCEPTED.items())
def test_a_usual_spelling_is_accepted(text: str, url: str) -> None:
    assert base_address(text, "mllm.base_url") == Address(url)
    assert base_address(url, "mllm.base_url") == Address(url)


def test_azures_version_is_kept_as_a_query() -> None:
    text = "https://x.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2026-01-01"
    address = base_address(text, "mllm.base_url")
    assert address.url == "https://x.openai.azure.com/openai/deployments/gpt"
    assert address.query == {"api-version": "2026-01-01"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.example/v1?key=1", "wanted 'https://h.example/v1'"),
        ("https://h.example/v1#top", "wanted 'https://h.example/v1'"),
        ("https://me:hunter2@h.example/v1", "= '…@h.example/v1': wanted 'https://h.example/v1'"),
        ("ftp://h.example", "wanted such as"),
        ("http://", "wanted such as"),
        ("http://[::1", "wanted such as"),
        ("h:99999", "wanted such as"),
        ("http://h:0/v1", "wanted such as"),
        ("my server", "wanted such as"),
        ("", "wanted such as"),
    ],
)
def test_another_is_refused_with_the_right_spelling(text: str, shown: str) -> None:
    with pytest.raises(BadInput) as error:
        base_address(text, "mllm.base_url")
    assert str(error.value).startswith("mllm.base_url = ") and shown in str(error.value)
    assert "hunter2" not in str(error.value)
