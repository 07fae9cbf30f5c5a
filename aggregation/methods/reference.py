"""One whole round of any method in memory: the order in which its functions are to be called.

The slow, readable twin of the coordinator's and the volunteers' round machines; tests compare
them with it and benchmarks drive methods by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nomoat.aggregation.methods.base import (
    LocalRound,
    LocalStart,
    MethodState,
    PlaintextMethod,
    PlaintextReport,
    SummedMethod,
)
from nomoat.aggregation.protocol.adapter import Adapter, Vector
from nomoat.aggregation.sums.exact_sum import ExactSum


@dataclass(frozen=True)
class Player:
    """A volunteer: weight in (0, 1], rank, how it trains, and how many exchanges it stays for."""

    weight: float
    rank: int
    train: Callable[[LocalStart], Adapter]
    seed: bytes = b""
    exchanges: int = 99


def play_round(
    method: SummedMethod | PlaintextMethod,
    state: MethodState,
    players: Sequence[Player],
    round: int,
) -> MethodState:
    """Everybody starts from the broadcast, trains and reports; the next state."""
    locals_ = [method.start(state.adapter, LocalRound(round, p.rank, p.seed)) for p in players]
    trained = [player.train(local) for player, local in zip(players, locals_, strict=True)]
    if isinstance(method, PlaintextMethod):
        uploads = tuple(
            PlaintextReport(player.weight, method.upload(local, adapter, round), player.rank)
            for player, local, adapter in zip(players, locals_, trained, strict=True)
        )
        return method.commit_each(state, uploads, round)
    reply: Vector | None = None
    for exchange in range(1, method.traits.exchanges + 1):
        total = ExactSum.empty(method.manifest(state.adapter.spec, round, exchange).size)
        for player, local, adapter in zip(players, locals_, trained, strict=True):
            if exchange <= player.exchanges:
                total.add(method.upload(local, adapter, round, exchange, reply), player.weight)
        mean = total.mean()
        if exchange < method.traits.exchanges:
            reply = method.reply(state, mean, round, exchange)
    return method.commit(state, method.update(state, mean, round), round, reply)
