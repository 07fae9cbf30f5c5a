"""The door of the protocol: what it lets out comes in again, what is hostile is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import types
import typing

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import messages, wire

KINDS = [
    cls for cls in vars(messages).values() if isinstance(cls, type) and "__wire_kind__" in vars(cls)
]
fuzz = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def values(hint):
    """A strategy for every value that a field's annotation allows."""
    kind = wire._type(hint)
    limit = kind.limit
    if isinstance(limit, wire.Body):
        return st.binary(max_size=40)
    if kind.schema is not None:
        return instances(kind.base)
    if kind.element is not None:
        low = int(limit.low) if limit else 0
        inner = values(typing.get_args(kind.base)[0])
        names = st.lists(inner, min_size=low, max_size=low + 3, unique_by=repr)
        return names.map(lambda found: tuple(sorted(found, key=_name)))
    if kind.optional is not None:
        inner = next(one for one in typing.get_args(kind.base) if one is not types.NoneType)
        return st.none() | values(inner)
    return scalars(kind.base, limit)


def scalars(base, limit):
    low, high = (limit.low, limit.high) if limit else (0, 2**63 - 1)
    if base is bool:
        return st.booleans()
    if base is int:
        return st.integers(math.ceil(low), int(min(high, 2**63 - 1)))
    if base is float:
        return st.floats(low if limit else None, high if limit else None, allow_nan=False).filter(
            math.isfinite
        )
    size = {"min_size": int(low) if limit else 0, "max_size": int(min(high, 40)) if limit else 40}
    if base is str:
        return st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), **size)
    assert base is bytes
    return st.binary(**size)


def _name(value):
    return getattr(value, "name", repr(value))


def instances(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: values(hints[f.name]) for f in dataclasses.fields(cls)}

    def make(given_):
        try:
            return cls(**given_)
        except LocalProtocolError:  # two layers of one name
            return None

    return st.fixed_dictionaries(fields).map(make).filter(lambda made: made is not None)


@pytest.fixture(params=KINDS, ids=lambda cls: cls.__wire_kind__)
def kind(request):
    return request.param


def test_all_message_kinds_are_here():
    assert len(KINDS) >= 10
    assert len({cls.__wire_kind__ for cls in KINDS}) == len(KINDS)


def test_what_is_encoded_is_decoded_to_the_same(kind):
    @fuzz
    @given(instances(kind))
    def holds(value):
        packet = wire.encode(value)
        assert wire.decode(packet, kind, "v") == value
        assert wire.encode(wire.decode(packet, kind, "v")) == packet
        assert wire.Packet.from_parts(packet.parts(), "v") == packet
        assert wire.peek_kind(packet, "v") == kind.__wire_kind__

    holds()


