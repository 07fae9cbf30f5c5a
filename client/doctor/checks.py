"""Checks of a volunteer's machine, each with the one command that mends what is wrong. Pure.

The shell (symptoms.py) collects Symptoms, this file judges them. A check whose facts are
unknown says so rather than pass.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nomoat.aggregation.protocol import wire

MAX_SKEW_S: Final = 120.0  # sealed messages and invitations expire on the order of minutes
LEAST_FREE_BYTES: Final = 2 << 30
CERTIFICATE_DAYS: Final = 14


class CheckStatus(Enum):
    """The outcome of a check."""

    GOOD = "ok"
    WARN = "warning"
    BAD = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Symptoms:
    """The facts that were collected. None: could not be found out."""

    platform: str
    python: tuple[int, int]
    version: str
    protocol: int = wire.PROTOCOL_VERSION
    protocols: tuple[int, int] | None = None  # the community's least and most
    gpu_present: bool | None = None  # a device on the bus
    driver: str | None = None
    gpus: tuple[str, ...] = ()  # names of NVIDIA devices, in their driver's order
    torch_cuda: bool | None = None
    torch_installed: bool = True
    free_memory_bytes: int | None = None
    needed_memory_bytes: int | None = None
    memory_error: str | None = None  # it cannot fit, and what would
    clock_skew_s: float | None = None
    address: str | None = None
    reachable: bool | None = None
    tls_error: str | None = None
    certificate_days: float | None = None
    fingerprint: str | None = None
    pinned_fingerprint: str | None = None
    data: str | None = None
    data_rows: int | None = None
    data_error: str | None = None
    free_disk_bytes: int | None = None
    folder: str = "."
    key_mode: int | None = None
    key_path: str | None = None
    sent_log_error: str | None = None
    service_active: bool | None = None
    least_free_disk_bytes: int = LEAST_FREE_BYTES
    torch_built_for_cuda: bool = False
    torch_mps: bool | None = None
    bits_error: str | None = None
    damage: tuple[str, str | None] | None = None  # of a file that cannot be made again, and mend


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's outcome; `mend`: a command to copy, where one mends it."""

    check: str
    status: CheckStatus
    text: str
    mend: str | None = None


def examine(s: Symptoms) -> tuple[CheckResult, ...]:
    """All checks, in the order in which things depend on each other."""
    return tuple(result for check in CHECKS if (result := check(s)) is not None)


def worst(results: tuple[CheckResult, ...]) -> CheckStatus:
    """The gravest verdict; GOOD without findings."""
    order = (CheckStatus.BAD, CheckStatus.WARN, CheckStatus.UNKNOWN)
    return next((v for v in order if any(f.status is v for f in results)), CheckStatus.GOOD)


def _python(s: Symptoms) -> CheckResult:
    text = f"Python {s.python[0]}.{s.python[1]}"
    if s.python >= (3, 11):
        return CheckResult("python", CheckStatus.GOOD, text)
    return CheckResult(
        "python", CheckStatus.BAD, f"{text}; 3.11 is needed", "uv python install 3.12"
    )


def _version(s: Symptoms) -> CheckResult:
    text = f"nomoat {s.version}, protocol {s.protocol}"
    if s.protocols is None:
        return CheckResult("version", CheckStatus.UNKNOWN, f"{text}; the community's is unknown")
    low, high = s.protocols
    if low <= s.protocol <= high:
        return CheckResult("version", CheckStatus.GOOD, text)
    text = f"{text}; the community speaks {low} to {high}"
    if s.protocol > high:
        return CheckResult("version", CheckStatus.BAD, f"{text}: its coordinator must upgrade")
    return CheckResult("version", CheckStatus.BAD, text, "git pull && make install")


def _gpu(s: Symptoms) -> CheckResult:
    if not s.torch_installed:
        return CheckResult("gpu", CheckStatus.BAD, "PyTorch is missing", "pip install torch")
    if s.torch_cuda:
        found = ", ".join(f"cuda:{place} {name}" for place, name in enumerate(s.gpus))
        text = f"CUDA works (driver {s.driver or 'unknown'}){': ' * bool(found)}{found}"
        return CheckResult("gpu", CheckStatus.GOOD, text)
    if s.torch_mps:
        return CheckResult("gpu", CheckStatus.GOOD, "Apple's GPU works (MPS)")
    if s.gpu_present is None:
        return CheckResult("gpu", CheckStatus.UNKNOWN, "whether there is an NVIDIA GPU is unknown")
    if not s.gpu_present:
        return CheckResult("gpu", CheckStatus.GOOD, "no NVIDIA GPU; training uses the processor")
    return _unused_gpu(s)


