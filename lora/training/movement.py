"""Every adapted layer must move in a first step: one that cannot is refused by its name.

A layer without a gradient would be sent, masked and averaged in every round and never learn: a
vision tower's under text, one whose weight a model reads without calling the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nomoat.aggregation.errors import BadData
from nomoat.aggregation.protocol.adapter import LORA_A, LORA_B, AdapterSpec
from nomoat.lora.data.batches import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from nomoat.lora.model.adapter_slot import SlotFactors

LEAST_DISTINCT = 4  # tokens: attention over fewer may have no gradient, whatever the layer
NAMED = 3


def check_layers_move(
    factors: SlotFactors | Mapping[str, Tensor], spec: AdapterSpec, batch: Batch
) -> None:
    """Raise BadData if the batch's gradient, just computed, is zero in some layers and not in all.

    A batch that says nothing (a token after a token, a loss of zero) accuses no layer; nor does a
    layer whose trained factor is multiplied by zeros. factors: by tensor names, each a matrix or a
    stack of matrices.
    """
    if not tells(batch):
        return
    names, moved = [], []
    for layer in spec.layers:
        a, b = factors[layer.name + LORA_A], factors[layer.name + LORA_B]
        if not b.requires_grad and not bool(b.any()):
            continue
        names.append(layer.name)
        moved.append(_largest(a) + _largest(b))
    if not moved:
        return
    import torch

    sizes = torch.stack([size.to(moved[0].device) for size in moved]).cpu().numpy()
    still = [name for name, size in zip(names, sizes, strict=True) if size == 0]
    if still and len(still) < len(names):
        raise BadData(
            f"{len(still)} of the adapter's {len(names)} layers cannot be trained, no gradient "
            f"reaches them: {', '.join(still[:NAMED])}{' …' if len(still) > NAMED else ''}; choose "
            "other --target-modules"
        )


def tells(batch: Batch) -> bool:
    """Tell whether the batch says enough for every layer to have a gradient."""
    width = batch.input_ids.shape[1]
    far = bool((batch.places % width >= LEAST_DISTINCT).any())
    return far and len(np.unique(batch.input_ids)) >= 2 * LEAST_DISTINCT


def _largest(factor: Tensor) -> Tensor:
    """The largest size of a gradient's values, 0 without one; of what is not finite, infinity."""
    if not factor.requires_grad or factor.grad is None:
        return factor.new_zeros(())
    return factor.grad.abs().amax().float().nan_to_num(nan=float("inf"))
