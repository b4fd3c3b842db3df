"""Leaks in the loop: measured after a critique, a reason to swap a reference, and a tie-breaker."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.fake_engines import ListRetriever, ScriptedChat, call, decomposition, rows

from pleinair.agent.context import Context
from pleinair.agent.ledger import best
from pleinair.agent.repairs.leaks import LeakOptions, excess, with_leaks
from pleinair.agent.repairs.plan import plan_repairs
from pleinair.agent.state import Output
from pleinair.graphs.pleinair import graph
from pleinair.tools.pocket.invented.world import SPECIES, boxes, random_scene, render
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import (
    Attempt,
    Box,
    Budget,
    Capabilities,
    GenerateRequest,
    Hit,
    Leak,
    Ledger,
    OnStep,
    Picture,
    Reference,
    Repair,
    Retrieval,
    Row,
)

PICTURE = Picture(sha256="0" * 64, width=64, height=64)
REQUEST = GenerateRequest(prompt="p", height=64, width=64, num_inference_steps=1, guidance_scale=1, seed=0)
LEAKY = Leak(concept="finch", id="a", background=0.9, copied=0.5)
OPTIONS = LeakOptions()
CAPABILITIES = Capabilities(
    id="copier", slots=2, height=64, width=64, num_inference_steps=1, guidance_scale=1
)


def attempt(number: int, *leaks: Leak, **fields: Any) -> Attempt:
    row = Row(concept="finch", status="present", confidence=0.9)
    defaults: dict[str, Any] = {
        "request": REQUEST,
        "picture": PICTURE,
        "seconds": 1.0,
        "ledger": Ledger(rows=(row,)),
    }
    return Attempt(number=number, leaks=leaks, **(defaults | fields))


def retrieval(*ids: str) -> Retrieval:
    return Retrieval(concept="finch", query="finch", hits=tuple(Hit(id=id, score=0.9) for id in ids))


def test_of_equal_ledgers_the_one_with_less_leaked_wins() -> None:
    clean = Leak(concept="finch", id="b", background=0.1, copied=0.2)
    assert best([attempt(1, LEAKY), attempt(2, clean)]) == attempt(2, clean)
    assert best([attempt(1, clean), attempt(2)]) == attempt(2)
    nearly = LEAKY.model_copy(update={"background": 0.88})
    assert best([attempt(1, LEAKY), attempt(2, nearly)]) == attempt(1, LEAKY)  # noise; the earlier one


def test_a_better_ledger_beats_any_leak() -> None:
    doubtful = Ledger(rows=(Row(concept="finch", status="present", confidence=0.89),))
    assert best([attempt(1, LEAKY), attempt(2, ledger=doubtful)]) == attempt(1, LEAKY)


@pytest.mark.parametrize(
    ("background", "copied", "expected"),
    [(0.79, 0.97, ""), (None, 0.97, ""), (0.81, 0.5, "background"), (0.81, 0.99, "whole picture")],
)
def test_what_leaked_too_much_is_reported(background: float | None, copied: float, expected: str) -> None:
    leak = Leak(concept="finch", id="a", background=background, copied=copied, pose=1)
    assert excess(leak, OPTIONS) == expected


def swaps(
    *missing: str, ids: str = "ab", options: LeakOptions = OPTIONS, inpaint: bool = False
) -> list[Repair]:
    """Plan the repairs of an image with a leaked finch; return those of the finch after the others'."""
    row = Row(concept="finch", status="present", confidence=0.9)
    lacking = [
        Row(concept=name, status="missing", confidence=0.9, box=(0.0, 0.0, 0.5, 0.5)) for name in missing
    ]
    rows = [row for row in [row] if "finch" not in missing] + lacking
    references = (Reference(concept="finch", hit=Hit(id="a", score=1), picture=PICTURE),)
    request = REQUEST.model_copy(update={"references": references})
    best = attempt(1, LEAKY, request=request, ledger=Ledger(rows=tuple(rows)))
    capabilities = CAPABILITIES.model_copy(update={"inpaint": inpaint, "inpaint_slots": int(inpaint)})
    repairs = plan_repairs(best, [best], [retrieval(*ids)], capabilities, options)
    return repairs[len(missing) :]


def test_a_leaked_reference_is_swapped_where_an_attempt_is_made_anyway() -> None:
    (swap,) = swaps("coupe")
    assert (swap.concept, swap.action) == ("finch", "swap_reference")
    assert "background" in swap.why


