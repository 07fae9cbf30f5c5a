"""The volunteer's side of the seal: opens what its community signed, signs what it answers.

Wraps any ClientApp, so that neither the app nor the round machine knows of seals. What is not
sealed for this volunteer by its community, or was answered before, raises RemoteProtocolError; the
fleet loop turns that into an error that carries nothing but the class's name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from flwr.app import Context, Message

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import envelope
from nomoat.aggregation.protocol.enrolment import community_id
from nomoat.aggregation.protocol.envelope import Direction
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.flower.seals import put_seal, sealed_parts, take_seal

App: TypeAlias = Callable[[Message, Context], Message]

NONCES_KEPT = 4096


@dataclass(frozen=True, slots=True)
class SealParties:
    """The two ends of a seal: a volunteer's identity, its community's key; and the base model.

    community: its founding key. checked: calls what checks a signature with the community's keys,
    and again with further ones if it has changed its key.
    """

    identity: SigningKey
    community: bytes  # Ed25519 public key
    base_hash: bytes
    checked: Callable[[Callable[[CommunityKeys], None]], None] | None = None

    def context(self, direction: Direction, kind: str, nonce: bytes) -> envelope.Context:
        """The context of one message."""
        community, volunteer = community_id(self.community), self.identity.public
        return envelope.Context(community, direction, volunteer, kind, nonce, self.base_hash)


def sealed(app: App, parties: SealParties) -> App:
    """`app`, answering only what the community sealed for this volunteer, each request once."""
    answered: OrderedDict[bytes, None] = OrderedDict()

    def answer(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        nonce = _open(message, parties, kind)
        if nonce in answered:
            raise RemoteProtocolError(COORDINATOR, envelope.SECTION, "asks again (a replay?)")
        reply = app(message, context)
        answered[nonce] = None
        if len(answered) > NONCES_KEPT:
            answered.popitem(last=False)
        if reply.has_content():
            outward = parties.context(Direction.TO_COORDINATOR, kind, nonce)
            put_seal(reply, parties.identity, outward)
        return reply

    return answer


def _open(message: Message, parties: SealParties, kind: str) -> bytes:
    """Check and take off the seal of `message`; its nonce."""
    parts = sealed_parts(message)
    nonce = envelope.nonce_of(parts, COORDINATOR)
    context = parties.context(Direction.TO_VOLUNTEER, kind, nonce)

    def under(keys: CommunityKeys) -> None:
        envelope.open_sealed(parts, keys.current, context, COORDINATOR)

    if parties.checked is None:
        under(CommunityKeys(parties.community))
    else:
        parties.checked(under)
    take_seal(message)
    return nonce
