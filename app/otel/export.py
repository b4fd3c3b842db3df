"""Export of a run's trace by OTLP over HTTP: by command, and live after each part of a run.

The variables of OpenTelemetry's SDK (`OTEL_EXPORTER_OTLP_…`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
`OTEL_SDK_DISABLED`) are respected. Nothing is sent unless the setting `tracing.otlp` or a command says so.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pleinair.app.otel.images import ImageLinks
from pleinair.app.otel.span import Span, cut, span_id, trace_id
from pleinair.app.otel.spans import ROOT, Source, spans_of
from pleinair.app.paths import Paths
from pleinair.app.runs.calls import read_calls
from pleinair.app.runs.events import read_readable
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.settings import web_address
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import BadInput, NotFound, PleinairError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

SENT = "otlp.json"  # in a run's folder: the number of the newest event whose spans were sent
PATH = "/v1/traces"
EXIT_WAIT = 2.0  # seconds that the end of a program is delayed at most
MOST_TURNS = 1000  # of a chat, whose first request names it
MISSING = "OpenTelemetry is not installed"
REMEDY = "Run `pip install 'pleinair[otel]'`."
CHECK = "Check that a collector takes OTLP over HTTP there; a key goes into OTEL_EXPORTER_OTLP_HEADERS."
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_LOGGERS = (_EXPORTER, "opentelemetry.exporter.otlp.common.http")
_WARNING = threading.Lock()  # taken by the first warning of a program, and never released
log = logging.getLogger(__name__)


def export_run(run: Run, places: Paths, endpoint: str = "") -> int:
    """Send the whole trace of a run, finished or not, and return the number of spans.

    Args:
        run: row of the run.
        places: of the home.
        endpoint: address of a collector, such as http://127.0.0.1:6006; "": the run's setting, else the
            variables of OpenTelemetry, else http://localhost:4318.

    Raises:
        BadInput: OpenTelemetry is missing or disabled, the address is unusable, or the run has not begun.
        PleinairError: the collector did not take the trace.
    """
    _require_installed()
    if _is_disabled():
        raise BadInput("OTEL_SDK_DISABLED is set: no trace is sent", "Unset it.")
    run.require_intact()
    setting = read_request(run.request_json).settings.tracing.otlp
    exporter = _exporter(endpoint or setting)
    spans = readable(run_spans(run, places))
    if not spans:
        raise BadInput(f"run {run.id}: it has no trace yet (status: {run.status})")
    with _silent() as remarks:
        is_sent = _send(exporter, spans)
    if not is_sent:
        raise PleinairError(f"The trace was not sent to {_address(exporter)}: {_reason(remarks)}", CHECK)
    return len(spans)


def run_spans(run: Run, places: Paths) -> list[Span]:
    """Return the spans of a run that have ended, in the order of their ends."""
    request = read_request(run.request_json)
    source = Source(
        run_id=run.id,
        request=request,
        events=read_readable(places.events(run.id)).events,
        calls=read_calls(places.files(run.id)),
        links=ImageLinks(run.id, places, request.settings.tracing.image_url),
        conversation=_conversation(run.id, request, Runs(places.table)),
    )
    return spans_of(source)


def _conversation(run_id: str, request: DrawRequest, runs: Runs) -> str:
    """Return the id of a chat, which is that of its first request; "" for a run of no chat."""
    first = run_id if request.thread else ""
    for _ in range(MOST_TURNS):
        before = request.thread.after if request.thread else ""
        if not before:
            break
        first = before
        try:
            request = read_request(runs.get(first).request_json)
        except PleinairError:  # deleted, or damaged
            break
    return first


def readable(spans: Iterable[Span]) -> list[ReadableSpan]:
    """Return spans as OpenTelemetry's exporters take them."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    name = {} if _names_service() else {"service.name": "pleinair"}
    resource = Resource.create({**name, "service.version": version("pleinair")})
    scope = InstrumentationScope("pleinair", version("pleinair"))
    return [_readable(span, resource, scope) for span in spans]


def _names_service() -> bool:
    return bool(os.environ.get("OTEL_SERVICE_NAME")) or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )


