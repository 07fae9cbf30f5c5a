"""The coordinator over a real Flower grid: whatever volunteers send, the federation goes on."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import msgpack
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.methods.server_optimizer import ServerOptimizer
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, as_bytes, as_vector
from nomoat.aggregation.protocol.messages import (
    SPENT,
    STALE,
    Decline,
    EvaluateTask,
    Evaluation,
    Ready,
    Report,
    ReportRequest,
    TrainSettings,
    TrainTask,
)
from nomoat.aggregation.protocol.receipts import packet_digest
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.messages import TO_VOLUNTEER, MaskedReport
from nomoat.aggregation.secagg.parameters import Policy, RosterView
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.training_origin import TrainingOrigin, version_by_round
from nomoat.client.round.work import EvaluateWork, TrainWork
from nomoat.flower.packets import packet_of
from nomoat.lora.training.train import Trained
from nomoat.server.rounds.coordinator import Coordinator, coordinator_app
from nomoat.server.rounds.federation import Federation, FederationCheckpoint
from nomoat.server.rounds.ports import Clock, Fleet, named_nodes
from nomoat.server.rounds.receipts import ReceivedUpdates, UpdateDigests
from nomoat.server.rounds.records import Overruled, RoundRecord, macro
from nomoat.server.rounds.watching import RoundProgress, Traffic
from nomoat.simulations.network.in_process_grid import InProcessGrid
from nomoat.simulations.pooled_trainer import NoUpdateStore

SPEC = AdapterSpec(
    (LayerSpec("model.a", 8, 6, 4), LayerSpec("model.b", 5, 8, 4)), 4, 8.0, target_modules=("a",)
)
BASE = b"b" * 32
START = Adapter(SPEC, np.linspace(-0.2, 0.2, SPEC.size, dtype=np.float32))
STEP = 0.01  # what every volunteer adds to every value in every round
TOKENS = {"ada": 100, "bob": 200, "cy": 400, "dee": 50}
SECONDS = {"ada": 1.5, "bob": 2.0, "cy": 0.25, "dee": 3.0}  # each one's training, as it says

# How a volunteer answers one kind of message: (volunteer, honest answer, message) → its answer.
Twist: TypeAlias = Callable[[str, Message, Message], Message]


@dataclass(frozen=True)
class FakeTrainer:
    """A volunteer without a model: its training adds its own number, its loss is a distance."""

    name: str

    def train(self, work: TrainWork) -> Trained:
        settings = work.task.settings
        change = STEP * (1 + sorted(TOKENS).index(self.name) / 10)
        vector = work.local.adapter.vector.copy()
        for tensor, place in SPEC.manifest.slices.items():
            wanted = settings.train_a if "lora_A" in tensor else settings.train_b
            vector[place] += np.float32(change) * wanted
        return Trained(
            vector, settings.local_steps, TOKENS[self.name], 4.0, 3.0, SECONDS[self.name]
        )

    def evaluate(self, work: EvaluateWork) -> tuple[float, int, float | None]:
        return 4.0 - float(work.adapter.vector.mean()), 10, None


@dataclass
class Memory:
    """A journal and a watcher that keep everything."""

    records: list[RoundRecord] = field(default_factory=list)
    checkpoints: list[FederationCheckpoint] = field(default_factory=list)
    seen: list[RoundProgress] = field(default_factory=list)
    ended_rounds: list[int] = field(default_factory=list)

    def last(self) -> FederationCheckpoint | None:
        return self.checkpoints[-1] if self.checkpoints else None

    def history(self) -> list[RoundRecord]:
        return self.records

    def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
        self.records.append(record)
        self.checkpoints.append(checkpoint)

    def progress(self, progress: RoundProgress) -> None:
        self.seen.append(progress)

    def ended(self, record: RoundRecord) -> None:
        self.ended_rounds.append(record.round)


def federation(**changes: Any) -> Federation:
    settings = TrainSettings(local_steps=2, learning_rate=0.05)
    plain = Federation("fedavg", 2, settings, BASE, b"s" * 32, secure=False, tolerance=0.05)
    return replace(plain, **changes)


def sessions(names: Iterable[str], secure: bool) -> tuple[dict[str, RequestHandler], RosterView]:
    keys = {name: SigningKey(name.encode().ljust(32, b".")) for name in names}
    roster = RosterView(b"r" * 32, {key.public: name for name, key in keys.items()})
    policy = Policy(min_participants=2, allow_weak=True)

    def masking(name: str) -> MaskedSession | None:
        if not secure:
            return None
        seed = name.encode()
        entropy = lambda session: (seed + session)[:32].ljust(32, b"-")  # noqa: E731
        return MaskedSession(Membership(keys[name], lambda: roster, policy, entropy))

    return {
        name: RequestHandler(
            RoundSession(
                name,
                BASE,
                TaskLimits(),
                masking=masking(name),
                origin=TrainingOrigin.announced(name, version_by_round),
            ),
            FakeTrainer(name),
            NoUpdateStore(),
        )
        for name in names
    }, roster


@contextlib.contextmanager
def town(
    twists: Mapping[tuple[str, str], Twist] | None = None,
    names: Iterable[str] = tuple(TOKENS),
    secure: bool = False,
    **grid_options: Any,
) -> Iterator[tuple[InProcessGrid, RosterView]]:
    """A grid of volunteers; `twists` says who answers which kind of message otherwise."""
    volunteers, roster = sessions(names, secure)
    honest = volunteer_app(lambda context: volunteers[str(context.node_config["name"])])
    twisted = dict(twists or {})

    class Twisted(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            name = str(context.node_config["name"])
            answer = honest(message, context)
            twist = twisted.get((name, message.metadata.message_type))
            return answer if twist is None else twist(name, answer, message)

    grid = InProcessGrid(Twisted(), list(names), 4, **grid_options)
    with contextlib.closing(grid):
        yield grid, roster


def run(
    twists: Mapping[tuple[str, str], Twist] | None = None,
    settings: Federation | None = None,
    memory: Memory | None = None,
    measure: Callable[[Adapter], Future[float]] | None = None,
    meter: Callable[[], Traffic] | None = None,
    **options: Any,
) -> tuple[Memory, FederationCheckpoint]:
    memory = memory or Memory()
    settings = settings or federation()
    with town(twists, secure=settings.secure, **options) as (grid, roster):
        coordinator = Coordinator(
            settings,
            START,
            memory,
            memory,
            Fleet(roster=lambda: roster, meter=meter),
            measure=measure,
            session_id=lambda number, exchange: bytes([number, exchange]) * 16,
        )
        ends: list[FederationCheckpoint] = []
        coordinator_app(coordinator, ends.append)(grid, context_of(grid))
    return memory, ends[-1]


def context_of(grid: InProcessGrid) -> Context:
    return Context(
        run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}
    )


def reply(message: Message, packet: wire.Packet) -> Message:
    records = {name: ConfigRecord({"bytes": part}) for name, part in packet.parts().items()}
    return Message(RecordDict({**records}), reply_to=message)


def says(packet: wire.Packet) -> Twist:
    return lambda _name, _answer, message: reply(message, packet)


def mean_of(*names: str, rounds: int = 1) -> np.ndarray:
    steps = {n: STEP * (1 + sorted(TOKENS).index(n) / 10) for n in TOKENS}
    step = sum(steps[n] for n in names) / len(names)
    return START.vector + np.float32(rounds * step)


def test_two_rounds_end_with_the_mean_and_a_full_record() -> None:
    memory, end = run()
    np.testing.assert_allclose(end.state.adapter.vector, mean_of(*TOKENS, rounds=2), atol=1e-6)
    assert [r.round for r in memory.records] == [0, 1, 2]
    assert memory.ended_rounds == [0, 1, 2]
    first, last = memory.records[0], memory.records[-1]
    assert first.adapter == START.digest.hex()
    assert last.adapter == end.state.adapter.digest.hex()
    assert last.contributors == last.cohort == tuple(sorted(TOKENS))
    assert last.committed
    assert last.tokens == sum(TOKENS.values())
    assert last.loss == pytest.approx(macro(last.losses))
    assert last.loss < first.loss
    assert set(last.seconds) == {"training", "aggregating", "evaluating"}
    assert last.train_seconds == SECONDS
    assert last.session == "plain"
    up = 4 * SPEC.size * len(TOKENS)
    assert up < last.bytes_up < up + 2000  # each volunteer's vector, and little else
    assert last.bytes_down > 2 * up  # the broadcast twice: to train and to evaluate
    phases = {p.phase for p in memory.seen if p.round == 2}
    assert phases <= {"training", "aggregating", "evaluating", "committed"}
    told = [p for p in memory.seen if p.round == 2 and p.phase != "committed"]
    for phase in phases - {"committed"}:  # volunteers are counted, whatever they were sent
        assert max(p.asked for p in told if p.phase == phase) == len(TOKENS)
    assert all(0 <= p.answered <= p.asked for p in told)


def test_with_a_meter_a_round_s_bytes_are_what_the_port_carried_since_the_last_one() -> None:
    carried = iter([Traffic(100, 10), Traffic(150, 30), Traffic(151, 90)])
    memory, _ = run(meter=lambda: next(carried))
    found = [(record.bytes_up, record.bytes_down) for record in memory.records]
    assert found == [(100, 10), (50, 20), (1, 60)]


def test_the_masked_sum_is_the_plain_one_to_within_its_fixed_point() -> None:
    _, plain = run()
    memory, masked = run(settings=federation(secure=True))
    assert memory.records[-1].committed, memory.records[-1].reason
    assert memory.records[-1].contributors == tuple(sorted(TOKENS))
    np.testing.assert_allclose(
        masked.state.adapter.vector, plain.state.adapter.vector, atol=0.2 / 2**17
    )


def grown(_name: str, answer: Message, message: Message) -> Message:
    """The answer of a release to come: two fields more, of which this one knows nothing."""
    packet = packet_of(answer, "grown")
    version, kind, fields = msgpack.unpackb(packet.head)
    return reply(message, wire.Packet(msgpack.packb([version, kind, [*fields, 7, ["new"]]])))


def of_version_2(name: str, answer: Message, message: Message) -> Message:
    """An answer in a version that nobody asked for."""
    _, kind, fields = msgpack.unpackb(packet_of(answer, name).head)
    return reply(message, wire.Packet(msgpack.packb([2, kind, fields])))


def test_volunteers_of_a_release_to_come_are_in_sums_with_those_of_today() -> None:
    plain, _ = run()
    twists: dict[tuple[str, str], Twist] = {
        ("bob", "train.local"): grown,
        ("bob", "evaluate.heldout"): grown,
        ("dee", "train.local"): of_version_2,
    }
    for secure in (False, True):
        memory, _ = run(twists, federation(secure=secure))
        last = memory.records[-1]
        assert last.contributors == ("ada", "bob", "cy"), last.reason
        assert last.losses.keys() >= {"ada", "bob", "cy"}
        assert last.refused == {"dee": "speaks protocol 2, this side 1"}
    assert plain.records[-1].contributors == tuple(sorted(TOKENS))


@pytest.mark.parametrize("spent", [1, 40, 700])
def test_rounds_that_volunteers_have_behind_them_are_passed_over_in_few_tries(spent: int) -> None:
    """As of a community whose backup was put back a second time, without asking anybody."""

    def behind(name: str, answer: Message, message: Message) -> Message:
        task = wire.decode(packet_of(message, name), TrainTask, name)
        return answer if task.round > spent else reply(message, wire.encode(Decline(1, SPENT)))

    twists: dict[tuple[str, str], Twist] = {(name, "train.local"): behind for name in TOKENS}
    memory, _ = run(twists, federation(spares=True, rounds=1))
    *before, last = memory.records
    assert last.committed
    assert spent < last.round <= 2 * spent + 1
    assert len(before) <= 2 * math.log2(spent + 1) + 4
    assert all(one.round < two.round for one, two in itertools.pairwise(memory.records))


def test_nobody_trains_for_a_sum_that_it_must_refuse_since_too_many_were_of_its_adapter() -> None:
    """Candidates are rejected while members come and go: the fourth cohort would be refused."""
    out = {1: "ada", 2: "bob", 3: "cy"}

    def away(name: str, answer: Message, message: Message) -> Message:
        task = wire.decode(packet_of(message, name), TrainTask, name)
        gone = out.get(task.round) == name
        return reply(message, wire.encode(Decline(1, "paused"))) if gone else answer

    def worse(name: str, _answer: Message, message: Message) -> Message:
        task = wire.decode(packet_of(message, name), EvaluateTask, name)
        loss = 4.0 if task.round in (0, 4) else 9.0
        return reply(message, wire.encode(Evaluation(task.round, loss, 10)))

    twists: dict[tuple[str, str], Twist] = {(n, "train.local"): away for n in TOKENS}
    twists |= {(n, "evaluate.heldout"): worse for n in TOKENS}
    memory, _ = run(twists, federation(secure=True, rounds=4))
    sums = [record.contributors for record in memory.records[1:]]
    assert len(set(sums[:3])) == 3
    assert set(sums[3]) <= {"ada", "bob", "cy"}  # dee was in all three
    assert all(record.refused == {} for record in memory.records)
    assert memory.records[-1].committed, memory.records[-1].reason


def test_the_same_federation_twice_gives_the_same_bits_plain_and_masked() -> None:
    for secure in (False, True):
        ends = [run(settings=federation(secure=secure))[1] for _ in range(2)]
        assert ends[0].state.adapter.digest == ends[1].state.adapter.digest
        assert ends[0].losses == ends[1].losses


def vector_bytes(change: Callable[[np.ndarray], np.ndarray]) -> Twist:
    """Report `change` of the honest vector."""

    def twist(name: str, answer: Message, message: Message) -> Message:
        honest = wire.decode(packet_of(answer, name), Report, name)
        vector = change(as_vector(honest.vector)).astype(np.float32)
        return reply(message, wire.encode(replace(honest, vector=as_bytes(vector))))

    return twist


def forged(place: int, value: Any) -> Twist:
    """The honest answer with one field of its head replaced, past our own encoder's checks."""

    def twist(name: str, answer: Message, message: Message) -> Message:
        packet = packet_of(answer, name)
        version, kind, fields = msgpack.unpackb(packet.head)
        fields[place] = value
        return reply(message, wire.Packet(msgpack.packb([version, kind, fields]), packet.body))

    return twist


