"""The volunteer's machine: one object per session, one message in, at most one message out.

Theory. Neighbours i and j agree on a key (X25519); i adds the keystream of that key to its vector
and j subtracts it, so that these pairwise masks cancel in the sum of all. Each adds a self mask,
too. The secrets behind both are Shamir-shared among its neighbours, t of whom can restore one: of
whoever vanished before its vector came, the key of the pairwise masks, which no longer cancel; of
whoever stayed, the seed of the self mask. Nobody reveals both of one volunteer, since with both a
coordinator could call a vector late and take all masks off it. Which of the two follows from the
survivor set U3 alone; a volunteer signs one U3 a session, and reveals only under the signatures of
a quorum so large that any two share an honest member, so no second set is ever certified (Bonawitz
et al. 2017, doi:10.1145/3133956.3133982; few neighbours: Bell et al. 2020,
doi:10.1145/3372297.3417885).

Use. The update goes in with the volunteer; the caller only carries messages and keeps marks:

    session = ClientSession(Volunteer(key, terms, policy, diary, Contribution(update),
                                      SessionSecrets(os.urandom(32))))
    while not session.over:
        step = session.receive(next_message())  # RemoteProtocolError: refuse, the session is over
        store(step.persist)                     # durably, before anything is sent
        if step.outgoing is not None:
            send(step.outgoing)

The table below is the machine (docs/protocol.md §18). Whatever is not in it, and whatever fails a
check, ends the session with its secrets erased; nothing is sent. A session lives in one process:
its secrets are never stored, and its diary keeps it from being joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn, TypeAlias

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.client import setup, sketching, summing
from nomoat.aggregation.secagg.client.stages import Reply, Volunteer
from nomoat.aggregation.secagg.diary import Mark
from nomoat.aggregation.secagg.messages import (
    TO_VOLUNTEER,
    Abandoned,
    AuditOpening,
    Certificate,
    SessionOffer,
    SessionRoster,
    SharesDelivery,
    ShareSet,
    SurvivorSet,
    ToCoordinator,
    ToVolunteer,
)


class ClientPhase(Enum):
    """A volunteer's place in a session."""

    WAITING = "waiting for an offer"
    KEYS = "sent keys"
    SHARES = "sent shares"
    CHECKED = "checked the boxes"
    MASKED = "sent its masked vector"
    SKETCHED = "sent sketches of its masks"
    SIGNED = "signed the survivors"
    REVEALED = "revealed its shares"
    ABANDONED = "abandoned by the coordinator"
    REFUSED = "refused"


class Refusal:
    """The event of a message that fails a check or is not due, and of `ClientSession.stop`."""


ENDED = frozenset({ClientPhase.REVEALED, ClientPhase.ABANDONED, ClientPhase.REFUSED})
TRANSITIONS: Mapping[tuple[ClientPhase, type], ClientPhase] = {
    (ClientPhase.WAITING, SessionOffer): ClientPhase.KEYS,
    (ClientPhase.KEYS, SessionRoster): ClientPhase.SHARES,
    (ClientPhase.SHARES, SharesDelivery): ClientPhase.CHECKED,
    (ClientPhase.CHECKED, ShareSet): ClientPhase.MASKED,
    (ClientPhase.MASKED, AuditOpening): ClientPhase.SKETCHED,
    (ClientPhase.MASKED, SurvivorSet): ClientPhase.SIGNED,
    (ClientPhase.SKETCHED, SurvivorSet): ClientPhase.SIGNED,
    (ClientPhase.SIGNED, Certificate): ClientPhase.REVEALED,
    (ClientPhase.WAITING, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.KEYS, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.SHARES, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.CHECKED, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.MASKED, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.SKETCHED, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.SIGNED, Abandoned): ClientPhase.ABANDONED,
    (ClientPhase.REVEALED, Abandoned): ClientPhase.REVEALED,
    **{(phase, Refusal): ClientPhase.REFUSED for phase in ClientPhase if phase not in ENDED},
}

_Handler: TypeAlias = Callable[[Any, Any], Reply]
_HANDLERS: Mapping[type[ToVolunteer], _Handler] = {
    SessionOffer: setup.on_offer,
    SessionRoster: setup.on_roster,
    SharesDelivery: setup.on_delivery,
    ShareSet: summing.on_share_set,
    AuditOpening: sketching.on_audit,
    SurvivorSet: summing.on_survivors,
    Certificate: summing.on_certificate,
}


@dataclass(frozen=True, slots=True)
class ClientStep:
    """Instructions: store every mark of `persist` durably, and only then send `outgoing`."""

    phase: ClientPhase
    outgoing: ToCoordinator | None = None
    persist: tuple[Mark, ...] = ()


class ClientSession:
    """One volunteer in one session."""

    def __init__(self, volunteer: Volunteer) -> None:
        self.phase = ClientPhase.WAITING
        self._secrets = volunteer.secrets
        self._stage: object = volunteer

    def receive(self, message: ToVolunteer) -> ClientStep:
        """Take the coordinator's next message; RemoteProtocolError ends the session for good."""
        kind, was = type(message), self.phase
        if (was, kind) not in TRANSITIONS:
            self._move(Refusal)
            raise RemoteProtocolError(COORDINATOR, "§18", _unexpected(message, was))
        if kind is Abandoned:
            self._move(kind)
            return ClientStep(self.phase)
        try:
            reply = _HANDLERS[kind](self._stage, message)
        except BaseException:
            self._move(Refusal)
            raise
        self._stage = reply.stage
        self._move(kind)
        return ClientStep(self.phase, reply.outgoing, reply.persist)

    def stop(self) -> None:
        """End the session from this side, secrets erased; may be called at any time."""
        self._move(Refusal)

    @property
    def over(self) -> bool:
        """True if no message can make this session send anything again."""
        return self.phase in ENDED

    def _move(self, event: type) -> None:
        """Make the table's move, if there is one; a session that is over keeps no secret."""
        self.phase = TRANSITIONS.get((self.phase, event), self.phase)
        if self.over:
            self._secrets.erase()
            self._stage = None

    def __reduce__(self) -> NoReturn:
        raise LocalProtocolError("a session is never stored: its secrets end with the process")

    def __repr__(self) -> str:
        return f"<ClientSession {self.phase.name}>"


def _unexpected(message: object, phase: ClientPhase) -> str:
    known = type(message).__name__ if type(message) in TO_VOLUNTEER else "something else"
    return f"sent {known} to a volunteer that {phase.value}"
