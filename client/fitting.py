"""How to train so that it fits this machine, decided before anything is loaded."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from nomoat.aggregation.errors import UsageError
from nomoat.client.allowance import Allowance
from nomoat.client.room import Room, room
from nomoat.lora.jobs import TrainJob
from nomoat.lora.memory import Optimizer, Training, Weights
from nomoat.lora.memory_plan import Plan, plan
from nomoat.lora.model_files import config, resolve, stored_bytes
from nomoat.lora.model_shape import ModelShape
from nomoat.lora.train import CPU_TOKENS


def check_bits(allowance: Allowance) -> None:
    """UsageError, in one line, if fewer bits were asked for and cannot be had."""
    asked = "adam_8bit" if allowance.adam_8bit else "base_bits" if allowance.base_bits else None
    if asked and importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"{asked} in settings.toml needs bitsandbytes: pip install 'nomoat[gpu]', or take "
            "the line out"
        )


def fitted(job: TrainJob, base: str, device: str, allowance: Allowance) -> TrainJob:
    """`job` in pieces that fit the free memory, activations recomputed where they must be.

    DoesNotFit says what would. A model whose need cannot be predicted is tried as it is.
    """
    job = replace(job, adam_8bit=allowance.adam_8bit)
    place = room(device, allowance.max_vram_share or 1.0)
    try:
        chosen = planned(job, base, place, allowance.base_bits).training
    except UsageError:  # another family of models
        return job
    most_tokens = chosen.micro_batch * job.settings.seq_len
    if not place.host.quantises:
        most_tokens = min(most_tokens, max(CPU_TOKENS, job.settings.seq_len))
    return replace(job, most_tokens=most_tokens, checkpointing=chosen.checkpointing)


def need(job: TrainJob, base: str, device: str, allowance: Allowance) -> tuple[int, int]:
    """(bytes a training takes, bytes that are free); DoesNotFit and UsageError as `planned`."""
    place = room(device, allowance.max_vram_share or 1.0)
    return planned(job, base, place, allowance.base_bits).predicted.total, place.free_bytes


def planned(job: TrainJob, base: str, into: Room, bits: int | None) -> Plan:
    """The plan for such a place, the base in `bits`; DoesNotFit says what would.

    UsageError if the model's need cannot be predicted.
    """
    folder = resolve(base)
    shape, settings = ModelShape.from_config(config(folder)), job.settings
    on_cpu = not into.host.quantises
    rows = settings.batch_size
    if on_cpu:  # a CPU trains a batch in pieces of a few hundred tokens anyway
        rows = min(rows, max(1, CPU_TOKENS // settings.seq_len))
    wish = Training(
        rows,
        settings.seq_len,
        job.spec.rank,
        tuple(job.spec.target_modules),
        weights=_weights(bits, on_cpu),
        optimizer=Optimizer.ADAMW_8BIT if job.adam_8bit else Optimizer.ADAMW,
        autocast=not on_cpu,
    )
    return plan(shape, wish, into.free_bytes, into.host, stored_bytes=stored_bytes(folder))


def _weights(bits: int | None, on_cpu: bool) -> Weights:
    if bits is not None:
        return Weights.NF4 if bits == 4 else Weights.INT8
    return Weights.FP32 if on_cpu else Weights.BF16
