"""The porters of a community: started, told who may speak, started again when one ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.server.fleet.sealed_grid import Addressee
from nomoat.server.port.http_app import inside
from nomoat.server.port.listening import ListenOptions, bind
from nomoat.server.port.services import Directory, PortServices
from nomoat.server.porters.frames import Frame, MemberChanges, NewCertificate
from nomoat.server.porters.porter import PorterSettings
from nomoat.server.porters.round_side import PorterLink, RoundSide

log = logging.getLogger(__name__)

Known: TypeAlias = Mapping[bytes, Addressee]

STARTS_WITHIN_S = 30.0
AGAIN_S, AGAIN_AT_MOST_S = 0.2, 30.0  # pauses before a porter is started again
STEADY_S = 60.0  # after which an end is no reason to wait longer


@dataclass(frozen=True)
class Team:
    """The porters to be: how many, where, for whom. proxies: as in `Forwarded`."""

    services: PortServices
    directory: Directory
    listening: ListenOptions
    proxies: Sequence[str]

    def settings(self, port: int) -> PorterSettings:
        """The settings of each, at a port that is known."""
        certificate, key = self.listening.certificate, self.listening.key
        assert certificate is not None
        assert key is not None
        return PorterSettings(
            self.listening.host,
            port,
            str(certificate.resolve()),
            str(key.resolve()),
            self.listening.processes,
            str(self.services.state.folder.resolve()),
            self.services.registrar.keys.founding.hex(),
            list(self.proxies),
            logging.getLogger().level,
        )


@dataclass
class Porters:
    """The porters that are up, in one loop. Everything but `load_cert_chain` is called there."""

    team: Team
    port: int
    side: RoundSide = field(init=False)
    _links: list[PorterLink | None] = field(default_factory=list)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _told: Known = field(default_factory=dict)
    _pauses: dict[int, float] = field(default_factory=dict)
    _starting: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None
    _closing: bool = False

    def __post_init__(self) -> None:
        services = self.team.services
        self.side = RoundSide(inside(services), services.state, self.tell_changes)

    async def open(self) -> None:
        """Start them all."""
        self._loop = asyncio.get_running_loop()
        self.team.directory.now()
        self._told = self.team.directory.latest
        self._links = [None] * self.team.listening.processes
        self._processes = [await self._started(which) for which in range(len(self._links))]

    async def listening(self) -> None:
        """Wait until all serve volunteers; NomoatError if one cannot."""
        for which, link in enumerate(self._links):
            ended = self._processes[which].poll()
            if link is None or ended is not None:
                raise NomoatError(f"port process {which + 1} ended at once (status {ended})")
            try:
                await asyncio.wait_for(link.listening.wait(), STARTS_WITHIN_S)
            except TimeoutError:
                raise NomoatError(f"port process {which + 1} does not listen") from None

    async def close(self) -> None:
        """End them all."""
        self._closing = True
        for link in self._links:
            if link is not None:
                link.close()
        for process in self._processes:
            process.kill()  # nothing of theirs is worth a wait
            await asyncio.to_thread(process.wait)

    def load_cert_chain(self, _certificate: Path, _key: Path) -> None:
        """The files hold another certificate, to be shown from now on; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._say, NewCertificate())

    def tell_changes(self) -> None:
        """Tell the porters who may speak, if that is not what they were told last."""
        known, told = self.team.directory.latest, self._told
        if known is not told:
            self._told = known
            self._say(changes(told, known))

    def _say(self, frame: Frame) -> None:
        for link in self._links:
            if link is not None:
                link.say(frame)

    async def _started(self, which: int) -> subprocess.Popen[bytes]:
        """Start one porter, and tell it who may speak."""
        ours, theirs = socket.socketpair()
        word = self.team.settings(self.port).word()
        with theirs:
            process = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable, "-P", "-m", "nomoat.server.porters.porter", word],
                stdin=theirs.fileno(),
            )
        began = time.monotonic()
        loop = asyncio.get_running_loop()

        def lost() -> None:
            self._links[which] = None
            if not self._closing:
                self._starting[which] = loop.create_task(
                    self._again(which, time.monotonic() - began)
                )

        ours.setblocking(False)
        _, link = await loop.create_connection(lambda: PorterLink(self.side, lost), sock=ours)
        self._links[which] = link
        link.say(changes({}, self._told))
        return process

    async def _again(self, which: int, lasted_s: float) -> None:
        """Start a porter that has ended; after a longer pause each time that it did not last."""
        status = await asyncio.to_thread(self._processes[which].wait)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        log.warning("port process %d ended (%s); it is started again", which + 1, how)
        before = AGAIN_S if lasted_s > STEADY_S else self._pauses.get(which, AGAIN_S)
        self._pauses[which] = min(2 * before, AGAIN_AT_MOST_S)
        await asyncio.sleep(before)
        if self._closing:
            return
        try:
            self._processes[which] = await self._started(which)
        except OSError as problem:  # this machine has no process to spare now
            log.warning("port process %d cannot be started: %s", which + 1, problem)
            self._starting[which] = asyncio.get_running_loop().create_task(self._again(which, 0.0))


def changes(told: Known, known: Known) -> MemberChanges:
    """The difference between who may speak now and who might before."""
    new = (
        (key, who)
        for key, who in known.items()
        if (before := told.get(key)) is not who and before != who
    )
    came = tuple((key, who.name, who.identity) for key, who in new)
    return MemberChanges(came, tuple(key for key in told if key not in known))


@contextmanager
def porters(team: Team) -> Iterator[Porters]:
    """The porters of a community, listening, until the block ends; NomoatError if they cannot."""
    if sys.platform != "linux":
        raise UsageError("server.port_processes: several port processes need Linux")
    with bind(team.listening.host, team.listening.port):  # NomoatError if it is taken
        pass
    # Bound and not listening, it keeps the number while porters come and go.
    with bind(team.listening.host, team.listening.port, shared=True) as kept:
        up = Porters(team, int(kept.getsockname()[1]))
        thread, loop = _loop()
        try:
            _done(loop, up.open())
            _done(loop, up.listening())
            yield up
        finally:
            _done(loop, up.close())
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=10)


def _loop() -> tuple[threading.Thread, asyncio.AbstractEventLoop]:
    """Run a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fleet", daemon=True)
    thread.start()
    return thread, loop


def _done(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(work, loop).result()