def test_damaged_messages_are_refused_by_name_or_decode_to_a_sound_value(kind):
    """Flip, cut, insert: either RemoteProtocolError or a value that encodes again."""

    @fuzz
    @given(instances(kind), st.data())
    def holds(value, data):
        packet = wire.encode(value)
        head = bytearray(packet.head)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(head)))
            head[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        check_refused_or_sound(wire.Packet(bytes(head), packet.body), kind)

    holds()


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


def test_any_structure_in_place_of_the_fields_is_refused_by_name_or_sound(kind):
    @fuzz
    @given(junk, st.binary(max_size=8))
    def holds(fields, body):
        head = msgpack.packb([wire.PROTOCOL_VERSION, kind.__wire_kind__, fields])
        check_refused_or_sound(wire.Packet(head, body), kind)

    holds()


def test_any_structure_in_place_of_one_field_is_refused_by_name_or_sound(kind):
    @fuzz
    @given(instances(kind), junk, st.data())
    def holds(value, odd, data):
        packet = wire.encode(value)
        version, name, fields = msgpack.unpackb(packet.head, strict_map_key=False)
        if not fields:
            return
        fields[data.draw(st.integers(0, len(fields) - 1))] = odd
        check_refused_or_sound(
            wire.Packet(msgpack.packb([version, name, fields]), packet.body), kind
        )

    holds()


@fuzz
@given(st.binary(max_size=200), st.binary(max_size=20))
def test_random_bytes_are_refused(head, body):
    with pytest.raises(RemoteProtocolError):
        wire.decode(wire.Packet(head, body), messages.Ready, "mallory")


def check_refused_or_sound(packet, kind):
    refusal, value = outcome(packet, kind)
    if refusal is None:
        assert wire.decode(wire.encode(value), kind, "mallory") == value
    else:
        assert refusal.peer == "mallory"
        assert len(refusal.reason) <= 200
        assert refusal.reason.isprintable()


def outcome(packet, kind):
    try:
        return None, wire.decode(packet, kind, "mallory")
    except RemoteProtocolError as problem:
        return problem, None


def report(**changes):
    fields = {"round": 3, "exchange": 1, "weight": 0.5, "vector": b"\0" * 8} | changes
    return messages.Report(**fields)


def forged(*fields, body=b"", version=wire.PROTOCOL_VERSION, kind="report"):
    return wire.Packet(msgpack.packb([version, kind, list(fields)]), body)


def claim(body):
    return [len(body), hashlib.sha256(body).digest()]


def test_the_forgers_template_is_sound():
    packet = forged(3, 1, 0.5, claim(b"abc"), body=b"abc")
    assert wire.decode(packet, messages.Report, "v").vector == b"abc"


def test_what_only_tells_something_may_grow_and_nothing_else() -> None:
    for sent in (messages.Decline(3, "paused"), messages.Evaluation(3, 1.5, 10)):
        version, kind, fields = msgpack.unpackb(wire.encode(sent).head)
        for more, fits in ([1], True), (["x", [b"y"]], True), ([0] * 17, False):
            grown = wire.Packet(msgpack.packb([version, kind, [*fields, *more]]))
            if fits:
                assert wire.decode(grown, type(sent), "ada") == sent
            else:
                with pytest.raises(RemoteProtocolError, match="fields"):
                    wire.decode(grown, type(sent), "ada")
    with pytest.raises(RemoteProtocolError, match="has not 4 fields"):
        wire.decode(forged(3, 1, 0.5, claim(b"abc"), 7, body=b"abc"), messages.Report, "ada")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ((0, 1, 0.5), "round is out of range"),
        ((-1, 1, 0.5), "round is out of range"),
        ((2**63, 1, 0.5), "round is out of range"),
        ((True, 1, 0.5), "round is bool"),
        ((3.0, 1, 0.5), "round is float"),
        (("3", 1, 0.5), "round is str"),
        ((None, 1, 0.5), "round is NoneType"),
        ((3, 5, 0.5), "exchange is out of range"),
        ((3, 1, 0.0), "weight is out of range"),
        ((3, 1, -5), "weight is out of range"),
        ((3, 1, 1e9), "weight is out of range"),
        ((3, 1, math.nan), "weight is not finite"),
        ((3, 1, math.inf), "weight is not finite"),
        ((3, 1, True), "weight is bool"),
        ((3, 1), "has not 4 fields"),
        ((3, 1, 0.5, 9), "has not 4 fields"),
    ],
)
def test_values_out_of_place_or_range_are_refused(fields, said):
    packet = forged(*fields, claim(b"abc"), body=b"abc")
    with pytest.raises(RemoteProtocolError, match=said):
        wire.decode(packet, messages.Report, "v")


@pytest.mark.parametrize(
    "raw",
    [
        [3, b"\0" * 32],
        [4, hashlib.sha256(b"abc").digest()],
        [3.0, hashlib.sha256(b"abc").digest()],
        [3, hashlib.sha256(b"abc").digest()[:31]],
        [3],
        [3, hashlib.sha256(b"abc").digest(), 0],
        b"abc",
        None,
    ],
)
def test_a_body_must_be_the_one_the_head_names(raw):
    with pytest.raises(RemoteProtocolError):
        wire.decode(forged(3, 1, 0.5, raw, body=b"abc"), messages.Report, "v")


def test_a_body_nobody_asked_for_is_refused():
    packet = wire.encode(messages.Decline(1, "busy"))
    with pytest.raises(RemoteProtocolError, match="no field claims"):
        wire.decode(wire.Packet(packet.head, b"x"), messages.Decline, "v")


