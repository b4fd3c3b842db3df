"""Which number format an encoder takes, and that the rounded weights give nearly the same vectors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pleinair.tools.retrieval import encoder as precision
from pleinair.tools.retrieval.encoder import _SMALL, OpenClipEncoder, _cpu_has_bfloat16, find_precision
from pleinair.tools.types import BadInput

MODEL = "local-dir:pocket/encoder"
PICTURES = [Image.effect_noise((side, 90), 60 + side).convert("RGB") for side in range(30, 90, 5)]


@pytest.mark.parametrize(("able", "wanted"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_bfloat16_where_the_machine_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, device: str, able: bool, wanted: str
) -> None:
    monkeypatch.setattr(precision, f"_{'gpu' if 'cuda' in device else 'cpu'}_has_bfloat16", lambda: able)
    assert find_precision(device, _SMALL) == wanted


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_small_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    for kind in ("cpu", "gpu"):
        monkeypatch.setattr(precision, f"_{kind}_has_bfloat16", lambda: True)
    assert find_precision(device, _SMALL - 1) == "float32"


def test_other_devices_keep_float32() -> None:
    assert find_precision("mps", _SMALL) == "float32"


@pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_either_set_of_instructions_will_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import torch

    for each in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, each, lambda here=each == name: here)
    assert _cpu_has_bfloat16()
    monkeypatch.delattr(torch.cpu, name)
    assert not _cpu_has_bfloat16()


def test_bfloat16_gives_nearly_the_same_vectors_under_the_same_id() -> None:
    whole, rounded = (OpenClipEncoder(MODEL, device="cpu", precision=p) for p in ("float32", "bfloat16"))
    assert rounded.id == whole.id
    texts = ["a red car", "velmora finch", "a blue fish at night"]
    for mine, theirs in (
        (rounded.encode_text(texts), whole.encode_text(texts)),
        (rounded.encode_images(PICTURES), whole.encode_images(PICTURES)),
    ):
        assert not np.array_equal(mine, theirs)
        np.testing.assert_allclose(np.linalg.norm(mine, axis=1), 1, atol=1e-5)
        assert np.einsum("nd,nd->n", mine, theirs).min() > 0.999


def test_the_number_of_threads_changes_nothing() -> None:
    one, many = (OpenClipEncoder(MODEL, device="cpu", threads=n) for n in (1, 7))
    np.testing.assert_array_equal(one.encode_images(PICTURES), many.encode_images(PICTURES))


def test_an_unknown_format_and_no_threads_are_refused() -> None:
    with pytest.raises(BadInput, match="encoder.precision = 'int1': input should be '', 'float32'"):
        OpenClipEncoder(MODEL, precision="int1")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="encoder.threads = 0: input should be greater than or equal to 1"):
        OpenClipEncoder(MODEL, threads=0)
