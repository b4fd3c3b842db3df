"""The gap report: from the events of runs, each of which is read once."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pleinair.app.api import draw, home, run_table
from pleinair.app.library import retrievals
from pleinair.app.library.gaps import day, gaps_of, looked_for, name_of
from pleinair.app.library.opened import OpenLibrary
from pleinair.app.library.retrievals import Abstention, Retrieved, RetrievedCache
from pleinair.app.settings import load
from pleinair.tools.types import BadInput


@pytest.fixture(scope="module")
def runs(shelf: Path) -> list[str]:
    return [draw("two things", seed=seed).run_id for seed in (1, 2)]


def record(run: str, ended: float, *abstentions: Abstention) -> Retrieved:
    return Retrieved(run=run, ended=ended, abstentions=abstentions)


def test_the_report_has_what_the_runs_did_not_find(runs: list[str]) -> None:
    retrieved = RetrievedCache(run_table(), home()).all()
    assert [each.run for each in retrieved.runs] == runs[::-1] and retrieved.damaged == 0
    (gap,) = gaps_of(retrieved.runs)
    assert gap.concept == "second thing" and gap.runs == tuple(runs[::-1])
    assert gap.best is not None and gap.threshold == 0.9 and gap.best < 0.9
    assert gap.covered is None


def test_each_run_is_read_once(runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = RetrievedCache(run_table(), home()).all()
    reads, real = list[str](), retrievals._read

    def counted(id: str, *rest: Any) -> Retrieved:
        reads.append(id)
        return real(id, *rest)

    monkeypatch.setattr(retrievals, "_read", counted)
    assert RetrievedCache(run_table(), home()).all() == first and reads == []
    file = home().cache / "retrieved.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0][:-9] + b"\n" + lines[1] + b'{"v":99}\nnot JSON\n')
    assert RetrievedCache(run_table(), home()).all() == first and len(reads) == 1


def test_damaged_rows_and_logs_are_counted_and_left_out(runs: list[str]) -> None:
    table, events = run_table(), home().events_file(runs[0])
    text = events.read_bytes()
    events.write_bytes(b"damaged\n")
    (home().cache / "retrieved.jsonl").unlink()
    with table.transaction() as db:
        before = db.execute("SELECT order_json FROM runs WHERE id = ?", (runs[1],)).fetchone()[0]
        db.execute("UPDATE runs SET order_json = 'x' WHERE id = ?", (runs[1],))
    try:
        retrieved = RetrievedCache(table, home()).all()
        assert retrieved.runs == [] and retrieved.damaged == 2
    finally:
        events.write_bytes(text)
        (home().cache / "retrieved.jsonl").unlink()
        with table.transaction() as db:
            db.execute("UPDATE runs SET order_json = ? WHERE id = ?", (before, runs[1]))


def test_gaps_are_grouped_by_concept_and_filtered_by_date() -> None:
    panda, other = "a photo of a red panda", "red pandas"
    day_1, day_2 = (datetime(2026, 11, n, 12, tzinfo=UTC).timestamp() for n in (1, 20))
    runs = [
        record("c", day_2, Abstention(concept="A Red  Panda", query=panda, best=0.4, threshold=0.6)),
        record("b", day_1, Abstention(concept="red panda", query=other, best=0.5, threshold=0.7)),
        record("a", day_1, Abstention(concept="kestrel", query="kestrel")),
    ]
    panda_gap, kestrel = gaps_of(runs)
    assert (panda_gap.runs, panda_gap.best, panda_gap.threshold, panda_gap.query) == (
        ("c", "b"),
        0.5,
        0.6,
        panda,
    )
    assert panda_gap.last.timestamp() == day_2 and kestrel.best is None
    assert [gap.runs for gap in gaps_of(runs, day("2026-11-10"))] == [("c",)]
    assert name_of("The  RED\tPanda") == name_of("red panda") != name_of("redpanda")
    for text in ("yesterday", "2026-13-01", "1" * 99):
        with pytest.raises(BadInput, match="must be a date"):
            day(text)
    assert day(" ") is None


def test_a_gap_that_is_covered_by_now_is_marked_on_request(shelf: Path) -> None:
    runs = [
        record("a", 1.0, Abstention(concept="kestrel", query="kestrel", best=0.1, threshold=0.9)),
        record("a", 1.0, Abstention(concept="zubrin", query="zubrin", best=0.1, threshold=0.9)),
    ]
    looked = looked_for(gaps_of(runs), OpenLibrary(load(), home()))
    assert {gap.concept: gap.covered for gap in looked} == {"kestrel": True, "zubrin": False}
