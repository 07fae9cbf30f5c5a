"""How to train so that it fits this machine, decided before anything is loaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.aggregation.messages import MAX_RANK
from nomoat.client.allowance import Allowance
from nomoat.client.room import Room, room
from nomoat.lora.jobs import TrainJob
from nomoat.lora.memory import Optimizer, Training, Weights
from nomoat.lora.memory_plan import Plan, plan
from nomoat.lora.model_files import config, resolve, stored_bytes
from nomoat.lora.model_shape import ALL_LINEAR, ModelShape
from nomoat.lora.train import CPU_TOKENS

FEW_BITS: Final = 4  # of a base that does not fit whole; 8 are slower, and save half as much


@dataclass(frozen=True, slots=True)
class Work:
    """What a training asks of whatever machine does it."""

    batch_size: int
    seq_len: int
    rank: int
    target_modules: tuple[str, ...] = (ALL_LINEAR,)
    adam_8bit: bool = False


def planned(work: Work, folder: Path, into: Room, bits: int | None) -> Plan:
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
    return plan(shape, wish, into.free_bytes, into.host, stored_bytes=stored_bytes(folder))


def largest_rank(work: Work, folder: Path, into: Room, bits: int | None) -> int:
    """The largest power of two up to MAX_RANK with which `work` fits; DoesNotFit if not even 1."""
    rank = MAX_RANK
    while rank > 1:
        try:
            planned(replace(work, rank=rank), folder, into, bits)
        except DoesNotFit:
            rank //= 2
        else:
            return rank
    planned(replace(work, rank=1), folder, into, bits)
    return 1


def bits_that_fit(work: Work, folder: Path, into: Room) -> Literal[4] | None:
    """None where the base fits whole, else 4 where that fits and can be had; DoesNotFit if not.

    None, too, where the model's need cannot be predicted.
    """
    try:
        planned(work, folder, into, None)
    except UsageError:
        return None
    except DoesNotFit as problem:
        if not into.host.quantises:
            raise
        planned(work, folder, into, FEW_BITS)
        if not _can_be_few():
            raise DoesNotFit(
                f"{problem}; that needs bitsandbytes: pip install 'nomoat[gpu]'"
            ) from None
        return FEW_BITS
    return None


def check_bits(allowance: Allowance) -> None:
    """UsageError, in one line, if fewer bits were asked for and cannot be had."""
    asked = "adam_8bit" if allowance.adam_8bit else "base_bits" if allowance.base_bits else None
    if asked and not _can_be_few():
        raise UsageError(
            f"{asked} in settings.toml needs bitsandbytes: pip install 'nomoat[gpu]', or take "
            "the line out"
        )


def fitted(
    job: TrainJob, base: str, device: str, allowance: Allowance, ours: frozenset[int] = frozenset()
) -> TrainJob:
    """`job` in pieces that fit the free memory, activations recomputed where they must be.

    ours: processes whose memory this training will use again. DoesNotFit says what would fit. A
    model whose need cannot be predicted is tried as it is.
    """
    job = replace(job, adam_8bit=allowance.adam_8bit)
    place = room(device, allowance.max_vram_share or 1.0, ours)
    try:
        chosen = planned(_work(job), resolve(base), place, allowance.base_bits).training
    except UsageError:  # another family of models
        return job
    most_tokens = chosen.micro_batch * job.settings.seq_len
    if not place.host.quantises:
        most_tokens = min(most_tokens, max(CPU_TOKENS, job.settings.seq_len))
    return replace(job, most_tokens=most_tokens, checkpointing=chosen.checkpointing)


def _work(job: TrainJob) -> Work:
    settings, spec = job.settings, job.spec
    targets = tuple(spec.target_modules)
    return Work(settings.batch_size, settings.seq_len, spec.rank, targets, job.adam_8bit)


def _can_be_few() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def _weights(bits: int | None, on_cpu: bool) -> Weights:
    if bits is not None:
        return Weights.NF4 if bits == 4 else Weights.INT8
    return Weights.FP32 if on_cpu else Weights.BF16
