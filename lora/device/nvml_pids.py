"""Under which process id the driver knows us: in a container it may be the host's.

NVML gives the ids of the namespace it was loaded for. A process with a namespace of its own cannot
look its host's id up anywhere, but it can see which id appears when it starts CUDA.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any


def on_device(which: int | str | None) -> frozenset[int]:
    """Return the ids of the processes that compute on a device; none if the driver is silent."""
    if which is None:
        return frozenset()
    with contextlib.suppress(Exception):  # a driver raises anything
        nvml, device = opened(which)
        running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        return frozenset(int(process.pid) for process in running)
    return frozenset()


def ours(before: frozenset[int], after: frozenset[int], pid: int) -> frozenset[int]:
    """Return the driver's ids of this process, which has started CUDA between two looks.

    Its own id where the driver knows it; else those that are new and nobody has in this namespace.
    Another program that started in the same second, outside, is taken for us, too: rather share
    with it once than wait for ourselves for ever.
    """
    if pid in after:
        return frozenset({pid})
    return frozenset(new for new in after - before if not _here(new))


def opened(which: int | str) -> tuple[Any, Any]:
    """Return NVML and the handle of a device, by index or UUID; raises what the driver raises."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml, handle_of(pynvml, which)


def handle_of(nvml: Any, which: int | str) -> Any:
    """Return NVML's handle of what CUDA computes on; raises what the driver raises.

    Of a device that is cut into slices (MIG), CUDA takes the first unless one is named by its UUID.
    """
    if isinstance(which, str):
        return nvml.nvmlDeviceGetHandleByUUID(which)
    device = nvml.nvmlDeviceGetHandleByIndex(which)
    with contextlib.suppress(Exception):  # most devices cannot be cut, and say so
        if nvml.nvmlDeviceGetMigMode(device)[0]:
            return nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0)
    return device


def board_of(nvml: Any, device: Any) -> Any:
    """Return the handle of the board that a slice is of, which alone has power and temperature."""
    with contextlib.suppress(Exception):  # it is no slice
        return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
    return device


def _here(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
