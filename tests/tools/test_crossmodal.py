"""Cross-modal RAG's MLLM calls, instruction and joint retrieval, without a graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.fake_engines import ListRetriever
from support.recording_chat import RecordingChat, answers_of, images_of, payloads, recording

from pleinair.tools.crossmodal import (
    EXAMPLES,
    INSTRUCTION,
    WHOLE_PHRASE_EXAMPLES,
    WHOLE_PHRASES,
    CrossmodalOptions,
    checked,
    in_order,
    instruct,
    list_subqueries,
    write_caption,
)
from pleinair.tools.mllm.ask import ask
from pleinair.tools.mllm.schemas import SubQueries
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.pocket.chat import PocketChat
from pleinair.tools.pocket.detector import Detection
from pleinair.tools.retrieval.crossmodal.captions import CaptionBook
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer, LazyScorer, SearchScorer
from pleinair.tools.retrieval.crossmodal.joint import Joint, retrieve_jointly
from pleinair.tools.retrieval.crossmodal.sparse import needle, padded_words, satisfaction, words
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput, Hit, ModelFault, Refused

Numbers = NDArray[np.float32]
JAY, COUPE = "blue jay", "old coupe"
RULES = (  # of the paper, as the instruction has them
    "the visible objects that it names",
    "a noun with the modifiers that say its size, colour, material or location, copied from the prompt word",
    "Leave out how many there are, what they do and what state they are in",
    "What a person wears or holds is a sub-query of its own, apart from the person.",
    "Leave out what is no object of the image, such as 'a photo of' or 'an overhead shot'",
    "words that only stand for an object named before, such as 'one' and 'the other'",
)
DROPPED = set(  # counts, states, scaffolding, and words between objects
    "two five one other large small are grazing leans wearing photo overhead shot "
    "a an the of on in over beside against and".split()
)
LIBRARY = {
    "a.png": ("a blue jay on snow", (0.5, 0.3)),
    "b.png": ("a blue jay at night", (0.7, 0.0)),
    "c.png": ("an old coupe", (0.0, 0.6)),
    "d.png": ("an old coupe by the sea", (0.1, 0.8)),
    "e.png": ("nothing of the sort", (0.9, 0.9)),
    "f.png": ("", (0.8, 0.7)),
}
ENTRIES = [Hit(id=id, score=0.0, caption=caption) for id, (caption, _) in LIBRARY.items()]


class TableScorer:
    """Scorer by the table of the library, which records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def score(self, texts: Sequence[str], ids: Sequence[str]) -> Numbers:
        self.calls.append((tuple(texts), tuple(ids)))
        column = {JAY: 0, COUPE: 1, "walrus": 0}
        rows = [[LIBRARY[id][1][column[text]] for text in texts] for id in ids]
        return np.array(rows, dtype=np.float32).reshape(len(ids), len(texts))


def find(
    *subqueries: str, scorer: TableScorer | None = None, k: int = 2, seed: int = 0, **options: Any
) -> Joint:
    return retrieve_jointly(
        ENTRIES,
        subqueries or (JAY, COUPE),
        scorer=scorer or TableScorer(),
        options=CrossmodalOptions(**options),
        k=k,
        seed=seed,
    )


def ids(joint: Joint) -> list[str]:
    return [member.hit.id for member in joint.members]


def answering(*parts: str) -> RecordingChat:
    return recording(lambda schema, payload: {"subqueries": list(parts)})


