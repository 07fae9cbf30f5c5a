"""benchmarks/attacks.py adds up what liars did, and computes once what its cells share."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.lora.workers.jobs import EvaluateJob, SpecJob, TrainJob

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SPEC = AdapterSpec((LayerSpec("q", 4, 4, 1),), 1, 1.0)


def line(
    kind: str,
    seed: int,
    loss: float,
    backdoor: float,
    named: dict[str, Any],
    defence: str = "audit",
) -> dict[str, Any]:
    cell = [kind, 8, defence, seed]
    return {"cell": cell, "loss": loss, "backdoor": backdoor, "kept": 5, "named": named}


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from cells.attack_figures import summary as found

    return found


def test_each_seed_is_held_against_its_own_federation_without_liars(summary: Any) -> None:
    lines = [
        line("honest", 0, 0.9, 0.02, {}),
        line("honest", 1, 0.8, 0.02, {}),
        line("honest", 0, 0.9, 0.02, {}, "none"),
        line("honest", 1, 1.0, 0.02, {}, "none"),
        line("backdoor", 0, 0.9, 0.03, {"a": 1}),
        line("backdoor", 1, 0.88, 0.05, {"b": 2}),
        line("edge", 0, 0.9, 0.03, {"a": 4}),
        line("edge", 1, 0.8, 0.03, {"b": None}),
        line("adaptive", 0, 0.99, 0.5, {"a": None}),
    ]
    found = summary(lines)
    assert found["worst_over_bound_loss_ratio"] == pytest.approx(1.05)
    assert found["loss_ratios_worst_seed"]["backdoor/8/audit"] == pytest.approx(1.1)
    assert found["worst_masked_loss_ratio"]["audit"] == pytest.approx(1.1)  # one within the bound
    assert found["backdoor_over_bound"] == pytest.approx(0.04)
    assert found["backdoor_in_bound_8"] == 0.5
    assert found["clean_cost"] == pytest.approx(0.9)
    named = found["named_rounds_max"]
    assert named == {"8 x": {"round": 2, "never": 0}, "1.4 x": {"round": 4, "never": 1}}


class CountingPool:
    def __init__(self) -> None:
        self.jobs: list[object] = []

    def submit(self, job: object) -> Future[Any]:
        self.jobs.append(job)
        future: Future[Any] = Future()
        future.set_result(len(self.jobs))
        return future


def test_only_what_is_the_same_in_everything_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from cells.remembered import RememberedAnswers

    rows, copy, others = (tmp_path / name for name in ("rows", "copy", "others"))
    for path, text in ((rows, "one"), (copy, "one"), (others, "two")):
        path.write_text(text)
    vector = np.zeros(SPEC.size, np.float32)
    train = TrainJob(rows, SPEC, vector, TrainSettings(), b"seed")
    pool = CountingPool()
    remembered: Any = RememberedAnswers(pool)  # type: ignore[arg-type]
    first = remembered.submit(train).result()
    assert remembered.submit(replace(train, shard=copy)).result() == first
    different = [
        replace(train, shard=others),
        replace(train, vector=vector + 1),
        replace(train, seed=b"another"),
        replace(train, settings=TrainSettings(local_steps=2)),
        replace(train, share=0.5),
        EvaluateJob(rows, SPEC, vector, TrainSettings()),
        SpecJob(1, 1.0, "all-linear"),
        SpecJob(1, 1.0, "all-linear"),
    ]
    answers = [remembered.submit(job).result() for job in different]
    assert len({first, *answers}) == 1 + len(different)