def rank_one(vector: np.ndarray) -> np.ndarray:
    """The report of an r = 1 adapter, which broadcasts against r = 4 tensor by tensor."""
    views = SPEC.manifest.views(vector.astype(np.float32))
    parts = [v[:1] if "lora_A" in name else v[:, :1] for name, v in views.items()]
    return np.concatenate([part.ravel() for part in parts])


def poisoned(vector: np.ndarray) -> np.ndarray:
    out = vector.copy()
    out[3] = np.nan
    return out


def other_keys(_name: str, _answer: Message, message: Message) -> Message:
    records = {"parameters": ConfigRecord({"bytes": b"x"}), "metrics": ConfigRecord({"n": 1})}
    return Message(RecordDict({**records}), reply_to=message)


def array_record(_name: str, _answer: Message, message: Message) -> Message:
    """What a Flower FedAvg client would answer."""
    arrays = ArrayRecord([np.zeros((1, 6), np.float32)])
    return Message(RecordDict({"arrays": arrays}), reply_to=message)


def raises(_name: str, _answer: Message, message: Message) -> Message:
    raise ValueError("secret text of a machine")


HOSTILE: dict[str, Twist] = {
    "a rank-1 adapter that would broadcast": vector_bytes(rank_one),
    "one NaN": vector_bytes(poisoned),
    "infinities": vector_bytes(lambda v: v * np.inf),
    "a huge vector": vector_bytes(lambda v: v + 1e4),
    "half precision": vector_bytes(lambda v: v[: v.size // 2]),
    "no values": vector_bytes(lambda v: v[:0]),
    "other keys": other_keys,
    "arrays instead of a packet": array_record,
    "weight 1e9": forged(2, 1e9),
    "weight -5": forged(2, -5),
    "weight NaN": forged(2, math.nan),
    "weight as text": forged(2, "1.0"),
    "another round": forged(0, 9),
    "another exchange": forged(1, 2),
    "another kind of message": says(wire.encode(Ready(1, 1, 1, 1.0, 1.0, 1.0, 4))),
    "a request": says(wire.encode(ReportRequest(1, 1, b"h" * 32))),
    "garbage": says(wire.Packet(b"\xc1")),
    "a decline": says(wire.encode(Decline(1, "nothing held for this round"))),
    "an exception": raises,
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_report_is_left_out_by_name_and_the_others_count(attack: str) -> None:
    """Trap 6 of Flower's FedAvg, each end to end; and everything else one can think of."""
    memory, end = run({("cy", "query.report"): HOSTILE[attack]}, federation(rounds=1))
    record = memory.records[-1]
    assert record.committed
    assert record.contributors == ("ada", "bob", "dee")
    assert {**record.refused, **record.dropped}.keys() == {"cy"}
    expected = mean_of("ada", "bob", "dee")
    np.testing.assert_allclose(end.state.adapter.vector, expected, atol=1e-6)
    assert "secret" not in str(record)


@pytest.mark.parametrize("method", ["flora", "flexlora", "fedex"])
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_report_to_a_method_that_sees_each_is_left_out_as_well(
    attack: str, method: str
) -> None:
    settings = federation(rounds=1, method=method)
    memory, end = run({("cy", "query.report"): HOSTILE[attack]}, settings)
    record = memory.records[-1]
    assert record.committed, record.reason
    assert record.contributors == ("ada", "bob", "dee")
    assert {**record.refused, **record.dropped}.keys() == {"cy"}
    _, without = run({("cy", "train.local"): raises}, settings)
    assert end.state.adapter.digest == without.state.adapter.digest


@pytest.mark.parametrize(("method", "rank"), [("flora", 5), ("fedavg", 1024), ("fedex", 3)])
def test_a_rank_the_method_cannot_take_is_refused_by_name(method: str, rank: int) -> None:
    lie = says(wire.encode(Ready(1, 2, 400, 4.0, 3.0, 0.0, rank)))
    memory, _ = run({("cy", "train.local"): lie}, federation(rounds=1, method=method))
    record = memory.records[-1]
    assert record.refused.keys() == {"cy"}
    assert f"trained rank {rank}, not " in record.refused["cy"]
    assert ("flexlora can mix them" in record.refused["cy"]) is (method == "fedex")
    assert record.contributors == ("ada", "bob", "dee")


def test_a_resumed_federation_has_its_server_optimisers_memory() -> None:
    for kind in ("momentum", "fedadam", "fedyogi"):
        settings = federation(rounds=4, optimizer=ServerOptimizer(kind, 0.5))
        _, whole = run(settings=settings)
        memory, _ = run(settings=replace(settings, rounds=2))
        half = memory.checkpoints[-1]
        stored = FederationCheckpoint.from_arrays(half.round, SPEC, half.to_arrays(), half.losses)
        memory.checkpoints.append(stored)
        _, again = run(settings=settings, memory=memory)
        assert again.state.adapter.digest == whole.state.adapter.digest
        plain = run(settings=federation(rounds=4))[1]
        assert plain.state.adapter.digest != whole.state.adapter.digest


def test_momentum_accumulates_over_rounds() -> None:
    """Everyone adds the same in every round: Δ, then Δ + 0.9 Δ."""
    _, end = run(settings=federation(optimizer=ServerOptimizer("momentum", 1.0, 0.9)))
    once = mean_of(*TOKENS) - START.vector
    np.testing.assert_allclose(end.state.adapter.vector, START.vector + 2.9 * once, atol=1e-6)


@pytest.mark.parametrize("why", ["nobody reports", "the adapter is worse"])
def test_an_abandoned_round_leaves_the_server_optimiser_as_it_was(why: str) -> None:
    settings = federation(rounds=2, optimizer=ServerOptimizer("momentum"))
    message_type = "query.report" if why == "nobody reports" else "evaluate.heldout"

    def in_round_2(name: str, answer: Message, message: Message) -> Message:
        if message.metadata.group_id != "2":
            return answer
        return reply(message, wire.encode(Evaluation(2, 99.0, 10)))

    memory, _ = run({(name, message_type): in_round_2 for name in TOKENS}, settings)
    first, last = memory.checkpoints[1:]
    assert not memory.records[-1].committed
    assert first.moments.moments.keys() == {"m.ab"}
    assert np.array_equal(last.moments.moments["m.ab"], first.moments.moments["m.ab"])


def test_the_learning_rate_follows_the_schedule_over_global_rounds() -> None:
    asked: dict[str, float] = {}

    def note(name: str, answer: Message, message: Message) -> Message:
        task = wire.decode(packet_of(message, name), TrainTask, name)
        asked[message.metadata.group_id] = task.settings.learning_rate
        return answer

    settings = federation(rounds=3, schedule="warmup")
    memory, _ = run({("ada", "train.local"): note}, settings)
    assert asked == pytest.approx({"1": 0.025, "2": 0.05, "3": 0.05})
    assert [r.learning_rate for r in memory.records] == [None, *asked.values()]


@pytest.mark.parametrize("attack", sorted(set(HOSTILE) - {"another exchange"}))
def test_without_valid_reports_no_round_is_committed_and_the_adapter_stands(attack: str) -> None:
    """Trap 6: in Flower's FedAvg a round without valid replies passes silently."""
    twists = {(name, "query.report"): HOSTILE[attack] for name in TOKENS}
    memory, end = run(twists, federation(rounds=1))
    record = memory.records[-1]
    assert not record.committed
    assert record.reason == "0 of 2 reports valid"
    assert end.state.adapter.digest == START.digest
    assert {**record.refused, **record.dropped}.keys() == TOKENS.keys()
    assert record.loss == memory.records[0].loss


@pytest.mark.parametrize(
    "attack", ["garbage", "an exception", "other keys", "a decline", "a request"]
)
@pytest.mark.parametrize("kind", ["train.local", "evaluate.heldout"])
def test_a_hostile_answer_to_training_or_evaluation_costs_only_its_sender(
    kind: str, attack: str
) -> None:
    memory, _ = run({("cy", kind): HOSTILE[attack]}, federation(rounds=1))
    record = memory.records[-1]
    assert record.committed
    assert "cy" in {**record.refused, **record.dropped}
    if kind == "train.local":
        assert record.contributors == ("ada", "bob", "dee")
        assert "cy" in record.losses
    else:
        assert record.contributors == ("ada", "bob", "cy", "dee")
        assert "cy" not in record.losses


@pytest.mark.parametrize("attack", ["garbage", "an exception", "a decline"])
@pytest.mark.parametrize("action", [wire.action_of(wire.kind_of(kind)) for kind in TO_VOLUNTEER])
def test_a_masked_round_ends_whoever_breaks_the_session_and_sums_only_contributors(
    action: str, attack: str
) -> None:
    memory, end = run({("cy", action): HOSTILE[attack]}, federation(rounds=1, secure=True))
    record = memory.records[-1]
    if record.committed:
        expected = mean_of(*record.contributors)
        np.testing.assert_allclose(end.state.adapter.vector, expected, atol=1e-5)
    else:
        assert end.state.adapter.digest == START.digest
        assert record.reason


def test_one_lying_evaluator_cannot_block_the_federation() -> None:
    liar = forged(1, 9_999.0)
    memory, end = run({("cy", "evaluate.heldout"): liar})
    assert all(record.committed for record in memory.records)
    np.testing.assert_allclose(end.state.adapter.vector, mean_of(*TOKENS, rounds=2), atol=1e-6)


@pytest.mark.parametrize("worse", [False, True])
def test_the_communitys_own_rows_are_measured_each_round_and_can_undo_one(worse: bool) -> None:
    measured: list[bytes] = []

    def measure(adapter: Adapter) -> Future[float]:
        measured.append(adapter.digest)
        loss: Future[float] = Future()
        value = 2.0 + worse * (adapter.digest != START.digest)
        threading.Timer(0.05, loss.set_result, [value]).start()
        return loss

    memory, end = run(settings=federation(rounds=1), measure=measure)
    first, last = memory.records
    assert first.evaluation == 2.0
    assert last.committed is not worse
    assert end.evaluation == 2.0  # of the adapter that stands
    assert measured[0] == START.digest != measured[1]
    if worse:
        assert "evaluation split rose by 50.0%" in last.reason


def test_rows_that_cannot_be_measured_leave_the_verdict_to_the_volunteers() -> None:
    def measure(adapter: Adapter) -> Future[float]:
        loss: Future[float] = Future()
        loss.set_exception(NomoatError("a worker process ended"))
        return loss

    memory, _ = run(settings=federation(rounds=1), measure=measure)
    assert [(r.committed, r.evaluation) for r in memory.records] == [(True, None), (True, None)]


def test_a_round_that_makes_the_adapter_worse_is_undone_and_the_next_starts_from_the_old() -> None:
    def worse(name: str, answer: Message, message: Message) -> Message:
        honest = wire.decode(packet_of(answer, name), Report, name)
        if honest.round == 1:
            honest = replace(honest, vector=as_bytes(as_vector(honest.vector) * -100))
        return reply(message, wire.encode(honest))

    twists = {(name, "query.report"): worse for name in TOKENS}
    memory, end = run(twists)
    assert [r.committed for r in memory.records] == [True, False, True]
    assert "rose by" in memory.records[1].reason
    assert memory.records[1].adapter == START.digest.hex()
    np.testing.assert_allclose(end.state.adapter.vector, mean_of(*TOKENS), atol=1e-6)


def test_losses_with_own_parts_are_judged_and_averaged_over_the_same_volunteers() -> None:
    """Where B stays at home: dee has no part of its own, and round 2 ruins the others'."""

    def own(name: str, answer: Message, message: Message) -> Message:
        honest = wire.decode(packet_of(answer, name), Evaluation, name)
        personal = {1: 2.0, 2: 9.0, 3: 1.0}.get(honest.round)
        return reply(message, wire.encode(replace(honest, loss=4.0, personal=personal)))

    twists = {(name, "evaluate.heldout"): own for name in ("ada", "bob", "cy")}
    settings = federation(method="local-B", rounds=3)
    training = replace(settings.training, personal="local-B")
    memory, _ = run(twists, replace(settings, training=training))
    assert [r.committed for r in memory.records] == [True, True, False, True]
    assert memory.records[2].personal == {}
    assert memory.checkpoints[2].personal == memory.records[1].personal
    first = memory.records[1]
    assert first.personal == dict.fromkeys(("ada", "bob", "cy"), 2.0)
    assert first.personal_loss == pytest.approx((3 * 2.0 + first.losses["dee"]) / 4)


def test_absent_volunteers_are_dropped_and_measured_again_when_they_are_back() -> None:
    def absent(volunteer: str, kind: str, group: str) -> bool:
        return volunteer == "bob" and kind == "train.local" and group == "1"

    memory, _ = run(absent=absent)
    assert memory.records[1].contributors == ("ada", "cy", "dee")
    assert "no answer" in memory.records[1].dropped["bob"]
    assert "bob" in memory.records[1].losses
    assert memory.records[2].contributors == tuple(sorted(TOKENS))


def test_nobody_at_all_abandons_every_round_and_ends() -> None:
    memory, end = run(absent=lambda *_: True)
    assert [r.committed for r in memory.records] == [True, False, False]
    assert memory.records[0].loss is None
    assert end.state.adapter is START


def test_receipts_are_earned_by_the_packets_that_are_in_the_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earned: dict[int, dict[str, UpdateDigests]] = {}
    taken: dict[str, list[bytes]] = {}
    note = ReceivedUpdates.note

    def watch(self: ReceivedUpdates, volunteer: str, packet: wire.Packet) -> None:
        if wire.peek_kind(packet, volunteer) in {wire.kind_of(MaskedReport), wire.kind_of(Report)}:
            taken.setdefault(volunteer, []).append(packet_digest(packet))
        note(self, volunteer, packet)

    monkeypatch.setattr(ReceivedUpdates, "note", watch)
    settings = federation(rounds=1)
    with town(secure=settings.secure) as (grid, roster):
        memory = Memory()
        Coordinator(
            settings,
            START,
            memory,
            memory,
            Fleet(roster=lambda: roster),
            credit=lambda number, found: earned.update({number: dict(found)}),
        ).run(grid)
    record = memory.records[-1]
    assert set(earned[1]) == set(record.contributors)
    assert sum(one.tokens for one in earned[1].values()) == record.tokens > 0
    assert {name: list(one.packets) for name, one in earned[1].items()} == taken


def test_a_volunteer_that_is_not_on_the_grid_is_gone_and_not_waited_for() -> None:
    memory = Memory()
    with town() as (grid, _):
        nodes = named_nodes(grid)

        def claims_more(_grid: Grid) -> dict[str, int]:
            claims_more.calls += 1  # type: ignore[attr-defined]
            # The plan is made from a list that is out of date when messages are sent.
            extra = {"ghost": 99} if claims_more.calls % 2 == 0 else {}  # type: ignore[attr-defined]
            return nodes | extra

        claims_more.calls = 1  # type: ignore[attr-defined]
        coordinator = Coordinator(federation(rounds=1), START, memory, memory, Fleet(claims_more))
        coordinator.run(grid)
    assert memory.records[-1].committed
    gone = memory.records[0].dropped | memory.records[1].dropped
    assert gone.get("ghost") == "gone"


def test_every_round_and_volunteer_trains_with_a_seed_of_its_own() -> None:
    """Trap 7: with one seed, every round trains on the same rows in the same order."""
    seeds: list[bytes] = []

    class Noting(FakeTrainer):
        def train(self, work: TrainWork) -> Trained:
            seeds.append(work.seed)
            return super().train(work)

    volunteers, _ = sessions(TOKENS, secure=False)
    noting = {n: replace(v, trainer=Noting(n)) for n, v in volunteers.items()}
    memory = Memory()
    app = volunteer_app(lambda context: noting[str(context.node_config["name"])])
    with contextlib.closing(InProcessGrid(app, list(TOKENS), 4)) as grid:
        Coordinator(federation(rounds=3), START, memory, memory).run(grid)
    assert len(seeds) == len(set(seeds)) == 3 * len(TOKENS)


def test_only_a_fraction_trains_and_everyone_evaluates() -> None:
    memory, _ = run(settings=federation(fraction=0.5, rounds=6))
    cohorts = {record.cohort for record in memory.records[1:]}
    assert all(len(cohort) == 2 for cohort in cohorts)
    assert len(cohorts) > 1
    assert all(set(record.losses) == set(TOKENS) for record in memory.records)


def test_rolora_sends_half_the_bytes_and_leaves_the_other_factor_alone() -> None:
    both, _ = run(settings=federation(rounds=2))
    half, end = run(settings=federation(rounds=2, method="rolora"))
    for number, unsent in ((1, ".lora_A.weight"), (2, ".lora_B.weight")):
        saved = both.records[number].bytes_up - half.records[number].bytes_up
        values = SPEC.manifest.only(unsent).size
        assert saved == pytest.approx(4 * values * len(TOKENS), abs=40)  # and the odd head byte
    first = half.checkpoints[1].state.adapter
    for (_, a, b), (_, a0, b0) in zip(first.factors(), START.factors(), strict=True):
        assert (a == a0).all()
        assert (b != b0).all()
    assert all(r.committed for r in half.records)
    assert (end.state.adapter.vector != START.vector).all()


def test_a_method_of_two_exchanges_runs_over_the_grid_plain_and_masked() -> None:
    _, plain = run(settings=federation(rounds=1, method="fedask"))
    memory, masked = run(settings=federation(rounds=1, method="fedask", secure=True, clip=4.0))
    assert memory.records[-1].committed, memory.records[-1].reason
    for (_, a, b), (_, a2, b2) in zip(
        plain.state.adapter.factors(), masked.state.adapter.factors(), strict=True
    ):
        np.testing.assert_allclose(b @ a, b2 @ a2, atol=2e-3)


def test_a_run_that_was_cut_short_goes_on_where_it_stood() -> None:
    whole, end = run(settings=federation(rounds=3))
    memory, _ = run(settings=federation(rounds=1))
    _, resumed = run(settings=federation(rounds=3), memory=memory)
    assert resumed.state.adapter.digest == end.state.adapter.digest
    assert [r.round for r in memory.records] == [0, 1, 2, 3]
    assert [r.losses for r in memory.records] == [r.losses for r in whole.records]


@dataclass
class Clockwork:
    """Time that passes only when the coordinator waits."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += 10.0


def test_stragglers_do_not_hold_up_a_round_and_their_late_answers_are_not_taken() -> None:
    """The straggler answers its training while the others evaluate: that is no evaluation."""
    release = threading.Event()
    finished = threading.Event()

    def slow(name: str, answer: Message, message: Message) -> Message:
        release.wait(60)
        finished.set()
        return answer

    def last(name: str, answer: Message, message: Message) -> Message:
        if int(message.metadata.group_id or 0) == 1:
            release.set()
            finished.wait(60)
        return answer

    memory, clock = Memory(), Clockwork()
    twists: dict[tuple[str, str], Twist] = {
        ("bob", "train.local"): slow,
        ("ada", "evaluate.heldout"): last,
    }
    with town(twists) as (grid, _):
        settings = federation(rounds=1, train_deadline_s=100.0)
        Coordinator(settings, START, memory, memory, clock=Clock(clock, clock.pause)).run(grid)
    record = memory.records[-1]
    assert record.committed
    assert record.contributors == ("ada", "cy", "dee")
    assert record.dropped == {"bob": "too late to train"}
    assert record.refused == {}  # its late "ready" was not taken for an evaluation
    assert set(record.losses) == set(TOKENS) - {"bob"}  # it is not asked while it trains


def test_an_overruled_round_is_not_taken_and_the_next_goes_on_from_what_was_decided() -> None:
    class Decided(Memory):
        def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
            if record.committed and record.round == 2:
                raise Overruled("the community goes back to version 0")
            super().write(record, checkpoint)

    def ordered(checkpoint: FederationCheckpoint) -> FederationCheckpoint:
        begun.append(checkpoint.round)
        if checkpoint.round != 2:
            return checkpoint
        return replace(memory.checkpoints[0], round=2)

    memory, begun = Decided(), list[int]()
    with town() as (grid, _):
        Coordinator(federation(rounds=3), START, memory, memory, ordered=ordered).run(grid)
    assert begun == [0, 1, 2, 3]
    assert [(each.round, each.committed) for each in memory.records] == [
        (0, True), (1, True), (2, False), (3, True),
    ]  # fmt: skip
    one, two, three = memory.records[1:]
    assert two.reason == "the community goes back to version 0"
    assert two.summed  # its updates are spent, and it counts
    assert (two.adapter, two.losses) == (one.adapter, one.losses)
    assert memory.checkpoints[2].state.adapter.digest.hex() == one.adapter
    np.testing.assert_allclose(
        memory.checkpoints[3].state.adapter.vector, memory.checkpoints[1].state.adapter.vector
    )
    assert three.loss == one.loss


def test_a_journal_that_fails_ends_the_run_with_its_error() -> None:
    class Full(Memory):
        def write(self, record: RoundRecord, checkpoint: FederationCheckpoint) -> None:
            if record.round == 1:
                raise NomoatError("cannot write checkpoint.safetensors: No space left on device")
            super().write(record, checkpoint)

    memory = Full()
    with pytest.raises(NomoatError, match="No space left"):
        run(memory=memory)
    assert [r.round for r in memory.records] == [0]


def test_hundreds_of_volunteers_take_seconds() -> None:
    names = [f"v{i:03d}" for i in range(300)]

    class Quick(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            kind = message.metadata.message_type
            packet = packet_of(message, "coordinator")
            if kind == "train.local":
                number = wire.decode(packet, TrainTask, "").round
                return reply(message, wire.encode(Ready(number, 1, 10, 1.0, 1.0, 0.0, 4)))
            if kind == "query.report":
                number = wire.decode(packet, ReportRequest, "").round
                values = as_bytes(np.full(SPEC.size, STEP, np.float32))
                return reply(message, wire.encode(Report(number, 1, 0.5, values)))
            number = wire.decode(packet, EvaluateTask, "").round
            return reply(message, wire.encode(Evaluation(number, 1.0, 10)))

    memory = Memory()
    with contextlib.closing(InProcessGrid(Quick(), names, 4)) as grid:
        end = Coordinator(federation(rounds=1), START, memory, memory).run(grid)
    assert len(memory.records[-1].contributors) == 300
    np.testing.assert_allclose(end.state.adapter.vector, START.vector + STEP, atol=1e-6)


def test_the_coordinator_waits_longer_after_each_abandoned_round_in_a_row() -> None:
    memory, pauses = Memory(), list[float]()
    with town({}, names=()) as (grid, roster):
        coordinator = Coordinator(
            federation(rounds=5),
            START,
            memory,
            memory,
            Fleet(roster=lambda: roster),
            Clock(pause=pauses.append),
            back_off_s=float,
        )
        coordinator_app(coordinator, lambda _: None)(grid, context_of(grid))
    assert pauses == [1.0, 2.0, 3.0, 4.0]


def test_a_round_too_few_were_ready_for_is_asked_again_and_nobody_trains_twice() -> None:
    """The others declined once: the round keeps its number, and those who trained their update."""
    asked: dict[str, list[int]] = {name: [] for name in TOKENS}

    def declines_at_first(name: str, answer: Message, message: Message) -> Message:
        number = wire.decode(packet_of(message, "coordinator"), TrainTask, "").round
        asked[name].append(number)
        first = name != "ada" and len(asked[name]) == 1
        return reply(message, wire.encode(Decline(number, "paused"))) if first else answer

    twists = {(name, "train.local"): declines_at_first for name in TOKENS}
    memory, end = run(twists, federation(spares=True, min_reports=2, schedule="cosine"))
    assert [(r.round, r.committed) for r in memory.records] == [
        (0, True),
        (1, False),
        (1, True),
        (2, True),
    ]
    assert memory.records[2].contributors == tuple(sorted(TOKENS))
    assert all(numbers == [1, 1, 2] for numbers in asked.values())
    assert (end.round, end.counted) == (2, 2)


def test_a_round_whose_updates_were_asked_for_in_vain_uses_its_number_and_no_place() -> None:
    silent: list[int] = []

    def refuses_once(name: str, answer: Message, message: Message) -> Message:
        number = wire.decode(packet_of(message, "coordinator"), ReportRequest, "").round
        silent.append(number)
        refusal = reply(message, wire.encode(Decline(number, "nothing held")))
        return refusal if number == 1 else answer

    twists = {(name, "query.report"): refuses_once for name in TOKENS}
    memory, end = run(twists, federation(spares=True))
    assert [(r.round, r.committed) for r in memory.records] == [
        (0, True),
        (1, False),
        (2, True),
        (3, True),
    ]
    assert (end.round, end.counted, end.spared) == (3, 2, 1)


@pytest.mark.parametrize("word", [SPENT, STALE])
def test_a_number_under_which_somebody_has_gone_further_is_not_announced_again(word: str) -> None:
    """A coordinator that was killed in a round, or set back, does not ask the same for ever."""

    def once_spent(_name: str, answer: Message, message: Message) -> Message:
        number = wire.decode(packet_of(message, "coordinator"), TrainTask, "").round
        return reply(message, wire.encode(Decline(number, word))) if number == 1 else answer

    twists = {(name, "train.local"): once_spent for name in TOKENS}
    memory, end = run(twists, federation(spares=True))
    assert [r.round for r in memory.records] == [0, 1, 2, 3]
    assert (end.round, end.counted) == (3, 2)


def test_what_was_asked_in_a_round_that_is_over_is_taken_back() -> None:
    taken_back: list[str] = []
    over = threading.Event()

    def slow(_name: str, answer: Message, _message: Message) -> Message:
        assert over.wait(60)
        return answer

    def withdraw(message_ids: Iterable[str]) -> None:
        taken_back.extend(message_ids)
        if taken_back:
            over.set()

    memory, names = Memory(), ("ada", "bob")
    with town({(name, "train.local"): slow for name in names}, names) as (grid, roster):
        fleet = Fleet(roster=lambda: roster, withdraw=withdraw)
        ticks = iter(range(10**9))
        late = federation(rounds=1, train_deadline_s=1.0)
        Coordinator(
            late, START, memory, memory, fleet, Clock(lambda: float(next(ticks)), lambda _s: None)
        ).run(grid)
    assert memory.records[-1].reason == "0 of 2 ready"
    assert len(taken_back) == 2
