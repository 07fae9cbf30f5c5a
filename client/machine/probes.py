"""The shell that looks at the machine: each probe stands alone, and one that fails is unknown.

NVML (nvidia-ml-py), psutil, D-Bus (jeepney), /sys and the Windows API are each optional. Nothing
here raises: a driver that crashes must not end a volunteer's client.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any

from nomoat.client.machine.attempt import attempt
from nomoat.client.machine.gpu import GpuGroup
from nomoat.client.machine.readings import Readings

NM_METERED = {1: True, 3: True, 2: False, 4: False}  # NMMetered: yes, guess-yes, no, guess-no


class Probes:
    """Looks at this machine. `pids`: our own processes, which disturb nobody.

    turns: processes that take turns with ours at the GPU, which are no strangers either. Keeps what
    must be remembered between looks: processor times and NVML's session.
    """

    def __init__(
        self,
        folder: Path,
        pids: Callable[[], frozenset[int]],
        gpus: Sequence[int | str] = (0,),
        turns: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        self._folder = folder
        self._pids, self._turns = pids, turns
        self._gpu = GpuGroup(gpus)
        self._processor = Processor()

    def readings(self, now: datetime) -> Readings:
        """One look at everything; `now` is local and has its zone."""
        pids = attempt("pids", self._pids) or frozenset({os.getpid()})
        programs = attempt("programs", lambda: self._gpu.programs(pids | self._turns()))
        return Readings(
            now=now,
            idle_s=attempt("idle", idle_s),
            on_battery=attempt("battery", on_battery),
            metered=attempt("metered", metered),
            temperature_c=attempt("temperature", self._temperature),
            power_w=attempt("power", self._gpu.power_w),
            vram_share=attempt("vram", lambda: self._gpu.memory_share(pids)),
            gpu_programs=programs,
            apart=self._gpu.apart,
            other_cpu_share=attempt("cpu", lambda: self._processor.other_share(pids)),
            free_disk_bytes=attempt("disk", lambda: shutil.disk_usage(self._folder).free),
        )

    def _temperature(self) -> float | None:
        """The GPU's, or the hottest part of the processor's where there is no GPU."""
        gpu = attempt("gpu temperature", self._gpu.temperature_c)
        return gpu if gpu is not None else cpu_temperature_c()


class Processor:
    """The share of the processor that other programs take, between two looks."""

    def __init__(self) -> None:
        self._before: tuple[float, float, dict[int, float]] | None = None

    def other_share(self, pids: frozenset[int]) -> float | None:
        """Share of all cores' time since the last look; None at the first."""
        import psutil

        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        counted = [value for name, value in times._asdict().items() if not name.startswith("guest")]
        total, ours = sum(counted), {pid: _cpu_time_s(pid) for pid in pids}
        before, self._before = self._before, (total, idle, ours)
        if before is None or total <= before[0]:
            return None
        passed = total - before[0]
        own = sum(max(0.0, used - before[2].get(pid, used)) for pid, used in ours.items())
        others = passed - (idle - before[1]) - own
        return min(1.0, max(0.0, float(others) / float(passed)))


def _cpu_time_s(pid: int) -> float:
    import psutil

    with contextlib.suppress(psutil.Error):
        used = psutil.Process(pid).cpu_times()
        return float(used.user + used.system)
    return 0.0


def on_battery() -> bool | None:
    """Return True without mains power; a machine without a battery is on mains."""
    import psutil

    battery = psutil.sensors_battery()
    if battery is None:
        return False
    return None if battery.power_plugged is None else not battery.power_plugged


def cpu_temperature_c() -> float | None:
    """The hottest processor sensor, where the system shows any."""
    import psutil

    read = getattr(psutil, "sensors_temperatures", None)  # not on Windows and macOS
    if read is None:
        return None
    sensors = read()
    for name in ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz"):
        if sensors.get(name):
            return float(max(sensor.current for sensor in sensors[name]))
    return None


