"""Run table: one row per request, one holder at a time, one outcome."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.lease_contention import DONE, commits_of

from pleinair.app.runs import owner, store
from pleinair.app.runs.lease import Lease
from pleinair.app.runs.owner import Owner, new_owner
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs
from pleinair.app.runs.tables import SCHEMA
from pleinair.tools.types import BadInput, Cancelled, Outcome, PleinairError


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs.sqlite")


def add(runs: Runs, request_json: str, seed: int, key: str | None = None) -> Run:
    return runs.add_group([(request_json, seed)], key)[0]


def other_machine() -> Owner:
    return Owner(host="elsewhere/1/2", pid=1, started="1", nonce="00")


def test_a_row_is_written_before_any_work(runs: Runs, tmp_path: Path) -> None:
    run = add(runs, '{"prompt": "x"}', 7)
    assert Runs(tmp_path / "runs.sqlite").get(run.id) == run
    assert (run.status, run.seed, run.fence, run.outcome) == ("queued", 7, 0, None)


def test_newest_first(runs: Runs) -> None:
    ids = [add(runs, "{}", seed).id for seed in range(3)]
    assert [run.id for run in runs.newest(2)] == ids[:0:-1]


def test_an_unknown_run_is_bad_input(runs: Runs) -> None:
    with pytest.raises(BadInput, match="there is none"):
        runs.get("nonsense")


def test_one_key_is_one_run(runs: Runs) -> None:
    first = add(runs, '{"prompt": "x"}', 1, "key")
    assert add(runs, '{"prompt": "x"}', 2, "key") == first


def test_without_a_key_every_request_is_a_run(runs: Runs) -> None:
    assert add(runs, "{}", 1).id != add(runs, "{}", 1).id
    assert add(runs, "{}", 1, "").id != add(runs, "{}", 1, "").id


def test_a_key_for_another_request_is_refused_with_the_difference(runs: Runs) -> None:
    add(runs, '{"prompt": "x", "graph": "direct"}', 1, "key")
    with pytest.raises(BadInput, match=r"key 'key'.*\(prompt\)"):
        add(runs, '{"prompt": "y", "graph": "direct"}', 1, "key")


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait up to five minutes for another thread or process."""
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sixteen_threads_with_one_key_make_one_run(tmp_path: Path) -> None:
    def request(path: Path, number: int) -> str:
        return add(Runs(path), "{}", number, "key").id

    with ThreadPoolExecutor(16) as pool:
        for home in range(20):  # without a wait, SQLite refuses one of them in one home of fifty
            path = tmp_path / f"{home}.sqlite"
            ids = list(pool.map(request, [path] * 16, range(16)))
            assert len(set(ids)) == 1
            assert len(Runs(path).newest(99)) == 1