def test_other_kinds_and_versions_are_refused():
    with pytest.raises(RemoteProtocolError, match="where 'ready' belongs"):
        wire.decode(wire.encode(report()), messages.Ready, "v")
    with pytest.raises(RemoteProtocolError, match="protocol 2"):
        wire.decode(forged(3, 1, 0.5, claim(b""), version=2), messages.Report, "v")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000 + b"\xc0",  # nested deeper than any stack
        b"\xdd\xff\xff\xff\xff",  # an array that says it has 2^32 items
        b"\xc6\xff\xff\xff\xff",  # bytes that say they are 4 GiB long
        b"\x93\x01\xa5ready\xdd\x7f\xff\xff\xff\xc0",
        b"\xd6\xff\0\0\0\0",  # a timestamp extension
        b"\xc7\x05\x01hello",  # an extension
        b"\x81\x01\x02",  # a map
        b"\x93\x01\xa2\xff\xfe\x90",  # text that is not UTF-8
        b"\x93\x01\xa5ready\x90\x00",  # something left over
        b"\x93\xc3\xa5ready\x90",  # version True
    ],
    ids=lambda head: head[:6].hex(),
)
def test_hostile_msgpack_is_refused_without_harm(head):
    with pytest.raises(RemoteProtocolError):
        wire.decode(wire.Packet(head), messages.Ready, "mallory")
    with pytest.raises(RemoteProtocolError):
        wire.peek_kind(wire.Packet(head + b"\xc1"), "mallory")


def test_oversized_heads_are_refused_before_they_are_parsed(monkeypatch):
    monkeypatch.setattr(msgpack, "unpackb", lambda *_, **__: pytest.fail("was parsed"))
    with pytest.raises(RemoteProtocolError, match="larger than allowed"):
        wire.decode(wire.Packet(b"\xc0" * (wire.MAX_HEAD_BYTES + 1)), messages.Ready, "v")


def test_large_bodies_travel_in_small_parts(monkeypatch):
    monkeypatch.setattr(wire, "PART_BYTES", 1000)
    packet = wire.encode(report(vector=bytes(range(250)) * 17))
    parts = packet.parts()
    assert max(map(len, parts.values())) <= 1000
    assert wire.Packet.from_parts(dict(reversed(parts.items())), "v") == packet


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"body00000": b""},
        {"head": b"", "body00001": b""},
        {"head": b"", "extra": b""},
        {"head": b"", "body00000": b"", "body00002": b""},
        {"head": 1.5},
        {"head": "text"},
        {"head": None},
        {"head": b"", "body00000": [1, 2]},
        {1: b""},
    ],
)
def test_missing_odd_and_foreign_parts_are_refused(parts):
    with pytest.raises(RemoteProtocolError, match="parts"):
        wire.Packet.from_parts(parts, "mallory")


def test_too_many_parts_are_refused():
    parts = {"head": b"", **{f"body{i:05d}": b"" for i in range(wire.MAX_PARTS)}}
    with pytest.raises(RemoteProtocolError, match="too many"):
        wire.Packet.from_parts(parts, "mallory")


@pytest.mark.parametrize(
    "value",
    [
        report(round=0),
        report(weight=math.nan),
        report(weight=2.0),
        report(vector=5),
        report(vector="text"),
        report(round=True),
        messages.Decline(1, ""),
        messages.Decline(1, "x" * 41),
        messages.Decline(1, None),
    ],
    ids=repr,
)
def test_we_never_send_what_we_would_refuse(value):
    with pytest.raises(LocalProtocolError):
        wire.encode(value)


def test_layers_out_of_order_are_refused_by_the_senders_name():
    """AdapterShape promises a sound spec; the blame must not fall on our own side later."""
    layers = [["b", 2, 2], ["a", 2, 2]]
    head = msgpack.packb([wire.PROTOCOL_VERSION, "spec", [layers, 1, 1.0, False, ["q"]]])
    with pytest.raises(RemoteProtocolError, match="sorted by name"):
        wire.decode(wire.Packet(head), messages.AdapterShape, "mallory")


def test_two_messages_cannot_share_a_name():
    with pytest.raises(LocalProtocolError, match="two messages"):
        wire.message("report")(type("Other", (), {}))
