"""The Cross-modal RAG graph with fake engines: the paper's default, its limits and its switches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from numpy.typing import NDArray
from PIL import Image
from support.fake_engines import ListRetriever, SquareGenerator, call
from support.recording_chat import RecordingChat, recording

from pleinair.agent.context import Context
from pleinair.agent.crossmodal import CrossmodalOutput
from pleinair.agent.state import changed
from pleinair.graphs.crossmodal import builder, graph
from pleinair.tools.crossmodal import DECOMPOSITIONS, CrossmodalOptions
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Budget, GenerateRequest, Hit

PROMPT = "a red bird beside a taxi in the snow"
UNCHECKED = "this graph does not check its image"
BIRD, TAXI, SNOW = "red bird", "taxi", "snow"
CAPTIONS = {
    "1.png": "a red bird",
    "2.png": "a red bird at night",
    "3.png": "a taxi",
    "4.png": "a barn owl",
    "5.png": "",
}


def hits(**scores: float) -> list[Hit]:
    """Return hits, the best first; `n1=.5` is 1.png with that score."""
    library = [Hit(id=f"{n[1:]}.png", score=s, caption=CAPTIONS[f"{n[1:]}.png"]) for n, s in scores.items()]
    return sorted(library, key=lambda hit: -hit.score)


HITS = {
    BIRD: hits(n1=0.3, n2=0.8, n3=0.1, n4=0.2, n5=0.9),
    TAXI: hits(n1=0.2, n2=0.2, n3=0.7, n4=0.1, n5=0.1),
    "walrus": hits(n1=0.1, n2=0.1, n3=0.1, n4=0.6, n5=0.2),
}


class Studio:
    """The graph with fake engines, which record their requests."""

    def __init__(self, folder: Path, *parts: str, slots: int = 3, **options: Any) -> None:
        answers = {"subqueries": list(parts or (BIRD, TAXI))}
        self.model: RecordingChat = recording(
            lambda schema, card: answers if schema == "SubQueries" else {"caption": "a grey walrus"}
        )
        self.generator = SquareGenerator(slots)
        self.context = Context(
            model=self.model,
            generator=self.generator,
            retriever=ListRetriever(dict(HITS)),
            store=ArtifactStore(folder / "artifacts"),
            k=2,
            threshold=0.5,
            crossmodal=CrossmodalOptions(**options),
        )

    def run(self, **fields: Any) -> CrossmodalOutput:
        values: Any = changed(prompt=PROMPT, **fields)
        return CrossmodalOutput.model_validate(graph.invoke(values, context=self.context))

    def end(self, **fields: Any) -> tuple[str, str]:
        outcome = self.run(**fields).outcome
        assert outcome is not None
        return outcome.ending, outcome.limit or outcome.reason

    @property
    def requests(self) -> list[GenerateRequest]:
        return self.generator.requests

    @property
    def used(self) -> list[str]:
        """Return the ids of the references of the only request."""
        (request,) = self.requests
        return [reference.hit.id for reference in request.references]


def test_by_default_one_image_is_generated_from_the_pareto_set(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    assert studio.end(seed=7) == ("unchecked", UNCHECKED)
    assert (studio.model.schemas, studio.used) == (["SubQueries"], ["2.png", "3.png"])
    assert studio.requests[0].seed == 7
    assert studio.requests[0].prompt == (
        f"{PROMPT}\nUse only {BIRD} in the 1st retrieved image.\nUse only {TAXI} in the 2nd retrieved image."
    )
    assert studio.requests[0].announced  # so no generator adds a sentence of its own


def test_a_trained_scorer_ranks_the_images_of_a_vector(tmp_path: Path) -> None:
    class First:
        def score(self, texts: Sequence[str], ids: Sequence[str]) -> NDArray[np.float32]:
            return np.array([[float(id == "1.png")] * len(texts) for id in ids], dtype=np.float32)

    studio = Studio(tmp_path)
    studio.context = replace(studio.context, scorer=First())
    studio.run()
    assert studio.used == ["1.png", "3.png"]  # the search's own scores prefer the second


def test_the_instruction_counts_after_the_input_images(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD)
    studio.run(pictures=[studio.context.store.put(Image.new("RGB", (8, 8)))])
    assert studio.requests[0].prompt == f"{PROMPT}\nUse only {BIRD} in the 2nd retrieved image."


def test_each_subquery_has_a_retrieval_with_its_own_cosines(tmp_path: Path) -> None:
    output = Studio(tmp_path).run()
    scores = [
        (retrieval.concept, [(hit.id, hit.score) for hit in retrieval.hits])
        for retrieval in output.retrievals
    ]
    assert scores == [(BIRD, [("2.png", 0.8)]), (TAXI, [("3.png", 0.7)])]
    assert output.joint is not None
    assert [(member.hit.id, member.satisfied) for member in output.joint.members] == [
        ("2.png", (BIRD,)),
        ("3.png", (TAXI,)),
    ]
    assert (output.joint.pictures, output.joint.kept) == (5, 3)


def test_references_follow_the_order_of_the_prompt(tmp_path: Path) -> None:
    studio = Studio(tmp_path, TAXI, BIRD)
    studio.run()
    assert studio.used == ["2.png", "3.png"]
    assert [reference.concept for reference in studio.requests[0].references] == [BIRD, TAXI]


def test_the_callers_subqueries_cost_no_mllm_call_and_stay_in_their_order(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    output = studio.run(subqueries=[TAXI, BIRD])
    assert (studio.model.schemas, studio.used) == ([], ["3.png", "2.png"])
    assert sum(usage.mllm_calls for usage in output.usage) == 0


def test_a_subquery_of_the_caller_without_a_word_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no word"):
        Studio(tmp_path).run(subqueries=["…"])


def test_what_no_caption_contains_is_looked_up_by_its_looks_and_reported(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, "walrus")
    assert studio.end() == ("unchecked", f"{UNCHECKED}; no caption contains 'walrus' (looked up instead)")
    assert studio.used == ["2.png", "4.png"]
    assert "Use only walrus in the 2nd retrieved image." in studio.requests[0].prompt


def test_hits_under_the_threshold_are_not_used(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, "walrus")
    studio.context.retriever.hits["walrus"] = hits(n4=0.4)  # type: ignore[attr-defined]
    output = studio.run()
    assert studio.used == ["2.png"]
    assert output.outcome is not None and output.outcome.reason.endswith("'walrus' (nothing found)")
    assert output.retrievals[1].reason == "best match 0.40 is under the threshold 0.50"


def test_without_the_fallback_it_is_only_reported(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, "walrus", fallback=False)
    output = studio.run()
    assert studio.used == ["2.png"]
    assert (output.retrievals[1].abstained, output.retrievals[1].reason) == (True, "no caption contains it")


def test_a_library_without_hits_yields_an_image_without_references(tmp_path: Path) -> None:
    studio = Studio(tmp_path, "zebra")
    reason = "drawn without a reference; no caption contains 'zebra' (nothing found)"
    assert studio.end() == ("stopped", reason)
    assert (studio.used, studio.requests[0].prompt) == ([], PROMPT)


def test_with_too_few_slots_a_greedy_cover_keeps_the_images_that_serve_most(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, TAXI, "night", "bird", slots=1)
    studio.run()
    assert studio.used == ["2.png"]
    assert "Use only red bird, bird, night in the 1st retrieved image." in studio.requests[0].prompt


@pytest.mark.parametrize(("cosine", "used"), [(0.7, "2.png"), (0.9, "3.png")])
def test_of_images_that_serve_as_many_the_one_of_the_higher_cosine_is_kept(
    cosine: float, used: str, tmp_path: Path
) -> None:
    studio = Studio(tmp_path, BIRD, TAXI, slots=1)
    studio.context.retriever.hits[TAXI] = hits(n3=cosine)  # type: ignore[attr-defined]
    studio.run()
    assert studio.used == [used]  # 2.png has .8 for the finch


def test_an_image_for_two_subqueries_is_cropped_to_both(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, "night", slots=1)
    boxes = {"red bird": (0.0, 0.0, 0.5, 0.5), "night": (0.0, 0.5, 0.5, 1.0), "cod": (0.75, 0.0, 1.0, 1.0)}
    boxed = {
        name: [hit.model_copy(update={"boxes": boxes}) for hit in found_hits]
        for name, found_hits in HITS.items()
    }
    options = CropOptions(margin=0, least=4)
    studio.context = replace(studio.context, retriever=ListRetriever(boxed), crops=options)
    studio.run()
    (reference,) = studio.requests[0].references
    assert (reference.hit.id, reference.crop) == ("2.png", (0.0, 0.0, 0.5, 1.0))


def test_within_the_slots_the_whole_set_is_used(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, TAXI, "night", "bird", slots=2)
    output = studio.run()
    assert output.joint is not None and len(output.joint.members) == 2
    assert studio.used == ["2.png", "3.png"]


def test_the_option_chooses_the_kind_of_sub_queries(tmp_path: Path) -> None:
    for decomposition, (instruction, _) in DECOMPOSITIONS.items():
        studio = Studio(tmp_path, decomposition=decomposition)
        studio.run()
        assert str(studio.model.conversation("SubQueries")[0].content) == instruction


@pytest.mark.parametrize(
    ("options", "used", "calls"),
    [
        ({"rag": False}, [], []),
        ({"sparse": False}, ["5.png", "3.png"], ["SubQueries"]),
        ({"pareto": "top_k"}, ["2.png", "1.png", "3.png"], ["SubQueries"]),
        ({"pareto": "paper"}, ["2.png", "3.png"], ["SubQueries"]),
    ],
)
def test_the_ablations(tmp_path: Path, options: Any, used: list[str], calls: list[str]) -> None:
    studio = Studio(tmp_path, **options)
    assert studio.end() == ("unchecked", UNCHECKED)
    assert (sorted(studio.used), studio.model.schemas) == (sorted(used), calls)


def test_without_the_dense_stage_the_seed_decides(tmp_path: Path) -> None:
    studio = Studio(tmp_path, dense=False)
    for seed in range(12):
        studio.run(seed=seed)
    assert {request.references[0].hit.id for request in studio.requests} == {"1.png", "2.png"}


def test_without_the_instruction_the_prompt_is_unchanged(tmp_path: Path) -> None:
    studio = Studio(tmp_path, template="plain")
    studio.run()
    assert (studio.requests[0].prompt, studio.used) == (PROMPT, ["2.png", "3.png"])


def test_a_beta_over_its_bound_is_reported_in_the_outcome(tmp_path: Path) -> None:
    assert "beta 0.9 is not under" in Studio(tmp_path, pareto="paper", beta=0.9).end()[1]


def test_a_grid_under_the_number_of_subqueries_is_raised_and_reported(tmp_path: Path) -> None:
    output = Studio(tmp_path, pareto="paper", grid_steps=1).run()
    assert output.joint is not None and output.joint.grid_steps == 2
    assert output.outcome is not None
    assert "; the grid has 2 steps instead of 1, one for each sub-query" in output.outcome.reason
    exact = Studio(tmp_path).run().joint
    assert exact is not None and exact.grid_steps == 0


def test_images_without_a_caption_are_captioned_once_and_retrieved(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, "grey walrus", captions=4)
    assert studio.run().joint == studio.run().joint
    assert studio.model.schemas == ["SubQueries", "PictureCaption", "SubQueries"]
    assert [reference.hit.id for reference in studio.requests[0].references] == ["2.png", "5.png"]


def test_an_image_that_the_model_declines_is_not_tried_again(tmp_path: Path) -> None:
    studio = Studio(tmp_path, captions=4)
    parts = {"subqueries": [BIRD]}
    studio.model.policy = lambda schema, *_: parts if schema == "SubQueries" else "I do not say."
    for _ in range(2):
        assert studio.end() == ("unchecked", UNCHECKED)
    assert studio.model.schemas == ["SubQueries", "PictureCaption", "SubQueries"]


def test_captions_keep_to_the_budget(tmp_path: Path) -> None:
    studio = Studio(tmp_path, BIRD, "grey walrus", captions=4)
    assert "'grey walrus' (nothing found)" in studio.end(budget=Budget(mllm_calls=1))[1]
    assert studio.model.schemas == ["SubQueries"]


@pytest.mark.parametrize(
    ("budget", "reason", "calls"),
    [
        (Budget(attempts=0), "attempts", []),
        (Budget(mllm_calls=0), "mllm_calls", []),
        (Budget(seconds=0), "seconds", []),
        (Budget(images=0), "images", []),
    ],
)
def test_every_limit_is_checked_before_anything_is_paid(
    tmp_path: Path, budget: Budget, reason: str, calls: list[str]
) -> None:
    studio = Studio(tmp_path)
    assert studio.end(budget=budget) == ("stopped", reason)
    assert (studio.model.schemas, studio.requests) == (calls, [])


def test_a_declined_prompt_ends_the_run(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    studio.model.policy = lambda *_: "I may not."
    assert studio.end(budget=Budget(mllm_calls=1)) == ("refused", "I may not.")
    assert studio.requests == []


def test_a_resumed_run_retrieves_nothing_again(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    app: Any = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["generate"])
    config: Any = {"configurable": {"thread_id": "1"}}
    app.invoke({"prompt": PROMPT}, config, context=studio.context)
    studio.context.retriever.hits.clear()  # type: ignore[attr-defined]
    app.invoke(None, config, context=studio.context)
    assert (studio.model.schemas, studio.used) == (["SubQueries"], ["2.png", "3.png"])


def test_the_checkpoint_holds_plain_json_without_images(tmp_path: Path) -> None:
    studio, saver = Studio(tmp_path), InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    app: Any = builder.compile(checkpointer=saver)
    app.invoke({"prompt": PROMPT}, config, context=studio.context)
    values = app.get_state(config).values
    assert {type(value) for value in values.values()} <= {str, int, list, dict}
    assert values["joint"]["members"][0]["satisfied"] == [BIRD]
    assert max(len(blob[1]) for blob in saver.blobs.values()) < 8 * 1024


def test_the_pocket_chat_model_lists_subqueries(tmp_path: Path) -> None:
    studio = Studio(tmp_path, template="plain")
    context = Context(
        model=PocketChat(),
        generator=studio.generator,
        retriever=studio.context.retriever,
        store=studio.context.store,
    )
    call(graph, context, "a red bird beside a taxi in the snow")
    assert studio.used == ["2.png", "3.png"]


@pytest.mark.parametrize("fallback", [True, False])
def test_what_only_a_license_excludes_is_the_reason(tmp_path: Path, fallback: bool) -> None:
    studio = Studio(tmp_path, BIRD, "walrus", fallback=fallback)
    studio.context = replace(studio.context, retriever=ListRetriever({}))
    studio.context.retriever.unlicensed = ListRetriever(dict(HITS))  # type: ignore[attr-defined]
    output = studio.run()
    finch, walrus = output.retrievals
    assert finch.excluded_by_license == (("5.png", "2.png") if fallback else ("1.png", "2.png"))
    assert walrus.excluded_by_license == (("4.png",) if fallback else ())
    assert output.outcome and output.outcome.ending == "stopped"
    assert "'red bird' (2 images that match are excluded by license)" in output.outcome.reason
