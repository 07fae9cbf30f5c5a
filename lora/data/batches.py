"""Examples → what one forward pass needs: padded ids, and where the learnt tokens are predicted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nomoat.lora.data.encoding import Example

WINDOW = 8  # batches among which rows are sorted by length
PAD = 0  # any id will do: padding is masked, stands right of what is read, and is never learnt


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """input_ids (n, longest); `places` are the flat positions whose next token is learnt.

    `targets[i]` is the token that position `places[i]` of input_ids.ravel() must predict. `mask`
    (n, longest) is False at padding; None where there is none.
    """

    input_ids: NDArray[np.int64]
    places: NDArray[np.int64]
    targets: NDArray[np.int64]
    mask: NDArray[np.bool_] | None = None


def batch_of(examples: Sequence[Example]) -> Batch:
    """One batch, padded on the right to its longest example."""
    width = max(len(example.input_ids) for example in examples)
    ids = np.full((len(examples), width), PAD, np.int64)
    mask = np.zeros(ids.shape, np.bool_)
    places, targets = [], []
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = example.input_ids
        mask[row, : len(example.input_ids)] = True
        learnt = np.flatnonzero(example.trained)
        places.append(learnt + (row * width - 1))
        targets.append(example.input_ids[learnt])
    learnt_tokens = np.concatenate(targets).astype(np.int64)
    return Batch(ids, np.concatenate(places), learnt_tokens, _needed(mask))


def shuffled_rows(
    examples: Sequence[Example], size: int, seed: bytes, share: float = 1.0
) -> Iterator[list[int]]:
    """The rows of one batch after the other, without end: every row once per pass, each pass in a
    new order drawn from `seed`.

    share: of the rows, the part that all passes are over, drawn first and rounded up. A batch holds
    min(size, those rows) rows; where a pass ends inside a batch, the next one goes on.
    Rows of like length go together, among WINDOW batches at a time, and the batches are shuffled
    again: on short rows of mixed lengths that saves about half of the padding.
    """
    rng = np.random.Generator(np.random.PCG64(_entropy(seed)))
    taken = np.arange(len(examples))
    if share < 1:
        taken = rng.permutation(len(examples))[: math.ceil(share * len(examples))]
    size = min(size, len(taken))
    left: list[int] = []  # rows of a pass that filled no batch
    while True:
        rows = left + rng.permutation(taken).tolist()
        whole = len(rows) - len(rows) % size
        for start in range(0, whole, WINDOW * size):
            window = rows[start : min(start + WINDOW * size, whole)]
            yield from _like_lengths(examples, window, size, rng)
        left = rows[whole:]


def _like_lengths(
    examples: Sequence[Example], window: list[int], size: int, rng: np.random.Generator
) -> list[list[int]]:
    """The window's rows in batches of like length; the batches in random order."""
    order = sorted(window, key=lambda row: len(examples[row].input_ids))  # stable: ties stay drawn
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def by_length(examples: Sequence[Example], size: int) -> Iterator[Batch]:
    """Every example once, the longest first, neighbours of like length together: little padding."""
    order = sorted(range(len(examples)), key=lambda row: (-len(examples[row].input_ids), row))
    for start in range(0, len(order), size):
        yield batch_of([examples[row] for row in order[start : start + size]])


def pieces(batch: Batch, most_tokens: int) -> Iterator[Batch]:
    """The batch's rows in pieces of at most `most_tokens` padded tokens (at least a row each)."""
    rows, width = batch.input_ids.shape
    height = rows_each(batch, most_tokens)
    for start in range(0, rows, height):
        first, behind = np.searchsorted(batch.places, (start * width, (start + height) * width))
        yield Batch(
            batch.input_ids[start : start + height],
            batch.places[first:behind] - start * width,
            batch.targets[first:behind],
            None if batch.mask is None else _needed(batch.mask[start : start + height]),
        )


def _needed(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The mask, or None if it hides nothing: kernels for whole rows are faster."""
    return None if bool(mask.all()) else mask


def rows_each(batch: Batch, most_tokens: int) -> int:
    """Rows of each of those pieces; the last one may have fewer."""
    rows, width = batch.input_ids.shape
    count = -(-rows // max(1, most_tokens // width))
    return int(-(-rows // count))


def steps_for(rows: int, size: int, passes: int) -> int:
    """Batches of min(size, rows) that `passes` passes over the rows fill, rounded up."""
    return -(-rows * passes // min(size, rows))


def _entropy(seed: bytes) -> int:
    return int.from_bytes(hashlib.sha256(b"nomoat batch order\0" + seed).digest(), "big")


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """input_ids, attention_mask and labels (−100: not learnt), each (batch, longest), int64.

    Padding stands on the right and is known by its position alone: a pad id that is also the
    <eos> id hides no <eos>.
    """
    shape = (len(examples), max(len(example.input_ids) for example in examples))
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, -100, np.int64)
    for row, example in enumerate(examples):
        n = len(example.input_ids)
        ids[row, :n], mask[row, :n] = example.input_ids, 1
        labels[row, :n] = np.where(example.trained, example.input_ids, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
