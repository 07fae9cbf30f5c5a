from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.client.machine.policy import RULES, Action, Decision, decide
from nomoat.client.machine.readings import GpuProgram, MachineLimits, Orders, Readings, describe
from nomoat.client.machine.weekly_schedule import never, parse_week

NOW = datetime(2026, 11, 23, 14, 2, tzinfo=UTC)
GOOD = Readings(
    NOW,
    idle_s=1e6,
    on_battery=False,
    metered=False,
    temperature_c=50.0,
    power_w=100.0,
    vram_share=0.3,
    gpu_programs=(),
    other_cpu_share=0.0,
    free_disk_bytes=1 << 40,
)
STRICT = MachineLimits(
    idle_after_s=300,
    max_temperature_c=80,
    max_power_w=200,
    max_vram_share=0.8,
    max_other_cpu_share=0.5,
)


def go(
    readings: Readings, limits: MachineLimits = STRICT, orders: Orders | None = None
) -> Decision:
    return decide(readings, limits, orders or Orders(), in_round=True)


def later(readings: Readings, seconds: float) -> Readings:
    return replace(readings, now=NOW + timedelta(seconds=seconds))


def test_training_when_every_limit_is_kept() -> None:
    assert go(GOOD).action is Action.TRAIN


STEAM = GpuProgram("steam", compute=False, busy_share=0.6)
OUTSIDE = GpuProgram("4711", compute=True, outside=True)

BLOCKING = {
    "idle": ({"idle_s": 10.0}, "you are using this machine"),
    "battery": ({"on_battery": True}, "on battery"),
    "metered": ({"metered": True}, "metered"),
    "temperature": ({"temperature_c": 81.0}, "temperature 81 °C, limit 80 °C"),
    "power": ({"power_w": 250.0}, "power draw 250 W"),
    "vram": ({"vram_share": 0.9}, "GPU memory 90%"),
    "gpu": ({"gpu_programs": (STEAM,)}, "another program (steam)"),
    "outside": ({"gpu_programs": (OUTSIDE,)}, "outside this container (process 4711)"),
    "cpu": ({"other_cpu_share": 0.9}, "processor 90%"),
    "disk": ({"free_disk_bytes": 1 << 20}, "disk almost full"),
}


@pytest.mark.parametrize("rule", BLOCKING)
def test_each_limit_alone_stops_training_and_says_so(rule: str) -> None:
    change, words = BLOCKING[rule]
    decision = go(replace(GOOD, **change))
    assert decision.action is Action.WAIT
    assert [block.rule for block in decision.blocks] == [rule]
    assert words in decision.reason


def test_every_rule_of_the_table_can_block() -> None:
    covered = {*BLOCKING, "paused", "schedule", "quiet"}
    assert covered == {rule.name for rule in RULES}


def test_schedule_and_quiet_hours_name_when_they_end() -> None:
    evening = MachineLimits(schedule=parse_week({"mon": ["22:00-23:00"]}))
    assert go(GOOD, evening).reason == "outside the schedule, until 22:00"
    quiet = MachineLimits(quiet_hours=parse_week({"all": ["13:00-02:00"]}))
    assert go(GOOD, quiet).reason == "quiet hours, until Tue 02:00"
    assert "no window" in go(GOOD, MachineLimits(schedule=never())).reason


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_sensor_that_says_nothing_sensible_blocks_where_a_limit_protects(
    value: float | None,
) -> None:
    for name, word in (("temperature_c", "temperature"), ("power_w", "power")):
        decision = go(replace(GOOD, **{name: value}))
        assert decision.action is Action.WAIT
        assert f"{word}" in decision.reason
        assert "unknown" in decision.reason
    assert (
        go(replace(GOOD, temperature_c=value, power_w=value), MachineLimits()).action
        is Action.TRAIN
    )


def test_nothing_known_trains_under_default_limits() -> None:
    assert decide(Readings(NOW), MachineLimits(), Orders(), in_round=False).action is Action.TRAIN


def test_a_temperature_on_its_limit_does_not_flap() -> None:
    decision, states = None, []
    for second in range(600):
        warmth = 80.5 if second % 2 else 79.5
        readings = later(replace(GOOD, temperature_c=warmth), second)
        decision = decide(readings, STRICT, Orders(), True, decision)
        states.append(decision.action)
    changes = sum(a is not b for a, b in pairwise(states))
    assert changes == 1  # once to waiting, and there it stays


def test_waiting_ends_below_the_margin_and_after_settling() -> None:
    hot = decide(replace(GOOD, temperature_c=85), STRICT, Orders(), True)
    cooler = decide(later(replace(GOOD, temperature_c=75), 10), STRICT, Orders(), True, hot)
    assert cooler.action is Action.WAIT
    assert cooler.blocks[0].gone_since is None  # 75 is below 80, but not below 72
    cool = decide(later(replace(GOOD, temperature_c=71), 20), STRICT, Orders(), True, cooler)
    assert cool.action is Action.WAIT
    assert cool.blocks[0].gone_since is not None
    cool = decide(later(replace(GOOD, temperature_c=71), 49), STRICT, Orders(), True, cool)
    assert cool.action is Action.WAIT
    done = decide(later(replace(GOOD, temperature_c=71), 50), STRICT, Orders(), True, cool)
    assert done.action is Action.TRAIN
    assert done.since == NOW + timedelta(seconds=50)