def _unused_gpu(s: Symptoms) -> CheckResult:
    if s.driver is None:
        return CheckResult(
            "gpu", CheckStatus.BAD, "a GPU without a working driver", _driver(s.platform)
        )
    if s.torch_built_for_cuda:
        text = f"driver {s.driver} does not work with this PyTorch; it may be too old"
        return CheckResult("gpu", CheckStatus.BAD, text, _driver(s.platform))
    text = f"driver {s.driver} works, but this PyTorch was built without CUDA"
    command = (
        "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
    )
    return CheckResult("gpu", CheckStatus.BAD, text, command)


def _driver(platform: str) -> str:
    if platform == "win32":
        return "winget install Nvidia.GeForceExperience"
    return "sudo ubuntu-drivers install"


def _bits(s: Symptoms) -> CheckResult | None:
    if s.bits_error is None:
        return None
    return CheckResult("bits", CheckStatus.BAD, s.bits_error, "pip install bitsandbytes")


def _memory(s: Symptoms) -> CheckResult | None:
    commands = {"win32": "tasklist", "darwin": "ps aux -m | head"}
    mend = commands.get(s.platform, "ps aux --sort=-rss | head")
    if s.memory_error is not None:
        return CheckResult("memory", CheckStatus.BAD, s.memory_error, mend)
    if s.needed_memory_bytes is None:
        return None
    if s.free_memory_bytes is None:
        return CheckResult("memory", CheckStatus.UNKNOWN, "free memory is unknown")
    need, free = s.needed_memory_bytes / 2**30, s.free_memory_bytes / 2**30
    text = f"{need:.1f} GiB needed, {free:.1f} GiB free"
    if s.free_memory_bytes >= s.needed_memory_bytes:
        return CheckResult("memory", CheckStatus.GOOD, text)
    return CheckResult(
        "memory", CheckStatus.BAD, f"{text}; close the programs that take most", mend
    )


def _clock(s: Symptoms) -> CheckResult:
    if s.clock_skew_s is None or not math.isfinite(s.clock_skew_s):
        return CheckResult("clock", CheckStatus.UNKNOWN, "the coordinator's time is unknown")
    text = f"this clock differs by {s.clock_skew_s:+.0f} s from the coordinator's"
    if abs(s.clock_skew_s) <= MAX_SKEW_S:
        return CheckResult("clock", CheckStatus.GOOD, text)
    commands = {"win32": "w32tm /resync", "darwin": "sudo sntp -sS time.apple.com"}
    mend = commands.get(s.platform, "sudo timedatectl set-ntp true")
    return CheckResult("clock", CheckStatus.BAD, text, mend)


def _reach(s: Symptoms) -> CheckResult:
    if s.address is None:
        mend = "nomoat join LINK --data FILE"
        return CheckResult("coordinator", CheckStatus.UNKNOWN, "no community was joined yet", mend)
    if s.reachable is None:
        return CheckResult("coordinator", CheckStatus.UNKNOWN, f"{s.address} was not tried")
    if s.reachable:
        return CheckResult("coordinator", CheckStatus.GOOD, f"{s.address} answers")
    host, port = _host_and_port(s)
    mend = f"curl -vk --max-time 10 https://{host}:{port}/"
    return CheckResult("coordinator", CheckStatus.BAD, f"{s.address} does not answer", mend)


def _host_and_port(s: Symptoms) -> tuple[str, str]:
    host, _, port = (s.address or "").removeprefix("https://").partition("/")[0].rpartition(":")
    return shlex.quote(host), port or "443"


