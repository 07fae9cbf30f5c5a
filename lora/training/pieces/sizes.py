"""A few sizes that pieces are filled up to, so that a handful of recordings serve a whole run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nomoat.lora.data.batches import PAD, Batch

LEAST_STEP = 16  # tokens between two widths
EIGHTHS = 8  # widths per octave: at most an eighth of the next power of two is padding
UNLEARNT = -100  # a target that cross entropy passes over


@dataclass(frozen=True, slots=True)
class PieceSize:
    """Rows, tokens of a row, and places whose next token is learnt."""

    rows: int
    width: int
    places: int


def size_for(piece: Batch, longest: int) -> PieceSize:
    """Return the size a piece is filled up to; rows of more than `longest` tokens are not made."""
    rows, width = piece.input_ids.shape
    step = max(LEAST_STEP, (1 << (width - 1).bit_length()) // EIGHTHS)
    wide = max(width, min(-(-width // step) * step, longest))
    places = rows * wide
    while places // 2 >= len(piece.places):
        places //= 2
    return PieceSize(rows, wide, places)


def filled_up(piece: Batch, size: PieceSize) -> tuple[NDArray[np.int64], ...]:
    """Return ids (rows, width), places and targets (places,) of a piece at that size.

    Padding stands to the right of what causal attention reads; places that are filled in have the
    target UNLEARNT, and add nothing.
    """
    width = piece.input_ids.shape[1]
    ids = np.full((size.rows, size.width), PAD, np.int64)
    ids[:, :width] = piece.input_ids
    places = np.zeros(size.places, np.int64)
    places[: len(piece.places)] = piece.places // width * size.width + piece.places % width
    targets = np.full(size.places, UNLEARNT, np.int64)
    targets[: len(piece.targets)] = piece.targets
    return ids, places, targets
