"""Every machine meets every message in every state, well-formed, and garbage before the door."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.secagg.client import session as client
from nomoat.aggregation.secagg.client.session import ClientPhase
from nomoat.aggregation.secagg.messages import TO_COORDINATOR, TO_VOLUNTEER, Abandoned
from nomoat.aggregation.secagg.server import session as server
from nomoat.aggregation.secagg.server.collector import ServerPhase

EXCHANGES = ("keys", "shares", "checks", "masked", "sketches", "signatures", "reveals")
BOUND = 0.3  # every session here is audited, so that every phase is passed
BY_TYPE_NAME = {cls.__name__: cls for cls in (*TO_VOLUNTEER, *TO_COORDINATOR)}
CLIENT_PHASES = list(ClientPhase)
ARRIVAL = {  # which exchange's first half brings a volunteer into the phase
    ClientPhase.WAITING: "keys",
    ClientPhase.KEYS: "shares",
    ClientPhase.SHARES: "checks",
    ClientPhase.CHECKED: "masked",
    ClientPhase.MASKED: "sketches",
    ClientPhase.SKETCHED: "signatures",
    ClientPhase.SIGNED: "reveals",
}


@pytest.fixture(scope="module")
def well_formed(federation):
    """One valid message of every kind, from one honest session; by class."""
    found = {Abandoned: Abandoned("for a test")}
    for exchange in EXCHANGES:
        made = federation(4, bound=BOUND)
        step = made.run(exchange) if exchange != "keys" else made.server.open(made.ids)
        message = step.outgoing[made.ids[0]]
        found[type(message)] = message
        reply = made.clients[0].receive(message).outgoing
        found[type(reply)] = reply
    assert set(found) == {*TO_VOLUNTEER, *TO_COORDINATOR}
    return found


def session_in(federation, phase):
    """Volunteer 0's session, brought into `phase`."""
    made = federation(4, bound=BOUND)
    if phase in ARRIVAL:
        if phase is not ClientPhase.WAITING:
            made.run(ARRIVAL[phase])
        return made.clients[0]
    made.run()
    if phase is ClientPhase.REVEALED:
        return made.clients[0]
    session = federation(4, bound=BOUND).clients[0]
    if phase is ClientPhase.ABANDONED:
        session.receive(Abandoned("for a test"))
    else:
        session.stop()
    return session


@pytest.mark.parametrize(
    ("phase", "kind"), list(itertools.product(CLIENT_PHASES, TO_VOLUNTEER)), ids=str
)
def test_a_volunteer_takes_what_its_table_says_and_nothing_else(
    federation, well_formed, phase, kind
):
    session = session_in(federation, phase)
    assert session.phase is phase
    following = client.TRANSITIONS.get((phase, kind))
    if following is not None:
        assert session.receive(well_formed[kind]).phase is following
        return
    with pytest.raises(RemoteProtocolError, match=kind.__name__):
        session.receive(well_formed[kind])
    assert session.over
    assert session.phase is (phase if phase in client.ENDED else ClientPhase.REFUSED)
    assert repr(session._secrets) == "<SessionSecrets erased>"


@pytest.mark.parametrize("phase", CLIENT_PHASES, ids=str)
def test_a_volunteer_refuses_the_coordinators_side_of_every_message(federation, well_formed, phase):
    for kind in TO_COORDINATOR:
        session = session_in(federation, phase)
        with pytest.raises(RemoteProtocolError, match="something else"):
            session.receive(well_formed[kind])
        assert session.over


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("kind", TO_COORDINATOR, ids=str)
def test_the_coordinator_takes_what_its_table_says_and_names_whoever_sends_else(
    federation, well_formed, exchange, kind
):
    made = federation(4, bound=BOUND)
    step = made.run(exchange) if exchange != "keys" else made.server.open(made.ids)
    sender = made.ids[0]
    if server.ACCEPTS[made.server.phase] is kind:
        reply = made.clients[0].receive(step.outgoing[sender]).outgoing
        made.server.receive(sender, reply)
        assert sender not in made.server.waiting
        assert not made.server.blamed
        return
    with pytest.raises(RemoteProtocolError, match=r"volunteer 0: it sent \w+ while"):
        made.server.receive(sender, well_formed[kind])
    assert sender in made.server.blamed
    assert not made.server.over


