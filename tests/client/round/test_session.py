"""A volunteer does what its owner allows, answers in fixed words, keeps its update until asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import builders
from nomoat.aggregation import methods
from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec, as_bytes, as_vector
from nomoat.aggregation.protocol.messages import (
    AdapterShape,
    Decline,
    EvaluateTask,
    Evaluation,
    ExchangeReply,
    LayerShape,
    Ready,
    Report,
    ReportRequest,
    TrainSettings,
    TrainTask,
    task_digest,
)
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.messages import (
    TO_VOLUNTEER,
    KeysReport,
    Participant,
    SessionRoster,
    SharesReport,
)
from nomoat.aggregation.secagg.parameters import (
    DEFAULT_ASSUMPTIONS,
    Policy,
    RosterView,
    Terms,
    propose,
)
from nomoat.aggregation.secagg.thresholds import thresholds
from nomoat.aggregation.secagg.transcript import work_hash
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.phases import VolunteerPhase
from nomoat.client.round.session import RoundSession
from nomoat.client.round.task_limits import TaskLimits
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.round.work import EvaluateWork, Reason, RoundStep, TrainWork
from nomoat.lora.training.train import Trained

SPEC = AdapterSpec(
    (LayerSpec("model.a", 4, 3, 2), LayerSpec("model.b", 3, 4, 2)), 2, 4.0, target_modules=("a",)
)
BASE = b"b" * 32
START = Adapter(SPEC, np.linspace(-1, 1, SPEC.size, dtype=np.float32))
SETTINGS = TrainSettings(local_steps=2)
KEYS = {name: SigningKey(name.encode().ljust(32, b".")) for name in ("ada", "bob", "cy")}
ROSTER = RosterView(b"r" * 32, {key.public: name for name, key in KEYS.items()})


def train_task(number: int = 5, **changes: Any) -> TrainTask:
    return builders.train_task(START, number, **{"settings": SETTINGS, **changes})


def evaluate_task(number: int = 5, **changes: Any) -> EvaluateTask:
    return builders.evaluate_task(START, number, **{"settings": SETTINGS, **changes})


def report_request(number: int = 5, **changes: Any) -> ReportRequest:
    return replace(ReportRequest(number, 1, START.digest), **changes)


def result(tokens: int = 500, change: float = 0.25) -> Trained:
    return Trained(START.vector + np.float32(change), 2, tokens, 4.0, 3.0, 0.5)


def masking(
    name: str = "ada", required: bool = True, known: Iterable[str] = (), known_peers: int = 0
) -> MaskedSession:
    policy = Policy(min_participants=2, allow_weak=True, known_peers=known_peers)
    peers = frozenset(KEYS[peer].public for peer in known)
    membership = Membership(
        KEYS[name], lambda: ROSTER, policy, lambda s: s[:32], required, lambda: peers
    )
    return MaskedSession(membership)


def offer(number: int = 5, exchange: int = 1, session: bytes = b"q" * 32, **changes: Any) -> Any:
    manifest = methods.get("fedavg").manifest(SPEC, number, 1)
    work = work_hash(task_digest(train_task(number)))
    terms = Terms(number, exchange, BASE, START.digest, manifest, ROSTER, work=work)
    clips = tuple(1.0 for _ in manifest.tensors)
    return replace(propose(session, terms, clips, (2, 3)), **changes)


def answer(session: RoundSession, request: Any) -> Any:
    """The answer of a step that asks for no work."""
    step = session.receive(request)
    assert step.work is None
    return step.answer


def work_of(session: RoundSession, request: Any) -> Any:
    """The work of a step that has no answer yet."""
    step = session.receive(request)
    assert step.answer is None
    return step.work


def fresh(**options: Any) -> RoundSession:
    return RoundSession("ada", BASE, TaskLimits(), **options)


def holding(number: int = 5, tokens: int = 500, **options: Any) -> RoundSession:
    session = fresh(**options)
    work = work_of(session, train_task(number))
    assert isinstance(work, TrainWork)
    session.trained(work, result(tokens))
    return session


def training(**options: Any) -> RoundSession:
    session = fresh(**options)
    assert isinstance(work_of(session, train_task()), TrainWork)
    return session


def retraining(**options: Any) -> RoundSession:
    session = holding(**options)
    assert isinstance(work_of(session, train_task(seed=b"t" * 32)), TrainWork)
    return session


MAKE: dict[VolunteerPhase, Callable[..., RoundSession]] = {
    VolunteerPhase.IDLE: fresh,
    VolunteerPhase.TRAINING: training,
    VolunteerPhase.HOLDING: holding,
    VolunteerPhase.RETRAINING: retraining,
}
AFTER_TASK = {
    VolunteerPhase.IDLE: VolunteerPhase.TRAINING,
    VolunteerPhase.TRAINING: VolunteerPhase.TRAINING,
    VolunteerPhase.HOLDING: VolunteerPhase.RETRAINING,
    VolunteerPhase.RETRAINING: VolunteerPhase.RETRAINING,
}
FIXED_WORDS = {reason.value for reason in Reason}


def test_training_is_held_first_and_reported_when_asked() -> None:
    session = fresh()
    work = work_of(session, train_task())
    assert isinstance(work, TrainWork)
    assert work.local.adapter.vector.tobytes() == START.vector.tobytes()
    assert session.held is None
    ready = session.trained(work, result())
    assert session.held is not None  # before anyone is told
    assert session.held.round == 5
    assert ready == Ready(5, 2, 500, 4.0, 3.0, 0.5, 2)
    report = answer(session, report_request())
    assert isinstance(report, Report)
    assert report.weight == 1.0
    np.testing.assert_allclose(as_vector(report.vector), 0.25, atol=1e-6)
    assert answer(session, report_request()) == report  # asked twice, the same
    assert session.phase is VolunteerPhase.HOLDING


def test_a_task_asked_again_is_answered_from_what_is_held_without_training(tmp_path: Path) -> None:
    """A round that too few others were ready for is asked again under its number."""
    session = holding()
    ready = answer(session, train_task())
    assert ready == Ready(5, 2, 500, 4.0, 3.0, 0.5, 2)
    assert session.phase is VolunteerPhase.HOLDING
    assert isinstance(answer(session, report_request()), Report)
    store = DiskUpdateStore(tmp_path)
    assert session.held is not None
    store.save(session.held)
    assert answer(fresh(held=store.load()), train_task()) == ready  # after a restart, too
    other = train_task(settings=replace(SETTINGS, learning_rate=0.5))
    assert isinstance(work_of(session, other), TrainWork)


def test_however_many_tokens_were_trained_on_an_update_counts_as_any_other() -> None:
    for tokens in (1, 999, 10**9):
        report = answer(holding(tokens=tokens), report_request())
        assert isinstance(report, Report)
        assert report.weight == 1.0


REQUESTS: dict[str, Any] = {
    "train": train_task(),
    "train, next round": train_task(6),
    "train, earlier round": train_task(4),
    "report": report_request(),
    "report, other round": report_request(6),
    "report, other adapter": report_request(adapter_hash=b"x" * 32),
    "evaluate": evaluate_task(),
    "evaluate, any round": evaluate_task(0),
    "exchange reply": ExchangeReply(5, 2, START.digest, as_bytes(START.vector)),
    "session offer": offer(),
}


@pytest.mark.parametrize("phase", list(VolunteerPhase))
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("masked", [False, True])
def test_every_request_in_every_phase_gets_work_an_answer_or_a_fixed_word(
    phase: VolunteerPhase, request_name: str, masked: bool
) -> None:
    session = MAKE[phase](masking=masking() if masked else None)
    held = session.held
    try:
        step = session.receive(REQUESTS[request_name])
    except RemoteProtocolError:
        step = RoundStep()
    if isinstance(step.answer, Decline):
        assert step.answer.reason in FIXED_WORDS
    if not isinstance(step.work, TrainWork):
        assert session.phase is phase
    else:
        assert session.phase is AFTER_TASK[phase]
    assert session.held is held
    assert step.answer is None or step.work is None
    if phase is not VolunteerPhase.HOLDING:
        assert isinstance(step.answer, Decline | None)
        assert (step.upload, step.marks) == (None, ())
    if masked:
        assert not isinstance(step.answer, Report)  # a member never reports in the open
    if step.answer is not None:
        wire.encode(step.answer)


EVENTS: dict[str, Callable[[RoundSession, TrainWork], object]] = {
    "trained": lambda session, work: session.trained(work, result()),
    "failed": lambda session, work: session.failed(work),
}


@pytest.mark.parametrize("phase", list(VolunteerPhase))
@pytest.mark.parametrize("event", EVENTS)
def test_what_came_of_training_moves_a_session_as_its_table_says_or_is_our_own_error(
    phase: VolunteerPhase, event: str
) -> None:
    session = MAKE[phase]()
    held = session.held
    following = {
        ("trained", VolunteerPhase.TRAINING): VolunteerPhase.HOLDING,
        ("trained", VolunteerPhase.RETRAINING): VolunteerPhase.HOLDING,
        ("failed", VolunteerPhase.TRAINING): VolunteerPhase.IDLE,
        ("failed", VolunteerPhase.RETRAINING): VolunteerPhase.HOLDING,
        ("failed", VolunteerPhase.HOLDING): VolunteerPhase.HOLDING,
    }.get((event, phase))
    work = work_of(fresh(), train_task())
    if following is None:
        with pytest.raises(LocalProtocolError):
            EVENTS[event](session, work)
        assert (session.phase, session.held) == (phase, held)
        return
    EVENTS[event](session, work)
    assert session.phase is following
    if event == "failed":
        assert session.held is held


@pytest.mark.parametrize("kind", TO_VOLUNTEER)
@pytest.mark.parametrize("phase", list(VolunteerPhase))
def test_a_message_of_a_session_nobody_opened_is_refused_whatever_the_phase(
    kind: type, phase: VolunteerPhase
) -> None:
    if kind is type(offer()):
        return  # opening a session is the exception; tested beside
    blank = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(blank, field.name, b"")
    for with_masks in (None, masking()):
        session = MAKE[phase](masking=with_masks)
        try:
            step = session.receive(blank)
        except RemoteProtocolError:
            continue
        assert isinstance(step.answer, Decline)


def test_trained_without_training_is_our_own_error() -> None:
    session = fresh()
    work = work_of(session, train_task())
    assert isinstance(work, TrainWork)
    session.trained(work, result())
    with pytest.raises(LocalProtocolError):
        session.trained(work, result(change=9.0))
    report = answer(session, report_request())
    assert isinstance(report, Report)
    np.testing.assert_allclose(as_vector(report.vector), 0.25, atol=1e-6)


def test_a_stale_round_is_declined_and_the_held_update_stays() -> None:
    session = holding(5)
    said = answer(session, train_task(4))
    assert said == Decline(4, Reason.STALE)
    assert isinstance(answer(session, report_request(5)), Report)


def test_a_round_announced_again_with_another_task_is_trained_again() -> None:
    """The coordinator may have died after our first answer, and come back with other settings."""
    session = holding(5)
    work = work_of(session, train_task(5, seed=b"t" * 32))
    assert isinstance(work, TrainWork)
    session.trained(work, result(change=0.5))
    report = answer(session, report_request(5))
    assert isinstance(report, Report)
    np.testing.assert_allclose(as_vector(report.vector), 0.5, atol=1e-6)


def test_a_new_round_replaces_what_is_held() -> None:
    session = holding(5)
    work = work_of(session, train_task(6))
    assert isinstance(work, TrainWork)
    assert answer(session, report_request(5)) == Decline(5, Reason.NOTHING_HELD)
    session.trained(work, result())
    assert answer(session, report_request(5)) == Decline(5, Reason.NOTHING_HELD)
    assert isinstance(answer(session, report_request(6)), Report)


def test_work_that_failed_leaves_what_was_held_before() -> None:
    session = holding(5)
    work = work_of(session, train_task(6))
    assert isinstance(work, TrainWork)
    assert session.failed(work) == Decline(6, Reason.FAILED)
    assert session.phase is VolunteerPhase.HOLDING
    assert isinstance(answer(session, report_request(5)), Report)
    never = training()
    work = work_of(never, train_task())
    assert isinstance(work, TrainWork)
    never.failed(work)
    assert never.phase is VolunteerPhase.IDLE


def test_evaluation_changes_nothing_that_is_held() -> None:
    session = holding(5)
    work = work_of(session, evaluate_task(5))
    assert isinstance(work, EvaluateWork)
    assert work.adapter.digest == START.digest
    assert session.evaluated(work, 2.5, 40) == Evaluation(5, 2.5, 40)
    assert session.failed(work) == Decline(5, Reason.FAILED)
    assert session.phase is VolunteerPhase.HOLDING
    assert isinstance(answer(session, report_request(5)), Report)


@pytest.mark.parametrize("make", [train_task, evaluate_task])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_hash": b"x" * 32}, Reason.OTHER_BASE),
        ({"adapter": as_bytes(START.vector)[:-4]}, Reason.MALFORMED),
        ({"adapter": as_bytes(START.vector) + b"\0\0\0\0"}, Reason.MALFORMED),
        ({"adapter": b""}, Reason.MALFORMED),
        ({"adapter": as_bytes(START.vector * np.float32(np.nan))}, Reason.MALFORMED),
        ({"adapter": as_bytes(START.vector * np.float32(np.inf))}, Reason.MALFORMED),
        ({"settings": replace(SETTINGS, local_steps=10_001)}, Reason.OVER_LIMITS),
        ({"settings": replace(SETTINGS, batch_size=4096, seq_len=1024)}, Reason.OVER_LIMITS),
    ],
)
def test_what_this_machine_does_not_allow_is_declined_in_a_fixed_word(
    make: Callable[..., Any], changes: dict[str, Any], reason: Reason
) -> None:
    session = fresh()
    assert answer(session, make(**changes)) == Decline(5, reason)
    assert session.phase is VolunteerPhase.IDLE


def test_an_adapter_beyond_the_owners_limit_is_declined_before_it_is_trained() -> None:
    session = RoundSession("ada", BASE, TaskLimits(max_adapter_values=SPEC.size - 1))
    assert answer(session, train_task()) == Decline(5, Reason.OVER_LIMITS)
    session = RoundSession("ada", BASE, TaskLimits(max_adapter_values=SPEC.size))
    assert isinstance(work_of(session, train_task()), TrainWork)


@pytest.mark.parametrize("changes", [{"method": "no such method"}, {"trainable_rank": 3}])
def test_a_task_that_makes_no_sense_is_declined_as_malformed(changes: dict[str, Any]) -> None:
    session = fresh()
    assert answer(session, train_task(**changes)) == Decline(5, Reason.MALFORMED)
    assert session.phase is VolunteerPhase.IDLE


@pytest.mark.parametrize(
    "layers",
    [
        [["model.b", 3, 4], ["model.a", 4, 3]],  # unsorted
        [["model.a", 4, 3], ["model.a", 4, 3]],  # twice
        [],
        [["model.a", 0, 3]],
        [["model.a", -4, 3]],
        [["model.a", 1 << 40, 3]],
        [["", 4, 3]],
        [["model.a", 4]],
    ],
)
def test_hostile_adapter_shapes_never_get_past_the_decoder(layers: list[Any]) -> None:
    packet = wire.encode(train_task())
    version, kind, fields = msgpack.unpackb(packet.head)
    fields[3][0] = layers
    forged = wire.Packet(msgpack.packb([version, kind, fields]), packet.body)
    with pytest.raises(RemoteProtocolError):
        wire.decode(forged, TrainTask, "coordinator")


def test_a_shape_that_claims_more_than_it_sends_is_malformed_and_nothing_is_allocated() -> None:
    huge = tuple(LayerShape(f"model.{i:05d}", 1 << 20, 1 << 20) for i in range(20_000))
    shape = AdapterShape(huge, 1024, 4.0, False, ("a",))
    assert answer(fresh(), train_task(shape=shape)) == Decline(5, Reason.MALFORMED)


@pytest.mark.parametrize("exchange", [2, 3, 4])
def test_an_update_is_never_summed_in_an_exchange_its_method_does_not_have(exchange: int) -> None:
    """Two sums of one update over almost the same volunteers differ by one volunteer's update."""
    session = holding(masking=masking())
    with pytest.raises(RemoteProtocolError):
        session.receive(offer(exchange=exchange))
    with pytest.raises(RemoteProtocolError):
        session.receive(ExchangeReply(5, exchange, START.digest, as_bytes(START.vector)))
    with pytest.raises(RemoteProtocolError):
        holding().receive(report_request(exchange=exchange))


