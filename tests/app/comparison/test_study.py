"""Studies: pairs of equal prompts, votes that survive, and results with intervals."""

import csv
import io
import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from pleinair.app.api import draw
from pleinair.app.cli.main import app
from pleinair.app.comparison.results import interval_of, results_of, votes_file, wilson, winner_of
from pleinair.app.comparison.sources import Entry, read_source
from pleinair.app.comparison.study import Study, open_study, paired, shown_at
from pleinair.app.comparison.votes import Question, Votes
from pleinair.tools.types import BadInput

LEFT: dict[Question, str] = {"alignment": "left", "quality": "left", "preference": "left"}


def write_results(folder: Path, prompts: list[str], colour: str, seed: int = 0) -> Path:
    """Write images with the sidecars of `draw`."""
    folder.mkdir(parents=True)
    for number, prompt in enumerate(prompts):
        Image.new("RGB", (8, 8), colour).save(folder / f"{colour}-{number}.png")
        sidecar = {"format": 1, "run": "r", "order": {"prompt": prompt}, "seed": seed + number}
        (folder / f"{colour}-{number}.json").write_text(json.dumps(sidecar), encoding="utf-8")
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, str]:
    prompts = [f"prompt {number}" for number in range(6)]
    return str(write_results(tmp_path / "a", prompts, "red")), str(
        write_results(tmp_path / "b", prompts[::-1], "blue", seed=100)
    )


def opened(folder: Path, sources: tuple[str, str], seed: int = 0) -> tuple[Study, Votes]:
    study = open_study(folder, *sources, seed)
    return study, Votes(folder, study)


def test_images_of_equal_prompts_are_paired_equal_seeds_first() -> None:
    first = [Entry("a finch", 1, "a1"), Entry("a finch", 2, "a2"), Entry("an owl", 1, "a3")]
    second = [
        Entry("a  finch", 2, "b2"),
        Entry("a finch", 7, "b7"),
        Entry("a heron", 1, "b3"),
    ]
    pairs = [(left.file, right.file) for left, right in paired(first, second)]
    assert pairs == [("a2", "b2"), ("a1", "b7")]


