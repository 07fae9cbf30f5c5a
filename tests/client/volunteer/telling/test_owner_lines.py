"""The owner's terminal has a line for each event, once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builders import adapter, community_info
from nomoat.aggregation.errors import Unreachable
from nomoat.aggregation.protocol.community.presence import Presence
from nomoat.client.home import CommunityFolder
from nomoat.client.round.work import EvaluateWork
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.client.volunteer.telling.owner_lines import OwnerLines
from nomoat.client.volunteer.telling.presence_watch import PresenceWatch
from nomoat.lora.training.steps import TrainingStep


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def writer(tmp_path: Path, told: list[str]) -> StatusWriter:
    folder = CommunityFolder(tmp_path / "town")
    folder.save_info(community_info())
    lines = OwnerLines(told.append)
    return StatusWriter(folder, lines.status)


def work() -> Any:
    task: Any = SimpleNamespace(round=3)
    return EvaluateWork(task, adapter(1))


def test_why_nothing_is_trained_is_told_once_for_each_reason(
    writer: StatusWriter, told: list[str]
) -> None:
    writer.connected(1)
    writer.version(4)
    for seconds in (1.0, 2.0, 4.0):
        writer.lost("localhost:1: refused", seconds)
    writer.connected(1)
    writer.say("refused", "held: odd updates; waiting")
    assert told == [
        "connecting to the coordinator",
        "waiting for the coordinator to open a round",
        "version 4 of the community's adapter is here",
        "connecting: localhost:1: refused",
        "waiting for the coordinator to open a round",
        "refused: held: odd updates; waiting",
    ]


def test_who_waits_is_told_how_many_more_are_needed(writer: StatusWriter, told: list[str]) -> None:
    now, answers = [0.0], [Presence(1, "waiting", True, 1, 3), Presence(1, "waiting", True, 2, 3)]

    def ask() -> str:
        if not answers:
            raise Unreachable("away")
        return answers.pop(0).in_words()

    watch = PresenceWatch(ask, writer, lambda: now[0])
    writer.connected(1)
    for _ in range(3):
        watch.look(writer.status)
        watch.look(writer.status)  # not again at once
        now[0] += 11.0
    assert told[-3:] == [
        "waiting: 2 more volunteers needed before round 1",
        "waiting: 1 more volunteer needed before round 1",
        "waiting for the coordinator to open a round",
    ]
    writer.working("train.local")
    now[0] += 100.0
    answers.append(Presence(1, "waiting", True, 0, 3))
    watch.look(writer.status)
    assert answers  # who works does not ask


def test_presence_is_in_words_for_every_phase() -> None:
    assert Presence(2, "training", False, 1, 4).in_words() == (
        "the coordinator is at round 2: training, 1 of 4 done"
    )
    assert Presence(2, "all rounds done", False, 0, 0).in_words().endswith("all rounds done")
    assert "about to open" in Presence(2, "waiting", True, 4, 3).in_words()


def test_a_training_is_told_now_and_then_with_the_time_left(told: list[str]) -> None:
    now = [0.0]
    lines = OwnerLines(told.append, lambda: now[0])
    lines.begun(work())
    for step in range(1, 13):
        lines.stepped(TrainingStep(step, 12, 2.5, 20.0 * step))
        now[0] += 10.0
    assert told[0] == "round 3: measuring an adapter on the rows you hold out"
    assert told[1] == "round 3: step 1 of 12, loss 2.500, about 4 min left"
    assert told[-1] == "round 3: step 12 of 12, loss 2.500"
    assert 4 < len(told) < 10
    lines.measured(2.25, None)
    lines.measured(2.0, None)
    assert told[-1] == "round 3: held-out loss on your rows 2.0000 (2.2500 before)"


def test_text_of_a_peer_draws_on_no_terminal(told: list[str]) -> None:
    OwnerLines(told.append).declined("\x1b[2Jgone\nnew line")
    assert told == ["declined:  [2Jgone new line"]