def test_a_second_session_over_a_revealed_update_is_refused_even_after_training_it_again() -> None:
    from nomoat.aggregation.secagg.diary import Mark

    masks = masking()
    session = holding(masking=masks)
    masks.marks = (Mark("revealed", b"z" * 32, 5, 1),)
    for number, reason in ((4, Reason.STALE), (5, Reason.SPENT)):
        assert session.receive(train_task(number)).answer == Decline(number, reason)
    with pytest.raises(RemoteProtocolError, match="has left already"):
        session.receive(offer())


@pytest.mark.parametrize(("clip_l2", "norm"), [(0.0, None), (1e-3, 1e-3), (1e3, None)])
def test_an_update_beyond_the_offers_bound_is_scaled_down_to_it(
    clip_l2: float, norm: float | None
) -> None:
    free = np.linalg.norm(np.full(SPEC.size, 0.25))
    upload = holding(masking=masking()).receive(offer(clip_l2=clip_l2)).upload
    assert upload is not None
    assert upload.norm == pytest.approx(free if norm is None else norm, rel=1e-4)


def test_a_member_under_masks_joins_the_offer_it_agrees_with_and_no_other() -> None:
    session = holding(masking=masking())
    step = session.receive(offer())
    assert isinstance(step.answer, KeysReport)
    assert step.marks
    assert step.upload is not None
    assert step.upload.norm == pytest.approx(0.25 * SPEC.size**0.5, rel=1e-6)
    with pytest.raises(RemoteProtocolError):  # joined once, with secrets that are used once
        session.receive(offer())
    for other in (
        offer(session=b"w" * 32, base_hash=b"x" * 32),
        offer(session=b"w" * 32, roster_root=b"x" * 32),
        offer(session=b"w" * 32, manifest_hash=b"x" * 32),
        offer(session=b"w" * 32, audit_kind=65),
    ):
        with pytest.raises(RemoteProtocolError):
            session.receive(other)
    assert answer(session, offer(number=6)) == Decline(6, Reason.NOTHING_HELD)
    stale = answer(session, offer(adapter_hash=b"x" * 32))
    assert stale == Decline(5, Reason.STALE)


