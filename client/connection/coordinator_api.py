"""Joining a community: from a link to a verified membership.

Nothing is believed before it is checked: what the community says of itself against the key in the
link, the authority in it against the link, the certificate of every further connection against that
authority, the answer to the enrolment and every roster entry against that key. Keys are proven to
each other in both directions (aggregation/protocol/enrolment.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import Incompatible, NomoatError, Refused, RemoteProtocolError
from nomoat.aggregation.protocol import lineage, roster, wire
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.community.spoken import OURS, SpokenVersions, newer_release
from nomoat.aggregation.protocol.enrolment import (
    PROOF_HEADER,
    CommunityInfo,
    Enrol,
    Enrolled,
    Standing,
    bind,
    check_answer,
    check_info,
    enrolling,
    prove,
)
from nomoat.aggregation.protocol.history import restoration
from nomoat.aggregation.protocol.history.appeal import Appeal
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.restoration import Restoration, Restorations
from nomoat.aggregation.protocol.invitation import Invitation
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.receipts import PAGE, Receipts, SignedReceipt
from nomoat.aggregation.protocol.receipts import check as check_receipt
from nomoat.aggregation.protocol.roster import Roster, SignedEntry
from nomoat.aggregation.protocol.round_end import Lineage, LineagePage, extend
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.terms.privacy_terms import PrivacyTerms
from nomoat.aggregation.protocol.terms.privacy_terms import check as check_privacy
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.protocol.work_terms import WorkTerms
from nomoat.aggregation.protocol.work_terms import check as check_work
from nomoat.aggregation.secagg.audit.evidence import digest_of
from nomoat.client.connection.https import (
    Endpoint,
    NotServed,
    UntrustedCertificate,
    call,
    fingerprint,
)
from nomoat.client.connection.succession.followed_keys import FollowedKeys
from nomoat.flower.headers import MAX_SKEW_S

MAX_ADAPTER_BYTES = 2 << 30
RETURNED = 40  # receipts in a request

Checked = TypeVar("Checked")


@dataclass(frozen=True, slots=True)
class CoordinatorClient:
    """A client of one coordinator: its endpoint, our identity, its community's founding key.

    followed: the community's keys, as they change; None if that one alone is believed.
    """

    endpoint: Endpoint
    identity: SigningKey
    community: bytes
    followed: FollowedKeys | None = field(default=None, kw_only=True)

    @property
    def keys(self) -> CommunityKeys:
        """The community's keys as far as they are known."""
        return CommunityKeys(self.community) if self.followed is None else self.followed.keys

    def checked(self, check: Callable[[CommunityKeys], Checked]) -> Checked:
        """Return what `check` does under the keys that are known.

        If it refuses, and the community has changed its key since, it is called again.
        """
        try:
            return check(self.keys)
        except RemoteProtocolError:
            if self.followed is None or not self.followed.follow(self.endpoint):
                raise
        return check(self.keys)

    def described(self) -> CommunityInfo:
        """The community as it describes itself now, checked (`look`)."""
        now = int(time.time())
        return self.checked(lambda keys: look(self.endpoint, keys.current, now))

    def get(self, target: str, now: int, limit: int) -> bytes:
        """GET `target` with proof of our identity."""
        headers = self._proof("GET", target, now)
        return call(self.endpoint, "GET", target, headers=headers, limit=limit)

    def post(self, target: str, now: int, body: bytes = b"") -> bytes:
        """POST to `target` with proof of our identity."""
        headers = self._proof("POST", target, now)
        return call(self.endpoint, "POST", target, body=body, headers=headers)

    def _proof(self, method: str, target: str, now: int) -> dict[str, str]:
        return {PROOF_HEADER: prove(self.identity, self.community, f"{method} {target}", now)}


def endpoint_of(invitation: Invitation) -> Endpoint:
    """The endpoint an invitation leads to, with the fingerprint of its authority."""
    claims = invitation.claims
    return Endpoint.at(claims.address, fingerprint=claims.certificate)


def look(endpoint: Endpoint, community: bytes, now: int) -> CommunityInfo:
    """Ask a community to describe itself, and check that against its key; nothing of ours is sent.

    An endpoint with a fingerprint alone is asked twice: whoever sits in between can pass on the
    signed answer to the first, which names the authority, but not hold the certificate that the
    second needs.

    Raises Incompatible with whoever must upgrade, NomoatError if this machine's clock is off.
    """
    info = _said(endpoint, community)
    if endpoint.ca is None:
        info = _said_again(endpoint, info)
    check_protocol(info)
    skew = now - info.now
    if abs(skew) > MAX_SKEW_S:
        where = "ahead of" if skew > 0 else "behind"
        raise NomoatError(
            f"this machine's clock is {abs(skew)} s {where} the coordinator's; set the wrong one "
            "(NTP) first"
        )
    return info


