"""Secure aggregation against Flower's own SecAgg+ and against the machine, in one run, one core.

    python benchmarks/secagg.py [--json] [--parts flower,cost,session] [--size D] [--repeats R]

flower   D = 10 M parameters, 16 neighbours, 2 dropouts: both libraries mask and unmask the same
         updates, alternating, volunteer by volunteer; ratios are medians. Function against
         function: ours from the decoded ShareSet to the signed MaskedReport (rounding, masks,
         packing, one SHA-256, one signature), theirs the function that does the same. Neither is
         framed for the network; mask_framed_ratio adds our framing (a second SHA-256) to ours
         only.
session  n = 1000 volunteers of 100 000 parameters, 200 of which drop out after sharing: everybody
         does everything, on one core, one after the other.
cost     what one volunteer and the coordinator pay at 1 M parameters for n = 10, 100, 1000 (and
         10 000, extrapolated), from measured parts.

Seconds are CPU seconds: what it takes on an idle core, whatever else the machine is doing. Set
OMP_NUM_THREADS=1 for one core. n1000_seconds is the whole session's, all volunteers together.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from nomoat.aggregation import signing, wire
from nomoat.aggregation.adapter import Manifest, TensorSpec
from nomoat.aggregation.fixed_point import Contribution, FixedPoint, Layout, most_value_bits
from nomoat.aggregation.packing import BLOCK, blocks, packed_bytes
from nomoat.aggregation.secagg import keys, masking, shamir
from nomoat.aggregation.secagg.client import ClientSession
from nomoat.aggregation.secagg.client_steps import Volunteer
from nomoat.aggregation.secagg.keys import SessionSecrets
from nomoat.aggregation.secagg.messages import BOX_BYTES
from nomoat.aggregation.secagg.parameters import (
    DEFAULT_ASSUMPTIONS,
    VALUE_BITS,
    Policy,
    Roster,
    Terms,
    propose,
)
from nomoat.aggregation.secagg.prg import Keystream, Masks
from nomoat.aggregation.secagg.server import ACCEPTS, ServerSession, ServerStep
from nomoat.aggregation.secagg.shamir import SHARE_BYTES
from nomoat.aggregation.secagg.thresholds import thresholds
from nomoat.aggregation.signing import SigningKey

CLIP = 0.0625
EXCHANGES = ("keys", "shares", "checks", "masked", "signatures", "reveals")


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and result of one call: on an idle core, the time it takes."""
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def updates(rng: np.random.Generator, size: int) -> np.ndarray:
    """A made-up update (d,) float32."""
    return (rng.standard_normal(size, np.float32) * np.float32(0.01)).astype(np.float32)


# --- our side -----------------------------------------------------------------------------------


@dataclass
class Ours:
    """A session of n volunteers, driven one exchange at a time; every message goes over the wire.

    Seconds are kept per exchange: those of each volunteer, and those of the coordinator.
    """

    count: int
    size: int
    vectors: Callable[[int], np.ndarray]
    client_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    server_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    up: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    down: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        people = sorted((SigningKey(os.urandom(32)) for _ in range(self.count)), key=by_public)
        self.ids = [key.public for key in people]
        names = {public: f"volunteer {i}" for i, public in enumerate(self.ids)}
        manifest = Manifest((TensorSpec("update", (self.size,)),))
        roster = Roster(os.urandom(32), names)
        terms = Terms(1, 1, os.urandom(32), os.urandom(32), manifest, roster)
        self.offer = propose(os.urandom(32), terms, (CLIP,), (8, self.count))
        self.server = ServerSession(self.offer, manifest, roster)
        self.clients = [
            ClientSession(
                Volunteer(
                    key,
                    terms,
                    Policy(),
                    (),
                    Contribution(self.vectors(i), 1.0),
                    SessionSecrets(os.urandom(32)),
                )
            )
            for i, key in enumerate(people)
        ]

    def open(self) -> ServerStep:
        """R0's offer."""
        return self.server.open(self.ids)

    def answer(self, exchange: str, i: int, packet: wire.Packet, kind: type) -> None:
        """Volunteer i gets a message as bytes, and the coordinator gets its answer as bytes."""
        self.down[i] += packet.size

        message: Any = wire.decode(packet, kind, "coordinator")
        seconds, step = timed(lambda: self.clients[i].receive(message))
        around, reply = timed(lambda: wire.encode(step.outgoing))
        around += timed(lambda: wire.decode(packet, kind, "coordinator"))[0]
        self.client_s[exchange].append(seconds)
        self.client_s[exchange + " wire"].append(around)
        self.up[i] += reply.size
        expected = ACCEPTS[self.server.phase]

        def coordinator() -> None:
            self.server.receive(self.ids[i], wire.decode(reply, expected, "volunteer"))

        self.server_s[exchange] += timed(coordinator)[0]

    def exchange(self, name: str, step: ServerStep, silent: set[int]) -> ServerStep:
        """One whole exchange; equal messages are encoded once, as a coordinator would."""
        encoded: dict[int, wire.Packet] = {}
        for i, public in enumerate(self.ids):
            message = step.outgoing.get(public)
            if message is None or i in silent:
                continue
            if id(message) not in encoded:
                encoded[id(message)] = wire.encode(message)
            self.answer(name, i, encoded[id(message)], type(message))
        following: ServerStep
        seconds, following = timed(self.server.close)
        self.server_s[name + " close"] += seconds
        return following

    def run(self, dropped: set[int]) -> ServerStep:
        """The whole session; `dropped` fall silent after R1."""
        step = self.open()
        for name in EXCHANGES:
            step = self.exchange(name, step, dropped if EXCHANGES.index(name) >= 3 else set())
        if step.result is None:
            sys.exit(f"the session was abandoned: {step.reason}")
        return step


