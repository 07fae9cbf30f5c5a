"""Where a model is put: the GPU there is, whatever its make, or what its owner says."""

from __future__ import annotations

import pytest
import torch

from nomoat.aggregation.errors import UsageError
from nomoat.lora.model.base_model import pick_device


@pytest.mark.parametrize(
    ("cuda", "mps", "picked"),
    [(True, False, "cuda"), (False, True, "mps"), (True, True, "cuda"), (False, False, "cpu")],
)
def test_auto_takes_the_gpu_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == picked
    assert pick_device("cpu").type == "cpu"
    for kind, there in (("cuda", cuda), ("mps", mps)):
        if there:
            assert pick_device(kind).type == kind
        else:
            with pytest.raises(UsageError, match=f"no {kind.upper()} device here; use cpu"):
                pick_device(kind)


def test_a_device_nobody_knows_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="'gpu' is no device; auto, cpu, cuda and mps are"):
        pick_device("gpu")
