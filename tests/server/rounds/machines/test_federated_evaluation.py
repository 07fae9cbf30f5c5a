"""A survey ends with what was measured, whoever lies, declines, leaves or never answers."""

from __future__ import annotations

import math

import msgpack
import numpy as np
import pytest

from builders import evaluate_task
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import (
    Decline,
    EvaluateTask,
    Evaluation,
    Ready,
)
from nomoat.server.rounds.machines.federated_evaluation import FederatedEvaluation
from nomoat.server.rounds.machines.patience import Waiting

SPEC = AdapterSpec((LayerSpec("model.q", 3, 2, 1),), 1, 1.0, target_modules=("q",))
ADAPTER = Adapter(SPEC, np.zeros(SPEC.size, np.float32))
TASK = evaluate_task(ADAPTER, 4)


def measured(loss: float, number: int = 4) -> wire.Packet:
    return wire.encode(Evaluation(number, loss, 10))


def test_everyone_is_asked_the_same_and_a_survey_of_nobody_is_done() -> None:
    survey = FederatedEvaluation(TASK, ("ada", "bob"))
    sent = survey.start(0.0)
    assert [item.volunteer for item in sent] == ["ada", "bob"]
    assert wire.decode(sent[0].packet, EvaluateTask, "") == TASK
    assert sent[0].packet is sent[1].packet
    empty = FederatedEvaluation(TASK, ())
    assert empty.start(0.0) == []
    assert empty.done
    assert empty.losses == {}


def test_each_volunteer_is_in_exactly_one_of_measured_lost_and_refused() -> None:
    names = ("ada", "bob", "cy", "dee", "eve", "fay", "gil")
    survey = FederatedEvaluation(TASK, names, Waiting(10.0))
    survey.start(5.0)
    survey.receive("ada", measured(1.5), 6.0)
    survey.receive("bob", measured(1.5, number=3), 6.0)
    survey.receive("cy", wire.encode(Ready(4, 1, 1, 1.0, 1.0, 1.0, 4)), 6.0)
    survey.receive("dee", wire.Packet(b"\xff"), 6.0)
    survey.receive("eve", wire.encode(Decline(4, "paused")), 6.0)
    survey.leave("fay", "gone", 6.0)
    assert not survey.done
    assert survey.next_deadline == 15.0
    survey.wake(14.9)
    assert not survey.done
    survey.wake(15.0)
    assert survey.done
    assert survey.losses == {"ada": 1.5}
    assert survey.refused.keys() == {"bob", "cy", "dee"}
    assert "evaluated round 3" in survey.refused["bob"]
    assert survey.lost == {"eve": "paused", "fay": "gone", "gil": "too late to evaluate"}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -0.1, 1e9])
def test_an_impossible_loss_is_refused(loss: float) -> None:
    """Our encoder would not send it, so the head is forged."""
    import msgpack

    version, kind, fields = msgpack.unpackb(measured(1.0).head)
    fields[1] = loss
    survey = FederatedEvaluation(TASK, ("ada",))
    survey.start(0.0)
    survey.receive("ada", wire.Packet(msgpack.packb([version, kind, fields])), 1.0)
    assert survey.losses == {}
    assert "ada" in survey.refused


def test_only_the_first_answer_counts_and_strangers_are_not_heard() -> None:
    survey = FederatedEvaluation(TASK, ("ada", "bob"))
    survey.start(0.0)
    survey.receive("mallory", measured(0.0), 1.0)
    survey.receive("ada", measured(1.0), 1.0)
    survey.receive("ada", measured(9.0), 1.0)
    survey.leave("ada", "gone", 1.0)
    survey.leave("mallory", "gone", 1.0)
    survey.receive("bob", measured(2.0), 1.0)
    survey.wake(math.inf)
    assert survey.losses == {"ada": 1.0, "bob": 2.0}
    assert survey.lost == {}
    assert survey.refused == {}


@pytest.mark.parametrize("value", [-1.0, float("nan"), 1e9, "1.0"])
def test_a_personal_loss_out_of_bounds_is_refused_like_any_other(value: object) -> None:
    assert survey_with(value) == ({}, {})


def test_personal_losses_are_of_those_who_keep_something() -> None:
    assert survey_with(1.5) == ({"ada": 2.0}, {"ada": 1.5})
    assert survey_with(None) == ({"ada": 2.0}, {})


def survey_with(personal: object) -> tuple[dict[str, float], dict[str, float]]:
    """(losses, personal losses) after an evaluation whose last field is this."""
    head = msgpack.packb([wire.PROTOCOL_VERSION, "evaluation", [4, 2.0, 10, personal]])
    survey = FederatedEvaluation(TASK, ("ada",))
    survey.start(0.0)
    survey.receive("ada", wire.Packet(head), 1.0)
    assert survey.done
    assert ("ada" in survey.refused) == ("ada" not in survey.losses)
    return survey.losses, survey.personal
