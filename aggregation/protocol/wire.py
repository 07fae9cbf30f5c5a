"""The only encoder and decoder of protocol messages: frozen dataclass ↔ bounded msgpack.

A message is a head (msgpack: version, kind, fields in order) and at most one body (the raw bytes
of its one large field); the head holds the body's length and SHA-256, so whoever signs the head
has signed the body. Decoding checks a head's size before it opens it, types and ranges before it
returns (docs/protocol.md §2). What it returns needs no further checking of form.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgpack

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError

PROTOCOL_VERSION = 1
MAX_ANSWER_HEAD_BYTES = 256 << 10  # from a volunteer: the boxes of 1024 neighbours are half of it
MAX_HEAD_BYTES = 4 << 20
MAX_BODY_BYTES = 1 << 30
PART_BYTES = 4 << 20  # a body travels in parts of at most this size
MOST_MORE = 16  # fields that a message which may grow has beyond those this side knows
MAX_PARTS = 1 + MAX_BODY_BYTES // PART_BYTES
SECTION = "§2"
COORDINATOR = "coordinator"  # the name of the other side in a volunteer's refusals

T = TypeVar("T")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and ends of lines


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds of a field: a number's range, or the length of a string, bytes or tuple."""

    low: float = 0
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class Body:
    """Marks the one field (bytes) that travels beside the head; at most `high` bytes."""

    high: int = MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Later:
    """Marks optional fields at a message's end that there were not always: left out where None.

    So what was signed before they came is read, and encoded, as it was.
    """


@dataclass(frozen=True, slots=True)
class Packet:
    """A message as bytes."""

    head: bytes
    body: bytes = b""

    def parts(self) -> dict[str, bytes]:
        """Head and body cut into named parts, each small enough for one request."""
        parts = {"head": self.head}
        for index, start in enumerate(range(0, len(self.body), PART_BYTES)):
            parts[f"body{index:05d}"] = self.body[start : start + PART_BYTES]
        return parts

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes], peer: str) -> Packet:
        """Put parts together again; RemoteProtocolError if any is missing, odd or oversized."""
        if len(parts) > MAX_PARTS or any(type(part) is not bytes for part in parts.values()):
            raise RemoteProtocolError(peer, SECTION, "message parts are not bytes, or too many")
        names = ["head", *(f"body{index:05d}" for index in range(len(parts) - 1))]
        if set(names) != set(parts):
            raise RemoteProtocolError(peer, SECTION, "message parts are missing or unknown")
        if sum(map(len, parts.values())) > MAX_HEAD_BYTES + MAX_BODY_BYTES:
            raise RemoteProtocolError(peer, SECTION, "message is larger than allowed")
        return cls(parts["head"], b"".join(parts[name] for name in names[1:]))

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return len(self.head) + len(self.body)


_KINDS: dict[str, type] = {}