def test_a_plain_report_is_refused_by_a_member_that_requires_masks() -> None:
    assert answer(holding(masking=masking()), report_request()) == Decline(5, Reason.UNSAFE)
    assert isinstance(answer(holding(masking=masking(required=False)), report_request()), Report)
    assert answer(holding(), offer()) == Decline(5, Reason.UNSAFE)


@pytest.mark.parametrize("reply", [b"", b"\0" * 7, b"\0" * 8, b"\0\0\xc0\x7f" * 4])
def test_a_reply_between_two_exchanges_that_is_none_is_refused(reply: bytes) -> None:
    """Missing, no float32 values, of another size, NaN."""
    session = fresh()
    work = work_of(session, train_task(method="fedask"))
    assert isinstance(work, TrainWork)
    session.trained(work, result())
    assert isinstance(answer(session, report_request()), Report)
    with pytest.raises(RemoteProtocolError):
        session.receive(report_request(exchange=2, reply=reply))
    assert isinstance(answer(session, report_request()), Report)


def test_seeds_differ_by_volunteer_and_by_what_the_round_says() -> None:
    """Trap 7: rows are shuffled anew for every (round, volunteer)."""
    seeds = set()
    for name in ("ada", "bob"):
        for seed in (b"s" * 32, b"t" * 32):
            work = work_of(RoundSession(name, BASE, TaskLimits()), train_task(seed=seed))
            assert isinstance(work, TrainWork)
            seeds.add(work.seed)
    assert len(seeds) == 4


