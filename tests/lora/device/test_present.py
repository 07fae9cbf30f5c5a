"""Which GPU is meant and whether one may be started, known without loading torch or a driver."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.lora.device import present
from nomoat.lora.device.present import (
    check_names,
    check_there,
    gpu_of,
    gpus_of,
    may_use_gpu,
    names,
    torch_has_cuda,
    unmeasured_gpu,
    why_no_cuda,
)


@pytest.mark.parametrize(
    ("device", "visible", "meant"),
    [
        ("auto", None, 0),
        ("cuda", None, 0),
        ("cuda:1", None, 1),
        ("cuda:1", "3, 2", 2),
        ("auto", "GPU-8f2a", "GPU-8f2a"),
        ("auto", "", None),
        ("cuda:2", "0,1", None),
        ("cpu", None, None),
        ("mps", None, None),
    ],
)
def test_the_device_that_is_looked_at_is_the_one_that_trains(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, meant: int | str | None
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(present, "torch_has_cuda", lambda: True)
    assert gpu_of(device, environment) == meant
    monkeypatch.setattr(present, "torch_has_cuda", lambda: False)
    assert gpu_of(device, environment) is None


def test_of_several_devices_each_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present, "torch_has_cuda", lambda: True)
    assert gpus_of("cuda:0, cuda:2", {}) == (0, 2)
    assert gpus_of("cuda:1,cuda:0", {"CUDA_VISIBLE_DEVICES": "MIG-5a/7/0,3"}) == (3, "MIG-5a/7/0")
    assert gpus_of("cpu", {}) == ()


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("cuda:0,cuda:0", "names a device twice"),
        ("cuda,cuda:0", "names a device twice"),
        ("cuda:0,cpu", "mixes devices"),
        ("auto,cuda:1", "mixes devices"),
        ("cuda:0,xpu:1", "mixes devices"),
        ("cuda:0,gpu1", "is no device"),
    ],
)
def test_lists_of_devices_that_cannot_be_are_refused_in_one_line(device: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refusal:
        check_names(device)
    assert "\n" not in str(refusal.value)


def test_whether_torch_was_built_for_cuda_is_known_without_loading_it() -> None:
    import torch

    assert torch_has_cuda() == (torch.version.cuda is not None)


@pytest.mark.parametrize(("line", "cuda"), [("cuda: Optional[str] = '12.8'", True),
                                            ("cuda: Optional[str] = None", False),
                                            ('cuda = "12.4"', True)])  # fmt: skip
def test_both_ways_in_which_torch_writes_its_version_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, cuda: bool
) -> None:
    (tmp_path / "version.py").write_text(f"debug = False\n{line}\nhip: Optional[str] = None\n")
    origin = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(present, "find_spec", lambda _: origin)
    assert torch_has_cuda() is cuda


@pytest.mark.parametrize(
    ("device", "visible", "nodes", "may"),
    [
        ("cpu", None, ("nvidiactl",), False),
        ("auto", None, ("nvidiactl",), True),
        ("auto", None, ("dxg",), True),
        ("auto", None, (), False),
        ("auto", "", ("nvidiactl",), False),
        ("auto", "0", ("nvidiactl",), True),
        ("cuda", None, (), True),  # a driver that shows no file: in doubt, yes
        ("cuda:0,cuda:1", None, ("nvidiactl",), True),
        ("mps", None, (), True),
        ("cpu,cpu", None, ("nvidiactl",), False),
    ],
)
def test_a_gpu_may_be_used_where_there_is_one_and_nobody_hides_it(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    visible: str | None,
    nodes: tuple[str, ...],
    may: bool,
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(present, "torch_built_for", lambda: frozenset({"cuda"}))
    monkeypatch.setattr(present, "driver_nodes", lambda: nodes)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(present, "is_apple", lambda: False)
    assert may_use_gpu(device, environment) is may
    monkeypatch.setattr(present, "torch_built_for", frozenset)
    assert may_use_gpu("auto", environment) is False


def test_a_list_of_devices_is_read_in_order() -> None:
    assert names("cuda:1, cuda:0") == ("cuda:1", "cuda:0")
    assert names("auto") == names("") == ("auto",)


def test_why_there_is_no_cuda_names_what_would_bring_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(present, "torch_built_for", frozenset)
    assert "built without CUDA" in why_no_cuda({})
    monkeypatch.setattr(present, "torch_built_for", lambda: frozenset({"cuda"}))
    monkeypatch.setattr(present, "driver_nodes", lambda: ())
    assert "no GPU driver is loaded" in why_no_cuda({})
    assert "CUDA_VISIBLE_DEVICES is empty: unset it" in why_no_cuda({"CUDA_VISIBLE_DEVICES": ""})
    assert "is '7'" in why_no_cuda({"CUDA_VISIBLE_DEVICES": "7"})
    monkeypatch.setattr(present, "driver_nodes", lambda: ("nvidiactl",))
    assert "too old" in why_no_cuda({})


def test_a_name_of_no_device_is_refused_without_torch() -> None:
    for good in ("auto", "cpu", "cuda", "cuda:1", "mps", "xpu:0", "cuda:0,cuda:1"):
        check_names(good)
    for bad in ("tpu", "cuda:", "cuda:x", "CUDA", "cpu,tpu", "meta"):
        with pytest.raises(UsageError, match="is no device"):
            check_names(bad)


@pytest.mark.parametrize(
    ("device", "built", "nodes", "visible", "said"),
    [
        ("cuda", set(), ("nvidiactl",), None, "no CUDA device here; use cpu .this torch was built"),
        ("cpu,cuda:1", {"cuda"}, (), None, "no CUDA device here; use cpu .no GPU driver"),
        ("cuda", {"hip"}, ("kfd",), "", "no CUDA device here; use cpu .CUDA_VISIBLE_DEVICES is"),
        ("xpu", {"cuda"}, ("dri/renderD128",), None, "no XPU device here; use cpu"),
        ("mps", set(), (), None, "no MPS device here; use cpu .MPS is Apple silicon's"),
        ("tpu", {"cuda"}, ("nvidiactl",), None, "'tpu' is no device"),
    ],
)
def test_a_device_that_surely_is_not_here_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    built: set[str],
    nodes: tuple[str, ...],
    visible: str | None,
    said: str,
) -> None:
    monkeypatch.setattr(present, "torch_built_for", lambda: frozenset(built))
    monkeypatch.setattr(present, "driver_nodes", lambda: nodes)
    monkeypatch.setattr(present, "is_apple", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UsageError, match=said):
        check_there(device, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})


@pytest.mark.parametrize(
    ("device", "built", "nodes"),
    [
        ("auto", set(), ()),
        ("cpu", set(), ()),
        ("cuda:1", {"cuda"}, ("dxg",)),
        ("cuda", {"hip"}, ("kfd",)),
        ("xpu:0", {"xpu"}, ()),
    ],
)
def test_a_device_that_may_be_here_is_left_to_its_driver(
    monkeypatch: pytest.MonkeyPatch, device: str, built: set[str], nodes: tuple[str, ...]
) -> None:
    monkeypatch.setattr(present, "torch_built_for", lambda: frozenset(built))
    monkeypatch.setattr(present, "driver_nodes", lambda: nodes)
    check_there(device, {})


@pytest.mark.parametrize(
    ("device", "built", "nodes", "called"),
    [
        ("auto", {"hip"}, ("kfd",), "AMD GPU"),
        ("cuda:1", {"hip"}, ("kfd",), "AMD GPU"),
        ("auto", {"hip"}, (), ""),
        ("cpu", {"hip"}, ("kfd",), ""),
        ("xpu", {"xpu"}, (), "Intel GPU"),
        ("cuda", {"cuda"}, ("nvidiactl",), ""),
    ],
)
def test_a_gpu_of_whose_memory_nothing_is_known_has_a_name(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    built: set[str],
    nodes: tuple[str, ...],
    called: str,
) -> None:
    monkeypatch.setattr(present, "torch_built_for", lambda: frozenset(built))
    monkeypatch.setattr(present, "driver_nodes", lambda: nodes)
    monkeypatch.setattr(present, "is_apple", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert unmeasured_gpu(device, {}) == called