def message(kind: str, *, grows: bool = False) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass as the protocol message `kind`.

    grows: fields at its end that this side does not know are passed over (§2.5). Never of what
    says what is trained, summed or agreed to, nor of what is encoded again to check a signature.
    """

    def register(cls: type[T]) -> type[T]:
        if kind in _KINDS:
            raise LocalProtocolError(f"two messages are called {kind}")
        _KINDS[kind] = cls
        cls.__wire_kind__ = kind  # type: ignore[attr-defined]
        cls.__wire_grows__ = grows  # type: ignore[attr-defined]
        return cls

    return register


def kind_of(cls: type) -> str:
    """The wire name of a message class."""
    return str(cls.__wire_kind__)  # type: ignore[attr-defined]


def action_of(kind: str) -> str:
    """The Flower message type (category.action) under which a request of this kind travels."""
    category, _, name = kind.partition(".")
    return kind if category in ("train", "evaluate", "query") else f"query.{category}_{name}"


def encode(value: object) -> Packet:
    """Encode one message; the same message always gives the same bytes (they are signed).

    Raises LocalProtocolError if a field is out of its bounds: we never send what we would refuse.
    """
    bodies: list[bytes] = []
    try:
        fields = _lower(_type(typing.cast(Any, type(value))), value, bodies)
    except _Malformed as problem:
        raise LocalProtocolError(f"{type(value).__name__}: {problem}") from None
    head = msgpack.packb([PROTOCOL_VERSION, kind_of(type(value)), fields], use_bin_type=True)
    return Packet(head, bodies[0] if bodies else b"")


def decode(packet: Packet, expected: type[T], peer: str) -> T:
    """Decode what `peer` sent as an `expected` message, or raise RemoteProtocolError naming it."""
    try:
        version, kind, fields = _open(packet.head)
        if version != PROTOCOL_VERSION:
            raise _Malformed(f"speaks protocol {version!r}, this side {PROTOCOL_VERSION}")
        if kind != kind_of(expected):
            raise _Malformed(f"sent {kind!r} where {kind_of(expected)!r} belongs")
        bodies = [packet.body]
        value = _raise(_type(typing.cast(Any, expected)), fields, bodies, kind)
        if bodies and bodies[0]:
            raise _Malformed("has a body that no field claims")
    except _Malformed as problem:
        raise RemoteProtocolError(peer, SECTION, str(problem)[:200]) from None
    return typing.cast(T, value)


def peek_kind(packet: Packet, peer: str) -> str:
    """The kind a packet claims to be, without decoding its fields."""
    try:
        _, kind, _ = _open(packet.head)
    except _Malformed as problem:
        raise RemoteProtocolError(peer, SECTION, str(problem)[:200]) from None
    return kind


class _Malformed(Exception):
    """Bytes or values that are not what the schema says."""


def _open(head: bytes) -> tuple[int, str, object]:
    if len(head) > MAX_HEAD_BYTES:
        raise _Malformed("head is larger than allowed")
    try:
        opened = msgpack.unpackb(
            head, raw=False, strict_map_key=True, max_ext_len=0, max_map_len=0, use_list=True
        )
    except Exception:  # noqa: BLE001 - msgpack raises a dozen types; all mean the same
        raise _Malformed("head is not msgpack") from None
    if not (isinstance(opened, list) and len(opened) == 3):
        raise _Malformed("head is not [version, kind, fields]")
    version, kind, fields = opened
    if type(version) is not int or type(kind) is not str:
        raise _Malformed("head is not [version, kind, fields]")
    return version, kind, fields


@dataclass(frozen=True, slots=True)
class _Type:
    """A field's type hint, taken apart once: at most one of schema, element and optional is set."""

    base: Any
    limit: Limit | Body | None
    schema: tuple[tuple[str, _Type], ...] | None  # of a message, its fields
    element: _Type | None  # of a tuple
    optional: _Type | None  # of `inner | None`
    later: int = 0  # of a message, how many fields at its end may be left out
    more: int = 0  # of a message, how many fields may follow that this side does not know


@cache
def _type(hint: Any) -> _Type:
    base, limit = hint, None
    if typing.get_origin(hint) is typing.Annotated:
        base, *extras = typing.get_args(hint)
        limit = next((x for x in extras if isinstance(x, Limit | Body)), None)
    schema = element = optional = None
    later = more = 0
    origin, inner = typing.get_origin(base), typing.get_args(base)
    if dataclasses.is_dataclass(base):
        hints = typing.get_type_hints(base, include_extras=True)
        schema = tuple((f.name, _type(hints[f.name])) for f in dataclasses.fields(base))
        later = sum(_is_later(hints[name]) for name, _ in schema)
        more = MOST_MORE if getattr(base, "__wire_grows__", False) else 0
    elif origin is tuple:
        element = _type(inner[0])
    elif origin in (types.UnionType, typing.Union):
        given = [one for one in inner if one is not types.NoneType]
        optional = _type(given[0]) if len(given) == 1 else None
    return _Type(base, limit, schema, element, optional, later, more)


def _is_later(hint: Any) -> bool:
    return any(isinstance(extra, Later) for extra in getattr(hint, "__metadata__", ()))


