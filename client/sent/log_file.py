"""The shell of the sent log: one file per community, appended and synced under a lock."""

from __future__ import annotations

import calendar
import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.receipts import Receipt, SignedReceipt
from nomoat.aggregation.protocol.receipts import check as check_receipt
from nomoat.client.sent import log
from nomoat.storage.atomic import appending, held, moving, replacing
from nomoat.storage.names import settle
from nomoat.storage.private import PRIVATE, write_private

LOG_NAME: Final = "sent.jsonl"
HEAD_NAME: Final = "sent.head"
LOCK_NAME: Final = "sent.lock"
RECEIPTS_NAME: Final = "receipts"
ASIDE: Final = "sent.broken-"
ASIDE_TIME: Final = "%Y%m%dT%H%M%SZ"
LOCK_TIMEOUT_S: Final = 30.0
RECENT_BYTES: Final = 2 << 20


class SentLog:
    """The log of what left for one community, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tail: tuple[log.ChainHead, int] | None = None  # our last line, the size after it

    def record(self, entry: log.SentMessage) -> None:
        """Write and sync one line; the caller sends only after this has returned.

        Raises SentLogBroken if the log was tampered with, NomoatError if it cannot be written: in
        both cases nothing may leave.
        """
        with self._locked(), _refusing(self.folder / LOG_NAME):
            head = self._head()
            head, line = log.append(head, entry)
            with appending(self.folder / LOG_NAME) as file:
                file.write(line)
            self._tail = (head, _size(self.folder / LOG_NAME))
            with replacing(self.folder / HEAD_NAME, PRIVATE, lasting=False) as file:
                file.write(f"{head.length} {head.hash.hex()}\n".encode())

    def check(self) -> log.VerifiedLog:
        """Read and verify the whole log; SentLogBroken names the first bad line."""
        with _refusing(self.folder / LOG_NAME):
            data = self._read()
        return log.check(data, self._expected())

    def recent(self) -> tuple[log.SentMessage, ...]:
        """The last messages of a long log, all of a short one; SentLogBroken if they do not hold.

        A log of ten thousand rounds takes seconds to read whole.
        """
        if _size(self.folder / LOG_NAME) <= RECENT_BYTES:
            return self.check().entries
        with _refusing(self.folder / LOG_NAME), (self.folder / LOG_NAME).open("rb") as file:
            file.seek(-RECENT_BYTES, os.SEEK_END)
            data = file.read()
        try:
            return log.check_end(data, self._expected()).entries
        except log.SentLogBroken:  # or its last line is longer: read whole, it names the line
            return self.check().entries

    def start_over(self, now: float) -> Path:
        """Move a broken log aside, whole, and begin a new one; where the old one is now.

        now: unix time; if this clock is behind the receipts, the newest of those counts.
        """
        now = max(now, *(1.0 + signed.receipt.at for signed in self.signed_receipts()), 0.0)
        with self._locked(), _refusing(self.folder / LOG_NAME):
            aside = self.folder / f"{ASIDE}{time.strftime(ASIDE_TIME, time.gmtime(now))}"
            if aside.exists():
                raise NomoatError(f"{aside} is there already; wait a second and try again")
            if not (self.folder / LOG_NAME).exists():  # deleted whole: then that is put aside
                write_private(self.folder / LOG_NAME, b"")
            # First: a kill in between leaves a log without a head, not a head without a log.
            (self.folder / HEAD_NAME).unlink(missing_ok=True)
            settle(self.folder)
            moving(self.folder / LOG_NAME, aside)
            self._tail = None
        return aside

    def began(self) -> float:
        """The time the last broken log was put aside, seconds since 1970; 0 if none was."""
        names = (path.name.removeprefix(ASIDE) for path in self.folder.glob(f"{ASIDE}*"))
        times = [calendar.timegm(time.strptime(name, ASIDE_TIME)) for name in names]
        return float(max(times, default=0))

    def keep(self, signed: SignedReceipt) -> None:
        """Keep a receipt that was checked, under its packet's digest: one file, written whole."""
        path, data = self.folder / RECEIPTS_NAME / signed.receipt.packet.hex(), wire.encode(signed)
        with contextlib.suppress(OSError):
            if path.read_bytes() == data.head:
                return
        write_private(path, data.head)

    def newest_receipt(self, keys: CommunityKeys, volunteer: bytes) -> int:
        """The last round there is a receipt for, 0 without any."""
        valid, _ = self.receipts(keys, volunteer)
        return max((receipt.round for receipt in valid), default=0)

    def signed_receipts(self) -> list[SignedReceipt]:
        """The receipts as they were given, unchecked; files that are none are passed over."""
        found, folder = [], self.folder / RECEIPTS_NAME
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
            with contextlib.suppress(OSError, RemoteProtocolError):
                packet = wire.Packet(path.read_bytes())
                found.append(wire.decode(packet, SignedReceipt, path.name[:12]))
        return found

    def receipts(self, keys: CommunityKeys, volunteer: bytes) -> tuple[list[Receipt], list[str]]:
        """(valid receipts, one line for each file that is none)."""
        valid, problems = [], []
        folder = self.folder / RECEIPTS_NAME
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith("."):
                continue  # a write that never finished
            try:
                packet = wire.Packet(path.read_bytes())
                signed = wire.decode(packet, SignedReceipt, f"receipt {path.name[:12]}")
                valid.append(check_receipt(signed, keys, volunteer))
            except (OSError, RemoteProtocolError) as problem:
                problems.append(f"{path}: {problem}")
        return valid, problems

    def _head(self) -> log.ChainHead:
        """The present head: remembered if the file is as we left it, else from a full check."""
        size = _size(self.folder / LOG_NAME)
        if self._tail is not None and self._tail[1] == size:
            return self._tail[0]
        checked = self.check()
        if checked.torn:  # a crash in the middle of a line; its message never left
            with (self.folder / LOG_NAME).open("r+b") as file:
                file.truncate(size - len(checked.torn))
        return checked.head

    def _expected(self) -> log.ChainHead | None:
        try:
            told = (self.folder / HEAD_NAME).read_text("ascii").strip("\0")
            if not told:  # not synced, as the log is: a power cut leaves one of before, or none
                return None
            length, digest = told.split()
            return log.ChainHead(int(length), bytes.fromhex(digest))
        except FileNotFoundError:
            return None
        except (ValueError, OSError):
            raise log.SentLogBroken(1, f"{HEAD_NAME} beside it is damaged") from None

    def _read(self) -> bytes:
        try:
            return (self.folder / LOG_NAME).read_bytes()
        except FileNotFoundError:
            return b""

    def _locked(self) -> AbstractContextManager[None]:
        lock = self.folder / LOCK_NAME
        taken = f"another nomoat has held {lock} for {LOCK_TIMEOUT_S:.0f} s; end it"
        return held(lock, taken, LOCK_TIMEOUT_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise NomoatError(f"cannot use {path}: {problem.strerror or problem}") from problem
