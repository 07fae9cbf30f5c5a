"""The coordinator's machine: disk, memory, certificate, clock, files."""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import shutil
from dataclasses import dataclass
from typing import Final, Literal

import psutil

from nomoat import __version__
from nomoat.server.backup.making import last_made
from nomoat.server.community import certificates
from nomoat.server.community.folder import Folder
from nomoat.server.engines.postgresql import shown
from nomoat.server.succession import kept_keys

Judgement = Literal["good", "wait", "bad", "plain"]
LEAST_DISK: Final = 1 << 30
LEAST_DAYS: Final = 30
OLD_BACKUP_DAYS: Final = 7
TIMEX_BYTES: Final = 512  # struct timex has 208; all zero: nothing is changed
UNSYNCHRONISED: Final = 5  # TIME_ERROR


@dataclass(frozen=True)
class HealthLine:
    """One thing that was looked at. judgement: good, wait (act soon), bad (now); plain: none."""

    name: str
    value: str
    judgement: Judgement


def health(folder: Folder, now: float) -> tuple[HealthLine, ...]:
    """Look at the machine and the folder."""
    return (
        _disk(folder),
        _memory(),
        _load(),
        _certificate(folder, now),
        _backup(folder, now),
        _records(folder),
        _adapters(folder),
        HealthLine("This process", _own(now), "plain"),
        HealthLine(
            "Software", f"nomoat {__version__}, Python {platform.python_version()}", "plain"
        ),
        _clock(now, synchronised()),
    )


def _disk(folder: Folder) -> HealthLine:
    free = shutil.disk_usage(folder.root).free
    judgement: Judgement = (
        "bad" if free < LEAST_DISK // 4 else "wait" if free < LEAST_DISK else "good"
    )
    return HealthLine("Disk", f"{free / 2**30:.1f} GiB free", judgement)


def _memory() -> HealthLine:
    found = psutil.virtual_memory()
    judgement: Judgement = "wait" if found.available < found.total // 20 else "good"
    text = f"{found.available / 2**30:.1f} of {found.total / 2**30:.1f} GiB available"
    return HealthLine("Memory", text, judgement)


def _load() -> HealthLine:
    cores = os.cpu_count() or 1
    busy = psutil.getloadavg()[0]
    judgement: Judgement = "wait" if busy > 2 * cores else "good"
    return HealthLine("Load", f"{busy:.1f} on {cores} cores", judgement)


def _certificate(folder: Folder, now: float) -> HealthLine:
    ends = certificates.expires(folder.server_certificate.read_bytes())
    days = (ends.timestamp() - now) / 86_400
    judgement: Judgement = "bad" if days < 0 else "wait" if days < LEAST_DAYS else "good"
    note = "; the next start of nomoat up renews it" if days < LEAST_DAYS else ""
    return HealthLine("Certificate", f"ends {ends:%Y-%m-%d}, in {days:.0f} days{note}", judgement)


def _backup(folder: Folder, now: float) -> HealthLine:
    made = last_made(folder)
    if made is None:
        return HealthLine("Backup", "none was ever made (nomoat backup)", "wait")
    keys = kept_keys.read(folder)
    if keys is not None and keys.changes and made < keys.changes[-1].at:
        old = "the last holds the key of before, and cannot be gone on with (nomoat backup)"
        return HealthLine("Backup", old, "bad")
    days = (now - made) / 86_400
    judgement: Judgement = "wait" if days > OLD_BACKUP_DAYS else "good"
    return HealthLine("Backup", f"the last was made {days:.1f} days ago", judgement)


def _clock(now: float, kept: bool | None) -> HealthLine:
    """The time, and if something keeps it right: requests of a clock that is far off are refused.

    kept: what the kernel says; None where it says nothing.
    """
    at = f"{datetime.datetime.fromtimestamp(now, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    if kept is None:
        return HealthLine("Clock", at, "plain")
    if kept:
        return HealthLine("Clock", f"{at}, kept by a time service", "good")
    return HealthLine(
        "Clock", f"{at}; no time service keeps it (chrony, systemd-timesyncd)", "wait"
    )


def synchronised() -> bool | None:
    """Return what Linux says of its clock (adjtimex(2)); None elsewhere."""
    try:
        said = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError, TypeError):
        return None
    return None if said < 0 else bool(said != UNSYNCHRONISED)


def _own(now: float) -> str:
    process = psutil.Process()
    hours = (now - process.create_time()) / 3600
    threads = process.num_threads()
    taken = process.memory_info().rss / 2**20
    return f"{taken:.0f} MiB, {threads} threads, up for {hours:.1f} h"


def _records(folder: Folder) -> HealthLine:
    if folder.address.exists():
        return HealthLine("Database", shown(str(folder.place)), "plain")
    return _size("Database", folder.database)


def _size(name: str, path: os.PathLike[str]) -> HealthLine:
    try:
        return HealthLine(name, f"{os.stat(path).st_size / 2**20:.1f} MiB", "plain")
    except OSError as problem:
        return HealthLine(name, problem.strerror or "cannot be read", "bad")


def _adapters(folder: Folder) -> HealthLine:
    files = [file.stat().st_size for file in folder.adapters.glob("*.adapter")]
    return HealthLine("Adapter files", f"{len(files)}, {sum(files) / 2**20:.1f} MiB", "plain")