def test_a_held_run_is_refused_with_holder_and_time(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    runs.claim(run.id, new_owner())
    with pytest.raises(Busy, match=rf"process {os.getpid()} on .*until \d\d:\d\d:\d\d"):
        runs.claim(run.id, new_owner())


def test_an_expired_lease_can_be_claimed(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add(runs, "{}", 1)
    runs.claim(run.id, other_machine())
    with pytest.raises(Busy):
        runs.claim(run.id, new_owner())
    late = time.time() + store.LEASE_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: late)
    assert runs.claim(run.id, new_owner()) == 2


def test_a_dead_process_holds_no_run(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    dead = new_owner().model_copy(update={"started": "1"})
    runs.claim(run.id, dead)
    assert runs.get(run.id).owner is None
    assert runs.claim(run.id, new_owner()) == 2


def test_a_process_is_known_to_be_dead_only_when_it_is() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = new_owner().model_copy(update={"pid": process.pid, "started": owner._started(process.pid)})
        elsewhere = holder.model_copy(update={"host": "elsewhere/1/2"})
        assert not holder.dead()
        assert holder.model_copy(update={"started": "1"}).dead()  # its id now belongs to another process
        process.kill()
        wait_for(holder.dead)  # as a zombie that has not been reaped
    assert holder.dead() and not elsewhere.dead()


@pytest.mark.skipif(sys.platform != "linux", reason="psutil reads the boot time in another way")
def test_a_start_is_the_same_whatever_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = owner._started(os.getpid())
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 9e9)
    assert owner._started(os.getpid()) == before != ""


def test_a_stale_fence_changes_nothing(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    stale_fence = runs.claim(run.id, new_owner().model_copy(update={"started": "1"}))
    fence = runs.claim(run.id, new_owner())
    with pytest.raises(LeaseLost):
        runs.commit(run.id, stale_fence, DONE)
    with pytest.raises(LeaseLost):
        runs.renew(run.id, stale_fence)
    with pytest.raises(LeaseLost):
        runs.release(run.id, stale_fence)
    runs.commit(run.id, fence, DONE)
    assert runs.get(run.id).outcome == DONE


def test_a_finished_run_is_not_claimed_again(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    runs.commit(run.id, runs.claim(run.id, new_owner()), DONE)
    with pytest.raises(Finished, match="accepted"):
        runs.claim(run.id, new_owner(), reopen=True)


def test_only_a_failed_run_is_reopened_and_only_on_demand(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    runs.commit(run.id, runs.claim(run.id, new_owner()), Outcome(ending="failed", reason="full disk"))
    with pytest.raises(Finished):
        runs.claim(run.id, new_owner())
    assert runs.claim(run.id, new_owner(), reopen=True) == 2
    assert (runs.get(run.id).status, runs.get(run.id).outcome) == ("running", None)


def test_a_lease_renews_itself(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add(runs, "{}", 1)
    for module in ("store", "lease"):
        monkeypatch.setattr(f"pleinair.app.runs.{module}.LEASE_SECONDS", 0.06)
    with Lease(runs, run.id):
        before = runs.get(run.id).lease_until
        wait_for(lambda: runs.get(run.id).lease_until > before)


def test_leaving_without_an_outcome_releases_the_run(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    with pytest.raises(ZeroDivisionError), Lease(runs, run.id):
        raise ZeroDivisionError
    assert (runs.get(run.id).status, runs.get(run.id).owner) == ("queued", None)


def test_a_cancellation_reaches_the_holder(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    with Lease(runs, run.id) as lease:
        lease.check()
        runs.request_cancel(run.id)
        with pytest.raises(Cancelled):
            lease.check()


def test_a_cancellation_does_not_change_a_finished_run(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    runs.commit(run.id, runs.claim(run.id, new_owner()), DONE)
    assert runs.request_cancel(run.id).status == "accepted"
    assert runs.get(run.id).cancel_requested == 0


def test_a_holder_without_its_lease_writes_nothing(runs: Runs) -> None:
    run = add(runs, "{}", 1)
    with Lease(runs, run.id) as lease:
        with runs.transaction() as db:
            db.execute("UPDATE runs SET fence = fence + 1")
        with pytest.raises(LeaseLost):
            lease.guard()
        with pytest.raises(LeaseLost):
            lease.commit(DONE)
    assert runs.get(run.id).status == "running"


def test_a_newer_table_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    Runs(path).newest(1)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    db.close()
    with pytest.raises(BadInput, match=rf"runs\.sqlite: .*schema {SCHEMA + 1}"):
        Runs(path).newest(1)


def test_an_unusable_table_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite").write_bytes(b"no database at all, but long enough to be read as one" * 9)
    with pytest.raises(PleinairError, match=r"runs\.sqlite is damaged: file is not a database"):
        Runs(tmp_path / "runs.sqlite").newest(1)


def test_a_failed_renewal_is_repeated(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run, renew, beats = add(runs, "{}", 1), runs.renew, list[int]()

    def shaky(run_id: str, fence: int) -> None:
        beats.append(fence)
        if len(beats) == 1:
            raise PleinairError("database is locked")
        renew(run_id, fence)

    for module in ("store", "lease"):
        monkeypatch.setattr(f"pleinair.app.runs.{module}.LEASE_SECONDS", 0.06)
    monkeypatch.setattr(runs, "renew", shaky)
    with Lease(runs, run.id):
        wait_for(lambda: len(beats) > 1)


def test_several_processes_never_commit_one_run_twice(runs: Runs, tmp_path: Path) -> None:
    ids = [add(runs, "{}", seed).id for seed in range(20)]
    assert sum(commits_of(tmp_path / "runs.sqlite", ids)) == len(ids)
    assert {run.status for run in runs.newest(99)} == {"accepted"}
    assert all(run.fence == 1 for run in runs.newest(99))
