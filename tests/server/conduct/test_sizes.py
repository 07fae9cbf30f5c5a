"""Sizes over rounds: what is a little too large is named in a few, and nobody by chance."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.secagg.audit.judgement import TOLERANCE
from nomoat.server.conduct.sizes import CHANCE, REMEMBERED, WINDOWS, above, false_accusations, tail

SEEDS = range(40)


def sizes(times: float, rounds: int, seed: int) -> list[float]:
    """What sketches of 64 words tell of updates that are `times` the bound."""
    rng = np.random.default_rng(seed)
    return list(times * np.sqrt(rng.chisquare(64, rounds) / 64))


@pytest.mark.parametrize(
    ("x", "freedom", "known"),
    [(2.0, 2, math.exp(-1)), (10.0, 4, 6 * math.exp(-5)), (0.0, 64, 1.0), (83.675, 64, 0.05)],
)
def test_the_tail_is_that_of_the_distribution(x: float, freedom: int, known: float) -> None:
    assert tail(x, freedom) == pytest.approx(known, rel=1e-3)


def test_the_tail_counts_what_is_drawn() -> None:
    drawn = np.random.default_rng(1).chisquare(128, 200_000)
    assert (drawn > 170).mean() == pytest.approx(tail(170, 128), rel=0.05)


def test_at_1_4_times_the_bound_somebody_is_named_within_four_rounds() -> None:
    named = sum(
        any(above(sizes(1.4, 4, seed)[:n]) for n in (2, 3, 4))
        or max(sizes(1.4, 4, seed)) > TOLERANCE
        for seed in SEEDS
    )
    assert named >= len(SEEDS) - 2


def test_at_1_2_times_the_bound_within_sixteen() -> None:
    named = sum(any(above(sizes(1.2, 16, seed)[:n]) for n in range(2, 17)) for seed in SEEDS)
    assert named >= len(SEEDS) - 2


def test_whoever_was_small_for_long_is_named_as_fast() -> None:
    assert above([0.4] * 50 + [1.6] * 2) is not None


@pytest.mark.parametrize("seed", range(3))
def test_nobody_at_the_bound_is_named_in_a_thousand_rounds(seed: int) -> None:
    told = sizes(1.0, 1000, seed)
    assert not any(above(told[max(0, n - REMEMBERED) : n]) for n in range(1, 1001))


def test_the_bound_on_false_accusations_is_the_sum_of_all_rules() -> None:
    assert false_accusations() == pytest.approx(1.12 * (4.27e-8 + len(WINDOWS) * CHANCE), rel=1e-2)


def test_an_excess_says_how_sure_it_is() -> None:
    excess = above([1.4] * 4)
    assert str(excess) == (
        "its updates of 2 rounds are together 1.40 times the bound (1 in 1e8 of those at the bound)"
    )


def test_a_member_that_is_always_a_little_too_large_is_held_and_never_banned(
    tmp_path: Path,
) -> None:
    from nomoat.aggregation.protocol.roster import Event
    from nomoat.server.conduct.cases import Cases
    from nomoat.server.conduct.ledger import ConductLedger
    from nomoat.server.rounds.machines.evidence import RoundEvidence, SessionEvidence
    from tests.hostile.members import Village

    town = Village(tmp_path, 4)
    ledger, cases = ConductLedger(town.registrar), Cases(town.registrar.database)
    for number in range(1, 9):
        shown = SessionEvidence(sizes={"v1": 1.4, "v2": 1.0})
        held = ledger.judge(number, RoundEvidence((shown,)), town.now + number)
        if number == 2:
            assert list(held) == ["v1"]
            town.registrar.order("v1", Event.RELEASE, "", town.now + number)
        elif number == 3:  # approved again it begins anew
            assert held == {}
    assert town.registrar.roster().members["v1"].standing == "held"
    assert len(cases.sizes_of("v2")) == 8
    assert "v2" not in town.held()
