"""Row lengths in tokens, measured once; what any sequence length does to the rows follows.

Also the rule by which a sequence length is chosen where nobody names one (docs/adr/0010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.data.conversations import Conversation, Dropped, Tally
from nomoat.lora.data.encoding import BATCH, NOTHING, TOO_LONG, Encoder, Tokens

USUAL = TrainSettings().seq_len  # where nothing is known of the data
MOST = 4096  # that is chosen unasked
WHOLE = 0.95  # of the rows are to be whole
LEAST = 8
UNCUT = 1 << 30  # of an encoder that only measures
NEVER = 1 << 60


@dataclass(frozen=True, eq=False, slots=True)
class RowLengths:
    """Rows in tokens, in the order of the rows; all arrays are (rows,).

    least: tokens up to the first that is learnt, more than any sequence has if there is none.
    needed: up to the last; 0 where cutting loses nothing (plain text). ends: the last is an end
    token. reasons: why a row has no tokens at all, "" for others.
    """

    least: NDArray[np.int64]
    needed: NDArray[np.int64]
    ends: NDArray[np.bool_]
    reasons: tuple[str, ...]

    def usable(self, seq_len: int) -> NDArray[np.bool_]:
        """Rows with a token to learn within `seq_len`."""
        return self.least <= seq_len

    def cut(self, seq_len: int) -> int:
        """Usable rows of which something that is learnt is cut off."""
        return int((self.usable(seq_len) & (self.needed > seq_len)).sum())

    def end_tokens(self, seq_len: int) -> int:
        """Rows of which an end token is learnt."""
        return int((self.usable(seq_len) & self.ends & (self.needed <= seq_len)).sum())

    def reason(self, row: int, seq_len: int) -> str:
        """Return why a row is not usable; "" if it is."""
        if self.least[row] <= seq_len:
            return ""
        return self.reasons[row] or TOO_LONG.format(seq_len)

    def holding(self, share: float = WHOLE) -> int:
        """The shortest sequence in which that share of the rows is whole; 0 if any is."""
        possible = self.needed[[not reason for reason in self.reasons]]
        if not len(possible):
            return 0
        return int(np.quantile(possible, share, method="inverted_cdf"))


def measure(encoder: Encoder, conversations: Sequence[Conversation]) -> RowLengths:
    """Measure every conversation; the encoder's own sequence length does not matter."""
    least, needed, ends, reasons = list[int](), list[int](), list[bool](), list[str]()
    source = iter(conversations)
    while batch := list(islice(source, BATCH)):
        for texts in encoder.tokens(batch):
            told = _measured(texts)
            least.append(told[0])
            needed.append(told[1])
            ends.append(told[2])
            reasons.append(told[3])
    return RowLengths(
        np.asarray(least, np.int64),
        np.asarray(needed, np.int64),
        np.asarray(ends, np.bool_),
        tuple(reasons),
    )


def _measured(texts: list[Tokens] | str) -> tuple[int, int, bool, str]:
    if isinstance(texts, str):
        return NEVER, 0, False, texts
    learning = [text for text in texts if text.needed]
    if not learning:
        return NEVER, 0, False, NOTHING
    needed = max(0 if text.all_learnt else text.needed for text in learning)
    least = min(text.least for text in learning)
    return least, needed, any(text.ends for text in learning), ""


def joined(parts: Sequence[RowLengths]) -> RowLengths:
    """Parts of the rows, measured apart, as one."""
    return RowLengths(
        np.concatenate([part.least for part in parts]),
        np.concatenate([part.needed for part in parts]),
        np.concatenate([part.ends for part in parts]),
        tuple(reason for part in parts for reason in part.reasons),
    )


def unusable(
    lengths: RowLengths, conversations: Sequence[Conversation], seq_len: int
) -> tuple[Dropped, ...]:
    """Count the rows that cannot be trained on at `seq_len`, by reason."""
    tally = Tally()
    for row in np.flatnonzero(~lengths.usable(seq_len)).tolist():
        tally.add(lengths.reason(row, seq_len), conversations[row].origin)
    return tally.dropped()


@dataclass(frozen=True, slots=True)
class ChosenLength:
    """A sequence length, and in words where it comes from."""

    seq_len: int
    reason: str


def choose(
    lengths: RowLengths | None, context: int | None, fits: Callable[[int], bool] = lambda _: True
) -> ChosenLength:
    """The sequence length to train with where nobody names one.

    USUAL, or the next power of two in which 95 % of the rows are whole, MOST at most; never more
    than the model reads (`context`, None if unbounded), nor than fits this machine's memory.
    """
    needed = 0 if lengths is None else lengths.holding()
    seq_len = USUAL
    while seq_len < min(needed, MOST):
        seq_len *= 2
    if lengths is None:
        reason = "no rows to measure"
    elif seq_len >= needed:
        reason = f"{WHOLE:.0%} of the rows are whole in {needed} tokens"
    else:
        reason = f"the most that is chosen unasked; {WHOLE:.0%} of the rows need {needed} tokens"
    if context is not None and context < seq_len:
        seq_len, reason = context, f"the model reads {context} tokens"
    while seq_len > LEAST and not fits(seq_len):
        seq_len, reason = max(LEAST, seq_len // 2), "more does not fit this machine's memory"
    return ChosenLength(seq_len, reason)


def mending(lengths: RowLengths, context: int | None) -> str:
    """Name the --seq-len that would leave 95 % of the rows whole, as the end of a sentence."""
    needed = -(-lengths.holding() // LEAST) * LEAST
    if context is not None and needed > context:
        return f"{WHOLE:.0%} of the rows need --seq-len {needed}, but the model reads {context}"
    every = -(-lengths.holding(1.0) // LEAST) * LEAST
    if every <= needed:
        return f"--seq-len {needed} leaves all of them whole"
    return f"--seq-len {needed} leaves {WHOLE:.0%} of them whole, {every} all"


def asking(lengths: RowLengths, context: int | None) -> str:
    """Say what mends it where the length is not the owner's to choose, as the end of a sentence."""
    needed = -(-lengths.holding() // LEAST) * LEAST
    if context is not None and needed > context:
        return f"{WHOLE:.0%} of the rows need {needed}, but the model reads {context}: shorten them"
    return f"the coordinator chose that; shorten the rows, or ask for {needed} in a new community"
