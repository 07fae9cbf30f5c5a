"""How to train so that it fits this machine, decided before anything is loaded."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from nomoat.aggregation.errors import UsageError
from nomoat.client.allowance import Allowance
from nomoat.client.probes import attempt
from nomoat.lora.jobs import TrainJob
from nomoat.lora.memory import Host, Optimizer, Training, Weights, cpu_host, cuda_host
from nomoat.lora.memory_plan import Plan, plan
from nomoat.lora.model_files import config, resolve
from nomoat.lora.model_shape import ModelShape
from nomoat.lora.train import CPU_TOKENS

WORKER_BYTES = 450 << 20  # a worker process with torch and transformers imported, before a model
CONTEXT_BYTES = 600 << 20  # a CUDA context with its kernels


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
    room, host = _room(device, allowance)
    try:
        chosen = planned(job, base, (room, host), allowance.base_bits).training
    except UsageError:  # another family of models
        return job
    most_tokens = chosen.micro_batch * job.settings.seq_len
    if not host.quantises:
        most_tokens = min(most_tokens, max(CPU_TOKENS, job.settings.seq_len))
    return replace(job, most_tokens=most_tokens, checkpointing=chosen.checkpointing)


def need(job: TrainJob, base: str, device: str, allowance: Allowance) -> tuple[int, int]:
    """(bytes a training takes, bytes that are free); DoesNotFit and UsageError as `planned`."""
    room, host = _room(device, allowance)
    return planned(job, base, (room, host), allowance.base_bits).predicted.total, room


def _room(device: str, allowance: Allowance) -> tuple[int, Host]:
    """What may be taken of a GPU, or of main memory where there is none."""
    gpu_bytes = None if device in {"cpu", "mps"} else attempt("gpu memory", free_gpu_bytes)
    if gpu_bytes is None:
        return free_bytes(), cpu_host(WORKER_BYTES)
    return int((gpu_bytes - CONTEXT_BYTES) * (allowance.max_vram_share or 1.0)), cuda_host()


def planned(job: TrainJob, base: str, into: tuple[int, Host], bits: int | None) -> Plan:
    """The plan for so many bytes on such a host, the base in `bits`; DoesNotFit says what would.

    UsageError if the model's need cannot be predicted.
    """
    (room, host), folder = into, resolve(base)
    shape, settings = ModelShape.from_config(config(folder)), job.settings
    on_cpu = not host.quantises
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
    return plan(shape, wish, room, host, stored_bytes=stored_bytes(folder))


def _weights(bits: int | None, on_cpu: bool) -> Weights:
    if bits is not None:
        return Weights.NF4 if bits == 4 else Weights.INT8
    return Weights.FP32 if on_cpu else Weights.BF16


def stored_bytes(folder: Path) -> int:
    """Size of the weight files, which stay mapped while another dtype is made of them."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def free_bytes() -> int:
    """Main memory that can be had, the container's limit kept."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = attempt("cgroup", _free_in_cgroup)
    return free if limit is None else min(free, limit)


def _free_in_cgroup() -> int | None:
    group = Path("/sys/fs/cgroup")
    limit = (group / "memory.max").read_text().strip()
    return None if limit == "max" else int(limit) - int((group / "memory.current").read_text())


def free_gpu_bytes() -> int:
    """Free memory of the first NVIDIA device; raises where the driver does."""
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    return int(pynvml.nvmlDeviceGetMemoryInfo(device).free)
