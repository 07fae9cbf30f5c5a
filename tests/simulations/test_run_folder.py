"""A run's folder takes rounds whole, gives them back after a kill, and never a torn one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.methods.base import MethodState
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.records import RoundRecord
from nomoat.simulations.run_folder import RunFolder, config_text, read_metrics
from nomoat.simulations.scenario import Scenario

SPEC = AdapterSpec((LayerSpec("model.a", 3, 2, 1),), 1, 1.0, target_modules=("a",))
INPUTS = b"i" * 32


def state(value: float) -> MethodState:
    kept = {"basis": np.full(3, value, np.float32)}
    return MethodState(Adapter(SPEC, np.full(SPEC.size, value, np.float32)), 1, kept)


def opened(path: Path) -> RunFolder:
    folder, _ = RunFolder.reopen(path)
    folder.bind(SPEC, INPUTS)
    return folder


@pytest.fixture
def filled(tmp_path: Path) -> RunFolder:
    """A run after rounds 0, 1 and 2."""
    folder = RunFolder.create(tmp_path / "run", Scenario(), [])
    folder.bind(SPEC, INPUTS)
    for number in range(3):
        record = RoundRecord(number, True, "fine", ("ada",), losses={"ada": 1.0 - number / 10})
        folder.write(
            record, FederationCheckpoint(number, state(number), {"ada": 1.0 - number / 10})
        )
    return folder


def test_a_round_written_is_a_round_read(filled: RunFolder) -> None:
    last = opened(filled.path).last()
    assert last is not None
    assert last.round == 2
    assert last.losses == {"ada": 0.8}
    assert (last.state.adapter.vector == 2).all()
    assert (last.state.kept["basis"] == 2).all()
    assert [record["round"] for record in filled.records()] == [0, 1, 2]


def test_losses_with_own_parts_outlast_a_round_that_measured_none(filled: RunFolder) -> None:
    checkpoint = FederationCheckpoint(3, state(2), {"ada": 0.8}, personal={"ada": 0.5})
    filled.write(RoundRecord(3, False, "worse", ("ada",), losses={"ada": 0.8}), checkpoint)
    last = opened(filled.path).last()
    assert last is not None
    assert last.personal == {"ada": 0.5}


def test_a_new_run_has_no_last_round(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", Scenario(), [])
    assert opened(tmp_path / "run").last() is None


@pytest.mark.parametrize("cut", ["\n", '{"round": 2', "", '{"round": 2, "comm'])
def test_a_metrics_line_lost_or_torn_after_the_checkpoint_is_written_again(
    filled: RunFolder, cut: str
) -> None:
    whole = filled.metrics.read_text()
    lines = whole.splitlines(keepends=True)
    filled.metrics.write_text("".join(lines[:2]) + cut.lstrip("\n"))
    opened(filled.path).last()
    assert filled.metrics.read_text() == whole


def test_metrics_beyond_the_checkpoint_are_cut_off(filled: RunFolder) -> None:
    whole = filled.metrics.read_text()
    filled.metrics.write_text(whole + '{"round": 3}\n')
    opened(filled.path).last()
    assert filled.metrics.read_text() == whole


def test_metrics_that_lack_an_earlier_round_are_refused(filled: RunFolder) -> None:
    lines = filled.metrics.read_text().splitlines(keepends=True)
    filled.metrics.write_text(lines[1])
    with pytest.raises(UsageError, match="lacks rounds"):
        opened(filled.path).last()


def test_a_checkpoint_of_other_inputs_is_refused(filled: RunFolder) -> None:
    folder, _ = RunFolder.reopen(filled.path)
    folder.bind(SPEC, b"x" * 32)
    with pytest.raises(UsageError, match="have changed"):
        folder.last()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"junk"])
def test_a_damaged_checkpoint_is_refused_in_one_line(filled: RunFolder, content: bytes) -> None:
    filled.checkpoint.write_bytes(content)
    with pytest.raises(UsageError, match=r"checkpoint\.safetensors is damaged"):
        opened(filled.path).last()


@pytest.mark.parametrize("text", ["", "= =", "[scenario]\nrounds = 0\n", "[other]\n", "\udc80"])
def test_a_mangled_config_is_refused_in_one_line(filled: RunFolder, text: str) -> None:
    filled.config.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=r"config\.toml is not what a run wrote") as caught:
        RunFolder.reopen(filled.path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_round_before(
    filled: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    before = filled.metrics.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(NomoatError, match="No space left on device"):
            filled.write(RoundRecord(3, True, ""), FederationCheckpoint(3, state(3), {}))
    assert filled.metrics.read_text() == before
    last = opened(filled.path).last()
    assert last is not None
    assert last.round == 2
    assert [path.name for path in filled.path.glob(".*")] == []


def _full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_new_run_that_failed_leaves_nothing_and_one_with_rounds_everything(
    filled: RunFolder, tmp_path: Path
) -> None:
    failed = RunFolder.create(tmp_path / "failed", Scenario(), [])
    failed.forget()
    assert not failed.path.exists()
    filled.forget()
    assert filled.config.exists()
    opened(filled.path).forget()
    assert filled.config.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    RunFolder.create(tmp_path / "mine", Scenario(), []).forget()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_run_waiting_to_be_resumed_is_not_forgotten_when_resuming_fails(tmp_path: Path) -> None:
    """Killed before its first round was over; its data is missing when it is resumed."""
    RunFolder.create(tmp_path / "run", Scenario(), [])
    folder, _ = RunFolder.reopen(tmp_path / "run")
    folder.forget()
    assert folder.config.exists()


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "adapter", "report.html", "summary.json", "curve.png"]
)
def test_nothing_of_anyones_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=name):
        RunFolder.create(tmp_path, Scenario(), [])
    assert not (tmp_path / "config.toml").exists()


def test_the_config_says_every_setting_and_how_to_repeat_the_run() -> None:
    scenario = Scenario(by="who", data="rows with space.jsonl", seed=3)
    text = config_text(scenario, ["simulate", "--data", "rows with space.jsonl", "--seed", "3"])
    assert "#   nomoat simulate --data 'rows with space.jsonl' --seed 3\n" in text
    read = tomllib.loads(text)
    assert Scenario.model_validate(read["scenario"]) == scenario
    assert {"torch", "flwr", "peft", "python", "platform"} <= set(read["versions"])


@pytest.mark.parametrize("odd", ["a\nrounds = 0", "a\r\nb", 'quote " and # hash', "日本"])
def test_whatever_is_typed_cannot_break_out_of_the_configs_comment(odd: str) -> None:
    scenario = Scenario(by=odd)
    read = tomllib.loads(config_text(scenario, ["simulate", "--by", odd]))
    assert Scenario.model_validate(read["scenario"]) == scenario


def test_reading_metrics_stops_at_the_first_line_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    assert read_metrics(file) == []
    file.write_text(json.dumps({"round": 0}) + "\n" + '{"rou')
    assert read_metrics(file) == [{"round": 0}]


def test_a_run_is_one_process_at_a_time_and_its_shards_last_as_long(filled: RunFolder) -> None:
    """Two would write each other's rounds; what a killed one left is cleared away."""
    filled.shards.mkdir()
    (filled.shards / "left.npz").write_bytes(b"by a run that was killed")
    with filled.occupied():
        assert list(filled.shards.iterdir()) == []
        assert filled.shards.stat().st_mode & 0o077 == 0
        (filled.shards / "mine.npz").write_bytes(b"")
        with (
            pytest.raises(NomoatError, match="worked on by another"),
            opened(filled.path).occupied(),
        ):
            pass
        assert (filled.shards / "mine.npz").exists()
    assert not filled.shards.exists()
    assert not filled.lock.exists()
    with filled.occupied():
        pass


def test_a_new_run_that_failed_at_once_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", Scenario(), [])
    with pytest.raises(ZeroDivisionError), folder.occupied():
        raise ZeroDivisionError
    folder.forget()
    assert not folder.path.exists()
