"""Versions follow one another by hash, and a file is what its record names."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from builders import adapter
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.privacy.accounting import noise_multiplier
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import community_id
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.lineage import (
    LABEL,
    SignedVersion,
    Version,
    VersionNoise,
    check,
    check_chain,
    from_file,
    sign,
    to_file,
)
from nomoat.aggregation.protocol.signing import SigningKey

KEY = SigningKey(b"\7" * 32)
ORIGIN = community_id(KEY.public)


def chain(length: int) -> list[SignedVersion]:
    records: list[SignedVersion] = []
    for number in range(length):
        parent = records[-1].digest if records else ORIGIN
        version = Version(
            number, parent, adapter(number).digest, b"b" * 32, number, "fedavg",
            ("ada", "ben"), 3.5 - number, 3.6, 3.4, "", 1_700_000_000 + number,
        )  # fmt: skip
        records.append(sign(version, KEY))
    return records


def test_a_chain_is_followed_from_the_start_and_from_what_is_known() -> None:
    records = chain(4)
    assert check_chain(None, records, CommunityKeys(KEY.public)) == records[3]
    assert check_chain(records[1], records[2:], CommunityKeys(KEY.public)) == records[3]
    assert check_chain(records[3], [], CommunityKeys(KEY.public)) == records[3]


def test_a_missing_swapped_or_foreign_version_is_refused() -> None:
    records = chain(4)
    stranger = sign(records[2].version, SigningKey(b"\x08" * 32))
    other = sign(replace(records[2].version, parent=b"x" * 32), KEY)
    for wrong in (
        [records[0], records[2]],
        [records[1], records[0]],
        [records[0], records[1], stranger],
        [records[0], records[1], other],
    ):
        with pytest.raises(RemoteProtocolError):
            check_chain(None, wrong, CommunityKeys(KEY.public))


def test_history_cannot_be_replaced_behind_a_volunteers_back() -> None:
    known = chain(3)[2]
    rewritten = sign(replace(known.version, number=3, parent=b"other parent".ljust(32)), KEY)
    with pytest.raises(RemoteProtocolError, match="rewritten"):
        check_chain(known, [rewritten], CommunityKeys(KEY.public))


def test_a_file_gives_back_the_same_adapter() -> None:
    again = from_file(to_file(adapter(1)), adapter(1).digest, "coordinator")
    assert again.digest == adapter(1).digest
    assert np.array_equal(again.vector, adapter(1).vector)


def test_a_file_of_another_adapter_or_with_a_flipped_byte_is_refused() -> None:
    data = to_file(adapter(1))
    with pytest.raises(RemoteProtocolError, match="not the one"):
        from_file(data, adapter(2).digest, "coordinator")
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(RemoteProtocolError):
            from_file(changed, adapter(1).digest, "coordinator")


def test_a_short_or_empty_file_is_refused() -> None:
    for data in (b"", b"\0\0", to_file(adapter(1))[:20]):
        with pytest.raises(RemoteProtocolError):
            from_file(data, adapter(1).digest, "coordinator")


NOISE = VersionNoise(noise_multiplier(8.0, 1e-6, 10), 8.0, 1e-6, 10)


def test_a_record_of_before_noise_was_named_is_read_and_has_the_digest_it_had() -> None:
    record = chain(1)[0]
    v = record.version
    before = [v.number, v.parent, v.adapter, v.base_hash, v.round, v.method, list(v.contributors),
              v.loss, v.parent_loss, v.evaluation, v.note, v.at]  # fmt: skip
    unsigned = msgpack.packb([1, "adapter.version", [before, bytes(64)]], use_bin_type=True)
    signature = KEY.sign(LABEL, unsigned)
    sent = msgpack.packb([1, "adapter.version", [before, signature]], use_bin_type=True)
    read = wire.decode(wire.Packet(sent), SignedVersion, "coordinator")
    assert read == record
    assert read.digest == hashlib.sha256(unsigned).digest()
    assert check(read, KEY.public, "coordinator").noise is None
    spelt = msgpack.packb([1, "adapter.version", [[*before, None], signature]], use_bin_type=True)
    with pytest.raises(RemoteProtocolError):  # one way to say it only
        wire.decode(wire.Packet(spelt), SignedVersion, "coordinator")


def test_what_a_record_says_of_noise_is_under_its_signature_and_can_be_recomputed() -> None:
    record = sign(replace(chain(1)[0].version, noise=NOISE), KEY)
    sent = wire.decode(wire.encode(record), SignedVersion, "coordinator")
    assert check(sent, KEY.public, "coordinator").noise == NOISE
    assert NOISE.enough
    for lie in (replace(NOISE, epsilon=7.9), replace(NOISE, participations=11)):
        assert not lie.enough
        forged = SignedVersion(replace(record.version, noise=lie), record.signature)
        with pytest.raises(RemoteProtocolError, match="not signed"):
            check(forged, KEY.public, "coordinator")
    stripped = SignedVersion(replace(record.version, noise=None), record.signature)
    with pytest.raises(RemoteProtocolError, match="not signed"):
        check(stripped, KEY.public, "coordinator")
