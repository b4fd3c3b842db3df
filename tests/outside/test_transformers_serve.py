"""The chat client against a real server, `transformers serve`, with a tiny vision model of random weights.

Only the protocol is tested: such a model writes noise, so every call must end as one of our own errors.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

from pleinair.agent.mllm.openai import OpenAIChat, chat
from pleinair.agent.react.tools import all_tools
from pleinair.tools.errors import CutOff
from pleinair.tools.http.support import SUPPORT
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import Critique, Decision, Decomposition
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import ModelFault, PleinairError, Refused, Value

pytest.importorskip("fastapi", reason="needs the extra `outside`")

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
)
VIDEO = "<|video_pad|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STARTS = 240.0  # seconds within which the server answers, on a busy machine
PNG = encode_png(Image.linear_gradient("L").resize((64, 64)).convert("RGB"))


def save_tiny_model(folder: Path) -> Path:
    """Write a Qwen2-VL of two layers with random weights, its processor and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    words = [*SPECIAL, VIDEO, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[*SPECIAL, VIDEO],
        chat_template=TEMPLATE,
    )
    ids = {
        name: words.index(f"<|{name}|>") for name in ("vision_start", "vision_end", "image_pad", "video_pad")
    }
    text = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Start the server; yield its base URL and the model's name."""
    folder, port = save_tiny_model(tmp_path_factory.mktemp("model")), free_port()
    log = (folder / "server.log").open("wb")
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--device", "cpu", "--port", str(port)]
    process = subprocess.Popen([*command, "--host", "127.0.0.1"], env=os.environ, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield f"127.0.0.1:{port}", str(folder)
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + STARTS
    while time.monotonic() < ends:
        try:
            with urlopen(url, timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text("utf-8")[-3000:]
            time.sleep(0.5)
    pytest.fail(f"the server did not start: {log.read_text('utf-8')[-3000:]}")


def client(server: tuple[str, str], **settings: Any) -> OpenAIChat:
    url, model = server
    return chat(model, base_url=url, **{"max_tokens": 24, "deadline": 120.0} | settings)


@pytest.mark.parametrize("answers", ["json_schema", "function_calling", "json_object", "text"])
@pytest.mark.parametrize(
    ("schema", "payload", "images"),
    [(Decomposition, {"prompt": "a finch"}, []), (Critique, {"concepts": ["finch"]}, [PNG])],
)
def test_noise_is_one_of_our_errors(
    server: tuple[str, str], answers: Any, schema: type[Value], payload: dict[str, Any], images: list[bytes]
) -> None:
    started = time.monotonic()
    with pytest.raises((ModelFault, Refused)) as raised:
        ask(client(server, answers=answers), schema, "Answer.", payload, images, calls=2)
    assert raised.value.spent.mllm_calls >= 1 and raised.value.spent.tokens >= 0
    assert time.monotonic() - started < 120


def test_what_it_takes_is_learnt(server: tuple[str, str]) -> None:
    model = client(server)
    assert not model.is_proven
    model.prove()
    assert model.is_proven
    assert SUPPORT.get(model.server.url, model.server.model).answered


def test_tools_are_accepted(server: tuple[str, str]) -> None:
    with pytest.raises(CutOff):  # noise has no end
        client(server).bind_tools(all_tools()).invoke("Draw a finch.")
    support = SUPPORT.get(f"http://{server[0]}/v1", server[1])
    assert support.answered and support.tool_choice == "named"


def test_another_model_is_refused_in_its_own_words(server: tuple[str, str]) -> None:
    with pytest.raises(PleinairError, match="(?i)pinned|no model"):
        ask(client((server[0], "no/such-model")), Decision, "Answer.", {"prompt": "p"})
