"""The tickets of a GPU as files that all users of this machine see: the shell around turns.py.

Each ticket is a small file in a folder of its GPU, locked by the process that drew it, so that a
process which was killed leaves no wish behind. Files of others are data: what cannot be read, is
too long or is not locked by anybody is no ticket. Where the folder cannot be used (a read-only
system, another user's trick) there are no turns, and everybody goes on as if alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nomoat.lora.device.nvml_pids import opened
from nomoat.lora.device.present import gpus_of, may_use_gpu
from nomoat.lora.device.turns import Ticket, TicketStanding, must_hand_over, standing
from nomoat.storage.locks import is_locked, lock

log = logging.getLogger(__name__)

LOOK_S = 0.2
MAX_TICKETS, MAX_TICKET_BYTES = 64, 1024
LESS_FREE = 0.95  # of the device: what programs say of their need is known within a few per cent
_NAME = re.compile(r"ticket-(\d{1,24})")


def shared_folder() -> Path:
    """Return the folder that all users of this machine can write into."""
    memory = Path("/dev/shm")  # noqa: S108 - an own folder in it
    base = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return base / "nomoat-gpu"


class GpuQueue:
    """The tickets of one GPU. which: NVML's index or UUID."""

    def __init__(self, which: int | str, folder: Path | None = None) -> None:
        self._which = which
        self.name = re.sub(r"[^\w-]", "_", _uuid(which))[:80]
        self._folder = (folder or shared_folder()) / self.name

    def draw(self) -> Turn | None:
        """Draw a ticket; None where tickets cannot be had."""
        try:
            _make(self._folder.parent)
            _make(self._folder)
            with self._alone():
                return Turn(self, *self._new())
        except OSError as problem:
            log.info("no turns at the GPU: %s", problem)
            return None

    def pids(self) -> frozenset[int]:
        """Return the processes with a ticket, as the driver numbers them: they are no strangers."""
        try:
            with self._alone():
                tickets = self._live()
        except OSError:
            return frozenset()
        return frozenset(pid for ticket in tickets for pid in ticket.pids)

    def _new(self) -> tuple[int, Ticket]:
        while True:
            number = time.time_ns()
            path = self._folder / f"ticket-{number}"
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
                lock(handle)
                return handle, Ticket(number, owner())

    def _live(self) -> list[Ticket]:
        """Return every ticket whose process lives; files that nobody holds go."""
        found = []
        for file in sorted(self._folder.glob("ticket-*"))[: 4 * MAX_TICKETS]:
            if is_locked(file):
                with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                    found.append(_read(file))
            else:
                with contextlib.suppress(OSError):
                    file.unlink()
        return found[:MAX_TICKETS]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who reads and writes tickets; for milliseconds."""
        path = self._folder / "lock"
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            handle = os.open(path, flags | os.O_CREAT, 0o644)
        try:
            until = time.monotonic() + 10 * LOOK_S
            while not lock(handle):
                if time.monotonic() > until:
                    raise OSError(f"{path} is held by another process")
                time.sleep(0.005)
            yield
        finally:
            os.close(handle)

    def _room(self, tickets: list[Ticket]) -> int | None:
        """Return what programs with tickets may have together: all that strangers do not."""
        with contextlib.suppress(Exception):  # a driver raises anything; unknown is the answer
            nvml, device = opened(self._which)
            ours = {pid for ticket in tickets for pid in ticket.pids}
            running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
            held = sum(p.usedGpuMemory or 0 for p in running if p.pid in ours)
            return int(LESS_FREE * (nvml.nvmlDeviceGetMemoryInfo(device).free + held))
        return None


class Turn:
    """One ticket of ours, from drawing it to giving it back."""

    def __init__(self, queue: GpuQueue, handle: int, ticket: Ticket) -> None:
        self._queue, self._handle, self._ticket = queue, handle, ticket
        self._began = 0.0
        self._write()

    def wait(
        self, wanted: Callable[[], bool], told: Callable[[str | None], None], need: int | None
    ) -> bool:
        """Wait until this ticket is served; False if `wanted` stops being true.

        told: why it waits, in words, when that begins or changes; None when it is over.
        """
        self._ticket = replace(self._ticket, need_bytes=need)
        said: str | None = None
        while wanted():
            now = self._look()
            if now.may_run:
                if said is not None:
                    told(None)
                return True
            if (words := self._words(now)) != said:
                said = words
                told(words)
            time.sleep(LOOK_S)
        if said is not None:
            told(None)
        return False

    def fits(self, need: int | None) -> bool:
        """Tell whether this turn is good for a need of that many bytes: alone, or beside others."""
        if need is not None and need <= (self._ticket.need_bytes or 0):
            return True
        try:
            with self._queue._alone():
                live = self._queue._live()
                running = [t for t in live if t.running and t.number != self._ticket.number]
                grown = replace(self._ticket, need_bytes=need, running=False)
                found = standing([*running, grown], grown.number, self._queue._room(live))
                if found.may_run:
                    self._ticket = replace(grown, running=True)
                    self._write()
        except OSError:
            return True
        return found.may_run

    def used_by(self, pids: frozenset[int]) -> None:
        """Say which processes compute on this ticket."""
        self._ticket = replace(self._ticket, pids=tuple(sorted(pids))[:8])
        self._write()

    def is_over(self, idle: bool) -> bool:
        """Tell whether others must go first now."""
        try:
            with self._queue._alone():
                tickets = self._queue._live()
        except OSError:
            return False
        if all(ticket.number != self._ticket.number for ticket in tickets):
            return False  # somebody has deleted our file: go on
        room = self._queue._room(tickets) if len(tickets) > 1 else None
        ran_s = time.monotonic() - self._began
        return must_hand_over(tickets, self._ticket.number, room, ran_s, idle)

    def give_back(self) -> None:
        """Let the ticket go."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._handle)

    @property
    def _path(self) -> Path:
        return self._queue._folder / f"ticket-{self._ticket.number}"

    def _look(self) -> TicketStanding:
        """Look whether it is served, and take the turn if it is, both at once."""
        try:
            with self._queue._alone():
                others = [t for t in self._queue._live() if t.number != self._ticket.number]
                tickets = [*others, self._ticket]
                room = self._queue._room(tickets) if others else None
                found = standing(tickets, self._ticket.number, room)
                if found.may_run:
                    self._ticket = replace(self._ticket, running=True)
                    self._began = time.monotonic()
                self._write()
                return found
        except OSError:
            return TicketStanding(True)  # the folder is gone: nobody else has turns either

    def _write(self) -> None:
        data = json.dumps(asdict(self._ticket)).encode()
        os.pwrite(self._handle, data.ljust(MAX_TICKET_BYTES), 0) if hasattr(os, "pwrite") else (
            _overwrite(self._handle, data.ljust(MAX_TICKET_BYTES))
        )

    def _words(self, found: TicketStanding) -> str:
        other = found.behind
        assert other is not None
        whose = "another nomoat of yours" if other.owner == owner() else "somebody else's nomoat"
        where = f" (process {other.pids[0]})" if other.pids else ""
        does = "has it" if other.running else "comes first"
        return f"its turn at the GPU: {whose}{where} {does}"


