"""NVML of the GPU that is not there. $FAKE_GPU_HOST_PIDS: processes have other ids on the host."""

from __future__ import annotations

import os
from types import SimpleNamespace

import stand_in_driver as driver

NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    """As the real module's."""


def nvmlInit() -> None:
    """Find the driver."""
    if (driver.folder() / "lost").exists():
        raise NVMLError("GPU is lost")


def nvmlSystemGetDriverVersion() -> str:
    """Of no real driver."""
    return "999.1"


def nvmlDeviceGetCount() -> int:
    """As many as there are said to be."""
    return driver.count()


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    """The device itself."""
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> str:
    """The same."""
    return uuid


def nvmlDeviceGetName(_: object) -> str:
    """For a table."""
    return "stand-in"


def nvmlDeviceGetUUID(device: object) -> str:
    """A name for locks."""
    return f"GPU-stand-in-{device}"


def nvmlDeviceGetMemoryInfo(_: object) -> SimpleNamespace:
    """What contexts have is not free."""
    used = sum(driver.contexts().values())
    free = max(0, driver.TOTAL_BYTES - used)
    return SimpleNamespace(total=driver.TOTAL_BYTES, free=free, used=used)


def nvmlDeviceGetComputeRunningProcesses(_: object) -> list[SimpleNamespace]:
    """Every context; a process that has just ended is listed for a while."""
    shift = int(os.environ.get("FAKE_GPU_HOST_PIDS", "0"))
    return [
        SimpleNamespace(pid=pid + shift, usedGpuMemory=size)
        for pid, size in driver.contexts().items()
    ]


def nvmlDeviceGetGraphicsRunningProcesses(_: object) -> list[SimpleNamespace]:
    """Nobody draws."""
    return []


def nvmlDeviceGetProcessUtilization(*_: object) -> list[SimpleNamespace]:
    """Not known, as in containers."""
    raise NVMLError("Not Supported")


def nvmlDeviceGetPowerUsage(_: object) -> int:
    """Milliwatts."""
    return 50_000


def nvmlDeviceGetTemperature(*_: object) -> int:
    """Degrees."""
    return 40