def test_a_machine_of_lower_rank_trains_fewer_modules_and_reports_the_whole() -> None:
    session = RoundSession("ada", BASE, TaskLimits(rank=1))
    work = work_of(session, train_task())
    assert isinstance(work, TrainWork)
    assert work.local.adapter.spec.rank == 1
    vector = work.local.adapter.vector + np.float32(0.5)
    session.trained(work, Trained(vector, 2, 500, 4.0, 3.0, 0.5))
    report = answer(session, report_request())
    assert isinstance(report, Report)
    change = Adapter(SPEC, as_vector(report.vector))
    for _, a, b in change.factors():
        np.testing.assert_allclose(a[0], 0.5, atol=1e-6)
        assert (a[1] == 0).all()
        np.testing.assert_allclose(b[:, 0], 0.5, atol=1e-6)
        assert (b[:, 1] == 0).all()


def test_a_held_update_from_an_earlier_process_is_reported_by_the_next() -> None:
    held = holding(5).held
    session = fresh(held=held)
    assert session.phase is VolunteerPhase.HOLDING
    assert isinstance(answer(session, report_request(5)), Report)


def test_what_was_broadcast_is_not_changed_by_holding_or_reporting() -> None:
    before = START.vector.tobytes()
    session = holding()
    session.receive(report_request())
    assert START.vector.tobytes() == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"personal": "everything"}, Reason.MALFORMED),
        ({"personal": "../../keys"}, Reason.MALFORMED),
        ({"personal": "adapter", "local_steps": 6}, Reason.OVER_LIMITS),  # as much work again
        ({"personal": "adapter", "local_epochs": 6}, Reason.OVER_LIMITS),
    ],
    ids=str,
)
def test_personal_settings_are_known_words_within_the_limits(
    changes: dict[str, Any], reason: Reason
) -> None:
    limits = TaskLimits(max_steps=10, max_epochs=10)
    asked = train_task(settings=replace(SETTINGS, **changes))
    assert answer(RoundSession("ada", BASE, limits), asked) == Decline(5, reason.value)
    allowed = train_task(settings=replace(SETTINGS, personal="adapter", local_steps=5))
    assert isinstance(work_of(RoundSession("ada", BASE, limits), allowed), TrainWork)


