"""Counts of rows that are not used: how many are too many, and all of them in words."""

from __future__ import annotations

from nomoat.lora.data.conversations import Dropped

DROPPED_SHARE = 0.2  # of the rows: more ask for a decision


def too_many_dropped(rows: int, dropped: tuple[Dropped, ...]) -> bool:
    """Tell a data set of which so much is dropped that its owner should decide."""
    return sum(each.count for each in dropped) > DROPPED_SHARE * rows


def in_words(dropped: tuple[Dropped, ...]) -> str:
    """Reasons with their counts, on one line."""
    return "; ".join(f"{each.count}: {each.reason} (first: {each.first})" for each in dropped)