def work_terms(endpoint: Endpoint, community: bytes) -> WorkTerms | None:
    """Fetch what a community asks of a machine, checked against its key; nothing of ours is sent.

    None from a coordinator of a release before there was this.
    """
    try:
        answer = wire.Packet(call(endpoint, "GET", "/terms"))
    except NotServed:
        return None
    return check_work(wire.decode(answer, WorkTerms, COORDINATOR), community)


def privacy_terms(endpoint: Endpoint, community: bytes) -> PrivacyTerms:
    """Fetch what a community learns of single updates, checked against its key.

    From a coordinator of a release before there was this: that it learns nothing of them.
    """
    try:
        answer = wire.Packet(call(endpoint, "GET", "/privacy"))
    except NotServed:
        return PrivacyTerms()
    return check_privacy(wire.decode(answer, PrivacyTerms, COORDINATOR), community)


def _said(endpoint: Endpoint, community: bytes) -> CommunityInfo:
    answer = wire.Packet(call(endpoint, "GET", "/community"))
    return check_info(wire.decode(answer, CommunityInfo, COORDINATOR), community)


def _said_again(endpoint: Endpoint, before: CommunityInfo) -> CommunityInfo:
    """The same through a connection that the authority in the first answer vouches for."""
    another = (
        f"{endpoint.address} shows another certificate than the invitation stands for; ask for a "
        "new invitation, and if that does not help, somebody is between you and the coordinator"
    )
    if fingerprint(before.ca) != endpoint.fingerprint:
        raise Refused(another)
    try:
        return _said(replace(endpoint, ca=before.ca), before.public)
    except UntrustedCertificate as problem:
        raise Refused(f"{another} ({problem})") from None


def check_protocol(info: CommunityInfo, ours: SpokenVersions = OURS) -> None:
    """Raise Incompatible unless the community speaks a version of the protocol that we speak."""
    theirs = SpokenVersions(info.protocol_low, info.protocol_high)
    if ours.common(theirs) is not None:
        return
    older = ours.high < theirs.low
    who = "upgrade this nomoat" if older else f"its coordinator must install {newer_release(ours)}"
    raise Incompatible(f"{info.name} speaks protocol {theirs}, this nomoat {ours}: {who}")


def enrol(
    coordinator: CoordinatorClient,
    name: str,
    node_key: ec.EllipticCurvePrivateKey,
    token: bytes,
    leaving: Callable[[wire.Packet], None] = lambda _packet: None,
) -> tuple[Standing, str]:
    """Enrol under `name` with an invitation's token, or ask where one stands (no token).

    leaving: called with the request before it leaves. Returns the standing and its reason, both
    signed by the community.
    """
    binding = bind(name, coordinator.identity, node_key, coordinator.community)
    request = wire.encode(Enrol(token, binding))
    leaving(request)
    target, now = enrolling(request.head), int(time.time())
    headers = {PROOF_HEADER: prove(coordinator.identity, coordinator.community, target, now)}
    sent = call(coordinator.endpoint, "POST", "/enroll", body=request.head, headers=headers)
    answer = wire.Packet(sent)
    reply = wire.decode(answer, Enrolled, COORDINATOR)
    standing = coordinator.checked(lambda keys: check_answer(reply, request, keys.current))
    return standing, reply.reason


def extend_roster(
    coordinator: CoordinatorClient, known: Roster, now: int
) -> tuple[Roster, tuple[SignedEntry, ...]]:
    """The roster as the coordinator shows it now, and what was added to the one this side holds.

    RemoteProtocolError if it is not an extension: history was rewritten.
    """
    added: list[SignedEntry] = []
    while True:
        data = coordinator.get(f"/roster?after={known.length}", now, 16 << 20)
        page = wire.decode(wire.Packet(data), roster.Page, COORDINATOR)
        known = coordinator.checked(partial(_accepted, known, page))
        added += page.entries
        if known.length >= page.length:
            return known, tuple(added)


def _accepted(known: Roster, page: roster.Page, keys: CommunityKeys) -> Roster:
    return roster.accept_page(replace(known, keys=keys), page)