def test_a_rank_this_machine_affords_is_declared_and_trained() -> None:
    session = RoundSession("ada", BASE, TaskLimits(rank=1))
    work = work_of(session, train_task())
    assert isinstance(work, TrainWork)
    assert work.local.adapter.spec.rank == 1
    part = Trained(work.local.adapter.vector + np.float32(0.25), 2, 500, 4.0, 3.0, 0.5)
    assert session.trained(work, part).rank == 1


def test_a_method_without_mixed_ranks_is_declined_by_a_machine_that_affords_less() -> None:
    session = RoundSession("ada", BASE, TaskLimits(rank=1))
    step = session.receive(train_task(method="fedex"))
    assert step.answer == Decline(5, Reason.OVER_LIMITS.value)
    assert step.complaint is not None
    assert "needs all" in step.complaint  # for the owner; the wire has the fixed words alone
    unlimited = RoundSession("bob", BASE, TaskLimits())
    assert isinstance(work_of(unlimited, train_task(method="fedex")), TrainWork)


def test_a_personal_loss_is_said_beside_the_communitys() -> None:
    session = RoundSession("ada", BASE, TaskLimits())
    work = work_of(session, evaluate_task())
    assert isinstance(work, EvaluateWork)
    assert session.evaluated(work, 2.0, 10) == Evaluation(5, 2.0, 10, None)
    assert session.evaluated(work, 2.0, 10, 1.5) == Evaluation(5, 2.0, 10, 1.5)