def test_the_instruction_has_the_rules_and_six_worked_examples() -> None:
    model = answering("red car", "old dog")
    subqueries, usage = list_subqueries("a red car beside an old dog", model=model)
    assert (subqueries, usage.mllm_calls) == (["red car", "old dog"], 1)
    sent = model.conversation("SubQueries")
    assert [payload["prompt"] for payload in payloads(sent)[:-1]] == [text for text, _ in EXAMPLES]
    assert [tuple(answer["subqueries"]) for answer in answers_of(sent)] == [parts for _, parts in EXAMPLES]
    for rule in RULES:
        assert rule in INSTRUCTION
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize("text", [text for text, _ in EXAMPLES])
def test_an_examples_answers_are_its_objects_with_all_their_modifiers(text: str) -> None:
    """What is left of the prompt are counts, states, scaffolding and words between the objects."""
    answers = dict(EXAMPLES)[text]
    left = padded_words(text)
    for answer in sorted(answers, key=len, reverse=True):
        assert left.count(needle(answer)) == 1
        left = left.replace(needle(answer), " | ")
    assert set(left.split()) - {"|"} <= DROPPED
    assert not set(" ".join(answers).lower().split()) & DROPPED
    assert list(answers) == in_order(text, answers)


def test_the_examples_show_every_rule() -> None:
    """Each rule drops or separates something in one of the examples at least."""
    dropped = {word for text, answers in EXAMPLES for word in words(text) if word not in " ".join(answers)}
    assert {"five", "two", "grazing", "leans", "photo", "shot", "one", "other", "wearing"} <= dropped
    answers = {answer for _, parts in EXAMPLES for answer in parts}
    assert {"boy", "yellow raincoat", "tall glass lamp", "wooden desk", "garden wall"} <= answers


def test_whole_phrases_is_an_option_whose_examples_stand_in_their_prompts() -> None:
    model = answering("three red cars")
    list_subqueries("three red cars", model=model, decomposition="whole_phrases")
    sent = model.conversation("SubQueries")
    assert str(sent[0].content) == WHOLE_PHRASES
    assert [tuple(answer["subqueries"]) for answer in answers_of(sent)] == [
        parts for _, parts in WHOLE_PHRASE_EXAMPLES
    ]
    assert all(satisfaction([text], parts) == [(True,) * len(parts)] for text, parts in WHOLE_PHRASE_EXAMPLES)


def test_a_comma_in_an_entity_splits_nothing() -> None:
    parts = ["box of salt, pepper and oil", "table"]
    assert list_subqueries("a box of salt, pepper and oil on a table", model=answering(*parts))[0] == parts


def test_subqueries_are_distinct_and_in_the_prompts_order() -> None:
    model = answering("blue dog", "A Red  Car", "red car")
    assert list_subqueries("a red car beside a blue dog", model=model)[0] == ["A Red Car", "blue dog"]
    assert in_order("two bicycles, one red", ["red bicycle", "kite"]) == ["red bicycle", "kite"]
    assert in_order("a cat, a dog, a fox", ["fox", "brown dog", "cat"]) == ["cat", "fox", "brown dog"]


def test_a_subquery_without_words_and_prose_are_faults_of_the_model() -> None:
    with pytest.raises(ModelFault, match="no word"):
        list_subqueries("a cat", model=answering("cat", "…"))
    with pytest.raises(Refused, match="I may not"):
        list_subqueries("a cat", model=recording(lambda *_: "I may not."))


def test_a_users_subqueries_are_unchanged_or_refused() -> None:
    assert checked(["b cat", "a dog"]) == ["b cat", "a dog"]
    for bad, what in ((["x", " !"], "no word"), (["a cat", "A  Cat"], "twice"), (["x"] * 17, "16 at most")):
        with pytest.raises(BadInput, match=what):
            checked(bad)


def test_the_instruction_says_what_to_use_of_which_image() -> None:
    assert instruct("use_only", "a cat, a dog and a fox", [["cat", "dog"], ["fox"]]) == (
        "a cat, a dog and a fox\n"
        "Use only cat, dog in the 1st retrieved image.\n"
        "Use only fox in the 2nd retrieved image."
    )
    many = instruct("use_only", "p", [["x"]] * 13).splitlines()
    assert [many[number].split(" in the ")[1].split()[0] for number in (3, 4, 11, 13)] == [
        "3rd",
        "4th",
        "11th",
        "13th",
    ]


