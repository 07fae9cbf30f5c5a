"""Warnings of `data preview`: too many rows cut or dropped, no end learnt, and what mends it."""

from __future__ import annotations

import numpy as np

from nomoat.lora.data.lengths import RowLengths, asking
from nomoat.lora.data.preview import warnings


def rows(*needed: int, ends: bool = True) -> RowLengths:
    """Chats that are learnt from their fifth token to the last."""
    count = len(needed)
    whole = np.asarray(needed, np.int64)
    return RowLengths(np.full(count, 5), whole, np.full(count, ends), ("",) * count)


def test_more_than_one_row_in_twenty_cut_is_a_warning_that_names_what_mends_it() -> None:
    few, more = rows(*[30] * 19, 300), rows(*[30] * 18, 300, 300)
    assert warnings(20, few, 128) == ()
    (said,) = warnings(20, more, 128)
    assert said.startswith("2 of 20 rows are cut at 128 tokens")
    assert "--seq-len 304 leaves all of them whole" in said
    assert warnings(20, more, 304) == ()
    (said,) = warnings(20, more, 128, context=256)
    assert "need --seq-len 304, but the model reads 256" in said


def test_rows_without_a_learnt_end_are_a_warning_that_names_what_mends_it() -> None:
    cut, said = warnings(4, rows(*[30] * 4), 16)
    assert cut.startswith("4 of 4 rows are cut")
    assert said.startswith("no end token is trained")
    assert "--seq-len 32 leaves all of them whole" in said
    assert warnings(4, rows(*[30] * 4), 32) == ()
    (said,) = warnings(4, rows(*[30] * 4, ends=False), 32)
    assert said.startswith("no end token is trained")
    assert said.endswith("the tokenizer has none")


def test_who_cannot_choose_the_length_is_told_of_no_option_that_chooses_it() -> None:
    for context in (None, 256):
        (said,) = warnings(20, rows(*[30] * 18, 300, 300), 128, context, asking)
        assert "304" in said
        assert "shorten" in said
        assert "--" not in said


def test_more_than_one_row_in_five_dropped_is_a_warning() -> None:
    assert warnings(20, rows(*[30] * 16), 128) == ()
    assert warnings(20, rows(*[30] * 15), 128) == ("5 of 20 rows are dropped",)
    (said,) = warnings(20, rows(*[30] * 15, *[300] * 5), 4)
    assert said.startswith("20 of 20 rows are dropped; --seq-len 304")
