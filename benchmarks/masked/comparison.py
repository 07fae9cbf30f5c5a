"""Both libraries on the same updates, and masking against the raw cipher."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from masked.flower import Flower
from masked.session import EXCHANGES, Ours
from masked.timing import CLIP, timed, updates
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.secagg.masks.prg import Masks
from nomoat.aggregation.secagg.parameters import VALUE_BITS
from nomoat.aggregation.sums.packing import blocks, packed_bytes


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
