"""What can be wrong with a volunteer's machine, each with the one command that mends it. Pure.

The shell (commands/doctor.py) collects Symptoms, this file judges them. A check whose facts are
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


class Verdict(Enum):
    """How a check ended."""

    GOOD = "ok"
    WARN = "warning"
    BAD = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Symptoms:
    """What was found. None: could not be found out."""

    platform: str
    python: tuple[int, int]
    version: str
    protocol: int = wire.PROTOCOL_VERSION
    protocols: tuple[int, int] | None = None  # the community's least and most
    gpu_present: bool | None = None  # a device on the bus
    driver: str | None = None
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
    ledger_error: str | None = None
    service_active: bool | None = None
    least_free_disk_bytes: int = LEAST_FREE_BYTES
    torch_built_for_cuda: bool = False
    torch_mps: bool | None = None
    bits_error: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome; `mend`: a command to copy, where one mends it."""

    check: str
    verdict: Verdict
    text: str
    mend: str | None = None


def examine(s: Symptoms) -> tuple[Finding, ...]:
    """All checks, in the order in which things depend on each other."""
    return tuple(finding for check in CHECKS if (finding := check(s)) is not None)


def worst(findings: tuple[Finding, ...]) -> Verdict:
    """The gravest verdict; GOOD without findings."""
    order = (Verdict.BAD, Verdict.WARN, Verdict.UNKNOWN)
    return next((v for v in order if any(f.verdict is v for f in findings)), Verdict.GOOD)


def _python(s: Symptoms) -> Finding:
    text = f"Python {s.python[0]}.{s.python[1]}"
    if s.python >= (3, 11):
        return Finding("python", Verdict.GOOD, text)
    return Finding("python", Verdict.BAD, f"{text}; 3.11 is needed", "uv python install 3.12")


def _version(s: Symptoms) -> Finding:
    text = f"nomoat {s.version}, protocol {s.protocol}"
    if s.protocols is None:
        return Finding("version", Verdict.UNKNOWN, f"{text}; the community's is unknown")
    low, high = s.protocols
    if low <= s.protocol <= high:
        return Finding("version", Verdict.GOOD, text)
    text = f"{text}; the community speaks {low} to {high}"
    if s.protocol > high:
        return Finding("version", Verdict.BAD, f"{text}: its coordinator must upgrade")
    return Finding("version", Verdict.BAD, text, "pip install --upgrade nomoat")


def _gpu(s: Symptoms) -> Finding:
    if not s.torch_installed:
        return Finding("gpu", Verdict.BAD, "PyTorch is missing", "pip install torch")
    if s.torch_cuda:
        return Finding("gpu", Verdict.GOOD, f"CUDA works (driver {s.driver or 'unknown'})")
    if s.torch_mps:
        return Finding("gpu", Verdict.GOOD, "Apple's GPU works (MPS)")
    if s.gpu_present is None:
        return Finding("gpu", Verdict.UNKNOWN, "whether there is an NVIDIA GPU is unknown")
    if not s.gpu_present:
        return Finding("gpu", Verdict.GOOD, "no NVIDIA GPU; training uses the processor")
    return _unused_gpu(s)


def _unused_gpu(s: Symptoms) -> Finding:
    if s.driver is None:
        return Finding("gpu", Verdict.BAD, "a GPU without a working driver", _driver(s.platform))
    if s.torch_built_for_cuda:
        text = f"driver {s.driver} does not work with this PyTorch; it may be too old"
        return Finding("gpu", Verdict.BAD, text, _driver(s.platform))
    text = f"driver {s.driver} works, but this PyTorch was built without CUDA"
    command = (
        "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
    )
    return Finding("gpu", Verdict.BAD, text, command)


def _driver(platform: str) -> str:
    if platform == "win32":
        return "winget install Nvidia.GeForceExperience"
    return "sudo ubuntu-drivers install"


def _bits(s: Symptoms) -> Finding | None:
    if s.bits_error is None:
        return None
    return Finding("bits", Verdict.BAD, s.bits_error, "pip install 'nomoat[gpu]'")


def _memory(s: Symptoms) -> Finding | None:
    commands = {"win32": "tasklist", "darwin": "ps aux -m | head"}
    mend = commands.get(s.platform, "ps aux --sort=-rss | head")
    if s.memory_error is not None:
        return Finding("memory", Verdict.BAD, s.memory_error, mend)
    if s.needed_memory_bytes is None:
        return None
    if s.free_memory_bytes is None:
        return Finding("memory", Verdict.UNKNOWN, "free memory is unknown")
    need, free = s.needed_memory_bytes / 2**30, s.free_memory_bytes / 2**30
    text = f"{need:.1f} GiB needed, {free:.1f} GiB free"
    if s.free_memory_bytes >= s.needed_memory_bytes:
        return Finding("memory", Verdict.GOOD, text)
    return Finding("memory", Verdict.BAD, f"{text}; close the programs that take most", mend)


