"""GPUs that may be present, asked without loading torch or a driver: asking starts nothing.

A process that has started CUDA must not be forked, so whoever decides how worker processes come
into being reads this module and no library.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import UsageError

CPU: Final = "cpu"
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
# Emptied where a process must not start a GPU; ROCm's runtime reads the second one first.
HIDING: Final = (VISIBLE, "HIP_VISIBLE_DEVICES")
# Device files of the NVIDIA driver, of WSL, of Tegra, of AMD's and of Intel's compute drivers.
NODES: Final = ("nvidiactl", "dxg", "nvhost-ctrl", "nvhost-gpu", "kfd", "dri/renderD128")
_NAME: Final = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d{1,3})?")
_BUILT: Final = re.compile(r"^(cuda|hip|xpu)\b.*=\s*['\"]", re.MULTILINE)


def names(device: str) -> tuple[str, ...]:
    """Split "cuda:0,cuda:1" into the devices it lists, in order; most settings name one."""
    return tuple(name.strip() for name in device.split(",") if name.strip()) or ("auto",)


def check_names(device: str) -> None:
    """Raise UsageError, in one line, unless `device` names kinds of devices that there are.

    Several are of one kind, each named once.
    """
    _check_kinds(device)
    _check_list(device)


def check_there(device: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError, in one line, if `device` names one that surely is not here.

    Drivers are not asked: what passes may still not start.
    """
    _check_kinds(device)
    for name in names(device):
        kind = name.partition(":")[0]
        if why := _why_not(kind, environment):
            raise UsageError(f"there is no {kind.upper()} device here; use cpu ({why})")
    _check_list(device)


def _check_kinds(device: str) -> None:
    for name in names(device):
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no device; auto, cpu, cuda, mps and xpu are")


def _check_list(device: str) -> None:
    found = names(device)
    kinds = {name.partition(":")[0] for name in found}
    if len(found) > 1 and (len(kinds) > 1 or kinds & {"auto", CPU}):
        raise UsageError(f"{device!r} mixes devices; several are GPUs of one kind: cuda:0,cuda:1")
    if len({name if ":" in name else f"{name}:0" for name in found}) < len(found):
        raise UsageError(f"{device!r} names a device twice")


def _why_not(kind: str, environment: Mapping[str, str]) -> str:
    """Say in half a line why there can be no such device; "" if there may be one."""
    built = torch_built_for()
    if kind == "cuda":
        hidden = not environment.get(VISIBLE, "0").strip()
        driven = sys.platform != "linux" or bool(driver_nodes())
        fine = bool({"cuda", "hip"} & built) and driven and not hidden
        return "" if fine else why_no_cuda(environment)
    if kind == "mps":
        return "" if is_apple() else "MPS is Apple silicon's"
    if kind == "xpu":
        return "" if "xpu" in built else "XPU needs an Intel GPU and torch's build for it"
    return ""


def torch_built_for() -> frozenset[str]:
    """Return what the installed torch was built for, of "cuda", "hip" and "xpu"."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return frozenset()
    return frozenset(_BUILT.findall((Path(found.origin).parent / "version.py").read_text()))


def torch_has_cuda() -> bool:
    """Tell whether the installed torch was built for CUDA."""
    return "cuda" in torch_built_for()


def driver_nodes(folder: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the GPU drivers' device files that this system has (Linux)."""
    return tuple(name for name in NODES if (folder / name).exists())


def may_use_gpu(device: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a process told to use `device` may start a GPU. In doubt, yes."""
    kinds = {name.partition(":")[0] for name in names(device)}
    if kinds == {CPU}:
        return False
    if kinds != {"auto"}:
        return True
    if environment.get(VISIBLE) == "":
        return False
    if is_apple():
        return True
    return bool(torch_built_for()) and (sys.platform != "linux" or bool(driver_nodes()))


def unmeasured_gpu(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """Name the GPU that `device` may mean and of whose memory nothing is known without torch.

    NVML knows NVIDIA's alone; "" where it may be asked, and where there is no GPU.
    """
    built, kind = torch_built_for(), names(device)[0].partition(":")[0]
    for build, own_name, called in (("hip", "cuda", "AMD GPU"), ("xpu", "xpu", "Intel GPU")):
        if build in built and kind in {own_name, "auto"} and may_use_gpu(device, environment):
            return called
    return ""


def gpu_of(device: str, environment: Mapping[str, str] = os.environ) -> int | str | None:
    """Return the first of `gpus_of`; None for none."""
    return next(iter(gpus_of(device, environment)), None)


def gpus_of(device: str, environment: Mapping[str, str] = os.environ) -> tuple[int | str, ...]:
    """Return NVML's index or UUID of every CUDA device meant by `device`, in its order.

    CUDA counts only what CUDA_VISIBLE_DEVICES lists, and in NVML's order if CUDA_DEVICE_ORDER is
    PCI_BUS_ID, as `nomoat run` sets it. A slice of a device (MIG) goes by its UUID.
    """
    if not torch_has_cuda():
        return ()
    found = (_gpu_named(name, environment.get(VISIBLE)) for name in names(device))
    return tuple(gpu for gpu in found if gpu is not None)


def _gpu_named(name: str, visible: str | None) -> int | str | None:
    kind, _, number = name.partition(":")
    if kind not in {"auto", "cuda"}:
        return None
    place = int(number) if number.isdecimal() else 0
    if visible is None:
        return place
    listed = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if place >= len(listed):
        return None
    return int(listed[place]) if listed[place].isdecimal() else listed[place]


def is_apple() -> bool:
    """Tell whether this is a Mac with a GPU that torch uses."""
    return (platform.system(), platform.machine()) == ("Darwin", "arm64")


def means_mps(device: str) -> bool:
    """Tell whether `device` is such a Mac's GPU."""
    return device == "mps" or (device == "auto" and is_apple())


def why_no_cuda(environment: Mapping[str, str] = os.environ) -> str:
    """Say in half a line why there is no CUDA device, and what would bring one back."""
    if not {"cuda", "hip"} & torch_built_for():
        return "this torch was built without CUDA, see nomoat doctor"
    visible = environment.get(VISIBLE)
    if visible is not None:
        shown = "is empty" if not visible.strip() else f"is {visible[:60]!r}"
        return f"{VISIBLE} {shown}: unset it, or list devices that nvidia-smi -L shows"
    if sys.platform == "linux" and not driver_nodes():
        return "no GPU driver is loaded, see nomoat doctor"
    return "the driver does not work with this torch, most likely because it is too old"
