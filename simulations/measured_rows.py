"""The rows that a federation can use, measured by its workers before anything is shared out.

Here the sequence length is chosen where the scenario leaves it open, and a data set of which too
much would be lost is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import BadData
from nomoat.client.training.row_fit import row_fits
from nomoat.lora.data import lengths as row_lengths
from nomoat.lora.data.conversations import Conversation, Dataset, merged
from nomoat.lora.data.lengths import ChosenLength, RowLengths
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.preview import warnings
from nomoat.lora.data.row_counts import in_words, too_many_dropped
from nomoat.lora.model.files import resolve
from nomoat.lora.workers.cores import MAX_DEFAULT_WORKERS
from nomoat.lora.workers.jobs import LengthsJob
from nomoat.lora.workers.pool import Pool
from nomoat.simulations.population import Population
from nomoat.simulations.scenario import Scenario

PART_ROWS = 512  # measured in one go, at least


@dataclass(frozen=True)
class UsableRows:
    """A data set without the rows that have nothing to learn at the chosen length.

    lengths: of all its rows, those left out as well. context: what the model reads at most.
    """

    dataset: Dataset
    chosen: ChosenLength
    lengths: RowLengths
    context: int | None

    def warnings(self) -> tuple[str, ...]:
        """Return what to beware of: rows cut, ends that are never learnt."""
        return warnings(self.dataset.rows, self.lengths, self.chosen.seq_len, self.context)


def usable_rows(
    scenario: Scenario, dataset: Dataset, pool: Pool, model: str, folder: Path
) -> UsableRows:
    """Measure the rows, choose the sequence length, and leave out what cannot be trained on.

    folder: for files that are gone when this returns. BadData if no row is left.
    """
    rows = dataset.conversations
    lengths, context = _measured(pool, rows, folder)
    fits = row_fits(resolve(model), scenario.rank, at_once=MAX_DEFAULT_WORKERS)
    chosen = (
        ChosenLength(scenario.seq_len, "as it was asked for")
        if scenario.seq_len
        else row_lengths.choose(lengths, context, fits)
    )
    usable = lengths.usable(chosen.seq_len)
    dropped = merged(dataset.dropped, row_lengths.unusable(lengths, rows, chosen.seq_len))
    kept = tuple(row for row, keep in zip(rows, usable, strict=True) if keep)
    if not kept:
        raise BadData(f"{scenario.data}: no row can be trained on: {in_words(dropped)}")
    return UsableRows(
        replace(dataset, conversations=kept, dropped=dropped), chosen, lengths, context
    )


def _measured(
    pool: Pool, rows: Sequence[Conversation], folder: Path
) -> tuple[RowLengths, int | None]:
    """Measure in as many parts as keep the workers busy; what the model reads at most."""
    size = max(PART_ROWS, -(-len(rows) // (2 * MAX_DEFAULT_WORKERS)))
    files = []
    for number, start in enumerate(range(0, len(rows), size)):
        files.append(folder / f"measured-{number}.jsonl")
        write_jsonl(rows[start : start + size], files[-1])
    try:
        asked = [pool.submit(LengthsJob(file)) for file in files]
        found = [future.result() for future in asked]
        return row_lengths.joined([lengths for lengths, _ in found]), found[0][1]
    finally:
        for file in files:
            file.unlink()


def check_dropped(scenario: Scenario, population: Population, usable: UsableRows) -> None:
    """Raise BadData if more of the rows is lost than goes without a decision of their owner."""
    dropped = population.dropped
    if scenario.allow_dropping or not too_many_dropped(population.read, dropped):
        return
    lost = sum(each.count for each in dropped)
    mend = ""
    if usable.lengths.holding() > usable.chosen.seq_len:
        mend = f"; or {row_lengths.mending(usable.lengths, usable.context)}"
    raise BadData(
        f"{scenario.data}: {lost} of {population.read} rows would not be used: "
        f"{in_words(dropped)}; --allow-dropping goes on without them{mend}"
    )
