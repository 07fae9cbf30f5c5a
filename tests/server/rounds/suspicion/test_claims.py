"""Whoever lies about losses is found to fit nothing, and is not heard; the others always are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nomoat.server.rounds.acceptance import HeldOutLosses, judge
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.claims import MISFITS, REMEMBERED, misfits, unheard

BEST = HeldOutLosses({"ada": 2.0, "ben": 3.0, "cy": 2.5, "dee": 4.0}, 2.2)
ALONE = HeldOutLosses(BEST.volunteers)


def claims(*changes: float, own: float | None = None, best: HeldOutLosses = BEST) -> HeldOutLosses:
    """Losses that changed by so much."""
    named = zip(best.volunteers.items(), changes, strict=False)
    split = None if own is None or best.evaluation is None else best.evaluation * (1 + own)
    return HeldOutLosses({name: was * (1 + by) for (name, was), by in named}, split)


@pytest.mark.parametrize(
    ("changes", "own", "out"),
    [
        ((-0.02, -0.01, -0.03, 0.9), -0.02, {"dee"}),  # to block
        ((0.06, 0.05, 0.07, -0.9), 0.06, {"dee"}),  # to carry a bad one
        ((-0.02, -0.01, -0.03, math.inf), -0.02, {"dee"}),  # to say that it diverged
        ((-0.02, -0.01, -0.03, 0.9), None, {"dee"}),
        ((-0.02, 0.9), -0.02, {"ben"}),  # one of two: the split decides
        ((-0.02, 0.9), None, set()),  # one of two, and nobody can tell which
        ((-0.02, 0.02, -0.04, 0.02), -0.01, set()),  # rows that differ
        ((-0.4, -0.1, -0.25, -0.6), -0.3, set()),  # a large step
        ((0.5, 0.5, 0.5, -0.02), -0.02, set()),  # harm that the split lacks: most are believed
        ((math.inf,) * 4, math.inf, set()),  # it has diverged
        ((math.inf,) * 3, None, set()),
        ((), None, set()),
    ],
)
def test_who_fits_neither_the_split_nor_the_others_is_found(
    changes: tuple[float, ...], own: float | None, out: set[str]
) -> None:
    assert misfits(BEST, claims(*changes, own=own)) == out


def test_never_half_of_those_who_measured_without_a_split_and_never_more_with_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        changes = rng.normal(0, rng.choice([0.01, 0.3, 3.0]), rng.integers(1, 5)).tolist()
        assert 2 * len(misfits(BEST, claims(*changes))) < len(changes)
        own = float(rng.normal(0, 0.1))
        assert 2 * len(misfits(BEST, claims(*changes, own=own))) <= len(changes)


def record(number: int, *out: str, summed: bool = True) -> RoundRecord:
    return RoundRecord(number, True, "", contributors=("ada",) if summed else (), misfits=out)


def test_one_misfit_is_forgiven_two_are_not_until_they_are_long_ago() -> None:
    once = [record(1, "ada")]
    assert unheard(once) == frozenset()
    twice = [*once, record(2), record(3, summed=False), record(4, "ada", "ben")]
    assert unheard(twice) == {"ada"}
    after = [record(5 + n) for n in range(REMEMBERED - MISFITS + 1)]
    assert unheard([*twice, *after[:-2]]) == {"ada"}
    assert unheard([*twice, *after]) == frozenset()


def test_who_is_not_heard_decides_nothing_and_its_word_is_kept() -> None:
    candidate = claims(-0.02, -0.01, own=-0.02)
    lying = HeldOutLosses({**candidate.volunteers, "ben": 90.0}, candidate.evaluation)
    best = HeldOutLosses({"ada": 2.0, "ben": 3.0}, 2.2)
    assert not judge(best, lying).accepted
    verdict = judge(best, lying, unheard={"ben"})
    assert verdict.accepted
    assert verdict.best.volunteers["ben"] in (3.0, 90.0)


def test_where_nobody_is_heard_everybody_is() -> None:
    worse = claims(0.5, 0.6)
    assert not judge(ALONE, worse, unheard=BEST.volunteers.keys()).accepted


@pytest.mark.parametrize("own", [None, 2.0])
def test_most_who_say_that_a_candidate_diverged_are_believed(own: float | None) -> None:
    inf = dict.fromkeys(("ada", "ben", "cy"), math.inf)
    verdict = judge(BEST, HeldOutLosses({**inf, "dee": 3.0}, own))
    assert not verdict.accepted
    assert "not finite" in verdict.reason
    one = HeldOutLosses({"ada": 1.9, "ben": 2.9, "cy": 2.4, "dee": math.inf}, own)
    verdict = judge(BEST, one)
    assert verdict.accepted
    assert all(map(math.isfinite, verdict.best.volunteers.values()))


@pytest.mark.parametrize("lie", [90.0, 1e-6, math.inf])
@pytest.mark.parametrize(("honest", "split"), [(1, True), (2, False), (7, False), (7, True)])
def test_a_liar_about_losses_blocks_two_rounds_at_most_and_carries_no_bad_candidate(
    lie: float, honest: int, split: bool
) -> None:
    """Forty candidates, every fifth of them a tenth worse than the best, one liar in all."""
    rng = np.random.default_rng(honest)
    truth = 3.0
    best = HeldOutLosses(
        {**{f"v{n}": truth for n in range(honest)}, "liar": truth}, truth if split else None
    )
    records: list[RoundRecord] = []
    for number in range(40):
        bad = number % 5 == 4
        now = truth * (1.1 if bad else 0.99)
        told = {f"v{n}": now * float(rng.normal(1, 0.001)) for n in range(honest)}
        candidate = HeldOutLosses({**told, "liar": lie}, now if split else None)
        out = misfits(best, candidate)
        verdict = judge(best, candidate, unheard=unheard(records))
        records.append(
            RoundRecord(number, verdict.accepted, "", contributors=("a",), misfits=tuple(out))
        )
        best = verdict.best
        assert not (bad and verdict.accepted)
        truth = now if verdict.accepted else truth
    assert sum(not one.committed for one in records if one.round % 5 != 4) <= MISFITS
    assert all(one.misfits in ((), ("liar",)) for one in records)
