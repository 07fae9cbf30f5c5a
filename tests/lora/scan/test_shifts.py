"""Two adapters that answer alike shift nothing; texts are tried while there is time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec
from nomoat.lora.data.conversations import ChatTurn, Conversation
from nomoat.lora.data.encoding import Encoder
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.model.adapter_slot import attach, detach
from nomoat.lora.model.base_model import initial_adapter
from nomoat.lora.scan.plan import ScanPlan, Shifts
from nomoat.lora.scan.shifts import TOGETHER, scan, with_text
from nomoat.lora.scan.triggers import KNOWN, random_texts
from nomoat.lora.workers.jobs import ScanJob
from nomoat.lora.workers.pool import Pool

ROWS = tuple(
    Conversation((ChatTurn("user", f"What is {n}?"), ChatTurn("assistant", f"It is {n}.")), {}, "")
    for n in range(3)
)
PLAN = ScanPlan(b"s" * 32, ("mine",), random=3, rare=2, questions=2)


@pytest.fixture
def pair(spec: AdapterSpec) -> tuple[Adapter, Adapter]:
    start = initial_adapter(spec, b"i")
    noise = np.random.default_rng(1).normal(0, 0.05, spec.size).astype(np.float32)
    return start, Adapter(spec, start.vector + noise)


def scanned(base: Any, adapters: tuple[Adapter, Adapter], clock: Any = lambda: 0.0) -> Shifts:
    model = attach(base, adapters[0].spec)
    try:
        return scan(model, adapters, Encoder.of(base.tokenizer, 128), ROWS, PLAN, clock)
    finally:
        detach(model)


def test_an_adapter_shifts_nothing_from_itself_and_another_one_does(
    base: Any, pair: tuple[Adapter, Adapter]
) -> None:
    same = scanned(base, (pair[0], pair[0]))
    assert {"mine", *KNOWN} < same.of.keys()
    assert same.asked == len(same.of)
    assert max(map(abs, same.of.values())) < 1e-6
    other = scanned(base, pair)
    assert other.of.keys() == same.of.keys()
    assert min(other.of.values()) > 0


def test_no_text_is_begun_after_the_time_is_up(base: Any, pair: tuple[Adapter, Adapter]) -> None:
    clock = itertools.chain([0.0, 1.0], itertools.repeat(PLAN.seconds)).__next__
    found = scanned(base, pair, clock)
    assert list(found.of) == ["mine", *KNOWN][:TOGETHER]
    assert found.asked > TOGETHER


def test_a_text_stands_at_the_end_of_the_first_question_that_is_answered() -> None:
    row = replace(ROWS[0], turns=(ChatTurn("system", "Be brief."), *ROWS[0].turns, *ROWS[1].turns))
    tried = with_text(row, "zq")
    assert [turn.text for turn in tried.turns] == ["Be brief.", "What is 0? zq", "It is 0."]


def test_nobody_foresees_the_texts_of_another_seed() -> None:
    drawn = [random_texts(np.random.default_rng(seed), 8) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_a_worker_scans_a_file_and_says_so_where_nothing_is_asked(
    model_folder: Path, pair: tuple[Adapter, Adapter], tmp_path: Path
) -> None:
    asking, telling = tmp_path / "asking.jsonl", tmp_path / "telling.jsonl"
    write_jsonl(ROWS, asking)
    write_jsonl([Conversation((ChatTurn("assistant", "Hello."),), {}, "")], telling)
    before, after = pair
    with Pool(str(model_folder), workers=1, device="cpu") as pool:
        found, nothing = (
            pool.submit(ScanJob(rows, after.spec, before.vector, after.vector, 128, PLAN))
            for rows in (asking, telling)
        )
        assert len(found.result().of) == found.result().asked
        with pytest.raises(BadData, match="question"):
            nothing.result()
