"""How to train so that it fits this machine, decided before anything is loaded."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.client.machine.free_memory import Room, room
from nomoat.client.machine.limits_settings import Allowance
from nomoat.lora.memory.plan import Plan, plan, shorter
from nomoat.lora.memory.prediction import FP32, Optimizer, Training, Weights
from nomoat.lora.model.files import config, resolve, stored_bytes
from nomoat.lora.model.shape import ALL_LINEAR, ModelShape
from nomoat.lora.training.train import CPU_TOKENS
from nomoat.lora.workers.jobs import TrainJob

Bits = Literal[4, 8, 16]


@dataclass(frozen=True, slots=True)
class Work:
    """What a training asks of whatever machine does it.

    frozen_rank: modules of the adapter that take part in the forward pass and are not trained.
    """

    batch_size: int
    seq_len: int
    rank: int
    target_modules: tuple[str, ...] = (ALL_LINEAR,)
    adam_8bit: bool = False
    frozen_rank: int = 0


def planned(work: Work, folder: Path, into: Room, bits: Bits | None) -> Plan:
    """The plan for such a place, the base in `bits`; DoesNotFit says what would.

    UsageError if the model's need cannot be predicted.
    """
    shape = ModelShape.from_config(config(folder))
    on_cpu = not into.host.quantises
    rows = work.batch_size
    if on_cpu:  # a CPU trains a batch in pieces of a few hundred tokens anyway
        rows = min(rows, max(1, CPU_TOKENS // work.seq_len))
    wish = Training(
        rows,
        work.seq_len,
        work.rank,
        work.target_modules,
        weights=_weights(bits, on_cpu),
        optimizer=Optimizer.ADAMW_8BIT if work.adam_8bit else Optimizer.ADAMW,
        autocast=not on_cpu,
    )
    frozen = FP32 * shape.adapter_parameters(work.frozen_rank, work.target_modules)
    free = into.free_bytes - frozen
    return plan(shape, wish, free, into.host, stored_bytes=stored_bytes(folder))


def planned_or_cut(work: Work, folder: Path, into: Room, bits: Bits | None) -> Plan:
    """The same, with rows cut at half their length, or a quarter …, where whole ones do not fit."""
    try:
        return planned(work, folder, into, bits)
    except DoesNotFit:
        for seq_len in shorter(work.seq_len):
            with contextlib.suppress(DoesNotFit):
                return planned(replace(work, seq_len=seq_len), folder, into, bits)
        raise


def largest_rank(work: Work, folder: Path, into: Room, bits: Bits | None) -> int:
    """The largest power of two up to MAX_RANK with which `work` fits, its rows whole if they can.

    What is not trained of the rank of `work` is frozen. DoesNotFit if not even rank 1 fits.
    """
    whole = work.rank + work.frozen_rank
    rank = MAX_RANK
    while rank > 1:
        some = replace(work, rank=rank, frozen_rank=max(0, whole - rank))
        try:
            planned(some, folder, into, bits)
        except DoesNotFit:
            rank //= 2
        else:
            return rank
    planned_or_cut(replace(work, rank=1, frozen_rank=whole - 1), folder, into, bits)
    return 1


def bits_that_fit(work: Work, folder: Path, into: Room) -> Bits | None:
    """None where the base fits as it is usually held, else fewer, before rows are cut.

    4 on a GPU, if they can be had; 16 on a CPU. DoesNotFit if nothing does, UsageError where the
    model's need cannot be predicted.
    """
    fewer: Bits = 4 if into.host.quantises else 16
    can = fewer == 16 or _can_quantise()
    choices: tuple[Bits | None, ...] = (None, fewer) if can else (None,)
    for way in (planned, planned_or_cut):
        for bits in choices:
            with contextlib.suppress(DoesNotFit):
                way(work, folder, into, bits)
                return bits
    if can:
        planned(work, folder, into, None)  # says why not
    planned_or_cut(work, folder, into, fewer)
    raise DoesNotFit("needs a 4-bit base, and that needs: pip install 'nomoat[gpu]'")


def check_bits(allowance: Allowance) -> None:
    """UsageError, in one line, if fewer bits were asked for and cannot be had."""
    quantised = allowance.base_bits in (4, 8)
    asked = "adam_8bit" if allowance.adam_8bit else "base_bits" if quantised else None
    if asked and not _can_quantise():
        raise UsageError(
            f"{asked} in settings.toml needs bitsandbytes: pip install 'nomoat[gpu]', or take "
            "the line out"
        )


def fitted(
    job: TrainJob, base: str, device: str, allowance: Allowance, ours: frozenset[int] = frozenset()
) -> TrainJob:
    """`job` in pieces that fit the free memory, activations recomputed where they must be.

    Where that is not enough, rows are cut; the batch of a step stays.
    ours: processes whose memory this training will use again. DoesNotFit says what would fit. A
    model whose need cannot be predicted is tried as it is.
    """
    job = replace(job, adam_8bit=allowance.adam_8bit)
    place = room(device, allowance.max_vram_share or 1.0, ours)
    try:
        chosen = planned_or_cut(_work(job), resolve(base), place, allowance.base_bits).training
    except UsageError:  # another family of models
        return job
    most_tokens = chosen.micro_batch * chosen.seq_len
    if not place.host.quantises:
        most_tokens = min(most_tokens, max(CPU_TOKENS, chosen.seq_len))
    return replace(
        job,
        settings=replace(job.settings, seq_len=chosen.seq_len),
        most_tokens=most_tokens,
        checkpointing=chosen.checkpointing,
    )


def _work(job: TrainJob) -> Work:
    settings, spec = job.settings, job.spec
    targets = tuple(spec.target_modules)
    frozen = 0 if job.frozen is None else job.frozen.spec.rank
    return Work(settings.batch_size, settings.seq_len, spec.rank, targets, job.adam_8bit, frozen)


def _can_quantise() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def _weights(bits: Bits | None, on_cpu: bool) -> Weights:
    if bits is not None:
        return {4: Weights.NF4, 8: Weights.INT8, 16: Weights.BF16}[bits]
    return Weights.FP32 if on_cpu else Weights.BF16
