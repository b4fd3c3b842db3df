"""MLLM calls and tokens for each right image: our loop against ImageRAG's flow, on the same prompts.

The pocket models generate, retrieve and judge. Their images are enlarged to the size that real generators
have, and the pocket MLLM answers through a server of OpenAI's protocol in this process, so that what is
counted are the requests as they are sent. ImageRAG's client sends full-size images without loss, as its
published code does; ours has the default settings. An image is right if the oracle sees every species of the
prompt in it. A call is hidden if it ends while an image is generated beside it.

Texts count one token for four characters, with the schema of the answer. Images count by two published
rules: tiles (GPT-4o: 85, at high detail 170 more for each 512-pixel tile after the shorter side is scaled to
768) and patches (32 pixels a side, at most 1,536). Not covered: real models, their tokenizers and their
verdicts, seconds, and writing into caches.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_args

from PIL import Image

from pleinair.evals.cases import Case, cluster, make_cases
from pleinair.evals.metrics import RESAMPLES
from pleinair.evals.papers.bench import CachedGenerator
from pleinair.evals.run import invoke, pocket_context, show_progress
from pleinair.evals.scale.command import write_figures
from pleinair.tools.http.prices import shipped
from pleinair.tools.mllm import schemas
from pleinair.tools.types import Basis, Capabilities, GenerateRequest, Generator, OnStep, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

    from pleinair.agent.context import Context
    from pleinair.agent.state import Output

Size = tuple[int, int]  # pixels
PER_TOKEN = 4  # characters
TILE, PATCH, MOST_PATCHES = 512, 32, 1536
PRICED = "gpt-4o"
CHECKED = "imagerag, checked"  # two rounds, so that the image with references is looked at too
FULL = {"side": 8192, "detail": "high", "image_form": "png"}  # as ImageRAG's published code sends images
# by column: the graph, and the settings of its client
FLOWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pleinair": ("pleinair", {}),
    "imagerag": ("imagerag", FULL),
    CHECKED: ("imagerag", FULL),
}
COUNTS = (
    "calls", "critical", "tiles", "patches", "same_tiles", "read", "same_read", "written", "bytes", "usd",
)  # fmt: skip
LABELS = {
    "calls": "MLLM calls",
    "critical": "of them on the critical path",
    "tiles": "image tokens, tiles",
    "patches": "image tokens, patches",
    "same_tiles": "image tokens, tiles, both flows with our image settings",
    "read": "input tokens, images by tiles",
    "same_read": "input tokens, both flows with our image settings",
    "written": "output tokens",
    "bytes": "bytes of requests",
    "usd": f"US dollars at {PRICED}'s list price",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--prompts", type=int, default=60, help="half of them with two species; even (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts and of the noise (1)")
    parser.add_argument("--side", type=int, default=1024, help="pixels of the images that are judged (1024)")


def run(options: argparse.Namespace) -> None:
    """Run both flows on every prompt, and print what each right image took."""
    from pleinair.evals.pocket.oracle import Oracle  # imports torch

    cases = make_cases(options.prompts, options.seed, ("rare", "two"))
    oracle = Oracle()
    results: dict[str, list[_Run]] = {name: [] for name in FLOWS}
    with tempfile.TemporaryDirectory() as folder:
        context = pocket_context(Path(folder))
        # ours comes first, and generates; ImageRAG's flows share the draft and the first image of references
        context = replace(context, generator=CachedGenerator(context.generator, context.store))
        with _serving(context.model) as server:
            columns = {
                name: _Column.build(name, context, server, options.side, *flow)
                for name, flow in FLOWS.items()
            }
            for case in cases:
                for name, column in columns.items():
                    output = column.run(case)
                    best = output.outcome and output.outcome.best
                    shown = oracle.shows(context.store.open(best.picture), case.species) if best else {}
                    right = bool(shown) and all(shown.values())
                    results[name].append(_Run(case, output, right, column.calls()))
                    show_progress(f"{case.id} {name}: {len(results[name])}/{len(cases)}")
    print(file=sys.stderr)
    figures = summarise(results) | {"prompts": options.prompts, "seed": options.seed, "side": options.side}
    print("\n".join(_lines(figures)))
    write_figures(options.json, figures)


@dataclass(frozen=True)
class SentImage:
    """Image of a request."""

    size: Size
    detail: str = "auto"


@dataclass(frozen=True)
class Call:
    """One answered request."""

    text: str  # all of it, with the schema of the answer
    images: tuple[SentImage, ...]
    answer: str
    bytes: int
    began: float  # seconds of `perf_counter`
    ended: float


@dataclass(frozen=True)
class _Run:
    case: Case
    output: Output
    right: bool
    calls: Sequence[tuple[Call, bool]]  # each with whether it was hidden

    def counts(self) -> dict[str, float]:
        """Return what the calls took, by the names of `COUNTS`."""
        text = sum(_tokens_of_text(call.text) for call, _ in self.calls)
        written = sum(_tokens_of_text(call.answer) for call, _ in self.calls)
        images = [image for call, _ in self.calls for image in call.images]
        tiles = sum(map(tiles_of, images))
        same = sum(tiles_of(replace(image, detail="low")) for image in images)
        values = (
            len(self.calls),
            sum(not hidden for _, hidden in self.calls),
            tiles,
            sum(map(patches_of, images)),
            same,
            text + tiles,
            text + same,
            written,
            sum(call.bytes for call, _ in self.calls),
            shipped()[PRICED].usd(text + tiles, written),
        )
        return dict(zip(COUNTS, values, strict=True))


def _tokens_of_text(text: str) -> int:
    """Return the tokens of a text by its length."""
    return math.ceil(len(text) / PER_TOKEN)


def tiles_of(image: SentImage) -> int:
    """Return the tokens of an image by GPT-4o's rule."""
    if image.detail == "low":
        return 85
    width, height = _within(image.size, 2048, max)
    width, height = _within((width, height), 768, min)
    return 85 + 170 * math.ceil(width / TILE) * math.ceil(height / TILE)


