"""The log of everything that left this machine: one line of JSON per message, chained by hash.

hash_i = SHA-256("nomoat sent v1" ‖ 0 ‖ hash_{i−1} ‖ line_i without its hash). A line is written and
synced before its message leaves, so nothing leaves unseen; a message that then could not be sent is
in the log all the same. Edited, reordered and removed lines break the chain. A removed end is seen
by the head kept beside the file; where somebody rewrote that as well, by the community's receipts,
which are asked for again and name each packet that is in a sum. The chain has no key: whoever may
write this machine's files can write it anew without the lines that have no receipt (an evaluation,
an update that was not used), and nobody sees it. Pure: log_file.py reads and writes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from nomoat.aggregation.errors import LocalProtocolError, NomoatError
from nomoat.aggregation.protocol.adapter import Manifest
from nomoat.aggregation.protocol.receipts import Receipt

DOMAIN: Final = b"nomoat sent v1\0"
MAX_LINE_BYTES: Final = 16 << 20
ENROL: Final = "enrol"  # the message that a membership begins with
GENESIS: Final = hashlib.sha256(DOMAIN).digest()


class SentLogBroken(NomoatError):
    """The log of what left this machine was changed or damaged; the message names the line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(
            f"sent log, line {line}: {reason}; keep the file as evidence and run "
            "nomoat sent --start-over"
        )
        self.line = line


@dataclass(frozen=True, slots=True)
class SentTensor:
    """A tensor's name and shape."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message that leaves. `session_size`: volunteers whose reports are summed with it.

    `norm`: L2 of the update before any mask or noise. `clip`: bound on each of its values. `clip`,
    `epsilon`, `delta`: None where the round has no clipping or no privacy budget. `packet`:
    SHA-256 as in receipts, hex.
    """

    at: float  # seconds since 1970, UTC
    community: str
    to: str
    message: str
    round: int
    bytes: int
    packet: str
    masked: bool = False
    tensors: tuple[SentTensor, ...] = ()
    norm: float | None = None
    clip: float | None = None
    session_size: int | None = None
    epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of a chain: its `length` in lines, the last one's hash."""

    length: int = 0
    hash: bytes = GENESIS


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """A verified log. `torn`: bytes of an unfinished last line, whose message never left."""

    entries: tuple[SentMessage, ...]
    head: ChainHead
    torn: bytes = b""


def tensors_of(manifest: Manifest) -> tuple[SentTensor, ...]:
    """The names and shapes of a flat vector's tensors."""
    return tuple(SentTensor(tensor.name, tensor.shape) for tensor in manifest.tensors)


def append(head: ChainHead, entry: SentMessage) -> tuple[ChainHead, bytes]:
    """(new head, line to write) for `entry`; LocalProtocolError for NaN and infinities."""
    body = _body(head.length, entry)
    link = _link(head.hash, body)
    line = body[:-1] + b',"hash":"' + link.hex().encode() + b'"}\n'
    if len(line) > MAX_LINE_BYTES:
        raise LocalProtocolError(f"a log line of {len(line)} bytes is too long")
    return ChainHead(head.length + 1, link), line


def check(data: bytes, expected: ChainHead | None = None) -> VerifiedLog:
    """Verify a whole log, or raise SentLogBroken naming the first bad line (from 1).

    `expected`: the head kept beside the file; a log that ends before it was cut.
    """
    *lines, torn = data.split(b"\n")
    head, entries, passed = ChainHead(), [], expected is None or expected.length == 0
    for number, line in enumerate(lines, 1):
        entry, head = _follow(head, line, number)
        entries.append(entry)
        passed = passed or (expected is not None and head == expected)
    if not passed and expected is not None:
        if head.length < expected.length:
            missing = expected.length - head.length
            raise SentLogBroken(head.length + 1, f"{missing} lines at the end are gone")
        raise SentLogBroken(expected.length, "the log is not the one this machine wrote")
    return VerifiedLog(tuple(entries), head, torn)


