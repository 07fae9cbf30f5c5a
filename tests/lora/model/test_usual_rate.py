"""Wider models get smaller rates; what has no width gets one, too."""

from __future__ import annotations

from nomoat.lora.model.usual_rate import MOST, usual_rate


def test_the_rate_falls_with_the_width_and_is_that_of_the_sweep_where_it_was_made() -> None:
    widths = (64, 128, 576, 2048, 4096, 8192)
    rates = [usual_rate({"hidden_size": width}).rate for width in widths]
    assert rates[:2] == [MOST, MOST]
    assert rates[2] == 2e-3
    assert rates == sorted(rates, reverse=True)
    assert 1e-4 < rates[-1] < rates[-2] < 4e-4
    assert "576" in usual_rate({"hidden_size": 576}).reason


def test_other_names_of_a_width_are_known_and_none_is_no_error() -> None:
    assert usual_rate({"n_embd": 576}) == usual_rate({"hidden_size": 576})
    assert usual_rate({"text_config": {"hidden_size": 576}}) == usual_rate({"hidden_size": 576})
    assert usual_rate({"hidden_size": "wide"}).rate == 1e-3
