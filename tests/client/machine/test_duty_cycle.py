from __future__ import annotations

import math

import pytest

from nomoat.client.machine.duty_cycle import (
    LEAST_SHARE,
    DutyCycle,
    Target,
    power_target,
    regulate,
    temperature_target,
)
from nomoat.lora.workers.interruptions import MAX_SLEEP_S, sleep_s

STEP_S = 1.0
AMBIENT_C = 30.0


def warm(heat_sink_s: float, rise_c: float, limit_c: float) -> list[tuple[float, float]]:
    """A first-order heat sink under the controller: (°C, share) after each micro-step."""
    duty, celsius, seen = DutyCycle(), AMBIENT_C, []
    target = (temperature_target(limit_c),)
    for _ in range(1500):
        pause = sleep_s(duty.share, STEP_S)
        for span, load in ((STEP_S, 1.0), (pause, 0.0)):
            settled = AMBIENT_C + rise_c * load
            celsius = settled + (celsius - settled) * math.exp(-span / heat_sink_s)
        duty = regulate(duty, target, {"temperature_c": celsius}, STEP_S + pause)
        seen.append((celsius, duty.share))
    return seen


@pytest.mark.parametrize("heat_sink_s", [15.0, 60.0, 240.0])
@pytest.mark.parametrize("rise_c", [25.0, 50.0, 100.0])
def test_a_temperature_settles_at_its_target(heat_sink_s: float, rise_c: float) -> None:
    limit = AMBIENT_C + 0.6 * rise_c
    seen = warm(heat_sink_s, rise_c, limit)
    late = [celsius for celsius, _ in seen[-200:]]
    assert abs(sum(late) / len(late) - limit) < 0.5
    assert max(celsius for celsius, _ in seen) < limit + 5
    assert seen[-1][1] == pytest.approx(0.6, abs=0.05)


def test_a_target_out_of_reach_costs_nothing() -> None:
    assert all(share == 1.0 for _, share in warm(60.0, 30.0, 90.0))


def test_an_hour_at_full_load_does_not_wind_the_controller_up() -> None:
    target = (temperature_target(80.0),)
    duty = DutyCycle()
    for _ in range(3600):
        duty = regulate(duty, target, {"temperature_c": 60.0}, 1.0)
    for _ in range(10):
        duty = regulate(duty, target, {"temperature_c": 95.0}, 1.0)
    assert duty.share < 0.6


def test_power_is_held_on_average() -> None:
    target, duty, drawn = (power_target(150.0, 300.0),), DutyCycle(), []
    for _ in range(400):
        pause = sleep_s(duty.share, STEP_S)
        watts = (STEP_S * 300 + pause * 20) / (STEP_S + pause)
        duty = regulate(duty, target, {"power_w": watts}, STEP_S + pause)
        drawn.append(watts)
    assert sum(drawn[-100:]) / 100 == pytest.approx(150, abs=1)


@pytest.mark.parametrize("reading", [None, math.nan, math.inf])
def test_a_broken_sensor_leaves_the_share_where_it_was(reading: float | None) -> None:
    target = (temperature_target(70.0),)
    duty = regulate(DutyCycle(), target, {"temperature_c": 90.0}, 10.0)
    after = regulate(duty, target, {"temperature_c": reading}, 10.0)
    assert after.share == duty.share < 1.0
    assert regulate(duty, target, {}, 10.0).share == duty.share


def test_the_strictest_target_counts() -> None:
    targets = (temperature_target(80.0), power_target(100.0, 300.0))
    duty = DutyCycle()
    for _ in range(50):
        duty = regulate(duty, targets, {"temperature_c": 40.0, "power_w": 300.0}, 1.0)
    assert duty.share == LEAST_SHARE


def test_the_share_stays_in_its_bounds_whatever_is_measured() -> None:
    duty = DutyCycle()
    for celsius in (-1e308, 1e308, 0.0, 1e6, -1e6):
        duty = regulate(duty, (temperature_target(70.0),), {"temperature_c": celsius}, 1e9)
        assert LEAST_SHARE <= duty.share <= 1.0
        assert 0.0 <= sleep_s(duty.share, 1.0) <= MAX_SLEEP_S


def test_a_processor_cap_needs_no_sensor() -> None:
    duty = regulate(DutyCycle(), (), {}, 1.0, most_share=0.25)
    assert sleep_s(duty.share, 0.5) == pytest.approx(1.5)  # works 0.5 of 2 s


def test_targets_that_change_start_anew() -> None:
    duty = regulate(DutyCycle(), (temperature_target(70.0),), {"temperature_c": 99.0}, 30.0)
    both = (temperature_target(70.0), Target("power_w", 100.0, 0.001, 2.0))
    assert regulate(duty, both, {"temperature_c": 60.0}, 1.0).share == 1.0
