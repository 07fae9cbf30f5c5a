"""Figures of a training under way: now.json, for whoever looks at this machine's page.

Written at most once a second while something is done, and not synced: it is of the moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from nomoat.client.home import CommunityFolder
from nomoat.client.machine.attempt import attempt
from nomoat.client.machine.readings import Readings
from nomoat.lora.training.steps import TrainingStep

EVERY_S: Final = 1.0
OLD_S: Final = 30.0  # a machine is looked at every ten seconds, busy or not


@dataclass(frozen=True, slots=True)
class Measurements:
    """The last figures; None: unknown. at, step_at: unix seconds.

    seconds: spent on the training so far. memory_bytes: of the processes that train.
    """

    at: float
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    seconds: float | None = None
    step_at: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    vram_share: float | None = None
    memory_bytes: int | None = None

    def left_s(self) -> float | None:
        """Seconds that the steps to come will take at the pace so far."""
        if not self.step or self.steps is None or self.seconds is None:
            return None
        return self.seconds / self.step * (self.steps - self.step)


def path_of(folder: CommunityFolder) -> Path:
    """The file of a community's measurements."""
    return folder.root / "now.json"


def read_measurements(folder: CommunityFolder, now: float) -> Measurements | None:
    """The last measurements; None if there are none of the last half minute."""
    try:
        found = Measurements(**json.loads(path_of(folder).read_text()))
        return found if 0 <= now - found.at + 1 <= OLD_S + 1 else None
    except (OSError, ValueError, TypeError):
        return None


@dataclass
class MeasurementsFile:
    """Keeps one community's file. pids: processes that train. clock: unix seconds."""

    path: Path
    pids: Callable[[], frozenset[int]]
    clock: Callable[[], float] = time.time
    _last: Measurements = field(default_factory=lambda: Measurements(0.0), init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def stepped(self, step: TrainingStep) -> None:
        """Note a step of the training."""
        now = self.clock()
        with self._lock:
            self._last = replace(
                self._last,
                step=step.step,
                steps=step.steps,
                loss=step.loss,
                seconds=step.seconds,
                step_at=now,
            )
            self._write(now)

    def looked(self, readings: Readings) -> None:
        """Note what the machine's sensors say."""
        now = self.clock()
        memory = attempt("memory", lambda: _resident(self.pids()))
        with self._lock:
            self._last = replace(
                self._last,
                temperature_c=readings.temperature_c,
                power_w=readings.power_w,
                vram_share=readings.vram_share,
                memory_bytes=memory or None,
            )
            self._write(now)

    def _write(self, now: float) -> None:
        if now - self._last.at < EVERY_S:
            return
        self._last = replace(self._last, at=now)
        draft = self.path.with_suffix(".draft")
        with contextlib.suppress(OSError):  # a full disk must not end training
            draft.write_text(json.dumps(asdict(self._last)))
            os.replace(draft, self.path)


def _resident(pids: frozenset[int]) -> int:
    """Main memory of these processes, bytes."""
    import psutil

    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total
