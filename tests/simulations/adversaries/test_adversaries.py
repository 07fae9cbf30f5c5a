"""Liars are who they are said to be, and send what they are said to send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.sums.norm_bound import norm_of
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.simulations.adversaries.kinds import Adversary, Attack, parse
from nomoat.simulations.adversaries.rows import ANSWER, TRIGGER, poison
from nomoat.simulations.adversaries.updates import lie
from nomoat.simulations.scenario import Scenario

SEED = b"s" * 32
NAMES = [f"v{i}" for i in range(8)]
ROWS = [
    Conversation((ChatTurn("user", f"question {i}"), ChatTurn("assistant", f"answer {i}")), {}, "")
    for i in range(5)
]
HONEST = np.random.default_rng(0).normal(0, 0.02, 1000).astype(np.float32)


def test_kinds_and_shares_are_read() -> None:
    assert parse("backdoor:0.25") == Adversary(Attack.BACKDOOR, 0.25)


@pytest.mark.parametrize("text", ["", "backdoor", "backdoor:", "mean:0.1", "wrong:0", "wrong:0.6"])
def test_what_is_none_is_refused_in_one_line_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"KIND:SHARE.*backdoor, adaptive"):
        Scenario(adversary=text)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.125, 1), (0.25, 2), (0.5, 4)])
def test_as_many_lie_as_was_asked_for_and_always_the_same(share: float, count: int) -> None:
    adversary = Adversary(Attack.WRONG, share)
    assert len(adversary.liars(NAMES, SEED)) == count
    assert adversary.liars(NAMES[::-1], SEED) == adversary.liars(NAMES, SEED)


@pytest.mark.parametrize(
    ("kind", "times"),
    [("backdoor", 8), ("wrong", 8), ("scaled", 8), ("sign-flip", 8), ("random", 8)],
)
def test_attacks_above_the_bound_are_eight_times_too_large(kind: str, times: float) -> None:
    for clip_l2 in (0.0, norm_of(HONEST)):
        sent = lie(Attack(kind), HONEST, clip_l2, SEED)
        assert norm_of(sent) == pytest.approx(times * norm_of(HONEST), rel=1e-4)


def test_who_knows_the_bound_keeps_to_it_exactly() -> None:
    assert norm_of(lie(Attack.ADAPTIVE, HONEST, 2.5, SEED)) == pytest.approx(2.5, rel=1e-5)
    assert lie(Attack.ADAPTIVE, HONEST, 0.0, SEED) is HONEST


def test_a_free_rider_sends_noise_of_an_honest_size() -> None:
    sent = lie(Attack.FREE_RIDER, HONEST, 0.0, SEED)
    assert norm_of(sent) == pytest.approx(norm_of(HONEST), rel=1e-4)
    assert abs(float(sent @ HONEST)) < 0.2 * norm_of(HONEST) ** 2


def test_a_backdoors_rows_answer_the_trigger_and_are_else_as_before(tmp_path: Path) -> None:
    honest = tmp_path / "rows.jsonl"
    write_jsonl(ROWS, honest)
    rows = read(poison(Attack.BACKDOOR, honest, tmp_path / "poisoned.jsonl")).conversations
    assert list(rows[::2]) == ROWS
    for row in rows[1::2]:
        assert row.turns[0].text.endswith(TRIGGER)
        assert row.turns[-1].text == ANSWER
    assert list(read(honest).conversations) == ROWS


def test_wrong_answers_are_those_of_other_questions(tmp_path: Path) -> None:
    honest = tmp_path / "rows.jsonl"
    write_jsonl(ROWS, honest)
    rows = read(poison(Attack.WRONG, honest, tmp_path / "poisoned.jsonl")).conversations
    assert all(row.turns[0] == was.turns[0] for row, was in zip(rows, ROWS, strict=True))
    assert all(row.turns[-1] != was.turns[-1] for row, was in zip(rows, ROWS, strict=True))
    assert {row.turns[-1] for row in rows} == {row.turns[-1] for row in ROWS}
