"""The parts of a base that each GPU holds: the same answer wherever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nomoat.lora.model.shape import ALL_LINEAR, ModelShape

LOSS_TOKENS: Final = 512  # whose logits the last GPU has room for, beside its layers
LOGIT_BYTES: Final = 12  # of one value in the backward pass of cross entropy
RANK: Final = 16  # of the adapter that there is room for
MASTER_BYTES: Final = 16  # of one of its values on the first GPU: gradient and two moments, too
FACTOR_BYTES: Final = 8  # and where its layer is: value and gradient


@dataclass(frozen=True, slots=True)
class Layout:
    """The way a base is held. over_gpus: each of several GPUs has some of the layers, else all.

    embedding_in_ram: the embedding stays in main memory, with the head where both are one matrix.
    """

    over_gpus: bool = False
    embedding_in_ram: bool = False

    @property
    def in_words(self) -> str:
        """For a person; empty for a base that is held whole."""
        words = ["its layers shared out over the GPUs"] if self.over_gpus else []
        words += ["its embedding in main memory"] if self.embedding_in_ram else []
        return " and ".join(words)


WHOLE: Final = Layout()


@dataclass(frozen=True, slots=True)
class CardPart:
    """Part of a base on one GPU: so many layers, in order, and what stands before or after them.

    first: the optimiser's values of all layers are there, too.
    """

    layers: int
    embedding: bool
    head: bool
    first: bool


def parts_of(
    model: ModelShape, layout: Layout, bits: int | None, totals: Sequence[int]
) -> tuple[CardPart, ...]:
    """Share out the layers so that GPUs of `totals` bytes are filled alike, each by one at least.

    An embedding that is the head as well lies with it, behind the last layer. bits: of the layers'
    weights. GPUs beyond the number of layers have no part.
    """
    used = list(totals if layout.over_gpus else totals[:1])[: model.layers]
    tied, in_ram, last = model.tied, layout.embedding_in_ram, len(used) - 1
    embedding_at = None if in_ram else last if tied else 0
    head_at = None if tied and in_ram else last
    matrix = 2 * model.vocab * model.hidden
    filled = [0.0] * len(used)
    if embedding_at is not None and not tied:
        filled[0] += matrix
    if head_at is not None:
        filled[last] += matrix + LOGIT_BYTES * LOSS_TOKENS * model.vocab
    adapter = model.adapter_parameters(RANK, (ALL_LINEAR,))
    filled[0] += MASTER_BYTES * adapter
    a_layer = (model.linear_parameters * (bits or 16) / 8 + FACTOR_BYTES * adapter) / model.layers
    counts = [0] * len(used)
    for _ in range(model.layers):
        least = min(
            range(len(used)),
            key=lambda card: (counts[card] > 0, (filled[card] + a_layer) / used[card]),
        )
        counts[least] += 1
        filled[least] += a_layer
    return tuple(
        CardPart(count, card == embedding_at, card == head_at, card == 0)
        for card, count in enumerate(counts)
    )
