"""Receipts: what a community signs when an update arrived whole, and a volunteer keeps as credit.

A receipt names the packet by its SHA-256, so it stands for those bytes and no others; its owner can
show it to anyone who knows the community's public key, whatever became of the coordinator
(docs/protocol.md §8). Receipts tell nobody more than the coordinator saw anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Digest, PublicKey, Signature, UnixTime
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify

SECTION = "§8"
LABEL = "receipt"
PAGE = 500


@wire.message("receipt")
@dataclass(frozen=True, slots=True)
class Receipt:
    """The community that began with this key took this volunteer's packet into this round.

    `packet`: packet_digest of what was received. `tokens`: learnt tokens it was credited with.
    """

    community: PublicKey
    volunteer: PublicKey
    round: Annotated[int, wire.Limit(1, 1_000_000)]
    packet: Digest
    tokens: Annotated[int, wire.Limit(0, 2**40)]
    at: UnixTime


@wire.message("receipt.signed")
@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt under the community's signature."""

    receipt: Receipt
    signature: Signature


@wire.message("receipts")
@dataclass(frozen=True, slots=True)
class Receipts:
    """A volunteer's own receipts, oldest round first."""

    receipts: Annotated[tuple[SignedReceipt, ...], wire.Limit(0, PAGE)]


@dataclass(frozen=True, slots=True)
class Credit:
    """The sum of one community's receipts: a round counts once, with its largest receipt."""

    community: bytes
    rounds: int
    tokens: int
    first_at: int
    last_at: int


def packet_digest(packet: wire.Packet) -> bytes:
    """SHA-256 of a packet's head, which holds its body's digest and so stands for both."""
    return hashlib.sha256(packet.head).digest()


def issue(receipt: Receipt, key: SigningKey) -> SignedReceipt:
    """Sign a receipt with the community's key."""
    return SignedReceipt(receipt, key.sign(LABEL, wire.encode(receipt).head))


def check(signed: SignedReceipt, keys: CommunityKeys, volunteer: bytes) -> Receipt:
    """The receipt, if the community signed it for `volunteer`; RemoteProtocolError if not.

    A receipt of somebody else's is refused too: credit cannot be lent by copying a file.
    """
    receipt = signed.receipt
    if receipt.community != keys.founding:
        raise RemoteProtocolError("receipt", SECTION, "is of another community")
    if receipt.volunteer != volunteer:
        raise RemoteProtocolError("receipt", SECTION, "was given to another volunteer")
    for public in keys.of_round(receipt.round):
        with contextlib.suppress(BadSignature):
            verify(public, signed.signature, LABEL, wire.encode(receipt).head)
            return receipt
    raise RemoteProtocolError("receipt", SECTION, "its signature is not valid")


def credits_of(receipts: Iterable[Receipt]) -> tuple[Credit, ...]:
    """Credit per community from checked receipts; copies of a receipt add nothing."""
    best: dict[tuple[bytes, int], Receipt] = {}
    for receipt in receipts:
        key = (receipt.community, receipt.round)
        if key not in best or best[key].tokens < receipt.tokens:
            best[key] = receipt
    communities = sorted({community for community, _ in best})
    return tuple(_sum([r for (c, _), r in best.items() if c == which]) for which in communities)


def _sum(receipts: list[Receipt]) -> Credit:
    times = [receipt.at for receipt in receipts]
    tokens = sum(receipt.tokens for receipt in receipts)
    return Credit(receipts[0].community, len(receipts), tokens, min(times), max(times))
