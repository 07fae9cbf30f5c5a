"""The search for a way of training that fits, over what lora/memory/prediction.py predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from nomoat.aggregation.errors import DoesNotFit
from nomoat.lora.memory.parts import LaidOut, together
from nomoat.lora.memory.prediction import (
    DeviceOverhead,
    Prediction,
    TrainingShape,
    Weights,
    predict,
)
from nomoat.lora.model.shape import ModelShape

BUSY_TOKENS: Final = 256  # fewer rows per matrix product than this leave any device waiting
LEAST_SEQ_LEN: Final = 128
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A way of training that fits: micro-batches of `training` make up the `batch` asked for."""

    training: TrainingShape
    batch: int
    predicted: Prediction  # of a base that is laid out: of all its GPUs together
    largest_bytes: int = 0  # that one GPU takes


def plan(
    model: ModelShape,
    wish: TrainingShape,
    budget_bytes: int,
    host: DeviceOverhead,
    stored_bytes: int = 0,
    laid_out: LaidOut | None = None,
) -> MemoryPlan:
    """The first way that fits `budget_bytes`: whole batches, then parts, then recomputing.

    `wish.micro_batch` is the batch of one optimiser step; it is kept by accumulating gradients.
    `stored_bytes` as in `predict`. laid_out: the parts of a base that no GPU
    holds whole. Raises DoesNotFit, saying what is missing and what would fit.
    """
    for training in _batchings(wish):
        if laid_out is not None:
            each = laid_out.predict(model, training, host)
            whole = together(each)
            if laid_out.fits(each) and whole.total <= budget_bytes:
                most = laid_out.largest(each)
                return MemoryPlan(training, wish.micro_batch, whole, most)
            continue
        predicted = predict(model, training, host, stored_bytes)
        if predicted.total <= budget_bytes:
            return MemoryPlan(training, wish.micro_batch, predicted, predicted.total)
    if laid_out is not None:
        raise DoesNotFit(_refusal_of_parts(model, wish, host, laid_out))
    raise DoesNotFit(_refusal(model, wish, budget_bytes, host, stored_bytes))


def shorter(seq_len: int) -> list[int]:
    """Sequence lengths to cut rows at where whole ones do not fit: halves, LEAST_SEQ_LEN at least.

    Half a row still teaches; a volunteer that trains nothing does not.
    """
    return _halves(seq_len, LEAST_SEQ_LEN)


def _batchings(wish: TrainingShape) -> Iterator[TrainingShape]:
    """Whole batch, then halves that keep the device busy; then all again with checkpointing.

    Checkpointing costs one more forward pass (a third more work), idling more than that.
    """
    sizes = [wish.micro_batch]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))
    if not wish.checkpointing:
        for size in sizes:
            if size == wish.micro_batch or size * wish.seq_len >= BUSY_TOKENS:
                yield replace(wish, micro_batch=size)
    for size in sizes:
        yield replace(wish, micro_batch=size, checkpointing=True)


def _refusal(
    model: ModelShape,
    wish: TrainingShape,
    budget_bytes: int,
    host: DeviceOverhead,
    stored_bytes: int,
) -> str:
    least = replace(wish, micro_batch=1, checkpointing=True)
    need = predict(model, least, host, stored_bytes).total
    fitting = [
        words
        for words, training in _remedies(least, host)
        if predict(model, training, host, stored_bytes).total <= budget_bytes
    ]
    advice = f"would fit: {', or '.join(fitting[:3])}" if fitting else "choose a smaller model"
    return (
        f"needs {need / GIB:.1f} GiB at {wish.weights.name.lower()}, sequence {wish.seq_len}, "
        f"rank {wish.rank}, one row at a time; {budget_bytes / GIB:.1f} GiB are free. {advice}"
    )


def _refusal_of_parts(
    model: ModelShape, wish: TrainingShape, host: DeviceOverhead, laid_out: LaidOut
) -> str:
    least = replace(wish, micro_batch=1, checkpointing=True)
    needs = [one.total / GIB for one in laid_out.predict(model, least, host)]
    free = [each / GIB for each in laid_out.free_bytes]
    said = ", ".join(f"{n:.1f} of {f:.1f} GiB" for n, f in zip(needs, free, strict=True))
    return (
        f"needs {said}, at {wish.weights.name.lower()}, its layers and embedding laid out, "
        f"sequence {wish.seq_len}, rank {wish.rank}, one row at a time; choose a smaller model"
    )


def _remedies(least: TrainingShape, host: DeviceOverhead) -> Iterator[tuple[str, TrainingShape]]:
    """Single changes first, then all of them together."""
    seq_lens = shorter(least.seq_len)
    ranks = _halves(least.rank, 1)
    smaller = [
        weights
        for weights in Weights
        if weights.linear_bytes < least.weights.linear_bytes
        and (host.quantises or weights is Weights.BF16)
    ]
    for seq_len in seq_lens:
        yield f"sequence {seq_len}", replace(least, seq_len=seq_len)
    for weights in smaller:
        yield f"a {weights.label} base", replace(least, weights=weights)
    for rank in ranks:
        yield f"rank {rank}", replace(least, rank=rank)
    for weights in smaller:
        for seq_len in seq_lens:
            together = replace(least, weights=weights, seq_len=seq_len)
            yield f"a {weights.label} base with sequence {seq_len}", together


def _halves(start: int, least: int) -> list[int]:
    found = []
    while start // 2 >= least:
        start //= 2
        found.append(start)
    return found