def patches_of(image: SentImage) -> int:
    """Return the tokens of an image by the rule of patches, whatever the detail."""
    width, height = image.size
    return min(math.ceil(width / PATCH) * math.ceil(height / PATCH), MOST_PATCHES)


def _within(size: Size, most: int, side: Callable[[Size], int]) -> Size:
    """Scale a size down until its longer or shorter side is at most `most`."""
    scale = min(1.0, most / side(size))
    return round(size[0] * scale), round(size[1] * scale)


@dataclass
class _EnlargingGenerator:
    """Generator whose images are enlarged; it notes when it generates."""

    generator: Generator
    side: int
    spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def capabilities(self) -> Capabilities:
        return self.generator.capabilities

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: OnStep
    ) -> Image.Image:
        began = perf_counter()
        image = self.generator.generate(request, images, on_step)
        self.spans.append((began, perf_counter()))
        return image.resize((self.side, self.side), Image.Resampling.BICUBIC)


@dataclass
class _Column:
    """One flow with its client; its calls are those that the server has answered since its last run."""

    name: str
    graph: Any
    context: Context
    generator: _EnlargingGenerator
    server: _Server

    @classmethod
    def build(
        cls,
        name: str,
        context: Context,
        server: _Server,
        side: int,
        graph: str,
        client: Mapping[str, Any],
    ) -> _Column:
        from pleinair.agent.mllm.openai import chat
        from pleinair.tools.registry import resolve

        model = chat("pocket", base_url=server.url, key_variable="PLEINAIR_NO_KEY", **client)
        model.prove()  # once for each server, and no part of a run
        model.server.learn(keeps_schema=True)
        generator = _EnlargingGenerator(context.generator, side)
        options = context.imagerag.model_copy(update={"rounds": 2} if name == CHECKED else {})
        context = replace(context, model=model, generator=generator, imagerag=options)
        return cls(name, resolve("graph", graph), context, generator, server)

    def run(self, case: Case) -> Output:
        self.server.calls.clear()
        self.generator.spans.clear()
        return invoke(case, self.graph, self.context, f"{self.name}/{case.id}")

    def calls(self) -> list[tuple[Call, bool]]:
        """Return the calls of the last run, each with whether it ended while an image was generated."""
        spans = self.generator.spans
        return [
            (call, any(began < call.ended < ended and call.began < ended for began, ended in spans))
            for call in self.server.calls
        ]


