"""The survivor certificate: q volunteers signed that these, and no others, are summed (§14, §15).

With q > (|U1| + c)/2 two certificates on different sets would need more than c volunteers to sign
twice, and an honest one signs once: so the coordinator cannot have one volunteer reveal somebody's
self mask while another reveals the same one's pairwise masks. The consistency check of Bonawitz et
al. 2017 (doi:10.1145/3133956.3133982), with a quorum instead of everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nomoat.aggregation.protocol import signing
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.messages import Certificate
from nomoat.aggregation.secagg.transcript import BadSet, from_bitmap, to_bitmap


class BadCertificate(Exception):
    """Not a quorum of valid signatures on this survivor set."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement that is signed: in `transcript`, of those in U2 (`shared`), U3 is summed."""

    transcript: bytes
    shared: bytes  # bitmap of U2
    survivors: bytes  # bitmap of U3


def sign(identity: signing.SigningKey, statement: Statement) -> bytes:
    """One volunteer's signature (64 bytes)."""
    return identity.sign(labels.SIGN_SURVIVORS, *_parts(statement))


def verify_one(public: bytes, signature: bytes, statement: Statement) -> None:
    """Raise BadCertificate unless `signature` is `public`'s on `statement`."""
    try:
        signing.verify(public, signature, labels.SIGN_SURVIVORS, *_parts(statement))
    except signing.BadSignature:
        raise BadCertificate("holds a signature that is not valid") from None


def assemble(signatures: Mapping[int, bytes], participants: int) -> Certificate:
    """Signatures by index → the certificate."""
    ordered = b"".join(signatures[index] for index in sorted(signatures))
    return Certificate(to_bitmap(signatures, participants), ordered)


def verify(
    certificate: Certificate, statement: Statement, identities: Sequence[bytes], quorum: int
) -> None:
    """Return if at least `quorum` survivors signed `statement`; else raise BadCertificate.

    identities: the session's public keys by index. Every signature that is there must be valid.
    """
    try:
        signers = from_bitmap(certificate.signers, len(identities))
        survivors = from_bitmap(statement.survivors, len(identities))
    except BadSet as problem:
        raise BadCertificate(f"its list of signers {problem}") from None
    if len(certificate.signatures) != signing.SIGNATURE_BYTES * len(signers):
        raise BadCertificate("has not one signature per signer")
    if not signers <= survivors:
        raise BadCertificate("is signed by someone who is not among the survivors")
    if len(signers) < quorum:
        raise BadCertificate(f"has {len(signers)} signatures of the {quorum} needed")
    for position, index in enumerate(sorted(signers)):
        start = position * signing.SIGNATURE_BYTES
        one = certificate.signatures[start : start + signing.SIGNATURE_BYTES]
        verify_one(identities[index], one, statement)


def _parts(statement: Statement) -> tuple[bytes, bytes, bytes]:
    return statement.transcript, statement.shared, statement.survivors
