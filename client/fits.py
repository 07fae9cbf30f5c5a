"""Whether a community's training fits this machine, predicted before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.enrolment import CommunityInfo
from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.lora.memory import Host, Training, Weights, cpu_host, cuda_host
from nomoat.lora.memory_plan import Plan, plan
from nomoat.lora.model_files import config, resolve
from nomoat.lora.model_shape import ALL_LINEAR, ModelShape

WORKER_BYTES = 450 << 20  # a worker process with torch and transformers imported, before a model
CONTEXT_BYTES = 600 << 20  # a CUDA context with its kernels


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that may be taken: where, how many bytes are free, what the device adds."""

    device: str
    free_bytes: int
    host: Host


def line(info: CommunityInfo, base: str, room: Room) -> str:
    """What a training takes of this machine, for the consent sheet.

    DoesNotFit says what would fit; nothing is known of an unknown family of models.
    """
    free = f"{room.free_bytes / 1e9:.1f} GB free"
    try:
        found = need(info, resolve(base), room)
    except DoesNotFit as problem:
        raise DoesNotFit(
            f"a training of {info.name} does not fit this {room.device}: it {problem}"
        ) from None
    except UsageError:
        return f"{room.device}, {free}; what this model takes is not known before it is loaded"
    return f"{room.device}: a training takes about {found.predicted.total / 1e9:.1f} GB of {free}"


def need(info: CommunityInfo, folder: Path, room: Room) -> Plan:
    """How to train what `info` announces in `room`; DoesNotFit, or UsageError if it is not known.

    The rank is not announced: it is what makes an adapter of that many values on all linear maps.
    """
    shape = ModelShape.from_config(config(folder))
    per_rank = shape.adapter_parameters(1, (ALL_LINEAR,))
    wish = Training(
        info.batch_size,
        info.seq_len,
        max(1, math.ceil(info.adapter_values / per_rank)),
        weights=Weights.BF16 if room.host.quantises else Weights.FP32,
        autocast=room.host.quantises,
    )
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return plan(shape, wish, room.free_bytes, room.host, stored_bytes=stored)


def room(device: str) -> Room:
    """What is free now: of the first NVIDIA device if it is to be used, else of main memory."""
    free = None if device in {"cpu", "mps"} else _free_gpu_bytes()
    if free is None:
        return Room("mps" if device == "mps" else "cpu", _free_bytes(), cpu_host(WORKER_BYTES))
    return Room("cuda", free - CONTEXT_BYTES, cuda_host())


def _free_bytes() -> int:
    """Main memory that can be had, the container's limit kept."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        return free if limit == "max" else min(free, int(limit) - used)
    except (OSError, ValueError):  # no container, or no cgroup v2
        return free


def _free_gpu_bytes() -> int | None:
    """Free memory of the first NVIDIA device, None if there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        return int(pynvml.nvmlDeviceGetMemoryInfo(device).free)
    except Exception:  # noqa: BLE001 - a driver may fail in many ways; then there is no GPU for us
        return None
