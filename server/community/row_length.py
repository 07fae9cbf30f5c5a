"""The community's sequence length where its owner leaves it open, and the rows to evaluate on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import BadData
from nomoat.lora.data import lengths
from nomoat.lora.data.conversations import Dataset, merged
from nomoat.lora.data.files.listing import shown
from nomoat.lora.data.lengths import ChosenLength
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.preview import warnings
from nomoat.lora.data.reading import read
from nomoat.lora.data.row_counts import in_words
from nomoat.lora.model.context import context_length
from nomoat.lora.model.files import config
from nomoat.lora.workers.jobs import LengthsJob
from nomoat.lora.workers.pool import Pool


@dataclass(frozen=True)
class EvaluationRows:
    """Rows that can be measured with, if any were given; notes: sentences for the owner."""

    dataset: Dataset | None
    chosen: ChosenLength
    notes: tuple[str, ...]


def evaluation_rows(path: Path | None, seq_len: int, base: Path, pool: Pool) -> EvaluationRows:
    """Read the rows to evaluate on and choose the sequence length; 0: as the rows need it.

    Volunteers' own machines decide what fits their memory, so it plays no part here. BadData if
    rows were given and none can be used.
    """
    if path is None:
        chosen = lengths.choose(None, context_length(config(base)))
        if seq_len:
            return EvaluationRows(None, ChosenLength(seq_len, "as it was asked for"), ())
        hint = "name rows like the volunteers' with --eval, or say --seq-len"
        return EvaluationRows(None, chosen, (f"{_told(chosen)}; {hint}",))
    dataset = read(path)
    rows = dataset.conversations
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rows.jsonl"
        write_jsonl(rows, file)
        measured, context = pool.submit(LengthsJob(file)).result()
    if seq_len:
        chosen = ChosenLength(seq_len, "as it was asked for")
    else:
        chosen = lengths.choose(measured, context)
    dropped = merged(dataset.dropped, lengths.unusable(measured, rows, chosen.seq_len))
    usable = measured.usable(chosen.seq_len)
    kept = tuple(row for row, keep in zip(rows, usable, strict=True) if keep)
    if not kept:
        raise BadData(f"{shown(path)}: no row can be measured with: {in_words(dropped)}")
    notes = [_told(chosen), *warnings(dataset.rows, measured, chosen.seq_len, context)]
    if dropped:
        notes.append(f"{len(kept)} of {dataset.rows} rows to measure with; {in_words(dropped)}")
    return EvaluationRows(
        replace(dataset, conversations=kept, dropped=dropped), chosen, tuple(notes)
    )


def _told(chosen: ChosenLength) -> str:
    return f"sequence length {chosen.seq_len}: {chosen.reason}"
