"""AdamW's moments of an adapter, kept so that a later round can go on where this one ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.protocol.adapter import LORA_A, AdapterSpec, TensorSpec, Vector

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """First and second moment of every value (d,), and how many steps made those of A and of B.

    Factors that were frozen keep what they had: alternating methods have a count for each.
    """

    mean: Vector
    square: Vector
    steps_a: int = 0
    steps_b: int = 0

    @classmethod
    def none(cls, spec: AdapterSpec) -> Moments:
        """Return those of an adapter that was never trained."""
        return cls(np.zeros(spec.size, np.float32), np.zeros(spec.size, np.float32))


def recall(
    moments: Moments,
    spec: AdapterSpec,
    trained: tuple[bool, bool],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put the moments of the trained factors (A, B) into an optimiser that has taken no step.

    The optimiser's one parameter holds those factors, flat, in the spec's order. The step count is
    the larger of theirs: they differ only if a method trains both after one alone.
    """
    import torch

    if moments.mean.shape != (spec.size,) or moments.square.shape != (spec.size,):
        raise LocalProtocolError("the moments are of an adapter of another shape")
    steps = max(moments.steps_a * trained[0], moments.steps_b * trained[1])
    if not steps:
        return
    (flat,) = optimizer.param_groups[0]["params"]
    places = [spec.manifest.slices[tensor.name] for tensor in _chosen(spec, trained)]

    def gathered(values: Vector) -> torch.Tensor:
        whole = np.concatenate([values[place] for place in places])
        return torch.from_numpy(whole).to(flat.device)

    # A fused optimiser keeps its count where the values are.
    count = torch.tensor(float(steps), device=flat.device)
    optimizer.state[flat] = {
        "step": count,
        "exp_avg": gathered(moments.mean),
        "exp_avg_sq": gathered(moments.square),
    }


def remember(
    before: Moments, spec: AdapterSpec, trained: tuple[bool, bool], optimizer: torch.optim.Optimizer
) -> Moments:
    """Return the moments after training: of trained factors the optimiser's, others as before."""
    (flat,) = optimizer.param_groups[0]["params"]
    state = optimizer.state[flat]
    mean, square = before.mean.copy(), before.square.copy()
    for name, values in (("exp_avg", mean), ("exp_avg_sq", square)):
        found, start = state[name].detach().cpu().numpy(), 0
        for tensor in _chosen(spec, trained):
            values[spec.manifest.slices[tensor.name]] = found[start : start + tensor.size]
            start += tensor.size
    steps = int(state["step"])
    return Moments(
        mean,
        square,
        steps if trained[0] else before.steps_a,
        steps if trained[1] else before.steps_b,
    )


def _chosen(spec: AdapterSpec, trained: tuple[bool, bool]) -> Iterator[TensorSpec]:
    for tensor in spec.manifest.tensors:
        if trained[0] if tensor.name.endswith(LORA_A) else trained[1]:
            yield tensor