def check_own_entry(
    known: Roster, coordinator: CoordinatorClient, name: str, node_key: bytes
) -> None:
    """Raise RemoteProtocolError unless the roster holds us under our own two keys."""
    member = known.members.get(name)
    ours = (coordinator.identity.public, node_key)
    if member is None or (member.binding.identity, member.binding.node_key) != ours:
        reason = f"its roster does not hold {name} under this machine's keys"
        raise RemoteProtocolError(COORDINATOR, "§5", reason)


def lineage_since(coordinator: CoordinatorClient, known: Lineage | None, now: int) -> Lineage:
    """The newest version and the last ended round, if they continue what is `known` unbroken."""
    return lineage_and_records(coordinator, known, now)[0]


def lineage_and_records(
    coordinator: CoordinatorClient, known: Lineage | None, now: int
) -> tuple[Lineage, tuple[SignedVersion, ...]]:
    """As `lineage_since`, with the records that were added."""
    record = None if known is None else known.record
    records: tuple[SignedVersion, ...] = ()
    while True:
        after = 0 if record is None else record.version.number + 1
        data = coordinator.get(f"/lineage?after={after}", now, 16 << 20)
        page = wire.decode(wire.Packet(data), LineagePage, COORDINATOR)
        records += page.records
        if len(page.records) < lineage.PAGE:
            whole = LineagePage(records, page.ended)
            return coordinator.checked(partial(extend, known, whole)), records
        record = page.records[-1]


def receipts(
    coordinator: CoordinatorClient, first_round: int, now: int
) -> tuple[SignedReceipt, ...]:
    """Our receipts from `first_round` on, each checked; RemoteProtocolError if one is not ours."""
    found: list[SignedReceipt] = []
    while True:
        data = coordinator.get(f"/receipts?after={first_round}", now, 16 << 20)
        page = wire.decode(wire.Packet(data), Receipts, COORDINATOR).receipts
        for signed in page:
            coordinator.checked(partial(_own, signed, coordinator.identity.public))
        found += page
        if len(page) < PAGE or page[-1].receipt.round <= first_round:
            return tuple(found)
        first_round = page[-1].receipt.round


def _own(signed: SignedReceipt, volunteer: bytes, keys: CommunityKeys) -> None:
    check_receipt(signed, keys, volunteer)


def restorations(coordinator: CoordinatorClient, now: int) -> tuple[Restoration, ...]:
    """Every time the community was restored from a backup, as it says; each checked."""
    data = coordinator.get("/restored", now, 16 << 20)
    found = wire.decode(wire.Packet(data), Restorations, COORDINATOR).restorations
    return coordinator.checked(lambda keys: tuple(restoration.check(each, keys) for each in found))


def return_receipts(
    coordinator: CoordinatorClient, given: Sequence[SignedReceipt], now: int
) -> None:
    """Give back receipts that the coordinator has lost."""
    for start in range(0, len(given), RETURNED):
        part = Receipts(tuple(given[start : start + RETURNED]))
        coordinator.post("/receipts", now, wire.encode(part).head)


def download(coordinator: CoordinatorClient, record: SignedVersion, now: int) -> Adapter:
    """The adapter a record names, verified against it."""
    digest = record.version.adapter
    data = coordinator.get(f"/adapter/{digest.hex()}", now, MAX_ADAPTER_BYTES)
    return lineage.from_file(data, digest, COORDINATOR)


def evidence(coordinator: CoordinatorClient, digest: bytes, now: int) -> bytes:
    """The evidence of this name; RemoteProtocolError if it is other bytes."""
    data = coordinator.get(f"/evidence/{digest.hex()}", now, MAX_ADAPTER_BYTES)
    if digest_of(data) != digest:
        raise RemoteProtocolError(COORDINATOR, "§20.9", "its evidence is not what the roster names")
    return data


def appeal(coordinator: CoordinatorClient, text: str, now: int) -> None:
    """Say something to a hold or a ban; Refused if there is neither."""
    coordinator.post("/appeal", now, wire.encode(Appeal(text)).head)


def erase(coordinator: CoordinatorClient, now: int) -> None:
    """Have the coordinator erase what it can of us; we have left then. NotServed if it is older."""
    coordinator.post("/erase", now)


def leave(coordinator: CoordinatorClient, now: int) -> None:
    """Tell the coordinator that we leave; harmless if it has forgotten us."""
    try:
        coordinator.post("/leave", now)
    except Refused:
        return  # already out
