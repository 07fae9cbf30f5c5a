"""The ledger of all that left this machine: filtered, and checked against receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.receipts import Receipt, credits_of
from nomoat.client.cli.sent_page import tensors
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.identity.keys import load_identity
from nomoat.client.sent.log import Reconciled, SentMessage, VerifiedLog, reconcile
from nomoat.client.sent.log_file import SentLog

MOST_ROWS = 200
MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "enrol": "your name here and public keys, to join or to ask whether you may",
        "ready": "trained; how long it took, its losses",
        "report": "your update",
        "evaluation": "the loss on the rows you hold out",
        "decline": "a no, and which",
        "noted": "received",
        "error": "that a message was refused",
        "sa.keys": "keys for this sum alone",
        "sa.shares": "sealed shares of this sum's keys, for the others",
        "sa.check": "whose shares were no good",
        "sa.masked": "your update, masked",
        "sa.sketch": "sketches of the masks, for the audit of sizes",
        "sa.signed": "your signature on who is in the sum",
        "sa.reveal": "shares that take the masks off the sum",
    }
)


@dataclass(frozen=True)
class LedgerFilter:
    """A search: for a kind of message, for a round; empty stands for all."""

    message: str = ""
    round: str = ""

    def admits(self, entry: SentMessage) -> bool:
        """Return True if this line is looked for."""
        same_round = not self.round or str(entry.round) == self.round.strip()
        return same_round and self.message in ("", entry.message)


@dataclass(frozen=True)
class LedgerRow:
    """One message that left. meaning: its kind in words. content: its tensors in words.

    receipt: the community signed one.
    """

    at: float
    round: int
    message: str
    meaning: str
    to: str
    bytes: int
    content: str
    norm: float | None
    protection: str
    receipt: bool
    packet: str


@dataclass(frozen=True)
class LedgerView:
    """A log and what its check came to. kinds: of messages, each with its meaning.

    found: of `count`; rows: the last of those found.

    good: the chain is whole and no receipt names what is not in it. lines: the check in words.
    """

    wanted: LedgerFilter
    kinds: tuple[tuple[str, str], ...]
    count: int
    bytes: int
    found: int
    rows: tuple[LedgerRow, ...]
    good: bool
    lines: tuple[str, ...]
    rounds_credited: int
    tokens_credited: int
    credit_span: tuple[float, float] | None


def ledger(home: Home, folder: CommunityFolder, wanted: LedgerFilter) -> LedgerView:
    """Read and check one community's log; a log that is broken is a view that says so."""
    log = SentLog(folder.root)
    receipts, problems = log.receipts(folder.keys(), load_identity(home.identity).public)
    try:
        checked = log.check()
    except NomoatError as problem:
        return _broken(wanted, str(problem), receipts)
    kept = [receipt for receipt in receipts if receipt.at >= log.began()]
    found = reconcile(checked.entries, kept)
    entries = [entry for entry in checked.entries if wanted.admits(entry)]
    packets = {receipt.packet.hex() for receipt in receipts}
    credit = credits_of(receipts)
    return LedgerView(
        wanted,
        _kinds(checked.entries),
        len(checked.entries),
        sum(entry.bytes for entry in checked.entries),
        len(entries),
        tuple(_row(entry, packets) for entry in reversed(entries[-MOST_ROWS:])),
        not problems and not found.unlogged,
        _lines(checked, found, problems),
        sum(each.rounds for each in credit),
        sum(each.tokens for each in credit),
        (credit[0].first_at, credit[0].last_at) if credit else None,
    )


def _kinds(entries: Sequence[SentMessage]) -> tuple[tuple[str, str], ...]:
    """Each kind of message in the log, and what it is called."""
    return tuple((kind, MEANINGS.get(kind, kind)) for kind in sorted({e.message for e in entries}))


def _broken(wanted: LedgerFilter, problem: str, receipts: Sequence[Receipt]) -> LedgerView:
    credit = credits_of(receipts)
    rounds, tokens = sum(c.rounds for c in credit), sum(c.tokens for c in credit)
    return LedgerView(wanted, (), 0, 0, 0, (), False, (problem,), rounds, tokens, None)


def _row(entry: SentMessage, packets: set[str]) -> LedgerRow:
    return LedgerRow(
        entry.at,
        entry.round,
        entry.message,
        MEANINGS.get(entry.message, ""),
        entry.to,
        entry.bytes,
        tensors(entry.tensors) if entry.tensors else "",
        entry.norm,
        _protection(entry),
        entry.packet in packets,
        entry.packet,
    )


def _protection(entry: SentMessage) -> str:
    if entry.masked:
        return f"masked, one of {entry.session_size}" if entry.session_size else "masked"
    return "NOT masked" if entry.tensors else ""


def _lines(checked: VerifiedLog, found: Reconciled, problems: Sequence[str]) -> tuple[str, ...]:
    lines = [f"The chain of {checked.head.length} messages is whole."]
    if checked.torn:
        lines.append("A last line was never finished: its message did not leave.")
    lines.append(f"{found.receipted} updates have the community's signed receipt.")
    if found.unreceipted:
        lines.append(f"{len(found.unreceipted)} have none: the coordinator did not use them.")
    lines += [f"Not a valid receipt: {problem}" for problem in problems]
    lines += [
        f"Round {receipt.round}: a receipt for a packet that is not in the log; it lost its end, "
        "or something left unseen."
        for receipt in found.unlogged
    ]
    return tuple(lines)
