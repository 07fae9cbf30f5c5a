"""A round as a trace of OpenTelemetry's: a span for it, and below it one for each of its phases.

Spans say numbers of rounds and volunteers, no names. They wait in the SDK's queue and are sent from
its thread: a collector that is away holds no round up, and what it misses is dropped.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from nomoat.aggregation.errors import UsageError
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress

WANTED: Final = (
    "watch.traces needs OpenTelemetry: pip install opentelemetry-sdk "
    "opentelemetry-exporter-otlp-proto-http"
)
SERVICE: Final = "nomoat"
SEND_WITHIN_S: Final = 5
log = logging.getLogger(__name__)

Tracer = Any  # opentelemetry.trace.Tracer: the package is an extra


class RoundTraces:
    """Makes spans of what it is told of rounds."""

    def __init__(self, tracer: Tracer) -> None:
        self._api = importlib.import_module("opentelemetry.trace")
        self._tracer = tracer
        self._round: Any = None
        self._phase: Any = None
        self._at = (-1, "")

    def progress(self, progress: RoundProgress) -> None:
        """Begin a span for a round or a phase that is new; note who has answered in it."""
        if progress.round != self._at[0]:
            self._end()
            name = {"nomoat.round": progress.round}
            self._round = self._tracer.start_span("round", attributes=name)
        if (progress.round, progress.phase) != self._at:
            if self._phase is not None:
                self._phase.end()
            within = self._api.set_span_in_context(self._round)
            self._phase = self._tracer.start_span(progress.phase, context=within)
            self._at = (progress.round, progress.phase)
        self._phase.set_attributes(
            {"nomoat.asked": progress.asked, "nomoat.answered": progress.answered}
        )

    def ended(self, record: RoundRecord) -> None:
        """End a round's span with what came of it."""
        if self._round is None:
            return
        attributes: dict[str, bool | int | float] = {
            "nomoat.committed": record.committed,
            "nomoat.cohort": len(record.cohort),
            "nomoat.in_sum": len(record.contributors),
            "nomoat.dropped": len(record.dropped),
            "nomoat.refused": len(record.refused),
            "nomoat.bytes_up": record.bytes_up,
            "nomoat.bytes_down": record.bytes_down,
        }
        if record.loss is not None:
            attributes["nomoat.loss"] = record.loss
        self._round.set_attributes(attributes)
        self._end()

    def _end(self) -> None:
        for span in (self._phase, self._round):
            if span is not None:
                span.end()
        self._phase = self._round = None
        self._at = (-1, "")


class OneLineExporter:
    """Exports by another exporter; a collector that is away is logged once, not at each attempt."""

    def __init__(self, exporter: Any, endpoint: str) -> None:
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._exporter = exporter
        self._endpoint = endpoint
        self._away = False

    def export(self, spans: Sequence[Any]) -> Any:
        """SpanExportResult of the other exporter."""
        result = self._exporter.export(spans)
        away = result.name != "SUCCESS"
        if away and not self._away:
            log.warning("traces do not reach %s: rounds go on, spans are dropped", self._endpoint)
        elif self._away and not away:
            log.warning("traces reach %s again", self._endpoint)
        self._away = away
        return result

    def shutdown(self) -> None:
        """End the other exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Let the other exporter send what it holds, for so long."""
        return bool(self._exporter.force_flush(timeout_millis))


def exported(endpoint: str) -> tuple[Tracer, Callable[[], None]]:
    """A tracer whose spans go to an OTLP/HTTP endpoint, and what sends the last of them.

    UsageError if the extra is not installed. Further settings are OpenTelemetry's own variables
    (OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_…).
    """
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        batches = importlib.import_module("opentelemetry.sdk.trace.export")
        resources = importlib.import_module("opentelemetry.sdk.resources")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError:
        raise UsageError(WANTED) from None
    named = resources.Resource.create({"service.name": SERVICE})
    provider = sdk.TracerProvider(resource=named, shutdown_on_exit=False)
    exporter = OneLineExporter(otlp.OTLPSpanExporter(endpoint, timeout=SEND_WITHIN_S), endpoint)
    provider.add_span_processor(batches.BatchSpanProcessor(exporter))
    return provider.get_tracer("nomoat"), provider.shutdown