def _readable(span: Span, resource: Any, scope: Any) -> ReadableSpan:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(run: str, key: str) -> SpanContext:
        flags = TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(trace_id(run), span_id(run, key), is_remote=False, trace_flags=flags)

    codes = {"": StatusCode.UNSET, "ok": StatusCode.OK, "error": StatusCode.ERROR}
    return ReadableSpan(
        name=span.name,
        context=context(span.run, span.key),
        parent=context(span.run, span.parent) if span.parent else None,
        resource=resource,
        attributes=dict(span.attributes),
        events=[Event(event.name, dict(event.attributes), _nanoseconds(event.at)) for event in span.events],
        links=[Link(context(link.run, ROOT), dict(link.attributes)) for link in span.links],
        kind=SpanKind.CLIENT if span.is_call else SpanKind.INTERNAL,
        status=Status(codes[span.status], span.reason or None),
        start_time=_nanoseconds(span.start),
        end_time=_nanoseconds(span.end),
        instrumentation_scope=scope,
    )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def send_new(run_id: str, places: Paths) -> None:
    """Send the spans of a run that were not sent yet, in a thread; what fails is one warning, and no error.

    They are built here, so that nothing but the collector is waited for at the end of the program.
    """
    try:
        run = Runs(places.table).get(run_id)
        setting = read_request(run.request_json).settings.tracing.otlp
        if _is_disabled() or not setting:
            return
        _require_installed()
        files = places.files(run_id)
        newest = _sent(files)
        spans = [span for span in run_spans(run, places) if span.closed > newest]
        if spans:
            sending = _Sending(run_id, _exporter(setting), readable(spans), files, spans[-1].closed)
            sending.start()
    except Exception as error:  # a trace is no reason to fail a run
        _warn(run_id, str(error) if isinstance(error, PleinairError) else f"{type(error).__name__}: {error}")


class _Sending(threading.Thread):
    """Thread that sends spans, and then writes which event they reach to."""

    def __init__(
        self, run_id: str, exporter: SpanExporter, spans: list[ReadableSpan], files: Folder, newest: int
    ) -> None:
        super().__init__(name=f"trace of {run_id}", daemon=True)
        self.run_id, self._exporter, self._spans = run_id, exporter, spans
        self._files, self._newest = files, newest
        _pending().append(self)

    def run(self) -> None:
        with _silent() as remarks:
            is_sent = _send(self._exporter, self._spans)
        if is_sent:
            with suppress(PleinairError, OSError):  # a full disk: they are sent once more
                if self._files.sizes():  # else the run has been deleted
                    text = json.dumps({"newest": self._newest}).encode()
                    self._files.write(SENT, text, durable=False)
        else:
            _warn(self.run_id, f"{_address(self._exporter)}: {_reason(remarks)}")
        with suppress(ValueError):
            _pending().remove(self)


@cache
def _pending() -> list[_Sending]:
    """Return the list of threads that are sending; the end of the program waits for them for some seconds."""
    atexit.register(finish_sending)
    return []


def finish_sending(seconds: float = EXIT_WAIT) -> None:
    """Wait for traces that are being sent, at most some seconds; one warning says that one was not."""
    end, pending = time.monotonic() + seconds, [*_pending()]
    for sending in pending:
        sending.join(max(end - time.monotonic(), 0.0))
    if waiting := next((sending for sending in pending if sending.is_alive()), None):
        _warn(waiting.run_id, "it does not answer")


def _warn(run_id: str, reason: str) -> None:
    """Log that a trace was not sent, once in a program."""
    if _WARNING.acquire(blocking=False):
        log.warning(
            "The trace of run %s was not sent to the collector (%s). The run is not affected; "
            "`pleinair trace export %s --otlp` sends it.",
            run_id,
            reason,
            run_id,
        )


def _sent(files: Folder) -> int:
    try:
        return int(json.loads(files.read(SENT) or b"")["newest"])
    except (ValueError, KeyError, TypeError):
        return -1


def _send(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> bool:
    from opentelemetry.sdk.trace.export import SpanExportResult

    try:
        return exporter.export(spans) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()


def _exporter(setting: bool | str) -> SpanExporter:
    """Return an exporter to an address, or for True or "" as OpenTelemetry's variables say."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    try:
        return OTLPSpanExporter(
            endpoint=endpoint_of(setting) if isinstance(setting, str) and setting else None
        )
    except ValueError as error:
        raise BadInput(f"OTLP: {error}", "Correct the variable OTEL_EXPORTER_OTLP_….") from error


def endpoint_of(address: str) -> str:
    """Return the full address for traces; raise `BadInput` for what is no address of a web server."""
    try:
        plain = web_address(address).rstrip("/")
    except ValueError as error:
        raise BadInput(f"OTLP endpoint {address[:80]!r}: {error}") from error
    return plain if plain.endswith(PATH) else plain + PATH


def _address(exporter: Any) -> str:
    return str(getattr(exporter, "_endpoint", "")).rpartition("@")[2]


def _is_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _require_installed() -> None:
    try:
        import_module(_EXPORTER)
    except ImportError as error:
        raise NotFound(MISSING, REMEDY) from error


@contextmanager
def _silent() -> Iterator[list[str]]:
    """Collect what the exporter logs in this thread, which is not shown."""
    remarks, thread = list[str](), threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        remarks.append(record.getMessage())
        return False

    for name in _LOGGERS:
        logging.getLogger(name).addFilter(keep)
    try:
        yield remarks
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(keep)


def _reason(remarks: list[str]) -> str:
    return cut(remarks[0], 300) if remarks else "no reason given"
