"""A planted phrase is one of many alike, and an adapter that was trained on it gives it away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.data.secrets_scan import scan
from nomoat.lora.canaries.exposure import exposure
from nomoat.lora.canaries.phrases import BITS, LENGTH, WORDS, drawn, others
from nomoat.lora.data.normal_form import write_jsonl
from nomoat.lora.data.reading import read
from nomoat.lora.model.adapter_spec import initial_adapter, new_spec
from nomoat.lora.workers.jobs import TrainJob
from nomoat.lora.workers.pool import Pool
from nomoat.serving.canaries.measured import ADAPTER, BASE, exposures
from nomoat.serving.canaries.remembered import FILE, remember, remembered
from nomoat.serving.cli import canaries
from nomoat.simulations.pocket import MODEL_DIR


def test_a_phrase_nobody_has_learnt_is_in_the_middle_and_a_known_one_far_ahead() -> None:
    rng = np.random.default_rng(0)
    alike = list(rng.normal(3.0, 0.2, 255))
    assert exposure(3.0, alike).bits == pytest.approx(1.0, abs=0.3)
    assert exposure(9.0, alike).bits == pytest.approx(0.0, abs=0.01)
    known = exposure(2.0, alike)
    assert known.ahead == 0
    assert known.bits == pytest.approx(20.7, abs=3)  # 5 deviations
    assert exposure(0.0, alike).bits == BITS
    assert exposure(2.0, [3.0] * 9).bits == BITS


def test_canaries_are_drawn_from_all_phrases_and_the_others_are_never_it() -> None:
    assert len(set(WORDS)) == len(WORDS) == 64
    assert BITS == 30
    planted = [drawn(bytes([i]) * 32, 5) for i in range(50)]
    assert len({one.phrase for one in planted}) == len({one.tag for one in planted}) == 50
    alike = others(planted[0], 200)
    assert len(alike) == 200
    assert all(row.turns[0] == planted[0].row().turns[0] for row in alike)
    assert planted[0].row() not in alike
    assert alike == others(planted[0], 200)
    assert len(planted[0].row().turns[1].text.split()) == LENGTH


def test_what_was_planted_is_remembered_for_its_owner_alone(tmp_path: Path) -> None:
    assert remembered(tmp_path) == ()
    first, second = drawn(b"a" * 32, 1), drawn(b"b" * 32, 2)
    remember(tmp_path, first)
    remember(tmp_path, second)
    assert remembered(tmp_path) == (first, second)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).write_text("[{}]")
    with pytest.raises(NomoatError, match="is damaged; delete it"):
        remembered(tmp_path)


def test_a_canary_is_a_row_like_any_other_and_no_secret_to_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "home"))
    out = tmp_path / "canary.jsonl"
    told = CliRunner().invoke(canaries.data, [str(out), "--copies", "3"])
    assert told.exit_code == 0, told.output
    rows = read(out).conversations
    assert len(rows) == 3
    assert not scan([("x", turn.text) for turn in rows[0].turns]).findings
    (planted,) = remembered(tmp_path / "home")
    assert planted.row() == rows[0]
    with pytest.raises(UsageError, match="exists already"):
        CliRunner().invoke(canaries.data, [str(out)], catch_exceptions=False)


def test_an_adapter_trained_on_a_canary_gives_it_away_and_the_base_does_not(
    tmp_path: Path,
) -> None:
    planted = drawn(b"c" * 32, 1)
    shard = tmp_path / "rows.jsonl"
    write_jsonl([planted.row()] * 8, shard)
    start = initial_adapter(new_spec(str(MODEL_DIR), 4, 8.0), b"s" * 32)
    settings = TrainSettings(local_steps=8, batch_size=8, seq_len=64, learning_rate=1e-2)
    with Pool(str(MODEL_DIR), 1) as pool:
        job = TrainJob(shard, start.spec, start.vector, settings, b"s" * 32)
        trained = Adapter(start.spec, pool.submit(job).result().vector)
        found = exposures([planted], trained, pool, 15)[planted.tag]
    assert found[ADAPTER].bits > 6
    assert found[ADAPTER].ahead == 0
    assert found[BASE].bits < 4