def _lower(kind: _Type, value: Any, bodies: list[bytes], path: str = "") -> Any:
    """Value → msgpack-able, checked as if it had been received."""
    limit = kind.limit
    if isinstance(limit, Body):
        if not isinstance(value, bytes | bytearray | memoryview):  # bytes(5) would be five zeros
            raise _Malformed(f"{path} is {type(value).__name__}, not bytes")
        data = bytes(value)
        bodies.append(data)
        _check_length(data, limit, path)
        return [len(data), hashlib.sha256(data).digest()]
    if kind.schema is not None:
        fields = [
            _lower(inner, getattr(value, name), bodies, f"{path}.{name}")
            for name, inner in kind.schema
        ]
        least = len(fields) - kind.later
        while len(fields) > least and fields[-1] is None:
            fields.pop()
        return fields
    if kind.element is not None:
        lowered = [_lower(kind.element, item, bodies, path) for item in value]
        _check_length(lowered, limit, path)
        return lowered
    if kind.optional is not None:
        return None if value is None else _lower(kind.optional, value, bodies, path)
    return _scalar(kind.base, limit, value, path)


def _raise(kind: _Type, raw: Any, bodies: list[bytes], path: str) -> Any:
    """Decoded msgpack → typed value, or _Malformed."""
    limit = kind.limit
    if isinstance(limit, Body):
        return _claim_body(raw, limit, bodies, path)
    if kind.schema is not None:
        if isinstance(raw, list) and len(raw) <= len(kind.schema) + kind.more:
            raw = raw[: len(kind.schema)]
        missing = len(kind.schema) - len(raw) if isinstance(raw, list) else -1
        if not 0 <= missing <= kind.later or (missing < kind.later and raw[-1] is None):
            raise _Malformed(f"{path} has not {len(kind.schema)} fields")
        items = zip(kind.schema, [*raw, *[None] * missing], strict=True)
        fields = [_raise(inner, item, bodies, f"{path}.{name}") for (name, inner), item in items]
        try:
            return kind.base(*fields)
        except LocalProtocolError as problem:  # a __post_init__ that refuses
            raise _Malformed(f"{path}: {problem}") from None
    if kind.element is not None:
        if not isinstance(raw, list):
            raise _Malformed(f"{path} is not a list")
        _check_length(raw, limit, path)
        inner = kind.element
        return tuple([_raise(inner, item, bodies, path) for item in raw])
    if kind.optional is not None:
        return None if raw is None else _raise(kind.optional, raw, bodies, path)
    return _scalar(kind.base, limit, raw, path)


def _claim_body(raw: Any, limit: Body, bodies: list[bytes], path: str) -> bytes:
    if not (isinstance(raw, list) and len(raw) == 2 and bodies):
        raise _Malformed(f"{path} is not [length, digest]")
    data = bodies.pop()
    _check_length(data, limit, path)
    if type(raw[0]) is not int or raw != [len(data), hashlib.sha256(data).digest()]:
        raise _Malformed(f"{path} does not match its length and digest")
    return data


def _scalar(base: Any, limit: Limit | Body | None, raw: Any, path: str) -> Any:
    if base is float and type(raw) is int:
        raw = float(raw)
    if type(raw) is not base:
        raise _Malformed(f"{path} is {type(raw).__name__}, not {base.__name__}")
    if base in (int, float):
        if base is float and not math.isfinite(raw):
            raise _Malformed(f"{path} is not finite")
        if limit is None and base is int:
            limit = Limit(0, 2**63 - 1)
        if limit is not None and not limit.low <= raw <= limit.high:  # type: ignore[union-attr]
            raise _Malformed(f"{path} is out of range")
    elif base in (str, bytes):
        _check_length(raw, limit if limit is not None else Limit(0, 256), path)
        if base is str and _CONTROL.search(raw):
            raise _Malformed(f"{path} has control characters")
    return raw


def _check_length(value: Any, limit: Limit | Body | None, path: str) -> None:
    low = limit.low if isinstance(limit, Limit) else 0
    high = limit.high if limit is not None else 65_536
    if not low <= len(value) <= high:
        raise _Malformed(f"{path} has length {len(value)}")
