"""Dropouts and seeds of a simulation depend on the scenario and on nothing that happens in it."""

from __future__ import annotations

from nomoat.simulations.network.dropout import Dropout
from nomoat.simulations.scenario import Scenario

NAMES = [f"v{i:03d}" for i in range(400)]
AGGREGATION = ("query.report", "query.sa_offer")


def test_about_the_asked_part_drops_out_of_each_round_before_or_after_training() -> None:
    dropout = Dropout(b"s" * 32, 0.3)
    early = [name for name in NAMES if dropout(name, "train.local", "1")]
    late = [name for name in NAMES if dropout(name, "query.report", "1")]
    assert 0.2 < len(late) / len(NAMES) < 0.4
    assert set(early) < set(late)  # who is gone before training is gone after it, too
    assert 0.35 < len(early) / len(late) < 0.65
    for kind in AGGREGATION:
        assert [name for name in NAMES if dropout(name, kind, "1")] == late


def test_whoever_vanishes_is_drawn_anew_each_round_and_the_same_whenever_asked() -> None:
    dropout = Dropout(b"s" * 32, 0.3)
    rounds = [frozenset(n for n in NAMES if dropout(n, "query.report", str(r))) for r in (1, 2, 3)]
    assert len(set(rounds)) == 3
    again = [n for n in reversed(NAMES) if dropout(n, "query.report", "1")]
    assert frozenset(again) == rounds[0]
    other = Dropout(b"t" * 32, 0.3)
    assert frozenset(n for n in NAMES if other(n, "query.report", "1")) != rounds[0]


def test_held_out_losses_are_measured_of_everyone() -> None:
    dropout = Dropout(b"s" * 32, 0.99)
    assert not any(dropout(name, "evaluate.heldout", "1") for name in NAMES)


def test_without_dropout_nobody_vanishes() -> None:
    dropout = Dropout(b"s" * 32, 0.0)
    assert not any(dropout(n, k, "1") for n in NAMES for k in ("train.local", *AGGREGATION))


def test_no_two_purposes_share_a_seed() -> None:
    seeds = {Scenario(seed=s).seed_of(x) for s in (0, 1, 10) for x in ("a", "b", "1", "a 1")}
    assert len(seeds) == 12
