"""An invitation: signed claims in a nomoat:// link, checked by both sides (docs/protocol.md §5).

The link pins what a volunteer may trust before it has spoken to anyone: address, fingerprint of
the community's certificate authority and its public key. The community's signature over the claims
keeps anyone from inventing one; how often it was used is the coordinator's to count.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Digest, PublicKey, Signature, UnixTime
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify

SECTION = "§5"
LABEL = "invitation"
SCHEME = "nomoat://"
PATH = "join/"
MAX_LINK = 4096
WHOLE = "copy it whole, in single quotes"


@dataclass(frozen=True, slots=True)
class Claims:
    """The content of an invitation. address: host:port.

    certificate: SHA-256 of the authority's, DER.
    """

    address: Annotated[str, wire.Limit(3, 260)]
    certificate: Digest
    community: PublicKey
    identifier: Annotated[bytes, wire.Limit(16, 16)]
    uses: Annotated[int, wire.Limit(1, 1_000_000)]
    expires: UnixTime


@wire.message("invitation")
@dataclass(frozen=True, slots=True)
class Invitation:
    """Claims under the community's signature."""

    claims: Claims
    signature: Signature

    def token(self) -> bytes:
        """Return what a volunteer presents when it enrols."""
        return wire.encode(self).head

    def link(self) -> str:
        """The whole invitation as one line to paste or scan."""
        return SCHEME + PATH + base64.urlsafe_b64encode(self.token()).decode().rstrip("=")


def issue(claims: Claims, key: SigningKey) -> Invitation:
    """Sign an invitation."""
    return Invitation(claims, key.sign(LABEL, _claim_bytes(claims)))


def from_link(link: str) -> Invitation:
    """The invitation in a link, its signature checked against the key it names.

    Raises RemoteProtocolError if it is no nomoat link, is cut short, or was altered.
    """
    text = link.strip()
    if not text.startswith(SCHEME + PATH) or len(text) > MAX_LINK:
        raise RemoteProtocolError("invitation", SECTION, f"is no link {SCHEME}{PATH}…; {WHOLE}")
    try:
        encoded = text.removeprefix(SCHEME + PATH).rstrip("/=")
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        wire.decode(wire.Packet(token), Invitation, "invitation")
    except (binascii.Error, ValueError, RemoteProtocolError):
        raise RemoteProtocolError(
            "invitation", SECTION, f"is cut short or mistyped; {WHOLE}"
        ) from None
    return from_token(token)


def from_token(token: bytes, community: bytes | None = None) -> Invitation:
    """The invitation in a token, signed by `community` (or by the community it names)."""
    invitation = wire.decode(wire.Packet(token), Invitation, "invitation")
    claims = invitation.claims
    if community is not None and claims.community != community:
        raise RemoteProtocolError("invitation", SECTION, "is for another community")
    try:
        verify(claims.community, invitation.signature, LABEL, _claim_bytes(claims))
    except BadSignature:
        raise RemoteProtocolError("invitation", SECTION, "is forged or was altered") from None
    return invitation


def _claim_bytes(claims: Claims) -> bytes:
    return wire.encode(Invitation(claims, bytes(64))).head
