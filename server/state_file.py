"""state.json in a community's folder: how its coordinator is doing."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.community.presence import Presence
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import WAITING, RoundProgress, Watcher
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 0.5
MOST_PHASES = 20  # of a round that waits again and again, the latest
AT_LEAST_EVERY_S = 10.0  # so that who was seen last, and when, is true to it
FILE = "state.json"
TOLD = ("software", "spoken")  # by volunteers, of themselves
PEOPLE = ("online", "paused", "seen", *TOLD)  # what speaks of volunteers by their names


def said_by(path: Path, what: str) -> dict[str, str]:
    """Return what volunteers said of themselves, one thing of TOLD, by name, as `up` wrote it."""
    said = read_state(path).get(what, {})
    return {str(k): str(v) for k, v in said.items()} if isinstance(said, dict) else {}


def presence(path: Path) -> Presence | None:
    """Return what a state.json says is waited for, for a member that asks; None if nothing."""
    state = read_state(path)
    try:
        phase, answered, asked = str(state["phase"]), int(state["answered"]), int(state["asked"])
        return Presence(int(state["round"]), phase[:40], phase == WAITING, answered, asked)
    except (KeyError, ValueError, TypeError):
        return None


def forget(path: Path, name: str) -> None:
    """Take a volunteer out of a state.json; a coordinator that is up leaves it out by itself."""
    state = read_state(path)
    kept = {part: _without(state[part], name) for part in PEOPLE if part in state}
    if any(state[part] != left for part, left in kept.items()):
        with replacing(path) as file:
            file.write(json.dumps({**state, **kept}).encode())


def _without(people: Any, name: str) -> Any:
    if isinstance(people, dict):
        return {known: what for known, what in people.items() if known != name}
    return [known for known in people if known != name]


def read_state(path: Path) -> dict[str, Any]:
    """Read a state.json as it was written last; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass
class StateFile:
    """Keeps state.json, for whoever asks how the coordinator is doing, and passes everything on.

    online: {name: node id} of the volunteers who are; willing: those whose owners let them train;
    told: what they say of themselves, by its name in TOLD. members: whoever is not among them is
    forgotten, an erased volunteer for one.
    """

    path: Path
    port: int
    then: Watcher
    online: Callable[[], Mapping[str, int]]
    willing: Callable[[], Collection[str]] | None = None
    told: Mapping[str, Callable[[], Mapping[str, str]]] = field(default_factory=dict)
    members: Callable[[], Collection[str]] | None = None
    _seen: dict[str, int] = field(default_factory=dict, init=False)
    _told: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    _written: float = field(default=0.0, init=False)
    _last: RoundProgress | None = field(default=None, init=False)
    _begun: tuple[tuple[str, float], ...] = field(default=(), init=False)
    _failing: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Go on with when each volunteer was seen last."""
        before = read_state(self.path)
        seen = before.get("seen", {})
        if isinstance(seen, dict):
            self._seen.update({str(k): v for k, v in seen.items() if isinstance(v, int)})
        for what in TOLD:
            self._told[what] = said_by(self.path, what)

    def progress(self, progress: RoundProgress) -> None:
        """Write it down if the phase is new, or half a second after the last time."""
        self.then.progress(progress)
        last = self._last
        news = last is None or (progress.round, progress.phase) != (last.round, last.phase)
        age = time.monotonic() - self._written
        if news:
            same = self._begun if last is not None and progress.round == last.round else ()
            self._begun = (*same, (progress.phase, time.time()))[-MOST_PHASES:]
        if news or age > AT_LEAST_EVERY_S or (progress != last and age > WRITTEN_EVERY_S):
            self._write(progress)
            self._last = progress

    def ended(self, record: RoundRecord) -> None:
        """Write down how a round ended."""
        self.then.ended(record)
        phase = "committed" if record.committed else "abandoned"
        self._write(
            RoundProgress(record.round, phase, len(record.contributors), len(record.cohort))
        )

    def waiting(self, round_number: int, present: int, needed: int) -> None:
        """Write down that a round waits for volunteers."""
        self.progress(RoundProgress(round_number, WAITING, present, needed))

    def _write(self, progress: RoundProgress) -> None:
        self._written, now = time.monotonic(), int(time.time())
        online = sorted(self.online())
        willing = set(online) if self.willing is None else set(self.willing())
        self._seen.update(dict.fromkeys(online, now))
        for what, ask in self.told.items():
            self._told[what].update(ask())
        if self.members is not None:
            members = set(self.members())
            self._seen = {name: at for name, at in self._seen.items() if name in members}
            self._told = {
                what: {name: text for name, text in texts.items() if name in members}
                for what, texts in self._told.items()
            }
        state = {
            "pid": os.getpid(),
            "port": self.port,
            "round": progress.round,
            "phase": progress.phase,
            "answered": progress.answered,
            "asked": progress.asked,
            "begun": self._begun,  # the phases of this round, and when each began
            "online": online,
            "paused": [name for name in online if name not in willing],
            "seen": self._seen,
            "at": now,
        } | self._told
        try:
            with replacing(self.path, lasting=False) as file:
                file.write(json.dumps(state).encode())
            self._failing = False
        except NomoatError as problem:  # a full disk, perhaps; there may be room at the round's end
            if not self._failing:
                log.warning("%s", problem)
            self._failing = True
