"""Watches the machine while a volunteer takes part: looks, asks the policy, acts.

A loop of three parts. Readings say how the machine is, orders what its owner has said; the policy
(policy.py, pure) turns both into one decision with a reason, which `nomoat status` shows; and the
governor makes it so, by pausing and resuming a trainer. Orders are looked at several times a
second, the machine every few seconds: reading an order is cheap, asking drivers is not. Between
running and paused stands the duty cycle, which slows training down before a limit is reached. A
policy that fails is no permission: training waits.

    governor = Governor(folder, limits, probes.readings, trainer, handing_over, told, local_now)
    threading.Thread(target=governor.run, args=(stop,)).start()
    if governor.may_begin(training=True):
        trainer.train(work)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from nomoat.client.machine import owner_orders
from nomoat.client.machine.duty_cycle import (
    DutyCycle,
    Target,
    power_target,
    regulate,
    temperature_target,
)
from nomoat.client.machine.policy import Action, Decision, decide
from nomoat.client.machine.readings import MachineLimits, Readings

log = logging.getLogger(__name__)

LOOK_S = 0.2
FACTS_S = 2.0  # while something is being done
IDLE_FACTS_S = 10.0
COOLER_C = 2.0  # the duty cycle aims below the limit at which the policy would stop altogether
LESS_POWER = 0.95


class Governed(Protocol):
    """A port: works, and can be told to stop (training/trainer.py)."""

    @property
    def at_work(self) -> bool:
        """True while a piece of work is under way, paused or not."""

    def pause(self) -> None:
        """Give memory back; returns when it is given."""

    def resume(self) -> None:
        """Go on."""

    def limit(self, share: float) -> None:
        """Spend this share of the time working."""


@dataclass(frozen=True)
class OwnerLimits:
    """The owner's limits, and the share of the time that may be spent training."""

    machine: MachineLimits
    cpu_share: float


@dataclass
class Governor:
    """One volunteer's policy at work. look: readings at a local time.

    handing_over: says if an update waits to be handed over, which `finish` lets end. told: called
    with each decision that differs from the last one. zone: of the machine's wall clock. reread:
    the owner's limits if they were changed since it was last asked. looked: told of each look.
    """

    folder: Path
    limits: MachineLimits
    look: Callable[[datetime], Readings]
    trainer: Governed
    handing_over: Callable[[], bool]
    told: Callable[[Decision], None]
    now: Callable[[], datetime]
    cpu_share: float = 1.0
    clock: Callable[[], float] = time.monotonic
    decision: Decision | None = None
    reread: Callable[[], OwnerLimits | None] = lambda: None
    looked: Callable[[Readings], None] = lambda readings: None
    _facts: Readings | None = field(default=None, init=False)
    _looked_at: float = field(default=0.0, init=False)
    _duty: DutyCycle = field(default_factory=DutyCycle, init=False)
    _turning: threading.Lock = field(default_factory=threading.Lock, init=False)

    def run(self, stop: threading.Event) -> None:
        """Govern until `stop` is set, or set it when the owner said finish."""
        while not stop.is_set():
            try:
                if self.turn() is Action.STOP:
                    stop.set()
            except Exception:  # whatever it was: without a policy nothing is trained
                log.exception("the policy failed; training waits")
                self.trainer.pause()
                self.decision = None  # so that the next turn says and does what it decides
                self.told(Decision(Action.WAIT, "the policy failed, see nomoat logs", self.now()))
            stop.wait(LOOK_S)

    def turn(self) -> Action:
        """Look, decide and act once; when it returns, what was decided is done."""
        with self._turning:
            return self._turn()

    def _turn(self) -> Action:
        now, orders = self.now(), owner_orders.read(self.folder)
        readings = self._fresh(now)
        before = self.decision
        in_round = self.trainer.at_work or self.handing_over()
        decision = decide(readings, self.limits, orders, in_round, before)
        self.decision = decision
        if before is None or (before.action, before.reason) != (decision.action, decision.reason):
            self.told(decision)
        if before is None or before.action is not decision.action:
            self._act(decision)
        return decision.action

    def may_begin(self, training: bool) -> bool:
        """Return True if work may begin now; after `finish` no round does."""
        finishing = training and owner_orders.read(self.folder).finish
        return self.turn() is Action.TRAIN and not finishing

    @property
    def training_allowed(self) -> bool:
        """True if a training that was asked for now would begin, as of the last turn."""
        decision = self.decision
        allowed = decision is not None and decision.action is Action.TRAIN
        return allowed and not owner_orders.read(self.folder).finish

    def _act(self, decision: Decision) -> None:
        log.info("%s: %s", decision.action.value, decision.reason)
        if decision.action is Action.WAIT:
            self.trainer.pause()
        elif decision.action is Action.TRAIN:
            self.trainer.resume()

    def _fresh(self, now: datetime) -> Readings:
        """The last readings, taken anew when they are old; `now` is always right."""
        at, readings = self.clock(), self._facts
        old_s = FACTS_S if self.trainer.at_work else IDLE_FACTS_S
        if readings is None or at - self._looked_at >= old_s:
            self._reread()
            readings = self.look(now)
            self.looked(readings)
            self._regulate(readings, at - self._looked_at if self._facts is not None else 0.0)
            self._looked_at = at
        self._facts = replace(readings, now=now)
        return self._facts

    def _reread(self) -> None:
        changed = self.reread()
        if changed is not None:
            self.limits, self.cpu_share = changed.machine, changed.cpu_share

    def _regulate(self, readings: Readings, elapsed_s: float) -> None:
        targets = self._targets()
        if not targets and self.cpu_share >= 1.0 and self._duty.share >= 1.0:
            return
        measured = {"temperature_c": readings.temperature_c, "power_w": readings.power_w}
        duty = regulate(self._duty, targets, measured, elapsed_s, self.cpu_share)
        if duty.share != self._duty.share:
            self.trainer.limit(duty.share)
        self._duty = duty

    def _targets(self) -> tuple[Target, ...]:
        found = []
        if self.limits.max_temperature_c is not None:
            found.append(temperature_target(self.limits.max_temperature_c - COOLER_C))
        if self.limits.max_power_w is not None:
            watts = self.limits.max_power_w
            found.append(power_target(LESS_POWER * watts, 2 * watts))
        return tuple(found)