def test_otherwise_it_stays() -> None:
    assert swaps() == []  # nothing else to repair
    assert swaps("finch") == []  # repaired already
    assert swaps("coupe", inpaint=True) == []  # only a box is inpainted
    assert swaps("coupe", ids="a") == []  # no other hit
    assert swaps("coupe", options=LeakOptions(background=0.95)) == []


class Library(ListRetriever):
    """Library with a finch in the snow for finch ids, and a coupe at night for the others."""

    def open(self, id: str) -> Image.Image:
        species, background = (SPECIES[0], "snow") if id.startswith("finch") else (SPECIES[30], "night")
        return render(random_scene(random.Random(id), [species], background=background))


class Copier:
    """Generator that returns the first reference as it is, or a meadow without one."""

    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self.used: list[list[str]] = []

    def generate(
        self, request: GenerateRequest, images: Sequence[Image.Image], on_step: OnStep
    ) -> Image.Image:
        self.used.append([reference.hit.id for reference in request.references])
        if images:
            return images[0]
        return render(random_scene(random.Random(1), [SPECIES[60]], background="meadow"))


def run(folder: Path, copier: Copier, box: Box | None = None, **knobs: Any) -> Output:
    """Run the loop: the finch is present with the first references, the coupe never."""

    def policy(schema: str, question: dict[str, Any], images: int) -> dict[str, Any]:
        if schema == "Decomposition":
            return decomposition("finch", "coupe")
        answer = rows(question, lambda name: name == "finch" and len(copier.used) > 1)
        answer["rows"][0]["box"] = box
        return answer

    names = {"finch": ("finch-1", "finch-2"), "coupe": ("coupe-1", "coupe-2")}
    hits = {name: [Hit(id=id, score=0.9) for id in ids] for name, ids in names.items()}
    context = Context(
        model=ScriptedChat(policy=policy, schemas=[]),
        generator=copier,
        retriever=Library(hits),
        store=ArtifactStore(folder),
        **knobs,
    )
    return call(graph, context, "a finch and a coupe", budget=Budget(attempts=3))


def test_the_loop_measures_and_swaps_a_copied_reference(tmp_path: Path) -> None:
    copier = Copier()
    output = run(tmp_path, copier)
    first, second = output.attempts[1].leaks
    assert (first.concept, first.id, second.id) == ("finch", "finch-1", "coupe-1")
    assert first.copied == pytest.approx(1) and (first.background or 0) > 0.9 and first.pose is None
    assert second.copied < 0.9 and (second.background or 0) < 0.5
    assert copier.used[2] == ["finch-2", "coupe-2"]
    assert "its whole picture leaked into the image" in [repair.why for repair in output.attempts[2].repairs]
    assert output.attempts[0].leaks == ()


def test_without_the_check_nothing_is_measured_and_nothing_swapped(tmp_path: Path) -> None:
    copier = Copier()
    output = run(tmp_path, copier, leak=LeakOptions(check=False))
    assert [attempt.leaks for attempt in output.attempts] == [(), (), ()]
    assert copier.used[2] == ["finch-1", "coupe-2"]


def test_an_impossible_box_of_the_model_is_ignored(tmp_path: Path) -> None:
    output = run(tmp_path, Copier(), box=(0.9, 0.1, 0.2, 1.4))
    assert output.attempts[1].leaks[0].pose is None


def test_boxes_on_both_sides_yield_the_pose_in_the_crop_too(tmp_path: Path) -> None:
    scene = random_scene(random.Random(2), [SPECIES[0], SPECIES[30]])
    store, picture = ArtifactStore(tmp_path), render(scene)
    first, second = boxes(scene)
    crop = (0.0, 0.0, 0.5, 1.0)
    reference = Reference(
        concept="finch",
        hit=Hit(id="a", score=1, boxes={"finch": first, "coupe": second}),
        picture=store.put(picture),
        crop=crop,
    )
    row = Row(concept="finch", status="present", confidence=1, box=first)
    judged = attempt(
        1,
        request=REQUEST.model_copy(update={"references": (reference,)}),
        picture=store.put(picture),
        ledger=Ledger(rows=(row,)),
    )
    (leak,) = with_leaks(judged, [judged], store, OPTIONS).leaks
    assert leak.pose is not None and leak.pose > 0.7
    assert leak.background is None  # no image was generated without it
    assert leak.copied < 0.98