class _Server(ThreadingHTTPServer):
    """Server of Chat Completions, which answers with the pocket MLLM and records what it is sent."""

    daemon_threads = True

    def __init__(self, model: BaseChatModel) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.calls = model, list[Call]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        began = perf_counter()
        body = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(body)
        form = request["response_format"]["json_schema"]
        messages, text, images = _read(request["messages"])
        bound = self.server.model.bind_tools([getattr(schemas, form["name"])])
        reply: Any = bound.invoke(messages)
        answer = json.dumps(reply.tool_calls[0]["args"]) if reply.tool_calls else str(reply.text)
        text = json.dumps(form) + text
        self.server.calls.append(Call(text, tuple(images), answer, len(body), began, perf_counter()))
        message = {"role": "assistant", "content": answer}
        counts = {"prompt_tokens": _tokens_of_text(text), "completion_tokens": _tokens_of_text(answer)}
        reply = {
            "id": "1", "object": "chat.completion", "created": 0, "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": counts | {"total_tokens": sum(counts.values())},
        }  # fmt: skip
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _read(sent: Sequence[Mapping[str, Any]]) -> tuple[list[BaseMessage], str, list[SentImage]]:
    """Return the messages of a request for LangChain, all their text, and their images."""
    from langchain_core.messages import convert_to_messages

    texts, images, converted = list[str](), list[SentImage](), list[dict[str, Any]]()
    for message in sent:
        blocks = message["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        content = list[dict[str, Any]]()
        for block in blocks:
            if block["type"] == "text":
                texts.append(block["text"])
                content.append(block)
                continue
            head, _, data = block["image_url"]["url"].partition(";base64,")
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                images.append(SentImage(image.size, block["image_url"].get("detail", "auto")))
            content.append({"type": "image", "base64": data, "mime_type": head.removeprefix("data:")})
        converted.append({**message, "content": content})
    return convert_to_messages(converted), "\n".join(texts), images


@contextmanager
def _serving(model: BaseChatModel) -> Iterator[_Server]:
    with _Server(model) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def summarise(results: Mapping[str, Sequence[_Run]]) -> dict[str, Any]:
    """Return the counts of each flow for each right image, and the others' over ours with 95 % intervals."""
    ours = results["pleinair"]
    return {
        "columns": {name: _column(runs) for name, runs in results.items()},
        "ratios": {
            name: {count: _ratio(runs, ours, count) for count in COUNTS}
            for name, runs in results.items()
            if runs is not ours
        },
    }


def _column(runs: Sequence[_Run]) -> dict[str, Any]:
    counts, right = [run.counts() for run in runs], sum(run.right for run in runs)
    endings = [run.output.outcome.ending if run.output.outcome else "failed" for run in runs]
    rows = [
        row
        for run in runs
        for attempt in run.output.attempts
        for row in (attempt.ledger.rows if attempt.ledger else ())
    ]
    first, *rest = get_args(Basis)
    return {
        "runs": len(runs),
        "right": right,
        "accepted by the flow": endings.count("accepted"),
        "images": sum(Usage.total(run.output.usage).images for run in runs),
        "rows": len(rows),
        **{f"rows {basis}": sum(row.basis == basis for row in rows) for basis in rest},
        "a run": {name: sum(count[name] for count in counts) / len(runs) for name in COUNTS},
        "a right image": {name: sum(count[name] for count in counts) / max(right, 1) for name in COUNTS},
        "shared prefix": _shared_prefix([call for run in runs for call, _ in run.calls]),
    }


def _shared_prefix(calls: Sequence[Call]) -> float:
    """Return the tokens with which a call's text begins as an earlier one, on average."""
    shared, earlier = list[int](), list[str]()
    for call in calls:
        lengths = [len(os.path.commonprefix([call.text, text])) for text in earlier[-20:]]
        shared.append(max(lengths, default=0) // PER_TOKEN)
        earlier.append(call.text)
    return sum(shared) / max(len(shared), 1)


def _ratio(theirs: Sequence[_Run], ours: Sequence[_Run], name: str) -> dict[str, float]:
    """Return theirs over ours for each right image, by a bootstrap over the prompts' species."""
    import numpy as np

    groups = sorted({cluster(run.case) for run in ours})
    sums = np.zeros((len(groups), 4))
    for runs, first in ((theirs, 0), (ours, 2)):
        for run in runs:
            sums[groups.index(cluster(run.case)), first : first + 2] += (run.counts()[name], run.right)
    chosen = np.random.default_rng(0).integers(0, len(groups), (RESAMPLES, len(groups)))
    with np.errstate(divide="ignore", invalid="ignore"):
        their_sum, their_right, our_sum, our_right = np.moveaxis(sums[chosen].sum(axis=1), -1, 0)
        samples = (their_sum / their_right) / (our_sum / our_right)
        total = sums.sum(axis=0)
        ratio = (total[0] / total[1]) / (total[2] / total[3])
    low, high = np.nanpercentile(samples, (2.5, 97.5))
    return {"ratio": float(ratio), "low": float(low), "high": float(high), "groups": len(groups)}


def _lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures as a table, for each right image."""
    columns, ratios = figures["columns"], figures["ratios"]
    for name, column in columns.items():
        facts = {key: value for key, value in column.items() if not isinstance(value, dict)}
        yield f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in facts.items())
    yield ""
    yield f"| for each right image | pleinair | {' | '.join(f'{flow} | ratio [95 %]' for flow in ratios)} |"
    yield "| --- " * (2 + 2 * len(ratios)) + "|"
    for name, label in LABELS.items():
        cells = [label, _number(columns["pleinair"]["a right image"][name])]
        for flow, of_flow in ratios.items():
            ratio = of_flow[name]
            bounds = f"{ratio['ratio']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            cells += [_number(columns[flow]["a right image"][name]), bounds]
        yield f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
