"""Before anything is joined: whether its training fits this machine, and what would."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nomoat.aggregation.enrolment import CommunityInfo
from nomoat.aggregation.errors import DoesNotFit
from nomoat.client import fits, joining
from nomoat.client.config import VolunteerSettings
from nomoat.client.room import Room, room
from nomoat.lora.memory import cpu_host, cuda_host
from nomoat.lora.model_files import config
from nomoat.lora.model_shape import ALL_LINEAR, ModelShape

RANK = 4


def info(model: Path) -> CommunityInfo:
    values = ModelShape.from_config(config(model)).adapter_parameters(RANK, (ALL_LINEAR,))
    return CommunityInfo(
        "town", bytes(32), "", "m", "", bytes(32), 1, values, "fedavg", 12, 8, 64,
        True, 8, False, "open", 1, 1, b"ca", 0, bytes(64),
    )  # fmt: skip


def test_the_rank_is_found_from_the_size_of_the_adapter(tiny_model: Path) -> None:
    plan = fits.need(info(tiny_model), tiny_model, Room("cpu", 1 << 40, cpu_host(0)))
    assert plan.training.rank == RANK
    assert (plan.training.micro_batch, plan.training.seq_len) == (8, 64)


def test_the_line_names_need_and_free_memory(tiny_model: Path) -> None:
    small = Room("cpu", 8_000_000_000, cpu_host(1_000_000_000))
    assert fits.line(info(tiny_model), str(tiny_model), small).startswith(
        "cpu: a training takes about 1.0 GB of 8.0 GB free"
    )


def test_what_does_not_fit_is_refused_with_what_would(tiny_model: Path, tmp_path: Path) -> None:
    """A model of 7 billion values in 16 bits, on a card of 8 GB."""
    large = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128}
    changed = json.loads((tiny_model / "config.json").read_text()) | large | heads
    (tmp_path / "config.json").write_text(json.dumps(changed))
    (tmp_path / "model.safetensors").touch()  # what counts is the configuration
    announced = replace(info(tiny_model), adapter_values=40_000_000)
    with pytest.raises(
        DoesNotFit, match=r"town does not fit this cuda: it needs 1\d\.\d GiB.*4-bit"
    ) as no:
        fits.line(announced, str(tmp_path), Room("cuda", 8 << 30, cuda_host()))
    assert no.value.exit_code == 7


def test_an_unknown_family_is_said_to_be_unknown(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (other / name).symlink_to(tiny_model / name)
    changed = json.loads((tiny_model / "config.json").read_text()) | {"model_type": "mamba"}
    (other / "config.json").write_text(json.dumps(changed))
    line = fits.line(info(tiny_model), str(other), Room("cpu", 1_000, cpu_host(0)))
    assert "not known before it is loaded" in line


def test_the_machine_has_some_memory() -> None:
    assert room("cpu").free_bytes > 1 << 20


def test_the_preview_is_made_in_another_process(
    tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: ran.append(a) or run(*a, **k))
    settings = VolunteerSettings(address="a:1", name="ada", data=tiny_data, base=str(tiny_model))
    shown = joining.preview(settings, 64)
    assert ran
    assert "60 rows" in shown
    assert "tokens" in shown
