"""Companions of a community that is up: its page, its log of events, metrics and notices.

All of it follows `watch` in community.toml.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry

from nomoat.desk.access.opening import PageAddress, opened
from nomoat.desk.coordinator.site import coordinator_site, refused
from nomoat.desk.watching.event_log import EventLog, path_of
from nomoat.desk.watching.events import Sink
from nomoat.desk.watching.hooks import Hooks, hook_key
from nomoat.desk.watching.metrics import (
    RoundMetrics,
    StandingCollector,
    metrics_port,
    new_registry,
)
from nomoat.desk.watching.notices import Notices, apprise
from nomoat.desk.watching.roster_follower import RosterFollower
from nomoat.desk.watching.round_watcher import RoundEvents
from nomoat.desk.watching.traces import RoundTraces, exported
from nomoat.server.community.folder import hosts
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.host import Deployment
from nomoat.server.rounds.watching import Watcher

MEGABYTE: Final = 1 << 20
END_S: Final = 2.0


@dataclass
class Watched:
    """Runs beside one community."""

    _registry: CollectorRegistry | None = field(default=None, init=False)

    @contextmanager
    def watching(self, community: OpenCommunity) -> Iterator[Sequence[Watcher]]:
        """Follow rounds and roster; NomoatError if a key cannot be read."""
        watch, folder = community.settings.watch, community.folder
        stop = threading.Event()
        with ExitStack() as resources:
            sinks: list[Sink] = []
            threads = []
            if watch.log:
                log = EventLog(path_of(folder), watch.log_megabytes * MEGABYTE)
                resources.callback(log.close)
                sinks.append(log)
            if watch.hooks:
                hooks = Hooks(watch.hooks, hook_key(folder.root / "keys" / "hooks.key"))
                sinks.append(hooks)
                threads.append(threading.Thread(target=hooks.run, args=(stop,), daemon=True))
            if watch.notify:
                notices = Notices(community.settings.community.name, apprise(watch.notify))
                sinks.append(notices)
                threads.append(threading.Thread(target=notices.run, args=(stop,), daemon=True))
            watchers: list[Watcher] = []
            if sinks:
                watchers.append(RoundEvents(sinks, time.time))
                follower = RosterFollower(community.registrar.database, sinks)
                threads.append(threading.Thread(target=follower.run, args=(stop,), daemon=True))
            if watch.metrics_port:
                self._registry = new_registry()
                watchers.append(RoundMetrics(self._registry))
            if watch.traces:
                tracer, flush = exported(watch.traces)
                resources.callback(flush)
                watchers.append(RoundTraces(tracer))
            for thread in threads:
                thread.start()
            resources.callback(_end, stop, threads)
            yield watchers

    @contextmanager
    def showing(self, deployment: Deployment) -> Iterator[Sequence[str]]:
        """Open the page and the port of metrics, as far as they are wanted."""
        community = deployment.community
        watch, folder = community.settings.watch, community.folder
        lines = []
        with ExitStack() as resources:
            if self._registry is not None:
                standing = StandingCollector(community, deployment.grid.online, deployment.meter)
                self._registry.register(standing)
                place = watch.metrics_host, watch.metrics_port
                port = resources.enter_context(metrics_port(self._registry, *place))
                lines.append(f"metrics: http://{watch.metrics_host}:{port}/metrics")
            if watch.web:
                site = coordinator_site(community, deployment.grid.online)
                page = opened(
                    site.app,
                    _address(community),
                    folder.root / "keys" / "page.key",
                    refused(str(folder.root)),
                )
                link = resources.enter_context(page).link
                lines.append(f"page: {link}")
                lines.append(f"(opens once; another link: nomoat page link {folder.root})")
            yield lines


def _address(community: OpenCommunity) -> PageAddress:
    """The page's address; under the community's certificate where others can reach it."""
    watch, folder = community.settings.watch, community.folder
    if watch.web_host in ("127.0.0.1", "::1", "localhost"):
        return PageAddress(watch.web_host, watch.web_port)
    return PageAddress(
        watch.web_host,
        watch.web_port,
        certificate=folder.server_certificate,
        key=folder.server_key,
        names=hosts(community.settings),
    )


def _end(stop: threading.Event, threads: Sequence[threading.Thread]) -> None:
    stop.set()
    for thread in threads:
        thread.join(END_S)
