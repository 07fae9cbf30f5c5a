"""One NVIDIA device as its driver shows it: power, temperature, memory, programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from nomoat.client.machine.attempt import attempt
from nomoat.client.machine.readings import GpuProgram
from nomoat.lora.device.nvml_pids import board_of, handle_of


class Gpu:
    """One NVIDIA device through NVML, by index or UUID; every method raises where the driver does.

    None is a device that is not used: everything about it is unknown.
    """

    def __init__(self, which: int | str | None) -> None:
        self._which = which
        self._nvml: Any = None
        self._seen_us = 0  # NVML's time of the last utilisation sample
        self._ours: frozenset[int] = frozenset()  # that were ours: the driver lists the dead, too
        self._outside: frozenset[int] = frozenset()  # at the last look
        self.apart = False

    def name(self) -> str:
        """The card's name."""
        nvml, device = self._open()
        found = nvml.nvmlDeviceGetName(device)
        return found.decode(errors="replace") if isinstance(found, bytes) else str(found)

    def power_w(self) -> float:
        """Board power."""
        nvml, device = self._open()
        return float(nvml.nvmlDeviceGetPowerUsage(board_of(nvml, device))) / 1000

    def temperature_c(self) -> float:
        """Core temperature."""
        nvml, device = self._open()
        board = board_of(nvml, device)
        return float(nvml.nvmlDeviceGetTemperature(board, nvml.NVML_TEMPERATURE_GPU))

    def memory_share(self, pids: frozenset[int]) -> float:
        """Our part of the device's memory."""
        return self.held(pids) / self.memory()[1]

    def programs(self, pids: frozenset[int]) -> tuple[GpuProgram, ...]:
        """Programs on the device that are not ours.

        A process that this system has not counts from the second look on: it may be our own, just
        started, under the id that its container's host has for it.
        """
        nvml, device = self._open()
        self._ours |= pids
        before, self._outside = self._outside, frozenset()
        busy = attempt("gpu time", lambda: self._busy(nvml, device)) or {}
        found = {}
        drawing = {process.pid for process in nvml.nvmlDeviceGetGraphicsRunningProcesses(device)}
        for process in self._running(nvml, device):
            known = attempt("name", partial(_name, process.pid))
            self.apart = self.apart or (known is None and process.pid in pids)
            if process.pid not in self._ours:
                name, outside = known or str(process.pid), known is None
                if outside:
                    self._outside |= {process.pid}
                    if process.pid not in before:
                        continue
                # Under Windows whatever draws may be listed as computing, too.
                compute = process.pid not in drawing
                share = busy.get(process.pid, 0.0 if busy else None)  # the idle have no sample
                found[process.pid] = GpuProgram(
                    name, compute, process.usedGpuMemory, share, outside
                )
        return tuple(found.values())

    @staticmethod
    def _running(nvml: Any, device: Any) -> Iterator[Any]:
        yield from nvml.nvmlDeviceGetGraphicsRunningProcesses(device)
        yield from nvml.nvmlDeviceGetComputeRunningProcesses(device)

    def memory(self) -> tuple[int, int]:
        """Bytes free, bytes in all."""
        nvml, device = self._open()
        found = nvml.nvmlDeviceGetMemoryInfo(device)
        return int(found.free), int(found.total)

    def held(self, pids: frozenset[int]) -> int:
        """Bytes that these processes have."""
        nvml, device = self._open()
        running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
        return sum(process.usedGpuMemory or 0 for process in running if process.pid in pids)

    def _busy(self, nvml: Any, device: Any) -> dict[int, float]:
        samples = nvml.nvmlDeviceGetProcessUtilization(device, self._seen_us)
        self._seen_us = max((s.timeStamp for s in samples), default=self._seen_us)
        return {s.pid: s.smUtil / 100 for s in samples}

    def _open(self) -> tuple[Any, Any]:
        if self._which is None:
            raise OSError("no NVIDIA device is used")
        if self._nvml is None:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        return self._nvml, handle_of(self._nvml, self._which)


class GpuGroup:
    """All devices that are used, as one: everybody's programs, all power, the hottest, the fullest.

    Every method raises where a driver does; without a device everything is unknown.
    """

    def __init__(self, which: Sequence[int | str]) -> None:
        self._gpus = tuple(Gpu(one) for one in which) or (Gpu(None),)

    @property
    def apart(self) -> bool:
        """True if the driver shows our processes, and not under names of this system."""
        return any(gpu.apart for gpu in self._gpus)

    def power_w(self) -> float:
        """Power of all boards."""
        return sum(gpu.power_w() for gpu in self._gpus)

    def temperature_c(self) -> float:
        """Core temperature of the hottest."""
        return max(gpu.temperature_c() for gpu in self._gpus)

    def memory_share(self, pids: frozenset[int]) -> float:
        """Our part of the memory where it is largest."""
        return max(gpu.memory_share(pids) for gpu in self._gpus)

    def programs(self, pids: frozenset[int]) -> tuple[GpuProgram, ...]:
        """Programs on any of them that are not ours."""
        return tuple(program for gpu in self._gpus for program in gpu.programs(pids))


def names_of(which: Sequence[int | str]) -> list[str]:
    """Return the devices' names, as their driver has them."""
    return [Gpu(one).name() for one in which]


def _name(pid: int) -> str:
    import psutil

    return str(psutil.Process(pid).name())
