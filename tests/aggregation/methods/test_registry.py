"""Choosing a method: what is refused, and that the refusal names what would do."""

from __future__ import annotations

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods import METHODS, get, require


def test_an_unknown_method_is_refused_with_the_names_there_are():
    with pytest.raises(UsageError) as refusal:
        get("fedprox")
    assert all(name in str(refusal.value) for name in METHODS)


@pytest.mark.parametrize("name", ["flora", "flexlora", "fedex"])
def test_plaintext_methods_are_refused_under_secure_aggregation(name):
    with pytest.raises(UsageError, match=r"cannot do secure aggregation; .*fedask.* can"):
        require(name, secure=True)


def test_mixed_ranks_are_refused_where_factors_must_match():
    with pytest.raises(UsageError, match="mixed ranks") as refusal:
        require("fedex", mixed_ranks=True)
    assert "flora" in str(refusal.value)


def test_the_refusal_names_only_methods_that_can_do_everything_asked():
    with pytest.raises(UsageError) as refusal:
        require("fedex", secure=True, mixed_ranks=True, optimizer=True)
    able = str(refusal.value).split("; ")[1].removesuffix(" can").split(", ")
    assert able
    for name in able:
        traits = METHODS[name].traits
        assert traits.summable
        assert traits.mixed_ranks
        assert traits.optimizers


def test_what_a_method_can_do_is_granted():
    assert require("fedplora", secure=True, mixed_ranks=True).name == "fedplora"
    assert require("flora", mixed_ranks=True).traits.grows
    assert require("fedask", secure=True).traits.exchanges == 2