def _clock(s: Symptoms) -> Finding:
    if s.clock_skew_s is None or not math.isfinite(s.clock_skew_s):
        return Finding("clock", Verdict.UNKNOWN, "the coordinator's time is unknown")
    text = f"this clock differs by {s.clock_skew_s:+.0f} s from the coordinator's"
    if abs(s.clock_skew_s) <= MAX_SKEW_S:
        return Finding("clock", Verdict.GOOD, text)
    commands = {"win32": "w32tm /resync", "darwin": "sudo sntp -sS time.apple.com"}
    mend = commands.get(s.platform, "sudo timedatectl set-ntp true")
    return Finding("clock", Verdict.BAD, text, mend)


def _reach(s: Symptoms) -> Finding:
    if s.address is None:
        mend = "nomoat join LINK --data FILE"
        return Finding("coordinator", Verdict.BAD, "no community was joined", mend)
    if s.reachable is None:
        return Finding("coordinator", Verdict.UNKNOWN, f"{s.address} was not tried")
    if s.reachable:
        return Finding("coordinator", Verdict.GOOD, f"{s.address} answers")
    host, port = _host_and_port(s)
    mend = f"curl -vk --max-time 10 https://{host}:{port}/"
    return Finding("coordinator", Verdict.BAD, f"{s.address} does not answer", mend)


def _host_and_port(s: Symptoms) -> tuple[str, str]:
    host, _, port = (s.address or "").removeprefix("https://").partition("/")[0].rpartition(":")
    return shlex.quote(host), port or "443"


def _tls(s: Symptoms) -> Finding | None:
    if not s.reachable:
        return None
    if s.tls_error:
        text = f"TLS fails: {s.tls_error}"
        host, port = _host_and_port(s)
        mend = f"openssl s_client -connect {host}:{port} -showcerts </dev/null"
        return Finding("tls", Verdict.BAD, text, mend)
    if s.certificate_days is None or not math.isfinite(s.certificate_days):
        return Finding("tls", Verdict.UNKNOWN, "the certificate's end is unknown")
    text = f"the certificate is valid for {s.certificate_days:.0f} more days"
    if s.certificate_days < CERTIFICATE_DAYS:
        return Finding("tls", Verdict.WARN, f"{text}; tell the coordinator to renew it")
    return Finding("tls", Verdict.GOOD, text)


def _fingerprint(s: Symptoms) -> Finding | None:
    if s.fingerprint is None or s.pinned_fingerprint is None:
        return None
    if s.fingerprint == s.pinned_fingerprint:
        return Finding("fingerprint", Verdict.GOOD, "the server is the one you joined")
    text = (
        f"the server shows {s.fingerprint[:16]}…, you joined {s.pinned_fingerprint[:16]}…: "
        "somebody may be in between. Ask for a new invitation by another way"
    )
    return Finding("fingerprint", Verdict.BAD, text, "nomoat join LINK --data FILE")


def _data(s: Symptoms) -> Finding | None:
    if s.data is None:
        return None
    preview = f"nomoat data preview {shlex.quote(s.data)}"
    if s.data_error:
        return Finding("data", Verdict.BAD, s.data_error, preview)
    if s.data_rows is None:
        return Finding("data", Verdict.UNKNOWN, f"{s.data} was not read")
    if s.data_rows == 0:
        return Finding("data", Verdict.BAD, f"{s.data} has no row to train on", preview)
    return Finding("data", Verdict.GOOD, f"{s.data_rows} rows to train on")


def _disk(s: Symptoms) -> Finding:
    if s.free_disk_bytes is None:
        return Finding("disk", Verdict.UNKNOWN, "free disk space is unknown")
    text = f"{s.free_disk_bytes / 2**30:.1f} GiB free"
    if s.free_disk_bytes >= s.least_free_disk_bytes:
        return Finding("disk", Verdict.GOOD, text)
    needed = s.least_free_disk_bytes / 2**30
    text = f"{text}; {needed:.1f} GiB are needed (min_free_disk_mb in settings.toml)"
    return Finding("disk", Verdict.BAD, text, "hf cache prune")


def _key(s: Symptoms) -> Finding | None:
    if s.key_path is None:
        return None
    path = shlex.quote(s.key_path)
    if s.key_mode is None:
        mend = "nomoat identity import FILE"
        return Finding("identity", Verdict.BAD, f"{s.key_path} is missing", mend)
    if s.platform != "win32" and s.key_mode & 0o077:
        text = f"{s.key_path} is readable by others (mode {s.key_mode & 0o777:04o})"
        return Finding("identity", Verdict.BAD, text, f"chmod 600 {path}")
    return Finding("identity", Verdict.GOOD, "the identity key is yours alone")


def _ledger(s: Symptoms) -> Finding:
    if s.ledger_error:
        return Finding("sent log", Verdict.BAD, s.ledger_error, "nomoat sent --start-over")
    return Finding("sent log", Verdict.GOOD, "the log of what left is whole")


def _service(s: Symptoms) -> Finding | None:
    if s.service_active is None:
        return None
    if s.service_active:
        return Finding("service", Verdict.GOOD, "the service runs")
    text = "the client does not start by itself after a reboot"
    return Finding("service", Verdict.WARN, text, "nomoat service install")


CHECKS: Final[tuple[Callable[[Symptoms], Finding | None], ...]] = (
    *(_python, _version, _gpu, _bits, _memory, _disk, _data, _key, _ledger),
    *(_reach, _tls, _fingerprint, _clock, _service),
)
