"""Retrievers and backends from settings: every retrieval method, and what is refused before a run."""

import json
import re
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import quick_engines as quick
from support.drawings import drawing

from pleinair.app.api import draw, home
from pleinair.app.engines import build, build_backend, check, for_pocket, open_retriever
from pleinair.app.libraries import OnProgress
from pleinair.app.paths import Paths
from pleinair.app.runs.events import Ended, payloads, read
from pleinair.app.settings import load
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput


def unwatched(title: str) -> AbstractContextManager[OnProgress]:
    return nullcontext(lambda done, total: None)


SECOND = {"retrieval__second__backend": "quick", "retrieval__second__salt": "other"}


def search(place: Path, query: str, k: int = 6, /, **overrides: Any) -> list[str]:
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    retriever = open_retriever(load(overrides=keys), Paths(place / "home"))
    return [hit.id for hit in retriever.search(query, k)]


def test_every_method_ranks_in_its_own_way(place: Path) -> None:
    dense = search(place, "number 3", retrieval__method="dense")
    assert sorted(dense) == [f"{number}.png" for number in range(6)]
    assert search(place, "number 3", retrieval__method="lexical") == ["3.png"]
    hybrid = search(place, "number 3", retrieval__method="hybrid")
    assert hybrid == ["3.png", *(id for id in dense if id != "3.png")]
    assert search(place, "number 3") == hybrid
    assert search(place, "number 3", retrieval__method="dense", retrieval__rerank="bm25") == hybrid


def test_lexical_retrieval_loads_no_encoder_and_builds_no_index(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick.Hashes, "__init__", lambda *_: pytest.fail("an encoder was loaded"))
    settings = load(overrides={"retrieval.method": "lexical", "encoder.salt": f"{place}"})
    context = build(settings, Paths(place / "home"), ArtifactStore(place / "store"))
    assert [hit.id for hit in context.retriever.search("number 3", 6)] == ["3.png"]
    assert context.retriever.open("3.png").size == (quick.SIZE, quick.SIZE)
    assert not list((place / "home").rglob("manifest.json"))


def test_both_takes_three_of_either_encoder_in_turn(place: Path) -> None:
    first = search(place, "number 3", 3, retrieval__method="dense")
    second = search(place, "number 3", 3, retrieval__method="dense", encoder__salt="other")
    assert first != second
    both = search(place, "number 3", retrieval__method="both", **SECOND)
    assert both[:2] == [first[0], second[0]]
    assert set(both) == {*first, *second}


def test_only_allowed_licenses_are_retrieved(place: Path) -> None:
    metadata = place / "library" / "metadata.jsonl"
    lines = [json.loads(line) for line in metadata.read_text("utf-8").splitlines()]
    for line in lines[2:]:
        line["license"] = "proprietary"
    metadata.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert set(search(place, "number 3", retrieval__licenses=["cc0-1.0"])) == {"0.png", "1.png"}
    assert search(place, "number 3", retrieval__licenses=["cc0-1.0"], retrieval__method="lexical") == []


def test_copies_are_omitted_unless_allowed(place: Path) -> None:
    library = place / "library"
    (library / "copy.png").write_bytes((library / "3.png").read_bytes())
    assert len(search(place, "number 3", 7)) == 6
    assert len(search(place, "number 3", 7, retrieval__deduplicate=0)) == 7


@pytest.mark.parametrize(
    ("method", "threshold"),
    [("dense", 0.4), ("lexical", -1.0), ("hybrid", 0.4), ("auto", 0.4), ("named", 0.4), ("both", -1.0)],
)
def test_the_threshold_applies_to_methods_with_cosines(place: Path, method: str, threshold: float) -> None:
    settings = load(overrides={"retrieval.threshold": 0.4, "retrieval.method": method})
    context = build(settings, Paths(place / "home"), ArtifactStore(place / "store"))
    assert context.threshold == threshold