def queues_for(device: str) -> tuple[GpuQueue, ...]:
    """Return the tickets of each NVIDIA GPU meant by `device`, in the order in which all draw."""
    which = gpus_of(device) if may_use_gpu(device) else ()
    return tuple(sorted((GpuQueue(gpu) for gpu in which), key=lambda queue: queue.name))


def pids_with_tickets(device: str) -> frozenset[int]:
    """Return the processes that take turns at the GPUs meant by `device`."""
    return frozenset(pid for queue in queues_for(device) for pid in queue.pids())


def owner() -> str:
    """Return who this process belongs to, as it stands on tickets."""
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "")


def _read(file: Path) -> Ticket:
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as opened:
        values: Any = json.loads(opened.read(MAX_TICKET_BYTES + 1))
    matched = _NAME.fullmatch(file.name)
    need = values["need_bytes"]
    if matched is None or not (need is None or isinstance(need, int)):
        raise ValueError("no ticket")
    if need is not None and need < 0:
        raise ValueError("a need below nothing")
    user = str(os.stat(file).st_uid) if hasattr(os, "getuid") else str(values["owner"])[:64]
    pids = tuple(int(pid) for pid in values["pids"][:8] if _is_of(int(pid), user))
    return Ticket(int(matched[1]), user, pids, need, values["running"] is True)


def _is_of(pid: int, user: str) -> bool:
    """Tell whether a process may stand on a ticket of `user`: it is theirs, or out of our sight."""
    try:
        return str(os.stat(f"/proc/{pid}").st_uid) == user
    except OSError:
        return True


def _make(folder: Path) -> None:
    """Make a folder that every user may add files to, and nobody remove others' from."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise NotADirectoryError(f"{folder} is no folder")


def _overwrite(handle: int, data: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, data)


def _uuid(which: int | str) -> str:
    with contextlib.suppress(Exception):  # without a driver its number must do
        nvml, device = opened(which)
        return str(nvml.nvmlDeviceGetUUID(device))
    return f"gpu-{which}"
