"""The bound follows the coordinator's own training, a setting, or the last round's; else none."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.methods import get
from nomoat.aggregation.methods.base import LocalStart, SummedMethod
from nomoat.aggregation.protocol.adapter import Vector, as_bytes
from nomoat.aggregation.protocol.messages import AdapterShape, TrainSettings, TrainTask
from nomoat.server.rounds.norms.learned_bound import BoundLearner
from tests.builders import SPEC, adapter

START = adapter(0)


def task(number: int = 1, method: str = "fedavg") -> TrainTask:
    shape, vector = AdapterShape.of(SPEC), as_bytes(START.vector)
    return TrainTask(
        number, method, b"b" * 32, shape, SPEC.rank, TrainSettings(), b"s" * 32, vector
    )


def moving(step: float):
    def train(_task: TrainTask, local: LocalStart) -> Future[Vector]:
        done: Future[Vector] = Future()
        done.set_result(local.adapter.vector + np.float32(step))
        return done

    return train


def failing(_task: TrainTask, _local: LocalStart) -> Future[Vector]:
    done: Future[Vector] = Future()
    done.set_exception(NomoatError("no room"))
    return done


def limit(learner: BoundLearner, number: int = 1, method: str = "fedavg") -> float | None:
    bound = learner.begin(task(number, method), START, get(method))
    found = None if bound is None else bound.of_exchange(1, b"")
    return None if found is None else found.limit


def test_without_rows_and_without_a_setting_there_is_no_bound() -> None:
    assert limit(BoundLearner(None)) is None


def test_a_setting_goes_before_a_training_which_then_is_not_made() -> None:
    assert limit(BoundLearner(failing, 3.5)) == 3.5


@pytest.mark.parametrize("step", [0.01, 0.02])
def test_the_bound_is_the_norm_of_what_the_coordinator_itself_would_report(step: float) -> None:
    expected = step * SPEC.size**0.5
    assert limit(BoundLearner(moving(step))) == pytest.approx(expected, rel=1e-4)


def test_a_method_that_sends_one_factor_is_bounded_by_that_factor() -> None:
    method = get("ffa")
    assert isinstance(method, SummedMethod)
    size = method.manifest(SPEC, 1).size
    found = limit(BoundLearner(moving(0.01)), method="ffa")
    assert found == pytest.approx(0.01 * size**0.5, rel=1e-4)


def test_fedploras_indicator_is_not_part_of_the_norm() -> None:
    found = limit(BoundLearner(moving(0.01)), method="fedplora")
    assert found == pytest.approx(0.01 * SPEC.size**0.5, rel=1e-4)


def test_after_a_training_that_failed_the_last_bound_holds() -> None:
    learner = BoundLearner(failing)
    assert limit(learner) is None
    learner.train = moving(0.01)
    known = limit(learner)
    learner.train = failing
    assert limit(learner, 2) == known is not None


def test_methods_that_see_every_update_have_no_bound() -> None:
    assert BoundLearner(moving(0.01)).begin(task(method="flora"), START, get("flora")) is None
