"""Every row goes to exactly one volunteer, and no held-out row is ever trained on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import BadData
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.simulations.partition import by_field, dirichlet, iid, names, split


def rows_of(count: int, labels: int = 4) -> list[Conversation]:
    return [
        Conversation((ChatTurn("text", f"row {i}"),), {"topic": f"t{i % labels}"}, f"rows:{i + 1}")
        for i in range(count)
    ]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=30)
@given(count=st.integers(1, 80), volunteers=st.integers(1, 12), seed=st.integers(0, 99))
def test_iid_deals_every_row_once_and_evenly(count: int, volunteers: int, seed: int) -> None:
    rows = rows_of(count)
    shards = iid(rows, volunteers, rng(seed))
    dealt = [row for shard in shards.values() for row in shard]
    assert Counter(map(hash, dealt)) == Counter(map(hash, rows))
    sizes = [len(shard) for shard in shards.values()]
    assert max(sizes) - min(sizes) <= 1
    assert list(shards) == names(volunteers)
    assert iid(rows, volunteers, rng(seed)) == shards


@settings(max_examples=30)
@given(
    count=st.integers(1, 80),
    volunteers=st.integers(1, 12),
    alpha=st.sampled_from([0.01, 0.3, 100.0]),
    seed=st.integers(0, 99),
)
def test_dirichlet_deals_every_row_once(
    count: int, volunteers: int, alpha: float, seed: int
) -> None:
    rows = rows_of(count)
    labels = [row.fields["topic"] for row in rows]
    shards = dirichlet(rows, labels, volunteers, alpha, rng(seed))
    dealt = [row for shard in shards.values() for row in shard]
    assert Counter(map(hash, dealt)) == Counter(map(hash, rows))
    assert all(shards.values())
    assert dirichlet(rows, labels, volunteers, alpha, rng(seed)) == shards


def test_a_small_alpha_skews_and_a_large_one_does_not() -> None:
    rows = rows_of(800)
    labels = [row.fields["topic"] for row in rows]

    def largest_share(alpha: float) -> float:
        shards = dirichlet(rows, labels, 4, alpha, rng(1))
        counts = [Counter(row.fields["topic"] for row in shard) for shard in shards.values()]
        return float(np.mean([max(c[label] for c in counts) / 200 for label in set(labels)]))

    assert largest_share(0.05) > 0.75  # of a label's rows, with one volunteer
    assert largest_share(1000.0) < 0.35


def test_by_field_makes_one_volunteer_per_value_and_keeps_the_largest() -> None:
    rows = [
        Conversation((ChatTurn("text", str(i)),), {"who": who}, f"rows:{i}")
        for i, who in enumerate(["ada", "bob", "ada", " ", "cy", "ada", "bob", ""])
    ]
    everyone = by_field(rows, "who", None)
    assert {name: len(shard) for name, shard in everyone.items()} == {"ada": 3, "bob": 2, "cy": 1}
    assert list(by_field(rows, "who", 2)) == ["ada", "bob"]


def test_a_field_that_no_row_has_is_named_with_those_there_are() -> None:
    with pytest.raises(BadData, match=r"'speaker'.*topic"):
        by_field(rows_of(3), "speaker", None)


def test_names_sort_as_their_numbers_do() -> None:
    for count in (1, 11, 101, 1001):
        assert names(count) == sorted(names(count))
        assert len(set(names(count))) == count


@settings(max_examples=50)
@given(
    count=st.integers(2, 60),
    held_out=st.floats(0.01, 0.99),
    most=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_held_out_rows_are_apart_at_least_one_and_at_most_the_limit(
    count: int, held_out: float, most: int, seed: int
) -> None:
    rows = rows_of(count)
    train, test = split(rows, held_out, most, rng(seed))
    assert train
    assert 1 <= len(test) <= most
    assert not {row.origin for row in train} & {row.origin for row in test}
    drawn = min(max(1, round(held_out * count)), count - 1)
    assert len(train) == count - drawn  # a larger limit never gives a row to training
