"""Memory that a training may take of this machine, as it is now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nomoat.client.probes import attempt
from nomoat.lora.memory import Host, cpu_host, cuda_host

WORKER_BYTES = 450 << 20  # a worker process with torch and transformers imported, before a model
CONTEXT_BYTES = 600 << 20  # a CUDA context with its kernels


@dataclass(frozen=True, slots=True)
class Room:
    """Where, how many bytes may be taken, and what the device adds to a model's need."""

    device: str
    free_bytes: int
    host: Host


def room(device: str, share: float = 1.0) -> Room:
    """`share` of what the first NVIDIA device has free if it is to be used, else main memory."""
    free = None if device in {"cpu", "mps"} else attempt("gpu memory", free_gpu_bytes)
    if free is None:
        return Room("mps" if device == "mps" else "cpu", free_bytes(), cpu_host(WORKER_BYTES))
    return Room("cuda", int((free - CONTEXT_BYTES) * share), cuda_host())


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
