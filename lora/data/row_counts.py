"""Counts of rows that are not used: how many are too many, and all of them in words."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.lora.data.conversations import Dropped

DROPPED_SHARE = 0.2  # of the rows: more ask for a decision


@dataclass(frozen=True, slots=True)
class RowUse:
    """A sequence length's effect on the rows of a file.

    cut: rows of which something that is learnt is cut off. dropped: rows with nothing to learn.
    """

    rows: int
    seq_len: int
    cut: int
    dropped: tuple[Dropped, ...]

    def line(self) -> str:
        """Tell which rows are not whole, in one line; "" if all are."""
        told = []
        if lost := sum(each.count for each in self.dropped):
            told.append(f"{lost} of {self.rows} not used ({in_words(self.dropped)})")
        if self.cut:
            told.append(f"{self.cut} of {self.rows} cut off at {self.seq_len} tokens")
        return ", ".join(told)


def too_many_dropped(rows: int, dropped: tuple[Dropped, ...]) -> bool:
    """Tell a data set of which so much is dropped that its owner should decide."""
    return sum(each.count for each in dropped) > DROPPED_SHARE * rows


def in_words(dropped: tuple[Dropped, ...]) -> str:
    """Reasons with their counts, on one line."""
    return "; ".join(f"{each.count}: {each.reason} (first: {each.first})" for each in dropped)
