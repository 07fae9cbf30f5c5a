"""The coordinator's collectors from R2 on: the masked sum, the survivors' word, and the masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import certificate, labels
from nomoat.aggregation.secagg.masks import shamir, shares, unmasking
from nomoat.aggregation.secagg.masks.masking import MaskedSum, MaskKeys
from nomoat.aggregation.secagg.messages import (
    MaskedReport,
    RevealReport,
    SharesReport,
    SurvivorSet,
    SurvivorSignature,
)
from nomoat.aggregation.secagg.server.collector import (
    BadSecret,
    Collector,
    Outgoing,
    ServerPhase,
    TooFew,
)
from nomoat.aggregation.secagg.server.formed_session import FormedSession, box_between
from nomoat.aggregation.secagg.transcript import to_bitmap
from nomoat.aggregation.sums.fixed_point import FixedPoint, SummedMean, decode


class CollectMasked(Collector):
    """R2 (§13)."""

    phase = ServerPhase.MASKED
    accepts = MaskedReport

    def __init__(
        self, session: FormedSession, dealt: Mapping[int, SharesReport], members: frozenset[int]
    ) -> None:
        self.expected = session.identities(members)
        self._session, self._dealt, self._members = session, dealt, members
        self._bitmap = to_bitmap(members, len(session.members))
        point = FixedPoint(session.offer.value_bits, len(session.members))
        self._sum = MaskedSum(session.layout.length, point)
        self._added: set[int] = set()

    def take(self, sender: bytes, report: MaskedReport) -> None:
        """Add one masked vector to the sum, if it is signed and whole."""
        session, index = self._session, self._session.index_of[sender]
        try:
            self._sum.check(report.masked)
        except LocalProtocolError as problem:
            raise session.bad(index, "§13.3", str(problem)) from None
        digest = hashlib.sha256(report.masked).digest()
        signed = (self._bitmap, digest)
        session.check_signed(index, report.signature, labels.SIGN_MASKED, *signed)
        self._sum.add(report.masked)
        self._added.add(index)

    def close(self) -> tuple[Collector, Outgoing]:
        """U3: whose vectors are in the sum."""
        session = self._session
        if len(self._added) < session.needed.survivors:
            raise TooFew("too few volunteers sent a masked update")
        session.require(self._members, self._added, session.needed.shares)
        session.require(self._added, self._added, session.needed.alive + 1)
        progress = Progress(session, self._dealt, self._members, frozenset(self._added), self._sum)
        following = CollectSignatures(progress)
        proposal = SurvivorSet(progress.statement.survivors)
        return following, dict.fromkeys(following.expected, proposal)


@dataclass(frozen=True)
class Progress:
    """After R2: U2, U3 and the masked sum."""

    session: FormedSession
    dealt: Mapping[int, SharesReport]
    members: frozenset[int]  # U2
    survivors: frozenset[int]  # U3
    total: MaskedSum

    @property
    def statement(self) -> certificate.Statement:
        """The statement that survivors sign."""
        count = len(self.session.members)
        sets = (to_bitmap(self.members, count), to_bitmap(self.survivors, count))
        return certificate.Statement(self.session.transcript, *sets)


class CollectSignatures(Collector):
    """R3 (§14)."""

    phase = ServerPhase.SIGNATURES
    accepts = SurvivorSignature

    def __init__(self, progress: Progress) -> None:
        self.expected = progress.session.identities(progress.survivors)
        self._progress = progress
        self._signatures: dict[int, bytes] = {}

    def take(self, sender: bytes, report: SurvivorSignature) -> None:
        """Keep one survivor's signature."""
        session, index = self._progress.session, self._progress.session.index_of[sender]
        try:
            certificate.verify_one(sender, report.signature, self._progress.statement)
        except certificate.BadCertificate:
            raise session.bad(index, "§14.3", "its signature is not valid") from None
        self._signatures[index] = report.signature

    def close(self) -> tuple[Collector, Outgoing]:
        """The certificate, if a quorum signed and everything can be recovered from the signers."""
        session = self._progress.session
        if len(self._signatures) < session.needed.quorum:
            raise TooFew("too few volunteers signed the list of survivors")
        session.require(self._progress.members, self._signatures, session.needed.shares)
        following = CollectReveals(self._progress, frozenset(self._signatures))
        quorum = dict(sorted(self._signatures.items())[: session.needed.quorum])
        certified = certificate.assemble(quorum, len(session.members))
        return following, dict.fromkeys(following.expected, certified)


