"""Those who are late are waited for as long as the others took, and a half; slow is not silent."""

from __future__ import annotations

import math

from nomoat.server.rounds.machines.patience import SESSION, Patience, Waiting
from nomoat.server.rounds.machines.stragglers import Straggler, Stragglers

PATIENT = Waiting(3600.0, Patience(1.5, 2.0), minimum=2)
ALL = ("a", "b", "c", "d")


def test_nobody_is_hurried_before_enough_have_answered() -> None:
    assert PATIENT.until(100.0, (), ALL) == 3700.0
    assert PATIENT.until(100.0, (130.0,), ALL[1:]) == 3700.0
    assert PATIENT.until(100.0, (130.0, 140.0), ALL[2:]) == 160.0


def test_a_round_that_needs_everybody_waits_for_its_deadline() -> None:
    assert Waiting(3600.0, Patience(), minimum=4).until(0.0, (1.0, 2.0, 3.0), ("d",)) == 3600.0


def test_later_answers_do_not_move_the_time_on() -> None:
    hurried = PATIENT.until(0.0, (10.0, 12.0), ALL[2:])
    assert PATIENT.until(0.0, (10.0, 12.0, 17.9), ALL[3:]) == hurried == 18.0


def test_quick_rounds_leave_two_seconds_for_an_answer_on_its_way() -> None:
    assert PATIENT.until(0.0, (0.1, 0.2), ALL[2:]) == 2.2


def test_whoever_is_known_to_take_longer_is_given_it_and_a_half() -> None:
    knows = Waiting(3600.0, Patience(1.5, 2.0, usual={"d": 200.0, "z": 1e6}), 2)
    assert knows.until(0.0, (10.0, 12.0, 14.0), ("d",)) == 300.0
    assert knows.until(0.0, (10.0, 12.0, 14.0), ("c",)) == 18.0
    assert Waiting(250.0, knows.patience, 2).until(0.0, (10.0, 12.0), ("d",)) == 250.0


def test_without_patience_only_the_deadline_counts() -> None:
    assert Waiting(60.0).until(1.0, (1.0, 2.0, 3.0), ("d",)) == 61.0
    assert Waiting().until(1.0, (1.0,), ()) == math.inf


def test_silence_begins_ten_times_later_than_the_others_answers_or_at_the_deadline() -> None:
    assert PATIENT.silent_at(0.0, (10.0, 12.0), ALL[2:]) == 120.0
    assert PATIENT.silent_at(0.0, (0.1, 0.2), ALL[2:]) == 10.0
    assert PATIENT.silent_at(0.0, (700.0, 800.0), ALL[2:]) == 3600.0
    assert PATIENT.silent_at(5.0, (), ALL) == 3605.0


def test_a_straggler_that_answers_is_known_to_be_slow_and_one_that_does_not_is_silent() -> None:
    owed = Stragglers()
    owed.keep("m1", Straggler("slow", 0.0, 120.0))
    owed.keep("m2", Straggler("mute", 0.0, 120.0))
    assert owed.names == {"slow", "mute"}
    assert owed.answered("m1", 90.0)
    assert not owed.answered("m1", 91.0)
    assert owed.usual == {"slow": 90.0}
    assert owed.give_up(119.0) == {}
    assert owed.give_up(120.0) == {"m2": "mute"}
    assert owed.names == set()


def test_an_error_in_place_of_an_answer_says_nothing_about_speed() -> None:
    owed = Stragglers()
    owed.keep("m1", Straggler("away", 0.0, 120.0))
    assert owed.answered("m1", 90.0, in_error=True)
    assert owed.usual == {}


def test_what_one_is_known_to_take_halves_while_it_is_quicker() -> None:
    owed = Stragglers()
    for seconds in (80.0, 1.0, 1.0):
        owed.took("a", seconds)
    assert owed.usual == {"a": 20.0}


def test_whoever_is_asked_anew_owes_nothing_old() -> None:
    owed = Stragglers()
    owed.keep("m1", Straggler("a", 0.0, 120.0))
    assert owed.ask_anew("a") == ["m1"]
    assert owed.give_up(1e9) == {}


def test_a_phase_goes_on_while_answers_keep_coming_and_ends_when_they_stop() -> None:
    waits = Waiting(50.0, SESSION, minimum=150, most_s=300.0)
    missing = tuple("abc")
    assert waits.until(100.0, (), missing) == 150.0
    assert waits.until(100.0, (110.0,), missing) == 150.0
    assert waits.until(100.0, (110.0, 149.0), missing) == 159.0  # a fifth of its deadline more
    assert waits.until(100.0, (110.0, 398.0), missing) == 400.0  # and never beyond all there is
    alone = Waiting(50.0, SESSION, minimum=150)
    assert alone.until(100.0, (110.0, 149.0), missing) == 150.0
