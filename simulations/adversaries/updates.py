"""The update a liar sends in place of the update that its training gave."""

from __future__ import annotations

import hashlib

import numpy as np

from nomoat.aggregation.protocol.adapter import Vector
from nomoat.aggregation.sums.norm_bound import norm_of
from nomoat.client.round.session import RoundSession
from nomoat.client.round.uploads import upload_of
from nomoat.client.round.work import HeldUpdate
from nomoat.server.rounds.cohort import generator
from nomoat.simulations.adversaries.kinds import Attack

TOO_LARGE = np.float32(8.0)
EDGE = 1.4


def lie(kind: Attack, vector: Vector, clip_l2: float, seed: bytes) -> Vector:
    """The vector that is sent instead; clip_l2: the bound that was asked for, 0 for none."""
    norm = norm_of(vector)
    if kind in {Attack.RANDOM, Attack.FREE_RIDER}:
        drawn = generator(seed).normal(size=len(vector)).astype(np.float32)
        drawn *= np.float32(norm / norm_of(drawn))
        return drawn * TOO_LARGE if kind is Attack.RANDOM else drawn
    if kind in {Attack.ADAPTIVE, Attack.EDGE}:
        times = EDGE if kind is Attack.EDGE else 1.0
        return vector * np.float32(times * clip_l2 / norm) if clip_l2 and norm else vector
    return vector * (-TOO_LARGE if kind is Attack.SIGN_FLIP else TOO_LARGE)


def lying(kind: Attack) -> type[RoundSession]:
    """The session of a volunteer whose updates are lies, and all else is as it should be."""

    class LyingSession(RoundSession):
        def upload(
            self, held: HeldUpdate, exchange: int, reply: Vector | None, clip_l2: float
        ) -> Vector:
            honest = upload_of(held, exchange, reply, 0.0)
            about = f"{self.name} {held.round} {exchange}".encode()
            return lie(kind, honest, clip_l2, hashlib.sha256(about).digest())

    return LyingSession
