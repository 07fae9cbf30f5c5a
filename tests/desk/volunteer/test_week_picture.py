"""The week's picture fills what the schedule allows and quiet hours leave."""

from __future__ import annotations

from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.desk.volunteer.week_picture import allowed, week_picture


def hours(machine: MachineSettings) -> list[float]:
    return [sum(day) / 2 for day in allowed(machine)]


def test_without_a_schedule_every_hour_is_filled() -> None:
    assert hours(MachineSettings()) == [24] * 7
    assert "in 168 of the week&#39;s 168 hours" in week_picture(MachineSettings())


def test_a_night_goes_on_into_the_next_day_and_quiet_hours_are_left_out() -> None:
    machine = MachineSettings(
        schedule={"mon": ("22:00-07:00",)}, quiet_hours={"tue": ("05:00-06:00",)}
    )
    assert hours(machine) == [2, 6, 0, 0, 0, 0, 0]
    picture = week_picture(machine)
    assert picture.count('class="yes"') == 3
    assert picture.count('class="no"') == 7
    assert "in 8 of the week" in picture
