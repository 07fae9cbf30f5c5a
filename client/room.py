"""Memory that a training may take of this machine, as it is now."""

from __future__ import annotations

import platform
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


def room(device: str, share: float = 1.0, ours: frozenset[int] = frozenset()) -> Room:
    """`share` of what the first NVIDIA device has free if it is to be used, else main memory.

    ours: processes whose memory will be used again (a worker that still holds the base): free, too.
    """
    free = None if device in {"cpu", "mps"} else attempt("gpu memory", free_gpu_bytes)
    if free is None:
        there = free_bytes() + sum(_held(pid) for pid in ours)
        shared = device == "mps" or (device == "auto" and _is_apple())  # one memory for both
        return Room("mps" if shared else "cpu", there, cpu_host(WORKER_BYTES))
    held = attempt("gpu processes", lambda: _held_gpu_bytes(ours)) or 0
    return Room("cuda", int((free + held - CONTEXT_BYTES) * share), cuda_host())


def _is_apple() -> bool:
    """Whether this is a Mac with a GPU that torch uses; asked without loading torch."""
    return (platform.system(), platform.machine()) == ("Darwin", "arm64")


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


def _held(pid: int) -> int:
    """Main memory that ends with this process."""
    import psutil

    return attempt("worker", lambda: int(psutil.Process(pid).memory_full_info().uss)) or 0


def _held_gpu_bytes(pids: frozenset[int]) -> int:
    import pynvml

    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    running = pynvml.nvmlDeviceGetComputeRunningProcesses(device)
    return sum(process.usedGpuMemory or 0 for process in running if process.pid in pids)