class SystemZone(tzinfo):
    """The zone of the C library, clock changes included, whatever it has it from."""

    def utcoffset(self, at: datetime | None) -> timedelta | None:
        """Return the offset of a wall time; `fold` chooses in an hour that comes twice."""
        return None if at is None else at.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, at: datetime | None) -> timedelta | None:
        """Return None: how much of the offset is summer time does not matter here."""
        return None

    def tzname(self, at: datetime | None) -> str | None:
        """Return the zone's abbreviation."""
        return None if at is None else at.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, at: datetime) -> datetime:
        """Return the wall time of a moment in UTC, its `fold` set."""
        return datetime.fromtimestamp(at.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


def local_zone(environment: Mapping[str, str] = os.environ) -> tzinfo:
    """The zone that TZ names, else this machine's, with its clock changes.

    TZ may be a name, a file, or a rule as POSIX writes it ("CET-1CEST,M3.5.0,M10.5.0/3"), which
    the C library reads.
    """
    name = environment.get("TZ")
    place = "/etc/localtime" if name is None else name.removeprefix(":")
    return attempt("zone", lambda: _zone(place)) or SystemZone()


def _zone(place: str) -> tzinfo:
    """The zone in a file, or of that name; "" is UTC."""
    from zoneinfo import ZoneInfo

    if not os.path.isabs(place):
        return ZoneInfo(place) if place else UTC
    with open(place, "rb") as file:
        return ZoneInfo.from_file(file, key="local")


def local_now(now_s: float) -> datetime:
    """`now_s` as local time."""
    return datetime.fromtimestamp(now_s, local_zone())


def idle_s() -> float | None:
    """Seconds since the owner's last key or movement, from whoever on this system knows."""
    for name, probe in (("windows", _idle_windows), ("macos", _idle_macos), ("dbus", _idle_dbus)):
        found = attempt(name, probe)
        if found is not None:
            return found
    return None


def _idle_windows() -> float | None:
    if platform.system() != "Windows":
        return None
    import ctypes

    class LastInput(ctypes.Structure):
        """LASTINPUTINFO of winuser.h."""

        _fields_ = (("size", ctypes.c_uint), ("time", ctypes.c_uint))

    last = LastInput(ctypes.sizeof(LastInput), 0)
    windows: Any = ctypes
    if not windows.windll.user32.GetLastInputInfo(ctypes.byref(last)):
        return None
    return float((windows.windll.kernel32.GetTickCount() - last.time) % 2**32) / 1000


def _idle_macos() -> float | None:
    if platform.system() != "Darwin":
        return None
    import subprocess

    command = ["/usr/sbin/ioreg", "-c", "IOHIDSystem", "-d", "4"]
    shown = subprocess.run(
        command, capture_output=True, text=True, timeout=5, check=True, stdin=subprocess.DEVNULL
    ).stdout
    found = [line for line in shown.splitlines() if '"HIDIdleTime"' in line]
    return int(found[0].rpartition("=")[2]) / 1e9 if found else None


def _idle_dbus() -> float | None:
    """GNOME's idle monitor, then the freedesktop screen saver (KDE, Xfce, others); milliseconds."""
    with _bus("SESSION") as bus:
        asked = (
            ("/org/gnome/Mutter/IdleMonitor/Core", "org.gnome.Mutter.IdleMonitor", "GetIdletime"),
            ("/ScreenSaver", "org.freedesktop.ScreenSaver", "GetSessionIdleTime"),
        )
        for path, name, method in asked:
            reply = _call(bus, path, name, name, method)
            if reply is not None:
                return float(reply[0]) / 1000
    return None


def metered() -> bool | None:
    """Return True if NetworkManager takes the connection for one that is paid by volume."""
    with _bus("SYSTEM") as bus:
        name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
        properties = "org.freedesktop.DBus.Properties"
        reply = _call(bus, path, name, properties, "Get", "ss", (name, "Metered"))
        return NM_METERED.get(reply[0][1]) if reply else None


@contextlib.contextmanager
def _bus(kind: str) -> Iterator[Any]:
    connection = import_module("jeepney.io.blocking").open_dbus_connection(bus=kind)
    try:
        yield connection
    finally:
        connection.close()


def _call(
    bus: Any, path: str, name: str, interface: str, method: str, *arguments: Any
) -> tuple[Any, ...] | None:
    """A method's reply body, or None if it answers with an error (no such service)."""
    jeepney = import_module("jeepney")
    address = jeepney.DBusAddress(path, name, interface)
    call = jeepney.new_method_call(address, method, *arguments)
    reply = bus.send_and_get_reply(call, timeout=2)
    failed = reply.header.message_type is jeepney.MessageType.error
    return None if failed else tuple(reply.body)