def test_a_cause_that_comes_back_starts_the_settling_anew_and_keeps_since() -> None:
    busy = replace(GOOD, gpu_programs=(STEAM,))
    first = decide(busy, STRICT, Orders(), True)
    gone = decide(later(GOOD, 30), STRICT, Orders(), True, first)
    back = decide(later(busy, 59), STRICT, Orders(), True, gone)
    gone = decide(later(GOOD, 60), STRICT, Orders(), True, back)
    still = decide(later(GOOD, 119), STRICT, Orders(), True, gone)
    assert still.action is Action.WAIT
    assert still.since == NOW
    assert decide(later(GOOD, 120), STRICT, Orders(), True, still).action is Action.TRAIN


def test_a_clock_set_back_does_not_hold_training_for_ever() -> None:
    first = decide(replace(GOOD, on_battery=True), STRICT, Orders(), True)
    gone = decide(later(GOOD, 10), STRICT, Orders(), True, first)
    back = decide(later(GOOD, -86400), STRICT, Orders(), True, gone)
    assert back.action is Action.TRAIN


def test_desktop_programs_do_not_count_but_any_computation_does() -> None:
    desktop = GpuProgram("gnome-shell", compute=False, memory_bytes=2 << 30)
    idle_game = GpuProgram("game", compute=False, busy_share=0.01, memory_bytes=4 << 30)
    assert go(replace(GOOD, gpu_programs=(desktop, idle_game))).action is Action.TRAIN
    silent = GpuProgram("game", compute=False, busy_share=None, memory_bytes=4 << 30)
    assert go(replace(GOOD, gpu_programs=(silent,))).action is Action.WAIT
    blender = GpuProgram("blender", compute=True, busy_share=0.0)
    assert "blender" in go(replace(GOOD, gpu_programs=(blender,))).reason
    unsure = GpuProgram("game", compute=False, busy_share=math.nan, memory_bytes=4 << 30)
    assert go(replace(GOOD, gpu_programs=(unsure,))).action is Action.WAIT


def test_a_pause_leads_all_other_reasons_and_ends_by_itself() -> None:
    orders = Orders(paused=True, paused_until=NOW + timedelta(hours=1))
    hot = replace(GOOD, temperature_c=99)
    assert go(hot, STRICT, orders).reason == "paused by you, until 15:02"
    after = decide(later(GOOD, 3600), STRICT, orders, True)
    assert after.action is Action.TRAIN
    for_ever = decide(later(GOOD, 1e6), STRICT, Orders(paused=True), True)
    assert for_ever.action is Action.WAIT


def test_resume_is_obeyed_at_once() -> None:
    paused = go(GOOD, STRICT, Orders(paused=True))
    assert decide(later(GOOD, 1), STRICT, Orders(), True, paused).action is Action.TRAIN


def test_finish_ends_after_the_round_and_not_before() -> None:
    orders = Orders(finish=True)
    assert decide(GOOD, STRICT, orders, in_round=True).action is Action.TRAIN
    assert decide(GOOD, STRICT, orders, in_round=False).action is Action.STOP
    busy = replace(GOOD, on_battery=True)
    assert decide(busy, STRICT, orders, in_round=False).action is Action.STOP


def test_facts_without_a_time_zone_are_a_bug() -> None:
    with pytest.raises(ValueError, match="time zone"):
        decide(replace(GOOD, now=datetime(2026, 1, 1)), STRICT, Orders(), True)


maybe = st.none() | st.floats(allow_nan=True, allow_infinity=True)
readings = st.builds(
    Readings,
    now=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    idle_s=maybe,
    on_battery=st.none() | st.booleans(),
    metered=st.none() | st.booleans(),
    temperature_c=maybe,
    power_w=maybe,
    vram_share=maybe,
    gpu_programs=st.none() | st.just((STEAM,)),
    other_cpu_share=maybe,
    free_disk_bytes=st.none() | st.integers(-1, 1 << 50),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(readings, min_size=1, max_size=5), st.booleans())
def test_whatever_probes_say_there_is_a_decision_with_a_reason(
    seen: list[Readings], in_round: bool
) -> None:
    decision = None
    for each in seen:
        decision = decide(each, STRICT, Orders(), in_round, decision)
        assert decision.reason
        assert (decision.action is Action.WAIT) == bool(decision.blocks)


def test_limits_are_described_in_words() -> None:
    words = describe(STRICT)
    assert words["temperature"] == "at most 80 °C"
    assert words["GPU memory"] == "at most 80%"
    assert words["battery"] == "never on battery"
