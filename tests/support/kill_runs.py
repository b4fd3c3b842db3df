"""Start runs in child processes and kill them: `python kill_runs.py KILLS SEED`.

This process imports everything once and never starts a thread, so that a run costs only a fork. It prints
its observations as JSON for the test to check.
"""

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pleinair.app.api import finish, home, resume, run_table, submit
from pleinair.app.runs.events import Event, read
from pleinair.app.runs.results import versions
from pleinair.tools.registry import names

Action = Callable[[], object]


def fork(action: Action) -> int:
    """Run an action in a child process, which prints the traceback of an error; return the child's id."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def in_child(action: Action) -> None:
    """Run an action in a child process and wait for it."""
    _, status = os.waitpid(fork(action), 0)
    assert status == 0, status


def killed_after(action: Action, seconds: float) -> bool:
    """Kill a child after some time; return False if it ended before."""
    pid = fork(action)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def killed_at(run_id: str, count: int, delay: float) -> bool:
    """Let a child kill itself after its `count`th event; return False if there were fewer events."""
    events = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    return os.WIFSIGNALED(os.waitpid(fork(lambda: resume(run_id, on_event)), 0)[1])


def import_what_a_run_imports() -> None:
    """Import what a run in a child imported, so that the next ones need not."""

    def modules() -> list[str]:
        resume(start({}, 0))
        return list(sys.modules)

    for name in in_child_with_result(modules):
        with contextlib.suppress(ImportError):  # some modules are made by others
            import_module(name)


def start(settings: dict[str, Any], seed: int) -> str:
    """Write the row of a new run in a child, so that no database is open here while forking."""
    reader, writer = os.pipe()
    in_child(lambda: os.write(writer, submit("two things", seed=seed, overrides=settings).id.encode()))
    return os.read(reader, 100).decode()


def kill_repeatedly(run_id: str, rng: random.Random, kills: int, usual: float) -> int:
    """Kill a run at random moments until it ends or was killed often enough; return how many kills hit it."""
    hits, hit = 0, True
    while hit and hits < kills:
        if rng.random() < 0.5:
            hit = killed_after(lambda: resume(run_id), rng.uniform(0, usual))
        else:
            hit = killed_at(run_id, rng.randint(1, 20), rng.uniform(0, 0.005))
        hits += hit
    in_child(lambda: finish(run_table().get(run_id)))
    return hits


def remains(run_id: str) -> dict[str, Any]:
    """Return everything that must not depend on kills, with the files that are on disk."""
    run = run_table().get(run_id)
    folder = home().run(run_id)
    out = Path(os.environ["PLEINAIR_PATHS__OUT"])
    numbers = [event.seq for event in read(home().events(run_id))]
    return {
        "status": run.status,
        "outcome": without_seconds(json.loads(run.outcome_json or "null")),
        "pictures": files(folder / "pictures"),
        "results": sorted(name.replace(run_id, "RUN") for name in files(out) if run_id in name),
        "log": numbers == list(range(len(numbers))),
        "sidecar": without_seconds(
            json.loads(next(out.glob(f"{run_id}*.json")).read_text("utf-8"))["attempts"]
        ),
    }


def files(folder: Path) -> list[str]:
    """List all files and empty folders below a folder, except those named by the run's id."""
    paths = [path for path in folder.rglob("*") if path.is_file() or not any(path.iterdir())]
    names = [str(path.relative_to(folder)) for path in paths if path != folder / "parts"]
    return sorted("steps/STEP" if name.startswith("steps/") else name for name in names)


def without_seconds(value: Any) -> Any:
    """Remove durations, which differ between equal runs."""
    if isinstance(value, dict):
        return {key: without_seconds(inner) for key, inner in value.items() if key != "seconds"}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


def report(reader: int) -> Any:
    """Read the result of a child."""
    with os.fdopen(reader, encoding="utf-8") as file:
        return json.loads(file.read())


def in_child_with_result(action: Callable[[], Any]) -> Any:
    """Run an action in a child and return its result."""
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "w", encoding="utf-8") as file:
            json.dump(action(), file)

    pid = fork(write)
    os.close(writer)
    answer = report(reader)
    os.waitpid(pid, 0)
    return answer


def experiment(kills: int, seed: int) -> dict[str, Any]:
    """Kill runs of two kinds until enough kills have hit; compare each with an undisturbed run."""
    import_what_a_run_imports()
    rng = random.Random(seed)
    sorts: list[dict[str, Any]] = [{}, {"mllm.satisfied": False, "budget.attempts": 4}]
    calm, usual = [], 0.0
    for settings in sorts:
        run_id = start(settings, seed)
        began = time.perf_counter()
        in_child(lambda run_id=run_id: resume(run_id))  # type: ignore[misc]
        usual = max(usual, time.perf_counter() - began)
        calm.append(in_child_with_result(lambda run_id=run_id: remains(run_id)))  # type: ignore[misc]
    hits, runs, wrong = 0, 0, []
    while hits < kills:
        sort = rng.randrange(len(sorts))
        run_id = start(sorts[sort], seed)
        hits += kill_repeatedly(run_id, rng, rng.randint(1, 8), usual)
        runs += 1
        after = in_child_with_result(lambda run_id=run_id: remains(run_id))  # type: ignore[misc]
        if after != calm[sort]:
            wrong.append({"run": run_id, "wanted": calm[sort], "got": after})
    return {"hits": hits, "runs": runs, "wrong": wrong, "calm": calm, "threads": threading.active_count()}


if __name__ == "__main__":
    CACHED = names("graph"), versions()  # cached once per process
    print(json.dumps(experiment(int(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201
