"""A link opens a page once, in time, and nothing else does."""

from __future__ import annotations

import itertools

from nomoat.desk.access.one_time_keys import mint, nonce_of
from nomoat.desk.access.sessions import IDLE_S, MOST_SESSIONS, Sessions

SECRET, NONCE = b"s" * 32, b"n" * 12


class Clock:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


def sessions(clock: Clock) -> Sessions:
    names = (f"name{number}" for number in itertools.count())
    return Sessions(SECRET, clock, lambda: next(names))


def test_a_key_holds_until_it_expires_and_only_under_its_secret() -> None:
    key = mint(SECRET, NONCE, 2000)
    assert nonce_of(key, SECRET, 1999.9) == NONCE
    assert nonce_of(key, SECRET, 2000) is None
    assert nonce_of(key, b"t" * 32, 1000) is None


def test_no_altered_key_holds() -> None:
    key = mint(SECRET, NONCE, 2000)
    for place in range(len(key)):
        other = "1" if key[place] != "1" else "2"
        assert nonce_of(key[:place] + other + key[place + 1 :], SECRET, 1000) is None


def test_a_key_opens_one_session() -> None:
    found = sessions(Clock())
    key = mint(SECRET, NONCE, 2000)
    name = found.open(key)
    assert name is not None
    assert found.find(name) is not None
    assert found.open(key) is None


def test_a_session_ends_when_nobody_used_it_for_long() -> None:
    clock = Clock()
    found = sessions(clock)
    name = found.open(mint(SECRET, NONCE, 2000))
    assert name is not None
    clock.at += IDLE_S
    assert found.find(name) is not None
    clock.at += IDLE_S + 1
    assert found.find(name) is None


def test_sessions_are_bounded_and_the_one_unused_for_longest_goes() -> None:
    found = sessions(Clock())
    keys = (mint(SECRET, bytes(11) + bytes([n]), 2000) for n in range(MOST_SESSIONS + 1))
    names = [found.open(key) for key in keys]
    assert found.find(names[0] or "") is None
    assert all(found.find(name or "") for name in names[1:])
