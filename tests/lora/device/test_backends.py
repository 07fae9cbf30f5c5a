"""Where a model is put: the GPU there is, whatever its make, or what its owner says."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nomoat.aggregation.errors import DoesNotFit, UsageError
from nomoat.lora.device import backends
from nomoat.lora.device.backends import Cuda, Device, Mps, pick
from nomoat.lora.device.quantising import check_bitsandbytes


@pytest.mark.parametrize(
    ("cuda", "mps", "picked"),
    [(True, False, "cuda"), (False, True, "mps"), (True, True, "cuda"), (False, False, "cpu")],
)
def test_auto_takes_the_gpu_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick("auto").kind == picked
    assert pick("cpu").kind == "cpu"
    for kind, there in (("cuda", cuda), ("mps", mps)):
        if there:
            assert pick(kind).kind == kind
            assert pick(f"{kind}:0,cpu").place == torch.device(f"{kind}:0")
        else:
            with pytest.raises(UsageError, match=f"no {kind.upper()} device here; use cpu"):
                pick(kind)


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x"])
def test_a_device_nobody_knows_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"'{name}' is no device; auto, cpu, cuda, mps and xpu are"
    ):
        pick(name)


@pytest.mark.parametrize(
    ("raised", "error", "said"),
    [
        (RuntimeError("The NVIDIA driver on your\nsystem is too old"), UsageError, "is too old"),
        (torch.OutOfMemoryError("CUDA out of memory"), DoesNotFit, "has no free memory"),
        (AssertionError("Torch not compiled with CUDA enabled"), UsageError, "use cpu"),
    ],
)
def test_a_gpu_that_does_not_start_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[Exception], said: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", fails)
    with pytest.raises(error, match=said) as caught:
        Cuda(torch.device("cuda:0")).start()
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="there is no cuda:1: CUDA counts 1 here"):
        Cuda(torch.device("cuda:1")).start()


def test_cards_before_ampere_have_float16_and_scale_their_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Cuda(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert (device.dtype(), device.loss_scale) == (torch.float16, 2.0**13)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    assert (device.dtype(), device.loss_scale) == (torch.bfloat16, 1.0)


def test_bitsandbytes_that_cannot_work_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, cuda, mps = (kind(torch.device("cpu")) for kind in (Device, Cuda, Mps))
    find = "nomoat.lora.device.quantising.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda _: None)
    with pytest.raises(UsageError, match=r"4 bits needs bitsandbytes: pip install"):
        check_bitsandbytes("a base of 4 bits", cuda)
    monkeypatch.setattr(find, lambda _: object())
    with pytest.raises(UsageError, match="cannot be had on mps"):
        check_bitsandbytes("a base of 4 bits", mps)
    mute = SimpleNamespace(
        cextension=SimpleNamespace(lib=SimpleNamespace(compiled_with_cuda=False))
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", mute)
    assert check_bitsandbytes("8-bit Adam", cpu) is mute
    with pytest.raises(UsageError, match="no library for this torch's CUDA"):
        check_bitsandbytes("8-bit Adam", cuda)
    mute.cextension.lib.compiled_with_cuda = True
    assert check_bitsandbytes("8-bit Adam", cuda) is mute


def test_every_kind_of_device_is_asked_through_one_table() -> None:
    assert {name: kind.kind for name, kind in backends.KINDS.items()} == {
        name: name for name in ("cpu", "cuda", "mps", "xpu")
    }
    assert type(backends.of(torch.device("cpu"))) is Device
