"""The coordinator's collectors of R3 and R4: the survivors' word, and the masks (§14, §15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nomoat.aggregation.secagg import certificate, coverage, labels
from nomoat.aggregation.secagg.audit.evidence import (
    Evidence,
    SessionPart,
    SketchEvidence,
    SummedTensor,
)
from nomoat.aggregation.secagg.audit.terms import point_of
from nomoat.aggregation.secagg.masks import shamir, shares, unmasking
from nomoat.aggregation.secagg.masks.masking import MaskedSum, MaskKeys, self_mask_key
from nomoat.aggregation.secagg.messages import (
    RevealReport,
    SharesReport,
    SurvivorSet,
    SurvivorSignature,
)
from nomoat.aggregation.secagg.server.claims import SketchClaims, false_sketches
from nomoat.aggregation.secagg.server.collector import (
    BadSecret,
    Collector,
    Outgoing,
    ServerPhase,
    TooFew,
)
from nomoat.aggregation.secagg.server.formed_session import FormedSession, box_between
from nomoat.aggregation.secagg.transcript import to_bitmap
from nomoat.aggregation.sums.fixed_point import SummedMean, decode


@dataclass(frozen=True)
class Progress:
    """After R2: U2, U3 and the masked sum."""

    session: FormedSession
    dealt: Mapping[int, SharesReport]
    members: frozenset[int]  # U2
    survivors: frozenset[int]  # U3
    total: MaskedSum
    claims: Mapping[int, SketchClaims] = field(default_factory=dict)  # of an audit

    @property
    def statement(self) -> certificate.Statement:
        """The statement that survivors sign."""
        count = len(self.session.members)
        sets = (to_bitmap(self.members, count), to_bitmap(self.survivors, count))
        return certificate.Statement(self.session.transcript, *sets)

    def can_go_on_with(self, survivors: frozenset[int]) -> bool:
        """Return True if these are enough for every volunteer of theirs to sign for (§14.2)."""
        session = self.session
        if len(survivors) < max(session.needed.survivors, session.needed.quorum):
            return False
        try:
            session.require(self.members, survivors, session.needed.shares)
            session.require(survivors, survivors, session.needed.alive + 1)
        except TooFew:
            return False
        trained = coverage.all_tiers([one.modules for one in session.members])
        summed = [tier for tier in trained if coverage.enough(session.offer, tier, self.members)]
        return all(coverage.enough(session.offer, tier, survivors) for tier in summed)

    def part_about(self, index: int) -> SessionPart:
        """The session in evidence about one member that was audited."""
        session = self.session
        return SessionPart(
            session.offer,
            tuple(SummedTensor(t.name, t.shape) for t in session.layout.manifest.tensors),
            session.roster,
            session.audit_seed,
            self.statement.shared,
            index,
            self.claims[index].report,
        )


def signing_of(progress: Progress) -> tuple[Collector, Outgoing]:
    """R3's collector and what to send, if everything could be recovered without those who left."""
    session, survivors = progress.session, progress.survivors
    session.require(progress.members, survivors, session.needed.shares)
    session.require(survivors, survivors, session.needed.alive + 1)
    following = CollectSignatures(progress)
    return following, dict.fromkeys(following.expected, SurvivorSet(progress.statement.survivors))


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
        self._faults: dict[bytes, str] = {}
        self._proofs: dict[bytes, Evidence] = {}

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

    @property
    def faults(self) -> dict[bytes, str]:
        """Identity → its lie to the audit, of those whose masks have been revealed."""
        return self._faults

    @property
    def proofs(self) -> dict[bytes, Evidence]:
        """Identity → evidence of that lie."""
        return self._proofs

    def close(self) -> tuple[SummedMean, Outgoing]:
        """Recover the masks, take them out of the sum, and decode the mean."""
        progress, session = self._progress, self._progress.session
        if not self.enough:
            raise TooFew("too few volunteers revealed their shares")
        try:
            secrets = self._secrets()
        except unmasking.BadDealer as dealer:
            raise BadSecret(session.members[dealer.index].identity) from None
        if session.audit_seed:
            self._check_claims(secrets)
        total = progress.total.unmask(self._mask_keys(secrets))
        point = point_of(session.offer, len(session.members))
        return decode(total, session.layout, point, len(progress.survivors)), {}

    @property
    def _published(self) -> unmasking.Published:
        progress, session = self._progress, self._progress.session
        commitments = {i: progress.dealt[i].seed_commitment for i in progress.survivors}
        return unmasking.Published(session.transcript, session.members, commitments)

    def _secrets(self) -> dict[int, bytes]:
        """Member of U2 → its self-mask seed if it survived, else its mask private key."""
        published, threshold = self._published, self._progress.session.needed.shares
        found = {}
        for owner, held in self._shares.items():
            survived = owner in self._progress.survivors
            recover = unmasking.recover_seed if survived else unmasking.recover_mask_key
            found[owner] = recover(published, owner, dict(sorted(held.items())[:threshold]))
        return found

    def _mask_keys(self, secrets: Mapping[int, bytes]) -> MaskKeys:
        progress, published = self._progress, self._published
        found = []
        for owner, secret in secrets.items():
            if owner in progress.survivors:
                found.append(unmasking.masks_of_survivor(published, owner, secret))
                continue
            masked = frozenset(progress.session.circle(owner, progress.survivors))
            found.append(unmasking.masks_of_dropout(published, owner, secret, masked))
        add = tuple(key for one in found for key in one.add)
        return MaskKeys(add, tuple(key for one in found for key in one.subtract))

    def _check_claims(self, secrets: Mapping[int, bytes]) -> None:
        """Compare what the audit was told with the masks; TooFew if it is about a survivor."""
        progress, session, published = self._progress, self._progress.session, self._published
        own: dict[int, bytes] = {}
        pairs: dict[tuple[int, int], bytes] = {}
        for owner, secret in secrets.items():
            if owner in progress.survivors:
                own[owner] = self_mask_key(secret, session.transcript, owner)
                continue
            circle = session.circle(owner, progress.members)
            pairs |= unmasking.pair_keys(published, owner, secret, frozenset(circle) - {owner})
        liars = false_sketches(session, progress.claims, own, pairs)
        self._faults = {
            session.members[i].identity: "its sketches are not those of its masks"
            for i in sorted(liars)
        }
        self._proofs = {
            session.members[i].identity: self._proof(i, mask, secrets) for i, mask in liars.items()
        }
        if liars.keys() & progress.survivors:
            raise TooFew("a volunteer has lied to the audit")

    def _proof(
        self, index: int, mask: tuple[int, int], secrets: Mapping[int, bytes]
    ) -> SketchEvidence:
        """The evidence that this member's sketch of this mask (owner, other) is not of it."""
        owner, other = mask
        part = self._progress.part_about(index)
        dealt = self._progress.dealt[index] if owner == other else None
        return SketchEvidence(part, owner, other, secrets[owner], dealt)
