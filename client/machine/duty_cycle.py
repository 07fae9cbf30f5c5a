"""The share of the time to work so that a temperature or power stays at a target, without root.

One PI controller per target in velocity form: the share of time spent working moves by
Δu = K·(e_k − e_{k−1}) + (K/T_i)·Δt·e_k with e = target − measured, and stays in [least, most].
No integral is stored, so none winds up while u rests at a bound (Åström & Hägglund, PID
Controllers, 2nd ed. 1995, §3.5–3.6). The smallest share of all targets counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LEAST_SHARE: Final = 0.05  # below it, waiting (policy.py) is the honest answer
MAX_ELAPSED_S: Final = 30.0  # a suspended laptop's hour is no hour of control error


@dataclass(frozen=True, slots=True)
class Target:
    """Hold `limit` (°C or W). `gain`: K, share per unit. `reset_s`: T_i, seconds."""

    quantity: str
    limit: float
    gain: float
    reset_s: float


def temperature_target(limit_c: float) -> Target:
    """Hold °C: λ-tuned for a heat sink of 60 s that full load warms by 50 °C, λ = 30 s.

    K = T/(G·λ), T_i = T (Rivera, Morari & Skogestad 1986). A quarter or four times that plant
    still settles (tests/client/machine/test_duty_cycle.py).
    """
    return Target("temperature_c", limit_c, gain=60.0 / (50.0 * 30.0), reset_s=60.0)


def power_target(limit_w: float, full_w: float) -> Target:
    """Hold average W of a device that draws about `full_w` at work: a plant without memory."""
    return Target("power_w", limit_w, gain=0.2 / full_w, reset_s=2.0)


@dataclass(frozen=True, slots=True)
class Controller:
    """One target's present share, its last error (None before the first reading)."""

    share: float = 1.0
    error: float | None = None


@dataclass(frozen=True, slots=True)
class DutyCycle:
    """The controllers' state; `share`: of the time, to be spent working."""

    share: float = 1.0
    controllers: tuple[Controller, ...] = ()


def regulate(
    duty: DutyCycle,
    targets: tuple[Target, ...],
    measured: Mapping[str, float | None],
    elapsed_s: float,
    most_share: float = 1.0,
) -> DutyCycle:
    """The next state, `elapsed_s` after the last one. `most_share`: the owner's processor cap.

    A quantity that is unknown or not finite leaves its controller as it was: whether to go on
    without a sensor is policy.py's to decide.
    """
    most = min(1.0, max(LEAST_SHARE, most_share))
    before = (
        duty.controllers
        if len(duty.controllers) == len(targets)
        else (Controller(),) * len(targets)
    )
    elapsed = min(max(elapsed_s, 0.0), MAX_ELAPSED_S) if math.isfinite(elapsed_s) else 0.0
    controllers = tuple(
        _step(controller, target, measured.get(target.quantity), elapsed, most)
        for controller, target in zip(before, targets, strict=True)
    )
    return DutyCycle(min((most, *(controller.share for controller in controllers))), controllers)


def _step(
    controller: Controller, target: Target, value: float | None, elapsed_s: float, most: float
) -> Controller:
    if value is None or not math.isfinite(value):
        return Controller(min(controller.share, most), controller.error)
    error = target.limit - value
    change = target.gain * (error - (error if controller.error is None else controller.error))
    change += target.gain / target.reset_s * elapsed_s * error
    return Controller(min(most, max(LEAST_SHARE, controller.share + change)), error)