class CollectReveals(Collector):
    """R4 (§15)."""

    phase = ServerPhase.REVEALS
    accepts = RevealReport

    def __init__(self, progress: Progress, signers: frozenset[int]) -> None:
        self.expected = progress.session.identities(signers)
        self._progress = progress
        # owner → point → share of the one secret that U3 lets be recovered
        self._shares: dict[int, dict[int, bytes]] = {owner: {} for owner in progress.members}

    def take(self, sender: bytes, report: RevealReport) -> None:
        """Keep one volunteer's shares, if every one is the committed one."""
        progress, session = self._progress, self._progress.session
        index = session.index_of[sender]
        owners = session.circle(index, progress.members)
        if len(report.shares) != shamir.SHARE_BYTES * len(owners):
            raise session.bad(index, "§15.3", "it did not reveal one share per neighbour")
        signed = (progress.statement.survivors, report.shares)
        session.check_signed(index, report.signature, labels.SIGN_REVEAL, *signed)
        size = shamir.SHARE_BYTES
        revealed = [report.shares[at : at + size] for at in range(0, len(report.shares), size)]
        for owner, share in zip(owners, revealed, strict=True):
            self._check_share(owner, index, share)
        for owner, share in zip(owners, revealed, strict=True):
            self._shares[owner][shares.point_of(index)] = share

    def _check_share(self, owner: int, holder: int, share: bytes) -> None:
        progress, session = self._progress, self._progress.session
        survived = owner in progress.survivors
        label = labels.COMMIT_SEED_SHARE if survived else labels.COMMIT_KEY_SHARE
        if owner == holder:
            committed = progress.dealt[owner].own_commitment
        else:
            box = box_between(session, progress.dealt, owner, holder)
            committed = shares.commitments_in(box)[0 if survived else 1]
        ends = (owner, holder)
        if shares.commit_share(label, session.transcript, ends, share) != committed:
            dealer = session.names[session.members[owner].identity]
            raise session.bad(holder, "§15.4", f"it revealed a wrong share of {dealer}'s")

    @property
    def enough(self) -> bool:
        """True if every secret that is needed can be recovered."""
        threshold = self._progress.session.needed.shares
        return all(len(found) >= threshold for found in self._shares.values())

    def close(self) -> tuple[SummedMean, Outgoing]:
        """Recover the masks, take them out of the sum, and decode the mean."""
        progress, session = self._progress, self._progress.session
        if not self.enough:
            raise TooFew("too few volunteers revealed their shares")
        try:
            total = progress.total.unmask(self._mask_keys())
        except unmasking.BadDealer as dealer:
            raise BadSecret(session.members[dealer.index].identity) from None
        point = FixedPoint(session.offer.value_bits, len(session.members))
        return decode(total, session.layout, point, len(progress.survivors)), {}

    def _mask_keys(self) -> MaskKeys:
        progress, session = self._progress, self._progress.session
        commitments = {i: progress.dealt[i].seed_commitment for i in progress.survivors}
        published = unmasking.Published(session.transcript, session.members, commitments)
        found = []
        for owner, held in self._shares.items():
            enough = dict(sorted(held.items())[: session.needed.shares])
            if owner in progress.survivors:
                seed = unmasking.recover_seed(published, owner, enough)
                found.append(unmasking.masks_of_survivor(published, owner, seed))
                continue
            private = unmasking.recover_mask_key(published, owner, enough)
            masked = frozenset(session.circle(owner, progress.survivors))
            found.append(unmasking.masks_of_dropout(published, owner, private, masked))
        add = tuple(key for one in found for key in one.add)
        return MaskKeys(add, tuple(key for one in found for key in one.subtract))