def test_sides_are_random_and_repeat_with_the_seed(tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    sources = [str(write_results(tmp_path / name, prompts, name)) for name in ("red", "blue")]
    lefts = [
        [pair.left for pair in open_study(tmp_path / f"{number}", sources[0], sources[1], seed).pairs]
        for number, seed in enumerate((0, 0, 1))
    ]
    assert lefts[0] == lefts[1] != lefts[2]
    assert lefts[0].count("a") == 100
    assert 5 < sum(one != other for one, other in zip(lefts[0], lefts[2], strict=True)) < 195
    study = open_study(tmp_path / "0")
    assert [pair.key for pair in study.order("anna")] != [pair.key for pair in study.order("ben")]
    assert all(shown_at(pair, "left") == (pair.a if pair.left == "a" else pair.b) for pair in study.pairs)


def test_a_study_stays_what_it_is(tmp_path: Path, sources: tuple[str, str]) -> None:
    folder = tmp_path / "study"
    study, _ = opened(folder, sources)
    assert open_study(folder) == open_study(folder, *sources) == study
    with pytest.raises(BadInput, match="has a study of"):
        open_study(folder, sources[1], sources[0])
    with pytest.raises(BadInput, match="no study"):
        open_study(tmp_path / "other")
    with pytest.raises(BadInput, match="share|has an image in both"):
        open_study(tmp_path / "other", sources[0], str(write_results(tmp_path / "c", ["else"], "green")))
    (folder / "study.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="no study that this version"):
        open_study(folder)


def test_a_source_is_not_compared_with_itself(tmp_path: Path, sources: tuple[str, str]) -> None:
    (tmp_path / "link").symlink_to(sources[0])
    copy = shutil.copytree(sources[0], tmp_path / "copy")
    for second in (sources[0], f"{sources[0]}/", str(tmp_path / "link"), str(copy)):
        with pytest.raises(BadInput, match="they are the same images"):
            open_study(tmp_path / "study", sources[0], second)
    assert not (tmp_path / "study").exists()


def test_a_file_is_no_folder_of_a_study(tmp_path: Path, sources: tuple[str, str]) -> None:
    (tmp_path / "file").write_text("mine")
    result = CliRunner().invoke(app, ["judge", *sources, "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "must be a folder" in result.stderr


def test_a_study_needs_two_sources_outside_its_folder(
    tmp_path: Path, sources: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sources
    monkeypatch.chdir(tmp_path)
    image = next(Path(a).glob("*.png"))
    for out, first, second, text in (
        ("study", a, "", "nothing to compare it with"),
        ("study", "", b, "nothing to compare it with"),
        ("study", str(image), b, "it is a file"),
        ("study", a, "~nobody/at/all", "neither a folder nor a run"),
        ("study", a, ",".join(["x" * 40] * 20), "neither a folder nor a run"),
        ("a", a, b, "it is in the source"),
        ("b/study", a, b, "it is in the source"),
    ):
        with pytest.raises(BadInput, match=text):
            open_study(out, first, second)
    assert not list(tmp_path.rglob("study*"))


def test_an_image_that_cannot_be_shown_is_refused_before_a_study_begins(
    tmp_path: Path, sources: tuple[str, str]
) -> None:
    image = Path(sources[1]) / "blue-3.png"
    for data in (b"", b"no image", image.read_bytes()[:40]):
        image.write_bytes(data)
        with pytest.raises(BadInput, match=r"blue-3\.png"):
            open_study(tmp_path / "study", *sources)
    assert not (tmp_path / "study").exists()


def test_images_without_a_partner_are_counted(tmp_path: Path, sources: tuple[str, str]) -> None:
    few = write_results(tmp_path / "few", ["prompt 1", "prompt 7", "prompt 8"], "green")
    shown: list[tuple[int, int]] = []
    study = open_study(tmp_path / "study", sources[0], str(few), on_progress=lambda *done: shown.append(done))
    assert (len(study.pairs), study.unpaired) == (1, (5, 2))
    assert shown == [(0, 1)]
    (pair,) = study.pairs
    assert (pair.a.width, pair.a.height) == (8, 8)


def test_pairs_of_equal_pixels_are_left_out(tmp_path: Path, sources: tuple[str, str]) -> None:
    metadata = PngInfo()
    metadata.add_text("run", "another one")  # so that the files differ
    Image.new("RGB", (8, 8), "red").save(Path(sources[1]) / "blue-2.png", pnginfo=metadata)
    study = open_study(tmp_path / "study", *sources)
    assert (len(study.pairs), study.identical, study.unpaired) == (5, 1, (0, 0))
    assert "prompt 3" not in {pair.prompt for pair in study.pairs}
    result = CliRunner().invoke(app, ["judge", "--results", str(tmp_path / "study")])
    assert "as the two images are equal: 1 pair\n" in result.output


def test_sides_differ_from_study_to_study_unless_a_seed_is_named(tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(40)]
    sources = [str(write_results(tmp_path / name, prompts, name)) for name in ("red", "blue")]
    first, second = (open_study(tmp_path / name, sources[0], sources[1]) for name in ("1", "2"))
    assert [pair.left for pair in first.pairs] != [pair.left for pair in second.pairs]
    assert [pair.key for pair in first.order("anna")] != [pair.key for pair in second.order("anna")]


def test_a_folder_is_the_same_source_from_everywhere(
    tmp_path: Path, sources: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = open_study("study", "a", "./b/")
    assert (study.a, study.b) == sources and open_study("study", "a/", "b") == study
    with pytest.raises(BadInput, match="has a study of"):
        open_study("study", "a", "b", study.seed + 1)


def test_results_runs_and_libraries_are_sources(place: Path) -> None:
    first, second = draw("two things", seed=7), draw("two things", seed=8)
    (entry,) = read_source(first.run_id)
    assert (entry.prompt, entry.seed) == ("two things", 7) and Path(entry.file).is_file()
    assert len(read_source(f"{first.run_id}, {second.run_id}")) == 2
    assert sorted(each.seed or 0 for each in read_source(str(place / "out"))) == [7, 8]
    assert [each.prompt for each in read_source(str(place / "library"))][:2] == ["picture 0", "picture 1"]
    empty = place / "empty"
    empty.mkdir()
    for text in (str(place / "nowhere"), "nothing"):
        with pytest.raises(BadInput, match="neither a folder nor a run"):
            read_source(text)
    with pytest.raises(BadInput):
        read_source(str(empty))


def test_votes_survive_and_a_second_one_does_not_count(tmp_path: Path, sources: tuple[str, str]) -> None:
    folder = tmp_path / "study"
    study, votes = opened(folder, sources)
    first, second, *_ = (pair.key for pair in study.pairs)
    assert votes.vote("anna", first, {**LEFT})  # type: ignore[dict-item]
    assert not votes.vote("anna", first, {"alignment": "right", "quality": "right", "preference": "right"})
    assert votes.vote("ben", first, {**LEFT})  # type: ignore[dict-item]
    with (folder / "votes.jsonl").open("ab") as file:
        file.write(b'{"v":1,"at":1.0,"judge":"an')  # cut off by a crash
    again = Votes(folder, open_study(folder))
    assert set(again.progress("anna").votes) == {first} and len(again.current()) == 2
    assert again.vote("anna", second, {**LEFT})  # type: ignore[dict-item]
    assert len(again.current()) == 3


def test_undo_and_skip(tmp_path: Path, sources: tuple[str, str]) -> None:
    study, votes = opened(tmp_path / "study", sources)
    order = study.order("anna")
    assert votes.undo("anna") == ""
    votes.skip("anna", order[0].key)
    votes.vote("anna", order[1].key, {**LEFT})  # type: ignore[dict-item]
    assert votes.undo("anna") == order[1].key
    progress = votes.progress("anna")
    assert progress.votes == {} and progress.next(order) == order[1]
    assert progress.next(order, again=order[3].key) == order[3]
    for pair in order[1:]:
        votes.vote("anna", pair.key, {**LEFT})  # type: ignore[dict-item]
    assert votes.progress("anna").next(order) == order[0]
    votes.vote("anna", order[0].key, {**LEFT})  # type: ignore[dict-item]
    assert votes.progress("anna").next(order) is None and len(votes.current()) == 6


def test_judges_at_once_do_not_collide(tmp_path: Path, sources: tuple[str, str]) -> None:
    folder = tmp_path / "study"
    study, _ = opened(folder, sources)

    def work(judge: str) -> int:
        own = Votes(folder, study)
        return sum(own.vote(judge, pair.key, {**LEFT}) for pair in study.order(judge))  # type: ignore[dict-item]

    with ThreadPoolExecutor() as pool:
        counts = list(pool.map(work, ["anna", "anna", "ben", "eve"]))
    assert counts[0] + counts[1] == 6 and counts[2:] == [6, 6]
    lines = (folder / "votes.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 18 and all(json.loads(line)["kind"] == "vote" for line in lines)


def test_votes_count_for_the_source_on_their_side(tmp_path: Path, sources: tuple[str, str]) -> None:
    study, votes = opened(tmp_path / "study", sources, seed=3)
    assert {pair.left for pair in study.pairs} == {"a", "b"}
    for pair in study.pairs[:5]:
        side = "left" if pair.left == "a" else "right"
        other = "right" if side == "left" else "left"
        votes.vote("anna", pair.key, {"alignment": side, "quality": other, "preference": "tie"})  # type: ignore[dict-item]
    results = results_of(study, votes.current())
    alignment, quality, preference = results.tallies
    assert (alignment.a, alignment.b, alignment.ties, alignment.share) == (5, 0, 0, 1.0)
    assert (quality.a, quality.b, quality.share) == (0, 5, 0.0)
    assert (preference.ties, preference.share, preference.interval) == (5, None, None)
    assert alignment.interval == pytest.approx(wilson(1.0, 5))
    rows = list(csv.DictReader(io.StringIO(votes_file(study, votes.current(), ".csv").decode())))
    assert [row["alignment"] for row in rows] == ["a"] * 5
    assert all("red" in row["a"] and "blue" in row["b"] for row in rows)
    lines = votes_file(study, votes.current(), ".jsonl").decode().splitlines()
    assert [json.loads(line)["quality"] for line in lines] == ["b"] * 5
    assert winner_of(study, votes.current()[0], "preference") == "tie"


def test_a_prompt_is_no_formula_in_a_table(tmp_path: Path) -> None:
    sources = [str(write_results(tmp_path / name, ["=1+1"], name)) for name in ("red", "blue")]
    study, votes = opened(tmp_path / "study", (sources[0], sources[1]))
    votes.vote("=cmd", study.pairs[0].key, {**LEFT})  # type: ignore[dict-item]
    (row,) = csv.DictReader(io.StringIO(votes_file(study, votes.current(), ".csv").decode()))
    assert row["prompt"] == "'=1+1" and row["judge"] == "'=cmd"


def test_intervals() -> None:
    # Wilson's for 7 of 10: (0.3968, 0.8922), as in textbooks
    assert wilson(0.7, 10) == pytest.approx((0.3968, 0.8922), abs=1e-4)
    assert interval_of([], []) is None
    ones = [1.0, 1.0, 1.0, 0.0, 0.0]
    alone = interval_of(ones, list("abcde"))
    assert alone == pytest.approx(wilson(0.6, 5))
    assert interval_of([1.0] * 9, list("aaabbbccc")) == pytest.approx(wilson(1.0, 3))


def intervals_of_clusters(rng: random.Random, count: int) -> Iterator[tuple[float, float]]:
    """Yield intervals of 60 votes on 20 prompts, whose three judges always agree; the share is 0.7."""
    for _ in range(count):
        values = [float(rng.random() < 0.7) for _ in range(20) for _ in range(1)]
        votes = [value for value in values for _ in range(3)]
        groups = [str(number) for number in range(20) for _ in range(3)]
        interval = interval_of(votes, groups)
        assert interval
        yield interval


def test_judges_who_agree_count_once() -> None:
    values = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    groups = list("abcdef")
    single = interval_of(values, groups)
    agreeing = interval_of(
        [value for value in values for _ in range(3)], [group for group in groups for _ in range(3)]
    )
    assert single and agreeing
    assert agreeing[1] - agreeing[0] > 0.9 * (single[1] - single[0])
    covered = [low <= 0.7 <= high for low, high in intervals_of_clusters(random.Random(0), 400)]
    assert sum(covered) / len(covered) > 0.92


def test_the_command_prints_results(
    tmp_path: Path, sources: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, votes = opened(tmp_path / "study", sources)
    votes.vote("anna", study.pairs[0].key, {**LEFT})  # type: ignore[dict-item]
    runner = CliRunner()
    result = runner.invoke(app, ["judge", "--results", "study", "--export", "votes.csv"])
    assert result.exit_code == 0 and "1 vote on 6 pairs by 1 judge\n" in result.output
    assert (
        "alignment: A wins" in result.output
        and Path("votes.csv").read_text(encoding="utf-8").count("\n") == 2
    )
    plain = json.loads(runner.invoke(app, ["judge", "--results", "study", "--json"]).output)
    assert plain["judges"] == ["anna"] and plain["tallies"][0]["a"] + plain["tallies"][0]["b"] == 1
    assert runner.invoke(app, ["judge", "--results", "study", "--export", "votes.txt"]).exit_code == 2
    assert runner.invoke(app, ["judge", "--results", "nowhere"]).exit_code == 2
    assert runner.invoke(app, ["judge", "--out", "other"]).exit_code == 2
    assert not Path("other").exists()
