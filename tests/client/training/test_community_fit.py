"""Before anything is joined: whether its training fits this machine, and what would."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from builders import community_info
from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.client.machine import free_memory as rooms
from nomoat.client.machine.free_memory import WORKER_BYTES, FreeMemory, free_memory
from nomoat.client.membership import joining
from nomoat.client.settings import VolunteerSettings
from nomoat.client.training import community_fit, memory_fit
from nomoat.client.training.memory_fit import Workload
from nomoat.lora.layout.parts import WHOLE, Layout
from nomoat.lora.memory.prediction import cpu_host, cuda_host, predict
from nomoat.lora.model.files import config
from nomoat.lora.model.shape import ALL_LINEAR, ModelShape

RANK = 4


def info(model: Path) -> CommunityInfo:
    values = ModelShape.from_config(config(model)).adapter_parameters(RANK, (ALL_LINEAR,))
    return community_info(adapter_values=values, local_steps=12, batch_size=8, seq_len=64)


def test_the_rank_is_found_from_the_size_of_the_adapter(tiny_model: Path) -> None:
    workload = community_fit.announced(info(tiny_model), tiny_model)
    assert (workload.rank, workload.batch_size, workload.seq_len) == (RANK, 8, 64)


def test_the_line_names_need_and_free_memory(tiny_model: Path) -> None:
    small = FreeMemory("cpu", 8_000_000_000, cpu_host(1_000_000_000))
    assert community_fit.line(info(tiny_model), str(tiny_model), small).startswith(
        "cpu: training takes about 1.0 GB of 8.0 GB free"
    )


@pytest.fixture
def seven_billion(tiny_model: Path, tmp_path: Path) -> tuple[CommunityInfo, str]:
    large = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128}
    changed = json.loads((tiny_model / "config.json").read_text()) | large | heads
    (tmp_path / "config.json").write_text(json.dumps(changed))
    (tmp_path / "model.safetensors").touch()  # what counts is the configuration
    return replace(info(tiny_model), adapter_values=40_000_000), str(tmp_path)


Large = tuple[CommunityInfo, str]


def test_what_does_not_fit_is_refused_with_what_would(seven_billion: Large) -> None:
    with pytest.raises(
        DoesNotFit, match=r"town does not fit this cuda: it needs 1\d\.\d GiB.*4-bit"
    ) as no:
        community_fit.line(*seven_billion, FreeMemory("cuda", 8 << 30, cuda_host()))
    assert no.value.exit_code == 7


def test_a_card_that_cannot_hold_the_base_whole_gets_it_in_four_bits(
    seven_billion: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (FreeMemory("cuda", gib << 30, cuda_host()) for gib in (8, 40))
    monkeypatch.setattr(memory_fit, "_can_quantise", lambda: True)
    assert community_fit.bits(*seven_billion, small) == 4
    line = community_fit.line(*seven_billion, small, 4)
    assert "the base is held in 4 bits, as it does not fit in 16" in line
    line = community_fit.line(*seven_billion, large, 4)  # its owner's choice
    assert "the base is held in 4 bits" in line
    assert "does not fit" not in line
    assert community_fit.rank(*seven_billion, small, 4) >= 16
    assert community_fit.bits(*seven_billion, large) is None
    with pytest.raises(DoesNotFit):
        community_fit.bits(*seven_billion, FreeMemory("cuda", 3 << 30, cuda_host()))
    monkeypatch.setattr(memory_fit, "_can_quantise", lambda: False)
    with pytest.raises(DoesNotFit, match=r"4-bit.*pip install bitsandbytes"):
        community_fit.bits(*seven_billion, small)


@pytest.mark.parametrize(
    ("device", "gib", "found"),
    [
        ("cuda", 40, (WHOLE, None)),
        ("cuda", 8, (WHOLE, 4)),
        ("cuda", 5.15, (Layout(embedding_in_ram=True), 4)),
        ("cuda:0,cuda:1", 5.15, (Layout(embedding_in_ram=True), 4)),
        ("cuda:0,cuda:1", 4.2, (Layout(over_gpus=True), 4)),
        ("cuda:0,cuda:1", 10, (WHOLE, 4)),
    ],
)
def test_what_fits_no_card_even_in_four_bits_is_laid_out_as_a_last_resort(
    seven_billion: Large,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gib: float,
    found: tuple[Layout, int | None],
) -> None:
    each = (int(gib * (1 << 30)), int(gib * (1 << 30)))
    file = Path(seven_billion[1]) / "config.json"
    words = {"vocab_size": 32_000, "tie_word_embeddings": False}
    file.write_text(json.dumps(json.loads(file.read_text()) | words))
    monkeypatch.setattr(rooms, "gpu_memory", lambda device, _: (each,) * len(device.split(",")))
    monkeypatch.setattr(memory_fit, "_can_quantise", lambda: True)
    assert community_fit.held(*seven_billion, device, None) == found
    layout, bits = found
    line = community_fit.line(*seven_billion, free_memory(device, layout=layout), bits)
    assert layout.in_words in line
    assert ("GB of one GPU" in line) == layout.over_gpus
    if layout != WHOLE:
        assert community_fit.held(*seven_billion, device, 4) == found  # the owner said 4
        with pytest.raises(DoesNotFit):  # said of the base held whole
            community_fit.line(*seven_billion, free_memory(device), bits)


def test_a_refusal_names_the_gpus_that_would_do_together(
    seven_billion: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cards(count: int, gib: float) -> None:
        each, there = (int(gib * (1 << 30)),) * 2, [f"cuda:{place}" for place in range(count)]

        def gpu_memory(device: str, _: object) -> tuple[tuple[int, int], ...]:
            return tuple(each for name in device.split(",") if name in there)

        monkeypatch.setattr(rooms, "gpu_memory", gpu_memory)

    monkeypatch.setattr(memory_fit, "_can_quantise", lambda: True)
    cards(2, 4)
    with pytest.raises(DoesNotFit, match=r"choose a smaller .*: --device cuda:0,cuda:1$"):
        community_fit.held(*seven_billion, "cuda:0", None)
    for count, gib in ((1, 4), (2, 1.5)):
        cards(count, gib)
        with pytest.raises(DoesNotFit) as no:
            community_fit.held(*seven_billion, "cuda:0", None)
        assert "--device" not in str(no.value)


def test_a_processor_that_cannot_hold_the_base_whole_gets_half_of_its_bits(
    seven_billion: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_fit, "multiplies_16_bits", lambda: False)
    middle, large = (FreeMemory("cpu", gib << 30, cpu_host(0)) for gib in (20, 64))
    assert community_fit.bits(*seven_billion, middle) == 16
    line = community_fit.line(*seven_billion, middle, 16)
    assert "the base is held in 16 bits, as it does not fit in 32" in line
    assert community_fit.bits(*seven_billion, large) is None
    with pytest.raises(DoesNotFit):  # nor is it asked to compute in four
        community_fit.bits(*seven_billion, FreeMemory("cpu", 8 << 30, cpu_host(0)))


def test_a_processor_made_for_sixteen_bits_gets_them_where_the_base_is_large(
    seven_billion: Large, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = FreeMemory("cpu", 64 << 30, cpu_host(0))
    for quick, held, why in (
        (True, 16, ", in which this processor trains faster"),
        (False, None, ""),
    ):
        monkeypatch.setattr(memory_fit, "multiplies_16_bits", lambda quick=quick: quick)
        assert community_fit.bits(*seven_billion, large) == held
        line = community_fit.line(*seven_billion, large, 16)
        assert line.endswith(f"held in 16 bits{why}")
        assert community_fit.bits(info(tiny_model), str(tiny_model), large) is None
    monkeypatch.setattr(memory_fit, "multiplies_16_bits", lambda: True)
    small = FreeMemory("cpu", 8 << 30, cpu_host(0))
    with pytest.raises(DoesNotFit, match="GiB are free"):
        community_fit.bits(*seven_billion, small)
    card = FreeMemory("cuda", 64 << 30, cuda_host())
    assert community_fit.bits(*seven_billion, card) is None


def test_rows_are_cut_only_where_fewer_bits_are_not_enough(seven_billion: Large) -> None:
    announced, base = seven_billion
    long = replace(announced, seq_len=8192, batch_size=1)
    workload = community_fit.announced(long, Path(base))
    whole = memory_fit.planned(workload, Path(base), FreeMemory("cuda", 1 << 40, cuda_host()), 4)
    least = replace(whole.training, checkpointing=True)
    needed = predict(ModelShape.from_config(config(Path(base))), least, cuda_host()).total
    enough, tight = (
        FreeMemory("cuda", needed + spare, cuda_host()) for spare in (1 << 20, -(1 << 20))
    )
    assert "cut" not in community_fit.line(long, base, enough, 4)
    assert "rows are cut at 4096 tokens" in community_fit.line(long, base, tight, 4)


@pytest.mark.parametrize("spare", [0, 3_000_000, 100_000_000])
def test_auto_is_the_largest_rank_that_fits(tiny_model: Path, spare: int) -> None:
    workload, host = Workload(16, 128, 1), cpu_host(WORKER_BYTES)
    least = memory_fit.planned(workload, tiny_model, FreeMemory("cpu", 1 << 40, host), None)
    memory = FreeMemory("cpu", least.predicted.total + spare, host)
    found = community_fit.rank(info(tiny_model), str(tiny_model), memory, None)
    asked = replace(community_fit.announced(info(tiny_model), tiny_model), rank=found)
    assert memory_fit.planned(asked, tiny_model, memory, None)
    if found < MAX_RANK:
        with pytest.raises(DoesNotFit):
            memory_fit.planned(replace(asked, rank=2 * found), tiny_model, memory, None)


def test_what_the_owner_says_is_what_counts_and_what_is_too_much_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = VolunteerSettings(
        address="x:1", name="ada", data=Path("d"), base=str(tiny_model), rank=4, device="cpu"
    )
    assert community_fit.rank_of(settings, info(tiny_model)) == 4
    monkeypatch.setattr(rooms, "free_bytes", lambda: 1 << 20)
    auto = settings.model_copy(update={"rank": "auto"})
    with pytest.raises(DoesNotFit, match="GiB are free"):
        community_fit.rank_of(auto, info(tiny_model))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    unknown = auto.model_copy(update={"base": str(tmp_path)})
    with pytest.raises(UsageError, match=r"'gpt2' is not known.*give --rank a number"):
        community_fit.rank_of(unknown, info(tiny_model))


def test_memory_that_a_worker_of_ours_holds_will_be_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the second training of a session would not fit beside the base of the first."""
    monkeypatch.setattr(rooms, "free_bytes", lambda: 1 << 30)
    ours = free_memory("cpu", ours=frozenset({os.getpid()})).free_bytes
    assert (1 << 30) + (10 << 20) < ours < (64 << 30)
    assert free_memory("cpu", ours=frozenset({2**22 + 1})).free_bytes == 1 << 30  # it has ended


