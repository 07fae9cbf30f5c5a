"""The loss of each row by itself, as far as the time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.canaries.readings import RowReading
from nomoat.lora.data.batches import batch_of, pieces
from nomoat.lora.data.conversations import Conversation
from nomoat.lora.data.encoding import Encoder, Example
from nomoat.lora.training.evaluate import carrying
from nomoat.lora.training.loss import Losses, losses_of
from nomoat.lora.training.train import piece_tokens

if TYPE_CHECKING:
    from peft import PeftModel

TOGETHER = 8  # rows


def row_losses(
    model: PeftModel,
    adapter: Adapter | None,
    encoder: Encoder,
    rows: Sequence[Conversation],
    seconds: float,
    clock: Callable[[], float],
) -> tuple[RowReading, ...]:
    """Read rows in order under an adapter (None: the base alone); none is begun after `seconds`.

    Those there was no time for are missing at the end. BadData, before any is read, if the model
    does not reach one's end.
    """
    import torch

    examples, end = [_whole(encoder, row) for row in rows], clock() + seconds
    found: list[RowReading] = []
    model.eval()
    with carrying(model, adapter), torch.inference_mode(), losses_of(model) as losses:
        for start in range(0, len(examples), TOGETHER):
            if clock() >= end:
                break
            some = examples[start : start + TOGETHER]
            found += _readings(losses, some, piece_tokens(model, None))
    return tuple(found)


def _whole(encoder: Encoder, row: Conversation) -> Example:
    encoded = encoder.encode_all([row])
    if len(encoded.examples) != 1 or encoded.truncated:
        raise BadData(f"{row.origin}: the model does not read so long a row, or nothing is said")
    return encoded.examples[0]


def _readings(losses: Losses, some: Sequence[Example], most: int) -> Iterator[RowReading]:
    parts = [losses(piece, "none").float().cpu().numpy() for piece in pieces(batch_of(some), most)]
    of_tokens = np.concatenate(parts).astype(np.float64)  # row by row, as the batch has them
    counts = [int(example.trained.sum()) for example in some]
    for first, behind in pairwise(np.cumsum([0, *counts]).tolist()):
        yield RowReading(float(of_tokens[first:behind].sum()), behind - first)