def by_public(key: SigningKey) -> bytes:
    """Sort key."""
    return key.public


# --- Flower's side ------------------------------------------------------------------------------


class Flower:
    """flwr's SecAgg+ client functions, and its workflow's unmasking, on a complete graph."""

    def __init__(self, count: int) -> None:
        self.mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        record = importlib.import_module("flwr.app").ConfigRecord
        key = self.mod.Key
        self.count, self.modulus, self.target = count, 1 << 32, 1 << 22
        settings = record(
            {
                key.SAMPLE_NUMBER: count,
                key.SHARE_NUMBER: count,
                key.THRESHOLD: count // 2 + 1,
                key.CLIPPING_RANGE: CLIP,
                key.TARGET_RANGE: self.target,
                key.MOD_RANGE: self.modulus,
                key.MAX_WEIGHT: 1.0,
            }
        )
        self.states = {i: self.mod.SecAggPlusState() for i in range(1, count + 1)}
        self.publics = {}
        for i, state in self.states.items():
            state.nid = i
            sent = self.mod._setup(state, settings)
            self.publics[i] = (sent[key.PUBLIC_KEY_1], sent[key.PUBLIC_KEY_2])
        self.boxes: dict[int, tuple[list[int], list[bytes]]] = {i: ([], []) for i in self.states}
        for i, state in self.states.items():
            sent = self.mod._share_keys(state, {str(j): pk for j, pk in self.publics.items()})
            pairs = zip(sent[key.DESTINATION_LIST], sent[key.CIPHERTEXT_LIST], strict=True)
            for to, box in pairs:
                self.boxes[to][0].append(i)
                self.boxes[to][1].append(box)
        self.total: Any = None

    def mask(self, i: int, vector: np.ndarray) -> tuple[float, int]:
        """Seconds that client i takes, and bytes that it sends."""
        common = importlib.import_module("flwr.common")
        key, parameters = self.mod.Key, common.ndarrays_to_parameters([vector])
        asked = {key.SOURCE_LIST: self.boxes[i][0], key.CIPHERTEXT_LIST: self.boxes[i][1]}
        seconds, sent = timed(
            lambda: self.mod._collect_masked_vectors(self.states[i], asked, 1, parameters)
        )
        arithmetic = importlib.import_module("flwr.common.secure_aggregation.ndarrays_arithmetic")
        arrays = [common.bytes_to_ndarray(part) for part in sent[key.MASKED_PARAMETERS]]
        self.total = (
            arrays if self.total is None else arithmetic.parameters_addition(self.total, arrays)
        )
        return seconds, sum(map(len, sent[key.MASKED_PARAMETERS]))

    def unmask(self, dropped: set[int]) -> tuple[float, np.ndarray]:
        """Seconds that the server takes from the shares to the mean, and the mean."""
        key, shares = self.mod.Key, defaultdict(list)
        live = [i for i in self.states if i not in dropped]
        for i in live:
            asked = {key.ACTIVE_NODE_ID_LIST: live, key.DEAD_NODE_ID_LIST: sorted(dropped)}
            sent = self.mod._unmask(self.states[i], asked)
            for owner, share in zip(sent[key.NODE_ID_LIST], sent[key.SHARE_LIST], strict=True):
                shares[owner].append(share)
        seconds, mean = timed(lambda: self._unmask(shares, dropped, len(live)))
        return seconds, mean

    def _unmask(
        self, shares: Mapping[int, list[bytes]], dropped: set[int], live: int
    ) -> np.ndarray:
        base = "flwr.common.secure_aggregation."
        arithmetic = importlib.import_module(base + "ndarrays_arithmetic")
        symmetric = importlib.import_module(base + "crypto.symmetric_encryption")
        combine = importlib.import_module(base + "crypto.shamir").combine_shares
        stream = importlib.import_module(base + "secaggplus_utils").pseudo_rand_gen
        asymmetric = importlib.import_module("flwr.supercore.primitives.asymmetric")
        total = arithmetic.parameters_mod(self.total, self.modulus)
        shape = arithmetic.get_parameters_shape(total)
        for i, held in shares.items():
            secret = combine(held)
            if i not in dropped:
                mask = stream(secret, self.modulus, shape)
                total = arithmetic.parameters_subtraction(total, mask)
                continue
            private = asymmetric.bytes_to_private_key(secret)
            for j in self.states:
                if j == i:
                    continue
                public = asymmetric.bytes_to_public_key(self.publics[j][0])
                mask = stream(symmetric.generate_shared_key(private, public), self.modulus, shape)
                act = arithmetic.parameters_addition if i > j else arithmetic.parameters_subtraction
                total = act(total, mask)
        factor, arrays = arithmetic.factor_extract(arithmetic.parameters_mod(total, self.modulus))
        dequantize = importlib.import_module(base + "quantization").dequantize
        sums = dequantize(arrays, CLIP, self.target)
        mean: np.ndarray = (sums[0] - (live - 1) * CLIP) * (self.target / factor)
        return mean