def test_without_references_and_with_the_plain_template_the_prompt_is_unchanged() -> None:
    assert instruct("use_only", "a cat", []) == instruct("plain", "a cat", [["cat"]]) == "a cat"


def test_the_set_has_the_best_image_of_each_vector_with_its_subqueries() -> None:
    joint = find(scored="satisfied")
    assert ids(joint) == ["b.png", "d.png"]
    assert [member.satisfied for member in joint.members] == [(JAY,), (COUPE,)]
    assert (joint.pictures, joint.kept, joint.uncovered, joint.warning) == (6, 4, (), "")


def test_images_without_a_matching_caption_are_dropped_before_any_is_scored() -> None:
    scorer = TableScorer()
    find(scorer=scorer)
    assert scorer.calls == [((JAY, COUPE), ("a.png", "b.png", "c.png", "d.png"))]


def test_the_score_is_the_mean_of_the_cosines_to_every_subquery() -> None:
    member = find().members[1]
    assert member.cosines == pytest.approx((0.1, 0.8))
    assert member.hit.score == pytest.approx(0.45)


def test_an_image_of_both_does_not_win_if_its_caption_has_only_one() -> None:
    assert ids(find()) == ["a.png", "d.png"]
    assert ids(find(scored="satisfied")) == ["b.png", "d.png"]
    assert find(scored="satisfied").members[1].hit.score == pytest.approx(0.8)


def test_subqueries_in_no_caption_are_listed() -> None:
    joint = find(JAY, "walrus")
    assert joint.uncovered == ("walrus",)
    nothing = find("walrus", scorer=(scorer := TableScorer()))
    assert (nothing.members, nothing.kept, nothing.uncovered, scorer.calls) == ((), 0, ("walrus",), [])


def test_the_papers_algorithm_finds_the_same_set_and_warns_of_a_large_beta() -> None:
    assert find(pareto="paper") == find().model_copy(update={"grid_steps": 3})
    assert "beta 0.9 is not under" in find(pareto="paper", beta=0.9).warning
    assert find(beta=0.9).warning == ""


def test_top_k_ranks_by_the_dense_score_alone() -> None:
    assert ids(find(pareto="top_k", k=1, scored="satisfied")) == ["d.png"]
    assert ids(find(pareto="top_k", k=3, scored="satisfied")) == ["b.png", "c.png", "d.png"]
    assert ids(find(pareto="top_k", k=3)) == ["a.png", "b.png", "d.png"]


def test_the_pareto_set_covers_what_can_be_covered_and_top_k_may_not() -> None:
    subqueries = (JAY, COUPE, "walrus")
    assert find(*subqueries).coverage(subqueries) == 1
    assert find(*subqueries, pareto="top_k", k=1).coverage(subqueries) == 0.5
    assert find("walrus").coverage(("walrus",)) == 1


def test_without_the_dense_stage_a_lot_decides_and_nothing_is_scored() -> None:
    scorer = TableScorer()
    sets = {tuple(ids(find(scorer=scorer, dense=False, seed=seed))) for seed in range(40)}
    assert sets == {(first, second) for first in ("a.png", "b.png") for second in ("c.png", "d.png")}
    assert scorer.calls == []
    assert find(dense=False, seed=3) == find(dense=False, seed=3)


def test_without_the_sparse_stage_the_whole_library_is_ranked() -> None:
    joint = find(sparse=False)
    assert ids(joint) == ["e.png", "f.png"]
    assert [member.satisfied for member in joint.members] == [(JAY, COUPE), ()]
    assert find(sparse=False, k=0).members == ()


def test_a_method_without_any_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing ranks the images"):
        CrossmodalOptions(sparse=False, dense=False)


