"""How long a pull is left open: the coordinator's word, and what the way in between allows."""

from __future__ import annotations

import pytest

from nomoat.client.connection.backoff import HELD_ANYWHERE_S, HELD_AT_MOST_S, HoldTime


def offered(header: str) -> HoldTime:
    hold = HoldTime()
    hold.offer(header)
    return hold


def test_a_coordinator_of_an_earlier_release_is_asked_as_ever() -> None:
    hold = HoldTime()
    assert hold.seconds == HELD_ANYWHERE_S
    assert not hold.offered  # and gets heartbeats


def test_pulls_are_held_as_long_as_the_coordinator_offers() -> None:
    hold = offered("40")
    assert hold.seconds == 40
    assert hold.offered


@pytest.mark.parametrize("header", ["9999", "1000"])
def test_a_coordinator_cannot_have_a_line_left_silent_for_an_hour(header: str) -> None:
    assert offered(header).seconds == HELD_AT_MOST_S


@pytest.mark.parametrize("header", ["", "-1", "1e9", "nan", "99999999999", "\u0663"])
def test_what_is_no_number_is_no_offer(header: str) -> None:
    assert not offered(header).offered


def test_behind_a_proxy_that_cuts_after_half_a_minute_pulls_are_short_from_the_third_on() -> None:
    hold = offered("50")
    hold.ended(30.0, cut=True)
    assert hold.seconds == 50  # the coordinator may have been restarted
    hold.ended(30.0, cut=True)
    hold.offer("50")
    assert hold.seconds == HELD_ANYWHERE_S
    assert hold.offered  # pulls are heartbeats all the same


def test_restarts_of_the_coordinator_do_not_shorten_pulls() -> None:
    hold = offered("50")
    for _ in range(3):
        hold.ended(20.0, cut=True)
        hold.ended(0.01, cut=True)
        hold.ended(48.0, cut=False)
    assert hold.seconds == 50
