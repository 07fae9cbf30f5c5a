"""What training takes is decided by the memory that is free, before anything is loaded."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.aggregation.protocol.adapter import AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.machine import free_memory
from nomoat.client.machine.free_memory import MemoryBound
from nomoat.client.machine.limits_settings import MachineSettings
from nomoat.client.training import memory_fit
from nomoat.client.training.memory_fit import Workload, check_held, fitted, planned
from nomoat.lora.device import present
from nomoat.lora.device.present import names
from nomoat.lora.training.train import CPU_TOKENS
from nomoat.lora.workers.jobs import TrainJob

GIB = 1 << 30
LLAMA_1B = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632,
    "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
    "vocab_size": 32_000, "tie_word_embeddings": True,
}  # fmt: skip
SPEC = AdapterSpec((LayerSpec("q_proj", 2048, 2048, 16),), 16, 32.0, target_modules=("q_proj",))
JOB = TrainJob(
    Path("rows"), SPEC, np.zeros(1, np.float32), TrainSettings(batch_size=16, seq_len=512), b"s"
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def free(main: float, gpu: float | None, config: dict[str, Any] = LLAMA_1B) -> None:
        def gpu_memory(device: str, _ours: object) -> tuple[tuple[int, int], ...]:
            if gpu is None or device == "cpu":
                return ()
            return ((int(gpu * GIB), int(gpu * GIB)),) * len(names(device))

        monkeypatch.setattr(free_memory, "free_bytes", lambda: int(main * GIB))
        monkeypatch.setattr(free_memory, "gpu_memory", gpu_memory)
        monkeypatch.setattr(memory_fit, "resolve", lambda _: tmp_path)
        monkeypatch.setattr(memory_fit, "config", lambda _: config)
        monkeypatch.setattr(memory_fit, "GIVEN_BACK_S", ())  # nothing is waited for

    return free


def fit(device: str = "auto", bound: MemoryBound | None = None, **allowed: Any) -> TrainJob:
    return fitted(JOB, "base", device, MachineSettings(**allowed), bound=bound)


def size(job: TrainJob) -> tuple[object, ...]:
    return job.settings, job.most_tokens, job.checkpointing, job.needs_bytes


def test_less_gpu_memory_means_smaller_pieces_and_then_recomputing(machine: Any) -> None:
    seen = []
    for gib in (40, 12, 8, 4.5, 3.2):
        machine(64, gib)
        job = fit()
        assert job.most_tokens is not None
        assert job.settings == JOB.settings  # the batch of a step stays
        seen.append((job.checkpointing, job.most_tokens))
    assert seen[0] == (False, 16 * 512)
    assert seen[-1][0]
    assert len(set(seen)) > 2
    machine(64, 2)
    with pytest.raises(DoesNotFit, match="would fit"):
        fit()


def test_layers_over_two_cards_fit_where_one_is_too_small(machine: Any) -> None:
    machine(64, 2.5)
    with pytest.raises(DoesNotFit, match="needs"):
        fit("cuda:0,cuda:1")
    over = fit("cuda:0,cuda:1", layers_over_gpus=True)
    assert over.settings == JOB.settings
    assert over.needs_bytes is not None
    assert over.needs_bytes <= int(2.5 * GIB)  # of each of the two
    beside = fit("cuda:0,cuda:1", layers_over_gpus=True, embedding_in_ram=True)
    assert (beside.most_tokens or 0) >= (over.most_tokens or 0)
    machine(64, 1.7)
    with pytest.raises(DoesNotFit, match="laid out"):
        fit("cuda:0,cuda:1", layers_over_gpus=True)


def test_an_embedding_beside_the_gpu_needs_main_memory(machine: Any) -> None:
    machine(64, 40)
    assert fit(embedding_in_ram=True).settings == JOB.settings
    machine(0.46, 40)  # a worker's own, and less than the embedding beside it
    with pytest.raises(DoesNotFit, match="of main memory for the base's embedding"):
        fit(embedding_in_ram=True)


def test_layers_are_shared_out_over_several_gpus_only() -> None:
    over = MachineSettings(layers_over_gpus=True)
    check_held(over, "cuda:0,cuda:1")
    with pytest.raises(UsageError, match="device names one, 'cuda:0'"):
        check_held(over, "cuda:0")


def test_a_share_of_the_gpu_is_all_that_is_counted_with(machine: Any) -> None:
    machine(64, 40)
    whole, half = fit(), fit(max_vram_share=0.12)
    assert (half.checkpointing, half.most_tokens) != (whole.checkpointing, whole.most_tokens)


def test_a_round_takes_no_more_memory_than_the_sheet_said_whatever_is_free(machine: Any) -> None:
    machine(64, 4.5)
    here = free_memory.free_memory("auto")
    small, place = fit(), free_memory.place_of(here, None)
    machine(64, 40)
    whole = fit()
    less = fit(bound=MemoryBound(here.free_bytes, place))
    assert size(less) == size(small) != size(whole)  # in pieces, as if no more were free
    assert size(fit(bound=MemoryBound(64 * GIB, place))) == size(whole)
    elsewhere = MemoryBound(1, "cpu, base in 16 bits")  # its owner has taken another device
    assert size(fit(bound=elsewhere)) == size(whole)
    with pytest.raises(DoesNotFit, match=r"more memory than was agreed to on joining, 1\.1 GB"):
        fit(bound=MemoryBound(GIB, place))
    machine(64, 2)
    with pytest.raises(DoesNotFit, match=r"^needs"):  # it is the card that has no more
        fit(bound=MemoryBound(here.free_bytes, place))


def test_a_cpu_trains_pieces_of_its_own_size(machine: Any) -> None:
    machine(64, None)
    job = fit()
    assert job.most_tokens is not None
    assert job.most_tokens <= max(CPU_TOKENS, 512)
    machine(2, 40)
    with pytest.raises(DoesNotFit):
        fit("cpu")  # the GPU's memory is of no help


def test_a_model_of_an_unknown_family_is_tried_as_it_is(machine: Any) -> None:
    machine(64, None, {**LLAMA_1B, "model_type": "novel"})
    assert fit() == dataclasses.replace(JOB, adam_8bit=False) or fit().most_tokens is None
    with pytest.raises(UsageError, match="not known"):
        planned(Workload(16, 512, 16), Path("base"), free_memory.free_memory("cpu"), None)


@pytest.mark.parametrize(("device", "built"), [("cuda", "hip"), ("xpu:0", "xpu")])
def test_a_gpu_whose_memory_is_not_known_is_not_planned_by_main_memory(
    machine: Any, monkeypatch: pytest.MonkeyPatch, device: str, built: str
) -> None:
    """A card of AMD's or Intel's trains by torch: tried, not refused for want of RAM."""
    machine(2, None)
    monkeypatch.setattr(present, "torch_built_for", lambda: frozenset({built}))
    assert size(fit(device)) == size(JOB)
    with pytest.raises(DoesNotFit):
        fit("cpu")
    with pytest.raises(UsageError, match="GPU is not known before training"):
        planned(Workload(16, 512, 16), Path("base"), free_memory.free_memory(device), None)


def test_fewer_bits_are_refused_in_one_line_on_apples_gpu() -> None:
    check_held(MachineSettings(base_bits=16), "mps")
    with pytest.raises(UsageError, match=r"no kernels for MPS.*--device cpu"):
        check_held(MachineSettings(base_bits=4), "mps")


def test_eight_bit_adam_takes_less_and_is_refused_in_one_line_where_it_cannot_be_had(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(64, 40)
    job = fit(adam_8bit=True)
    assert job.adam_8bit
    full, less = (
        planned(
            Workload(16, 512, 16, adam_8bit=few),
            Path("base"),
            free_memory.free_memory("auto"),
            None,
        )
        for few in (False, True)
    )
    assert less.predicted.total < full.predicted.total
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    check_held(MachineSettings())
    with pytest.raises(UsageError, match="pip install bitsandbytes"):
        check_held(MachineSettings(adam_8bit=True))


def test_a_base_in_four_bits_fits_where_it_would_not_in_sixteen(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(64, 2.2)
    with pytest.raises(DoesNotFit, match="4-bit"):
        fit()
    assert fit(base_bits=4).most_tokens is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="base_bits"):
        check_held(MachineSettings(base_bits=8))