def _tls(s: Symptoms) -> CheckResult | None:
    if not s.reachable:
        return None
    if s.tls_error:
        text = f"TLS fails: {s.tls_error}"
        host, port = _host_and_port(s)
        mend = f"openssl s_client -connect {host}:{port} -showcerts </dev/null"
        return CheckResult("tls", CheckStatus.BAD, text, mend)
    if s.certificate_days is None or not math.isfinite(s.certificate_days):
        return CheckResult("tls", CheckStatus.UNKNOWN, "the certificate's end is unknown")
    text = f"the certificate is valid for {s.certificate_days:.0f} more days"
    if s.certificate_days < CERTIFICATE_DAYS:
        return CheckResult("tls", CheckStatus.WARN, f"{text}; tell the coordinator to renew it")
    return CheckResult("tls", CheckStatus.GOOD, text)


def _fingerprint(s: Symptoms) -> CheckResult | None:
    if s.fingerprint is None or s.pinned_fingerprint is None:
        return None
    if s.fingerprint == s.pinned_fingerprint:
        return CheckResult("fingerprint", CheckStatus.GOOD, "the server is the one you joined")
    text = (
        f"the server shows {s.fingerprint[:16]}…, you joined {s.pinned_fingerprint[:16]}…: "
        "somebody may be in between. Ask for a new invitation by another way"
    )
    return CheckResult("fingerprint", CheckStatus.BAD, text, "nomoat join LINK --data FILE")


def _data(s: Symptoms) -> CheckResult | None:
    if s.data is None:
        return None
    preview = f"nomoat data preview {shlex.quote(s.data)}"
    if s.data_error:
        return CheckResult("data", CheckStatus.BAD, s.data_error, preview)
    if s.data_rows is None:
        return CheckResult("data", CheckStatus.UNKNOWN, f"{s.data} was not read")
    if s.data_rows == 0:
        return CheckResult("data", CheckStatus.BAD, f"{s.data} has no row to train on", preview)
    return CheckResult("data", CheckStatus.GOOD, f"{s.data_rows} rows to train on")


def _disk(s: Symptoms) -> CheckResult:
    if s.free_disk_bytes is None:
        return CheckResult("disk", CheckStatus.UNKNOWN, "free disk space is unknown")
    text = f"{s.free_disk_bytes / 2**30:.1f} GiB free"
    if s.free_disk_bytes >= s.least_free_disk_bytes:
        return CheckResult("disk", CheckStatus.GOOD, text)
    needed = s.least_free_disk_bytes / 2**30
    text = f"{text}; {needed:.1f} GiB are needed (min_free_disk_mb in settings.toml)"
    return CheckResult("disk", CheckStatus.BAD, text, "hf cache prune")


def _key(s: Symptoms) -> CheckResult | None:
    if s.key_path is None:
        return None
    path = shlex.quote(s.key_path)
    if s.key_mode is None and s.address is None:
        return CheckResult("identity", CheckStatus.UNKNOWN, "made when a community is joined")
    if s.key_mode is None:
        mend = "nomoat identity import FILE"
        return CheckResult("identity", CheckStatus.BAD, f"{s.key_path} is missing", mend)
    if s.platform != "win32" and s.key_mode & 0o077:
        text = f"{s.key_path} is readable by others (mode {s.key_mode & 0o777:04o})"
        return CheckResult("identity", CheckStatus.BAD, text, f"chmod 600 {path}")
    return CheckResult("identity", CheckStatus.GOOD, "the identity key is yours alone")


def _sent_log(s: Symptoms) -> CheckResult:
    if s.sent_log_error:
        return CheckResult(
            "sent log", CheckStatus.BAD, s.sent_log_error, "nomoat sent --start-over"
        )
    return CheckResult("sent log", CheckStatus.GOOD, "the log of what left is whole")


def _service(s: Symptoms) -> CheckResult | None:
    if s.service_active is None:
        return None
    if s.service_active:
        return CheckResult("service", CheckStatus.GOOD, "the service runs")
    text = "the client does not start by itself after a reboot"
    return CheckResult("service", CheckStatus.WARN, text, "nomoat service install")


def _kept_files(s: Symptoms) -> CheckResult | None:
    if s.damage is None:
        return None
    text, mend = s.damage
    return CheckResult("files", CheckStatus.BAD if mend else CheckStatus.WARN, text, mend)


CHECKS: Final[tuple[Callable[[Symptoms], CheckResult | None], ...]] = (
    *(_python, _version, _gpu, _bits, _memory, _disk, _data, _key, _kept_files, _sent_log),
    *(_reach, _tls, _fingerprint, _clock, _service),
)
