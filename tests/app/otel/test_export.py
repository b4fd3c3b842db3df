"""Export to a collector: only where it is asked for, once, and without any effect on runs."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.collector import Collector, collecting
from typer.testing import CliRunner

from pleinair.app.api import answer, draw, enqueue, finish, home, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.otel import export
from pleinair.app.otel.export import SENT, endpoint_of, export_run, finish_sending, run_spans
from pleinair.app.otel.span import span_id
from pleinair.app.settings import load
from pleinair.tools.types import BadInput, NotFound, PleinairError

PROMPT = "first thing and second thing"


@pytest.fixture
def collector(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    monkeypatch.setattr(export, "_WARNING", threading.Lock())
    with collecting() as server:
        yield server


def test_nothing_is_sent_unless_the_setting_says_so(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    draw(PROMPT, seed=1)
    finish_sending()
    assert collector.bodies == []
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    draw(PROMPT, seed=1, overrides={"tracing.otlp": True})
    finish_sending()
    assert collector.bodies == []


def test_a_run_is_sent_to_where_the_standard_variables_say(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.address}/base")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret-key")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "studio")
    run = draw(PROMPT, seed=1, overrides={"tracing.otlp": True})
    finish_sending(60)
    assert collector.paths == ["/base/v1/traces"]
    assert collector.headers[0]["api-key"] == "secret-key"
    assert b"secret-key" not in collector.bodies[0]
    (resource,) = collector.requests[0].resource_spans
    names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert names["service.name"] == "studio" and names["telemetry.sdk.language"] == "python"
    sent = [span.span_id for span in collector.batches[0]]
    shown = run_spans(run_table().get(run.run_id), home())
    assert sent == [span_id(run.run_id, span.key).to_bytes(8) for span in shown]


def test_each_span_of_a_run_that_waited_is_sent_once(collector: Collector) -> None:
    run = draw(PROMPT, seed=1, overrides={"approve": "references", "tracing.otlp": collector.address})
    finish_sending(60)
    finish(answer(run.run_id))
    finish_sending(60)
    first, second = ({span.span_id for span in batch} for batch in collector.batches)
    assert first and second and not first & second
    assert export_run(run_table().get(run.run_id), home()) == len(first | second)
    assert {span.span_id for span in collector.batches[2]} == first | second
    newest = json.loads((home().run(run.run_id) / SENT).read_text("utf-8"))["newest"]
    assert newest == run_spans(run_table().get(run.run_id), home())[-1].closed


def test_a_dead_collector_is_one_warning_and_loses_nothing(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting() as dead:
        address = dead.address
    with caplog.at_level(logging.WARNING):
        runs = [draw(PROMPT, seed=seed, overrides={"tracing.otlp": address}) for seed in (1, 2)]
        finish_sending(60)
    assert [run.outcome.ending for run in runs] == ["accepted", "accepted"]
    (record,) = caplog.records
    assert any(run.run_id in record.getMessage() for run in runs)  # they are sent at the same time
    assert "trace export" in record.getMessage()
    row = run_table().get(runs[0].run_id)
    with pytest.raises(PleinairError, match="was not sent to http://127"):
        export_run(row, home())
    assert export_run(row, home(), collector.address) == len(collector.batches[0])


def test_a_collector_that_never_answers_is_not_waited_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setattr(export, "_WARNING", threading.Lock())
    with collecting(is_silent=True) as silent:
        run = draw(PROMPT, seed=1, overrides={"tracing.otlp": silent.address})
        assert run.outcome.ending == "accepted"
        (sending,) = export._pending()
        assert sending.daemon  # it keeps no program from exiting
        finish_sending(0.1)
        assert "does not answer" in caplog.text
        silent.answering.set()
        sending.join()
    assert export._pending() == []


def test_a_fault_of_ours_does_not_fail_a_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(export, "_WARNING", threading.Lock())
    monkeypatch.setattr(export, "run_spans", broken)
    run = draw(PROMPT, seed=1, overrides={"tracing.otlp": "http://127.0.0.1:9"})
    assert run.outcome.ending == "accepted" and "ZeroDivisionError: broken" in caplog.text


def test_without_the_extra_nothing_is_written_and_the_command_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = draw(PROMPT, seed=1)
    monkeypatch.setitem(sys.modules, export._EXPORTER, None)
    with pytest.raises(NotFound, match=r"pip install 'pleinair\[otel\]'"):
        export_run(run_table().get(run.run_id), home())
    monkeypatch.setattr("pleinair.app.models.ready.find_spec", lambda _: None)
    before = len(run_table().newest(10))
    with pytest.raises(BadInput, match=r"tracing.otlp = True.*pip install 'pleinair\[otel\]'"):
        enqueue(PROMPT, client="a", overrides={"tracing.otlp": True})
    assert len(run_table().newest(10)) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracing.otlp", "collector"),
        ("tracing.otlp", "http://user:password@127.0.0.1:4318"),
        ("tracing.otlp", "http://127.0.0.1:4318?key=1"),
        ("tracing.otlp", 3),
        ("tracing.image_url", "file:///home"),
    ],
)
def test_an_unusable_address_is_refused_with_its_key(place: Path, key: str, value: str | int) -> None:
    with pytest.raises(BadInput, match=key) as refused:
        load(overrides={key: value})
    assert "user:password" not in str(refused.value)


def test_an_address_becomes_that_of_traces() -> None:
    assert endpoint_of("http://127.0.0.1:6006/") == "http://127.0.0.1:6006/v1/traces"
    assert endpoint_of("https://host/base/v1/traces") == "https://host/base/v1/traces"
    with pytest.raises(BadInput, match="must be an address"):
        endpoint_of("127.0.0.1")


def test_the_command_sends_a_run_and_explains_what_is_missing(collector: Collector) -> None:
    draw(PROMPT, seed=1)
    done = CliRunner().invoke(app, ["trace", "export", "last", "--otlp", collector.address])
    assert (done.exit_code, done.stdout) == (0, f"{len(collector.batches[0])} spans sent\n")
    assert CliRunner().invoke(app, ["trace", "export", "last"]).exit_code == 2
    submit(PROMPT, seed=2)
    waiting = CliRunner().invoke(app, ["trace", "export", "last", "--otlp", collector.address])
    assert waiting.exit_code == 2 and "no trace yet" in waiting.stderr


def test_what_a_collector_refuses_has_a_reason_and_a_remedy(collector: Collector) -> None:
    draw(PROMPT, seed=1, graph="direct")
    collector.status = 401
    refused = CliRunner().invoke(app, ["trace", "export", "last", "--otlp", collector.address])
    assert refused.exit_code == 5 and "401" in refused.stderr
    assert "OTEL_EXPORTER_OTLP_HEADERS" in refused.stderr


def test_of_warnings_at_the_same_time_there_is_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export, "_WARNING", threading.Lock())
    together = threading.Barrier(8)

    def warn() -> None:
        together.wait()
        export._warn("a run", "a reason")

    threads = [threading.Thread(target=warn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caplog.records) == 1
