"""Readings of this machine, its owner's limits, and their orders: all frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nomoat.client.machine.weekly_schedule import Week, always, never

# Programs that hold a little GPU memory on every desktop, whatever its owner does.
DESKTOP_PROGRAMS: Final = frozenset(
    {
        *("Xorg", "Xwayland", "gnome-shell", "kwin_x11", "kwin_wayland", "plasmashell", "mutter"),
        *("sway", "Hyprland", "cinnamon", "xfwm4", "gnome-remote-desktop-daemon"),
        *("dwm.exe", "explorer.exe", "csrss.exe", "SearchHost.exe", "ShellExperienceHost.exe"),
        *("TextInputHost.exe", "WindowServer"),
    }
)


@dataclass(frozen=True, slots=True)
class GpuProgram:
    """Another program on our GPU. `busy_share`: of the GPU's time, None if the driver is silent.

    outside: this system has no such process; it runs beside this container, or on its host.
    """

    name: str
    compute: bool
    memory_bytes: int | None = None
    busy_share: float | None = None
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings of the probes at `now` (local, with its time zone). None: unknown."""

    now: datetime
    idle_s: float | None = None
    on_battery: bool | None = None
    metered: bool | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    vram_share: float | None = None  # ours, of the device's memory
    gpu_programs: tuple[GpuProgram, ...] | None = None
    apart: bool = False  # in a container: the driver knows our processes by other ids
    other_cpu_share: float | None = None  # of all cores, by other programs
    free_disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """The owner's limits. None: no limit. Margins are where a limit lets go again."""

    schedule: Week = field(default_factory=always)
    quiet_hours: Week = field(default_factory=never)
    idle_after_s: float | None = None
    on_battery: bool = False
    on_metered: bool = False
    max_temperature_c: float | None = None
    temperature_margin_c: float = 8.0
    max_power_w: float | None = None
    power_margin_w: float = 30.0
    max_vram_share: float | None = None
    yield_gpu: bool = True
    ignored_programs: frozenset[str] = DESKTOP_PROGRAMS
    graphics_busy_share: float = 0.10
    graphics_memory_bytes: int = 1 << 30
    max_other_cpu_share: float | None = None
    other_cpu_margin: float = 0.15
    min_free_disk_bytes: int = 1 << 30
    lots: bytes = b""  # drawn at the start: waiting must not be in step with others'


@dataclass(frozen=True, slots=True)
class Orders:
    """The owner's orders. `paused_until` None while paused: until `resume`."""

    paused: bool = False
    paused_until: datetime | None = None
    finish: bool = False


def describe(limits: MachineLimits) -> Mapping[str, str]:
    """The limits in words, for the consent sheet and `status`."""
    optional = {
        "temperature": (limits.max_temperature_c, "at most {:g} °C"),
        "power": (limits.max_power_w, "at most {:g} W"),
        "GPU memory": (limits.max_vram_share, "at most {:.0%}"),
        "idle": (limits.idle_after_s, "only after {:g} s without input"),
        "other programs": (limits.max_other_cpu_share, "only below {:.0%} processor use"),
    }
    said = {name: words.format(value) for name, (value, words) in optional.items() if value}
    said["battery"] = "also on battery" if limits.on_battery else "never on battery"
    said["network"] = "also when metered" if limits.on_metered else "never on a metered network"
    said["GPU"] = "yields to other programs" if limits.yield_gpu else "is not yielded"
    return said