def check_end(data: bytes, expected: ChainHead | None = None) -> VerifiedLog:
    """Verify the end of a long log as `check` does the whole; its first line, cut or not, is left.

    What is before it is taken as it is: the next line names its hash.
    """
    _, *lines = data.split(b"\n")
    try:
        first = json.loads(lines[0])
        head = ChainHead(int(first["index"]) + 1, bytes.fromhex(first["hash"]))
    except (ValueError, TypeError, LookupError, RecursionError):
        raise SentLogBroken(0, "its end is damaged") from None
    entries, passed = [], expected is None or expected.length <= head.length
    for line in lines[1:-1]:
        entry, head = _follow(head, line, head.length + 1)
        entries.append(entry)
        passed = passed or head == expected
    if not passed:
        raise SentLogBroken(head.length + 1, "the log is not the one this machine wrote")
    return VerifiedLog(tuple(entries), head, lines[-1])


def _follow(head: ChainHead, line: bytes, number: int) -> tuple[SentMessage, ChainHead]:
    """Decode one line and check that it continues the chain in exactly the bytes we would write."""
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError("too long")
        values = json.loads(line)
        link = bytes.fromhex(values.pop("hash"))
        index = values.pop("index")
        entry = _entry(values)
        after, ours = append(head, entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, LocalProtocolError):
        raise SentLogBroken(number, "it is damaged") from None
    if index != head.length or link != after.hash or ours != line + b"\n":
        raise SentLogBroken(number, "it was changed, or a line before it was removed")
    return entry, after


def _body(index: int, entry: SentMessage) -> bytes:
    values: dict[str, Any] = {"index": index}
    for field in fields(entry):
        value = getattr(entry, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise LocalProtocolError(f"{field.name} of a log line is {value}")
        values[field.name] = value
    values["tensors"] = [[tensor.name, list(tensor.shape)] for tensor in entry.tensors]
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode("ascii")


def _entry(values: dict[str, Any]) -> SentMessage:
    tensors = tuple(SentTensor(name, tuple(shape)) for name, shape in values.pop("tensors"))
    return SentMessage(tensors=tensors, **values)


def _link(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(DOMAIN + previous + body).digest()


def masked_by_round(
    entries: Iterable[SentMessage], receipts: Iterable[Receipt] = ()
) -> dict[int, int]:
    """Round → how many masked updates have left in it, by the log or by receipts for more."""
    logged = Counter(entry.round for entry in entries if entry.masked)
    received = Counter(receipt.round for receipt in receipts)
    return {number: max(logged[number], received[number]) for number in logged | received}


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Log and receipts side by side: `unreceipted` messages, `unlogged` receipts."""

    receipted: int
    unreceipted: tuple[SentMessage, ...]
    unlogged: tuple[Receipt, ...]


def enrolled_at(entries: Sequence[SentMessage]) -> float:
    """Return the time of the enrolment a log begins with, seconds since 1970; 0 if none does.

    Whoever leaves takes the log along, and begins a new one on coming back.
    """
    return entries[0].at if entries and entries[0].message == ENROL else 0.0


def answered_for(
    entries: Sequence[SentMessage], receipts: Iterable[Receipt], since: float
) -> list[Receipt]:
    """Return the receipts that a log answers for: of what is in it, and all others from `since` on.

    since: unix time by the community's clock, which dates receipts; this machine's may differ.
    """
    logged = {entry.packet for entry in entries}
    return [r for r in receipts if r.at >= since or r.packet.hex() in logged]


def reconcile(entries: Sequence[SentMessage], receipts: Iterable[Receipt]) -> Reconciled:
    """Compare reports that left with the community's receipts, packet by packet.

    A receipt for a packet that is not in the log means that something left unseen, or that the log
    lost its end. Reports without one are those the coordinator did not use.
    """
    held = {receipt.packet.hex(): receipt for receipt in receipts}
    logged = {entry.packet for entry in entries}
    reports = [entry for entry in entries if entry.tensors or entry.masked]
    return Reconciled(
        receipted=sum(entry.packet in held for entry in reports),
        unreceipted=tuple(entry for entry in reports if entry.packet not in held),
        unlogged=tuple(receipt for packet, receipt in held.items() if packet not in logged),
    )
