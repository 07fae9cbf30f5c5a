"""Metrics in Prometheus's text format, on a port of their own. No label names a volunteer.

Counters and histograms follow the rounds since this process started; what stands at the moment of a
scrape (volunteers, certificate, disk) is looked up then.
"""

from __future__ import annotations

import shutil
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from nomoat import __version__
from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.lineage import Version
from nomoat.server.community import certificates
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress, Traffic

BUCKETS: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
PHASES: Final = ("training", "aggregating", "evaluating")


class RoundMetrics:
    """A watcher of rounds that counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rounds = Counter("nomoat_rounds", "Rounds that ended.", ["result"], registry=registry)
        self._updates = Counter(
            "nomoat_updates",
            "Volunteers asked for an update, by what became of it.",
            ["result"],
            registry=registry,
        )
        self._tokens = Counter("nomoat_tokens", "Tokens trained on.", registry=registry)
        self._bytes = Counter(
            "nomoat_round_bytes",
            "Bytes of HTTP that rounds took, up to the coordinator or down from it.",
            ["direction"],
            registry=registry,
        )
        self._seconds = Histogram(
            "nomoat_round_duration_seconds", "Of a round.", registry=registry, buckets=BUCKETS
        )
        self._phases = Histogram(
            "nomoat_phase_duration_seconds",
            "Of a phase of a round.",
            ["phase"],
            registry=registry,
            buckets=BUCKETS,
        )
        self._round = Gauge("nomoat_round", "The round under way.", registry=registry)
        self._answered = Gauge(
            "nomoat_round_answered", "Messages of the phase that are answered.", registry=registry
        )
        self._asked = Gauge(
            "nomoat_round_asked", "Messages of the phase that were sent.", registry=registry
        )
        self._last: RoundProgress | None = None
        for result in ("committed", "abandoned"):
            self._rounds.labels(result)
        for result in ("accepted", "late", "refused"):
            self._updates.labels(result)

    def progress(self, progress: RoundProgress) -> None:
        """Follow the round under way."""
        if progress == self._last:
            return
        self._last = progress
        self._round.set(progress.round)
        self._answered.set(progress.answered)
        self._asked.set(progress.asked)

    def ended(self, record: RoundRecord) -> None:
        """Count a round that ended."""
        self._bytes.labels("up").inc(record.bytes_up)
        self._bytes.labels("down").inc(record.bytes_down)
        if record.round == 0:  # nothing was trained in it
            return
        self._rounds.labels("committed" if record.committed else "abandoned").inc()
        self._updates.labels("accepted").inc(len(record.contributors))
        self._updates.labels("late").inc(len(record.dropped))
        self._updates.labels("refused").inc(len(record.refused))
        self._tokens.inc(record.tokens)
        self._seconds.observe(sum(record.seconds.values()))
        for phase, seconds in record.seconds.items():
            self._phases.labels(phase).observe(seconds)


@dataclass(frozen=True, eq=False)  # the registry keeps it in a dictionary
class StandingCollector:
    """The state at a scrape. online: names of volunteers who are; carried: HTTP bytes."""

    community: OpenCommunity
    online: Callable[[], Collection[str]]
    carried: Callable[[], Traffic]

    def collect(self) -> Iterable[Metric]:
        """Look it up."""
        folder, store = self.community.folder, self.community.registrar.database
        standings = Tally(applicant.standing for applicant in store.applicants())
        volunteers = GaugeMetricFamily(
            "nomoat_volunteers", "Volunteers that ever enrolled.", labels=["standing"]
        )
        for standing in Standing:
            volunteers.add_metric([standing.value], standings[standing])
        yield volunteers
        yield _gauge("nomoat_volunteers_online", "Volunteers online.", len(self.online()))
        newest = store.newest_version()
        if newest is not None:
            number, at = newest.version.number, newest.version.at
            yield _gauge("nomoat_version", "Number of the newest version.", number)
            yield _gauge("nomoat_version_timestamp_seconds", "When it was signed.", at)
            yield _losses(newest.version)
        ends = certificates.expires(folder.server_certificate.read_bytes()).timestamp()
        yield _gauge("nomoat_certificate_expiry_timestamp_seconds", "Its end.", ends)
        free = shutil.disk_usage(folder.root).free
        yield _gauge("nomoat_disk_free_bytes", "Free where the community's folder is.", free)
        carried = self.carried()
        port = CounterMetricFamily(
            "nomoat_port_bytes", "Bytes of HTTP since the port opened.", labels=["direction"]
        )
        port.add_metric(["up"], carried.up)
        port.add_metric(["down"], carried.down)
        yield port


def new_registry() -> CollectorRegistry:
    """A registry that has this process and nomoat's version in it."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    info = Gauge("nomoat_build_info", "Of nomoat.", ["version"], registry=registry)
    info.labels(__version__).set(1)
    return registry


@contextmanager
def metrics_port(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve a registry on http://host:port/metrics while the block runs; yields the port.

    NomoatError if it cannot listen.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as problem:
        raise NomoatError(
            f"cannot listen on {host}:{port} for metrics: {problem.strerror}; choose another "
            "watch.metrics_port"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _losses(version: Version) -> GaugeMetricFamily:
    """The losses of a version, as far as they were measured."""
    found = GaugeMetricFamily(
        "nomoat_eval_loss", "Of the newest version, nats per token.", labels=["rows"]
    )
    for rows, loss in (("volunteers", version.loss), ("community", version.evaluation)):
        if loss is not None:
            found.add_metric([rows], loss)
    return found


def _gauge(name: str, said: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, said, value=value)
