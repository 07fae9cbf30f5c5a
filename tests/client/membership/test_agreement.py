"""What was agreed to on the sheet binds every task, every day, and is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import SPEC, adapter, at_rank, community_info, evaluate_task, train_task
from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol.messages import TrainSettings, TrainTask
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.protocol.work_terms import WorkTerms, check, rounds_per_day, sign
from nomoat.client.membership.agreement import Agreement, load, most_bytes, save, within
from nomoat.client.membership.day_of_rounds import DayOfRounds

KEY = SigningKey(b"k" * 32)
SETTINGS = TrainSettings(local_steps=10, batch_size=4, seq_len=100, learning_rate=1e-3)
TERMS = WorkTerms(SETTINGS, SPEC.size, 24, bytes(64))
AGREED = Agreement.of(community_info(), TERMS)


def asked(**changes: object) -> TrainTask:
    return train_task(adapter(1), settings=replace(SETTINGS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{}, {"local_steps": 12}, {"seq_len": 120}, {"learning_rate": 1.2e-3}, {"local_steps": 1}],
)
def test_a_task_within_the_agreement_and_its_room_is_taken(changes: dict[str, object]) -> None:
    assert within(AGREED, asked(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"local_steps": 10_000}, "steps 10000; 10 and 20 % were agreed to"),
        ({"local_steps": 13}, "steps 13"),
        ({"batch_size": 4096}, "tokens a step 409600; 400 and"),
        ({"learning_rate": 0.1}, "a learning rate of 0.1; 0.001 and"),
        ({"local_epochs": 1}, "passes over your rows 1; 0 and"),
        ({"personal": "adapter"}, "trainings a round 2; 1 and"),
    ],
)
def test_a_task_that_asks_for_more_is_declined_with_both_figures(
    changes: dict[str, object], said: str
) -> None:
    assert said in str(within(AGREED, asked(**changes)))


def test_an_adapter_larger_than_agreed_is_neither_trained_nor_measured() -> None:
    large = adapter(1, at_rank(SPEC, 64))
    assert "values in the adapter" in str(within(AGREED, train_task(large, settings=SETTINGS)))
    assert "values in the adapter" in str(within(AGREED, evaluate_task(large, settings=SETTINGS)))
    assert within(AGREED, evaluate_task(adapter(1), settings=SETTINGS)) is None


def test_passes_that_were_agreed_to_take_the_place_of_steps() -> None:
    passes = replace(TERMS, settings=replace(SETTINGS, local_epochs=5))
    agreed = Agreement.of(community_info(), passes)
    assert within(agreed, asked(local_epochs=6, local_steps=10_000)) is None
    assert "passes over your rows 7" in str(within(agreed, asked(local_epochs=7)))


def test_an_agreement_is_kept_and_one_of_before_is_what_the_community_said(tmp_path: Path) -> None:
    info = community_info(local_steps=7, adapter_values=99)
    before = load(tmp_path, info)
    assert (before.steps, before.adapter_values, before.weak) == (7, 99, True)
    save(tmp_path, AGREED)
    assert load(tmp_path, info) == AGREED
    assert (tmp_path / "agreed.json").stat().st_mode & 0o777 == 0o600
    kept = json.loads((tmp_path / "agreed.json").read_bytes())
    (tmp_path / "agreed.json").write_text(json.dumps({**kept, "later": 1}))
    with pytest.raises(NomoatError, match="newer release"):
        load(tmp_path, info)
    (tmp_path / "agreed.json").write_text("[]")
    with pytest.raises(NomoatError, match="damaged"):
        load(tmp_path, info)


def test_terms_that_the_community_did_not_sign_are_refused() -> None:
    signed = sign(TERMS, KEY)
    assert check(signed, KEY.public) == signed
    with pytest.raises(RemoteProtocolError, match="not signed"):
        check(replace(signed, rounds_per_day=1000), KEY.public)


def test_rounds_of_a_day_follow_from_the_pace_a_community_keeps() -> None:
    assert rounds_per_day(3600.0, 100) == 25
    assert rounds_per_day(0.0, 100) == 224  # some come to nothing, and count as none
    assert rounds_per_day(0.0, 1) == 26
    assert rounds_per_day(0.0, 100_000) == 1440


@pytest.fixture
def now() -> list[float]:
    return [1e9]


@pytest.fixture
def day(tmp_path: Path, now: list[float]) -> Callable[[], DayOfRounds]:
    """What another process finds, each time."""
    return lambda: DayOfRounds(tmp_path, 2, lambda: now[0])


def test_rounds_of_a_day_are_counted_over_restarts_and_a_training_gone_on_with_counts_once(
    day: Callable[[], DayOfRounds], now: list[float]
) -> None:
    tasks = [train_task(adapter(1), number) for number in (1, 1, 2, 2, 3)]
    assert [day().begin(task) for task in tasks[:4]] == [None] * 4
    assert "2 rounds were trained within a day" in str(day().begin(tasks[4]))
    now[0] -= 3600  # a clock that is set back gives no further rounds
    assert "2 rounds were trained within a day" in str(day().begin(tasks[4]))
    now[0] += 3600 + 86_401
    assert day().begin(tasks[4]) is None


def test_a_round_that_is_begun_again_and_again_otherwise_is_declined(tmp_path: Path) -> None:
    """Each training tells its first loss: many small ones would tell those of single rows."""
    many = DayOfRounds(tmp_path, 1000)
    one, other = train_task(adapter(1)), train_task(adapter(1), seed=b"t" * 32)
    said = [many.begin(task) for task in (one, other, one, other, one)]
    assert said[:3] == [None] * 3
    assert "begun 3 times already" in str(said[3])
    assert said[4] is None  # the one that was begun last is gone on with


def test_rounds_that_are_only_measured_are_counted_too(day: Callable[[], DayOfRounds]) -> None:
    tasks = [evaluate_task(adapter(number), number // 2 + 1) for number in range(6)]
    assert [day().measure(task) for task in tasks[:4]] == [None] * 4
    assert "2 rounds were measured within a day" in str(day().measure(tasks[4]))


def test_steps_of_fewer_rows_than_agreed_are_declined() -> None:
    assert "steps of 1 rows" in str(within(AGREED, asked(batch_size=1, seq_len=400)))


def test_what_may_be_fetched_follows_from_the_adapter_that_was_agreed_to() -> None:
    small = replace(AGREED, adapter_values=100_000)
    assert most_bytes(small) < 8 << 20
    assert most_bytes(replace(AGREED, adapter_values=1 << 40)) <= 1100 << 20
    assert most_bytes(small) > 4 * small.at_most(small.adapter_values)
