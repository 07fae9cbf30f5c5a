"""A round ends well with whoever keeps to the protocol, and leaves the old adapter otherwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from builders import train_task
from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods.base import LocalRound, MethodState, SummedMethod
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, as_bytes, as_vector
from nomoat.aggregation.protocol.messages import (
    Decline,
    EvaluateTask,
    Evaluation,
    Ready,
    Report,
    ReportRequest,
    TrainTask,
)
from nomoat.aggregation.sums.intake import Intake
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.machines.interfaces import Outgoing
from nomoat.server.rounds.machines.patience import Waiting
from nomoat.server.rounds.machines.plain_exchange import PlainExchange
from nomoat.server.rounds.machines.round import TRANSITIONS, Round, RoundPhase, RoundPlan

SPEC = AdapterSpec((LayerSpec("model.q", 6, 5, 2),), 2, 4.0, target_modules=("q",))
START = Adapter(SPEC, np.linspace(-0.5, 0.5, SPEC.size, dtype=np.float32))
NUMBER = 3


def task(number: int = NUMBER, method: str = "fedavg") -> TrainTask:
    return train_task(START, number, method=method)


def ready(number: int = NUMBER, tokens: int = 100, rank: int = SPEC.rank) -> wire.Packet:
    return wire.encode(Ready(number, 2, tokens, 4.0, 3.5, 1.0, rank))


def report(
    vector: np.ndarray, weight: float = 1.0, number: int = NUMBER, exchange: int = 1
) -> wire.Packet:
    return wire.encode(Report(number, exchange, weight, as_bytes(vector)))


def evaluation(
    loss: float = 1.0, number: int = NUMBER, personal: float | None = None
) -> wire.Packet:
    return wire.encode(Evaluation(number, loss, 50, personal))


def decline(reason: str = "work failed", number: int = NUMBER) -> wire.Packet:
    return wire.encode(Decline(number, reason))


def delta(value: float) -> np.ndarray:
    return np.full(SPEC.size, value, np.float32)


@dataclass
class Play:
    """A round and what it has said, in order."""

    round: Round
    said: list[Outgoing] = field(default_factory=list)

    def start(self, now: float = 0.0) -> list[Outgoing]:
        return self._note(self.round.start(now))

    def tell(self, volunteer: str, packet: wire.Packet, now: float = 1.0) -> list[Outgoing]:
        return self._note(self.round.receive(volunteer, packet, now))

    def leave(self, volunteer: str, now: float = 1.0) -> list[Outgoing]:
        return self._note(self.round.leave(volunteer, "gone", now))

    def wake(self, now: float) -> list[Outgoing]:
        return self._note(self.round.wake(now))

    def _note(self, outgoing: list[Outgoing]) -> list[Outgoing]:
        self.said += outgoing
        return outgoing

    def train(self, *volunteers: str) -> None:
        for volunteer in volunteers:
            self.tell(volunteer, ready())

    def to(self, phase: RoundPhase, cohort: tuple[str, ...]) -> None:
        """Bring a fresh round to a phase with honest answers."""
        if phase is RoundPhase.NEW:
            return
        self.start()
        if phase is RoundPhase.TRAINING:
            return
        if phase is RoundPhase.ABANDONED:
            for name in cohort:
                self.leave(name)
            return
        self.train(*cohort)
        if phase is RoundPhase.AGGREGATING:
            return
        for name in cohort:
            self.tell(name, report(delta(0.01)))
        if phase is RoundPhase.COMMITTED:
            for name in cohort:
                self.tell(name, evaluation())


@pytest.fixture
def play() -> Callable[..., Play]:
    """A round over the given volunteers, who all evaluate too."""

    def make(
        cohort: tuple[str, ...] = ("ada", "bob", "cy"),
        minimum: int = 2,
        method: str = "fedavg",
        deadlines_s: tuple[float, float, float] = (math.inf, math.inf, math.inf),
        previous: dict[str, float] | None = None,
        evaluators: tuple[str, ...] | None = None,
    ) -> Play:
        chosen = methods.get(method)
        assert isinstance(chosen, SummedMethod)
        state = chosen.begin(START)
        train_s, aggregate_s, evaluate_s = deadlines_s
        plan = RoundPlan(
            task(method=method),
            cohort,
            cohort if evaluators is None else evaluators,
            minimum,
            FederationCheckpoint(NUMBER - 1, state, previous or {}),
            0.05,
            train_s,
            evaluate_s,
        )

        def open_exchange(ranks: Mapping[str, int], number: int, reply: bytes) -> PlainExchange:
            return PlainExchange(
                tuple(ranks),
                ReportRequest(NUMBER, number, START.digest, reply),
                Intake.of(chosen.manifest(SPEC, NUMBER, number)),
                minimum,
                Waiting(aggregate_s),
            )

        return Play(Round(plan, chosen, open_exchange))

    return make


def test_a_round_commits_the_mean_of_its_reports(play: Callable[..., Play]) -> None:
    game = play()
    game.start()
    game.train("cy", "ada", "bob")
    game.tell("bob", report(delta(0.04), 0.5))
    game.tell("cy", report(delta(-0.02), 0.25))
    game.tell("ada", report(delta(0.01), 0.25))
    for name, loss in (("bob", 2.0), ("ada", 1.0), ("cy", 3.0)):
        game.tell(name, evaluation(loss))
    outcome = game.round.outcome
    assert outcome is not None
    assert outcome.committed
    expected = START.vector + np.float32((0.04 - 0.02 + 0.01) / 3)
    np.testing.assert_allclose(outcome.after.state.adapter.vector, expected, atol=1e-6)
    assert outcome.after.losses == {"ada": 1.0, "bob": 2.0, "cy": 3.0}
    assert game.round.events.contributors == ("ada", "bob", "cy")
    assert game.round.done


def test_the_order_of_answers_changes_neither_a_bit_nor_the_record(
    play: Callable[..., Play],
) -> None:
    rng = np.random.default_rng(7)
    names = ("ada", "bob", "cy", "dee")
    deltas = {name: rng.normal(0, 0.1, SPEC.size).astype(np.float32) for name in names}
    weights = {name: float(w) for name, w in zip(names, rng.uniform(0.01, 1, 4), strict=True)}
    found = set()
    for order in itertools.permutations(names):
        game = play(names)
        game.start()
        game.train(*order)
        for name in reversed(order):
            game.tell(name, report(deltas[name], weights[name]))
        for name in order:
            game.tell(name, evaluation(weights[name]))
        outcome = game.round.outcome
        assert outcome is not None
        found.add(
            (
                outcome.after.state.adapter.digest,
                tuple(outcome.after.losses.items()),
                game.round.events.contributors,
            )
        )
    assert len(found) == 1


EVERY_PACKET = {
    "ready": ready(),
    "report": report(delta(0.01)),
    "evaluation": evaluation(),
    "decline": decline(),
    "train task": wire.encode(task()),
    "report request": wire.encode(ReportRequest(NUMBER, 1, b"h" * 32)),
    "garbage": wire.Packet(b"\xc1\xff", b"\x00"),
    "empty": wire.Packet(b""),
}


@pytest.mark.parametrize("phase", list(RoundPhase))
def test_every_event_in_every_phase_moves_along_the_table_or_not_at_all(
    play: Callable[..., Play], phase: RoundPhase
) -> None:
    """Only `start` twice is our own error; nothing a volunteer sends raises, whatever the phase."""
    allowed = {(before, after) for (before, _), after in TRANSITIONS.items()}
    # A single answer can end several phases at once (a last report, then a survey of nobody).
    for _ in range(len(RoundPhase)):
        allowed |= {(a, d) for a, b in allowed for c, d in allowed if b is c}
    events: list[Callable[[Play], object]] = [lambda game: game.leave("ada")]
    events += [lambda game: game.leave("stranger"), lambda game: game.wake(10.0)]
    events += [lambda game: game.wake(1e9)]
    for packet in EVERY_PACKET.values():
        for who in ("ada", "stranger"):
            events.append(lambda game, p=packet, w=who: game.tell(w, p))
    for event in events:
        game = play(("ada", "bob"), 1, deadlines_s=(100.0, 100.0, 100.0))
        game.to(phase, ("ada", "bob"))
        assert game.round.phase is phase
        event(game)
        assert game.round.phase is phase or (phase, game.round.phase) in allowed
        assert game.round.done is (game.round.phase in (RoundPhase.COMMITTED, RoundPhase.ABANDONED))


@pytest.mark.parametrize("phase", [phase for phase in RoundPhase if phase is not RoundPhase.NEW])
def test_a_round_starts_once(play: Callable[..., Play], phase: RoundPhase) -> None:
    game = play(("ada", "bob"), 1)
    game.to(phase, ("ada", "bob"))
    with pytest.raises(LocalProtocolError):
        game.start()


@pytest.mark.parametrize("phase", [RoundPhase.COMMITTED, RoundPhase.ABANDONED])
def test_a_round_that_has_ended_stays_as_it_ended(
    play: Callable[..., Play], phase: RoundPhase
) -> None:
    """A deadline of training that passes while others evaluate once brought an ended round down."""
    game = play(("ada", "bob"), 1, deadlines_s=(5.0, 5.0, 5.0))
    game.to(phase, ("ada", "bob"))
    outcome = game.round.outcome
    assert game.round.next_deadline == math.inf
    assert game.wake(1e9) == []
    for packet in EVERY_PACKET.values():
        assert game.tell("ada", packet) == []
    assert game.leave("bob") == []
    assert game.round.outcome is outcome


@pytest.mark.parametrize(("size", "minimum"), [(0, 1), (1, 2), (3, 4)])
def test_too_few_volunteers_abandon_the_round_and_the_old_adapter_stands(
    play: Callable[..., Play], size: int, minimum: int
) -> None:
    names = tuple(f"v{i}" for i in range(size))
    game = play(names, minimum, previous={"v0": 2.5})
    game.start()
    game.train(*names)
    outcome = game.round.outcome
    assert outcome is not None
    assert not outcome.committed
    assert outcome.after.state.adapter is START
    assert outcome.after.losses == {"v0": 2.5}
    assert outcome.reason == f"{size} of {minimum} ready"


def test_a_cohort_of_one_can_commit_if_one_is_enough(play: Callable[..., Play]) -> None:
    game = play(("ada",), 1)
    game.to(RoundPhase.COMMITTED, ("ada",))
    assert game.round.outcome is not None
    assert game.round.outcome.committed


def test_a_cohort_of_ten_thousand_takes_seconds_and_one_vector(play: Callable[..., Play]) -> None:
    names = tuple(f"v{i:05d}" for i in range(10_000))
    game = play(names, 5_000)
    game.start()
    game.train(*names)
    packet = report(delta(0.01), 0.5)
    for name in names:
        game.tell(name, packet)
    answer = evaluation(1.5)
    for name in names:
        game.tell(name, answer)
    outcome = game.round.outcome
    assert outcome is not None
    assert outcome.committed
    np.testing.assert_allclose(outcome.after.state.adapter.vector, START.vector + 0.01, atol=1e-6)
    assert len(game.round.events.contributors) == 10_000


def test_stragglers_are_named_at_each_deadline_and_the_rest_go_on(
    play: Callable[..., Play],
) -> None:
    names = ("ada", "bob", "cy", "dee", "eve")
    game = play(names, 2, deadlines_s=(10.0, 20.0, 30.0))
    game.start(0.0)
    game.train("ada", "bob", "cy", "dee")
    assert game.round.next_deadline == 10.0
    game.wake(9.9)
    assert game.round.phase is RoundPhase.TRAINING
    asked = game.wake(10.0)
    assert {item.volunteer for item in asked} == {"ada", "bob", "cy", "dee"}
    assert game.round.next_deadline == 30.0
    for name in ("ada", "bob", "cy"):
        game.tell(name, report(delta(0.01)), 11.0)
    game.wake(30.0)
    assert game.round.phase is RoundPhase.EVALUATING
    assert game.round.next_deadline == 60.0
    game.tell("ada", evaluation(), 31.0)
    game.tell("bob", evaluation(), 31.0)
    game.wake(60.0)
    assert game.round.phase is RoundPhase.COMMITTED
    events = game.round.events
    assert events.contributors == ("ada", "bob", "cy")
    assert events.lost == {
        "eve": "too late to train",
        "dee": "too late to report",
        "cy": "too late to evaluate",
    }
    assert events.refused == {}
    assert [events.phase_started[p] for p in (RoundPhase.AGGREGATING, RoundPhase.EVALUATING)] == [
        10.0,
        30.0,
    ]


def test_a_late_answer_is_ignored(play: Callable[..., Play]) -> None:
    game = play(("ada", "bob", "cy"), 2, deadlines_s=(10.0, math.inf, math.inf))
    game.start(0.0)
    game.train("ada", "bob")
    game.wake(10.0)
    assert game.tell("cy", ready(), 12.0) == []
    assert "cy" not in game.round.events.ready
    assert game.tell("cy", report(delta(9.0)), 13.0) == []
    for name in ("ada", "bob"):
        game.tell(name, report(delta(0.01)))
    assert game.round.events.contributors == ("ada", "bob")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (report(np.full(SPEC.size, np.nan, np.float32)), "NaN"),
        (report(np.full(SPEC.size, np.inf, np.float32)), "NaN or infinity"),
        (report(np.full(SPEC.size, 1e6, np.float32)), "more than"),
        (report(np.zeros(SPEC.size - 1, np.float32)), "bytes"),
        (report(np.zeros(SPEC.size // 2, np.float32)), "bytes"),  # a rank-1 adapter's length
        (report(np.zeros(0, np.float32)), "bytes"),
        (report(delta(0.01), number=NUMBER + 1), f"reported round {NUMBER + 1}"),
        (report(delta(0.01), exchange=2), "reported"),
        (evaluation(), "'evaluation'"),
        (ready(), "'ready'"),
        (decline("nothing held"), "nothing held"),
        (wire.Packet(b"\x00" * 40), "msgpack"),
    ],
)
def test_a_bad_report_is_refused_by_name_and_the_round_goes_on(
    play: Callable[..., Play], bad: wire.Packet, why: str
) -> None:
    game = play()
    game.start()
    game.train("ada", "bob", "cy")
    game.tell("ada", report(delta(0.01)))
    game.tell("bob", bad)
    game.tell("cy", report(delta(0.01)))
    for name in ("ada", "bob", "cy"):
        game.tell(name, evaluation())
    outcome = game.round.outcome
    assert outcome is not None
    assert outcome.committed
    np.testing.assert_allclose(outcome.after.state.adapter.vector, START.vector + 0.01, atol=1e-6)
    assert why in game.round.events.refused["bob"]
    assert game.round.events.contributors == ("ada", "cy")
    assert "bob" not in game.round.events.lost


@pytest.mark.parametrize("weight", [1e9, -5.0, 0.0, 1.0000001, 1e-10, math.nan, math.inf])
def test_an_absurd_weight_is_refused_by_name(play: Callable[..., Play], weight: float) -> None:
    """Our own encoder refuses these, so the head is forged."""
    honest = report(delta(0.01), 0.5)
    import msgpack

    version, kind, fields = msgpack.unpackb(honest.head)
    fields[2] = weight
    forged = wire.Packet(msgpack.packb([version, kind, fields]), honest.body)
    game = play()
    game.start()
    game.train("ada", "bob", "cy")
    game.tell("bob", forged)
    game.tell("ada", honest)
    game.tell("cy", honest)
    assert "weight" in game.round.events.refused["bob"]
    assert game.round.events.contributors == ("ada", "cy")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (ready(NUMBER - 1), f"ready for round {NUMBER - 1}"),
        (report(delta(0.01)), "'report'"),
        (evaluation(), "'evaluation'"),
        (wire.Packet(b"junk"), "head"),
    ],
)
def test_a_bad_ready_is_refused_by_name_and_not_asked_to_report(
    play: Callable[..., Play], bad: wire.Packet, why: str
) -> None:
    game = play()
    game.start()
    game.tell("bob", bad)
    game.train("ada", "cy")
    assert game.round.phase is RoundPhase.AGGREGATING
    assert why in game.round.events.refused["bob"]
    asked = [o.volunteer for o in game.said if wire.peek_kind(o.packet, "") == "query.report"]
    assert asked == ["ada", "cy"]


def test_whoever_declines_or_leaves_is_lost_and_not_refused(play: Callable[..., Play]) -> None:
    game = play(("ada", "bob", "cy", "dee"))
    game.start()
    game.tell("bob", decline("paused"))
    game.leave("cy")
    game.train("ada", "dee")
    assert game.round.phase is RoundPhase.AGGREGATING
    assert game.round.events.lost == {"bob": "paused", "cy": "gone"}
    assert game.round.events.refused == {}


def test_too_few_valid_reports_abandon_and_the_old_adapter_stands(
    play: Callable[..., Play],
) -> None:
    game = play(previous={"ada": 1.0})
    game.start()
    game.train("ada", "bob", "cy")
    nan = report(np.full(SPEC.size, np.nan, np.float32))
    game.tell("ada", nan)
    game.tell("bob", nan)
    game.tell("cy", report(delta(0.01)))
    outcome = game.round.outcome
    assert outcome is not None
    assert not outcome.committed
    assert outcome.after.state.adapter is START
    assert outcome.reason == "1 of 2 reports valid"
    assert sorted(game.round.events.refused) == ["ada", "bob"]


def test_answering_twice_counts_once(play: Callable[..., Play]) -> None:
    game = play(("ada", "bob"), 2)
    game.start()
    game.tell("ada", ready())
    game.tell("ada", ready(tokens=10**9))
    assert game.round.phase is RoundPhase.TRAINING
    assert game.round.events.ready["ada"].tokens == 100
    game.tell("bob", ready())
    game.tell("ada", report(delta(0.02)))
    game.tell("ada", report(delta(30.0)))
    game.tell("bob", report(delta(0.02)))
    game.tell("ada", evaluation(1.0))
    game.tell("ada", evaluation(9.0))
    game.tell("bob", evaluation(2.0))
    outcome = game.round.outcome
    assert outcome is not None
    np.testing.assert_allclose(outcome.after.state.adapter.vector, START.vector + 0.02, atol=1e-6)
    assert outcome.after.losses == {"ada": 1.0, "bob": 2.0}


def test_a_stranger_changes_nothing(play: Callable[..., Play]) -> None:
    game = play(("ada", "bob"), 2)
    game.start()
    game.tell("mallory", ready())
    game.train("ada", "bob")
    game.tell("mallory", report(delta(30.0)))
    for name in ("ada", "bob"):
        game.tell(name, report(delta(0.01)))
    game.tell("mallory", evaluation(0.0))
    for name in ("ada", "bob"):
        game.tell(name, evaluation())
    outcome = game.round.outcome
    assert outcome is not None
    np.testing.assert_allclose(outcome.after.state.adapter.vector, START.vector + 0.01, atol=1e-6)
    assert set(outcome.after.losses) == {"ada", "bob"}
    assert "mallory" not in game.round.events.contributors


def test_a_worse_adapter_is_rejected_and_the_old_one_stands(play: Callable[..., Play]) -> None:
    previous = {"ada": 1.0, "bob": 1.0, "cy": 1.0}
    game = play(previous=previous)
    game.start()
    game.train("ada", "bob", "cy")
    for name in previous:
        game.tell(name, report(delta(0.01)))
    for name, loss in (("ada", 1.2), ("bob", 1.1), ("cy", 0.9)):
        game.tell(name, evaluation(loss))
    outcome = game.round.outcome
    assert outcome is not None
    assert not outcome.committed
    assert outcome.after.state.adapter is START
    assert outcome.after.losses == previous
    assert "rose by 10.0%" in outcome.reason


@pytest.mark.parametrize(
    ("before", "own", "accepted"),
    [
        ({}, {"ada": 0.9, "bob": 0.8, "cy": 2.0}, True),
        ({}, {"ada": 1.2, "bob": 1.1, "cy": 0.9}, False),
        ({}, {"ada": 1.2, "bob": None, "cy": None}, False),
        ({"ada": 0.5, "bob": 0.6}, {"ada": 0.6, "bob": 0.7, "cy": 0.9}, False),
        ({"ada": 0.5, "bob": 0.6}, {"ada": 0.5, "bob": 0.5, "cy": 0.9}, True),
    ],
)
def test_where_b_stays_at_home_a_round_is_judged_by_those_who_have_one(
    play: Callable[..., Play],
    before: dict[str, float],
    own: dict[str, float | None],
    accepted: bool,
) -> None:
    previous = dict.fromkeys(own, 1.0)  # the base model's, for ever
    game = play(method="local-B", previous=previous)
    settings = replace(game.round.plan.task.settings, personal="local-B")
    task = replace(game.round.plan.task, settings=settings)
    standing = replace(game.round.plan.before, personal=before)
    game.round.plan = replace(game.round.plan, task=task, before=standing)
    game.start()
    game.train(*own)
    for name in own:
        game.tell(name, report(np.full(10, 0.01, np.float32)))
    for name, loss in own.items():
        game.tell(name, evaluation(1.0, personal=loss))
    outcome = game.round.outcome
    assert outcome is not None
    assert outcome.committed is accepted
    assert outcome.after.losses == previous
    assert outcome.after.personal == ({k: v for k, v in own.items() if v} if accepted else before)


@pytest.mark.parametrize("lie", [0.0, 1e4])
def test_one_lying_evaluator_of_three_decides_nothing(
    play: Callable[..., Play], lie: float
) -> None:
    previous = {"ada": 1.0, "bob": 1.0, "cy": 1.0}
    for honest, accepted in ((0.9, True), (1.2, False)):
        game = play(previous=previous)
        game.to(RoundPhase.EVALUATING, ("ada", "bob", "cy"))
        game.tell("cy", evaluation(lie))
        game.tell("ada", evaluation(honest))
        game.tell("bob", evaluation(honest))
        outcome = game.round.outcome
        assert outcome is not None
        assert outcome.committed is accepted


def test_an_adapter_that_nobody_measured_does_not_replace_one_that_was(
    play: Callable[..., Play],
) -> None:
    game = play(previous={"ada": 1.0})
    game.to(RoundPhase.EVALUATING, ("ada", "bob", "cy"))
    for name in ("ada", "bob", "cy"):
        game.leave(name)
    outcome = game.round.outcome
    assert outcome is not None
    assert not outcome.committed
    assert outcome.after.state.adapter is START


def test_the_first_refusal_of_a_volunteer_is_the_one_on_record(play: Callable[..., Play]) -> None:
    game = play()
    game.start()
    game.train("ada", "bob", "cy")
    game.tell("bob", report(np.full(SPEC.size, np.nan, np.float32)))
    game.tell("ada", report(delta(0.01)))
    game.tell("cy", report(delta(0.01)))
    game.tell("bob", ready())  # and once more, where an evaluation belongs
    game.tell("ada", evaluation())
    game.tell("cy", evaluation())
    assert game.round.done
    assert "NaN" in game.round.events.refused["bob"]


def test_everyone_gets_the_committed_candidate_to_evaluate(play: Callable[..., Play]) -> None:
    game = play(("ada", "bob"), 2, evaluators=("ada", "bob", "zoe"))
    game.to(RoundPhase.EVALUATING, ("ada", "bob"))
    asked = [o for o in game.said if wire.peek_kind(o.packet, "") == "evaluate.heldout"]
    assert [o.volunteer for o in asked] == ["ada", "bob", "zoe"]
    measured = wire.decode(asked[0].packet, EvaluateTask, "")
    np.testing.assert_allclose(as_vector(measured.adapter), START.vector + 0.01, atol=1e-6)
    for name in ("ada", "bob", "zoe"):
        game.tell(name, evaluation())
    outcome = game.round.outcome
    assert outcome is not None
    assert as_bytes(outcome.after.state.adapter.vector) == measured.adapter


@pytest.mark.parametrize("spoilt", [1, 2])
def test_a_nan_in_either_of_two_exchanges_costs_only_its_sender(
    play: Callable[..., Play], spoilt: int
) -> None:
    """It is found when the exchange closes, or later than other reports: still before the next."""
    method = methods.get("fedask")
    assert isinstance(method, SummedMethod)
    rng = np.random.default_rng(4)
    start = method.start(START, LocalRound(NUMBER, SPEC.rank, b"s"))
    trained = {
        name: Adapter(SPEC, START.vector + rng.normal(0, 0.05, SPEC.size).astype(np.float32))
        for name in ("ada", "bob", "cy")
    }
    adapters = []
    for cohort in (("ada", "bob", "cy"), ("ada", "cy")):
        game = play(cohort, 2, method="fedask")
        game.start()
        game.train(*cohort)
        reply = None
        for exchange in (1, 2):
            asked = [
                o.volunteer
                for o in game.said
                if wire.peek_kind(o.packet, "") == "query.report"
                and wire.decode(o.packet, ReportRequest, "").exchange == exchange
            ]
            assert asked == [n for n in cohort if n != "bob" or exchange <= spoilt]
            if exchange == 2:
                reply = as_vector(wire.decode(game.said[-1].packet, ReportRequest, "").reply)
            for name in asked:
                vector = method.upload(start, trained[name], NUMBER, exchange, reply)
                if name == "bob" and exchange == spoilt:
                    vector = np.full_like(vector, math.nan)
                game.tell(name, report(vector, exchange=exchange))
        for name in cohort:
            game.tell(name, evaluation())
        outcome = game.round.outcome
        assert outcome is not None
        assert outcome.committed
        assert game.round.events.contributors == ("ada", "cy")
        assert game.round.events.lost == {}
        assert list(game.round.events.refused) == [n for n in cohort if n == "bob"]
        adapters.append(outcome.after.state.adapter.vector)
    if spoilt == 1:  # bob is in no sum, so it is the round of the other two
        assert adapters[0].tobytes() == adapters[1].tobytes()


def test_a_method_of_two_exchanges_asks_twice_and_commits_what_its_reference_says(
    play: Callable[..., Play],
) -> None:
    method = methods.get("fedask")
    assert isinstance(method, SummedMethod)
    rng = np.random.default_rng(3)
    start = method.start(START, LocalRound(NUMBER, SPEC.rank, b"s"))
    trained = {
        name: Adapter(SPEC, START.vector + rng.normal(0, 0.05, SPEC.size).astype(np.float32))
        for name in ("ada", "bob", "cy")
    }
    game = play(("ada", "bob", "cy", "dee"), 2, method="fedask")
    game.start()
    game.train("ada", "bob", "cy", "dee")
    requests = [wire.decode(o.packet, ReportRequest, "") for o in game.said[4:]]
    assert [r.exchange for r in requests] == [1, 1, 1, 1]
    assert not requests[0].reply
    game.leave("dee")
    for name, adapter in trained.items():
        game.tell(name, report(method.upload(start, adapter, NUMBER, 1)))
    second = [o for o in game.said if wire.peek_kind(o.packet, "") == "query.report"][4:]
    assert [o.volunteer for o in second] == ["ada", "bob", "cy"]  # only who is in the first sum
    request = wire.decode(second[0].packet, ReportRequest, "")
    assert request.exchange == 2
    reply = as_vector(request.reply)
    for name in ("ada", "bob"):  # the third is lost between the two
        vector = method.upload(start, trained[name], NUMBER, 2, reply)
        game.tell(name, report(vector, exchange=2))
    game.leave("cy")
    for name in ("ada", "bob", "cy", "dee"):
        game.tell(name, evaluation())
    outcome = game.round.outcome
    assert outcome is not None
    assert outcome.committed
    assert game.round.events.contributors == ("ada", "bob")
    mean = np.mean(
        [method.upload(start, trained[n], NUMBER, 2, reply) for n in ("ada", "bob")], axis=0
    ).astype(np.float32)
    expected: MethodState = method.commit(method.begin(START), mean, NUMBER, reply)
    for (_, a, b), (_, a2, b2) in zip(
        outcome.after.state.adapter.factors(), expected.adapter.factors(), strict=True
    ):
        np.testing.assert_allclose(b @ a, b2 @ a2, atol=1e-5)


def test_too_few_in_the_second_exchange_abandon_the_round(play: Callable[..., Play]) -> None:
    method = methods.get("fedask")
    start = method.start(START, LocalRound(NUMBER, SPEC.rank, b"s"))
    changed = Adapter(SPEC, START.vector + np.float32(0.01))
    game = play(("ada", "bob"), 2, method="fedask")
    game.start()
    game.train("ada", "bob")
    for name in ("ada", "bob"):
        game.tell(name, report(method.upload(start, changed, NUMBER, 1)))
    assert game.round.phase is RoundPhase.AGGREGATING
    game.leave("ada")
    assert game.round.phase is RoundPhase.AGGREGATING
    game.leave("bob")
    outcome = game.round.outcome
    assert outcome is not None
    assert not outcome.committed
    assert outcome.after.state.adapter is START


def test_a_plan_is_not_changed_by_its_round(play: Callable[..., Play]) -> None:
    previous = {"ada": 1.0}
    game = play(("ada", "bob"), 2, previous=previous)
    standing = replace(game.round.plan.before, losses=dict(previous))
    before = replace(game.round.plan, before=standing)
    game.to(RoundPhase.COMMITTED, ("ada", "bob"))
    assert game.round.plan == before


@pytest.mark.parametrize(("steps", "tokens"), [(2, 2**40), (13, 100), (1, 8 * 512 + 1)])
def test_nobody_has_trained_on_more_than_was_asked_for(
    play: Callable[..., Play], steps: int, tokens: int
) -> None:
    game = play(("ada", "bob", "cy"), 2)
    game.start()
    game.tell("ada", wire.encode(Ready(NUMBER, steps, tokens, 4.0, 3.5, 1.0, SPEC.rank)))
    assert "ada" in game.round.events.refused
    assert "ada" not in game.round.events.ready
    game.train("bob", "cy")
    assert game.round.phase is RoundPhase.AGGREGATING
