"""Training planned so that it fits this machine, before anything is loaded."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.client.machine.free_memory import FreeMemory, MemoryBound, free_memory
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.lora.device.present import means_mps, names
from nomoat.lora.device.processor import multiplies_16_bits
from nomoat.lora.layout.parts import WHOLE, parts_of
from nomoat.lora.memory.parts import LaidOut
from nomoat.lora.memory.plan import GIB, MemoryPlan, plan, shorter
from nomoat.lora.memory.prediction import (
    CONTEXT_BYTES,
    FP32,
    Optimizer,
    TrainingShape,
    Weights,
)
from nomoat.lora.model.files import config, resolve, stored_bytes
from nomoat.lora.model.shape import ALL_LINEAR, ModelShape
from nomoat.lora.training.train import CPU_TOKENS
from nomoat.lora.workers.jobs import TrainJob

Bits = Literal[4, 8, 16]
QUICKER_IN_16 = 50_000_000  # parameters; a step of a small model is not spent on products
GIVEN_BACK_S = (1.0, 2.0, 4.0)  # a driver gives back late what an ended process had


@dataclass(frozen=True, slots=True)
class Workload:
    """The size of a training job, whatever machine does it.

    frozen_rank: modules of the adapter that take part in the forward pass and are not trained.
    """

    batch_size: int
    seq_len: int
    rank: int
    target_modules: tuple[str, ...] = (ALL_LINEAR,)
    adam_8bit: bool = False
    frozen_rank: int = 0


def planned(workload: Workload, folder: Path, memory: FreeMemory, bits: Bits | None) -> MemoryPlan:
    """The plan for such a place, the base in `bits`; DoesNotFit says what would.

    UsageError if the model's need, or the room that there is for it, cannot be known.
    """
    if not memory.measured:
        raise UsageError(f"the memory of the {memory.device} is not known before training")
    shape = ModelShape.from_config(config(folder))
    on_cpu = not memory.host.quantises
    rows = workload.batch_size
    if on_cpu:  # a CPU trains a batch in pieces of a few hundred tokens anyway
        rows = min(rows, max(1, CPU_TOKENS // workload.seq_len))
    wish = TrainingShape(
        rows,
        workload.seq_len,
        workload.rank,
        workload.target_modules,
        weights=_weights(bits, on_cpu),
        optimizer=Optimizer.ADAMW_8BIT if workload.adam_8bit else Optimizer.ADAMW,
        autocast=not on_cpu,
    )
    _check_beside(shape, memory)
    frozen = frozen_bytes(workload, folder)
    free = memory.free_bytes - frozen
    laid_out = _laid_out(shape, memory, bits, frozen)
    return plan(shape, wish, free, memory.host, stored_bytes(folder), laid_out)


def _laid_out(
    shape: ModelShape, memory: FreeMemory, bits: Bits | None, frozen: int
) -> LaidOut | None:
    """Return the base's parts and the room for each; None where it is held whole."""
    if memory.layout == WHOLE:
        return None
    cards = memory.cards or ((memory.free_bytes, 1),)
    parts = parts_of(shape, memory.layout, bits, [total for _, total in cards])
    pairs = zip(parts, cards, strict=False)
    room = (free - frozen * part.layers // shape.layers for part, (free, _) in pairs)
    return LaidOut(parts, tuple(room))


def _check_beside(shape: ModelShape, memory: FreeMemory) -> None:
    """DoesNotFit if main memory has no room for the embedding that is to lie there."""
    if not memory.layout.embedding_in_ram:
        return
    needed = shape.vocab * shape.hidden * Weights.BF16.compute_bytes
    if needed > memory.beside:
        free = max(0, memory.beside)
        raise DoesNotFit(
            f"needs {needed / GIB:.1f} GiB of main memory for the base's embedding; "
            f"{free / GIB:.1f} GiB are free"
        )


def frozen_bytes(workload: Workload, folder: Path) -> int:
    """Return the bytes of the modules that take part and are not trained."""
    shape = ModelShape.from_config(config(folder))
    return FP32 * shape.adapter_parameters(workload.frozen_rank, workload.target_modules)


def planned_or_cut(
    workload: Workload, folder: Path, memory: FreeMemory, bits: Bits | None
) -> MemoryPlan:
    """The same, with rows cut at half their length, or a quarter …, where whole ones do not fit."""
    try:
        return planned(workload, folder, memory, bits)
    except DoesNotFit:
        for seq_len in shorter(workload.seq_len):
            with contextlib.suppress(DoesNotFit):
                return planned(replace(workload, seq_len=seq_len), folder, memory, bits)
        raise


def largest_rank(workload: Workload, folder: Path, memory: FreeMemory, bits: Bits | None) -> int:
    """The largest power of two up to MAX_RANK with which it fits, rows whole if they can be.

    What is not trained of the rank of `workload` is frozen. DoesNotFit if not even rank 1 fits.
    """
    whole = workload.rank + workload.frozen_rank
    rank = MAX_RANK
    while rank > 1:
        some = replace(workload, rank=rank, frozen_rank=max(0, whole - rank))
        try:
            planned(some, folder, memory, bits)
        except DoesNotFit:
            rank //= 2
        else:
            return rank
    planned_or_cut(replace(workload, rank=1, frozen_rank=whole - 1), folder, memory, bits)
    return 1


def bits_that_fit(workload: Workload, folder: Path, memory: FreeMemory) -> Bits | None:
    """None where the base fits as it is usually held, else fewer, before rows are cut.

    4 on a GPU, if they can be had; 16 on a CPU, also where they are quicker. DoesNotFit if nothing
    does, UsageError where the model's need cannot be predicted.
    """
    fewer: Bits = 4 if memory.host.quantises else 16
    can = fewer == 16 or _can_quantise()
    choices: tuple[Bits | None, ...] = (None, fewer) if can else (None,)
    if quicker_in_16(folder, memory):
        choices = (16,)
    for way in (planned, planned_or_cut):
        for bits in choices:
            with contextlib.suppress(DoesNotFit):
                way(workload, folder, memory, bits)
                return bits
    if can:
        planned(workload, folder, memory, None)  # says why not
    planned_or_cut(workload, folder, memory, fewer)
    raise DoesNotFit("needs a 4-bit base, and that needs: pip install bitsandbytes")


def quicker_in_16(folder: Path, memory: FreeMemory) -> bool:
    """Tell whether training here takes less time with the base in bfloat16 than in float32.

    UsageError for an unknown family of models.
    """
    large = ModelShape.from_config(config(folder)).parameters >= QUICKER_IN_16
    return large and memory.device == "cpu" and multiplies_16_bits()


def check_held(machine: MachineSettings, device: str = "auto") -> None:
    """UsageError, in one line, if `device` cannot have the bits or the layout asked for."""
    if machine.layers_over_gpus and len(names(device)) == 1:
        raise UsageError(
            f"layers_over_gpus in settings.toml shares a base out over several GPUs, and device "
            f'names one, {device!r}: list them, as in "cuda:0,cuda:1", or take the line out'
        )
    quantised = machine.base_bits in (4, 8)
    asked = "adam_8bit" if machine.adam_8bit else "base_bits" if quantised else None
    if asked and means_mps(device):
        raise UsageError(
            f"{asked} in settings.toml: bitsandbytes has no kernels for MPS; take the line out, "
            "or use --device cpu"
        )
    if asked and not _can_quantise():
        raise UsageError(
            f"{asked} in settings.toml needs bitsandbytes: pip install bitsandbytes, or take "
            "the line out"
        )


def fitted(
    job: TrainJob,
    base: str,
    device: str,
    machine: MachineSettings,
    ours: frozenset[int] = frozenset(),
    bound: MemoryBound | None = None,
) -> TrainJob:
    """`job` in pieces that fit the free memory, activations recomputed where they must be.

    Where that is not enough, rows are cut; the batch of a step stays. ours: processes whose memory
    the job will use again. bound: what it may take by consent. DoesNotFit says what would fit. A
    model whose need cannot be predicted is tried as it is.
    """
    job, folder = replace(job, adam_8bit=machine.adam_8bit), resolve(base)
    for late_s in (*GIVEN_BACK_S, None):
        free = free_memory(device, machine.max_vram_share or 1.0, ours, machine.layout)
        memory = free if bound is None else bound.within(free, machine.base_bits)
        try:
            found = _planned(job, device, folder, memory, machine)
            break
        except UsageError:  # another family of models
            return job
        except DoesNotFit as problem:
            if memory is not free:
                raise _beyond_consent(memory, problem) from None
            if late_s is None or memory.device != "cuda":
                raise
            time.sleep(late_s)
    chosen = found.training
    most_tokens = chosen.micro_batch * chosen.seq_len
    if not memory.host.quantises:
        most_tokens = min(most_tokens, max(CPU_TOKENS, chosen.seq_len))
    return replace(
        job,
        settings=replace(job.settings, seq_len=chosen.seq_len),
        most_tokens=most_tokens,
        checkpointing=chosen.checkpointing,
        needs_bytes=_needs(found, memory),
    )


def _planned(
    job: TrainJob, device: str, folder: Path, memory: FreeMemory, machine: MachineSettings
) -> MemoryPlan:
    return planned_or_cut(_workload(job, device, machine), folder, memory, machine.base_bits)


def _beyond_consent(memory: FreeMemory, problem: DoesNotFit) -> DoesNotFit:
    """Say that more is free than its owner has agreed to."""
    return DoesNotFit(
        f"the round asks for more memory than was agreed to on joining, "
        f"{memory.free_bytes / 1e9:.1f} GB with the room there is, even in the smallest pieces: "
        f"it {problem}"
    )


def _needs(found: MemoryPlan, memory: FreeMemory) -> int | None:
    """Bytes of a GPU, for sharing it with others of ours."""
    return found.largest_bytes + CONTEXT_BYTES if memory.device == "cuda" else None


def _workload(job: TrainJob, device: str, machine: MachineSettings) -> Workload:
    """The part of the job that each of the devices has."""
    settings, spec = job.settings, job.spec
    targets = tuple(spec.target_modules)
    frozen = 0 if job.frozen is None else job.frozen.spec.rank
    sharing = 1 if machine.layers_over_gpus else len(names(device))
    rows = -(-settings.batch_size // sharing)
    return Workload(rows, settings.seq_len, spec.rank, targets, job.adam_8bit, frozen)


def _can_quantise() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def _weights(bits: Bits | None, on_cpu: bool) -> Weights:
    if bits is not None:
        return {4: Weights.NF4, 8: Weights.INT8, 16: Weights.BF16}[bits]
    return Weights.FP32 if on_cpu else Weights.BF16