def test_the_papers_graphs_keep_dense_retrieval_unless_a_method_is_set(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pleinair.tools.pocket.catalogue.library.write_library", partial(write_library, size=12)
    )

    def kinds(query: str = "number 3", **overrides: Any) -> list[str]:
        context = build(load(overrides=overrides), Paths(place / "home"), ArtifactStore(place / "store"))
        return [
            source.search(query, 1)[0].score_kind
            for source in (context.retriever, context.of_papers.retriever)
        ]

    assert kinds() == ["rrf", "cosine"]
    assert kinds(**{"retrieval.method": "hybrid"}) == ["rrf", "rrf"]
    assert kinds("a robin", **{"library.folder": "pocket"}) == ["cosine", "cosine"]
    assert kinds(**{"library.folder": "pocket"}) == ["rrf", "cosine"]  # no caption names it


def test_imagerags_options_reach_its_graph(place: Path) -> None:
    overrides = {"imagerag.mode": "generation", "imagerag.rerank": True, "imagerag.threshold": 0.2}
    context = build(load(overrides=overrides), Paths(place / "home"), ArtifactStore(place / "store"))
    options = context.imagerag
    assert (options.mode, options.rerank, options.threshold) == ("generation", True, 0.2)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"retrieval.method": "best"},
            "retrieval.method = 'best': unknown; accepted: auto, both, dense, hybrid",
        ),
        ({"retrieval.arguments.depth": 3}, r"retrieval\.arguments\.depth = 3: .* accepted: nothing"),
        ({"retrieval.arguments.api_key": "x"}, r"retrieval\.arguments\.api_key: secrets are not accepted"),
        ({"retrieval.method": "both"}, "retrieval.second"),
        ({"retrieval.second.backend": "quikc"}, "retrieval.second.backend = 'quikc': unknown"),
        ({"retrieval.method": "lexical", "imagerag.threshold": 0.2}, "imagerag.threshold = 0.2: a cosine"),
    ],
)
def test_an_unusable_retrieval_is_refused(place: Path, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check(load(overrides=overrides))


def test_a_backend_is_built_once() -> None:
    choice = load().encoder
    assert build_backend("encoder", choice) is build_backend("encoder", choice)


def test_a_run_of_two_concepts_and_two_rounds_builds_each_backend_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counter[str]()

    def count(backend: type[Any]) -> None:
        init = backend.__init__

        @wraps(init)
        def counted(self: Any, *args: Any, **kwargs: Any) -> None:
            counts[backend.__name__] += 1
            init(self, *args, **kwargs)

        monkeypatch.setattr(backend, "__init__", counted)

    def answer(schema: str, *rest: Any) -> dict[str, Any]:
        missing = {"concepts": ["second thing", "third thing"]}
        return missing if schema == "MissingConcepts" else usual(schema, *rest)

    usual = quick.answer
    monkeypatch.setattr(quick, "answer", answer)
    count(quick.Stripes)
    count(quick.Hashes)
    overrides = {"encoder.salt": f"{place}", "generator.pause": 0.001, "mllm.satisfied": False}
    result = draw("two things", graph="imagerag", overrides=overrides | {"imagerag.rounds": 2})
    (end,) = payloads(read(home().events(result.run_id)), Ended)
    assert [len(attempt.request.references) for attempt in end.attempts] == [0, 2, 2]
    assert counts == {"Stripes": 1, "Hashes": 1}


def test_changed_captions_are_searched_in_their_current_form(place: Path) -> None:
    assert search(place, "number 3", retrieval__method="lexical") == ["3.png"]
    metadata = place / "library" / "metadata.jsonl"
    metadata.write_text(metadata.read_text("utf-8").replace("picture 3", "three"), encoding="utf-8")
    assert search(place, "number 3", retrieval__method="lexical") == []


def test_thresholds_are_calibrated_by_the_captions_and_stored_with_the_index(place: Path) -> None:
    from pleinair.app.index import bring_up_to_date

    settings = load()
    lines = list(bring_up_to_date(settings, unwatched, calibrated=True))
    effect = r"100% of 6 captions find an image of their own on or over it, 100% an unrelated one"
    assert [re.fullmatch(rf"retrieval\.threshold = (.*): {effect}", line)[1] for line in lines[-3:-1]] == [  # type: ignore[index]
        re.match(r".* = (0\.\d{3}):", lines[-3])[1],  # type: ignore[index]
        '"auto"',
    ]
    assert lines[-1] == "Neither of these thresholds separates related from unrelated images."
    assert len(list((place / "home").rglob("threshold.safetensors"))) == 1
    assert len(list(bring_up_to_date(settings, unwatched))) == len(lines) - 3


def test_the_threshold_auto_is_calibrated_once_and_never_for_the_graphs_of_papers(place: Path) -> None:
    settings = load(overrides={"retrieval.threshold": "auto"})
    (hit,) = open_retriever(settings, home()).search("number 3", 1)
    assert hit.query_scores and hit.query_scores.sample == 6
    (file,) = (place / "home").rglob("threshold.safetensors")
    stamp = file.stat().st_mtime_ns
    assert open_retriever(settings, home()).search("number 3", 1)[0].query_scores == hit.query_scores
    assert file.stat().st_mtime_ns == stamp
    assert draw("number 3", seed=1, overrides={"retrieval.threshold": "auto"}).sidecar.exists()
    file.unlink()
    draw(
        "number 3",
        graph="imagerag",
        seed=1,
        overrides={"retrieval.threshold": "auto", "imagerag.rerank": "captions"},
    )
    assert not file.exists()


def test_an_index_of_an_earlier_format_is_built_anew_and_said(place: Path) -> None:
    from pleinair.app.index import bring_up_to_date

    settings = load()
    assert not any("built anew" in line for line in bring_up_to_date(settings, unwatched))
    (manifest,) = (place / "home").rglob("manifest.json")
    manifest.write_text(manifest.read_text("utf-8").replace('"version": 3', '"version": 2'), "utf-8")
    first = next(bring_up_to_date(settings, unwatched))
    assert "built anew" in first and "format 2; accepted: 3" in first


def test_reading_a_library_for_the_first_time_is_progress(place: Path) -> None:
    settings, calls = load(overrides={"retrieval.method": "lexical"}), list[tuple[int, int]]()
    open_retriever(settings, home(), lambda *counts: calls.append(counts)).search("number 3", 1)
    assert calls == [(number, 6) for number in range(1, 7)]
    open_retriever(settings, home(), lambda *_: pytest.fail("read again")).search("number 3", 1)


def test_near_copies_are_dropped_unless_allowed_and_never_in_the_pocket_library(place: Path) -> None:
    library = place / "library"
    with Image.open(library / "3.png") as image:
        image.save(library / "again.webp", lossless=True)
    with (library / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"file_name": "again.webp", "text": "number 3"}\n')
    assert len(search(place, "number 3", 7, retrieval__method="lexical")) == 1
    assert "drop_near_copies" not in load().retrieval.model_dump()
    pocket = load(overrides={"library.folder": "pocket", "retrieval.method": "lexical"})
    assert pocket.retrieval.drop_near_copies
    assert not for_pocket(pocket).retrieval.drop_near_copies
    unset = for_pocket(load(overrides={"library.folder": "pocket"})).retrieval
    assert not unset.drop_near_copies
    assert (for_pocket(pocket).retrieval.method, unset.method) == ("lexical", "named")


@pytest.mark.parametrize("graph", ["pleinair", "imagerag", "crossmodal", "realrag"])
def test_only_graphs_without_a_paper_leave_near_copies_out(place: Path, graph: str) -> None:
    for number in range(3):
        image = drawing(number)
        image.save(place / "library" / f"{number}.png")
        image.resize((180, 130)).save(place / "library" / f"{number}.webp", lossless=True)
    overrides = {
        "encoder.backend": "reddish",
        "imagerag.rerank": "captions",
        "realrag.method": "zero",
        "retrieval.deduplicate": 1.0,
        "retrieval.k": 12,
    }
    result = draw("number 3 and number 4", graph=graph, seed=1, overrides=overrides)
    retrievals = json.loads(result.sidecar.read_text("utf-8"))["retrievals"]
    ids = [{hit["id"] for hit in retrieval["hits"]} for retrieval in retrievals]
    pairs = [group for group in ids for n in range(3) if {f"{n}.png", f"{n}.webp"} <= group]
    left_out = [retrieval.get("near_copies") for retrieval in retrievals]
    assert retrievals and bool(pairs) == (graph != "pleinair") == (not any(left_out)), retrievals
