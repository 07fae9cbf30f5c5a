"""Threads take short turns while a side of the line runs, and as before after it."""

from __future__ import annotations

import sys

import pytest

from nomoat.flower.process import TURN_S, quick_turns


def test_turns_are_short_inside_and_as_before_after_it() -> None:
    before = sys.getswitchinterval()
    with quick_turns():
        assert sys.getswitchinterval() == pytest.approx(TURN_S)
    assert sys.getswitchinterval() == pytest.approx(before)
    with pytest.raises(KeyError), quick_turns():
        raise KeyError
    assert sys.getswitchinterval() == pytest.approx(before)
