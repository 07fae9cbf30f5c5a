"""The fast path and its slow twin agree bit for bit, and both give the sum."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomoat.aggregation.secagg import graph, reference
from nomoat.aggregation.secagg.masks import keys, masking, shamir, unmasking
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.masks.prg import Keystream, Masks
from nomoat.aggregation.secagg.masks.shares import commit_seed, point_of
from nomoat.aggregation.secagg.messages import Participant
from nomoat.aggregation.sums.fixed_point import FixedPoint, decode, encode
from nomoat.aggregation.sums.packing import pack, unpack


def entropy_of(seed: int, index: int) -> bytes:
    return hashlib.sha256(b"%d/%d" % (seed, index)).digest()


@st.composite
def sessions(draw):
    n = draw(st.integers(2, 9))
    degrees = [*list(range(2, n - 1, 2)), n - 1]
    degree = draw(st.sampled_from(degrees))
    bits = draw(st.integers(9, 32))
    length = draw(st.integers(1, 20))
    dropped = draw(st.sets(st.integers(0, n - 1), max_size=n - 1))
    return n, degree, bits, length, dropped, draw(st.integers(0, 2**32))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sessions())
def test_masked_vectors_equal_the_twins_and_unmask_to_the_exact_sum(session):
    n, degree, bits, length, dropped, seed = session
    transcript = hashlib.sha256(b"T%d" % seed).digest()
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, (n, length), dtype=np.uint64).astype(np.uint32)
    secrets = [SessionSecrets(entropy_of(seed, i)) for i in range(n)]
    publics = [keys.public_of(s.mask_private) for s in secrets]
    ring = graph.build(n, degree, transcript)
    survivors = sorted(set(range(n)) - dropped)
    parties = [
        reference.Party(i, entropy_of(seed, i), tuple(map(int, values[i]))) for i in range(n)
    ]

    total = np.zeros(length, np.uint32)
    slow = {}
    for i in survivors:
        pairs = {
            j: masking.pair_mask_key(
                keys.agree(secrets[i].mask_private, publics[j]), transcript, i, j
            )
            for j in ring.neighbours(i)
        }
        own = masking.self_mask_key(secrets[i].self_seed, transcript, i)
        made = masking.client_masks(own, i, pairs)
        y = values[i].copy()
        Masks(made.add, made.subtract).apply(y)
        peers = {j: publics[j] for j in ring.neighbours(i)}
        slow[i] = reference.masked(parties[i], peers, transcript, bits)
        y = unpack(memoryview(pack(y, bits)), length, bits)
        assert y.tolist() == slow[i]
        total += y

    members = tuple(Participant(bytes(32), bytes(32), public, bytes(64)) for public in publics)
    commitments = {i: commit_seed(transcript, i, s.self_seed) for i, s in enumerate(secrets)}
    published = unmasking.Published(transcript, members, commitments)
    found = [unmasking.masks_of_survivor(published, i, secrets[i].self_seed) for i in survivors] + [
        unmasking.masks_of_dropout(
            published, i, secrets[i].mask_private, frozenset(ring.neighbours(i)) - dropped
        )
        for i in dropped
    ]
    for one in found:
        Masks(one.add, one.subtract).apply(total)
    twin = reference.unmasked(
        slow,
        {i: secrets[i].self_seed for i in survivors},
        {
            i: (
                secrets[i].mask_private,
                {j: publics[j] for j in ring.neighbours(i) if j not in dropped},
            )
            for i in dropped
        },
        transcript,
        bits,
    )
    expected = [sum(int(values[i][c]) for i in survivors) % 2**bits for c in range(length)]
    assert twin == expected
    assert (total & np.uint32(2**bits - 1)).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
def test_shares_equal_the_twins_and_any_threshold_of_them_recovers(secret, threshold, data):
    count = data.draw(st.integers(threshold, 15))
    points = data.draw(
        st.lists(st.integers(1, 10_000), min_size=count, max_size=count, unique=True)
    )
    key = data.draw(st.binary(min_size=32, max_size=32))
    dealt = shamir.split(secret, threshold, points, Keystream(key))
    assert dealt == reference.share(secret, threshold, points, reference.keystream(key))
    chosen = data.draw(st.permutations(range(count)))[:threshold]
    some = {points[i]: dealt[i] for i in chosen}
    assert shamir.combine(some) == reference.recover(some) == secret


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.binary(min_size=32, max_size=32), st.data())
def test_every_graph_equals_the_twins(count, transcript, data):
    degree = data.draw(st.sampled_from([*range(2, count - 1, 2), count - 1]))
    ring = graph.build(count, degree, transcript)
    slow = reference.neighbours(count, degree, transcript)
    assert [set(ring.neighbours(i)) for i in range(count)] == slow
    assert all(len(neighbours) == degree for neighbours in slow)
    assert all(i in slow[j] for i in range(count) for j in slow[i])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 32), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=70))
def test_packed_bits_equal_the_twins_and_unpack_to_the_value_mod_2_to_the_b(bits, values):
    packed = pack(np.array(values, np.uint32), bits)
    assert packed == reference.pack(values, bits)
    unpacked = unpack(memoryview(packed), len(values), bits)
    assert unpacked.tolist() == [value % 2**bits for value in values]


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_keys_and_agreements_equal_the_twins(mine, yours):
    a, b = SessionSecrets(mine), SessionSecrets(yours)
    party = reference.Party(0, mine, ())
    assert a.mask_private == party.secret("mask private key")
    assert a.self_seed == party.secret("self-mask seed")
    public = keys.public_of(b.mask_private)
    assert public == reference.x25519(b.mask_private)
    assert keys.agree(a.mask_private, public) == reference.x25519(a.mask_private, public)


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 9), st.integers(1, 40), st.integers(0, 2**20), st.data())
def test_a_whole_session_yields_exactly_the_sum_of_what_was_encoded(
    federation, count, size, seed, data
):
    made = federation(count, size=size + 4, seed=seed)
    spare = count - made_threshold(count)
    late = data.draw(st.sets(st.integers(0, count - 1), max_size=spare))
    made.drops = {data.draw(st.sampled_from(["masked", "checks", "shares"])): late}
    step = made.run()
    survivors = set(range(count)) - late
    point = FixedPoint(made.offer.value_bits, count)
    layout = made.server._layout
    total = np.zeros(layout.length, np.uint32)
    for i in survivors:
        stream = Keystream(SessionSecrets(made.entropy[i]).rounding_key)
        noise = stream.words(-(-layout.length // 2)).view("<u2")[: layout.length]
        total += encode(made.volunteer(i).contribution, layout, point, 0, noise)
    total &= np.uint32(2**point.wire_bits - 1)
    expected = decode(total, layout, point, len(survivors))
    assert step.result is not None
    assert np.array_equal(step.result.mean, expected.mean)
    assert step.result.participants == expected.participants


def made_threshold(count: int) -> int:
    return -(-2 * count // 3)


def test_share_points_are_never_zero():
    assert point_of(0) == 1
