"""Traces of rounds: spans below one another, numbers and no names, a collector that may be away."""

from __future__ import annotations

import gzip
import http.server
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.desk.watching.traces import OneLineExporter, RoundTraces, exported
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress

PHASES = ("training", "aggregating", "evaluating")
RECORD = RoundRecord(3, True, "held-out loss changed by -1%", cohort=["ada", "ben", "cyd"],
                     contributors=["ada", "ben"], dropped={"cyd": "too late to train"},
                     loss=2.5, bytes_up=100, bytes_down=200)  # fmt: skip


def run_round(traces: RoundTraces, number: int = 3) -> None:
    for phase in PHASES:
        for answered in range(3):
            traces.progress(RoundProgress(number, phase, answered, 3))
    traces.ended(RECORD)


@pytest.fixture
def spans() -> Any:
    """An exporter that keeps what it is given, and a tracer of it."""
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return kept, provider.get_tracer("test")


def test_each_phase_of_a_round_is_a_span_below_the_rounds(spans: Any) -> None:
    kept, tracer = spans
    run_round(RoundTraces(tracer))
    *phases, whole = kept.get_finished_spans()
    assert [span.name for span in phases] == list(PHASES)
    assert {span.parent.span_id for span in phases} == {whole.context.span_id}
    assert {span.attributes["nomoat.answered"] for span in phases} == {2}
    assert whole.name == "round"
    assert whole.attributes["nomoat.round"] == 3
    assert whole.attributes["nomoat.committed"]
    assert whole.attributes["nomoat.in_sum"] == 2
    assert whole.attributes["nomoat.loss"] == 2.5


def test_no_span_names_anybody(spans: Any) -> None:
    kept, tracer = spans
    run_round(RoundTraces(tracer))
    said = " ".join(span.to_json() for span in kept.get_finished_spans())
    assert not [name for name in ("ada", "ben", "cyd", "too late") if name in said]


def test_a_round_that_was_cut_off_ends_with_the_next(spans: Any) -> None:
    kept, tracer = spans
    traces = RoundTraces(tracer)
    traces.progress(RoundProgress(2, "training", 0, 3))
    run_round(traces)
    rounds = [span for span in kept.get_finished_spans() if span.name == "round"]
    assert [span.attributes["nomoat.round"] for span in rounds] == [2, 3]
    assert "nomoat.committed" not in rounds[0].attributes


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what is posted to it, as an OpenTelemetry collector does."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        packed = self.headers.get("content-encoding") == "gzip"
        self.bodies.append(gzip.decompress(body) if packed else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        server.shutdown()
        thread.join()


def test_a_collector_gets_the_spans_over_http(collector: str) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp", reason="OpenTelemetry is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    Collector.bodies.clear()
    tracer, flush = exported(collector)
    run_round(RoundTraces(tracer))
    flush()
    found = ExportTraceServiceRequest.FromString(Collector.bodies[0])
    (resource,) = found.resource_spans
    assert {"service.name": "nomoat"}.items() <= {
        each.key: each.value.string_value for each in resource.resource.attributes
    }.items()
    names = {span.name for scope in resource.scope_spans for span in scope.spans}
    assert names == {"round", *PHASES}


def test_a_collector_that_is_away_is_told_of_once_and_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    export = pytest.importorskip(
        "opentelemetry.sdk.trace.export", reason="OpenTelemetry is not installed"
    )
    gone, here = export.SpanExportResult.FAILURE, export.SpanExportResult.SUCCESS
    results = iter([here, gone, gone, gone, here, here])

    class Scripted(export.SpanExporter):  # type: ignore[misc, name-defined]
        def export(self, _spans: Any) -> Any:
            return next(results)

    exporter = OneLineExporter(Scripted(), "http://127.0.0.1:1")
    for _ in range(6):
        exporter.export([])
    assert [line.split(":")[0] for line in caplog.messages] == [
        "traces do not reach http",
        "traces reach http",
    ]


def test_an_exporter_that_finds_nobody_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp", reason="OpenTelemetry is not installed")
    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        free = server.server_address[1]
    tracer, flush = exported(f"http://127.0.0.1:{free}/v1/traces")
    run_round(RoundTraces(tracer))
    flush()
    assert len(caplog.messages) == 1
    assert "rounds go on" in caplog.messages[0]


def test_traces_without_their_library_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(UsageError, match="pip install opentelemetry-sdk"):
        exported("http://127.0.0.1:1/v1/traces")
