"""Memory that training may take of this machine, as it is now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nomoat.client.machine.attempt import attempt
from nomoat.client.machine.gpu import Gpu
from nomoat.lora.device.gpu_queue import pids_with_tickets
from nomoat.lora.device.present import gpus_of, means_mps, unmeasured_gpu
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.memory.prediction import CONTEXT_BYTES, DeviceOverhead, cpu_host, cuda_host

MOST_GPUS = 16  # that one machine is asked for
WORKER_BYTES = 450 << 20  # a worker process with torch and transformers imported, before a model


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """A device, the bytes that may be taken of it, and what it adds to a model's need.

    layout: of a base that is held on GPUs. cards: where its layers are shared out, (bytes that may
    be taken, bytes in all) of each GPU; free_bytes are those of all then. beside: bytes of main
    memory that are free for what lies there and not on GPUs. measured: False for a GPU of whose
    memory nothing is known; free_bytes are main memory then, and no bound for training.
    """

    device: str
    free_bytes: int
    host: DeviceOverhead
    layout: Layout = WHOLE
    cards: tuple[tuple[int, int], ...] = ()
    beside: int = 0
    measured: bool = True


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """Bytes that training takes at most, as lora/memory predicts them.

    place: the device and the bits of the base they were stated for; where the owner has chosen
    others since, nothing was stated.
    """

    most_bytes: int
    place: str

    def within(self, memory: FreeMemory, bits: int | None) -> FreeMemory:
        """The memory that is free, no more of it than this."""
        if self.place != place_of(memory, bits) or memory.free_bytes <= self.most_bytes:
            return memory
        return replace(memory, free_bytes=self.most_bytes)


def place_of(memory: FreeMemory, bits: int | None) -> str:
    """Name a device, and the bits the base is held in there."""
    how = f", {words}" if (words := memory.layout.in_words) else ""
    return f"{memory.device}, base in {bits or 'its usual'} bits{how}"


def free_memory(
    device: str,
    share: float = 1.0,
    ours: frozenset[int] = frozenset(),
    layout: Layout = WHOLE,
) -> FreeMemory:
    """Memory of the NVIDIA device meant, at most `share` of the whole, else main memory.

    ours: processes whose memory will be used again (a worker that still holds the base): free, too.
    layout: how the base is held on GPUs; over several of them, the memory of all is there for it.
    """
    found = gpu_memory(device, ours)
    there = free_bytes() + sum(_held(pid) for pid in ours)
    if found:
        each = [(int(min(free, share * all_)) - CONTEXT_BYTES, all_) for free, all_ in found]
        gpu = FreeMemory("cuda", min(each)[0], cuda_host(), layout, beside=there - WORKER_BYTES)
        if not layout.over_gpus:
            return gpu
        return replace(gpu, free_bytes=sum(n for n, _ in each), cards=tuple(each))
    if called := unmeasured_gpu(device):
        return FreeMemory(called, there, cpu_host(WORKER_BYTES), measured=False)
    kind = "mps" if means_mps(device) else "cpu"  # one memory for both
    return FreeMemory(kind, there, cpu_host(WORKER_BYTES))


def gpu_memory(device: str, ours: frozenset[int]) -> tuple[tuple[int, int], ...]:
    """(bytes free or ours, bytes in all) of each NVIDIA device meant; none if one is not known.

    Ours are those, too, that
    programs have which take turns with ours: not while we have ours.
    """
    turns = ours | pids_with_tickets(device)
    found = [_memory_of(Gpu(which), turns) for which in gpus_of(device)]
    known = [memory for memory in found if memory is not None]
    return tuple(known) if len(known) == len(found) else ()


def all_gpus() -> str:
    """List the NVIDIA devices that CUDA counts here, as --device takes them; "" for none."""
    found: list[str] = []
    while len(found) < MOST_GPUS and gpu_memory(here := f"cuda:{len(found)}", frozenset()):
        found.append(here)
    return ",".join(found)


def _memory_of(gpu: Gpu, turns: frozenset[int]) -> tuple[int, int] | None:
    found = attempt("gpu memory", gpu.memory)
    if found is None:
        return None
    free, whole = found
    return free + (attempt("gpu processes", lambda: gpu.held(turns)) or 0), whole


def free_bytes() -> int:
    """Main memory that can be had, the container's limit kept."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = attempt("cgroup", _free_in_cgroup)
    return free if limit is None else min(free, limit)


def _free_in_cgroup(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes the container may still take; cached files (a model that was hashed) give way."""
    limit = (group / "memory.max").read_text().strip()
    if limit == "max":
        return None
    counted = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    cached = next((int(value) for name, value in counted if name == "inactive_file"), 0)
    return int(limit) - int((group / "memory.current").read_text()) + cached


def _held(pid: int) -> int:
    """Main memory that ends with this process."""
    import psutil

    return attempt("worker", lambda: int(psutil.Process(pid).memory_full_info().uss)) or 0
