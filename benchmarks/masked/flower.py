"""Flower's side: the functions of flwr's SecAgg+ client and workflow, without the network."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from masked.timing import CLIP, timed


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
