"""The report as a page of Markdown, from the same data as its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pleinair.app.texts import printable

Data = Mapping[str, Any]  # `verify.json`
_MACHINE: dict[str, dict[str, str]] = {  # title → facts, what is written before each
    "GPU": {
        "gpu": "",
        "gpus": "number",
        "capability": "capability",
        "gpu_memory_gib": "memory GiB",
        "free_gpu_memory_gib": "free GiB",
        "driver": "driver",
        "peak_tflops": "TFLOP/s by its data sheet, dense bfloat16",
    },
    "Rates": {"rates_of": "", "product_tflops": "TFLOP/s of the product", "copy_tb_s": "TB/s of a copy"},
    "Computer": {
        "processor": "",
        "cores": "cores",
        "memory_gib": "memory GiB",
        "free_memory_gib": "free GiB",
        "free_disk_gib": "free disk GiB",
        "system": "",
    },
    "FAISS": {"faiss": "", "faiss_build": "package", "faiss_gpus": "GPUs"},
    "Packages": {
        name: name
        for name in (
            *("python", "pleinair", "torch", "cuda", "cudnn", "torchvision"),
            *("diffusers", "transformers", "accelerate", "triton"),
        )
    },
}
_NOTES = """\
s: the median of `n` images after the model was warm, each with its own prompt and references; without the
text encoders where the weights are random. TFLOP: operations of an image, counted by torch; of the product:
TFLOP / s as a share of what this device attains with square matrices; of the peak: of its data sheet's
number. GiB: the most that tensors took; estimated: what pleinair expects, by which it chooses the offload
level."""


def write_page(data: Data) -> str:
    """Return the page of a report that is free of private data."""
    return "\n".join(_lines(data, data["results"])) + "\n"


def _lines(data: Data, results: Mapping[str, Data]) -> Iterator[str]:
    yield "# pleinair verify\n"
    yield f"{data['date']}, `{printable(data['command'])}`\n"
    if data["tiny"]:
        yield "**Tiny sizes on the CPU: this shows that the code runs; its times and memory mean nothing.**\n"
    machine = _rows(results, "machine")
    yield from _machine(machine[0] if machine else {})
    yield from _section("Findings of `pleinair doctor`", _findings(_rows(results, "doctor")))
    yield from _section("FAISS on the GPU", _table(map(_vectors, _rows(results, "faiss"))))
    yield from _section("Encoder", _table(map(_encoder, _rows(results, "encoder"))))
    times = list(_table(_times(results, machine[0] if machine else {})))
    yield from _section("Images: seconds and memory", [*times, "", *_NOTES.split("\n")] if times else [])
    for name in (name for name in results if name.startswith("images-")):
        rows = _table(map(_image, _rows(results, name)))
        sheet = ["", f"![{name}]({name}.png)"]
        yield from _section(f"Ten prompts: {name.removeprefix('images-')}", rows, sheet)
    yield from _section("Not measured", _table(_unmeasured(results)))


def _section(title: str, lines: Iterable[str], more: Sequence[str] = ()) -> Iterator[str]:
    if body := list(lines):
        yield from ("", f"## {title}", "", *body, *more)


def _rows(results: Mapping[str, Data], name: str) -> Sequence[Data]:
    rows: Sequence[Data] = results[name]["rows"] if name in results else []
    return rows


def _table(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Yield the lines of a Markdown table; the keys of the first row are its head."""
    for number, row in enumerate(rows):
        if not number:
            yield f"| {' | '.join(row)} |"
            yield f"| {' | '.join('---' for _ in row)} |"
        yield f"| {' | '.join(_cell(value) for value in row.values())} |"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return printable(str(value)).replace("|", "\\|")


def _machine(facts: Data) -> Iterator[str]:
    for title, names in _MACHINE.items():
        texts = [
            f"{before} {_cell(facts[name])}".strip()
            for name, before in names.items()
            if facts.get(name) not in (None, "")
        ]
        yield f"- {title}: {', '.join(texts) or 'none'}"


def _findings(rows: Sequence[Data]) -> Iterator[str]:
    for row in rows:
        remedy = f" {row['remedy']}" if row["remedy"] else ""
        yield f"- {'ok' if row['ok'] else '**!!**'} {row['name']}: {_cell(row['text'] + remedy)}"


def _vectors(row: Data) -> Data:
    return {
        "vectors": row["vectors"],
        "queries a call": row["batch"],
        "equal ids": row["equal_ids"],
        "recall@10": row["recall_at_10"],
        "largest error of a cosine": row["score_error"],
        "CPU, one thread, ms": row["cpu_ms"],
        "GPU, ms": row["gpu_ms"],
        "CPU / GPU": row["cpu_ms"] / row["gpu_ms"],
        "copy to the GPU, s": row["copy_s"],
    }


def _encoder(row: Data) -> Data:
    return {
        "work": row["what"],
        **{name: row[name] for name in ("model", "weights", "device", "precision")},
        "pixels": f"{row['side']} × {row['side']}" if "texts" not in row["what"] else "",
        "a second": row["per_s"],
        "n": row["n"],
    }


def _times(results: Mapping[str, Data], machine: Data) -> Iterator[Data]:
    """Yield a line for each model, form and number of references; a compiled one has the same operations."""
    tflop: dict[tuple[str, int], float | None] = {}
    for name, result in results.items():
        if not name.startswith("times-"):
            continue
        compiled = name.endswith("-compiled")
        profile = name.removeprefix("times-").removesuffix("-compiled")
        for row in result["rows"]:
            key = profile, row["references"]
            tflop.setdefault(key, row.get("tflop"))
            yield _time(profile, compiled, row, tflop[key], machine)


def _time(profile: str, compiled: bool, row: Data, tflop: float | None, machine: Data) -> Data:
    rate = tflop and tflop / row["s"]
    return {
        "profile": profile,
        "weights": row["weights"],
        "compiled": compiled,
        "references": row["references"],
        "steps": row["steps"],
        "s": row["s"],
        "n": len(row["all_s"]),
        "first call, s": row.get("first_s"),
        "TFLOP": tflop,
        "of the product": _share(rate, machine.get("product_tflops")),
        "of the peak": _share(rate, machine.get("peak_tflops")),
        "GiB": row["peak_gib"],
        "estimated": row["estimate_gib"],
        "offload level": " → ".join(row["levels"]),
    }


def _share(rate: float | None, most: float | None) -> str | None:
    return f"{100 * rate / most:.0f} %" if rate and most else None


def _image(row: Data) -> Data:
    return {
        "prompt": row["prompt"],
        "ending": row["ending"],
        "best attempt": row["best_attempt"],
        "s of the best": row["seconds"],
        "offload level": " → ".join(row["levels"]),
    }


def _unmeasured(results: Mapping[str, Data]) -> Iterator[Data]:
    for name, result in results.items():
        if result["ending"] != "done":
            facts = {key: result[key] for key in ("ending", "reason")}
            yield {"part": name, **facts, "rows": len(result["rows"])}