# --- the comparison -----------------------------------------------------------------------------


def keystream_rate(megabytes: int = 512) -> float:
    """Bytes per second of raw AES-128-CTR from the same library, a MiB at a time."""
    cipher = Cipher(algorithms.AES(os.urandom(16)), modes.CTR(os.urandom(16))).encryptor()
    zeros, buffer = bytes(1 << 20), bytearray((1 << 20) + 16)

    def fill() -> None:
        for _ in range(megabytes):
            cipher.update_into(zeros, buffer)

    return (megabytes << 20) / timed(fill)[0]


def masking_rate(size: int, neighbours: int) -> float:
    """Bytes of mask applied per second: one self mask and one per neighbour over d coordinates."""
    drawn = [os.urandom(32) for _ in range(neighbours + 1)]
    vector = np.zeros(size, np.uint32)

    def apply() -> None:
        masks = Masks(drawn[: neighbours // 2], drawn[neighbours // 2 :])
        for start, stop in blocks(size):
            masks.apply(vector[start:stop])

    return 4 * size * len(drawn) / timed(apply)[0]


def compare_with_flower(size: int, repeats: int) -> dict[str, Any]:
    """Both libraries on the same updates; see the module's docstring."""
    count, dropped = 17, {3, 11}
    rows: dict[str, list[float]] = defaultdict(list)
    bytes_up, worst = 0, {"ours": 0.0, "flower": 0.0}
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        seeds = [int(s) for s in rng.integers(0, 2**31, count)]

        def vector(i: int, seeds: list[int] = seeds) -> np.ndarray:
            return updates(np.random.default_rng(seeds[i]), size)

        ours = one_comparison(count, dropped, (size, vector), rows, worst)
        bytes_up = max(ours.up.values())
        for _ in range(3):
            rate, masked = keystream_rate(), masking_rate(size, count - 1)
            rows["keystream_GBps"].append(rate / 1e9)
            rows["masking_GBps"].append(masked / 1e9)
            rows["keystream_fraction"].append(masked / rate)
    allowed = packed_bytes(size, VALUE_BITS + 5) + 200 * (count - 1)
    medians = {name: statistics.median(values) for name, values in rows.items()}
    whole = 4 * size * count / medians["mask_ours_s"] / 1e9
    return {
        **medians,
        "whole_step_fraction": whole / medians["keystream_GBps"],
        "bytes_fraction": bytes_up / (4 * size),
        "bytes_allowed_fraction": allowed / (4 * size),
        "bytes_flower_fraction": medians["bytes_flower"] / (4 * size),
        "worst_error_ours": worst["ours"],
        "worst_error_flower": worst["flower"],
        "size": size,
    }


def one_comparison(
    count: int,
    dropped: set[int],
    task: tuple[int, Callable[[int], np.ndarray]],
    rows: dict[str, list[float]],
    worst: dict[str, float],
) -> Ours:
    """One session on each side, masking alternately; appends seconds and ratios to `rows`."""
    size, vector = task
    # Vectors are made when they are needed: 17 of them at once would not tell about memory.
    shared = np.zeros(size, np.float32)
    ours, flower = Ours(count, size, lambda _: shared), Flower(count)
    step = ours.open()
    for name in EXCHANGES[:3]:
        step = ours.exchange(name, step, set())
    asked = wire.encode(next(iter(step.outgoing.values())))
    exact = np.zeros(size)
    for i in range(count):
        if i in dropped:
            continue
        shared[:] = vector(i)
        exact += shared
        seconds, sent = flower.mask(i + 1, shared)
        ours.answer("masked", i, asked, type(next(iter(step.outgoing.values()))))
        rows["mask_flower_s"].append(seconds)
        rows["mask_ours_s"].append(ours.client_s["masked"][-1])
        rows["mask_ratio"].append(seconds / ours.client_s["masked"][-1])
        framed = ours.client_s["masked"][-1] + ours.client_s["masked wire"][-1]
        rows["mask_framed_ratio"].append(seconds / framed)
        rows["bytes_flower"].append(float(sent))
    step = ours.server.close()
    for name in EXCHANGES[4:5]:
        step = ours.exchange(name, step, dropped)
    encoded = wire.encode(next(iter(step.outgoing.values())))
    for public, message in step.outgoing.items():
        ours.answer("reveals", ours.ids.index(public), encoded, type(message))
    theirs_s, theirs = flower.unmask({i + 1 for i in dropped})
    ours_s, last = timed(ours.server.close)
    rows["unmask_flower_s"].append(theirs_s)
    rows["unmask_ours_s"].append(ours_s)
    rows["unmask_ratio"].append(theirs_s / ours_s)
    exact /= count - len(dropped)
    worst["ours"] = max(worst["ours"], float(np.abs(last.result.mean - exact).max()) / CLIP)
    worst["flower"] = max(worst["flower"], float(np.abs(theirs - exact).max()) / CLIP)
    return ours


# --- a thousand volunteers ----------------------------------------------------------------------


def thousand(count: int = 1000, size: int = 100_000) -> dict[str, Any]:
    """A full session with 20 % dropouts after sharing; seconds per volunteer and altogether."""
    pool = [updates(np.random.default_rng(i), size) for i in range(16)]
    seconds, session = timed(lambda: Ours(count, size, lambda i: pool[i % 16]))
    dropped = set(range(0, count, 5))
    run_s, step = timed(lambda: session.run(dropped))
    live = [i for i in range(count) if i not in dropped]
    exact = np.mean([pool[i % 16].astype(float) for i in live], axis=0)
    needed = thresholds(count, DEFAULT_ASSUMPTIONS)
    return {
        "n1000_seconds": seconds + run_s,
        "n1000_participants": count,
        "n1000_size": size,
        "n1000_neighbours": needed.neighbours,
        "n1000_summed": step.result.participants,
        "n1000_worst_error": float(np.abs(step.result.mean - exact).max()) / CLIP,
        "n1000_up_bytes": max(session.up.values()),
        "n1000_down_bytes": max(session.down.values()),
        **{f"n1000_client_{k}_s": statistics.median(v) for k, v in session.client_s.items()},
        **{f"n1000_server_{k}_s": v for k, v in session.server_s.items()},
    }


# --- what a session costs -----------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """One row: seconds and bytes of one volunteer, seconds of the coordinator."""

    participants: int
    neighbours: int
    mask_s: float  # linear in k·d
    peers_s: float  # keys, shares, boxes: linear in k
    roster_s: float  # decode the roster, verify n + q signatures: linear in n, but small
    up_bytes: int
    down_bytes: int
    server_s: float
    measured: bool


def costs(size: int, repeats: int) -> Iterator[Cost]:
    """Rows for n = 10, 100, 1000 and 10 000, from parts measured at their real k and d."""
    unit = unit_costs(repeats)
    for count in (10, 100, 1000, 10_000):
        needed = thresholds(count, DEFAULT_ASSUMPTIONS)
        k, dropped = needed.neighbours, count // 5
        point = FixedPoint(min(VALUE_BITS, most_value_bits(count)), count)
        mask = statistics.median(mask_once(size, k, point) for _ in range(repeats))
        live, pairs = count - dropped, dropped * k * 4 // 5
        server = live * unit["add"] * size + 6 * count * unit["verify"]
        server += (live + pairs) * unit["stream"] * size + pairs * unit["agree"]
        server += count * statistics.median(combine_once(needed.shares) for _ in range(repeats))
        up = packed_bytes(size + 1, point.wire_bits) + k * (BOX_BYTES + SHARE_BYTES) + 660
        down = count * 168 + k * (BOX_BYTES + 5) + needed.quorum * 64 + 3 * (count // 8) + 400
        yield Cost(
            count,
            k,
            mask,
            k * unit["peer"],
            (count + needed.quorum) * unit["verify"],
            up,
            down,
            server,
            count <= 1000,
        )


def mask_once(size: int, neighbours: int, point: FixedPoint) -> float:
    """Seconds to round, mask, pack and hash one vector with that many neighbours."""
    layout = Layout(Manifest((TensorSpec("update", (size,)),)), (CLIP,))
    contribution = Contribution(updates(np.random.default_rng(0), size), 1.0)
    drawn = [os.urandom(32) for _ in range(neighbours + 1)]
    half = neighbours // 2
    made = masking.MaskKeys(tuple(drawn[half:]), tuple(drawn[:half]))
    return timed(lambda: masking.masked_vector(contribution, layout, point, os.urandom(32), made))[
        0
    ]


def unit_costs(repeats: int) -> dict[str, float]:
    """Seconds per signature, per neighbour, per added coordinate, per coordinate of keystream."""
    count = 100
    needed = thresholds(count, DEFAULT_ASSUMPTIONS)
    k = needed.neighbours
    vector = np.zeros(1000, np.float32)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        session = Ours(count, 1000, lambda _: vector)
        session.run(set(range(0, count, 5)))
        verify = statistics.median(verify_once() for _ in range(9))
        shares = statistics.median(session.client_s["shares"]) - count * verify
        rest = sum(statistics.median(session.client_s[name]) for name in ("checks", "masked"))
        found["verify"].append(verify)
        found["peer"].append((shares + rest) / k)
        found["agree"].append(agree_once())
        found["stream"].append(4 / masking_rate(1 << 20, 8))
        found["add"].append(add_once())
    return {name: statistics.median(values) for name, values in found.items()}


def verify_once() -> float:
    """Seconds to decode nothing and verify one signature, as in the roster check."""
    key = SigningKey(os.urandom(32))
    signature = key.sign("benchmark", b"part", b"part")
    return timed(lambda: signing.verify(key.public, signature, "benchmark", b"part", b"part"))[0]


def agree_once() -> float:
    """Seconds to recompute the key of one pairwise mask."""
    private, public = os.urandom(32), keys.public_of(os.urandom(32))
    return timed(lambda: masking.pair_mask_key(keys.agree(private, public), bytes(32), 0, 1))[0]


def combine_once(threshold: int) -> float:
    """Seconds to recover one secret from that many shares."""
    points = list(range(1, threshold + 1))
    dealt = shamir.split(bytes(32), threshold, points, Keystream(os.urandom(32)))
    return timed(lambda: shamir.combine(dict(zip(points, dealt, strict=True))))[0]


def add_once() -> float:
    """Seconds per coordinate to unpack a masked vector and add it."""
    size = 4 * BLOCK
    point = FixedPoint(VALUE_BITS, 1000)
    total = masking.MaskedSum(size, point)
    packed = os.urandom(packed_bytes(size, point.wire_bits))
    total.add(packed)
    return timed(lambda: total.add(packed))[0] / size


# --- output -------------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> None:
    """The figures for a person."""
    if "mask_ratio" in found:
        f = found
        print(f"{f['size']:,} parameters, 16 neighbours, 2 dropouts, one core (medians)")
        print(f"{'':24}{'Flower':>10}{'nomoat':>10}{'ratio':>8}")
        for name in ("mask", "unmask"):
            one, other = f[f"{name}_flower_s"], f[f"{name}_ours_s"]
            print(f"  {name + ', seconds':22}{one:10.3f}{other:10.3f}{f[name + '_ratio']:8.1f}")
        print(f"  {'mask, ours framed too':42}{f['mask_framed_ratio']:8.1f}")
        up = (f["bytes_flower_fraction"], f["bytes_fraction"])
        print(f"  {'bytes up / float32':22}{up[0]:10.4f}{up[1]:10.4f}{up[0] / up[1]:8.1f}")
        print(f"  {'… allowed':32}{f['bytes_allowed_fraction']:10.4f}")
        errors = (f["worst_error_flower"], f["worst_error_ours"])
        print(f"  {'worst error / clip':22}{errors[0]:10.1e}{errors[1]:10.1e}")
        print(
            f"  raw AES-128-CTR {f['keystream_GBps']:.2f} GB/s, masks applied at "
            f"{f['masking_GBps']:.2f} GB/s: {f['keystream_fraction']:.2f} of it; "
            f"with rounding, packing, hashing: {f['whole_step_fraction']:.2f}"
        )
    if "n1000_seconds" in found:
        f = found
        print(
            f"{f['n1000_participants']} volunteers × {f['n1000_size']:,}, k = "
            f"{f['n1000_neighbours']}, 20 % dropouts: {f['n1000_seconds']:.1f} s for everybody's "
            f"work on one core; {f['n1000_summed']} summed, worst error / clip "
            f"{f['n1000_worst_error']:.1e}"
        )
        for name in EXCHANGES:
            print(
                f"  {name:12} volunteer {f[f'n1000_client_{name}_s'] * 1e3:8.1f} ms   coordinator "
                f"{f[f'n1000_server_{name}_s']:7.2f} s + {f[f'n1000_server_{name} close_s']:.2f} s"
            )
    if "costs" in found:
        print("\nwhat one participant and the coordinator pay at 1 M parameters (20 % dropouts):")
        print("mask, peers and bytes up grow with k; checking the roster and bytes down with n")
        print(f"{'n':>8}{'k':>6}{'mask':>9}{'peers':>9}{'roster':>9}{'up':>11}{'down':>11}", end="")
        print(f"{'coordinator':>13}")
        for row in found["costs"]:
            print(
                f"{row['participants']:8,}{row['neighbours']:6}{row['mask_s'] * 1e3:6.0f} ms"
                f"{row['peers_s'] * 1e3:6.0f} ms{row['roster_s'] * 1e3:6.0f} ms"
                f"{row['up_bytes'] / 1e6:8.2f} MB{row['down_bytes'] / 1e3:8.0f} kB"
                f"{row['server_s']:11.1f} s" + ("" if row["measured"] else "  extrapolated")
            )


def main() -> None:
    """Run the chosen parts and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--parts", default="flower,cost,session")
    parser.add_argument("--size", type=int, default=10_000_000, help="parameters against Flower")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    parts = set(chosen.parts.split(","))
    if unknown := parts - {"flower", "cost", "session"}:
        parser.error(f"no part is called {sorted(unknown)[0]}")
    found: dict[str, Any] = {}
    if "flower" in parts:
        found |= compare_with_flower(chosen.size, chosen.repeats)
    if "session" in parts:
        found |= thousand()
    if "cost" in parts:
        found["costs"] = [vars(row) for row in costs(1_000_000, chosen.repeats)]
    if chosen.json:
        print(json.dumps(found, indent=1))
    else:
        table(found)


if __name__ == "__main__":
    main()