def test_an_unknown_family_is_said_to_be_unknown(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (other / name).symlink_to(tiny_model / name)
    changed = json.loads((tiny_model / "config.json").read_text()) | {"model_type": "mamba"}
    (other / "config.json").write_text(json.dumps(changed))
    line = community_fit.line(info(tiny_model), str(other), FreeMemory("cpu", 1_000, cpu_host(0)))
    assert "not known before it is loaded" in line
    other_card = FreeMemory("AMD GPU", 1_000, cpu_host(0), measured=False)
    line = community_fit.line(info(tiny_model), str(tiny_model), other_card)
    assert line == "AMD GPU; what this model takes is not known before it is loaded"
    assert community_fit.bits(info(tiny_model), str(tiny_model), other_card) is None


def test_the_machine_has_some_memory() -> None:
    assert free_memory("cpu").free_bytes > 1 << 20


def test_the_preview_is_made_in_another_process(
    tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: ran.append(a) or run(*a, **k))
    settings = VolunteerSettings(address="a:1", name="ada", data=tiny_data, base=str(tiny_model))
    shown = joining.preview(settings, 64)
    assert len(ran) == 1  # a tokenizer alone needs no torch, so it was not tried again
    assert "60 rows" in shown
    assert "tokens" in shown


def test_a_machine_that_trains_less_than_the_community_is_asked_for_less(
    seven_billion: Large,
) -> None:
    announced, base = seven_billion
    workload = community_fit.announced(announced, Path(base), 4)
    whole = community_fit.announced(announced, Path(base)).rank
    assert (workload.rank, workload.frozen_rank) == (4, whole - 4)
    memory = FreeMemory("cuda", 1 << 40, cuda_host())
    least = memory_fit.planned(workload, Path(base), memory, 4).predicted.total
    bare = memory_fit.planned(
        replace(workload, frozen_rank=0), Path(base), memory, 4
    ).predicted.total
    assert least == bare  # what is frozen is taken from the room, not counted as trained
    frozen = 4 * ModelShape.from_config(config(Path(base))).adapter_parameters(
        whole - 4, (ALL_LINEAR,)
    )
    smallest = replace(workload, batch_size=1)
    one = memory_fit.planned(smallest, Path(base), FreeMemory("cuda", 12 << 30, cuda_host()), 4)
    tight = FreeMemory("cuda", one.predicted.total + frozen - 1, cuda_host())
    assert memory_fit.planned(smallest, Path(base), tight, 4).training != one.training


def test_a_rank_the_method_cannot_do_is_refused_before_anything_is_joined(
    tiny_model: Path,
) -> None:
    plain, strict = info(tiny_model), replace(info(tiny_model), method="fedex")
    community_fit.check_rank(plain, str(tiny_model), 1)
    community_fit.check_rank(strict, str(tiny_model), RANK)
    with pytest.raises(UsageError, match=f"fedex, which needs rank {RANK} of everyone, not 2"):
        community_fit.check_rank(strict, str(tiny_model), 2)


def test_a_containers_file_cache_is_not_taken_for_used_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 700\nactive_file 50\n")
    assert rooms._free_in_cgroup(tmp_path) == 800
    (tmp_path / "memory.max").write_text("max\n")
    assert rooms._free_in_cgroup(tmp_path) is None
