"""Writing down how a round went, from its machine and what it carried."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from nomoat.aggregation.protocol.messages import SPENT, STALE
from nomoat.aggregation.secagg.thresholds import WEAK_BELOW
from nomoat.server.rounds.federation import Federation, FederationCheckpoint
from nomoat.server.rounds.machines.federated_evaluation import FederatedEvaluation
from nomoat.server.rounds.machines.round import Round
from nomoat.server.rounds.machines.round_plan import Events, RoundPhase
from nomoat.server.rounds.records import RoundRecord, macro, personal_loss
from nomoat.server.rounds.suspicion.cohorts import suspects
from nomoat.server.rounds.watching import Traffic

MOST_LEAPT = 256  # numbers of rounds at once


def record_of_start(
    start: FederationCheckpoint,
    online: tuple[str, ...],
    found: FederatedEvaluation,
    carried: Traffic,
    seconds: float,
) -> RoundRecord:
    """The record of round 0, in which the adapter nobody has trained yet is measured."""
    return RoundRecord(
        0,
        True,
        "the base model",
        online,
        dropped=found.lost,
        refused=found.refused,
        loss=macro(start.losses),
        losses=start.losses,
        evaluation=start.evaluation,
        bytes_up=carried.up,
        bytes_down=carried.down,
        seconds={"evaluating": seconds},
        adapter=start.state.adapter.digest.hex(),
    )


def record_of_round(machine: Round, federation: Federation, carried: Traffic) -> RoundRecord:
    """The record of a round that has ended."""
    outcome, events = machine.outcome, machine.events
    assert outcome is not None
    after = outcome.after
    personal = after.personal if outcome.committed else {}
    ready = dict(sorted(events.ready.items()))
    return RoundRecord(
        machine.plan.task.round,
        outcome.committed,
        outcome.reason,
        machine.plan.cohort,
        events.contributors,
        dict(sorted(events.lost.items())),
        dict(sorted(events.refused.items())),
        macro(after.losses),
        after.losses,
        evaluation=after.evaluation,
        personal=personal,
        personal_loss=personal_loss(after.losses, personal),
        ranks={name: one.rank for name, one in ready.items()},
        learning_rate=machine.plan.task.settings.learning_rate,
        train_loss={name: one.last_loss for name, one in ready.items()},
        tokens=sum(one.tokens for one in ready.values()),
        bytes_up=carried.up,
        bytes_down=carried.down,
        seconds=phase_seconds(events.phase_started),
        session=protection(federation, len(events.contributors)),
        adapter=after.state.adapter.digest.hex(),
        train_seconds={name: round(one.seconds, 6) for name, one in ready.items()},
        suspects=suspects(machine.plan.suspected),
        norm_bound=events.norm_bound,
        noise=federation.noise_multiplier if federation.secure and events.norm_bound else 0.0,
        excluded=len({name for session in events.sessions for name in session.proofs}),
        misfits=tuple(sorted(events.misfits)),
        sums=machine.plan.sums,
        left_out={name: n for n, members in enumerate(events.left_out) for name in members},
        reusable=_reusable(events),
    )


def not_taken(record: RoundRecord, before: FederationCheckpoint, why: str) -> RoundRecord:
    """Return the record of a round whose candidate passed, and is not taken all the same."""
    return replace(
        record,
        committed=False,
        reason=why,
        loss=macro(before.losses),
        losses=before.losses,
        personal={},
        personal_loss=None,
        evaluation=before.evaluation,
        adapter=before.state.adapter.digest.hex(),
    )


def record_of_leap(last: int, spent: int) -> RoundRecord | None:
    """Return a record that ends rounds nobody begins, after `last`; None if there is no need.

    spent: rounds in a row, up to `last`, that most volunteers have behind them: a backup was put
    back twice, say. The first goes on with the next number, those after it pass over 1, 3, 7 …, at
    most MOST_LEAPT: so few tries find the first number that is free.
    """
    over = min(2 ** min(spent - 1, 30) - 1, MOST_LEAPT) if spent else 0
    number = last + over
    reason = f"passed over: volunteers have rounds up to {last} or later behind them"
    return RoundRecord(number, False, reason) if over else None


def _reusable(events: Events) -> bool:
    """Return True if nobody was asked for an update, and nobody has seen the round go further."""
    asked = RoundPhase.AGGREGATING in events.phase_started
    return not asked and {STALE, SPENT}.isdisjoint(events.lost.values())


def protection(federation: Federation, participants: int) -> str:
    """The protection of an aggregation over that many, in the words used wherever it is shown."""
    if not federation.secure:
        return "plain"
    weak = participants < WEAK_BELOW or federation.min_reports < WEAK_BELOW
    return f"weak: {participants} participants" if weak else f"secure: {participants} participants"


def phase_seconds(started: Mapping[RoundPhase, float]) -> dict[str, float]:
    """Seconds spent in each phase, from the times they began."""
    order = sorted(started.items(), key=lambda item: item[1])
    return {
        phase.value: round(following - begun, 6)
        for (phase, begun), (_, following) in itertools.pairwise(order)
    }