def test_an_index_and_a_search_score_alike() -> None:
    class Axes:
        id = "axes"

        def encode_text(self, texts: Sequence[str]) -> Numbers:
            return np.eye(2, dtype=np.float32)[[0 if text == JAY else 1 for text in texts]]

        def encode_images(self, images: Sequence[Image.Image]) -> Numbers:
            raise AssertionError("the index has the pictures' vectors")

    vectors = {id: np.array(row, dtype=np.float32) for id, (_, row) in LIBRARY.items()}
    by_index = LazyScorer(lambda: IndexScorer(vectors.__getitem__, Axes()))
    hits = {
        text: [Hit(id=id, score=float(vectors[id][column])) for id in LIBRARY]
        for column, text in enumerate((JAY, COUPE))
    }
    by_search = SearchScorer(ListRetriever(hits))
    arguments = ((COUPE, JAY), ["d.png", "a.png"])
    assert by_index.score(*arguments) == pytest.approx(by_search.score(*arguments))
    assert by_index.score(*arguments)[0] == pytest.approx([0.8, 0.1])
    assert by_index.score((JAY,), []).shape == by_search.score((JAY,), []).shape == (0, 1)
    for scorer in (by_index, by_search):
        assert scorer.score((JAY,), ["unknown", "a.png"])[:, 0] == pytest.approx([-1, 0.5])


def test_a_caption_is_written_from_the_image_alone() -> None:
    model = recording(lambda schema, payload: {"caption": " a red\n square "})
    png = encode_png(Image.new("RGB", (4, 4), "red"))
    assert write_caption(png, model=model)[0] == "a red square"
    sent = model.conversation("PictureCaption")
    assert (payloads(sent), images_of(sent)) == ([{}], [[png]])


def test_stored_captions_belong_to_pixels_and_model(tmp_path: Path) -> None:
    retriever, model = ListRetriever({}), answering()
    book = CaptionBook(tmp_path)
    key = book.key("a.png", retriever, model)
    book.put(key, "a letter")
    again = CaptionBook(tmp_path)
    assert again.get(again.key("a.png", retriever, model)) == "a letter"
    assert again.get(again.key("b.png", retriever, model)) is None
    other = CaptionBook(tmp_path)
    assert other.get(other.key("a.png", retriever, PocketChat())) is None
    bare = [Hit(id="a.png", score=0), Hit(id="b.png", score=0), Hit(id="c.png", score=0, caption="own")]
    assert [entry.caption for entry in again.filled(bare, retriever, model)] == ["a letter", "", "own"]


def test_the_pocket_model_captions_an_image_with_the_species_it_detects() -> None:
    class FixedDetector:
        def __init__(self, scores: dict[str, float]) -> None:
            self.scores = scores

        def detect(self, image: Image.Image, phrases: Sequence[str]) -> list[Detection]:
            return [Detection(self.scores.get(phrase, 0.1)) for phrase in phrases]

    model, png = PocketChat(), encode_png(Image.new("RGB", (8, 8), "red"))
    first, second, third = (species.name for species in SPECIES[:3])
    model._loaded = FixedDetector({first: 0.8, second: 0.95, third: 0.75})  # type: ignore[assignment]
    assert write_caption(png, model=model)[0] == f"a {second} and a {first}"
    model._loaded = FixedDetector({})  # type: ignore[assignment]
    with pytest.raises(Refused, match="Nothing that I know"):
        write_caption(png, model=model)


def test_the_pocket_model_lists_a_prompts_subjects() -> None:
    prompt = "a blue jay and a barn owl in the snow"
    assert list_subqueries(prompt, model=PocketChat())[0] == ["blue jay", "barn owl"]
    with pytest.raises(Refused, match="names nothing"):
        ask(PocketChat(), SubQueries, INSTRUCTION, {"prompt": "of of of"})


def test_the_defaults_are_the_papers_but_for_the_exact_set() -> None:
    options = CrossmodalOptions()
    assert (options.beta, options.scored, options.decomposition) == (0.015, "all", "published")
    assert (options.rag, options.sparse, options.dense, options.template) == (True, True, True, "use_only")
    assert options.pareto == "exact"
