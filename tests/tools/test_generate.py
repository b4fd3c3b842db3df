"""One request becomes one picture, once; what does not fit is refused before it is drawn."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from support.fake_engines import PaidGenerator, SquareGenerator

from pleinair.tools.generate import cost, generate
from pleinair.tools.storage.artifacts import ArtifactStore, charged
from pleinair.tools.types import BadInput, GenerateRequest, Hit, Inpaint, ModelFault, Reference, Usage

REQUEST = GenerateRequest(prompt="p", height=16, width=16, num_inference_steps=2, guidance_scale=1, seed=3)


def quiet(done: int, total: int) -> None:
    pass


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_a_repeated_step_draws_nothing(store: ArtifactStore) -> None:
    generator = SquareGenerator()
    first = generate(REQUEST, generator=generator, store=store, run_id="r", on_step=quiet)
    again = generate(REQUEST, generator=generator, store=store, run_id="r", on_step=quiet)
    assert first == again
    assert len(generator.requests) == 1


def test_what_a_picture_cost_is_kept_with_it(store: ArtifactStore, tmp_path: Path) -> None:
    generator = PaidGenerator()
    assert cost(REQUEST, generator=generator, store=store, run_id="r") == Usage()
    generate(REQUEST, generator=generator, store=store, run_id="r", on_step=quiet)
    after_a_crash = ArtifactStore(tmp_path)
    assert cost(REQUEST, generator=generator, store=after_a_crash, run_id="r") == Usage(usd=0.04)
    assert cost(REQUEST, generator=generator, store=store, run_id="another") == Usage()


def test_a_note_of_a_step_that_names_no_cost_is_read(store: ArtifactStore, tmp_path: Path) -> None:
    generator = PaidGenerator()
    first = generate(REQUEST, generator=generator, store=store, run_id="r", on_step=quiet)
    (note,) = (tmp_path / "steps").iterdir()
    note.write_text(re.sub(r',"spent":{.*?}', "", note.read_text()))
    assert "spent" not in note.read_text()
    assert generate(REQUEST, generator=generator, store=store, run_id="r", on_step=quiet) == first
    assert len(generator.requests) == 1
    assert cost(REQUEST, generator=generator, store=store, run_id="r") == Usage()


def test_another_seed_is_another_step(store: ArtifactStore) -> None:
    generator = SquareGenerator()
    for seed in (3, 4):
        request = REQUEST.model_copy(update={"seed": seed})
        generate(request, generator=generator, store=store, run_id="r", on_step=quiet)
    assert len(generator.requests) == 2


def test_too_many_references_are_refused(store: ArtifactStore) -> None:
    picture = store.put(Image.radial_gradient("L").convert("RGB"))
    reference = Reference(concept="c", hit=Hit(id="a", score=1), picture=picture)
    request = REQUEST.model_copy(update={"references": (reference,) * 3})
    with pytest.raises(BadInput, match="takes 2 references, got 3"):
        generate(request, generator=SquareGenerator(slots=2), store=store, on_step=quiet)


def test_a_negative_prompt_is_refused_where_there_is_none(store: ArtifactStore) -> None:
    request = REQUEST.model_copy(update={"negative_prompt": "blur"})
    with pytest.raises(BadInput, match="no negative prompt"):
        generate(request, generator=SquareGenerator(), store=store, on_step=quiet)


class KeepingGenerator(SquareGenerator):
    given: Sequence[Image.Image] = ()

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        self.given = images
        return super().generate(request, images, on_step)


def test_a_reference_is_sent_as_its_crop(store: ArtifactStore) -> None:
    whole = Image.radial_gradient("L").convert("RGB")  # 256 pixels a side
    reference = Reference(concept="c", hit=Hit(id="a", score=1), picture=store.put(whole))
    cropped = reference.model_copy(update={"crop": (0.25, 0.0, 0.75, 0.5)})
    generator = KeepingGenerator()
    request = REQUEST.model_copy(update={"references": (cropped, reference)})
    generate(request, generator=generator, store=store, on_step=quiet)
    first, second = generator.given
    assert first.tobytes() == whole.crop((64, 0, 192, 128)).tobytes()
    assert second.tobytes() == whole.tobytes()
    generate(
        REQUEST.model_copy(update={"references": (reference, reference)}),
        generator=generator,
        store=store,
        on_step=quiet,
    )
    assert len(generator.requests) == 2  # another crop is another step


def test_the_picture_that_is_painted_in_comes_last(store: ArtifactStore) -> None:
    small = store.put(Image.radial_gradient("L").convert("RGB"))
    old = store.put(Image.linear_gradient("L").resize((16, 16)).convert("RGB"))
    reference = Reference(concept="c", hit=Hit(id="a", score=1), picture=small)
    repaint = Inpaint(concept="c", picture=old, box=(0.0, 0.0, 0.5, 0.5))
    request = REQUEST.model_copy(update={"references": (reference,), "inpaint": repaint})
    generator = KeepingGenerator(inpaint_slots=1)
    generate(request, generator=generator, store=store, on_step=quiet)
    shown, last = generator.given
    assert (shown.size, last.tobytes()) == ((256, 256), store.open(old).tobytes())
    with pytest.raises(BadInput, match="`square` cannot inpaint"):
        generate(request, generator=SquareGenerator(), store=store, on_step=quiet)
    with pytest.raises(BadInput, match="takes 1 references for a box, got 2"):
        two = request.model_copy(update={"references": (reference, reference)})
        generate(two, generator=generator, store=store, on_step=quiet)


class FlatGenerator(SquareGenerator):
    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: Callable[[int, int], None]
    ) -> Image.Image:
        return charged(Image.new("RGB", (16, 16), "black"), Usage(usd=0.04))


def test_a_flat_picture_is_a_fault_and_is_not_kept(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ModelFault, match="one flat colour") as fault:
        generate(REQUEST, generator=FlatGenerator(), store=store, on_step=quiet)
    assert fault.value.spent == Usage(usd=0.04)
    assert not list(tmp_path.rglob("*.png"))
