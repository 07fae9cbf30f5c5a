"""k, t and q: sound at every size, with the arithmetic that makes them so."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb

import pytest

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import graph
from nomoat.aggregation.secagg.thresholds import Assumptions, assume, is_weak, thresholds

USUAL = Assumptions(100, 300)


@pytest.mark.parametrize("n", range(2, 33))
def test_small_sessions_share_with_everybody_two_thirds_being_needed(n):
    found = thresholds(n, USUAL)
    assert found.neighbours == n - 1
    assert found.shares == found.quorum == found.survivors == -(-2 * n // 3)
    assert found.corrupt < found.shares  # the corrupt alone recover nothing
    assert found.survivors >= 2  # a sum of one is an update
    assert found.alive == found.survivors - 1


@pytest.mark.parametrize("n", [*range(2, 130), 1000, 5000, 10_000])
def test_two_certificates_would_need_more_corrupt_than_assumed(n):
    found = thresholds(n, USUAL)
    assert 2 * found.quorum > n + found.corrupt
    assert found.quorum <= found.survivors
    assert found.corrupt >= n * USUAL.corrupt_permille // 1000 or n <= 32


@pytest.mark.parametrize("n", [40, 100, 333, 1000])
@pytest.mark.parametrize("assumed", [USUAL, Assumptions(200, 200), Assumptions(330, 330)])
def test_bounds_hold_at_the_degree_found(n, assumed):
    found = thresholds(n, assumed)
    k, t = found.neighbours, found.shares
    if k == n - 1:
        return  # complete graph: no chance in it
    total = comb(n, k)

    def tail(marked, counts):
        return sum(Fraction(comb(marked, a) * comb(n - marked, k - a), total) for a in counts)

    assert tail(found.corrupt, range(t, k + 1)) * n <= Fraction(1, 2**41)
    assert tail(found.survivors, range(found.alive)) * n <= Fraction(1, 2**20)
    assert tail(found.survivors, range(found.alive + 1)) * n > Fraction(1, 2**20)
    assert found.alive >= t


def test_no_session_of_one_and_none_that_cannot_have_a_quorum():
    with pytest.raises(LocalProtocolError, match="hides nobody"):
        thresholds(1, USUAL)
    with pytest.raises(LocalProtocolError, match="no quorum"):
        thresholds(100, Assumptions(400, 400))
    with pytest.raises(LocalProtocolError, match="bear 2 corrupt ones, not 3"):
        thresholds(8, Assumptions(400, 0))


def test_weak_is_below_eight():
    assert [is_weak(n) for n in (2, 3, 7, 8, 9)] == [True, True, True, False, False]


def test_neighbours_grow_with_the_logarithm_of_the_session():
    ks = [thresholds(n, USUAL).neighbours for n in (100, 1000, 10_000)]
    assert ks[2] < 2 * ks[1] < 6 * ks[0]


def test_the_graph_is_regular_mutual_connected_and_another_for_another_transcript():
    ring = graph.build(50, 6, bytes(32))
    near = [set(ring.neighbours(i)) for i in range(50)]
    assert all(len(found) == 6 and i not in found for i, found in enumerate(near))
    assert all(i in near[j] for i in range(50) for j in near[i])
    reached, todo = {0}, [0]
    while todo:
        new = near[todo.pop()] - reached
        reached |= new
        todo += new
    assert len(reached) == 50
    other = graph.build(50, 6, b"\x01" * 32)
    assert [set(other.neighbours(i)) for i in range(50)] != near


@pytest.mark.parametrize(("count", "degree"), [(10, 0), (10, 10), (10, 5), (1, 1)])
def test_impossible_graphs_are_refused(count, degree):
    with pytest.raises(LocalProtocolError, match="no ring"):
        graph.build(count, degree, bytes(32))


def test_more_participants_bear_no_fewer_who_collude() -> None:
    borne = [thresholds(n, assume(n)).corrupt for n in range(4, 700)]
    assert all(after >= before - 1 for before, after in pairwise(borne))
    assert thresholds(32, assume(32)).corrupt == thresholds(33, assume(33)).corrupt == 10


@pytest.mark.parametrize("asked", [33, 64, 128, 200])
def test_a_session_that_only_some_of_those_asked_join_has_thresholds_too(asked: int) -> None:
    for joined in range(2, asked + 1):
        assert thresholds(joined, assume(asked)).quorum <= joined