def test_a_task_is_declined_while_too_few_members_are_long_known_to_this_machine() -> None:
    """Nobody trains for hours toward a session that its own policy must refuse."""
    alone = fresh(masking=masking(known=["ada"], known_peers=1))  # oneself is no peer
    step = alone.receive(train_task())
    assert step.answer == Decline(5, Reason.UNSAFE.value)
    assert step.complaint is not None
    assert "0 other members are known" in step.complaint
    assert "known_peers in settings.toml" in step.complaint
    one = fresh(masking=masking(known=["ada", "bob"], known_peers=2))
    assert "1 other members" in str(one.receive(train_task()).complaint)
    two = fresh(masking=masking(known=["bob", "cy"], known_peers=2))
    assert isinstance(work_of(two, train_task()), TrainWork)


def test_a_session_without_the_long_known_peers_that_the_policy_asks_for_is_refused() -> None:
    """bob is known for long, cy is not: a session of ada and cy is one the coordinator chose."""
    terms = Terms(5, 1, BASE, START.digest, methods.get("fedavg").manifest(SPEC, 5, 1), ROSTER)
    terms = replace(terms, work=work_hash(task_digest(train_task())))
    needed = thresholds(2, DEFAULT_ASSUMPTIONS)
    policy = Policy(min_participants=2, allow_weak=True)
    for partner, admitted in (("bob", True), ("cy", False)):
        session = holding(masking=masking(known=["bob"], known_peers=1))
        mine = session.receive(offer()).answer
        other = MaskedSession(
            Membership(KEYS[partner], lambda: ROSTER, policy, lambda _: b"e" * 32)
        )
        theirs, _ = other.open(offer(), terms, START.vector)
        members = [
            Participant(
                KEYS[name].public, keys.box_key, keys.mask_key, keys.signature, keys.modules
            )
            for name, keys in (("ada", mine), (partner, theirs))
            if isinstance(keys, KeysReport)
        ]
        members.sort(key=lambda member: member.identity)
        roster = SessionRoster(needed.neighbours, needed.shares, needed.quorum, tuple(members))
        if admitted:
            assert isinstance(session.receive(roster).answer, SharesReport)
        else:
            with pytest.raises(RemoteProtocolError, match="0 participants are long known"):
                session.receive(roster)
