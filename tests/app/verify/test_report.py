"""The page of a report, and what is removed from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pleinair.app.verify.machine import peak_of
from pleinair.app.verify.plan import Plan
from pleinair.app.verify.privacy import Scrubber
from pleinair.app.verify.report import write_page
from pleinair.app.verify.session import Report, Result

ROW = {
    "references": 0, "weights": "random", "steps": 4, "all_s": [1.0, 1.1, 0.9], "s": 1.0, "tflop": 395.6,
    "load_s": 3.0, "peak_gib": 9.5, "reserved_gib": 10.0, "estimate_gib": 9.25,
    "levels": ["whole", "vae_tiling"],
}  # fmt: skip
MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "product_tflops": 791.2, "peak_tflops": 989.0, "rates_of": "8192"}


def page(**results: Result) -> str:
    report = Report(
        Path(), Plan(work="", out=""), "pleinair verify", {k.replace("_", "-"): r for k, r in results.items()}
    )
    data = {"date": "2026-01-01", "command": report.command, "tiny": False}
    return write_page(data | {"results": {name: vars(result) for name, result in report.results.items()}})


def test_operations_are_a_share_of_what_the_gpu_can_do() -> None:
    compiled = {name: value for name, value in ROW.items() if name != "tflop"} | {"s": 0.5, "first_s": 60.0}
    text = page(
        machine=Result("done", rows=[MACHINE]),
        times_klein=Result("done", rows=[ROW]),
        times_klein_compiled=Result("done", rows=[compiled]),
    )
    assert "- GPU: NVIDIA H100 80GB HBM3, TFLOP/s by its data sheet, dense bfloat16 989" in text
    assert (
        "| klein | random | no | 0 | 4 | 1 | 3 | – | 396 | 50 % | 40 % | 9.5 | 9.25 | whole → vae_tiling |"
        in text
    )
    assert "| klein | random | yes | 0 | 4 | 0.5 | 3 | 60 | 396 | 100 % | 80 % |" in text
    assert "Not measured" not in text


def test_what_was_not_measured_is_listed_with_its_reason() -> None:
    text = page(
        faiss=Result("skipped", "no | GPU\n# heading"), times_sdxl=Result("out of memory", "x", rows=[ROW])
    )
    assert "| faiss | skipped | no \\| GPU # heading | 0 |" in text
    assert "| times-sdxl | out of memory | x | 1 |" in text and "| sdxl | random |" in text


@pytest.mark.parametrize(
    ("gpu", "peak"),
    [
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("Radeon", None),
    ],
)
def test_the_peak_is_the_card_s_own(gpu: str, peak: float | None) -> None:
    assert peak_of(gpu) == peak


LEAKS = {  # text → what must not be left of it
    "No file /data/clients/acme/x.bin here": "acme",
    "see '/mnt/My Photographs of Eve/a b.png'": "Eve",
    "~/secret-project/model": "secret-project",
    r"C:\Users\eve\models\x": "eve",
    "file:///srv/private/log": "private",
    "answers at http://10.1.2.3:8000/v1?key=1": "10.1.2.3",
    "https://eve:pw@huggingface.co/x": "eve",
    "key sk-verysecret123 refused": "sk-verysecret123",
    "on evesbox: 2 GPUs of eveline": "eve",
    "library: 5 images in holidays, indexed": "holidays",
}


@pytest.fixture
def scrubber(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scrubber:
    monkeypatch.setenv("SOME_API_KEY", "sk-verysecret123")
    monkeypatch.setenv("LOGNAME", "eveline")
    monkeypatch.setenv("HOME", str(tmp_path / "eveline"))
    monkeypatch.setattr("socket.gethostname", lambda: "evesbox.example.org")
    return Scrubber(["/data/holidays"])


@pytest.mark.parametrize("text", LEAKS)
def test_private_data_is_removed(text: str, scrubber: Scrubber) -> None:
    assert LEAKS[text] not in scrubber.text(text)


@pytest.mark.parametrize(
    "text",
    [
        "3/4 of the img/s, 10 ms/call and/or more",
        "`pleinair models pull klein` (docs/install.md)",
        "black-forest-labs/FLUX.2-klein-4B: not downloaded",
        "https://huggingface.co/x/y", "torch 2.9.1+cu130",
        "http://127.0.0.1:8000/v1", "RuntimeError: CUDA error: out of memory",
    ],
)  # fmt: skip
def test_other_texts_stay(text: str, scrubber: Scrubber) -> None:
    assert scrubber.text(text) == text


def test_nothing_private_is_in_any_file_of_a_report(tmp_path: Path, scrubber: Scrubber) -> None:
    finding = {
        "name": "home",
        "ok": False,
        "text": " ".join(LEAKS),
        "remedy": str(tmp_path / "eveline" / "x"),
    }
    results = {"doctor": Result("done", rows=[finding]), "faiss": Result("failed", " ".join(LEAKS))}
    Report(tmp_path, Plan(work="", out=""), "pleinair verify", results, scrubber).save()
    for name in ("verify.json", "verify.md"):
        text = (tmp_path / name).read_text("utf-8")
        assert not [leak for leak in (*LEAKS.values(), str(tmp_path)) if leak in text]
    data: dict[str, Any] = json.loads((tmp_path / "verify.json").read_text("utf-8"))
    assert data["results"]["faiss"]["ending"] == "failed"
