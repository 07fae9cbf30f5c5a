"""Two sides use the highest version of the protocol that both speak, and say who is too old."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nomoat.aggregation.protocol.community.spoken import (
    FIRST,
    FIRST_RELEASE,
    OURS,
    SpokenVersions,
    in_words,
)

RANGES = st.tuples(st.integers(1, 40), st.integers(0, 5)).map(
    lambda drawn: SpokenVersions(drawn[0], drawn[0] + drawn[1])
)


@given(RANGES, RANGES)
def test_the_version_that_is_used_is_the_highest_of_both_whoever_asks(
    one: SpokenVersions, other: SpokenVersions
) -> None:
    both = set(range(one.low, one.high + 1)) & set(range(other.low, other.high + 1))
    assert one.common(other) == other.common(one) == max(both, default=None)


@given(RANGES, RANGES)
def test_whoever_speaks_more_than_before_is_understood_by_all_who_were(
    one: SpokenVersions, other: SpokenVersions
) -> None:
    grown = SpokenVersions(one.low, one.high + 1)
    before, after = one.common(other), grown.common(other)
    assert before is None or (after is not None and after >= before)


@given(RANGES)
def test_a_range_is_read_as_it_is_told(spoken: SpokenVersions) -> None:
    assert SpokenVersions.read(spoken.header) == spoken


@given(st.text() | st.sampled_from(["", "0", "3-2", "1-", "-1", "1001", "１", "1 - 2", "1-2-3"]))
def test_whatever_else_a_peer_tells_is_the_first_version(said: str) -> None:
    found = SpokenVersions.read(said)
    assert found == FIRST or found.header in (said, said.partition("-")[0])


def test_each_version_that_is_spoken_has_the_release_to_install_for_it() -> None:
    assert set(FIRST_RELEASE) == set(range(OURS.low, OURS.high + 1))


def test_a_list_says_what_is_used_and_what_could_be() -> None:
    ours = SpokenVersions(1, 2)
    said = [in_words(header, ours) for header in (None, "1-2", "2-3", "1", "3-4")]
    assert said == ["not seen", "2", "2 of 2 to 3", "1 of 1", "3 to 4: none of 1 to 2"]