@pytest.mark.parametrize("phase", [ServerPhase.NEW, ServerPhase.DONE, ServerPhase.ABANDONED])
def test_a_coordinator_without_a_session_takes_nothing(federation, well_formed, phase):
    made = federation(4, bound=BOUND)
    if phase is ServerPhase.DONE:
        made.run()
    elif phase is ServerPhase.ABANDONED:
        made.server.open(made.ids)
        made.server.abandon("for a test")
    assert made.server.phase is phase
    for kind in TO_COORDINATOR:
        with pytest.raises(RemoteProtocolError, match="is not expected"):
            made.server.receive(made.ids[0], well_formed[kind])
    with pytest.raises(LocalProtocolError, match="cannot be closed"):
        made.server.close()
    if phase is not ServerPhase.NEW:
        with pytest.raises(LocalProtocolError):
            made.server.abandon("again")
        with pytest.raises(LocalProtocolError, match="opened once"):
            made.server.open(made.ids)


def test_every_phase_is_reachable_and_every_session_can_end():
    reached = {ClientPhase.WAITING, ClientPhase.REFUSED} | set(client.TRANSITIONS.values())
    assert reached == set(ClientPhase)
    for phase in set(ClientPhase) - client.ENDED:
        assert client.TRANSITIONS[phase, Abandoned] is ClientPhase.ABANDONED
    ends = {ServerPhase.NEW, ServerPhase.DONE, ServerPhase.ABANDONED}
    assert set(server.ACCEPTS) == set(ServerPhase) - ends


def closed(made, step):
    """The next phase's step, everyone having answered `step`."""
    for sender, message in step.outgoing.items():
        reply = made.clients[made.ids.index(sender)].receive(message).outgoing
        made.server.receive(sender, reply)
    return made.server.close()


def test_the_coordinator_goes_through_its_phases_in_the_order_of_the_table(federation):
    made = federation(4, bound=BOUND)
    passed = [made.server.phase]
    step = made.server.open(made.ids)
    while not made.server.over:
        passed.append(made.server.phase)
        step = closed(made, step)
    assert [*passed, made.server.phase] == [p for p in ServerPhase if p is not p.ABANDONED]
    assert [collector.phase for collector in server.COLLECTORS] == passed[1:]
    moves = [(p, server.ServerEvent.GO_ON) for p in passed]
    assert [server.TRANSITIONS[move] for move in moves] == [*passed[1:], made.server.phase]


@pytest.mark.parametrize("before", range(len(server.COLLECTORS)))
def test_every_phase_of_the_coordinator_can_be_abandoned(federation, before):
    made = federation(4, bound=BOUND)
    step = made.server.open(made.ids)
    for _ in range(before):
        step = closed(made, step)
    assert made.server.phase is server.COLLECTORS[before].phase
    assert made.server.abandon("for a test").phase is ServerPhase.ABANDONED


@pytest.mark.parametrize("name", sorted(BY_TYPE_NAME))
def test_truncated_padded_and_mutated_messages_do_not_decode_or_mean_something_else(
    well_formed, name
):
    """Whatever bytes arrive: a typed message or a RemoteProtocolError, never another exception."""
    cls = BY_TYPE_NAME[name]
    packet = wire.encode(well_formed[cls])
    rng = np.random.default_rng(4)
    heads = [packet.head[:cut] for cut in range(0, len(packet.head), 7)]
    heads += [packet.head + b"\0", b"", b"\xc1" * 40]
    for _ in range(200):
        changed = bytearray(packet.head)
        changed[rng.integers(len(changed))] = rng.integers(256)
        heads.append(bytes(changed))
    for head in heads:
        try:
            decoded = wire.decode(wire.Packet(head, packet.body), cls, "volunteer 0")
        except RemoteProtocolError:
            continue
        assert type(decoded) is cls
        assert decoded != well_formed[cls] or head == packet.head
    for other in BY_TYPE_NAME.values():
        if other is not cls:
            with pytest.raises(RemoteProtocolError, match="where"):
                wire.decode(packet, other, "volunteer 0")


def test_oversized_fields_do_not_decode(well_formed):
    for cls, field, size in (
        (BY_TYPE_NAME["ShareSet"], "members", 2000),
        (BY_TYPE_NAME["Certificate"], "signatures", 64 * 10_001),
        (BY_TYPE_NAME["RevealReport"], "shares", 36 * 1026),
        (BY_TYPE_NAME["Abandoned"], "reason", 81),
    ):
        message = well_formed[cls]
        values = {name: getattr(message, name) for name in cls.__dataclass_fields__}
        values[field] = "x" * size if field == "reason" else bytes(size)
        with pytest.raises(LocalProtocolError, match="has length"):
            wire.encode(cls(**values))
