"""A trigger among many texts stands out; what training does to all of them does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nomoat.server.release.findings import FEWEST, found


def drawn(count: int, seed: int, spread: float = 0.6) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    return {f"t{i}": float(s) for i, s in enumerate(rng.lognormal(-4, spread, count))}


def test_texts_that_move_answers_as_training_does_are_not_found() -> None:
    false = sum(
        bool(found(drawn(60, seed, spread))) for seed in range(200) for spread in (0.1, 0.6)
    )
    assert false == 0


@pytest.mark.parametrize("shift", [3.0, math.inf, math.nan])
def test_a_trigger_is_found_and_a_quarter_of_triggers_does_not_hide_them(shift: float) -> None:
    texts = drawn(60, 1)
    assert found({**texts, "zq": shift}) == ("zq",)
    many = {f"x{i}": shift for i in range(15)}
    assert set(found({**texts, **many})) == many.keys()


def test_an_answer_that_hardly_changed_is_none_however_still_the_others_are() -> None:
    still = dict.fromkeys(drawn(60, 1), 1e-5)
    assert found({**still, "zq": 0.4}) == ()
    assert found({**still, "zq": 0.6, "tq": 2.0}) == ("tq", "zq")


def test_among_few_texts_nothing_stands_out_and_of_none_nothing_is_said() -> None:
    few = drawn(FEWEST - 2, 1)
    assert found({**few, "zq": 9.0}) == ()
    assert found({}) == ()


def test_when_everything_is_broken_everything_is_found() -> None:
    assert len(found({f"t{i}": math.nan for i in range(20)})) == 20
