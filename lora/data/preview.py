"""Look at a data set as training will see it: one example, counts, and what to beware of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nomoat.lora.data.conversations import Dataset, Dropped, FileRows, merged
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.data.files.listing import Unread
from nomoat.lora.data.lengths import RowLengths, measure, mending, unusable
from nomoat.lora.data.row_counts import DROPPED_SHARE

CUT_SHARE = 0.05  # of the rows: more are worth a warning

Mend = Callable[[RowLengths, int | None], str]


@dataclass(frozen=True, slots=True)
class Preview:
    """The first example token by token, counts over all rows, and warnings.

    rows: all that were read; those not in `usable` are in `dropped`. ignored: what usable rows hold
    and is not used.
    """

    layout: str
    template: str
    seq_len: int
    seq_len_reason: str
    first: tuple[tuple[str, bool], ...]  # (text of the token, trained)
    first_origin: str
    rows: int
    usable: int
    examples: int
    tokens: int
    trained_tokens: int
    truncated: int
    dropped: tuple[Dropped, ...]
    ignored: tuple[Dropped, ...]
    files: tuple[FileRows, ...]
    unread: tuple[Unread, ...]
    warnings: tuple[str, ...]


def preview(
    dataset: Dataset,
    encoder: Encoder,
    lengths: RowLengths | None = None,
    context: int | None = None,
    reason: str = "",
    mend: Mend = mending,
) -> Preview:
    """Encode `dataset` as training will; BadData is left to the caller if nothing remains.

    lengths: of its conversations, if they were measured. context: what the model reads at most.
    reason: where the encoder's sequence length comes from. mend: says what whoever reads it can do.
    """
    rows, seq_len = dataset.conversations, encoder.seq_len
    lengths = lengths or measure(encoder, rows)
    encoded = encoder.encode_all(rows)
    examples = encoded.examples
    usable = np.flatnonzero(lengths.usable(seq_len))
    first = rows[usable[0]] if len(usable) else None
    dropped = merged(dataset.dropped, unusable(lengths, rows, seq_len))
    return Preview(
        layout=dataset.layout,
        template=encoder.template,
        seq_len=seq_len,
        seq_len_reason=reason,
        first=() if first is None else encoder.show(first),
        first_origin="" if first is None else first.origin,
        rows=dataset.rows,
        usable=len(usable),
        examples=len(examples),
        tokens=sum(len(example.input_ids) for example in examples),
        trained_tokens=sum(int(example.trained.sum()) for example in examples),
        truncated=encoded.truncated,
        dropped=dropped,
        ignored=dataset.ignored,
        files=dataset.files,
        unread=dataset.unread,
        warnings=warnings(dataset.rows, lengths, seq_len, context, mend),
    )


def warnings(
    rows: int,
    lengths: RowLengths,
    seq_len: int,
    context: int | None = None,
    mend: Mend = mending,
) -> tuple[str, ...]:
    """Warn of what happens at `seq_len`: rows cut, rows dropped, ends that are never learnt."""
    found: list[str] = []
    usable, cut = int(lengths.usable(seq_len).sum()), lengths.cut(seq_len)
    short = lengths.holding() > seq_len
    if usable and cut > CUT_SHARE * usable:
        found.append(
            f"{cut} of {usable} rows are cut at {seq_len} tokens, the ends of their replies with "
            f"them; {mend(lengths, context)}"
        )
    if rows - usable > DROPPED_SHARE * rows:
        end = f"; {mend(lengths, context)}" if short else ""
        found.append(f"{rows - usable} of {rows} rows are dropped{end}")
    if usable and not lengths.end_tokens(seq_len):
        end = f"; {mend(lengths, context)}" if short else "; the tokenizer has none"
        found.append(f"no end token is trained, so the model will not learn when to stop{end}")
    return tuple(found)
