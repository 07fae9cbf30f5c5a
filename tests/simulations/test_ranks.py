"""Who has which rank: a list goes round, shares are met as nearly as whole volunteers allow."""

from __future__ import annotations

from collections import Counter

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.simulations.ranks import ranks_of
from nomoat.simulations.scenario import Scenario, resolve


def test_a_list_goes_round_the_volunteers() -> None:
    assert ranks_of("4,8,16", 7, 16, 0) == (4, 8, 16, 4, 8, 16, 4)
    assert ranks_of("4, 4 ,16", 4, 16, 0) == (4, 4, 16, 4)


def test_without_ranks_everyone_has_the_communitys() -> None:
    assert ranks_of(None, 3, 8, 0) == (8, 8, 8)


@pytest.mark.parametrize("volunteers", [2, 3, 10, 11, 997])
def test_shares_are_met_within_one_volunteer(volunteers: int) -> None:
    shares = {4: 0.5, 8: 0.3, 16: 0.2}
    found = Counter(ranks_of("4:0.5,8:0.3,16:0.2", volunteers, 16, 1))
    assert sum(found.values()) == volunteers
    assert all(abs(found[r] - share * volunteers) < 1 for r, share in shares.items())


def test_who_gets_which_comes_from_the_seed() -> None:
    one, same, other = (ranks_of("4:0.5,8:0.5", 40, 8, seed) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("text", ["", "4,", "x", "0", "-4", "2000", "4:x", "4:0.5,8", "4:2,8:-1"])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--ranks") as refused:
        Scenario(ranks=text)
    assert "\n" not in str(refused.value)


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(UsageError, match=r"add up to 0\.8"):
        Scenario(ranks="4:0.5,8:0.3")


def test_the_community_has_the_largest_rank_unless_told_otherwise() -> None:
    assert Scenario(ranks="4,8,16").rank == 16
    assert Scenario(ranks="4,8,16", rank=8).rank == 8
    assert Scenario().rank == 8
    assert resolve(None, {"ranks": [2, 4]}).ranks == "2,4"


def test_ranks_that_are_all_the_communitys_are_not_mixed() -> None:
    fedex = {"method": "fedex", "secure": False}
    assert Scenario(**fedex, ranks="8", rank=8).chosen.choices().mixed_ranks is False
    assert (
        Scenario(**fedex, ranks="16,8", rank=8).chosen.choices().mixed_ranks is False
    )  # all train 8
    with pytest.raises(UsageError, match=r"fedex cannot do mixed ranks; .*flexlora can"):
        Scenario(**fedex, ranks="4,8")
